"""The README's upgrade, bulk operation and test with mocks, run as they are written there."""

from __future__ import annotations

import ast
import types
from pathlib import Path
from typing import Any

import pytest

from maestoso import Client, Mock
from maestoso.task.v1.task_pb2 import TASK_STATUS_FAILED
from maestoso.workflow.v1.bulk_pb2 import BULK_ITEM_STATE_FAILED
from maestoso.workflow.v1.workflow_pb2 import WORKFLOW_STATUS_RUNNING
from maestoso_server.server import Server

README = Path(__file__).parents[2] / "README.md"


def task(reference: str, **more: Any) -> dict[str, Any]:
    return {"name": reference, "taskReferenceName": reference, "type": "SIMPLE", **more}


def order(version: int, *tasks: dict[str, Any]) -> dict[str, Any]:
    return {"name": "order", "version": version, "schemaVersion": 2, "tasks": list(tasks)}


FIRST = order(1, task("charge", retryCount=1), task("ship"))
LONGER = order(2, task("check"), task("charge", retryCount=1), task("pack"), task("ship"))


async def run_written(name: str, **names: Any) -> dict[str, Any]:
    """Run one of the README's examples; its names afterwards."""
    text = README.read_text().split(f"```python {name}\n")[1].split("```")[0]
    code = compile(text, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await types.FunctionType(code, names)()
    return names


async def test_an_upgrade(live_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    async with Client(live_server.grpc_address) as client:
        await client.register_workflows([FIRST, LONGER])
        workflow_id = await client.start("order", version=1)

        await run_written("upgrade", client=client, workflow_id=workflow_id)

        assert (await client.get(workflow_id)).version == 2
    assert capsys.readouterr().out.startswith("check is new, and lies behind the point")


async def test_an_upgrade_that_does_not_fit(live_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    async with Client(live_server.grpc_address) as client:
        await client.register_workflows([FIRST, order(2, task("ship"))])
        workflow_id = await client.start("order", version=1)

        await run_written("upgrade", client=client, workflow_id=workflow_id)

        assert (await client.get(workflow_id)).version == 1
    assert capsys.readouterr().out.startswith("charge has an open task")


async def test_a_bulk_operation(live_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    async with Client(live_server.grpc_address) as client:
        await client.register_workflows([order(1, task("charge", retryCount=0))])
        ids = [await client.start("order") for _ in range(3)]
        for workflow_id in ids[:2]:
            await client.update_task(workflow_id, "charge", status=TASK_STATUS_FAILED, reason="busy")

        await run_written("bulk", client=client, BULK_ITEM_STATE_FAILED=BULK_ITEM_STATE_FAILED)

        found = [await client.get(workflow_id) for workflow_id in ids]
    assert capsys.readouterr().out == "2 of 2\n"
    assert [(one.status, len(one.tasks)) for one in found] == [
        (WORKFLOW_STATUS_RUNNING, 2),
        (WORKFLOW_STATUS_RUNNING, 2),
        (WORKFLOW_STATUS_RUNNING, 1),
    ]


async def test_mocks(live_server: Server) -> None:
    async with Client(live_server.grpc_address) as client:
        names = await run_written("mocks", client=client, order=FIRST, Mock=Mock)

    assert names["found"].workflow.status == WORKFLOW_STATUS_RUNNING
