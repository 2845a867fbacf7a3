"""`failureWorkflow`: another workflow that is started when this one fails by itself (K33).

Not by an operator's terminate, and not because the parent ended. It has no parent; what it does
changes nothing here. Its input is that of the failed run and what became of it, in bounded form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ids
from ..payload import Json
from . import messages
from .decision import MessageKind
from .needs import Child, ChildAnswer

if TYPE_CHECKING:
    from .turn import Turn

OUTPUT_KEY = "conductor.failure_workflow"


def prepare(turn: Turn) -> ChildAnswer | None:
    """Which snapshot to start; None where the definition names none (or while it is wanted)."""
    definition = turn.plan.definition
    name = _name(turn, definition.failure_workflow)
    if not name:
        return None
    answer: ChildAnswer | None = turn.ask(Child(name, definition.failure_workflow_version))
    return answer


def _name(turn: Turn, given: str | None) -> str | None:
    """A name, or `$workflow.input.key` (also in braces): the value of that key of the input."""
    if given is None or not given.startswith("$"):
        return given
    parts = given.removeprefix("$").strip("{}").split(".")
    inputs = turn.header.input.value
    found = inputs.get(parts[2]) if len(parts) > 2 and isinstance(inputs, dict) else None
    return found if isinstance(found, str) else None


def start(turn: Turn, answer: ChildAnswer) -> None:
    """Start it, and note its id (or why it could not be started) in this workflow's output."""
    header = turn.header
    told = answer.error or ""
    if answer.error is None:
        told = ids.child_id(header.id, "failureWorkflow", header.revision)
        body = messages.child_start(
            header,
            0,
            name=answer.name,
            version=answer.version,
            snapshot_id=answer.snapshot_id,
            input=Json.of(_input(turn)),
            task_to_domain=header.task_to_domain,
            priority=0,
            orphan=True,
            secretive=turn.secretive,
        )
        turn.send(told, MessageKind.CHILD_START, body)
    output = header.output.value if header.output is not None else {}
    header.output = Json.of({**output, OUTPUT_KEY: told} if isinstance(output, dict) else {OUTPUT_KEY: told})


SUMMARY_MAX_BYTES = 32 * 1024
"""How large an input or output may be that the failure workflow gets beside the workflow's id."""


def _bounded(payload: Json | None) -> Any:
    """A payload, or its size where it is large: whoever wants it whole reads the workflow by its id."""
    if payload is None:
        return {}
    if len(payload.raw) > SUMMARY_MAX_BYTES:
        return {"_omittedBytes": len(payload.raw)}
    return payload.value


def _input(turn: Turn) -> dict[str, Any]:
    header = turn.header
    given = header.input.value
    told: dict[str, Any] = {
        **(given if isinstance(given, dict) else {}),
        "workflowId": header.id,
        "reason": header.reason,
        "failureStatus": header.status.name,
        "failedWorkflow": {
            "workflowId": header.id,
            "workflowName": header.name,
            "workflowVersion": header.version,
            "correlationId": header.correlation_id,
            "status": header.status.name,
            "reasonForIncompletion": header.reason,
            "input": _bounded(header.input),
            "output": _bounded(header.output),
        },
    }
    if header.failed_task:
        told["failureTaskId"] = turn.task_id(header.failed_task)
    return told
