"""DELIVERY 8 to 11: nodes and sessions that end without a word, as a living node deals with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from dispatch_kit import Desk, make_taken
from maestoso_server.dispatch.deliveries import State
from maestoso_server.dispatch.expiry import Expiry
from maestoso_server.dispatch.node import Node
from maestoso_server.dispatch.session import Session as Stream
from maestoso_server.ids import session_id
from maestoso_server.store import deliveries, nodes, queue, sessions
from maestoso_server.store.deliveries import Key
from maestoso_server.store.nodes import TIME_TO_LIVE_MS
from node_kit import Told, lease_passes, make_node
from ownership_kit import World


@dataclass
class News:
    """Takes down what follows."""

    waits: list[tuple[str, str]] = field(default_factory=list)
    due: int = 0
    inheritances: int = 0
    again: int = 0

    def rows_wait(self, namespace: str, queue: str) -> None:
        self.waits.append((namespace, queue))

    def notice_owned(self, due_ms: int) -> None:
        self.due += 1

    def redelivered(self, count: int) -> None:
        self.again += count

    def inherited(self) -> None:
        self.inheritances += 1


@dataclass
class Watch:
    """A node with a dispatcher, and its eye on the others."""

    world: World
    node: Node
    told: Told
    desk: Desk
    news: News
    expiry: Expiry

    async def look(self) -> None:
        """A beat, and what it finds is dealt with."""
        await self.node.run_once()
        self.expiry.see(self.told.pulses[-1])
        await self.expiry.run_once()

    async def stream(self) -> Stream:
        """A worker with an open stream at this node."""
        row = await self.world.session(self.node.epoch)
        stream = Stream(
            session_id=row.session_id,
            namespace="default",
            worker_id=row.worker_id,
            queues={"pay": "pay"},
            now_ms=self.world.now_ms,
            resume_token_hash=row.resume_token_hash,
        )
        stream.room.declare(10, 1_000)
        self.desk.dispatcher.open(stream)
        return stream

    async def close(self, stream: Stream) -> None:
        """Its stream ends, as long ago as a session lives."""
        self.desk.dispatcher.ended_stream(stream)
        await sessions.detach(
            self.world.conn,
            epoch=self.node.epoch,
            session_ids=[stream.session_id],
            now_ms=self.world.now_ms - TIME_TO_LIVE_MS,
        )

    async def sent(self, stream: Stream) -> Key:
        """A delivery written to the stream; nobody knows whether it was read."""
        await self.world.row()
        take = await queue.take(
            self.world.conn,
            epoch=self.node.epoch,
            namespace="default",
            queue="pay",
            sessions=[stream.session_id],
        )
        self.desk.dispatcher.adopt(take.rows)
        self.desk.dispatcher.frames(stream)
        return Key(take.rows[0].workflow_id, take.rows[0].seq)


@asynccontextmanager
async def watching(world: World) -> AsyncIterator[Watch]:
    async with make_node(world) as (node, told):
        await lease_passes(world, node)
        desk, news = Desk(clock=world.clock), News()
        expiry = Expiry(
            database=world.database, clock=world.clock, node=node, memory=desk.dispatcher, news=news
        )
        yield Watch(world, node, told, desk, news, expiry)


@pytest.fixture
async def watch(world: World) -> AsyncIterator[Watch]:
    async with watching(world) as made:
        yield made


async def owners(world: World, keys: Sequence[Key]) -> list[int | None]:
    return [(await world.queued(key))["owner_epoch"] for key in keys]


class TestDeadNodes:
    async def test_one_whose_lease_ran_out_is_taken_over(self, watch: Watch, world: World) -> None:
        dead = await world.node(lease_ms=-1)
        session = await world.session(dead)
        key = await world.row(owner=dead, session=session.session_id, delivery=1)
        await watch.look()
        assert await owners(world, [key]) == [watch.node.epoch]
        assert watch.news.inheritances == 1
        await watch.look()
        assert watch.news.inheritances == 1

    async def test_one_that_beats_is_not(self, watch: Watch, world: World) -> None:
        living = await world.node()
        assert await nodes.prove_life(world.other, living)
        key = await world.row(owner=living, session=session_id(), delivery=1)
        await watch.look()
        assert await owners(world, [key]) == [living]

    async def test_after_an_outage_only_orphans_are(self, world: World) -> None:
        async with make_node(world) as (node, told):
            expiry = Expiry(
                database=world.database, clock=world.clock, node=node,
                memory=Desk(clock=world.clock).dispatcher, news=News(),
            )  # fmt: skip
            silent, gone = await world.node(lease_ms=-1), await nodes.new_epoch(world.conn)
            keys = [
                await world.row(owner=epoch, session=(await world.session(server)).session_id, delivery=1)
                for epoch, server in ((silent, silent), (gone, node.epoch))
            ]
            await node.run_once()
            expiry.see(told.pulses[-1])
            await expiry.run_once()
            assert await owners(world, keys) == [silent, node.epoch]

    async def test_more_rows_than_one_round_moves(self, watch: Watch, world: World) -> None:
        gone = await nodes.new_epoch(world.conn)
        session = await world.session(watch.node.epoch)
        await world.row(owner=gone, delivery=1)
        await world.multiply_rows(5_500)
        await world.conn.execute("UPDATE task_queue SET session_id = $1", session.session_id)
        await watch.look()
        left = await world.conn.fetchval("SELECT count(*) FROM task_queue WHERE owner_epoch = $1", gone)
        assert left == 0


class TestSessions:
    async def test_whose_time_is_over_expires_and_its_unread_rows_wait(
        self, watch: Watch, world: World
    ) -> None:
        stream = await watch.stream()
        unread = await watch.sent(stream)
        read = await world.row(owner=watch.node.epoch, session=stream.session_id, delivery=1)
        await watch.close(stream)
        await watch.look()
        assert await owners(world, [unread, read]) == [None, watch.node.epoch]
        assert (await world.queued(unread))["unread"] == 1
        (due,) = await deliveries.due_owned(world.conn, epoch=watch.node.epoch, now_ms=world.now_ms)
        assert (Key(due.workflow_id, due.seq), due.lost) == (read, True)
        assert (watch.news.waits, watch.news.due) == ([("default", "pay")], 1)
        assert watch.desk.dispatcher.session(stream.session_id) is None

    async def test_remembers_what_was_unread_while_its_row_is_busy(self, watch: Watch, world: World) -> None:
        stream = await watch.stream()
        unread = await watch.sent(stream)
        await watch.close(stream)
        async with world.other.transaction():
            await world.other.execute(
                "SELECT FROM task_queue WHERE workflow_id = $1 FOR UPDATE", unread.workflow_id
            )
            await watch.look()
            assert watch.desk.dispatcher.session(stream.session_id) is not None
        await watch.look()
        assert await owners(world, [unread]) == [None]
        assert watch.desk.dispatcher.session(stream.session_id) is None

    async def test_does_not_expire_while_a_silence_proves_nothing(self, watch: Watch, world: World) -> None:
        stream = await watch.stream()
        await watch.close(stream)
        world.clock.advance(TIME_TO_LIVE_MS)
        await watch.look()
        assert watch.desk.dispatcher.session(stream.session_id) is not None
        await lease_passes(world, watch.node)
        await watch.look()
        assert watch.desk.dispatcher.session(stream.session_id) is None

    async def test_that_moved_ends_here_and_its_rows_follow(self, watch: Watch, world: World) -> None:
        stream, staying = await watch.stream(), await watch.stream()
        rival = await world.node()
        assert await nodes.prove_life(world.other, rival)
        assert await sessions.resume(
            world.conn, epoch=rival, session_id=stream.session_id, namespace="default",
            resume_token_hash=stream.resume_token_hash, held=[], now_ms=world.now_ms,
        )  # fmt: skip
        late = await watch.sent(stream)
        kept = await watch.sent(staying)
        await watch.look()
        assert await owners(world, [late, kept]) == [rival, watch.node.epoch]
        assert watch.desk.dispatcher.open_session_ids() == {staying.session_id}
        assert stream.ended

    async def test_a_row_without_a_stream_starts_to_expire_when_seen_twice(
        self, watch: Watch, world: World
    ) -> None:
        stray, stream = await world.session(watch.node.epoch), await watch.stream()
        await watch.look()
        assert await sessions.serving(world.conn, epoch=watch.node.epoch) == {
            stray.session_id,
            stream.session_id,
        }
        await watch.look()
        assert await sessions.serving(world.conn, epoch=watch.node.epoch) == {stream.session_id}
        await watch.look()
        assert watch.desk.dispatcher.open_session_ids() == {stream.session_id}

    async def test_are_not_compared_while_a_new_epoch_is_due(self, watch: Watch, world: World) -> None:
        """Under the new epoch no session is this node's before it was resumed."""
        stream = await watch.stream()
        await watch.node.run_once()
        pulse = watch.told.pulses[-1]
        watch.told.refuse = 1
        watch.node.outcome_unknown()
        assert not await watch.node.run_once()
        pulse.sessions = 0
        watch.expiry.see(pulse)
        await watch.expiry.run_once()
        assert watch.desk.dispatcher.open_session_ids() == {stream.session_id}


async def test_an_adopted_row_is_known_as_sent(watch: Watch) -> None:
    stream = await watch.stream()
    row = make_taken(4, stream.session_id)
    watch.desk.dispatcher.adopt([row])
    watch.desk.dispatcher.adopt([row])
    (frame,) = [frame for frame in watch.desk.dispatcher.frames(stream) if frame.HasField("tasks")]
    assert len(frame.tasks.tasks) == 1
    delivery = watch.desk.dispatcher.deliveries.find(row.workflow_id, row.seq)
    assert delivery and delivery.state is State.SENT
