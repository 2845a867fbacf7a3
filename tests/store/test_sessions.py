"""DELIVERY 8, 9, 10: a session ends, moves, or expires, and its rows with it."""

from __future__ import annotations

import asyncio

import pytest

from maestoso_server.ids import session_id
from maestoso_server.store import deliveries, nodes, queue, sessions
from maestoso_server.store.deliveries import MOST_UNREAD, Key
from maestoso_server.store.nodes import TIME_TO_LIVE_MS, NodeLost
from maestoso_server.store.queue import QueueName
from maestoso_server.store.sessions import Expired, Held, Resumed, Session
from ownership_kit import World


async def resume(
    world: World, epoch: int, session: Session, held: list[Held], **changes: object
) -> Resumed | None:
    asked = {
        "conn": world.conn, "namespace": "default", "session_id": session.session_id,
        "resume_token_hash": session.resume_token_hash, "now_ms": world.now_ms,
    } | changes  # fmt: skip
    return await sessions.resume(epoch=epoch, held=held, **asked)  # type: ignore[arg-type]


async def expire(world: World, epoch: int, unread: list[Held] | None = None, **changes: object) -> Expired:
    asked = {"conn": world.conn, "now_ms": world.now_ms} | changes
    return await sessions.expire(epoch=epoch, unread=unread or [], **asked)  # type: ignore[arg-type]


async def stored(world: World, session: Session) -> Session | None:
    found = [row for row in await sessions.list_sessions(world.conn) if row.session_id == session.session_id]
    return found[0] if found else None


class TestOpenAndDetach:
    async def test_a_session_is_listed_as_opened(self, world: World) -> None:
        session = await world.session(await world.node())
        assert await sessions.list_sessions(world.conn, namespace="default") == [session]
        assert await sessions.list_sessions(world.conn, namespace="other") == []
        assert await sessions.list_sessions(world.conn, after=session.session_id) == []

    async def test_a_node_that_lost_its_row_opens_none(self, world: World) -> None:
        epoch = await world.node()
        await nodes.remove(world.conn, epoch)
        with pytest.raises(NodeLost):
            await world.session(epoch)

    async def test_the_end_of_a_stream_starts_the_sessions_time(self, world: World) -> None:
        epoch, rival = await world.node(), await world.node()
        mine, moved = await world.session(epoch), await world.session(rival)
        ids = [mine.session_id, moved.session_id]
        assert await sessions.detach(world.conn, epoch=epoch, session_ids=ids, now_ms=world.now_ms) == {
            ids[0]
        }
        ended = await stored(world, mine)
        assert ended and (ended.state, ended.expires_ms) == ("DETACHED", world.now_ms + TIME_TO_LIVE_MS)
        assert await stored(world, moved) == moved


class TestResume:
    async def test_moves_the_session_and_what_is_held(self, world: World) -> None:
        first, second = await world.node(), await world.node()
        session = await world.session(first)
        await sessions.detach(world.conn, epoch=first, session_ids=[session.session_id], now_ms=world.now_ms)
        held = await world.row(owner=first, session=session.session_id, delivery=2, response_s=7, rank=98)
        resumed = await resume(world, second, session, [Held(*held, 2)])
        assert resumed is not None
        assert resumed.kept == [sessions.KeptRow(*held, 2, "pay", "pay", 1, 9, 0, 7, 0)]
        assert (resumed.session.epoch, resumed.session.state, resumed.session.expires_ms) == (
            second,
            "ACTIVE",
            None,
        )
        assert (await world.queued(held))["owner_epoch"] == second
        assert (resumed.redelivered, resumed.lost, resumed.unsent) == (0, 0, [])

    async def test_what_the_inventory_lacks_waits_again_unread(self, world: World) -> None:
        first, second = await world.node(), await world.node()
        session = await world.session(first)
        lacking = await world.row(owner=first, session=session.session_id, delivery=1)
        stale = await world.row(owner=first, session=session.session_id, delivery=3)
        resumed = await resume(world, second, session, [Held(*stale, 2)])
        assert resumed and (resumed.kept, resumed.redelivered) == ([], 2)
        assert resumed.waiting == {QueueName("default", "pay")}
        for key in (lacking, stale):
            row = await world.queued(key)
            assert (row["owner_epoch"], row["session_id"], row["unread"], row["deadline_ms"]) == (
                None,
                None,
                1,
                None,
            )

    async def test_what_nobody_read_five_times_in_a_row_is_due_to_fail(self, world: World) -> None:
        first, second = await world.node(), await world.node()
        session = await world.session(first)
        key = await world.row(owner=first, session=session.session_id, delivery=9, unread=MOST_UNREAD - 1)
        resumed = await resume(world, second, session, [])
        assert resumed and (resumed.redelivered, resumed.lost) == (0, 1)
        (due,) = await deliveries.due_owned(world.conn, epoch=second, now_ms=world.now_ms)
        assert (Key(due.workflow_id, due.seq), due.lost, due.unread) == (key, True, True)

    async def test_finished_and_ended_rows_are_not_kept(self, world: World) -> None:
        first, second = await world.node(), await world.node()
        session = await world.session(first)
        ended = await world.row(owner=first, session=session.session_id, delivery=1, ended=True)
        resumed = await resume(world, second, session, [Held(*ended, 1), Held(session_id(), 4, 1)])
        assert resumed and (resumed.kept, resumed.redelivered) == ([], 0)
        assert (await world.queued(ended))["owner_epoch"] == first

    async def test_with_a_wrong_token_or_namespace_changes_nothing(self, world: World) -> None:
        first, second = await world.node(), await world.node()
        session = await world.session(first)
        key = await world.row(owner=first, session=session.session_id, delivery=1)
        assert await resume(world, second, session, [Held(*key, 1)], resume_token_hash=b"guess") is None
        assert await resume(world, second, session, [Held(*key, 1)], namespace="other") is None
        assert await resume(world, second, session, [], session_id=session_id()) is None
        assert (await world.queued(key))["owner_epoch"] == first
        assert await stored(world, session) == session

    async def test_of_a_node_that_lost_its_row_changes_nothing(self, world: World) -> None:
        first, second = await world.node(), await world.node()
        session = await world.session(first)
        await nodes.remove(world.conn, second)
        with pytest.raises(NodeLost):
            await resume(world, second, session, [])
        assert await stored(world, session) == session

    async def test_from_a_dead_node_before_its_takeover(self, world: World) -> None:
        first, second = await world.node(), await world.node()
        session = await world.session(first)
        key = await world.row(owner=first, session=session.session_id, delivery=1)
        await nodes.remove(world.conn, first)
        resumed = await resume(world, second, session, [Held(*key, 1)])
        assert resumed and [row.seq for row in resumed.kept] == [key.seq]

    async def test_adopting_keeps_what_memory_lacks_to_be_sent(self, world: World) -> None:
        """Transition 12: a save was applied although its reply was lost."""
        old, new = await world.node(), await world.node()
        session = await world.session(old)
        known = await world.row(owner=old, session=session.session_id, delivery=1)
        unsent = await world.row(owner=old, session=session.session_id, delivery=1)
        resumed = await resume(world, new, session, [Held(*known, 1), Held(session_id(), 4, 1)], adopt=True)
        assert resumed and [Key(row.workflow_id, row.seq) for row in resumed.kept] == [known]
        (row,) = resumed.unsent
        assert (Key(row.workflow_id, row.seq), row.delivery, row.unread) == (unsent, 1, 0)
        assert (row.session_id, row.input.raw) == (session.session_id, b'{"n":1.0}')
        assert (await world.queued(unsent))["owner_epoch"] == new

    async def test_against_a_result_in_flight_waits_and_leaves_the_row_ended(self, world: World) -> None:
        first, second = await world.node(), await world.node()
        session = await world.session(first)
        key = await world.row(owner=first, session=session.session_id, delivery=1)
        async with world.database.acquire() as conn:
            async with world.other.transaction():
                await world.other.execute("DELETE FROM task_queue WHERE workflow_id = $1", key.workflow_id)
                resuming = asyncio.create_task(resume(world, second, session, [Held(*key, 1)], conn=conn))
                await world.blocked(conn)
            resumed = await resuming
        assert resumed and (resumed.kept, resumed.redelivered) == ([], 0)

    async def test_the_old_node_passes_on_what_was_born_meanwhile(self, world: World) -> None:
        first, second = await world.node(), await world.node()
        session, other = await world.session(first), await world.session(first)
        assert await resume(world, second, session, [])
        late = await world.row(owner=first, session=session.session_id, delivery=1)
        assert await sessions.serving(world.conn, epoch=first) == {other.session_id}
        passed = [
            await sessions.pass_on(world.conn, epoch=first, session_id=item.session_id, now_ms=world.now_ms)
            for item in (session, other)
        ]
        assert passed == [{late}, set()]
        (due,) = await deliveries.due_owned(world.conn, epoch=second, now_ms=world.now_ms)
        assert (due.workflow_id, due.session_id, due.lost) == (late.workflow_id, session.session_id, False)
        assert (await world.queued(late))["owner_epoch"] == second


class TestExpire:
    async def ended(self, world: World, epoch: int) -> Session:
        """A session whose stream ended and whose time is over now."""
        session = await world.session(epoch)
        await sessions.detach(
            world.conn, epoch=epoch, session_ids=[session.session_id], now_ms=world.now_ms - TIME_TO_LIVE_MS
        )
        return session

    async def test_read_deliveries_are_lost_and_unread_ones_wait_again(self, world: World) -> None:
        epoch = await world.node()
        session = await self.ended(world, epoch)
        mine = {"owner": epoch, "session": session.session_id, "delivery": 1}
        read = await world.row(**mine, worker_id="w", started_ms=3)  # type: ignore[arg-type]
        unread = await world.row(**mine, queue="ship")  # type: ignore[arg-type]
        again = await world.row(**mine, redeliver_on_loss=True, unread=2)  # type: ignore[arg-type]
        poison = await world.row(**mine, unread=MOST_UNREAD - 1)  # type: ignore[arg-type]
        expired = await expire(world, epoch, [Held(*unread, 1), Held(*poison, 1)])
        assert expired == Expired(
            sessions={session.session_id},
            lost=2,
            redelivered=2,
            waiting={QueueName("default", "ship"), QueueName("default", "pay")},
            left=0,
        )
        assert (await world.queued(unread))["unread"] == 1
        assert (await world.queued(again))["unread"] == 0
        due = await deliveries.due_owned(world.conn, epoch=epoch, now_ms=world.now_ms)
        assert {Key(row.workflow_id, row.seq): (row.lost, row.unread, row.worker_id) for row in due} == {
            read: (True, False, "w"),
            poison: (True, True, ""),
        }
        assert await stored(world, session) is None

    async def test_what_is_left_of_a_session_that_departed_was_never_read(self, world: World) -> None:
        epoch, old = await world.node(), await world.node()
        session = await world.session(epoch)
        late = await world.row(owner=old, session=session.session_id, delivery=1)
        await sessions.detach(
            world.conn,
            epoch=epoch,
            session_ids=[session.session_id],
            now_ms=world.now_ms,
            departed={session.session_id},
        )
        expired = await expire(world, epoch)
        assert (expired.redelivered, expired.lost, expired.sessions) == (1, 0, {session.session_id})
        assert (await world.queued(late))["owner_epoch"] is None

    async def test_leaves_living_sessions_and_those_of_others_alone(self, world: World) -> None:
        epoch, rival = await world.node(), await world.node()
        active = await world.session(epoch)
        theirs = await self.ended(world, rival)
        early = await world.session(epoch)
        await sessions.detach(
            world.conn, epoch=epoch, session_ids=[early.session_id], now_ms=world.now_ms - TIME_TO_LIVE_MS + 1
        )
        assert (await expire(world, epoch)).sessions == set()
        for session in (active, theirs, early):
            assert await stored(world, session) is not None

    async def test_takes_rows_along_that_another_node_still_owns(self, world: World) -> None:
        epoch, old = await world.node(), await world.node()
        session = await self.ended(world, epoch)
        key = await world.row(owner=old, session=session.session_id, delivery=1)
        assert (await expire(world, epoch)).lost == 1
        assert (await world.queued(key))["owner_epoch"] == epoch

    async def test_with_a_busy_row_stays_until_it_is_dealt_with(self, world: World) -> None:
        epoch = await world.node()
        session = await self.ended(world, epoch)
        key = await world.row(owner=epoch, session=session.session_id, delivery=1)
        async with world.other.transaction():
            await world.other.execute(
                "SELECT FROM task_queue WHERE workflow_id = $1 FOR UPDATE", key.workflow_id
            )
            expired = await expire(world, epoch)
            assert (expired.lost, expired.left) == (0, 1)
        left = await stored(world, session)
        assert left and left.state == "EXPIRED"
        assert await resume(world, epoch, session, [Held(*key, 1)]) is None
        expired = await expire(world, epoch)
        assert (expired.lost, expired.left) == (1, 0)
        assert await stored(world, session) is None

    async def test_in_rounds(self, world: World) -> None:
        epoch = await world.node()
        session = await self.ended(world, epoch)
        for _ in range(3):
            await world.row(owner=epoch, session=session.session_id, delivery=1)
        assert [(await expire(world, epoch, limit=2)).left for _ in range(2)] == [1, 0]

    async def test_against_resume_first_expiry_wins(self, world: World) -> None:
        epoch, rival = await world.node(), await world.node()
        session = await self.ended(world, epoch)
        key = await world.row(owner=epoch, session=session.session_id, delivery=1)
        async with world.database.acquire() as conn:
            async with world.other.transaction():
                assert (await expire(world, epoch, conn=world.other)).lost == 1
                resuming = asyncio.create_task(resume(world, rival, session, [Held(*key, 1)], conn=conn))
                await world.blocked(conn)
            assert await resuming is None
        assert (await world.queued(key))["owner_epoch"] == epoch

    async def test_against_resume_first_resume_wins(self, world: World) -> None:
        epoch, rival = await world.node(), await world.node()
        session = await self.ended(world, epoch)
        key = await world.row(owner=epoch, session=session.session_id, delivery=1)
        async with world.database.acquire() as conn:
            async with world.other.transaction():
                assert await resume(world, rival, session, [Held(*key, 1)], conn=world.other)
                expiring = asyncio.create_task(expire(world, epoch, conn=conn))
                await world.blocked(conn)
            assert (await expiring).sessions == set()
        assert str((await world.queued(key))["session_id"]) == session.session_id

    async def test_of_a_node_that_lost_its_row_changes_nothing(self, world: World) -> None:
        epoch = await world.node()
        session = await self.ended(world, epoch)
        await nodes.remove(world.conn, epoch)
        with pytest.raises(NodeLost):
            await expire(world, epoch)
        left = await stored(world, session)
        assert left and left.state == "DETACHED"

    async def test_a_row_taken_for_a_session_in_flight_is_found_by_its_taker(self, world: World) -> None:
        """The taker's own memory hands it back; the fence is the delivery."""
        epoch = await world.node()
        session = await self.ended(world, epoch)
        key = await world.row()
        async with world.other.transaction():
            taken = await queue.take(
                world.other, epoch=epoch, namespace="default", queue="pay", sessions=[session.session_id]
            )
            assert (await expire(world, epoch)).left == 0
        items = [deliveries.HandBack(row.workflow_id, row.seq, row.delivery) for row in taken.rows]
        touched = await deliveries.hand_back(world.conn, epoch=epoch, items=items, now_ms=world.now_ms)
        assert touched.done == {key}
