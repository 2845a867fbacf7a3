"""Terminate while 1,000 children of a fork run, or are being started: none of them is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from cluster_kit import until_stored
from maestoso import Client
from maestoso.workflow.v1 import workflow_pb2
from maestoso_server.clock import SystemClock
from maestoso_server.config import Config
from maestoso_server.server import Server

CHILDREN = 1_000
GONE_WITHIN_S = 5.0

CHILD = {
    "name": "branch_child",
    "version": 1,
    "schemaVersion": 2,
    "tasks": [{"name": "forever", "taskReferenceName": "forever", "type": "SIMPLE"}],
}
PARENT = {
    "name": "many",
    "version": 1,
    "schemaVersion": 2,
    "tasks": [
        {
            "name": "fork",
            "taskReferenceName": "fork",
            "type": "FORK_JOIN_DYNAMIC",
            "inputParameters": {
                "forkTaskWorkflow": "branch_child",
                "forkTaskInputs": "${workflow.input.branches}",
            },
        },
        {"name": "join", "taskReferenceName": "join", "type": "JOIN"},
    ],
}


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with contextlib.AsyncExitStack() as stack:
        config = Config(database_url=database_url, grpc_address="127.0.0.1:0", http_address="127.0.0.1:0")
        server = Server(config, clock=SystemClock())
        await server.start()
        stack.push_async_callback(server.stop)
        yield await stack.enter_async_context(Client(server.grpc_address))


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("started", [1, CHILDREN // 2, CHILDREN], ids=["first", "half", "all"])
async def test_no_running_descendant_is_left(client: Client, database_url: str, started: int) -> None:
    async with asyncio.timeout(90):
        await client.register_workflows([CHILD, PARENT])
        workflow = await client.start("many", {"branches": [{"n": number} for number in range(CHILDREN)]})
        await until_stored(database_url, "SELECT count(*) > $1 FROM workflow WHERE status = 1", started)
        await client.terminate(workflow, "enough")
        # Nothing runs, and no message is left that could start one.
        await until_stored(
            database_url,
            """SELECT NOT EXISTS (SELECT FROM workflow WHERE status < 3) AND NOT EXISTS (SELECT FROM inbox)
              AND NOT EXISTS (SELECT FROM task WHERE status < 3)""",
            deadline_s=GONE_WITHIN_S,
        )
        ended = await client.get(workflow)
        assert ended.status == workflow_pb2.WORKFLOW_STATUS_TERMINATED
