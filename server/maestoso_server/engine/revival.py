"""Making an ended workflow run again: the steps REVIVE and RECOUNT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import messages
from .decision import MessageKind
from .ending import failed_rows, open_rows
from .nodes import EXCLUSIVE_JOIN, JOIN, LOOP, SUB_WORKFLOW, Node
from .operators.joins import counters, references
from .rows import REVIVED
from .state import Path, TaskRow, TaskStatus
from .steps import AFRESH, AGAIN, BIRTH, BRANCHES, CLOSE, JOIN_BIRTH, RECOUNT, REVIVE, SETTLE, TURN
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
        return row, node, {"live": live_chains(turn, node, row)}
    state = row.state or {}
    fork = turn.row(state["fork"]) if state.get("fork") else None
    listed = references(turn, node, fork)
    return None if listed is None else (row, node, counters(turn, listed, row.path, frozenset()))


_OPEN_AT_ONCE = 500


def live_chains(turn: Turn, node: Node, loop: TaskRow) -> int:
    """The chains that run in a loop's turn: one for each open row in it, and one for each step that
    will make such a row or go on from one that has ended. Costs the open rows of the workflow."""
    path = (*loop.path, (loop.state or {}).get("turn", 0))
    live = sum(_is_live(turn, node, row, path) for row in _all_open(turn))
    for step in turn.pending():
        kind = step[0]
        if kind in (BIRTH, JOIN_BIRTH, AFRESH):
            made = turn.node(step[1], step[3])
            live += made is not None and _is_in(node, made) and step[2] == path
        elif kind in (SETTLE, AGAIN):
            row = turn.row(step[1])
            settles = row is not None and row.status >= TaskStatus.COMPLETED and not row.superseded
            live += settles and row is not None and _is_live(turn, node, row, path)
        elif kind == BRANCHES:
            row = turn.row(step[1])
            if row is not None and _is_live(turn, node, row, path):
                live += _heads(turn, row) - step[2]
    return live


def _heads(turn: Turn, fork: TaskRow) -> int:
    node = turn.node_of(fork)
    if node is not None and node.branches:
        return len(node.branches)
    fragment = turn.fragment(fork)
    return fragment.count if fragment is not None else 0


def _all_open(turn: Turn) -> Iterator[TaskRow]:
    after = 0
    while True:
        rows = open_rows(turn, after, _OPEN_AT_ONCE)
        yield from rows
        if len(rows) < _OPEN_AT_ONCE:
            return
        after = rows[-1].seq


def _is_in(loop: Node, node: Node) -> bool:
    return bool(node.loops) and node.loops[-1] == loop.reference


def _is_live(turn: Turn, loop: Node, row: TaskRow, path: Path) -> bool:
    """It runs in this turn, or in an earlier one as a chain of its own (`REVIVED`)."""
    if len(row.path) != len(path) or row.path[:-1] != path[:-1]:
        return False
    node = turn.node_of(row)
    if node is None or not _is_in(loop, node):
        return False
    return row.path == path or (row.state or {}).get("passed") == REVIVED


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
