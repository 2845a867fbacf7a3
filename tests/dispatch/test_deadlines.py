"""DELIVERY 7, 15: what happens because time has passed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from maestoso_server.dispatch.alarm import Alarm
from maestoso_server.dispatch.deadlines import CLAIMED_MOST, Deadlines
from maestoso_server.engine.decision import APPLIED, Outcome, Verdict
from maestoso_server.engine.events import DeliveryDue, Due, Event, WorkerLost
from maestoso_server.errors import NotFound, Reason
from maestoso_server.executor.lanes import Done
from maestoso_server.ids import session_id
from maestoso_server.store import deadlines
from maestoso_server.store.database import Unavailable
from maestoso_server.store.deadlines import CLAIM_MS
from maestoso_server.store.deliveries import MOST_UNREAD, Key
from maestoso_server.store.queue import Taken
from ownership_kit import World, eventually, running

STALE = Outcome(Verdict.STALE, "nothing is due")


@dataclass
class Door:
    """Takes events in; the test answers them."""

    events: list[tuple[str, Event]] = field(default_factory=list)
    dones: list[Done] = field(default_factory=list)
    answer: Outcome | Exception | None = None
    """Answers at once with this, if it is set."""

    def submit(self, workflow_id: str, event: Event, done: Done | None = None) -> None:
        assert done is not None
        self.events.append((workflow_id, event))
        if self.answer is not None:
            done(self.answer)
        else:
            self.dones.append(done)

    def seed(self) -> int:
        return 7


@dataclass
class Known:
    """A memory of deliveries."""

    keys: set[tuple[str, int, int]] = field(default_factory=set)
    open_here: set[str] = field(default_factory=set)
    adopted: list[Taken] = field(default_factory=list)

    def knows(self, workflow_id: str, seq: int, delivery: int) -> bool:
        return (workflow_id, seq, delivery) in self.keys

    def can_adopt(self, session_id: str) -> bool:
        return session_id in self.open_here

    def adopt(self, rows: list[Taken]) -> None:
        self.adopted += rows


@dataclass
class Timers:
    world: World
    epoch: int
    door: Door
    known: Known
    waits: list[tuple[str, str]]
    lags: list[float]
    deadlines: Deadlines

    async def arm(self, due_ms: int, count: int = 1) -> list[Key]:
        keys = [Key(session_id(), seq) for seq in range(count)]
        await self.world.conn.execute(
            "INSERT INTO deadline SELECT * FROM unnest($1::uuid[], $2::int[], $3::bigint[])",
            [key.workflow_id for key in keys],
            [key.seq for key in keys],
            [due_ms] * count,
        )
        return keys


@pytest.fixture
async def timers(world: World) -> AsyncIterator[Timers]:
    epoch, door, known = await world.node(), Door(), Known()
    waits: list[tuple[str, str]] = []
    lags: list[float] = []
    made = Deadlines(
        database=world.database,
        clock=world.clock,
        epoch=lambda: epoch,
        engine=door,
        memory=known,
        rows_wait=lambda namespace, queue: waits.append((namespace, queue)),
        on_lag=lags.append,
    )
    yield Timers(world, epoch, door, known, waits, lags, made)


class TestDeadlineRows:
    async def test_due_ones_are_submitted_and_claimed(self, timers: Timers) -> None:
        (key,) = await timers.arm(timers.world.now_ms - 1_500)
        await timers.arm(timers.world.now_ms + 1)
        await timers.deadlines.claim()
        await timers.deadlines.claim()
        assert timers.door.events == [(key.workflow_id, Due(now_ms=timers.world.now_ms, seed=7, seq=key.seq))]
        assert timers.lags == [1.5]

    async def test_an_unanswered_claim_ends(self, timers: Timers) -> None:
        await timers.arm(timers.world.now_ms)
        await timers.deadlines.claim()
        timers.world.clock.advance(CLAIM_MS)
        await timers.deadlines.claim()
        assert len(timers.door.events) == 2

    @pytest.mark.parametrize("answer", [STALE, NotFound(Reason.WORKFLOW_NOT_FOUND, "gone")])
    async def test_what_nobody_needs_goes(self, timers: Timers, answer: Outcome | Exception) -> None:
        (key,) = await timers.arm(timers.world.now_ms)
        timers.door.answer = answer
        await timers.deadlines.claim()
        await timers.deadlines.settle()
        assert await timers.world.deadline(key) is None

    @pytest.mark.parametrize("answer", [APPLIED, Unavailable("gone")])
    async def test_what_a_save_wrote_or_an_error_left_stays(
        self, timers: Timers, answer: Outcome | Exception
    ) -> None:
        (key,) = await timers.arm(timers.world.now_ms)
        timers.door.answer = answer
        await timers.deadlines.claim()
        await timers.deadlines.settle()
        assert await timers.world.deadline(key) == timers.world.now_ms + CLAIM_MS

    async def test_one_that_was_armed_anew_meanwhile_stays(self, timers: Timers) -> None:
        (key,) = await timers.arm(timers.world.now_ms)
        await timers.deadlines.claim()
        later_ms = timers.world.now_ms + 99
        await timers.world.conn.execute("UPDATE deadline SET due_ms = $1", later_ms)
        timers.door.dones[0](STALE)
        await timers.deadlines.settle()
        assert await timers.world.deadline(key) == later_ms

    async def test_two_nodes_share_them(self, timers: Timers) -> None:
        world = timers.world
        keys = await timers.arm(world.now_ms, 20)
        async with world.other.transaction():
            mine = await deadlines.claim(world.other, now_ms=world.now_ms, limit=8)
            await timers.deadlines.claim()
        assert len(timers.door.events) == 12
        claimed = {claim.workflow_id for claim in mine} | {event[0] for event in timers.door.events}
        assert claimed == {key.workflow_id for key in keys}

    async def test_a_flood_never_has_more_than_some_with_the_executor(self, timers: Timers) -> None:
        await timers.arm(timers.world.now_ms, CLAIMED_MOST + 1_500)
        async with running(timers.deadlines.claim()):
            await eventually(lambda: self.claimed(timers, CLAIMED_MOST))
            assert len(timers.door.dones) == CLAIMED_MOST
            for done in timers.door.dones[:1_500]:
                done(APPLIED)
            await eventually(lambda: self.claimed(timers, CLAIMED_MOST + 1_500))

    async def claimed(self, timers: Timers, count: int) -> bool:
        await timers.world.conn.fetchval("SELECT 1")
        return len(timers.door.events) >= count


class TestOwnedRows:
    async def test_a_clock_that_ran_out_asks_the_engine_once(self, timers: Timers) -> None:
        world = timers.world
        session = session_id()
        key = await world.row(
            owner=timers.epoch,
            session=session,
            delivery=2,
            deadline_ms=world.now_ms,
            started_ms=5,
            worker_id="w",
        )
        timers.known.keys.add((*key, 2))
        timers.known.open_here.add(session)
        await timers.deadlines.look_at_owned()
        await timers.deadlines.look_at_owned()
        assert timers.door.events == [
            (
                key.workflow_id,
                DeliveryDue(
                    now_ms=world.now_ms, seed=7, seq=key.seq, delivery=2, started_ms=5, worker_id="w"
                ),
            )
        ]

    async def test_one_that_the_engine_left_alone_goes_on_to_its_next_clock(self, timers: Timers) -> None:
        world = timers.world
        key = await world.row(
            owner=timers.epoch, session=session_id(), delivery=1, started_ms=world.now_ms - 5_000,
            deadline_ms=world.now_ms, timeout_s=5, response_s=9,
        )  # fmt: skip
        timers.door.answer = STALE
        await timers.deadlines.look_at_owned()
        await timers.deadlines.settle()
        assert (await world.queued(key))["deadline_ms"] == world.now_ms + 4_000

    @pytest.mark.parametrize(
        ("unread", "poison"), [(0, False), (MOST_UNREAD - 1, False), (MOST_UNREAD, True)]
    )
    async def test_a_lost_one_is_told_as_lost_until_it_is_gone(
        self, timers: Timers, unread: int, poison: bool
    ) -> None:
        world = timers.world
        key = await world.row(owner=timers.epoch, delivery=3, deadline_ms=world.now_ms, unread=unread)
        timers.door.answer = Unavailable("not now")
        await timers.deadlines.look_at_owned()
        timers.door.answer = STALE
        await timers.deadlines.look_at_owned()
        await timers.deadlines.settle()
        lost = WorkerLost(now_ms=world.now_ms, seed=7, seq=key.seq, delivery=3, unread=poison)
        assert timers.door.events == [(key.workflow_id, lost)] * 2
        assert (await world.queued(key))["deadline_ms"] == world.now_ms

    async def test_one_passed_on_by_the_old_node_is_sent_and_not_timed_out(self, timers: Timers) -> None:
        world = timers.world
        session = session_id()
        key = await world.row(owner=timers.epoch, session=session, delivery=1, deadline_ms=world.now_ms)
        timers.known.open_here.add(session)
        await timers.deadlines.look_at_owned()
        await timers.deadlines.settle()
        assert timers.door.events == []
        assert [Key(row.workflow_id, row.seq) for row in timers.known.adopted] == [key]
        assert (await world.queued(key))["deadline_ms"] is None

    async def test_those_of_other_nodes_are_left_alone(self, timers: Timers) -> None:
        rival = await timers.world.node()
        await timers.world.row(owner=rival, session=session_id(), delivery=1, deadline_ms=timers.world.now_ms)
        await timers.deadlines.look_at_owned()
        assert timers.door.events == []


class TestSleepingRows:
    async def test_due_ones_wait_and_the_takers_are_told(self, timers: Timers) -> None:
        world = timers.world
        due = await world.row(owner=-1, deadline_ms=world.now_ms, delivery=1)
        later = await world.row(owner=-1, deadline_ms=world.now_ms + 1, delivery=1)
        await timers.deadlines.wake()
        assert timers.waits == [("default", "pay")]
        assert (await world.queued(due))["owner_epoch"] is None
        assert (await world.queued(later))["owner_epoch"] == -1


async def test_the_loops_wake_at_the_noticed_time(timers: Timers) -> None:
    world = timers.world
    (key,) = await timers.arm(world.now_ms + 300)
    row = await world.row(owner=-1, deadline_ms=world.now_ms + 300)
    timers.door.answer = STALE
    async with running(timers.deadlines.run()):
        timers.deadlines.notice(world.now_ms + 300)

        async def asleep() -> bool:
            await world.conn.fetchval("SELECT 1")
            return world.clock.next_wake_ms == world.now_ms + 300

        await eventually(asleep)
        assert timers.door.events == []
        world.clock.advance(300)

        async def done() -> bool:
            gone = await world.deadline(key) is None
            return gone and (await world.queued(row))["owner_epoch"] is None

        await eventually(done)
    assert [workflow_id for workflow_id, _ in timers.door.events] == [key.workflow_id]


async def test_an_alarm_rings_at_the_earliest_time_and_forgets_it(world: World) -> None:
    alarm = Alarm(world.clock)
    rings: list[int] = []

    async def ring() -> None:
        while True:
            await alarm.ring()
            rings.append(world.now_ms)

    async def settled() -> bool:
        await world.conn.fetchval("SELECT 1")
        return True

    start_ms = world.now_ms
    async with running(ring()):
        alarm.notice(None)
        alarm.notice(start_ms + 50)
        alarm.notice(start_ms + 20)
        await eventually(settled)
        world.clock.advance(19)
        await eventually(settled)
        assert rings == []
        world.clock.advance(1)
        await eventually(lambda: _rang(world, rings, 1))
        world.clock.advance(60)
        await eventually(settled)
        assert rings == [start_ms + 20]
        alarm.now()
        await eventually(lambda: _rang(world, rings, 2))


async def _rang(world: World, rings: list[int], times: int) -> bool:
    await world.conn.fetchval("SELECT 1")
    return len(rings) == times
