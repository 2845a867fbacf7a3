"""What a definition asks for when a row is born or ends: `outputSchema`, `cacheConfig`,
`onStateChange`. Looked at only for nodes that have one of them (`Node.watched`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..definitions.sinks import queue_of
from ..payload import Json
from . import reasons
from .changes import KEYS, TOLD_AT_BIRTH, Change
from .decision import CacheWrite, Publication
from .document import task_value
from .expressions import Lookup, resolve
from .limits import PAYLOAD_MAX_BYTES
from .names import shown_reference
from .state import TaskRow, TaskStatus

if TYPE_CHECKING:
    from .nodes import Node
    from .turn import Turn

_COMPLETED = TaskStatus.COMPLETED


def judge(
    turn: Turn, node: Node, row: TaskRow, status: TaskStatus, reason: str | None
) -> tuple[TaskStatus, str | None]:
    """How a row really ends: an output that its schema does not allow is a failure, which the retry
    policy may repeat. What completes is kept for the next task with the same key."""
    if status != _COMPLETED:
        return status, reason
    schema = turn.policy_of(row, node).output_schema
    if schema is not None:
        faults = schema.faults(row.output.value if row.output is not None else {}, "output")
        if faults:
            return TaskStatus.FAILED, reasons.breaks_schema("output", "outputSchema", faults)
    key = (row.state or {}).get("cache")
    if node.cache is not None and key is not None and not (row.state or {}).get("cached"):
        output = row.output if row.output is not None else Json.of({})
        turn.cached.append(CacheWrite(row.name, key, output, turn.now_ms + node.cache.ttl_ms))
        turn.changed = True
    return status, reason


def born(turn: Turn, node: Node, row: TaskRow) -> None:
    """A row was made, as an attempt of its own."""
    for status in TOLD_AT_BIRTH.get(row.status, (row.status,)):
        _note(turn, node, row, status)


def note(turn: Turn, node: Node, row: TaskRow) -> None:
    """A row has changed its status."""
    _note(turn, node, row, row.status)


def _note(turn: Turn, node: Node, row: TaskRow, status: TaskStatus) -> None:
    changes = node.changes.get(status) if node.changes is not None else None
    if changes:
        seen = row.copy()
        seen.status = status
        turn.notices.append((node, seen, changes))


def publications(turn: Turn) -> list[Publication]:
    """What is to be told of the changes noted since the last event. Wants the rows that payloads
    read; the row itself is seen as it was in that moment."""
    made = []
    for node, row, changes in turn.notices:
        lookup = _seen_from(turn, node, row)
        for number, change in enumerate(changes):
            made.append(_publication(turn, row, number, change, resolve(change.payload, lookup)))
    return made


def _seen_from(turn: Turn, node: Node, row: TaskRow) -> Lookup:
    others = turn.lookup(row.path)

    def lookup(root: str, attribute: str | None) -> Any:
        if root == node.reference:
            return task_value(turn.header, row, attribute)
        return others(root, attribute)

    return lookup


def _publication(turn: Turn, row: TaskRow, number: int, change: Change, payload: Any) -> Publication:
    header, task = turn.header, turn.task_id(row.seq)
    told = {
        "type": change.type,
        "payload": payload,
        "status": row.status.name,
        "taskId": task,
        "referenceTaskName": shown_reference(row.reference, row.path),
        "workflowInstanceId": header.id,
        "workflowType": header.name,
        "workflowVersion": header.version,
        "correlationId": header.correlation_id,
    }
    body = Json.of(told)
    if len(body.raw) > PAYLOAD_MAX_BYTES:
        error = reasons.task_too_large(len(body.raw), task, header.id, PAYLOAD_MAX_BYTES)
        body = Json.of({**told, "payload": None, "error": error})
    queue = queue_of(f"conductor:{change.type}", header.name, row.reference, task)
    return Publication(queue, f"{task}:{KEYS[row.status]}:{number}", body)
