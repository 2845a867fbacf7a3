"""`rateLimitConfig`: running workflows of one definition and key, over two nodes."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from limits.conftest import Nodes
from maestoso.task.v1.task_pb2 import TaskResult
from maestoso.workflow.v1 import workflow_service_pb2 as wire
from services_kit import detail
from worker_kit import DEADLINE_S, Caller, chain


def limited(slots: int, policy: str = "QUEUE", key: str = "", **more: Any) -> dict[str, Any]:
    config = {"rateLimitKey": key, "concurrentExecLimit": slots, "policy": policy}
    return {**chain("pay"), "rateLimitConfig": config, **more}


async def tasks_of(caller: Caller, workflow_id: str) -> int:
    return len((await caller.get(workflow_id)).tasks)


async def finish_one(caller: Caller) -> str:
    (task,) = await caller.poll("pay", wait_s=5)
    await caller.report(TaskResult(token=task.token, output=b"{}"))
    return task.workflow_id


async def test_those_without_a_slot_begin_in_order_when_one_is_free(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(limited(2))
    first, second = await nodes.start(here), await nodes.start(there)
    third = await nodes.start(there)
    urgent = await nodes.start(here, priority=9)
    await nodes.until(lambda: nodes.value("SELECT count(*) FROM task_queue"), 2)

    assert await here.status(third) == "WORKFLOW_STATUS_RUNNING"
    assert (await tasks_of(here, third), await tasks_of(there, urgent)) == (0, 0)
    explanation = await nodes.explain(there, third)
    assert "2 of 2 are taken" in explanation.summary
    assert "1 others wait before it" in explanation.summary

    begun = await there.poll("pay", count=2)
    assert {task.workflow_id for task in begun} == {first, second}
    order = []
    for task in begun:  # each end lets the next one begin
        await there.report(TaskResult(token=task.token, output=b"{}"))
        (following,) = await there.poll("pay", wait_s=5)
        order.append(following)
    assert [task.workflow_id for task in order] == [urgent, third]
    await there.report(*(TaskResult(token=task.token, output=b"{}") for task in order))
    await nodes.until(lambda: nodes.value("SELECT count(*) FROM workflow WHERE status = 3"), 4)
    assert await nodes.value("SELECT count(*) FROM workflow_slot") == 0
    await nodes.until(lambda: nodes.value("SELECT count(*) FROM slot_work"), 0)


async def test_keys_are_texts_with_expressions(nodes: Nodes) -> None:
    here = await nodes.node()
    await here.register(limited(1, key="${workflow.input.tenant}-${workflow.correlationId}"))
    a = await nodes.start(here, input=b'{"tenant":"a"}', correlation_id="c")
    b = await nodes.start(here, input=b'{"tenant":"b"}', correlation_id="c")
    waits = await nodes.start(here, input=b'{"tenant":"a"}', correlation_id="c")
    await nodes.until(lambda: nodes.value("SELECT count(*) FROM task_queue"), 2)

    keys = await nodes.conn.fetch("SELECT key, holds FROM workflow_slot ORDER BY arrived_ms")
    assert [tuple(row) for row in keys] == [("a-c", True), ("b-c", True), ("a-c", False)]
    assert [await tasks_of(here, one) for one in (a, b, waits)] == [1, 1, 0]


async def test_reject_refuses_and_stores_nothing(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(limited(1, "REJECT"))
    first = await nodes.start(here)

    with pytest.raises(grpc.aio.AioRpcError) as seen:
        await nodes.start(there)
    assert seen.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "set rateLimitConfig.policy to QUEUE" in detail(seen.value).message
    assert await nodes.value("SELECT count(*) FROM workflow") == 1

    assert await finish_one(here) == first
    assert await nodes.start(there)


async def test_races_of_two_nodes_never_go_over(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(limited(3, "REJECT"))
    tries = [caller.start() for caller in (here, there) for _ in range(10)]
    ends = await asyncio.gather(*tries, return_exceptions=True)

    assert sum(isinstance(end, str) for end in ends) == 3
    assert await nodes.value("SELECT count(*) FROM workflow") == 3


async def test_terminate_of_one_that_waits_or_runs_gives_the_place_on(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(limited(1))
    running, waiting, last = [await nodes.start(here) for _ in range(3)]
    await nodes.until(lambda: nodes.value("SELECT count(*) FROM task_queue"), 1)

    await there.terminate(waiting)
    assert await there.status(waiting) == "WORKFLOW_STATUS_TERMINATED"
    await there.terminate(running)
    await nodes.until(lambda: tasks_of(here, last), 1)
    assert await tasks_of(here, waiting) == 0


async def test_one_that_waits_may_be_paused_and_begins_when_resumed(nodes: Nodes) -> None:
    here = await nodes.node()
    await here.register(limited(1))
    await nodes.start(here)
    second = await nodes.start(here)
    await here.workflows.PauseWorkflow(wire.PauseWorkflowRequest(workflow_id=second), timeout=DEADLINE_S)
    await finish_one(here)
    await nodes.until(lambda: nodes.value("SELECT count(*) FROM workflow_slot WHERE holds"), 1)
    await nodes.until(lambda: nodes.value("SELECT count(*) FROM inbox"), 0)
    assert await tasks_of(here, second) == 0

    await here.workflows.ResumeWorkflow(wire.ResumeWorkflowRequest(workflow_id=second), timeout=DEADLINE_S)
    assert await finish_one(here) == second


async def test_the_time_out_runs_from_the_beginning(nodes: Nodes) -> None:
    here = await nodes.node()
    await here.register(limited(1, timeoutSeconds=60, timeoutPolicy="TIME_OUT_WF"))
    first, second = await nodes.start(here), await nodes.start(here)
    await nodes.advance(30_000)
    await finish_one(here)
    await nodes.until(lambda: tasks_of(here, second), 1)
    await nodes.advance(59_000)
    assert await here.status(second) == "WORKFLOW_STATUS_RUNNING"

    await nodes.advance_until(lambda: here.status(second), "WORKFLOW_STATUS_TIMED_OUT")
    assert await here.status(first) == "WORKFLOW_STATUS_COMPLETED"


async def test_a_retried_workflow_takes_a_slot_without_waiting_and_new_ones_wait_for_it(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(limited(1), {"name": "pay", "retryCount": 0})
    failed = await nodes.start(here)
    (task,) = await here.poll("pay", wait_s=5)
    await here.report(TaskResult(token=task.token, failure={"message": "no"}))
    await nodes.until(lambda: here.status(failed), "WORKFLOW_STATUS_FAILED")
    running = await nodes.start(here)
    await nodes.until(lambda: tasks_of(here, running), 1)

    await there.workflows.RetryWorkflow(wire.RetryWorkflowRequest(workflow_id=failed), timeout=DEADLINE_S)
    waits = await nodes.start(here)
    assert await nodes.value("SELECT count(*) FROM workflow_slot WHERE holds") == 2
    await finish_one(here)
    await nodes.rest()
    assert await tasks_of(here, waits) == 0
    await finish_one(here)
    await nodes.until(lambda: tasks_of(here, waits), 1)


async def test_a_dead_node_s_word_is_found_by_another(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(limited(1))
    first, second = await nodes.start(here), await nodes.start(here)
    await nodes.until(lambda: nodes.value("SELECT count(*) FROM slot_work"), 0)
    # What a node leaves that died right after its commit.
    await nodes.conn.execute("DELETE FROM workflow_slot WHERE holds")
    await nodes.conn.execute("INSERT INTO slot_work (namespace, name, key) VALUES ('default', 'chain', '')")

    await nodes.advance_until(lambda: tasks_of(there, second), 1)
    assert await tasks_of(there, first) == 1


@pytest.mark.parametrize("policy", ["QUEUE", "REJECT"])
async def test_a_child_waits_or_fails_its_task(nodes: Nodes, policy: str) -> None:
    here = await nodes.node()
    await here.register({**limited(1, policy), "name": "child"})
    child = {"name": "sub", "taskReferenceName": "sub", "type": "SUB_WORKFLOW"}
    parent = {**chain(name="parent"), "tasks": [{**child, "subWorkflowParam": {"name": "child"}}]}
    await here.register(parent)
    await nodes.start(here, "child")
    parent_id = await nodes.start(here, "parent")

    if policy == "REJECT":
        await nodes.until(lambda: here.status(parent_id), "WORKFLOW_STATUS_FAILED")
        (task,) = (await here.get(parent_id)).tasks
        assert "rateLimitConfig.concurrentExecLimit" in task.reason
    else:
        await finish_one(here)
        await finish_one(here)
        await nodes.until(lambda: here.status(parent_id), "WORKFLOW_STATUS_COMPLETED")
