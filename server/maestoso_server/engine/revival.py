"""Making an ended workflow run again: the steps REVIVE and RECOUNT."""

from __future__ import annotations

from typing import Any

from . import messages
from .decision import MessageKind
from .ending import failed_rows
from .nodes import EXCLUSIVE_JOIN, JOIN, LOOP, SUB_WORKFLOW, Node
from .operators.joins import awaited, counters, references
from .state import TaskRow, TaskStatus
from .steps import AGAIN, CLOSE, RECOUNT, REVIVE, TURN
from .turn import Step, Turn

REVIVED_AT_ONCE = 200


def prepare_revive(turn: Turn, step: Step) -> list[tuple[TaskRow, Node | None]]:
    rows = failed_rows(turn, step[1], REVIVED_AT_ONCE)
    return [(row, turn.node_of(row)) for row in rows]


def act_revive(turn: Turn, step: Step, found: list[tuple[TaskRow, Node | None]]) -> None:
    _, _, resume = step
    again: list[Step] = []
    for row, node in found:
        if node is None:
            continue
        if node.kind in (JOIN, EXCLUSIVE_JOIN, LOOP):
            _reopen(turn, row)
            turn.later((RECOUNT, row.seq))
        elif node.kind == SUB_WORKFLOW and row.child_id is not None and resume:
            mine = _reopen(turn, row)
            turn.send(mine.child_id or "", MessageKind.CHILD_RETRY, messages.child_retry(resume=True))
        else:
            again.append((AGAIN, row.seq, False))
    if len(found) == REVIVED_AT_ONCE:
        again.append((REVIVE, found[-1][0].seq, resume))
    turn.first(*again)  # before anything is counted


def _reopen(turn: Turn, row: TaskRow) -> TaskRow:
    """The same row runs again."""
    mine = turn.edit(row)
    turn.set_status(mine, TaskStatus.IN_PROGRESS)
    mine.reason = None
    if mine.type != "SUB_WORKFLOW":
        turn.set_state(mine, recount=True, failed_permissive=0)
    return mine


def prepare_recount(turn: Turn, step: Step) -> tuple[TaskRow, Node, dict[str, Any]] | None:
    """A join's counters as its rows are now; a loop's chains go on where they were."""
    row = turn.row(step[1])
    if row is None or row.status >= TaskStatus.COMPLETED:
        return None
    node = turn.node_of(row)
    if node is None:
        return None
    if node.kind == LOOP:
        return row, node, {}
    state = row.state or {}
    fork = turn.row(state["fork"]) if state.get("fork") else None
    listed = references(turn, node, fork)
    if listed is None:
        return None
    return row, node, counters(turn, node, awaited(node, fork, listed), row.path, frozenset())


def act_recount(turn: Turn, _step: Step, found: tuple[TaskRow, Node, dict[str, Any]] | None) -> None:
    if found is None:
        return
    row, node, counted = found
    mine = turn.edit(row)
    mine.state = {key: value for key, value in {**(mine.state or {}), **counted}.items() if key != "recount"}
    if node.kind == LOOP:
        if mine.state.get("live", 0) <= 0:
            turn.later((TURN, row.seq, mine.state.get("turn", 0)))
    elif counted["waiting"] == 0 or node.kind == EXCLUSIVE_JOIN:
        turn.later((CLOSE, row.seq))
