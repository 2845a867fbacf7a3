"""A result for the open task with a reference, whoever brings it."""

from __future__ import annotations

from ..payload import EMPTY, Json
from . import reasons
from .decision import APPLIED, Outcome, Verdict
from .events import UpdateTask
from .names import split_reference
from .nodes import SUB_WORKFLOW
from .outcomes import absent, refused
from .results import TOLD, keep_for_retry, redacted
from .state import TaskRow, TaskStatus, WorkflowStatus
from .steps import BY_POLICY, SETTLE
from .turn import Turn

_ENDED = int(WorkflowStatus.COMPLETED)
_COMPLETED = int(TaskStatus.COMPLETED)


def apply_update_task(turn: Turn, event: UpdateTask) -> Outcome | None:
    header = turn.header
    if header.status >= _ENDED:
        return refused(f"it is {header.status.name}: its tasks cannot change any more")
    row = open_row_of(turn, event.reference)
    if turn.lacking:
        return None
    if row is None:
        return absent(f"it has no open task {event.reference}")
    node = turn.node_of(row)
    if node is None:
        return None if turn.lacking else absent("the task is not part of the definition")
    if node.kind not in TOLD or node.kind == SUB_WORKFLOW:
        told = "its child" if node.kind == SUB_WORKFLOW else "the server"
        return refused(f"task {event.reference} is a {node.type}: {told} decides how it ends")
    output, reason = redacted(turn, row, event.output, event.reason)
    if turn.lacking:
        return None
    mine = turn.edit(row)
    mine.output = merged(mine.output, output or EMPTY)
    mine.updated_ms = turn.now_ms
    if event.status != TaskStatus.IN_PROGRESS:
        mine.reason = reasons.short(reason)
        turn.close(node, mine, event.status)
        keep_for_retry(mine, event.status)
        turn.later((SETTLE, mine.seq, BY_POLICY))
    return Outcome(Verdict.APPLIED, seq=mine.seq) if mine.seq else APPLIED


def open_row_of(turn: Turn, reference: str) -> TaskRow | None:
    """The open row that a user calls so: with a turn's `__N` that turn, without it the newest."""
    for row in _candidates(turn, reference):
        if row is not None and row.status < _COMPLETED:
            return row
    return None


def _candidates(turn: Turn, reference: str) -> list[TaskRow | None]:
    node = turn.plan.nodes.get(reference)
    if node is not None:
        return [turn.latest(reference) if node.loops else turn.newest(reference, ())]
    base, path = split_reference(reference)
    known = turn.plan.nodes.get(base)
    if known is not None:
        return [turn.newest(base, path)]
    # A branch of a dynamic fork: its name may end in a number of its own.
    found = [turn.newest(reference, ()), turn.latest(reference)]
    return [*found, turn.newest(base, path)] if path else found


def merged(old: Json | None, new: Json) -> Json:
    """The members of the new over those of the old; what is no object replaces."""
    before, after = (old.value if old is not None else {}), new.value
    if not before or not isinstance(before, dict) or not isinstance(after, dict):
        return new
    return Json.of({**before, **after})
