"""Events of a workflow's own status (`workflowStatusListenerEnabled`): one for each change, in the
commit that makes it. FINALIZED comes once, last, when nothing of the run is open any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..definitions.models import WorkflowDefinition
from ..definitions.sinks import NoQueue, queue_of
from ..payload import Json
from .decision import Publication

if TYPE_CHECKING:
    from .state import Header
    from .turn import Turn

DEFAULT_SINK = "conductor:workflow_status"
"""Where they go without a `workflowStatusListenerSink`."""


def status_queue(definition: WorkflowDefinition) -> str | None:
    """The queue of a definition's status events; None where nobody listens."""
    if not definition.workflow_status_listener_enabled:
        return None
    sink = definition.workflow_status_listener_sink or DEFAULT_SINK
    try:
        return queue_of(sink, definition.name, "workflow_status", "")
    except NoQueue:  # registration has warned of it
        return None


def finalize(turn: Turn, before: Header) -> None:
    """Tell that nothing of the run is open any more, where this decision has brought that about."""
    header = turn.header
    if _is_final(header) and (turn.revived or not _is_final(before)):
        tell(turn, "FINALIZED")


def _is_final(header: Header) -> bool:
    return header.status.terminal and not header.open


def tell(turn: Turn, event: str) -> None:
    """Publish what has become of the workflow, where its definition wants that."""
    queue = turn.plan.status_queue
    if queue is None:
        return
    header = turn.header
    body = {
        "event": event,
        "status": header.status.name,
        "workflowInstanceId": header.id,
        "workflowType": header.name,
        "workflowVersion": header.version,
        "correlationId": header.correlation_id,
        "reasonForIncompletion": header.reason,
        "createTime": header.created_ms,
        "updateTime": turn.now_ms,
        "endTime": header.ended_ms,
    }
    number = header.revision + len(turn.published)
    turn.publish(Publication(queue, f"{header.id}:{event}:{number}", Json.of(body)))
