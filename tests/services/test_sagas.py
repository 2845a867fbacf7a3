"""TRY and compensation over the whole server: what workers and operators see of a saga."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from maestoso import BusinessError, Worker, worker
from maestoso.task.v1 import task_pb2
from maestoso.task.v1.task_pb2 import Failure, TaskResult
from maestoso.workflow.v1 import workflow_service_pb2 as wire
from maestoso_server.clock import SystemClock
from maestoso_server.config import Config
from servers import serving
from worker_kit import DEADLINE_S, Caller, calling, eventually

COMPLETED = "WORKFLOW_STATUS_COMPLETED"


@pytest.fixture
async def address(database_url: str) -> AsyncIterator[str]:
    config = Config(database_url=database_url, grpc_address="127.0.0.1:0", http_address="127.0.0.1:0")
    async with serving(config, SystemClock()) as server:
        yield server.grpc_address


@pytest.fixture
async def caller(address: str) -> AsyncIterator[Caller]:
    async with calling(address) as found:
        yield found


def simple(reference: str, **fields: Any) -> dict[str, Any]:
    return {"name": reference, "taskReferenceName": reference, "type": "SIMPLE", "retryCount": 0, **fields}


def flow(*tasks: dict[str, Any], name: str = "flow") -> dict[str, Any]:
    return {"name": name, "version": 1, "schemaVersion": 2, "tasks": list(tasks)}


def guarded(*body: dict[str, Any], catch: str, then: str) -> dict[str, Any]:
    case = {"errorNames": [catch], "tasks": [simple(then, inputParameters={"e": "${guard.output.error}"})]}
    return {
        "name": "guard",
        "taskReferenceName": "guard",
        "type": "TRY",
        "tryTasks": list(body),
        "catchCases": [case],
        "finallyTasks": [simple("always")],
    }


def booking(reference: str) -> dict[str, Any]:
    undo = simple(f"undo_{reference}", inputParameters={"id": "${" + reference + ".output.id}"})
    return simple(reference, compensate=[undo])


async def statuses(caller: Caller, workflow_id: str) -> dict[str, str]:
    found = await caller.get(workflow_id)
    return {
        task.reference: task_pb2.TaskStatus.Name(task.status).removeprefix("TASK_STATUS_")
        for task in found.tasks
    }


@pytest.mark.parametrize("inside_a_child", [False, True])
async def test_a_workers_business_error_is_caught_by_its_name(
    address: str, caller: Caller, inside_a_child: bool
) -> None:
    seen: list[Any] = []

    @worker("charge")
    async def charge() -> None:
        raise BusinessError("CardDeclined", "the bank says no")

    @worker("ask_again")
    async def ask_again(given: dict[str, Any]) -> dict[str, Any]:
        seen.append(given["e"])
        return {"asked": True}

    @worker("always")
    async def always() -> None:
        seen.append("finally")

    body = simple("charge")
    if inside_a_child:
        await caller.register(flow(body, name="child"))
        body = {
            "name": "sub",
            "taskReferenceName": "sub",
            "type": "SUB_WORKFLOW",
            "subWorkflowParam": {"name": "child"},
        }
    await caller.register(flow(guarded(body, catch="CardDeclined", then="ask_again")))
    workflow_id = await caller.start("flow")
    async with Worker(address, [charge, ask_again, always]):
        await eventually(lambda: caller.status(workflow_id), COMPLETED)

    failed = "sub" if inside_a_child else "charge"
    assert (seen[0]["name"], seen[0]["reference"], seen[1]) == ("CardDeclined", failed, "finally")
    found = {task.reference: task for task in (await caller.get(workflow_id)).tasks}
    assert found[failed].error_name == "CardDeclined"
    assert (await statuses(caller, workflow_id))["guard"] == "COMPLETED"


async def test_an_error_of_another_name_is_not_caught(caller: Caller) -> None:
    await caller.register(flow(guarded(simple("charge"), catch="CardDeclined", then="ask_again")))
    workflow_id = await caller.start("flow")
    async with caller.worker("charge", "always") as stream:
        task = await stream.task()
        await stream.report(
            TaskResult(token=task.token, failure=Failure(message="no", error_name="BankClosed"))
        )
        await stream.finish(await stream.task())
    await eventually(lambda: caller.status(workflow_id), "WORKFLOW_STATUS_FAILED")

    assert await statuses(caller, workflow_id) == {
        "guard": "FAILED",
        "charge": "FAILED",
        "always": "COMPLETED",
    }


async def test_what_completed_is_compensated_in_reverse_order(caller: Caller) -> None:
    await caller.register(flow(booking("flight"), booking("hotel"), simple("pay")))
    workflow_id = await caller.start("flow")
    undone = []
    async with caller.worker("flight", "hotel", "pay", "undo_flight", "undo_hotel") as stream:
        for name in ("flight", "hotel"):
            await stream.finish(await stream.task(), f'{{"id":"{name}-1"}}'.encode())
        task = await stream.task()
        await stream.report(TaskResult(token=task.token, failure=Failure(message="no money")))
        for _ in range(2):
            task = await stream.task()
            assert await caller.status(workflow_id) == "WORKFLOW_STATUS_RUNNING"
            undone.append((task.task_type, task.input))
            await stream.finish(task)
    await eventually(lambda: caller.status(workflow_id), "WORKFLOW_STATUS_FAILED")

    assert undone == [("undo_hotel", b'{"id":"hotel-1"}'), ("undo_flight", b'{"id":"flight-1"}')]
    found = await caller.get(workflow_id)
    assert "no money" in found.reason
    assert found.failed_task_id == {task.reference: task.task_id for task in found.tasks}["pay"]


@pytest.mark.parametrize("compensate", [False, True])
async def test_an_operators_terminate_compensates_where_it_says_so(caller: Caller, compensate: bool) -> None:
    await caller.register(flow(booking("flight"), simple("pay")))
    workflow_id = await caller.start("flow")
    async with caller.worker("flight", "undo_flight") as stream:
        await stream.finish(await stream.task(), b'{"id":"1"}')
        request = wire.TerminateWorkflowRequest(
            workflow_id=workflow_id, reason="enough", compensate=compensate
        )
        await caller.workflows.TerminateWorkflow(request, timeout=DEADLINE_S)
        if compensate:
            await stream.finish(await stream.task())
    await eventually(lambda: caller.status(workflow_id), "WORKFLOW_STATUS_TERMINATED")

    found = await statuses(caller, workflow_id)
    assert found.get("undo_flight") == ("COMPLETED" if compensate else None)
    assert found["pay"] == "CANCELED"
    assert (await caller.get(workflow_id)).reason == "enough"
