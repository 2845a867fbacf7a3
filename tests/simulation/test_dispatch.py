"""Dispatch under faults, in the order of a seed. A failure prints the seed: `--seed N` repeats it."""

from __future__ import annotations

from random import SystemRandom

import pytest

from simulation.world import Broken, World

SEEDS = 40
"""Worlds of one run; each takes some 0.1 s."""


def live(seed: int, **size: int) -> World:
    world = World(seed, **size)
    try:
        world.run()
    except Exception as error:
        told = "\n".join(world.story[-60:])
        raise Broken(f"seed {seed} ({size}): {error}\n{told}") from error
    return world


@pytest.fixture(scope="module")
def seeds(pytestconfig: pytest.Config) -> list[int]:
    given = pytestconfig.getoption("--seed")
    if given is not None:
        return [int(given)]
    draw = SystemRandom()
    return [draw.randrange(1 << 32) for _ in range(SEEDS)]


@pytest.mark.simulation
def test_without_faults_every_attempt_runs_once(seeds: list[int]) -> None:
    for seed in seeds[:5]:
        world = live(seed, faults_ms=2)

        assert world.burnt == 0


@pytest.mark.simulation
def test_two_nodes_with_faults(seeds: list[int]) -> None:
    for seed in seeds:
        live(seed)


@pytest.mark.simulation
def test_three_nodes_and_a_limit(seeds: list[int]) -> None:
    for seed in seeds[: SEEDS // 2]:
        live(seed, nodes=3, workers=4, limit=2)
