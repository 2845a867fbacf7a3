"""Keys of starts. A start's save inserts its key; here a key is looked up or freed."""

from __future__ import annotations

from .database import Connection


async def release_ended(conn: Connection, namespace: str, key: str, workflow_id: str) -> bool:
    """Free a key that `workflow_id` holds, if that workflow has ended; whether it is free now."""
    return bool(await conn.fetchval(_RELEASE, namespace, key, workflow_id))


# $1 namespace, $2 key, $3 the workflow that holds it. Free is also a key that another call freed.
_RELEASE = """/* release idempotency key */
WITH freed AS (
  DELETE FROM idempotency k USING workflow w
  WHERE k.namespace = $1 AND k.key = $2 AND k.workflow_id = $3::uuid AND w.id = k.workflow_id AND w.status > 2
  RETURNING 1)
SELECT (SELECT count(*) FROM freed) = 1
  OR NOT coalesce((SELECT true FROM idempotency k WHERE k.namespace = $1 AND k.key = $2), false)"""
