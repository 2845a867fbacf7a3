"""Parts of a workflow that can be over before the workflow is: those of a TRY, and of a compensation.

A *guard* takes the failures of the tasks in its current part. The row of a TRY or of a compensation
holds which part that is (`state["part"]`). Once it is over (the part failed, or the row ended) the
steps of its tasks are held back, as the end of a workflow holds back all others: a retry that reopens
the part does them then, whoever goes on otherwise forgets them. So no step has to be looked for and
removed when a part ends, however much is going on in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .nodes import LOOP, TRY, Node
from .plan import UNDOING
from .state import Path, TaskRow, TaskStatus
from .steps import BIRTH, JOIN_BIRTH

if TYPE_CHECKING:
    from .reading import Reading
    from .turn import Step, Turn

NO_PART = -2
"""`state["part"]` while nothing runs in the guard: what was open in it is being cancelled."""
_COMPLETED = int(TaskStatus.COMPLETED)


def undoing(turn: Turn) -> int:
    """The seq of the row by which the workflow compensates before it ends; 0: it does not."""
    if turn.header.cursor is None:
        return 0
    seq: int = turn.pending_work()["undoing"]
    return seq


def holder_row(reading: Reading, node: Node, path: Path) -> TaskRow | None:
    """The row that waits for the chains around a node to end; None where it is wanted first."""
    holder = node.holder
    if holder is None:
        return None
    if holder.kind in (LOOP, TRY):
        return reading.newest(holder.reference, path[: len(holder.loops)])
    return compensation_row(reading, holder, path)


def guard_row(reading: Reading, node: Node, path: Path) -> TaskRow | None:
    """The row that takes a node's failures; None: the workflow, or it is wanted first."""
    guard = node.guard
    if guard is None:
        return None
    if guard.kind == TRY:
        return reading.newest(guard.reference, path[: len(guard.loops)])
    return compensation_row(reading, guard, path)


def compensation_row(reading: Reading, node: Node, path: Path) -> TaskRow | None:
    """The row that runs the chain which undoes a task."""
    undone = reading.newest(node.reference, path[: len(node.loops)])
    seq = (undone.state or {}).get("undo") if undone is not None else None
    return reading.row(seq) if seq else None


def over(turn: Turn, node: Node, path: Path, *, revived: bool = False) -> TaskRow | None:
    """The outermost guard whose part around a node is over; None: all of it is still going on, or
    (`revived`) would go on again after a retry of the workflow that has ended."""
    found: TaskRow | None = None
    ending = undoing(turn)
    at = node
    while at.guard is not None:
        guard = at.guard
        row = guard_row(turn, at, path)
        if row is None:
            return None
        if guard.kind == TRY:
            current = (reopened_part(row) if revived else (row.state or {}).get("part")) == at.part
            at = guard
        else:
            current = (row.state or {}).get("at") == [guard.reference, list(path[: len(guard.loops)])]
            driver = turn.node_of(row)
            if driver is None:
                return None
            at, path = driver, row.path
        again = revived and TaskStatus.FAILED <= row.status <= TaskStatus.CANCELED
        if not current or (row.status >= _COMPLETED and not again):
            found = row
    if ending and at.reference != UNDOING:
        return turn.row(ending)
    return found


def reopened_part(row: TaskRow) -> int | None:
    """The part of a TRY in which a retry goes on: that of the failure that went on, or where it was."""
    state = row.state or {}
    failure = state.get("failure") if row.status == TaskStatus.FAILED else None
    part: int | None = failure[3] if failure is not None else state.get("part")
    return part


def over_step(turn: Turn, step: Step) -> TaskRow | None:
    """The guard whose part a step belongs to, where that is over."""
    if step[0] in (BIRTH, JOIN_BIRTH):
        node = turn.node(step[1], step[3])
        return over(turn, node, step[2]) if node is not None else None
    row = turn.row(step[1])
    node = turn.node_of(row) if row is not None else None
    return over(turn, node, row.path) if node is not None and row is not None else None


def hold(turn: Turn, guard: TaskRow, step: Step) -> None:
    """Keep a step of a part that is over, for a retry that reopens it."""
    if guard.type != "TRY":
        return
    mine = turn.edit(guard)
    turn.set_state(mine, held=[*(mine.state or {}).get("held", ()), list(step)])
