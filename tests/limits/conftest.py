"""Two nodes on one database, on time that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from maestoso.admin.v1 import admin_pb2, admin_service_pb2
from maestoso.admin.v1.admin_service_pb2_grpc import AdminServiceStub
from maestoso_server.clock import ManualClock
from maestoso_server.config import Config
from maestoso_server.server import Server
from maestoso_server.store.database import Faults
from servers import serving
from worker_kit import DEADLINE_S, Caller, calling

START_MS = 1_750_000_000_000


@dataclass
class Nodes:
    """Nodes that share a clock and a database."""

    database_url: str
    stack: AsyncExitStack
    conn: Any
    clock: ManualClock = field(default_factory=lambda: ManualClock(START_MS))
    servers: list[Server] = field(default_factory=list)

    async def node(self, faults: Faults | None = None) -> Caller:
        config = Config(
            http_tasks=False,  # its HTTP tasks are for the tests' own workers
            database_url=self.database_url,
            grpc_address="127.0.0.1:0",
            http_address="127.0.0.1:0",
            drain_ms=1_000,
        )
        server = await self.stack.enter_async_context(serving(config, self.clock, faults))
        self.servers.append(server)
        return await self.stack.enter_async_context(calling(server.grpc_address))

    async def start(self, caller: Caller, name: str = "chain", **fields: Any) -> str:
        """A start a millisecond after whatever came before it."""
        self.clock.advance(1)
        return await caller.start(name, **fields)

    async def value(self, query: str, *arguments: Any) -> Any:
        return await self.conn.fetchval(query, *arguments)

    async def until(self, look: Callable[[], Awaitable[Any]], wanted: Any) -> None:
        """Wait until it is so, on time that stands still."""
        async with asyncio.timeout(DEADLINE_S):
            while await look() != wanted:
                await self.conn.fetchval("SELECT 1")

    async def advance_until(
        self, look: Callable[[], Awaitable[Any]], wanted: Any, step_ms: int = 100
    ) -> None:
        """Let time pass in steps until it is so; each takes as long as some statements."""
        async with asyncio.timeout(DEADLINE_S):
            while await look() != wanted:
                self.clock.advance(step_ms)
                await self.beaten()

    async def rest(self) -> None:
        """As long as some statements take."""
        for _ in range(10):
            await self.conn.fetchval("SELECT 1")

    async def advance(self, ms: int) -> None:
        """Let so much time pass, in steps in which the nodes keep their leases."""
        while ms > 0:
            step = min(ms, 500)
            self.clock.advance(step)
            ms -= step
            await self.beaten()

    async def beaten(self) -> None:
        """Return when every node has beaten within the last second."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.value("SELECT min(lease_until_ms) FROM node") < self.clock.now_ms() + 2_999:
                pass
        await self.rest()

    async def explain(self, caller: Caller, workflow_id: str) -> admin_pb2.Explanation:
        request = admin_service_pb2.ExplainWorkflowRequest(workflow_id=workflow_id)
        response = await AdminServiceStub(caller.channel).ExplainWorkflow(request, timeout=DEADLINE_S)  # type: ignore[misc]
        return response.explanation  # type: ignore[no-any-return]


@pytest.fixture
async def nodes(database_url: str) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        conn = await asyncpg.connect(database_url)
        stack.push_async_callback(conn.close)
        yield Nodes(database_url, stack, conn)
