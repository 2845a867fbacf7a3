"""The engine and the reference interpreter come to the same tasks, whatever happens in whatever order."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from engine.harness import START_MS
from maestoso_server.engine.state import TaskStatus

from .documents import CONTAINERS, INPUT, LEAVES, cases
from .interpreter import Interpreter, Run, Task
from .pair import STEPS_MAX, Pair

PROPERTIES = 9
EXAMPLES = -(-int(os.environ.get("MAESTOSO_EXAMPLES", "1000")) // PROPERTIES)
"""Of each property. The nightly run asks for 20,000 or more in all, new ones every time; the ordinary
run takes the same 1,000 every time."""

pytestmark = pytest.mark.timeout(60 + EXAMPLES)
common = settings(
    max_examples=EXAMPLES,
    derandomize="MAESTOSO_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
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
        soonest, struck = next_clocks(model)
        if not answers and soonest is None:
            break
        choice = data.draw(st.integers(0, len(answers) + max(len(struck), 1) - 1), label="next")
        if choice < len(answers):
            _answer(data, pair, answers[choice], postponed)
        elif soonest is not None:
            strike(pair, soonest, struck, choice - len(answers))
    pair.compare_all()


def next_clocks(model: Interpreter) -> tuple[int | None, list[Task | Run]]:
    """(when time next brings something, the clocks that strike then). None strikes where it is only
    that a worker may take a delayed task."""
    timers = model.timers()
    delayed = [task.available_ms for task in model.open() if task.available_ms > model.now_ms]
    soonest = min([*(due for due, _ in timers), *delayed], default=None)
    return soonest, [what for due, what in timers if due == soonest]


def strike(pair: Pair, moment_ms: int, struck: list[Task | Run], chosen: int) -> None:
    """Time passes to that moment, and one of the clocks of that moment strikes."""
    if struck:
        pair.tick(moment_ms, struck[chosen])
    else:
        pair.pass_time(moment_ms)


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


@pytest.mark.covers("M.1", "M.2", "M.7", "M.9")
@common
@given(st.data())
def test_sequence(data: Any) -> None:
    same(data, LEAVES, 0)


@pytest.mark.covers("M.8")
@common
@given(st.data())
def test_switch(data: Any) -> None:
    same(data, (*LEAVES, "switch", "decision"))


@pytest.mark.covers("M.8")
@common
@given(st.data())
def test_fork(data: Any) -> None:
    same(data, ("simple", "simple", "inline", "wait", "fork", "switch"))


@common
@given(st.data())
def test_dynamic_fork(data: Any) -> None:
    same(data, ("simple", "inline", "same", "different", "child"))


@pytest.mark.covers("M.8")
@common
@given(st.data())
def test_loop(data: Any) -> None:
    same(data, ("simple", "inline", "variable", "loop", "list"))


@pytest.mark.covers("M.8")
@common
@given(st.data())
def test_try(data: Any) -> None:
    same(data, ("simple", "simple", "inline", "wait", "try", "fork", "switch"))


@common
@given(st.data())
def test_sub_workflow(data: Any) -> None:
    same(data, (*LEAVES, "child"))


@pytest.mark.covers("M.1", "M.2")
@common
@given(st.data())
def test_everything(data: Any) -> None:
    same(data, (*LEAVES, *CONTAINERS))


def play_luckily(data: Any, pair: Pair, outcomes: dict[str, tuple[bool, Any]]) -> None:
    """Nothing fails for good. `outcomes` are drawn once for each attempt, whoever asks first."""
    for _ in range(STEPS_MAX):
        pair.compare()
        answers = pair.model.ready()
        soonest, struck = next_clocks(pair.model)
        if answers:
            task = answers[data.draw(st.integers(0, len(answers) - 1), label="next")]
            if task.id not in outcomes:
                fails = task.run.retries(task) > task.attempt and data.draw(st.booleans(), label="fails")
                outcomes[task.id] = fails, data.draw(st.sampled_from(OUTPUTS), label=task.id)
            fails, output = outcomes[task.id]
            pair.answer(task, "FAILED" if fails else "COMPLETED", output, "no luck" if fails else None)
        elif soonest is not None:
            strike(pair, soonest, struck, 0)
        else:
            break
    pair.compare_all()


@common
@given(st.data())
def test_the_order_of_results_changes_nothing(data: Any) -> None:
    """Where nothing fails for good: no task's end cuts another one short. (Of two dynamic forks of the
    same task, the first has the shorter references: variant A is left out.)"""
    kinds = ("simple", "simple", "inline", "noop", "switch", "fork", "different", "loop", "list")
    document, children, policies = data.draw(cases(kinds, failing=False), label="case")
    outcomes: dict[str, tuple[bool, Any]] = {}
    seen = []
    for _ in range(2):
        pair = Pair(document, children, policies, INPUT, partial=data.draw(st.booleans(), label="partial"))
        try:
            play_luckily(data, pair, outcomes)
        finally:
            note("\n".join(pair.history))
        (run,) = pair.shown()
        seen.append((run["status"], run["tasks"]))
    assert seen[0] == seen[1]


# --- the refused siblings: a difference does not go unseen ---------------------------------------------

FORKED = {
    "name": "flow",
    "version": 1,
    "schemaVersion": 2,
    "tasks": [
        {
            "name": "f",
            "taskReferenceName": "f",
            "type": "FORK_JOIN",
            "forkTasks": [
                [{"name": "a", "taskReferenceName": "a", "type": "SIMPLE", "retryCount": 1}],
                [{"name": "b", "taskReferenceName": "b", "type": "SIMPLE"}],
            ],
        },
        {"name": "j", "taskReferenceName": "j", "type": "JOIN", "joinOn": ["a", "b"]},
    ],
}


def _told(pair: Pair, reference: str, to_model: tuple[Any, ...], to_engine: tuple[Any, ...]) -> None:
    """A worker's answer, told to each of the two in its own way."""
    pair.compare()
    (task,) = [task for task in pair.model.open() if task.reference == reference]
    status, output, reason = to_model
    workflow, seq = pair.rows[task.id]
    pair.model.answer(task, status, output, reason)
    status, output, reason = to_engine
    pair.engine.report(workflow, seq, output, TaskStatus[status], reason=reason)


DONE = ("COMPLETED", {"value": 1}, None)
FAILED = ("FAILED_WITH_TERMINAL_ERROR", {}, "no luck")


@pytest.mark.parametrize("outcome", [DONE, FAILED])
def test_the_same_outcome_is_the_same(outcome: tuple[Any, ...]) -> None:
    pair = Pair(FORKED, [], {}, INPUT)
    _told(pair, "a", outcome, outcome)
    pair.compare()
    if outcome is DONE:
        _told(pair, "b", DONE, DONE)
    pair.compare_all()


@pytest.mark.parametrize(
    ("false", "where"),
    [
        (("FAILED", {}, None), "root/a#1"),
        (FAILED, "root/a#0"),
        (("CANCELED", {}, None), "root/j#0"),
        (("COMPLETED", {"value": 2}, None), "root/j#0 output"),
        (("COMPLETED", {"value": 1.0}, None), "root/a#0 output"),
        (("COMPLETED", {"value": True}, None), "root/a#0 output"),
    ],
)
def test_a_falsified_outcome_is_found(false: tuple[Any, ...], where: str) -> None:
    pair = Pair(FORKED, [], {}, INPUT)
    _told(pair, "a", DONE, false)
    with pytest.raises(AssertionError, match="engine and interpreter differ") as found:
        pair.compare()
        _told(pair, "b", DONE, DONE)
        pair.compare_all()
    assert where in str(found.value)


def test_a_falsified_reason_is_found() -> None:
    pair = Pair(FORKED, [], {}, INPUT)
    _told(pair, "a", FAILED, (*FAILED[:2], "bad luck"))
    pair.compare()
    with pytest.raises(AssertionError, match="root reason") as found:
        pair.compare_all()
    assert "root/a#0 reason" in str(found.value)


@pytest.mark.parametrize(
    ("change", "where"),
    [({"retryCount": 0}, "root/a#1"), ({"optional": True}, "root/a#0"), ({"permissive": True}, "root/b#0")],
)
def test_a_definition_that_only_one_of_them_has_is_found(change: dict[str, Any], where: str) -> None:
    pair = Pair(FORKED, [], {}, INPUT)
    mine = copy.deepcopy(FORKED)
    mine["tasks"][0]["forkTasks"][0][0].update(change)  # type: ignore[index]
    pair.model = Interpreter({"flow": mine}, {}, START_MS)
    pair.model_root = pair.model.start("flow", INPUT)
    pair.compare()
    outcome = ("FAILED", {}, "no luck") if "retryCount" in change else FAILED
    with pytest.raises(AssertionError, match="engine and interpreter differ") as found:
        _told(pair, "a", outcome, outcome)
        pair.compare()
        pair.compare_all()
    assert where in str(found.value)


GUARDED = {
    "name": "flow",
    "version": 1,
    "schemaVersion": 2,
    "tasks": [
        {
            "name": "g",
            "taskReferenceName": "g",
            "type": "TRY",
            "tryTasks": [{"name": "a", "taskReferenceName": "a", "type": "SIMPLE", "retryCount": 0}],
            "catchCases": [
                {
                    "statuses": ["FAILED"],
                    "tasks": [{"name": "c", "taskReferenceName": "c", "type": "SIMPLE"}],
                },
                {"tasks": []},
            ],
            "finallyTasks": [{"name": "f", "taskReferenceName": "f", "type": "SIMPLE"}],
        }
    ],
}


@pytest.mark.parametrize("outcome", [DONE, ("FAILED", {}, "no luck"), FAILED])
def test_the_same_failure_takes_the_same_way_through_a_try(outcome: tuple[Any, ...]) -> None:
    pair = Pair(GUARDED, [], {}, INPUT)
    _told(pair, "a", outcome, outcome)
    while pair.model.open():
        _told(pair, pair.model.open()[0].reference, DONE, DONE)
    pair.compare_all()


@pytest.mark.parametrize(
    ("mine", "false", "where"),
    [
        (FAILED, ("FAILED", {}, "no luck"), "root/c#0"),
        (FAILED, DONE, "root/a#0"),
        (FAILED, (*FAILED[:2], "bad luck"), "root/g#0 output"),
    ],
)
def test_a_falsified_failure_inside_a_try_is_found(
    mine: tuple[Any, ...], false: tuple[Any, ...], where: str
) -> None:
    pair = Pair(GUARDED, [], {}, INPUT)
    _told(pair, "a", mine, false)
    with pytest.raises(AssertionError, match="engine and interpreter differ") as found:
        pair.compare()
        _told(pair, "f", DONE, DONE)
        pair.compare_all()
    assert where in str(found.value)
