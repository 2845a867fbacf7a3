"""Loops (F of the behaviour catalogue)."""

from __future__ import annotations

from typing import Any

import pytest

from engine.harness import World, flow, fork, inline, join, loop, simple, switch, task
from maestoso_server.engine.events import Retry
from maestoso_server.engine.state import TaskStatus

FAILED = TaskStatus.FAILED


def finish(world: World, run: str, *references: str) -> None:
    for reference in references:
        world.result(run, reference, {"by": reference})


def jq(reference: str) -> dict[str, Any]:
    return task("JSON_JQ_TRANSFORM", reference, {"queryExpression": "1"})


@pytest.mark.covers("F.1", "K24", "K5")
def test_k24_two_turns_of_five_tasks_and_a_task_behind() -> None:
    body = [inline("l", "1"), jq("q1"), simple("it1"), jq("q2"), simple("it2", {"b": "${it1.output.by}"})]
    world = World(flow(loop("w", body, 2), simple("after", {"last": "${it1.output.by}"})))
    run = world.start("flow")
    assert world.shown(run) == [
        "w:IN_PROGRESS",
        "l__1:COMPLETED",
        "q1__1:COMPLETED",
        "it1__1:SCHEDULED",
    ]
    finish(world, run, "it1__1")
    assert world.row(run, "it2__1").input.value == {"b": "it1__1"}
    finish(world, run, "it2__1", "it1__2", "it2__2")

    assert world.row(run, "after").input.value == {"last": "it1__2"}
    output = world.output(run, "w")
    assert list(output) == ["iteration", "1", "2"]
    assert output["iteration"] == 2
    assert list(output["1"]) == ["l", "q1", "it1", "q2", "it2"]
    assert output["2"]["it1"] == {"by": "it1__2"}
    finish(world, run, "after")
    assert world.status(run) == "COMPLETED"
    assert len(world.rows(run)) == 12


@pytest.mark.covers("F.2")
def test_turns_of_the_engines_own_tasks_all_run_inside_the_start() -> None:
    world = World(flow(loop("w", [inline("l", "1"), task("NOOP", "n")], 5), simple("after")))
    run = world.start("flow")
    assert world.shown(run)[-1] == "after:SCHEDULED"
    assert world.output(run, "w")["iteration"] == 5


@pytest.mark.covers("F.3")
def test_a_fork_inside_a_turn() -> None:
    body = [simple("it0"), fork("f", [simple("it1")], [simple("it2")]), join("join", "it1", "it2")]
    world = World(flow(loop("w", body, 1)))
    run = world.start("flow")
    finish(world, run, "it0__1", "it2__1")
    assert world.shown(run) == [
        "w:IN_PROGRESS",
        "it0__1:COMPLETED",
        "f__1:COMPLETED",
        "it1__1:SCHEDULED",
        "it2__1:COMPLETED",
        "join__1:IN_PROGRESS",
    ]
    finish(world, run, "it1__1")
    assert world.row(run, "w").status is TaskStatus.COMPLETED
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("F.4")
def test_a_child_at_the_end_of_a_turn() -> None:
    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})
    world = World(flow(loop("w", [simple("it0"), sub], 2)), flow(simple("c1"), name="child"))
    run = world.start("flow")
    for turn in (1, 2):
        finish(world, run, f"it0__{turn}")
        finish(world, world.children(run)[-1], "c1")
    assert len(set(world.children(run))) == 2
    assert world.output(run, "w")["2"]["sub"] == {"subWorkflowId": world.children(run)[1], "by": "c1"}
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("F.5")
def test_two_loops_one_behind_the_other() -> None:
    world = World(flow(loop("w1", [simple("a"), simple("b")], 2), loop("w2", [simple("c")], 1)))
    run = world.start("flow")
    finish(world, run, "a__1", "b__1", "a__2", "b__2", "c__1")
    assert world.status(run) == "COMPLETED"
    assert [world.output(run, name)["iteration"] for name in ("w1", "w2")] == [2, 1]
    assert [row.path for row in world.rows(run) if row.type == "DO_WHILE"] == [(), ()]


@pytest.mark.covers("F.6")
def test_a_failing_turn_ends_the_loop_and_a_retry_resumes_that_turn() -> None:
    world = World(flow(loop("w", [simple("it0"), simple("it1")], 2)))
    run = world.start("flow")
    finish(world, run, "it0__1", "it1__1")
    world.result(run, "it0__2", status=FAILED)
    assert world.status(run) == "FAILED"
    assert world.row(run, "w").status is TaskStatus.CANCELED

    world.happen(run, Retry(now_ms=world.now_ms))
    assert world.row(run, "w").status is TaskStatus.IN_PROGRESS
    assert world.row(run, "it0__2").attempt == 1
    finish(world, run, "it0__2", "it1__2")
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("F.7")
def test_an_attempt_inside_a_turn_is_repeated_and_linked() -> None:
    body = [simple("it0", retryCount=1, taskDefinition={"name": "it0", "retryDelaySeconds": 0})]
    world = World(flow(loop("w", body, 1)))
    run = world.start("flow")
    world.result(run, "it0__1", status=FAILED)
    old, new = (row for row in world.rows(run) if row.reference == "it0")
    assert (old.superseded, new.attempt, new.retried_seq, new.path) == (True, 1, old.seq, (1,))
    assert world.row(run, "w").status is TaskStatus.IN_PROGRESS
    finish(world, run, "it0__1")
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("F.8")
def test_a_join_waits_for_a_loop_that_is_its_branch() -> None:
    world = World(flow(fork("f", [loop("w", [simple("a")], 2)], [simple("b")]), join("j", "w", "b")))
    run = world.start("flow")
    finish(world, run, "b", "a__1")
    assert world.row(run, "j").status is TaskStatus.IN_PROGRESS
    finish(world, run, "a__2")
    assert world.output(run, "j")["w"]["iteration"] == 2
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("F.9")
def test_a_body_reads_the_turn_of_its_loop() -> None:
    body = [inline("i", "$.turn - 1", {"turn": "${w.output.iteration}"})]
    world = World(flow(loop("w", body, 2)))
    output = world.output(world.start("flow"), "w")
    assert [output[turn]["i"]["result"] for turn in "12"] == [0, 1]


@pytest.mark.covers("F.10")
def test_a_variable_set_in_the_body_ends_the_loop() -> None:
    body = [
        inline("i", "$.n + 1", {"n": "${workflow.variables.n}"}),
        task("SET_VARIABLE", "v", {"n": "${i.output.result}"}),
    ]
    looping = loop("w", body, loopCondition="$.n < 4", inputParameters={"n": "${workflow.variables.n}"})
    world = World(flow(looping, variables={"n": 0}))
    run = world.start("flow")
    assert world.output(run, "w")["iteration"] == 4
    assert world.header(run).variables.value == {"n": 4}


@pytest.mark.covers("F.11", "K24")
def test_k24_a_wait_for_each_item_of_a_list() -> None:
    body = [
        switch("s", "a", {"a": [task("WAIT", "wait")]}),
        inline("i", "$.k", {"k": "${w.output.loopItem}"}),
    ]
    world = World(flow(loop("w", body, items="${workflow.input.list}", loopCondition="true")))
    run = world.start("flow", {"list": ["x", "y"]})
    for turn in (1, 2):
        world.result(run, f"wait__{turn}", {})
    output = world.output(run, "w")
    assert (output["iteration"], output["loopIndex"], output["loopItem"]) == (2, 1, "y")
    assert [output[turn]["i"]["result"] for turn in "12"] == ["x", "y"]
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("K24", "B23")
def test_k24_an_empty_list_is_complete_with_no_turn() -> None:
    world = World(flow(loop("w", [simple("a")], items="${workflow.input.list}")))
    run = world.start("flow", {"list": []})
    assert world.output(run, "w") == {"iteration": 0}
    assert world.shown(run) == ["w:COMPLETED"]


@pytest.mark.covers("F.12", "F.13")
def test_five_hundred_turns_are_counted_exactly() -> None:
    body = [task("LAMBDA", "l", {"turn": "${w.output.iteration}", "scriptExpression": "return $.turn - 1"})]
    world = World(flow(loop("w", body, 500)))
    run = world.start("flow")
    output = world.output(run, "w")
    assert world.status(run) == "COMPLETED"
    assert len(world.rows(run)) == 501
    assert output["iteration"] == 500
    assert (output["1"]["l"]["result"], output["500"]["l"]["result"]) == (0, 499)


@pytest.mark.covers("K24")
@pytest.mark.parametrize(
    ("condition", "turns"),
    [("$.w['iteration'] < 2", 2), ("2 - $.w['iteration']", 2), ("'true'", 1), ("null", 1)],
)
def test_k24_only_true_and_positive_numbers_go_on(condition: str, turns: int) -> None:
    world = World(flow(loop("w", [task("NOOP", "n")], loopCondition=condition)))
    assert world.output(world.start("flow"), "w")["iteration"] == turns


@pytest.mark.covers("K24")
def test_k24_only_the_last_turns_are_kept() -> None:
    world = World(flow(loop("w", [inline("i", "1")], 5, inputParameters={"keepLastN": 2})))
    run = world.start("flow")
    assert list(world.output(run, "w")) == ["iteration", "4", "5"]
    assert world.shown(run) == ["w:COMPLETED", "i__4:COMPLETED", "i__5:COMPLETED"]


@pytest.mark.covers("B4")
def test_b4_loops_nest_and_each_counts_for_itself() -> None:
    inner = loop("in", [simple("a", {"o": "${out.output.iteration}", "i": "${in.output.iteration}"})], 2)
    world = World(flow(loop("out", [inner, simple("b")], 2)))
    run = world.start("flow")
    seen = []
    for outer in (1, 2):
        for turn in (1, 2):
            row = world.row(run, f"a__{outer}__{turn}")
            seen.append((row.input.value["o"], row.input.value["i"]))
            finish(world, run, f"a__{outer}__{turn}")
        finish(world, run, f"b__{outer}")
    assert seen == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert world.output(run, "out")["2"]["in"]["iteration"] == 2
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("B11")
def test_b11_a_definition_called_like_an_operator_does_not_time_it_out() -> None:
    definition = {"name": "w", "responseTimeoutSeconds": 10}
    waits = task("HUMAN", "h", taskDefinition={**definition, "name": "h"})
    world = World(flow(loop("w", [waits], 1, taskDefinition=definition)))
    run = world.start("flow")
    world.advance(7200)
    assert world.shown(run) == ["w:IN_PROGRESS", "h__1:IN_PROGRESS"]
