"""1,000 connected workers with nothing to do: statements a second, and memory for each."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil

from .report import Floor, at_most
from .stage import Load, Stage

NAME = "idle"
RUNS = 3
SECONDS = 15.0
WORKERS = 1_000
FLOORS: list[Floor] = [at_most("statements_per_s", 10), at_most("server_bytes_per_worker", 60_000)]


async def run(stage: Stage, seconds: float) -> dict[str, Any]:
    for node in stage.nodes:
        node.stop()
    stage.nodes.clear()
    node = await stage.node()
    await asyncio.sleep(3)
    server = psutil.Process(node.process.pid)
    before = server.memory_info().rss
    load = Load("idle", {"server": node.grpc, "workers": WORKERS})
    try:
        await load.line()
        await asyncio.sleep(5)
        grown = server.memory_info().rss - before
        calls, cpu = await _statements(stage), node.cpu_s()
        await asyncio.sleep(seconds)
        later, cpu_later = await _statements(stage), node.cpu_s()
    finally:
        load.stop()
    return {
        "statements_per_s": round((later - calls) / seconds, 2),
        "server_bytes_per_worker": round(grown / WORKERS),
        "server_cpu_percent": round(100 * (cpu_later - cpu) / seconds, 2),
    }


async def _statements(stage: Stage) -> int:
    """Transactions of this database: every statement of an idle server is one of its own."""
    await stage.pool.execute("SELECT pg_stat_force_next_flush()")
    return await stage.count(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    )
