"""The document that expressions read: what `workflow.*` and `<task reference>.*` mean.

One attribute at a time; the whole document only for a path such as `${t1}` or `${t1..x}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..ids import task_id
from ..payload import Json
from .expressions import MISSING
from .names import shown_reference
from .state import Header, TaskRow


def workflow_value(header: Header, attribute: str | None, environment: Mapping[str, str]) -> Any:
    """`workflow.<attribute>`, or all of it for None. `environment` holds the allowed variables."""
    if attribute is None:
        return {name: read(header) for name, read in _WORKFLOW.items()}
    if attribute == "env":
        return dict(environment)
    read = _WORKFLOW.get(attribute)
    return MISSING if read is None else read(header)


def task_value(header: Header, row: TaskRow, attribute: str | None) -> Any:
    """`<reference>.<attribute>` of a row, or all of it for None."""
    if attribute == "output":  # nearly every read
        return _value(row.output)
    if attribute is None:
        return {name: read(header, row) for name, read in _TASK.items()}
    read = _TASK.get(attribute)
    return MISSING if read is None else read(header, row)


def _value(payload: Json | None) -> Any:
    return {} if payload is None else payload.value


def _optional_id(header: Header) -> str | None:
    return task_id(header.parent_id, header.parent_seq) if header.parent_id else None


def _iteration(row: TaskRow) -> int:
    """The turn that a task belongs to; of a loop, the turn that it is in."""
    if row.type == "DO_WHILE":
        turn: int = (row.state or {}).get("turn", 0)
        return turn
    return row.path[-1] if row.path else 0


_WORKFLOW: dict[str, Callable[[Header], Any]] = {
    "input": lambda header: header.input.value,
    "output": lambda header: _value(header.output),
    "variables": lambda header: header.variables.value,
    "status": lambda header: header.status.name,
    "workflowId": lambda header: header.id,
    "parentWorkflowId": lambda header: header.parent_id,
    "parentWorkflowTaskId": _optional_id,
    "workflowType": lambda header: header.name,
    "version": lambda header: header.version,
    "schemaVersion": lambda _: 2,
    "correlationId": lambda header: header.correlation_id,
    "reasonForIncompletion": lambda header: header.reason,
    "createTime": lambda header: header.created_ms,
    "taskToDomain": lambda header: _value(header.task_to_domain),
    "priority": lambda header: header.priority,
}

_TASK: dict[str, Callable[[Header, TaskRow], Any]] = {
    "input": lambda _, row: row.input.value,
    "output": lambda _, row: _value(row.output),
    "status": lambda _, row: row.status.name,
    "taskType": lambda _, row: row.type,
    "taskDefName": lambda _, row: row.name,
    "referenceTaskName": lambda _, row: shown_reference(row.reference, row.path),
    "taskId": lambda header, row: task_id(header.id, row.seq),
    "workflowInstanceId": lambda header, _: header.id,
    "workerId": lambda _, row: row.worker_id or None,
    "correlationId": lambda header, _: header.correlation_id,
    "reasonForIncompletion": lambda _, row: row.reason,
    "retryCount": lambda _, row: row.attempt,
    "pollCount": lambda _, row: row.poll_count,
    "iteration": lambda _, row: _iteration(row),
    "callbackAfterSeconds": lambda _, row: row.callback_after_s,
    "scheduledTime": lambda _, row: row.scheduled_ms,
    "startTime": lambda _, row: row.started_ms,
    "endTime": lambda _, row: row.ended_ms,
}
