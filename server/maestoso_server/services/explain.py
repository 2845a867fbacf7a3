"""What each open task of a workflow waits for, in words that an operator can act on.

Pure: facts in, explanations out. The reading of the facts is `AdminService.ExplainWorkflow`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ..engine.state import Header, TaskRow, TaskStatus, WorkflowStatus
from ..store.limits import LimitState
from ..store.lists import OpenTask
from ..store.slots import Place

REFERENCES_MAX = 100
JOINS = frozenset({"JOIN", "EXCLUSIVE_JOIN"})
SCRIPTS = frozenset({"INLINE", "LAMBDA", "JSON_JQ_TRANSFORM", "SWITCH", "DECISION"})
ASLEEP = -1


class Cause(IntEnum):
    """The numbers are those of the proto enum `WaitCause` (a test holds them together)."""

    WORKER_RESULT = 1
    WORKER_CAPACITY = 2
    NO_WORKER = 3
    LIMIT = 4
    TIME = 5
    SIGNAL = 6
    CHILD = 7
    TASKS = 8
    PAUSED = 9
    SCRIPT = 10
    SERVER = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why one open task is open. `due_ms`: when something happens by itself at the latest, 0 = never."""

    row: TaskRow
    cause: Cause
    explanation: str
    due_ms: int = 0
    worker_id: str = ""
    references: tuple[str, ...] = ()
    queue: str = ""


def explain(
    header: Header,
    task: OpenTask,
    *,
    live: set[str],
    unresolved: Mapping[int, Sequence[str]],
    now_ms: int,
    limit: LimitState | None = None,
) -> Waiting:
    """What an open task waits for.

    `live`: queues that some worker is connected or polls for. `unresolved`: for joins and containers,
    by seq, the references that have not ended. `limit`: of a task under limits, how they stand."""
    row = task.row
    if task.queue is not None:
        return _queued(task, task.queue, live=live, now_ms=now_ms, limit=limit)
    due_ms = task.timer_ms or 0
    if row.type == "SUB_WORKFLOW" and row.child_id:
        return Waiting(
            row=row,
            cause=Cause.CHILD,
            explanation=f"Waits for its child {row.child_id} to end.",
            due_ms=due_ms,
        )
    if row.type == "WAIT" and due_ms:
        return Waiting(row=row, cause=Cause.TIME, explanation="Waits for its time.", due_ms=due_ms)
    if row.type in ("WAIT", "HUMAN"):
        return Waiting(
            row=row,
            cause=Cause.SIGNAL,
            explanation="Waits for a signal: send one with its reference, or report the task's result.",
            due_ms=due_ms,
        )
    if row.type in JOINS or row.seq in unresolved:
        return _tasks(row, unresolved.get(row.seq, ()), due_ms)
    return _server(header, row, due_ms)


def _queued(task: OpenTask, queue: str, *, live: set[str], now_ms: int, limit: LimitState | None) -> Waiting:
    """A worker or system task."""
    due_ms = task.delivery_deadline_ms or task.timer_ms or 0
    ready_ms = task.due_ms or 0
    if task.owner_epoch == ASLEEP or (task.owner_epoch is None and ready_ms > now_ms):
        cause, text, due_ms = Cause.TIME, "Waits for its time before it is handed out.", ready_ms
    elif task.owner_epoch is not None:
        cause, text = Cause.WORKER_RESULT, _held_by(task)
    elif limit is not None and limit.held >= limit.slots:
        cause = Cause.LIMIT
        text = f"Waits for a slot: {limit.held} of {limit.slots} (concurrentExecLimit) are taken."
    elif limit is not None and limit.rate and limit.granted >= limit.rate:
        cause, due_ms = Cause.LIMIT, limit.opens_ms
        text = (
            f"Waits for its rate limit: {limit.granted} of {limit.rate} hand-outs (rateLimitPerFrequency) of "
            f"{limit.window_s} s are used; the next one may follow in {max(0, due_ms - now_ms)} ms."
        )
    elif queue in live:
        cause, text = Cause.WORKER_CAPACITY, "Waits for a worker with room: those connected are busy."
    else:
        cause = Cause.NO_WORKER
        text = f"No worker is connected or polls for {queue!r}: start one, or check its domain."
    return Waiting(
        row=task.row, cause=cause, explanation=text, due_ms=due_ms, worker_id=task.worker_id, queue=queue
    )


def _held_by(task: OpenTask) -> str:
    if not task.worker_id:
        return "Was sent to a worker that is not known to have read it yet."
    return f"Is being run by worker {task.worker_id!r}."


def _tasks(row: TaskRow, references: Sequence[str], due_ms: int) -> Waiting:
    shown = tuple(references[:REFERENCES_MAX])
    text = f"Waits for {', '.join(shown[:5])}{' and others' if len(references) > 5 else ''} to end."
    return Waiting(
        row=row,
        cause=Cause.TASKS,
        explanation=text if shown else "Waits for the tasks inside it to end.",
        due_ms=due_ms,
        references=shown,
    )


def _server(header: Header, row: TaskRow, due_ms: int) -> Waiting:
    """An operator that nothing outside holds up."""
    if row.status is TaskStatus.SCHEDULED and due_ms:
        return Waiting(row=row, cause=Cause.TIME, explanation="Waits for its next attempt.", due_ms=due_ms)
    if header.status is WorkflowStatus.PAUSED:
        return Waiting(
            row=row, cause=Cause.PAUSED, explanation="The workflow is paused: resume it.", due_ms=due_ms
        )
    if row.type in SCRIPTS:
        return Waiting(row=row, cause=Cause.SCRIPT, explanation="Waits for its script.", due_ms=due_ms)
    return Waiting(
        row=row, cause=Cause.SERVER, explanation="Is being worked on by the server.", due_ms=due_ms
    )


def summary(header: Header, waiting: Sequence[Waiting], *, more: bool, place: Place | None = None) -> str:
    """The whole in a sentence. `place`: where it stands in line for a slot of its `rateLimitConfig`."""
    if header.status.terminal:
        reason = f": {header.reason}" if header.reason else ""
        return f"{header.status.name}{reason}."
    if place is not None:
        shown = f" with rateLimitKey {place.key.key!r}" if place.key.key else ""
        return (
            f"{header.status.name}, has not begun: waits for a slot of rateLimitConfig, of which "
            f"{place.held} of {place.slots} are taken{shown}; {place.ahead} others wait before it."
        )
    if not waiting:
        held = "resume it" if header.status is WorkflowStatus.PAUSED else "the server is working on it"
        return f"{header.status.name}, no task is open: {held}."
    counts: dict[Cause, int] = {}
    for one in waiting:
        counts[one.cause] = counts.get(one.cause, 0) + 1
    parts = ", ".join(f"{count} {_IN_WORDS[cause]}" for cause, count in sorted(counts.items()))
    return f"{header.status.name}, {'at least ' if more else ''}{len(waiting)} open: {parts}."


_IN_WORDS = {
    Cause.WORKER_RESULT: "with workers",
    Cause.WORKER_CAPACITY: "for a worker with room",
    Cause.NO_WORKER: "for a worker that is not there",
    Cause.LIMIT: "for a slot of a limit",
    Cause.TIME: "for their time",
    Cause.SIGNAL: "for a signal",
    Cause.CHILD: "for a child",
    Cause.TASKS: "for other tasks",
    Cause.PAUSED: "held by a pause",
    Cause.SCRIPT: "for a script",
    Cause.SERVER: "with the server",
}
