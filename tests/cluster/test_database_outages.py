"""A Postgres that goes away under load: calls say so, streams stay, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster_kit import (
    COMPLETED,
    Ledger,
    Load,
    connected,
    definition,
    loaded,
    nothing_left,
    simple,
    until,
    until_stored,
)
from databases import aside
from e2e.processes import Maestoso
from maestoso import Client, TaskContext, Worker
from maestoso_server.embedded import EmbeddedPostgres
from maestoso_server.store.migrate import migrate
from maestoso_server.store.nodes import LEASE_MS

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STREAMS = "SELECT session_id, stream_number FROM session WHERE state = 'ACTIVE'"
"""A stream that ended and was opened again has another number."""


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """One that a test may stop and start."""
    folder = Path(tempfile.mkdtemp(prefix="maestoso-outage-"))
    try:
        with EmbeddedPostgres(folder, durable=False) as made:
            aside(migrate(made.url, now_ms=1))
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def nodes(postgres: EmbeddedPostgres) -> Iterator[list[Maestoso]]:
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(Maestoso("serve", "--database-url", postgres.url)) for _ in range(2)]
        yield [node.ready() for node in made]


async def streams(url: str) -> set[tuple[str, int]]:
    async with connected(url) as connection:
        return {(str(row[0]), row[1]) for row in await connection.fetch(STREAMS)}


@contextlib.asynccontextmanager
async def away(postgres: EmbeddedPostgres, seconds: float) -> AsyncIterator[None]:
    """Without Postgres for so long, and for the block."""
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(postgres.stop)
    stopped = loop.time()
    try:
        yield
        await until(lambda: loop.time() - stopped > seconds, "the outage lasts", seconds + 5)
    finally:
        postgres.start()


async def refused(load: Load, count: int) -> None:
    wanted = len(load.refusals) + count
    await until(lambda: len(load.refusals) >= wanted, f"{count} starts are refused")


@pytest.mark.parametrize("seconds", [0.0, 1.5 * LEASE_MS / 1000], ids=["short", "longer than a lease"])
async def test_an_outage_costs_time_and_nothing_else(
    postgres: EmbeddedPostgres, nodes: list[Maestoso], seconds: float
) -> None:
    async with loaded([node.grpc for node in nodes], postgres.url) as load:
        await until_stored(postgres.url, "SELECT count(DISTINCT epoch) = 2 FROM session")
        before = await streams(postgres.url)
        async with away(postgres, seconds):
            await refused(load, 4)
        await load.more(20)
        assert await streams(postgres.url) == before

    assert all(refusal.retry_after is not None for refusal in load.refusals)


async def test_cut_connections_cost_nothing(postgres: EmbeddedPostgres, nodes: list[Maestoso]) -> None:
    async with loaded([node.grpc for node in nodes], postgres.url) as load:
        await until_stored(postgres.url, "SELECT count(DISTINCT epoch) = 2 FROM session")
        before = await streams(postgres.url)
        for _ in range(3):
            async with connected(postgres.url) as connection:
                await connection.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'maestoso' AND pid <> pg_backend_pid()"
                )
            await load.more(10)
        assert await streams(postgres.url) == before


async def test_a_handler_outlives_an_outage_longer_than_its_fence(
    postgres: EmbeddedPostgres, nodes: list[Maestoso]
) -> None:
    ledger = Ledger()
    finish = asyncio.Event()

    async def work(context: TaskContext) -> None:
        await finish.wait()

    addresses = [node.grpc for node in nodes]
    async with Client(addresses[0]) as client, Worker(addresses, [ledger.handler("long", work)]):
        await client.register_workflows([definition("long", simple("long"))])
        workflow_id = await client.start("long")
        await until(lambda: len(ledger.running) == 1, "the handler runs")
        async with away(postgres, 1.5 * LEASE_MS / 1000):
            pass
        finish.set()
        ended = await client.wait(workflow_id)

    assert ended.status == COMPLETED
    assert list(ledger.runs.values()) == [1]
    await nothing_left(postgres.url)


async def test_a_result_reported_during_an_outage_is_kept_until_it_is_stored(
    postgres: EmbeddedPostgres, nodes: list[Maestoso]
) -> None:
    ledger = Ledger()
    finish = asyncio.Event()

    async def work(context: TaskContext) -> None:
        await finish.wait()

    addresses = [node.grpc for node in nodes]
    async with Client(addresses[0]) as client, Worker(addresses, [ledger.handler("long", work)]):
        await client.register_workflows([definition("long", simple("long"))])
        workflow_id = await client.start("long")
        await until(lambda: len(ledger.running) == 1, "the handler runs")
        async with away(postgres, 1.0):
            finish.set()
            await until(lambda: not ledger.running, "the handler has ended")
        ended = await client.wait(workflow_id)

    assert ended.status == COMPLETED
    assert list(ledger.runs.values()) == [1]
    await nothing_left(postgres.url)
