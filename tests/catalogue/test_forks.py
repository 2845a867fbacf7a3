"""05 D: static and dynamic forks, and the joins behind them."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.state import TaskStatus

from ..engine.harness import World, flow, fork, join, simple, switch, task

FAILED = TaskStatus.FAILED

CHILD = flow(simple("c1"), simple("c2"), name="child")


def sub(reference: str, **more: Any) -> dict[str, Any]:
    return task("SUB_WORKFLOW", reference, subWorkflowParam={"name": "child"}, **more)


def two_branches(**left: Any) -> dict[str, Any]:
    return flow(
        fork("f", [simple("it1", **left), simple("it3")], [simple("it2")]),
        join("j", "it3", "it2"),
        simple("it4"),
    )


@pytest.mark.covers("D.fork_join.1")
def test_both_branches_end_and_the_flow_goes_on_behind_the_join() -> None:
    world = World(two_branches())
    workflow = world.start("flow")
    assert world.shown(workflow) == ["f:COMPLETED", "it1:SCHEDULED", "it2:SCHEDULED", "j:IN_PROGRESS"]
    world.result(workflow, "it1")
    assert world.shown(workflow)[4:] == ["it3:SCHEDULED"]
    world.result(workflow, "it2", {"two": 2})
    assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "it3", {"three": 3})
    assert world.output(workflow, "j") == {"it3": {"three": 3}, "it2": {"two": 2}}
    assert world.shown(workflow) == [
        "f:COMPLETED", "it1:COMPLETED", "it2:COMPLETED", "j:COMPLETED", "it3:COMPLETED", "it4:SCHEDULED",
    ]  # fmt: skip
    world.result(workflow, "it4")
    assert (world.status(workflow), len(world.rows(workflow))) == ("COMPLETED", 6)


@pytest.mark.covers("D.fork_join.2")
def test_a_failed_branch_cancels_the_other_and_the_join() -> None:
    world = World(two_branches())
    workflow = world.start("flow")
    world.result(workflow, "it1")
    world.result(workflow, "it2", status=FAILED, reason="no luck")
    assert world.shown(workflow) == [
        "f:COMPLETED", "it1:COMPLETED", "it2:FAILED", "j:CANCELED", "it3:CANCELED",
    ]  # fmt: skip
    assert world.status(workflow) == "FAILED"
    assert (world.header(workflow).reason or "").endswith("and reason: 'no luck'")
    assert not world.workflows[workflow].queue


@pytest.mark.covers("D.fork_join.3")
def test_a_permissive_failure_lets_the_other_branch_end_first() -> None:
    branches = [[simple("it1", permissive=True)], [simple("it2"), simple("it3")]]
    world = World(flow(fork("f", *branches), join("j", "it1", "it3"), simple("it4")))
    workflow = world.start("flow")
    world.result(workflow, "it1", status=FAILED, reason="no luck")
    assert world.status(workflow) == "RUNNING"
    world.result(workflow, "it2")
    assert world.shown(workflow) == [
        "f:COMPLETED", "it1:FAILED", "it2:COMPLETED", "j:IN_PROGRESS", "it3:SCHEDULED",
    ]  # fmt: skip
    world.result(workflow, "it3")
    assert world.shown(workflow)[3:] == ["j:FAILED", "it3:COMPLETED"]
    assert world.status(workflow) == "FAILED"
    assert "no luck" in (world.header(workflow).reason or "")


def nested(*inner_end: dict[str, Any]) -> dict[str, Any]:
    inner = [
        fork("f2", [simple("t12")], [simple("t13")]),
        join("join2", "t12", "t13"),
    ]
    deciding = [switch("d", "${workflow.input.case}", {"a": [simple("t16"), simple("t19")]}), simple("t20")]
    on = ["t11", "join2", *(end["taskReferenceName"] for end in inner_end)]
    branches = [[simple("t11")], inner, *([end] for end in inner_end)]
    return flow(
        fork("f1", *branches, deciding),
        join("join1", *on, "t20"),
        simple("t15"),
    )


@pytest.mark.covers("D.fork_join.6")
def test_forks_inside_forks_join_from_the_inside() -> None:
    world = World(nested())
    workflow = world.start("flow", {"case": "a"})
    assert world.shown(workflow) == [
        "f1:COMPLETED", "t11:SCHEDULED", "f2:COMPLETED", "t12:SCHEDULED", "t13:SCHEDULED",
        "join2:IN_PROGRESS", "d:COMPLETED", "t16:SCHEDULED", "join1:IN_PROGRESS",
    ]  # fmt: skip
    assert world.row(workflow, "join1").input.value == {"joinOn": ["t11", "join2", "t20"]}
    assert world.row(workflow, "join2").input.value == {"joinOn": ["t12", "t13"]}
    for reference in ("t11", "t16", "t19", "t12"):
        world.result(workflow, reference)
        assert world.row(workflow, "join2").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "t13", {"n": 13})
    assert world.output(workflow, "join2") == {"t13": {"n": 13}}
    assert world.row(workflow, "join1").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "t20")
    assert world.output(workflow, "join1") == {"join2": {"t13": {"n": 13}}}
    world.result(workflow, "t15")
    assert (world.status(workflow), len(world.rows(workflow))) == ("COMPLETED", 12)


@pytest.mark.covers("D.fork_join.7")
def test_an_outer_join_waits_for_a_sub_workflow_too() -> None:
    world = World(nested(sub("sw1")), CHILD)
    workflow = world.start("flow", {"case": "a"})
    assert world.row(workflow, "join1").input.value == {"joinOn": ["t11", "join2", "sw1", "t20"]}
    (child,) = world.children(workflow)
    for reference in ("t11", "t12", "t13", "t16", "t19", "t20"):
        world.result(workflow, reference)
    world.result(child, "c1")
    assert world.row(workflow, "join1").status == TaskStatus.IN_PROGRESS
    world.result(child, "c2", {"by": "child"})
    assert world.output(workflow, "join1") == {"sw1": {"subWorkflowId": child, "by": "child"}}
    world.result(workflow, "t15")
    assert (world.status(workflow), len(world.rows(workflow))) == ("COMPLETED", 13)


@pytest.mark.covers("D.fork_join.10")
def test_a_failed_child_of_a_branch_is_tried_again_as_another() -> None:
    definition = {"name": "sub", "retryCount": 1, "retryDelaySeconds": 0}
    world = World(
        flow(fork("f", [sub("sub", taskDefinition=definition)], [simple("it2")]), join("j", "sub", "it2")),
        CHILD,
    )
    workflow = world.start("flow")
    (first,) = world.children(workflow)
    world.result(workflow, "it2")
    world.result(first, "c1", status=FAILED, reason="no luck")
    assert (world.status(first), world.status(workflow)) == ("FAILED", "RUNNING")
    assert world.shown(workflow) == [
        "f:COMPLETED", "sub:FAILED", "it2:COMPLETED", "j:IN_PROGRESS", "sub:IN_PROGRESS",
    ]  # fmt: skip
    old, new = [row for row in world.rows(workflow) if row.reference == "sub"]
    assert (old.superseded, new.retried_seq, new.attempt) == (True, old.seq, 1)
    second = world.children(workflow)[-1]
    assert second != first
    world.result(second, "c1")
    world.result(second, "c2")
    assert world.shown(workflow)[3:] == ["j:COMPLETED", "sub:COMPLETED"]
    assert world.status(workflow) == "COMPLETED"


# --- joinMode ------------------------------------------------------------------------------------


def joined(count: int, on: list[str] | None = None, mode: str | None = "SYNC", **first: Any) -> World:
    branches = [[simple(f"b{n}", **(first if n == 0 else {}))] for n in range(count)]
    more = {} if mode is None else {"joinMode": mode}
    return World(flow(fork("f", *branches), join("j", *(on or [f"b{n}" for n in range(count)]), **more)))


@pytest.mark.covers("D.sync_join.1", "D.sync_join.2", "D.sync_join.3", "D.sync_join.9")
@pytest.mark.parametrize("mode", ["SYNC", None, "ASYNC"])
@pytest.mark.parametrize("count", [3, 10])
def test_a_join_is_decided_with_the_last_result_in_every_mode(mode: str | None, count: int) -> None:
    world = joined(count, mode=mode)
    workflow = world.start("flow")
    for n in range(count):
        assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
        before = world.decisions
        world.result(workflow, f"b{n}", {"n": n})
        assert world.decisions == before + 1, "nothing else has to happen"
    assert world.output(workflow, "j") == {f"b{n}": {"n": n} for n in range(count)}
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("D.sync_join.4")
def test_an_optional_branch_may_fail() -> None:
    world = joined(2, optional=True)
    workflow = world.start("flow")
    world.result(workflow, "b0", status=FAILED)
    world.result(workflow, "b1")
    assert world.shown(workflow) == [
        "f:COMPLETED", "b0:COMPLETED_WITH_ERRORS", "b1:COMPLETED", "j:COMPLETED_WITH_ERRORS",
    ]  # fmt: skip
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("D.sync_join.5")
def test_a_required_branch_may_not() -> None:
    world = joined(2)
    workflow = world.start("flow")
    world.result(workflow, "b0", status=FAILED)
    assert world.shown(workflow) == ["f:COMPLETED", "b0:FAILED", "b1:CANCELED", "j:CANCELED"]
    assert world.status(workflow) == "FAILED"


@pytest.mark.covers("D.sync_join.6")
def test_a_branch_of_several_tasks_is_waited_for_to_its_last() -> None:
    world = World(
        flow(
            fork("f", [simple("a"), simple("b"), simple("c")], [simple("x")]),
            join("j", "c", "x", joinMode="SYNC"),
        )
    )
    workflow = world.start("flow")
    for reference in ("x", "a", "b"):
        world.result(workflow, reference)
        assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "c", {"n": 1})
    assert (world.output(workflow, "j"), world.status(workflow)) == ({"c": {"n": 1}}, "COMPLETED")


@pytest.mark.covers("D.sync_join.7")
def test_a_join_on_some_branches_does_not_wait_for_the_others() -> None:
    world = joined(3, ["b0", "b2"])
    workflow = world.start("flow")
    world.result(workflow, "b0")
    world.result(workflow, "b2")
    assert world.row(workflow, "j").status == TaskStatus.COMPLETED
    assert (world.row(workflow, "b1").status, world.status(workflow)) == (TaskStatus.SCHEDULED, "RUNNING")
    world.result(workflow, "b1")
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("D.sync_join.8")
def test_an_inner_join_is_done_before_the_outer_one() -> None:
    inner = [fork("g", [simple("x")], [simple("y")]), join("k", "x", "y", joinMode="SYNC")]
    world = World(flow(fork("f", inner, [simple("a")]), join("j", "k", "a", joinMode="SYNC")))
    workflow = world.start("flow")
    world.result(workflow, "a")
    world.result(workflow, "x", {"n": 1})
    assert (world.row(workflow, "k").status.name, world.row(workflow, "j").status.name) == (
        "IN_PROGRESS",
        "IN_PROGRESS",
    )
    world.result(workflow, "y", {"n": 2})
    assert world.output(workflow, "k") == {"x": {"n": 1}, "y": {"n": 2}}
    assert world.output(workflow, "j") == {"k": {"x": {"n": 1}, "y": {"n": 2}}}
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("D.lock_contention.1", "D.lock_contention.2")
def test_what_follows_a_join_is_scheduled_in_the_decision_that_completes_it() -> None:
    world = World(two_branches())
    workflow = world.start("flow")
    world.result(workflow, "it1")
    world.result(workflow, "it2")
    before = world.decisions
    world.result(workflow, "it3")
    assert world.decisions == before + 1
    assert (world.row(workflow, "j").status, world.shown(workflow)[-1]) == (
        TaskStatus.COMPLETED,
        "it4:SCHEDULED",
    )


# --- dynamic forks -------------------------------------------------------------------------------


def dynamic() -> dict[str, Any]:
    inputs = {"tasks": "${it1.output.tasks}", "inputs": "${it1.output.inputs}"}
    forking = task(
        "FORK_JOIN_DYNAMIC",
        "d",
        inputs,
        dynamicForkTasksParam="tasks",
        dynamicForkTasksInputParamName="inputs",
    )
    return flow(simple("it1"), forking, join("j"), simple("it4"))


FORKED = {"tasks": [simple("xdt1"), simple("xdt2")], "inputs": {"xdt1": {"k1": "v1"}, "xdt2": {"k2": "v2"}}}


def forked() -> tuple[World, str]:
    world = World(dynamic())
    workflow = world.start("flow")
    world.result(workflow, "it1", FORKED)
    assert world.shown(workflow) == [
        "it1:COMPLETED", "d:COMPLETED", "xdt1:SCHEDULED", "xdt2:SCHEDULED", "j:IN_PROGRESS",
    ]  # fmt: skip
    return world, workflow


@pytest.mark.covers("D.dynamic_fork.1", "M.8")
def test_the_branches_come_from_an_output_and_their_outputs_go_into_the_join() -> None:
    world, workflow = forked()
    assert world.row(workflow, "d").type == "FORK"
    assert [world.row(workflow, name).input.value for name in ("xdt1", "xdt2")] == [
        {"k1": "v1"},
        {"k2": "v2"},
    ]
    assert world.row(workflow, "j").input.value == {"joinOn": ["xdt1", "xdt2"]}
    world.result(workflow, "xdt1", {"ok1": "ov1"})
    assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "xdt2", {"ok1": "ov2"})
    assert world.output(workflow, "j") == {"xdt1": {"ok1": "ov1"}, "xdt2": {"ok1": "ov2"}}
    assert world.shown(workflow)[4:] == ["j:COMPLETED", "it4:SCHEDULED"]
    world.result(workflow, "it4")
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("D.dynamic_fork.2")
def test_a_failed_dynamic_branch_cancels_the_others_and_the_join() -> None:
    world, workflow = forked()
    world.result(workflow, "xdt1", status=FAILED)
    assert world.shown(workflow)[2:] == ["xdt1:FAILED", "xdt2:CANCELED", "j:CANCELED"]
    assert world.status(workflow) == "FAILED"


@pytest.mark.covers("D.dynamic_fork.5")
def test_branches_without_outputs_leave_the_join_without_any() -> None:
    world, workflow = forked()
    world.result(workflow, "xdt1")
    world.result(workflow, "xdt2", {})
    assert world.row(workflow, "j").status == TaskStatus.COMPLETED
    assert world.output(workflow, "j") == {}
    assert world.shown(workflow)[-1] == "it4:SCHEDULED"


@pytest.mark.covers("D.dynamic_fork.6")
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({**FORKED, "inputs": "none"}, "is not a map -> expecting a map of K,V  but found none"),
        ({**FORKED, "tasks": "none"}, "Cannot deserialize a list of Workflow Tasks"),
    ],
)
def test_inputs_that_are_none_end_the_workflow_right_there(wrong: dict[str, Any], told: str) -> None:
    world = World(dynamic())
    workflow = world.start("flow")
    world.result(workflow, "it1", wrong)
    assert world.shown(workflow) == ["it1:COMPLETED", "d:FAILED_WITH_TERMINAL_ERROR"]
    assert told in (world.row(workflow, "d").reason or "")
    assert world.status(workflow) == "FAILED"
    assert told in (world.header(workflow).reason or "")


@pytest.mark.covers("D.dynamic_fork.7")
def test_a_dynamic_fork_that_begins_the_workflow_fails_it_at_its_start() -> None:
    params = {"dynamicForkTasksParam": "tasks", "dynamicForkTasksInputParamName": "inputs"}
    world = World(flow(task("FORK_JOIN_DYNAMIC", "d", {"tasks": 5, "inputs": {}}, **params), join("j")))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["d:FAILED_WITH_TERMINAL_ERROR"]
    assert "Cannot deserialize a list of Workflow Tasks" in (world.header(workflow).reason or "")
    assert (world.status(workflow), list(world.workflows)) == ("FAILED", [workflow])
