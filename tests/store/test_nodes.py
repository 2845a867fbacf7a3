"""DELIVERY 11 and 17, and the beat: what a node sees, and what becomes of a dead one."""

from __future__ import annotations

import asyncio

import pytest

from maestoso_server.ids import session_id
from maestoso_server.store import deliveries, demand, nodes, queue, sessions
from maestoso_server.store.nodes import LEASE_MS, TIME_TO_LIVE_MS, NodeLost, Pulse, Takeover
from ownership_kit import World, open_world


async def pulse(world: World, epoch: int, **changes: object) -> Pulse:
    asked = {"conn": world.conn, "queues": [], "now_ms": world.now_ms} | changes
    return await nodes.pulse(epoch=epoch, **asked)  # type: ignore[arg-type]


async def takeover(world: World, epoch: int, dead: int, **changes: object) -> Takeover | None:
    asked = {"conn": world.conn, "now_ms": world.now_ms} | changes
    return await nodes.takeover(epoch=epoch, dead=dead, **asked)  # type: ignore[arg-type]


async def message(
    world: World, *, drain: int, origin: int = 0, answered: bool = False, parked: bool = False
) -> int:
    outcome = b"{}" if answered else None
    found: int = await world.conn.fetchval(
        "INSERT INTO inbox (workflow_id, kind, body, due_ms, parked, drain_epoch, origin_epoch, outcome)"
        " VALUES ($1, 1, '{}', 0, $2, $3, $4, $5) RETURNING id",
        session_id(), parked, drain, origin, outcome,
    )  # fmt: skip
    return found


class TestPulse:
    async def test_of_an_idle_database_finds_nothing(self, world: World) -> None:
        epoch = await world.node()
        seen = await pulse(world, epoch)
        (row,) = seen.nodes
        assert (row.epoch, row.grpc_address, row.node_id) == (epoch, f"127.0.0.1:{epoch}", f"node-{epoch}")
        nothing = dict.fromkeys(["deadline", "owned", "asleep", "inbox", "session"])
        assert {name: getattr(seen, f"{name}_due_ms") for name in nothing} == nothing
        assert (seen.sessions, seen.ended, seen.answered, seen.draining) == (0, False, False, False)
        assert (seen.dead, seen.orphans, seen.waiting) == ([], [], [])

    async def test_renews_the_lease(self, world: World) -> None:
        epoch = await world.node()
        world.clock.advance(1_000)
        await pulse(world, epoch)
        (row,) = await nodes.list_nodes(world.conn)
        assert row.lease_until_ms == world.now_ms + LEASE_MS

    async def test_of_a_node_whose_row_is_gone(self, world: World) -> None:
        epoch = await world.node()
        await nodes.remove(world.conn, epoch)
        with pytest.raises(NodeLost):
            await pulse(world, epoch)

    async def test_tells_what_is_due_for_this_node(self, world: World) -> None:
        epoch, rival = await world.node(), await world.node()
        now_ms = world.now_ms
        await world.row(owner=epoch, session=session_id(), delivery=1, deadline_ms=now_ms + 7)
        await world.row(owner=rival, session=session_id(), delivery=1, deadline_ms=now_ms + 6, ended=True)
        await world.row(owner=-1, deadline_ms=now_ms + 5)
        await world.row(queue="a"), await world.row(queue="b", owner=0, delivery=1)
        await world.conn.execute("INSERT INTO deadline VALUES ($1, 0, $2)", session_id(), now_ms + 4)
        await message(world, drain=epoch)
        await message(world, drain=rival, parked=True)
        await message(world, drain=rival, origin=epoch, answered=True)
        living, gone = await world.session(epoch), await world.session(epoch)
        await sessions.detach(world.conn, epoch=epoch, session_ids=[gone.session_id], now_ms=now_ms)
        await nodes.set_draining(world.conn, epoch, True)

        mine = await pulse(world, epoch, queues=[("default", "a"), ("default", "b"), ("default", "c")])
        assert (mine.deadline_due_ms, mine.owned_due_ms, mine.asleep_due_ms) == (
            now_ms + 4,
            now_ms + 7,
            now_ms + 5,
        )
        assert (mine.inbox_due_ms, mine.session_due_ms) == (0, now_ms + TIME_TO_LIVE_MS)
        assert (mine.sessions, mine.ended, mine.answered, mine.draining) == (1, False, True, True)
        assert mine.waiting == [("default", "a")]
        theirs = await pulse(world, rival)
        assert (theirs.owned_due_ms, theirs.ended, theirs.answered) == (now_ms + 6, True, False)
        assert (theirs.inbox_due_ms, theirs.sessions, theirs.draining) == (None, 0, False)
        assert living.epoch == epoch

    async def test_names_orphans_wherever_they_still_own(self, world: World) -> None:
        epoch = await world.node()
        gone = [await nodes.new_epoch(world.conn) for _ in range(5)]
        await world.row(owner=gone[0], session=session_id(), delivery=1)
        dying = await world.node()
        await world.session(dying)
        await nodes.remove(world.conn, dying)
        await message(world, drain=gone[2])
        await message(world, drain=epoch, origin=gone[3], answered=True)
        await message(world, drain=gone[4], parked=True)
        await world.row(owner=epoch, session=session_id(), delivery=1)
        await world.row(owner=0, delivery=1)
        assert (await pulse(world, epoch)).orphans == sorted([gone[0], gone[2], gone[3], dying])

    async def test_names_the_dead_by_their_lease(self, world: World) -> None:
        epoch, rival = await world.node(), await world.node()
        world.clock.advance(LEASE_MS)
        assert (await pulse(world, epoch)).dead == []
        world.clock.advance(1)
        assert (await pulse(world, epoch)).dead == [rival]

    async def test_names_the_dead_at_once_by_their_fallen_lock(self, world: World) -> None:
        epoch = await world.node()
        living, dying = await world.node(), await world.node()
        await nodes.prove_life(world.other, living)
        life = await world.database.dedicated()
        await nodes.prove_life(life, dying)
        assert (await pulse(world, epoch, trust_locks=True)).dead == []
        await life.raw.close()
        assert (await pulse(world, epoch, trust_locks=True)).dead == [dying]
        assert (await pulse(world, epoch)).dead == []
        await nodes.stop_proving(world.other, living)
        assert (await pulse(world, epoch, trust_locks=True)).dead == [living, dying]

    @pytest.mark.slow
    async def test_reads_few_rows_of_a_big_queue(self, world: World) -> None:
        epoch, gone = await world.node(), await nodes.new_epoch(world.conn)
        await world.row(owner=epoch, session=session_id(), delivery=1, deadline_ms=world.now_ms)
        await world.row(owner=gone, session=session_id(), delivery=1)
        await world.multiply_rows(100_000)
        before = await self.rows_read(world)
        assert (await pulse(world, epoch, queues=[("default", "pay")])).orphans == [gone]
        assert await self.rows_read(world) - before < 20

    async def rows_read(self, world: World) -> int:
        await world.conn.execute("SELECT pg_stat_force_next_flush()")
        found: int = await world.conn.fetchval(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'task_queue'"
        )
        return found


class TestTakeover:
    async def test_moves_sessions_rows_and_messages(self, world: World) -> None:
        epoch, dead = await world.node(), await world.node(lease_ms=-1)
        session = await world.session(dead)
        row = await world.row(
            owner=dead, session=session.session_id, delivery=1, deadline_ms=world.now_ms + 9
        )
        polled = await world.row(owner=0, delivery=1)
        sleeping = await world.row(owner=-1, deadline_ms=world.now_ms + 9)
        await message(world, drain=dead)
        await message(world, drain=epoch, origin=dead, answered=True)
        await demand.note(world.conn, epoch=dead, queues=[("default", "pay")], now_ms=world.now_ms)
        assert await takeover(world, epoch, dead) == Takeover(sessions=1, rows=1, messages=2)
        (inherited,) = await sessions.list_sessions(world.conn)
        assert (inherited.epoch, inherited.state) == (epoch, "DETACHED")
        assert inherited.expires_ms == world.now_ms + TIME_TO_LIVE_MS
        stored = await world.queued(row)
        assert (stored["owner_epoch"], str(stored["session_id"])) == (epoch, session.session_id)
        assert stored["deadline_ms"] == world.now_ms + 9
        assert (await world.queued(polled))["owner_epoch"] == 0
        assert (await world.queued(sleeping))["owner_epoch"] == -1
        seen = await pulse(world, epoch)
        assert (seen.orphans, [node.epoch for node in seen.nodes], seen.inbox_due_ms) == ([], [epoch], 0)
        assert (
            await demand.live(world.conn, namespace="default", queues=["pay"], now_ms=world.now_ms) == set()
        )

    async def test_of_a_living_node_is_refused(self, world: World) -> None:
        epoch, living = await world.node(), await world.node()
        row = await world.row(owner=living, session=session_id(), delivery=1)
        await nodes.prove_life(world.other, living)
        assert await takeover(world, epoch, living, trust_locks=True) is None
        assert (await world.queued(row))["owner_epoch"] == living

    async def test_by_a_node_that_lost_its_row_is_refused(self, world: World) -> None:
        epoch, dead = await world.node(), await world.node(lease_ms=-1)
        await nodes.remove(world.conn, epoch)
        with pytest.raises(NodeLost):
            await takeover(world, epoch, dead)
        assert [node.epoch for node in await nodes.list_nodes(world.conn)] == [dead]

    async def test_rows_without_a_session_are_lost_or_wait_again(self, world: World) -> None:
        epoch, gone = await world.node(), await nodes.new_epoch(world.conn)
        lost = await world.row(owner=gone, session=session_id(), delivery=1)
        again = await world.row(owner=gone, session=session_id(), delivery=1, redeliver_on_loss=True)
        ended = await world.row(owner=gone, session=session_id(), delivery=1, ended=True)
        assert await takeover(world, epoch, gone) == Takeover(sessions=0, rows=3, messages=0)
        (due,) = await deliveries.due_owned(world.conn, epoch=epoch, now_ms=world.now_ms)
        assert (due.workflow_id, due.lost, due.unread) == (lost.workflow_id, True, False)
        taken = await queue.take(
            world.conn, epoch=epoch, namespace="default", queue="pay", sessions=[session_id()] * 3
        )
        assert [row.workflow_id for row in taken.rows] == [again.workflow_id]
        assert [row.workflow_id for row in await deliveries.ended_rows(world.conn, epoch=epoch)] == [
            ended.workflow_id
        ]

    async def test_an_expired_session_goes_on_expiring_at_the_taker(self, world: World) -> None:
        epoch, dead = await world.node(), await world.node(lease_ms=-1)
        session = await world.session(dead)
        await world.conn.execute("UPDATE session SET state = 'EXPIRED', expires_ms = $1", world.now_ms - 1)
        await world.row(owner=dead, session=session.session_id, delivery=1)
        assert await takeover(world, epoch, dead)
        expired = await sessions.expire(world.conn, epoch=epoch, unread=[], now_ms=world.now_ms)
        assert (expired.lost, expired.left) == (1, 0)

    async def test_against_a_save_in_flight_waits_and_takes_its_rows(self, world: World) -> None:
        """One statement would miss the row: its snapshot is older than the save's commit."""
        epoch, dead = await world.node(), await world.node(lease_ms=-1)
        session = await world.session(dead)
        row = await world.row()
        async with world.database.acquire() as conn:
            async with world.other.transaction():
                await queue.take(
                    world.other, epoch=dead, namespace="default", queue="pay", sessions=[session.session_id]
                )
                taking = asyncio.create_task(takeover(world, epoch, dead, conn=conn))
                await world.blocked(conn)
            assert await taking == Takeover(sessions=1, rows=1, messages=0)
        assert (await world.queued(row))["owner_epoch"] == epoch

    async def test_against_a_beat_in_flight_finds_the_node_alive(self, world: World) -> None:
        epoch, slow = await world.node(), await world.node(lease_ms=-1)
        async with world.database.acquire() as conn:
            async with world.other.transaction():
                await pulse(world, slow, conn=world.other)
                taking = asyncio.create_task(takeover(world, epoch, slow, conn=conn))
                await world.blocked(conn)
            assert await taking is None
        assert slow in [node.epoch for node in await nodes.list_nodes(world.conn)]

    async def test_skips_busy_rows_which_stay_orphans(self, world: World) -> None:
        epoch, dead = await world.node(), await world.node(lease_ms=-1)
        session = await world.session(dead)
        row = await world.row(owner=dead, session=session.session_id, delivery=1)
        async with world.other.transaction():
            await world.other.execute(
                "SELECT FROM task_queue WHERE workflow_id = $1 FOR UPDATE", row.workflow_id
            )
            assert await takeover(world, epoch, dead) == Takeover(sessions=1, rows=0, messages=0)
        assert (await pulse(world, epoch)).orphans == [dead]
        assert await takeover(world, epoch, dead) == Takeover(sessions=0, rows=1, messages=0)
        assert (await pulse(world, epoch)).orphans == []

    async def test_by_two_takers_moves_each_row_once(self, world: World) -> None:
        first, second, dead = await world.node(), await world.node(), await world.node(lease_ms=-1)
        for _ in range(20):
            await world.row(owner=dead, session=(await world.session(dead)).session_id, delivery=1)
        async with world.database.acquire() as conn:
            async with world.other.transaction():
                moved = await takeover(world, first, dead, conn=world.other)
                rival = asyncio.create_task(takeover(world, second, dead, conn=conn))
                await world.blocked(conn)
            assert await rival is None
        assert moved == Takeover(sessions=20, rows=20, messages=0)
        assert (await pulse(world, second)).orphans == []

    async def test_against_resume_decides_nothing_for_the_session(self, world: World) -> None:
        epoch, dead = await world.node(), await world.node(lease_ms=-1)
        session = await world.session(dead)
        row = await world.row(owner=dead, session=session.session_id, delivery=1)
        async with world.other.transaction():
            resumed = await sessions.resume(
                world.other, epoch=epoch, session_id=session.session_id, namespace="default",
                resume_token_hash=b"hash", held=[sessions.Held(*row, 1)], now_ms=world.now_ms,
            )  # fmt: skip
            assert resumed and len(resumed.kept) == 1
            assert await takeover(world, epoch, dead) == Takeover(sessions=0, rows=0, messages=0)
        (kept,) = await sessions.list_sessions(world.conn)
        assert (kept.epoch, kept.state) == (epoch, "ACTIVE")


class TestDemand:
    async def test_holds_for_ten_seconds_after_the_last_word(self, world: World) -> None:
        epoch = await world.node()
        await demand.note(world.conn, epoch=epoch, queues=[("default", "blue:pay")], now_ms=world.now_ms)
        asked = {"namespace": "default", "queues": ["blue:pay", "red:pay"]}
        world.clock.advance(demand.VALID_MS - 1)
        assert await demand.live(world.conn, **asked, now_ms=world.now_ms) == {"blue:pay"}  # type: ignore[arg-type]
        world.clock.advance(1)
        assert await demand.live(world.conn, **asked, now_ms=world.now_ms) == set()  # type: ignore[arg-type]
        await demand.forget(world.conn, epoch=epoch, now_ms=world.now_ms)
        assert await world.conn.fetchval("SELECT count(*) FROM demand") == 0

    async def test_of_another_namespace_does_not_count(self, world: World) -> None:
        epoch = await world.node()
        await demand.note(world.conn, epoch=epoch, queues=[("other", "pay")], now_ms=world.now_ms)
        assert (
            await demand.live(world.conn, namespace="default", queues=["pay"], now_ms=world.now_ms) == set()
        )

    async def test_of_a_node_that_lost_its_row_is_refused(self, world: World) -> None:
        epoch = await world.node()
        await nodes.remove(world.conn, epoch)
        with pytest.raises(NodeLost):
            await demand.note(world.conn, epoch=epoch, queues=[("default", "pay")], now_ms=world.now_ms)


async def test_an_epoch_is_never_used_twice(database_url: str) -> None:
    async with open_world(database_url) as world:
        first = await world.node()
        await nodes.remove(world.conn, first)
        assert await world.node() > first
