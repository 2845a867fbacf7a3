"""FORK_JOIN: several chains at once, and the JOIN that follows them."""

from __future__ import annotations

from ..guards import holder_row
from ..nodes import JOIN, Node
from ..reasons import FORK_WITHOUT_JOIN
from ..state import TaskRow, TaskStatus
from ..steps import BIRTH, BRANCHES, JOIN_BIRTH, LAST, NOTIFY
from ..turn import Step, Turn
from .finishing import Unusable

BRANCHES_AT_ONCE = 250
"""A wider fork gets its JOIN first and its branches in decisions of this size."""


def prepare_run(turn: Turn, node: Node, row: TaskRow) -> TaskRow | None:
    """The row that waits for its branches to end: that of the innermost loop, TRY or compensation."""
    return holder_row(turn, node, row.path)


def run(turn: Turn, node: Node, row: TaskRow, holder: TaskRow | None) -> None:
    if node.next is None or node.next.kind != JOIN:
        raise Unusable(FORK_WITHOUT_JOIN)
    if not node.branches or None in node.branches:
        raise Unusable(f"fork {node.reference} has a branch without tasks")
    spread(turn, node, row, holder, [head.reference for head in node.branches if head is not None])


def spread(turn: Turn, node: Node, row: TaskRow, holder: TaskRow | None, heads: list[str]) -> None:
    """Complete the fork's row and start its branches."""
    join = node.next
    if join is None:
        return
    mine = turn.edit(row)
    turn.close(node, mine, TaskStatus.COMPLETED)
    if holder is not None:
        ours = turn.edit(holder)
        turn.set_state(ours, live=(ours.state or {}).get("live", 1) + len(heads))
    if node.joins:
        turn.later((NOTIFY, row.seq))
    path = row.path
    join_birth: Step = (JOIN_BIRTH, join.reference, path, row.scope, row.seq)
    if len(heads) <= BRANCHES_AT_ONCE:
        turn.first(*((BIRTH, head, path, row.seq) for head in heads), join_birth)
    else:
        turn.first(join_birth, (BRANCHES, row.seq, 0))


def prepare_branches(turn: Turn, step: Step) -> tuple[TaskRow, list[str]] | None:
    """(the fork's row, references of the branches from here on)"""
    row = turn.row(step[1])
    node = turn.node_of(row) if row is not None else None
    if row is None or node is None:
        return None
    start, stop = step[2], step[2] + BRANCHES_AT_ONCE
    if node.branches:
        return row, [head.reference for head in node.branches[start:stop] if head is not None]
    fragment = turn.fragment(row)
    if fragment is None:
        return None
    return row, [fragment.reference(index) for index in range(start, min(stop, fragment.count))]


def act_branches(turn: Turn, step: Step, found: tuple[TaskRow, list[str]] | None) -> None:
    if found is None:
        return
    row, heads = found
    births: list[Step] = [(BIRTH, head, row.path, row.seq) for head in heads]
    node = turn.node_of(row)
    if len(heads) == BRANCHES_AT_ONCE:
        births.append((BRANCHES, row.seq, step[2] + BRANCHES_AT_ONCE))
    elif node is not None and node.next is not None:
        births.append((LAST, node.next.reference, row.path))
    turn.first(*births)


def prepare_last(turn: Turn, step: Step) -> TaskRow | None:
    return turn.newest(step[1], tuple(step[2]))


def act_last(turn: Turn, step: Step, join: TaskRow | None) -> None:
    """A join that had to be made before its branches is still what the workflow's output is taken from."""
    if join is not None:
        turn.header.last_task = join.seq
        turn.changed = True
