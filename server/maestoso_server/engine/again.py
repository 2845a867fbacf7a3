"""Running again what has ended: restart, retry, and the revival by a child."""

from __future__ import annotations

from ..payload import EMPTY, Json
from . import cursor, messages, slots, statuses
from .attempts import revived
from .commands import begin, restart_clock, take_held
from .cursor import continues
from .decision import APPLIED, MessageKind, Outcome
from .ending import failed_rows
from .events import ChildRevived, Restart, Retry
from .guards import guard_row, holder_row, over
from .needs import Definition
from .nodes import Node
from .outcomes import behind, refused, stale
from .rows import PASSED_BY
from .state import TaskRow, TaskStatus, View, WorkflowStatus
from .steps import RECOUNT, REVIVE
from .turn import Turn

_ENDED = int(WorkflowStatus.COMPLETED)
_COMPLETED = int(TaskStatus.COMPLETED)


COMPENSATED = (
    "Workflow {} has compensated what it had completed, so there is nothing to go on from. "
    "Restart it, or rerun it from its first task."
)


def apply_restart(turn: Turn, event: Restart) -> Outcome | None:
    """From the beginning, in a new generation, on newer definitions if the event says so."""
    header = turn.header
    if header.status < _ENDED:
        return refused(f"Workflow: {header.id} is not in terminal state, unable to restart.")
    if header.status == WorkflowStatus.COMPLETED and not turn.plan.restartable:
        return refused(f"Workflow: {header.id} is non-restartable")
    if being_removed(turn):
        return refused("it is being removed")
    if continues(header):
        return behind()
    if event.snapshot_id is not None and event.snapshot_id != header.snapshot_id:
        plan = turn.ask(Definition(event.snapshot_id))
        if plan is None:
            return None
        turn.plan = plan
    if event.snapshot_id is not None:
        header.snapshot_id = event.snapshot_id
        header.name = event.name or turn.plan.name
        header.version = event.version if event.version is not None else turn.plan.version
    begin_anew(turn, "RESTARTED")
    return APPLIED


def begin_anew(
    turn: Turn, told: str, *, input: Json | None = None, correlation_id: str | None = None
) -> None:
    """From the first node, in a new generation, with another input where one is given. `told`: what
    listeners hear that has happened."""
    header = turn.header
    header.generation += 1
    if input is not None:
        header.input = input
        turn.corrected = True
    if correlation_id is not None:
        header.correlation_id = correlation_id
        turn.corrected = True
    reopen_header(turn)
    header.open = header.permissive_failed = header.last_task = 0
    header.output = None
    header.variables = EMPTY
    stays = {"parked": cursor.read(header)["parked"]}  # early signals
    begun = {"steps": [], "held": [], "skips": {}, "undoing": 0, "undone": 0}
    turn.cursor = {**cursor.read(header), **begun, **stays}
    turn.keep_work()
    turn.forget_rows(View(header, whole=True))
    begin(turn)
    statuses.tell(turn, told)
    tell_parent(turn)


def being_removed(turn: Turn) -> bool:
    """Nothing revives an execution that is being deleted."""
    return turn.header.cursor is not None and bool(turn.pending_work()["removing"])


def reopen_header(turn: Turn) -> None:
    """An ended workflow runs again."""
    header = turn.header
    header.status = WorkflowStatus.RUNNING
    header.reason = None
    header.failed_task = 0
    header.ended_ms = 0
    turn.changed = turn.payload_changed = turn.revived = True
    turn.ended = False
    slots.take_again(turn)


def tell_parent(turn: Turn) -> None:
    header = turn.header
    if header.parent_id:
        turn.send(header.parent_id, MessageKind.CHILD_REVIVED, messages.child_revived(header))


def apply_retry(turn: Turn, event: Retry) -> Outcome | None:
    """From what failed, keeping what completed."""
    header = turn.header
    if header.status < _ENDED:
        return refused(f"Workflow is still running.  status={header.status.name}")
    if being_removed(turn):
        return refused("it is being removed")
    if continues(header):
        return behind()
    if header.last_task == 0:
        return refused("Workflow has not started yet")
    if is_undone(turn):
        if event.by_parent:  # what it had done is undone: for its parent it begins anew
            return apply_restart(turn, Restart(now_ms=event.now_ms, seed=event.seed))
        return refused(COMPENSATED.format(header.id))
    failed = failed_rows(turn, 0, 1)
    if turn.lacking:
        return None
    if header.status == WorkflowStatus.COMPLETED or (
        not failed and header.status != WorkflowStatus.TIMED_OUT
    ):
        return refused(
            "There are no retryable tasks! "
            "Use restart if you want to attempt entire workflow execution again."
        )
    revive(turn, resume=event.resume_children, tell=not event.by_parent)
    return APPLIED


def is_undone(turn: Turn) -> bool:
    """Tasks that a retry would build upon have been compensated."""
    return turn.header.cursor is not None and bool(turn.pending_work()["undone"])


def revive(turn: Turn, *, resume: bool, tell: bool) -> None:
    """Run an ended workflow again: failed and cancelled rows first, then what its end held back."""
    reopen_header(turn)
    turn.header.permissive_failed = 0
    turn.header.output = None
    restart_clock(turn)
    statuses.tell(turn, "RETRIED")
    turn.later((REVIVE, 0, resume))
    take_held(turn)
    if tell:
        tell_parent(turn)


def apply_child_revived(turn: Turn, event: ChildRevived) -> Outcome | None:
    """A child runs again: so does its task here, and this workflow with it."""
    row = turn.row(event.seq)
    if row is None:
        return None if turn.lacking else stale(f"there is no task {event.seq}")
    if row.generation != turn.header.generation or row.superseded or row.child_id != event.child_id:
        return stale("the task has another child by now")
    if row.status < _COMPLETED:
        return stale("the task waits for its child already")
    node = turn.node_of(row)
    if node is None:
        return None if turn.lacking else stale("the task is not part of the definition")
    if node.optional:
        return stale("the task is optional: its workflow has gone on")
    if being_removed(turn):
        return stale("its workflow is being removed")
    if turn.header.status >= _ENDED and is_undone(turn):
        return stale("its parent has compensated what it had completed")
    if continues(turn.header) and turn.header.status >= _ENDED:
        return behind()
    moved_on = over(turn, node, row.path, revived=turn.header.status >= _ENDED)
    if node.holder is not None:
        holder_row(turn, node, row.path)
    guard = guard_row(turn, node, row.path)
    joins = [turn.newest(join.reference, row.path) for join in node.joins]
    if turn.lacking:
        return None
    if moved_on is not None:
        return stale(f"task {moved_on.reference} has taken the failure: its workflow has gone on")
    _reopen_child_row(turn, node, row, guard)
    if turn.header.status >= _ENDED:
        revive(turn, resume=True, tell=True)
    turn.agenda.extend((RECOUNT, join.seq) for join in joins if join is not None)
    return APPLIED


def _reopen_child_row(turn: Turn, node: Node, row: TaskRow, guard: TaskRow | None) -> None:
    mine = turn.edit(row)
    if turn.drop_settling(row.seq):
        pass  # nothing has followed from its end yet
    elif row.status in (TaskStatus.COMPLETED, TaskStatus.COMPLETED_WITH_ERRORS):
        turn.set_state(mine, passed=PASSED_BY)
    elif (row.state or {}).get("passed") == PASSED_BY and guard is not None:
        known = (guard.state or {}).get("permissive", [])
        turn.set_state(turn.edit(guard), permissive=[seq for seq in known if seq != row.seq])
    elif (row.state or {}).get("passed") == PASSED_BY and turn.header.permissive_failed:
        turn.header.permissive_failed -= 1
    mine.state = revived(turn, node, mine)
    turn.set_status(mine, TaskStatus.IN_PROGRESS)
    mine.reason = None
