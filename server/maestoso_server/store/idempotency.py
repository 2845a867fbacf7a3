"""Keys of starts. A start's save inserts its key; here a key is freed, and its holder is looked at."""

from __future__ import annotations

from .database import Connection


async def release_ended(conn: Connection, namespace: str, key: str, workflow_id: str) -> bool:
    """Free a key that `workflow_id` holds, if that workflow has ended or was removed; whether it is free
    now."""
    return bool(await conn.fetchval(_RELEASE, namespace, key, workflow_id))


# $1 namespace, $2 key, $3 the workflow that holds it. Free is also a key that another call freed.
_RELEASE = """/* release idempotency key */
WITH freed AS (
  DELETE FROM idempotency k
  WHERE k.namespace = $1 AND k.key = $2 AND k.workflow_id = $3::uuid
    AND NOT EXISTS (SELECT FROM workflow w WHERE w.id = $3::uuid AND w.status <= 2)
  RETURNING 1)
SELECT (SELECT count(*) FROM freed) = 1
  OR NOT coalesce((SELECT true FROM idempotency k WHERE k.namespace = $1 AND k.key = $2), false)"""


async def waits_for(conn: Connection, workflow_id: str, holder: str) -> bool:
    """Whether `holder` is this workflow or one of those that it is a child of: they wait for its end."""
    return bool(await conn.fetchval(_WAITS_FOR, workflow_id, holder))


# $1 the workflow, $2 the holder
_WAITS_FOR = """/* does the holder of a key wait for a workflow */
WITH RECURSIVE line(id) AS (
  SELECT $1::uuid
  UNION
  SELECT w.parent_id FROM line l JOIN workflow w ON w.id = l.id WHERE w.parent_id IS NOT NULL)
SELECT EXISTS (SELECT FROM line l WHERE l.id = $2::uuid)"""
