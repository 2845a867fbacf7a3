"""Definitions, snapshots, namespaces, idempotency keys, audit and log lines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from maestoso_server import ids
from maestoso_server.engine.state import WorkflowStatus
from maestoso_server.store import audit, idempotency, logs, metadata
from maestoso_server.store.metadata import Document, Overwrite, Put
from maestoso_server.store.save import save
from ownership_kit import World
from store_kit import NOW_MS, SNAPSHOT, advance, header, start


async def put(
    world: World,
    documents: Sequence[Document],
    overwrite: Overwrite = Overwrite.REFUSE,
    *,
    tasks: bool = False,
    now_ms: int = NOW_MS,
    principal: str = "anna",
    **more: Any,
) -> list[Put] | None:
    do = metadata.put_tasks if tasks else metadata.put_workflows
    return await do(
        world.conn, "default", documents, overwrite=overwrite, principal=principal, now_ms=now_ms, **more
    )


async def revision(world: World) -> int:
    found = await metadata.metadata_revision(world.conn, "default")
    assert found is not None
    return found


@pytest.mark.parametrize("tasks", [False, True])
@pytest.mark.parametrize(
    ("overwrite", "outcomes"),
    [
        (Overwrite.REFUSE, [Put.UNCHANGED, Put.EXISTS, Put.CREATED]),
        (Overwrite.ALLOW, [Put.UNCHANGED, Put.REPLACED, Put.CREATED]),
        (Overwrite.REQUIRE, [Put.UNCHANGED, Put.REPLACED, Put.MISSING]),
    ],
)
async def test_what_a_put_does_with_what_exists(
    world: World, tasks: bool, overwrite: Overwrite, outcomes: list[Put]
) -> None:
    version = 0 if tasks else 1
    await put(world, [Document("same", b"1", version), Document("old", b"1", version)], tasks=tasks)
    before = await revision(world)
    documents = [
        Document(name, text, version) for name, text in (("same", b"1"), ("old", b"2"), ("new", b"3"))
    ]

    judged = await put(world, documents, overwrite, tasks=tasks, validate_only=True)
    assert (judged, await revision(world)) == (outcomes, before)
    assert await put(world, documents, overwrite, tasks=tasks) == outcomes

    get = metadata.get_task if tasks else metadata.get_workflow
    stored = [await get(world.conn, "default", name) for name in ("same", "old", "new")]
    written = overwrite is Overwrite.ALLOW
    assert [d and d.document for d in stored] == [b"1", b"2" if written else b"1", b"3" if written else None]
    assert await revision(world) == before + written


async def test_who_put_it_first_and_last(world: World) -> None:
    await put(world, [Document("flow", b"1", 2)], now_ms=1, principal="anna")
    await put(world, [Document("flow", b"2", 2)], Overwrite.ALLOW, now_ms=2, principal="ben")
    assert await metadata.get_workflow(world.conn, "default", "flow", 2) == metadata.Definition(
        "flow", 2, b"2", 1, "anna", 2, "ben"
    )


async def test_a_put_of_what_is_stored_changes_nothing(world: World) -> None:
    await put(world, [Document("flow", b"1", 1)])
    before = await revision(world)
    assert await put(world, [Document("flow", b"1", 1)], Overwrite.REQUIRE) == [Put.UNCHANGED]
    assert await revision(world) == before
    assert len(await audit.read(world.conn, "default")) == 1


async def test_an_unknown_namespace_is_told(world: World) -> None:
    assert await metadata.metadata_revision(world.conn, "nowhere") is None
    answer = await metadata.put_workflows(
        world.conn, "nowhere", [Document("flow", b"1", 1)], overwrite=Overwrite.ALLOW, principal="", now_ms=1
    )
    assert answer is None


async def test_one_definition_twice_in_a_put_is_our_mistake(world: World) -> None:
    with pytest.raises(ValueError, match="twice"):
        await put(world, [Document("flow", b"1", 1), Document("flow", b"2", 1)])


async def test_puts_at_once_are_judged_one_after_the_other(world: World) -> None:
    """Each outcome was worked out on the state that the write then met."""

    async def one(n: int) -> list[Put] | None:
        async with world.database.acquire() as conn:
            return await metadata.put_workflows(
                conn,
                "default",
                [Document("flow", b"%d" % n, 1), Document(f"own_{n}", b"1", 1)],
                overwrite=Overwrite.REFUSE,
                principal="anna",
                now_ms=NOW_MS,
            )

    before = await revision(world)
    answers = await asyncio.gather(*(one(n) for n in range(8)))
    assert sorted(answers, key=str) == [[Put.CREATED, Put.CREATED]] + [[Put.EXISTS, Put.CREATED]] * 7
    assert await revision(world) == before + 1
    assert len(await metadata.list_workflows(world.conn, "default")) == 2


async def test_delete_raises_the_revision_and_finds_nothing_again(world: World) -> None:
    await put(world, [Document("flow", b"1", 1), Document("flow", b"2", 2)])
    await put(world, [Document("pay", b"1")], tasks=True)
    before = await revision(world)
    who: dict[str, Any] = {"principal": "anna", "now_ms": NOW_MS}
    assert await metadata.delete_workflow(world.conn, "default", "flow", 2, **who)
    assert not await metadata.delete_workflow(world.conn, "default", "flow", 2, **who)
    assert await metadata.delete_task(world.conn, "default", "pay", **who)
    assert not await metadata.delete_task(world.conn, "default", "pay", **who)
    assert await revision(world) == before + 2
    assert await metadata.get_workflow_document(world.conn, "default", "flow") == b"1"
    assert await metadata.get_task(world.conn, "default", "pay") is None


async def test_the_highest_version_is_the_latest(world: World) -> None:
    await put(world, [Document("flow", b"%d" % v, v) for v in (2, 10, 9)] + [Document("other", b"x", 1)])
    assert await metadata.get_workflow_document(world.conn, "default", "flow") == b"10"
    assert await metadata.get_workflow_document(world.conn, "default", "flow", 9) == b"9"
    assert await metadata.get_workflow_document(world.conn, "default", "flow", 3) is None
    assert await metadata.latest_versions(world.conn, "default", ["flow", "none"]) == {"flow": 10}


async def test_workflow_definitions_by_page(world: World) -> None:
    keys = [("a", 1), ("a", 2), ("a", 10), ("b", 1), ("c", 3)]
    await put(world, [Document(name, b"1", version) for name, version in keys])

    async def page(**more: Any) -> list[tuple[str, int]]:
        return [(d.name, d.version) for d in await metadata.list_workflows(world.conn, "default", **more)]

    assert await page() == keys
    assert await page(limit=2) == keys[:2]
    assert await page(after=("a", 2), limit=2) == keys[2:4]
    assert await page(name="a") == keys[:3]
    assert await page(latest_only=True) == [("a", 10), ("b", 1), ("c", 3)]
    (bare,) = await metadata.list_workflows(world.conn, "default", name="b")
    (full,) = await metadata.list_workflows(world.conn, "default", name="b", documents=True)
    assert (bare.document, full.document) == (b"", b"1")


async def test_task_definitions_by_page_and_by_name(world: World) -> None:
    await put(world, [Document(name, name.encode()) for name in "abcd"], tasks=True)
    listed = await metadata.list_tasks(world.conn, "default", after="a", limit=2, documents=True)
    assert [(d.name, d.document) for d in listed] == [("b", b"b"), ("c", b"c")]
    assert await metadata.get_task_documents(world.conn, "default", ["d", "x", "a"]) == {"a": b"a", "d": b"d"}


async def test_a_snapshot_is_kept_once_in_its_namespace(world: World) -> None:
    for document in (b"first", b"second"):
        await metadata.put_snapshot(
            world.conn, "default", SNAPSHOT, name="flow", version=1, document=document, now_ms=NOW_MS
        )
    assert await metadata.get_snapshot(world.conn, "default", SNAPSHOT) == b"first"
    assert await metadata.get_snapshot(world.conn, "other", SNAPSHOT) is None


async def test_a_snapshot_of_a_newer_server_is_refused(world: World) -> None:
    await metadata.put_snapshot(
        world.conn, "default", SNAPSHOT, name="flow", version=1, document=b"x", now_ms=NOW_MS
    )
    await world.conn.execute("UPDATE snapshot SET format = 2")
    with pytest.raises(ValueError, match="newer server"):
        await metadata.get_snapshot(world.conn, "default", SNAPSHOT)


async def test_namespaces(world: World) -> None:
    assert await metadata.create_namespace(world.conn, "team", principal="anna", now_ms=5)
    assert not await metadata.create_namespace(world.conn, "team", principal="anna", now_ms=6)
    assert await metadata.list_namespaces(world.conn) == [("default", 0), ("team", 5)]
    assert await metadata.list_namespaces(world.conn, after="default", limit=1) == [("team", 5)]


async def test_every_change_leaves_an_audit_row(world: World) -> None:
    await put(world, [Document("flow", b"1", 3)], now_ms=1)
    await put(world, [Document("pay", b"1")], tasks=True, now_ms=2)
    await metadata.delete_workflow(world.conn, "default", "flow", 3, principal="ben", now_ms=3)
    await metadata.delete_task(world.conn, "default", "pay", principal="ben", now_ms=4)
    await audit.note(
        world.conn, "default", principal="carl", action="terminate", resource="workflow/7", now_ms=5
    )
    await audit.note(world.conn, "other", principal="carl", action="x", resource="y", now_ms=6)
    rows = await audit.read(world.conn, "default")
    assert [(row.at_ms, row.principal, row.action, row.resource) for row in rows] == [
        (1, "anna", "put", "definition/flow/3"),
        (2, "anna", "put", "task_definition/pay"),
        (3, "ben", "delete", "definition/flow/3"),
        (4, "ben", "delete", "task_definition/pay"),
        (5, "carl", "terminate", "workflow/7"),
    ]
    assert await audit.read(world.conn, "default", after=rows[1].id, limit=1) == [rows[2]]


async def test_the_key_of_an_ended_workflow_can_be_freed(world: World) -> None:
    epoch = await world.node()
    first = start(header(idempotency_key="k"))
    head = first.decision.header
    await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    other = ids.workflow_id(NOW_MS)
    assert not await idempotency.release_ended(world.conn, "default", "k", head.id)
    ended = advance(head, head={"status": WorkflowStatus.FAILED})
    await save(world.conn, [ended], epoch=epoch, now_ms=NOW_MS)
    assert not await idempotency.release_ended(world.conn, "default", "k", other)
    assert await idempotency.release_ended(world.conn, "default", "k", head.id)
    assert await idempotency.release_ended(world.conn, "default", "k", head.id)
    again = start(header(idempotency_key="k"))
    assert (await save(world.conn, [again], epoch=epoch, now_ms=NOW_MS)).fresh
    assert not await idempotency.release_ended(world.conn, "default", "k", head.id)


async def test_log_lines_of_a_task_oldest_first(world: World) -> None:
    workflow_id = ids.workflow_id(NOW_MS)
    lines = [logs.NewLine(workflow_id, 1 + n % 2, n, f"line {n}\x00") for n in range(6)]
    await logs.append(world.conn, lines)
    await logs.append(world.conn, [])
    found = await logs.read(world.conn, workflow_id, 1)
    assert [(line.at_ms, line.line) for line in found] == [(0, "line 0?"), (2, "line 2?"), (4, "line 4?")]
    assert await logs.read(world.conn, workflow_id, 1, after=found[0].id, limit=1) == [found[1]]
