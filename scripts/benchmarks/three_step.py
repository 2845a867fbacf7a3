"""Three SIMPLE tasks in a row: one unary call per start at 64 and 256 in flight, then 50 starts a call."""

from __future__ import annotations

import asyncio
from typing import Any

from .report import Floor, at_least
from .stage import Load, Node, Stage, note, now_ms

NAME = "three_step"
RUNS = 3
SECONDS = 8.0
FLOORS: list[Floor] = [
    at_least("unary_tasks_per_s", 4_000, or_ratio=("grpc_unary_calls_per_s", 0.42)),
    at_least("batched_tasks_per_s", 10_000),
]
WARM_UP_S = 2.0


async def run(stage: Stage, seconds: float) -> dict[str, Any]:
    node = stage.nodes[0] if stage.nodes else await stage.node()
    figures: dict[str, Any] = {}
    unary = await _drive(stage, node, seconds, in_flight=64, starts_per_call=1)
    figures["unary_tasks_per_s"] = unary["tasks_per_s"]
    for part in ("server", "postgres", "load"):
        figures[f"cpu_us_per_task_{part}"] = unary[f"cpu_us_per_task_{part}"]
    wider = await _drive(stage, node, seconds, in_flight=256, starts_per_call=1)
    figures.update({f"{key}_256": value for key, value in wider.items() if key != "tasks_per_s"})
    figures["unary_tasks_per_s_256"] = wider["tasks_per_s"]
    batched = await _drive(stage, node, seconds, in_flight=1_000, starts_per_call=50)
    figures["batched_tasks_per_s"] = batched["tasks_per_s"]
    for part in ("server", "postgres", "load"):
        figures[f"cpu_us_per_task_{part}_batched"] = batched[f"cpu_us_per_task_{part}"]
    return figures


async def _drive(
    stage: Stage, node: Node, seconds: float, *, in_flight: int, starts_per_call: int
) -> dict[str, Any]:
    """Steady load for `seconds` after a warm-up; tasks are counted by their end in Postgres."""
    load = Load(
        "three_step",
        {"server": node.grpc, "in_flight": in_flight, "starts_per_call": starts_per_call, "streams": 4},
    )
    try:
        await load.line()
        await asyncio.sleep(WARM_UP_S)
        began_ms = now_ms()
        before = (node.cpu_s(), stage.postgres_cpu_s(), _cpu(load))
        await asyncio.sleep(seconds)
        after = (node.cpu_s(), stage.postgres_cpu_s(), _cpu(load))
        ended_ms = now_ms()
        load.tell("stop")
        await load.line()
    finally:
        load.stop()
    tasks = await stage.count(
        "SELECT count(*) FROM task WHERE status = 3 AND ended_ms >= $1 AND ended_ms < $2", began_ms, ended_ms
    )
    rate = tasks / ((ended_ms - began_ms) / 1000)
    note(f"  {in_flight} in flight, {starts_per_call} a call: {rate:.0f} tasks/s")
    used = [round((late - early) * 1e6 / max(tasks, 1), 1) for early, late in zip(before, after, strict=True)]
    return {
        "tasks_per_s": round(rate),
        "cpu_us_per_task_server": used[0],
        "cpu_us_per_task_postgres": used[1],
        "cpu_us_per_task_load": used[2],
    }


def _cpu(load: Load) -> float:
    from .stage import cpu_s

    return cpu_s(load.process.pid)
