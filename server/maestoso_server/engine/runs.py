"""The steps BIRTH and RUN: they look up the node's kind, and nothing that a node's data contains
can make them fail."""

from __future__ import annotations

from typing import Any

from ..payload import EMPTY, Json
from .limits import TASKS_MAX
from .nodes import EXCLUSIVE_JOIN, JOIN, Node
from .operators.births import BadInput
from .operators.finishing import Unusable, finish
from .operators.joins import act_birth as join_act_birth
from .operators.joins import prepare_birth as join_prepare_birth
from .operators.table import BIRTHS, RUNS
from .rows import add_row
from .state import TaskRow, TaskStatus
from .steps import BY_POLICY, JOIN_BIRTH, SETTLE
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


def prepare_birth(turn: Turn, step: Step) -> tuple[Node, Any] | None:
    _, reference, path, scope = step
    if turn.unresolved:
        turn.unresolved.clear()
    node = turn.plan.nodes.get(reference)
    if node is None:
        node = turn.node(reference, scope)
        if node is None:
            return None
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
    elif node.kind in (JOIN, EXCLUSIVE_JOIN):
        join_act_birth(turn, (JOIN_BIRTH, reference, path, scope, 0), prepared)
    else:
        try:
            BIRTHS[node.kind][1](turn, node, path, scope, prepared)
        except Unusable as error:
            value = prepared if isinstance(prepared, Json) else EMPTY
            _fail_birth(turn, Broken(node, error), step, value)


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
