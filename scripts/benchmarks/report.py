"""Medians, floors and the one JSON object on stdout."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Floor:
    """What a figure must reach. `at_least` or at most; `or_ratio` names (calibration key, factor): the
    figure may also be met relative to what the machine can do."""

    key: str
    value: float
    at_least: bool
    or_ratio: tuple[str, float] | None = None


def at_least(key: str, value: float, *, or_ratio: tuple[str, float] | None = None) -> Floor:
    return Floor(key, value, True, or_ratio)


def at_most(key: str, value: float) -> Floor:
    return Floor(key, value, False)


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of every numeric key over the runs that have it."""
    keys = {key: None for run in runs for key in run}
    return {
        key: round(statistics.median([run[key] for run in runs if key in run]), 3)
        for key in keys
        if all(isinstance(run.get(key, 0), int | float) for run in runs)
    }


def worst(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The largest of every key: for counts that must be zero and for worst cases."""
    keys = {key: None for run in runs for key in run}
    return {key: max(run[key] for run in runs if key in run) for key in keys}


def hold(
    floors: Sequence[Floor], results: dict[str, Any], calibration: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """Each floor with the figure and whether it is met; a missing figure is not."""
    held: dict[str, dict[str, Any]] = {}
    for floor in floors:
        figure = results.get(floor.key)
        bar = floor.value
        if floor.or_ratio is not None:
            bar = min(bar, calibration[floor.or_ratio[0]] * floor.or_ratio[1])
        met = figure is not None and (figure >= bar if floor.at_least else figure <= bar)
        held[floor.key] = {"floor": round(bar, 3), "value": figure, "met": met}
    return held


def publish(
    scenario: str,
    machine: dict[str, Any],
    calibration: dict[str, float],
    runs: Sequence[dict[str, Any]],
    floors: Sequence[Floor],
    combine: Callable[[Sequence[dict[str, Any]]], dict[str, Any]] = medians,
) -> int:
    """Print the object; 0 where every floor is met, else 1."""
    results = combine(runs)
    held = hold(floors, results, calibration)
    json.dump(
        {
            "scenario": scenario,
            "machine": machine,
            "calibration": calibration,
            "runs": list(runs),
            "results": results,
            "floors": held,
        },
        sys.stdout,
        indent=2,
    )
    print()
    return 0 if all(floor["met"] for floor in held.values()) else 1
