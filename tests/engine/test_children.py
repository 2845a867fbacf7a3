"""SUB_WORKFLOW and START_WORKFLOW: up and down the family."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server import ids
from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import ChildEnded, Restart, Retry, Terminate
from maestoso_server.engine.state import TaskStatus
from maestoso_server.payload import Json

from .harness import World, flow, simple, task

CHILD = flow(simple("in_child", {"all": "${workflow.input}"}), name="child", version=3)


def parent(
    params: dict[str, Any] | None = None, inputs: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    sub = task("SUB_WORKFLOW", "sub", inputs or {}, subWorkflowParam=params or {"name": "child"}, **more)
    return flow(sub, simple("after", {"out": "${sub.output}"}))


def started(*documents: dict[str, Any], **more: Any) -> tuple[World, str, str]:
    world = World(*documents, CHILD, **more)
    workflow = world.start("flow", {"n": 5})
    return world, workflow, world.children(workflow)[-1]


def test_a_child_is_started_with_its_input_and_a_derived_id() -> None:
    world, workflow, child = started(parent(None, {"n": "${workflow.input.n}"}))
    row = world.row(workflow, "sub")
    assert child == ids.child_id(workflow, ids.task_id(workflow, row.seq), 0)
    assert world.row(child, "in_child").input.value == {"all": {"n": 5}}
    assert row.output is not None and row.output.value == {"subWorkflowId": child}
    header = world.header(child)
    assert (header.parent_id, header.parent_seq, header.version) == (workflow, row.seq, 3)


def test_a_childs_end_completes_its_task() -> None:
    world, workflow, child = started(parent())
    world.result(child, "in_child", {"x": 1})
    assert world.row(workflow, "after").input.value == {"out": {"subWorkflowId": child, "x": 1}}


@pytest.mark.covers("K25")
@pytest.mark.parametrize(
    ("how", "row_status", "status"),
    [
        (TaskStatus.FAILED, "FAILED", "FAILED"),
        (TaskStatus.FAILED_WITH_TERMINAL_ERROR, "FAILED", "FAILED"),
        (TaskStatus.CANCELED, "CANCELED", "TERMINATED"),
    ],
)
def test_a_childs_failure_goes_up_with_its_reason(how: TaskStatus, row_status: str, status: str) -> None:
    world, workflow, child = started(parent())
    world.result(child, "in_child", status=how, reason="no luck")
    row = world.row(workflow, "sub")
    assert (row.status.name, world.status(workflow)) == (row_status, status)
    assert row.reason == f"Sub workflow child.3/{child} failure reason: {world.header(child).reason}"


@pytest.mark.covers("B20")
def test_another_attempt_has_another_child_and_a_fresh_input() -> None:
    definition = {"name": "sub", "retryCount": 1, "retryDelaySeconds": 10}
    world, workflow, child = started(parent(None, {"n": "${workflow.input.n}"}, taskDefinition=definition))
    world.result(child, "in_child", status=TaskStatus.FAILED)
    assert world.row(workflow, "sub").status == TaskStatus.SCHEDULED
    world.advance(9)
    assert len(world.children(workflow)) == 1
    world.advance(1)
    second = world.children(workflow)[-1]
    assert second != child and world.row(second, "in_child").input.value == {"all": {"n": 5}}
    world.result(second, "in_child")
    assert world.shown(workflow)[-1] == "after:SCHEDULED"


def test_the_parents_end_ends_the_children() -> None:
    world, workflow, child = started(parent())
    world.happen(workflow, Terminate(now_ms=world.now_ms, reason="enough"))
    assert (world.status(child), world.shown(child)) == ("TERMINATED", ["in_child:CANCELED"])
    assert world.header(child).reason == "Parent workflow has been terminated with reason: enough"
    assert world.row(workflow, "sub").status == TaskStatus.CANCELED


def test_a_child_that_an_operator_ends_cancels_its_task() -> None:
    world, workflow, child = started(parent())
    world.happen(child, Terminate(now_ms=world.now_ms, reason="enough"))
    assert (world.row(workflow, "sub").status.name, world.status(workflow)) == ("CANCELED", "TERMINATED")
    assert "enough" in (world.header(workflow).reason or "")


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        (
            {"name": "nobody"},
            "The Task nobody defined as a sub-workflow has no workflow definition available ",
        ),
        ({"name": "${workflow.input.absent}"}, "The sub-workflow of task sub has no name"),
        ({"name": "child", "version": None, "workflowDefinition": "${workflow.input.absent}"}, None),
    ],
)
def test_a_child_that_cannot_be_named(params: dict[str, Any], reason: str | None) -> None:
    world = World(parent(params), CHILD)
    workflow = world.start("flow")
    if reason is None:
        assert world.row(workflow, "sub").status == TaskStatus.IN_PROGRESS
    else:
        assert world.row(workflow, "sub").reason == reason
        assert world.status(workflow) == "FAILED"


@pytest.mark.parametrize("given", ["inline", "expression"])
def test_a_definition_may_come_with_the_task(given: str) -> None:
    document = flow(simple("own", {"me": "${workflow.input.n}"}), name="made_up")
    params = {"name": "x", "workflowDefinition": document if given == "inline" else "${workflow.input.doc}"}
    world = World(parent(params, {"n": 1}), CHILD)
    workflow = world.start("flow", {"doc": document})
    (child,) = world.children(workflow)
    assert world.header(child).name == "made_up"
    assert world.row(child, "own").input.value == {"me": 1}
    assert world.header(child).input.value == {"n": 1, "_systemMetadata": {"dynamic": True}}


def test_what_a_child_inherits() -> None:
    world = World(parent(), CHILD)
    domains = Json.of({"*": "d1"})
    workflow = world.start(
        "flow", {}, task_to_domain=domains, priority=7, correlation_id="c", created_by="me"
    )
    header = world.header(world.children(workflow)[0])
    assert (header.task_to_domain, header.priority, header.correlation_id) == (domains, 7, "c")
    assert header.created_by == "me"


def test_what_a_child_is_given() -> None:
    params = {
        "name": "child",
        "priority": "${workflow.input.p}",
        "taskToDomain": {"*": "d${workflow.input.p}"},
    }
    world = World(parent(params), CHILD)
    header = world.header(world.children(world.start("flow", {"p": 3}))[0])
    assert header.task_to_domain is not None
    assert (header.task_to_domain.value, header.priority) == ({"*": "d3"}, 3)


def test_news_of_another_child_changes_nothing() -> None:
    world, workflow, _ = started(parent())
    event = ChildEnded(now_ms=world.now_ms, seq=1, child_id="other", status=3, output=None)
    (outcome,) = world.happen(workflow, event)
    assert outcome.verdict == Verdict.STALE
    assert world.status(workflow) == "RUNNING"


# --- revival -------------------------------------------------------------------------------------

MIDDLE = flow(
    simple("first"), task("SUB_WORKFLOW", "down", subWorkflowParam={"name": "child"}), name="middle"
)
ROOT = flow(simple("begin"), task("SUB_WORKFLOW", "down", subWorkflowParam={"name": "middle"}))


def failed_family() -> tuple[World, str, str, str]:
    world = World(ROOT, MIDDLE, CHILD)
    root = world.start("flow")
    world.result(root, "begin")
    (middle,) = world.children(root)
    world.result(middle, "first")
    (leaf,) = world.children(middle)
    world.result(leaf, "in_child", status=TaskStatus.FAILED)
    assert [world.status(one) for one in (root, middle, leaf)] == ["FAILED"] * 3
    return world, root, middle, leaf


@pytest.mark.parametrize(
    ("resume", "who"), [(False, "leaf"), (True, "leaf"), (True, "middle"), (True, "root")]
)
def test_a_retried_leaf_revives_its_ancestors(resume: bool, who: str) -> None:
    world, root, middle, leaf = failed_family()
    target = {"leaf": leaf, "middle": middle, "root": root}[who]
    world.happen(target, Retry(now_ms=world.now_ms, resume_children=resume))
    assert [world.status(one) for one in (root, middle, leaf)] == ["RUNNING"] * 3
    assert world.row(root, "down").status == TaskStatus.IN_PROGRESS
    assert (world.children(root), world.children(middle)) == ([middle], [leaf])
    world.result(leaf, "in_child", {"x": 1})
    assert [world.status(one) for one in (root, middle, leaf)] == ["COMPLETED"] * 3
    assert world.row(root, "begin").attempt == 0


def test_a_retried_root_has_new_descendants() -> None:
    world, root, middle, leaf = failed_family()
    world.happen(root, Retry(now_ms=world.now_ms))
    assert [row.attempt for row in world.rows(root) if row.reference == "down"] == [0, 1]
    assert world.children(root)[-1] != middle
    assert (world.status(middle), world.status(leaf)) == ("FAILED", "FAILED")


def test_a_restarted_leaf_revives_its_ancestors() -> None:
    world, root, middle, leaf = failed_family()
    world.happen(leaf, Restart(now_ms=world.now_ms))
    assert [world.status(one) for one in (root, middle, leaf)] == ["RUNNING"] * 3
    world.result(leaf, "in_child")
    assert world.status(root) == "COMPLETED"


def test_an_optional_childs_revival_leaves_the_parent_alone() -> None:
    world, workflow, child = started(parent(None, None, optional=True))
    world.result(child, "in_child", status=TaskStatus.FAILED)
    world.result(workflow, "after")
    assert world.status(workflow) == "COMPLETED"
    world.happen(child, Retry(now_ms=world.now_ms))
    assert (world.status(child), world.status(workflow)) == ("RUNNING", "COMPLETED")
    assert world.row(workflow, "sub").status == TaskStatus.COMPLETED_WITH_ERRORS


def test_a_permissive_childs_revival_saves_a_running_parent() -> None:
    world, workflow, child = started(parent(None, None, permissive=True))
    world.result(child, "in_child", status=TaskStatus.FAILED)
    assert world.shown(workflow)[-1] == "after:SCHEDULED"
    world.happen(child, Retry(now_ms=world.now_ms))
    world.result(child, "in_child")
    assert [row.reference for row in world.rows(workflow)] == ["sub", "after"]
    world.result(workflow, "after")
    assert world.status(workflow) == "COMPLETED"


def test_a_revived_parent_takes_its_cancelled_children_along() -> None:
    from .harness import fork, join

    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})
    world = World(flow(fork("f", [sub], [simple("b")]), join("j", "sub", "b")), CHILD)
    workflow = world.start("flow")
    (child,) = world.children(workflow)
    world.result(workflow, "b", status=TaskStatus.FAILED)
    assert world.status(child) == "TERMINATED"
    world.happen(workflow, Retry(now_ms=world.now_ms, resume_children=True))
    assert (world.status(child), world.children(workflow)) == ("RUNNING", [child])
    world.result(workflow, "b")
    world.result(child, "in_child")
    assert world.status(workflow) == "COMPLETED"


# --- START_WORKFLOW and failureWorkflow ------------------------------------------------------------


def test_start_workflow_does_not_wait() -> None:
    request = {"startWorkflow": {"name": "child", "input": {"n": 1}}}
    world = World(flow(task("START_WORKFLOW", "s", request)), CHILD)
    workflow = world.start("flow", correlation_id="c")
    assert world.status(workflow) == "COMPLETED"
    other = world.output(workflow)["workflowId"]
    assert (world.header(other).parent_id, world.header(other).correlation_id) == (None, "c")
    world.result(other, "in_child", status=TaskStatus.FAILED)
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({}, "Missing 'startWorkflow' in input data."),
        ({"startWorkflow": 5}, "Error reading StartWorkflowRequest. It is no object."),
        ({"startWorkflow": {}}, "startWorkflow validation failed. 'name' ->"),
        ({"startWorkflow": {"name": "nobody"}}, "The Task nobody defined as a sub-workflow"),
    ],
)
def test_a_start_that_means_nothing_fails_its_task(inputs: dict[str, Any], reason: str) -> None:
    world = World(flow(task("START_WORKFLOW", "s", inputs)))
    workflow = world.start("flow")
    assert (world.row(workflow, "s").reason or "").startswith(reason)
    assert world.status(workflow) == "FAILED"


HANDLER = flow(simple("clean_up", {"all": "${workflow.input}"}), name="handler")


@pytest.mark.parametrize("named", ["handler", "$workflow.input.fw", "${workflow.input.fw}"])
def test_a_failure_starts_the_failure_workflow(named: str) -> None:
    world = World(flow(simple("a"), failureWorkflow=named), HANDLER)
    workflow = world.start("flow", {"k": 1, "fw": "handler"})
    world.result(workflow, "a", status=TaskStatus.FAILED, reason="no luck")
    handler = world.output(workflow)["conductor.failure_workflow"]
    given = world.row(handler, "clean_up").input.value["all"]
    assert given["failureTaskId"] == f"{workflow[:-6]}{1:06x}"
    assert (given["k"], given["workflowId"], given["failureStatus"]) == (1, workflow, "FAILED")
    assert (
        given["reason"] == world.header(workflow).reason == given["failedWorkflow"]["reasonForIncompletion"]
    )
    assert world.header(handler).parent_id is None


def test_a_failure_workflow_that_cannot_be_started_is_told() -> None:
    world = World(flow(simple("a"), failureWorkflow="nobody"))
    workflow = world.start("flow")
    world.result(workflow, "a", status=TaskStatus.FAILED)
    assert world.status(workflow) == "FAILED"
    assert "no workflow definition" in world.output(workflow)["conductor.failure_workflow"]


def test_an_operators_terminate_starts_no_failure_workflow() -> None:
    world = World(flow(simple("a"), failureWorkflow="handler"), HANDLER)
    workflow = world.start("flow")
    world.happen(workflow, Terminate(now_ms=world.now_ms, reason="enough"))
    assert list(world.workflows) == [workflow]
