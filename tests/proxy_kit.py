"""A server behind a TCP proxy that tests can cut or silence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from maestoso_server.clock import SystemClock
from maestoso_server.config import Config
from maestoso_server.server import Server
from servers import serving


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
