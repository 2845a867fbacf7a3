"""The arithmetic of retries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestoso_server.definitions.models import TaskDefinition
from maestoso_server.engine.retry import may_retry, retry_delay_ms
from maestoso_server.engine.state import TaskStatus


def policy(**fields: object) -> TaskDefinition:
    return TaskDefinition.model_validate({"name": "t", **fields})


@pytest.mark.parametrize(
    ("fields", "seconds_by_attempt"),
    [
        ({"retryLogic": "FIXED", "retryDelaySeconds": 5}, [5, 5, 5]),
        ({"retryLogic": "LINEAR_BACKOFF", "retryDelaySeconds": 5, "backoffScaleFactor": 2}, [10, 20, 30]),
        ({"retryLogic": "EXPONENTIAL_BACKOFF", "retryDelaySeconds": 5}, [5, 10, 20]),
        (
            {"retryLogic": "EXPONENTIAL_BACKOFF", "retryDelaySeconds": 5, "backoffScaleFactor": 9},
            [5, 10, 20],
        ),
        (
            {"retryLogic": "EXPONENTIAL_BACKOFF", "retryDelaySeconds": 5, "maxRetryDelaySeconds": 12},
            [5, 10, 12],
        ),
        ({"retryLogic": "FIXED", "retryDelaySeconds": 5, "maxRetryDelaySeconds": 3}, [3, 3, 3]),
        ({"retryDelaySeconds": 0}, [0, 0, 0]),
        ({}, [60, 60, 60]),
    ],
)
def test_delay_follows_the_logic(fields: dict[str, object], seconds_by_attempt: list[int]) -> None:
    delays = [retry_delay_ms(policy(**fields), attempt, seed=1) for attempt in range(3)]
    assert delays == [seconds * 1000 for seconds in seconds_by_attempt]


def test_delay_never_wraps_around() -> None:
    doubling = policy(retryLogic="EXPONENTIAL_BACKOFF", retryDelaySeconds=60)
    assert retry_delay_ms(doubling, 10_000, seed=1) == (2**31 - 1) * 1000
    assert retry_delay_ms(policy(retryDelaySeconds=-5), 0, seed=1) == 0


@given(st.integers(0, 10**6), st.integers(0, 2**63), st.integers(0, 50))
def test_jitter_comes_after_the_cap_and_from_the_seed(jitter: int, seed: int, attempt: int) -> None:
    jittered = policy(retryDelaySeconds=10, maxRetryDelaySeconds=3, backoffJitterMs=jitter)
    delay = retry_delay_ms(jittered, attempt, seed)
    assert 3000 <= delay <= 3000 + jitter
    assert delay == retry_delay_ms(jittered, attempt, seed)


def test_jitter_differs_between_seeds() -> None:
    jittered = policy(retryDelaySeconds=0, backoffJitterMs=1_000_000)
    assert len({retry_delay_ms(jittered, 0, seed) for seed in range(20)}) > 10


@pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.TIMED_OUT])
def test_failures_are_retried_while_retries_remain(status: TaskStatus) -> None:
    assert may_retry("SIMPLE", status, attempt=1, retries=2)
    assert not may_retry("SIMPLE", status, attempt=2, retries=2)


@pytest.mark.parametrize(
    "status", [TaskStatus.FAILED_WITH_TERMINAL_ERROR, TaskStatus.CANCELED, TaskStatus.COMPLETED]
)
def test_other_ends_are_not_retried(status: TaskStatus) -> None:
    assert not may_retry("SIMPLE", status, attempt=0, retries=2)


@pytest.mark.parametrize("task_type", ["SWITCH", "DECISION", "FORK", "JOIN", "EXCLUSIVE_JOIN", "DO_WHILE"])
def test_operators_are_never_retried(task_type: str) -> None:
    assert not may_retry(task_type, TaskStatus.FAILED, attempt=0, retries=2)
