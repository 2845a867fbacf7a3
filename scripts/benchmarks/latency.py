"""One workflow at a time: from one handler to the next, and from the start call to the end."""

from __future__ import annotations

from typing import Any

from .report import Floor, at_most
from .stage import Load, Stage

NAME = "latency"
RUNS = 3
SECONDS = 8.0
FLOORS: list[Floor] = [at_most("step_ms_p50", 2), at_most("step_ms_p99", 10)]


async def run(stage: Stage, seconds: float) -> dict[str, Any]:
    node = stage.nodes[0] if stage.nodes else await stage.node()
    load = Load("latency", {"server": node.grpc, "seconds": seconds, "streams": 4})
    try:
        return await load.line(seconds + 60)
    finally:
        load.stop()
