"""The way to Postgres: a pool, settings per connection, typed failure, and the seam for faults.

Every statement of the server goes through `Connection`. Two kinds of errors come out of it:
`Unavailable` (the database cannot be reached, refuses work or is full: wait and try again) and
everything else, which is a bug of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg

from ..clock import Clock

PINNED_PLANS = {
    # Measured: a generic plan costs 61 us a single save, custom plans 213. A generic plan made on an
    # empty table must survive its growth, so only index plans and nested loops are left to choose from.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    # A bitmap scan reads the whole queue and sorts it to take its first rows.
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}

PLANS_LAST_MS = 10_000.0
"""A plan made while a table was empty may read all of it once it has grown, and generic plans are kept
until the next vacuum. Making them anew costs a connection some 5 ms each time."""

CLOCK_READINGS = 3

_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.DatabaseDroppedError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresIOError,
    asyncpg.ReadOnlySQLTransactionError,
    OSError,
    TimeoutError,
)
_REFUSALS = (*_AWAY, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What can be the matter with a first connection: the address, the role, the database, its state."""
_UNDONE = (asyncpg.InsufficientResourcesError, asyncpg.PostgresIOError, asyncpg.ReadOnlySQLTransactionError)


class Unavailable(Exception):
    """Postgres cannot be reached, is shutting down, is read-only or has no room.

    `unknown`: the statement was on its way, so it may have been applied all the same.
    """

    def __init__(self, reason: str, *, unknown: bool = False) -> None:
        super().__init__(reason)
        self.unknown = unknown


class Faults(Protocol):
    """What a test may do to statements. `drop` cuts the connection under the statement."""

    async def before(self, sql: str, drop: Callable[[], None]) -> None:
        """Called before `sql` is sent; raises to fail it unsent."""

    async def after(self, sql: str, drop: Callable[[], None]) -> None:
        """Called once `sql` has been applied; raises to lose its reply."""


class Connection:
    """One connection. Statements are prepared once and then known by their text."""

    __slots__ = ("_faults", "raw", "returned")

    def __init__(self, raw: Any, faults: Faults | None = None) -> None:
        self.raw = raw
        self._faults = faults
        self.returned = False
        """It went back to the pool: whoever still has it must not use it."""

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        return await self._run(self.raw.fetch, sql, args)  # type: ignore[no-any-return]

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        return await self._run(self.raw.fetchrow, sql, args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        return await self._run(self.raw.fetchval, sql, args)

    async def execute(self, sql: str, *args: Any) -> str:
        return await self._run(self.raw.execute, sql, args)  # type: ignore[no-any-return]

    async def listen(self, channel: str, hear: Callable[..., None]) -> None:
        """Have `hear` called with (connection, process, channel, payload) of each notification."""
        await self._run(self.raw.add_listener, channel, (hear,))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """For the few duties that need two statements; everything else is one statement."""
        try:
            async with self.raw.transaction():
                yield
        except (*_AWAY, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise self._unavailable(error) from error

    async def _run(self, call: Callable[..., Awaitable[Any]], sql: str, args: tuple[Any, ...]) -> Any:
        if self.returned:
            raise asyncpg.InterfaceError("the connection was used after its block")
        try:
            if self._faults is None:
                return await call(sql, *args)
            await self._faults.before(sql, self.raw.terminate)
            answer = await call(sql, *args)
            await self._faults.after(sql, self.raw.terminate)
            return answer
        except (*_AWAY, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise self._unavailable(error) from error

    def _lost(self) -> bool:
        """The connection is gone, which takes it out of the pool at once. A use after its block is a bug."""
        if self.returned:
            return False
        try:
            return bool(self.raw.is_closed())
        except asyncpg.InterfaceError:
            return True

    def _unavailable(self, error: BaseException) -> BaseException:
        if isinstance(error, asyncpg.InternalClientError):
            self.raw.terminate()  # it broke at a moment that the driver did not expect
            return outage(error, unknown=True)
        if isinstance(error, asyncpg.InterfaceError) and not self._lost():
            return error
        return outage(error, unknown=not isinstance(error, _UNDONE))


def outage(error: BaseException, *, unknown: bool = False) -> BaseException:
    """What an error of the driver means to us. In a task that is being cancelled it is the cancellation:
    the driver reports what that met instead, and a loop that waits outages out would never end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return asyncio.CancelledError()
    return Unavailable(f"{type(error).__name__}: {error}", unknown=unknown)


async def connect_alone(url: str) -> Any:
    """A plain connection of the driver, for migrations. Raises Unavailable, as `Database.open` does."""
    try:
        return await asyncpg.connect(url)
    except _REFUSALS as error:
        raise outage(error) from error


class Database:
    """The pool of one process. Made by `open`, ended by `close`.

    Each new connection reads the database's clock into `clock`.
    """

    def __init__(
        self, url: str, clock: Clock, statement_cache_size: int, statement_s: float, faults: Faults | None
    ) -> None:
        self.url = url
        self._clock = clock
        self._statement_cache_size = statement_cache_size
        self._statement_s = statement_s
        self._faults = faults
        self._pool: Any = None
        self._planned_ms: dict[int, float] = {}
        self._kept: list[Any] = []
        self._waiting = 0
        self._closing = False

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        clock: Clock,
        min_size: int = 2,
        max_size: int = 10,
        statement_cache_size: int = 1024,
        statement_s: float = 30.0,
        faults: Faults | None = None,
    ) -> Database:
        """Connect. `statement_cache_size` 0 is for a pooler in transaction mode (PgBouncer): nothing is
        prepared by name and no setting is sent, so the role must carry `PINNED_PLANS` there. A statement
        without an answer for `statement_s` seconds is given up.

        Raises Unavailable, also where the server is there and refuses (no such database or role)."""
        database = cls(url, clock, statement_cache_size, statement_s, faults)
        try:
            database._pool = await asyncpg.create_pool(
                url,
                min_size=min_size,
                max_size=max_size,
                max_inactive_connection_lifetime=0,
                init=database._read_clock,
                reset=_keep_settings,
                **database._options(),
            )
        except _REFUSALS as error:
            raise outage(error) from error
        return database

    async def close(self) -> None:
        """Close every connection; those in use when they are given back."""
        self._closing = True
        while self._kept:
            await self._pool.release(self._kept.pop())
        await self._pool.close()

    def terminate(self) -> None:
        """Cut every connection at once: what a killed process does."""
        self._pool.terminate()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection for the length of the block; waits while all are in use.

        One that was used without trouble is kept at hand for the next block: the pool's own release
        costs a task and several turns of the loop, a tenth of a small commit."""
        raw = self._at_hand() or await self._from_pool()
        conn = Connection(raw, self._faults)
        sound = False
        try:
            if self._plans_are_old(raw.get_server_pid()):
                await conn.execute("DISCARD PLANS")
            yield conn
            sound = True
        finally:
            conn.returned = True
            if sound and not self._waiting and not self._closing and not _is_closed(raw):
                self._kept.append(raw)
            else:
                await self._pool.release(raw)

    def _at_hand(self) -> Any:
        while self._kept:
            raw = self._kept.pop()
            if not _is_closed(raw):
                return raw
        return None

    async def _from_pool(self) -> Any:
        self._waiting += 1
        try:
            return await self._pool.acquire()
        except _REFUSALS as error:
            raise outage(error) from error
        finally:
            self._waiting -= 1

    def _plans_are_old(self, connection: int) -> bool:
        now_ms = self._clock.local_ms()
        since_ms = self._planned_ms.setdefault(connection, now_ms)
        if self._statement_cache_size == 0 or now_ms - since_ms < PLANS_LAST_MS:
            return False
        self._planned_ms[connection] = now_ms
        return True

    async def dedicated(self) -> Connection:
        """A connection outside the pool, for LISTEN and advisory locks; the caller closes `raw`."""
        try:
            raw = await asyncpg.connect(self.url, **self._options())
        except _REFUSALS as error:
            raise outage(error) from error
        return Connection(raw, self._faults)

    async def read_clock(self) -> None:
        """Take a few readings of the database's clock: clocks drift, so the node does it now and then."""
        async with self.acquire() as conn:
            await self._read_clock(conn.raw)

    async def _read_clock(self, raw: Any) -> None:
        """The one place where the database is asked for its time."""
        for _ in range(CLOCK_READINGS):
            sent_ms = self._clock.local_ms()
            database_ms = await raw.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8")
            self._clock.adjust(database_ms, sent_ms, self._clock.local_ms())

    def _options(self) -> dict[str, Any]:
        if self._statement_cache_size == 0:
            return {"statement_cache_size": 0, "command_timeout": self._statement_s}
        return {
            "command_timeout": self._statement_s,
            "statement_cache_size": self._statement_cache_size,
            "max_cacheable_statement_size": 0,
            "max_cached_statement_lifetime": 0,
            "server_settings": {"application_name": "maestoso", **PINNED_PLANS},
        }


def _is_closed(raw: Any) -> bool:
    """Whether a connection of the pool is gone. The pool takes back by itself one that broke."""
    try:
        return bool(raw.is_closed())
    except asyncpg.InterfaceError:
        return True


async def _keep_settings(raw: Any) -> None:
    """In place of asyncpg's reset, which costs a round trip: our statements leave nothing behind."""
