"""Nodes that are killed or stand still, and a Postgres that goes away: nothing stuck, lost or done twice.

Real server processes on one real Postgres, with the SDK's workers and clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from databases import aside
from e2e.processes import Maestoso
from maestoso import Client, ServerError, TaskContext, Unavailable, Worker, worker
from maestoso_server.embedded import EmbeddedPostgres
from maestoso_server.store.migrate import migrate
from maestoso_server.store.nodes import LEASE_MS

DEADLINE_S = 60.0
IN_FLIGHT = 8
LEFT = "SELECT (SELECT count(*) FROM task_queue) + (SELECT count(*) FROM deadline) + count(*) FROM inbox"
STEPS = ("step_one", "step_two", "step_three")

pytestmark = pytest.mark.timeout(150)


@dataclass
class Load:
    """Three-step workflows, started again and again; what was acknowledged and what ran at once."""

    acknowledged: list[str] = field(default_factory=list)
    refusals: list[ServerError] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)
    overlaps: int = 0
    stopped: bool = False

    def handlers(self) -> list[Callable[..., object]]:
        return [self._handler(name) for name in STEPS]

    def _handler(self, name: str) -> Callable[..., object]:
        @worker(name)
        async def step(context: TaskContext) -> dict[str, int]:
            self.overlaps += context.task_id in self.running
            self.running[context.task_id] = 1
            try:
                await asyncio.sleep(0.001)  # long enough that another delivery would be seen beside it
            finally:
                self.running.pop(context.task_id, None)
            return {"done": 1}

        return step

    async def start(self, clients: list[Client], number: int) -> None:
        while not self.stopped:
            client = clients[number % len(clients)]
            try:
                async with asyncio.timeout(5):
                    self.acknowledged.append(await client.start("three_steps"))
            except Unavailable as refusal:
                self.refusals.append(refusal)
                number += 1
                await asyncio.sleep(0.05)
            except TimeoutError:
                number += 1
            await asyncio.sleep(0.01)


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A Postgres that a test may restart."""
    folder = Path(tempfile.mkdtemp(prefix="maestoso-outage-"))
    try:
        with EmbeddedPostgres(folder, durable=False) as postgres:
            aside(migrate(postgres.url, now_ms=1))
            yield postgres
    finally:
        shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def loaded(load: Load, nodes: list[Maestoso], url: str) -> AsyncIterator[None]:
    """Workers and starters at these nodes for the length of the block; then all that was started has to
    end well."""
    tasks = [{"name": name, "taskReferenceName": name, "type": "SIMPLE"} for name in STEPS]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(node.grpc, patience=0.5)) for node in nodes]
        await clients[0].register_workflows([{"name": "three_steps", "version": 1, "tasks": tasks}])
        addresses = [node.grpc for node in nodes]
        await stack.enter_async_context(Worker(addresses, load.handlers(), concurrency=32))
        starters = [asyncio.create_task(load.start(clients, number)) for number in range(IN_FLIGHT)]
        try:
            await until(lambda: more_than(load, 20))
            yield
        finally:
            load.stopped = True
            await asyncio.gather(*starters)
        await everything_ended(url, load)


async def more_than(load: Load, count: int) -> bool:
    return len(load.acknowledged) > count


async def until(condition: Callable[[], Awaitable[bool]], deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def everything_ended(url: str, load: Load) -> None:
    """Every acknowledged start is COMPLETED without a burnt attempt, and nothing is left behind."""
    connection = await asyncpg.connect(url)
    try:

        async def ended() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM workflow WHERE status <= 2")

        try:
            await until(ended)
        except TimeoutError:
            left = await connection.fetch(
                "SELECT w.id, w.last_node, t.reference, t.status, t.reason,"
                " q.owner_epoch, q.session_id, q.delivery, q.due_ms, q.ended"
                " FROM workflow w JOIN task t ON t.workflow_id = w.id AND t.status <= 2"
                " LEFT JOIN task_queue q ON q.workflow_id = t.workflow_id AND q.seq = t.seq"
                " WHERE w.status <= 2 LIMIT 5"
            )
            raise AssertionError(f"still running: {[dict(row) for row in left]}") from None
        completed = await connection.fetchval(
            "SELECT count(*) FROM workflow WHERE id = ANY($1::text[]::uuid[]) AND status = 3",
            load.acknowledged,
        )
        assert completed == len(load.acknowledged)
        burnt = await connection.fetch("SELECT reason FROM task WHERE attempt > 0 OR status NOT IN (3)")
        assert [row["reason"] for row in burnt] == []

        async def empty() -> bool:
            return await connection.fetchval(LEFT) == 0

        await until(empty)
    finally:
        await connection.close()
    assert load.overlaps == 0


async def epochs(url: str) -> dict[str, int]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT grpc_address, epoch FROM node")
        return {row["grpc_address"]: row["epoch"] for row in rows}
    finally:
        await connection.close()


async def test_a_killed_node_strands_nothing_and_burns_no_attempt(database_url: str) -> None:
    load = Load()
    with (
        Maestoso("serve", "--database-url", database_url).ready() as first,
        Maestoso("serve", "--database-url", database_url).ready() as second,
    ):
        async with loaded(load, [first, second], database_url):
            first.process.kill()
            first.process.wait()
            seen = len(load.acknowledged)
            await until(lambda: more_than(load, seen + 50))


async def test_a_node_that_stood_still_past_its_lease_serves_again(
    database_url: str,
) -> None:
    load = Load()
    with (
        Maestoso("serve", "--database-url", database_url).ready() as first,
        Maestoso("serve", "--database-url", database_url).ready() as second,
    ):
        async with loaded(load, [first, second], database_url):
            before = await epochs(database_url)
            first.process.send_signal(signal.SIGSTOP)

            async def taken_over() -> bool:
                return first.grpc not in await epochs(database_url)

            await until(taken_over, LEASE_MS / 1000 + 20)
            first.process.send_signal(signal.SIGCONT)

            async def back() -> bool:
                return (await epochs(database_url)).get(first.grpc, 0) > before[first.grpc]

            await until(back)
            seen = len(load.acknowledged)
            await until(lambda: more_than(load, seen + 50))


async def test_a_postgres_that_restarts_costs_time_and_nothing_else(own_postgres: EmbeddedPostgres) -> None:
    load = Load()
    with Maestoso("serve", "--database-url", own_postgres.url).ready() as node:
        async with loaded(load, [node], own_postgres.url):
            own_postgres.stop()
            await until(refused(load))
            own_postgres.start()
            seen = len(load.acknowledged)
            await until(lambda: more_than(load, seen + 50))

    assert all(refusal.retry_after is not None for refusal in load.refusals)


def refused(load: Load) -> Callable[[], Awaitable[bool]]:
    async def some() -> bool:
        return bool(load.refusals)

    return some
