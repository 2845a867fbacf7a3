"""Everything that can happen to a workflow. The only inputs of `decide`.

`now_ms` is the database's clock; nothing in the engine reads one. `seed` feeds every random
choice (jitter, the id of a second child), so that the same event always decides alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ..definitions.keys import KeyPolicy
from ..payload import EMPTY, Json
from .state import TaskStatus


@dataclass(slots=True, kw_only=True)
class Event:
    """What all events carry."""

    now_ms: int
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class Start(Event):
    """The workflow begins. Its header is in the view already, with `revision` 0 and no rows.

    `told`: another workflow asks for it, who cannot be refused at once. Where its header has an
    idempotency key, `key_policy` says what a used one means for the task `asked_seq` of `asked_by`;
    `answers`: that task waits only for the word that the workflow has started."""

    told: bool = False
    key_policy: KeyPolicy = KeyPolicy.FAIL
    asked_by: str = ""
    asked_seq: int = 0
    answers: bool = False


@dataclass(slots=True, kw_only=True)
class ChildPlaced(Event):
    """Which workflow the start of `child_id`, which has a key, came to; or the `reason` why to none."""

    seq: int
    child_id: str
    workflow_id: str
    reason: str | None = None


@dataclass(slots=True, kw_only=True)
class Follow(Event):
    """Task `seq` of workflow `by` wants to be told how this workflow ends."""

    by: str
    seq: int


@dataclass(slots=True, kw_only=True)
class SlotGranted(Event):
    """A workflow that waits for a slot of its `rateLimitConfig` has it now; or (`refused` says why) it
    will not get one."""

    refused: str | None = None


@dataclass(slots=True, kw_only=True)
class Result(Event):
    """A task's result: from a worker, a system task, the evaluators, or an operator's update.

    `delivery` is the fencing token checked by the commit; None where the reporter knows none.
    `status` is IN_PROGRESS (with `callback_after_s`), COMPLETED, FAILED, FAILED_WITH_TERMINAL_ERROR
    or CANCELED. `error_name` is a business error's name.
    """

    seq: int
    status: TaskStatus
    delivery: int | None = None
    output: Json | None = None
    reason: str | None = None
    error_name: str | None = None
    worker_id: str = ""
    started_ms: int = 0
    callback_after_s: int = 0
    retry_after_s: int | None = None


class Keep(IntEnum):
    """Whether a signal that finds no waiting task is kept for one that is still to come."""

    NEVER = 0
    NAMED = 1
    """Only for a task that the definition names; not for one that a dynamic fork may bring."""
    ALWAYS = 2


@dataclass(slots=True, kw_only=True)
class Signal(Event):
    """Complete or fail the waiting task with this reference (or the only blocking one, if None).

    One that arrives before its task exists is parked in the inbox and consumed when it is born, as
    far as `keep` allows.
    """

    reference: str | None
    status: TaskStatus
    output: Json = EMPTY
    reason: str | None = None
    keep: Keep = Keep.ALWAYS


@dataclass(slots=True, frozen=True)
class QueueFacts:
    """What the queue row of a task says now: starts are written there without the engine."""

    owner_epoch: int | None
    """None waiting, -1 asleep, 0 polled, else the node that owns the delivery and its clocks."""
    due_ms: int
    """Since when (or from when) it may be taken."""
    started_ms: int = 0
    progress_ms: int = 0
    worker_id: str = ""


@dataclass(slots=True, kw_only=True)
class Due(Event):
    """A deadline passed. `seq` 0 is the workflow's own clock. The engine works out which clock it
    was, and answers with the row's next deadline (`Decision.deadlines`), 0 where none is left. STALE
    where nothing runs any more: then the deadline's row is to go.

    `queue` is None where the task has no queue row."""

    seq: int
    queue: QueueFacts | None = None


@dataclass(slots=True, kw_only=True)
class DeliveryDue(Event):
    """The owner of a delivery saw its deadline (response or execution time-out) pass.

    `started_ms` and `progress_ms` (0 = none) are the owner's facts about that delivery."""

    seq: int
    delivery: int
    started_ms: int
    progress_ms: int = 0
    worker_id: str = ""


@dataclass(slots=True, kw_only=True)
class WorkerLost(Event):
    """A delivery that was read and whose worker is gone (`unread` False), or one that nobody read
    five times in a row (`unread` True: the task fails by name and is not retried)."""

    seq: int
    delivery: int
    worker_id: str = ""
    started_ms: int = 0
    unread: bool = False


@dataclass(slots=True, kw_only=True)
class ChildEnded(Event):
    """The workflow started by the SUB_WORKFLOW row `seq` ended, or could not be started."""

    seq: int
    child_id: str
    status: int
    """A terminal `WorkflowStatus`."""
    output: Json | None
    reason: str | None = None
    name: str = ""
    version: int = 0
    """The child's, for the reason that the parent shows."""
    error_name: str | None = None
    """The name that came with the failure of the task that made the child fail."""


@dataclass(slots=True, kw_only=True)
class ChildRevived(Event):
    """A child that had ended runs again by an operator's command: its ancestors must run too."""

    seq: int
    child_id: str


@dataclass(slots=True, kw_only=True)
class Continue(Event):
    """Go on where a bounded decision stopped (`header.cursor`)."""


@dataclass(slots=True, kw_only=True)
class Pause(Event):
    """RUNNING -> PAUSED: nothing new is scheduled; results are still taken."""


@dataclass(slots=True, kw_only=True)
class Resume(Event):
    """PAUSED -> RUNNING: what the pause held back is scheduled."""


@dataclass(slots=True, kw_only=True)
class Terminate(Event):
    """End as TERMINATED. `by_parent` is set when the parent's end is the cause. With
    `trigger_failure` the definition's failure workflow is started, as if it had failed by itself.
    `compensate`: undo first what completed, where the definition says how."""

    reason: str
    by_parent: bool = False
    trigger_failure: bool = False
    compensate: bool = False


@dataclass(slots=True, kw_only=True)
class Retry(Event):
    """Run again from the failed tasks, keeping what completed.

    `resume_children` continues failed children instead of starting new ones. `by_parent` is set
    when the parent's own revival is the cause: then nobody above needs to be told."""

    resume_children: bool = False
    by_parent: bool = False


@dataclass(slots=True, kw_only=True)
class Restart(Event):
    """Run again from the beginning, in a new generation; `snapshot_id` if on newer definitions."""

    snapshot_id: str | None = None
    name: str | None = None
    version: int | None = None


@dataclass(slots=True, kw_only=True)
class Rerun(Event):
    """Run an ended workflow again: from the beginning (`seq` 0, in a new generation), or from the
    task of that row, keeping all that does not come after it in the flow.

    `input` and `correlation_id` replace the workflow's where it begins anew, `task_input` the
    task's. None keeps them."""

    seq: int = 0
    input: Json | None = None
    task_input: Json | None = None
    correlation_id: str | None = None


@dataclass(slots=True, kw_only=True)
class Skip(Event):
    """Step over a task that is still to come: it gets a SKIPPED row with this input and output. One
    inside a loop is stepped over in every turn that has not reached it yet."""

    reference: str
    input: Json = EMPTY
    output: Json = EMPTY


@dataclass(slots=True, kw_only=True)
class Jump(Event):
    """Go on at this task. What runs in its chain is SKIPPED, and so is what lies between; what had
    run from the task on is superseded. `input` replaces the task's own."""

    reference: str
    input: Json | None = None


@dataclass(slots=True, kw_only=True)
class ChangeVariables(Event):
    """Set these workflow variables; with `replace` the others go."""

    variables: Json
    replace: bool = False


@dataclass(slots=True, kw_only=True)
class UpdateTask(Event):
    """The result of the open task with this reference, from whoever knows it. `output` is merged
    into what the task has; IN_PROGRESS only merges."""

    reference: str
    status: TaskStatus
    output: Json = EMPTY
    reason: str | None = None


@dataclass(slots=True, kw_only=True)
class Remove(Event):
    """The execution is about to be deleted: nothing may revive it from here on."""


@dataclass(slots=True, kw_only=True)
class Upgrade(Event):
    """Go on under another version of the definition. The outcome's report says what differs; with
    `dry_run` nothing changes, and faults are told in the report instead of refused."""

    snapshot_id: str
    name: str | None = None
    version: int | None = None
    dry_run: bool = False
