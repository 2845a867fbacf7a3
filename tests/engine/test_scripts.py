"""INLINE, LAMBDA, JSON_JQ_TRANSFORM, SET_VARIABLE, NOOP, DYNAMIC, TERMINATE."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Result
from maestoso_server.engine.state import TaskStatus

from .harness import World, flow, fork, inline, join, loop, simple, switch, task

TERMINAL = "FAILED_WITH_TERMINAL_ERROR"


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    ("tasks", "output"),
    [
        (inline("i", "$.a + 1", {"a": 2}), {"result": 3}),
        (inline("i", "a", {"evaluatorType": "value-param", "a": [1]}), {"result": [1]}),
        (task("LAMBDA", "i", {"scriptExpression": "return $.a * 2", "a": 2}), {"result": 4}),
        (
            task("JSON_JQ_TRANSFORM", "i", {"queryExpression": ".a[]", "a": [1, 2]}),
            {"result": 1, "resultList": [1, 2]},
        ),
        (task("JSON_JQ_TRANSFORM", "i", {"queryExpression": "empty"}), {"result": None, "resultList": []}),
    ],
)
def test_scripts(tasks: dict[str, Any], output: Any, slow: bool) -> None:
    world = World(flow(tasks, simple("after")), slow_scripts=slow)
    workflow = world.start("flow")
    assert world.output(workflow, "i") == output
    assert world.shown(workflow) == ["i:COMPLETED", "after:SCHEDULED"]
    assert world.row(workflow, "i").state is None
    assert not world.workflows[workflow].deadlines


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    ("tasks", "status", "reason"),
    [
        (inline("i", "nonsense("), TERMINAL, None),
        (inline("i", "  "), TERMINAL, "Empty 'expression' in Inline task's input parameters."),
        (
            inline("i", "1", {"evaluatorType": "abacus"}),
            TERMINAL,
            "Unknown evaluator 'abacus' in INLINE task.",
        ),
        (task("INLINE", "i", {"expression": 5}), TERMINAL, "'expression' must be a text, not int"),
        (task("LAMBDA", "i", {"scriptExpression": "nonsense("}), "FAILED", None),
        (task("LAMBDA", "i", {}), "FAILED", "Empty 'scriptExpression' in Lambda task's input parameters."),
        (task("JSON_JQ_TRANSFORM", "i", {"queryExpression": ".a.b", "a": "text"}), "FAILED", None),
        (task("JSON_JQ_TRANSFORM", "i", {}), "FAILED", "Missing 'queryExpression' in input parameters"),
    ],
)
def test_scripts_that_fail(tasks: dict[str, Any], status: str, reason: str | None, slow: bool) -> None:
    world = World(flow(tasks), slow_scripts=slow)
    workflow = world.start("flow")
    row = world.row(workflow, "i")
    assert (row.status.name, world.status(workflow)) == (status, "FAILED")
    assert row.reason and row.reason.startswith(reason or "")
    assert world.output(workflow, "i") == {"error": row.reason}


def test_scripts_of_several_branches_are_asked_for_together() -> None:
    branches = [[inline(f"i{n}", f"{n}")] for n in range(5)]
    world = World(flow(fork("f", *branches), join("j", *(f"i{n}" for n in range(5)))))
    rounds: list[int] = []
    answer = world._answer
    world._answer = lambda stored, need: (rounds.append(1), answer(stored, need))[1]  # type: ignore[method-assign]
    asked_before = world.needs_asked
    workflow = world.start("flow")
    assert world.status(workflow) == "COMPLETED"
    assert (len(rounds), len(asked_before)) == (5, 5)


def test_a_slow_script_that_is_lost_is_asked_for_again() -> None:
    world = World(flow(inline("i", "1"), simple("after")), slow_scripts=True)
    world.late_script = lambda *_: None  # type: ignore[method-assign]
    workflow = world.start("flow")
    assert world.shown(workflow) == ["i:IN_PROGRESS"]
    world.slow_scripts = False
    world.advance(15)
    assert world.shown(workflow) == ["i:COMPLETED", "after:SCHEDULED"]


@pytest.mark.parametrize(
    "tasks", [[fork("f", [simple("a")]), join("j", "a")], [loop("l", [simple("a")], 2)], [simple("a")]]
)
def test_what_the_engine_decides_nobody_else_can(tasks: list[dict[str, Any]]) -> None:
    world = World(flow(*tasks))
    workflow = world.start("flow")
    for row in world.rows(workflow):
        if row.status == TaskStatus.IN_PROGRESS:
            event = Result(now_ms=world.now_ms, seq=row.seq, status=TaskStatus.COMPLETED)
            assert world.happen(workflow, event)[0].verdict == Verdict.STALE
            assert world.row(workflow, row.reference).status == TaskStatus.IN_PROGRESS


def test_variables_are_overwritten_by_key() -> None:
    first = task("SET_VARIABLE", "one", {"a": {"x": 1}, "b": 1})
    second = task("SET_VARIABLE", "two", {"a": None})
    world = World(flow(first, second, outputParameters={"v": "${workflow.variables}"}), rows_max=1)
    assert world.output(world.start("flow")) == {"v": {"a": None, "b": 1}}


def test_too_many_variables_are_rolled_back() -> None:
    world = World(flow(task("SET_VARIABLE", "v", {"big": "${workflow.input.big}"})))
    workflow = world.start("flow", {"big": "x" * 262_144})
    row = world.row(workflow, "v")
    assert (row.status.name, world.header(workflow).variables.value) == (TERMINAL, {})
    assert (row.reason or "").endswith("is greater than the permissible limit: 256 kilobytes")


def test_dynamic_takes_its_name_and_policy_from_the_input() -> None:
    tasks = {"real": {"name": "real", "retryCount": 1, "retryDelaySeconds": 0}}
    dynamic = task("DYNAMIC", "d", {"which": "${workflow.input.w}"}, dynamicTaskNameParam="which")
    world = World(flow(dynamic), tasks=tasks)
    workflow = world.start("flow", {"w": "real"})
    row = world.row(workflow, "d")
    assert (row.type, row.name, row.queued) == ("real", "real", True)
    world.result(workflow, "d", status=TaskStatus.FAILED)
    assert world.row(workflow, "d").attempt == 1
    world.result(workflow, "d", status=TaskStatus.FAILED)
    assert world.status(workflow) == "FAILED"


@pytest.mark.parametrize("name", [None, "", 5])
def test_dynamic_without_a_name_fails(name: Any) -> None:
    world = World(flow(task("DYNAMIC", "d", {"which": name}, dynamicTaskNameParam="which")))
    workflow = world.start("flow")
    assert world.shown(workflow) == [f"d:{TERMINAL}"]
    reason = "Cannot map a dynamic task based on the parameter and input. Parameter= which, input= "
    assert (world.row(workflow, "d").reason or "").startswith(reason)


# --- TERMINATE -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "TERMINATED"])
@pytest.mark.parametrize(
    ("given", "output"), [({"x": 1}, {"x": 1}), ("text", {"output": "text"}), (None, {})]
)
def test_terminate_ends_everything(status: str, given: Any, output: Any) -> None:
    ending = task("TERMINATE", "t", {"terminationStatus": status, "workflowOutput": given})
    world = World(
        flow(fork("f", [simple("a")], [ending, simple("never")]), join("j", "a"), outputParameters={"no": 1})
    )
    workflow = world.start("flow")
    assert world.shown(workflow) == ["f:COMPLETED", "a:CANCELED", "t:COMPLETED", "j:CANCELED"]
    assert (world.status(workflow), world.output(workflow)) == (status, output)
    task_id = f"{workflow[:-6]}{world.row(workflow, 't').seq:06x}"
    assert world.header(workflow).reason == f"Workflow is {status} by TERMINATE task: {task_id}"


def test_terminate_says_why() -> None:
    inputs = {"terminationStatus": "FAILED", "terminationReason": "Early exit"}
    world = World(flow(switch("s", "x", {"x": [task("TERMINATE", "t", inputs)]}), simple("never")))
    workflow = world.start("flow")
    assert (world.status(workflow), world.header(workflow).reason) == ("FAILED", "Early exit")


def test_terminate_without_a_status_fails_itself() -> None:
    world = World(flow(task("TERMINATE", "t", {"terminationStatus": "MAYBE"})))
    workflow = world.start("flow")
    assert world.row(workflow, "t").reason == "given termination status is not valid"
    assert world.status(workflow) == "FAILED"
