"""Every way to run again what failed, at every level, in every shape: the end is that of a fresh run."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Event, Rerun, Restart, Retry

from .families import LEVELS, SHAPES, Family

FAILED_TASK = {"root": "root_call", "middle": "middle_call", "leaf": "leaf_second"}
ACTIONS = ("retry", "retry_resume", "rerun", "rerun_from_task", "restart")


def command(family: Family, action: str, level: str) -> Event:
    world = family.world
    now = world.now_ms
    if action.startswith("retry"):
        return Retry(now_ms=now, resume_children=action == "retry_resume")
    if action == "restart":
        return Restart(now_ms=now)
    if action == "rerun":
        return Rerun(now_ms=now)
    rows = world.rows(family.members()[level])
    failed = [row for row in rows if row.reference == FAILED_TASK[level]][-1]
    return Rerun(now_ms=now, seq=failed.seq)


@pytest.mark.parametrize("ends", [True, False], ids=["task_last", "construct_last"])
@pytest.mark.parametrize("narrow", [False, True], ids=["whole", "narrow"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("action", ACTIONS)
def test_the_end_is_that_of_a_fresh_run(
    action: str, level: str, shape: str, narrow: bool, ends: bool
) -> None:
    bounds: dict[str, Any] = {"partial": True, "rows_max": 3} if narrow else {}
    fresh = Family(shape, ends=ends, **bounds)
    fresh.broken = False
    fresh.work()
    assert fresh.world.status(fresh.root) == "COMPLETED"

    family = Family(shape, ends=ends, **bounds)
    family.work()
    world = family.world
    before = family.members()
    assert {world.status(workflow) for workflow in before.values()} == {"FAILED"}
    kept = {workflow: dict(world.workflows[workflow].rows) for workflow in before.values()}

    (outcome,) = world.happen(before[level], command(family, action, level))
    assert outcome.verdict == Verdict.APPLIED
    above = LEVELS[: LEVELS.index(level) + 1]
    assert [world.status(before[name]) for name in above] == ["RUNNING"] * len(above)
    family.broken = False
    family.work()

    assert [world.status(before[name]) for name in above] == ["COMPLETED"] * len(above)
    assert family.output() == fresh.output()
    for workflow, rows in kept.items():
        assert rows.keys() <= world.workflows[workflow].rows.keys(), "old attempts are gone"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("narrow", [False, True], ids=["whole", "narrow"])
def test_rerun_from_any_task_of_a_completed_run_ends_as_that_run(shape: str, narrow: bool) -> None:
    bounds: dict[str, Any] = {"partial": True, "rows_max": 3} if narrow else {}
    first = Family(shape, **bounds)
    first.broken = False
    first.work()
    for level in LEVELS:
        count = len(first.world.rows(first.members()[level]))
        for place in range(count):
            family = Family(shape, **bounds)
            family.broken = False
            family.work()
            workflow = family.members()[level]
            row = family.world.rows(workflow)[place]
            (outcome,) = family.world.happen(workflow, Rerun(now_ms=family.world.now_ms, seq=row.seq))
            assert outcome.verdict == Verdict.APPLIED, (row.reference, outcome)
            family.work()
            assert family.world.status(family.root) == "COMPLETED", family.world.history[-30:]
            assert family.output() == first.output(), (row.reference, row.path)
            assert without_path(family, workflow) == without_path(first, first.members()[level])


def without_path(family: Family, workflow: str) -> set[str]:
    return set(family.world.shown(workflow))
