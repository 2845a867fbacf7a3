"""The clocks of tasks and workflows, each under each policy."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import DeliveryDue, Due, Pause, QueueFacts, Resume, Retry
from maestoso_server.engine.state import TaskStatus

from .harness import START_MS, World, flow, simple, task

POLICIES = ["RETRY", "TIME_OUT_WF", "ALERT_ONLY"]


def timed(flags: dict[str, Any] | None = None, **policy: Any) -> tuple[World, str]:
    definition = {
        "name": "a",
        "retryCount": 1,
        "retryDelaySeconds": 0,
        "responseTimeoutSeconds": 1000,
        **policy,
    }
    world = World(
        flow(simple("a", retryCount=None, **(flags or {})), simple("after")), tasks={"a": definition}
    )
    return world, world.start("flow")


def running(world: World, workflow: str, seconds: int, seq: int = 1) -> Verdict:
    """The owner of a delivery that was started at once sees a deadline after so many seconds."""
    now = START_MS + seconds * 1000
    event = DeliveryDue(now_ms=now, seq=seq, delivery=1, started_ms=START_MS)
    return world.happen(workflow, event)[0].verdict


@pytest.mark.parametrize("policy", POLICIES)
def test_a_task_that_is_put_back_when_its_time_is_up_ends_all_the_same(policy: str) -> None:
    """The worker's word came before the clock's."""
    world, workflow = timed(totalTimeoutSeconds=45, timeoutPolicy=policy)
    world.now_ms = START_MS + 45_000
    world.result(workflow, "a", status=TaskStatus.IN_PROGRESS, callback_after_s=10)
    assert world.workflows[workflow].deadlines[1] == world.now_ms
    queue = QueueFacts(owner_epoch=-1, due_ms=world.now_ms + 10_000, started_ms=0)
    world.happen(workflow, Due(now_ms=world.now_ms, seq=1, queue=queue))
    if policy == "ALERT_ONLY":
        assert world.shown(workflow) == ["a:SCHEDULED"]
        assert world.row(workflow, "a").state == {"alerted": ["total"]}
    else:
        assert world.row(workflow, "a").status is TaskStatus.TIMED_OUT


@pytest.mark.covers("B.5")
@pytest.mark.parametrize("policy", POLICIES)
def test_execution_timeout(policy: str) -> None:
    world, workflow = timed(timeoutSeconds=30, timeoutPolicy=policy)
    assert running(world, workflow, 29) == Verdict.STALE
    ran_out = running(world, workflow, 30)
    if policy == "ALERT_ONLY":
        assert (ran_out, world.shown(workflow)) == (Verdict.STALE, ["a:SCHEDULED"])
        return
    reason = (
        "Task timed out after 30 seconds. Timeout configured as 30 seconds. "
        f"Timeout policy configured to {policy}"
    )
    assert world.workflows[workflow].rows[1].reason == reason
    if policy == "RETRY":
        assert world.shown(workflow) == ["a:TIMED_OUT", "a:SCHEDULED"]
        running(world, workflow, 60, seq=2)
        task_id = f"{workflow[:-6]}000002"
        expected = (
            f"Task {task_id} failed with status: TIMED_OUT and reason: '{world.row(workflow, 'a').reason}'"
        )
    else:
        expected = reason
    assert (world.status(workflow), world.header(workflow).reason) == ("TIMED_OUT", expected)


@pytest.mark.covers("B15")
@pytest.mark.covers("B15")
@pytest.mark.parametrize(
    ("flag", "shown"), [("optional", "COMPLETED_WITH_ERRORS"), ("permissive", "TIMED_OUT")]
)
def test_optional_and_permissive_hold_for_timeouts_too(flag: str, shown: str) -> None:
    world, workflow = timed({flag: True}, timeoutSeconds=30, timeoutPolicy="TIME_OUT_WF")
    running(world, workflow, 30)
    assert world.shown(workflow) == [f"a:{shown}", "after:SCHEDULED"]


@pytest.mark.parametrize("policy", POLICIES)
def test_poll_timeout(policy: str) -> None:
    world, workflow = timed(pollTimeoutSeconds=20, timeoutPolicy=policy)
    world.advance(19)
    assert world.shown(workflow) == ["a:SCHEDULED"]
    world.advance(1)
    expected = {
        "RETRY": (["a:TIMED_OUT", "a:SCHEDULED"], "RUNNING"),
        "TIME_OUT_WF": (["a:TIMED_OUT"], "TIMED_OUT"),
        "ALERT_ONLY": (["a:SCHEDULED"], "RUNNING"),
    }[policy]
    assert (world.shown(workflow), world.status(workflow)) == expected
    if policy != "ALERT_ONLY":
        reason = world.workflows[workflow].rows[1].reason or ""
        assert reason.startswith(
            "Task poll timed out after 20 seconds. Poll timeout configured as 20 seconds."
        )


def test_poll_timeout_counts_from_the_last_time_the_task_was_queued() -> None:
    world, workflow = timed(pollTimeoutSeconds=20, timeoutPolicy="RETRY")
    world.advance(15)
    world.result(workflow, "a", status=TaskStatus.IN_PROGRESS, callback_after_s=30)
    world.advance(49)
    assert world.shown(workflow) == ["a:SCHEDULED"]
    world.advance(1)
    assert world.shown(workflow) == ["a:TIMED_OUT", "a:SCHEDULED"]


def test_an_owned_row_is_left_to_its_owner() -> None:
    world, workflow = timed(pollTimeoutSeconds=20, timeoutPolicy="RETRY")
    facts = QueueFacts(owner_epoch=7, due_ms=START_MS, started_ms=START_MS)
    event = Due(now_ms=START_MS + 20_000, seq=1, queue=facts)
    assert world.happen(workflow, event)[0].verdict == Verdict.APPLIED
    assert world.shown(workflow) == ["a:SCHEDULED"]
    assert world.workflows[workflow].deadlines == {1: START_MS + 40_000}


def test_a_polled_row_is_watched_here() -> None:
    world, workflow = timed(responseTimeoutSeconds=10)
    facts = QueueFacts(
        owner_epoch=0, due_ms=START_MS, started_ms=START_MS + 1000, progress_ms=START_MS + 5000
    )
    early = Due(now_ms=START_MS + 11_000, seq=1, queue=facts)
    world.happen(workflow, early)
    assert world.workflows[workflow].deadlines == {1: START_MS + 15_000}
    world.happen(workflow, Due(now_ms=START_MS + 15_000, seq=1, queue=facts))
    assert world.shown(workflow) == ["a:TIMED_OUT", "a:SCHEDULED"]


@pytest.mark.parametrize("policy", POLICIES)
def test_total_timeout(policy: str) -> None:
    world, workflow = timed(totalTimeoutSeconds=50, timeoutPolicy=policy, retryCount=9, retryDelaySeconds=30)
    world.result(workflow, "a", status=TaskStatus.FAILED)
    world.advance(49)
    assert world.shown(workflow) == ["a:FAILED", "a:SCHEDULED"]
    world.advance(1)
    if policy == "ALERT_ONLY":
        assert world.shown(workflow) == ["a:FAILED", "a:SCHEDULED"]
        return
    row = world.row(workflow, "a")
    assert (row.status, world.status(workflow)) == (TaskStatus.TIMED_OUT, "TIMED_OUT")
    assert (row.reason or "").startswith(
        f"Task a/{workflow[:-6]}000002 exceeded total timeout of 50 seconds (elapsed 50"
    )


@pytest.mark.parametrize("clock", ["totalTimeoutSeconds", "pollTimeoutSeconds"])
def test_a_dynamic_task_that_ended_leaves_no_deadline(clock: str) -> None:
    """Its clocks are those of the task that it turned out to be, not of its node."""
    node = task("DYNAMIC", "a", {"which": "real"}, dynamicTaskNameParam="which")
    world = World(flow(node), tasks={"real": {"name": "real", "timeoutPolicy": "RETRY", clock: 45}})
    workflow = world.start("flow")
    assert world.workflows[workflow].deadlines == {1: START_MS + 45_000}
    world.result(workflow, "a")
    assert not world.workflows[workflow].deadlines


def test_no_attempt_is_begun_after_the_total_timeout() -> None:
    world, workflow = timed(totalTimeoutSeconds=50, timeoutPolicy="RETRY", retryCount=9)
    world.now_ms += 50_000
    world.result(workflow, "a", status=TaskStatus.FAILED)
    assert world.shown(workflow) == ["a:FAILED"]
    expected = (
        f"Task {workflow[:-6]}000001/a exceeded total timeout of 50 seconds "
        "(elapsed 50 seconds across all attempts). No further retries will be attempted."
    )
    assert (world.status(workflow), world.header(workflow).reason) == ("FAILED", expected)


@pytest.mark.covers("B.12")
def test_a_wait_has_the_clocks_of_its_definition() -> None:
    definition = {
        "name": "w",
        "timeoutSeconds": 10,
        "timeoutPolicy": "RETRY",
        "retryCount": 1,
        "retryDelaySeconds": 0,
    }
    world = World(flow(task("WAIT", "w", taskDefinition=definition)))
    workflow = world.start("flow")
    world.advance(10)
    assert world.shown(workflow) == ["w:TIMED_OUT", "w:IN_PROGRESS"]
    world.advance(10)
    assert world.status(workflow) == "TIMED_OUT"


@pytest.mark.parametrize("kind", ["HUMAN", "WAIT"])
def test_what_waits_for_somebody_has_no_response_timeout(kind: str) -> None:
    world = World(flow(task(kind, "w", taskDefinition={"name": "w"})))
    workflow = world.start("flow")
    world.advance(100_000)
    assert world.shown(workflow) == ["w:IN_PROGRESS"]


def test_a_start_delay_holds_the_task_back() -> None:
    world = World(flow(simple("a", startDelay=30)))
    workflow = world.start("flow")
    assert world.workflows[workflow].queue == {1: START_MS + 30_000}
    assert world.row(workflow, "a").callback_after_s == 30


# --- the workflow's own clock --------------------------------------------------------------------


@pytest.mark.covers("B.6")
def test_the_workflow_times_out_to_the_second() -> None:
    world = World(flow(simple("a"), timeoutSeconds=60, timeoutPolicy="TIME_OUT_WF"))
    workflow = world.start("flow")
    world.advance(59)
    assert world.status(workflow) == "RUNNING"
    world.advance(1)
    assert (world.status(workflow), world.shown(workflow)) == ("TIMED_OUT", ["a:CANCELED"])
    expected = (
        "Workflow timed out after 60 seconds. Timeout configured as 60 seconds. "
        "Timeout policy configured to TIME_OUT_WF"
    )
    assert world.header(workflow).reason == expected
    assert not world.workflows[workflow].deadlines


def test_an_alert_changes_nothing() -> None:
    world = World(flow(simple("a"), timeoutSeconds=60))
    workflow = world.start("flow")
    world.advance(1000)
    assert world.status(workflow) == "RUNNING"


@pytest.mark.parametrize("how", ["resume", "retry"])
def test_the_workflows_clock_begins_anew(how: str) -> None:
    world = World(flow(simple("a"), timeoutSeconds=60, timeoutPolicy="TIME_OUT_WF"))
    workflow = world.start("flow")
    if how == "resume":
        world.advance(50)
        world.happen(workflow, Pause(now_ms=world.now_ms))
        world.advance(100)
        assert world.status(workflow) == "PAUSED"
        world.happen(workflow, Resume(now_ms=world.now_ms))
    else:
        world.advance(60)
        world.happen(workflow, Retry(now_ms=world.now_ms))
    world.advance(59)
    assert world.status(workflow) == "RUNNING"
    world.advance(1)
    assert world.status(workflow) == "TIMED_OUT"


def test_a_finished_workflow_has_no_clock_left() -> None:
    world = World(flow(simple("a"), timeoutSeconds=60, timeoutPolicy="TIME_OUT_WF"))
    workflow = world.start("flow")
    world.result(workflow, "a")
    assert not world.workflows[workflow].deadlines
