"""Parallel paths (D of the behaviour catalogue)."""

from __future__ import annotations

from typing import Any

import pytest

from engine.harness import World, flow, fork, join, simple, switch, task
from maestoso_server.engine.events import Result
from maestoso_server.engine.state import TaskStatus
from maestoso_server.payload import Json

FAILED = TaskStatus.FAILED
Node = dict[str, Any]


def finish(world: World, run: str, *references: str) -> None:
    for reference in references:
        world.result(run, reference, {"by": reference})


@pytest.mark.covers("D.fork_join.1", "K21", "B3")
def test_k21_a_fork_its_branches_and_the_join_that_waits_for_both() -> None:
    world = World(
        flow(
            fork("f", [simple("it1"), simple("it3")], [simple("it2")]), join("j", "it3", "it2"), simple("it4")
        )
    )
    run = world.start("flow")
    assert world.shown(run) == ["f:COMPLETED", "it1:SCHEDULED", "it2:SCHEDULED", "j:IN_PROGRESS"]
    assert world.row(run, "f").type == "FORK"

    finish(world, run, "it1", "it2")
    assert world.row(run, "j").status is TaskStatus.IN_PROGRESS
    world.result(run, "it3", {})
    assert world.output(run, "j") == {"it2": {"by": "it2"}}
    finish(world, run, "it4")
    assert world.status(run) == "COMPLETED"
    assert len(world.rows(run)) == 6


@pytest.mark.covers("D.fork_join.2", "K21")
@pytest.mark.parametrize("joined", [("it3", "it2"), ("it3",)])
def test_k21_a_failing_branch_ends_the_workflow_joined_or_not(joined: tuple[str, ...]) -> None:
    world = World(flow(fork("f", [simple("it1"), simple("it3")], [simple("it2")]), join("j", *joined)))
    run = world.start("flow")
    finish(world, run, "it1")
    world.result(run, "it2", status=FAILED)

    assert world.status(run) == "FAILED"
    assert world.shown(run) == ["f:COMPLETED", "it1:COMPLETED", "it2:FAILED", "j:CANCELED", "it3:CANCELED"]


@pytest.mark.covers("D.fork_join.3", "K17")
def test_k17_permissive_branches_all_run_before_the_join_fails() -> None:
    branches = [simple("it1", permissive=True)], [simple("it2", permissive=True), simple("it3")]
    world = World(flow(fork("f", *branches), join("j", "it1", "it3"), simple("never")))
    run = world.start("flow")
    world.result(run, "it1", status=FAILED, reason="no luck")
    assert world.status(run) == "RUNNING"
    finish(world, run, "it2")
    assert world.row(run, "j").status is TaskStatus.IN_PROGRESS

    finish(world, run, "it3")
    assert world.row(run, "j").status is FAILED
    assert world.status(run) == "FAILED"
    assert "never:SCHEDULED" not in world.shown(run)


def nested(third: list[Node] | None = None) -> Node:
    inner = [
        simple("t12"),
        fork("inner", [simple("t13"), switch("d", "${workflow.input.case}", {"c": [simple("t14")]})]),
    ]
    inner[1]["forkTasks"].append([simple("t15")])
    joins = ["t11", "j2", *(["sw1"] if third else [])]
    branches = [[simple("t11")], [*inner, join("j2", "d", "t15")], *([third] if third else [])]
    return flow(fork("outer", *branches), join("j1", *joins), simple("t16"))


@pytest.mark.covers("D.fork_join.6")
def test_an_inner_join_is_one_of_what_the_outer_join_waits_for() -> None:
    world = World(nested())
    run = world.start("flow", {"case": "c"})
    finish(world, run, "t12", "t11", "t13", "t14")
    assert world.row(run, "j2").status is TaskStatus.IN_PROGRESS
    finish(world, run, "t15")
    assert world.row(run, "j2").status is world.row(run, "j1").status is TaskStatus.COMPLETED
    assert list(world.output(run, "j1")) == ["t11", "j2"]

    finish(world, run, "t16")
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("D.fork_join.7")
def test_a_child_can_be_a_branch_beside_an_inner_fork() -> None:
    child = flow(simple("c1"), simple("c2"), name="child")
    world = World(nested([task("SUB_WORKFLOW", "sw1", subWorkflowParam={"name": "child"})]), child)
    run = world.start("flow", {"case": "c"})
    finish(world, run, "t12", "t11", "t13", "t14", "t15")
    assert world.row(run, "j1").status is TaskStatus.IN_PROGRESS
    (child_id,) = world.children(run)
    finish(world, child_id, "c1", "c2")
    assert world.row(run, "j1").status is TaskStatus.COMPLETED
    assert world.output(run, "j1")["sw1"] == {"subWorkflowId": child_id, "by": "c2"}
    finish(world, run, "t16")
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("D.fork_join.10")
def test_a_failed_child_is_tried_again_as_a_new_one() -> None:
    sub = task("SUB_WORKFLOW", "sub", {"k": "${workflow.input.k}"}, subWorkflowParam={"name": "child"})
    world = World(
        flow(fork("f", [{**sub, "retryCount": 1}], [simple("b")]), join("j", "sub", "b")),
        flow(simple("c1", {"k": "${workflow.input.k}"}), name="child"),
    )
    run = world.start("flow", {"k": 7})
    (first,) = world.children(run)
    world.result(first, "c1", status=FAILED)
    assert world.status(first) == "FAILED"
    world.advance(60)

    old, new = world.children(run)
    rows = [row for row in world.rows(run) if row.reference == "sub"]
    assert [(row.status.name, row.retried_seq) for row in rows] == [
        ("FAILED", 0),
        ("IN_PROGRESS", rows[0].seq),
    ]
    assert old == first and new != first
    assert world.row(new, "c1").input.value == {"k": 7}
    finish(world, new, "c1")
    finish(world, run, "b")
    assert world.status(run) == "COMPLETED"


# --- joinMode ------------------------------------------------------------------------------------


def wide(mode: str | None, count: int = 3, **more: Any) -> Node:
    references = [f"b{n}" for n in range(count)]
    joining = join("j", *references, **({"joinMode": mode} if mode else {}))
    return flow(fork("f", *([simple(reference, **more)] for reference in references)), joining)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("SYNC", marks=pytest.mark.covers("D.sync_join.1")),
        pytest.param(None, marks=pytest.mark.covers("D.sync_join.2")),
        pytest.param("ASYNC", marks=pytest.mark.covers("D.sync_join.3")),
    ],
)
def test_a_join_is_decided_in_the_same_commit_whatever_its_mode(mode: str | None) -> None:
    world = World(wide(mode))
    run = world.start("flow")
    finish(world, run, "b0", "b1")
    assert world.row(run, "j").status is TaskStatus.IN_PROGRESS
    before = world.header(run).revision
    finish(world, run, "b2")
    assert world.row(run, "j").status is TaskStatus.COMPLETED
    assert world.status(run) == "COMPLETED"
    assert world.header(run).revision == before + 1


@pytest.mark.covers("D.sync_join.4", "K17")
def test_an_optional_branch_that_fails_does_not_fail_the_join() -> None:
    world = World(wide("SYNC", optional=True))
    run = world.start("flow")
    finish(world, run, "b0", "b1")
    world.result(run, "b2", status=FAILED, reason="no luck")
    assert world.shown(run)[-2:] == ["b2:COMPLETED_WITH_ERRORS", "j:COMPLETED_WITH_ERRORS"]
    assert "completed with errors" in (world.row(run, "j").reason or "")
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("D.sync_join.5")
def test_a_required_branch_that_fails_fails_the_workflow() -> None:
    world = World(wide("SYNC"))
    run = world.start("flow")
    world.result(run, "b1", status=FAILED)
    assert world.status(run) == "FAILED"
    assert world.row(run, "j").status is TaskStatus.CANCELED


@pytest.mark.covers("D.sync_join.6", "D.sync_join.8")
def test_joins_wait_for_the_ends_of_paths_inner_ones_first() -> None:
    inner = [fork("g", [simple("a1"), simple("a2")], [simple("b1")]), join("h", "a2", "b1", joinMode="SYNC")]
    world = World(flow(fork("f", inner, [simple("c1")]), join("j", "h", "c1", joinMode="SYNC")))
    run = world.start("flow")
    finish(world, run, "c1", "b1", "a1")
    assert [world.row(run, name).status.name for name in "hj"] == ["IN_PROGRESS", "IN_PROGRESS"]
    finish(world, run, "a2")
    assert [world.row(run, name).status.name for name in "hj"] == ["COMPLETED", "COMPLETED"]


@pytest.mark.covers("D.sync_join.7")
def test_a_join_on_some_does_not_wait_for_the_others_but_the_workflow_does() -> None:
    branches = fork("f", [simple("a")], [simple("b")])
    world = World(flow(branches, join("j", "a", joinMode="SYNC"), simple("after")))
    run = world.start("flow")
    finish(world, run, "a", "after")
    assert world.row(run, "j").status is TaskStatus.COMPLETED
    assert world.status(run) == "RUNNING"
    finish(world, run, "b")
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("D.sync_join.9")
def test_ten_branches_are_all_joined() -> None:
    world = World(wide("SYNC", 10))
    run = world.start("flow")
    finish(world, run, *(f"b{n}" for n in reversed(range(10))))
    assert list(world.output(run, "j")) == [f"b{n}" for n in range(10)]


@pytest.mark.covers("D.lock_contention.1", "D.lock_contention.2", "B3")
def test_b3_results_that_arrive_together_join_and_go_on_in_one_decision() -> None:
    """No lock can come between a join and what follows it: both are one decision."""
    world = World(flow(fork("f", [simple("a")], [simple("b")]), join("j", "a", "b"), simple("after")))
    run = world.start("flow")
    events = [
        Result(
            now_ms=world.now_ms,
            seq=world.row(run, name).seq,
            status=TaskStatus.COMPLETED,
            output=Json.of({}),
            delivery=1,
        )
        for name in "ab"
    ]
    before = world.decisions
    world.happen(run, *events)
    assert world.decisions == before + 1
    assert world.shown(run)[-2:] == ["j:COMPLETED", "after:SCHEDULED"]


@pytest.mark.covers("B3")
def test_b3_a_branch_that_will_be_tried_again_has_not_failed_for_the_join() -> None:
    branches = fork("f", [simple("a", retryCount=1)], [simple("b")])
    world = World(flow(branches, join("j", "a", "b")), tasks={"a": {"name": "a"}})
    run = world.start("flow")
    finish(world, run, "b")
    world.result(run, "a", status=FAILED)
    assert world.row(run, "j").status is TaskStatus.IN_PROGRESS
    finish(world, run, "a")
    assert world.status(run) == "COMPLETED"


# --- dynamic forks -------------------------------------------------------------------------------


def different(**more: Any) -> Node:
    return task(
        "FORK_JOIN_DYNAMIC",
        "d",
        {"tasks": "${it1.output.tasks}", "inputs": "${it1.output.inputs}"},
        dynamicForkTasksParam="tasks",
        dynamicForkTasksInputParamName="inputs",
        **more,
    )


LISTED = [simple("xdt1"), simple("xdt2")]


def listing(world: World, tasks: Any = LISTED, inputs: Any = None) -> str:
    run = world.start("flow")
    world.result(run, "it1", {"tasks": tasks, "inputs": {"xdt1": {"k": 1}} if inputs is None else inputs})
    return run


@pytest.mark.covers("D.dynamic_fork.1", "K22", "M.8")
def test_k22_a_list_made_at_run_time_is_forked_and_joined() -> None:
    world = World(flow(simple("it1"), different(), join("j"), simple("it4")))
    run = listing(world)
    assert world.shown(run) == [
        "it1:COMPLETED",
        "d:COMPLETED",
        "xdt1:SCHEDULED",
        "xdt2:SCHEDULED",
        "j:IN_PROGRESS",
    ]
    assert world.row(run, "j").input.value["joinOn"] == ["xdt1", "xdt2"]
    assert world.row(run, "xdt1").input.value == {"k": 1}

    finish(world, run, "xdt2", "xdt1")
    assert world.output(run, "j") == {"xdt1": {"by": "xdt1"}, "xdt2": {"by": "xdt2"}}
    finish(world, run, "it4")
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("D.dynamic_fork.2")
def test_a_forked_task_that_fails_ends_the_workflow() -> None:
    world = World(flow(simple("it1"), different(), join("j")))
    run = listing(world)
    world.result(run, "xdt1", status=FAILED)
    assert world.status(run) == "FAILED"
    assert world.shown(run)[2:] == ["xdt1:FAILED", "xdt2:CANCELED", "j:CANCELED"]


@pytest.mark.covers("D.dynamic_fork.5", "K21")
def test_k21_empty_outputs_are_left_out_of_the_join() -> None:
    world = World(flow(simple("it1"), different(), join("j")))
    run = listing(world)
    world.result(run, "xdt1", {})
    world.result(run, "xdt2", {})
    assert world.output(run, "j") == {}
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("D.dynamic_fork.6", "D.dynamic_fork.7")
@pytest.mark.parametrize(
    ("tasks", "inputs"), [("none", {}), ([{"name": "x"}], {}), (LISTED, "none"), (LISTED, {"xdt1": 1})]
)
def test_a_fork_without_meaning_fails_with_a_reason_and_no_branch(tasks: Any, inputs: Any) -> None:
    """B1: it has a record of its own, which says why; Conductor leaves none."""
    world = World(flow(simple("it1"), different(), join("j")))
    run = listing(world, tasks, inputs)
    row = world.row(run, "d")
    assert row.status is TaskStatus.FAILED_WITH_TERMINAL_ERROR
    assert row.reason
    assert world.status(run) == "FAILED"
    assert [shown.split(":")[0] for shown in world.shown(run)] == ["it1", "d"]


@pytest.mark.covers("K22")
def test_k22_one_task_for_all_inputs_with_their_index() -> None:
    elements = [{"a": 1}, "two", 3]
    forking = task("FORK_JOIN_DYNAMIC", "d", {"forkTaskName": "t", "forkTaskInputs": elements})
    again = task("FORK_JOIN_DYNAMIC", "e", {"forkTaskName": "t", "forkTaskInputs": [{}]})
    world = World(flow(forking, join("j"), again, join("k")))
    run = world.start("flow")
    given = [world.row(run, f"_t_{n}").input.value for n in range(3)]
    assert given == [
        {"a": 1, "__index": 0},
        {"input": "two", "__index": 1},
        {"input": 3, "__index": 2},
    ]
    finish(world, run, "_t_0", "_t_1", "_t_2")
    assert world.row(run, "_e_t_0").status is TaskStatus.SCHEDULED


@pytest.mark.covers("K22")
def test_k22_an_empty_list_completes_at_once() -> None:
    world = World(flow(task("FORK_JOIN_DYNAMIC", "d", {"forkTaskInputs": []}), join("j"), simple("after")))
    assert world.shown(world.start("flow")) == ["d:COMPLETED", "j:COMPLETED", "after:SCHEDULED"]


@pytest.mark.covers("K23", "B6")
def test_k23_only_the_task_id_is_filled_into_the_data_of_branches() -> None:
    data = {"id": "${CPEWF_TASK_ID}", "text": "${workflow.input.secret}"}
    forking = task(
        "FORK_JOIN_DYNAMIC", "d", {"forkTaskName": "t", "forkTaskInputs": "${workflow.input.list}"}
    )
    world = World(flow(forking, join("j")))
    run = world.start("flow", {"list": [data], "secret": "s"})
    row = world.row(run, "_t_0")
    assert row.input.value == {
        "id": f"{run[:-6]}{row.seq:06x}",
        "text": "${workflow.input.secret}",
        "__index": 0,
    }


@pytest.mark.covers("B7")
def test_b7_keys_of_forked_data_are_data() -> None:
    data = {"optional": True, "retryCount": 9, "type": "HTTP", "taskDefinition": {"retryCount": 5}}
    forking = task("FORK_JOIN_DYNAMIC", "d", {"forkTaskName": "t", "forkTaskInputs": [data]})
    world = World(flow(forking, join("j")), tasks={"t": {"name": "t", "retryCount": 0}})
    run = world.start("flow")
    row = world.row(run, "_t_0")
    assert row.type == "t"
    assert row.input.value == {**data, "__index": 0}
    world.result(run, "_t_0", status=FAILED)
    assert world.status(run) == "FAILED"


@pytest.mark.covers("B8")
@pytest.mark.parametrize(
    "references", [("x", "x"), ("it1",)], ids=["twice in one fork", "used in the definition"]
)
def test_b8_a_reference_that_is_taken_is_refused_by_its_name(references: tuple[str, ...]) -> None:
    world = World(flow(simple("it1"), different(), join("j")))
    run = listing(world, [simple(reference) for reference in references], {})
    row = world.row(run, "d")
    assert row.status is TaskStatus.FAILED_WITH_TERMINAL_ERROR
    assert references[-1] in (row.reason or "")


@pytest.mark.covers("B19")
def test_b19_a_forked_task_without_definition_runs_under_the_same_defaults() -> None:
    listed = [{"name": "free", "taskReferenceName": "x1", "type": "SIMPLE"}]
    world = World(flow(simple("it1"), different(), join("j")))
    run = listing(world, listed, {})
    world.result(run, "x1", status=FAILED)
    row = world.row(run, "x1")
    assert (row.status, row.attempt, row.callback_after_s) == (TaskStatus.SCHEDULED, 1, 60)
