"""A dynamic fork, one at a time: what a branch of 10,000 costs against a branch of 100."""

from __future__ import annotations

from typing import Any

from .report import Floor, at_most
from .stage import Load, Stage

NAME = "fork"
RUNS = 3
SECONDS = 0.0
FLOORS: list[Floor] = [at_most("cost_ratio_10000_vs_100", 1.5), at_most("start_call_ms", 500)]


async def run(stage: Stage, seconds: float) -> dict[str, Any]:
    node = stage.nodes[0] if stage.nodes else await stage.node()
    load = Load("fork", {"server": node.grpc, "streams": 4, "small": 100, "large": 10_000, "repeats": 30})
    try:
        return await load.line(240)
    finally:
        load.stop()
