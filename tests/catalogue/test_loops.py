"""05 F: DO_WHILE."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.events import Retry
from maestoso_server.engine.state import TaskStatus

from ..engine.harness import World, flow, fork, inline, join, loop, simple, switch, task

FAILED = TaskStatus.FAILED


def jq(reference: str, query: str, **inputs: Any) -> dict[str, Any]:
    return task("JSON_JQ_TRANSFORM", reference, {"queryExpression": query, **inputs})


def turns(world: World, workflow: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(row.reference, row.path) for row in world.rows(workflow)]


@pytest.mark.covers("F.1")
def test_two_turns_of_five_tasks_then_the_task_behind_the_loop() -> None:
    body = [
        task("LAMBDA", "la", {"scriptExpression": "return $.n * 10", "n": "${l.output.iteration}"}),
        jq("q1", ".n + 1", n="${la.output.result}"),
        simple("it1", {"n": "${q1.output.result}"}),
        jq("q2", ".n + 1", n="${it1.output.n}"),
        simple("it2", {"n": "${q2.output.result}"}),
    ]
    world = World(flow(loop("l", body, 2), simple("it3")))
    workflow = world.start("flow")
    for turn in (1, 2):
        assert world.row(workflow, f"it1__{turn}").input.value == {"n": turn * 10 + 1}
        world.result(workflow, f"it1__{turn}", {"n": turn * 100})
        assert world.row(workflow, f"it2__{turn}").input.value == {"n": turn * 100 + 1}
        world.result(workflow, f"it2__{turn}", {"done": turn})
    assert turns(world, workflow) == [
        ("l", ()),
        *((name, (turn,)) for turn in (1, 2) for name in ("la", "q1", "it1", "q2", "it2")),
        ("it3", ()),
    ]
    output = world.output(workflow, "l")
    assert output["iteration"] == 2
    assert [output[str(turn)]["it2"] for turn in (1, 2)] == [{"done": 1}, {"done": 2}]
    world.result(workflow, "it3")
    assert (world.status(workflow), len(world.rows(workflow))) == ("COMPLETED", 12)


@pytest.mark.covers("F.2")
def test_turns_of_tasks_that_end_at_once_are_over_when_the_start_is() -> None:
    world = World(flow(loop("l", [inline("i", "1"), jq("q", ".n", n=2)], 3), simple("it1")))
    workflow = world.start("flow")
    assert world.shown(workflow) == [
        "l:COMPLETED",
        *(f"{name}__{turn}:COMPLETED" for turn in (1, 2, 3) for name in ("i", "q")),
        "it1:SCHEDULED",
    ]
    assert world.output(workflow, "l")["3"] == {
        "i": {"result": 1},
        "q": {"result": 2, "resultList": [2]},
    }


FORKED = [simple("it0"), fork("f", [simple("it1")], [simple("it2")]), join("join", "it1", "it2")]


@pytest.mark.covers("F.3")
def test_a_fork_inside_a_loop_joins_inside_its_turn() -> None:
    world = World(flow(loop("l", FORKED, 1)))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["l:IN_PROGRESS", "it0__1:SCHEDULED"]
    world.result(workflow, "it0__1")
    assert world.shown(workflow)[2:] == [
        "f__1:COMPLETED", "it1__1:SCHEDULED", "it2__1:SCHEDULED", "join__1:IN_PROGRESS",
    ]  # fmt: skip
    world.result(workflow, "it1__1")
    assert world.row(workflow, "l").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "it2__1", {"n": 2})
    assert world.output(workflow, "join__1") == {"it2__1": {"n": 2}}
    assert world.row(workflow, "l").status == TaskStatus.COMPLETED
    assert (world.status(workflow), len(world.rows(workflow))) == ("COMPLETED", 6)


@pytest.mark.covers("F.4")
def test_a_turn_waits_for_the_sub_workflow_at_its_end() -> None:
    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})
    world = World(flow(loop("l", [*FORKED, sub], 1)), flow(simple("c1"), name="child"))
    workflow = world.start("flow")
    for reference in ("it0__1", "it1__1", "it2__1"):
        world.result(workflow, reference)
    assert world.shown(workflow)[-1] == "sub__1:IN_PROGRESS"
    (child,) = world.children(workflow)
    world.result(child, "c1", {"n": 7})
    assert world.output(workflow, "l")["1"]["sub"] == {"subWorkflowId": child, "n": 7}
    assert (world.status(workflow), len(world.rows(workflow))) == ("COMPLETED", 7)


@pytest.mark.covers("F.5")
def test_two_loops_in_a_row_count_for_themselves() -> None:
    world = World(
        flow(loop("l1", FORKED, 2), loop("l2", [simple("it3")], 1)),
    )
    workflow = world.start("flow")
    for turn in (1, 2):
        for reference in ("it0", "it1", "it2"):
            assert world.row(workflow, "l1").status == TaskStatus.IN_PROGRESS
            world.result(workflow, f"{reference}__{turn}")
    assert world.shown(workflow)[-2:] == ["l2:IN_PROGRESS", "it3__1:SCHEDULED"]
    world.result(workflow, "it3__1")
    assert (world.output(workflow, "l1")["iteration"], world.output(workflow, "l2")["iteration"]) == (2, 1)
    assert (world.status(workflow), len(world.rows(workflow))) == ("COMPLETED", 13)


@pytest.mark.covers("F.6")
def test_a_loop_that_failed_goes_on_in_its_turn_after_a_retry() -> None:
    world = World(flow(loop("l", [simple("it0"), simple("it1")], 1)))
    workflow = world.start("flow")
    world.result(workflow, "it0__1", status=FAILED)
    assert (world.shown(workflow), world.status(workflow)) == (["l:CANCELED", "it0__1:FAILED"], "FAILED")
    world.happen(workflow, Retry(now_ms=world.now_ms))
    assert world.shown(workflow) == ["l:IN_PROGRESS", "it0__1:FAILED", "it0__1:SCHEDULED"]
    world.result(workflow, "it0__1")
    world.result(workflow, "it1__1")
    assert world.shown(workflow) == ["l:COMPLETED", "it0__1:FAILED", "it0__1:COMPLETED", "it1__1:COMPLETED"]
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("F.7")
def test_a_task_inside_a_loop_is_tried_again_in_its_turn() -> None:
    definition = {"name": "it0", "retryCount": 1, "retryDelaySeconds": 0}
    world = World(flow(loop("l", [simple("it0", retryCount=1, taskDefinition=definition)], 1)))
    workflow = world.start("flow")
    world.result(workflow, "it0__1", status=FAILED)
    first, second = world.rows(workflow)[1:]
    assert (first.status, first.superseded) == (FAILED, True)
    assert (second.status.name, second.attempt, second.retried_seq, second.path) == (
        "SCHEDULED",
        1,
        first.seq,
        (1,),
    )
    assert world.row(workflow, "l").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "it0__1")
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("F.8")
def test_a_join_waits_for_the_loop_in_its_branch() -> None:
    world = World(flow(fork("f", [loop("l", [simple("it1")], 2)], [simple("it2")]), join("j", "l", "it2")))
    workflow = world.start("flow")
    world.result(workflow, "it2")
    world.result(workflow, "it1__1")
    assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "it1__2", {"n": 2})
    assert world.output(workflow, "j")["l"] == {"iteration": 2, "1": {"it1": {}}, "2": {"it1": {"n": 2}}}
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("F.9")
def test_a_script_in_a_turn_reads_the_counter() -> None:
    world = World(flow(loop("l", [inline("i", "$.n - 1", {"n": "${l.output.iteration}"})], 2)))
    workflow = world.start("flow")
    assert [world.output(workflow, f"i__{turn}") for turn in (1, 2)] == [{"result": 0}, {"result": 1}]
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("F.10")
def test_a_variable_that_a_turn_sets_ends_the_loop() -> None:
    body = [simple("it1"), task("SET_VARIABLE", "v", {"go": "${it1.output.go}"})]
    condition = {"loopCondition": "$.go == true", "inputParameters": {"go": "${workflow.variables.go}"}}
    world = World(flow(loop("l", body, **condition)))
    workflow = world.start("flow")
    world.result(workflow, "it1__1", {"go": True})
    assert world.shown(workflow)[-1] == "it1__2:SCHEDULED"
    world.result(workflow, "it1__2", {"go": False})
    assert world.header(workflow).variables.value == {"go": False}
    assert (world.output(workflow, "l")["iteration"], world.status(workflow)) == (2, "COMPLETED")


@pytest.mark.covers("F.11")
def test_a_wait_in_each_turn_over_a_list() -> None:
    body = [switch("s", "${l.output.loopItem}", {"a": [task("WAIT", "wa")], "b": [task("WAIT", "wb")]})]
    world = World(flow(loop("l", body, items="${workflow.input.items}")))
    workflow = world.start("flow", {"items": ["a", "b"]})
    assert world.shown(workflow) == ["l:IN_PROGRESS", "s__1:COMPLETED", "wa__1:IN_PROGRESS"]
    world.result(workflow, "wa__1")
    assert world.shown(workflow)[3:] == ["s__2:COMPLETED", "wb__2:IN_PROGRESS"]
    world.result(workflow, "wb__2")
    assert (world.output(workflow, "l")["iteration"], world.status(workflow)) == (2, "COMPLETED")


@pytest.mark.covers("F.12", "F.13")
def test_five_hundred_turns() -> None:
    script = {"scriptExpression": "return $.n - 1", "n": "${l.output.iteration}"}
    world = World(flow(loop("l", [task("LAMBDA", "la", script)], 500)))
    workflow = world.start("flow")
    assert (world.status(workflow), len(world.rows(workflow))) == ("COMPLETED", 501)
    output = world.output(workflow, "l")
    assert output["iteration"] == 500
    results = [output[str(turn)]["la"]["result"] for turn in range(1, 501)]
    assert results == list(range(500))
