"""Handlers that run while a node or its database goes away: each runs once, is never stopped, and its
result is accepted. Their definitions allow no second attempt, so a burnt one would be seen."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from e2e.processes import Maestoso
from maestoso import Client, Unavailable, Worker
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso_server.embedded import EmbeddedPostgres
from maestoso_server.store.nodes import LEASE_MS
from outage_kit import Held, epochs, ran_once, until
from proxy_kit import behind_a_proxy
from worker_kit import calling, chain

DEADLINE_S = 40.0
COUNT = 12

pytestmark = pytest.mark.timeout(60)


@dataclass
class Pair:
    """Two nodes and two workers with a stream to each of them; handlers run at both nodes."""

    first: Maestoso
    second: Maestoso
    held: Held
    ids: list[str]
    conn: Any

    async def left(self, epoch: int) -> None:
        """Until every session that the first node served is open at the second one."""

        async def resumed() -> bool:
            elsewhere = "SELECT count(*) FROM session WHERE epoch = $1 OR state <> 'ACTIVE'"
            return bool(await self.conn.fetchval(elsewhere, epoch) == 0)

        await until(resumed, DEADLINE_S)

    async def written_by(self, epoch: int) -> set[tuple[str, int]]:
        """(workflow, revision) of all that this epoch was the last to write."""
        rows = await self.conn.fetch("SELECT id, revision FROM workflow WHERE last_node = $1", epoch)
        return {(str(row["id"]), row["revision"]) for row in rows}


@contextlib.asynccontextmanager
async def pair(url: str) -> AsyncIterator[Pair]:
    held = Held()
    async with contextlib.AsyncExitStack() as stack:
        first = stack.enter_context(Maestoso("serve", "--database-url", url).ready())
        second = stack.enter_context(Maestoso("serve", "--database-url", url).ready())
        conn = await asyncpg.connect(url)
        stack.push_async_callback(conn.close)
        here = await stack.enter_async_context(Client(first.grpc))
        there = await stack.enter_async_context(Client(second.grpc))
        for _ in range(2):
            servers = [first.grpc, second.grpc]
            await stack.enter_async_context(Worker(servers, [held.handler()], grace=1))

        async def connected() -> bool:
            return bool(await conn.fetchval("SELECT count(*) FROM session WHERE state = 'ACTIVE'") == 4)

        await until(connected, DEADLINE_S)
        ids = await held.start(here, COUNT) + await held.start(there, COUNT)
        owners = await conn.fetchval("SELECT count(DISTINCT owner_epoch) FROM task_queue")
        assert owners == 2
        yield Pair(first, second, held, ids, conn)


async def test_a_handler_outlives_the_node_that_was_killed(database_url: str) -> None:
    async with pair(database_url) as nodes:
        epoch = (await epochs(database_url))[nodes.first.grpc]
        nodes.first.signal(signal.SIGKILL)
        await nodes.left(epoch)

        await ran_once(nodes.held, nodes.ids, database_url)


async def test_a_handler_outlives_the_node_that_was_stopped(database_url: str) -> None:
    async with pair(database_url) as nodes:
        epoch = (await epochs(database_url))[nodes.first.grpc]
        assert await asyncio.to_thread(nodes.first.signal, signal.SIGTERM) == 0
        await nodes.left(epoch)

        await ran_once(nodes.held, nodes.ids, database_url)


async def test_a_node_that_stood_still_past_its_lease_writes_nothing_under_its_old_epoch(
    database_url: str,
) -> None:
    async with pair(database_url) as nodes:
        before = await epochs(database_url)
        epoch = before[nodes.first.grpc]
        nodes.first.process.send_signal(signal.SIGSTOP)

        async def taken_over() -> bool:
            return nodes.first.grpc not in await epochs(database_url)

        await until(taken_over, LEASE_MS / 1000 + DEADLINE_S)
        await nodes.left(epoch)
        written = await nodes.written_by(epoch)
        nodes.first.process.send_signal(signal.SIGCONT)

        async def back() -> bool:
            return (await epochs(database_url)).get(nodes.first.grpc, 0) > epoch

        await until(back, DEADLINE_S)
        async with Client(nodes.first.grpc) as client:
            more = await nodes.held.start(client, 1)

        await ran_once(nodes.held, nodes.ids + more, database_url)
        assert await nodes.written_by(epoch) <= written
        owned = "SELECT count(*) FROM task_queue WHERE owner_epoch = $1"
        assert await nodes.conn.fetchval(owned, epoch) == 0


async def test_a_handler_and_every_stream_outlive_a_postgres_that_goes_away(
    own_postgres: EmbeddedPostgres,
) -> None:
    held = Held()
    with Maestoso("serve", "--database-url", own_postgres.url).ready() as node:
        async with (
            Client(node.grpc, patience=0) as client,
            Worker(node.grpc, [held.handler()], grace=1),
            calling(node.grpc) as caller,
            caller.worker("after") as stream,
        ):
            await caller.register(chain("after", name="after"))
            ids = await held.start(client, COUNT)
            own_postgres.stop()
            assert (await stream.frame("move")).move.reason == wire.MOVE_REASON_DEGRADED
            with pytest.raises(Unavailable) as refused:
                await client.start("held")
            assert refused.value.retry_after
            held.go.set()  # the results are answered UNAVAILABLE, kept, and sent again
            own_postgres.start()

            await ran_once(held, ids, own_postgres.url)
            workflow_id = await caller.start("after")
            assert (await stream.task()).workflow_id == workflow_id


async def test_a_handler_outlives_a_connection_that_is_cut_or_falls_silent(database_url: str) -> None:
    held = Held()
    async with (
        behind_a_proxy(database_url) as (proxy, server),
        Client(server.grpc_address) as client,
        Worker(proxy.address, [held.handler()], grace=1),
    ):
        ids = await held.start(client, COUNT)
        for strike in (proxy.cut, proxy.mute):
            strike()
            ids += await held.start(client, 1)

        await ran_once(held, ids, database_url)
