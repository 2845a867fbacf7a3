"""Gives slots of workflows under a `rateLimitConfig` to those that wait, as soon as there is word of it.

A node that commits such word gives the slots itself; the beat finds what a dead node has left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..clock import Clock
from ..store import slots
from ..store.database import Database
from ..store.nodes import Pulse
from .alarm import Alarm
from .attempt import on_alarm


class Engine(Protocol):
    """The executor's door for messages in the inbox."""

    def drain(self, workflow_id: str) -> None: ...


class Slots:
    """The loop that gives slots. `run` until cancelled."""

    def __init__(self, *, database: Database, clock: Clock, epoch: Callable[[], int], engine: Engine) -> None:
        self._database = database
        self._clock = clock
        self._epoch = epoch
        self._engine = engine
        self._work = Alarm(clock)

    def changed(self) -> None:
        """A save has left word."""
        self._work.now()

    def see(self, pulse: Pulse) -> None:
        if pulse.slot_work:
            self._work.now()

    async def run(self) -> None:
        await on_alarm(self._clock, self._work, self.give)

    async def give(self) -> None:
        """Until there is no word left."""
        async with self._database.acquire() as conn:
            while keys := await slots.work(conn):
                for key in keys:
                    given = await slots.give(conn, key, epoch=self._epoch(), now_ms=self._clock.now_ms())
                    for workflow_id in given:
                        self._engine.drain(workflow_id)
