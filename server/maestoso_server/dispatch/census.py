"""What the database says is in the hands of this node's workers, against what this node remembers.

The two agree, by every rule of this floor. Where they do not, a task would stand until its response
time-out, owned by a node that does not know it: so they are compared now and then, and what is
unknown twice in a row has the node take a new epoch, which sends such rows to their sessions again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

from ..clock import Clock
from ..store import sessions
from ..store.database import Database
from .attempt import attempt
from .node import Node

log = logging.getLogger(__name__)

EVERY_MS = 30_000
"""Longer than any statement is under way: what was only on its way is known at the next look."""
SESSIONS_AT_ONCE = 50


class Memory(Protocol):
    """What the dispatcher knows of deliveries."""

    def open_session_ids(self) -> Iterable[str]: ...

    def knows(self, workflow_id: str, seq: int, delivery: int) -> bool: ...


class News(Protocol):
    def forgotten(self, count: int) -> None:
        """So many rows of this node are unknown to it."""
        ...


class Census:
    """`run` until cancelled."""

    def __init__(self, *, database: Database, clock: Clock, node: Node, memory: Memory, news: News) -> None:
        self._database = database
        self._clock = clock
        self._node = node
        self._memory = memory
        self._news = news
        self._suspects: set[tuple[str, int, int]] = set()

    async def run(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now_ms() + EVERY_MS)
            await attempt(self.run_once)

    async def run_once(self) -> None:
        """Compare once. A node that is about to rejoin finds out by that."""
        before, self._suspects = self._suspects, set()
        epoch = self._node.epoch
        unknown = await self._unknown(epoch)
        if not self._node.settled or self._node.epoch != epoch:
            return
        forgotten = unknown & before
        self._suspects = unknown - forgotten
        if forgotten:
            log.error("deliveries were forgotten", extra={"epoch": epoch, "count": len(forgotten)})
            self._news.forgotten(len(forgotten))

    async def _unknown(self, epoch: int) -> set[tuple[str, int, int]]:
        unknown: set[tuple[str, int, int]] = set()
        open_here = list(self._memory.open_session_ids())
        for start in range(0, len(open_here), SESSIONS_AT_ONCE):
            some = open_here[start : start + SESSIONS_AT_ONCE]
            async with self._database.acquire() as conn:
                held = await sessions.held_by(conn, epoch=epoch, session_ids=some)
            unknown.update(
                place
                for row in held
                if not self._memory.knows(*(place := (row.workflow_id, row.seq, row.delivery)))
            )
        return unknown
