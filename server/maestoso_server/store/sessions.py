"""Worker sessions: opened, moved between nodes, ended. DELIVERY 8, 9, 10, 12.

A session's row outlives its stream by the time to live, and an expired one stays until the last of
its rows has been dealt with, so that a crash in between loses nothing: whoever takes the dead
node's place goes on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .deliveries import Key
from .nodes import ALIVE, Connection, NodeLost
from .queue import QueueName, Taken

TIME_TO_LIVE_MS = 5_000
"""How long a session outlives its stream. A worker fences itself after 4 s."""


@dataclass(slots=True)
class Session:
    """One worker stream, as opened or listed. `resume_token_hash`: SHA-256 of the secret."""

    session_id: str
    epoch: int
    namespace: str
    worker_id: str
    resume_token_hash: bytes
    task_types: list[str]
    """Queue names: `domain:type`, or just the type."""
    principal: str
    sdk: str
    state: str
    """ACTIVE, DETACHED (its stream ended) or EXPIRED."""
    connected_ms: int
    expires_ms: int | None = None


@dataclass(slots=True)
class Held:
    """A delivery named in a resuming worker's inventory."""

    workflow_id: str
    seq: int
    delivery: int


@dataclass(slots=True)
class KeptRow:
    """A delivery that the session still holds, now owned by the resuming node."""

    workflow_id: str
    seq: int
    delivery: int
    queue: str
    task_type: str
    size: int
    limit: int
    priority: int
    response_s: int
    started_ms: int
    """0: not marked read yet; being held, it was read."""


@dataclass(slots=True)
class Resumed:
    """The session goes on at this node. `held` items that are not in `kept` are not the worker's.

    `waiting`: queues that got rows back; `redelivered`: how many. `lost`: rows that nobody read
    `MOST_UNREAD` times in a row; they are due now (`deliveries.due_owned` tells them).
    `unsent`: with `adopt`, rows that the inventory lacks, to be sent under their delivery."""

    session: Session
    kept: list[KeptRow]
    redelivered: int
    waiting: set[QueueName]
    lost: int
    unsent: list[Taken]


@dataclass(slots=True)
class Expired:
    """What an expiry did. `more`: some rows were busy, or the limit was reached: call again.

    `lost` rows are due now at this node: `deliveries.due_owned` tells them."""

    sessions: set[str]
    lost: int
    waiting: set[QueueName]
    more: bool


async def open_session(conn: Connection, session: Session) -> None:
    """Write a new session of this node (`session.epoch`), before its first delivery. Raises `NodeLost`."""
    raise NotImplementedError


async def resume(
    conn: Connection,
    *,
    epoch: int,
    session_id: str,
    namespace: str,
    resume_token_hash: bytes,
    held: Sequence[Held],
    now_ms: int,
    adopt: bool = False,
) -> Resumed | None:
    """Transition 9: the session and what the worker holds belong to this node from now on.

    None: no such session, a wrong token, or it has expired. Rows that the inventory lacks were
    unread: they wait again with `unread` + 1. With `adopt` (transition 12: the inventory is this
    node's own memory) they are new, stay the session's and come back as `unsent`.
    One transaction; raises `NodeLost`."""
    raise NotImplementedError


async def detach(conn: Connection, *, epoch: int, session_ids: Sequence[str], now_ms: int) -> set[str]:
    """Transition 8: these streams have ended; their sessions live on for `TIME_TO_LIVE_MS`.

    Answers those that were this node's."""
    raise NotImplementedError


async def expire(
    conn: Connection, *, epoch: int, unread: Sequence[Held], now_ms: int, limit: int = 1000
) -> Expired:
    """Transition 10: end this node's sessions whose time is over, and deal with their rows.

    `unread`: deliveries of such sessions that this node itself knows were never read; they wait
    again with `unread` + 1. All others were read: their worker is lost, unless their definition
    has them wait again."""
    raise NotImplementedError


async def moved(conn: Connection, *, epoch: int, session_ids: Sequence[str]) -> set[str]:
    """Those of the sessions that this node believes to serve and that are not its own any more."""
    raise NotImplementedError


async def pass_on(conn: Connection, *, epoch: int, session_id: str) -> set[Key]:
    """Rows of mine of a session that moved follow it to its node: the old node's half of 9."""
    raise NotImplementedError


async def list_sessions(conn: Connection, *, namespace: str | None = None, after: str = "", limit: int = 1000) -> list[Session]:
    """Sessions by id, `after` the last one of the page before."""
    raise NotImplementedError
