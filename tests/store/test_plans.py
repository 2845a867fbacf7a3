"""Every hot statement keeps its price on tables of 1,000,000 rows.

Once on plans that were made while the tables were empty (a generic plan is never made again by
itself), once on plans made on the full ones, and on those made in between, when autovacuum has looked
at some tables and not at others. What is measured is the number of blocks that a
statement touches: a few a row, where a scan of any table or index would take thousands.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any

import pytest

from maestoso_server import ids
from maestoso_server.engine.decision import Message, MessageKind
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
from maestoso_server.engine.state import Header, View, WorkflowStatus
from maestoso_server.payload import Json
from maestoso_server.store import (
    idempotency,
    inbox,
    lists,
    logs,
    metadata,
)
from maestoso_server.store.database import Connection
from maestoso_server.store.load import LoadRequest, load
from maestoso_server.store.needs import fetch
from maestoso_server.store.save import WorkflowSave, save
from ownership_kit import World
from store_kit import NOW_MS, SESSION, advance, birth, done, header, start, task

ROWS = 1_000_000
BLOCKS = 400
"""What a statement over a handful of workflows may touch at most."""

LATER_MS = NOW_MS + 10_000_000
CROWDED = "01900000-0000-7000-8000-000000000001"
"""A workflow with a tenth of all tasks."""

WORKFLOW_ID = "('01900000-0000-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid"
TASK_KEY = f"CASE WHEN g % 10 = 0 THEN '{CROWDED}' ELSE {WORKFLOW_ID} END, g / 10 + 2"
EVERY = f"FROM generate_series(2, {ROWS}) g"

# $epoch: of the node that is looked at, which owns half of all queue rows.
FILL = [
    f"""INSERT INTO workflow (id, namespace, revision, status, generation, snapshot_id, name, version,
      parent_seq, priority, correlation_id, created_ms, clock_ms, updated_ms, ended_ms, next_seq, open,
      permissive_failed, last_task, last_node)
    SELECT {WORKFLOW_ID}, 'default', 1, CASE WHEN g % 10 = 0 THEN 1 ELSE 3 END, 1, '{SESSION}', 'orders', 1,
      0, 0, 'c' || g % 1000, {NOW_MS} - g, 0, 0, 0, 200000, 1, 0, 0, $epoch {EVERY}""",
    f"""INSERT INTO workflow_payload (workflow_id, input, variables, failed_task, created_by, traceparent)
    SELECT {WORKFLOW_ID}, '{{}}', '{{}}', 0, '', '' {EVERY}""",
    f"""INSERT INTO task (workflow_id, seq, generation, reference, path, attempt, scope, type, name, status,
      scheduled_ms, first_scheduled_ms, retried_seq, queued, domain, input)
    SELECT {TASK_KEY}, 1, 'ref_' || g % 5, ARRAY[g / 10], 0, 1, 'pay', 'pay',
      CASE WHEN g > {ROWS} - 100 THEN 1 ELSE 3 END, 0, 0, 0, false, '', '{{}}' {EVERY}""",
    f"""INSERT INTO task_queue (workflow_id, seq, namespace, queue, task_type, rank, due_ms, size, task_limit,
      response_s, timeout_s, total_due_ms, redeliver_on_loss, owner_epoch, delivery, deadline_ms)
    SELECT {TASK_KEY}, 'default', CASE WHEN g % 2 = 0 THEN 'backlog' ELSE 'owned' END, 'pay', 99, {NOW_MS}, 2,
      0, 0, 0, 0, false, CASE WHEN g % 20 = 1 THEN -1 WHEN g % 2 = 1 THEN $epoch END, 0,
      CASE WHEN g % 2 = 1 THEN {LATER_MS} END {EVERY}""",
    f"""INSERT INTO deadline (workflow_id, seq, due_ms)
    SELECT {WORKFLOW_ID}, 0, {LATER_MS} + g {EVERY}""",
    f"""INSERT INTO inbox (workflow_id, kind, body, due_ms, parked, drain_epoch, origin_epoch)
    SELECT {WORKFLOW_ID}, 6, '{{}}', {LATER_MS} + g, g % 2 = 0, $epoch, 0 {EVERY}""",
    f"""INSERT INTO idempotency (namespace, key, workflow_id, created_ms)
    SELECT 'default', 'key-' || g, {WORKFLOW_ID}, 0 {EVERY}""",
]


class Explained:
    """The plans, with what they cost, of the statements that run on one connection."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._plans: list[dict[str, Any]] = []

    async def listen(self) -> None:
        self._conn.raw.add_log_listener(lambda _, message: self._take(message.message))
        for setting in (
            "log_min_duration = 0", "log_analyze = on", "log_buffers = on", "log_timing = off",
            "log_format = json", "log_level = notice",
        ):  # fmt: skip
            await self._conn.execute(f"SET auto_explain.{setting}")

    def _take(self, message: str) -> None:
        _, found, plan = message.partition("plan:\n")
        if found and "typeinfo_tree" not in plan:
            self._plans.append(json.loads(plan))

    async def of(self, work: Awaitable[Any]) -> list[dict[str, Any]]:
        self._plans.clear()
        await work
        await self._conn.fetchval("SELECT 1")
        return [plan for plan in self._plans if plan["Query Text"] != "SELECT 1"]


def too_dear(plans: list[dict[str, Any]]) -> list[str]:
    """The statements that touch too many blocks. A scan shows here whatever the plan calls it."""
    faults = []
    for explained in plans:
        plan = explained["Plan"]
        touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        if touched > BLOCKS:
            faults.append(f"{explained['Query Text'].strip().splitlines()[0]}: {touched} blocks")
    return faults


@pytest.fixture
async def watched(world: World) -> AsyncIterator[tuple[World, Connection]]:
    """A connection like every other, on which auto_explain can be heard."""
    conn = await world.database.dedicated()
    await conn.execute("LOAD 'auto_explain'")
    yield world, conn
    await conn.raw.close()


async def everything(explained: Explained, conn: Connection, epoch: int) -> dict[str, list[dict[str, Any]]]:
    """Every hot statement but those of ownership (`test_ownership_plans.py`), by what it does."""
    plans: dict[str, list[dict[str, Any]]] = {}

    async def explain(name: str, work: Awaitable[Any]) -> Any:
        outcome = asyncio.ensure_future(work)
        plans[name] = await explained.of(outcome)
        assert plans[name], f"no plan was heard of {name}"
        return outcome.result()

    firsts = [
        start(
            header(idempotency_key=f"new-{ids.session_id()}"), [task(1), task(2), task(3, scope=1)],
            owners={1: SESSION}, metadata_revision=1, deadlines={0: LATER_MS},
            fragments={3: Json(b"[]")},
        )
        for _ in range(3)
    ]  # fmt: skip
    heads = [first.decision.header for first in firsts]
    await explain("save: starts", save(conn, firsts, epoch=epoch, now_ms=NOW_MS))
    lost = start(header(idempotency_key=heads[0].idempotency_key))
    await explain("save: a key is taken", save(conn, [lost], epoch=epoch, now_ms=NOW_MS))
    await explain(
        "save: all at once", save(conn, [moved(first) for first in firsts], epoch=epoch, now_ms=NOW_MS)
    )
    heads = [replace(head, revision=2) for head in heads]

    crowded = (await load(conn, [LoadRequest(CROWDED)], now_ms=NOW_MS))[CROWDED].header
    assert crowded is not None
    seq = 150_000 + crowded.revision
    step = advance(
        crowded, updated=[done(task(seq))], inserted=[task(crowded.next_seq)], deleted=[seq + 50],
        births=[birth(crowded.next_seq)], released=[seq], deadlines={seq: 0},
        head={"next_seq": crowded.next_seq + 1},
    )  # fmt: skip
    await explain("save: a step of a large workflow", save(conn, [step], epoch=epoch, now_ms=NOW_MS))
    requests = [LoadRequest(head.id, [1, 3]) for head in heads]
    await explain("load: small", load(conn, requests, now_ms=NOW_MS))
    await explain("load: large", load(conn, [LoadRequest(CROWDED, [50_000])], now_ms=NOW_MS))
    for need in (
        Rows((("ref_0", (7_000,)), ("ref_0", (7,)))),
        Rows((("ref_0", ()), ("ref_0", (7,))), exact=False),
        Row(50_000),
        ScopeRows(1, (7_000,)),
        OpenRows(99_900, 50),
        FailedRows(99_900, 50),
        OpenInside(1, 99_900, 50),
        Compensable(("ref_0",), (7_000,), NOW_MS + 1, 0, 50),
        Fragment(3),
        ChildStatus(CROWDED),
        ParkedSignals("ref"),
        Demand(("pay", "eu:pay")),
    ):
        await explain(f"need: {need}", fetch(conn, [(View(crowded), need)], now_ms=NOW_MS))

    posts = [inbox.Post(head.id, MessageKind.RESULT, Json(b"{}"), delivery=(2, 0)) for head in heads]
    posts += [inbox.Post(head.id, MessageKind.COMMAND, Json(b"{}"), origin_epoch=epoch) for head in heads]
    await explain("inbox: put", inbox.put(conn, posts, epoch=epoch))
    await explain("inbox: due", inbox.due_workflows(conn, epoch=epoch, now_ms=NOW_MS))
    await explain("inbox: answers", inbox.take_answers(conn, epoch=epoch))
    await for_the_api(explain, conn, heads[0])
    return plans


async def small_crowd(conn: Connection, epoch: int) -> None:
    """The crowded workflow with the rows that `everything` touches in it; `FILL` adds the crowd."""
    rows = [task(seq, queued=False) for seq in range(150_001, 150_100)]
    first = start(header(id=CROWDED, next_seq=200_000), rows)
    await save(conn, [first], epoch=epoch, now_ms=NOW_MS)


def moved(first: WorkflowSave) -> WorkflowSave:
    """A step with everything that a step can have."""
    row = first.decision.inserted[0]
    return advance(
        first.decision.header,
        payload_changed=True,
        updated=[done(row)],
        deleted=[3],
        inserted=[task(4), task(5)],
        births=[birth(4, queue="backlog"), birth(5)],
        owners={4: SESSION, 5: SESSION},
        deliveries=[(1, 1)],
        asleep={3: LATER_MS},
        deadlines={0: 0, 5: LATER_MS},
        messages=[Message(first.decision.header.id, MessageKind.CONTINUE, Json(b"{}"))],
    )


async def for_the_api(explain: Any, conn: Connection, head: Header) -> None:
    await explain("get", lists.get_workflow(conn, "default", head.id))
    await explain("tasks", lists.list_tasks(conn, CROWDED, payloads=True, after=50_000, limit=20))
    await explain("bare tasks", lists.list_tasks(conn, CROWDED, payloads=False, after=50_000, limit=20))
    task_id = ids.split_task_id(ids.task_id(head.id, 1))
    await explain("task", lists.get_task(conn, "default", *task_id))
    after = (NOW_MS - 500_000, CROWDED)
    for name, filter in {
        "all": lists.Filter(),
        "by name": lists.Filter(name="orders"),
        "by status": lists.Filter(status=WorkflowStatus.RUNNING),
        "by a status that none has": lists.Filter(status=WorkflowStatus.PAUSED),
        "by correlation": lists.Filter(correlation_id="c77"),
        "by age": lists.Filter(created_from_ms=NOW_MS - 700_000, created_before_ms=NOW_MS - 600_000),
    }.items():
        await explain(f"list {name}", lists.list_workflows(conn, "default", filter, limit=20))
        await explain(f"page {name}", lists.list_workflows(conn, "default", filter, after=after, limit=20))
    await explain("explain", lists.explain(conn, "default", CROWDED, after=99_900, limit=20))
    await explain("logs", logs.read(conn, head.id, 1))
    await explain("key", idempotency.release_ended(conn, "default", "key-77", CROWDED))
    await explain("snapshot", metadata.get_snapshot(conn, "default", SESSION))


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_hot_statements_on_a_million_rows(watched: tuple[World, Connection]) -> None:
    world, conn = watched
    epoch = await world.node()
    explained = Explained(conn)
    await explained.listen()
    await world.row(queue="backlog")
    await small_crowd(conn, epoch)
    await everything(explained, conn, epoch)

    await world.other.execute("SET synchronous_commit = off")
    for statement in FILL:
        await world.other.execute(statement.replace("$epoch", str(epoch)))

    faults = {"made on empty tables": await judged(explained, conn, epoch)}
    for half_known in ("VACUUM", "ANALYZE task_queue", "ANALYZE task", "ANALYZE workflow"):
        await world.other.execute(half_known)
        faults[f"made after {half_known}"] = await judged(explained, conn, epoch)
    await world.other.execute("ANALYZE")
    fresh = await world.database.dedicated()
    try:
        again = Explained(fresh)
        await fresh.execute("LOAD 'auto_explain'")
        await again.listen()
        faults["made on full tables"] = await judged(again, fresh, epoch)
    finally:
        await fresh.raw.close()
    assert {when: found for when, found in faults.items() if found} == {}


async def judged(explained: Explained, conn: Connection, epoch: int) -> dict[str, list[str]]:
    plans = await everything(explained, conn, epoch)
    faults = {name: too_dear(found) for name, found in plans.items()}
    return {name: found for name, found in faults.items() if found}


async def test_a_high_price_is_found(watched: tuple[World, Connection]) -> None:
    """The measure of the test above is not blind."""
    world, conn = watched
    await world.other.execute(FILL[4].replace(str(ROWS), "100000"))
    explained = Explained(conn)
    await explained.listen()
    cheap = await explained.of(conn.fetchval("SELECT count(*) FROM deadline WHERE due_ms = 7"))
    dear = await explained.of(conn.fetchval("SELECT count(*) FROM deadline WHERE due_ms % 2 = 1"))
    assert too_dear(cheap) == []
    assert "SELECT count(*) FROM deadline WHERE due_ms % 2 = 1: " in too_dear(dear)[0]
