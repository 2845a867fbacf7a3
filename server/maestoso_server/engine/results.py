"""Events of single tasks: results, lost workers, clocks, ended children.

A handler reads first; while something it reads is wanted it answers None and is called again.
"""

from __future__ import annotations

from ..payload import EMPTY, Json
from . import faults, messages, reasons
from .attempts import begin
from .decision import APPLIED, Alert, MessageKind, Outcome
from .events import ChildEnded, ChildPlaced, DeliveryDue, Due, Result, WorkerLost
from .guards import undoing
from .needs import Redact
from .nodes import BODY, DYNAMIC, EVENT, HUMAN, LOOP, SUB_WORKFLOW, TRY, WAIT, WORKER, Node
from .operators.finishing import finish, lasting
from .outcomes import stale
from .outputs import with_member
from .secrets import SecretJson, sources
from .state import TaskRow, TaskStatus, WorkflowStatus
from .steps import BY_POLICY, CATCH, END, RUN, SETTLE, TIME_OUT_WORKFLOW, TURN
from .timers import alert, judge, judge_row
from .turn import Turn

_COMPLETED = int(TaskStatus.COMPLETED)
_IN_PROGRESS = TaskStatus.IN_PROGRESS
_ENDED = int(WorkflowStatus.COMPLETED)
TOLD = frozenset({WORKER, DYNAMIC, WAIT, HUMAN, SUB_WORKFLOW, EVENT})
"""Kinds whose result comes from outside. The engine decides all others itself."""

_CHILD_STATUS = {
    WorkflowStatus.COMPLETED: TaskStatus.COMPLETED,
    WorkflowStatus.FAILED: TaskStatus.FAILED,
    WorkflowStatus.TERMINATED: TaskStatus.CANCELED,
    WorkflowStatus.TIMED_OUT: TaskStatus.TIMED_OUT,
}


def open_row(turn: Turn, seq: int) -> tuple[TaskRow, Node] | Outcome | None:
    """The open row that an event is about, or why it is too late; None while it is wanted."""
    header = turn.header
    row = turn.row(seq)
    if row is None:
        return None if turn.lacking else stale(f"there is no task {seq}")
    if row.generation != header.generation:
        return stale("the workflow was restarted since")
    if row.status >= _COMPLETED:
        return stale(f"the task is {row.status.name} already")
    if header.status >= _ENDED:
        return stale(f"Workflow is in {header.status.name} state")
    node = turn.plan.nodes.get(row.reference)
    if node is None:
        node = turn.node_of(row)
        if node is None:
            return None if turn.lacking else stale("the task is not part of the definition")
    return row, node


def apply_result(turn: Turn, event: Result) -> Outcome | None:
    found = open_row(turn, event.seq)
    if not isinstance(found, tuple):
        return found
    row, node = found
    if node.kind not in TOLD:
        return _script_result(turn, event, row, node)
    output, reason = redacted(turn, row, event.output, event.reason)
    if turn.lacking:
        return None
    mine = turn.edit(row)
    if output is not None:
        mine.output = output
    if event.worker_id:
        mine.worker_id = event.worker_id
    if event.started_ms:
        mine.started_ms = event.started_ms
    mine.reason = reasons.short(reason)
    if event.delivery is not None:
        turn.guarded.add(event.seq)
    if event.status == _IN_PROGRESS:
        _put_back(turn, event, mine, node)
        return APPLIED
    mine.callback_after_s = 0
    turn.close(node, mine, event.status)
    if mine.state is not None or event.retry_after_s is not None or event.error_name is not None:
        keep_for_retry(mine, event.status, event.retry_after_s, event.error_name)
    turn.later((SETTLE, event.seq, BY_POLICY))
    return APPLIED


def redacted(
    turn: Turn, row: TaskRow, output: Json | None, reason: str | None
) -> tuple[Json | None, str | None]:
    """What was reported about a row, without the values of the secrets that its worker was given."""
    if not turn.secretive or not isinstance(row.input, SecretJson):
        return output, reason
    used = sources(row.input.value, row.input.kept)
    answer = turn.ask(Redact(used, None if output is None else output.raw, reason))
    return (output, reason) if answer is None else answer


def keep_for_retry(
    row: TaskRow, status: TaskStatus, retry_after_s: int | None = None, error_name: str | None = None
) -> None:
    """Keep what a retry needs to know, drop what a running row needed."""
    state = lasting(row.state)
    if retry_after_s is not None and status == TaskStatus.FAILED:
        state["retry_after_s"] = retry_after_s
    if error_name is not None:
        state["error"] = error_name
    row.state = state or None


def _put_back(turn: Turn, event: Result, row: TaskRow, node: Node) -> None:
    """IN_PROGRESS: a worker task waits again, for `callbackAfterSeconds`; others just go on."""
    row.updated_ms = turn.now_ms
    if not row.queued:
        row.status = _IN_PROGRESS
        return
    row.status = TaskStatus.SCHEDULED
    row.callback_after_s = max(event.callback_after_s, 0)
    due_ms = turn.now_ms + row.callback_after_s * 1000
    turn.asleep[row.seq] = due_ms
    policy = turn.policy_of(row, node)
    turn.note_freed(row, policy)
    if policy.row_clock:
        verdict = judge(turn, row, policy, waiting_ms=due_ms)
        # One that has run out already, and that nobody was told of yet, is looked at right away.
        over = verdict.reason is not None or verdict.alerts
        turn.deadlines[row.seq] = turn.now_ms if over else verdict.next_ms


def _script_result(turn: Turn, event: Result, row: TaskRow, node: Node) -> Outcome:
    """The value of a script that was slow."""
    if not (row.state or {}).get("evaluating"):
        return stale(f"{node.type} tasks are decided by the server itself")
    mine = turn.edit(row)
    value = event.output.value if event.output is not None else None
    answer = {
        "value": value.get("result") if isinstance(value, dict) else None,
        "error": None if event.status == TaskStatus.COMPLETED else event.reason or "script failed",
        "retriable": event.status == TaskStatus.FAILED,
    }
    turn.set_state(mine, answer=answer)
    turn.deadlines[row.seq] = 0
    rerun(turn, node, mine)
    return APPLIED


def rerun(turn: Turn, node: Node, row: TaskRow) -> None:
    """Run a row of the engine's own again: its answer has come, or is asked for anew."""
    if node.kind == LOOP:
        turn.later((TURN, row.seq, (row.state or {}).get("turn", 0)))
    else:
        turn.later((RUN, row.seq))


def apply_worker_lost(turn: Turn, event: WorkerLost) -> Outcome | None:
    found = open_row(turn, event.seq)
    if not isinstance(found, tuple):
        return found
    row, node = found
    turn.guarded.add(event.seq)
    mine = turn.edit(row)
    mine.worker_id = event.worker_id or mine.worker_id
    mine.started_ms = event.started_ms or mine.started_ms
    if event.unread:
        turn.close(node, mine, TaskStatus.FAILED_WITH_TERMINAL_ERROR, reasons.never_read(mine.name))
    else:
        turn.close(node, mine, TaskStatus.FAILED, reasons.WORKER_LOST)
        faults.name(turn, mine, faults.WORKER_LOST)
    turn.later((SETTLE, event.seq, BY_POLICY))
    return APPLIED


# --- clocks ------------------------------------------------------------------------------------


def apply_delivery_due(turn: Turn, event: DeliveryDue) -> Outcome | None:
    found = open_row(turn, event.seq)
    if not isinstance(found, tuple):
        return found
    row, node = found
    verdict = judge(
        turn,
        row,
        turn.policy_of(row, node),
        started_ms=event.started_ms,
        progress_ms=event.progress_ms,
    )
    alert(turn, row, verdict.alerts)
    if verdict.reason is None:
        return stale("its clock has not run out")
    turn.guarded.add(event.seq)
    mine = turn.edit(row)
    mine.worker_id = event.worker_id or mine.worker_id
    mine.started_ms = event.started_ms
    _time_out(turn, node, mine, verdict.reason, ends=verdict.ends)
    return APPLIED


def _time_out(turn: Turn, node: Node, row: TaskRow, reason: str, *, ends: bool) -> None:
    turn.close(node, row, TaskStatus.TIMED_OUT, reason)
    turn.later((SETTLE, row.seq, TIME_OUT_WORKFLOW if ends else BY_POLICY))


def apply_due(turn: Turn, event: Due) -> Outcome | None:
    """A row of `deadline`. The decision says when the next one is, or that there is none."""
    if event.seq == 0:
        return _workflow_due(turn)
    found = open_row(turn, event.seq)
    if not isinstance(found, tuple):
        return found
    row, node = found
    due = (row.state or {}).get("due")
    if due is not None and due <= turn.now_ms:
        _own_time(turn, node, turn.edit(row))
        return APPLIED
    verdict = judge_row(turn, node, row, event.queue)
    alert(turn, row, verdict.alerts)
    if verdict.reason is not None:
        turn.deadlines[event.seq] = 0
        if node.kind == TRY:  # the time that its body has: as if a task in it had failed
            turn.later((CATCH, event.seq, BODY, int(WorkflowStatus.TIMED_OUT), verdict.reason, event.seq))
            turn.changed = True
            return APPLIED
        _time_out(turn, node, turn.edit(row), verdict.reason, ends=verdict.ends)
        return APPLIED
    dues = [moment for moment in (due, verdict.next_ms) if moment]
    turn.deadlines[event.seq] = min(dues, default=0)
    turn.changed = True
    return APPLIED


def _own_time(turn: Turn, node: Node, row: TaskRow) -> None:
    """What the row itself waited for: its delay, its script, or the end of a WAIT."""
    state = {key: value for key, value in (row.state or {}).items() if key != "due"}
    evaluating = state.pop("evaluating", False)
    row.state = state or None
    turn.deadlines[row.seq] = 0
    if evaluating:
        rerun(turn, node, row)
    elif row.status == TaskStatus.SCHEDULED:
        begin(turn, node, row)
    else:
        turn.close(node, row, TaskStatus.COMPLETED)
        turn.later((SETTLE, row.seq, BY_POLICY))


def _workflow_due(turn: Turn) -> Outcome:
    header = turn.header
    limit_s = turn.plan.timeout_s
    if not limit_s or header.status != WorkflowStatus.RUNNING or undoing(turn):
        return stale("the workflow's clock does not run")
    turn.changed = True
    turn.deadlines[0] = 0
    due = header.clock_ms + limit_s * 1000
    if turn.now_ms < due:
        turn.deadlines[0] = due
        return APPLIED
    elapsed_s = (turn.now_ms - header.clock_ms) // 1000
    if turn.plan.only_alerts:
        text = reasons.workflow_timed_out(elapsed_s, limit_s, "ALERT_ONLY")
        turn.alerts.append(Alert("workflow", "execution", text))
        return APPLIED
    reason = reasons.workflow_timed_out(elapsed_s, limit_s, "TIME_OUT_WF")
    turn.first((END, int(WorkflowStatus.TIMED_OUT), reason, 0))
    return APPLIED


# --- children ----------------------------------------------------------------------------------


def apply_child_ended(turn: Turn, event: ChildEnded) -> Outcome | None:
    found = open_row(turn, event.seq)
    if not isinstance(found, tuple):
        return found
    row, node = found
    if row.child_id != event.child_id:
        return stale("the task has another child by now")
    mine = turn.edit(row)
    mine.output = with_member(event.output, "subWorkflowId", Json.of(event.child_id).raw)
    ended = WorkflowStatus(event.status)
    reason = None
    if ended != WorkflowStatus.COMPLETED:
        reason = reasons.child_failed(event.name, event.version or None, event.child_id, event.reason)
    turn.close(node, mine, _CHILD_STATUS[ended], reason)
    faults.name(turn, mine, event.error_name)
    turn.later((SETTLE, event.seq, BY_POLICY))
    return APPLIED


def apply_child_placed(turn: Turn, event: ChildPlaced) -> Outcome | None:
    """The start of a task with an idempotency key has been decided (`keys`)."""
    found = open_row(turn, event.seq)
    if not isinstance(found, tuple):
        return found
    row, node = found
    asked = row.child_id if node.kind == SUB_WORKFLOW else (row.state or {}).get("asked")
    if asked != event.child_id:
        return stale("the task has asked for another workflow by now")
    if event.reason is not None:
        mine = turn.edit(row)
        mine.child_id = None
        finish(turn, node, mine, TaskStatus.FAILED, EMPTY, event.reason)
    elif node.kind == SUB_WORKFLOW:
        mine = turn.edit(row)
        mine.child_id = event.workflow_id
        mine.output = Json.of({"subWorkflowId": event.workflow_id})
        turn.set_state(mine, follows=True)
        told = messages.follow(turn.header.id, row.seq)
        turn.send(event.workflow_id, MessageKind.FOLLOW, told)
    else:
        finish(turn, node, row, TaskStatus.COMPLETED, Json.of({"workflowId": event.workflow_id}))
    return APPLIED
