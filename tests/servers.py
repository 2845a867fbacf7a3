"""The whole server inside a test's process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from maestoso_server.clock import Clock
from maestoso_server.config import Config
from maestoso_server.server import Server
from maestoso_server.store.database import Faults


@asynccontextmanager
async def serving(config: Config, clock: Clock, faults: Faults | None = None) -> AsyncIterator[Server]:
    """A server for the length of the block. Several on one database are several nodes."""
    server = Server(config, clock=clock, faults=faults)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
