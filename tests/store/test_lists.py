"""Reads for the API: pages and filters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from maestoso_server import ids
from maestoso_server.engine.decision import MessageKind
from maestoso_server.engine.state import Header, TaskStatus, WorkflowStatus
from maestoso_server.payload import EMPTY, Json
from maestoso_server.store import lists
from maestoso_server.store.inbox import Post, put
from maestoso_server.store.lists import Filter
from maestoso_server.store.save import save
from ownership_kit import World
from store_kit import NOW_MS, SESSION, advance, birth, done, header, start, task


async def stored_workflow(world: World, **head: Any) -> Header:
    epoch = await world.node()
    first = start(header(**head))
    await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    return replace(first.decision.header, last_node=epoch)


async def listed(world: World, filter: Filter | None = None, **more: Any) -> list[str]:
    return [
        found.id for found in await lists.list_workflows(world.conn, "default", filter or Filter(), **more)
    ]


async def test_a_workflow_is_seen_in_its_own_namespace_only(world: World) -> None:
    head = await stored_workflow(world)
    assert await lists.get_workflow(world.conn, "default", head.id) == head
    assert await lists.get_workflow(world.conn, "other", head.id) is None
    assert await lists.get_workflow(world.conn, "default", ids.workflow_id(NOW_MS)) is None


async def test_the_youngest_workflows_first_page_by_page(world: World) -> None:
    heads = [await stored_workflow(world, created_ms=NOW_MS + n // 2) for n in range(7)]
    await stored_workflow(world, namespace="other")
    expected = [h.id for h in sorted(heads, key=lambda h: (h.created_ms, h.id), reverse=True)]
    assert await listed(world) == expected
    pages: list[str] = []
    after = None
    while page := await lists.list_workflows(world.conn, "default", Filter(), after=after, limit=3):
        pages += [found.id for found in page]
        after = (page[-1].created_ms, page[-1].id)
    assert pages == expected


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        (Filter(name="a"), "01"),
        (Filter(correlation_id="c"), "12"),
        (Filter(status=WorkflowStatus.RUNNING), "0123"),
        (Filter(status=WorkflowStatus.COMPLETED), ""),
        (Filter(created_from_ms=NOW_MS + 1), "123"),
        (Filter(created_before_ms=NOW_MS + 2), "01"),
        (Filter(created_from_ms=NOW_MS + 1, created_before_ms=NOW_MS + 3, name="b"), "2"),
        (Filter(name="a", correlation_id="c", status=WorkflowStatus.RUNNING), "1"),
        (Filter(name="none"), ""),
    ],
)
async def test_filters(world: World, filter: Filter, found: str) -> None:
    facts = [("a", None), ("a", "c"), ("b", "c"), ("b", "d")]
    heads = [
        await stored_workflow(world, name=name, correlation_id=correlation, created_ms=NOW_MS + n)
        for n, (name, correlation) in enumerate(facts)
    ]
    assert await listed(world, filter) == [heads[int(n)].id for n in reversed(found)]
    after = (NOW_MS + 3, heads[3].id)
    assert await listed(world, filter, after=after) == [heads[int(n)].id for n in reversed(found) if n != "3"]


async def test_a_list_says_the_state_of_now(world: World) -> None:
    head = await stored_workflow(world, correlation_id="c")
    paused = advance(head, head={"status": WorkflowStatus.PAUSED})
    await save(world.conn, [paused], epoch=head.last_node, now_ms=NOW_MS)
    assert await listed(world, Filter(status=WorkflowStatus.PAUSED)) == [head.id]
    ended = advance(paused.decision.header, head={"status": WorkflowStatus.FAILED, "ended_ms": 9})
    await save(world.conn, [ended], epoch=head.last_node, now_ms=NOW_MS)
    (found,) = await lists.list_workflows(world.conn, "default", Filter(status=WorkflowStatus.FAILED))
    assert found == lists.WorkflowSummary(head.id, "orders", 1, WorkflowStatus.FAILED, "c", NOW_MS, 9)
    assert await listed(world, Filter(status=WorkflowStatus.PAUSED)) == []


async def test_tasks_by_page_with_and_without_payloads(world: World) -> None:
    epoch = await world.node()
    rows = [
        done(task(seq, input=Json(b'"%s"' % (b"x" * 98)), generation=seq), queued=False)
        for seq in range(1, 6)
    ]
    first = start(rows=rows)
    await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    workflow_id = first.decision.header.id

    assert await lists.list_tasks(world.conn, workflow_id, payloads=True) == rows
    assert await lists.list_tasks(world.conn, workflow_id, payloads=True, after=2, limit=2) == rows[2:4]
    bare = await lists.list_tasks(world.conn, workflow_id, payloads=False, after=1, limit=3)
    assert bare == [replace(row, input=EMPTY, output=None) for row in rows[1:4]]


@pytest.mark.parametrize(("max_bytes", "count"), [(1, 1), (100, 1), (200, 2), (299, 2), (10_000, 5)])
async def test_a_page_of_payloads_ends_before_it_grows_too_large(
    world: World, max_bytes: int, count: int
) -> None:
    epoch = await world.node()
    rows = [task(seq, input=Json(b'"%s"' % (b"x" * 98)), queued=False) for seq in range(1, 6)]
    first = start(rows=rows)
    await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    found = await lists.list_tasks(world.conn, first.decision.header.id, payloads=True, max_bytes=max_bytes)
    assert len(found) == count


async def test_a_task_is_found_by_its_own_id(world: World) -> None:
    epoch = await world.node()
    first, other = start(), start()
    await save(world.conn, [first, other], epoch=epoch, now_ms=NOW_MS)
    head = first.decision.header
    found = await lists.get_task(world.conn, "default", *ids.split_task_id(ids.task_id(head.id, 1)))
    assert found == lists.FoundTask(
        "default", head.id, "orders", head.snapshot_id, first.decision.inserted[0]
    )
    assert await lists.get_task(world.conn, "default", *ids.split_task_id(ids.task_id(head.id, 2))) is None
    assert await lists.get_task(world.conn, "other", *ids.split_task_id(ids.task_id(head.id, 1))) is None


async def test_revisions_of_those_that_exist(world: World) -> None:
    head = await stored_workflow(world)
    assert await lists.revisions(world.conn, [head.id, ids.workflow_id(NOW_MS)]) == {head.id: 1}


async def test_explain_tells_what_each_open_task_waits_for(world: World) -> None:
    epoch = await world.node()
    rows = [
        task(1),
        task(2),
        task(3),
        task(4, type="WAIT", queued=False),
        task(5, queued=False, status=TaskStatus.COMPLETED),
        task(6, queued=False, generation=9),
    ]
    births = [birth(1, limit=2), birth(2, limit=2), birth(3, queue="eu:pay", due_ms=NOW_MS + 70)]
    first = start(rows=rows, births=births, deadlines={0: NOW_MS + 9, 4: NOW_MS + 8})
    await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    head = first.decision.header
    await world.conn.execute(
        "UPDATE task_queue SET owner_epoch = $1, session_id = $2, delivery = 3, worker_id = 'w',"
        " deadline_ms = 4 WHERE seq = 2",
        epoch,
        SESSION,
    )
    await put(world.conn, [Post(head.id, MessageKind.SIGNAL, Json(b"{}"), parked=True)], epoch=epoch)

    told = await lists.explain(world.conn, "default", head.id)
    assert told is not None
    assert (told.header.id, told.workflow_timer_ms, told.pending_messages) == (head.id, NOW_MS + 9, 1)
    bare = [replace(row, input=EMPTY) for row in rows]
    #         row      queue     owner  session  delivery  due          deadline     worker timer
    assert told.open_tasks == [
        lists.OpenTask(bare[0], "pay", None, None, 0, NOW_MS, None, "", None, 2),
        lists.OpenTask(bare[1], "pay", epoch, SESSION, 3, NOW_MS, 4, "w", None, 2),
        lists.OpenTask(bare[2], "eu:pay", -1, None, 0, NOW_MS + 70, NOW_MS + 70, "", None, 0),
        lists.OpenTask(bare[3], None, None, None, None, None, None, "", NOW_MS + 8, 0),
    ]
    page = await lists.explain(world.conn, "default", head.id, after=2, limit=1)
    assert page is not None
    assert [open_task.row.seq for open_task in page.open_tasks] == [3]
    assert await lists.explain(world.conn, "other", head.id) is None
