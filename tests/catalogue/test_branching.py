"""05 C: DECISION and SWITCH, EXCLUSIVE_JOIN, TERMINATE, failure workflows."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.state import TaskStatus

from ..engine.harness import World, flow, fork, join, simple, switch, task

FAILED = TaskStatus.FAILED

Case = tuple[str, str]
KINDS = [
    pytest.param(("SWITCH", "evaluationResult"), id="switch"),
    pytest.param(("DECISION", "caseOutput"), id="decision"),
]
kinds = pytest.mark.parametrize("kind", KINDS)


def case(kind: Case, reference: str, value: str, cases: dict[str, Any], default: Any = ()) -> dict[str, Any]:
    """A task that chooses among cases, in either spelling."""
    if kind[0] == "SWITCH":
        return switch(reference, value, cases, default)
    return task(
        "DECISION",
        reference,
        {"case": value},
        caseValueParam="case",
        decisionCases=cases,
        defaultCase=list(default),
    )


def chosen(world: World, workflow: str, kind: Case, reference: str) -> Any:
    return world.output(workflow, reference)[kind[1]]


@pytest.mark.covers("C.decision.1", "C.switch.1")
@kinds
def test_a_case_runs_its_tasks_in_order_and_the_flow_goes_on_behind_it(kind: Case) -> None:
    world = World(
        flow(
            case(kind, "s", "${workflow.input.first}", {"one": [simple("it1"), simple("it2")]}),
            simple("it20"),
        )
    )
    workflow = world.start("flow", {"first": "one"})
    assert world.shown(workflow) == ["s:COMPLETED", "it1:SCHEDULED"]
    assert chosen(world, workflow, kind, "s") == ["one"]
    world.result(workflow, "it1")
    assert world.shown(workflow)[2:] == ["it2:SCHEDULED"]
    world.result(workflow, "it2")
    assert world.shown(workflow)[3:] == ["it20:SCHEDULED"]
    world.result(workflow, "it20")
    assert world.status(workflow) == "COMPLETED"
    assert len(world.rows(workflow)) == 4


@pytest.mark.covers("C.decision.2", "C.switch.2")
@kinds
def test_a_choice_inside_a_branch_is_part_of_its_path_to_the_join(kind: Case) -> None:
    choice = case(kind, "s", "${workflow.input.first}", {"one": [simple("it1"), simple("it2")]})
    world = World(flow(fork("f", [choice, simple("it20")], [simple("it10")]), join("j", "it20", "it10")))
    workflow = world.start("flow", {"first": "one"})
    assert world.shown(workflow) == [
        "f:COMPLETED", "s:COMPLETED", "it1:SCHEDULED", "it10:SCHEDULED", "j:IN_PROGRESS",
    ]  # fmt: skip
    assert world.row(workflow, "j").input.value == {"joinOn": ["it20", "it10"]}
    for reference in ("it1", "it2", "it10"):
        world.result(workflow, reference)
        assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "it20")
    assert world.row(workflow, "j").status == TaskStatus.COMPLETED
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("C.decision.3", "C.switch.3")
@kinds
def test_what_matches_no_case_takes_the_default_and_what_is_missing_is_the_word_null(kind: Case) -> None:
    world = World(
        flow(
            case(kind, "s", "${workflow.input.first}", {"one": [simple("it1")]}, [simple("it10")]),
            case(kind, "last", "${workflow.input.absent}", {"notify": [simple("it4")]}),
        )
    )
    workflow = world.start("flow", {"first": "xxx"})
    assert world.shown(workflow) == ["s:COMPLETED", "it10:SCHEDULED"]
    assert chosen(world, workflow, kind, "s") == ["xxx"]
    world.result(workflow, "it10")
    assert world.shown(workflow) == ["s:COMPLETED", "it10:COMPLETED", "last:COMPLETED"]
    assert chosen(world, workflow, kind, "last") == ["null"]
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("C.decision.4", "C.switch.4")
@kinds
@pytest.mark.parametrize(("second", "reference"), [("one", "it1"), ("two", "it2")])
def test_a_choice_may_lead_to_another(kind: Case, second: str, reference: str) -> None:
    inner = case(kind, "inner", "${workflow.input.second}", {"one": [simple("it1")], "two": [simple("it2")]})
    world = World(
        flow(
            case(kind, "outer", "${workflow.input.first}", {"nested": [inner], "three": [simple("it3")]}),
            case(kind, "last", "${workflow.input.absent}", {"notify": [simple("it4")]}),
        )
    )
    workflow = world.start("flow", {"first": "nested", "second": second})
    assert world.shown(workflow) == ["outer:COMPLETED", "inner:COMPLETED", f"{reference}:SCHEDULED"]
    assert chosen(world, workflow, kind, "outer") == ["nested"]
    assert chosen(world, workflow, kind, "inner") == [second]
    world.result(workflow, reference)
    assert chosen(world, workflow, kind, "last") == ["null"]
    assert (world.status(workflow), len(world.rows(workflow))) == ("COMPLETED", 4)


@pytest.mark.covers("C.decision.5", "C.switch.5")
@kinds
def test_a_later_choice_is_taken_by_its_own_value(kind: Case) -> None:
    world = World(
        flow(
            case(kind, "s", "${workflow.input.first}", {"three": [simple("it3")]}, [simple("it10")]),
            case(kind, "last", "${workflow.input.last}", {"notify": [simple("it4")]}),
        )
    )
    workflow = world.start("flow", {"first": "three", "last": "notify"})
    assert world.shown(workflow) == ["s:COMPLETED", "it3:SCHEDULED"]
    world.result(workflow, "it3")
    assert world.shown(workflow)[2:] == ["last:COMPLETED", "it4:SCHEDULED"]
    assert chosen(world, workflow, kind, "last") == ["notify"]
    world.result(workflow, "it4")
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("C.switch.6")
def test_a_switch_without_default_that_matches_nothing_goes_on() -> None:
    world = World(flow(switch("s", "xxx", {"one": [simple("it1")]}), simple("it2")))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["s:COMPLETED", "it2:SCHEDULED"]
    assert world.output(workflow, "s")["evaluationResult"] == ["xxx"]
    world.result(workflow, "it2")
    assert world.status(workflow) == "COMPLETED"


EITHER = flow(
    simple("task1"),
    switch(
        "decision_1",
        "${workflow.input.one}",
        {
            "true": [
                simple("task2"),
                switch("decision_2", "${workflow.input.two}", {"true": [simple("task3")]}),
            ],
            "false": [
                simple("task4"),
                switch("decision_3", "${workflow.input.three}", {"true": [simple("task5")]}),
            ],
        },
    ),
    task(
        "EXCLUSIVE_JOIN",
        "x",
        joinOn=["task3", "task2", "task5", "task4"],
        defaultExclusiveJoinTask=["task1"],
    ),
)


@pytest.mark.covers("C.exclusive_join.1", "C.exclusive_join.2", "C.exclusive_join.3")
@pytest.mark.covers("C.exclusive_join.4", "C.exclusive_join.5")
@pytest.mark.parametrize(
    ("given", "runs"),
    [
        ({"one": "null"}, ["task1"]),
        ({"one": "true", "two": "null"}, ["task1", "task2"]),
        ({"one": "true", "two": "true"}, ["task1", "task2", "task3"]),
        ({"one": "false", "three": "null"}, ["task1", "task4"]),
        ({"one": "false", "three": "true"}, ["task1", "task4", "task5"]),
    ],
)
def test_an_exclusive_join_gives_out_what_the_branch_that_ran_gave_last(
    given: dict[str, str], runs: list[str]
) -> None:
    world = World(EITHER)
    workflow = world.start("flow", given)
    for reference in runs:
        assert world.open_worker_rows(workflow)[0].reference == reference
        world.result(workflow, reference, {"taskReferenceName": reference})
    assert world.row(workflow, "x").status == TaskStatus.COMPLETED
    assert world.output(workflow, "x") == {"taskReferenceName": runs[-1]}
    assert (world.status(workflow), world.output(workflow)) == ("COMPLETED", {"taskReferenceName": runs[-1]})


# --- TERMINATE and LAMBDA ------------------------------------------------------------------------


def terminate(status: str, reason: str | None = None, output: Any = None) -> dict[str, Any]:
    inputs = {"terminationStatus": status, "workflowOutput": output}
    return task("TERMINATE", "t", {**inputs, "terminationReason": reason} if reason else inputs)


LAMBDA = task(
    "LAMBDA",
    "la",
    {
        "input": "${workflow.input}",
        "scriptExpression": "if ($.input.a == 1) {return {testvalue: true}} else {return {testvalue: false}}",
    },
)


@pytest.mark.covers("C.terminate.1")
def test_terminate_completes_the_workflow_with_its_output_alone() -> None:
    world = World(
        flow(
            LAMBDA,
            terminate("COMPLETED", output="${la.output}"),
            simple("never"),
            outputParameters={"mine": 1},
        )
    )
    workflow = world.start("flow", {"a": 1})
    assert world.shown(workflow) == ["la:COMPLETED", "t:COMPLETED"]
    assert world.status(workflow) == "COMPLETED"
    assert "Workflow is COMPLETED by TERMINATE task" in (world.header(workflow).reason or "")
    assert world.output(workflow) == {"result": {"testvalue": True}}


@pytest.mark.covers("C.terminate.2")
def test_terminate_fails_the_workflow_with_its_reason_and_its_failure_workflow() -> None:
    world = World(
        flow(LAMBDA, terminate("FAILED", "Early exit in terminate"), failureWorkflow="handler"),
        flow(simple("clean", {"reason": "${workflow.input.reason}"}), name="handler"),
    )
    workflow = world.start("flow", {"a": 1})
    assert world.shown(workflow) == ["la:COMPLETED", "t:COMPLETED"]
    assert (world.status(workflow), world.header(workflow).reason) == ("FAILED", "Early exit in terminate")
    handler = world.output(workflow)["conductor.failure_workflow"]
    assert (world.header(handler).name, world.status(handler)) == ("handler", "RUNNING")
    assert world.row(handler, "clean").input.value == {"reason": "Early exit in terminate"}


@pytest.mark.covers("C.terminate.3")
def test_terminate_ends_what_runs_beside_it_children_too() -> None:
    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})
    ending = [simple("first"), terminate("TERMINATED", "no more")]
    world = World(
        flow(fork("f", ending, [sub], [simple("sibling")]), join("j", "t", "sub", "sibling")),
        flow(simple("in_child"), name="child"),
    )
    workflow = world.start("flow")
    (child,) = world.children(workflow)
    world.result(workflow, "first")
    assert world.shown(workflow) == [
        "f:COMPLETED", "first:COMPLETED", "sub:CANCELED", "sibling:CANCELED", "j:CANCELED", "t:COMPLETED",
    ]  # fmt: skip
    assert (world.status(workflow), world.header(workflow).reason) == ("TERMINATED", "no more")
    assert (world.status(child), world.shown(child)) == ("TERMINATED", ["in_child:CANCELED"])
    assert world.header(child).reason == "Parent workflow has been terminated with reason: no more"


@pytest.mark.covers("C.terminate.4")
def test_terminate_in_a_case_gives_out_what_it_was_given() -> None:
    ending = terminate("FAILED", output={"output": "${task1.output.says}"})
    world = World(
        flow(
            simple("task1"),
            switch("s", "${task1.output.go}", {"end": [ending], "on": [simple("task2")]}),
            simple("never"),
        )
    )
    workflow = world.start("flow")
    world.result(workflow, "task1", {"go": "end", "says": "task1 completed"})
    assert world.shown(workflow) == ["task1:COMPLETED", "s:COMPLETED", "t:COMPLETED"]
    assert (world.status(workflow), world.output(workflow)) == ("FAILED", {"output": "task1 completed"})


@pytest.mark.covers("C.terminate.5")
def test_a_workflow_of_one_lambda() -> None:
    world = World(flow(LAMBDA))
    workflow = world.start("flow", {"a": 1})
    assert world.shown(workflow) == ["la:COMPLETED"]
    assert world.output(workflow, "la") == {"result": {"testvalue": True}}
    assert world.status(workflow) == "COMPLETED"


# --- failure workflows ---------------------------------------------------------------------------

HANDLER = flow(simple("clean", {"all": "${workflow.input}"}), name="handler")


@pytest.mark.covers("C.failure_workflow.1")
def test_a_failure_workflow_knows_what_failed() -> None:
    world = World(flow(simple("a"), failureWorkflow="handler"), HANDLER)
    workflow = world.start("flow", {"k": 1}, correlation_id="order-7")
    world.result(workflow, "a", status=FAILED, reason="no luck")
    handler = world.output(workflow)["conductor.failure_workflow"]
    assert world.header(handler).correlation_id == "order-7"
    given = world.row(handler, "clean").input.value["all"]
    failed_task = f"{workflow[:-6]}{world.row(workflow, 'a').seq:06x}"
    assert given["workflowId"] == workflow
    assert given["reason"] == f"Task {failed_task} failed with status: FAILED and reason: 'no luck'"
    assert (given["failureStatus"], given["failureTaskId"]) == ("FAILED", failed_task)
    assert given["failedWorkflow"]["workflowId"] == workflow


@pytest.mark.covers("C.failure_workflow.2")
def test_a_childs_failure_starts_the_parents_failure_workflow() -> None:
    world = World(
        flow(
            task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"}),
            simple("never"),
            failureWorkflow="handler",
        ),
        flow(simple("in_child"), terminate("FAILED", "stop here"), name="child"),
        HANDLER,
    )
    workflow = world.start("flow")
    (child,) = world.children(workflow)
    world.result(child, "in_child")
    assert (world.status(child), world.header(child).reason) == ("FAILED", "stop here")
    assert (world.shown(workflow), world.status(workflow)) == (["sub:FAILED"], "FAILED")
    handlers = [one for one in world.workflows if world.header(one).name == "handler"]
    assert handlers == [world.output(workflow)["conductor.failure_workflow"]]
    given = world.row(handlers[0], "clean").input.value["all"]
    assert given["workflowId"] == workflow
    assert given["failureTaskId"] == f"{workflow[:-6]}{world.row(workflow, 'sub').seq:06x}"
    assert "stop here" in given["reason"]
