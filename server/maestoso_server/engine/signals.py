"""Signals: they end what waits for somebody, and wait themselves for what is still to come."""

from __future__ import annotations

from . import messages
from .decision import MessageKind, Outcome, Verdict
from .ending import open_rows
from .events import Keep, Signal
from .names import split_reference
from .nodes import DYNAMIC_FORK, HUMAN, WAIT
from .outcomes import refused, stale
from .results import keep_for_retry
from .state import TaskRow, TaskStatus, WorkflowStatus
from .steps import BY_POLICY, SETTLE
from .turn import Turn
from .updates import merged

_ENDED = int(WorkflowStatus.COMPLETED)
_COMPLETED = int(TaskStatus.COMPLETED)
_LOOKED_THROUGH = 100
"""Open rows among which a signal without a reference looks for the one that waits."""


def apply_signal(turn: Turn, event: Signal) -> Outcome | None:
    header = turn.header
    if header.status >= _ENDED:
        return stale(f"Workflow is in {header.status.name} state")
    found = _waiting(turn, event.reference)
    if turn.lacking:
        return None
    if found is None:
        return _park(turn, event)
    node = turn.node_of(found)
    if node is None:
        return None
    mine = turn.edit(found)
    mine.output = merged(mine.output, event.output)
    if event.status == TaskStatus.IN_PROGRESS:
        mine.updated_ms = turn.now_ms
        return Outcome(Verdict.APPLIED, seq=mine.seq)
    turn.close(node, mine, event.status, event.reason)
    keep_for_retry(mine, event.status)
    turn.later((SETTLE, mine.seq, BY_POLICY))
    return Outcome(Verdict.APPLIED, seq=mine.seq)


def _waiting(turn: Turn, reference: str | None) -> TaskRow | None:
    """The open WAIT or HUMAN with this reference (a turn's `__N` chooses the turn), or the first."""
    if reference is None:
        return next((row for row in open_rows(turn, 0, _LOOKED_THROUGH) if _can_be_told(turn, row)), None)
    node = turn.plan.nodes.get(reference)
    if node is not None and not node.loops:
        row = turn.newest(reference, ())
    elif node is not None:
        row = turn.latest(reference)
    else:
        base, path = split_reference(reference)
        row = turn.newest(base, path)
    return row if row is not None and row.status < _COMPLETED and _can_be_told(turn, row) else None


def _can_be_told(turn: Turn, row: TaskRow) -> bool:
    node = turn.node_of(row)
    return node is not None and node.kind in (WAIT, HUMAN)


def _park(turn: Turn, event: Signal) -> Outcome:
    """Keep it for a task that is still to come; say so where none can come."""
    reference = event.reference
    if reference is None:
        return refused("no task waits for a signal")
    if event.keep == Keep.NEVER:
        return refused(f"no task {reference} waits for a signal")
    base = reference if reference in turn.plan.nodes else split_reference(reference)[0]
    node = turn.plan.nodes.get(base)
    if node is None:
        dynamic = any(other.kind == DYNAMIC_FORK for other in turn.plan.nodes.values())
        if not dynamic or event.keep != Keep.ALWAYS:
            return refused(f"the definition has no task {reference}")
    elif node.kind not in (WAIT, HUMAN):
        return refused(f"task {reference} is a {node.type}: only WAIT and HUMAN take signals")
    elif not node.loops and turn.newest(base, ()) is not None:
        return stale(f"task {reference} has ended already")
    work = turn.pending_work()
    if base not in work["parked"]:
        work["parked"].append(base)
        turn.keep_work()
    kept = Signal(
        now_ms=event.now_ms, reference=base, status=event.status, output=event.output, reason=event.reason
    )
    turn.send(turn.header.id, MessageKind.SIGNAL, messages.signal(kept), parked=True)
    return Outcome(Verdict.PARKED, f"task {reference} has not begun yet")
