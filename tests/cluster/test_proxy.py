"""A worker's stream through a proxy that cuts it, or swallows what it should pass on: nothing is stranded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from maestoso import Client, TaskContext, Worker, worker
from proxy_kit import behind_a_proxy

DEADLINE_S = 45.0
COMPLETED = 3
TASKS = [{"name": "work", "taskReferenceName": f"work_{number}", "type": "SIMPLE"} for number in range(3)]


@dataclass
class Ran:
    """What the handlers saw."""

    count: int = 0
    redelivered: int = 0
    attempts: set[int] = field(default_factory=set)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    async def at_least(self, count: int) -> None:
        while self.count < count:
            self.more.clear()
            await self.more.wait()


def counting(ran: Ran) -> object:
    @worker("work")
    async def work(context: TaskContext) -> None:
        ran.count += 1
        ran.redelivered += context.redelivery > 0
        ran.attempts.add(context.attempt)
        ran.more.set()

    return work


@pytest.mark.timeout(90)
async def test_a_stream_that_is_cut_again_and_again_strands_nothing(database_url: str) -> None:
    ran = Ran()
    async with (
        asyncio.timeout(DEADLINE_S),
        behind_a_proxy(database_url) as (proxy, server),
        Client(server.grpc_address) as client,
        Worker(proxy.address, [counting(ran)]),  # type: ignore[list-item]
    ):
        await client.register_workflows([{"name": "cut", "version": 1, "tasks": TASKS}])
        ids: list[str] = []
        for _ in range(4):
            ids += [await client.start("cut") for _ in range(15)]
            proxy.cut()
        ended = [await client.wait(workflow_id) for workflow_id in ids]

    assert {workflow.status for workflow in ended} == {COMPLETED}
    assert ran.attempts == {0}


@pytest.mark.timeout(90)
async def test_what_was_sent_into_a_silent_stream_is_handed_out_again(database_url: str) -> None:
    ran = Ran()
    async with (
        asyncio.timeout(DEADLINE_S),
        behind_a_proxy(database_url) as (proxy, server),
        Client(server.grpc_address) as client,
        Worker(proxy.address, [counting(ran)]),  # type: ignore[list-item]
    ):
        await client.register_workflows([{"name": "mute", "version": 1, "tasks": TASKS}])
        await client.wait(await client.start("mute"))
        proxy.mute()
        ids = [await client.start("mute") for _ in range(10)]
        ended = [await client.wait(workflow_id) for workflow_id in ids]

    assert {workflow.status for workflow in ended} == {COMPLETED}
    assert ran.redelivered == len(ids)
    assert ran.attempts == {0}
