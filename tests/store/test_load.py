"""Loads, and the answers to needs: what comes back, in which order, and what does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from maestoso_server import ids
from maestoso_server.engine.decision import MessageKind
from maestoso_server.engine.needs import (
    ChildStatus,
    Compensable,
    Demand,
    FailedRows,
    Fragment,
    OpenInside,
    OpenRows,
    ParkedSignals,
    Row,
    Rows,
    ScopeRows,
)
from maestoso_server.engine.state import Header, TaskRow, TaskStatus, View, WorkflowStatus
from maestoso_server.payload import Json
from maestoso_server.store import demand
from maestoso_server.store.load import LoadRequest, load
from maestoso_server.store.needs import fetch
from maestoso_server.store.save import save
from ownership_kit import World
from store_kit import NOW_MS, advance, header, loaded, start, task


def plain(seq: int, **more: Any) -> TaskRow:
    """A row without a queue row."""
    return task(seq, **{"queued": False, **more})


async def put(world: World, rows: list[TaskRow], **head: Any) -> Header:
    """A stored workflow with these rows."""
    epoch = await world.node()
    first = start(header(**head), rows)
    result = await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    assert result.fresh
    return replace(first.decision.header, last_node=epoch)


def seqs(rows: list[TaskRow]) -> list[int]:
    return [row.seq for row in rows]


# ---- load ----------------------------------------------------------------------------------


async def test_a_small_workflow_comes_whole_without_its_old_generations(world: World) -> None:
    rows = [plain(1, generation=1), plain(2, generation=2), plain(3, generation=2, attempt=1)]
    head = await put(world, rows, generation=2, next_seq=64)
    found = await loaded(world.conn, head.id)
    assert (found.header, found.whole, seqs(found.tasks)) == (head, True, [2, 3])
    assert seqs((await loaded(world.conn, head.id, 1)).tasks) == [1, 2, 3]


async def test_of_a_large_workflow_come_the_rows_asked_for_and_their_containers(world: World) -> None:
    rows = [plain(1), plain(2, scope=1), plain(3, scope=2), plain(4, scope=1), plain(5), plain(6, scope=5)]
    head = await put(world, rows, next_seq=65)
    found = await loaded(world.conn, head.id, 3, 4)
    assert (found.whole, seqs(found.tasks)) == (False, [1, 2, 3, 4])
    assert seqs((await loaded(world.conn, head.id)).tasks) == []
    assert seqs((await loaded(world.conn, head.id, 77)).tasks) == []


async def test_many_workflows_in_one_statement_each_with_its_own_rows(world: World) -> None:
    heads = [await put(world, [plain(1), plain(2, scope=1), plain(3)], next_seq=1000) for _ in range(5)]
    asked = [LoadRequest(head.id, [2] if n % 2 else [3]) for n, head in enumerate(heads)]
    absent = LoadRequest(ids.workflow_id(NOW_MS), [1])
    found = await load(world.conn, [*asked, absent], now_ms=NOW_MS)
    assert set(found) == {head.id for head in heads}
    for n, head in enumerate(heads):
        assert found[head.id].header == head
        assert seqs(found[head.id].tasks) == ([1, 2] if n % 2 else [3])


async def message(world: World, workflow_id: str, **more: Any) -> int:
    values = {"kind": 6, "body": b"{}", "due_ms": NOW_MS, "parked": False, "drain_epoch": 1, **more}
    columns = ", ".join(["workflow_id", *values])
    places = ", ".join(f"${n + 1}" for n in range(len(values) + 1))
    number: int = await world.conn.fetchval(
        f"INSERT INTO inbox ({columns}) VALUES ({places}) RETURNING id", workflow_id, *values.values()
    )
    return number


async def test_due_messages_come_along_oldest_first(world: World) -> None:
    head = await put(world, [])
    first = await message(
        world, head.id, kind=4, body=b'{"n":1}', due_ms=NOW_MS, sender_id=head.id, origin_epoch=9
    )
    second = await message(world, head.id, due_ms=NOW_MS - 5)
    await message(world, head.id, due_ms=NOW_MS + 1)
    await message(world, head.id, parked=True)
    await message(world, head.id, outcome=b"done")
    found = (await loaded(world.conn, head.id)).messages
    assert [m.id for m in found] == [first, second]
    told = found[0]
    assert (told.workflow_id, told.kind, told.body.raw, told.due_ms, told.sender_id, told.origin_epoch) == (
        head.id,
        MessageKind.CHILD_REVIVED,
        b'{"n":1}',
        NOW_MS,
        head.id,
        9,
    )


async def test_a_child_that_is_not_born_yet_has_its_messages_only(world: World) -> None:
    child = ids.workflow_id(NOW_MS)
    number = await message(world, child, kind=1)
    found = await loaded(world.conn, child)
    assert (found.header, found.tasks, [m.id for m in found.messages]) == (None, [], [number])


# ---- needs ---------------------------------------------------------------------------------


async def answer(world: World, head: Header, *needs: Any) -> list[Any]:
    view = View(head)
    return await fetch(world.conn, [(view, need) for need in needs], now_ms=NOW_MS)


async def test_rows_are_the_newest_attempts_of_the_generation(world: World) -> None:
    rows = [
        plain(1, reference="a", generation=1),
        plain(2, reference="a", generation=2, attempt=0, superseded=True),
        plain(3, reference="a", generation=2, attempt=1),
        plain(4, reference="b", generation=1),
    ]
    head = await put(world, rows, generation=2)
    (found,) = await answer(world, head, Rows((("a", ()), ("b", ()), ("c", ()))))
    assert [row and row.seq for row in found] == [3, None, None]
    assert found[0] == rows[2]


async def test_rows_by_path_exact_and_by_prefix(world: World) -> None:
    paths = [(1, 1), (1, 2), (1, 10), (2, 1), (3, 7)]
    rows = [plain(n, reference="a", path=path) for n, path in enumerate(paths, 1)]
    rows.append(plain(6, reference="a", path=(1, 10), attempt=1))
    head = await put(world, rows)
    exact, by_prefix = await answer(
        world,
        head,
        Rows((("a", (1, 2)), ("a", (1,)), ("a", (1, 10)))),
        Rows((("a", (1,)), ("a", (2,)), ("a", ()), ("a", (1, 2)), ("a", (4,))), exact=False),
    )
    assert [row and row.seq for row in exact] == [2, None, 6]
    assert [row and row.seq for row in by_prefix] == [6, 4, 5, 2, None]


async def test_scope_rows_at_any_depth_within_a_turn(world: World) -> None:
    rows = [
        plain(1),
        plain(2, scope=1, path=(1,)),
        plain(3, scope=2, path=(1,), reference="deep"),
        plain(4, scope=1, path=(2,), superseded=True),
        plain(5, scope=1, path=(2,), reference="ref_4", attempt=1),
        plain(6, scope=5, path=(2,)),
        plain(7, scope=1, path=(2, 3)),
        plain(8),
        plain(9, scope=8),
        plain(10, scope=1, path=(12,)),
    ]
    head = await put(world, rows)
    turns = await answer(
        world, head, *(ScopeRows(1, prefix) for prefix in ((1,), (2,), (), (3,))), ScopeRows(8, ())
    )
    assert [seqs(turn) for turn in turns] == [[2, 3], [4, 5, 6, 7], [2, 3, 4, 5, 6, 7, 10], [], [9]]


async def test_open_and_failed_rows_by_page(world: World) -> None:
    statuses = [
        TaskStatus.SCHEDULED,
        TaskStatus.COMPLETED,
        TaskStatus.FAILED,
        TaskStatus.IN_PROGRESS,
        TaskStatus.TIMED_OUT,
        TaskStatus.COMPLETED_WITH_ERRORS,
        TaskStatus.CANCELED,
        TaskStatus.SKIPPED,
        TaskStatus.FAILED_WITH_TERMINAL_ERROR,
    ]
    rows = [plain(seq, status=status) for seq, status in enumerate(statuses, 1)]
    rows += [
        plain(10, status=TaskStatus.FAILED, superseded=True),
        plain(11, generation=9),
        plain(12, generation=9, status=TaskStatus.FAILED),
    ]
    head = await put(world, rows)
    pages = await answer(
        world, head, OpenRows(0, 9), OpenRows(1, 9), OpenRows(0, 1), FailedRows(0, 9), FailedRows(3, 2)
    )
    assert [seqs(page) for page in pages] == [[1, 4], [4], [1], [3, 5, 7, 9], [5, 7]]


async def test_open_rows_inside_a_container_at_any_depth_by_page(world: World) -> None:
    ended = TaskStatus.COMPLETED
    rows = [
        plain(1),
        plain(2, scope=1, status=ended),
        plain(3, scope=2),
        plain(4, scope=1, path=(2,)),
        plain(5),
        plain(6, scope=5),
        plain(7, scope=2, status=TaskStatus.CANCELED),
        plain(8, scope=3, path=(1, 4)),
        plain(9, scope=1, generation=9),
    ]
    head = await put(world, rows)
    pages = await answer(
        world, head, OpenInside(1, 0, 9), OpenInside(1, 3, 1), OpenInside(5, 0, 9), OpenInside(6, 0, 9)
    )
    assert [seqs(page) for page in pages] == [[3, 4, 8], [4], [6], []]


async def test_what_can_be_compensated_the_newest_end_first(world: World) -> None:
    done = {"status": TaskStatus.COMPLETED}
    rows = [
        plain(1, reference="a", ended_ms=NOW_MS + 10, **done),
        plain(2, reference="b", ended_ms=NOW_MS + 30, path=(1,), **done),
        plain(3, reference="b", ended_ms=NOW_MS + 20, path=(2,), **done),
        plain(4, reference="b", ended_ms=NOW_MS + 20, path=(3,), **done),
        plain(5, reference="b", ended_ms=NOW_MS + 40, path=(12,), status=TaskStatus.FAILED),
        plain(6, reference="b", ended_ms=NOW_MS + 50, path=(4,), superseded=True, **done),
        plain(7, reference="c", ended_ms=NOW_MS + 60, **done),
        plain(8, reference="a", ended_ms=NOW_MS + 70, generation=9, **done),
        plain(9, reference="b", path=(5,)),
    ]
    head = await put(world, rows)
    late = NOW_MS + 99
    pages = await answer(
        world,
        head,
        Compensable(("a", "b"), (), late, 0, 9),
        Compensable(("a", "b"), (), late, 0, 2),
        Compensable(("a", "b"), (), NOW_MS + 20, 4, 9),
        Compensable(("b",), (2,), late, 0, 9),
        Compensable(("nothing",), (), late, 0, 9),
    )
    assert [seqs(page) for page in pages] == [[2, 4, 3, 1], [2, 4], [3, 1], [3], []]


async def test_a_row_a_fragment_and_a_child_by_key(world: World) -> None:
    epoch = await world.node()
    first = start(rows=[plain(1)], fragments={1: Json(b'{"f":1.0}')})
    await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    head = first.decision.header
    row, no_row, fragment, no_fragment, running, absent = await answer(
        world, head, Row(1), Row(2), Fragment(1), Fragment(2), ChildStatus(head.id),
        ChildStatus(ids.workflow_id(NOW_MS)),
    )  # fmt: skip
    assert (row, no_row) == (first.decision.inserted[0], None)
    assert (fragment.raw, no_fragment) == (b'{"f":1.0}', None)
    assert (running, absent) == (1, 0)

    ended = advance(head, head={"status": WorkflowStatus.TIMED_OUT})
    await save(world.conn, [ended], epoch=epoch, now_ms=NOW_MS)
    assert await answer(world, head, ChildStatus(head.id)) == [WorkflowStatus.TIMED_OUT]


async def test_parked_signals_of_a_reference_oldest_first(world: World) -> None:
    head = await put(world, [])
    one = await message(world, head.id, body=b'{"reference":"wait","n":1.0}', parked=True)
    two = await message(world, head.id, body=b'{"reference":"wait","n":2}', parked=True)
    await message(world, head.id, body=b'{"reference":"other"}', parked=True)
    await message(world, head.id, body=b'{"reference":"wait"}', parked=False)
    await message(world, head.id, body=b'{"reference":"wait"}', parked=True, kind=7)
    await message(world, ids.workflow_id(NOW_MS), body=b'{"reference":"wait"}', parked=True)
    (found,) = await answer(world, head, ParkedSignals("wait"))
    assert found == [(one, {"reference": "wait", "n": 1.0}), (two, {"reference": "wait", "n": 2})]


async def test_demand_of_the_workflows_own_namespace(world: World) -> None:
    head = await put(world, [])
    epoch = await world.node()
    queues = [("default", "eu:pay"), ("other", "us:pay")]
    await demand.note(world.conn, epoch=epoch, queues=queues, now_ms=NOW_MS)
    other = replace(head, namespace="other")
    needs = [(View(head), Demand(("eu:pay", "us:pay"))), (View(other), Demand(("eu:pay", "us:pay")))]
    assert await fetch(world.conn, needs, now_ms=NOW_MS) == [{"eu:pay"}, {"us:pay"}]
    assert await fetch(world.conn, needs, now_ms=NOW_MS + demand.VALID_MS) == [set(), set()]


async def test_needs_of_many_kinds_and_workflows_keep_their_places(world: World) -> None:
    one = await put(world, [plain(1, reference="a"), plain(2, reference="b")])
    two = await put(world, [plain(1, reference="a"), plain(5, reference="c")])
    asked: list[tuple[View, Any]] = [
        (View(one), Row(2)),
        (View(two), Rows((("c", ()), ("b", ())))),
        (View(one), OpenRows(0, 9)),
        (View(two), Row(2)),
        (View(one), Rows((("b", ()),))),
        (View(two), OpenRows(1, 9)),
    ]
    answers = await fetch(world.conn, asked, now_ms=NOW_MS)
    assert answers[0].seq == 2
    assert [row and row.seq for row in answers[1]] == [5, None]
    assert seqs(answers[2]) == [1, 2]
    assert answers[3] is None
    assert [row.seq for row in answers[4]] == [2]
    assert seqs(answers[5]) == [5]
