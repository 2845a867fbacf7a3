"""A node that dies when it has taken a task under a limit and has not handed it out: its slot is free
again when the task's delivery is over, and its place in the window with the window."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from limits.conftest import Nodes
from maestoso.task.v1.task_pb2 import Capacity, TaskResult
from worker_kit import DEADLINE_S, Caller, chain


class Death:
    """With its first take a node dies: before that is committed, or right after, and not one more word of
    it comes through."""

    def __init__(self, *, committed: bool) -> None:
        self.committed = committed
        self.armed = False
        self.dead = asyncio.Event()
        self.last_deed: Callable[[], None] = lambda: None

    async def before(self, sql: str, drop: Callable[[], None]) -> None:
        if self.dead.is_set():
            drop()
            raise ConnectionResetError

    async def after(self, sql: str, drop: Callable[[], None]) -> None:
        await self.before(sql, drop)
        if self.armed and "INSERT INTO task_grant" in sql:
            self.dead.set()
            self.last_deed()
            if not self.committed:
                await self.before(sql, drop)


WINDOW_S = 30
LIMITS: list[dict[str, Any]] = [
    {"concurrentExecLimit": 1},
    {"rateLimitPerFrequency": 1, "rateLimitFrequencyInSeconds": WINDOW_S},
    {"concurrentExecLimit": 1, "rateLimitPerFrequency": 1, "rateLimitFrequencyInSeconds": WINDOW_S},
]


async def two_waiting(nodes: Nodes, death: Death, limits: dict[str, Any]) -> tuple[Caller, Caller, str, str]:
    """(a node that dies, another one, the first workflow, the second)"""
    dying, other = await nodes.node(death), await nodes.node()
    await other.register(chain("pay"), {"name": "pay", "retryCount": 0, **limits})
    first, second = await nodes.start(other), await nodes.start(other)
    death.armed = True
    return dying, other, first, second


async def outlived(nodes: Nodes) -> None:
    """Let the dead node's lease run out."""
    while await nodes.value("SELECT count(*) FROM node") > 1:
        nodes.clock.advance(500)
        await nodes.rest()


async def next_is(nodes: Nodes, other: Caller, second: str, limits: dict[str, Any]) -> None:
    """The first one has ended: the second may run, in a window where there is room."""
    if "rateLimitPerFrequency" in limits:
        assert await other.poll("pay") == []
        await nodes.advance(WINDOW_S * 1000)
    assert [task.workflow_id for task in await other.poll("pay")] == [second]


@pytest.mark.parametrize("limits", LIMITS, ids=["slots", "rate", "both"])
async def test_what_a_node_took_and_did_not_hand_out_is_free_when_its_session_is_over(
    nodes: Nodes, limits: dict[str, Any]
) -> None:
    death = Death(committed=True)
    dying, other, first, second = await two_waiting(nodes, death, limits)
    async with dying.worker("pay", tasks=0) as worker:
        death.last_deed = worker.cut
        await worker.send(capacity=Capacity(tasks=1))
        async with asyncio.timeout(DEADLINE_S):
            await death.dead.wait()
    await nodes.until(lambda: nodes.value("SELECT count(*) FROM task_queue WHERE delivery = 1"), 1)
    assert await other.poll("pay") == []

    await outlived(nodes)
    # Its session may still come back elsewhere, with the task; then that is over, too.
    held = "SELECT count(*) FROM task_queue WHERE owner_epoch > 0"
    await nodes.advance_until(lambda: nodes.value(held), 0, 500)
    assert await other.status(first) == "WORKFLOW_STATUS_FAILED"  # it may have been running
    await next_is(nodes, other, second, limits)


@pytest.mark.parametrize("limits", LIMITS, ids=["slots", "rate", "both"])
async def test_what_a_node_did_not_get_to_take_is_free_at_once(nodes: Nodes, limits: dict[str, Any]) -> None:
    death = Death(committed=False)
    dying, other, first, second = await two_waiting(nodes, death, limits)
    with pytest.raises(grpc.aio.AioRpcError):
        await dying.poll("pay")
    (task,) = await other.poll("pay")
    assert task.workflow_id == first
    assert await other.poll("pay") == []
    await other.report(TaskResult(token=task.token, output=b"{}"))
    assert await other.status(first) == "WORKFLOW_STATUS_COMPLETED"
    await outlived(nodes)
    await next_is(nodes, other, second, limits)
