"""A DO_WHILE of 10,000 iterations: what the last ones cost against the first, with keepLastN and without.

Mean time of the last 1,000 iterations over that of iterations 101 to 1,100, by the worker's clock."""

from __future__ import annotations

from typing import Any

from .report import Floor, at_most
from .stage import Load, Stage

NAME = "loop"
RUNS = 3
SECONDS = 0.0
FLOORS: list[Floor] = [at_most("cost_ratio_keep", 1.5), at_most("cost_ratio_all", 1.5)]
ITERATIONS = 10_000


async def run(stage: Stage, seconds: float) -> dict[str, Any]:
    node = stage.nodes[0] if stage.nodes else await stage.node()
    figures: dict[str, Any] = {}
    for key, keep in (("keep", 10), ("all", 0)):
        load = Load("loop", {"server": node.grpc, "iterations": ITERATIONS, "keep_last_n": keep})
        try:
            told = await load.line(240)
        finally:
            load.stop()
        figures[f"cost_ratio_{key}"] = told["cost_ratio"]
        figures[f"iteration_ms_{key}"] = told["iteration_ms"]
    return figures
