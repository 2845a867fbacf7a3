"""Restart, retry and rerun in a family of three: which ids stay, which records there are (05 E, D, B)."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Event, Pause, Rerun, Restart, Resume, Retry, Terminate
from maestoso_server.engine.state import TaskStatus
from maestoso_server.payload import Json

from .families import LEVELS, Family
from .harness import World, flow, fork, inline, join, loop, simple, switch, task
from .test_operations import both

NAMES = {"root": "root", "mid": "middle", "leaf": "leaf"}
# (what, where) -> the levels that get a new execution
FRESH = {
    ("restart", "root"): {"middle", "leaf"},
    ("restart", "mid"): {"leaf"},
    ("restart", "leaf"): set(),
    ("rerun", "root"): {"middle", "leaf"},
    ("rerun", "mid"): {"leaf"},
    ("rerun", "leaf"): set(),
    ("rerun", "root_task"): {"middle", "leaf"},
    ("rerun", "mid_task"): {"leaf"},
    ("rerun", "leaf_task"): set(),
    ("retry", "root"): {"middle", "leaf"},
    ("retry", "root_resume"): set(),
    ("retry", "mid"): {"leaf"},
    ("retry", "mid_resume"): set(),
    ("retry", "leaf"): set(),
    ("retry", "leaf_resume"): set(),
}
IN_FORKS = {key: fresh for key, fresh in FRESH.items() if not key[1].endswith("_task")}


def act(family: Family, what: str, where: str) -> str:
    """Give the command of a row of the table; the workflow that it went to."""
    level, _, how = where.partition("_")
    world = family.world
    workflow = family.members()[NAMES[level]]
    event: Event
    if what == "restart":
        event = Restart(now_ms=world.now_ms)
    elif what == "retry":
        event = Retry(now_ms=world.now_ms, resume_children=how == "resume")
    else:
        first = world.row(workflow, f"{NAMES[level]}_first").seq
        event = Rerun(now_ms=world.now_ms, seq=first if how == "task" else 0)
    assert world.happen(workflow, event)[0].verdict == Verdict.APPLIED
    return workflow


def check(shape: str, what: str, where: str, fresh: set[str], bounds: dict[str, Any]) -> tuple[Family, str]:
    family = Family(shape, ends=False, **bounds)
    family.work()
    world, before = family.world, family.members()
    level = NAMES[where.partition("_")[0]]
    workflow = act(family, what, where)
    for above in LEVELS[: LEVELS.index(level) + 1]:
        assert world.status(before[above]) == "RUNNING"
    for above in LEVELS[: LEVELS.index(level)]:
        assert world.row(before[above], f"{above}_call").status == TaskStatus.IN_PROGRESS
        assert (
            world.row(before[above], f"{above}_call").child_id
            == family.members()[LEVELS[LEVELS.index(above) + 1]]
        )
        assert world.row(before[above], f"{above}_first").status == TaskStatus.COMPLETED
    if what != "retry":
        assert world.row(workflow, f"{level}_first").status == TaskStatus.SCHEDULED
        assert world.row(workflow, f"{level}_first").attempt == 0
    family.broken = False
    family.work()
    after = family.members()
    assert {name for name in LEVELS if after[name] != before[name]} == fresh
    assert world.status(family.root) == "COMPLETED"
    return family, workflow


@pytest.mark.covers(
    "E.restart.root",
    "E.restart.mid",
    "E.restart.leaf",
    "E.retry.root",
    "E.retry.root_resume",
    "E.retry.mid",
    "E.retry.mid_resume",
    "E.retry.leaf",
    "E.retry.leaf_resume",
    "E.rerun.root",
    "E.rerun.root_task",
    "E.rerun.mid",
    "E.rerun.mid_task",
    "E.rerun.leaf",
    "E.rerun.leaf_task",
)
@both
@pytest.mark.parametrize(
    ("what", "where", "fresh"),
    [(*key, fresh) for key, fresh in FRESH.items()],
)
def test_a_chain_of_three(what: str, where: str, fresh: set[str], bounds: dict[str, Any]) -> None:
    family, workflow = check("plain", what, where, fresh, bounds)
    if what == "retry" and where == "root":
        shown = [name for name in family.world.shown(workflow) if name.startswith("root_call")]
        assert shown == ["root_call:FAILED", "root_call:COMPLETED"]
        old, new = [row for row in family.world.rows(workflow) if row.reference == "root_call"]
        assert (old.superseded, new.retried_seq, new.attempt) == (True, old.seq, 1)


@pytest.mark.covers(
    "E.hierarchical.restart.root",
    "E.hierarchical.restart.mid",
    "E.hierarchical.restart.leaf",
    "E.hierarchical.rerun.root",
    "E.hierarchical.rerun.mid",
    "E.hierarchical.rerun.leaf",
    "E.hierarchical.retry.root",
    "E.hierarchical.retry.root_resume",
    "E.hierarchical.retry.mid",
    "E.hierarchical.retry.mid_resume",
    "E.hierarchical.retry.leaf",
    "E.hierarchical.retry.leaf_resume",
)
@both
@pytest.mark.parametrize(
    ("what", "where", "fresh"),
    [(*key, fresh) for key, fresh in IN_FORKS.items()],
)
def test_a_chain_of_forks(what: str, where: str, fresh: set[str], bounds: dict[str, Any]) -> None:
    family = Family("fork", ends=False, **bounds)
    family.work()
    world, before = family.world, family.members()
    level = NAMES[where.partition("_")[0]]
    act(family, what, where)
    for above in LEVELS[: LEVELS.index(level)]:
        assert world.row(before[above], f"{above}_late").status == TaskStatus.COMPLETED
        assert world.row(before[above], f"{above}_join").status == TaskStatus.IN_PROGRESS
    siblings = [name for name in world.shown(before[level]) if name.startswith(f"{level}_other")]
    if what != "retry":
        assert siblings == []  # it comes after the first task again
    elif level != "leaf":  # there the failure itself has cancelled it
        assert siblings == [f"{level}_other:COMPLETED"]
    check("fork", what, where, fresh, bounds)


@both
@pytest.mark.covers("M.5")
def test_only_a_retry_without_resuming_makes_children_and_only_where_one_failed(
    bounds: dict[str, Any],
) -> None:
    for resume in (True, False):
        family = Family("sub_workflow_in_fork", ends=False, **bounds)
        family.work()
        count = len(family.world.workflows)
        act(family, "retry", "root_resume" if resume else "root")
        family.broken = False
        family.work()
        # anew: the middle, its leaf, and a cousin of each; the root's own cousin had completed
        assert len(family.world.workflows) - count == (0 if resume else 4)


@both
def test_a_resuming_retry_is_not_misled_by_an_earlier_attempt(bounds: dict[str, Any]) -> None:
    definition = {"name": "t", "retryCount": 1, "retryDelaySeconds": 0}
    first = {**simple("t", taskDefinition=definition), "retryCount": 1}
    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})
    world = World(flow(first, sub), flow(simple("c"), name="child"), **bounds)
    workflow = world.start("flow")
    world.result(workflow, "t", status=TaskStatus.FAILED)
    world.result(workflow, "t")
    (child,) = world.children(workflow)
    world.result(child, "c", status=TaskStatus.FAILED)
    world.happen(workflow, Retry(now_ms=world.now_ms, resume_children=True))
    assert world.children(workflow) == [child] and world.status(child) == "RUNNING"
    world.result(child, "c")
    assert world.status(workflow) == "COMPLETED"


CHILD = flow(simple("c1"), simple("c2"), name="child")


def sub(reference: str = "sub", **more: Any) -> dict[str, Any]:
    return task("SUB_WORKFLOW", reference, subWorkflowParam={"name": "child"}, **more)


@both
@pytest.mark.covers("E.sub_workflow.1")
def test_a_child_of_a_parent_that_timed_out_runs_again(bounds: dict[str, Any]) -> None:
    parent = flow(
        sub(), timeoutSeconds=10, timeoutPolicy="TIME_OUT_WF", outputParameters={"o": "${sub.output.x}"}
    )
    world = World(parent, CHILD, **bounds)
    workflow = world.start("flow")
    (child,) = world.children(workflow)
    world.advance(11)
    assert (world.status(workflow), world.status(child)) == ("TIMED_OUT", "TERMINATED")
    assert world.row(workflow, "sub").status == TaskStatus.CANCELED
    assert world.shown(child) == ["c1:CANCELED"]
    world.happen(child, Retry(now_ms=world.now_ms))
    assert (world.status(workflow), world.status(child)) == ("RUNNING", "RUNNING")
    assert world.row(workflow, "sub").status == TaskStatus.IN_PROGRESS
    assert world.shown(child) == ["c1:CANCELED", "c1:SCHEDULED"]
    world.result(child, "c1")
    world.result(child, "c2", {"x": 4})
    assert (world.status(workflow), world.output(workflow)) == ("COMPLETED", {"o": 4})


@pytest.mark.covers("E.sub_workflow.2", "M.6")
def test_a_terminated_child_terminates_its_parent_with_its_reason() -> None:
    world = World(flow(sub()), CHILD)
    workflow = world.start("flow")
    (child,) = world.children(workflow)
    world.happen(child, Terminate(now_ms=world.now_ms, reason="enough of it"))
    assert (world.status(child), world.header(child).reason) == ("TERMINATED", "enough of it")
    assert (world.status(workflow), world.row(workflow, "sub").status.name) == ("TERMINATED", "CANCELED")
    assert "enough of it" in (world.header(workflow).reason or "")


@both
@pytest.mark.covers("E.sub_workflow.3")
def test_a_resuming_retry_of_the_parent_gives_the_child_another_attempt(bounds: dict[str, Any]) -> None:
    world = World(flow(sub()), CHILD, **bounds)
    workflow = world.start("flow")
    (child,) = world.children(workflow)
    world.result(child, "c1", status=TaskStatus.FAILED)
    world.happen(workflow, Retry(now_ms=world.now_ms, resume_children=True))
    assert world.shown(child) == ["c1:FAILED", "c1:SCHEDULED"] and world.status(workflow) == "RUNNING"
    world.result(child, "c1")
    world.result(child, "c2")
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("E.async.1")
def test_a_child_starts_by_itself() -> None:
    world = World(flow(simple("t"), sub()), CHILD)
    workflow = world.start("flow")
    world.result(workflow, "t")
    (child,) = world.children(workflow)
    assert world.row(workflow, "sub").status == TaskStatus.IN_PROGRESS
    assert world.shown(child) == ["c1:SCHEDULED"]


@pytest.mark.covers("E.inline.1")
def test_a_child_whose_definition_is_the_output_of_a_task() -> None:
    body = [
        inline("score", "$.loops", {"loops": "${l.output.iteration}"}),
        switch("route", "${score.output.result}", {"2": [simple("high")]}),
    ]
    made = flow(
        loop("l", body, 2),
        name="made",
        outputParameters={"loopsDone": "${l.output.iteration}", "allDone": True},
    )
    child = task("SUB_WORKFLOW", "sub", subWorkflowParam={"workflowDefinition": "${make.output.definition}"})
    world = World(flow(simple("make"), child))
    workflow = world.start("flow")
    world.result(workflow, "make", {"definition": made})
    (started,) = world.children(workflow)
    world.result(started, "high__2")
    assert world.output(started) == {"loopsDone": 2, "allDone": True}
    assert world.status(workflow) == "COMPLETED"


# --- forks ------------------------------------------------------------------------------------------


def two_branches(**more: Any) -> dict[str, Any]:
    left = [simple("it1", **more), simple("it3")]
    return flow(fork("f", left, [simple("it2", **more)]), join("j", "it3", "it2"), simple("it4"))


@both
@pytest.mark.covers("D.fork_join.4")
def test_a_retry_of_a_failed_fork(bounds: dict[str, Any]) -> None:
    world = World(two_branches(), **bounds)
    workflow = world.start("flow")
    world.result(workflow, "it1")
    world.result(workflow, "it2", status=TaskStatus.FAILED)
    assert world.row(workflow, "it3").status == world.row(workflow, "j").status == TaskStatus.CANCELED
    world.happen(workflow, Retry(now_ms=world.now_ms))
    assert world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    for reference in ("it2", "it3", "it4"):
        world.result(workflow, reference)
    assert world.status(workflow) == "COMPLETED" and len(world.rows(workflow)) == 8


@both
@pytest.mark.covers("D.fork_join.5")
def test_a_retry_of_a_fork_with_two_permissive_failures(bounds: dict[str, Any]) -> None:
    world = World(two_branches(permissive=True), **bounds)
    workflow = world.start("flow")
    world.result(workflow, "it1", status=TaskStatus.FAILED)
    world.result(workflow, "it2", status=TaskStatus.FAILED)
    world.result(workflow, "it3")
    assert world.status(workflow) == "FAILED"
    world.happen(workflow, Retry(now_ms=world.now_ms))
    for reference in ("it1", "it2", "it4"):
        world.result(workflow, reference)
    assert world.status(workflow) == "COMPLETED"
    assert [name for name in world.shown(workflow) if name.startswith("it1")] == [
        "it1:FAILED",
        "it1:COMPLETED",
    ]


@both
@pytest.mark.covers("D.fork_join.8")
def test_a_rerun_of_an_optional_child_leaves_the_parent_alone(bounds: dict[str, Any]) -> None:
    forked = fork("f", [sub("one", optional=True)], [sub("two", optional=True)])
    world = World(flow(forked, join("j", "one", "two")), CHILD, **bounds)
    workflow = world.start("flow")
    for child in world.children(workflow):
        world.result(child, "c1", status=TaskStatus.FAILED)
    states = [world.row(workflow, reference).status.name for reference in ("one", "two", "j")]
    assert (world.status(workflow), set(states)) == ("COMPLETED", {"COMPLETED_WITH_ERRORS"})
    child = world.children(workflow)[0]
    revision = world.header(workflow).revision
    world.happen(child, Rerun(now_ms=world.now_ms))
    assert world.status(child) == "RUNNING" and world.status(workflow) == "COMPLETED"
    assert world.header(workflow).revision == revision


@pytest.mark.covers("D.fork_join.9")
def test_terminated_permissive_children_end_with_their_parent() -> None:
    forked = fork("f", [sub("one", permissive=True)], [sub("two", permissive=True)])
    world = World(flow(forked, join("j", "one", "two")), CHILD)
    workflow = world.start("flow")
    children = world.children(workflow)
    world.happen(workflow, Terminate(now_ms=world.now_ms, reason="enough"))
    assert {world.status(child) for child in children} == {"TERMINATED"}
    assert [world.row(workflow, name).status.name for name in ("one", "two", "j")] == ["CANCELED"] * 3


def dynamic(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    given = {"tasks": "${it1.output.tasks}", "inputs": "${it1.output.inputs}"}
    forked = task(
        "FORK_JOIN_DYNAMIC",
        "f",
        given,
        dynamicForkTasksParam="tasks",
        dynamicForkTasksInputParamName="inputs",
    )
    return flow(simple("it1"), forked, join("j"), simple("it4"))


@both
@pytest.mark.covers("D.dynamic_fork.3")
def test_a_retry_of_a_failed_dynamic_fork(bounds: dict[str, Any]) -> None:
    tasks = [simple("x1"), simple("x2")]
    world = World(dynamic(tasks), **bounds)
    workflow = world.start("flow")
    world.result(workflow, "it1", {"tasks": tasks, "inputs": {"x1": {}, "x2": {}}})
    world.result(workflow, "x1", status=TaskStatus.FAILED)
    assert world.row(workflow, "x2").status == world.row(workflow, "j").status == TaskStatus.CANCELED
    world.happen(workflow, Retry(now_ms=world.now_ms))
    for reference in ("x1", "x2", "it4"):
        world.result(workflow, reference)
    assert world.status(workflow) == "COMPLETED" and len(world.rows(workflow)) == 8


@both
@pytest.mark.covers("D.dynamic_fork.4")
def test_a_resuming_retry_goes_on_in_a_forked_child(bounds: dict[str, Any]) -> None:
    tasks = [sub("x1"), simple("x2")]
    world = World(dynamic(tasks), CHILD, **bounds)
    workflow = world.start("flow")
    world.result(workflow, "it1", {"tasks": tasks, "inputs": {"x1": {}, "x2": {}}})
    world.result(workflow, "x2")
    (child,) = world.children(workflow)
    world.result(child, "c1", status=TaskStatus.FAILED)
    world.happen(workflow, Retry(now_ms=world.now_ms, resume_children=True))
    assert world.shown(child) == ["c1:FAILED", "c1:SCHEDULED"]
    assert world.row(workflow, "x1").status == world.row(workflow, "j").status == TaskStatus.IN_PROGRESS
    for reference in ("c1", "c2"):
        world.result(child, reference)
    world.result(workflow, "it4")
    assert world.status(workflow) == "COMPLETED"


def nested(bounds: dict[str, Any]) -> tuple[World, str, str]:
    inner = [fork("in", [sub()], [simple("left")]), join("jin", "sub", "left")]
    world = World(flow(fork("out", inner, [simple("right")]), join("jout", "jin", "right")), CHILD, **bounds)
    workflow = world.start("flow")
    (child,) = world.children(workflow)
    for reference in ("left", "right"):
        world.result(workflow, reference)
    world.result(child, "c1")
    world.result(child, "c2", status=TaskStatus.FAILED)
    assert world.status(workflow) == "FAILED"
    assert world.row(workflow, "jin").status == world.row(workflow, "jout").status == TaskStatus.CANCELED
    return world, workflow, child


@both
@pytest.mark.parametrize(
    ("where", "event", "fresh"),
    [
        pytest.param("child", Restart(now_ms=0), False, marks=pytest.mark.covers("D.nested.1")),
        pytest.param("parent", Restart(now_ms=0), True, marks=pytest.mark.covers("D.nested.2")),
        pytest.param("parent", Retry(now_ms=0), True, marks=pytest.mark.covers("D.nested.3")),
        pytest.param(
            "parent", Retry(now_ms=0, resume_children=True), False, marks=pytest.mark.covers("D.nested.4")
        ),
        pytest.param("child", Retry(now_ms=0), False, marks=pytest.mark.covers("D.nested.5")),
    ],
)
def test_nested_forks_around_a_failed_child(
    where: str, event: Event, fresh: bool, bounds: dict[str, Any]
) -> None:
    world, workflow, child = nested(bounds)
    event.now_ms = world.now_ms
    world.happen(child if where == "child" else workflow, event)
    newest = world.children(workflow)[-1]
    assert world.status(workflow) == "RUNNING" and (newest != child) == fresh
    joins = [world.row(workflow, name).status for name in ("jin", "jout")]
    assert joins == [TaskStatus.IN_PROGRESS] * 2
    again = isinstance(event, Restart) and where == "parent"
    kept = {world.row(workflow, name).status.name for name in ("left", "right")}
    assert kept == ({"SCHEDULED"} if again else {"COMPLETED"})
    if again:
        for reference in ("left", "right"):
            world.result(workflow, reference)
    while rows := world.open_worker_rows(newest):
        world.report(newest, rows[0].seq)
    assert world.status(workflow) == "COMPLETED"


# --- one workflow -----------------------------------------------------------------------------------


@pytest.mark.covers("A.9")
def test_a_retry_by_an_operator_goes_on_counting_attempts() -> None:
    definition = {"name": "t1", "retryCount": 1, "retryDelaySeconds": 0}
    first = {**simple("t1", {"id": "${CPEWF_TASK_ID}"}, taskDefinition=definition), "retryCount": 1}
    world = World(flow(first, simple("t2")))
    workflow = world.start("flow")
    for _ in range(2):
        world.result(workflow, "t1", status=TaskStatus.FAILED)
    assert world.status(workflow) == "FAILED"
    world.happen(workflow, Retry(now_ms=world.now_ms))
    rows = world.rows(workflow)
    assert [(row.attempt, row.status.name) for row in rows] == [
        (0, "FAILED"),
        (1, "FAILED"),
        (2, "SCHEDULED"),
    ]
    assert len({row.input.value["id"] for row in rows}) == 3
    world.result(workflow, "t1")
    world.result(workflow, "t2")
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("A.12")
def test_what_is_not_restartable_is_restarted_only_after_a_failure() -> None:
    world = World(flow(simple("t"), restartable=False))
    workflow = world.start("flow")
    world.result(workflow, "t", status=TaskStatus.FAILED)
    assert world.happen(workflow, Restart(now_ms=world.now_ms))[0].verdict == Verdict.APPLIED
    world.result(workflow, "t")
    assert world.happen(workflow, Restart(now_ms=world.now_ms))[0].verdict == Verdict.REFUSED


@pytest.mark.covers("A.3")
def test_a_terminal_error_is_not_retried_and_a_running_workflow_not_restarted() -> None:
    world = World(flow(simple("t", retryCount=3), outputParameters={"o": "${t.output.x}"}))
    workflow = world.start("flow")
    assert world.happen(workflow, Restart(now_ms=world.now_ms))[0].verdict == Verdict.REFUSED
    world.result(workflow, "t", {"x": 1}, TaskStatus.FAILED_WITH_TERMINAL_ERROR, reason="no")
    header = world.header(workflow)
    assert (world.status(workflow), len(world.rows(workflow))) == ("FAILED", 1)
    assert (header.reason or "").endswith("failed with status: FAILED and reason: 'no'")
    assert world.output(workflow) == {"o": 1} and header.failed_task == 1


@pytest.mark.covers("A.6")
def test_a_restart_resets_variables_and_reason() -> None:
    world = World(flow(task("SET_VARIABLE", "s", {"a": 2}), simple("t"), variables={"a": 1}))
    workflow = world.start("flow")
    world.result(workflow, "t", status=TaskStatus.FAILED)
    world.happen(workflow, Restart(now_ms=world.now_ms))
    header = world.header(workflow)
    assert (header.reason, header.failed_task, header.output) == (None, 0, None)
    assert world.shown(workflow) == ["s:COMPLETED", "t:SCHEDULED"]
    world.result(workflow, "t")
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("B.7")
def test_a_retry_after_the_workflow_timed_out_gives_it_all_its_time_again() -> None:
    world = World(flow(simple("t"), timeoutSeconds=5, timeoutPolicy="TIME_OUT_WF"))
    workflow = world.start("flow")
    world.advance(6)
    assert world.status(workflow) == "TIMED_OUT"
    world.happen(workflow, Retry(now_ms=world.now_ms))
    assert world.shown(workflow) == ["t:CANCELED", "t:SCHEDULED"]
    world.advance(4)
    assert world.status(workflow) == "RUNNING"
    world.advance(2)
    assert world.status(workflow) == "TIMED_OUT"


@pytest.mark.covers("B.8")
def test_a_retry_after_a_time_out_keeps_what_completed() -> None:
    world = World(flow(simple("t1"), simple("t2"), timeoutSeconds=5, timeoutPolicy="TIME_OUT_WF"))
    workflow = world.start("flow")
    world.result(workflow, "t1")
    world.advance(6)
    world.happen(workflow, Retry(now_ms=world.now_ms))
    assert world.shown(workflow) == ["t1:COMPLETED", "t2:CANCELED", "t2:SCHEDULED"]


@pytest.mark.covers("B.11")
def test_a_paused_workflow_takes_results_and_goes_on_when_resumed() -> None:
    world = World(flow(simple("t1"), simple("t2")))
    workflow = world.start("flow")
    world.happen(workflow, Pause(now_ms=world.now_ms))
    world.result(workflow, "t1")
    assert (world.status(workflow), world.shown(workflow)) == ("PAUSED", ["t1:COMPLETED"])
    world.happen(workflow, Resume(now_ms=world.now_ms))
    assert world.shown(workflow) == ["t1:COMPLETED", "t2:SCHEDULED"]


@both
@pytest.mark.parametrize("kind", ["switch", "fork"])
@pytest.mark.parametrize("in_loop", [False, True])
def test_a_permissive_container_that_runs_again_does_not_start_what_follows_twice(
    kind: str, in_loop: bool, bounds: dict[str, Any]
) -> None:
    """Its first attempt failed and the flow went on: the second runs its chains and ends there."""
    if kind == "switch":
        container = [
            task(
                "SWITCH",
                "s",
                {"v": "${a.output.v}"},
                evaluatorType="javascript",
                expression="if ($.v === 1) { throw new Error('x') } 'go'",
                decisionCases={"go": [simple("in1"), simple("in2")]},
                permissive=True,
            )
        ]
    else:
        given = {"forkTaskName": "t", "forkTaskInputs": "${a.output.branches}"}
        container = [
            task("FORK_JOIN_DYNAMIC", "s", given, permissive=True, dynamicForkTasksParam="none"),
            join("j"),
        ]
    tasks = [simple("a"), *container, simple("z")]
    world = World(flow(loop("l", tasks, 1)) if in_loop else flow(*tasks), **bounds)
    workflow = world.start("flow")
    end = "__1" if in_loop else ""
    world.result(workflow, f"a{end}", {"v": 1, "branches": "no list"})
    assert world.row(workflow, f"s{end}").status.name.startswith("FAILED")
    if not in_loop:
        world.result(workflow, "z")
        assert world.status(workflow) == "FAILED"
    else:
        world.happen(workflow, Terminate(now_ms=world.now_ms, reason=""))
    # What it read has become better meanwhile.
    first = world.workflows[workflow].rows[world.row(workflow, f"a{end}").seq]
    first.output = Json.of({"v": 2, "branches": [{}, {}]})
    if (view := world.workflows[workflow].view) is not None:
        view.tasks[first.seq].output = first.output
    world.happen(workflow, Retry(now_ms=world.now_ms))
    while rows := world.open_worker_rows(workflow):
        world.report(workflow, rows[0].seq)
    assert world.status(workflow) == "COMPLETED"
    assert (
        sum(row.reference == "z" and row.status == TaskStatus.COMPLETED for row in world.rows(workflow)) == 1
    )
