"""Saves against each other and against what else writes: two connections, one of them in the way.

The first comer holds its transaction open until the second is seen waiting for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from maestoso_server import ids
from maestoso_server.store import metadata, nodes
from maestoso_server.store.save import WorkflowSave, save
from ownership_kit import DEADLINE_S, World
from store_kit import NOW_MS, SESSION, advance, done, header, start, stored, task


async def begun(world: World, epoch: int, **more: Any) -> WorkflowSave:
    first = start(**more)
    await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    return first


class Race:
    """Work on `world.conn` that ran into what the block of `in_the_way` holds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._work: asyncio.Future[Any] | None = None
        self.result: Any = None

    async def meet(self, work: Awaitable[Any]) -> None:
        """Start it, and go on once it waits for a lock."""
        self._work = asyncio.ensure_future(work)
        pid = self._world.conn.raw.get_server_pid()
        async with self._world.database.acquire() as onlooker, asyncio.timeout(DEADLINE_S):
            while not await onlooker.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid):
                await asyncio.sleep(0)

    async def finish(self) -> None:
        assert self._work is not None, "nobody was met"
        self.result = await asyncio.wait_for(self._work, DEADLINE_S)


@asynccontextmanager
async def in_the_way(world: World) -> AsyncIterator[Race]:
    """The block's statements on `world.other` are one transaction; after its commit the race ends."""
    race = Race(world)
    async with world.other.transaction():
        yield race
    await race.finish()


async def test_of_two_saves_of_one_revision_one_is_stale(world: World) -> None:
    epoch, rival = await world.node(), await world.node()
    first = await begun(world, epoch)
    head = first.decision.header
    async with in_the_way(world) as race:
        theirs = await save(world.other, [advance(head, inserted=[task(2)])], epoch=rival, now_ms=NOW_MS)
        await race.meet(save(world.conn, [advance(head, inserted=[task(3)])], epoch=epoch, now_ms=NOW_MS))
    assert (theirs.fresh, race.result.fresh) == ({head.id}, set())
    rows = await stored(world.conn, head.id)
    assert [row["seq"] for row in rows["task"]] == [1, 2]
    assert [(row["revision"], row["last_node"]) for row in rows["workflow"]] == [(2, rival)]


async def test_a_node_row_deleted_while_the_save_waits_for_it(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    before = await stored(world.conn, first.decision.header.id)
    new = start()
    async with in_the_way(world) as race:
        await nodes.remove(world.other, epoch)
        await race.meet(save(world.conn, [advance(first.decision.header), new], epoch=epoch, now_ms=NOW_MS))
    assert not race.result.node_alive
    assert await stored(world.conn, first.decision.header.id) == before
    assert await stored(world.conn, new.decision.header.id) == {}


async def test_a_takeover_waits_for_a_save_in_flight(world: World) -> None:
    epoch = await world.node()
    new = start(owners={1: SESSION})
    async with in_the_way(world) as race:
        await save(world.other, [new], epoch=epoch, now_ms=NOW_MS)
        await race.meet(nodes.remove(world.conn, epoch))
    assert (await stored(world.conn, new.decision.header.id))["task_queue"][0]["owner_epoch"] == epoch


async def test_a_beat_does_not_wait_for_a_save(world: World) -> None:
    epoch = await world.node()
    async with world.other.transaction():
        await save(world.other, [start()], epoch=epoch, now_ms=NOW_MS)
        await asyncio.wait_for(
            world.conn.execute("UPDATE node SET lease_until_ms = lease_until_ms + 1 WHERE epoch = $1", epoch),
            DEADLINE_S,
        )


async def test_a_delivery_that_is_handed_out_anew_meanwhile_is_lost(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    head = first.decision.header
    async with in_the_way(world) as race:
        await world.other.execute("UPDATE task_queue SET delivery = 1, owner_epoch = $1", epoch)
        mine = advance(head, deliveries=[(1, 0)], updated=[done(first.decision.inserted[0])])
        await race.meet(save(world.conn, [mine], epoch=epoch, now_ms=NOW_MS))
    assert (race.result.fresh, race.result.lost) == (set(), [(head.id, 1)])
    assert (await stored(world.conn, head.id))["task"][0]["status"] == 1


async def test_progress_made_meanwhile_saves_a_delivery_from_its_time_out(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    await world.conn.execute(
        "UPDATE task_queue SET delivery = 1, owner_epoch = $1, deadline_ms = $2", epoch, NOW_MS
    )
    async with in_the_way(world) as race:
        await world.other.execute("UPDATE task_queue SET deadline_ms = $1", NOW_MS + 1)
        late = advance(first.decision.header, expired=[(1, 1)])
        await race.meet(save(world.conn, [late], epoch=epoch, now_ms=NOW_MS))
    assert race.result.lost == [(first.decision.header.id, 1)]


@pytest.mark.parametrize("guard", [{"deliveries": [(1, 1)]}, {"released": [1]}])
async def test_a_row_that_moves_to_another_node_meanwhile_is_left_to_it(
    world: World, guard: dict[str, Any]
) -> None:
    epoch, other = await world.node(), await world.node()
    first = await begun(world, epoch)
    await world.conn.execute("UPDATE task_queue SET delivery = 1, owner_epoch = $1", epoch)
    async with in_the_way(world) as race:
        await world.other.execute("UPDATE task_queue SET owner_epoch = $1", other)
        await race.meet(
            save(world.conn, [advance(first.decision.header, **guard)], epoch=epoch, now_ms=NOW_MS)
        )
    assert race.result.foreign == [(first.decision.header.id, 1, other)]
    (row,) = (await stored(world.conn, first.decision.header.id))["task_queue"]
    assert (row["ended"], row["owner_epoch"]) == (True, other)


async def test_a_key_raced_by_two_starts(world: World) -> None:
    """The winner commits after the loser's snapshot: the loser learns of it all the same."""
    epoch, rival = await world.node(), await world.node()
    winner, loser = start(header(idempotency_key="k")), start(header(idempotency_key="k"))
    async with in_the_way(world) as race:
        await save(world.other, [winner], epoch=rival, now_ms=NOW_MS)
        await race.meet(save(world.conn, [loser], epoch=epoch, now_ms=NOW_MS))
    assert race.result.existing == {loser.decision.header.id: winner.decision.header.id}
    assert await stored(world.conn, loser.decision.header.id) == {}


async def test_a_child_started_twice_at_once_is_one_workflow(world: World) -> None:
    epoch, rival = await world.node(), await world.node()
    child = header(id=ids.workflow_id(NOW_MS))
    async with in_the_way(world) as race:
        await save(world.other, [start(child)], epoch=rival, now_ms=NOW_MS)
        await race.meet(save(world.conn, [start(child, [task(1), task(2)])], epoch=epoch, now_ms=NOW_MS))
    assert race.result.fresh == set()
    assert len((await stored(world.conn, child.id))["task"]) == 1


async def test_a_start_sees_a_definition_that_was_put_before_it(world: World) -> None:
    epoch = await world.node()
    revision = await metadata.metadata_revision(world.conn, "default")
    await metadata.put_tasks(
        world.other,
        "default",
        [metadata.Document("pay", b"{}")],
        overwrite=metadata.Overwrite.ALLOW,
        principal="anna",
        now_ms=NOW_MS,
    )
    first = start(metadata_revision=revision)
    result = await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    assert result.metadata_stale == {first.decision.header.id}


# ---- the order of locks --------------------------------------------------------------------


async def test_the_header_is_locked_before_the_queue_rows(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    async with in_the_way(world) as race:
        await world.other.execute("SELECT 1 FROM workflow FOR UPDATE")
        await race.meet(
            save(
                world.conn, [advance(first.decision.header, deliveries=[(1, 0)])], epoch=epoch, now_ms=NOW_MS
            )
        )
        await world.other.execute("SELECT 1 FROM task_queue FOR UPDATE NOWAIT")
    assert race.result.fresh == {first.decision.header.id}


async def test_queue_rows_are_locked_before_task_rows(world: World) -> None:
    """Who writes both outside a save locks them in this order: then neither can hold the other up."""
    epoch = await world.node()
    first = await begun(world, epoch)
    row = first.decision.inserted[0]
    async with in_the_way(world) as race:
        await world.other.execute("SELECT 1 FROM task_queue FOR UPDATE")
        ending = advance(first.decision.header, updated=[done(row)], released=[1])
        await race.meet(save(world.conn, [ending], epoch=epoch, now_ms=NOW_MS))
        await world.other.execute("SELECT 1 FROM task FOR UPDATE NOWAIT")
    assert race.result.fresh == {first.decision.header.id}


async def test_batches_over_the_same_workflows_in_any_order_never_block_each_other_for_good(
    world: World,
) -> None:
    epoch, rival = await world.node(), await world.node()
    firsts = [start(header(idempotency_key=f"k{n}"), [task(1), task(2)]) for n in range(8)]
    await save(world.conn, firsts, epoch=epoch, now_ms=NOW_MS)
    heads = [item.decision.header for item in firsts]
    for _ in range(15):
        new = [start(header(id=ids.workflow_id(NOW_MS))) for _ in range(4)]

        def batch(order: int, new: list[WorkflowSave] = new, heads: list[Any] = heads) -> list[WorkflowSave]:
            moves = [advance(head, updated=[task(2), task(1)]) for head in heads]
            return [*moves, *new][::order]

        mine, theirs = await asyncio.wait_for(
            asyncio.gather(
                save(world.conn, batch(1), epoch=epoch, now_ms=NOW_MS),
                save(world.other, batch(-1), epoch=rival, now_ms=NOW_MS),
            ),
            DEADLINE_S,
        )
        assert not mine.fresh & theirs.fresh
        assert mine.fresh | theirs.fresh == {item.decision.header.id for item in batch(1)}
        for head in heads:
            head.revision += 1
