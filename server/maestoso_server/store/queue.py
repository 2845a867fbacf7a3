"""From waiting to handed out: the takes of DELIVERY, and what can be asked of the waiting rows.

All takes read the same index in the same order (rank, due, workflow, seq) and skip rows that
somebody else is taking. Each is one UPDATE of at most `MOST` rows, conditional on the taker's own
node row (`nodes.ALIVE`): a node that lost its lease takes nothing and gets `NodeLost`. What a
worker must be told comes back in the same statement.

Tasks under a `concurrentExecLimit` are taken by the takes that hold the limit's lock, only: a
plain take stops before the first such row and says so in `Take.limited`.

The statements expect a connection of `Database`, which pins index plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from ..payload import Json
from .nodes import ALIVE, Connection, NodeLost

MOST = 1000
"""Rows of one take."""

LOWEST_PRIORITY_RANK = 99
"""`rank` of priority 0: rank = 99 - priority, so that the index order is the order of hand-out."""


class Watermark(NamedTuple):
    """The last row taken from a queue: a hint that nothing waits before it *within its rank*.

    It saves a take from walking over the dead index entries of a long drain. Rows of a more urgent
    rank are always looked for. Drop it when a take comes back short, and every second."""

    rank: int
    due_ms: int
    workflow_id: str
    seq: int


class QueueName(NamedTuple):
    """A queue: task type with its domain (`domain:type`, or just the type), in its namespace."""

    namespace: str
    queue: str


@dataclass(slots=True)
class Taken:
    """A row that was just handed out: all that its `Assignment` and its owner's memory need."""

    workflow_id: str
    seq: int
    delivery: int
    session_id: str | None
    """None for a polled one."""
    unread: int
    """Earlier deliveries in a row that nobody is known to have read."""
    namespace: str
    queue: str
    task_type: str
    priority: int
    due_ms: int
    size: int
    limit: int
    response_s: int
    timeout_s: int
    total_due_ms: int
    redeliver_on_loss: bool
    # of the task
    generation: int
    reference: str
    path: tuple[int, ...]
    attempt: int
    scheduled_ms: int
    input: Json
    # of its workflow
    workflow_name: str
    correlation_id: str
    """Empty = none."""
    traceparent: str

    @property
    def watermark(self) -> Watermark:
        return Watermark(LOWEST_PRIORITY_RANK - self.priority, self.due_ms, self.workflow_id, self.seq)


@dataclass(slots=True)
class Take:
    """What a take brought, in order of hand-out.

    `limited`: a task under a limit stood at the head, so whoever wants more calls `take_limited`.
    (Of `take_limited` itself: the limit kept rows back.)"""

    rows: list[Taken]
    limited: bool


@dataclass(slots=True)
class Depth:
    """One queue. `depth` counts rows that wait and are due; `exact` is False where counting stopped
    at the cap. `oldest_age_ms` is since the oldest of them was due."""

    namespace: str
    queue: str
    depth: int
    oldest_age_ms: int
    exact: bool


async def take(
    conn: Connection,
    *,
    epoch: int,
    namespace: str,
    queue: str,
    sessions: Sequence[str],
    now_ms: int,
    after: Watermark | None = None,
) -> Take:
    """Transition 2: hand the first waiting rows of a queue to `sessions`, the i-th to the i-th.

    A session may stand in the list as often as it has room; at most `MOST` entries. O(log n) of
    the backlog a row. Raises `NodeLost`; then nothing was taken."""
    raise NotImplementedError


async def take_limited(
    conn: Connection,
    *,
    epoch: int,
    namespace: str,
    queue: str,
    task_type: str,
    sessions: Sequence[str],
    now_ms: int,
) -> Take:
    """Transition 2 for a task type with a limit: as `take`, never beyond the limit.

    Takes the lock of (namespace, task_type) first, so it must not run inside a transaction; takers
    of one type go one after the other, on all nodes. Every owned row of the type counts, polled
    ones too, in whatever domain."""
    raise NotImplementedError


async def take_polled(
    conn: Connection,
    *,
    epoch: int,
    namespace: str,
    queue: str,
    task_type: str,
    worker_id: str,
    count: int,
    now_ms: int,
    limited: bool = False,
) -> Take:
    """Transition 14: as `take`, for a poller. Start, worker and clocks are committed with it.

    The rows belong to no node (`owner_epoch` 0); their clocks are rows of `deadline`. With
    `limited` the take holds the limit's lock (ask so after a take that said `limited`)."""
    raise NotImplementedError


async def backlog(conn: Connection, queues: Sequence[QueueName]) -> set[QueueName]:
    """Those of the queues in which something waits. One index probe each."""
    raise NotImplementedError


async def depths(conn: Connection, *, now_ms: int, namespace: str | None = None, cap: int = 100_000) -> list[Depth]:
    """Every queue with waiting rows, by name."""
    raise NotImplementedError
