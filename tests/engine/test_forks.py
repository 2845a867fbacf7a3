"""FORK_JOIN, JOIN, EXCLUSIVE_JOIN and FORK_JOIN_DYNAMIC."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.state import TaskStatus

from .harness import World, flow, fork, inline, join, loop, simple, switch, task

FAILED = TaskStatus.FAILED


def forked(left: Any = None, right: Any = None, *on: str, **more: Any) -> dict[str, Any]:
    branches = [left or [simple("a")], right or [simple("b"), simple("c")]]
    return flow(fork("f", *branches), join("j", *(on or ("a", "c"))), simple("after"), **more)


def test_only_the_join_of_a_dynamic_fork_shows_its_input_parameters() -> None:
    inputs = {"inputParameters": {"kept": "${workflow.input.n}"}}
    dynamic = task("FORK_JOIN_DYNAMIC", "d", {"forkTaskName": "t", "forkTaskInputs": [1]})
    document = flow(
        fork("f", [task("NOOP", "n")]), join("empty", **inputs), dynamic, join("full", "ignored", **inputs)
    )
    world = World(document)
    workflow = world.start("flow")
    assert world.row(workflow, "empty").input.value == {"joinOn": []}
    assert world.row(workflow, "full").input.value == {"kept": "${workflow.input.n}", "joinOn": ["_t_0"]}


@pytest.mark.parametrize("read", ["${workflow.input.n}", "${workflow.input.gone}"])
def test_a_join_counts_what_ended_before_its_fork_whatever_the_fork_reads(read: str) -> None:
    """What an input does not find is noted in the row: that made a static fork look like a dynamic one,
    and its join wait for ever."""
    document = flow(simple("early"), {**fork("f", [simple("a")]), "inputParameters": {"x": read}})
    document["tasks"].append(join("j", "a", "early"))
    world = World(document)
    workflow = world.start("flow", {"n": 1})
    world.result(workflow, "early")
    world.result(workflow, "a")
    assert (world.status(workflow), world.row(workflow, "j").status) == ("COMPLETED", TaskStatus.COMPLETED)


@pytest.mark.parametrize("kind", ["SWITCH", "DECISION"])
def test_a_join_on_a_switch_before_its_fork_and_on_a_task_of_its_case_ends(kind: str) -> None:
    """All in one decision: the switch's word of what it did not choose was taken for its own end, which the
    join had missed, and it waited for ever."""
    chosen = {"a": [task("NOOP", "in_a")], "b": [task("NOOP", "in_b")]}
    how = (
        {"caseValueParam": "key"}
        if kind == "DECISION"
        else {"evaluatorType": "value-param", "expression": "key"}
    )
    switch = {**task(kind, "k", {"key": "a"}), "decisionCases": chosen, **how}
    for listed in (["k", "in_a"], ["k", "in_b"], ["k", "in_a", "in_b", "now"]):
        world = World(flow(switch, fork("f", [task("NOOP", "now")], [simple("late")]), join("j", *listed)))
        workflow = world.start("flow")
        assert world.row(workflow, "j").status is TaskStatus.COMPLETED


def test_two_joins_that_one_task_ends_go_on_in_their_order() -> None:
    """The inner one was made first; what follows the outer one is the last, and the workflow's output."""
    inside = [fork("g", [simple("a")], [simple("b")]), join("k", "a", "b"), task("NOOP", "inner")]
    world = World(flow(fork("f", [simple("c")], inside), join("j", "c", "b"), task("NOOP", "outer")))
    workflow = world.start("flow")
    for reference in ("a", "c", "b"):
        world.result(workflow, reference)
    assert [row.reference for row in world.rows(workflow)][-2:] == ["inner", "outer"]


def test_the_defaults_of_a_forked_task_are_resolved() -> None:
    """They are the task definition's, not data of the fork: `${}` in them means what it says."""
    inputs = {"forkTaskName": "t", "forkTaskInputs": [{"x": None}, {"x": "${workflow.input.n}"}]}
    defaults = {"x": "${workflow.input.n}", "id": "${CPEWF_TASK_ID}"}
    document = flow(task("FORK_JOIN_DYNAMIC", "d", inputs), join("j"))
    world = World(document, tasks={"t": {"name": "t", "inputTemplate": defaults, "retryDelaySeconds": 0}})
    workflow = world.start("flow", {"n": 7})
    for seq, given in ((2, 7), (3, 7)):
        expected = {"x": given, "id": f"{workflow[:-6]}{seq:06x}", "__index": seq - 2}
        assert world.workflows[workflow].rows[seq].input.value == expected
    world.report(workflow, 2, status=FAILED)
    assert world.row(workflow, "_t_0").input.value == {"x": 7, "id": f"{workflow[:-6]}000005", "__index": 0}


def test_branches_run_at_once_and_the_join_waits_for_all() -> None:
    world = World(forked())
    workflow = world.start("flow")
    assert world.shown(workflow) == ["f:COMPLETED", "a:SCHEDULED", "b:SCHEDULED", "j:IN_PROGRESS"]
    world.result(workflow, "b")
    world.result(workflow, "c", {"n": 1})
    assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "a", {})
    assert world.output(workflow, "j") == {"c": {"n": 1}}
    assert world.row(workflow, "j").input.value == {"joinOn": ["a", "c"]}
    assert world.row(workflow, "f").type == "FORK"
    assert world.shown(workflow)[-1] == "after:SCHEDULED"


def test_a_join_of_some_branches_goes_on_and_the_workflow_waits_for_the_rest() -> None:
    world = World(forked(None, None, "a"))
    workflow = world.start("flow")
    world.result(workflow, "a")
    world.result(workflow, "after")
    assert world.status(workflow) == "RUNNING"
    world.result(workflow, "b")
    world.result(workflow, "c")
    assert world.status(workflow) == "COMPLETED"


def test_a_failed_branch_ends_everything_at_once() -> None:
    world = World(forked(None, None, "c"))
    workflow = world.start("flow")
    world.result(workflow, "a", status=FAILED, reason="no luck")
    assert world.shown(workflow) == ["f:COMPLETED", "a:FAILED", "b:CANCELED", "j:CANCELED"]
    a = world.row(workflow, "a")
    task_id = f"{workflow[:-6]}{a.seq:06x}"
    assert world.header(workflow).reason == f"Task {task_id} failed with status: FAILED and reason: 'no luck'"
    assert world.header(workflow).failed_task == a.seq
    assert not world.workflows[workflow].queue


def test_a_permissive_branch_fails_the_join_after_the_others() -> None:
    world = World(forked([simple("a", permissive=True)]))
    workflow = world.start("flow")
    world.result(workflow, "a", status=FAILED, reason="no luck")
    assert world.status(workflow) == "RUNNING"
    world.result(workflow, "b")
    world.result(workflow, "c", {"n": 1})
    assert (world.row(workflow, "j").status, world.row(workflow, "j").reason) == (FAILED, "no luck")
    assert world.output(workflow, "j") == {"c": {"n": 1}}
    assert world.status(workflow) == "FAILED"


def test_an_optional_branch_leaves_errors_in_the_join() -> None:
    world = World(forked([simple("a", optional=True)]))
    workflow = world.start("flow")
    world.result(workflow, "a", status=FAILED)
    world.result(workflow, "b")
    world.result(workflow, "c")
    row = world.row(workflow, "j")
    assert row.status == TaskStatus.COMPLETED_WITH_ERRORS
    assert row.reason == f"a/{workflow[:-6]}{world.row(workflow, 'a').seq:06x} completed with errors"
    world.result(workflow, "after")
    assert world.status(workflow) == "COMPLETED"


def test_a_cancelled_permissive_branch_cancels_the_join() -> None:
    world = World(forked([simple("a", permissive=True)]))
    workflow = world.start("flow")
    world.result(workflow, "a", status=TaskStatus.CANCELED)
    world.result(workflow, "b")
    world.result(workflow, "c")
    assert (world.row(workflow, "j").status, world.status(workflow)) == (TaskStatus.CANCELED, "TERMINATED")


def test_a_join_waits_for_the_last_attempt() -> None:
    world = World(forked([simple("a", retryCount=1)]))
    workflow = world.start("flow")
    world.result(workflow, "b")
    world.result(workflow, "c")
    world.result(workflow, "a", status=FAILED)
    assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "a", {"n": 2})
    assert world.output(workflow, "j") == {"a": {"n": 2}}


@pytest.mark.parametrize("branch", [[inline("a", "1")], [switch("a", "x", {})], [task("NOOP", "a")]])
def test_branches_that_end_at_once_are_counted_once(branch: Any) -> None:
    world = World(forked(branch, branch and [inline("c", "2")]))
    workflow = world.start("flow")
    assert world.shown(workflow)[-2:] == ["j:COMPLETED", "after:SCHEDULED"]


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ([fork("f", [simple("a")]), simple("b")], "Fork task definition is not followed by a join task."),
        ([fork("f", [simple("a")], []), join("j")], "fork f has a branch without tasks"),
        ([fork("f", [simple("a")])], "Fork task definition is not followed by a join task."),
    ],
)
def test_a_fork_that_cannot_run_fails_with_its_reason(tasks: list[dict[str, Any]], reason: str) -> None:
    world = World(flow(*tasks))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["f:FAILED_WITH_TERMINAL_ERROR"]
    assert (world.row(workflow, "f").reason or "").startswith(reason)
    assert world.status(workflow) == "FAILED"


def test_nested_forks_join_inside_out() -> None:
    inner = [fork("g", [simple("x")], [simple("y")]), join("k", "x", "y")]
    world = World(forked(inner, None, "k", "c"))
    workflow = world.start("flow")
    for reference in ("y", "b", "c"):
        world.result(workflow, reference)
    assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "x", {"n": 1})
    assert world.output(workflow, "j") == {"k": {"x": {"n": 1}}}


@pytest.mark.parametrize(("chosen", "expected"), [("a", {"from": "a"}), ("z", {"from": "before"})])
def test_an_exclusive_join_takes_the_chain_that_ran(chosen: str, expected: dict[str, str]) -> None:
    cases = {"a": [simple("in_a")], "b": [simple("in_b")]}
    joined = task("EXCLUSIVE_JOIN", "x", joinOn=["in_a", "in_b"], defaultExclusiveJoinTask=["before"])
    world = World(flow(simple("before"), switch("s", chosen, cases), joined, simple("after")))
    workflow = world.start("flow")
    world.result(workflow, "before", {"from": "before"})
    if chosen == "a":
        world.result(workflow, "in_a", {"from": "a"})
    assert world.output(workflow, "x") == expected
    assert world.shown(workflow)[-1] == "after:SCHEDULED"


# --- dynamic -------------------------------------------------------------------------------------


def dynamic(inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return flow(task("FORK_JOIN_DYNAMIC", "d", inputs, **more), join("j"), simple("after"))


SAME = {"forkTaskName": "t", "forkTaskInputs": [{"n": 1}, "two", {"id": "${CPEWF_TASK_ID}"}]}


def test_one_task_for_all_inputs() -> None:
    world = World(dynamic(SAME))
    workflow = world.start("flow")
    assert world.shown(workflow) == [
        "d:COMPLETED", "_t_0:SCHEDULED", "_t_1:SCHEDULED", "_t_2:SCHEDULED", "j:IN_PROGRESS",
    ]  # fmt: skip
    own_id = f"{workflow[:-6]}{world.row(workflow, '_t_2').seq:06x}"
    inputs = [world.row(workflow, f"_t_{index}").input.value for index in range(3)]
    assert inputs == [{"n": 1, "__index": 0}, {"input": "two", "__index": 1}, {"id": own_id, "__index": 2}]
    assert world.row(workflow, "j").input.value == {"joinOn": ["_t_0", "_t_1", "_t_2"]}
    for index in (2, 0, 1):
        world.result(workflow, f"_t_{index}", {"i": index})
    assert world.output(workflow, "j") == {"_t_0": {"i": 0}, "_t_1": {"i": 1}, "_t_2": {"i": 2}}


def test_a_second_dynamic_fork_has_longer_references() -> None:
    second = task("FORK_JOIN_DYNAMIC", "d2", SAME)
    world = World(
        flow(task("FORK_JOIN_DYNAMIC", "d1", {**SAME, "forkTaskInputs": []}), join("j1"), second, join("j2"))
    )
    workflow = world.start("flow")
    assert world.shown(workflow)[3:] == [
        "_d2_t_0:SCHEDULED", "_d2_t_1:SCHEDULED", "_d2_t_2:SCHEDULED", "j2:IN_PROGRESS",
    ]  # fmt: skip


def test_data_of_a_branch_never_becomes_its_settings() -> None:
    inputs = {"forkTaskName": "t", "forkTaskInputs": [{"optional": True, "type": "NOOP", "x": "${a.b}"}]}
    world = World(dynamic({"forkTaskName": "t", "forkTaskInputs": "${workflow.input.list}"}))
    workflow = world.start("flow", {"list": inputs["forkTaskInputs"]})
    row = world.row(workflow, "_t_0")
    assert row.input.value == {"optional": True, "type": "NOOP", "x": "${a.b}", "__index": 0}
    world.result(workflow, "_t_0", status=TaskStatus.FAILED_WITH_TERMINAL_ERROR)
    assert world.status(workflow) == "FAILED"


@pytest.mark.parametrize("kind", ["tasks", "legacy"])
def test_different_tasks(kind: str) -> None:
    if kind == "tasks":
        inputs = {"tasks": [simple("x"), simple("y", {"own": 1})], "inputs": {"y": {"n": 2}}}
        params = {"dynamicForkTasksParam": "tasks", "dynamicForkTasksInputParamName": "inputs"}
    else:
        listed = [
            {"taskName": "x", "referenceName": "x"},
            {"taskName": "y", "referenceName": "y", "input": {"n": 2}},
        ]
        inputs = {"list": {"dynamicTasks": listed}}
        params = {"dynamicForkJoinTasksParam": "list"}
    world = World(dynamic(inputs, **params))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["d:COMPLETED", "x:SCHEDULED", "y:SCHEDULED", "j:IN_PROGRESS"]
    assert world.row(workflow, "y").input.value["n"] == 2
    world.result(workflow, "x")
    world.result(workflow, "y")
    assert world.shown(workflow)[-1] == "after:SCHEDULED"
    assert list(world.workflows[workflow].fragments) == [1]


def test_forked_sub_workflows_are_called_like_their_fork() -> None:
    """As every branch without a `forkTaskName`; the workflow's name is no task's name."""
    child = flow(simple("in_child", {"n": "${workflow.input.n}"}), name="child")
    inputs = {
        "forkTaskWorkflow": "child",
        "forkTaskWorkflowVersion": 1,
        "forkTaskInputs": [{"n": 1}, {"n": 2}],
    }
    world = World(dynamic(inputs), child)
    workflow = world.start("flow")
    children = world.children(workflow)
    assert [world.row(one, "in_child").input.value for one in children] == [{"n": 1}, {"n": 2}]
    for one in children:
        world.result(one, "in_child", {"out": one})
    assert world.output(workflow, "j")["_d_1"] == {"subWorkflowId": children[1], "out": children[1]}


def test_a_registered_definition_is_frozen_into_the_branches() -> None:
    tasks = {"t": {"name": "t", "retryCount": 1, "retryDelaySeconds": 0}}
    world = World(dynamic(SAME), tasks=tasks)
    workflow = world.start("flow")
    tasks["t"]["retryCount"] = 0
    world.result(workflow, "_t_1", status=FAILED)
    assert [row.attempt for row in world.rows(workflow) if row.reference == "_t_1"] == [0, 1]
    assert world.row(workflow, "_t_1").input.value == {"input": "two", "__index": 1}


def test_an_unregistered_branch_is_retried_like_a_static_task() -> None:
    world = World(dynamic(SAME))
    workflow = world.start("flow")
    world.result(workflow, "_t_1", status=FAILED)
    assert world.row(workflow, "_t_1").attempt == 1


UNREADABLE = "Input 'tasks' is invalid. Cannot deserialize a list of Workflow Tasks"
NO_MAP = "Input to the dynamically forked tasks is not a map -> expecting a map of K,V  but found 1"
DUPLICATE = (
    "No dynamic tasks could be created for the Workflow: flow, Dynamic Fork Task: d attempted to create "
    "a duplicate task reference name: "
)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"tasks": 5, "inputs": {}}, UNREADABLE),
        ({"tasks": [{}], "inputs": {}}, UNREADABLE),
        ({"tasks": [], "inputs": 1}, NO_MAP),
        ({"tasks": [simple("x"), simple("x")], "inputs": {}}, DUPLICATE + "x"),
        ({"tasks": [simple("after")], "inputs": {}}, DUPLICATE + "after"),
        (
            {"forkTaskWorkflow": "c", "forkTaskWorkflowVersion": "x", "forkTaskInputs": [1]},
            "forkTaskWorkflowVersion is no number: x",
        ),
    ],
)
def test_a_dynamic_fork_that_cannot_run(inputs: dict[str, Any], reason: str) -> None:
    params = {"dynamicForkTasksParam": "tasks", "dynamicForkTasksInputParamName": "inputs"}
    world = World(dynamic(inputs, **params))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["d:FAILED_WITH_TERMINAL_ERROR"]
    assert (world.row(workflow, "d").reason or "").startswith(reason)


def test_a_wide_fork_costs_every_decision_the_same() -> None:
    width = 1500
    world = World(dynamic({"forkTaskName": "t", "forkTaskInputs": list(range(width))}))
    workflow = world.start("flow")
    assert len(world.rows(workflow)) == width + 2
    assert world.most_rows <= 760
    for row in world.open_worker_rows(workflow):
        world.report(workflow, row.seq, {"n": 1})
    assert len(world.output(workflow, "j")) == width
    assert world.shown(workflow)[-1] == "after:SCHEDULED"


def test_results_that_come_while_a_wide_fork_is_made_count() -> None:
    world = World(dynamic({"forkTaskName": "t", "forkTaskInputs": list(range(600))}))
    deliver, world.deliver = world.deliver, lambda: None  # type: ignore[method-assign]
    workflow = world.start("flow")
    early = world.open_worker_rows(workflow)
    assert 0 < len(early) < 600
    for row in early:
        world.report(workflow, row.seq, {"n": 1})
    deliver()
    world.deliver = deliver  # type: ignore[method-assign]
    for row in world.open_worker_rows(workflow):
        world.report(workflow, row.seq, {"n": 1})
    assert len(world.output(workflow, "j")) == 600


def test_a_fork_in_a_loop_names_its_turns() -> None:
    body = [fork("f", [simple("a")], [simple("b")]), join("j", "a", "b")]
    world = World(flow(loop("l", body, 2), simple("after")))
    workflow = world.start("flow")
    for turn in (1, 2):
        world.result(workflow, f"a__{turn}", {"n": turn})
        world.result(workflow, f"b__{turn}")
        assert world.output(workflow, f"j__{turn}") == {f"a__{turn}": {"n": turn}}
    assert world.shown(workflow)[-1] == "after:SCHEDULED"
