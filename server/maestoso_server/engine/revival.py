"""Making an ended workflow run again: the steps REVIVE and RECOUNT."""

from __future__ import annotations

from typing import Any

from . import messages
from .attempts import revived
from .cursor import step_of
from .decision import MessageKind
from .ending import failed_rows
from .guards import holder_row, over
from .nodes import BODY, EXCLUSIVE_JOIN, JOIN, LOOP, SUB_WORKFLOW, TRY, Node
from .operators.joins import awaited, counters, references
from .settle import next_of
from .state import TaskRow, TaskStatus
from .steps import AGAIN, CLOSE, RECOUNT, REVIVE
from .turn import Step, Turn

REVIVED_AT_ONCE = 200


def prepare_revive(turn: Turn, step: Step) -> list[tuple[TaskRow, Node | None]]:
    rows = failed_rows(turn, step[1], REVIVED_AT_ONCE)
    found = [(row, turn.node_of(row)) for row in rows]
    for row, node in found:
        if node is not None and node.guard is not None:
            over(turn, node, row.path)
        if node is not None and node.kind == TRY:
            holder_row(turn, node, row.path)
    return found


def act_revive(turn: Turn, step: Step, found: list[tuple[TaskRow, Node | None]]) -> None:
    _, _, resume = step
    again: list[Step] = []
    for row, node in found:
        if node is None or (node.guard is not None and over(turn, node, row.path) is not None):
            continue
        if node.kind == TRY:
            reopen(turn, node, row)
            turn.later((RECOUNT, row.seq))
        elif node.kind in (JOIN, EXCLUSIVE_JOIN, LOOP):
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


def reopen(turn: Turn, node: Node, row: TaskRow) -> None:
    """Let the part run again whose failure went on. A row that was cut off with its workflow goes on
    where it was."""
    mine = turn.edit(row)
    failure = (mine.state or {}).get("failure") if row.status == TaskStatus.FAILED else None
    turn.set_state(mine, **(revived(turn, node, row) or {}))
    state = mine.state or {}
    turn.set_status(mine, TaskStatus.IN_PROGRESS)
    mine.reason = None
    held = state.get("held", ())
    if failure is not None:
        caught = state.get("caught")
        part = failure[3]
        turn.set_state(mine, part=part, live=failure[4], failure=None, again=True, held=[])
        if part == BODY:
            mine.output = None
            turn.set_state(mine, caught=None)
        elif caught is None:
            mine.output = None
    else:
        turn.set_state(mine, held=[])
    turn.set_state(mine, permissive=[], error=None)
    for step in held:
        turn.later(step_of(list(step)))


def prepare_recount(turn: Turn, step: Step) -> tuple[TaskRow, Node, dict[str, Any]] | None:
    """A join's counters as its rows are now; a loop's chains go on where they were."""
    row = turn.row(step[1])
    if row is None or row.status >= TaskStatus.COMPLETED:
        return None
    node = turn.node_of(row)
    if node is None:
        return None
    if node.kind in (LOOP, TRY):
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
    if node.kind in (LOOP, TRY):
        if mine.state.get("live", 0) <= 0:
            turn.later(next_of(mine))
    elif counted["waiting"] == 0 or node.kind == EXCLUSIVE_JOIN:
        turn.later((CLOSE, row.seq))
