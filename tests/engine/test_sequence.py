"""SIMPLE tasks in a row: inputs, outputs, policies of what is not registered."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Result, Start
from maestoso_server.engine.state import TaskStatus

from .harness import World, flow, simple, task


def test_each_task_follows_the_one_before_with_its_output() -> None:
    world = World(flow(simple("a"), simple("b", {"x": "${a.output.n}"})))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["a:SCHEDULED"]
    world.result(workflow, "a", {"n": 2**70})
    assert world.shown(workflow) == ["a:COMPLETED", "b:SCHEDULED"]
    assert world.row(workflow, "b").input.value == {"x": 2**70}
    world.result(workflow, "b", {"done": 1.0})
    assert world.status(workflow) == "COMPLETED"
    assert world.header(workflow).output.raw == b'{"done":1.0}'  # type: ignore[union-attr]


def test_output_parameters_go_before_the_last_output() -> None:
    world = World(flow(simple("a"), outputParameters={"n": "${a.output.n}", "s": "${workflow.status}"}))
    workflow = world.start("flow")
    world.result(workflow, "a", {"n": 1, "m": 2})
    assert world.output(workflow) == {"n": 1, "s": "RUNNING"}


def test_a_workflow_without_tasks_completes_at_once() -> None:
    world = World(flow())
    workflow = world.start("flow")
    assert (world.status(workflow), world.rows(workflow)) == ("COMPLETED", [])
    assert world.header(workflow).reason == "No tasks found to be executed"


def test_a_second_start_changes_nothing() -> None:
    world = World(flow(simple("a")))
    workflow = world.start("flow")
    (outcome,) = world.happen(workflow, Start(now_ms=world.now_ms))
    assert outcome.verdict == Verdict.STALE


@pytest.mark.parametrize(
    ("given", "template", "expected"),
    [
        ({}, {"k": 1}, {"k": 1}),
        ({"k": None}, {"k": 1}, {"k": 1}),
        ({"k": 0}, {"k": 1, "l": {"m": []}}, {"k": 0, "l": {"m": []}}),
    ],
)
def test_a_workflows_input_template_fills_what_is_absent_or_null(
    given: dict[str, Any], template: dict[str, Any], expected: dict[str, Any]
) -> None:
    world = World(flow(simple("a", {"all": "${workflow.input}"}), inputTemplate=template))
    workflow = world.start("flow", given)
    assert world.row(workflow, "a").input.value == {"all": expected}


def test_a_dynamic_task_has_the_defaults_of_the_task_it_turns_out_to_be() -> None:
    tasks = {
        "a": {"name": "a", "inputTemplate": {"not": "mine"}},
        "real": {"name": "real", "inputTemplate": {"n": "${workflow.input.n}"}, "retryDelaySeconds": 0},
    }
    inputs = {"which": "real", "n": "${workflow.input.gone}"}
    world = World(flow(task("DYNAMIC", "a", inputs, dynamicTaskNameParam="which")), tasks=tasks)
    workflow = world.start("flow", {"n": 7})
    assert world.row(workflow, "a").input.value == {"which": "real", "n": 7}
    world.result(workflow, "a", status=TaskStatus.FAILED)
    assert (world.row(workflow, "a").attempt, world.row(workflow, "a").input.value["n"]) == (1, 7)


@pytest.mark.covers("B.4")
def test_the_output_shows_the_input_merged_with_its_template() -> None:
    template = {"text": "t", "list": [1, "two"], "nested": {"a": {"b": 3}}, "own": "theirs"}
    names = (*template, "more")
    output = {name: f"${{workflow.input.{name}}}" for name in names}
    world = World(flow(simple("a"), inputTemplate=template, outputParameters=output))
    workflow = world.start("flow", {"own": "mine", "nested": {"c": 4}, "more": None})
    world.result(workflow, "a")
    shown = world.header(workflow).output
    assert shown is not None
    assert shown.value == {**template, "own": "mine", "nested": {"c": 4}, "more": None}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, {"k": "from template", "n": 7}),
        ({"k": None}, {"k": "from template", "n": 7}),
        ({"k": "${workflow.input.absent}"}, {"k": "from template", "n": 7}),
        ({"k": "mine"}, {"k": "mine", "n": 7}),
    ],
)
def test_a_task_definitions_input_template_fills_before_and_after(
    parameters: dict[str, Any], expected: dict[str, Any]
) -> None:
    tasks = {"a": {"name": "a", "inputTemplate": {"k": "from template", "n": "${workflow.input.n}"}}}
    world = World(flow(simple("a", parameters)), tasks=tasks)
    workflow = world.start("flow", {"n": 7})
    assert world.row(workflow, "a").input.value == expected


def test_an_attempt_knows_its_own_id() -> None:
    world = World(flow(simple("a", {"id": "${CPEWF_TASK_ID}"}, retryCount=1)))
    workflow = world.start("flow")
    world.result(workflow, "a", status=TaskStatus.FAILED)
    ids = [row.input.value["id"] for row in world.rows(workflow)]
    assert ids == [f"{workflow[:-6]}{seq:06x}" for seq in (1, 2)]


def test_a_system_task_is_a_queue_row_of_its_type() -> None:
    world = World(flow(task("HTTP", "get", {"uri": "http://x"}), task("MY_TYPE", "own")))
    workflow = world.start("flow")
    row = world.row(workflow, "get")
    assert (row.type, row.name, row.queued) == ("HTTP", "get", True)
    world.result(workflow, "get")
    assert (world.row(workflow, "own").type, world.row(workflow, "own").queued) == ("MY_TYPE", True)


def test_a_simple_task_named_like_an_operator_is_that_operator() -> None:
    world = World(flow(simple("x", {"v": 1}, name="SET_VARIABLE")))
    workflow = world.start("flow")
    assert (world.status(workflow), world.header(workflow).variables.value) == ("COMPLETED", {"v": 1})


@pytest.mark.parametrize(
    ("kind", "retries", "response_s"), [("SIMPLE", 3, 3600), ("HTTP", 0, 0), ("MY_TYPE", 0, 0)]
)
def test_policy_of_an_unregistered_task(kind: str, retries: int, response_s: int) -> None:
    world = World(flow(task(kind, "a")))
    world.start("flow")
    (plan,) = world.plans.values()
    assert (plan.nodes["a"].policy.retries, plan.nodes["a"].policy.response_s) == (retries, response_s)


@pytest.mark.parametrize(
    ("mapping", "live", "domain"),
    [
        ({"a": "d1"}, set(), "d1"),
        ({"*": "d1"}, set(), "d1"),
        ({"*": "d1", "a": "d2"}, set(), "d2"),
        ({"a": "d1,d2"}, {"d1:a"}, "d1"),
        ({"a": "d1,d2"}, set(), "d2"),
        ({"a": "d1,NO_DOMAIN"}, set(), ""),
        ({"a": "d1,NO_DOMAIN"}, {"d1:a"}, "d1"),
        ({"b": "d1"}, set(), ""),
    ],
)
def test_domains(mapping: dict[str, str], live: set[str], domain: str) -> None:
    from maestoso_server.payload import Json

    world = World(flow(simple("a")))
    world.live_queues = live
    workflow = world.start("flow", task_to_domain=Json.of(mapping))
    assert world.row(workflow, "a").domain == domain


def test_an_input_that_is_too_big_fails_its_task() -> None:
    world = World(flow(simple("a", {"x": "${workflow.input.x}${workflow.input.x}"})))
    workflow = world.start("flow", {"x": "x" * 3_000_000})
    assert world.shown(workflow) == ["a:FAILED_WITH_TERMINAL_ERROR"]
    assert "is greater than the permissible limit: 4194304 bytes" in (world.row(workflow, "a").reason or "")


@pytest.mark.parametrize(
    "status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.IN_PROGRESS, TaskStatus.CANCELED]
)
def test_a_result_of_an_ended_task_or_of_none_is_stale(status: TaskStatus) -> None:
    world = World(flow(simple("a"), simple("b")))
    workflow = world.start("flow")
    world.result(workflow, "a")
    before = world.shown(workflow)
    for seq in (1, 77):
        (outcome,) = world.happen(workflow, Result(now_ms=world.now_ms, seq=seq, status=status))
        assert outcome.verdict == Verdict.STALE and outcome.reason
    assert world.shown(workflow) == before
