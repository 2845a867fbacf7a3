"""What this machine can do at all, measured in the same run, so that machines compare by ratio."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
import time
from typing import Any

import asyncpg
import grpc
import grpc.aio

ECHO = "/bench.Echo/Call"
CALLS_IN_FLIGHT = 64
SECONDS = 3.0


def machine() -> dict[str, Any]:
    """What a reader needs to place the figures."""
    cpu = "unknown"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


async def measure(database_url: str) -> dict[str, float]:
    """The three figures, one after the other, with nothing else running."""
    return {
        "grpc_unary_calls_per_s": round(await _grpc_calls_per_s()),
        "pg_commits_per_s": round(await _commits_per_s(database_url)),
        "python_loop_s": round(_python_loop_s(), 4),
    }


async def _grpc_calls_per_s() -> float:
    """A bare grpc.aio echo of 300 bytes: server and client a process each, 64 calls in flight."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.calibration"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(ECHO)
            payload = b"x" * 300
            ends_at = time.perf_counter() + SECONDS

            async def caller() -> int:
                calls = 0
                while time.perf_counter() < ends_at:
                    await call(payload)
                    calls += 1
                return calls

            await call(payload)
            began_at = time.perf_counter()
            counts = await asyncio.gather(*(caller() for _ in range(CALLS_IN_FLIGHT)))
            return sum(counts) / (time.perf_counter() - began_at)
    finally:
        server.terminate()
        server.wait()


async def _commits_per_s(database_url: str) -> float:
    """Single-row inserts of 300 bytes, a commit each, on 8 connections."""
    pool = await asyncpg.create_pool(database_url, min_size=8, max_size=8)
    try:
        await pool.execute("CREATE TABLE IF NOT EXISTS bench_commit (body bytea NOT NULL)")
        body = b"x" * 300
        ends_at = time.perf_counter() + SECONDS

        async def writer() -> int:
            commits = 0
            async with pool.acquire() as connection:
                while time.perf_counter() < ends_at:
                    await connection.execute("INSERT INTO bench_commit VALUES ($1)", body)
                    commits += 1
            return commits

        began_at = time.perf_counter()
        counts = await asyncio.gather(*(writer() for _ in range(8)))
        return sum(counts) / (time.perf_counter() - began_at)
    finally:
        await pool.execute("DROP TABLE IF EXISTS bench_commit")
        await pool.close()


def _python_loop_s() -> float:
    """The best of five runs of a loop of integer and dict work."""
    best = float("inf")
    for _ in range(5):
        began_at = time.perf_counter()
        seen: dict[int, int] = {}
        for number in range(300_000):
            seen[number & 1023] = seen.get(number & 1023, 0) + number
        best = min(best, time.perf_counter() - began_at)
    return best


async def _serve() -> None:
    async def echo(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(echo)
    service, method = ECHO.strip("/").split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(_serve())
    except ImportError:
        asyncio.run(_serve())
