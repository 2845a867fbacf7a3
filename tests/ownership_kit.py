"""A database with nodes, sessions and queue rows in it, for the tests of ownership.

Rows are written past the engine: these tests are about who owns a row, not about what it runs.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from maestoso_server import ids
from maestoso_server.clock import ManualClock
from maestoso_server.store import nodes, sessions
from maestoso_server.store.database import Connection, Database, Unavailable
from maestoso_server.store.deliveries import Key

DEADLINE_S = 10
"""A condition that does not come true within this time fails the test."""

INSERT_WORKFLOW = """
INSERT INTO workflow (id, namespace, revision, status, generation, snapshot_id, name, version, parent_seq,
  priority, correlation_id, created_ms, clock_ms, updated_ms, ended_ms, next_seq, open, permissive_failed,
  last_task, last_node)
VALUES ($1, $2, 1, 1, 1, $1, 'orders', 1, 0, 0, 'c-1', $3, $3, $3, 0, 1000, 0, 0, 0, 0)"""

INSERT_PAYLOAD = """
INSERT INTO workflow_payload (workflow_id, input, variables, failed_task, created_by, traceparent)
VALUES ($1, '{}', '{}', 0, 'test', '00-trace')"""

INSERT_TASK = """
INSERT INTO task (workflow_id, seq, generation, reference, path, attempt, scope, type, name, status,
  scheduled_ms, first_scheduled_ms, retried_seq, queued, domain, input)
VALUES ($1, $2, 1, 'ref', '{3}', 2, 0, $3, $3, 1, $4, $4, 0, true, '', '{"n":1.0}')"""

INSERT_ROW = """
INSERT INTO task_queue (workflow_id, seq, namespace, queue, task_type, rank, due_ms, size, task_limit,
  response_s, timeout_s, total_due_ms, redeliver_on_loss, owner_epoch, session_id, delivery, unread, ended,
  deadline_ms, started_ms, worker_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, 9, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)"""


@dataclass
class World:
    """One migrated database seen through the server's own pool, on a clock that stands still."""

    url: str
    database: Database
    clock: ManualClock
    conn: Connection
    """For the statement under test, and for looking."""
    other: Connection
    """Its rival."""

    def __post_init__(self) -> None:
        self._seqs = itertools.count(1)

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms()

    async def node(self, *, lease_ms: int = nodes.LEASE_MS) -> int:
        """A registered node; its life is not proven by any lock."""
        epoch = await nodes.new_epoch(self.conn)
        row = nodes.NodeRow(
            epoch=epoch,
            node_id=f"node-{epoch}",
            grpc_address=f"127.0.0.1:{epoch}",
            http_address="127.0.0.1:1",
            version="test",
            started_ms=self.now_ms,
            lease_until_ms=self.now_ms + lease_ms,
        )
        await nodes.register(self.conn, row)
        return epoch

    async def session(self, epoch: int, *, worker_id: str = "worker") -> sessions.Session:
        session = sessions.Session(
            session_id=ids.session_id(),
            epoch=epoch,
            namespace="default",
            worker_id=worker_id,
            resume_token_hash=b"hash",
            task_types=["pay"],
            principal="anonymous",
            sdk="test",
            state="ACTIVE",
            connected_ms=self.now_ms,
        )
        await sessions.open_session(self.conn, session)
        return session

    async def row(
        self,
        *,
        queue: str = "pay",
        task_type: str | None = None,
        rank: int = 99,
        due_ms: int | None = None,
        limit: int = 0,
        response_s: int = 0,
        timeout_s: int = 0,
        total_due_ms: int = 0,
        redeliver_on_loss: bool = False,
        owner: int | None = None,
        session: str | None = None,
        delivery: int = 0,
        unread: int = 0,
        ended: bool = False,
        deadline_ms: int | None = None,
        started_ms: int = 0,
        worker_id: str = "",
        namespace: str = "default",
    ) -> Key:
        """A task with its queue row, in a workflow of its own."""
        key = Key(ids.workflow_id(self.now_ms), next(self._seqs))
        due_ms = self.now_ms if due_ms is None else due_ms
        task_type = queue if task_type is None else task_type
        await self.conn.execute(INSERT_WORKFLOW, key.workflow_id, namespace, self.now_ms)
        await self.conn.execute(INSERT_PAYLOAD, key.workflow_id)
        await self.conn.execute(INSERT_TASK, *key, task_type, self.now_ms)
        await self.conn.execute(
            INSERT_ROW, *key, namespace, queue, task_type, rank, due_ms, limit, response_s, timeout_s,
            total_due_ms, redeliver_on_loss, owner, session, delivery, unread, ended, deadline_ms, started_ms,
            worker_id,
        )  # fmt: skip
        return key

    async def multiply_rows(self, count: int) -> None:
        """`count` more of every queue row, under other seqs of the same workflow."""
        await self.conn.execute(
            f"INSERT INTO task_queue (workflow_id, seq, {ROW_COLUMNS})"
            f" SELECT workflow_id, seq + 1000 + g, {ROW_COLUMNS} FROM task_queue, generate_series(1, $1) g",
            count,
        )

    async def multiply_tasks(self, count: int) -> None:
        """`count` more of every task, under the seqs that `multiply_rows` uses."""
        await self.conn.execute(
            f"INSERT INTO task (workflow_id, seq, path, {TASK_COLUMNS})"
            f" SELECT workflow_id, seq + 1000 + g, ARRAY[g, 0], {TASK_COLUMNS}"
            " FROM task, generate_series(1, $1) g",
            count,
        )

    async def queued(self, key: Key) -> Any:
        """The queue row as it stands; None when it is gone."""
        return await self.conn.fetchrow("SELECT * FROM task_queue WHERE workflow_id = $1 AND seq = $2", *key)

    async def task(self, key: Key) -> Any:
        return await self.conn.fetchrow("SELECT * FROM task WHERE workflow_id = $1 AND seq = $2", *key)

    async def deadline(self, key: Key) -> int | None:
        due_ms: int | None = await self.conn.fetchval(
            "SELECT due_ms FROM deadline WHERE workflow_id = $1 AND seq = $2", *key
        )
        return due_ms

    async def blocked(self, conn: Connection) -> None:
        """Return once the statement that `conn` runs waits for a lock."""
        pid = conn.raw.get_server_pid()

        async def waits() -> bool:
            return bool(await self.conn.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid))

        await eventually(waits)


ROW_COLUMNS = """namespace, queue, task_type, rank, due_ms, size, task_limit, response_s, timeout_s,
  total_due_ms, redeliver_on_loss, owner_epoch, delivery"""

TASK_COLUMNS = """generation, reference, attempt, scope, type, name, status, scheduled_ms, first_scheduled_ms,
  retried_seq, queued, domain, input"""


@asynccontextmanager
async def open_world(url: str) -> AsyncIterator[World]:
    clock = ManualClock()
    database = await Database.open(url, clock=clock, max_size=12)
    try:
        async with database.acquire() as conn, database.acquire() as other:
            yield World(url, database, clock, conn, other)
    finally:
        await asyncio.wait_for(database.close(), DEADLINE_S)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so. Each question is a round trip, so nothing is slept away."""
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await asyncio.sleep(0)


async def refused(work: Awaitable[object]) -> asyncpg.PostgresError:
    """The Postgres error that a statement ends with."""
    try:
        await work
    except asyncpg.PostgresError as error:
        return error
    raise AssertionError("the statement was accepted")


@dataclass
class Outage:
    """Strikes statements of a `Database`: while `down`, none of them gets through."""

    down: bool = False
    struck: int = 0

    async def before(self, sql: str, drop: Callable[[], None]) -> None:
        if self.down:
            self.struck += 1
            raise Unavailable("the test has cut the database off")

    async def after(self, sql: str, drop: Callable[[], None]) -> None:
        return


@asynccontextmanager
async def running(*work: Awaitable[None]) -> AsyncIterator[None]:
    """Loops that run as long as the block; one that fails, fails the test."""
    tasks = [asyncio.ensure_future(loop) for loop in work]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
