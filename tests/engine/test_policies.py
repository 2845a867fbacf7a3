"""Retry policies, clocks that only alert, delays and priorities: what the record shows."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Decision, QueueBirth
from maestoso_server.engine.events import DeliveryDue, Event, Result
from maestoso_server.engine.state import TaskStatus

from .harness import START_MS, World, flow, simple, task

FAILED = TaskStatus.FAILED


def retried(**policy: Any) -> tuple[World, str]:
    definition = {"name": "a", "retryCount": 5, **policy}
    world = World(flow(simple("a", retryCount=None)), tasks={"a": definition})
    return world, world.start("flow")


def fail(world: World, workflow: str, seed: int = 1) -> tuple[int, int]:
    """The delay that the record shows in seconds, and the one in the queue in milliseconds."""
    seq = world.row(workflow, "a").seq
    world.happen(workflow, Result(now_ms=world.now_ms, seed=seed, seq=seq, status=FAILED, delivery=1))
    row = world.row(workflow, "a")
    return row.callback_after_s, world.workflows[workflow].queue[row.seq] - world.now_ms


EXPONENTIAL = {"retryLogic": "EXPONENTIAL_BACKOFF", "retryDelaySeconds": 2, "maxRetryDelaySeconds": 3}
LINEAR = {
    "retryLogic": "LINEAR_BACKOFF",
    "retryDelaySeconds": 2,
    "backoffScaleFactor": 2,
    "maxRetryDelaySeconds": 5,
}


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        pytest.param(EXPONENTIAL, [2, 3], marks=pytest.mark.covers("G.retry_policy.1")),
        pytest.param(LINEAR, [4, 5], marks=pytest.mark.covers("G.retry_policy.2")),
        pytest.param({"retryDelaySeconds": 30}, [30, 30], marks=pytest.mark.covers("G.retry_policy.4")),
    ],
)
def test_the_record_shows_the_delay(policy: dict[str, Any], shown: list[int]) -> None:
    world, workflow = retried(**policy)
    assert [fail(world, workflow) for _ in shown] == [(seconds, seconds * 1000) for seconds in shown]


@pytest.mark.covers("G.retry_policy.3")
def test_jitter_is_added_to_the_delay_and_not_shown_in_seconds() -> None:
    delays = set()
    for seed in range(10):
        world, workflow = retried(retryDelaySeconds=60, backoffJitterMs=5_000)
        shown, delay = fail(world, workflow, seed)
        assert 60_000 <= delay <= 65_000
        assert shown == delay // 1000
        delays.add(delay)
    assert len(delays) > 5


@pytest.mark.covers("G.retry_policy.5")
def test_the_cap_comes_before_the_jitter() -> None:
    world, workflow = retried(**EXPONENTIAL, backoffJitterMs=400)
    fail(world, workflow)
    shown, delay = fail(world, workflow)
    assert (shown, 3_000 <= delay <= 3_400) == (3, True)


@pytest.mark.covers("G.retry_policy.6")
def test_without_a_total_timeout_retries_go_on() -> None:
    world, workflow = retried(totalTimeoutSeconds=0, retryDelaySeconds=0)
    for _ in range(5):
        world.now_ms += 10_000_000
        fail(world, workflow)
    assert world.status(workflow) == "RUNNING"


@pytest.mark.covers("G.retry_policy.7")
@pytest.mark.parametrize(("elapsed_s", "attempts", "status"), [(4, 2, "RUNNING"), (5, 1, "FAILED")])
def test_a_used_up_budget_makes_no_other_attempt(elapsed_s: int, attempts: int, status: str) -> None:
    world, workflow = retried(totalTimeoutSeconds=5, retryDelaySeconds=0)
    world.now_ms += elapsed_s * 1000
    world.result(workflow, "a", status=FAILED)
    assert (len(world.rows(workflow)), world.status(workflow)) == (attempts, status)


@pytest.mark.covers("G.retry_policy.8")
def test_a_budget_that_runs_out_while_the_task_runs_times_it_out() -> None:
    world, workflow = retried(totalTimeoutSeconds=5)
    world.happen(
        workflow, DeliveryDue(now_ms=START_MS + 5_000, seq=1, delivery=1, started_ms=START_MS + 1_000)
    )
    assert (world.row(workflow, "a").status, world.status(workflow)) == (TaskStatus.TIMED_OUT, "TIMED_OUT")


@pytest.mark.covers("M.2")
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_attempts_are_never_more_than_retries_allow(retries: int) -> None:
    world, workflow = retried(retryCount=retries, retryDelaySeconds=0)
    while world.status(workflow) == "RUNNING":
        world.result(workflow, "a", status=FAILED)
    assert len(world.rows(workflow)) == 1 + retries


@pytest.mark.covers("B.1")
def test_an_optional_task_that_fails_and_then_times_out_lets_the_flow_go_on() -> None:
    definition = {"name": "a", "timeoutSeconds": 2, "timeoutPolicy": "RETRY", "retryDelaySeconds": 0}
    first = simple("a", optional=True, retryCount=1)
    world = World(flow(first, simple("after")), tasks={"a": definition})
    workflow = world.start("flow")
    world.result(workflow, "a", status=FAILED)
    world.happen(workflow, DeliveryDue(now_ms=START_MS + 2_000, seq=2, delivery=1, started_ms=START_MS))
    assert world.shown(workflow) == ["a:FAILED", "a:COMPLETED_WITH_ERRORS", "after:SCHEDULED"]
    world.result(workflow, "after")
    assert world.status(workflow) == "COMPLETED"


# --- clocks that only alert -----------------------------------------------------------------------


class Alerting(World):
    """Notes the alerts of its decisions."""

    def _write(self, stored: Any, view: Any, decision: Decision, events: Any) -> None:
        self.alerts = [*getattr(self, "alerts", []), *((a.of, a.clock) for a in decision.alerts)]
        super()._write(stored, view, decision, events)


def alerting(**policy: Any) -> tuple[Alerting, str]:
    definition = {"name": "a", "responseTimeoutSeconds": 1_000, "timeoutPolicy": "ALERT_ONLY", **policy}
    world = Alerting(flow(simple("a", retryCount=1)), tasks={"a": {**definition, "retryDelaySeconds": 0}})
    return world, world.start("flow")


def due(seq: int, seconds: int) -> Event:
    return DeliveryDue(now_ms=START_MS + seconds * 1000, seq=seq, delivery=1, started_ms=START_MS)


def test_a_task_s_clocks_alert_once_an_attempt() -> None:
    world, workflow = alerting(timeoutSeconds=10, totalTimeoutSeconds=30)
    for seconds in (9, 10, 11, 30, 31):
        world.happen(workflow, due(1, seconds))
    assert world.alerts == [("task", "execution"), ("task", "total")]
    assert (world.shown(workflow), world.status(workflow)) == (["a:SCHEDULED"], "RUNNING")


def test_a_poll_clock_alerts_once() -> None:
    world, workflow = alerting(pollTimeoutSeconds=5)
    world.advance(100)
    assert world.alerts == [("task", "poll")]
    assert not world.workflows[workflow].deadlines


def test_a_response_timeout_ends_the_attempt_beside_an_alert() -> None:
    world, workflow = alerting(timeoutSeconds=10, responseTimeoutSeconds=10)
    world.happen(workflow, due(1, 10))
    assert world.alerts == [("task", "execution")]
    assert world.shown(workflow) == ["a:TIMED_OUT", "a:SCHEDULED"]


def test_a_workflow_s_clock_alerts_once() -> None:
    world = Alerting(flow(simple("a"), timeoutSeconds=60))
    workflow = world.start("flow")
    world.advance(1_000)
    assert (world.alerts, world.status(workflow)) == ([("workflow", "execution")], "RUNNING")


# --- delays, priorities, queue names ---------------------------------------------------------------

CHILD = flow(simple("work"), name="child")


def test_a_sub_workflow_waits_for_its_start_delay_to_the_second() -> None:
    sub = task("SUB_WORKFLOW", "sub", startDelay=30, subWorkflowParam={"name": "child"})
    world = World(flow(sub), CHILD)
    workflow = world.start("flow")
    assert world.row(workflow, "sub").callback_after_s == 30
    world.advance(29)
    assert (world.shown(workflow), world.children(workflow)) == (["sub:SCHEDULED"], [])
    world.advance(1)
    assert (world.shown(workflow), len(world.children(workflow))) == (["sub:IN_PROGRESS"], 1)


def test_a_start_workflow_waits_for_its_start_delay() -> None:
    world = World(
        flow(task("START_WORKFLOW", "go", {"startWorkflow": {"name": "child"}}, startDelay=5)), CHILD
    )
    workflow = world.start("flow")
    world.advance(4)
    assert world.shown(workflow) == ["go:SCHEDULED"]
    world.advance(1)
    assert world.shown(workflow) == ["go:COMPLETED"]


def test_a_dynamic_task_waits_for_its_start_delay() -> None:
    node = task("DYNAMIC", "d", {"name": "work"}, dynamicTaskNameParam="name", startDelay=7)
    world = World(flow(node))
    workflow = world.start("flow")
    assert world.workflows[workflow].queue == {1: START_MS + 7_000}


@pytest.mark.parametrize(
    ("priority", "inherited"),
    [(None, 42), (7, 7), ("${workflow.input.p}", 9), ("${workflow.input.none}", 42)],
)
@pytest.mark.covers("B20")
def test_a_child_inherits_the_priority_that_is_not_set(priority: Any, inherited: int) -> None:
    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child", "priority": priority})
    world = World(flow(sub), CHILD)
    workflow = world.start("flow", {"p": 9}, priority=42)
    (child,) = world.children(workflow)
    assert world.header(child).priority == inherited


class Queues(World):
    """Notes the births of its decisions."""

    births: list[QueueBirth]

    def _write(self, stored: Any, view: Any, decision: Decision, events: Any) -> None:
        self.births = [*getattr(self, "births", []), *decision.births]
        super()._write(stored, view, decision, events)


@pytest.mark.parametrize(
    ("node", "definition", "queue"),
    [
        ({}, {"isolationGroupId": "gold"}, "work-gold"),
        ({}, {"executionNameSpace": "eu"}, "work"),
        ({"type": "HTTP"}, {"executionNameSpace": "eu", "isolationGroupId": "gold"}, "HTTP@eu-gold"),
        ({}, {}, "work"),
    ],
)
def test_a_task_definition_names_its_queue_as_in_conductor(
    node: dict[str, Any], definition: dict[str, Any], queue: str
) -> None:
    world = Queues(flow({**simple("work"), **node}), tasks={"work": {"name": "work", **definition}})
    world.start("flow")
    assert [birth.queue for birth in world.births] == [queue]
