"""DELIVERY 11 to 13: a node's beat, its new epochs, and what it sees of the others' death."""

from __future__ import annotations

import asyncio

from maestoso_server.dispatch.node import DEGRADED_AFTER_MS
from maestoso_server.ids import session_id
from maestoso_server.store import nodes, queue
from maestoso_server.store.nodes import BEAT_MS, LEASE_MS, NodeRow
from node_kit import lease_passes, make_node
from ownership_kit import Outage, World, eventually, running


async def row_of(world: World, epoch: int) -> NodeRow | None:
    return next((row for row in await nodes.list_nodes(world.conn) if row.epoch == epoch), None)


async def test_registers_beats_and_leaves(world: World) -> None:
    async with make_node(world) as (node, told):
        row = await row_of(world, node.epoch)
        assert row and (row.node_id, row.grpc_address) == ("a", "a:1")
        async with running(node.run()):
            world.clock.advance(BEAT_MS)

            async def renewed() -> bool:
                row = await row_of(world, node.epoch)
                return row is not None and row.lease_until_ms == world.now_ms + LEASE_MS

            await eventually(renewed)
        assert told.epochs == []
    assert await row_of(world, node.epoch) is None


async def test_beats_ask_for_queues_with_room(world: World) -> None:
    async with make_node(world) as (node, told):
        assert told.pulses[-1].waiting == []
        await world.row(queue="pay")
        await world.row(queue="ship")
        assert await node.run_once()
        assert told.pulses[-1].waiting == [("default", "pay")]


async def test_tells_the_addresses_of_the_living_this_one_first(world: World) -> None:
    async with make_node(world, "z") as (node, told):
        assert (told.addresses, node.addresses()) == ([["z:1"]], ["z:1"])
        async with make_node(world, "b") as (other, _):
            await node.run_once()
            await nodes.set_draining(world.conn, other.epoch, True)
            await node.run_once()
        await node.run_once()
        assert told.addresses == [["z:1"], ["z:1", "b:1"], ["z:1"]]


async def test_an_operator_drains_it_by_its_row(world: World) -> None:
    async with make_node(world) as (node, _):
        await nodes.set_draining(world.conn, node.epoch, True)
        await node.run_once()
        assert node.draining
        node.outcome_unknown()
        await node.run_once()
        row = await row_of(world, node.epoch)
        assert row and row.draining


async def test_whose_row_is_gone_takes_a_new_epoch(world: World) -> None:
    async with make_node(world) as (node, told):
        old = node.epoch
        await nodes.remove(world.conn, old)
        await node.run_once()
        assert node.epoch == old
        assert not node.settled
        await node.run_once()
        assert node.epoch > old
        assert told.epochs == [node.epoch]
        assert node.settled
        assert [row.epoch for row in await nodes.list_nodes(world.conn)] == [node.epoch]


async def test_a_lost_row_is_mended_without_waiting_for_the_next_beat(world: World) -> None:
    async with make_node(world) as (node, told):
        old = node.epoch
        async with running(node.run()):
            await nodes.remove(world.conn, old)
            world.clock.advance(BEAT_MS)

            async def renewed() -> bool:
                return bool(told.epochs) and await row_of(world, node.epoch) is not None

            await eventually(renewed)


async def test_an_unknown_outcome_waits_for_the_statement_in_flight(world: World) -> None:
    """The save may still be running: what it commits must be seen by those who resume."""
    async with make_node(world) as (node, told):
        old = node.epoch
        row = await world.row()
        async with world.other.transaction():
            await queue.take(
                world.other, epoch=old, namespace="default", queue="pay", sessions=[session_id()]
            )
            node.outcome_unknown()
            renewing = asyncio.create_task(node.run_once())

            async def removal_waits() -> bool:
                return bool(
                    await world.conn.fetchval(
                        "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
                    )
                )

            await eventually(removal_waits)
            assert node.epoch > old
            assert told.epochs == []
        await renewing
        assert told.epochs == [node.epoch]
        assert (await world.queued(row))["owner_epoch"] == old
        assert told.pulses[-1].orphans == [old]


async def test_a_statement_of_the_old_epoch_writes_nothing_afterwards(world: World) -> None:
    async with make_node(world) as (node, _):
        old = node.epoch
        row = await world.row()
        node.outcome_unknown()
        await node.run_once()
        try:
            await queue.take(world.conn, epoch=old, namespace="default", queue="pay", sessions=[session_id()])
        except nodes.NodeLost as lost:
            assert lost.epoch == old
        assert (await world.queued(row))["owner_epoch"] is None


async def test_resumes_again_where_the_database_went_away_meanwhile(world: World) -> None:
    async with make_node(world) as (node, told):
        told.refuse = 2
        node.outcome_unknown()
        assert not await node.run_once()
        assert not await node.run_once()
        assert not node.settled
        assert await node.run_once()
        assert told.epochs == [node.epoch] * 3
        assert node.settled


async def test_sees_a_death_at_once_by_the_lock(world: World) -> None:
    async with make_node(world, "a") as (node, told), make_node(world, "b") as (dying, _):
        await lease_passes(world, node, dying)
        assert told.pulses[-1].dead == []
        dying._life.cut()

        async def dead() -> bool:
            await node.run_once()
            return told.pulses[-1].dead == [dying.epoch]

        await eventually(dead)


async def test_a_fallen_lock_proves_nothing_before_its_own_connection_is_a_lease_old(world: World) -> None:
    async with make_node(world, "a") as (node, told), make_node(world, "b") as (dying, _):
        dying._life.cut()
        for _ in range(LEASE_MS // BEAT_MS):
            # Its lease goes on: only the lock has fallen.
            await nodes.pulse(world.conn, epoch=dying.epoch, queues=[], now_ms=world.now_ms)
            await node.run_once()
            assert told.pulses[-1].dead == []
            world.clock.advance(BEAT_MS)

        async def dead() -> bool:
            await node.run_once()
            return told.pulses[-1].dead == [dying.epoch]

        await eventually(dead)


async def test_a_living_node_whose_connection_broke_proves_its_life_anew(world: World) -> None:
    async with make_node(world, "a") as (node, told), make_node(world, "b") as (other, _):
        other._life.cut()
        await other.run_once()
        await lease_passes(world, node, other)
        assert node.trusts_locks(world.now_ms)
        assert told.pulses[-1].dead == []


async def test_after_an_outage_nothing_expires_for_one_lease(world: World) -> None:
    outage = Outage()
    async with make_node(world, "a", outage) as (node, told):
        world.clock.advance(BEAT_MS)
        await node.run_once()
        world.clock.advance(LEASE_MS)
        await node.run_once()
        assert not node.may_expire(world.now_ms), "a start proves nothing"
        await lease_passes(world, node)
        assert node.may_expire(world.now_ms)
        outage.down = True
        world.clock.advance(LEASE_MS)
        assert not await node.run_once()
        outage.down = False
        assert await node.run_once()
        assert not node.may_expire(world.now_ms)
        await lease_passes(world, node)
        assert node.may_expire(world.now_ms)
        assert len(told.pulses) > 8


async def test_is_degraded_after_three_seconds_without_a_beat(world: World) -> None:
    outage = Outage()
    async with make_node(world, "a", outage) as (node, told), running(node.run()):
        outage.down = True

        async def advance_to(until_ms: int) -> None:
            """Second by second, letting each beat be tried."""
            while world.now_ms < until_ms:
                tried = outage.struck
                world.clock.advance(min(BEAT_MS, until_ms - world.now_ms))
                await eventually_struck(tried)

        async def eventually_struck(tried: int) -> None:
            async def struck() -> bool:
                await world.conn.fetchval("SELECT 1")
                return outage.struck > tried or bool(told.degraded)

            await eventually(struck)

        begun_ms = world.now_ms
        await advance_to(begun_ms + DEGRADED_AFTER_MS - BEAT_MS)
        assert not node.degraded
        await advance_to(begun_ms + DEGRADED_AFTER_MS)

        async def degraded() -> bool:
            await world.conn.fetchval("SELECT 1")
            return told.degraded == [True]

        await eventually(degraded)
        outage.down = False
        world.clock.advance(BEAT_MS)

        async def back() -> bool:
            await world.conn.fetchval("SELECT 1")
            return told.degraded == [True, False]

        await eventually(back)
        assert not node.degraded
