"""Schemas: what does not fit never reaches a worker, and is never a result."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.events import Retry
from maestoso_server.engine.state import TaskStatus

from .harness import World, flow, inline, simple, task

NUMBER = {"type": "JSON", "data": {"type": "object", "properties": {"n": {"type": "integer"}}}}
NEEDS_N = {"type": "JSON", "data": {"type": "object", "required": ["n"]}}


def defined(**more: Any) -> dict[str, dict[str, Any]]:
    """The task definition of `a`, with its schemas enforced."""
    return {"a": {"name": "a", "retryDelaySeconds": 0, "enforceSchema": True, **more}}


@pytest.mark.covers("B24")
@pytest.mark.parametrize("partial", [False, True])
def test_an_input_that_does_not_fit_reaches_no_worker(partial: bool) -> None:
    world = World(
        flow(simple("a", {"n": "${workflow.input.n}"}, retryCount=3)),
        tasks=defined(inputSchema=NUMBER),
        partial=partial,
    )
    workflow = world.start("flow", {"n": "secret"})
    row = world.row(workflow, "a")
    assert world.shown(workflow) == ["a:FAILED_WITH_TERMINAL_ERROR"]
    assert row.reason == (
        'The input does not match the inputSchema: input.n: the value is not of type "integer"'
    )
    assert row.input.value == {"n": "secret"}
    assert world.workflows[workflow].queue == {}
    assert world.status(workflow) == "FAILED"


def test_an_input_that_fits_goes_its_way() -> None:
    world = World(flow(simple("a", {"n": "${workflow.input.n}"})), tasks=defined(inputSchema=NUMBER))
    assert world.shown(world.start("flow", {"n": 10**40})) == ["a:SCHEDULED"]


def test_a_constant_input_is_judged_too() -> None:
    world = World(flow(simple("a", {"n": "one"})), tasks=defined(inputSchema=NUMBER))
    assert world.shown(world.start("flow")) == ["a:FAILED_WITH_TERMINAL_ERROR"]


def test_the_schema_is_not_enforced_unless_the_task_definition_says_so() -> None:
    world = World(flow(simple("a", {"n": "one"})), tasks=defined(inputSchema=NUMBER, enforceSchema=False))
    assert world.shown(world.start("flow")) == ["a:SCHEDULED"]


def test_a_retry_by_an_operator_does_not_hand_out_what_does_not_fit() -> None:
    world = World(flow(simple("a", {"n": "${workflow.input.n}"})), tasks=defined(inputSchema=NUMBER))
    workflow = world.start("flow", {"n": "x"})
    world.happen(workflow, Retry(now_ms=world.now_ms))
    assert world.shown(workflow) == ["a:FAILED_WITH_TERMINAL_ERROR", "a:FAILED_WITH_TERMINAL_ERROR"]
    assert world.workflows[workflow].queue == {}


@pytest.mark.covers("B24", "B39")
@pytest.mark.parametrize("partial", [False, True])
def test_an_output_that_does_not_fit_is_a_failed_attempt(partial: bool) -> None:
    world = World(
        flow(simple("a", retryCount=1)),
        tasks=defined(inputSchema={"data": {"type": "object"}}, outputSchema=NEEDS_N),
        partial=partial,
    )
    workflow = world.start("flow")
    world.result(workflow, "a", {"m": 1})
    assert world.shown(workflow) == ["a:FAILED", "a:SCHEDULED"]
    assert world.rows(workflow)[0].reason == (
        'The output does not match the outputSchema: output: "n" is a required property'
    )
    assert world.rows(workflow)[0].output is not None
    world.result(workflow, "a", {"n": 1})
    assert world.status(workflow) == "COMPLETED"


def test_no_output_is_an_empty_one() -> None:
    world = World(flow(simple("a")), tasks=defined(outputSchema=NEEDS_N))
    workflow = world.start("flow")
    world.result(workflow, "a")
    assert world.shown(workflow) == ["a:FAILED"]


def test_a_failure_is_not_judged() -> None:
    world = World(flow(simple("a")), tasks=defined(outputSchema=NEEDS_N))
    workflow = world.start("flow")
    world.result(workflow, "a", status=TaskStatus.FAILED, reason="broke")
    assert world.row(workflow, "a").reason == "broke"


def test_an_operators_output_is_judged() -> None:
    schema = {"data": {"properties": {"result": {"type": "string"}}}}
    world = World(flow(inline("a", "1", retryCount=0)), tasks=defined(outputSchema=schema))
    assert world.shown(world.start("flow")) == ["a:FAILED"]


@pytest.mark.parametrize("partial", [False, True])
def test_a_dynamic_task_is_judged_by_what_it_turns_out_to_be(partial: bool) -> None:
    dynamic = task("DYNAMIC", "d", {"t": "a", "n": "${workflow.input.n}"}, dynamicTaskNameParam="t")
    world = World(
        flow(dynamic), tasks=defined(inputSchema=NUMBER, outputSchema=NEEDS_N, retryCount=0), partial=partial
    )
    refused = world.start("flow", {"n": "x"})
    assert world.shown(refused) == ["d:FAILED_WITH_TERMINAL_ERROR"]
    workflow = world.start("flow", {"n": 1})
    world.result(workflow, "d", {})
    assert world.shown(workflow) == ["d:FAILED"]


@pytest.mark.covers("B24")
def test_a_workflow_does_not_complete_with_an_output_that_does_not_fit() -> None:
    document = flow(simple("a"), outputSchema=NEEDS_N, failureWorkflow="mend")
    world = World(document, flow(simple("m"), name="mend"))
    workflow = world.start("flow")
    world.result(workflow, "a", {"m": 1})
    assert world.status(workflow) == "FAILED"
    assert world.header(workflow).reason == (
        'The workflow output does not match the outputSchema: output: "n" is a required property'
    )
    assert len(world.workflows) == 2, "its failure workflow begins"
    other = world.start("flow")
    world.result(other, "a", {"n": 1})
    assert world.status(other) == "COMPLETED"


def test_terminate_completes_with_a_fitting_output_only() -> None:
    ends = task(
        "TERMINATE", "t", {"terminationStatus": "COMPLETED", "workflowOutput": "${workflow.input.out}"}
    )
    world = World(flow(ends, outputSchema=NEEDS_N))
    assert world.status(world.start("flow", {"out": {"n": 1}})) == "COMPLETED"
    refused = world.start("flow", {"out": {}})
    assert world.status(refused) == "FAILED"
    assert world.output(refused) == {}


def test_a_workflow_that_does_not_enforce_its_schemas_runs() -> None:
    world = World(flow(simple("a"), inputSchema=NEEDS_N, outputSchema=NEEDS_N, enforceSchema=False))
    workflow = world.start("flow")
    world.result(workflow, "a")
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("B24")
@pytest.mark.parametrize("partial", [False, True])
def test_a_child_whose_input_does_not_fit_fails_and_so_does_its_parent(partial: bool) -> None:
    child = flow(simple("c"), name="child", inputSchema=NEEDS_N)
    calls = task("SUB_WORKFLOW", "s", {"n": "${workflow.input.n}"}, subWorkflowParam={"name": "child"})
    calls["inputParameters"] = {"m": "${workflow.input.n}"}
    world = World(flow(calls), child, partial=partial)
    workflow = world.start("flow", {"n": 1})
    (child_id,) = world.children(workflow)
    assert (world.status(child_id), world.rows(child_id)) == ("FAILED", [])
    reason = 'The workflow input does not match the inputSchema: input: "n" is a required property'
    assert world.header(child_id).reason == reason
    assert world.row(workflow, "s").reason == f"Sub workflow child.1/{child_id} failure reason: {reason}"
    assert world.status(workflow) == "FAILED"


def test_defaults_count_as_input() -> None:
    world = World(flow(simple("a"), inputSchema=NEEDS_N, inputTemplate={"n": 1}))
    assert world.shown(world.start("flow")) == ["a:SCHEDULED"]


def test_a_schema_that_cannot_be_used_lets_nothing_pass() -> None:
    schema = {"data": {"$ref": "file:///etc/hostname"}}
    world = World(flow(simple("a")), tasks=defined(inputSchema=schema))
    workflow = world.start("flow")
    assert "the schema cannot be used" in (world.row(workflow, "a").reason or "")
