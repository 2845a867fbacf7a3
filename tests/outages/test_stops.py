"""Servers and workers that are stopped while others go on: they are left in order, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import asyncpg
import grpc
import pytest

from e2e.processes import Maestoso, environment
from maestoso import Client, Worker
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso_server.clock import SystemClock
from maestoso_server.config import Config
from maestoso_server.server import Server
from outage_kit import Held, Load, loaded, more_than, ran_once, until
from servers import serving
from worker_kit import DEADLINE_S, Caller, calling, chain, hello_of

pytestmark = pytest.mark.timeout(60)

DRAIN_MS = 8_000
"""More than a worker needs to leave, and so long that a stop which waited for it would be seen."""
PROMPT_S = 4.0

WORKER = """
import sys
from maestoso import Worker, worker

@worker("hold")
async def hold():
    print("began", flush=True)
    await sys.modules["asyncio"].to_thread(sys.stdin.readline)
    return {"done": True}

Worker(sys.argv[1], [hold], concurrency=1).run_until_stopped()
"""


@contextlib.asynccontextmanager
async def nodes(database_url: str, count: int) -> AsyncIterator[tuple[list[Server], list[Caller]]]:
    """Nodes in this process, each with a caller."""
    configs = [
        Config(
            database_url=database_url,
            grpc_address="127.0.0.1:0",
            http_address="127.0.0.1:0",
            node_id=f"node-{number}",
            drain_ms=DRAIN_MS,
        )
        for number in range(count)
    ]
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(config, SystemClock())) for config in configs]
        callers = [await stack.enter_async_context(calling(server.grpc_address)) for server in servers]
        yield servers, callers


async def knows(caller: Caller, count: int) -> None:
    """Until this node knows of so many nodes, itself included."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            async with caller.worker("unused") as stream:
                if len(stream.welcome.nodes) == count:
                    return


async def test_a_server_that_is_stopped_under_load_loses_and_burns_nothing(database_url: str) -> None:
    load = Load()
    with (
        Maestoso("serve", "--database-url", database_url).ready() as first,
        Maestoso("serve", "--database-url", database_url).ready() as second,
    ):
        async with loaded(load, [first, second], database_url):
            async with asyncio.timeout(PROMPT_S):
                assert await asyncio.to_thread(first.signal, signal.SIGTERM) == 0
            seen = len(load.acknowledged)
            await until(lambda: more_than(load, seen + 50))


async def test_a_stopping_server_tells_its_workers_where_to_go_and_takes_no_new_ones(
    database_url: str,
) -> None:
    async with nodes(database_url, 2) as ((first, second), (here, there)):
        await knows(here, 2)
        await here.register(chain("one"))
        async with here.worker("one") as worker:
            workflow_id = await here.start()
            task = await worker.task()
            stop = asyncio.create_task(first.stop())

            move = (await worker.frame("move")).move
            assert (move.reason, list(move.nodes)) == (wire.MOVE_REASON_STOPPING, [second.grpc_address])
            late = here.tasks.Connect()
            await late.write(wire.ConnectRequest(hello=hello_of("one")))
            async with asyncio.timeout(DEADLINE_S):
                assert await late.code() is grpc.StatusCode.UNAVAILABLE
            assert not stop.done()

            async with there.worker(
                "one",
                held=[task.token],
                stream_number=2,
                session_id=worker.welcome.session_id,
                resume_token=worker.welcome.resume_token,
            ) as moved:
                assert list(moved.welcome.kept) == [task.token]
                async with asyncio.timeout(PROMPT_S):
                    await stop
                await moved.finish(task)
        assert await there.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"


async def test_idle_workers_do_not_return_to_a_server_that_stops(database_url: str) -> None:
    held = Held()
    async with nodes(database_url, 2) as ((first, second), (here, _)):
        await knows(here, 2)
        async with (
            Client(second.grpc_address) as client,
            Worker([first.grpc_address, second.grpc_address], [held.handler()], grace=1),
        ):
            async with asyncio.timeout(PROMPT_S):
                await first.stop()

            await ran_once(held, await held.start(client, 3), database_url)


async def test_a_drained_node_takes_no_workers_and_goes_on_serving(database_url: str) -> None:
    async with nodes(database_url, 2) as ((first, _), (here, there)):
        await knows(here, 2)
        await here.register(chain("one"))
        async with Client(first.grpc_address) as client, here.worker("one") as worker:
            await client.drain_node(first.config.node_id)
            await worker.frame("move")

            late = here.tasks.Connect()
            await late.write(wire.ConnectRequest(hello=hello_of("one")))
            async with asyncio.timeout(DEADLINE_S):
                assert await late.code() is grpc.StatusCode.UNAVAILABLE
            workflow_id = await here.start()
            async with there.worker("one") as elsewhere:
                assert (await elsewhere.task()).workflow_id == workflow_id


async def test_workers_that_are_stopped_under_load_hand_back_what_they_have_not_started(
    database_url: str,
) -> None:
    load = Load()
    with Maestoso("serve", "--database-url", database_url).ready() as node:
        async with loaded(load, [node], database_url):
            for _ in range(5):
                wanted = len(load.acknowledged) + 10
                async with Worker(node.grpc, load.handlers(), concurrency=4):
                    await until(partial(more_than, load, wanted))


async def test_what_a_stopping_worker_has_begun_is_acknowledged_before_it_is_gone(
    live_server: Server, database_url: str
) -> None:
    held = Held()
    conn = await asyncpg.connect(database_url)
    async with Client(live_server.grpc_address) as client:
        worker = Worker(live_server.grpc_address, [held.handler()], concurrency=4)
        async with worker:
            ids = await held.start(client, 4)
            waiting = await client.start("held")
            worker.stop()
            held.go.set()

        completed = await conn.fetch("SELECT id FROM workflow WHERE status = 3")
        assert {str(row["id"]) for row in completed} == set(ids)
        async with Worker(live_server.grpc_address, [held.handler()]):
            await ran_once(held, [*ids, waiting], database_url)
    await conn.close()


async def test_a_worker_process_that_is_terminated_ends_its_task_first(live_server: Server) -> None:
    task = {"name": "hold", "taskReferenceName": "hold", "type": "SIMPLE"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WORKER,
        live_server.grpc_address,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        async with Client(live_server.grpc_address) as client, asyncio.timeout(DEADLINE_S):
            await client.register_tasks([{"name": "hold", "retryCount": 0}])
            await client.register_workflows([{"name": "held", "version": 1, "tasks": [task]}])
            begun, waiting = await client.start("held"), await client.start("held")
            await process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            process.stdin.write(b"\n")

            assert await process.wait() == 0
            ended = {workflow_id: (await client.get(workflow_id)).status for workflow_id in (begun, waiting)}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert sorted(ended.values()) == [1, 3]
