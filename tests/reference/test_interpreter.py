"""The engine and the reference interpreter come to the same tasks, whatever happens in whatever order.

Each property draws a document, its task definitions, how the engine is run (views partial or whole,
decisions bounded or not) and what happens, one thing after another: results, lost workers' time-outs,
clocks. Engine and interpreter are told the same and compared after each, and in full at the end.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from .documents import CONTAINERS, INPUT, LEAVES, cases
from .interpreter import Task
from .pair import STEPS_MAX, Pair

EXAMPLES = {"ordinary": 300, "nightly": 4000}[os.environ.get("MAESTOSO_HYPOTHESIS_PROFILE", "ordinary")]
"""For each of the properties here."""
COMMON = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
OUTCOMES = ("COMPLETED", "COMPLETED", "COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR", "CANCELED")
OUTPUTS = ({"value": 1}, {"value": 2, "more": [1.0, None]}, {})
SIMPLE_KINDS = ("simple", "simple", "inline")

pytestmark = [pytest.mark.timeout(1800), pytest.mark.covers("M.7", "M.8", "M.9")]


class Player:
    """Makes things happen until nothing is left to happen. Outcomes are drawn once for each task."""

    def __init__(self, data: Any, pair: Pair) -> None:
        self.data = data
        self.pair = pair
        self.postponed: set[str] = set()

    def play(self) -> None:
        pair = self.pair
        for _ in range(STEPS_MAX):
            pair.compare()
            model = pair.model
            answers = [task for task in model.ready() if task.started_ms is None] + model.waiting()
            timers = model.timers()
            delayed = [task.available_ms for task in model.open() if task.available_ms > model.now_ms]
            soonest = min([*(due for due, _ in timers), *delayed], default=0)
            struck = [what for due, what in timers if due == soonest]
            if not answers and not soonest:
                break
            choice = self.choose(len(answers), max(len(struck), 1 if soonest else 0))
            if choice < len(answers):
                self.answer(answers[choice])
            elif struck:
                pair.tick(soonest, struck[choice - len(answers)])
            else:
                pair.pass_time(soonest)
        pair.compare_all()

    def choose(self, answers: int, clocks: int) -> int:
        chosen: int = self.data.draw(st.integers(0, answers + clocks - 1), label="next")
        return chosen

    def answer(self, task: Task) -> None:
        worker = task.run.queued(task)
        more = ("taken",) + (() if task.id in self.postponed else ("postponed",))
        status = self.data.draw(st.sampled_from((*OUTCOMES, *(more if worker else ()))), label=task.id)
        if status == "taken":
            self.pair.take(task)
        elif status == "postponed":
            self.postponed.add(task.id)
            self.pair.postpone(task, 10)
        elif status == "COMPLETED":
            self.pair.answer(task, status, self.data.draw(st.sampled_from(OUTPUTS)), None)
        else:
            self.pair.answer(task, status, {"value": 0}, "no luck")


class Lucky(Player):
    """Nothing fails for good and no clock is waited for while there is something to do."""

    def __init__(self, data: Any, pair: Pair, outcomes: dict[str, tuple[bool, Any]]) -> None:
        super().__init__(data, pair)
        self.outcomes = outcomes

    def choose(self, answers: int, clocks: int) -> int:
        chosen: int = self.data.draw(st.integers(0, (answers or clocks) - 1), label="next")
        return chosen

    def answer(self, task: Task) -> None:
        if task.id not in self.outcomes:
            again = task.run.retries(task) > task.attempt
            fails = again and self.data.draw(st.booleans(), label=f"{task.id} fails")
            self.outcomes[task.id] = fails, self.data.draw(st.sampled_from(OUTPUTS), label=task.id)
        fails, output = self.outcomes[task.id]
        self.pair.answer(task, "FAILED" if fails else "COMPLETED", output, "no luck" if fails else None)


def made(data: Any, case: Any) -> Pair:
    document, children, policies = case
    partial = data.draw(st.booleans(), label="partial")
    # A child that ends at once may be heard of before the rest of a bounded decision of its parent is done.
    bounded = not any(word in str(document) for word in ("subWorkflowParam", "forkTaskWorkflow"))
    rows_max = data.draw(st.sampled_from((500, 2, 7) if bounded else (500,)), label="rows_max")
    return Pair(document, children, policies, INPUT, partial=partial, rows_max=rows_max)


def same(data: Any, kinds: tuple[str, ...], depth: int = 2) -> None:
    pair = made(data, data.draw(cases(kinds, depth), label="case"))
    try:
        Player(data, pair).play()
    finally:
        note("\n".join((*pair.history, *pair.engine.history)))


@COMMON
@given(st.data())
@pytest.mark.covers("M.2", "K1", "K2", "K3", "K4", "K7", "K26", "K27")
def test_sequence(data: Any) -> None:
    same(data, LEAVES, 0)


@COMMON
@given(st.data())
@pytest.mark.covers("K20")
def test_switch(data: Any) -> None:
    same(data, (*LEAVES, "switch", "decision"))


@COMMON
@given(st.data())
@pytest.mark.covers("K21")
def test_fork(data: Any) -> None:
    same(data, (*SIMPLE_KINDS, "wait", "fork"))


@COMMON
@given(st.data())
@pytest.mark.covers("K22", "K23")
def test_dynamic_fork(data: Any) -> None:
    same(data, (*SIMPLE_KINDS, "same", "different", "child"))


@COMMON
@given(st.data())
@pytest.mark.covers("K5", "K24")
def test_loop(data: Any) -> None:
    same(data, (*SIMPLE_KINDS, "variable", "loop", "list"))


@COMMON
@given(st.data())
@pytest.mark.covers("K25")
def test_sub_workflow(data: Any) -> None:
    same(data, (*LEAVES, "child"))


@COMMON
@given(st.data())
@pytest.mark.covers("M.1")
def test_everything(data: Any) -> None:
    same(data, (*LEAVES, *CONTAINERS), 3)


@COMMON
@given(st.data())
def test_the_order_of_results_changes_nothing(data: Any) -> None:
    """Where nothing fails for good: then no task's end cuts another one short."""
    kinds = (*SIMPLE_KINDS, "noop", "switch", "fork", "different", "loop", "list")
    case = data.draw(cases(kinds, failing=False), label="case")
    outcomes: dict[str, tuple[bool, Any]] = {}
    seen = []
    for _ in range(2):
        pair = made(data, case)
        try:
            Lucky(data, pair, outcomes).play()
        finally:
            note("\n".join((*pair.history, *pair.engine.history)))
        (run,) = pair.model_runs()
        seen.append((run["status"], run["tasks"]))
    assert seen[0] == seen[1]
