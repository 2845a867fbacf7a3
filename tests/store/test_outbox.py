"""Events and cached outputs: written with the save or not at all, read, acknowledged, cleared away."""

from __future__ import annotations

from typing import Any

from maestoso_server.engine.decision import CacheWrite, Publication
from maestoso_server.engine.needs import CachedOutput
from maestoso_server.engine.state import Header, View
from maestoso_server.payload import Json
from maestoso_server.store import outbox
from maestoso_server.store.needs import fetch
from maestoso_server.store.save import save
from ownership_kit import World
from store_kit import NOW_MS, advance, header, start

DAY_MS = 24 * 3_600_000


def event(name: str, queue: str = "conductor:orders:shipped") -> Publication:
    return Publication(queue, name, Json.of({"name": name}))


def write(key: str, value: int, *, expires_ms: int = NOW_MS + 1_000) -> CacheWrite:
    return CacheWrite("pay", key, Json.of({"value": value}), expires_ms)


async def written(world: World, *events: Publication, at_ms: int = NOW_MS, **head: Any) -> Header:
    """A started workflow that has told these."""
    epoch = await world.node()
    first = start(header(updated_ms=at_ms, **head), published=list(events))
    result = await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    assert first.decision.header.id in result.fresh
    return first.decision.header


async def listed(world: World, **wanted: Any) -> list[str]:
    fields: dict[str, Any] = {"namespace": "default", "limit": 10, **wanted}
    return [found.message_id for found in await outbox.list_events(world.conn, **fields)]


async def cached(world: World, *keys: str, now_ms: int = NOW_MS) -> list[Any]:
    view = View(header())
    asked = [(view, CachedOutput("pay", key, now_ms)) for key in keys]
    return [found and found.value for found in await fetch(world.conn, asked, now_ms=now_ms)]


# ---- events ----------------------------------------------------------------------------------


async def test_events_are_kept_in_order_with_what_they_tell(world: World) -> None:
    head = await written(world, event("a"), event("b"))
    found = await outbox.list_events(world.conn, namespace="default", limit=10)
    assert [(one.message_id, one.queue, Json(one.body).value) for one in found] == [
        ("a", "conductor:orders:shipped", {"name": "a"}),
        ("b", "conductor:orders:shipped", {"name": "b"}),
    ]
    assert {(one.workflow_id, one.created_ms, one.acknowledged_ms) for one in found} == {(head.id, NOW_MS, 0)}
    assert {one.snapshot_id for one in found} == {head.snapshot_id}


async def test_a_save_that_lost_its_guard_tells_nothing_and_caches_nothing(world: World) -> None:
    head = await written(world)
    epoch = await world.node()
    stale = advance(head, published=[event("a")], cached=[write("k", 1)])
    stale.expected_revision = 99
    result = await save(world.conn, [stale], epoch=epoch, now_ms=NOW_MS)
    assert result.fresh == set()
    assert await listed(world) == []
    assert await cached(world, "k") == [None]


async def test_events_are_found_by_queue_by_workflow_and_by_page(world: World) -> None:
    mine = await written(world, event("a"), event("b", "kafka:x"), event("c"))
    await written(world, event("d"))
    assert await listed(world) == ["a", "b", "c", "d"]
    assert await listed(world, queue="kafka:x") == ["b"]
    assert await listed(world, workflow_id=mine.id) == ["a", "b", "c"]
    assert await listed(world, workflow_id=mine.id, queue="conductor:orders:shipped") == ["a", "c"]
    assert await listed(world, namespace="elsewhere") == []
    (first, *_) = await outbox.list_events(world.conn, namespace="default", limit=1)
    assert await listed(world, after=first.id) == ["b", "c", "d"]


async def test_what_is_acknowledged_is_not_pending_any_more(world: World) -> None:
    await written(world, event("a"), event("b"), event("c", "kafka:x"))
    queue = "conductor:orders:shipped"
    first, second = await outbox.pending(world.conn, namespace="default", queue=queue, limit=10)
    assert (first.message_id, second.message_id) == ("a", "b")
    ids = [first.id, first.id]
    assert await outbox.acknowledge(world.conn, namespace="default", ids=ids, now_ms=NOW_MS + 5) == 1
    assert await outbox.acknowledge(world.conn, namespace="default", ids=ids, now_ms=NOW_MS + 9) == 0
    assert await outbox.acknowledge(world.conn, namespace="other", ids=[second.id], now_ms=NOW_MS) == 0
    left = await outbox.pending(world.conn, namespace="default", queue=queue, limit=10)
    assert [one.message_id for one in left] == ["b"]
    assert await listed(world, unacknowledged=True) == ["b", "c"]
    assert await listed(world) == ["a", "b", "c"]


async def test_old_events_are_cleared_away_and_younger_ones_stay(world: World) -> None:
    await written(world, event("old"), event("done"), at_ms=NOW_MS - 9 * DAY_MS)
    await written(world, event("new"), event("taken"))
    found = {
        one.message_id: one.id for one in await outbox.list_events(world.conn, namespace="default", limit=9)
    }
    taken = [found["done"], found["taken"]]
    await outbox.acknowledge(world.conn, namespace="default", ids=taken, now_ms=NOW_MS - 1)
    before = {"acknowledged_before_ms": NOW_MS - DAY_MS, "created_before_ms": NOW_MS - 7 * DAY_MS}
    assert await outbox.prune(world.conn, **before) == 2
    assert await listed(world) == ["new", "taken"]
    assert await outbox.prune(world.conn, acknowledged_before_ms=NOW_MS, created_before_ms=0) == 1
    assert await listed(world) == ["new"]


# ---- cached outputs --------------------------------------------------------------------------


async def test_an_output_is_found_by_name_and_key_until_it_expires(world: World) -> None:
    epoch = await world.node()
    await save(world.conn, [start(cached=[write("k", 1)])], epoch=epoch, now_ms=NOW_MS)
    assert await cached(world, "k", "other") == [{"value": 1}, None]
    assert await cached(world, "k", now_ms=NOW_MS + 999) == [{"value": 1}]
    assert await cached(world, "k", now_ms=NOW_MS + 1_000) == [None]


async def test_the_same_key_twice_in_one_save_keeps_the_one_that_lasts_longest(world: World) -> None:
    epoch = await world.node()
    batch = [
        start(header(), cached=[write("k", 1), write("k", 2, expires_ms=NOW_MS + 9_000)]),
        start(header(), cached=[write("k", 3, expires_ms=NOW_MS + 5_000)]),
    ]
    result = await save(world.conn, batch, epoch=epoch, now_ms=NOW_MS)
    assert len(result.fresh) == 2
    assert await cached(world, "k") == [{"value": 2}]


async def test_a_later_output_takes_the_place_of_an_earlier_one(world: World) -> None:
    epoch = await world.node()
    for value in (1, 2):
        await save(world.conn, [start(header(), cached=[write("k", value)])], epoch=epoch, now_ms=NOW_MS)
    assert await cached(world, "k") == [{"value": 2}]


async def test_expired_outputs_are_cleared_away(world: World) -> None:
    epoch = await world.node()
    writes = [write("old", 1), write("new", 2, expires_ms=NOW_MS + DAY_MS)]
    await save(world.conn, [start(cached=writes)], epoch=epoch, now_ms=NOW_MS)
    assert await outbox.prune_cache(world.conn, now_ms=NOW_MS + 1_000) == 1
    assert await outbox.prune_cache(world.conn, now_ms=NOW_MS + 1_000) == 0
    assert await cached(world, "new") == [{"value": 2}]
