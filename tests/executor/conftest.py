"""An executor on a real database, with the engine and the evaluators, and no workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from maestoso_server.clock import SystemClock
from maestoso_server.engine.decision import Outcome
from maestoso_server.engine.events import Result
from maestoso_server.engine.state import TaskStatus
from maestoso_server.executor import Executor, Nowhere, Starter, StartRequest
from maestoso_server.executor.answers import Answers
from maestoso_server.executor.plans import Plans
from maestoso_server.payload import Json
from maestoso_server.scripting.pool import Evaluators
from maestoso_server.store import nodes
from maestoso_server.store.database import Database, Faults


@dataclass
class Engine:
    """One process's executor, and the questions that tests ask of its database."""

    database: Database
    clock: SystemClock
    executor: Executor
    starter: Starter
    evaluators: Evaluators
    epoch: int

    async def start(
        self, definition: dict[str, Any], input: dict[str, Any] | None = None, **more: Any
    ) -> str:
        """Start an inline definition; its workflow's id."""
        request = StartRequest(namespace="default", definition=definition, input=Json.of(input or {}), **more)
        (outcome,) = await self.starter.start([request])
        if outcome.error is not None:
            raise outcome.error
        return outcome.workflow_id

    async def report(
        self,
        workflow_id: str,
        reference: str,
        output: dict[str, Any] | None = None,
        *,
        status: TaskStatus = TaskStatus.COMPLETED,
    ) -> Outcome:
        """The result of the newest open attempt of a task, as its current delivery."""
        event = await self.result(workflow_id, reference, output, status=status)
        return await self.executor.apply(workflow_id, event)

    async def result(
        self,
        workflow_id: str,
        reference: str,
        output: dict[str, Any] | None = None,
        *,
        status: TaskStatus = TaskStatus.COMPLETED,
    ) -> Result:
        """What `report` reports."""
        row = await self.fetchrow(
            "SELECT t.seq, q.delivery FROM task t LEFT JOIN task_queue q USING (workflow_id, seq)"
            " WHERE t.workflow_id = $1 AND t.reference = $2 AND t.status <= 2 ORDER BY t.seq DESC LIMIT 1",
            workflow_id,
            reference,
        )
        assert row is not None, f"{reference} is not open"
        return Result(
            now_ms=self.clock.now_ms(),
            seq=row["seq"],
            delivery=row["delivery"],
            status=status,
            output=Json.of(output or {}),
        )

    async def ended(self, workflow_id: str) -> int:
        """The status of a workflow once it has ended."""
        ended = asyncio.Event()
        stop = self.executor.changes.subscribe(
            workflow_id, lambda header: ended.set() if header.status.terminal else None
        )
        try:
            if await self.status(workflow_id) <= 2:
                async with asyncio.timeout(20):
                    await ended.wait()
        finally:
            stop()
        return await self.status(workflow_id)

    async def fetchrow(self, query: str, *arguments: Any) -> Any:
        async with self.database.acquire() as connection:
            return await connection.fetchrow(query, *arguments)

    async def status(self, workflow_id: str) -> int:
        row = await self.fetchrow("SELECT status FROM workflow WHERE id = $1", workflow_id)
        return int(row["status"])

    async def output(self, workflow_id: str) -> Any:
        row = await self.fetchrow("SELECT output FROM workflow_payload WHERE workflow_id = $1", workflow_id)
        return Json(row["output"]).value


async def open_engine(url: str, *, faults: Faults | None = None) -> Engine:
    clock = SystemClock()
    database = await Database.open(url, clock=clock, faults=faults)
    evaluators = Evaluators(processes=1)
    await evaluators.start()
    plans = Plans(database=database, clock=clock)
    async with database.acquire() as connection:
        epoch = await nodes.new_epoch(connection)
        now_ms = clock.now_ms()
        await nodes.register(
            connection,
            nodes.NodeRow(
                epoch=epoch,
                node_id="test",
                grpc_address="127.0.0.1:1",
                http_address="127.0.0.1:2",
                version="0",
                started_ms=now_ms,
                lease_until_ms=now_ms + 3_600_000,
            ),
        )
    executor = Executor(
        database=database,
        clock=clock,
        plans=plans,
        answers=Answers(database=database, clock=clock, evaluators=evaluators, plans=plans),
        placement=Nowhere(),
        epoch=lambda: epoch,
    )
    starter = Starter(executor=executor, plans=plans, database=database, clock=clock)
    return Engine(database, clock, executor, starter, evaluators, epoch)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Engine]:
    made = await open_engine(database_url)
    yield made
    await made.executor.idle()
    await made.evaluators.stop()
    await made.database.close()
