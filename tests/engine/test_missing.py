"""Expressions that find nothing: null by default and noted; an error where the definition says so."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.events import Retry

from .harness import World, flow, inline, simple, switch, task


def strict(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return flow(*tasks, onMissing="error", **more)


def unresolved(world: World, workflow: str, reference: str) -> list[str]:
    found: list[str] = (world.row(workflow, reference).state or {}).get("unresolved", [])
    return found


@pytest.mark.covers("B42")
@pytest.mark.parametrize("partial", [False, True])
def test_null_from_a_typo_is_told_from_null_from_data(partial: bool) -> None:
    inputs = {"typo": "${workflow.input.nmae}", "data": "${workflow.input.name}", "text": "a ${b.output.x}"}
    world = World(flow(simple("b"), simple("a", inputs)), partial=partial)
    workflow = world.start("flow", {"name": None})
    world.result(workflow, "b")
    assert world.row(workflow, "a").input.value == {"typo": None, "data": None, "text": "a null"}
    assert unresolved(world, workflow, "a") == ["${workflow.input.nmae}", "${b.output.x}"]
    assert unresolved(world, workflow, "b") == []
    world.result(workflow, "a")
    assert unresolved(world, workflow, "a") == ["${workflow.input.nmae}", "${b.output.x}"]


@pytest.mark.covers("B42")
@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    "node",
    [
        simple("a", {"k": {"deep": ["${workflow.input.x}"]}}, retryCount=2),
        inline("a", "1", {"k": "${workflow.input.x}"}),
        task("SUB_WORKFLOW", "a", {"k": "${workflow.input.x}"}, subWorkflowParam={"name": "flow"}),
        switch("a", "1", {"1": [simple("c")]}) | {"inputParameters": {"k": "${workflow.input.x}"}},
        task("EVENT", "a", {"k": "${workflow.input.x}"}, sink="conductor"),
    ],
)
def test_strictly_what_finds_nothing_fails_the_task(partial: bool, node: dict[str, Any]) -> None:
    world = World(strict(node), partial=partial)
    workflow = world.start("flow")
    assert world.shown(workflow) == ["a:FAILED_WITH_TERMINAL_ERROR"]
    assert world.row(workflow, "a").reason == (
        "${workflow.input.x} in input k finds nothing, and the definition has onMissing: error"
    )
    assert world.status(workflow) == "FAILED"


@pytest.mark.parametrize("partial", [False, True])
def test_strictly_what_is_there_is_no_error_though_it_is_null(partial: bool) -> None:
    inputs = {"x": "${workflow.input.x}", "y": "${b.output.y}"}
    world = World(strict(simple("b"), simple("a", inputs)), partial=partial)
    workflow = world.start("flow", {"x": None})
    world.result(workflow, "b", {"y": None})
    assert world.shown(workflow) == ["b:COMPLETED", "a:SCHEDULED"]


def test_a_default_is_no_error() -> None:
    tasks = {"a": {"name": "a", "inputTemplate": {"k": 1}}}
    world = World(strict(simple("a", {"k": "${workflow.input.x}"})), tasks=tasks)
    workflow = world.start("flow")
    assert world.row(workflow, "a").input.value == {"k": 1}
    assert world.shown(workflow) == ["a:SCHEDULED"]
    assert unresolved(world, workflow, "a") == []


def test_strictly_a_retry_fails_again_and_hands_out_nothing() -> None:
    world = World(strict(simple("a", {"k": "${workflow.input.x}"})))
    workflow = world.start("flow")
    world.happen(workflow, Retry(now_ms=world.now_ms))
    assert world.shown(workflow) == ["a:FAILED_WITH_TERMINAL_ERROR"] * 2
    assert world.workflows[workflow].queue == {}


@pytest.mark.covers("B42")
@pytest.mark.parametrize("partial", [False, True])
def test_strictly_an_output_that_finds_nothing_fails_the_workflow(partial: bool) -> None:
    output = {"x": "${a.output.x}"}
    world = World(strict(simple("a"), outputParameters=output), partial=partial)
    workflow = world.start("flow")
    world.result(workflow, "a", {"y": 1})
    assert world.status(workflow) == "FAILED"
    assert world.header(workflow).reason == (
        "${a.output.x} in outputParameters finds nothing, and the definition has onMissing: error"
    )
    other = world.start("flow")
    world.result(other, "a", {"x": None})
    assert world.status(other) == "COMPLETED"


def test_one_task_is_not_blamed_for_the_expressions_of_another() -> None:
    forked = task(
        "FORK_JOIN",
        "f",
        forkTasks=[[simple("a", {"k": "${workflow.input.x}"})], [simple("b", {"k": 1})], [simple("c")]],
    )
    world = World(flow(forked, task("JOIN", "j")))
    workflow = world.start("flow")
    noted = {row.reference: unresolved(world, workflow, row.reference) for row in world.rows(workflow)}
    assert noted == {"f": [], "a": ["${workflow.input.x}"], "b": [], "c": [], "j": []}


@pytest.mark.covers("B41")
def test_what_the_documentation_promises_of_the_workflow_is_there() -> None:
    inputs = {name: f"${{workflow.{name}}}" for name in ("createTime", "taskToDomain", "priority")}
    world = World(strict(simple("a", inputs)))
    workflow = world.start("flow", priority=7)
    given = world.row(workflow, "a").input.value
    assert given == {"createTime": world.header(workflow).created_ms, "taskToDomain": {}, "priority": 7}


@pytest.mark.covers("B34")
def test_an_object_inside_a_text_is_json() -> None:
    world = World(flow(simple("a", {"t": "got ${workflow.input.m} and ${workflow.input.l}"})))
    workflow = world.start("flow", {"m": {"a": 1}, "l": [1, None]})
    assert world.row(workflow, "a").input.value == {"t": 'got {"a":1} and [1,null]'}


@pytest.mark.covers("B21")
@pytest.mark.parametrize("given", [{}, {"x": None}])
def test_the_workflows_defaults_fill_an_empty_input_and_null(given: dict[str, Any]) -> None:
    world = World(flow(simple("a", {"x": "${workflow.input.x}"}), inputTemplate={"x": 3}))
    assert world.row(world.start("flow", given), "a").input.value == {"x": 3}


@pytest.mark.covers("K6")
def test_a_task_definitions_template_fills_what_is_absent_null_or_comes_to_null() -> None:
    inputs = {"null": None, "late": "${workflow.input.none}", "given": 1}
    template = {"absent": "a", "null": "n", "late": "l", "given": "g"}
    world = World(flow(simple("a", inputs)), tasks={"a": {"name": "a", "inputTemplate": template}})
    given = world.row(world.start("flow"), "a").input.value
    assert given == {"absent": "a", "null": "n", "late": "l", "given": 1}
