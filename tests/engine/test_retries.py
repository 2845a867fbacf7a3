"""Attempts: when there is another one, when it may run, and what exhaustion leads to."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import DeliveryDue, Result, WorkerLost
from maestoso_server.engine.state import TaskStatus

from .harness import World, flow, simple, task

FAILED = TaskStatus.FAILED


def defined(**policy: Any) -> World:
    return World(
        flow(simple("a", {"n": "${workflow.variables.n}"}, retryCount=None), simple("after")),
        tasks={"a": {"name": "a", **policy}},
    )


LINEAR = {"retryLogic": "LINEAR_BACKOFF", "retryDelaySeconds": 2, "backoffScaleFactor": 2}
EXPONENTIAL = {"retryLogic": "EXPONENTIAL_BACKOFF", "retryDelaySeconds": 2, "maxRetryDelaySeconds": 5}


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        ({"retryCount": 3, "retryDelaySeconds": 5}, [5, 5, 5]),
        ({"retryCount": 2, **LINEAR}, [4, 8]),
        ({"retryCount": 3, **EXPONENTIAL}, [2, 4, 5]),
        ({"retryCount": 0}, []),
    ],
)
def test_delays_and_exhaustion(policy: dict[str, Any], delays: list[int]) -> None:
    world = defined(**policy)
    workflow = world.start("flow")
    for attempt, delay in enumerate(delays):
        world.result(workflow, "a", status=FAILED, reason=f"failure {attempt}")
        row = world.row(workflow, "a")
        assert (row.attempt, row.retried_seq, row.callback_after_s) == (attempt + 1, attempt + 1, delay)
        assert world.workflows[workflow].queue == {row.seq: world.now_ms + delay * 1000}
        assert row.reason == f"failure {attempt}"
    world.result(workflow, "a", status=FAILED)
    assert world.status(workflow) == "FAILED"
    assert [row.superseded for row in world.rows(workflow)] == [True] * len(delays) + [False]


@pytest.mark.parametrize("node", [0, 1])
def test_the_nodes_retry_count_goes_first(node: int) -> None:
    world = World(flow(simple("a", retryCount=node)), tasks={"a": {"name": "a", "retryCount": 5}})
    workflow = world.start("flow")
    for _ in range(node + 1):
        assert world.status(workflow) == "RUNNING"
        world.result(workflow, "a", status=FAILED)
    assert world.status(workflow) == "FAILED"


@pytest.mark.parametrize("status", [TaskStatus.FAILED_WITH_TERMINAL_ERROR, TaskStatus.CANCELED])
def test_what_is_final_is_not_repeated(status: TaskStatus) -> None:
    world = defined(retryCount=3)
    workflow = world.start("flow")
    world.result(workflow, "a", status=status)
    ended = "TERMINATED" if status == TaskStatus.CANCELED else "FAILED"
    assert (world.status(workflow), len(world.rows(workflow))) == (ended, 1)


def test_a_worker_may_choose_the_delay() -> None:
    world = defined(retryCount=2, retryDelaySeconds=60)
    workflow = world.start("flow")
    world.result(workflow, "a", status=FAILED, retry_after_s=7)
    assert world.row(workflow, "a").callback_after_s == 7
    world.result(workflow, "a", status=FAILED)
    assert world.row(workflow, "a").callback_after_s == 60


def test_jitter_is_drawn_from_the_events_seed() -> None:
    delays = set()
    for seed in (1, 1, 2, 3):
        world = defined(retryDelaySeconds=1, backoffJitterMs=5000)
        workflow = world.start("flow")
        event = Result(now_ms=world.now_ms, seed=seed, seq=1, status=FAILED, delivery=1)
        world.happen(workflow, event)
        delays.add(world.workflows[workflow].queue[2] - world.now_ms)
    assert len(delays) == 3 and all(1000 <= delay <= 6000 for delay in delays)


@pytest.mark.covers("B.2", "B.3")
@pytest.mark.parametrize(
    ("flags", "shown", "end"),
    [
        ({"optional": True}, "COMPLETED_WITH_ERRORS", "COMPLETED"),
        ({"permissive": True}, "FAILED", "FAILED"),
        ({"optional": True, "permissive": True}, "COMPLETED_WITH_ERRORS", "COMPLETED"),
    ],
)
def test_optional_and_permissive(flags: dict[str, bool], shown: str, end: str) -> None:
    world = World(flow(simple("a", retryCount=1, **flags), simple("after")))
    workflow = world.start("flow")
    for _ in range(2):
        world.result(workflow, "a", status=FAILED, reason="no luck")
    assert (world.row(workflow, "a").status.name, world.shown(workflow)[-1]) == (shown, "after:SCHEDULED")
    world.result(workflow, "after")
    assert world.status(workflow) == end
    if end == "FAILED":
        task_id = f"{workflow[:-6]}{world.row(workflow, 'a').seq:06x}"
        reason = f"Task {task_id} failed with status: FAILED and reason: 'no luck'"
        assert world.header(workflow).reason == reason


def test_several_permissive_failures_are_all_named() -> None:
    world = World(flow(simple("a", permissive=True), simple("b", permissive=True)))
    workflow = world.start("flow")
    world.result(workflow, "a", status=FAILED, reason="one")
    world.result(workflow, "b", status=TaskStatus.FAILED_WITH_TERMINAL_ERROR, reason="two")
    first, second = (f"{workflow[:-6]}{seq:06x}" for seq in (1, 2))
    assert world.header(workflow).reason == (
        f"Task {first} failed with status: FAILED and reason: 'one'. "
        f"Task {second} failed with status: FAILED_WITH_TERMINAL_ERROR and reason: 'two'"
    )


def test_another_attempt_reads_its_inputs_anew() -> None:
    world = World(flow(simple("a", {"n": "${a.output.n}", "k": 1}, retryCount=1)))
    workflow = world.start("flow")
    world.result(workflow, "a", {"n": 5}, FAILED)
    assert world.row(workflow, "a").input.value == {"n": 5, "k": 1}


def test_a_repeated_operator_waits_for_its_delay_too() -> None:
    definition = {"name": "i", "retryCount": 1, "retryDelaySeconds": 10}
    script = "throw new Error('no luck')"
    tasks = task("LAMBDA", "i", {"scriptExpression": script}, taskDefinition=definition)
    world = World(flow(tasks))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["i:FAILED", "i:SCHEDULED"]
    world.advance(9)
    assert world.status(workflow) == "RUNNING"
    world.advance(1)
    assert world.status(workflow) == "FAILED"


def test_a_lost_worker_costs_an_attempt() -> None:
    world = defined(retryCount=1, retryDelaySeconds=0)
    workflow = world.start("flow")
    for seq in (1, 2):
        event = WorkerLost(now_ms=world.now_ms, seq=seq, delivery=1, worker_id="w")
        assert world.happen(workflow, event)[0].verdict == Verdict.APPLIED
        assert world.workflows[workflow].rows[seq].reason == "worker lost"
    assert world.status(workflow) == "FAILED"
    event = WorkerLost(now_ms=world.now_ms, seq=1, delivery=1)
    assert world.happen(workflow, event)[0].verdict == Verdict.STALE


def test_a_task_that_nobody_reads_fails_by_name() -> None:
    world = defined(retryCount=3)
    workflow = world.start("flow")
    world.happen(workflow, WorkerLost(now_ms=world.now_ms, seq=1, delivery=5, unread=True))
    row = world.row(workflow, "a")
    assert row.status == TaskStatus.FAILED_WITH_TERMINAL_ERROR
    assert row.reason == "task a was delivered 5 times in a row and no worker is known to have read it"


def test_a_long_task_comes_back_later() -> None:
    world = defined()
    workflow = world.start("flow")
    world.result(workflow, "a", {"half": 1}, TaskStatus.IN_PROGRESS, callback_after_s=60)
    row = world.row(workflow, "a")
    assert (row.status, row.callback_after_s, row.seq) == (TaskStatus.SCHEDULED, 60, 1)
    assert world.workflows[workflow].queue == {1: world.now_ms + 60_000}
    assert world.output(workflow, "a") == {"half": 1}
    world.result(workflow, "a", {"whole": 2})
    assert (world.output(workflow, "a"), world.row(workflow, "a").callback_after_s) == ({"whole": 2}, 0)


def test_a_response_timeout_is_retried_whatever_the_policy() -> None:
    world = defined(retryCount=1, retryDelaySeconds=0, responseTimeoutSeconds=10, timeoutPolicy="ALERT_ONLY")
    workflow = world.start("flow")
    start = world.now_ms
    late = DeliveryDue(now_ms=start + 18_000, seq=1, delivery=1, started_ms=start, progress_ms=start + 8000)
    early = DeliveryDue(now_ms=start + 17_999, seq=1, delivery=1, started_ms=start, progress_ms=start + 8000)
    assert world.happen(workflow, early)[0].verdict == Verdict.STALE
    assert world.happen(workflow, late)[0].verdict == Verdict.APPLIED
    first = world.workflows[workflow].rows[1]
    assert first.status == TaskStatus.TIMED_OUT
    assert (
        first.reason
        == f"responseTimeout: 10 exceeded for the taskId: {workflow[:-6]}000001 with Task Definition: a"
    )
    assert world.row(workflow, "a").attempt == 1
