"""What a workflow is between two events: its header and its task rows.

State is rows, not a document. `decide` sees a `View`: the header and those rows that the event
needs; whatever else it turns out to need it asks for (`needs.py`). A row in a view is never
changed in place: `decide` works on copies and hands the changed ones back in its `Decision`.

Times are whole milliseconds since 1970 UTC (`*_ms`), on the clock of the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ..payload import EMPTY, Json

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


@dataclass(slots=True)
class TaskRow:
    """One attempt of one task. Unique by (workflow, generation, reference, path, attempt).

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


TaskKey = tuple[str, Path]
"""(base reference, path): names the newest attempt of a task in the current generation."""


@dataclass(slots=True)
class View:
    """The part of a workflow that an event can see.

    `whole` says that every row of the current generation is here, so that a missing key is known
    to be absent; otherwise `absent` lists the keys that were looked up and not found.
    """

    header: Header
    tasks: dict[int, TaskRow] = field(default_factory=dict)
    newest: dict[TaskKey, int] = field(default_factory=dict)
    absent: set[TaskKey] = field(default_factory=set)
    whole: bool = False

    def add(self, row: TaskRow) -> None:
        """Take in a row that was loaded or written; the newest attempt of a key wins."""
        self.tasks[row.seq] = row
        if row.generation == self.header.generation:
            key = (row.reference, row.path)
            known = self.newest.get(key)
            if known is None or self.tasks[known].attempt <= row.attempt:
                self.newest[key] = row.seq
