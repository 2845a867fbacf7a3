"""Hand-outs of a task definition within a sliding window, over two nodes."""

from __future__ import annotations

import asyncio

import pytest

from limits.conftest import Nodes
from maestoso.admin.v1 import admin_pb2
from maestoso.task.v1.task_pb2 import RESULT_OUTCOME_ACCEPTED, TaskResult
from worker_kit import chain

PAY = {"name": "pay", "ownerEmail": "a@b.c", "retryCount": 0}


def rated(rate: int, window_s: int, **more: object) -> dict[str, object]:
    return {**PAY, "rateLimitPerFrequency": rate, "rateLimitFrequencyInSeconds": window_s, **more}


@pytest.mark.covers("G.limits.2")
async def test_a_second_task_is_handed_out_when_the_window_has_passed(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(chain("pay"), rated(1, 10))
    first, second = await nodes.start(here), await nodes.start(there)

    (task,) = await here.poll("pay")
    handed_out_ms = nodes.clock.now_ms()
    assert task.workflow_id == first
    assert await there.poll("pay") == []
    explanation = await nodes.explain(there, second)
    (open_task,) = explanation.open_tasks
    assert open_task.cause == admin_pb2.WAIT_CAUSE_LIMIT
    assert "1 of 1 hand-outs" in open_task.explanation
    assert open_task.due_time.ToMilliseconds() == handed_out_ms + 10_000

    (ack,) = await here.report(TaskResult(token=task.token, output=b"{}"))
    assert ack.outcome == RESULT_OUTCOME_ACCEPTED
    assert await there.poll("pay") == []  # what has ended counts as long as its window lasts
    await nodes.advance(9_999)
    assert await there.poll("pay") == []
    await nodes.advance(1)
    (task,) = await there.poll("pay")
    assert task.workflow_id == second


async def test_streams_get_the_next_task_at_the_opening_without_a_beat(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(chain("pay"), rated(2, 10))
    async with here.worker("pay") as one, there.worker("pay") as other:
        started = [await nodes.start(here) for _ in range(5)]
        given = []
        tasks = [asyncio.create_task(one.task()), asyncio.create_task(other.task())]
        while len(given) < 2:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                place = tasks.index(task)
                given.append(task.result().workflow_id)
                tasks[place] = asyncio.create_task((one, other)[place].task())
        assert sorted(given) == sorted(started[:2])  # two workers: either may be heard first
        await nodes.until(lambda: nodes.value("SELECT sum(granted) FROM task_grant"), 2)

        await nodes.advance(9_990)
        await nodes.until(lambda: nodes.value("SELECT count(*) FROM task_queue WHERE delivery > 0"), 2)
        nodes.clock.advance(20)
        await nodes.until(lambda: nodes.value("SELECT count(*) FROM task_queue WHERE delivery > 0"), 4)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_order_is_priority_then_age(nodes: Nodes) -> None:
    here = await nodes.node()
    await here.register(chain("pay"), rated(1, 5))
    await nodes.start(here)
    old = await nodes.start(here)
    urgent = await nodes.start(here, priority=7)
    got = []
    assert len(await here.poll("pay")) == 1  # the urgent one is the first of all
    got = [urgent]
    for wanted in (None, old):
        await nodes.advance(5_000)
        (task,) = await here.poll("pay")
        if wanted:
            got.append(task.workflow_id)
    assert got == [urgent, old]


async def test_both_limits_hold_together(nodes: Nodes) -> None:
    here = await nodes.node()
    await here.register(chain("pay"), rated(3, 10, concurrentExecLimit=2))
    for _ in range(5):
        await nodes.start(here)

    held = list(await here.poll("pay", count=5))
    assert len(held) == 2
    assert await here.poll("pay", count=5) == []
    await here.report(TaskResult(token=held.pop().token, output=b"{}"))
    held += await here.poll("pay", count=5)
    assert len(held) == 2
    await here.report(*(TaskResult(token=task.token, output=b"{}") for task in held))
    assert await here.poll("pay", count=5) == []  # three are used up
    await nodes.advance(10_000)
    assert len(await here.poll("pay", count=5)) == 2


@pytest.mark.covers("G.limits.1")
async def test_of_system_types_only_the_limited_definition_is_kept_back(nodes: Nodes) -> None:
    here = await nodes.node()
    bank = {"type": "HTTP", "inputParameters": {"http_request": {"uri": "http://x", "method": "GET"}}}
    await here.register(chain("bank", name="slow", **bank), {**rated(1, 10), "name": "bank"})
    await here.register(chain("shop", name="quick", **bank))
    slow = [await nodes.start(here, "slow") for _ in range(3)]
    quick = [await nodes.start(here, "quick") for _ in range(2)]

    got = [task.workflow_id for _ in range(4) for task in await here.poll("HTTP")]
    assert got == [slow[0], *quick]
    await nodes.advance(10_000)
    assert [task.workflow_id for task in await here.poll("HTTP", count=9)] == [slow[1]]


async def test_a_waiting_poll_is_answered_at_the_opening(nodes: Nodes) -> None:
    here = await nodes.node()
    await here.register(chain("pay"), rated(1, 2))
    await nodes.start(here)
    second = await nodes.start(here)
    await here.poll("pay")
    polling = asyncio.create_task(here.poll("pay", wait_s=8))
    await nodes.advance(1_990)
    assert not polling.done()

    nodes.clock.advance(20)
    (task,) = await polling
    assert task.workflow_id == second


async def test_a_changed_number_holds_for_what_waits_already(nodes: Nodes) -> None:
    here, there = await nodes.node(), await nodes.node()
    await here.register(chain("pay"), rated(1, 100))
    for _ in range(4):
        await nodes.start(here)
    assert len(await here.poll("pay", count=4)) == 1

    await there.register(chain("pay"), rated(3, 100))
    assert len(await here.poll("pay", count=4)) == 2
    await there.register(chain("pay"), PAY)
    assert len(await here.poll("pay", count=4)) == 1


async def test_a_delivery_that_nobody_read_counts_once(nodes: Nodes) -> None:
    here = await nodes.node()
    await here.register(chain("pay"), rated(1, 3_600))
    workflow_id = await nodes.start(here)
    async with here.worker("pay") as worker:
        await worker.task()
        worker.cut()
    await nodes.advance_until(lambda: nodes.value("SELECT unread FROM task_queue"), 1)

    (task,) = await here.poll("pay")
    assert task.workflow_id == workflow_id
    assert await nodes.value("SELECT sum(granted) FROM task_grant") == 1
