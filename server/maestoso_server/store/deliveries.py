"""What happens to a row of `task_queue` between its hand-out and its end.

Three statements change rows that a caller believes to own: `mark_read`, `progress`, `hand_back`.
They never wait for a row that a save holds at this moment (saves lock in another order): such a
row is answered `busy`, and the caller asks again while it still believes to own it. A row that is
in neither set is not the caller's any more: ended, superseded or moved to another node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..engine.state import Path
from .nodes import ALIVE, Connection, NodeLost
from .queue import QueueName

MOST_UNREAD = 5
"""Deliveries in a row that nobody read; then the task fails by name."""


class Key(NamedTuple):
    """A row of `task_queue`."""

    workflow_id: str
    seq: int


@dataclass(slots=True)
class Touched:
    """What became of the rows asked for; see the module's word on `busy`."""

    done: set[Key]
    busy: set[Key]


@dataclass(slots=True)
class Read:
    """A delivery that its worker is known to have read at `started_ms`."""

    workflow_id: str
    seq: int
    delivery: int
    started_ms: int
    worker_id: str


@dataclass(slots=True)
class ProgressMade:
    """Word from the worker about a delivery; `output` (JSON) replaces the task's, None keeps it."""

    workflow_id: str
    seq: int
    delivery: int
    output: bytes | None = None


@dataclass(slots=True)
class HandBack:
    """A delivery that goes back without having run. `due_ms`: not before this; 0 = at once, in its
    old place in the order."""

    workflow_id: str
    seq: int
    delivery: int
    due_ms: int = 0


@dataclass(slots=True)
class EndedRow:
    """A row of mine whose task ended elsewhere; it is deleted now."""

    workflow_id: str
    seq: int
    delivery: int
    session_id: str | None


@dataclass(slots=True)
class OwnedDue:
    """A row of mine whose clock ran out, or (`lost`) whose worker is gone.

    `unread` says of a lost one that nobody read it `MOST_UNREAD` times in a row."""

    workflow_id: str
    seq: int
    delivery: int
    deadline_ms: int
    started_ms: int
    progress_ms: int
    worker_id: str
    lost: bool
    unread: bool


@dataclass(slots=True)
class Current:
    """The delivery that a report without a token means. `delivery` 0: never handed out.

    `owner_epoch`: None waiting, -1 asleep, 0 polled, else a node. `worker_id` is empty while
    nobody holds it."""

    workflow_id: str
    seq: int
    delivery: int
    owner_epoch: int | None
    worker_id: str


async def mark_read(conn: Connection, *, epoch: int, reads: Sequence[Read], now_ms: int) -> Touched:
    """Transition 4, written behind: IN_PROGRESS, start, worker, `unread` 0, and the row's clocks
    start. Leaves the workflow's revision alone. Raises `NodeLost`."""
    raise NotImplementedError


async def progress(conn: Connection, *, epoch: int, items: Sequence[ProgressMade], now_ms: int) -> Touched:
    """The response clock of these deliveries starts anew; also of polled ones, and of those that
    another node owns (the token is the proof). Counts as read. Raises `NodeLost`."""
    raise NotImplementedError


async def hand_back(conn: Connection, *, epoch: int, items: Sequence[HandBack], now_ms: int) -> Touched:
    """Transitions 7 and 8: these deliveries wait again, or sleep until they are due. Neither an
    attempt nor `unread` is spent. Mine and polled ones (a cancelled poll). Raises `NodeLost`."""
    raise NotImplementedError


async def wake_asleep(conn: Connection, *, epoch: int, now_ms: int, limit: int = 1000) -> tuple[int, set[QueueName]]:
    """Sleeping rows that are due wait from now on: how many (`limit` = ask again), in which queues."""
    raise NotImplementedError


async def ended_rows(conn: Connection, *, epoch: int, limit: int = 1000) -> list[EndedRow]:
    """Transition 5, at the owner: rows marked ended go, and their deliveries are to be cancelled."""
    raise NotImplementedError


async def due_owned(conn: Connection, *, epoch: int, now_ms: int, limit: int = 1000) -> list[OwnedDue]:
    """Transition 15: rows of mine whose clock has run out, earliest first. Only reads."""
    raise NotImplementedError


async def settle_due(conn: Connection, *, epoch: int, rows: Sequence[OwnedDue], now_ms: int) -> None:
    """The engine has answered these and left the task alone: the row's next clock counts."""
    raise NotImplementedError


async def current_deliveries(
    conn: Connection, tasks: Sequence[tuple[str, str, int]]
) -> list[Current | None]:
    """The open rows of tasks, in order; None where there is none.

    A task is (lowest workflow id, highest workflow id, seq) as `ids.split_task_id` gives it; a
    known workflow stands in both places."""
    raise NotImplementedError
