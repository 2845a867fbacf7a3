"""What operators want of a running workflow, and its beginning."""

from __future__ import annotations

from ..payload import Json
from . import failure, keys, reasons, slots, statuses
from .decision import APPLIED, Outcome
from .ending import end, prepare_output
from .events import Continue, Pause, Resume, SlotGranted, Start, Terminate
from .guards import undoing
from .outcomes import refused, stale
from .plan import Plan
from .state import WorkflowStatus
from .steps import BIRTH, COMPENSATING, END
from .turn import Turn

_ENDED = int(WorkflowStatus.COMPLETED)


def apply_start(turn: Turn, event: Start) -> Outcome | None:
    """The header is there, with the caller's input; defaults come from the definition (B21)."""
    header = turn.header
    if header.last_task or turn.view.header.revision:
        return stale("the workflow has started already")
    if turn.plan.slots is not None:
        _default(turn)
        may_begin = slots.ask(turn, told=event.told)
        if not may_begin:
            if may_begin is None:
                return None
            keys.tell_asker(turn, event)
            return APPLIED
    begin(turn)
    keys.tell_asker(turn, event)
    statuses.tell(turn, "STARTED")
    return APPLIED


def apply_slot_granted(turn: Turn, event: SlotGranted) -> Outcome | None:
    outcome = slots.grant(turn, event)
    if outcome is not None:
        return outcome
    begin(turn)
    statuses.tell(turn, "STARTED")
    return APPLIED


def begin(turn: Turn) -> None:
    """Run from the first node."""
    header, plan = turn.header, turn.plan
    header.clock_ms = turn.now_ms
    _default(turn)
    if plan.timeout_s:
        turn.deadlines[0] = turn.now_ms + plan.timeout_s * 1000
    faults = input_faults(plan, header.input)
    if faults:
        reason = reasons.breaks_schema("workflow input", "inputSchema", faults)
        turn.later((END, int(WorkflowStatus.FAILED), reason, 0))
    elif plan.first is not None:
        turn.later((BIRTH, plan.first.reference, (), 0))


def _default(turn: Turn) -> None:
    """What the definition gives a workflow to begin with."""
    header, plan = turn.header, turn.plan
    header.input = with_defaults(header.input, plan.input_template)
    if plan.variables:
        header.variables = Json.of(plan.variables)
    turn.changed = turn.payload_changed = True


def input_faults(plan: Plan, value: Json) -> list[tuple[str, str]]:
    """(path, message) of what a workflow's input, defaults included, violates in its schema. A start
    by a caller is refused for it; a run that another workflow starts begins and fails."""
    schema = plan.input_schema
    return [] if schema is None else schema.faults(value.value, "input")


def with_defaults(value: Json, defaults: dict[str, object]) -> Json:
    """An input with the definition's `inputTemplate` where keys are absent or null (B21)."""
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
    statuses.tell(turn, "PAUSED")
    return APPLIED


def apply_resume(turn: Turn, _event: Resume) -> Outcome | None:
    header = turn.header
    if header.status != WorkflowStatus.PAUSED:
        return refused(
            f"The workflow {header.id} is not PAUSED so cannot resume. Current status is {header.status.name}"
        )
    header.status = WorkflowStatus.RUNNING
    restart_clock(turn)
    take_held(turn)
    statuses.tell(turn, "RESUMED")
    return APPLIED


def restart_clock(turn: Turn) -> None:
    """Give the workflow all of its time again."""
    turn.header.clock_ms = turn.now_ms
    turn.changed = True
    if turn.plan.timeout_s and not undoing(turn):
        turn.deadlines[0] = turn.now_ms + turn.plan.timeout_s * 1000


def take_held(turn: Turn) -> None:
    """Do what a pause or the end held back."""
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
    if event.compensate and turn.plan.compensable:
        return _compensate(turn, event)
    before = header.status
    header.status = WorkflowStatus.TERMINATED
    output = prepare_output(turn)
    header.status = before
    after = failure.prepare(turn) if event.trigger_failure else None
    if turn.lacking:
        return None
    end(turn, WorkflowStatus.TERMINATED, event.reason or None, output, by_parent=event.by_parent)
    if after is not None:
        failure.start(turn, after)
    return APPLIED


def _compensate(turn: Turn, event: Terminate) -> Outcome:
    """Undo what completed, then end as TERMINATED. A paused workflow goes on for that."""
    header = turn.header
    if undoing(turn):
        if event.by_parent:
            return stale("it compensates already")
        return refused(
            f"Workflow {header.id} is compensating already; terminate without compensate to stop that."
        )
    header.status = WorkflowStatus.RUNNING
    turn.changed = True
    turn.first((END, int(WorkflowStatus.TERMINATED), event.reason or None, 0, COMPENSATING))
    return APPLIED


def _rename_end(turn: Turn, event: Terminate) -> Outcome:
    """FAILED or TIMED_OUT becomes TERMINATED; nothing else follows."""
    if event.by_parent:
        return stale(f"it is {turn.header.status.name}")
    turn.header.status = WorkflowStatus.TERMINATED
    turn.header.reason = event.reason or turn.header.reason
    turn.changed = turn.payload_changed = turn.ended = True
    statuses.tell(turn, "TERMINATED")
    return APPLIED
