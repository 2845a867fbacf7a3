"""Schema versions: applied once, in order, by whoever comes first; misfits are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from databases import aside, execute, url_of
from maestoso_server.clock import ManualClock
from maestoso_server.store.database import Database
from maestoso_server.store.migrate import (
    LOCK_KEY,
    Migration,
    SchemaError,
    check_schema,
    migrate,
    migrations,
)

FIRST = Migration(
    1, "base", "CREATE TABLE thing (id integer PRIMARY KEY, name text); INSERT INTO thing VALUES (1, 'a');"
)
SECOND = Migration(2, "colour", "ALTER TABLE thing ADD COLUMN colour text NOT NULL DEFAULT 'red';")
INDEX = Migration(
    3,
    "index",
    "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS thing_by_name ON thing (name);",
)
BROKEN = Migration(2, "broken", "CREATE TABLE other (id integer); SELECT 1 / 0;")


@pytest.fixture
def empty_url(postgres_url: str) -> Iterator[str]:
    """A database without a schema."""
    name = "maestoso_migrate_test"
    aside(execute(postgres_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}"))
    yield url_of(postgres_url, name)
    aside(execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


async def look(url: str, sql: str) -> list[tuple[object, ...]]:
    conn = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await conn.fetch(sql)]
    finally:
        await conn.close()


async def check(url: str, known: list[Migration]) -> None:
    database = await Database.open(url, clock=ManualClock(), min_size=1)
    try:
        async with database.acquire() as conn:
            await check_schema(conn, known)
    finally:
        await database.close()


async def test_our_own_files_make_a_schema_that_passes(empty_url: str) -> None:
    versions = [migration.version for migration in migrations()]
    assert await migrate(empty_url, now_ms=5) == versions
    assert await migrate(empty_url, now_ms=6) == []
    await check(empty_url, migrations())
    assert {row[0] for row in await look(empty_url, "SELECT applied_ms FROM schema_migration")} == {5}


async def test_a_database_with_data_is_upgraded(empty_url: str) -> None:
    assert await migrate(empty_url, now_ms=1, known=[FIRST]) == [1]
    await execute(empty_url, "INSERT INTO thing VALUES (2, 'b')")
    assert await migrate(empty_url, now_ms=2, known=[FIRST, SECOND, INDEX]) == [2, 3]
    rows = await look(empty_url, "SELECT id, name, colour FROM thing ORDER BY id")
    assert rows == [(1, "a", "red"), (2, "b", "red")]
    assert await look(empty_url, "SELECT indexname FROM pg_indexes WHERE indexname = 'thing_by_name'")


async def test_a_failing_file_leaves_nothing_behind(empty_url: str) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_url, now_ms=1, known=[FIRST, BROKEN])
    assert await look(empty_url, "SELECT version FROM schema_migration") == [(1,)]
    assert await look(empty_url, "SELECT to_regclass('other') IS NULL") == [(True,)]
    assert await migrate(empty_url, now_ms=1, known=[FIRST, SECOND]) == [2]


async def test_a_file_without_transaction_is_done_again_after_a_crash(empty_url: str) -> None:
    """The crash came between the statement and its record."""
    await migrate(empty_url, now_ms=1, known=[FIRST, SECOND, INDEX])
    await execute(empty_url, "DELETE FROM schema_migration WHERE version = 3")
    assert await migrate(empty_url, now_ms=1, known=[FIRST, SECOND, INDEX]) == [3]


async def test_processes_that_race_apply_each_version_once(empty_url: str) -> None:
    known = [FIRST, SECOND, INDEX]
    applied = await asyncio.gather(*(migrate(empty_url, now_ms=1, known=known) for _ in range(5)))
    assert sorted(applied, key=len) == [[], [], [], [], [1, 2, 3]]


async def test_who_waits_for_the_lock_waits_outside_any_statement(empty_url: str) -> None:
    """A waiting statement would hold a snapshot, and CREATE INDEX CONCURRENTLY would wait for it."""
    holder = await asyncpg.connect(empty_url)
    await holder.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
    work = asyncio.ensure_future(migrate(empty_url, now_ms=1, known=[FIRST]))
    asked = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(10):
        while not await holder.fetchval(f"{asked} AND query LIKE '%try_advisory%' AND state = 'idle'"):
            await asyncio.sleep(0)
    assert await holder.fetchval(f"{asked} AND wait_event_type = 'Lock'") == 0
    assert not work.done()
    await holder.close()
    assert await asyncio.wait_for(work, 10) == [1]


async def test_a_changed_file_is_refused(empty_url: str) -> None:
    await migrate(empty_url, now_ms=1, known=[FIRST])
    changed = Migration(1, "base", FIRST.sql + " ")
    with pytest.raises(SchemaError, match="0001_base differs"):
        await migrate(empty_url, now_ms=1, known=[changed, SECOND])
    with pytest.raises(SchemaError, match="0001_base differs"):
        await check(empty_url, [changed])


async def test_a_server_runs_on_its_own_schema_and_on_the_next(empty_url: str) -> None:
    await migrate(empty_url, now_ms=1, known=[FIRST, SECOND])
    await check(empty_url, [FIRST, SECOND])
    await check(empty_url, [FIRST])
    assert await migrate(empty_url, now_ms=1, known=[FIRST]) == []


async def test_a_server_two_versions_behind_is_refused(empty_url: str) -> None:
    await migrate(empty_url, now_ms=1, known=[FIRST, SECOND, INDEX])
    with pytest.raises(SchemaError, match="upgrade the server"):
        await check(empty_url, [FIRST])
    with pytest.raises(SchemaError, match="upgrade the server"):
        await migrate(empty_url, now_ms=1, known=[FIRST])


async def test_an_old_or_absent_schema_names_the_remedy(empty_url: str) -> None:
    with pytest.raises(SchemaError, match="no schema yet: run `maestoso migrate`"):
        await check(empty_url, [FIRST])
    await migrate(empty_url, now_ms=1, known=[FIRST])
    with pytest.raises(SchemaError, match="lacks schema version 2: run `maestoso migrate`"):
        await check(empty_url, [FIRST, SECOND])
