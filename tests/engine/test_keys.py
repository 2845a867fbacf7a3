"""Idempotency keys of SUB_WORKFLOW and START_WORKFLOW."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import MessageKind, Verdict
from maestoso_server.engine.events import Restart, Retry, Terminate
from maestoso_server.engine.messages import child_placed, decode
from maestoso_server.engine.state import TaskStatus
from maestoso_server.payload import Json

from .harness import World, flow, simple, task

CHILD = flow(simple("work"), name="child")
STRATEGIES = ("FAIL", "RETURN_EXISTING", "FAIL_ON_RUNNING")


def sub(strategy: Any = None, key: Any = "${workflow.input.key}", **more: Any) -> dict[str, Any]:
    params = {"name": "child", "idempotencyKey": key, "idempotencyStrategy": strategy}
    return flow(task("SUB_WORKFLOW", "sub", subWorkflowParam=params, **more), simple("after"))


def starting(strategy: Any = None, key: Any = "${workflow.input.key}") -> dict[str, Any]:
    request = {"name": "child", "idempotencyKey": key, "idempotencyStrategy": strategy}
    return flow(task("START_WORKFLOW", "start", {"startWorkflow": request}), simple("after"))


def kin(world: World, name: str = "child") -> list[str]:
    return [workflow for workflow, stored in world.workflows.items() if stored.header.name == name]


@pytest.fixture(params=[False, True], ids=["whole", "partial"])
def partial(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("strategy", [None, *STRATEGIES])
def test_a_key_that_is_free_starts_a_child_as_ever(strategy: Any, partial: bool) -> None:
    world = World(sub(strategy), CHILD, partial=partial)
    workflow = world.start("flow", {"key": "k"})
    (child,) = kin(world)
    assert world.header(child).idempotency_key == "k"
    assert world.row(workflow, "sub").child_id == child
    world.result(child, "work", {"x": 1})
    assert world.row(workflow, "sub").output == Json.of({"subWorkflowId": child, "x": 1})


@pytest.mark.parametrize("key", [None, "", "${workflow.input.none}"])
def test_without_a_key_every_start_is_its_own(key: Any) -> None:
    world = World(sub("FAIL", key), CHILD)
    world.start("flow"), world.start("flow")
    assert len(kin(world)) == 2
    assert {world.header(child).idempotency_key for child in kin(world)} == {None}


@pytest.mark.parametrize(
    ("strategy", "over", "fails"),
    [
        (None, False, True),
        (None, True, True),
        ("FAIL", False, True),
        ("FAIL", True, True),
        ("FAIL_ON_RUNNING", False, True),
        ("FAIL_ON_RUNNING", True, False),
    ],
)
@pytest.mark.parametrize("document", [sub, starting])
def test_a_used_key_fails_the_task_that_may_not_share_it(
    document: Any, strategy: Any, over: bool, fails: bool, partial: bool
) -> None:
    world = World(document(strategy), CHILD, partial=partial)
    holder = world.start("child", idempotency_key="k")
    if over:
        world.result(holder, "work")
    workflow = world.start("flow", {"key": "k"})
    row = world.rows(workflow)[0]
    if not fails:
        new = kin(world)[1]
        assert new != holder
        assert row.output is not None and new in row.output.value.values()
        return
    assert (row.status, world.status(workflow)) == (TaskStatus.FAILED, "FAILED")
    assert row.reason == f"idempotency key 'k' was used by workflow {holder}"
    assert kin(world) == [holder]
    assert row.child_id is None


def test_a_task_may_try_again_until_the_key_is_free() -> None:
    definition = {"name": "sub", "retryCount": 1, "retryDelaySeconds": 10}
    world = World(sub("FAIL_ON_RUNNING", taskDefinition=definition), CHILD)
    holder = world.start("child", idempotency_key="k")
    workflow = world.start("flow", {"key": "k"})
    world.result(holder, "work")
    world.advance(10)
    assert world.row(workflow, "sub").child_id == kin(world)[1]


@pytest.mark.parametrize("late", [False, True], ids=["runs", "has ended"])
@pytest.mark.parametrize(
    ("status", "row_status", "parent"),
    [
        (TaskStatus.COMPLETED, "COMPLETED", "RUNNING"),
        (TaskStatus.FAILED, "FAILED", "FAILED"),
        (TaskStatus.CANCELED, "CANCELED", "TERMINATED"),
    ],
)
def test_a_follower_gets_the_outcome_of_the_workflow_that_has_the_key(
    status: TaskStatus, row_status: str, parent: str, late: bool, partial: bool
) -> None:
    world = World(sub("RETURN_EXISTING"), CHILD, partial=partial)
    holder = world.start("child", idempotency_key="k")
    if late:
        world.result(holder, "work", {"x": 1}, status, reason="so")
    workflow = world.start("flow", {"key": "k"})
    if not late:
        row = world.row(workflow, "sub")
        assert (row.status, row.child_id) == (TaskStatus.IN_PROGRESS, holder)
        assert row.output == Json.of({"subWorkflowId": holder})
        world.result(holder, "work", {"x": 1}, status, reason="so")
    row = world.row(workflow, "sub")
    assert (row.status.name, world.status(workflow)) == (row_status, parent)
    assert row.output == Json.of({"subWorkflowId": holder, "x": 1})
    assert kin(world) == [holder]
    if status == TaskStatus.FAILED:
        assert row.reason == f"Sub workflow child.1/{holder} failure reason: {world.header(holder).reason}"
    assert world.header(holder).cursor is None


def test_many_follow_and_their_first_starter_is_told_as_its_parent() -> None:
    world = World(sub("RETURN_EXISTING"), CHILD)
    family = [world.start("flow", {"key": "k"}) for _ in range(5)]
    (child,) = kin(world)
    assert world.header(child).parent_id == family[0]
    world.result(child, "work", {"x": 1})
    for workflow in family:
        assert world.shown(workflow) == ["sub:COMPLETED", "after:SCHEDULED"]


def test_a_followers_end_leaves_the_followed_workflow_alone() -> None:
    world = World(sub("RETURN_EXISTING"), CHILD)
    owner, follower = world.start("flow", {"key": "k"}), world.start("flow", {"key": "k"})
    (child,) = kin(world)
    world.happen(follower, Terminate(now_ms=world.now_ms, reason="enough"))
    assert world.row(follower, "sub").status == TaskStatus.CANCELED
    assert world.status(child) == "RUNNING"
    world.happen(owner, Terminate(now_ms=world.now_ms, reason="enough"))
    assert world.status(child) == "TERMINATED"


@pytest.mark.parametrize("resume", [False, True])
def test_a_followers_retry_asks_anew_and_does_not_retry_the_followed(resume: bool, partial: bool) -> None:
    world = World(sub("RETURN_EXISTING"), CHILD, partial=partial)
    holder = world.start("child", idempotency_key="k")
    workflow = world.start("flow", {"key": "k"})
    world.result(holder, "work", status=TaskStatus.FAILED)
    assert world.status(workflow) == "FAILED"
    world.happen(holder, Retry(now_ms=world.now_ms))
    assert (world.status(holder), world.status(workflow)) == ("RUNNING", "FAILED")  # nothing goes up
    world.happen(workflow, Retry(now_ms=world.now_ms, resume_children=resume))
    row = world.row(workflow, "sub")
    assert (row.attempt, row.status, row.child_id) == (1, TaskStatus.IN_PROGRESS, holder)
    world.result(holder, "work", {"x": 2})
    assert world.row(workflow, "sub").output == Json.of({"subWorkflowId": holder, "x": 2})


def test_a_restart_follows_again() -> None:
    world = World(sub("RETURN_EXISTING"), CHILD)
    holder = world.start("child", idempotency_key="k")
    workflow = world.start("flow", {"key": "k"})
    world.happen(workflow, Terminate(now_ms=world.now_ms, reason=""))
    world.happen(workflow, Restart(now_ms=world.now_ms))
    world.result(holder, "work")
    assert world.shown(workflow) == ["sub:COMPLETED", "after:SCHEDULED"]


def test_a_task_does_not_wait_for_those_that_wait_for_it() -> None:
    world = World(
        flow(task("SUB_WORKFLOW", "down", subWorkflowParam={"name": "flow"}), name="top"),
        sub("RETURN_EXISTING", "k"),
        CHILD,
    )
    top = world.start("top", idempotency_key="k")
    (workflow,) = kin(world, "flow")
    row = world.row(workflow, "sub")
    assert row.reason == f"idempotency key 'k' was used by workflow {top}, which waits for this task"
    assert world.status(top) == "FAILED"


def test_a_start_completes_with_the_workflow_that_has_the_key(partial: bool) -> None:
    world = World(starting("RETURN_EXISTING"), CHILD, partial=partial)
    first, second = world.start("flow", {"key": "k"}), world.start("flow", {"key": "k"})
    (child,) = kin(world)
    assert world.header(child).parent_id is None
    for workflow in (first, second):
        assert world.row(workflow, "start").output == Json.of({"workflowId": child})
        assert world.row(workflow, "after").status == TaskStatus.SCHEDULED
    world.happen(second, Terminate(now_ms=world.now_ms, reason=""))
    assert world.status(child) == "RUNNING"


@pytest.mark.parametrize("key", ["a\0b", "k" * 256])
@pytest.mark.parametrize("document", [sub, starting])
def test_what_no_key_can_be_fails_the_task(document: Any, key: str) -> None:
    world = World(document("FAIL"), CHILD)
    workflow = world.start("flow", {"key": key})
    row = world.rows(workflow)[0]
    assert row.status == TaskStatus.FAILED_WITH_TERMINAL_ERROR
    assert row.reason is not None and "idempotencyKey h" in row.reason
    assert kin(world) == []


@pytest.mark.parametrize("document", [sub, starting])
def test_a_strategy_that_turns_out_unknown_fails_the_task(document: Any) -> None:
    world = World(document("${workflow.input.how}"), CHILD)
    workflow = world.start("flow", {"key": "k", "how": "SHARE"})
    assert world.rows(workflow)[0].reason == (
        "idempotencyStrategy is no strategy: 'SHARE'. Use FAIL, RETURN_EXISTING, FAIL_ON_RUNNING"
    )
    workflow = world.start("flow", {"key": "k", "how": "FAIL"})
    assert len(kin(world)) == 1


def test_a_key_that_is_no_text_counts_as_its_json() -> None:
    world = World(sub("FAIL"), CHILD)
    world.start("flow", {"key": {"a": 1}})
    assert [world.header(child).idempotency_key for child in kin(world)] == ['{"a":1}']


def test_answers_for_an_attempt_that_is_over_change_nothing() -> None:
    world = World(sub("RETURN_EXISTING"), CHILD)
    holder = world.start("child", idempotency_key="k")
    workflow = world.start("flow", {"key": "k"})
    seq = world.row(workflow, "sub").seq
    body = child_placed(seq, "00000000-0000-0000-0000-000000000000", holder, None)
    late = decode(MessageKind.CHILD_PLACED, body.raw, now_ms=world.now_ms)
    assert world.happen(workflow, late)[0].verdict is Verdict.STALE
    world.result(holder, "work")
    assert world.happen(workflow, late)[0].verdict is Verdict.STALE


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_key_of_a_workflow_that_was_removed(strategy: str) -> None:
    world = World(sub(strategy), CHILD)
    gone = world.keys["k"] = "00000000-0000-7000-8000-ffffff000000"
    workflow = world.start("flow", {"key": "k"})
    row = world.row(workflow, "sub")
    if strategy == "RETURN_EXISTING":
        assert row.status == TaskStatus.CANCELED
        assert f"Workflow {gone} does not exist any more" in (row.reason or "")
    else:
        assert (row.status == TaskStatus.FAILED) is (strategy == "FAIL")
