"""Idempotency keys of SUB_WORKFLOW and START_WORKFLOW over the wire; what operators do to followers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from maestoso import AlreadyExists, Client
from maestoso.workflow.v1 import workflow_pb2
from maestoso.workflow.v1 import workflow_service_pb2 as wire
from maestoso_server.engine import events
from maestoso_server.engine.state import TaskStatus
from maestoso_server.payload import Json
from services_kit import DEADLINE_S, Served, refused, serve


def sub(strategy: str) -> dict[str, Any]:
    return {
        "name": "sub",
        "taskReferenceName": "sub",
        "type": "SUB_WORKFLOW",
        "subWorkflowParam": {
            "name": "bill",
            "idempotencyKey": "bill-${workflow.input.order}",
            "idempotencyStrategy": strategy,
        },
        "inputParameters": {"order": "${workflow.input.order}"},
    }


def starting(strategy: str) -> dict[str, Any]:
    request = {
        "name": "bill",
        "idempotencyKey": "bill-${workflow.input.order}",
        "idempotencyStrategy": strategy,
        "input": {"order": "${workflow.input.order}"},
    }
    return {
        "name": "start",
        "taskReferenceName": "start",
        "type": "START_WORKFLOW",
        "inputParameters": {"startWorkflow": request},
    }


def definition(name: str, *tasks: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": 1, "tasks": list(tasks)}


BILL = definition("bill", {"name": "ask", "taskReferenceName": "ask", "type": "HUMAN", "inputParameters": {}})


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(database_url) as served:
        await served.register(
            BILL,
            definition("order", sub("RETURN_EXISTING")),
            definition("strict", sub("FAIL")),
            definition("order_later", starting("RETURN_EXISTING")),
        )
        yield served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    async with asyncio.timeout(30), Client(f"127.0.0.1:{served.port}") as client:
        yield client


async def start(served: Served, name: str, order: int = 1, **fields: Any) -> workflow_pb2.Workflow:
    workflow_id = await served.start(name, input=json.dumps({"order": order}).encode(), **fields)
    await served.executor.idle()
    return await served.get(workflow_id, include_tasks=True, include_payloads=True)


async def again(served: Served, workflow: workflow_pb2.Workflow) -> workflow_pb2.Workflow:
    await served.executor.idle()
    return await served.get(workflow.workflow_id, include_tasks=True, include_payloads=True)


async def answer(served: Served, workflow_id: str) -> None:
    event = events.Result(
        now_ms=served.clock.now_ms(), seq=1, status=TaskStatus.COMPLETED, output=Json.of({"paid": True})
    )
    await served.happen(workflow_id, event)


async def test_two_orders_share_one_bill(served: Served) -> None:
    first, second = await start(served, "order"), await start(served, "order")
    other = await start(served, "order", 2)
    bill = first.tasks[0].child_workflow_id
    assert second.tasks[0].child_workflow_id == bill != other.tasks[0].child_workflow_id
    assert (await served.get(bill)).parent_workflow_id == first.workflow_id
    assert (await served.get(bill)).idempotency_key == "bill-1"
    await answer(served, bill)
    for order in (first, second):
        ended = await again(served, order)
        assert ended.status == workflow_pb2.WORKFLOW_STATUS_COMPLETED
        assert json.loads(ended.output) == {"paid": True, "subWorkflowId": bill}
    assert (await again(served, other)).status == workflow_pb2.WORKFLOW_STATUS_RUNNING


async def test_a_key_is_one_for_callers_children_and_started_ones(served: Served, client: Client) -> None:
    bill = await client.start("bill", {}, idempotency_key="bill-1")
    later = await start(served, "order_later")
    assert json.loads(later.output) == {"workflowId": bill}
    strict = await start(served, "strict")
    assert strict.status == workflow_pb2.WORKFLOW_STATUS_FAILED
    assert strict.tasks[0].reason == f"idempotency key 'bill-1' was used by workflow {bill}"
    own = (await start(served, "order", 2)).tasks[0].child_workflow_id
    with pytest.raises(AlreadyExists, match=own):
        await client.start("bill", {}, idempotency_key="bill-2")


async def test_a_signal_does_not_go_down_to_a_workflow_that_is_only_followed(served: Served) -> None:
    first, second = await start(served, "order"), await start(served, "order")
    bill = first.tasks[0].child_workflow_id
    request = wire.SignalWorkflowRequest(workflow_id=second.workflow_id)
    code, _ = await refused(served.workflows.SignalWorkflow(request, timeout=DEADLINE_S))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert (await served.get(bill)).status == workflow_pb2.WORKFLOW_STATUS_RUNNING
    await served.workflows.SignalWorkflow(
        wire.SignalWorkflowRequest(workflow_id=first.workflow_id), timeout=DEADLINE_S
    )
    assert (await again(served, second)).status == workflow_pb2.WORKFLOW_STATUS_COMPLETED


async def test_a_removal_leaves_the_followed_workflow_and_one_of_its_owner_tells_its_followers(
    served: Served, client: Client
) -> None:
    first, second = await start(served, "order"), await start(served, "order")
    third = await start(served, "order")
    bill = first.tasks[0].child_workflow_id
    assert await client.remove(second.workflow_id, terminate=True, recursive=True) == 1
    assert (await served.get(bill)).status == workflow_pb2.WORKFLOW_STATUS_RUNNING
    assert await client.remove(first.workflow_id, terminate=True, recursive=True) == 2
    ended = await again(served, third)
    assert ended.status == workflow_pb2.WORKFLOW_STATUS_TERMINATED
    anew = await start(served, "order")
    assert anew.tasks[0].child_workflow_id not in ("", bill)  # the key went with the workflow
