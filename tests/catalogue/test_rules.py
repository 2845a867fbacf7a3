"""05 M and E.async: what holds of the whole."""

from __future__ import annotations

import pytest

from maestoso_server import ids
from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Continue
from maestoso_server.engine.state import TaskStatus

from ..engine.harness import World, flow, fork, join, simple, task

CHILD = flow(simple("c1"), name="child")
PARENT = flow(simple("t1"), task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"}))


@pytest.mark.covers("E.async.2")
def test_looking_again_at_a_parent_changes_nothing_while_its_child_runs() -> None:
    world = World(PARENT, CHILD)
    workflow = world.start("flow")
    world.result(workflow, "t1")
    for _ in range(5):
        (outcome,) = world.happen(workflow, Continue(now_ms=world.now_ms))
        assert outcome.verdict == Verdict.STALE
    assert world.shown(workflow) == ["t1:COMPLETED", "sub:IN_PROGRESS"]
    assert sorted(world.workflows) == sorted([workflow, *world.children(workflow)])
    assert len(world.children(workflow)) == 1
    assert world.workflows[workflow].queue == {}


@pytest.mark.covers("M.1")
def test_a_workflow_is_not_complete_while_a_required_task_is_open() -> None:
    branches = [[simple("a")], [simple("b")], [simple("c")]]
    for last in ("a", "b", "c"):
        world = World(flow(fork("f", *branches), join("j", "a")))
        workflow = world.start("flow")
        for reference in sorted({"a", "b", "c"} - {last}):
            world.result(workflow, reference)
            assert world.status(workflow) == "RUNNING"
        world.result(workflow, last)
        assert world.status(workflow) == "COMPLETED"
        assert all(row.status.terminal for row in world.rows(workflow))


@pytest.mark.covers("M.7")
def test_a_sole_expression_keeps_its_type_and_an_input_is_data() -> None:
    inputs = {"sole": "${workflow.input.x}", "text": "x=${workflow.input.x}", "data": "${workflow.input.raw}"}
    world = World(flow(simple("a", inputs)))
    workflow = world.start("flow", {"x": {"n": [1, 2.5, None]}, "raw": "${workflow.input.x}"})
    assert world.row(workflow, "a").input.value == {
        "sole": {"n": [1, 2.5, None]},
        "text": 'x={"n":[1,2.5,null]}',
        "data": "${workflow.input.x}",
    }


@pytest.mark.covers("M.9")
@pytest.mark.parametrize(
    ("how", "told"),
    [
        (TaskStatus.FAILED, "FAILED"),
        (TaskStatus.FAILED_WITH_TERMINAL_ERROR, "FAILED"),
        (TaskStatus.CANCELED, "TERMINATED"),
    ],
)
def test_a_reason_names_the_task_its_status_and_the_workers_reason(how: TaskStatus, told: str) -> None:
    world = World(flow(simple("a")))
    workflow = world.start("flow")
    world.result(workflow, "a", status=how, reason="no luck")
    task_id = ids.task_id(workflow, world.row(workflow, "a").seq)
    assert world.header(workflow).reason == f"Task {task_id} failed with status: {told} and reason: 'no luck'"


@pytest.mark.covers("M.10")
def test_a_child_that_is_started_twice_is_one() -> None:
    world = World(PARENT, CHILD)
    workflow = world.start("flow")
    deliver, world.deliver = world.deliver, lambda: None  # type: ignore[method-assign]
    world.result(workflow, "t1")
    sent = list(world.inbox)
    world.inbox.extend(sent)
    world.deliver = deliver  # type: ignore[method-assign]
    world.deliver()
    (child,) = world.children(workflow)
    assert [message.workflow_id for _, message in sent] == [child]
    assert child == ids.child_id(workflow, ids.task_id(workflow, world.row(workflow, "sub").seq), 0)
    assert (sorted(world.workflows), world.shown(child)) == (sorted([workflow, child]), ["c1:SCHEDULED"])
