"""What the dispatcher owes the database, carried out on Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from dispatch_kit import NAMESPACE, Desk, make_session, results
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso_server.dispatch.deliveries import Delivery
from maestoso_server.dispatch.demand import Demand
from maestoso_server.dispatch.loops import Loops
from maestoso_server.dispatch.session import Session
from maestoso_server.ids import make_token
from maestoso_server.store import logs
from maestoso_server.store.deliveries import Key
from maestoso_server.store.nodes import TIME_TO_LIVE_MS
from ownership_kit import DEADLINE_S, World, eventually


@dataclass
class Node:
    """A dispatcher with its loops, for one node of the database."""

    world: World
    desk: Desk
    loops: Loops
    epoch: int

    async def session(self) -> Session:
        """An open session of queue `pay`."""
        stored = await self.world.session(self.epoch)
        session = make_session("pay", session_id=stored.session_id, now_ms=self.world.now_ms)
        self.desk.dispatcher.open(session)
        return session

    async def given(self, session: Session) -> tuple[Key, Delivery]:
        """A row that was taken and written to the session."""
        key = await self.world.row()
        self.desk.dispatcher.rows_wait(NAMESPACE, "pay")
        await self.loops.take()
        self.desk.dispatcher.frames(session)
        delivery = self.desk.dispatcher.deliveries.find(*key)
        assert delivery is not None
        return key, delivery


@pytest.fixture
async def node(world: World) -> AsyncIterator[Node]:
    epoch = await world.node()
    desk = Desk(clock=world.clock)
    desk.dispatcher.epoch = epoch
    demand = Demand(database=world.database, clock=world.clock, epoch=lambda: epoch)
    loops = Loops(
        dispatcher=desk.dispatcher,
        database=world.database,
        clock=world.clock,
        demand=demand,
        epoch=lambda: epoch,
        wanted=lambda: {(NAMESPACE, "pay")},
    )
    yield Node(world, desk, loops, epoch)


async def test_2_takes_for_those_who_have_room(node: Node) -> None:
    session = await node.session()

    key, delivery = await node.given(session)

    row = await node.world.queued(key)
    assert (row["owner_epoch"], str(row["session_id"]), row["delivery"]) == (
        node.epoch,
        session.session_id,
        1,
    )
    assert delivery.token == make_token(*key, 1)


async def test_4_reads_are_written_behind(node: Node) -> None:
    session = await node.session()
    key, delivery = await node.given(session)
    node.world.clock.advance(7)
    node.desk.dispatcher.receive(session, wire.ConnectRequest(acks=wire.Acks(tokens=[delivery.token])))

    await node.loops.write_behind()

    row, task = await node.world.queued(key), await node.world.task(key)
    assert (row["started_ms"], row["unread"], row["worker_id"]) == (node.world.now_ms, 0, session.worker_id)
    assert (task["status"], task["started_ms"]) == (2, node.world.now_ms)


async def test_4_a_read_is_dropped_when_the_completion_came_first(node: Node) -> None:
    session = await node.session()
    key, delivery = await node.given(session)
    node.desk.dispatcher.receive(session, results(delivery.token))

    await node.loops.write_behind()

    assert (await node.world.queued(key))["started_ms"] == 0


async def test_4_a_delivery_that_is_found_to_be_over_is_cancelled(node: Node) -> None:
    session = await node.session()
    key, delivery = await node.given(session)
    await node.world.conn.execute("UPDATE task_queue SET delivery = 2")
    node.desk.dispatcher.receive(session, wire.ConnectRequest(acks=wire.Acks(tokens=[delivery.token])))

    await node.loops.write_behind()

    (frame,) = node.desk.dispatcher.frames(session)
    assert frame.cancels.cancels[0].token == delivery.token
    assert node.desk.dispatcher.deliveries.find(*key) is None


async def test_4_while_the_node_rejoins_what_is_not_found_may_still_be_its_own(node: Node) -> None:
    session = await node.session()
    _, delivery = await node.given(session)
    await node.world.conn.execute("UPDATE task_queue SET owner_epoch = owner_epoch + 1")
    node.desk.dispatcher.epoch = node.epoch - 1
    node.desk.dispatcher.receive(session, wire.ConnectRequest(acks=wire.Acks(tokens=[delivery.token])))

    await node.loops.mark_read()

    assert node.desk.dispatcher.owed.reads == [delivery]
    assert node.desk.dispatcher.frames(session) == []


async def test_4_an_answer_from_before_a_rejoin_makes_no_delivery_forgotten(
    node: Node,
) -> None:
    session = await node.session()
    key, delivery = await node.given(session)
    await node.world.conn.execute("UPDATE task_queue SET owner_epoch = owner_epoch + 1")
    asked = node.desk.dispatcher.asks(node.epoch + 1)
    node.desk.dispatcher.epoch = node.epoch + 1

    assert node.desk.dispatcher.not_found([delivery], asked) == [delivery]
    assert node.desk.dispatcher.deliveries.find(*key) is delivery

    settled = node.desk.dispatcher.asks(node.epoch + 1)
    assert node.desk.dispatcher.not_found([delivery], settled) == []
    assert node.desk.dispatcher.deliveries.find(*key) is None


async def test_7_a_row_that_a_save_holds_is_handed_back_afterwards(node: Node) -> None:
    session = await node.session()
    key, delivery = await node.given(session)
    nack = wire.Nack(token=delivery.token, reason=wire.NACK_REASON_DRAINING)
    node.desk.dispatcher.receive(session, wire.ConnectRequest(nacks=wire.Nacks(nacks=[nack])))
    async with node.world.other.transaction():
        await node.world.other.fetchval(
            "SELECT delivery FROM task_queue WHERE workflow_id = $1 AND seq = $2 FOR UPDATE", *key
        )
        returning = asyncio.ensure_future(node.loops.hand_back())

        async def busy() -> bool:
            return node.world.clock.next_wake_ms is not None

        await eventually(busy)
        assert (await node.world.queued(key))["owner_epoch"] == node.epoch
    node.world.clock.advance(10)
    await asyncio.wait_for(returning, DEADLINE_S)

    assert (await node.world.queued(key))["owner_epoch"] is None
    assert node.desk.dispatcher.takes_due


async def test_8_a_session_whose_stream_ended_begins_to_expire(node: Node) -> None:
    session = await node.session()
    node.desk.dispatcher.ended_stream(session)

    await node.loops.write_at_once()

    assert await node.world.conn.fetchval("SELECT state FROM session") == "DETACHED"
    assert node.desk.dispatcher.ended_sessions() == [session.session_id]


async def test_8_a_session_whose_stream_ended_while_its_node_rejoins_begins_to_expire(node: Node) -> None:
    session = await node.session()
    await node.world.conn.execute("UPDATE session SET epoch = epoch - 1")
    node.desk.dispatcher.ended_stream(session)

    await node.loops.write_at_once()

    assert await node.world.conn.fetchval("SELECT state FROM session") == "DETACHED"


async def test_8_a_session_of_a_worker_that_took_its_leave_has_departed(node: Node) -> None:
    leaving, idle = await node.session(), await node.session()
    node.desk.dispatcher.receive(leaving, wire.ConnectRequest(drain=wire.Drain()))
    for session in (leaving, idle):
        session.half_closed()
        node.desk.dispatcher.ended_stream(session)

    await node.loops.write_at_once()

    rows = await node.world.conn.fetch("SELECT session_id::text, departed, expires_ms FROM session")
    assert {row["session_id"]: (row["departed"], row["expires_ms"]) for row in rows} == {
        leaving.session_id: (True, node.world.now_ms),
        idle.session_id: (False, node.world.now_ms + TIME_TO_LIVE_MS),
    }


async def test_8_a_worker_that_leaves_with_a_task_in_its_hands_has_not_departed(
    node: Node,
) -> None:
    session = await node.session()
    _, delivery = await node.given(session)
    node.desk.dispatcher.receive(session, wire.ConnectRequest(acks=wire.Acks(tokens=[delivery.token])))
    node.desk.dispatcher.receive(session, wire.ConnectRequest(drain=wire.Drain()))
    session.half_closed()
    node.desk.dispatcher.ended_stream(session)

    await node.loops.write_at_once()

    assert await node.world.conn.fetchval("SELECT departed FROM session") is False


async def test_8_what_was_on_its_way_to_a_worker_that_left_does_not_hold_its_session(node: Node) -> None:
    session = await node.session()
    await node.given(session)
    node.desk.dispatcher.receive(session, wire.ConnectRequest(drain=wire.Drain()))
    session.half_closed()
    node.desk.dispatcher.ended_stream(session)

    await node.loops.write_at_once()

    assert await node.world.conn.fetchval("SELECT departed FROM session") is True


async def test_8_a_session_that_moved_meanwhile_is_forgotten(node: Node) -> None:
    session = await node.session()
    await node.world.conn.execute("UPDATE session SET epoch = epoch + 1, connected_ms = connected_ms + 1")
    node.desk.dispatcher.ended_stream(session)

    await node.loops.write_at_once()

    assert node.desk.dispatcher.session(session.session_id) is None


async def test_progress_starts_the_response_clock_anew_and_shows_the_output(node: Node) -> None:
    session = await node.session()
    key, delivery = await node.given(session)
    node.world.clock.advance(7)
    item = wire.ProgressItem(token=delivery.token, output=b'{"done":1}')
    node.desk.dispatcher.receive(session, wire.ConnectRequest(progress=wire.Progress(items=[item])))

    await node.loops.write_behind()

    assert (await node.world.queued(key))["progress_ms"] == node.world.now_ms
    assert (await node.world.task(key))["output"] == b'{"done":1}'


async def test_log_lines_are_written_in_their_order(node: Node) -> None:
    session = await node.session()
    key, delivery = await node.given(session)
    lines = [wire.LogLine(token=delivery.token, line=str(number)) for number in range(5)]
    node.desk.dispatcher.receive(session, wire.ConnectRequest(logs=wire.Logs(lines=lines)))

    await node.loops.write_behind()

    assert [line.line for line in await logs.read(node.world.conn, *key)] == ["0", "1", "2", "3", "4"]
    assert node.desk.dispatcher.owed.logs == []


async def test_17_demand_is_repeated_as_long_as_it_lives(node: Node) -> None:
    await node.loops.refresh_demand()
    seen = "SELECT queue, seen_ms FROM demand"
    assert tuple(await node.world.conn.fetchrow(seen)) == ("pay", node.world.now_ms)

    node.world.clock.advance(3_000)
    await node.loops.refresh_demand()

    assert tuple(await node.world.conn.fetchrow(seen)) == ("pay", node.world.now_ms)
