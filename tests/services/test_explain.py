"""Every open task is told what it waits for, and what can be done about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from maestoso.admin.v1 import admin_pb2
from maestoso_server.engine.state import Header, TaskRow, TaskStatus, WorkflowStatus
from maestoso_server.services.explain import REFERENCES_MAX, Cause, Waiting, explain, summary
from maestoso_server.store.limits import LimitState
from maestoso_server.store.lists import OpenTask

NOW_MS = 1_750_000_000_000
LATER_MS = NOW_MS + 60_000
HEADER = Header(
    id="0198c5f2-7a30-7c4e-8d21-3f6f0c9a1b2d",
    namespace="default",
    name="order",
    version=1,
    snapshot_id="",
    created_ms=NOW_MS,
)


def row(type_: str, **fields: Any) -> TaskRow:
    made = TaskRow(
        seq=1,
        generation=1,
        reference="ref",
        path=(),
        attempt=0,
        scope=0,
        type=type_,
        name=type_,
        status=TaskStatus.IN_PROGRESS,
        scheduled_ms=NOW_MS,
        first_scheduled_ms=NOW_MS,
    )
    return replace(made, **fields)


def queued(**facts: Any) -> OpenTask:
    """A worker task that waits and could run now."""
    made = OpenTask(
        row=row("pay", status=TaskStatus.SCHEDULED, queued=True),
        queue="pay",
        owner_epoch=None,
        session_id=None,
        delivery=0,
        due_ms=NOW_MS,
        delivery_deadline_ms=None,
        worker_id="",
        timer_ms=None,
        limit=0,
    )
    return replace(made, **facts)


def operator(type_: str, *, timer_ms: int | None = None, **fields: Any) -> OpenTask:
    return queued(row=row(type_, **fields), queue=None, due_ms=None, delivery=None, timer_ms=timer_ms)


def told(
    task: OpenTask,
    *,
    header: Header = HEADER,
    live: set[str] | None = None,
    unresolved: dict[int, list[str]] | None = None,
) -> Waiting:
    return explain(header, task, live=live or set(), unresolved=unresolved or {}, now_ms=NOW_MS)


def test_causes_are_those_of_the_contract() -> None:
    ours = {f"WAIT_CAUSE_{cause.name}": cause.value for cause in Cause}

    assert {**ours, "WAIT_CAUSE_UNSPECIFIED": 0} == dict(admin_pb2.WaitCause.items())


@pytest.mark.parametrize(
    ("task", "cause", "words"),
    [
        (queued(), Cause.NO_WORKER, "No worker is connected or polls for 'pay'"),
        (queued(due_ms=LATER_MS), Cause.TIME, "its time"),
        (queued(owner_epoch=-1, due_ms=LATER_MS), Cause.TIME, "its time"),
        (queued(owner_epoch=7), Cause.WORKER_RESULT, "not known to have read it"),
        (queued(owner_epoch=7, worker_id="w-1"), Cause.WORKER_RESULT, "'w-1'"),
        (queued(owner_epoch=0, worker_id="w-1"), Cause.WORKER_RESULT, "'w-1'"),
        (operator("WAIT", timer_ms=LATER_MS), Cause.TIME, "its time"),
        (operator("WAIT"), Cause.SIGNAL, "signal"),
        (operator("HUMAN"), Cause.SIGNAL, "signal"),
        (operator("SUB_WORKFLOW", child_id="c-1"), Cause.CHILD, "c-1"),
        (operator("INLINE"), Cause.SCRIPT, "script"),
        (operator("SUB_WORKFLOW", timer_ms=LATER_MS, status=TaskStatus.SCHEDULED), Cause.TIME, "attempt"),
        (operator("FORK_JOIN"), Cause.SERVER, "server"),
    ],
)
def test_each_task_is_told_its_cause(task: OpenTask, cause: Cause, words: str) -> None:
    waiting = told(task)

    assert waiting.cause is cause
    assert words in waiting.explanation


def test_a_task_whose_queue_has_a_worker_waits_for_room() -> None:
    assert told(queued(), live={"pay"}).cause is Cause.WORKER_CAPACITY


@pytest.mark.parametrize(
    ("limit", "cause", "words", "due_ms"),
    [
        (LimitState(slots=2, held=2), Cause.LIMIT, "2 of 2 (concurrentExecLimit)", 0),
        (LimitState(slots=2, held=1), Cause.WORKER_CAPACITY, "room", 0),
        (LimitState(rate=3, granted=3, window_s=10, opens_ms=LATER_MS), Cause.LIMIT, "60000 ms", LATER_MS),
        (LimitState(rate=3, granted=2, window_s=10, opens_ms=LATER_MS), Cause.WORKER_CAPACITY, "room", 0),
    ],
)
def test_a_task_under_limits_names_the_one_that_is_used_up(
    limit: LimitState, cause: Cause, words: str, due_ms: int
) -> None:
    waiting = explain(HEADER, queued(limit=2), live={"pay"}, unresolved={}, now_ms=NOW_MS, limit=limit)

    assert (waiting.cause, waiting.due_ms) == (cause, due_ms)
    assert words in waiting.explanation


def test_a_join_names_what_has_not_ended() -> None:
    waiting = told(operator("JOIN"), unresolved={1: ["a", "b"]})

    assert waiting.cause is Cause.TASKS
    assert waiting.references == ("a", "b")
    assert "a, b" in waiting.explanation


def test_a_loop_names_the_open_tasks_of_its_body() -> None:
    waiting = told(operator("DO_WHILE"), unresolved={1: ["work__3"]})

    assert (waiting.cause, waiting.references) == (Cause.TASKS, ("work__3",))


def test_a_wide_join_names_only_so_many() -> None:
    waiting = told(operator("JOIN"), unresolved={1: [f"b{number}" for number in range(10_000)]})

    assert len(waiting.references) == REFERENCES_MAX
    assert "and others" in waiting.explanation


def test_an_operator_of_a_paused_workflow_waits_for_its_resume() -> None:
    paused = replace(HEADER, status=WorkflowStatus.PAUSED)

    assert told(operator("SWITCH"), header=paused).cause is Cause.PAUSED


def test_when_something_happens_by_itself_is_told() -> None:
    assert told(queued(owner_epoch=7, delivery_deadline_ms=LATER_MS)).due_ms == LATER_MS
    assert told(queued(timer_ms=LATER_MS)).due_ms == LATER_MS
    assert told(queued(owner_epoch=-1, due_ms=LATER_MS)).due_ms == LATER_MS


@pytest.mark.parametrize(
    ("header", "waiting", "words"),
    [
        (HEADER, [told(queued()), told(queued())], "2 open: 2 for a worker that is not there"),
        (HEADER, [], "the server is working on it"),
        (replace(HEADER, status=WorkflowStatus.PAUSED), [], "resume it"),
        (replace(HEADER, status=WorkflowStatus.FAILED, reason="no stock"), [], "FAILED: no stock."),
    ],
)
def test_the_whole_is_told_in_a_sentence(header: Header, waiting: list[Waiting], words: str) -> None:
    assert words in summary(header, waiting, more=False)
