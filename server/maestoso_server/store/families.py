"""Which workflow started which, for operators' commands that go up to the root or down into children."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..engine.decision import MessageKind
from .database import Connection


async def ancestors(conn: Connection, workflow_id: str) -> list[str]:
    """The parent of a workflow, its parent, and so on up to the root, or to where one was removed. Costs
    one look-up a level."""
    rows = await conn.fetch(_ANCESTORS, workflow_id)
    return [str(row["id"]) for row in rows]


# $1 workflow
_ANCESTORS = """/* ancestors */
WITH RECURSIVE above(id, depth) AS (
  SELECT w.parent_id, 1 FROM workflow w WHERE w.id = $1
  UNION ALL
  SELECT w.parent_id, a.depth + 1 FROM above a JOIN workflow w ON w.id = a.id)
SELECT a.id FROM above a JOIN workflow w ON w.id = a.id ORDER BY a.depth"""


async def being_revived(conn: Connection, workflow_ids: Sequence[str]) -> str | None:
    """The one of these workflows that has still to be told that a child of its runs again; None where
    that has come to its end. A revival goes up by one message a level, which the parent's commit turns
    into the next one: at no time is there none before the end."""
    found = await conn.fetchval(_BEING_REVIVED, list(workflow_ids), int(MessageKind.CHILD_REVIVED))
    return None if found is None else str(found)


# $1 workflows, $2 the kind of a revival
_BEING_REVIVED = """/* being revived */
SELECT x.workflow_id FROM inbox x WHERE x.workflow_id = ANY ($1::uuid[]) AND x.kind = $2::smallint LIMIT 1"""


async def newest(conn: Connection, workflow_id: str, reference: str) -> int | None:
    """The seq of the newest task of a reference, in the workflow's present generation; None without one."""
    seq: int | None = await conn.fetchval(_NEWEST, workflow_id, reference)
    return seq


# $1 workflow, $2 reference
_NEWEST = """/* newest of a reference */
SELECT max(t.seq) FROM workflow w
JOIN task t ON t.workflow_id = w.id AND t.generation = w.generation AND t.reference = $2 WHERE w.id = $1"""


class OpenTask(NamedTuple):
    """An open task that waits for somebody, or for a child."""

    seq: int
    reference: str
    child_id: str | None


async def open_waits(conn: Connection, workflow_id: str) -> list[OpenTask]:
    """The open WAIT and HUMAN tasks of a workflow and the open ones with a child of its own, in their
    order. Walks over the workflow's tasks."""
    rows = await conn.fetch(_OPEN_WAITS, workflow_id)
    return [
        OpenTask(row["seq"], row["reference"], None if row["child_id"] is None else str(row["child_id"]))
        for row in rows
    ]


# $1 workflow
_OPEN_WAITS = """/* open waits */
SELECT t.seq, t.reference, t.child_id FROM workflow w
JOIN task t ON t.workflow_id = w.id AND t.generation = w.generation
WHERE w.id = $1 AND w.status <= 2 AND t.status <= 2
  AND (t.type IN ('WAIT', 'HUMAN') OR coalesce((
    SELECT true FROM workflow c WHERE c.id = t.child_id AND c.parent_id = t.workflow_id), false))
ORDER BY t.seq"""


async def children(conn: Connection, workflow_id: str, *, after: int, limit: int) -> list[tuple[int, str]]:
    """(seq, child) of the tasks after `after` that have started a workflow, in any generation; not of one
    that belongs to another workflow, whose outcome the task only wants."""
    rows = await conn.fetch(_CHILDREN, workflow_id, after, limit)
    return [(row["seq"], str(row["child_id"])) for row in rows]


# $1 workflow, $2 after this seq, $3 at most
_CHILDREN = """/* children */
SELECT t.seq, t.child_id FROM task t
WHERE t.workflow_id = $1 AND t.seq > $2 AND t.child_id IS NOT NULL AND coalesce((
  SELECT true FROM workflow c WHERE c.id = t.child_id AND c.parent_id = $1 AND c.parent_seq = t.seq), false)
ORDER BY t.seq LIMIT $3"""
