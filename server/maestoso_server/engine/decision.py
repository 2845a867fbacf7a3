"""What `decide` answers: the rows that changed and what is owed. One save writes all of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ..payload import Json
from .attributes import AttributeValue
from .needs import Script
from .state import Header, TaskRow


class Verdict(IntEnum):
    """What became of one event."""

    APPLIED = 1
    STALE = 2
    """Late, repeated or superseded: nothing changed; `reason` says why."""
    REFUSED = 3
    """An operator's command in a state that forbids it: FAILED_PRECONDITION with `reason`."""
    PARKED = 4
    """A signal that arrived before its task. The decision itself parks it (`messages`)."""
    BEHIND = 5
    """An operator's command that came while a cursor runs. Nothing changed: give it again when
    the `Continue` events have used the cursor up (`continues(header)` is False)."""
    ABSENT = 6
    """An operator's command about a task that the workflow does not have: NOT_FOUND with `reason`."""


@dataclass(slots=True)
class Outcome:
    verdict: Verdict
    reason: str = ""
    report: Json | None = None
    """What a command that only looks, or looked first, has found (`engine/upgrade.py`)."""
    seq: int = 0
    """The task that a signal or an update by reference found; 0 for all else."""


APPLIED = Outcome(Verdict.APPLIED)


@dataclass(slots=True)
class QueueBirth:
    """A worker or system task that now waits for (or is born with) an owner."""

    seq: int
    queue: str
    """Task type with its domain: `domain:type`, or just the type."""
    task_type: str
    priority: int
    """0..99, higher first, as in Conductor."""
    due_ms: int
    """Not before this; equal to `now_ms` when it may run at once."""
    size: int
    """Bytes of input, for the capacity in bytes."""
    limit: int = 0
    """`concurrentExecLimit` of its definition, the largest integer where only its rate is limited;
    0 = not limited."""
    response_s: int = 0
    timeout_s: int = 0
    """`responseTimeoutSeconds` and `timeoutSeconds`; 0 = none. Their clocks run from the start."""
    total_due_ms: int = 0
    """When `totalTimeoutSeconds` runs out; 0 = never."""
    redeliver_on_loss: bool = False
    limit_name: str = ""
    """The task definition whose limits hold. They are read anew at each hand-out while it is
    registered; else these hold:"""
    rate: int = 0
    rate_window_s: int = 0


@dataclass(slots=True, frozen=True)
class Alert:
    """A clock that only alerts has run out. `of`: workflow, task; `clock`: execution, poll, total."""

    of: str
    clock: str
    text: str
    seq: int = 0


@dataclass(slots=True, frozen=True)
class Slot:
    """What a decision does to the slot of a workflow under a `rateLimitConfig`; without a limit
    (`slots` 0) it gives it back."""

    key: str = ""
    slots: int = 0
    arrived_ms: int = 0
    holds: bool = False
    """It has the slot from this commit on; else it waits for it."""
    refusable: bool = False
    """REJECT: where no slot is free it must not wait."""


class MessageKind(IntEnum):
    """What one workflow may tell another, or itself. The numbers are stored."""

    CHILD_START = 1
    CHILD_ENDED = 2
    CHILD_TERMINATE = 3
    CHILD_REVIVED = 4
    CONTINUE = 5
    SIGNAL = 6
    RESULT = 7
    COMMAND = 8
    CHILD_RETRY = 9
    SLOT_GRANTED = 21
    CHILD_PLACED = 22
    FOLLOW = 23


@dataclass(slots=True)
class Message:
    """A row for `inbox`. `body` is the kind's own record (`engine/messages.py`)."""

    workflow_id: str
    kind: MessageKind
    body: Json
    due_ms: int = 0
    parked: bool = False


@dataclass(slots=True)
class Publication:
    """An event for the outbox (`store/outbox.py`), written by the commit that it tells of."""

    queue: str
    """`<provider>:<rest>` (`engine/sinks.py`)."""
    message_id: str
    """The same for the same event: a consumer may see one twice."""
    body: Json


@dataclass(slots=True)
class CacheWrite:
    """An output that tasks of the same name and key may use until `expires_ms`."""

    name: str
    key: str
    output: Json
    expires_ms: int


@dataclass(slots=True)
class Decision:
    """The new header, only the rows that changed, and everything that must follow.

    `header.revision` is one more than the view's where anything changed; an unchanged decision
    (`changed` False) is not saved. Every list is in the order in which it came about.
    """

    header: Header
    changed: bool = False
    payload_changed: bool = False
    """Input, output, variables, reason or failed_task differ from what is stored."""
    ended: bool = False
    """This decision ended the workflow (its search row and its parent follow)."""
    revived: bool = False
    """This decision made an ended workflow RUNNING again, or renamed its definition."""
    inserted: list[TaskRow] = field(default_factory=list)
    updated: list[TaskRow] = field(default_factory=list)
    """Those that left the generation (`aside`) among them."""
    deleted: list[int] = field(default_factory=list)
    """`seq` of rows removed for good (keepLastN)."""
    births: list[QueueBirth] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    """`seq` of queue rows that end without a result: cancelled, or timed out by a `Due`. Never the
    row of an applied event that names a delivery: the save ends that one by its guard."""
    asleep: dict[int, int] = field(default_factory=dict)
    """`seq` of a queue row handed back until a time (callbackAfterSeconds) -> due_ms."""
    deadlines: dict[int, int] = field(default_factory=dict)
    """`seq` (0 = workflow) -> due_ms of its row in `deadline`; 0 removes the row."""
    messages: list[Message] = field(default_factory=list)
    fragments: dict[int, Json] = field(default_factory=dict)
    """`seq` of a FORK_JOIN_DYNAMIC row -> the document of its branches, written once."""
    branches: dict[int, Any] = field(default_factory=dict)
    """The same, compiled: for the view (`View.apply`), not for the store."""
    consumed: list[int] = field(default_factory=list)
    """Inbox ids of parked signals that this decision used up."""
    scripts: dict[int, Script] = field(default_factory=dict)
    """`seq` -> a script that was slow. After the commit its value comes as a `Result` of that row:
    COMPLETED with output `{"result": value}`, FAILED (may be tried again) or
    FAILED_WITH_TERMINAL_ERROR with the reason. Lost with the process, it is asked for again."""
    published: list[Publication] = field(default_factory=list)
    cached: list[CacheWrite] = field(default_factory=list)
    slot: Slot | None = None
    """What becomes of its slot under a `rateLimitConfig`; None: nothing."""
    alerts: list[Alert] = field(default_factory=list)
    freed: list[tuple[str, str]] = field(default_factory=list)
    """(queue, task type) of rows under a `concurrentExecLimit` that have ended or wait again."""
    attributes: dict[str, AttributeValue | None] = field(default_factory=dict)
    """Search attributes whose values are new; None removes one."""
    outcomes: list[Outcome] = field(default_factory=list)
    """One per event, in order."""
    corrected: bool = False
    """An operator gave the workflow another input or correlation id."""
    aside: dict[int, None] = field(default_factory=dict)
    """`seq` of updated rows that left the generation."""
