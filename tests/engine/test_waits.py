"""WAIT, HUMAN and signals, early ones too."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Restart, Signal
from maestoso_server.engine.state import TaskStatus
from maestoso_server.payload import Json

from .harness import START_MS, World, flow, loop, simple, task

COMPLETED = TaskStatus.COMPLETED


def signal(world: World, workflow: str, reference: str | None, output: Any = None, **more: Any) -> Any:
    event = Signal(
        now_ms=world.now_ms,
        reference=reference,
        output=Json.of(output or {}),
        **{"status": COMPLETED, **more},
    )
    return world.happen(workflow, event)[0]


@pytest.mark.covers("K31", "B36")
@pytest.mark.parametrize(
    "inputs", [{"duration": "90 seconds"}, {"duration": "1m 30s"}, {"until": "2023-11-14 22:14:50 GMT"}]
)
def test_a_wait_ends_to_the_second(inputs: dict[str, str]) -> None:
    world = World(flow(task("WAIT", "w", inputs), simple("after")))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["w:IN_PROGRESS"]
    world.advance(89)
    assert world.shown(workflow) == ["w:IN_PROGRESS"]
    world.advance(1)
    assert world.shown(workflow) == ["w:COMPLETED", "after:SCHEDULED"]
    assert world.row(workflow, "w").ended_ms == START_MS + 90_000


def test_a_time_in_the_past_is_over_at_once() -> None:
    world = World(flow(task("WAIT", "w", {"until": "2001-01-01 00:00"}), simple("after")))
    assert world.shown(world.start("flow")) == ["w:COMPLETED", "after:SCHEDULED"]


@pytest.mark.covers("K31", "B1")
@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"duration": "soon"}, "Invalid/Unsupported Wait duration.  Provided: soon"),
        ({"until": "later"}, "Invalid/Unsupported Wait Until format.  Provided: later"),
        ({"duration": "1s", "until": "2024-01-01"}, "Both 'duration' and 'until' specified."),
    ],
)
def test_a_wait_without_meaning_fails_for_good(inputs: dict[str, str], reason: str) -> None:
    world = World(flow(task("WAIT", "w", inputs, retryCount=3)))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["w:FAILED_WITH_TERMINAL_ERROR"]
    assert (world.row(workflow, "w").reason or "").startswith(reason)


@pytest.mark.parametrize("kind", ["WAIT", "HUMAN"])
@pytest.mark.parametrize("reference", ["w", None])
def test_a_signal_ends_what_waits(kind: str, reference: str | None) -> None:
    world = World(flow(task(kind, "w"), simple("after", {"told": "${w.output.x}"})))
    workflow = world.start("flow")
    assert signal(world, workflow, reference, {"x": 1}).verdict == Verdict.APPLIED
    assert world.row(workflow, "after").input.value == {"told": 1}
    assert signal(world, workflow, "w").verdict == Verdict.STALE


def test_a_signal_can_fail_what_waits_or_add_to_its_output() -> None:
    world = World(flow(task("HUMAN", "h")))
    workflow = world.start("flow")
    signal(world, workflow, "h", {"x": 1}, status=TaskStatus.IN_PROGRESS)
    signal(world, workflow, "h", {"y": 2}, status=TaskStatus.FAILED, reason="refused")
    assert world.output(workflow, "h") == {"x": 1, "y": 2}
    assert (world.status(workflow), world.row(workflow, "h").reason) == ("FAILED", "refused")


def test_an_early_signal_waits_for_its_task() -> None:
    world = World(
        flow(simple("a"), task("WAIT", "w", {"duration": "1h"}), task("HUMAN", "h"), simple("after"))
    )
    workflow = world.start("flow")
    assert signal(world, workflow, "h", {"who": "h"}).verdict == Verdict.PARKED
    assert signal(world, workflow, "w", {"who": "w"}).verdict == Verdict.PARKED
    assert len(world.workflows[workflow].parked) == 2
    world.result(workflow, "a")
    assert (world.output(workflow, "w"), world.output(workflow, "h")) == ({"who": "w"}, {"who": "h"})
    assert not world.workflows[workflow].parked
    assert world.shown(workflow)[-1] == "after:SCHEDULED"
    assert world.header(workflow).cursor is None


def test_early_signals_of_a_loop_are_used_one_a_turn() -> None:
    world = World(flow(simple("a"), loop("l", [task("WAIT", "w")], 3)))
    workflow = world.start("flow")
    for number in (1, 2):
        assert signal(world, workflow, "w", {"n": number}).verdict == Verdict.PARKED
    world.result(workflow, "a")
    assert [world.output(workflow, f"w__{turn}") for turn in (1, 2)] == [{"n": 1}, {"n": 2}]
    assert world.row(workflow, "w__3").status == TaskStatus.IN_PROGRESS
    signal(world, workflow, "w", {"n": 3})
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("nobody", "the definition has no task nobody"),
        ("a", "task a is a SIMPLE: only WAIT and HUMAN take signals"),
        (None, "no task waits for a signal"),
    ],
)
def test_a_signal_that_nobody_can_ever_take_is_refused(reference: str | None, why: str) -> None:
    world = World(flow(simple("a"), task("WAIT", "w")))
    workflow = world.start("flow")
    outcome = signal(world, workflow, reference)
    assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, why)
    assert not world.workflows[workflow].parked


def test_an_early_signal_outlives_a_restart() -> None:
    world = World(flow(simple("a"), task("WAIT", "w")))
    workflow = world.start("flow")
    signal(world, workflow, "w", {"n": 1})
    world.result(workflow, "a", status=TaskStatus.FAILED)
    world.happen(workflow, Restart(now_ms=world.now_ms))
    world.result(workflow, "a")
    assert (world.status(workflow), world.output(workflow)) == ("COMPLETED", {"n": 1})


def test_no_signal_asks_the_store_for_parked_ones() -> None:
    world = World(flow(task("WAIT", "w")), partial=True)
    world.start("flow")
    assert not [need for need in world.needs_asked if type(need).__name__ == "ParkedSignals"]
