"""How many events of a loop are with the executor: it may have many, never all of a flood."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..engine.decision import Outcome
from ..executor.lanes import Done


class Flight:
    """Counts events from their submission to their answer."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._flying = 0
        self._room = asyncio.Event()
        self._room.set()

    def counted(self, done: Callable[[Outcome | Exception], None]) -> Done:
        """`done`, and one less in flight afterwards."""
        self._flying += 1
        if self._flying >= self._most:
            self._room.clear()

        def landed(outcome: Outcome | Exception) -> None:
            self._flying -= 1
            if self._flying < self._most:
                self._room.set()
            done(outcome)

        return landed

    async def room(self) -> None:
        """Return when fewer than `most` are in flight."""
        await self._room.wait()
