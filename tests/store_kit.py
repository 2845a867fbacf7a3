"""Workflows for the store's tests: small decisions by hand, and what the database then holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from maestoso_server import ids
from maestoso_server.engine.decision import Decision, QueueBirth
from maestoso_server.engine.state import Header, TaskRow, TaskStatus
from maestoso_server.payload import Json
from maestoso_server.store.database import Connection
from maestoso_server.store.load import Loaded, LoadRequest, load
from maestoso_server.store.save import WorkflowSave

NOW_MS = 1_750_000_000_000
SNAPSHOT = "00000000-0000-4000-8000-00000000000a"
SESSION = "00000000-0000-4000-8000-00000000000b"


def header(**more: Any) -> Header:
    """A new workflow with one open row."""
    fields: dict[str, Any] = {
        "id": ids.workflow_id(NOW_MS),
        "namespace": "default",
        "name": "orders",
        "version": 1,
        "snapshot_id": SNAPSHOT,
        "created_ms": NOW_MS,
        "revision": 1,
        "next_seq": 2,
        "open": 1,
        "input": Json(b'{"order":7}'),
    }
    return Header(**{**fields, **more})


def task(seq: int = 1, **more: Any) -> TaskRow:
    """A SIMPLE task that waits for a worker."""
    fields: dict[str, Any] = {
        "seq": seq,
        "generation": 1,
        "reference": f"ref_{seq}",
        "path": (),
        "attempt": 0,
        "scope": 0,
        "type": "pay",
        "name": "pay",
        "status": TaskStatus.SCHEDULED,
        "scheduled_ms": NOW_MS,
        "first_scheduled_ms": NOW_MS,
        "queued": True,
    }
    return TaskRow(**{**fields, **more})


def birth(seq: int = 1, **more: Any) -> QueueBirth:
    fields: dict[str, Any] = {
        "seq": seq,
        "queue": "pay",
        "task_type": "pay",
        "priority": 0,
        "due_ms": NOW_MS,
        "size": 2,
    }
    return QueueBirth(**{**fields, **more})


def start(head: Header | None = None, rows: Sequence[TaskRow] | None = None, **more: Any) -> WorkflowSave:
    """The first save of a workflow, with one task by default. `more`: fields of `Decision` or of
    `WorkflowSave`, whose messages are named `applied`."""
    rows = [task()] if rows is None else rows
    births = [birth(row.seq) for row in rows if row.queued]
    return _save(head or header(), 0, {"inserted": list(rows), "births": births, **more})


def advance(before: Header, **more: Any) -> WorkflowSave:
    """A later save, which raises the revision. `head` holds changes of the header."""
    head = before.copy()
    head.revision += 1
    for name, value in more.pop("head", {}).items():
        setattr(head, name, value)
    return _save(head, before.revision, more)


def _save(head: Header, expected_revision: int, more: dict[str, Any]) -> WorkflowSave:
    applied = more.pop("applied", [])
    own = {name: more.pop(name) for name in OF_THE_SAVE if name in more}
    return WorkflowSave(Decision(head, changed=True, **more), expected_revision, messages=applied, **own)


OF_THE_SAVE = ("deliveries", "expired", "answers", "owners", "metadata_revision")


def changed(row: TaskRow, **more: Any) -> TaskRow:
    new = row.copy()
    for name, value in more.items():
        setattr(new, name, value)
    return new


def done(row: TaskRow, **more: Any) -> TaskRow:
    """The row, completed."""
    fields: dict[str, Any] = {
        "status": TaskStatus.COMPLETED,
        "output": Json(b'{"paid":true}'),
        "ended_ms": NOW_MS + 5,
        "queued": False,
    }
    return changed(row, **{**fields, **more})


async def loaded(conn: Connection, workflow_id: str, *seqs: int, whole_below: int = 64) -> Loaded:
    found = await load(conn, [LoadRequest(workflow_id, seqs)], now_ms=NOW_MS, whole_below=whole_below)
    return found[workflow_id]


async def stored(conn: Connection, workflow_id: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of a workflow, by table."""
    keys = {
        "workflow": "id",
        "workflow_payload": "workflow_id",
        "task": "workflow_id",
        "task_queue": "workflow_id",
        "deadline": "workflow_id",
        "inbox": "workflow_id",
        "plan_fragment": "workflow_id",
        "idempotency": "workflow_id",
    }
    rows = {
        table: await conn.fetch(f"SELECT * FROM {table} WHERE {key} = $1 ORDER BY 1, 2", workflow_id)
        for table, key in keys.items()
    }
    return {table: [dict(row) for row in found] for table, found in rows.items() if found}


class Faulty:
    """Does something once to the next statement whose text contains `text`.

    `before` runs before it is sent, `after` once it was applied; both are given `drop`, which cuts the
    connection."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._planned: list[tuple[str, str, Callable[[Callable[[], None]], Any]]] = []

    def plan(self, when: str, text: str, deed: Callable[[Callable[[], None]], Any]) -> None:
        self._planned.append((when, text, deed))

    async def before(self, sql: str, drop: Callable[[], None]) -> None:
        self.seen.append(sql)
        await self._do("before", sql, drop)

    async def after(self, sql: str, drop: Callable[[], None]) -> None:
        await self._do("after", sql, drop)

    async def _do(self, when: str, sql: str, drop: Callable[[], None]) -> None:
        for planned in self._planned:
            if planned[0] == when and planned[1] in sql:
                self._planned.remove(planned)
                outcome = planned[2](drop)
                if outcome is not None:
                    await outcome
                return
