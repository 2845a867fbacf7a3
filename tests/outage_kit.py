"""What outages have in common: a load that goes on through them, and what has to be true afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import asyncpg

from e2e.processes import Maestoso
from maestoso import Client, ServerError, TaskContext, Unavailable, Worker, worker

DEADLINE_S = 60.0
PROMPT_S = 4.0
IN_FLIGHT = 8
COMPLETED = 3
LEFT = "SELECT (SELECT count(*) FROM task_queue) + (SELECT count(*) FROM deadline) + count(*) FROM inbox"
STEPS = ("step_one", "step_two", "step_three")


@dataclass
class Load:
    """Three-step workflows, started again and again; what was acknowledged and what ran at once."""

    acknowledged: list[str] = field(default_factory=list)
    refusals: list[ServerError] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)
    overlaps: int = 0
    stopped: bool = False

    def handlers(self) -> list[Callable[..., object]]:
        return [self._handler(name) for name in STEPS]

    def _handler(self, name: str) -> Callable[..., object]:
        @worker(name)
        async def step(context: TaskContext) -> dict[str, int]:
            self.overlaps += context.task_id in self.running
            self.running[context.task_id] = 1
            try:
                await asyncio.sleep(0.001)  # long enough that another delivery would be seen beside it
            finally:
                self.running.pop(context.task_id, None)
            return {"done": 1}

        return step

    async def start(self, clients: list[Client], number: int) -> None:
        while not self.stopped:
            client = clients[number % len(clients)]
            try:
                async with asyncio.timeout(5):
                    self.acknowledged.append(await client.start("three_steps"))
            except Unavailable as refusal:
                self.refusals.append(refusal)
                number += 1
                await asyncio.sleep(0.05)
            except TimeoutError:
                number += 1
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def loaded(load: Load, nodes: list[Maestoso], url: str) -> AsyncIterator[None]:
    """Workers and starters at these nodes for the length of the block; then all that was started has to
    end well."""
    tasks = [{"name": name, "taskReferenceName": name, "type": "SIMPLE"} for name in STEPS]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(node.grpc, patience=0.5)) for node in nodes]
        await clients[0].register_workflows([{"name": "three_steps", "version": 1, "tasks": tasks}])
        addresses = [node.grpc for node in nodes]
        working = await stack.enter_async_context(contextlib.AsyncExitStack())
        await working.enter_async_context(Worker(addresses, load.handlers(), concurrency=32))
        starters = [asyncio.create_task(load.start(clients, number)) for number in range(IN_FLIGHT)]
        try:
            await until(lambda: more_than(load, 20))
            yield
        finally:
            load.stopped = True
            await asyncio.gather(*starters)
        await everything_ended(url, load)
        async with asyncio.timeout(PROMPT_S):  # a worker that misses an acknowledgement waits for longer
            await working.aclose()


async def more_than(load: Load, count: int) -> bool:
    return len(load.acknowledged) > count


async def until(condition: Callable[[], Awaitable[bool]], deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def everything_ended(url: str, load: Load) -> None:
    """Every acknowledged start is COMPLETED without a burnt attempt, and nothing is left behind."""
    connection = await asyncpg.connect(url)
    try:

        async def ended() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM workflow WHERE status <= 2")

        try:
            await until(ended)
        except TimeoutError:
            left = await connection.fetch(
                "SELECT w.id, w.last_node, t.reference, t.status, t.reason,"
                " q.owner_epoch, q.session_id, q.delivery, q.due_ms, q.ended"
                " FROM workflow w JOIN task t ON t.workflow_id = w.id AND t.status <= 2"
                " LEFT JOIN task_queue q ON q.workflow_id = t.workflow_id AND q.seq = t.seq"
                " WHERE w.status <= 2 LIMIT 5"
            )
            raise AssertionError(f"still running: {[dict(row) for row in left]}") from None
        completed = await connection.fetchval(
            "SELECT count(*) FROM workflow WHERE id = ANY($1::text[]::uuid[]) AND status = 3",
            load.acknowledged,
        )
        assert completed == len(load.acknowledged)
        burnt = await connection.fetch("SELECT reason FROM task WHERE attempt > 0 OR status NOT IN (3)")
        assert [row["reason"] for row in burnt] == []

        async def empty() -> bool:
            return bool(await connection.fetchval(LEFT) == 0)

        await until(empty)
    finally:
        await connection.close()
    assert load.overlaps == 0


async def epochs(url: str) -> dict[str, int]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT grpc_address, epoch FROM node")
        return {row["grpc_address"]: row["epoch"] for row in rows}
    finally:
        await connection.close()


@dataclass
class Held:
    """One-step workflows whose handlers run until they are let go: through whatever happens meanwhile."""

    runs: Counter[str] = field(default_factory=Counter)
    """How often each workflow's handler was begun."""
    running: set[str] = field(default_factory=set)
    stopped: list[str] = field(default_factory=list)
    """Workflows whose handler was cancelled."""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def handler(self) -> Callable[..., object]:
        @worker("hold")
        async def hold(context: TaskContext) -> None:
            await self._note(lambda: self._begin(context.workflow_id))
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.stopped.append(context.workflow_id)
                raise
            finally:
                self.running.discard(context.workflow_id)

        return hold

    async def _note(self, change: Callable[[], None]) -> None:
        async with self.news:
            change()
            self.news.notify_all()

    def _begin(self, workflow_id: str) -> None:
        self.runs[workflow_id] += 1
        self.running.add(workflow_id)

    async def start(self, client: Client, count: int) -> list[str]:
        """Start that many, and return once the handlers of all have begun."""
        task = {"name": "hold", "taskReferenceName": "hold", "type": "SIMPLE"}
        await client.register_tasks([{"name": "hold", "retryCount": 0}])
        await client.register_workflows([{"name": "held", "version": 1, "tasks": [task]}])
        ids = [await client.start("held") for _ in range(count)]
        async with self.news:
            await self.news.wait_for(lambda: self.runs.keys() >= set(ids))
        return ids


async def ran_once(held: Held, ids: list[str], url: str) -> None:
    """Let those go that still run: each completes, was begun once and never stopped, and leaves nothing
    behind."""
    held.go.set()
    connection = await asyncpg.connect(url)
    try:

        async def empty() -> bool:
            return bool(await connection.fetchval(LEFT) == 0)

        await until(empty)
        ends = await connection.fetch(
            "SELECT w.status, t.reason, t.attempt FROM workflow w JOIN task t ON t.workflow_id = w.id"
            " WHERE w.id = ANY($1::text[]::uuid[])",
            ids,
        )
    finally:
        await connection.close()
    assert Counter(map(tuple, ends)) == {(COMPLETED, None, 0): len(ids)}
    assert held.runs == Counter(ids)
    assert held.stopped == []
