"""A fork of 10,000 branches over four nodes joins exactly."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from maestoso import Client, Worker, worker
from maestoso_server.clock import SystemClock
from maestoso_server.config import Config
from maestoso_server.server import Server

BRANCHES = 10_000
NODES = 4
DEADLINE_S = 100.0

WIDE = {
    "name": "wide",
    "version": 1,
    "schemaVersion": 2,
    "tasks": [
        {
            "name": "fork",
            "taskReferenceName": "fork",
            "type": "FORK_JOIN_DYNAMIC",
            "inputParameters": {
                "forkTaskName": "branch",
                "forkTaskType": "SIMPLE",
                "forkTaskInputs": "${workflow.input.branches}",
            },
        },
        {"name": "join", "taskReferenceName": "join", "type": "JOIN"},
    ],
}


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_10000_branches_complete_on_four_nodes(database_url: str) -> None:
    ran: dict[int, int] = {}

    @worker("branch")
    async def branch(number: int) -> dict[str, int]:
        ran[number] = ran.get(number, 0) + 1
        return {"square": number * number}

    async with asyncio.timeout(DEADLINE_S), contextlib.AsyncExitStack() as stack:
        nodes = [
            Server(
                Config(
                    database_url=database_url,
                    grpc_address="127.0.0.1:0",
                    http_address="127.0.0.1:0",
                    node_id=f"node-{number}",
                ),
                clock=SystemClock(),
            )
            for number in range(NODES)
        ]
        for node in nodes:
            await node.start()
            stack.push_async_callback(node.stop)
        client = await stack.enter_async_context(Client(nodes[0].grpc_address))
        await client.register_workflows([WIDE])
        await stack.enter_async_context(Worker(nodes[1].grpc_address, [branch], concurrency=400))
        inputs = [{"number": number} for number in range(BRANCHES)]
        done = await client.wait(await client.start("wide", {"branches": inputs}))

        assert done.status == 3, done.reason
        joined = (await client.get(done.workflow_id, tasks=False)).output
        assert joined.count(b'"square"') == BRANCHES
    assert len(ran) == BRANCHES
    assert set(ran.values()) == {1}
