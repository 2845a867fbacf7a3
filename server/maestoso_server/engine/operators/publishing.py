"""EVENT: a message into the outbox, written by the commit that ends the task (K28, B9).

The output is the message. The sink was resolved with the input, once (B6); with `asyncComplete`
the row stays open after it has published, and whoever handles the event ends it.
"""

from __future__ import annotations

from typing import Any

from ...definitions.sinks import NoQueue, queue_of
from ...payload import Json
from ..decision import Publication
from ..limits import PAYLOAD_MAX_BYTES
from ..nodes import Node
from ..state import TaskRow, TaskStatus
from ..turn import Turn
from .finishing import Unusable, finish, too_large


def run(turn: Turn, node: Node, row: TaskRow, _found: Any) -> None:
    if (row.state or {}).get("published"):
        return
    header, task = turn.header, turn.task_id(row.seq)
    inputs = row.input.value
    sink = inputs.get("sink", node.task.sink)
    waits = inputs.get("asyncComplete", node.task.async_complete)
    if not isinstance(sink, str) or not sink:
        raise Unusable(f"The sink of task {node.reference} is no text: {str(sink)[:100]}")
    if not isinstance(waits, bool):
        raise Unusable(f"asyncComplete of task {node.reference} must be true or false: {str(waits)[:100]}")
    try:
        queue = queue_of(sink, header.name, node.reference, task)
    except NoQueue as refusal:
        finish(turn, node, row, TaskStatus.FAILED, reason=refusal.reason)
        return
    message = Json.of(
        {
            **inputs,
            "sink": sink,
            "asyncComplete": waits,
            "workflowInstanceId": header.id,
            "workflowType": header.name,
            "workflowVersion": header.version,
            "correlationId": header.correlation_id,
            "taskToDomain": header.task_to_domain.value if header.task_to_domain else {},
            "event_produced": queue,
        }
    )
    if len(message.raw) > PAYLOAD_MAX_BYTES:
        raise Unusable(too_large(turn, row.seq, message))
    turn.publish(Publication(queue, task, message))
    if waits:
        mine = turn.edit(row)
        mine.output = message
        turn.set_state(mine, published=True)
    else:
        finish(turn, node, row, TaskStatus.COMPLETED, message)
