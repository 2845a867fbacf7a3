"""The outbox: events that workflows have told (`engine/decision.py`, Publication).

Written by the save alone. A consumer reads what is pending, oldest first, does its work and
acknowledges it; what it has not acknowledged it sees again, so it goes by `message_id` to do a thing
once. Ids rise as events are written, but two commits may become visible the other way round: a
consumer that only went on from the last id that it has seen would miss some.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from .database import Connection

PRUNED_AT_ONCE = 1_000


@dataclass(slots=True, frozen=True)
class StoredEvent:
    """One event. `body` is JSON. `acknowledged_ms` 0: nobody has taken care of it yet."""

    id: int
    queue: str
    message_id: str
    body: bytes
    created_ms: int
    workflow_id: str
    acknowledged_ms: int
    snapshot_id: str
    """The definition of its workflow; empty where the workflow is gone."""


async def pending(
    conn: Connection, *, namespace: str, queue: str, after: int = 0, limit: int
) -> list[StoredEvent]:
    """Events of one queue that nobody has acknowledged, by id, from behind `after` on."""
    return [_event(row) for row in await conn.fetch(_PENDING, namespace, queue, after, limit)]


async def acknowledge(conn: Connection, *, namespace: str, ids: Sequence[int], now_ms: int) -> int:
    """Say that these were taken care of; returns how many were pending. Safe to repeat."""
    return len(await conn.fetch(_ACKNOWLEDGE, namespace, sorted(set(ids)), now_ms))


async def list_events(
    conn: Connection,
    *,
    namespace: str,
    queue: str | None = None,
    workflow_id: str | None = None,
    unacknowledged: bool = False,
    after: int = 0,
    limit: int,
) -> list[StoredEvent]:
    """Events by id, from behind `after` on: of a queue, of a workflow, or all."""
    sql = _list(by_queue=queue is not None, by_workflow=workflow_id is not None)
    given = [value for value in (queue, workflow_id) if value is not None]
    return [_event(row) for row in await conn.fetch(sql, namespace, unacknowledged, after, limit, *given)]


async def prune(conn: Connection, *, acknowledged_before_ms: int, created_before_ms: int) -> int:
    """Delete events acknowledged, or else written, before these moments, about a thousand a namespace;
    returns how many. Rows that somebody else holds are left for the next time."""
    rows = await conn.fetch(_PRUNE, acknowledged_before_ms, created_before_ms, PRUNED_AT_ONCE)
    return len(rows)


async def prune_cache(conn: Connection, *, now_ms: int) -> int:
    """Delete cached outputs that have expired, at most a thousand; returns how many."""
    return len(await conn.fetch(_PRUNE_CACHE, now_ms, PRUNED_AT_ONCE))


def _event(row: Any) -> StoredEvent:
    return StoredEvent(
        id=row["id"],
        queue=row["queue"],
        message_id=row["message_id"],
        body=row["body"],
        created_ms=row["created_ms"],
        workflow_id=str(row["workflow_id"]),
        acknowledged_ms=row["acknowledged_ms"] or 0,
        snapshot_id=str(row["snapshot_id"] or ""),
    )


_COLUMNS = (
    "e.id, e.queue, e.message_id, e.body, e.created_ms, e.workflow_id, e.acknowledged_ms, w.snapshot_id"
)

# $1 namespace, $2 queue, $3 after this id, $4 at most
_PENDING = f"""/* pending events */
SELECT {_COLUMNS} FROM event e LEFT JOIN workflow w ON w.id = e.workflow_id
WHERE e.namespace = $1 AND e.queue = $2 AND e.acknowledged_ms IS NULL AND e.id > $3
ORDER BY e.id LIMIT $4"""

# $1 namespace, $2 ids, $3 now in milliseconds
_ACKNOWLEDGE = """/* acknowledge events */
UPDATE event e SET acknowledged_ms = $3
WHERE e.namespace = $1 AND e.id = ANY ($2::bigint[]) AND e.acknowledged_ms IS NULL
RETURNING e.id"""


@cache
def _list(*, by_queue: bool, by_workflow: bool) -> str:
    """A statement for each set of filters, so that each has the index that it needs.

    $1 namespace, $2 only pending ones, $3 after this id, $4 at most, then the queue and the workflow,
    where they are asked for."""
    conditions = ["e.queue = $5"] if by_queue else []
    if by_workflow:
        conditions.append(f"e.workflow_id = ${5 + len(conditions)}")
    wanted = "".join(f" AND {condition}" for condition in conditions)
    return f"""/* list events */
SELECT {_COLUMNS} FROM event e LEFT JOIN workflow w ON w.id = e.workflow_id
WHERE e.namespace = $1 AND (NOT $2::boolean OR e.acknowledged_ms IS NULL) AND e.id > $3{wanted}
ORDER BY e.id LIMIT $4"""


# $1 acknowledged before, $2 written before, $3 at most a namespace. The oldest ids are looked at only.
_PRUNE = """/* prune events */
DELETE FROM event e USING (
  SELECT o.namespace, o.id, o.acknowledged_ms, o.created_ms FROM namespace s CROSS JOIN LATERAL (
    SELECT x.namespace, x.id, x.acknowledged_ms, x.created_ms FROM event x
    WHERE x.namespace = s.name ORDER BY x.id LIMIT $3 FOR UPDATE SKIP LOCKED) o) o
WHERE e.namespace = o.namespace AND e.id = o.id AND (o.acknowledged_ms < $1 OR o.created_ms < $2)
RETURNING e.id"""

# $1 now in milliseconds, $2 at most
_PRUNE_CACHE = """/* prune cache */
DELETE FROM task_cache c USING (
  SELECT x.namespace, x.name, x.key FROM task_cache x WHERE x.expires_ms <= $1
  ORDER BY x.expires_ms LIMIT $2 FOR UPDATE SKIP LOCKED) o
WHERE c.namespace = o.namespace AND c.name = o.name AND c.key = o.key
RETURNING c.key"""
