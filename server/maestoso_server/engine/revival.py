"""Making an ended workflow run again: the steps REVIVE and RECOUNT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import messages
from .attempts import revived
from .cursor import step_of
from .decision import MessageKind
from .ending import failed_rows, open_rows
from .guards import holder_row, over
from .keys import is_follower
from .nodes import BODY, EXCLUSIVE_JOIN, JOIN, LOOP, SUB_WORKFLOW, TRY, Node
from .operators.joins import awaited, counters, references
from .rows import REVIVED
from .settle import next_of
from .state import Path, TaskRow, TaskStatus
from .steps import AFRESH, AGAIN, BIRTH, BRANCHES, CLOSE, JOIN_BIRTH, RECOUNT, REVIVE, SETTLE
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
        elif node.kind == SUB_WORKFLOW and row.child_id is not None and resume and not is_follower(row):
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
        return row, node, {"live": live_chains(turn, node, row)}
    state = row.state or {}
    fork = turn.row(state["fork"]) if state.get("fork") else None
    listed = references(turn, node, fork)
    if listed is None:
        return None
    return row, node, counters(turn, node, awaited(node, fork, listed), row.path, frozenset())


_OPEN_AT_ONCE = 500


def live_chains(turn: Turn, node: Node, holder: TaskRow) -> int:
    """The chains that run in a loop's turn or in the part of a TRY: one for each open row in it, and one
    for each step that will make such a row or go on from one that has ended. Costs the open rows of the
    workflow."""
    state = holder.state or {}
    within = _Within(node, state.get("part"), holder.path)
    if node.kind == LOOP:
        within = _Within(node, None, (*holder.path, state.get("turn", 0)))
    live = sum(within.has(turn, row) for row in _all_open(turn))
    for step in turn.pending():
        kind = step[0]
        if kind in (BIRTH, JOIN_BIRTH, AFRESH):
            made = turn.node(step[1], step[3])
            live += made is not None and within.has_node(made) and step[2] == within.path
        elif kind in (SETTLE, AGAIN):
            row = turn.row(step[1])
            if row is not None and row.status >= TaskStatus.COMPLETED and not row.superseded:
                live += within.has(turn, row)
        elif kind == BRANCHES:
            row = turn.row(step[1])
            if row is not None and within.has(turn, row):
                live += _heads(turn, row) - step[2]
    return live


class _Within:
    """Where the chains of a holder run: `part` of a TRY (None: a loop), in the turns of `path`."""

    __slots__ = ("holder", "part", "path")

    def __init__(self, holder: Node, part: int | None, path: Path) -> None:
        self.holder = holder
        self.part = part
        self.path = path

    def has_node(self, node: Node) -> bool:
        if node.holder is None or node.holder.reference != self.holder.reference:
            return False
        return self.part is None or node.part == self.part

    def has(self, turn: Turn, row: TaskRow) -> bool:
        """It runs there; or in an earlier turn, as a chain of its own (`REVIVED`)."""
        depth = len(self.path)
        if len(row.path) != depth or row.path != self.path:
            if self.part is not None or len(row.path) != depth or row.path[:-1] != self.path[:-1]:
                return False
            if (row.state or {}).get("passed") != REVIVED:
                return False
        node = turn.node_of(row)
        return node is not None and self.has_node(node)


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
