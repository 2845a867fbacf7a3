"""When a task may be polled, and by whom: callbacks, time-outs, slots, domains, groups."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

from limits.conftest import Nodes
from maestoso import TaskContext, Worker, worker
from maestoso.task.v1.task_pb2 import (
    RESULT_OUTCOME_ACCEPTED,
    RESULT_OUTCOME_STALE,
    TASK_STATUS_SCHEDULED,
    TASK_STATUS_TIMED_OUT,
    Callback,
    TaskResult,
)
from worker_kit import Caller, chain


def done(token: bytes) -> TaskResult:
    return TaskResult(token=token, output=b"{}")


def later(token: bytes, seconds: int) -> TaskResult:
    return TaskResult(token=token, callback=Callback(after=Duration(seconds=seconds), output=b"{}"))


async def shown(caller: Caller, workflow_id: str) -> list[int]:
    return [task.status for task in (await caller.get(workflow_id)).tasks]


@pytest.mark.covers("A.10", "A.13", "B.13")
async def test_a_callback_is_pollable_when_its_time_has_come_and_not_before(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(chain("pay"))
    workflow_id = await nodes.start(here)
    (task,) = await here.poll("pay")
    await there.report(later(task.token, 0))
    assert await shown(here, workflow_id) == [TASK_STATUS_SCHEDULED]
    (task,) = await there.poll("pay")
    await here.report(later(task.token, 5))
    await nodes.advance(4_900)
    assert await there.poll("pay") == []
    await nodes.advance(100)
    (again,) = await here.poll("pay", wait_s=5)

    assert again.task_id == task.task_id
    assert (await there.report(done(again.token)))[0].outcome == RESULT_OUTCOME_ACCEPTED
    assert await here.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"


@pytest.mark.covers("A.4", "M.4")
async def test_a_response_timeout_makes_another_attempt_and_ignores_the_late_result(nodes: Nodes) -> None:
    here = await nodes.node()
    definition = {"name": "pay", "responseTimeoutSeconds": 10, "retryCount": 1, "retryDelaySeconds": 0}
    await here.register(chain("pay"), definition)
    workflow_id = await nodes.start(here)
    (first,) = await here.poll("pay")
    await nodes.advance(9_500)
    assert await here.poll("pay") == []
    await nodes.advance_until(
        lambda: shown(here, workflow_id), [TASK_STATUS_TIMED_OUT, TASK_STATUS_SCHEDULED], 500
    )

    assert (await here.report(done(first.token)))[0].outcome == RESULT_OUTCOME_STALE
    (second,) = await here.poll("pay")
    await here.report(later(second.token, 2))
    assert await here.poll("pay") == []
    await nodes.advance(2_000)
    (second,) = await here.poll("pay", wait_s=5)
    await here.report(done(second.token))
    assert await here.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"


@pytest.mark.covers("A.8", "M.3")
async def test_retries_with_a_delay_are_pollable_after_it(nodes: Nodes) -> None:
    here = await nodes.node()
    await here.register(chain("pay"), {"name": "pay", "retryCount": 2, "retryDelaySeconds": 2})
    workflow_id = await nodes.start(here, input=b'{"n":1}')
    for _ in range(2):
        (task,) = await here.poll("pay", wait_s=5)
        await here.report(TaskResult(token=task.token, failure={"message": "no"}))
        await nodes.advance(1_900)
        assert await here.poll("pay") == []
        await nodes.advance(100)
    (task,) = await here.poll("pay", wait_s=5)
    await here.report(done(task.token))

    tasks = (await here.get(workflow_id)).tasks
    assert [task.attempt for task in tasks] == [0, 1, 2]
    assert await here.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"


@pytest.mark.covers("G.limits.3")
@pytest.mark.parametrize("taker", ["poll", "stream"])
async def test_the_next_of_a_limited_type_runs_when_one_has_ended(nodes: Nodes, taker: str) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(chain("pay"), {"name": "pay", "concurrentExecLimit": 1})
    first, second = await nodes.start(here), await nodes.start(there)
    if taker == "poll":
        (task,) = await here.poll("pay")
        assert await there.poll("pay") == []
        polling = asyncio.create_task(there.poll("pay", wait_s=8))
        await nodes.rest()
        await here.report(done(task.token))
        (next_task,) = await polling  # told at once: the clock stands still
    else:
        async with here.worker("pay") as one:
            task = await one.task()
            async with there.worker("pay") as other:
                await one.finish(task)
                takers = [asyncio.create_task(one.task()), asyncio.create_task(other.task())]
                ended, left = await asyncio.wait(takers, return_when=asyncio.FIRST_COMPLETED)
                next_task = ended.pop().result()
                for waiting in left:
                    waiting.cancel()
    assert (task.workflow_id, next_task.workflow_id) == (first, second)


async def test_a_changed_concurrent_limit_holds_for_what_waits(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(chain("pay"), {"name": "pay", "concurrentExecLimit": 1})
    for _ in range(5):
        await nodes.start(here)
    assert len(await here.poll("pay", count=9)) == 1
    await there.register(chain("pay"), {"name": "pay", "concurrentExecLimit": 3})
    assert len(await here.poll("pay", count=9)) == 2
    await there.register(chain("pay"), {"name": "pay", "concurrentExecLimit": 2})
    assert await here.poll("pay", count=9) == []
    await there.register(chain("pay"), {"name": "pay"})
    assert len(await here.poll("pay", count=9)) == 2


async def test_a_lost_worker_gives_its_slot_back(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    definition = {"name": "pay", "concurrentExecLimit": 1, "retryCount": 0}
    await here.register(chain("pay"), definition)
    first = await nodes.start(here)
    async with here.worker("pay") as worker:
        await worker.task()
        await nodes.advance_until(
            lambda: nodes.value("SELECT count(*) FROM task_queue WHERE started_ms > 0"), 1
        )
    second = await nodes.start(here)
    polling = asyncio.create_task(there.poll("pay", wait_s=9))
    await nodes.advance_until(lambda: here.status(first), "WORKFLOW_STATUS_FAILED", 500)
    (task,) = await polling
    assert task.workflow_id == second


async def test_the_first_domain_with_a_taker_in_ten_seconds_gets_the_task(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(chain("pay"))
    star = {"*": "blue,NO_DOMAIN"}
    undomained = await nodes.start(here, task_to_domain=star)
    assert [task.workflow_id for task in await there.poll("pay")] == [undomained]

    assert await there.poll("blue:pay") == []  # which tells that somebody asks
    blue = await nodes.start(here, task_to_domain=star)
    assert await there.poll("pay") == []
    assert [task.workflow_id for task in await there.poll("blue:pay")] == [blue]
    await nodes.advance(10_500)
    late = await nodes.start(here, task_to_domain=star)
    assert [task.workflow_id for task in await here.poll("pay")] == [late]
    own = await nodes.start(here, task_to_domain={"*": "blue", "pay": "red"})
    assert [task.workflow_id for task in await here.poll("red:pay")] == [own]


async def test_a_handler_serves_the_queue_of_a_group_in_a_domain_too(nodes: Nodes) -> None:
    served: list[tuple[str, str]] = []

    @worker("pay-gold")
    async def gold(context: TaskContext) -> dict[str, str]:
        served.append(("gold", context.task_type))
        return {}

    @worker("pay-gold", domain="eu")
    async def eu_gold(context: TaskContext) -> dict[str, str]:
        served.append(("eu", context.task_type))
        return {}

    here = await nodes.node()
    await here.register(chain("pay"), {"name": "pay", "isolationGroupId": "gold"})
    async with Worker(nodes.servers[0].grpc_address, [gold, eu_gold]):
        for route in ({}, {"pay": "eu"}):
            workflow_id = await nodes.start(here, task_to_domain=route)
            await nodes.until(lambda started=workflow_id: here.status(started), "WORKFLOW_STATUS_COMPLETED")
    assert served == [("gold", "pay"), ("eu", "pay")]


async def test_an_isolation_group_is_a_queue_of_its_own(nodes: Nodes) -> None:
    here = await nodes.node()
    await here.register(chain("pay"), {"name": "pay", "isolationGroupId": "gold", "concurrentExecLimit": 1})
    first, second = await nodes.start(here), await nodes.start(here)
    assert await here.poll("pay") == []
    (task,) = await here.poll("pay-gold", count=2)
    assert (task.workflow_id, task.task_type, task.queue) == (first, "pay", "pay-gold")
    assert await here.poll("pay-gold") == []
    await here.report(done(task.token))
    assert [task.workflow_id for task in await here.poll("pay-gold")] == [second]
