"""What one save writes, and the rules inside its statement: each test fails when its rule is broken."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import asyncpg
import pytest

from maestoso_server import ids
from maestoso_server.engine.decision import Message, MessageKind
from maestoso_server.engine.state import Header, TaskRow, TaskStatus, WorkflowStatus
from maestoso_server.payload import Json
from maestoso_server.store.save import WorkflowSave, save
from ownership_kit import World
from store_kit import NOW_MS, SESSION, advance, birth, changed, done, header, loaded, start, stored, task

EXACT = Json(
    b'{"big":9007199254740993,"huge":1000000000000000000000000000000,"float":1.0,"null":null,'
    b'"empty":[{},[]],"nul":"a\\u0000b","z":1,"a":"\xe2\x82\xac"}'
)


async def begun(world: World, epoch: int, **more: Any) -> WorkflowSave:
    """A stored workflow with one waiting task."""
    first = start(**more)
    result = await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    assert first.decision.header.id in result.fresh
    return first


# ---- what is written -----------------------------------------------------------------------


def filled_header() -> Header:
    return header(
        revision=1,
        status=WorkflowStatus.PAUSED,
        generation=3,
        parent_id=ids.workflow_id(NOW_MS),
        parent_seq=4,
        priority=5,
        correlation_id="customer-6",
        next_seq=7,
        open=1,
        permissive_failed=8,
        last_task=9,
        clock_ms=10,
        updated_ms=11,
        ended_ms=12,
        cursor=Json(b'{"after":13}'),
        input=EXACT,
        output=Json(b"null"),
        variables=Json(b'{"v":1.0}'),
        task_to_domain=Json(b'{"pay":"eu"}'),
        reason="because",
        failed_task=14,
        created_by="anna",
        traceparent="00-15",
        idempotency_key="key-16",
        version=17,
    )


def filled_task() -> TaskRow:
    return task(
        seq=3,
        generation=3,
        path=(2, 5),
        attempt=4,
        scope=2,
        type="HTTP",
        name="fetch",
        status=TaskStatus.IN_PROGRESS,
        scheduled_ms=21,
        first_scheduled_ms=22,
        input=EXACT,
        output=EXACT,
        reason="slow",
        started_ms=23,
        updated_ms=24,
        ended_ms=25,
        worker_id="worker-26",
        domain="eu",
        retried_seq=2,
        superseded=True,
        child_id=ids.workflow_id(NOW_MS),
        callback_after_s=27,
        poll_count=28,
        queued=True,
        state={"waiting": 3, "cursor": [1, "x", None], "turn": {"i": 1.5}},
    )


def differs_from_defaults(filled: Any, plain: Any) -> list[str]:
    return [f.name for f in fields(filled) if getattr(filled, f.name) == getattr(plain, f.name)]


async def test_every_column_of_a_workflow_and_of_a_task_comes_back(world: World) -> None:
    epoch = await world.node()
    head, row = filled_header(), filled_task()
    # A column that the test forgot would come back by accident.
    same = differs_from_defaults(head, replace(header(), id=head.id))
    assert same == ["id", "namespace", "name", "snapshot_id", "created_ms", "revision", "open", "last_node"]
    assert differs_from_defaults(row, task(seq=4)) == ["queued"]
    await save(world.conn, [start(head, [row])], epoch=epoch, now_ms=NOW_MS)

    found = await loaded(world.conn, head.id, 3)

    assert found.header == replace(head, last_node=epoch)
    assert found.tasks == [row]
    assert found.header is not None and found.header.input.raw == EXACT.raw
    assert found.tasks[0].output is not None and found.tasks[0].output.raw == EXACT.raw


async def test_an_update_writes_every_column_that_may_change(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    row = first.decision.inserted[0]
    wanted = filled_header()
    new = changed(filled_task(), **{name: getattr(row, name) for name in BORN_WITH})
    second = advance(
        first.decision.header,
        head={name: getattr(wanted, name) for name in MAY_CHANGE},
        payload_changed=True,
        revived=True,
        updated=[new],
    )
    await save(world.conn, [second], epoch=epoch, now_ms=NOW_MS)

    found = await loaded(world.conn, first.decision.header.id, 1, whole_below=0)

    assert found.header == replace(second.decision.header, last_node=epoch)
    assert found.tasks == [new]


BORN_WITH = (
    *("seq", "generation", "reference", "path", "attempt", "scope", "type", "name", "scheduled_ms"),
    *("first_scheduled_ms", "input", "domain", "retried_seq"),
)
MAY_CHANGE = (
    *("status", "generation", "version", "next_seq", "open", "permissive_failed", "last_task", "clock_ms"),
    *("updated_ms", "ended_ms", "cursor", "output", "variables", "reason", "failed_task"),
)


async def test_text_that_postgres_cannot_hold_does_not_stop_a_save(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    failed = done(first.decision.inserted[0], reason="a\x00b \ud800 é", worker_id="w\x00")
    await save(world.conn, [advance(first.decision.header, updated=[failed])], epoch=epoch, now_ms=NOW_MS)
    found = await loaded(world.conn, first.decision.header.id)
    assert (found.tasks[0].reason, found.tasks[0].worker_id) == ("a?b ? é", "w?")


async def test_rows_go_deadlines_are_armed_and_cleared_fragments_and_messages_are_kept(world: World) -> None:
    epoch = await world.node()
    target = ids.workflow_id(NOW_MS)
    first = await begun(
        world,
        epoch,
        rows=[task(1), task(2)],
        deadlines={0: NOW_MS + 9, 1: NOW_MS + 7, 2: NOW_MS + 8},
        fragments={2: EXACT},
        messages=[
            Message(target, MessageKind.CHILD_START, Json(b'{"n":1}'), due_ms=3),
            Message(target, MessageKind.SIGNAL, Json(b'{"n":2}'), parked=True),
        ],
    )
    await save(
        world.conn,
        [advance(first.decision.header, deleted=[1], deadlines={1: 0, 2: NOW_MS + 4})],
        epoch=epoch,
        now_ms=NOW_MS,
    )

    rows = await stored(world.conn, first.decision.header.id)
    assert [row["seq"] for row in rows["task"]] == [2]
    assert [(row["seq"], row["due_ms"]) for row in rows["deadline"]] == [(0, NOW_MS + 9), (2, NOW_MS + 4)]
    assert [(row["seq"], row["document"]) for row in rows["plan_fragment"]] == [(2, EXACT.raw)]
    sent = (await stored(world.conn, target))["inbox"]
    assert [(m["kind"], m["body"], m["due_ms"], m["parked"], m["drain_epoch"]) for m in sent] == [
        (1, b'{"n":1}', 3, False, epoch),
        (6, b'{"n":2}', 0, True, epoch),
    ]
    assert {str(m["sender_id"]) for m in sent} == {first.decision.header.id}


async def test_message_ids_come_in_the_order_of_the_batch(world: World) -> None:
    epoch = await world.node()
    batch = [
        start(messages=[Message(ids.workflow_id(NOW_MS), MessageKind.CONTINUE, Json(b"%d" % (10 * n + k)))
                        for k in range(n)])
        for n in (2, 0, 3)
    ]  # fmt: skip
    batch.sort(key=lambda s: s.decision.header.id, reverse=True)
    refused = advance(header(), messages=[Message(ids.workflow_id(1), MessageKind.CONTINUE, Json(b"99"))])
    result = await save(world.conn, [refused, *batch], epoch=epoch, now_ms=NOW_MS)

    bodies = {row["id"]: row["body"] for row in await world.conn.fetch("SELECT id, body FROM inbox")}
    expected = [message.body.raw for item in batch for message in item.decision.messages]
    assert [bodies[message_id] for message_id in result.message_ids] == expected
    assert len(bodies) == 5


async def test_what_was_written_behind_is_kept_where_the_engine_knows_less(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    head = first.decision.header
    await world.conn.execute("UPDATE task SET started_ms = 77, worker_id = 'w', poll_count = 5")
    await save(
        world.conn, [advance(head, updated=[done(first.decision.inserted[0])])], epoch=epoch, now_ms=NOW_MS
    )
    row = (await loaded(world.conn, head.id)).tasks[0]
    assert (row.started_ms, row.worker_id, row.poll_count) == (77, "w", 5)

    head = replace(head, revision=2)
    told = changed(row, started_ms=99, worker_id="v", poll_count=6)
    await save(world.conn, [advance(head, updated=[told])], epoch=epoch, now_ms=NOW_MS)
    row = (await loaded(world.conn, head.id)).tasks[0]
    assert (row.started_ms, row.worker_id, row.poll_count) == (99, "v", 6)


# ---- births --------------------------------------------------------------------------------


async def queue_row(world: World, item: WorkflowSave, seq: int = 1) -> Any:
    return await world.conn.fetchrow(
        "SELECT * FROM task_queue WHERE workflow_id = $1 AND seq = $2", item.decision.header.id, seq
    )


async def test_a_birth_writes_every_column_and_waits(world: World) -> None:
    epoch = await world.node()
    born = birth(
        queue="eu:pay", priority=30, size=123, limit=4, response_s=5, timeout_s=6, total_due_ms=7,
        redeliver_on_loss=True,
    )  # fmt: skip
    row = dict(await queue_row(world, await begun(world, epoch, births=[born])))
    assert row.pop("workflow_id") is not None
    assert row == {
        "seq": 1,
        "namespace": "default",
        "queue": "eu:pay",
        "task_type": "pay",
        "rank": 69,
        "due_ms": NOW_MS,
        "size": 123,
        "task_limit": 4,
        "response_s": 5,
        "timeout_s": 6,
        "total_due_ms": 7,
        "redeliver_on_loss": True,
        "owner_epoch": None,
        "session_id": None,
        "delivery": 0,
        "unread": 0,
        "ended": False,
        "deadline_ms": None,
        "started_ms": 0,
        "progress_ms": 0,
        "worker_id": "",
        "limit_name": "pay",
        "rate": 0,
        "rate_window_s": 0,
        "granted": None,
    }


async def test_born_owned_with_its_first_delivery_and_no_clock_yet(world: World) -> None:
    epoch = await world.node()
    first = start(births=[birth(response_s=60)], owners={1: SESSION})
    result = await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    row = await queue_row(world, first)
    assert (row["owner_epoch"], str(row["session_id"]), row["delivery"]) == (epoch, SESSION, 1)
    assert row["deadline_ms"] is None
    assert not result.waited


@pytest.mark.parametrize(
    ("waiting", "waits"),
    [
        ({}, True),
        ({"rank": 50}, True),
        ({"queue": "other"}, False),
        ({"namespace": "other"}, False),
        ({"owner": -1}, False),
        ({"owner": 0}, False),
        ({"ended": True}, False),
    ],
)
async def test_born_owned_only_where_nothing_waits_ahead(
    world: World, waiting: dict[str, Any], waits: bool
) -> None:
    epoch = await world.node()
    await world.row(**waiting)
    first = start(owners={1: SESSION})
    result = await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    row = await queue_row(world, first)
    assert result.waited == ({(first.decision.header.id, 1)} if waits else set())
    assert row["owner_epoch"] == (None if waits else epoch)
    assert (row["session_id"] is None, row["delivery"]) == (waits, 0 if waits else 1)


async def test_a_more_urgent_birth_passes_what_waits(world: World) -> None:
    epoch = await world.node()
    await world.row(rank=99)
    urgent, usual = (start(births=[birth(priority=p)], owners={1: SESSION}) for p in (1, 0))
    result = await save(world.conn, [urgent, usual], epoch=epoch, now_ms=NOW_MS)
    assert result.waited == {(usual.decision.header.id, 1)}
    assert (await queue_row(world, urgent))["owner_epoch"] == epoch
    assert (await queue_row(world, usual))["owner_epoch"] is None


@pytest.mark.parametrize("more", [{"limit": 3}, {"due_ms": NOW_MS + 1}])
async def test_a_limited_or_later_task_never_takes_the_short_cut(world: World, more: dict[str, int]) -> None:
    epoch = await world.node()
    first = start(births=[birth(**more)], owners={1: SESSION})
    result = await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    row = await queue_row(world, first)
    assert result.waited == {(first.decision.header.id, 1)}
    assert (row["session_id"], row["delivery"]) == (None, 0)


async def test_a_birth_that_is_due_later_sleeps(world: World) -> None:
    epoch = await world.node()
    row = await queue_row(world, await begun(world, epoch, births=[birth(due_ms=NOW_MS + 50)]))
    assert (row["owner_epoch"], row["due_ms"], row["deadline_ms"]) == (-1, NOW_MS + 50, NOW_MS + 50)


# ---- guards --------------------------------------------------------------------------------


async def test_a_stale_revision_writes_nothing_while_the_others_go_through(world: World) -> None:
    epoch = await world.node()
    stale, good = await begun(world, epoch), await begun(world, epoch)
    before = await stored(world.conn, stale.decision.header.id)
    batch = [
        advance(
            replace(item.decision.header, revision=revision),
            payload_changed=True,
            updated=[done(item.decision.inserted[0])],
            inserted=[task(2)],
            births=[birth(2)],
            released=[1],
            deadlines={0: 5},
            fragments={1: EXACT},
            messages=[Message(item.decision.header.id, MessageKind.CONTINUE, EXACT)],
        )
        for item, revision in ((stale, 7), (good, 1))
    ]
    result = await save(world.conn, batch, epoch=epoch, now_ms=NOW_MS)

    assert result.fresh == {good.decision.header.id}
    assert len(result.message_ids) == 1
    assert await stored(world.conn, stale.decision.header.id) == before
    after = await stored(world.conn, good.decision.header.id)
    assert [row["seq"] for row in after["task"]] == [1, 2]
    assert [row["seq"] for row in after["task_queue"]] == [2]
    assert {"deadline", "plan_fragment", "inbox"} <= set(after)


@pytest.mark.parametrize(
    ("queued", "guard", "holds"),
    [
        ({"delivery": 3}, {"deliveries": [(1, 3)]}, True),
        ({"delivery": 4}, {"deliveries": [(1, 3)]}, False),
        ({"delivery": 3, "ended": True}, {"deliveries": [(1, 3)]}, False),
        ({"delivery": 3, "deadline_ms": NOW_MS}, {"expired": [(1, 3)]}, True),
        ({"delivery": 3, "deadline_ms": NOW_MS + 1}, {"expired": [(1, 3)]}, False),
        ({"delivery": 3}, {"expired": [(1, 3)]}, False),
        ({"delivery": 4, "deadline_ms": NOW_MS}, {"expired": [(1, 3)]}, False),
        ({}, {"deliveries": [(9, 1)]}, False),
    ],
)
async def test_a_result_is_written_only_for_its_open_delivery(
    world: World, queued: dict[str, Any], guard: dict[str, Any], holds: bool
) -> None:
    epoch = await world.node()
    first, other = await begun(world, epoch), await begun(world, epoch)
    for column, value in queued.items():
        await world.conn.execute(f"UPDATE task_queue SET {column} = $1", value)
    head = first.decision.header
    before = await stored(world.conn, head.id)
    batch = [
        advance(head, updated=[done(first.decision.inserted[0])], **guard),
        advance(other.decision.header),
    ]
    result = await save(world.conn, batch, epoch=epoch, now_ms=NOW_MS)

    assert (head.id in result.fresh) == holds
    assert other.decision.header.id in result.fresh
    if holds:
        assert not result.lost
        assert await queue_row(world, first) is None
    else:
        ((seq, _),) = guard.get("deliveries") or guard["expired"]
        assert result.lost == [(head.id, seq)]
        assert await stored(world.conn, head.id) == before


async def test_one_lost_delivery_keeps_the_whole_workflow_back(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch, rows=[task(1), task(2)])
    await world.conn.execute("UPDATE task_queue SET delivery = 1")
    head = first.decision.header
    result = await save(world.conn, [advance(head, deliveries=[(1, 1), (2, 8)])], epoch=epoch, now_ms=NOW_MS)
    assert result.lost == [(head.id, 2)]
    assert not result.fresh
    assert len((await stored(world.conn, head.id))["task_queue"]) == 2


async def test_of_a_stale_workflow_no_delivery_counts_as_lost(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    stale = advance(replace(first.decision.header, revision=9), deliveries=[(1, 1)])
    result = await save(world.conn, [stale], epoch=epoch, now_ms=NOW_MS)
    assert (result.fresh, result.lost) == (set(), [])


@pytest.mark.parametrize("kind", ["start", "advance", "both"])
async def test_a_node_without_a_row_writes_nothing(world: World, kind: str) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    before = await stored(world.conn, first.decision.header.id)
    new = start(header(idempotency_key="k"), messages=[Message(SESSION, MessageKind.CONTINUE, EXACT)])
    batch = {"start": [new], "advance": [], "both": [new]}[kind]
    if kind != "start":
        batch = [*batch, advance(first.decision.header, inserted=[task(2)], released=[1])]
    result = await save(world.conn, batch, epoch=epoch + 1, now_ms=NOW_MS)

    assert not result.node_alive
    assert not result.fresh
    assert await stored(world.conn, first.decision.header.id) == before
    assert await stored(world.conn, new.decision.header.id) == {}
    assert await world.conn.fetchval("SELECT count(*) FROM idempotency") == 0
    assert await world.conn.fetchval("SELECT count(*) FROM inbox") == 0


# ---- ends of queue rows --------------------------------------------------------------------


@pytest.mark.parametrize("owner", [None, -1, 0, "mine"])
async def test_a_row_of_mine_or_of_nobody_goes(world: World, owner: Any) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    await world.conn.execute("UPDATE task_queue SET owner_epoch = $1", epoch if owner == "mine" else owner)
    result = await save(
        world.conn, [advance(first.decision.header, deliveries=[(1, 0)])], epoch=epoch, now_ms=NOW_MS
    )
    assert await queue_row(world, first) is None
    assert result.foreign == []


@pytest.mark.parametrize("guard", [{"deliveries": [(1, 2)]}, {"released": [1]}])
async def test_a_row_of_another_node_is_left_ended_for_its_owner(world: World, guard: dict[str, Any]) -> None:
    epoch, other = await world.node(), await world.node()
    first = await begun(world, epoch)
    await world.conn.execute(
        "UPDATE task_queue SET owner_epoch = $1, session_id = $2, delivery = 2", other, SESSION
    )
    result = await save(world.conn, [advance(first.decision.header, **guard)], epoch=epoch, now_ms=NOW_MS)
    row = await queue_row(world, first)
    assert result.foreign == [(first.decision.header.id, 1, other)]
    assert (row["ended"], row["owner_epoch"], str(row["session_id"]), row["delivery"]) == (
        True,
        other,
        SESSION,
        2,
    )


async def test_of_a_refused_workflow_no_row_is_reported_as_foreign(world: World) -> None:
    epoch, other = await world.node(), await world.node()
    first = await begun(world, epoch, rows=[task(1), task(2)])
    await world.conn.execute("UPDATE task_queue SET owner_epoch = $1, delivery = 2", other)
    lost = advance(first.decision.header, deliveries=[(1, 2), (2, 1)])
    result = await save(world.conn, [lost], epoch=epoch, now_ms=NOW_MS)
    assert (result.foreign, result.lost) == ([], [(first.decision.header.id, 2)])
    assert not (await queue_row(world, first))["ended"]


async def test_released_rows_may_be_gone_already_or_ended_for_their_owner(world: World) -> None:
    epoch, other = await world.node(), await world.node()
    first = await begun(world, epoch, rows=[task(1), task(2), task(3)])
    await world.conn.execute("DELETE FROM task_queue WHERE seq = 1")
    await world.conn.execute("UPDATE task_queue SET ended = true, owner_epoch = $1 WHERE seq = 2", other)
    result = await save(
        world.conn, [advance(first.decision.header, released=[1, 2, 3])], epoch=epoch, now_ms=NOW_MS
    )
    rows = (await stored(world.conn, first.decision.header.id))["task_queue"]
    assert [(row["seq"], row["owner_epoch"], row["ended"]) for row in rows] == [(2, other, True)]
    assert result.foreign == []


@pytest.mark.parametrize("guard", [{"deliveries": [(1, 2)]}, {}])
@pytest.mark.parametrize("in_ms", [0, 30_000])
async def test_a_task_put_back_sleeps_until_it_is_due_and_keeps_its_start(
    world: World, guard: dict[str, Any], in_ms: int
) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    await world.conn.execute(
        "UPDATE task_queue SET owner_epoch = $1, session_id = $2, delivery = 2, unread = 1, started_ms = 5,"
        " progress_ms = 6, worker_id = 'w', deadline_ms = 7",
        epoch,
        SESSION,
    )
    due_ms = NOW_MS + in_ms
    again = advance(first.decision.header, asleep={1: due_ms}, **guard)
    await save(world.conn, [again], epoch=epoch, now_ms=NOW_MS)
    row = await queue_row(world, first)
    assert (row["owner_epoch"], row["deadline_ms"]) == ((-1, due_ms) if in_ms else (None, None))
    assert (row["due_ms"], row["session_id"], row["delivery"], row["ended"]) == (due_ms, None, 2, False)
    assert (row["unread"], row["started_ms"], row["progress_ms"], row["worker_id"]) == (0, 5, 0, "")


async def test_a_row_taken_from_another_node_to_sleep_is_reported(world: World) -> None:
    epoch, other = await world.node(), await world.node()
    first = await begun(world, epoch)
    await world.conn.execute("UPDATE task_queue SET owner_epoch = $1, delivery = 2", other)
    again = advance(first.decision.header, deliveries=[(1, 2)], asleep={1: NOW_MS + 9})
    result = await save(world.conn, [again], epoch=epoch, now_ms=NOW_MS)
    assert result.foreign == [(first.decision.header.id, 1, other)]
    assert (await queue_row(world, first))["owner_epoch"] == -1


# ---- starts --------------------------------------------------------------------------------


async def test_a_key_starts_once_and_the_loser_learns_the_winner(world: World) -> None:
    epoch = await world.node()
    winner = await begun(world, epoch, head=header(idempotency_key="k"))
    loser, free = start(header(idempotency_key="k")), start(header(idempotency_key="free"))
    result = await save(world.conn, [loser, free], epoch=epoch, now_ms=NOW_MS)
    assert result.existing == {loser.decision.header.id: winner.decision.header.id}
    assert result.fresh == {free.decision.header.id}
    assert await stored(world.conn, loser.decision.header.id) == {}


async def test_two_starts_with_one_key_in_one_batch(world: World) -> None:
    epoch = await world.node()
    batch = [start(header(idempotency_key="k")) for _ in range(3)]
    result = await save(world.conn, batch, epoch=epoch, now_ms=NOW_MS)
    (winner,) = result.fresh
    losers = {s.decision.header.id for s in batch} - {winner}
    assert result.existing == dict.fromkeys(losers, winner)


async def test_the_same_key_in_another_namespace_is_another_key(world: World) -> None:
    epoch = await world.node()
    await begun(world, epoch, head=header(idempotency_key="k"))
    await begun(world, epoch, head=header(idempotency_key="k", namespace="other"))


async def test_a_start_on_outdated_definitions_is_refused(world: World) -> None:
    epoch = await world.node()
    revision = await world.conn.fetchval("SELECT metadata_revision FROM namespace WHERE name = 'default'")
    stale = start(header(idempotency_key="k"), metadata_revision=revision - 1)
    good = start(metadata_revision=revision)
    child = start(metadata_revision=None)
    result = await save(world.conn, [stale, good, child], epoch=epoch, now_ms=NOW_MS)
    assert result.metadata_stale == {stale.decision.header.id}
    assert result.fresh == {good.decision.header.id, child.decision.header.id}
    assert await world.conn.fetchval("SELECT count(*) FROM idempotency") == 0


async def test_a_child_that_exists_already_stays_as_it_is(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    before = await stored(world.conn, first.decision.header.id)
    again = start(replace(first.decision.header, name="changed"), [task(1), task(2)])
    other = start()
    result = await save(world.conn, [again, other], epoch=epoch, now_ms=NOW_MS)
    assert result.fresh == {other.decision.header.id}
    assert (result.existing, result.metadata_stale) == ({}, set())
    assert await stored(world.conn, first.decision.header.id) == before


# ---- the inbox -----------------------------------------------------------------------------


async def put_messages(world: World, workflow_id: str, count: int) -> list[int]:
    rows = await world.conn.fetch(
        "INSERT INTO inbox (workflow_id, kind, body, due_ms, parked, drain_epoch, origin_epoch)"
        " SELECT $1, 7, '{}', 0, false, 1, 1 FROM generate_series(1, $2) RETURNING id",
        workflow_id,
        count,
    )
    return [row["id"] for row in rows]


async def test_applied_messages_go_and_answered_ones_wait_for_their_origin(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    one, two, three, kept = await put_messages(world, first.decision.header.id, 4)
    applied = advance(first.decision.header, applied=[one, three], consumed=[two], answers=[(three, b"ok")])
    await save(world.conn, [applied], epoch=epoch, now_ms=NOW_MS)
    rows = (await stored(world.conn, first.decision.header.id))["inbox"]
    assert [(row["id"], row["outcome"]) for row in rows] == [(three, b"ok"), (kept, None)]


async def test_a_start_deletes_the_message_that_asked_for_it(world: World) -> None:
    epoch = await world.node()
    head = header()
    (message,) = await put_messages(world, head.id, 1)
    child = start(head, applied=[message])
    await save(world.conn, [child], epoch=epoch, now_ms=NOW_MS)
    assert "inbox" not in await stored(world.conn, head.id)


# ---- our own mistakes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"updated": [task(5)]},
        {"deleted": [5]},
        {"updated": [task(1), task(1)]},
        {"consumed": [123]},
        {"answers": [(123, b"ok")]},
    ],
)
async def test_a_row_that_is_not_there_takes_the_whole_statement_back(
    world: World, more: dict[str, Any]
) -> None:
    epoch = await world.node()
    bad, good = await begun(world, epoch), await begun(world, epoch)
    before = [await stored(world.conn, item.decision.header.id) for item in (bad, good)]
    batch = [advance(bad.decision.header, **more), advance(good.decision.header, inserted=[task(2)])]
    with pytest.raises(asyncpg.DivisionByZeroError):
        await save(world.conn, batch, epoch=epoch, now_ms=NOW_MS)
    assert [await stored(world.conn, item.decision.header.id) for item in (bad, good)] == before


async def test_a_missing_payload_takes_the_whole_statement_back(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    await world.conn.execute("DELETE FROM workflow_payload")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await save(
            world.conn, [advance(first.decision.header, payload_changed=True)], epoch=epoch, now_ms=NOW_MS
        )


async def test_a_workflow_comes_once_in_a_batch(world: World) -> None:
    epoch = await world.node()
    first = await begun(world, epoch)
    with pytest.raises(ValueError, match="twice"):
        await save(world.conn, [advance(first.decision.header)] * 2, epoch=epoch, now_ms=NOW_MS)


@pytest.mark.parametrize("head", [{"open": -1}, {"next_seq": 0}, {"next_seq": 1 << 24}])
async def test_a_header_out_of_range_is_refused(world: World, head: dict[str, int]) -> None:
    epoch = await world.node()
    with pytest.raises(ValueError, match="open rows"):
        await save(world.conn, [start(header(**head))], epoch=epoch, now_ms=NOW_MS)


# ---- many ----------------------------------------------------------------------------------


async def test_a_batch_of_many_starts_steps_and_ends(world: World) -> None:
    """Places of workflows in the arrays are not mixed up."""
    epoch = await world.node()
    firsts = [start(header(input=Json(b"%d" % n)), deadlines={0: n + 1}) for n in range(60)]
    await save(world.conn, firsts, epoch=epoch, now_ms=NOW_MS)
    ends = [
        advance(
            item.decision.header,
            head={"status": WorkflowStatus.COMPLETED, "output": item.decision.header.input, "open": 0},
            payload_changed=True,
            updated=[done(item.decision.inserted[0], output=item.decision.header.input)],
            deliveries=[(1, 0 if n % 7 else 5)],
            deadlines={0: 0},
        )
        for n, item in enumerate(firsts)
    ]
    more = [start(header(input=Json(b"%d" % (100 + n))), deadlines={0: n + 101}) for n in range(30)]
    result = await save(world.conn, [*ends, *more], epoch=epoch, now_ms=NOW_MS)

    lost = {item.decision.header.id for n, item in enumerate(ends) if n % 7 == 0}
    assert {workflow_id for workflow_id, _ in result.lost} == lost
    assert result.fresh == {item.decision.header.id for item in [*ends, *more]} - lost
    for n, item in enumerate(ends):
        rows = await stored(world.conn, item.decision.header.id)
        ended = item.decision.header.id not in lost
        (payload,), (row,) = rows["workflow_payload"], rows["task"]
        assert payload["output"] == row["output"] == (b"%d" % n if ended else None)
        assert ("task_queue" in rows, "deadline" in rows) == (not ended, not ended)
    for n, item in enumerate(more):
        rows = await stored(world.conn, item.decision.header.id)
        assert (rows["workflow_payload"][0]["input"], rows["deadline"][0]["due_ms"]) == (
            b"%d" % (100 + n),
            n + 101,
        )
