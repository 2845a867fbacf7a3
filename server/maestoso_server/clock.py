"""The only place where time enters the server, and the only thing that timer loops wait on.

All times are whole milliseconds since 1970 UTC on the clock of the *database*, so that nodes
agree about leases and deadlines however wrong their own clocks are. `Clock` keeps the distance
between the database's clock and this process's monotonic one; the store measures it. Tests use
`ManualClock`, which moves only when it is told to.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What every floor may ask of time."""

    def now_ms(self) -> int:
        """The database's time. Never goes back."""
        ...

    def local_ms(self) -> float:
        """This process's monotonic time, the base of `adjust`. Means nothing elsewhere."""
        ...

    def adjust(self, database_ms: float, sent_ms: float, received_ms: float) -> None:
        """Take in one reading of the database's clock, asked for at `sent_ms` and answered at
        `received_ms` of `local_ms`."""
        ...

    async def sleep_until(self, until_ms: int) -> None:
        """Return once `now_ms() >= until_ms`."""
        ...

    async def wait(self, event: asyncio.Event, until_ms: int | None) -> bool:
        """Wait for `event` (True) or for `until_ms` (False), whichever is first. None = for ever.

        The event is not cleared."""
        ...


class SystemClock:
    """Real time. Until the first `adjust` it believes the machine's own clock.

    A reading is off by at most half of its round trip. A better one replaces it at once; a worse
    one only after `STALE_AFTER_MS`, since the two clocks drift apart by some 0.1 ms a second at
    most."""

    STALE_AFTER_MS = 10_000.0

    def __init__(self) -> None:
        self._offset_ms = time.time_ns() / 1e6 - self.local_ms()
        self._error_ms = float("inf")
        self._measured_ms = self.local_ms()
        self._last_ms = 0

    def now_ms(self) -> int:
        now = int(self.local_ms() + self._offset_ms)
        if now > self._last_ms:
            self._last_ms = now
        return self._last_ms

    def local_ms(self) -> float:
        return time.monotonic_ns() / 1e6

    def adjust(self, database_ms: float, sent_ms: float, received_ms: float) -> None:
        error_ms = (received_ms - sent_ms) / 2
        stale = received_ms - self._measured_ms > self.STALE_AFTER_MS
        if error_ms <= self._error_ms or stale:
            self._offset_ms = database_ms - (sent_ms + received_ms) / 2
            self._error_ms = error_ms
            self._measured_ms = received_ms

    async def sleep_until(self, until_ms: int) -> None:
        # Again after each wake-up: the offset may have moved meanwhile.
        while (left_ms := until_ms - self.now_ms()) > 0:
            await asyncio.sleep(left_ms / 1000)

    async def wait(self, event: asyncio.Event, until_ms: int | None) -> bool:
        if event.is_set():
            return True
        if until_ms is None:
            return await event.wait()
        while (left_ms := until_ms - self.now_ms()) > 0:
            try:
                async with asyncio.timeout(left_ms / 1000):
                    return await event.wait()
            except TimeoutError:
                continue
        return event.is_set()


class ManualClock:
    """A clock for tests: it stands still until `advance`, which wakes whoever waited for less.

    `advance` only makes waiters runnable; they run when the test awaits something. The database's
    clock is ignored: statements take their time from here anyway."""

    def __init__(self, now_ms: int = 1_750_000_000_000) -> None:
        self._now_ms = now_ms
        self._sleepers: list[tuple[int, asyncio.Event]] = []
        self._more = asyncio.Event()

    def now_ms(self) -> int:
        return self._now_ms

    def local_ms(self) -> float:
        return float(self._now_ms)

    def adjust(self, database_ms: float, sent_ms: float, received_ms: float) -> None:
        return

    def advance(self, by_ms: int) -> None:
        """Move forward and wake everybody whose time has come."""
        if by_ms < 0:
            raise ValueError(f"time does not go back: advance({by_ms})")
        self._now_ms += by_ms
        for until_ms, wake in self._sleepers:
            if until_ms <= self._now_ms:
                wake.set()

    @property
    def next_wake_ms(self) -> int | None:
        """The earliest time that anybody waits for."""
        return min((until_ms for until_ms, _ in self._sleepers), default=None)

    async def awaited(self, until_ms: int) -> None:
        """Until somebody waits for exactly that moment."""
        while all(until_ms != moment for moment, _ in self._sleepers):
            self._more.clear()
            await self._more.wait()

    async def sleep_until(self, until_ms: int) -> None:
        await self.wait(asyncio.Event(), until_ms)

    async def wait(self, event: asyncio.Event, until_ms: int | None) -> bool:
        if event.is_set() or (until_ms is not None and until_ms <= self._now_ms):
            return event.is_set()
        if until_ms is None:
            return await event.wait()
        wake = asyncio.Event()
        sleeper = (until_ms, wake)
        self._sleepers.append(sleeper)
        self._more.set()
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(wake.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._sleepers.remove(sleeper)
            for wait in waits:
                wait.cancel()
        return event.is_set()
