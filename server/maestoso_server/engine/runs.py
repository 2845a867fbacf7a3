"""The steps BIRTH and RUN: they look up the node's kind, and nothing that a node's data contains
can make them fail."""

from __future__ import annotations

from typing import Any

from ..payload import EMPTY, Json
from .limits import TASKS_MAX
from .nodes import DYNAMIC, EXCLUSIVE_JOIN, JOIN, SUB_WORKFLOW, Node
from .operators import dynamic
from .operators.births import BadInput
from .operators.finishing import Unusable, finish
from .operators.joins import act_birth as join_act_birth
from .operators.joins import prepare_birth as join_prepare_birth
from .operators.table import BIRTHS, RUNS
from .rows import add_row
from .state import TaskRow, TaskStatus
from .steps import AFRESH, BY_POLICY, JOIN_BIRTH, SETTLE
from .turn import Step, Turn

_COMPLETED = int(TaskStatus.COMPLETED)


class Broken:
    """A node that cannot be evaluated: it gets its row, which fails for good with this reason."""

    __slots__ = ("input", "node", "reason")

    def __init__(self, node: Node, error: Exception) -> None:
        self.node = node
        self.input = error.value if isinstance(error, BadInput) else EMPTY
        told = str(error) if isinstance(error, Unusable) else f"{type(error).__name__}: {error}"
        self.reason = (
            told if isinstance(error, Unusable) else f"Task {node.reference} cannot be evaluated: {told}"
        )


class Skipped:
    """A node that an operator wants stepped over, and the row that it has got already."""

    __slots__ = ("row", "skip")

    def __init__(self, turn: Turn, skip: dict[str, Any]) -> None:
        self.skip = skip
        self.row = turn.row(skip["seq"]) if "seq" in skip else None


def prepare_birth(turn: Turn, step: Step) -> tuple[Node, Any] | None:
    _, reference, path, scope = step
    if turn.unresolved:
        turn.unresolved.clear()
    node = turn.plan.nodes.get(reference)
    if node is None:
        node = turn.node(reference, scope)
        if node is None:
            return None
    skip = turn.skip_of(reference)
    if skip is not None:
        return node, Skipped(turn, skip)
    try:
        if turn.header.next_seq > TASKS_MAX:
            raise Unusable(f"the workflow has no room for more than {TASKS_MAX} tasks")
        if node.kind in (JOIN, EXCLUSIVE_JOIN):
            return node, join_prepare_birth(turn, (JOIN_BIRTH, reference, path, scope, 0))
        return node, BIRTHS[node.kind][0](turn, node, path, scope)
    except Exception as error:  # whatever the data was: the node fails, not the decision
        return node, Broken(node, error)


def act_birth(turn: Turn, step: Step, found: tuple[Node, Any] | None) -> None:
    if found is None:
        return
    node, prepared = found
    _, reference, path, scope = step
    if isinstance(prepared, Broken):
        _fail_birth(turn, prepared, step, prepared.input)
    elif isinstance(prepared, Skipped):
        _step_over(turn, node, step, prepared)
    elif node.kind in (JOIN, EXCLUSIVE_JOIN):
        join_act_birth(turn, (JOIN_BIRTH, reference, path, scope, 0), prepared)
    else:
        try:
            BIRTHS[node.kind][1](turn, node, path, scope, prepared)
        except Unusable as error:
            value = prepared if isinstance(prepared, Json) else EMPTY
            _fail_birth(turn, Broken(node, error), step, value)


def _step_over(turn: Turn, node: Node, step: Step, found: Skipped) -> None:
    """The flow has come to a task that is skipped: inside a loop it gets its row of this turn."""
    _, reference, path, scope = step
    row = found.row
    if row is None:
        given, told = Json.of(found.skip.get("input") or {}), Json.of(found.skip.get("output") or {})
        row = add_row(turn, node, path, scope, TaskStatus.SKIPPED, given, output=told)
    else:
        row = turn.edit(row)
        row.state = {"scope": scope}
        turn.header.last_task = row.seq
        del turn.pending_work()["skips"][reference]
        turn.keep_work()
    turn.first((SETTLE, row.seq, BY_POLICY))


def prepare_afresh(turn: Turn, step: Step) -> tuple[Node, Any] | None:
    """As a birth, with the operator's input in the place of the node's own."""
    _, reference, path, scope, given = step
    found = prepare_birth(turn, (AFRESH, reference, path, scope))
    if found is None or turn.lacking:
        return found
    node, prepared = found
    value = Json.of(given)
    try:
        if node.kind == DYNAMIC:
            return node, dynamic.prepare_with(turn, node, value)
        if node.kind == SUB_WORKFLOW:
            own = prepared.value if isinstance(prepared, Json) else {}
            return node, Json.of({**own, "workflowInput": given})
        if isinstance(prepared, tuple):  # a worker's: input and domain
            return node, (value, *prepared[1:])
        return node, value
    except Exception as error:  # see prepare_birth
        return node, Broken(node, error)


def act_afresh(turn: Turn, step: Step, found: tuple[Node, Any] | None) -> None:
    act_birth(turn, step[:4], found)
    if found is not None:
        row = turn.newest(step[1], step[2])
        if row is not None and row.status < _COMPLETED:
            turn.set_state(turn.edit(row), given=True)


def _fail_birth(turn: Turn, broken: Broken, step: Step, value: Json) -> None:
    _, _, path, scope = step
    status = TaskStatus.FAILED_WITH_TERMINAL_ERROR
    row = add_row(turn, broken.node, path, scope, status, value, reason=broken.reason)
    turn.later((SETTLE, row.seq, BY_POLICY))


def prepare_run(turn: Turn, step: Step) -> tuple[Node, TaskRow, Any] | None:
    """None where the row is not open any more."""
    row = turn.row(step[1])
    if row is None or row.status >= _COMPLETED:
        return None
    node = turn.node_of(row)
    if node is None:
        return None
    try:
        return node, row, RUNS[node.kind][0](turn, node, row)
    except Exception as error:  # see prepare_birth
        return node, row, Broken(node, error)


def act_run(turn: Turn, _step: Step, found: tuple[Node, TaskRow, Any] | None) -> None:
    if found is None:
        return
    node, row, prepared = found
    try:
        if isinstance(prepared, Broken):
            raise Unusable(prepared.reason)
        RUNS[node.kind][1](turn, node, row, prepared)
    except Unusable as error:
        status = TaskStatus.FAILED_WITH_TERMINAL_ERROR
        finish(turn, node, row, status, _error_output(node, error), str(error))


def _error_output(node: Node, error: Unusable) -> Json | None:
    return Json.of({"error": str(error)}) if node.type in ("INLINE", "LAMBDA", "JSON_JQ_TRANSFORM") else None
