"""The schema's versions: numbered SQL files, forward only, expand then contract.

A file is applied once and its digest recorded; a file changed after that is refused. A server of
version N runs on schema N and N + 1, so that nodes can be upgraded one after another.

A file whose first line is `-- no-transaction` holds exactly one statement that may be repeated
(CREATE INDEX CONCURRENTLY IF NOT EXISTS): a crash between it and its record runs it again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from .database import Connection, connect_alone

LOCK_KEY = 0x6D61_6573_746F_736F  # "maestoso"
NO_TRANSACTION = "-- no-transaction"
POLL_S = 0.1


class SchemaError(Exception):
    """The database's schema and this server do not fit; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def transactional(self) -> bool:
        return not self.sql.startswith(NO_TRANSACTION)


def migrations() -> list[Migration]:
    """The files of this server, by version; the versions run from 1 without gaps."""
    folder = resources.files(__package__) / "migrations"
    found = []
    for file in folder.iterdir():
        if file.name.endswith(".sql"):
            number, _, rest = file.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(number), rest, file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise SchemaError("the migrations are not numbered from 1 without gaps")
    return found


async def migrate(url: str, *, now_ms: int, known: Sequence[Migration] | None = None) -> list[int]:
    """Bring the database to this server's schema; returns the versions applied.

    Safe to run from many processes at once: the lock is polled, not waited for, since a waiting
    statement would hold up CREATE INDEX CONCURRENTLY. Needs a direct connection, not a pooler.
    """
    known = migrations() if known is None else known
    conn = await connect_alone(url)
    try:
        while not await conn.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):
            await asyncio.sleep(POLL_S)
        await conn.execute(
            "CREATE TABLE IF NOT EXISTS schema_migration ("
            " version integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,"
            " applied_ms bigint NOT NULL)"
        )
        recorded = await _recorded(conn)
        _refuse_misfit(recorded, known)
        pending = [migration for migration in known if migration.version not in recorded]
        for migration in pending:
            await _apply(conn, migration, now_ms)
        return [migration.version for migration in pending]
    finally:
        await conn.close()


async def check_schema(conn: Connection, known: Sequence[Migration] | None = None) -> None:
    """Refuse to serve on a schema that is older than this server or more than one version newer."""
    known = migrations() if known is None else known
    if not await conn.fetchval("SELECT to_regclass('schema_migration') IS NOT NULL"):
        raise SchemaError("the database has no schema yet: run `maestoso migrate`")
    recorded = await _recorded(conn)
    _refuse_misfit(recorded, known)
    missing = [migration.version for migration in known if migration.version not in recorded]
    if missing:
        raise SchemaError(f"the database lacks schema version {missing[0]}: run `maestoso migrate`")


async def _recorded(conn: Any) -> dict[int, str]:
    rows = await conn.fetch("SELECT version, sha256 FROM schema_migration ORDER BY version")
    return {row["version"]: row["sha256"] for row in rows}


def _refuse_misfit(recorded: dict[int, str], known: Sequence[Migration]) -> None:
    newest = max(recorded, default=0)
    if newest > len(known) + 1:
        raise SchemaError(
            f"the database has schema version {newest}, this server knows {len(known)} and can run on "
            f"{len(known) + 1} at most: upgrade the server"
        )
    for migration in known:
        if recorded.get(migration.version, migration.digest) != migration.digest:
            raise SchemaError(
                f"migration {migration.version:04}_{migration.name} differs from the one that was applied"
            )


async def _apply(conn: Any, migration: Migration, now_ms: int) -> None:
    if migration.transactional:
        async with conn.transaction():
            await conn.execute(migration.sql)
            await _record(conn, migration, now_ms)
    else:
        await conn.execute(migration.sql)
        await _record(conn, migration, now_ms)


async def _record(conn: Any, migration: Migration, now_ms: int) -> None:
    await conn.execute(
        "INSERT INTO schema_migration (version, name, sha256, applied_ms) VALUES ($1, $2, $3, $4)",
        migration.version,
        migration.name,
        migration.digest,
        now_ms,
    )
