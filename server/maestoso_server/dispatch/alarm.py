"""When a loop has its next work: the earliest time that anybody told it."""

from __future__ import annotations

import asyncio

from ..clock import Clock


class Alarm:
    """One loop waits in `ring`; others tell it of times. What is missed, the next beat tells again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_ms: int | None = None
        self._sooner = asyncio.Event()

    def notice(self, due_ms: int | None) -> None:
        """There is work at this time (None: there is none). O(1), from anywhere in the loop's thread."""
        if due_ms is not None and (self._due_ms is None or due_ms < self._due_ms):
            self._due_ms = due_ms
            self._sooner.set()

    def now(self) -> None:
        """There is work now."""
        self.notice(0)

    async def ring(self) -> None:
        """Return when the earliest time has come; it is forgotten then."""
        while self._due_ms is None or self._clock.now_ms() < self._due_ms:
            self._sooner.clear()
            await self._clock.wait(self._sooner, self._due_ms)
        self._due_ms = None
