"""What happens because time has passed. DELIVERY 7, 15.

    deadline rows   of any node: claimed in bulk, shared between nodes    -> Due
    owned rows      of this node only: a clock ran out                    -> DeliveryDue
                    or its worker is gone (`expiry`, a takeover)          -> WorkerLost
                    or it was passed on by a session's old node           -> sent by this one
    sleeping rows   of any node                                           -> wait for a taker

Each kind has an alarm. Whoever commits a time tells it here (`notice`); the beat tells the earliest
of the database, so that a lost word costs a second at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from ..clock import Clock
from ..engine.decision import Outcome, Verdict
from ..engine.events import DeliveryDue, Due, Event, WorkerLost
from ..errors import NotFound
from ..executor.lanes import Done
from ..store import deadlines, deliveries, queue
from ..store.database import Database
from ..store.deadlines import Claim
from ..store.deliveries import OwnedDue
from ..store.nodes import Pulse
from ..store.queue import Taken
from .alarm import Alarm
from .attempt import attempt, on_alarm
from .flight import Flight

CHUNK = 1_000
"""Rows of one claim."""
CLAIMED_MOST = 4_000
"""Deadlines with the executor at once: some twenty of its batches."""
OWNED_MOST = 500
"""Less than a chunk, so that a chunk always has some that are not under way."""


class Engine(Protocol):
    """The executor's door."""

    def submit(self, workflow_id: str, event: Event, done: Done | None = None) -> None: ...

    def seed(self) -> int: ...


class Memory(Protocol):
    """What the dispatcher knows of deliveries."""

    def knows(self, workflow_id: str, seq: int, delivery: int) -> bool: ...

    def can_adopt(self, session_id: str) -> bool: ...

    def adopt(self, rows: list[Taken]) -> None: ...


class Deadlines:
    """The timer loops of one node. `run` until cancelled."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        epoch: Callable[[], int],
        engine: Engine,
        memory: Memory,
        rows_wait: Callable[[str, str], None],
        on_lag: Callable[[float], None],
    ) -> None:
        """`rows_wait` is told of queues whose sleepers woke, `on_lag` how many seconds late a deadline
        was seen."""
        self._database = database
        self._clock = clock
        self._epoch = epoch
        self._engine = engine
        self._memory = memory
        self._rows_wait = rows_wait
        self._on_lag = on_lag
        self._due = Alarm(clock)
        self._owned = Alarm(clock)
        self._asleep = Alarm(clock)
        self._claimed_flight = Flight(CLAIMED_MOST)
        self._owned_flight = Flight(OWNED_MOST)
        self._under_way: set[tuple[str, int, int]] = set()
        self._idle: list[Claim] = []
        self._left: list[OwnedDue] = []
        self._answered = asyncio.Event()

    def notice(self, due_ms: int) -> None:
        """Something may be due at this time, of whatever kind."""
        self._due.notice(due_ms)
        self._asleep.notice(due_ms)

    def notice_owned(self, due_ms: int) -> None:
        """A row of this node may be due at this time."""
        self._owned.notice(due_ms)

    def see(self, pulse: Pulse) -> None:
        self._due.notice(pulse.deadline_due_ms)
        self._owned.notice(pulse.owned_due_ms)
        self._asleep.notice(pulse.asleep_due_ms)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(on_alarm(self._clock, self._due, self.claim))
            group.create_task(on_alarm(self._clock, self._owned, self.look_at_owned))
            group.create_task(on_alarm(self._clock, self._asleep, self.wake))
            group.create_task(self._settle())

    async def _settle(self) -> None:
        while True:
            await self._answered.wait()
            self._answered.clear()
            await attempt(self.settle)

    # -- deadline rows -------------------------------------------------------------------------------

    async def claim(self) -> None:
        """Submit all deadlines that are due, a chunk at a time."""
        while True:
            await self._claimed_flight.room()
            now_ms = self._clock.now_ms()
            async with self._database.acquire() as conn:
                claims = await deadlines.claim(conn, now_ms=now_ms, limit=CHUNK)
            for claim in claims:
                self._on_lag((now_ms - claim.due_ms) / 1000)
                event = Due(now_ms=now_ms, seed=self._engine.seed(), seq=claim.seq, queue=claim.queue)
                done = self._claimed_flight.counted(partial(self._claim_answered, claim))
                self._engine.submit(claim.workflow_id, event, done)
            if len(claims) < CHUNK:
                return

    def _claim_answered(self, claim: Claim, outcome: Outcome | Exception) -> None:
        """What changed something was written with its row. What changed nothing leaves a row that
        nobody needs; after an error it comes again when its claim ends."""
        stale = isinstance(outcome, Outcome) and outcome.verdict is Verdict.STALE
        if stale or isinstance(outcome, NotFound):
            self._idle.append(claim)
            self._answered.set()

    # -- owned rows ----------------------------------------------------------------------------------

    async def look_at_owned(self) -> None:
        """Submit all that is due of this node's rows, a chunk at a time."""
        while True:
            await self._owned_flight.room()
            now_ms = self._clock.now_ms()
            async with self._database.acquire() as conn:
                rows = await deliveries.due_owned(conn, epoch=self._epoch(), now_ms=now_ms, limit=CHUNK)
                passed_on = [row for row in rows if self._passed_on(row)]
                if passed_on:
                    keys = [(row.workflow_id, row.seq) for row in passed_on]
                    self._memory.adopt(await queue.read(conn, keys))
                    self._leave(passed_on)
            adopted = {(row.workflow_id, row.seq) for row in passed_on}
            for row in rows:
                if (row.workflow_id, row.seq) not in adopted:
                    self._submit_owned(row, now_ms)
            if len(rows) < CHUNK:
                return

    def _passed_on(self, row: OwnedDue) -> bool:
        """Its session's stream is here, and this node knows nothing of it."""
        return (
            row.session_id is not None
            and self._memory.can_adopt(row.session_id)
            and not self._memory.knows(row.workflow_id, row.seq, row.delivery)
        )

    def _submit_owned(self, row: OwnedDue, now_ms: int) -> None:
        key = (row.workflow_id, row.seq, row.delivery)
        if key in self._under_way:
            return
        self._under_way.add(key)
        self._on_lag((now_ms - row.deadline_ms) / 1000)
        done = self._owned_flight.counted(partial(self._owned_answered, row))
        self._engine.submit(row.workflow_id, self._event(row, now_ms), done)

    def _event(self, row: OwnedDue, now_ms: int) -> Event:
        if row.lost:
            return WorkerLost(
                now_ms=now_ms,
                seed=self._engine.seed(),
                seq=row.seq,
                delivery=row.delivery,
                worker_id=row.worker_id,
                started_ms=row.started_ms,
                unread=row.unread,
            )
        return DeliveryDue(
            now_ms=now_ms,
            seed=self._engine.seed(),
            seq=row.seq,
            delivery=row.delivery,
            started_ms=row.started_ms,
            progress_ms=row.progress_ms,
            worker_id=row.worker_id,
        )

    def _owned_answered(self, row: OwnedDue, outcome: Outcome | Exception) -> None:
        self._under_way.discard((row.workflow_id, row.seq, row.delivery))
        if isinstance(outcome, Outcome) and not row.lost:
            self._leave([row])

    def _leave(self, rows: list[OwnedDue]) -> None:
        """Those of these that still stand go on to their next clock."""
        self._left += rows
        self._answered.set()

    # -- sleeping rows -------------------------------------------------------------------------------

    async def wake(self) -> None:
        """Let all sleepers wait that are due."""
        while True:
            async with self._database.acquire() as conn:
                woken, queues = await deliveries.wake_asleep(
                    conn, epoch=self._epoch(), now_ms=self._clock.now_ms(), limit=CHUNK
                )
            for namespace, name in queues:
                self._rows_wait(namespace, name)
            if woken < CHUNK:
                return

    # -- afterwards ----------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Write what the answers left to be done. What is not written is due again by itself."""
        idle, self._idle = self._idle, []
        left, self._left = self._left, []
        async with self._database.acquire() as conn:
            if idle:
                await deadlines.drop(conn, idle)
            if left:
                await deliveries.settle_due(conn, epoch=self._epoch(), rows=left, now_ms=self._clock.now_ms())
