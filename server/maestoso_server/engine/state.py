"""What a workflow is between two events: its header and its task rows.

State is rows, not a document. `decide` sees a `View`: the header and those rows that the event
needs; whatever else it turns out to need it asks for (`needs.py`). A row in a view is never
changed in place: `decide` works on copies and hands the changed ones back in its `Decision`.

Times are whole milliseconds since 1970 UTC (`*_ms`), on the clock of the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from ..payload import EMPTY, Json

if TYPE_CHECKING:
    from .decision import Decision

Path = tuple[int, ...]
"""The iteration path of a row: the turn of each enclosing DO_WHILE, outermost first; () outside."""


class WorkflowStatus(IntEnum):
    """Conductor's names; the numbers are what is stored and never change."""

    RUNNING = 1
    PAUSED = 2
    COMPLETED = 3
    FAILED = 4
    TIMED_OUT = 5
    TERMINATED = 6

    @property
    def terminal(self) -> bool:
        return self >= WorkflowStatus.COMPLETED


class TaskStatus(IntEnum):
    """Conductor's names; the numbers are what is stored and never change."""

    SCHEDULED = 1
    IN_PROGRESS = 2
    COMPLETED = 3
    COMPLETED_WITH_ERRORS = 4
    FAILED = 5
    FAILED_WITH_TERMINAL_ERROR = 6
    TIMED_OUT = 7
    CANCELED = 8
    SKIPPED = 9

    @property
    def terminal(self) -> bool:
        return self >= TaskStatus.COMPLETED

    @property
    def successful(self) -> bool:
        return self in (
            TaskStatus.COMPLETED,
            TaskStatus.COMPLETED_WITH_ERRORS,
            TaskStatus.SKIPPED,
        )


@dataclass(slots=True)
class Header:
    """The narrow, hot row of a workflow together with its payload row.

    `open` counts rows that are not terminal. `cursor` holds the work that a bounded decision left
    for the next one (a wide fork, a terminate of many tasks); while it is set a `Continue` is owed.
    `clock_ms` is the base of the workflow time-out: the start, or the last retry or resume.
    """

    id: str
    namespace: str
    name: str
    version: int
    snapshot_id: str
    created_ms: int
    revision: int = 0
    status: WorkflowStatus = WorkflowStatus.RUNNING
    generation: int = 1
    parent_id: str | None = None
    parent_seq: int = 0
    priority: int = 0
    correlation_id: str | None = None
    next_seq: int = 1
    open: int = 0
    permissive_failed: int = 0
    last_task: int = 0
    clock_ms: int = 0
    updated_ms: int = 0
    ended_ms: int = 0
    cursor: Json | None = None
    last_node: int = 0
    # the payload row
    input: Json = EMPTY
    output: Json | None = None
    variables: Json = EMPTY
    task_to_domain: Json | None = None
    reason: str | None = None
    failed_task: int = 0
    created_by: str = ""
    traceparent: str = ""
    idempotency_key: str | None = None

    def copy(self) -> Header:
        """A header of its own with the same values."""
        new = Header.__new__(Header)
        new.id = self.id
        new.namespace = self.namespace
        new.name = self.name
        new.version = self.version
        new.snapshot_id = self.snapshot_id
        new.created_ms = self.created_ms
        new.revision = self.revision
        new.status = self.status
        new.generation = self.generation
        new.parent_id = self.parent_id
        new.parent_seq = self.parent_seq
        new.priority = self.priority
        new.correlation_id = self.correlation_id
        new.next_seq = self.next_seq
        new.open = self.open
        new.permissive_failed = self.permissive_failed
        new.last_task = self.last_task
        new.clock_ms = self.clock_ms
        new.updated_ms = self.updated_ms
        new.ended_ms = self.ended_ms
        new.cursor = self.cursor
        new.last_node = self.last_node
        new.input = self.input
        new.output = self.output
        new.variables = self.variables
        new.task_to_domain = self.task_to_domain
        new.reason = self.reason
        new.failed_task = self.failed_task
        new.created_by = self.created_by
        new.traceparent = self.traceparent
        new.idempotency_key = self.idempotency_key
        return new


@dataclass(slots=True)
class TaskRow:
    """One attempt of one task. Unique by (workflow, generation, reference, path, attempt).

    A generation below 0 was left behind by a rerun from a task or by a jump: the rows stay, the
    flow has begun anew at an earlier place.

    `reference` is the base `taskReferenceName`, without Conductor's `__N`; `path` carries the
    iterations. `scope` is the `seq` of the row of the innermost enclosing container (0 = none):
    the FORK of a branch, the SWITCH of a case, the DO_WHILE of a body. `type` is Conductor's
    `taskType` (for a SIMPLE task its name), `name` the `taskDefName`. `state` is the operator's own
    small record (counters, a loop's turn, a cursor), a dict owned by `operators`; None elsewhere.
    """

    seq: int
    generation: int
    reference: str
    path: Path
    attempt: int
    scope: int
    type: str
    name: str
    status: TaskStatus
    scheduled_ms: int
    first_scheduled_ms: int
    input: Json = EMPTY
    output: Json | None = None
    reason: str | None = None
    started_ms: int = 0
    updated_ms: int = 0
    ended_ms: int = 0
    worker_id: str = ""
    domain: str = ""
    retried_seq: int = 0
    """The `seq` of the attempt that this one repeats; 0 for a first attempt."""
    superseded: bool = False
    """A newer attempt exists (Conductor's `retried`)."""
    child_id: str | None = None
    callback_after_s: int = 0
    poll_count: int = 0
    queued: bool = False
    """The task has a row in `task_queue`: a worker or a system task that is open."""
    state: dict[str, Any] | None = None

    def copy(self) -> TaskRow:
        """A row of its own with the same values (written out: half the cost of `copy.copy`)."""
        new = TaskRow.__new__(TaskRow)
        new.seq = self.seq
        new.generation = self.generation
        new.reference = self.reference
        new.path = self.path
        new.attempt = self.attempt
        new.scope = self.scope
        new.type = self.type
        new.name = self.name
        new.status = self.status
        new.scheduled_ms = self.scheduled_ms
        new.first_scheduled_ms = self.first_scheduled_ms
        new.input = self.input
        new.output = self.output
        new.reason = self.reason
        new.started_ms = self.started_ms
        new.updated_ms = self.updated_ms
        new.ended_ms = self.ended_ms
        new.worker_id = self.worker_id
        new.domain = self.domain
        new.retried_seq = self.retried_seq
        new.superseded = self.superseded
        new.child_id = self.child_id
        new.callback_after_s = self.callback_after_s
        new.poll_count = self.poll_count
        new.queued = self.queued
        new.state = self.state
        return new


TaskKey = tuple[str, Path]
"""(base reference, path): names the newest attempt of a task in the current generation."""


@dataclass(slots=True)
class View:
    """The part of a workflow that an event can see.

    `whole` says that every row of the current generation is here, so that a missing key is known
    to be absent; otherwise `absent` lists the keys that were looked up and not found. A view is
    only ever as new as the revision in its header: who keeps one applies each saved decision to it
    (`apply`) and drops it after a lost race.
    """

    header: Header
    tasks: dict[int, TaskRow] = field(default_factory=dict)
    newest: dict[TaskKey, int] = field(default_factory=dict)
    """The newest attempt of a task."""
    absent: set[TaskKey] = field(default_factory=set)
    whole: bool = False
    latest: dict[str, int] = field(default_factory=dict)
    """The newest turn of a task inside loops, where that is known; 0: it has no row."""
    scopes: dict[tuple[int, Path], list[int]] = field(default_factory=dict)
    """(container row, path) -> the rows directly inside it, attempts included."""
    fragments: dict[int, Any] = field(default_factory=dict)
    """A dynamic fork's row -> its branches: the document (`Json`) or what was compiled from it."""

    def add(self, row: TaskRow) -> None:
        """Take in a row that was loaded or written."""
        known = row.seq in self.tasks
        self.tasks[row.seq] = row
        if row.generation != self.header.generation:
            return
        if not known and row.scope:
            self.scopes.setdefault((row.scope, row.path), []).append(row.seq)
        if row.superseded:
            return
        self.newest[(row.reference, row.path)] = row.seq
        if row.path and (self.whole or row.reference in self.latest):
            self.add_latest(row.reference, row)

    def add_latest(self, reference: str, row: TaskRow | None) -> None:
        """Note which turn of a task is its newest: the answer to an inexact `Rows`."""
        known = self.tasks.get(self.latest.get(reference, 0))
        if row is None:
            self.latest.setdefault(reference, 0)
        elif known is None or (known.path, known.attempt) <= (row.path, row.attempt):
            self.latest[reference] = row.seq

    def remove(self, seq: int) -> None:
        """Forget a row that was deleted."""
        row = self.tasks.pop(seq, None)
        if row is None:
            return
        key = (row.reference, row.path)
        if self.newest.get(key) == seq:
            del self.newest[key]
        if self.latest.get(row.reference) == seq:
            self.latest[row.reference] = 0
        inside = self.scopes.get((row.scope, row.path))
        if inside and seq in inside:
            inside.remove(seq)
            if not inside:
                del self.scopes[(row.scope, row.path)]

    def set_aside(self, seq: int) -> None:
        """Forget a row that left the generation; an earlier turn of its task may be the latest then."""
        row = self.tasks.get(seq)
        self.remove(seq)
        if row is None or not row.path:
            return
        self.latest.pop(row.reference, None)
        if self.whole:
            turns = [path for reference, path in self.newest if reference == row.reference]
            if turns:
                self.latest[row.reference] = self.newest[(row.reference, max(turns))]

    def apply(self, decision: Decision) -> None:
        """Become what a saved decision made of this view. Costs what the decision touched."""
        if decision.header.generation != self.header.generation:
            self.tasks.clear()
            self.newest.clear()
            self.absent.clear()
            self.latest.clear()
            self.scopes.clear()
            self.fragments.clear()
            self.whole = True
        self.header = decision.header
        for seq in decision.aside:
            self.set_aside(seq)
        for row in decision.inserted:
            self.add(row)
            if row.path and not self.whole:
                self.latest[row.reference] = row.seq
        for row in decision.updated:
            if decision.aside and row.seq in decision.aside:
                continue
            if row.superseded and self.newest.get((row.reference, row.path)) == row.seq:
                del self.newest[(row.reference, row.path)]
            self.add(row)
        for seq in decision.deleted:
            self.remove(seq)
        self.fragments.update(decision.branches)
