"""The engine and the reference interpreter come to the same tasks, whatever happens in whatever order."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from .documents import CONTAINERS, INPUT, LEAVES, cases
from .interpreter import Task
from .pair import STEPS_MAX, Pair

COMMON = settings(
    max_examples=int(os.environ.get("EX", "100")), deadline=None, suppress_health_check=list(HealthCheck)
)
OUTCOMES = ("COMPLETED", "COMPLETED", "COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR", "CANCELED")
OUTPUTS = ({"value": 1}, {"value": 2, "more": [1.0, None]}, {})


def play(data: Any, pair: Pair) -> None:
    """Whatever can happen next, one thing after another, until nothing is left."""
    postponed: set[str] = set()
    for _ in range(STEPS_MAX):
        pair.compare()
        model = pair.model
        answers = [task for task in model.ready() if task.started_ms is None]
        answers += [
            task
            for run in model.runs
            for task in run.tasks
            if task.type in ("WAIT", "HUMAN") and task.status == "IN_PROGRESS"
        ]
        timers = model.timers()
        soonest = min((due for due, _ in timers), default=0)
        struck = [what for due, what in timers if due == soonest]
        if not answers and not struck:
            break
        choice = data.draw(st.integers(0, len(answers) + len(struck) - 1), label="next")
        if choice >= len(answers):
            pair.tick(soonest, struck[choice - len(answers)])
            continue
        _answer(data, pair, answers[choice], postponed)
    pair.compare_all()


def _answer(data: Any, pair: Pair, task: Task, postponed: set[str]) -> None:
    worker = task.run.queued(task)
    more = ("taken",) + (() if task.id in postponed else ("postponed",))
    status = data.draw(st.sampled_from((*OUTCOMES, *(more if worker else ()))), label=task.id)
    if status == "taken":
        pair.take(task)
    elif status == "postponed":
        postponed.add(task.id)
        pair.postpone(task, 10)
    elif status == "COMPLETED":
        pair.answer(task, status, data.draw(st.sampled_from(OUTPUTS)), None)
    else:
        pair.answer(task, status, {"value": 0}, "no luck")


def same(data: Any, kinds: tuple[str, ...], depth: int = 2) -> None:
    document, children, policies = data.draw(cases(kinds, depth), label="case")
    partial = data.draw(st.booleans(), label="partial")
    # What is too much for one decision goes on in the next; a child may end between the two, and
    # then there is more than one right answer.
    rows_max = data.draw(st.sampled_from((500,) if "SUB_WORKFLOW" in str(document) else (500, 2)))
    pair = Pair(document, children, policies, INPUT, partial=partial, rows_max=rows_max)
    try:
        play(data, pair)
    finally:
        note("\n".join(pair.history))
        note("\n".join(pair.engine.history))


@COMMON
@given(st.data())
def test_sequence(data: Any) -> None:
    same(data, LEAVES, 0)


@COMMON
@given(st.data())
def test_switch(data: Any) -> None:
    same(data, (*LEAVES, "switch", "decision"))


@COMMON
@given(st.data())
def test_fork(data: Any) -> None:
    same(data, ("simple", "simple", "inline", "wait", "fork"))


@COMMON
@given(st.data())
def test_dynamic_fork(data: Any) -> None:
    same(data, ("simple", "inline", "same", "different", "child"))


@COMMON
@given(st.data())
def test_loop(data: Any) -> None:
    same(data, ("simple", "inline", "variable", "loop", "list"))


@COMMON
@given(st.data())
def test_sub_workflow(data: Any) -> None:
    same(data, (*LEAVES, "child"))


@COMMON
@given(st.data())
def test_everything(data: Any) -> None:
    same(data, (*LEAVES, *CONTAINERS))
