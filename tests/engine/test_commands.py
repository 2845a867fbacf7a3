"""Pause, resume, terminate, retry, restart; and what waits behind what."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.cursor import continues
from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Continue, Event, Pause, Restart, Result, Resume, Retry, Terminate
from maestoso_server.engine.state import TaskStatus

from .harness import World, flow, fork, join, loop, simple, task

FAILED = TaskStatus.FAILED


def do(world: World, workflow: str, make: Any, **more: Any) -> Any:
    event: Event = make(now_ms=world.now_ms, **more)
    return world.happen(workflow, event)[0]


def test_a_pause_takes_results_and_begins_nothing() -> None:
    world = World(
        flow(fork("f", [simple("a"), simple("b")], [simple("c", retryCount=1)]), join("j", "b", "c"))
    )
    workflow = world.start("flow")
    do(world, workflow, Pause)
    world.result(workflow, "a")
    world.result(workflow, "c", status=FAILED)
    assert world.shown(workflow) == ["f:COMPLETED", "a:COMPLETED", "c:FAILED", "j:IN_PROGRESS"]
    assert do(world, workflow, Continue).verdict == Verdict.STALE
    do(world, workflow, Resume)
    assert world.shown(workflow)[4:] == ["b:SCHEDULED", "c:SCHEDULED"]
    assert world.header(workflow).cursor is None


def test_the_last_result_during_a_pause_ends_the_workflow_when_it_goes_on() -> None:
    world = World(flow(simple("a")))
    workflow = world.start("flow")
    do(world, workflow, Pause)
    world.result(workflow, "a", {"x": 1})
    assert world.status(workflow) == "PAUSED"
    do(world, workflow, Resume)
    assert (world.status(workflow), world.output(workflow)) == ("COMPLETED", {"x": 1})


def test_a_paused_workflow_can_be_terminated_and_retried() -> None:
    world = World(flow(simple("a"), simple("b")))
    workflow = world.start("flow")
    do(world, workflow, Pause)
    world.result(workflow, "a")
    do(world, workflow, Terminate, reason="enough")
    assert (world.status(workflow), world.header(workflow).reason) == ("TERMINATED", "enough")


@pytest.mark.parametrize(
    ("state", "command", "verdict", "reason"),
    [
        ("RUNNING", Resume, Verdict.REFUSED, "is not PAUSED so cannot resume. Current status is RUNNING"),
        ("RUNNING", Retry, Verdict.REFUSED, "Workflow is still running.  status=RUNNING"),
        ("RUNNING", Restart, Verdict.REFUSED, "is not in terminal state, unable to restart."),
        ("PAUSED", Pause, Verdict.APPLIED, ""),
        ("COMPLETED", Pause, Verdict.REFUSED, "has ended, status cannot be updated."),
        ("COMPLETED", Terminate, Verdict.REFUSED, "Cannot terminate a COMPLETED workflow."),
        ("COMPLETED", Retry, Verdict.REFUSED, "There are no retryable tasks! Use restart if you want"),
        ("TERMINATED", Terminate, Verdict.APPLIED, ""),
        ("FAILED", Terminate, Verdict.APPLIED, ""),
        ("FAILED", Resume, Verdict.REFUSED, "Current status is FAILED"),
    ],
)
def test_commands_in_states(state: str, command: Any, verdict: Verdict, reason: str) -> None:
    world = World(flow(simple("a")))
    workflow = world.start("flow")
    if state == "PAUSED":
        do(world, workflow, Pause)
    elif state == "TERMINATED":
        do(world, workflow, Terminate, reason="enough")
    elif state != "RUNNING":
        world.result(workflow, "a", status=TaskStatus[state])
    assert world.status(workflow) == state
    outcome = do(world, workflow, command, **({"reason": "again"} if command is Terminate else {}))
    assert outcome.verdict == verdict and reason in outcome.reason
    if (state, command) == ("FAILED", Terminate):
        assert (world.status(workflow), world.header(workflow).reason) == ("TERMINATED", "again")
    else:
        assert world.status(workflow) == state


def test_a_restart_begins_a_new_generation() -> None:
    world = World(flow(simple("a"), simple("b", {"a": "${a.output.x}"}), variables={"v": 1}))
    workflow = world.start("flow", {"k": 1})
    world.result(workflow, "a", {"x": 1})
    world.result(workflow, "b", status=FAILED)
    assert do(world, workflow, Restart).verdict == Verdict.APPLIED
    header = world.header(workflow)
    assert (header.status.name, header.reason, header.output, header.generation) == ("RUNNING", None, None, 2)
    assert world.shown(workflow) == ["a:SCHEDULED"]
    late = Result(now_ms=world.now_ms, seq=1, status=TaskStatus.COMPLETED)
    assert world.happen(workflow, late)[0].verdict == Verdict.STALE
    world.result(workflow, "a", {"x": 2})
    assert world.row(workflow, "b").input.value == {"a": 2}
    world.result(workflow, "b")
    assert (world.status(workflow), header.input.value) == ("COMPLETED", {"k": 1})


def test_a_restart_on_newer_definitions() -> None:
    old, new = flow(simple("a")), flow(simple("z"), version=2)
    for partial in (False, True):
        world = World(old, partial=partial)
        workflow = world.start("flow")
        world.result(workflow, "a")
        newer = world._snapshot(new)
        do(world, workflow, Restart, snapshot_id=newer, name="flow", version=2)
        assert (world.shown(workflow), world.header(workflow).version) == (["z:SCHEDULED"], 2)


@pytest.mark.parametrize(("ended", "verdict"), [("COMPLETED", Verdict.REFUSED), ("FAILED", Verdict.APPLIED)])
def test_a_workflow_that_is_not_restartable(ended: str, verdict: Verdict) -> None:
    world = World(flow(simple("a"), restartable=False))
    workflow = world.start("flow")
    world.result(workflow, "a", status=TaskStatus[ended])
    assert do(world, workflow, Restart).verdict == verdict


def test_a_retry_repeats_what_failed_and_what_was_cancelled() -> None:
    world = World(
        flow(
            fork("f", [simple("a")], [simple("b")], [simple("c")]), join("j", "a", "b", "c"), simple("after")
        )
    )
    workflow = world.start("flow")
    world.result(workflow, "c", {"n": 3})
    world.result(workflow, "a", status=FAILED)
    do(world, workflow, Retry)
    assert world.shown(workflow) == [
        "f:COMPLETED", "a:FAILED", "b:CANCELED", "c:COMPLETED", "j:IN_PROGRESS", "a:SCHEDULED", "b:SCHEDULED",
    ]  # fmt: skip
    world.result(workflow, "a")
    world.result(workflow, "b")
    assert world.output(workflow, "j") == {"c": {"n": 3}}
    assert world.shown(workflow)[-1] == "after:SCHEDULED"


def test_a_retry_goes_on_in_the_same_turn() -> None:
    world = World(flow(loop("l", [simple("a")], 2)))
    workflow = world.start("flow")
    world.result(workflow, "a__1")
    world.result(workflow, "a__2", status=FAILED)
    assert world.row(workflow, "l").status == TaskStatus.CANCELED
    do(world, workflow, Retry)
    assert world.row(workflow, "l").status == TaskStatus.IN_PROGRESS
    world.result(workflow, "a__2")
    assert (world.status(workflow), world.output(workflow, "l")["iteration"]) == ("COMPLETED", 2)


def test_a_retry_after_a_timeout_that_nothing_failed_in() -> None:
    world = World(flow(simple("a"), timeoutSeconds=10, timeoutPolicy="TIME_OUT_WF"))
    workflow = world.start("flow")
    do(world, workflow, Pause)
    world.result(workflow, "a")
    do(world, workflow, Resume)
    assert world.status(workflow) == "COMPLETED"


def wide(count: int) -> World:
    inputs = {"forkTaskName": "t", "forkTaskInputs": list(range(count))}
    return World(flow(task("FORK_JOIN_DYNAMIC", "d", inputs), join("j")))


def test_a_terminate_of_many_tasks_flips_the_header_first() -> None:
    world = wide(900)
    workflow = world.start("flow")
    deliver, world.deliver = world.deliver, lambda: None  # type: ignore[method-assign]
    do(world, workflow, Terminate, reason="enough")
    assert world.status(workflow) == "TERMINATED" and world.header(workflow).open > 0
    assert continues(world.header(workflow))
    for command in (Retry, Restart):
        assert do(world, workflow, command).verdict == Verdict.BEHIND
    assert do(world, workflow, Pause).verdict == Verdict.REFUSED
    left = world.open_worker_rows(workflow)[-1]
    late = Result(now_ms=world.now_ms, seq=left.seq, status=TaskStatus.COMPLETED, delivery=1)
    assert world.happen(workflow, late)[0].verdict == Verdict.STALE
    deliver()
    assert (world.header(workflow).open, world.workflows[workflow].queue) == (0, {})
    world.deliver = deliver  # type: ignore[method-assign]
    assert do(world, workflow, Retry).verdict == Verdict.APPLIED
    for row in world.open_worker_rows(workflow):
        world.report(workflow, row.seq)
    assert world.status(workflow) == "COMPLETED"


def test_an_endless_loop_can_be_ended() -> None:
    world = World(
        flow(loop("l", [task("NOOP", "n")], loopCondition="true", inputParameters={"keepLastN": 1}))
    )
    world.deliver = lambda: None  # type: ignore[method-assign]
    workflow = world.start("flow")
    assert continues(world.header(workflow))
    assert do(world, workflow, Terminate, reason="enough").verdict == Verdict.APPLIED
    assert (world.status(workflow), world.header(workflow).open) == ("TERMINATED", 0)


def test_a_fork_that_was_cut_off_is_made_whole_by_a_retry() -> None:
    world = wide(900)
    deliver, world.deliver = world.deliver, lambda: None  # type: ignore[method-assign]
    workflow = world.start("flow")
    begun = len(world.rows(workflow))
    assert begun < 900
    do(world, workflow, Terminate, reason="enough")
    world.deliver = deliver  # type: ignore[method-assign]
    world.deliver()
    do(world, workflow, Retry)
    for row in world.open_worker_rows(workflow):
        world.report(workflow, row.seq)
    assert world.status(workflow) == "COMPLETED"
    assert len({row.reference for row in world.rows(workflow)}) == 902
