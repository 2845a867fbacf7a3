"""A worker's stream through a proxy that cuts it, or swallows what it should pass on: nothing is stranded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from maestoso import Client, TaskContext, Worker, worker
from maestoso_server.clock import SystemClock
from maestoso_server.config import Config
from maestoso_server.server import Server
from servers import serving

DEADLINE_S = 45.0
COMPLETED = 3
TASKS = [{"name": "work", "taskReferenceName": f"work_{number}", "type": "SIMPLE"} for number in range(3)]


@dataclass
class Proxy:
    """Passes bytes on to `target`. `cut` closes every connection, `mute` makes the present ones silent."""

    target: str = ""
    address: str = ""
    pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = field(default_factory=list)
    muted: set[asyncio.StreamWriter] = field(default_factory=set)
    pumps: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        there, out = await asyncio.open_connection(host, int(port))
        self.pairs.append((writer, out))
        for source, sink in ((reader, out), (there, writer)):
            pump = asyncio.create_task(self.pump(source, sink))
            self.pumps.add(pump)
            pump.add_done_callback(self.pumps.discard)

    async def pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                if sink not in self.muted:
                    sink.write(data)
                    await sink.drain()
        sink.close()

    def cut(self) -> None:
        for pair in self.pairs:
            for writer in pair:
                writer.transport.abort()
        self.pairs.clear()

    def mute(self) -> None:
        for pair in self.pairs:
            self.muted.update(pair)


@contextlib.asynccontextmanager
async def behind_a_proxy(database_url: str) -> AsyncIterator[tuple[Proxy, Server]]:
    """A server that tells workers the proxy's address as its own."""
    proxy = Proxy()
    listener = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    config = Config(
        database_url=database_url,
        grpc_address="127.0.0.1:0",
        http_address="127.0.0.1:0",
        advertise_address=proxy.address,
    )
    try:
        async with serving(config, SystemClock()) as server:
            proxy.target = server.grpc_address
            yield proxy, server
    finally:
        proxy.cut()
        listener.close()


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
