"""The load's side of each scenario, a process of its own: `python -m benchmarks.loads NAME SETTINGS`.

It uses the public SDK only. Every line on stdout is a JSON object for the scenario; a line on stdin
tells it to go on. A workflow counts as in flight from its start call to its last handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from maestoso import Client, Start, Worker, current_task, worker
from maestoso import Unavailable as ServerUnavailable
from maestoso.workflow.v1 import workflow_pb2

PAYLOAD = {"payload": "x" * 285}
STEPS = ("bench_one", "bench_two", "bench_three")


COMPLETED = workflow_pb2.WORKFLOW_STATUS_COMPLETED


def ended(workflow: workflow_pb2.Workflow) -> bool:
    return workflow.status >= COMPLETED


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def told() -> str:
    """The scenario's next word."""
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return line.strip()


@contextlib.asynccontextmanager
async def workers(
    server: str, streams: int, handlers: list[Callable[..., Any]], concurrency: int
) -> AsyncIterator[None]:
    """That many workers with a stream each, drained at the end."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(streams):
            await stack.enter_async_context(Worker(server, handlers, concurrency=concurrency, grace=5))
        yield


def simple(name: str, previous: str | None, **more: Any) -> dict[str, Any]:
    """A SIMPLE task that takes the payload of the one before."""
    source = "${workflow.input.payload}" if previous is None else f"${{{previous}.output.payload}}"
    return {
        "name": name,
        "taskReferenceName": name,
        "type": "SIMPLE",
        "inputParameters": {"payload": source},
        **more,
    }


def three_steps() -> dict[str, Any]:
    tasks = [simple(name, STEPS[index - 1] if index else None) for index, name in enumerate(STEPS)]
    return {"name": "bench_three_step", "version": 1, "schemaVersion": 2, "tasks": tasks}


async def register(client: Client, workflow: dict[str, Any], *tasks: dict[str, Any]) -> None:
    if tasks:
        await client.register_tasks(list(tasks), overwrite="allow")
    await client.register_workflows([workflow], overwrite="allow")


class Slots:
    """How many workflows are in flight, and who waits for the next place."""

    def __init__(self, size: int) -> None:
        self._semaphore = asyncio.Semaphore(size)
        self._held: set[str] = set()
        self._early: set[str] = set()
        self.stopped = False

    async def take(self, count: int = 1) -> None:
        for _ in range(count):
            await self._semaphore.acquire()

    def started(self, workflow_id: str) -> None:
        if workflow_id in self._early:
            self._early.discard(workflow_id)
            self._semaphore.release()
        else:
            self._held.add(workflow_id)

    def ended(self, workflow_id: str) -> None:
        """Its last handler ran; possibly before the start call was answered here."""
        if workflow_id in self._held:
            self._held.discard(workflow_id)
            self._semaphore.release()
        else:
            self._early.add(workflow_id)

    def refused(self) -> None:
        self._semaphore.release()

    @property
    def held(self) -> int:
        return len(self._held)


async def start_many(client: Client, name: str, input: dict[str, Any], count: int, slots: Slots) -> None:
    for outcome in await client.start_many([Start(name=name, input=input)] * count):
        if not isinstance(outcome, str):
            raise outcome
        slots.started(outcome)


async def three_step(settings: dict[str, Any]) -> None:
    slots = Slots(settings["in_flight"])

    @worker("bench_one")
    async def one(payload: str) -> dict[str, str]:
        return {"payload": payload}

    @worker("bench_two")
    async def two(payload: str) -> dict[str, str]:
        return {"payload": payload}

    @worker("bench_three")
    async def three(payload: str) -> dict[str, str]:
        slots.ended(current_task().workflow_id)
        return {"payload": payload}

    per_call = settings["starts_per_call"]
    concurrency = max(64, settings["in_flight"] * 2)
    async with (
        Client(settings["server"]) as client,
        workers(settings["server"], settings["streams"], [one, two, three], concurrency),
    ):
        await register(client, three_steps())
        say(ready=True)

        async def starter() -> None:
            while not slots.stopped:
                await slots.take(per_call)
                if per_call == 1:
                    slots.started(await client.start("bench_three_step", PAYLOAD))
                else:
                    await start_many(client, "bench_three_step", PAYLOAD, per_call, slots)

        starters = [asyncio.create_task(starter()) for _ in range(settings["in_flight"] // per_call)]
        await told()
        slots.stopped = True
        for task in starters:
            task.cancel()
        await asyncio.gather(*starters, return_exceptions=True)
    say(done=True)


async def latency(settings: dict[str, Any]) -> None:
    steps_ms: list[float] = []
    workflows_ms: list[float] = []
    last = 0.0

    def step() -> None:
        nonlocal last
        now = time.perf_counter()
        steps_ms.append((now - last) * 1000)
        last = now

    @worker("bench_one")
    async def one(payload: str) -> dict[str, str]:
        step()
        return {"payload": payload}

    @worker("bench_two")
    async def two(payload: str) -> dict[str, str]:
        step()
        return {"payload": payload}

    @worker("bench_three")
    async def three(payload: str) -> dict[str, str]:
        step()
        return {"payload": payload}

    async with (
        Client(settings["server"]) as client,
        workers(settings["server"], settings["streams"], [one, two, three], 16),
    ):
        await register(client, three_steps())
        ends_at = time.perf_counter() + settings["seconds"] + 1
        measured_from = time.perf_counter() + 1
        while time.perf_counter() < ends_at:
            began = last = time.perf_counter()
            workflow_id = await client.start("bench_three_step", PAYLOAD)
            async for workflow in client.watch(workflow_id):
                if ended(workflow):
                    break
            if began < measured_from:
                steps_ms.clear()
                workflows_ms.clear()
            else:
                workflows_ms.append((time.perf_counter() - began) * 1000)
    say(
        step_ms_p50=quantile(steps_ms, 0.5),
        step_ms_p99=quantile(steps_ms, 0.99),
        workflow_ms_p50=quantile(workflows_ms, 0.5),
        workflow_ms_p99=quantile(workflows_ms, 0.99),
        workflows=len(workflows_ms),
    )


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 3)


async def fork(settings: dict[str, Any]) -> None:
    @worker("bench_branch")
    async def branch(payload: str) -> dict[str, str]:
        return {"payload": payload}

    document = {
        "name": "bench_fork",
        "version": 1,
        "schemaVersion": 2,
        "tasks": [
            {
                "name": "fork",
                "taskReferenceName": "fork",
                "type": "FORK_JOIN_DYNAMIC",
                "inputParameters": {
                    "forkTaskName": "bench_branch",
                    "forkTaskType": "SIMPLE",
                    "forkTaskInputs": "${workflow.input.inputs}",
                },
            },
            {"name": "join", "taskReferenceName": "join", "type": "JOIN"},
        ],
    }
    async with (
        Client(settings["server"]) as client,
        workers(settings["server"], settings["streams"], [branch], 200),
    ):
        await register(client, document)
        small, large, repeats = settings["small"], settings["large"], settings["repeats"]

        async def once(branches: int) -> tuple[float, float]:
            began = time.perf_counter()
            workflow_id = await client.start("bench_fork", {"inputs": [PAYLOAD] * branches})
            called = time.perf_counter()
            async for workflow in client.watch(workflow_id):
                if ended(workflow):
                    if workflow.status != COMPLETED:
                        raise RuntimeError(f"{workflow.status}: {workflow.reason}")
                    break
            return time.perf_counter() - began, called - began

        for _ in range(5):
            await once(small)
        small_s = statistics.median([(await once(small))[0] for _ in range(repeats)]) / small
        large_s, call_s = await once(large)
        say(
            cost_ratio_10000_vs_100=round(large_s / large / small_s, 3),
            start_call_ms=round(call_s * 1000, 1),
            branch_us_100=round(small_s * 1e6, 1),
            branch_us_10000=round(large_s / large * 1e6, 1),
        )


async def loop(settings: dict[str, Any]) -> None:
    iterations, keep = settings["iterations"], settings["keep_last_n"]
    at: list[float] = []

    @worker("bench_body")
    async def body(payload: str) -> dict[str, str]:
        at.append(time.perf_counter())
        return {"payload": payload}

    document = {
        "name": "bench_loop_keep" if keep else "bench_loop_all",
        "version": 1,
        "schemaVersion": 2,
        "tasks": [
            {
                "name": "loop",
                "taskReferenceName": "loop",
                "type": "DO_WHILE",
                "inputParameters": {"keepLastN": keep} if keep else {},
                "loopCondition": f"$.loop['iteration'] < {iterations}",
                "loopOver": [simple("bench_body", None)],
            }
        ],
    }
    async with Client(settings["server"]) as client, workers(settings["server"], 1, [body], 4):
        await register(client, document)
        workflow_id = await client.start(document["name"], PAYLOAD)
        async for workflow in client.watch(workflow_id):
            if ended(workflow):
                if workflow.status != COMPLETED:
                    raise RuntimeError(f"{workflow.status}: {workflow.reason}")
                break
    first = (at[1_100] - at[100]) / 1_000
    last = (at[iterations - 1] - at[iterations - 1_001]) / 1_000
    say(cost_ratio=round(last / first, 3), iteration_ms=round(last * 1000, 3))


async def idle(settings: dict[str, Any]) -> None:
    @worker("bench_never")
    async def never() -> None:
        raise RuntimeError("nothing is ever started")

    async with workers(settings["server"], settings["workers"], [never], 1):
        await asyncio.sleep(5)
        say(ready=True)
        await asyncio.get_running_loop().create_future()


async def timers(settings: dict[str, Any]) -> None:
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(settings["due_ms"] / 1000))
    document = {
        "name": "bench_wait",
        "version": 1,
        "schemaVersion": 2,
        "tasks": [
            {
                "name": "wait",
                "taskReferenceName": "wait",
                "type": "WAIT",
                "inputParameters": {"until": "${workflow.input.until}"},
            }
        ],
    }
    async with Client(settings["server"]) as client:
        await register(client, document)
        left = settings["waits"] // 500

        async def starter() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await client.start_many([Start(name="bench_wait", input={"until": until})] * 500)

        await asyncio.gather(*(starter() for _ in range(4)))
    say(started=settings["waits"])


async def limited(settings: dict[str, Any]) -> None:
    slots = Slots(settings["in_flight"])
    at_once = most = 0

    @worker("bench_limited")
    async def one(payload: str) -> dict[str, str]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        slots.ended(current_task().workflow_id)
        return {"payload": payload}

    document = {
        "name": "bench_limited",
        "version": 1,
        "schemaVersion": 2,
        "tasks": [simple("bench_limited", None)],
    }
    definition = {"name": "bench_limited", "concurrentExecLimit": settings["limit"], "retryCount": 0}
    async with (
        Client(settings["server"]) as client,
        workers(settings["server"], settings["streams"], [one], 200),
    ):
        await register(client, document, definition)
        say(ready=True)

        async def starter() -> None:
            while not slots.stopped:
                await slots.take(20)
                await start_many(client, "bench_limited", PAYLOAD, 20, slots)

        starters = [asyncio.create_task(starter()) for _ in range(settings["in_flight"] // 20)]
        await told()
        for task in starters:
            task.cancel()
        await asyncio.gather(*starters, return_exceptions=True)
    say(most_at_once=most)


async def backlog(settings: dict[str, Any]) -> None:
    @worker("bench_backlog")
    async def one(payload: str) -> dict[str, str]:
        return {"payload": payload}

    document = {
        "name": "bench_backlog",
        "version": 1,
        "schemaVersion": 2,
        "tasks": [simple("bench_backlog", None)],
    }
    async with Client(settings["server"]) as client:
        await register(client, document)
        if settings["prepare"]:
            say(snapshot_of=await client.start("bench_backlog", PAYLOAD))
            return
        async with workers(settings["server"], settings["streams"], [one], 500):
            say(ready=True)
            await told()
    say(done=True)


async def crash(settings: dict[str, Any]) -> None:
    running: dict[str, int] = {}
    overlaps = 0
    slots = Slots(settings["in_flight"])
    acknowledged: list[str] = []

    def handler(name: str) -> Callable[..., Any]:
        @worker(name)
        async def step(payload: str) -> dict[str, str]:
            nonlocal overlaps
            task = current_task()
            if running.get(task.task_id):
                overlaps += 1
            running[task.task_id] = running.get(task.task_id, 0) + 1
            try:
                await asyncio.sleep(0.002)
            finally:
                running[task.task_id] -= 1
                if not running[task.task_id]:
                    del running[task.task_id]
            if name == STEPS[-1]:
                slots.ended(task.workflow_id)
            return {"payload": payload}

        return step

    servers = settings["servers"]
    handlers = [handler(name) for name in STEPS]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(server)) for server in servers]
        for server in servers:
            await stack.enter_async_context(workers(server, settings["streams"], handlers, 64))
        await register(clients[0], three_steps())
        say(ready=True)

        async def starter(number: int) -> None:
            tries = number
            while not slots.stopped:
                await slots.take()
                try:
                    workflow_id = await asyncio.wait_for(
                        clients[tries % len(clients)].start("bench_three_step", PAYLOAD), 5
                    )
                except (ServerUnavailable, TimeoutError):
                    tries += 1
                    slots.refused()
                    await asyncio.sleep(0.05)
                else:
                    acknowledged.append(workflow_id)
                    slots.started(workflow_id)

        starters = [asyncio.create_task(starter(number)) for number in range(settings["in_flight"])]
        await told()
        slots.stopped = True
        for task in starters:
            task.cancel()
        await asyncio.gather(*starters, return_exceptions=True)
        say(stopped=True)
        await told()
    say(acknowledged=acknowledged, overlaps=overlaps)


LOADS = {
    "three_step": three_step,
    "latency": latency,
    "fork": fork,
    "loop": loop,
    "idle": idle,
    "timers": timers,
    "limited": limited,
    "backlog": backlog,
    "crash": crash,
}


def main() -> None:
    run = LOADS[sys.argv[1]](json.loads(sys.argv[2]))
    try:
        import uvloop
    except ImportError:
        asyncio.run(run)
    else:
        uvloop.run(run)


if __name__ == "__main__":
    main()
