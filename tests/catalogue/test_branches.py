"""Branching and ends: SWITCH, DECISION, EXCLUSIVE_JOIN, TERMINATE, failure workflows (C of the catalogue)."""

from __future__ import annotations

from typing import Any

import pytest

from engine.harness import World, flow, fork, join, simple, switch, task
from maestoso_server.engine.state import TaskStatus

Node = dict[str, Any]


def decision(reference: str, value: Any, cases: dict[str, Any], default: Any = ()) -> Node:
    return task(
        "DECISION",
        reference,
        {"value": value},
        caseValueParam="value",
        decisionCases=cases,
        defaultCase=list(default),
    )


MAKES = {"decision": decision, "switch": switch}
OUTPUTS = {"decision": "caseOutput", "switch": "evaluationResult"}


def chosen(world: World, run: str, kind: str, reference: str) -> Any:
    return world.output(run, reference)[OUTPUTS[kind]]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("decision", marks=pytest.mark.covers("C.decision.1")),
        pytest.param("switch", marks=pytest.mark.covers("C.switch.1")),
    ],
)
def test_the_chosen_case_runs_and_then_what_follows(kind: str) -> None:
    make = MAKES[kind]
    node = make("s", "${workflow.input.case}", {"c": [simple("it1"), simple("it2")], "d": [simple("it3")]})
    world = World(flow(node, simple("it20")))
    run = world.start("flow", {"case": "c"})
    assert world.shown(run) == ["s:COMPLETED", "it1:SCHEDULED"]
    assert chosen(world, run, kind, "s") == ["c"]

    for reference in ("it1", "it2", "it20"):
        world.result(run, reference)
    assert world.status(run) == "COMPLETED"
    assert len(world.rows(run)) == 4


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("decision", marks=pytest.mark.covers("C.decision.2")),
        pytest.param("switch", marks=pytest.mark.covers("C.switch.2")),
    ],
)
def test_inside_a_fork_the_join_waits_for_the_last_task_of_each_path(kind: str) -> None:
    inner = MAKES[kind]("s", "c", {"c": [simple("t1"), simple("t2")]})
    world = World(flow(fork("f", [inner, simple("t20")], [simple("t10")]), join("j", "t20", "t10")))
    run = world.start("flow")
    assert world.shown(run) == [
        "f:COMPLETED",
        "s:COMPLETED",
        "t1:SCHEDULED",
        "t10:SCHEDULED",
        "j:IN_PROGRESS",
    ]
    assert world.row(run, "j").input.value["joinOn"] == ["t20", "t10"]

    for reference in ("t1", "t10", "t2"):
        world.result(run, reference)
    assert world.row(run, "j").status is TaskStatus.IN_PROGRESS
    world.result(run, "t20")
    assert world.row(run, "j").status is TaskStatus.COMPLETED
    assert world.status(run) == "COMPLETED"


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("decision", marks=pytest.mark.covers("C.decision.3")),
        pytest.param("switch", marks=pytest.mark.covers("C.switch.3")),
    ],
)
def test_what_no_case_names_goes_to_the_default_and_a_missing_value_is_the_text_null(kind: str) -> None:
    make = MAKES[kind]
    world = World(
        flow(
            make("s1", "${workflow.input.case}", {"c": [simple("no")]}, [simple("dflt")]),
            make("s2", "${workflow.input.missing}", {"c": [simple("never")]}),
        )
    )
    run = world.start("flow", {"case": "xxx"})
    assert chosen(world, run, kind, "s1") == ["xxx"]
    world.result(run, "dflt")

    assert chosen(world, run, kind, "s2") == ["null"]
    assert world.status(run) == "COMPLETED"
    assert world.shown(run) == ["s1:COMPLETED", "dflt:COMPLETED", "s2:COMPLETED"]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("decision", marks=pytest.mark.covers("C.decision.4")),
        pytest.param("switch", marks=pytest.mark.covers("C.switch.4")),
    ],
)
@pytest.mark.parametrize("second", ["one", "two"])
def test_one_inside_another(kind: str, second: str) -> None:
    make = MAKES[kind]
    inner = make("inner", "${workflow.input.second}", {"one": [simple("t_one")], "two": [simple("t_two")]})
    world = World(
        flow(
            make("outer", "${workflow.input.first}", {"nested": [inner], "flat": [simple("t_flat")]}),
            make("last", "${workflow.input.missing}", {"x": [simple("never")]}),
        )
    )
    run = world.start("flow", {"first": "nested", "second": second})
    assert world.shown(run) == ["outer:COMPLETED", "inner:COMPLETED", f"t_{second}:SCHEDULED"]

    world.result(run, f"t_{second}")
    assert chosen(world, run, kind, "last") == ["null"]
    assert world.status(run) == "COMPLETED"


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("decision", marks=pytest.mark.covers("C.decision.5")),
        pytest.param("switch", marks=pytest.mark.covers("C.switch.5")),
    ],
)
def test_a_later_one_chooses_by_itself(kind: str) -> None:
    make = MAKES[kind]
    world = World(
        flow(
            make("s", "${workflow.input.case}", {"three": [simple("it3")], "four": [simple("it9")]}),
            make("n", "${workflow.input.notify}", {"notify": [simple("it4")]}),
        )
    )
    run = world.start("flow", {"case": "three", "notify": "notify"})
    world.result(run, "it3")
    assert world.shown(run)[-2:] == ["n:COMPLETED", "it4:SCHEDULED"]
    world.result(run, "it4")
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("C.switch.6")
def test_without_default_and_match_the_flow_goes_on() -> None:
    world = World(flow(switch("s", "none", {"a": [simple("never")]}), simple("after")))
    assert world.shown(world.start("flow")) == ["s:COMPLETED", "after:SCHEDULED"]


@pytest.mark.parametrize(
    ("inputs", "ran"),
    [
        pytest.param({}, ["task1"], marks=pytest.mark.covers("C.exclusive_join.1")),
        pytest.param(
            {"decision_1": "true", "decision_2": "null"},
            ["task1", "task2"],
            marks=pytest.mark.covers("C.exclusive_join.2"),
        ),
        pytest.param(
            {"decision_1": "true", "decision_2": "true"},
            ["task1", "task2", "task3"],
            marks=pytest.mark.covers("C.exclusive_join.3"),
        ),
        pytest.param(
            {"decision_1": "false", "decision_3": "null"},
            ["task1", "task4"],
            marks=pytest.mark.covers("C.exclusive_join.4"),
        ),
        pytest.param(
            {"decision_1": "false", "decision_3": "true"},
            ["task1", "task4", "task5"],
            marks=pytest.mark.covers("C.exclusive_join.5"),
        ),
    ],
)
def test_an_exclusive_join_has_the_output_of_the_path_that_ran(inputs: Node, ran: list[str]) -> None:
    second = switch("d2", "${workflow.input.decision_2}", {"true": [simple("task3")]})
    third = switch("d3", "${workflow.input.decision_3}", {"true": [simple("task5")]})
    first = switch(
        "d1",
        "${workflow.input.decision_1}",
        {"true": [simple("task2"), second], "false": [simple("task4"), third]},
    )
    ended = task(
        "EXCLUSIVE_JOIN",
        "x",
        joinOn=["task5", "task4", "task3", "task2"],
        defaultExclusiveJoinTask=["task1"],
    )
    world = World(flow(simple("task1"), first, ended))
    run = world.start("flow", inputs)
    for reference in ran:
        world.result(run, reference, {"by": reference})

    assert world.status(run) == "COMPLETED"
    assert world.output(run, "x") == {"by": ran[-1]}


# --- ends ----------------------------------------------------------------------------------------


def terminate(status: str, output: Any = None, reason: str | None = None) -> Node:
    return task(
        "TERMINATE",
        "end",
        {"terminationStatus": status, "terminationReason": reason, "workflowOutput": output},
    )


@pytest.mark.covers("C.terminate.1", "K26", "K7")
def test_k26_terminate_completed_ends_with_its_own_output_only() -> None:
    world = World(
        flow(simple("t1"), terminate("COMPLETED", {"only": 1}), simple("never"), outputParameters={"o": 2})
    )
    run = world.start("flow")
    world.result(run, "t1")

    header = world.header(run)
    assert world.shown(run) == ["t1:COMPLETED", "end:COMPLETED"]
    assert header.status.name == "COMPLETED"
    assert (header.reason or "").startswith("Workflow is COMPLETED by TERMINATE task")
    assert world.output(run) == {"only": 1}


@pytest.mark.covers("C.terminate.2", "K33")
def test_k33_terminate_failed_starts_the_failure_workflow_and_names_it() -> None:
    after = flow(simple("mend", {"all": "${workflow.input}"}), name="after")
    document = flow(
        simple("t1"), terminate("FAILED", {"x": 1}, "Early exit in terminate"), failureWorkflow="after"
    )
    world = World(document, after)
    run = world.start("flow", {"k": 7}, correlation_id="c")
    world.result(run, "t1")

    assert world.status(run) == "FAILED"
    assert world.header(run).reason == "Early exit in terminate"
    mending = world.output(run)["conductor.failure_workflow"]
    given = world.row(mending, "mend").input.value["all"]
    assert world.output(run) == {"x": 1, "conductor.failure_workflow": mending}
    assert (given["k"], given["workflowId"], given["reason"]) == (7, run, "Early exit in terminate")
    assert given["failureStatus"] == "FAILED"
    assert world.header(mending).correlation_id == "c"


@pytest.mark.covers("C.terminate.3")
def test_terminate_beside_a_running_child_ends_the_child() -> None:
    child = flow(simple("inner"), name="child")
    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})
    branch = [simple("t1"), terminate("TERMINATED", None, "enough")]
    world = World(flow(fork("f", [sub], branch, [simple("t9")]), join("j", "sub", "end", "t9")), child)
    run = world.start("flow")
    (child_id,) = world.children(run)
    world.result(run, "t1")

    assert world.status(run) == "TERMINATED"
    assert world.status(child_id) == "TERMINATED"
    told = world.header(child_id).reason or ""
    assert told.startswith("Parent workflow has been terminated with reason: enough")
    assert world.shown(child_id) == ["inner:CANCELED"]
    assert {"sub:CANCELED", "t9:CANCELED", "j:CANCELED"} <= set(world.shown(run))


@pytest.mark.covers("C.terminate.4")
def test_terminate_in_a_case_fails_the_workflow_with_a_wrapped_output() -> None:
    end = terminate("FAILED", "${t1.output.text}")
    world = World(flow(simple("t1"), switch("s", "a", {"a": [end]})))
    run = world.start("flow")
    world.result(run, "t1", {"text": "task1 completed"})

    assert world.status(run) == "FAILED"
    assert world.output(run) == {"output": "task1 completed"}


@pytest.mark.covers("C.failure_workflow.1")
@pytest.mark.parametrize("name", ["after", "$workflow.input.mender", "${workflow.input.mender}"])
def test_the_failure_workflow_is_told_what_failed(name: str) -> None:
    after = flow(simple("mend", {"all": "${workflow.input}"}), name="after")
    world = World(flow(simple("t1"), failureWorkflow=name), after)
    run = world.start("flow", {"mender": "after"}, correlation_id="c")
    failed = world.row(run, "t1").seq
    world.result(run, "t1", status=TaskStatus.FAILED, reason="no luck")

    mending = world.output(run)["conductor.failure_workflow"]
    given = world.row(mending, "mend").input.value["all"]
    assert given["workflowId"] == run
    assert given["reason"] == world.header(run).reason
    assert given["failureStatus"] == "FAILED"
    assert given["failureTaskId"] == f"{run[:-6]}{failed:06x}"
    assert given["failedWorkflow"]["workflowId"] == run
    assert world.header(mending).correlation_id == "c"


@pytest.mark.covers("C.failure_workflow.2")
def test_a_failing_child_fails_its_parent_whose_failure_workflow_is_told() -> None:
    child = flow(terminate("FAILED", None, "the child ends"), name="child")
    after = flow(simple("mend", {"all": "${workflow.input}"}), name="after")
    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})
    world = World(flow(sub, failureWorkflow="after"), child, after)
    run = world.start("flow")

    (child_id,) = world.children(run)
    row = world.row(run, "sub")
    assert (world.status(child_id), row.status, world.status(run)) == ("FAILED", TaskStatus.FAILED, "FAILED")
    assert f"child.1/{child_id} failure reason: the child ends" in (row.reason or "")
    mending = world.output(run)["conductor.failure_workflow"]
    given = world.row(mending, "mend").input.value["all"]
    assert (given["workflowId"], given["failureTaskId"]) == (run, f"{run[:-6]}{row.seq:06x}")
