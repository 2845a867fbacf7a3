"""What is true of TRYs and compensations, however they are nested and whatever fails in them."""

from __future__ import annotations

import random
from itertools import groupby, pairwise
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Retry
from maestoso_server.engine.nodes import FINALLY, TRY, Node
from maestoso_server.engine.state import TaskRow, TaskStatus

from .harness import World
from .strategies import CHILD, documents
from .test_properties import QUICK, STEPS_MAX, picture, play, seeds


def ended(world: World, workflow_id: str) -> tuple[list[TaskRow], dict[str, Node]]:
    header = world.header(workflow_id)
    assert header.status.terminal
    assert not [row for row in world.rows(workflow_id) if not row.status.terminal]
    return world.rows(workflow_id), world.plans[header.snapshot_id].nodes


@QUICK
@given(documents(sagas=True), seeds)
def test_finally_runs_once_for_every_try_that_ends(document: Any, seed: int) -> None:
    world = World(document, CHILD)
    rows, nodes = ended(world, play(world, seed, random.Random(seed), failing=0.35))
    for row in rows:
        node = nodes.get(row.reference)
        if node is None or node.kind != TRY:
            continue
        head = node.branches[FINALLY]
        times = [
            other
            for other in rows
            if head is not None
            and (other.reference, other.path, other.attempt) == (head.reference, row.path, 0)
        ]
        event(f"a TRY {row.status.name}, finally {len(times)}")
        if row.status == TaskStatus.CANCELED:
            assert len(times) <= 1
        else:
            assert len(times) == (0 if head is None else 1)


@QUICK
@given(documents(sagas=True), seeds, st.integers(1, 7), st.booleans())
def test_bounded_decisions_and_partial_views_change_nothing(
    document: Any, seed: int, rows_max: int, partial: bool
) -> None:
    whole = World(document, CHILD)
    other = World(document, CHILD, rows_max=rows_max, partial=partial)
    expected = picture(whole, play(whole, seed, random.Random(seed), failing=0.35))
    assert picture(other, play(other, seed, random.Random(seed), failing=0.35)) == expected


@QUICK
@given(documents(sagas=True, undoing=False), seeds, st.booleans())
def test_retries_until_all_goes_well(document: Any, seed: int, partial: bool) -> None:
    """Whatever part of a TRY a failure came out of: it goes on from there."""
    world = World(document, CHILD, partial=partial)
    workflow_id = play(world, seed, random.Random(seed), failing=0.35)
    for _ in range(30):
        if world.status(workflow_id) == "COMPLETED":
            return
        assert world.happen(workflow_id, Retry(now_ms=world.now_ms))[0].verdict == Verdict.APPLIED
        _succeed(world)
    raise AssertionError(f"still {world.status(workflow_id)}: {world.header(workflow_id).reason}")


def _succeed(world: World) -> None:
    for _ in range(STEPS_MAX):
        pending = [(at, row) for at in sorted(world.workflows) for row in world.open_worker_rows(at)]
        if pending:
            world.report(pending[0][0], pending[0][1].seq, {"value": 1})
        elif any(stored.deadlines for stored in world.workflows.values()):
            world.advance(5)
        else:
            return


@QUICK
@given(documents(sagas=True), seeds)
def test_what_completed_is_undone_once_and_backwards(document: Any, seed: int) -> None:
    world = World(document, CHILD)
    workflow_id = play(world, seed, random.Random(seed), failing=0.35)
    rows, nodes = ended(world, workflow_id)
    undone: dict[int, list[TaskRow]] = {}
    for row in rows:
        by = (row.state or {}).get("undo")
        if by is not None:
            undone.setdefault(by, []).append(row)
    for by, targets in undone.items():
        heads = [_head(rows, nodes, target, by) for target in targets]
        order = [target for _, target in sorted(zip(heads, targets, strict=True), key=lambda pair: pair[0])]
        for later, earlier in pairwise(order):
            assert (later.ended_ms, later.seq) > (earlier.ended_ms, earlier.seq)
        chains = [_root(rows, nodes, row) for row in rows if _driver(rows, row) == by]
        assert len([key for key, _ in groupby(chains)]) == len(set(chains)) == len(targets)
    event(f"{sum(map(len, undone.values()))} undone")
    if world.status(workflow_id) in ("FAILED", "TIMED_OUT"):
        left = [
            row
            for row in rows
            if row.status == TaskStatus.COMPLETED
            and not row.superseded
            and row.reference in nodes
            and nodes[row.reference].compensation is not None
            and "undo" not in (row.state or {})
        ]
        assert not left


def _head(rows: list[TaskRow], nodes: dict[str, Node], target: TaskRow, by: int) -> int:
    """The seq of the first task of the chain that undoes `target`: there is exactly one."""
    head = nodes[target.reference].compensation
    assert head is not None
    (first,) = [
        row
        for row in rows
        if (row.reference, row.path, row.attempt, row.scope) == (head.reference, target.path, 0, by)
    ]
    return first.seq


def _driver(rows: list[TaskRow], row: TaskRow) -> int:
    """The compensation that a row belongs to; 0: to none."""
    by_seq = {other.seq: other for other in rows}
    at = by_seq.get(row.scope)
    while at is not None and at.type != "COMPENSATE":
        at = by_seq.get(at.scope)
    return at.seq if at is not None else 0


def _root(rows: list[TaskRow], nodes: dict[str, Node], row: TaskRow) -> tuple[str, Any]:
    """The task that a row of a chain helps to undo."""
    node = nodes[row.reference]
    while node.guard is not None and node.guard.kind == TRY:
        node = node.guard
    assert node.guard is not None
    return node.guard.reference, row.path
