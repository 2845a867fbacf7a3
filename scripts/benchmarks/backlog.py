"""Hand-out with 1,000,000 waiting tasks against an almost empty queue.

The backlog is filled by SQL: one-task workflows as a start writes them."""

from __future__ import annotations

import asyncio
from typing import Any

from .report import Floor, at_least
from .stage import Load, Stage, note, now_ms

NAME = "backlog"
RUNS = 1
SECONDS = 10.0
BACKLOG = 1_000_000
FEW = 30_000
OWNED = "SELECT FROM task_queue WHERE owner_epoch IS NOT NULL LIMIT 1"
FLOORS: list[Floor] = [at_least("handout_ratio_1m_vs_empty", 0.5)]


async def run(stage: Stage, seconds: float) -> dict[str, Any]:
    node = stage.nodes[0] if stage.nodes else await stage.node()
    small = await _rate(stage, node.grpc, FEW, seconds)
    await stage.pool.execute("TRUNCATE task_queue, task, workflow, workflow_payload")
    large = await _rate(stage, node.grpc, BACKLOG, seconds)
    return {
        "handout_ratio_1m_vs_empty": round(large / small, 3),
        "handout_per_s_empty": round(small),
        "handout_per_s_1m": round(large),
    }


async def _rate(stage: Stage, server: str, waiting: int, seconds: float) -> float:
    """Tasks a second handed out (and completed) while that many wait, until they or the time run out."""
    load = Load("backlog", {"server": server, "streams": 4, "prepare": True})
    try:
        snapshot_id = (await load.line())["snapshot_of"]
    finally:
        load.stop()
    began = now_ms()
    await _fill(stage, snapshot_id, waiting)
    note(f"  {waiting} waiting, filled in {(now_ms() - began) / 1000:.0f} s")
    load = Load("backlog", {"server": server, "streams": 4, "prepare": False})
    try:
        await load.line()
        asked_ms = now_ms()
        while not await stage.count(f"SELECT count(*) FROM ({OWNED}) owned") and now_ms() < asked_ms + 60_000:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        began_ms = now_ms()
        while now_ms() - began_ms < seconds * 1000:
            await asyncio.sleep(0.5)
            if waiting < BACKLOG and not await stage.count("SELECT count(*) FROM task_queue"):
                break
        ended_ms = now_ms()
        load.tell("stop")
        await load.line()
    finally:
        load.stop()
    done = await stage.pool.fetchrow(
        "SELECT count(*), min(ended_ms), max(ended_ms) FROM task"
        " WHERE status = 3 AND ended_ms >= $1 AND ended_ms < $2",
        began_ms,
        ended_ms,
    )
    return float(done[0]) / max((done[2] - done[1]) / 1000, 0.001)


async def _fill(stage: Stage, workflow_id: str, count: int) -> None:
    """Copies of a workflow that was started and waits, with ids of their own."""
    async with stage.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "CREATE TEMP TABLE copies ON COMMIT DROP AS"
            " SELECT md5('backlog' || n)::uuid AS id FROM generate_series(1, $1) n",
            count,
        )
        for table, key in (
            ("workflow", "id"),
            ("workflow_payload", "workflow_id"),
            ("task", "workflow_id"),
            ("task_queue", "workflow_id"),
        ):
            columns = await connection.fetch(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_name = $1 AND table_schema = current_schema() AND column_name <> $2"
                " ORDER BY ordinal_position",
                table,
                key,
            )
            names = ", ".join(f'"{row[0]}"' for row in columns)
            await connection.execute(
                f"INSERT INTO {table} ({key}, {names})"
                f" SELECT copies.id, {names} FROM copies, {table} WHERE {table}.{key} = $1",
                workflow_id,
                timeout=400,
            )
    # A backlog that has been there for a while: what the filling owes the disk is paid first.
    await stage.pool.execute("VACUUM ANALYZE task_queue, task, workflow, workflow_payload", timeout=300)
    await stage.pool.execute("CHECKPOINT", timeout=300)
