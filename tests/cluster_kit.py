"""Load on a cluster, what its workers saw of it, and what must be true when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from benchmarks.crash import ORPHANS, STUCK
from maestoso import Client, DeadlineExceeded, ServerError, TaskContext, Unavailable, Worker, worker
from maestoso.workflow.v1 import workflow_pb2
from maestoso_server.clock import SystemClock
from maestoso_server.config import Config
from maestoso_server.server import Server
from maestoso_server.store.database import Faults
from servers import serving

DEADLINE_S = 30.0
LOOK_S = 0.02
"""How often a condition in the database is looked at."""
START_TIMEOUT_S = 1.0
IN_FLIGHT = 8
WORK_S = 0.002
"""Long enough that a second delivery beside a living one would be seen, now and then."""

STEPS = ("step_one", "step_two", "step_three")

COMPLETED = workflow_pb2.WORKFLOW_STATUS_COMPLETED
FAILED = workflow_pb2.WORKFLOW_STATUS_FAILED
RUNNING = workflow_pb2.WORKFLOW_STATUS_RUNNING
PAUSED = workflow_pb2.WORKFLOW_STATUS_PAUSED
TERMINATED = workflow_pb2.WORKFLOW_STATUS_TERMINATED


def definition(name: str, *tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "version": 1, "schemaVersion": 2, "tasks": list(tasks), **fields}


def simple(task_type: str, reference: str = "", **fields: Any) -> dict[str, Any]:
    return {"name": task_type, "taskReferenceName": reference or task_type, "type": "SIMPLE", **fields}


THREE_STEPS = definition("three_steps", *(simple(step) for step in STEPS))

SUB = definition("sub", simple("step_two"), outputParameters={"done": "${step_two.output.done}"})
MIXED = definition(
    "mixed",
    {
        "name": "fork",
        "taskReferenceName": "fork",
        "type": "FORK_JOIN",
        "forkTasks": [
            [simple("step_one")],
            [
                {
                    "name": "sub",
                    "taskReferenceName": "sub",
                    "type": "SUB_WORKFLOW",
                    "subWorkflowParam": {"name": "sub", "version": 1},
                }
            ],
        ],
    },
    {"name": "join", "taskReferenceName": "join", "type": "JOIN", "joinOn": ["step_one", "sub"]},
    {
        "name": "sum",
        "taskReferenceName": "sum",
        "type": "INLINE",
        "inputParameters": {
            "evaluatorType": "javascript",
            "expression": "$.one + $.two",
            "one": "${step_one.output.done}",
            "two": "${sub.output.done}",
        },
    },
    simple("step_three"),
    outputParameters={"sum": "${sum.output.result}"},
)
"""A bit of everything: branches, a child, a script, workers. Its output is {"sum": 2}."""


@dataclass
class Ledger:
    """What the handlers of all workers ran, as they saw it themselves."""

    runs: dict[str, int] = field(default_factory=dict)
    """By task id (a retry is another task), how often a handler began."""
    running: set[str] = field(default_factory=set)
    overlaps: list[str] = field(default_factory=list)
    """Tasks that were handed out beside a living delivery."""

    @contextlib.contextmanager
    def run(self, context: TaskContext) -> Any:
        if context.task_id in self.running:
            self.overlaps.append(context.task_id)
        self.running.add(context.task_id)
        self.runs[context.task_id] = self.runs.get(context.task_id, 0) + 1
        try:
            yield
        finally:
            self.running.discard(context.task_id)

    def handler(
        self, task_type: str, work: Callable[[TaskContext], Awaitable[None]] | None = None
    ) -> Callable[..., Any]:
        """A handler that is noted, and does `work` (a short wait unless given)."""

        @worker(task_type)
        async def handle(context: TaskContext) -> dict[str, int]:
            with self.run(context):
                await (asyncio.sleep(WORK_S) if work is None else work(context))
            return {"done": 1}

        return handle


@dataclass
class Load:
    """Three-step workflows, started again and again."""

    ledger: Ledger = field(default_factory=Ledger)
    acknowledged: list[str] = field(default_factory=list)
    refusals: list[ServerError] = field(default_factory=list)
    definition: str = "three_steps"
    stopped: bool = False

    async def start(self, clients: Sequence[Client], number: int) -> None:
        """One after the other, at the clients in turn. What is not answered in time may have begun."""
        while not self.stopped:
            number += 1
            try:
                self.acknowledged.append(await clients[number % len(clients)].start(self.definition))
            except Unavailable as refusal:
                self.refusals.append(refusal)
                await asyncio.sleep(LOOK_S)
            except DeadlineExceeded:
                pass
            await asyncio.sleep(WORK_S)

    async def more(self, count: int) -> None:
        """Until so many more starts are acknowledged."""
        wanted = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= wanted, f"{count} more starts acknowledged")


@contextlib.asynccontextmanager
async def loaded(addresses: Sequence[str], url: str, definition: str = "three_steps") -> AsyncIterator[Load]:
    """Load for the length of the block; then everything that was started has come to its end, once,
    and nothing is left of it."""
    load = Load(definition=definition)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(address, patience=0.0, timeout=START_TIMEOUT_S))
            for address in addresses
        ]
        await clients[0].register_workflows([THREE_STEPS, SUB, MIXED], overwrite="allow")
        handlers = [load.ledger.handler(step) for step in STEPS]
        await stack.enter_async_context(Worker(addresses, handlers, concurrency=32))
        starters = [asyncio.create_task(load.start(clients, number)) for number in range(IN_FLIGHT)]
        try:
            await load.more(20)
            yield load
        finally:
            load.stopped = True
            await asyncio.gather(*starters)
        await all_ended(url)
        await nothing_left(url)
    await all_completed(url, load.acknowledged)
    assert load.ledger.overlaps == []


@contextlib.asynccontextmanager
async def cluster(url: str, *faults: Faults | None) -> AsyncIterator[list[Server]]:
    """As many nodes in this process as faults are given."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for number, fault in enumerate(faults):
            config = Config(
                database_url=url,
                grpc_address="127.0.0.1:0",
                http_address="127.0.0.1:0",
                node_id=f"node-{number}",
                drain_ms=2_000,
            )
            nodes.append(await stack.enter_async_context(serving(config, SystemClock(), fault)))
        yield nodes


async def until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(LOOK_S / 4)


async def until_stored(url: str, query: str, *arguments: Any, deadline_s: float = DEADLINE_S) -> None:
    """Look until the query answers true."""
    deadline = time.monotonic() + deadline_s
    async with connected(url) as connection:
        while not await connection.fetchval(query, *arguments):
            assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {query} {arguments}"
            await asyncio.sleep(LOOK_S)


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def stored(url: str, query: str, *arguments: Any) -> Any:
    """The first column of the first row."""
    async with connected(url) as connection:
        return await connection.fetchval(query, *arguments)


async def all_ended(url: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait until no workflow runs any more; says what was the matter with those that do."""
    try:
        await until_stored(url, "SELECT count(*) = 0 FROM workflow WHERE status <= 2", deadline_s=deadline_s)
    except AssertionError as late:
        late.add_note(await _why(url))
        raise


async def nothing_left(url: str) -> None:
    """Wait until no queue row, deadline or message is left, and nothing is stuck or an orphan."""
    assert await stored(url, STUCK) == 0
    for table in ("task_queue", "deadline", "inbox"):
        await until_stored(url, f"SELECT count(*) = 0 FROM {table}")
    assert await stored(url, ORPHANS) == 0


async def all_completed(url: str, workflow_ids: Sequence[str]) -> None:
    """Each of these is COMPLETED, and no task of the whole database was tried twice."""
    async with connected(url) as connection:
        lost = await connection.fetch(
            "SELECT a.id, w.status FROM unnest($1::text[]::uuid[]) a(id) LEFT JOIN workflow w ON w.id = a.id"
            " WHERE w.status IS DISTINCT FROM 3",
            list(workflow_ids),
        )
        burnt = await connection.fetch(
            "SELECT workflow_id, seq, attempt, status, reason FROM task WHERE attempt > 0 OR status <> 3"
        )
    assert [dict(row) for row in lost] == []
    assert [dict(row) for row in burnt] == []


async def _why(url: str) -> str:
    """The rows of workflows that do not end."""
    async with connected(url) as connection:
        told = [f"stuck: {await connection.fetchval(STUCK)}"]
        queries = (
            "SELECT epoch, node_id, lease_until_ms FROM node",
            "SELECT session_id, epoch, state, expires_ms FROM session",
            "SELECT id, status, revision, open, last_node FROM workflow WHERE status <= 2 LIMIT 10",
            "SELECT workflow_id, seq, owner_epoch, session_id, delivery, unread, ended, deadline_ms"
            " FROM task_queue LIMIT 10",
            "SELECT * FROM deadline LIMIT 10",
            "SELECT workflow_id, id, kind, drain_epoch, parked, outcome FROM inbox LIMIT 10",
        )
        for query in queries:
            told += [query, *(str(dict(row)) for row in await connection.fetch(query))]
    return "\n".join(told)
