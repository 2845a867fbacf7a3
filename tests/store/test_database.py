"""The way to Postgres: what counts as unavailable, settings, the clock, and the faults of tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from maestoso_server.clock import ManualClock, SystemClock
from maestoso_server.store import nodes
from maestoso_server.store.database import (
    PINNED_PLANS,
    PLANS_LAST_MS,
    Connection,
    Database,
    Unavailable,
)
from maestoso_server.store.save import save
from ownership_kit import World
from store_kit import NOW_MS, Faulty, start, stored


@pytest.fixture
async def faulty(database_url: str) -> AsyncIterator[tuple[Database, Faulty]]:
    faults = Faulty()
    database = await Database.open(database_url, clock=ManualClock(), min_size=1, max_size=2, faults=faults)
    yield database, faults
    await database.close()


async def raise_lost(drop: Callable[[], None]) -> None:
    raise ConnectionResetError("the reply was lost")


async def test_a_connection_cut_by_an_administrator(world: World) -> None:
    victim = await world.database.dedicated()
    await world.conn.execute("SELECT pg_terminate_backend($1)", victim.raw.get_server_pid())
    with pytest.raises(Unavailable) as refusal:
        await victim.fetchval("SELECT 1")
    assert refusal.value.unknown
    with pytest.raises(Unavailable):
        await victim.fetchval("SELECT 1")


async def test_a_connection_cut_under_a_statement(world: World) -> None:
    victim = await world.database.dedicated()
    work = asyncio.ensure_future(victim.fetchval("SELECT pg_sleep(60)"))
    pid = victim.raw.get_server_pid()
    async with asyncio.timeout(10):
        while not await world.conn.fetchval(
            "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1", pid
        ):
            await asyncio.sleep(0)
    await world.conn.execute("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises(Unavailable, match="administrator command") as refusal:
        await work
    assert refusal.value.unknown


@pytest.mark.parametrize(
    ("state", "reason", "unknown"),
    [
        ("53100", "DiskFull", False),
        ("53300", "TooManyConnections", False),
        ("57P03", "CannotConnectNow", True),
        ("25006", "ReadOnly", False),
        ("58030", "PostgresIO", False),
    ],
)
async def test_a_database_that_refuses_work(world: World, state: str, reason: str, unknown: bool) -> None:
    sql = f"DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{state}'; END $$"
    with pytest.raises(Unavailable, match=reason) as refusal:
        await world.conn.execute(sql)
    assert refusal.value.unknown == unknown


@pytest.mark.parametrize("sql", ["SELECT 1 / 0", "SELECT nothing", "SELECT 1 WHERE", "SELECT $1::integer"])
async def test_a_mistake_of_ours_is_no_outage(world: World, sql: str) -> None:
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await world.conn.fetch(sql)
    assert await world.conn.fetchval("SELECT 1") == 1


async def test_a_connection_used_after_its_block_is_no_outage(world: World) -> None:
    async with world.database.acquire() as conn:
        pass
    with pytest.raises(asyncpg.InterfaceError):
        await conn.fetchval("SELECT 1")


async def test_no_database_at_all() -> None:
    with pytest.raises(Unavailable) as refusal:
        await Database.open("postgresql://127.0.0.1:1/none", clock=ManualClock())
    assert not refusal.value.unknown


async def test_a_transaction_is_undone_by_an_error(world: World) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with world.conn.transaction():
            await world.conn.execute("INSERT INTO namespace (name, created_ms) VALUES ('x', 1)")
            await world.conn.execute("SELECT 1 / 0")
    assert await world.conn.fetchval("SELECT count(*) FROM namespace WHERE name = 'x'") == 0


async def test_every_connection_has_pinned_plans_and_keeps_them(world: World) -> None:
    for _ in range(2):
        async with world.database.acquire() as conn:
            for name, value in PINNED_PLANS.items():
                assert await conn.fetchval(f"SELECT current_setting('{name}')") == value


async def test_behind_a_pooler_nothing_is_prepared_by_name(database_url: str) -> None:
    database = await Database.open(database_url, clock=ManualClock(), min_size=1, statement_cache_size=0)
    try:
        async with database.acquire() as conn:
            for n in range(3):
                assert await conn.fetchval("SELECT $1::integer", n) == n
            assert (
                await conn.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%$1%'")
                == 0
            )
    finally:
        await database.close()


async def test_statements_are_prepared_once_a_connection(world: World) -> None:
    epoch = await world.node()
    for _ in range(3):
        await save(world.conn, [start()], epoch=epoch, now_ms=NOW_MS)
    prepared = await world.conn.fetchval(
        "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '/* save */%'"
    )
    assert prepared == 1


class Readings(ManualClock):
    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[float, float, float]] = []

    def adjust(self, database_ms: float, sent_ms: float, received_ms: float) -> None:
        self.taken.append((database_ms, sent_ms, received_ms))


async def test_each_connection_reads_the_clock_of_the_database(database_url: str) -> None:
    clock = Readings()
    database = await Database.open(database_url, clock=clock, min_size=2)
    try:
        assert len(clock.taken) == 6
        await database.read_clock()
        assert len(clock.taken) == 9
    finally:
        await database.close()
    machine_ms = SystemClock().now_ms()
    assert all(abs(database_ms - machine_ms) < 60_000 for database_ms, _, _ in clock.taken)


# ---- faults --------------------------------------------------------------------------------


async def test_an_error_before_a_statement_leaves_it_unsent(faulty: tuple[Database, Faulty]) -> None:
    database, faults = faulty
    first = start()
    async with database.acquire() as conn:
        epoch = await register(conn)
        faults.plan("before", "/* save */", raise_lost)
        with pytest.raises(Unavailable):
            await save(conn, [first], epoch=epoch, now_ms=NOW_MS)
        assert await stored(conn, first.decision.header.id) == {}
        assert (await save(conn, [first], epoch=epoch, now_ms=NOW_MS)).fresh


async def test_a_save_applied_whose_reply_is_lost_is_not_applied_again(
    faulty: tuple[Database, Faulty],
) -> None:
    database, faults = faulty
    first = start()
    async with database.acquire() as conn:
        epoch = await register(conn)
        faults.plan("after", "/* save */", raise_lost)
        with pytest.raises(Unavailable) as refusal:
            await save(conn, [first], epoch=epoch, now_ms=NOW_MS)
        assert refusal.value.unknown
        before = await stored(conn, first.decision.header.id)
        assert before
        result = await save(conn, [first], epoch=epoch, now_ms=NOW_MS)
        assert (result.fresh, result.existing) == (set(), {})
        assert await stored(conn, first.decision.header.id) == before


@pytest.mark.parametrize(("when", "applied"), [("before", False), ("after", True)])
async def test_a_dropped_connection_and_the_next_one(
    faulty: tuple[Database, Faulty], when: str, applied: bool
) -> None:
    database, faults = faulty
    first = start()

    async def cut(drop: Callable[[], None]) -> None:
        drop()
        if when == "after":
            raise ConnectionResetError("cut")

    async with database.acquire() as conn:
        epoch = await register(conn)
    faults.plan(when, "/* save */", cut)
    with pytest.raises(Unavailable) as refusal:
        async with database.acquire() as conn:
            await save(conn, [first], epoch=epoch, now_ms=NOW_MS)
    assert refusal.value.unknown
    async with database.acquire() as conn:
        assert bool(await stored(conn, first.decision.header.id)) == applied


async def test_a_slow_statement(faulty: tuple[Database, Faulty]) -> None:
    database, faults = faulty
    reached, go = asyncio.Event(), asyncio.Event()

    async def hold(drop: Callable[[], None]) -> None:
        reached.set()
        await go.wait()

    faults.plan("before", "SELECT 7", hold)
    async with database.acquire() as conn:
        work = asyncio.ensure_future(conn.fetchval("SELECT 7"))
        await asyncio.wait_for(reached.wait(), 10)
        assert not work.done()
        go.set()
        assert await work == 7


async def register(conn: Connection) -> int:
    epoch = await nodes.new_epoch(conn)
    await nodes.register(
        conn, nodes.NodeRow(epoch, "test", "127.0.0.1:1", "127.0.0.1:2", "0", NOW_MS, NOW_MS + 4000)
    )
    return epoch


# ---- plans ---------------------------------------------------------------------------------


async def test_plans_are_made_anew_every_ten_seconds(database_url: str) -> None:
    faults, clock = Faulty(), ManualClock()
    database = await Database.open(database_url, clock=clock, min_size=1, max_size=1, faults=faults)

    async def discards() -> int:
        async with database.acquire():
            return faults.seen.count("DISCARD PLANS")

    try:
        assert await discards() == 0
        clock.advance(int(PLANS_LAST_MS) - 1)
        assert await discards() == 0
        clock.advance(1)
        assert [await discards(), await discards()] == [1, 1]
    finally:
        await database.close()
