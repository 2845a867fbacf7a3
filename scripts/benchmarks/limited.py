"""A queue with `concurrentExecLimit` 50: how fast, and was the limit ever broken?"""

from __future__ import annotations

import asyncio
from typing import Any

from .report import Floor, at_least, at_most
from .stage import Load, Stage, now_ms

NAME = "limited"
RUNS = 3
SECONDS = 8.0
LIMIT = 50
FLOORS: list[Floor] = [at_least("tasks_per_s", 1_000), at_most("over_admitted", 0)]


async def run(stage: Stage, seconds: float) -> dict[str, Any]:
    node = stage.nodes[0] if stage.nodes else await stage.node()
    load = Load("limited", {"server": node.grpc, "streams": 4, "limit": LIMIT, "in_flight": 400})
    try:
        await load.line()
        await asyncio.sleep(2)
        began_ms = now_ms()
        await asyncio.sleep(seconds)
        ended_ms = now_ms()
        load.tell("stop")
        told = await load.line()
    finally:
        load.stop()
    tasks = await stage.count(
        "SELECT count(*) FROM task WHERE status = 3 AND ended_ms >= $1 AND ended_ms < $2", began_ms, ended_ms
    )
    return {
        "tasks_per_s": round(tasks / ((ended_ms - began_ms) / 1000)),
        "over_admitted": max(0, told["most_at_once"] - LIMIT),
        "most_at_once": told["most_at_once"],
    }
