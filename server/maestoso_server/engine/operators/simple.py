"""NOOP, SET_VARIABLE and TERMINATE: done in the moment they run."""

from __future__ import annotations

from typing import Any

from ...payload import EMPTY, Json, encode
from .. import reasons
from ..limits import VARIABLES_MAX_KB
from ..nodes import Node
from ..state import TaskRow, TaskStatus, WorkflowStatus
from ..steps import END
from ..turn import Turn
from .finishing import Unusable, finish

_ENDS = {
    "COMPLETED": WorkflowStatus.COMPLETED,
    "FAILED": WorkflowStatus.FAILED,
    "TERMINATED": WorkflowStatus.TERMINATED,
}


def prepare_nothing(_turn: Turn, _node: Node, _row: TaskRow) -> None:
    return None


def run_noop(turn: Turn, node: Node, row: TaskRow, _found: Any) -> None:
    finish(turn, node, row, TaskStatus.COMPLETED, EMPTY)


def run_set_variable(turn: Turn, node: Node, row: TaskRow, _found: Any) -> None:
    changes = row.input.value
    if changes:
        variables = {**turn.header.variables.value, **changes}
        raw = encode(variables)
        if len(raw) > VARIABLES_MAX_KB * 1024:
            raise Unusable(reasons.variables_too_large(len(raw), turn.header.id, VARIABLES_MAX_KB))
        turn.header.variables = Json.parsed(raw, variables)
        turn.changed = turn.payload_changed = True
    finish(turn, node, row, TaskStatus.COMPLETED, EMPTY)


def run_terminate(turn: Turn, node: Node, row: TaskRow, _found: Any) -> None:
    inputs = row.input.value
    status = _ENDS.get(str(inputs.get("terminationStatus")))
    if status is None:
        finish(turn, node, row, TaskStatus.FAILED, reason=reasons.TERMINATION_STATUS)
        return
    given = inputs.get("workflowOutput")
    output = given if isinstance(given, dict) else {} if given is None else {"output": given}
    mine = turn.edit(row)
    mine.output = Json.of(output)
    turn.close(node, mine, TaskStatus.COMPLETED)
    told = inputs.get("terminationReason")
    reason = str(told) if told else reasons.terminated_by_task(status, turn.task_id(row.seq))
    turn.first((END, int(status), reason, row.seq))
