"""The names of errors, by which a TRY catches them.

A worker names a business error itself (`Failure.error_name`); it is kept in the row's `state` as
`error`. Everything else that makes a task fail has a name by what happened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .state import TaskRow, TaskStatus

if TYPE_CHECKING:
    from .turn import Turn

TIMEOUT = "TIMEOUT"
CANCELED = "CANCELED"
WORKER_LOST = "WORKER_LOST"
CHILD_FAILED = "CHILD_FAILED"
SCRIPT_ERROR = "SCRIPT_ERROR"
TASK_FAILED = "TASK_FAILED"

_UNSUCCESSFUL = frozenset(
    {TaskStatus.FAILED, TaskStatus.FAILED_WITH_TERMINAL_ERROR, TaskStatus.TIMED_OUT, TaskStatus.CANCELED}
)
_BY_STATUS = {TaskStatus.TIMED_OUT: TIMEOUT, TaskStatus.CANCELED: CANCELED}
_BY_TYPE = {
    "SUB_WORKFLOW": CHILD_FAILED,
    "INLINE": SCRIPT_ERROR,
    "LAMBDA": SCRIPT_ERROR,
    "JSON_JQ_TRANSFORM": SCRIPT_ERROR,
    "SWITCH": SCRIPT_ERROR,
    "DECISION": SCRIPT_ERROR,
}


def stored_name(row: TaskRow) -> str | None:
    """The name that came with the failure, where one came."""
    return row.state.get("error") if row.state is not None else None


def error_name(row: TaskRow) -> str | None:
    """The name of a failed row's error; None for a row that has not failed."""
    if not TaskStatus.COMPLETED_WITH_ERRORS <= row.status <= TaskStatus.CANCELED:
        return None
    return stored_name(row) or _BY_STATUS.get(row.status) or _BY_TYPE.get(row.type) or TASK_FAILED


def first_name(rows: Iterable[TaskRow]) -> str | None:
    """The first name that came with one of these failures: that of what fails because of them."""
    names = (stored_name(row) for row in rows if row.status in _UNSUCCESSFUL)
    return next((found for found in names if found), None)


def name(turn: Turn, row: TaskRow, error: str | None) -> None:
    """Keep the name of the error that a row of this turn failed with."""
    if error:
        turn.set_state(row, error=error)
