"""Operators' commands on one workflow: skip, jump, updates by reference, variables, signals, removal."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Outcome, Verdict
from maestoso_server.engine.events import (
    ChangeVariables,
    Jump,
    Keep,
    Pause,
    Remove,
    Rerun,
    Restart,
    Retry,
    Signal,
    Skip,
    Terminate,
    UpdateTask,
)
from maestoso_server.engine.state import TaskStatus
from maestoso_server.payload import Json

from .harness import World, flow, fork, inline, join, loop, simple, switch, task

BOUNDS: list[dict[str, Any]] = [{}, {"partial": True, "rows_max": 3}]
both = pytest.mark.parametrize("bounds", BOUNDS, ids=["whole", "narrow"])


def skip(world: World, workflow: str, reference: str, output: Any = None) -> Outcome:
    event = Skip(now_ms=world.now_ms, reference=reference, output=Json.of(output or {}))
    return world.happen(workflow, event)[0]


def jump(world: World, workflow: str, reference: str, given: Any = None) -> Outcome:
    value = None if given is None else Json.of(given)
    return world.happen(workflow, Jump(now_ms=world.now_ms, reference=reference, input=value))[0]


def update(
    world: World,
    workflow: str,
    reference: str,
    output: Any = None,
    status: TaskStatus = TaskStatus.COMPLETED,
) -> Outcome:
    event = UpdateTask(
        now_ms=world.now_ms, reference=reference, status=status, output=Json.of(output or {}), reason="why"
    )
    return world.happen(workflow, event)[0]


def rerun(world: World, workflow: str, reference: str, **more: Any) -> Outcome:
    event = Rerun(now_ms=world.now_ms, seq=world.row(workflow, reference).seq, **more)
    return world.happen(workflow, event)[0]


# --- skip -----------------------------------------------------------------------------------------


@both
@pytest.mark.covers("B.10")
def test_a_future_task_is_stepped_over(bounds: dict[str, Any]) -> None:
    world = World(flow(simple("t1"), simple("t2"), simple("t3", {"seen": "${t2.output.x}"})), **bounds)
    workflow = world.start("flow")
    assert skip(world, workflow, "t2", {"x": 7}).verdict == Verdict.APPLIED
    assert world.shown(workflow) == ["t1:SCHEDULED", "t2:SKIPPED"]
    world.result(workflow, "t1")
    assert world.shown(workflow) == ["t1:COMPLETED", "t2:SKIPPED", "t3:SCHEDULED"]
    assert world.row(workflow, "t3").input.value == {"seen": 7}
    world.result(workflow, "t3")
    assert world.status(workflow) == "COMPLETED"


@both
def test_a_task_in_a_branch_and_a_whole_fork_can_be_skipped(bounds: dict[str, Any]) -> None:
    inner = [fork("f2", [simple("x")], [simple("y")]), join("j2", "x", "y")]
    world = World(
        flow(
            fork("f", [simple("a"), *inner, simple("c")], [simple("b"), simple("b2")]), join("j", "c", "b2")
        ),
        **bounds,
    )
    workflow = world.start("flow")
    assert skip(world, workflow, "f2").verdict == Verdict.APPLIED
    assert skip(world, workflow, "b2").verdict == Verdict.APPLIED
    assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "b")
    world.result(workflow, "a")
    assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "c", {"c": 1})
    assert world.status(workflow) == "COMPLETED" and world.output(workflow, "j") == {"c": {"c": 1}}
    assert not any(name.startswith(("x", "y", "j2")) for name in world.shown(workflow))


@both
def test_in_a_loop_every_turn_to_come_is_skipped(bounds: dict[str, Any]) -> None:
    world = World(flow(loop("l", [simple("a"), simple("b")], 3)), **bounds)
    workflow = world.start("flow")
    world.result(workflow, "a__1")
    assert skip(world, workflow, "b", {"x": 1}).verdict == Verdict.APPLIED
    assert world.row(workflow, "b__1").status == TaskStatus.SCHEDULED
    world.result(workflow, "b__1")
    world.result(workflow, "a__2")
    world.result(workflow, "a__3")
    assert [name for name in world.shown(workflow) if name.startswith("b")] == [
        "b__1:COMPLETED",
        "b__2:SKIPPED",
        "b__3:SKIPPED",
    ]
    assert world.status(workflow) == "COMPLETED"


def test_what_cannot_be_skipped() -> None:
    world = World(flow(simple("t1"), simple("t2"), fork("f", [simple("a")]), join("j", "a")))
    workflow = world.start("flow")
    assert skip(world, workflow, "t1") == Outcome(Verdict.REFUSED, "task t1 is SCHEDULED already")
    assert skip(world, workflow, "nobody").verdict == Verdict.ABSENT
    assert "JOIN" in skip(world, workflow, "j").reason
    skip(world, workflow, "t2")
    assert skip(world, workflow, "t2") == Outcome(Verdict.REFUSED, "task t2 is skipped already")
    world.happen(workflow, Terminate(now_ms=world.now_ms, reason=""))
    assert skip(world, workflow, "f").verdict == Verdict.REFUSED


def test_a_restart_forgets_what_was_to_be_skipped() -> None:
    world = World(flow(simple("t1"), simple("t2")))
    workflow = world.start("flow")
    skip(world, workflow, "t2")
    world.happen(workflow, Terminate(now_ms=world.now_ms, reason=""))
    world.happen(workflow, Restart(now_ms=world.now_ms))
    world.result(workflow, "t1")
    assert world.shown(workflow) == ["t1:COMPLETED", "t2:SCHEDULED"]


# --- jump -----------------------------------------------------------------------------------------


@both
def test_a_jump_ahead_skips_what_is_open_and_what_lies_between(bounds: dict[str, Any]) -> None:
    middle = [fork("f", [simple("x")], [simple("y")]), join("j", "x", "y")]
    world = World(flow(simple("a"), *middle, simple("b"), simple("c", {"n": 1})), **bounds)
    workflow = world.start("flow")
    world.result(workflow, "a")
    assert jump(world, workflow, "c", {"n": 2}).verdict == Verdict.APPLIED
    states = dict(name.split(":") for name in world.shown(workflow))
    assert states == {
        "a": "COMPLETED",
        "f": "COMPLETED",
        "x": "SKIPPED",
        "y": "SKIPPED",
        "j": "SKIPPED",
        "b": "SKIPPED",
        "c": "SCHEDULED",
    }
    assert world.row(workflow, "c").input.value == {"n": 2}
    world.result(workflow, "c")
    assert world.status(workflow) == "COMPLETED"


@both
def test_a_jump_back_runs_the_task_and_all_after_it_again(bounds: dict[str, Any]) -> None:
    world = World(flow(simple("a"), simple("b"), simple("c")), **bounds)
    workflow = world.start("flow")
    world.result(workflow, "a")
    world.result(workflow, "b")
    assert jump(world, workflow, "a").verdict == Verdict.APPLIED
    assert world.shown(workflow) == ["a:SCHEDULED"]
    for reference in "abc":
        world.result(workflow, reference)
    assert world.status(workflow) == "COMPLETED"
    assert len(world.workflows[workflow].rows) == 6  # three were left behind


@both
def test_a_jump_in_a_branch_leaves_the_others_alone(bounds: dict[str, Any]) -> None:
    left = [simple("a"), simple("b"), simple("c")]
    world = World(flow(fork("f", left, [simple("x")]), join("j", "b", "c", "x"), simple("z")), **bounds)
    workflow = world.start("flow")
    assert jump(world, workflow, "c").verdict == Verdict.APPLIED
    assert world.row(workflow, "x").status == TaskStatus.SCHEDULED
    world.result(workflow, "x")
    world.result(workflow, "c", {"c": 1})
    assert world.row(workflow, "j").status == TaskStatus.COMPLETED
    world.result(workflow, "z")
    assert world.status(workflow) == "COMPLETED"


@both
def test_a_jump_in_a_loop_stays_in_its_turn(bounds: dict[str, Any]) -> None:
    world = World(flow(loop("l", [simple("a"), simple("b"), simple("c")], 2)), **bounds)
    workflow = world.start("flow")
    for reference in ("a__1", "b__1", "c__1"):
        world.result(workflow, reference)
    assert jump(world, workflow, "c").verdict == Verdict.APPLIED
    assert world.shown(workflow)[-3:] == ["a__2:SKIPPED", "b__2:SKIPPED", "c__2:SCHEDULED"]
    assert jump(world, workflow, "a").verdict == Verdict.APPLIED
    for reference in ("a__2", "b__2", "c__2"):
        world.result(workflow, reference)
    assert world.status(workflow) == "COMPLETED"


def test_a_jump_ends_the_children_that_it_leaves() -> None:
    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})
    world = World(flow(sub, simple("z")), flow(simple("in_child"), name="child"))
    workflow = world.start("flow")
    (child,) = world.children(workflow)
    jump(world, workflow, "z")
    assert world.status(child) == "TERMINATED"
    world.result(workflow, "z")
    assert world.status(workflow) == "COMPLETED"


def test_what_cannot_be_jumped_to() -> None:
    inner = [simple("one"), fork("f", [simple("a")]), join("j", "a")]
    world = World(flow(simple("t"), switch("s", "x", {"x": inner}), simple("z")))
    workflow = world.start("flow")
    assert jump(world, workflow, "nobody").verdict == Verdict.ABSENT
    assert jump(world, workflow, "one").reason == "nothing runs in the chain of task one"
    assert "JOIN" in jump(world, workflow, "j").reason
    assert "no input" in jump(world, workflow, "f", {"a": 1}).reason
    world.happen(workflow, Pause(now_ms=world.now_ms))
    assert "PAUSED" in jump(world, workflow, "z").reason


# --- updates by reference, variables ----------------------------------------------------------------


@both
def test_an_update_by_reference_merges_and_ends_any_task_from_outside(bounds: dict[str, Any]) -> None:
    world = World(flow(simple("t"), task("WAIT", "w"), task("HUMAN", "h")), **bounds)
    workflow = world.start("flow")
    first = update(world, workflow, "t", {"a": 1, "b": 1}, TaskStatus.IN_PROGRESS)
    assert (first.verdict, first.seq) == (Verdict.APPLIED, 1)
    assert world.row(workflow, "t").status == TaskStatus.SCHEDULED
    update(world, workflow, "t", {"b": 2})
    assert world.output(workflow, "t") == {"a": 1, "b": 2}
    update(world, workflow, "w", {"w": 1})
    update(world, workflow, "h")
    assert world.status(workflow) == "COMPLETED"


@both
def test_an_update_by_reference_finds_the_turn(bounds: dict[str, Any]) -> None:
    world = World(flow(loop("l", [simple("t")], 3)), **bounds)
    workflow = world.start("flow")
    update(world, workflow, "t__1")
    assert update(world, workflow, "t__1").verdict == Verdict.ABSENT
    update(world, workflow, "t")
    assert world.shown(workflow)[-1] == "t__3:SCHEDULED"


def test_a_failure_by_reference_is_retried_by_policy() -> None:
    world = World(flow(simple("t", retryCount=1, taskDefinition={"name": "t", "retryDelaySeconds": 0})))
    workflow = world.start("flow")
    update(world, workflow, "t", status=TaskStatus.FAILED)
    assert world.shown(workflow) == ["t:FAILED", "t:SCHEDULED"]
    update(world, workflow, "t", status=TaskStatus.FAILED_WITH_TERMINAL_ERROR)
    assert world.status(workflow) == "FAILED"
    assert update(world, workflow, "t").verdict == Verdict.REFUSED


@pytest.mark.covers("M.4")
def test_what_the_server_decides_itself_takes_no_update_and_an_ended_task_none_twice() -> None:
    world = World(flow(fork("f", [simple("a")], [simple("b")]), join("j", "a", "b")))
    workflow = world.start("flow")
    assert update(world, workflow, "j").reason == "task j is a JOIN: the server decides how it ends"
    update(world, workflow, "a", {"a": 1})
    assert update(world, workflow, "a", {"a": 2}).verdict == Verdict.ABSENT
    assert world.report(workflow, world.row(workflow, "a").seq, {"a": 3}).verdict == Verdict.STALE
    assert world.output(workflow, "a") == {"a": 1}


def test_variables_are_set_and_replaced_until_the_end() -> None:
    world = World(flow(simple("t"), outputParameters={"v": "${workflow.variables}"}, variables={"a": 1}))
    workflow = world.start("flow")

    def change(value: Any, *, replace: bool = False) -> Outcome:
        event = ChangeVariables(now_ms=world.now_ms, variables=Json.of(value), replace=replace)
        return world.happen(workflow, event)[0]

    change({"b": 2})
    assert world.header(workflow).variables.value == {"a": 1, "b": 2}
    world.happen(workflow, Pause(now_ms=world.now_ms))
    change({"c": 3}, replace=True)
    assert world.header(workflow).variables.value == {"c": 3}
    assert "256 kilobytes" in change({"d": "x" * 300_000}).reason
    world.happen(workflow, Terminate(now_ms=world.now_ms, reason=""))
    assert change({"e": 1}).verdict == Verdict.REFUSED
    assert world.output(workflow) == {"v": {"c": 3}}


# --- signals, terminate, removal --------------------------------------------------------------------


@both
@pytest.mark.covers("G.signal.1")
def test_a_signal_says_which_task_took_it(bounds: dict[str, Any]) -> None:
    world = World(flow(task("WAIT", "w"), simple("t")), **bounds)
    workflow = world.start("flow")
    event = Signal(now_ms=world.now_ms, reference=None, status=TaskStatus.COMPLETED)
    assert world.happen(workflow, event) == [Outcome(Verdict.APPLIED, seq=1)]
    assert world.shown(workflow) == ["w:COMPLETED", "t:SCHEDULED"]


@pytest.mark.covers("G.signal.2")
@pytest.mark.parametrize(
    ("keep", "verdict"),
    [(Keep.NEVER, Verdict.REFUSED), (Keep.NAMED, Verdict.PARKED), (Keep.ALWAYS, Verdict.PARKED)],
)
def test_an_early_signal_is_kept_only_where_it_may_be(keep: Keep, verdict: Verdict) -> None:
    world = World(flow(simple("t"), task("WAIT", "w"), simple("z")))
    workflow = world.start("flow")
    event = Signal(now_ms=world.now_ms, reference="w", status=TaskStatus.COMPLETED, keep=keep)
    assert world.happen(workflow, event)[0].verdict == verdict
    nobody = Signal(now_ms=world.now_ms, reference=None, status=TaskStatus.COMPLETED, keep=keep)
    assert world.happen(workflow, nobody)[0].verdict == Verdict.REFUSED
    world.result(workflow, "t")
    expected = "IN_PROGRESS" if keep == Keep.NEVER else "COMPLETED"
    assert world.row(workflow, "w").status.name == expected


def test_a_signal_to_a_task_that_runs_again_beside_the_flow_does_not_start_the_flow_twice() -> None:
    world = World(flow(task("WAIT", "w", permissive=True), simple("t")))
    workflow = world.start("flow")
    fail = Signal(now_ms=world.now_ms, reference="w", status=TaskStatus.FAILED_WITH_TERMINAL_ERROR)
    world.happen(workflow, fail)
    world.result(workflow, "t")
    assert world.status(workflow) == "FAILED"
    world.happen(workflow, Retry(now_ms=world.now_ms))
    world.happen(workflow, Signal(now_ms=world.now_ms, reference="w", status=TaskStatus.COMPLETED))
    assert world.shown(workflow) == ["w:FAILED_WITH_TERMINAL_ERROR", "t:COMPLETED", "w:COMPLETED"]
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.parametrize("asked", [True, False])
def test_terminate_starts_the_failure_workflow_only_where_asked(asked: bool) -> None:
    world = World(flow(simple("t"), failureWorkflow="mend"), flow(simple("m"), name="mend"))
    workflow = world.start("flow")
    world.happen(workflow, Terminate(now_ms=world.now_ms, reason="enough", trigger_failure=asked))
    assert world.status(workflow) == "TERMINATED"
    after = [found for found in world.workflows if found != workflow]
    assert len(after) == asked
    if asked:
        assert world.output(workflow)["conductor.failure_workflow"] == after[0]
        assert world.header(after[0]).input.value["failureStatus"] == "TERMINATED"


def test_nothing_revives_what_is_being_removed() -> None:
    world = World(flow(simple("t")))
    workflow = world.start("flow")
    assert world.happen(workflow, Remove(now_ms=0))[0].verdict == Verdict.REFUSED
    world.happen(workflow, Terminate(now_ms=world.now_ms, reason=""))
    assert world.happen(workflow, Remove(now_ms=0), Remove(now_ms=0))[1].verdict == Verdict.APPLIED
    for event in (Retry(now_ms=0), Restart(now_ms=0), Rerun(now_ms=0), Rerun(now_ms=0, seq=1)):
        assert world.happen(workflow, event)[0] == Outcome(Verdict.REFUSED, "it is being removed")


# --- rerun ------------------------------------------------------------------------------------------


@both
@pytest.mark.covers("B.9")
def test_rerun_after_completion_from_a_task_and_from_the_beginning(bounds: dict[str, Any]) -> None:
    world = World(flow(simple("t1", {"n": "${workflow.input.n}"}), simple("t2")), **bounds)
    workflow = world.start("flow", {"n": 1})
    world.result(workflow, "t1")
    world.result(workflow, "t2")
    assert rerun(world, workflow, "t2").verdict == Verdict.APPLIED
    assert world.shown(workflow) == ["t1:COMPLETED", "t2:SCHEDULED"]
    world.result(workflow, "t2")
    assert world.status(workflow) == "COMPLETED"
    again = Rerun(now_ms=world.now_ms, input=Json.of({"n": 2}), correlation_id="c")
    assert world.happen(workflow, again)[0].verdict == Verdict.APPLIED
    assert world.shown(workflow) == ["t1:SCHEDULED"]
    assert world.row(workflow, "t1").input.value == {"n": 2}
    assert (world.header(workflow).correlation_id, world.header(workflow).generation) == ("c", 2)
    world.result(workflow, "t1")
    world.result(workflow, "t2")
    assert world.status(workflow) == "COMPLETED"
    old = next(row for row in world.workflows[workflow].rows.values() if row.generation == 1)
    refused = world.happen(workflow, Rerun(now_ms=world.now_ms, seq=old.seq))[0]
    assert refused.verdict == Verdict.ABSENT and "present run" in refused.reason


@both
@pytest.mark.covers("G.jq.3")
def test_rerun_of_a_failed_script_with_a_better_input(bounds: dict[str, Any]) -> None:
    query = {"queryExpression": '.a."array"', "a": [1]}
    world = World(flow(task("JSON_JQ_TRANSFORM", "q", query)), **bounds)
    workflow = world.start("flow")
    assert world.status(workflow) == "FAILED"
    better = Json.of({"queryExpression": ".a[0]", "a": [1]})
    assert rerun(world, workflow, "q", task_input=better).verdict == Verdict.APPLIED
    assert world.status(workflow) == "COMPLETED" and world.output(workflow)["result"] == 1


def test_an_automatic_retry_keeps_the_input_that_an_operator_gave() -> None:
    definition = {"name": "t", "retryDelaySeconds": 0}
    world = World(flow(simple("t", {"n": "${workflow.input.n}"}, retryCount=1, taskDefinition=definition)))
    workflow = world.start("flow", {"n": 1})
    world.result(workflow, "t", status=TaskStatus.FAILED_WITH_TERMINAL_ERROR)
    rerun(world, workflow, "t", task_input=Json.of({"n": 5}))
    world.result(workflow, "t", status=TaskStatus.FAILED)
    row = world.row(workflow, "t")
    assert (row.attempt, row.input.value, row.status.name) == (1, {"n": 5}, "SCHEDULED")


def test_a_rerun_of_a_sub_workflow_gives_its_input_to_a_fresh_child() -> None:
    sub = task("SUB_WORKFLOW", "sub", {"n": 1}, subWorkflowParam={"name": "child"})
    world = World(flow(sub), flow(simple("c"), name="child"))
    workflow = world.start("flow")
    (first,) = world.children(workflow)
    world.result(first, "c")
    rerun(world, workflow, "sub", task_input=Json.of({"n": 2}))
    (second,) = world.children(workflow)
    assert second != first and world.header(second).input.value == {"n": 2}
    world.result(second, "c")
    assert world.status(workflow) == "COMPLETED"


@both
@pytest.mark.parametrize("reference", ["f", "_t_1", "j", "make", "j_late"])
def test_rerun_around_a_dynamic_fork(reference: str, bounds: dict[str, Any]) -> None:
    made = inline("make", "({forkTaskName: 't', forkTaskInputs: [{a: 1}, {a: 2}, {a: 3}]})")
    given = {"forkTaskName": "t", "forkTaskInputs": "${make.output.result.forkTaskInputs}"}
    world = World(
        flow(made, task("FORK_JOIN_DYNAMIC", "f", given), join("j"), simple("j_late", {"j": "${j.output}"})),
        **bounds,
    )
    workflow = world.start("flow")

    def work() -> None:
        while rows := world.open_worker_rows(workflow):
            world.report(workflow, rows[0].seq, {"by": rows[0].reference, "of": rows[0].input.value})

    work()
    assert world.status(workflow) == "COMPLETED"
    first, shown = world.output(workflow), set(world.shown(workflow))
    assert rerun(world, workflow, reference).verdict == Verdict.APPLIED
    work()
    assert world.status(workflow) == "COMPLETED"
    assert (world.output(workflow), set(world.shown(workflow))) == (first, shown)


@both
def test_an_old_workers_report_after_a_rerun_changes_nothing(bounds: dict[str, Any]) -> None:
    world = World(flow(simple("a"), simple("b")), **bounds)
    workflow = world.start("flow")
    world.result(workflow, "a")
    old = world.row(workflow, "b").seq
    world.happen(workflow, Terminate(now_ms=world.now_ms, reason=""))
    rerun(world, workflow, "a")
    assert world.report(workflow, old, {"late": True}).verdict == Verdict.STALE
    assert world.shown(workflow) == ["a:SCHEDULED"]


def test_rerun_refuses_what_runs_and_what_is_not_there() -> None:
    world = World(flow(simple("a"), fork("f", [simple("b")]), join("j", "b")))
    workflow = world.start("flow")
    assert rerun(world, workflow, "a").verdict == Verdict.REFUSED
    for reference in ("a", "b"):
        world.result(workflow, reference)
    assert world.happen(workflow, Rerun(now_ms=world.now_ms, seq=99))[0].verdict == Verdict.ABSENT
    assert rerun(world, workflow, "j", task_input=Json.of({})).verdict == Verdict.REFUSED


def test_a_rerun_of_many_rows_is_bounded() -> None:
    branches = [[simple(f"b{number}")] for number in range(1200)]
    world = World(flow(simple("a"), fork("f", *branches), join("j", *(f"b{n}" for n in range(1200)))))
    workflow = world.start("flow")
    world.result(workflow, "a")
    for row in world.open_worker_rows(workflow):
        world.report(workflow, row.seq)
    assert world.status(workflow) == "COMPLETED"
    world.most_rows = 0
    rerun(world, workflow, "a")
    assert world.shown(workflow) == ["a:SCHEDULED"] and world.most_rows <= 700
    world.result(workflow, "a")
    assert len(world.open_worker_rows(workflow)) == 1200
