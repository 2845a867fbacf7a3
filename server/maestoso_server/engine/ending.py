"""How a workflow ends, and what its end does to its open rows, its children and its parent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..payload import EMPTY, Json
from . import failure, keys, messages, reasons, slots, statuses
from .decision import MessageKind
from .faults import stored_name
from .guards import over, undoing
from .limits import PAYLOAD_MAX_BYTES
from .needs import ChildAnswer, FailedRows, OpenRows, RowsAfter
from .nodes import SUB_WORKFLOW
from .operators import compensation
from .state import TaskRow, TaskStatus, WorkflowStatus
from .steps import CANCEL, COMPENSATED, END

if TYPE_CHECKING:
    from .turn import Step, Turn

CANCELLED_AT_ONCE = 250
"""Rows that one CANCEL step ends."""
_REASONS_MAX = 50
"""Permissive failures that are named in the workflow's reason."""
_COMPLETED = int(TaskStatus.COMPLETED)


def prepare_output(turn: Turn) -> Json:
    """The output by Conductor's rule: `outputParameters`, else the last row's output (K7)."""
    plan = turn.plan
    turn.unresolved.clear()
    if plan.output is not None:
        return Json.of(turn.evaluate(plan.output, (), plan.output_whole))
    last = turn.header.last_task
    row = turn.row(last) if last else None
    return row.output if row is not None and row.output is not None else EMPTY


def prepare_completion(turn: Turn) -> tuple[str | None, Json | None]:
    """(why it fails although nothing is left to do, the output). The output of a workflow that
    fails comes later: by then its status is another one."""
    if turn.header.permissive_failed:
        return _permissive_reason(turn), None
    output = prepare_output(turn)
    return output_fault(turn, output), output


def output_fault(turn: Turn, output: Json) -> str | None:
    """Why a workflow that has come to its end must not complete with this output, which has just been
    put together."""
    plan = turn.plan
    if turn.lacking:
        return None
    if plan.strict and turn.unresolved:
        return reasons.unresolved(turn.unresolved[0], "outputParameters")
    if plan.output_schema is not None:
        faults = plan.output_schema.faults(output.value, "output")
        if faults:
            return reasons.breaks_schema("workflow output", "outputSchema", faults)
    return None


def _permissive_reason(turn: Turn) -> str:
    rows: list[TaskRow] = []
    after = 0
    while True:
        page = failed_rows(turn, after, _REASONS_MAX)
        rows += [row for row in page if not turn.plan.guarded or not _is_caught(turn, row)]
        if turn.lacking or len(rows) >= _REASONS_MAX or len(page) < _REASONS_MAX:
            break
        after = page[-1].seq  # a page of caught ones: those that count come later
    texts = [
        reasons.permissive_failed(turn.task_id(row.seq), row.status, row.reason)
        for row in rows[:_REASONS_MAX]
    ]
    return ". ".join(texts)


def _is_caught(turn: Turn, row: TaskRow) -> bool:
    """A TRY has taken the failure, or the row was cancelled with what had failed."""
    node = turn.node_of(row)
    return node is not None and over(turn, node, row.path) is not None


def complete(turn: Turn, prepared: tuple[str | None, Json | None]) -> None:
    """Nothing is left to do."""
    why, output = prepared
    if why is None and output is not None and len(output.raw) > PAYLOAD_MAX_BYTES:
        why = reasons.workflow_too_large(len(output.raw), turn.header.id, PAYLOAD_MAX_BYTES)
    if why is not None:
        turn.first((END, int(WorkflowStatus.FAILED), why, 0))
        return
    end(turn, WorkflowStatus.COMPLETED, None if turn.plan.first else reasons.NO_TASKS, output)


class Ending:
    """How a workflow ends: status and reason, its output, the failure workflow to start, whether it
    compensates first (then nothing else counts), and the error's name."""

    __slots__ = ("after", "compensates", "error", "output", "reason", "status")

    def __init__(self, status: WorkflowStatus, reason: str | None, output: Json = EMPTY) -> None:
        self.status = status
        self.reason = reason
        self.output = output
        self.after: ChildAnswer | None = None
        self.compensates = False
        self.error: str | None = None


def prepare_end(turn: Turn, step: Step) -> Ending | None:
    """`workflow.status` in an output is the final one already. None where the workflow has ended."""
    header = turn.header
    _, status, reason, by, *mode = step
    if header.status >= WorkflowStatus.COMPLETED:
        return None
    found = Ending(WorkflowStatus(status), reason)
    if turn.plan.compensable and mode != [COMPENSATED]:
        if undoing(turn):
            return None
        if (mode or _compensates(turn, status, by)) and compensation.is_due(turn):
            found.compensates = True
            return found
    failed = turn.row(by) if by and header.parent_id else None
    found.error = stored_name(failed) if failed is not None else None
    before = header.status, header.reason
    turn.unresolved.clear()
    header.status, header.reason = found.status, reasons.short(reason)
    try:
        found.output = _terminal_output(turn, by) or prepare_output(turn)
        if status == WorkflowStatus.COMPLETED:
            fault = output_fault(turn, found.output)
            if fault is None:
                return found
            found.status = header.status = WorkflowStatus.FAILED
            found.reason = fault
        found.after = failure.prepare(turn)
        return found
    finally:
        header.status, header.reason = before


def _compensates(turn: Turn, status: int, by: int) -> bool:
    """A workflow that fails by itself does; one that a TERMINATE task ends, where its input says so."""
    row = turn.row(by) if by else None
    if row is not None and row.status == TaskStatus.COMPLETED:
        return status != WorkflowStatus.COMPLETED and row.input.value.get("compensate") is True
    return status in (WorkflowStatus.FAILED, WorkflowStatus.TIMED_OUT)


def _terminal_output(turn: Turn, seq: int) -> Json | None:
    """The output of the TERMINATE task that ends the workflow: nothing else counts then."""
    row = turn.row(seq) if seq else None
    if row is None or row.status != TaskStatus.COMPLETED:
        return None
    return row.output or EMPTY


def act_end(turn: Turn, step: Step, found: Ending | None) -> None:
    if found is None:
        return
    by = step[3]
    if found.compensates:
        compensation.begin_end(turn, int(found.status), found.reason, by)
        return
    output = found.output if len(found.output.raw) <= PAYLOAD_MAX_BYTES else EMPTY
    failed = by if found.status != WorkflowStatus.COMPLETED else 0
    end(turn, found.status, found.reason, output, failed, error=found.error)
    if found.after is not None:
        failure.start(turn, found.after)


def end(
    turn: Turn,
    status: WorkflowStatus,
    reason: str | None,
    output: Json | None,
    failed_task: int = 0,
    *,
    by_parent: bool = False,
    error: str | None = None,
) -> None:
    """Flip the header; its open rows follow."""
    header = turn.header
    header.status = status
    header.reason = reasons.short(reason)
    header.output = output
    header.failed_task = failed_task
    header.ended_ms = turn.now_ms
    turn.changed = turn.payload_changed = turn.ended = True
    statuses.tell(turn, status.name)
    slots.give_back(turn)
    if turn.plan.timeout_s:
        turn.deadlines[0] = 0
    if header.parent_id and not by_parent:
        turn.send(header.parent_id, MessageKind.CHILD_ENDED, messages.child_ended(header, error))
    keys.tell_followers(turn, error)
    if header.open:
        turn.first((CANCEL, 0))


# --- the rows that are still open ----------------------------------------------------------------


def open_rows(turn: Turn, after: int, limit: int) -> list[TaskRow]:
    """Open rows of this generation by seq, as this decision has left them."""
    return _select(turn, after, limit, OpenRows(after, limit), lambda row: row.status < _COMPLETED)


def failed_rows(turn: Turn, after: int, limit: int) -> list[TaskRow]:
    """Newest attempts that ended unsuccessfully, by seq, as this decision has left them."""
    return _select(turn, after, limit, FailedRows(after, limit), _is_failed)


def rows_after(turn: Turn, after: int, limit: int) -> list[TaskRow]:
    """Rows of this generation by seq, as this decision has left them."""
    return _select(turn, after, limit, RowsAfter(after, limit), _is_any)


def _is_any(_row: TaskRow) -> bool:
    return True


def _is_failed(row: TaskRow) -> bool:
    return TaskStatus.FAILED <= row.status <= TaskStatus.CANCELED and not row.superseded


def _select(turn: Turn, after: int, limit: int, need: Any, wanted: Any) -> list[TaskRow]:
    generation = turn.header.generation
    if turn.view.whole:
        known = turn.view.tasks
    else:
        answer = turn.ask(need)
        if answer is None:
            return []
        known = {row.seq: row for row in answer}
    last = max(known, default=0) if not turn.view.whole and len(known) >= limit else turn.header.next_seq
    merged = {**known, **turn.rows} if turn.rows else known
    found = [
        row
        for seq, row in merged.items()
        if after < seq <= last and row.generation == generation and seq not in turn.deleted and wanted(row)
    ]
    found.sort(key=lambda row: row.seq)
    return found[:limit]


def prepare_cancel(turn: Turn, step: Step) -> list[tuple[TaskRow, Any]]:
    rows = open_rows(turn, step[1], CANCELLED_AT_ONCE)
    return [(row, turn.node_of(row)) for row in rows]


def act_cancel(turn: Turn, _step: Step, found: list[tuple[TaskRow, Any]]) -> None:
    """End them as CANCELED, and the children that they started."""
    header = turn.header
    fails = header.status in (WorkflowStatus.FAILED, WorkflowStatus.TIMED_OUT)
    told = reasons.parent_ended(header.status, header.reason)
    reason = messages.child_terminate(told, compensate=fails)
    for stale, node in found:
        row = turn.edit(stale)
        if node is not None:
            turn.close(node, row, TaskStatus.CANCELED)
        if row.child_id is None or keys.is_follower(row):
            continue
        if node is None or node.kind == SUB_WORKFLOW:
            turn.send(row.child_id, MessageKind.CHILD_TERMINATE, reason)
    if found and header.open:
        turn.first((CANCEL, found[-1][0].seq))
