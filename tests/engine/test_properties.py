"""What is true of every workflow, whatever its nesting and whatever happens to it."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import (
    ChildEnded,
    Continue,
    DeliveryDue,
    Event,
    Pause,
    Restart,
    Result,
    Resume,
    Retry,
    Signal,
    Terminate,
    WorkerLost,
)
from maestoso_server.engine.names import shown_reference
from maestoso_server.engine.state import TaskRow, TaskStatus
from maestoso_server.payload import Json

from .harness import World
from .strategies import CHILD, chance, documents

_CHILD_ID = re.compile(r'"subWorkflowId":"[^"]*"')
QUICK = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
STEPS_MAX = 400
seeds = st.integers(0, 2**32)


def outcome_of(seed: int, row: TaskRow, failing: float) -> tuple[TaskStatus, Any, str | None, str | None]:
    """How a task turns out: the same however often and in whichever order one asks."""
    what = shown_reference(row.reference, row.path), row.attempt
    if chance(seed, "fails", *what) < failing:
        name = (None, "Odd", "Even")[int(chance(seed, "name", *what) * 3)]
        return TaskStatus.FAILED, {"value": None}, "no luck", name
    return TaskStatus.COMPLETED, {"value": chance(seed, "value", *what)}, None, None


def play(world: World, seed: int, order: random.Random, failing: float = 0.2, *, twice: bool = False) -> str:
    """Start the document and let its tasks turn out, in a random order, until nothing is left."""
    workflow_id = world.start("flow", {"k": 7})
    for _ in range(STEPS_MAX):
        pending = [
            (stored_id, row)
            for stored_id in sorted(world.workflows)
            for row in world.open_worker_rows(stored_id)
        ]
        if not pending:
            if not any(stored.deadlines for stored in world.workflows.values()):
                break
            world.advance(5)
            continue
        stored_id, row = order.choice(pending)
        status, output, reason, name = outcome_of(seed, row, failing)
        world.report(stored_id, row.seq, output, status, reason=reason, error_name=name)
        if twice:
            before = picture(world, workflow_id)
            again = Result(now_ms=world.now_ms, seq=row.seq, status=status, delivery=1)
            assert world.happen(stored_id, again)[0].verdict == Verdict.STALE
            assert picture(world, workflow_id) == before
    return workflow_id


def picture(world: World, workflow_id: str) -> Any:
    """Everything that a user can see of a workflow."""
    header = world.header(workflow_id)
    rows = [
        (
            row.seq,
            shown_reference(row.reference, row.path),
            row.attempt,
            row.scope,
            row.status.name,
            row.reason,
            row.input.raw,
            None if row.output is None else row.output.raw,
        )
        for row in world.rows(workflow_id)
    ]
    output = None if header.output is None else header.output.raw
    return header.status.name, header.reason, output, header.variables.value, rows


def timeless_picture(world: World, workflow_id: str) -> Any:
    """What does not tell the order of independent events: no ids, no order of keys or rows."""
    header = world.header(workflow_id)
    rows = [
        (shown_reference(row.reference, row.path), row.attempt, row.status.name, _without_ids(row.output))
        for row in world.rows(workflow_id)
    ]
    return header.status.name, _without_ids(header.output), sorted(header.variables.value), sorted(rows)


def _without_ids(payload: Json | None) -> str:
    text = "null" if payload is None else payload.raw.decode()
    return json.dumps(json.loads(_CHILD_ID.sub('"subWorkflowId":""', text)), sort_keys=True)


@QUICK
@given(documents(), seeds)
def test_a_partial_view_decides_like_a_whole_one(document: Any, seed: int) -> None:
    pictures = []
    for partial in (False, True):
        world = World(document, CHILD, partial=partial)
        pictures.append(picture(world, play(world, seed, random.Random(seed))))
    assert pictures[0] == pictures[1]


@QUICK
@given(documents(), seeds, st.integers(1, 7), st.booleans())
def test_bounded_decisions_come_to_the_same(document: Any, seed: int, rows_max: int, partial: bool) -> None:
    whole = World(document, CHILD)
    bounded = World(document, CHILD, rows_max=rows_max, partial=partial)
    expected = picture(whole, play(whole, seed, random.Random(seed)))
    assert picture(bounded, play(bounded, seed, random.Random(seed))) == expected


@QUICK
@given(documents(dynamic_forks=1), seeds)
def test_slow_scripts_come_to_the_same(document: Any, seed: int) -> None:
    pictures = []
    for slow in (False, True):
        world = World(document, CHILD, slow_scripts=slow)
        played = play(world, seed, random.Random(seed), failing=0)
        pictures.append(timeless_picture(world, played))
    assert pictures[0] == pictures[1]


@QUICK
@given(documents(dynamic_forks=1), seeds, seeds)
def test_the_order_of_independent_events_changes_nothing(document: Any, seed: int, other: int) -> None:
    """Only where nothing fails for good: the first such failure ends everything else."""
    pictures = []
    for order in (seed, other):
        world = World(document, CHILD)
        workflow_id = play(world, seed, random.Random(order), failing=0)
        assert world.status(workflow_id) == "COMPLETED"
        pictures.append(timeless_picture(world, workflow_id))
    assert pictures[0] == pictures[1]


@QUICK
@given(documents(), seeds)
def test_a_workflow_ends_once_and_repeats_change_nothing(document: Any, seed: int) -> None:
    world = World(document, CHILD)
    workflow_id = play(world, seed, random.Random(seed), twice=True)
    assert world.header(workflow_id).status.terminal
    assert sorted(world.ends) == sorted(set(world.ends))
    assert set(world.ends) == set(world.workflows)


def _random_event(world: World, workflow_id: str, rng: random.Random) -> Event:
    now = world.now_ms
    header = world.header(workflow_id)
    seq = rng.randint(0, header.next_seq + 1)
    rows = world.workflows[workflow_id].rows
    references = [row.reference for row in rows.values()] or ["nothing"]
    status = rng.choice(
        [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELED, TaskStatus.IN_PROGRESS]
    )
    queued = seq in world.workflows[workflow_id].queue
    delivery = 1 if queued else None
    choices: list[Event] = [
        Result(now_ms=now, seq=seq, status=status, delivery=delivery),
        Result(now_ms=now, seq=seq, status=TaskStatus.COMPLETED, delivery=delivery),
        world.due(workflow_id, seq),
        Continue(now_ms=now),
        Pause(now_ms=now),
        Resume(now_ms=now),
        Resume(now_ms=now),
        Terminate(now_ms=now, reason="enough"),
        Terminate(now_ms=now, reason="enough", compensate=True),
        Retry(now_ms=now, resume_children=rng.random() < 0.5),
        Retry(now_ms=now, resume_children=rng.random() < 0.5),
        Restart(now_ms=now),
        Signal(now_ms=now, reference=rng.choice([*references, None]), status=status),
        ChildEnded(now_ms=now, seq=seq, child_id="nobody", status=3, output=None),
    ]
    if queued:
        choices.append(DeliveryDue(now_ms=now, seq=seq, delivery=1, started_ms=1))
        choices.append(WorkerLost(now_ms=now, seq=seq, delivery=1, unread=rng.random() < 0.2))
    return rng.choice(choices)


@settings(QUICK, max_examples=250)
@given(documents(), seeds, st.booleans(), st.sampled_from((2, 500)))
def test_decide_is_total(document: Any, seed: int, partial: bool, rows_max: int) -> None:
    """Whatever comes: no exception, and all that the world checks after each decision holds."""
    rng = random.Random(seed)
    world = World(document, CHILD, partial=partial, rows_max=rows_max)
    world.start("flow", {"k": 7})
    try:
        for _ in range(60):
            workflow_id = rng.choice(sorted(world.workflows))
            count = rng.choice((1, 1, 3))
            world.happen(workflow_id, *(_random_event(world, workflow_id, rng) for _ in range(count)))
            world.now_ms += rng.randint(0, 3000)
    finally:
        note("\n".join(world.history))


@QUICK
@given(documents(undoing=False), seeds)
def test_a_retried_workflow_can_still_complete(document: Any, seed: int) -> None:
    """Failures first, then operators' retries until everything succeeds."""
    world = World(document, CHILD)
    workflow_id = play(world, seed, random.Random(seed), failing=0.4)
    for _ in range(50):
        if world.status(workflow_id) == "COMPLETED":
            return
        assert world.happen(workflow_id, Retry(now_ms=world.now_ms))[0].verdict == Verdict.APPLIED
        for _ in range(STEPS_MAX):
            pending = [
                (stored_id, row)
                for stored_id in sorted(world.workflows)
                for row in world.open_worker_rows(stored_id)
            ]
            if pending:
                stored_id, row = pending[0]
                world.report(stored_id, row.seq, {"value": 1})
            elif any(stored.deadlines for stored in world.workflows.values()):
                world.advance(5)
            else:
                break
    raise AssertionError(f"still {world.status(workflow_id)}: {world.header(workflow_id).reason}")
