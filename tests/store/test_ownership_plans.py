"""Every hot statement of ownership, by the plan that a server makes on empty tables and keeps, on a
queue of a million rows: it reads what it touches, by index.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from maestoso_server.ids import session_id
from maestoso_server.store import deadlines, deliveries, nodes, queue, sessions
from ownership_kit import World, open_world

OWNED = 20_000
"""Rows of this node, of a dead one, asleep, and deadlines: so many each."""
ASKED = 100

BIG = ("task_queue", "task", "deadline")


def literal(value: object) -> str:
    """A value as EXECUTE takes it."""
    match value:
        case None:
            return "NULL"
        case bool() | int():
            return str(value)
        case bytes():
            return f"'\\x{value.hex()}'"
        case list():
            inner = ",".join("NULL" if item is None else f'"{item}"' for item in value)
            return f"'{{{inner}}}'"
        case _:
            return f"'{value}'"


def scans(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parts of a plan that read a big table."""
    here = [plan] if plan.get("Relation Name") in BIG and "Scan" in plan["Node Type"] else []
    return here + [scan for inner in plan.get("Plans", ()) for scan in scans(inner)]


def rows_read(plan: Mapping[str, Any]) -> float:
    """Rows that scans of big tables returned or filtered out."""
    return sum(
        (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]
        for scan in scans(plan)
    )


class Statements:
    """The statements under test, and arguments with which each touches about `ASKED` rows."""

    def __init__(self, world: World, epoch: int, dead: int, session: sessions.Session) -> None:
        self.world = world
        self.epoch = epoch
        self.dead = dead
        self.session = session

    def asked(self, keys: Sequence[tuple[str, int]]) -> dict[str, tuple[str, tuple[object, ...]]]:
        """Name -> text and arguments; `keys` name rows that the session holds."""
        epoch, session_id, now_ms = self.epoch, self.session.session_id, self.world.now_ms
        head = (epoch, "default", "pay")
        slots = [session_id] * ASKED
        after = queue._ANYTHING
        ids, seqs = [key[0] for key in keys], [key[1] for key in keys]
        count = len(keys)
        named = (epoch, ids, seqs, [1] * count)
        return {
            "take": (queue._TAKE, (*head, slots, *after)),
            "take limited": (
                queue._TAKE_LIMITED,
                (*head, slots, *after, now_ms, "pay", None, None, None, []),
            ),
            "take polled": (queue._TAKE_POLLED, (*head, ASKED, *after, now_ms, "w")),
            "take polled limited": (
                queue._TAKE_POLLED_LIMITED,
                (*head, ASKED, *after, now_ms, "w", "pay", None, None, None, []),
            ),
            "take past": (queue._TAKE_PAST, (*head, slots, *after, ["other"])),
            "read": (queue._READ, (ids, seqs)),
            "backlog": (queue._BACKLOG, (["default"], ["pay"])),
            "mark read": (deliveries._MARK_READ, (*named, [now_ms] * count, ["w"] * count)),
            "progress": (deliveries._PROGRESS, (*named, [None] * count, now_ms)),
            "hand back": (deliveries._HAND_BACK, (*named, [0] * count, now_ms)),
            "busy": (deliveries._busy(deliveries._MINE), named),
            "ended rows": (deliveries._ENDED, (epoch, ASKED)),
            "due owned": (deliveries._DUE_OWNED, (epoch, now_ms, ASKED)),
            "settle due": (deliveries._SETTLE_DUE, (*named, [now_ms] * count, now_ms)),
            "wake asleep": (deliveries._WAKE_ASLEEP, (epoch, now_ms, ASKED)),
            "current": (deliveries._CURRENT, (ids, ids, seqs)),
            "claim deadlines": (deadlines._CLAIM, (now_ms, now_ms + 5_000, ASKED)),
            "drop deadlines": (deadlines._DROP, (ids, seqs, [now_ms] * count)),
            "pulse": (nodes._PULSE, (epoch, now_ms, now_ms, ["default"], ["pay"], False, 1)),
            "inherit": (nodes._INHERIT, (epoch, self.dead, now_ms, now_ms, ASKED)),
            "expire": (sessions._EXPIRE, (epoch, now_ms, [], [], [], ASKED)),
            "resume": (sessions._MOVE, (epoch, session_id, "default", b"hash", now_ms, None, 0)),
            "resume rows": (
                sessions._MOVE_ROWS,
                (epoch, session_id, now_ms, ids, seqs, [1] * count, False),
            ),
        }

    async def prepare(self) -> None:
        """Have each planned; the plan is kept."""
        nobody = [(session_id(), 1)] * ASKED
        for place, (text, args) in enumerate(self.asked(nobody).values()):
            await self.world.conn.raw.execute(f"PREPARE s{place} AS {text}")
            await self.rolled_back(f"EXECUTE s{place}({', '.join(map(literal, args))})")

    async def explain(
        self, keys: Sequence[tuple[str, int]], only: Collection[str] = ()
    ) -> dict[str, Mapping[str, Any]]:
        plans = {}
        for place, (name, (_, args)) in enumerate(self.asked(keys).items()):
            if only and name not in only:
                continue
            execute = f"EXECUTE s{place}({', '.join(map(literal, args))})"
            rows = await self.rolled_back(f"EXPLAIN (ANALYZE, FORMAT JSON) {execute}")
            plans[name] = json.loads(rows[0][0])[0]["Plan"]
        return plans

    async def rolled_back(self, sql: str) -> list[Any]:
        raw = self.world.conn.raw
        transaction = raw.transaction()
        await transaction.start()
        try:
            found: list[Any] = await raw.fetch(sql)
            return found
        finally:
            await transaction.rollback()


async def fill(world: World, waiting: int, epoch: int, dead: int, session: sessions.Session) -> None:
    """So many waiting rows, and thousands that are owned, sleep, or are due."""
    count = await world.conn.fetchval("SELECT count(*) FROM task_queue")
    assert count == ASKED
    await world.multiply_tasks(waiting // ASKED)
    await world.conn.execute("UPDATE task_queue SET owner_epoch = NULL")
    await world.multiply_rows(waiting // ASKED)
    now_ms = world.now_ms
    for owner, first in ((epoch, 2_000), (dead, 4_000), (-1, 6_000)):
        await world.conn.execute(
            "UPDATE task_queue SET owner_epoch = $1, deadline_ms = $2::bigint + seq, session_id = $5,"
            " delivery = 1 WHERE seq BETWEEN $3 AND $4",
            owner, now_ms - 3_000, first, first + OWNED // ASKED, session_id() if owner > 0 else None,
        )  # fmt: skip
    await world.conn.execute(
        "UPDATE task_queue SET owner_epoch = $1, session_id = $2, delivery = 1 WHERE seq <= $3",
        epoch, session.session_id, ASKED,
    )  # fmt: skip
    await world.conn.execute(
        "INSERT INTO deadline SELECT workflow_id, seq, $1::bigint + seq FROM task_queue WHERE seq < 2000",
        now_ms - 1_500,
    )


async def replan(world: World) -> None:
    """What `Database` does with a connection whose plans are old."""
    await world.conn.execute("DISCARD PLANS")


@pytest.mark.slow
@pytest.mark.parametrize(("waiting", "vacuumed"), [(1_000_000, False), (300_000, True)])
async def test_hot_statements_read_what_they_touch(database_url: str, waiting: int, vacuumed: bool) -> None:
    """Postgres plans differently for tables that were never used and for those that were emptied."""
    async with open_world(database_url) as world:
        epoch, dead = await world.node(), await world.node(lease_ms=-1)
        session = await world.session(epoch)
        if vacuumed:
            await world.conn.execute("VACUUM ANALYZE")
        statements = Statements(world, epoch, dead, session)
        await statements.prepare()
        keys = [await world.row(owner=epoch, session=session.session_id, delivery=1) for _ in range(ASKED)]
        await fill(world, waiting, epoch, dead, session)
        kept = await statements.explain(keys, only=("take", "take limited"))
        # The take that meets a backlog must not wait until plans are made anew.
        assert rows_read(kept["take"]) <= 7 * ASKED
        assert rows_read(kept["take limited"]) <= 7 * ASKED
        await replan(world)
        plans = await statements.explain(keys)
        kinds = {name: {scan["Node Type"] for scan in scans(plan)} for name, plan in plans.items()}
        assert {name: kind for name, kind in kinds.items() if kind & {"Seq Scan", "Bitmap Heap Scan"}} == {}
        # Locking, changing and reading back are three reads of a row, its task's three more.
        wide = {name: rows_read(plan) for name, plan in plans.items() if rows_read(plan) > 7 * ASKED}
        assert wide == {}
        assert rows_read(plans["take"]) >= ASKED, "the take brought rows"
        assert rows_read(plans["mark read"]) >= 4 * ASKED, "the rows were the session's"
