"""What is kept for a while only: events of the outbox and cached outputs. Any node clears them away."""

from __future__ import annotations

from ..clock import Clock
from ..store import outbox
from ..store.database import Database
from .attempt import attempt

EVERY_MS = 60_000
ACKNOWLEDGED_KEPT_MS = 24 * 3_600_000
"""How long an event stays to be looked at after it was taken care of."""
EVENTS_KEPT_MS = 7 * 24 * 3_600_000
"""How long one waits for somebody to take care of it."""


class Retention:
    """`run` until cancelled."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def run(self) -> None:
        """Once a minute, for ever; what could not be done waits for the next minute."""
        while True:
            await self._clock.sleep_until(self._clock.now_ms() + EVERY_MS)
            await attempt(self.run_once)

    async def run_once(self) -> None:
        """Delete what is over, in small statements: nobody waits for them."""
        now_ms = self._clock.now_ms()
        async with self._database.acquire() as connection:
            while await outbox.prune(
                connection,
                acknowledged_before_ms=now_ms - ACKNOWLEDGED_KEPT_MS,
                created_before_ms=now_ms - EVENTS_KEPT_MS,
            ):
                pass
            while await outbox.prune_cache(connection, now_ms=now_ms) == outbox.PRUNED_AT_ONCE:
                pass
