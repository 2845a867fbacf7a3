"""05 G: queries, variables, waits, what completes later, started workflows."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Continue, Rerun
from maestoso_server.payload import Json

from ..engine.harness import World, flow, simple, task


@pytest.mark.covers("G.jq.3")
def test_a_query_that_failed_runs_again_with_another_input() -> None:
    query = {"queryExpression": ".in.array", "in": "${workflow.input.in}"}
    world = World(flow(task("JSON_JQ_TRANSFORM", "q", query)))
    workflow = world.start("flow", {"in": "text"})
    assert (world.shown(workflow), world.status(workflow)) == (["q:FAILED"], "FAILED")
    corrected = Json.of({"queryExpression": ".in.array", "in": {"array": ["a", "b"]}})
    seq = world.row(workflow, "q").seq
    (outcome,) = world.happen(workflow, Rerun(now_ms=world.now_ms, seq=seq, task_input=corrected))
    assert outcome.verdict == Verdict.APPLIED
    assert world.shown(workflow) == ["q:COMPLETED"]
    assert world.output(workflow, "q") == {"result": ["a", "b"], "resultList": [["a", "b"]]}
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("G.variable.1")
def test_what_was_set_is_there_for_the_output() -> None:
    world = World(
        flow(
            task("SET_VARIABLE", "v", {"var": "${workflow.input.var}"}),
            outputParameters={"variables": "${workflow.variables}"},
        )
    )
    workflow = world.start("flow", {"var": "var_test_value"})
    assert world.shown(workflow) == ["v:COMPLETED"]
    assert world.header(workflow).variables.value == {"var": "var_test_value"}
    assert world.output(workflow) == {"variables": {"var": "var_test_value"}}


@pytest.mark.covers("G.variable.2")
def test_variables_beyond_the_limit_fail_the_workflow_and_are_not_set() -> None:
    world = World(flow(task("SET_VARIABLE", "v", {"var": "${workflow.input.var}"}), simple("never")))
    workflow = world.start("flow", {"var": "x" * 262_144})
    assert world.shown(workflow) == ["v:FAILED_WITH_TERMINAL_ERROR"]
    reason = world.row(workflow, "v").reason or ""
    assert reason.startswith("The variables payload size: ")
    assert reason.endswith(f"of workflow: {workflow} is greater than the permissible limit: 256 kilobytes")
    assert (world.header(workflow).variables.value, world.status(workflow)) == ({}, "FAILED")


@pytest.mark.covers("G.wait.1")
def test_a_wait_behind_a_large_output_ends_by_an_update() -> None:
    world = World(
        flow(
            simple("large"),
            task("SET_VARIABLE", "v", {"kept": "${large.output.few}"}),
            task("WAIT", "w"),
            outputParameters={"variables": "${workflow.variables}"},
        )
    )
    workflow = world.start("flow")
    world.result(workflow, "large", {"few": [1, 2], "many": "x" * 500_000})
    assert world.shown(workflow) == ["large:COMPLETED", "v:COMPLETED", "w:IN_PROGRESS"]
    assert world.header(workflow).variables.value == {"kept": [1, 2]}
    world.result(workflow, "w")
    assert (world.status(workflow), world.output(workflow)) == (
        "COMPLETED",
        {"variables": {"kept": [1, 2]}},
    )


@pytest.mark.covers("G.wait.2")
def test_a_wait_stands_until_it_is_updated_and_then_the_next_task_is_scheduled() -> None:
    world = World(flow(task("WAIT", "w"), simple("it1", {"told": "${w.output.told}"})))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["w:IN_PROGRESS"]
    world.advance(3600)
    assert world.shown(workflow) == ["w:IN_PROGRESS"]
    world.result(workflow, "w", {"told": "go"})
    assert world.shown(workflow) == ["w:COMPLETED", "it1:SCHEDULED"]
    assert world.row(workflow, "it1").input.value == {"told": "go"}
    world.result(workflow, "it1")
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("G.system.1")
def test_what_completes_later_stays_in_progress_until_it_is_updated() -> None:
    world = World(flow(task("EVENT", "e", sink="conductor", asyncComplete=True)))
    workflow = world.start("flow")
    for _ in range(3):
        assert world.happen(workflow, Continue(now_ms=world.now_ms))[0].verdict == Verdict.STALE
    assert world.shown(workflow) == ["e:IN_PROGRESS"]
    assert len(world.published) == 1
    world.result(workflow, "e", {"answer": 42})
    assert world.shown(workflow) == ["e:COMPLETED"]
    assert world.output(workflow, "e")["answer"] == 42
    assert world.status(workflow) == "COMPLETED"


OTHER = flow(simple("first", {"n": "${workflow.input.n}"}), name="other")


@pytest.mark.covers("G.start_workflow.1")
@pytest.mark.parametrize("inline", [False, True], ids=["by_name", "inline"])
def test_a_started_workflow_runs_by_itself(inline: bool) -> None:
    # The request is resolved like any input, so what is meant for the new workflow is escaped.
    document = flow(simple("first", {"n": "$${workflow.input.n}"}), name="made_up")
    named = {"name": "made_up", "workflowDef": document} if inline else {"name": "other"}
    request = {"startWorkflow": {**named, "correlationId": "c-1", "input": {"n": 5}}}
    world = World(flow(task("START_WORKFLOW", "s", request)), OTHER)
    workflow = world.start("flow")
    assert world.shown(workflow) == ["s:COMPLETED"]
    other = world.output(workflow, "s")["workflowId"]
    header = world.header(other)
    assert (header.name, header.correlation_id, header.parent_id) == (named["name"], "c-1", None)
    assert (world.status(other), world.shown(other)) == ("RUNNING", ["first:SCHEDULED"])
    assert world.row(other, "first").input.value == {"n": 5}
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("G.start_workflow.2")
@pytest.mark.parametrize("request_", [5, {"input": {}}, {"name": "other", "version": "latest"}])
def test_a_request_that_is_none_fails_its_task(request_: Any) -> None:
    world = World(flow(task("START_WORKFLOW", "s", {"startWorkflow": request_}), simple("never")), OTHER)
    workflow = world.start("flow")
    assert world.shown(workflow) == ["s:FAILED_WITH_TERMINAL_ERROR"]
    assert world.row(workflow, "s").reason
    assert (world.status(workflow), list(world.workflows)) == ("FAILED", [workflow])
