"""`python -m benchmarks SCENARIO`: see `scripts/bench`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import time
from typing import Any

from . import calibration, report
from .stage import Stage, note

LIMIT_S = 290.0
"""No further run is begun that would not end by then (a slow disk makes a run of `loop` long)."""
SCENARIOS = (
    "three_step",
    "latency",
    "fork",
    "loop",
    "idle",
    "backlog",
    "timers",
    "limited",
    "crash",
    "search",
)


async def bench(name: str, seconds: float | None, database_url: str | None, runs: int | None) -> int:
    """Run a scenario and print its report; 0 where every floor is met."""
    scenario = importlib.import_module(f"benchmarks.{name}")
    figures: list[dict[str, Any]] = []
    began = time.monotonic()
    async with Stage(database_url) as stage:
        note("calibrating")
        calibrated = await calibration.measure(stage.url)
        count = scenario.RUNS if runs is None else runs
        for number in range(1, count + 1):
            note(f"{name}: run {number} of {count}")
            run_began = time.monotonic()
            figures.append(await scenario.run(stage, scenario.SECONDS if seconds is None else seconds))
            ends_at = time.monotonic() + (time.monotonic() - run_began)
            if number < count and ends_at - began > LIMIT_S:
                note(f"{name}: no time for run {number + 1}: a scenario ends within {LIMIT_S:.0f} s")
                break
    combine = report.worst if name == "crash" else report.medians
    return report.publish(name, calibration.machine(), calibrated, figures, scenario.FLOORS, combine)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument(
        "--seconds", type=float, help="length of each measured window; default: the scenario's"
    )
    parser.add_argument("--database-url", help="a Postgres to use instead of the embedded one")
    parser.add_argument("--runs", type=int, help="how many runs; default: the scenario's")
    chosen = parser.parse_args()
    return asyncio.run(bench(chosen.scenario, chosen.seconds, chosen.database_url, chosen.runs))


if __name__ == "__main__":
    sys.exit(main())
