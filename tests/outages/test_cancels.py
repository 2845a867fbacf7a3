"""Handlers whose task is over are told, and workers that do not answer are given up before their tasks
go to others."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import grpc
import pytest

from maestoso import Client, Worker
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso_server.clock import ManualClock, SystemClock
from maestoso_server.config import Config
from maestoso_server.dispatch.proof import CLOSE_AFTER_MS
from maestoso_server.server import Server
from maestoso_server.store.nodes import TIME_TO_LIVE_MS
from outage_kit import Held, ran_once
from servers import serving
from worker_kit import DEADLINE_S, calling, chain, eventually, hello_of

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["the same node", "another node"])
async def test_a_terminated_workflow_stops_its_handler_and_frees_its_place(
    server_config: Config, database_url: str, elsewhere: bool
) -> None:
    held = Held()
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(serving(server_config, SystemClock()))
        other = await stack.enter_async_context(serving(server_config, SystemClock())) if elsewhere else node
        here = await stack.enter_async_context(Client(node.grpc_address))
        there = await stack.enter_async_context(Client(other.grpc_address))
        await stack.enter_async_context(Worker(node.grpc_address, [held.handler()], concurrency=1, grace=1))
        (workflow_id,) = await held.start(here, 1)

        await there.terminate(workflow_id, "enough")

        (after,) = await held.start(here, 1)  # there is one place: it is free again
        assert held.stopped == [workflow_id]
        held.stopped.clear()
        del held.runs[workflow_id]
        await ran_once(held, [after], database_url)


async def test_a_worker_that_never_answers_a_ping_is_closed_and_only_then_its_task_goes_elsewhere(
    server: Server, manual_clock: ManualClock, database_url: str
) -> None:
    conn = await asyncpg.connect(database_url)
    try:
        async with calling(server.grpc_address) as caller:
            await caller.register(chain("one"), {"name": "one", "retryCount": 0})
            deaf = caller.tasks.Connect()
            await deaf.write(wire.ConnectRequest(hello=hello_of("one", worker_id="deaf")))
            await deaf.read()  # Welcome
            workflow_id = await caller.start()
            frame = await deaf.read()
            while frame.WhichOneof("frame") != "tasks":
                frame = await deaf.read()
            (task,) = frame.tasks.tasks
            async with caller.worker("one", worker_id="healthy") as healthy:
                closed = asyncio.ensure_future(read_to_the_end(deaf))
                began_ms = manual_clock.now_ms()
                while not closed.done():
                    assert await delivered_to(conn) == "deaf"
                    await advance(manual_clock, conn)
                assert await deaf.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert manual_clock.now_ms() - began_ms >= CLOSE_AFTER_MS

                closed_ms = manual_clock.now_ms()
                while await delivered_to(conn) != "healthy":
                    await advance(manual_clock, conn)
                assert manual_clock.now_ms() - closed_ms >= TIME_TO_LIVE_MS - 1_000
                again = await healthy.task()
                assert (again.task_id, again.attempt, again.redelivery) == (task.task_id, 0, 1)
                await healthy.finish(again)

            async def status() -> str:
                return await caller.status(workflow_id)

            await eventually(status, "WORKFLOW_STATUS_COMPLETED")
    finally:
        await conn.close()


async def read_to_the_end(call: Any) -> None:
    """Reads, and says nothing."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError:
        pass


async def delivered_to(conn: Any) -> str | None:
    """The worker that the one open task was handed to; None while it waits."""
    query = "SELECT s.worker_id FROM task_queue q LEFT JOIN session s USING (session_id)"
    async with asyncio.timeout(DEADLINE_S):
        worker_id: str | None = await conn.fetchval(query)
    return worker_id


async def advance(clock: ManualClock, conn: Any) -> None:
    """100 ms, and the time that the statements of the node take."""
    clock.advance(100)
    for _ in range(10):
        await conn.fetchval("SELECT 1")
