"""Which queues somebody at this node takes from, told to the database. DELIVERY 17.

A pair is committed before the worker hears that it is connected, so that a workflow started right
afterwards finds its domain served; it is repeated as long as a stream or poll lives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..clock import Clock
from ..store import demand
from ..store.database import Database


class Demand:
    """The words of demand of one node."""

    def __init__(self, *, database: Database, clock: Clock, epoch: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._epoch = epoch
        self._noted: dict[tuple[str, str], tuple[int, int]] = {}

    async def note(self, queues: Collection[tuple[str, str]]) -> None:
        """These (namespace, queue) pairs are committed as wanted. Costs nothing while they are fresh."""
        epoch, now_ms = self._epoch(), self._clock.now_ms()
        stale = [pair for pair in queues if not self._fresh(pair, epoch, now_ms)]
        if not stale:
            return
        async with self._database.acquire() as conn:
            await demand.note(conn, epoch=epoch, queues=stale, now_ms=now_ms)
        for pair in stale:
            self._noted[pair] = (epoch, now_ms)

    async def refresh(self, living: Collection[tuple[str, str]]) -> None:
        """Repeat the pairs that somebody still wants, and let the others go."""
        wanted = set(living)
        for pair in self._noted.keys() - wanted:
            del self._noted[pair]
        await self.note(wanted)

    def _fresh(self, pair: tuple[str, str], epoch: int, now_ms: int) -> bool:
        noted_epoch, noted_ms = self._noted.get(pair, (0, 0))
        return noted_epoch == epoch and now_ms - noted_ms < demand.REFRESH_MS
