"""Workflows that workflows start (G and M of the behaviour catalogue)."""

from __future__ import annotations

import pytest

from engine.harness import World, flow, simple, task
from maestoso_server import ids


@pytest.mark.covers("G.start_workflow.1")
@pytest.mark.parametrize("inline", [False, True], ids=["by_name", "inline"])
def test_a_started_workflow_runs_by_itself(inline: bool) -> None:
    other = flow(simple("first", {"n": "${workflow.input.n}"}), name="other")
    # The request is resolved like any input, so what is meant for the new workflow is escaped.
    made_up = flow(simple("first", {"n": "$${workflow.input.n}"}), name="made_up")
    named = {"name": "made_up", "workflowDef": made_up} if inline else {"name": "other"}
    request = {"startWorkflow": {**named, "correlationId": "c-1", "input": {"n": 5}}}
    world = World(flow(task("START_WORKFLOW", "s", request)), other)
    workflow = world.start("flow", correlation_id="c-0")

    assert world.shown(workflow) == ["s:COMPLETED"]
    assert world.status(workflow) == "COMPLETED"
    started = world.output(workflow, "s")["workflowId"]
    header = world.header(started)
    assert (header.name, header.correlation_id, header.parent_id) == (named["name"], "c-1", None)
    assert (world.status(started), world.shown(started)) == ("RUNNING", ["first:SCHEDULED"])
    assert world.row(started, "first").input.value == {"n": 5}


@pytest.mark.covers("M.10", "K25")
def test_a_child_whose_start_is_told_twice_is_one() -> None:
    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})
    world = World(flow(simple("t1"), sub), flow(simple("c1"), name="child"))
    workflow = world.start("flow")
    deliver, world.deliver = world.deliver, lambda: None  # type: ignore[method-assign]
    world.result(workflow, "t1")
    told = list(world.inbox)
    world.inbox.extend(told)
    world.deliver = deliver  # type: ignore[method-assign]
    world.deliver()

    (child,) = world.children(workflow)
    assert [message.workflow_id for _, message in told] == [child]
    assert child == ids.child_id(workflow, ids.task_id(workflow, world.row(workflow, "sub").seq), 0)
    assert (sorted(world.workflows), world.shown(child)) == (sorted([workflow, child]), ["c1:SCHEDULED"])
