"""What operators and other workflows want of a whole workflow."""

from __future__ import annotations

from ..payload import EMPTY, Json
from . import messages
from .attempts import revived
from .cursor import continues
from .decision import APPLIED, MessageKind, Outcome, Verdict
from .ending import end, failed_rows, open_rows, prepare_output
from .events import ChildRevived, Continue, Pause, Restart, Resume, Retry, Signal, Start, Terminate
from .names import split_reference
from .needs import Definition
from .plan import DYNAMIC_FORK, HUMAN, WAIT, Node
from .results import stale
from .rows import PASSED_BY
from .state import TaskRow, TaskStatus, View, WorkflowStatus
from .steps import BIRTH, BY_POLICY, RECOUNT, REVIVE, SETTLE
from .turn import Turn

_ENDED = int(WorkflowStatus.COMPLETED)
_COMPLETED = int(TaskStatus.COMPLETED)
_LOOKED_THROUGH = 100


def refused(reason: str) -> Outcome:
    return Outcome(Verdict.REFUSED, reason)


def _behind() -> Outcome:
    return Outcome(Verdict.BEHIND, "the workflow is still being ended")


# --- life ----------------------------------------------------------------------------------------


def apply_start(turn: Turn, _event: Start) -> Outcome | None:
    """The header is there, with the caller's input; defaults come from the definition (B21)."""
    header = turn.header
    if header.last_task or turn.view.header.revision:
        return stale("the workflow has started already")
    begin(turn)
    return APPLIED


def begin(turn: Turn) -> None:
    """Run from the first node."""
    header, plan = turn.header, turn.plan
    header.clock_ms = turn.now_ms
    header.input = _with_defaults(header.input, plan.input_template)
    if plan.variables:
        header.variables = Json.of(plan.variables)
    turn.changed = turn.payload_changed = True
    if plan.timeout_s:
        turn.deadlines[0] = turn.now_ms + plan.timeout_s * 1000
    if plan.first is not None:
        turn.later((BIRTH, plan.first.reference, (), 0))


def _with_defaults(value: Json, defaults: dict[str, object]) -> Json:
    given = value.value if defaults else None
    if not isinstance(given, dict):
        return value
    missing = {key: default for key, default in defaults.items() if given.get(key) is None}
    return Json.of({**given, **missing}) if missing else value


def apply_pause(turn: Turn, _event: Pause) -> Outcome | None:
    header = turn.header
    if header.status >= _ENDED:
        return refused(f"Workflow {header.id} has ended, status cannot be updated.")
    if header.status == WorkflowStatus.PAUSED:
        return APPLIED
    header.status = WorkflowStatus.PAUSED
    turn.changed = True
    work = turn.pending_work()
    work["held"], work["steps"] = work["held"] + work["steps"], []
    turn.keep_work()
    return APPLIED


def apply_resume(turn: Turn, _event: Resume) -> Outcome | None:
    header = turn.header
    if header.status != WorkflowStatus.PAUSED:
        return refused(
            f"The workflow {header.id} is not PAUSED so cannot resume. Current status is {header.status.name}"
        )
    header.status = WorkflowStatus.RUNNING
    _restart_clock(turn)
    _take_held(turn)
    return APPLIED


def _restart_clock(turn: Turn) -> None:
    turn.header.clock_ms = turn.now_ms
    turn.changed = True
    if turn.plan.timeout_s:
        turn.deadlines[0] = turn.now_ms + turn.plan.timeout_s * 1000


def _take_held(turn: Turn) -> None:
    work = turn.pending_work()
    turn.agenda.extend(work["held"])
    work["held"] = []
    turn.keep_work()


def apply_continue(turn: Turn, _event: Continue) -> Outcome | None:
    work = turn.pending_work()
    if not work["steps"]:
        return stale("nothing is left to do")
    turn.agenda.extend(work["steps"])
    work["steps"] = []
    turn.keep_work()
    return APPLIED


def apply_terminate(turn: Turn, event: Terminate) -> Outcome | None:
    header = turn.header
    if header.status == WorkflowStatus.COMPLETED:
        return (
            stale("it is COMPLETED") if event.by_parent else refused("Cannot terminate a COMPLETED workflow.")
        )
    if header.status == WorkflowStatus.TERMINATED:
        return APPLIED
    if header.status >= _ENDED:
        return _rename_end(turn, event)
    before = header.status
    header.status = WorkflowStatus.TERMINATED
    output = prepare_output(turn)
    header.status = before
    if turn.lacking:
        return None
    end(turn, WorkflowStatus.TERMINATED, event.reason or None, output, by_parent=event.by_parent)
    return APPLIED


def _rename_end(turn: Turn, event: Terminate) -> Outcome:
    """FAILED or TIMED_OUT becomes TERMINATED; nothing else follows."""
    if event.by_parent:
        return stale(f"it is {turn.header.status.name}")
    turn.header.status = WorkflowStatus.TERMINATED
    turn.header.reason = event.reason or turn.header.reason
    turn.changed = turn.payload_changed = turn.ended = True
    return APPLIED


# --- again ---------------------------------------------------------------------------------------


def apply_restart(turn: Turn, event: Restart) -> Outcome | None:
    """From the beginning, in a new generation, on newer definitions if the event says so."""
    header = turn.header
    if header.status < _ENDED:
        return refused(f"Workflow: {header.id} is not in terminal state, unable to restart.")
    if header.status == WorkflowStatus.COMPLETED and not turn.plan.restartable:
        return refused(f"Workflow: {header.id} is non-restartable")
    if continues(header):
        return _behind()
    if event.snapshot_id is not None and event.snapshot_id != header.snapshot_id:
        plan = turn.ask(Definition(event.snapshot_id))
        if plan is None:
            return None
        turn.plan = plan
    header.generation += 1
    if event.snapshot_id is not None:
        header.snapshot_id = event.snapshot_id
        header.name = event.name or turn.plan.name
        header.version = event.version if event.version is not None else turn.plan.version
    _reopen(turn)
    header.open = header.permissive_failed = header.last_task = 0
    header.output = None
    header.variables = EMPTY
    header.cursor = None
    turn.cursor = None
    turn.forget_rows(View(header, whole=True))
    begin(turn)
    tell_parent(turn)
    return APPLIED


def _reopen(turn: Turn) -> None:
    header = turn.header
    header.status = WorkflowStatus.RUNNING
    header.reason = None
    header.failed_task = 0
    header.ended_ms = 0
    turn.changed = turn.payload_changed = turn.revived = True
    turn.ended = False


def tell_parent(turn: Turn) -> None:
    header = turn.header
    if header.parent_id:
        turn.send(header.parent_id, MessageKind.CHILD_REVIVED, messages.child_revived(header))


def apply_retry(turn: Turn, event: Retry) -> Outcome | None:
    """From what failed, keeping what completed."""
    header = turn.header
    if header.status < _ENDED:
        return refused(f"Workflow is still running.  status={header.status.name}")
    if continues(header):
        return _behind()
    if header.last_task == 0:
        return refused("Workflow has not started yet")
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


def revive(turn: Turn, *, resume: bool, tell: bool) -> None:
    """Run an ended workflow again: failed and cancelled rows first, then what its end held back."""
    _reopen(turn)
    turn.header.permissive_failed = 0
    turn.header.output = None
    _restart_clock(turn)
    turn.later((REVIVE, 0, resume))
    _take_held(turn)
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
    if continues(turn.header) and turn.header.status >= _ENDED:
        return _behind()
    if node.loops:
        turn.newest(node.loops[-1], row.path[:-1])
    joins = [turn.newest(join.reference, row.path) for join in node.joins]
    if turn.lacking:
        return None
    _reopen_child_row(turn, node, row)
    if turn.header.status >= _ENDED:
        revive(turn, resume=True, tell=True)
    turn.agenda.extend((RECOUNT, join.seq) for join in joins if join is not None)
    return APPLIED


def _reopen_child_row(turn: Turn, node: Node, row: TaskRow) -> None:
    mine = turn.edit(row)
    if turn.drop_settling(row.seq):
        pass  # nothing has followed from its end yet
    elif row.status in (TaskStatus.COMPLETED, TaskStatus.COMPLETED_WITH_ERRORS):
        turn.set_state(mine, passed=PASSED_BY)
    elif (row.state or {}).get("passed") == PASSED_BY and turn.header.permissive_failed:
        turn.header.permissive_failed -= 1
    mine.state = revived(turn, node, mine)
    turn.set_status(mine, TaskStatus.IN_PROGRESS)
    mine.reason = None


# --- signals -------------------------------------------------------------------------------------


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
    mine.output = _merged(mine.output, event.output)
    if event.status == TaskStatus.IN_PROGRESS:
        mine.updated_ms = turn.now_ms
        return APPLIED
    turn.close(node, mine, event.status, event.reason)
    mine.state = None
    turn.later((SETTLE, mine.seq, BY_POLICY))
    return APPLIED


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
    base, path = (reference, ()) if reference in turn.plan.nodes else split_reference(reference)
    node = turn.plan.nodes.get(base)
    if node is None:
        dynamic = any(other.kind == DYNAMIC_FORK for other in turn.plan.nodes.values())
        if not dynamic:
            return refused(f"the definition has no task {reference}")
    elif node.kind not in (WAIT, HUMAN):
        return refused(f"task {reference} is a {node.type}: only WAIT and HUMAN take signals")
    elif not node.loops and turn.newest(base, ()) is not None:
        return stale(f"task {reference} has ended already")
    del path
    work = turn.pending_work()
    if base not in work["parked"]:
        work["parked"].append(base)
        turn.keep_work()
    kept = Signal(
        now_ms=event.now_ms, reference=base, status=event.status, output=event.output, reason=event.reason
    )
    turn.send(turn.header.id, MessageKind.SIGNAL, messages.signal(kept), parked=True)
    return Outcome(Verdict.PARKED, f"task {reference} has not begun yet")


def _merged(old: Json | None, new: Json) -> Json:
    before, after = (old.value if old is not None else {}), new.value
    if not before or not isinstance(before, dict) or not isinstance(after, dict):
        return new
    return Json.of({**before, **after})
