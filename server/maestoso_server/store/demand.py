"""Which queues have a live poller or stream. DELIVERY 17: a workflow with `taskToDomain` asks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .database import Connection
from .nodes import ALIVE, NodeLost

REFRESH_MS = 3_000
"""How often a node repeats what is asked for at it."""

VALID_MS = 10_000
"""How long a word of demand holds."""


# $1 epoch, $2 namespaces, $3 queues, $4 now
_NOTE = f"""
WITH {ALIVE},
noted AS (
  INSERT INTO demand (namespace, queue, epoch, seen_ms)
  SELECT DISTINCT a.namespace, a.queue, $1::bigint, $4::bigint
  FROM unnest($2::text[], $3::text[]) AS a(namespace, queue)
  WHERE EXISTS (SELECT FROM alive)
  ORDER BY a.namespace, a.queue
  ON CONFLICT (namespace, queue, epoch) DO UPDATE SET seen_ms = excluded.seen_ms
)
SELECT epoch FROM alive
"""


async def note(conn: Connection, *, epoch: int, queues: Collection[tuple[str, str]], now_ms: int) -> None:
    """There is demand for these (namespace, queue) at this node. Commits before `Welcome` or the
    answer of a poll, and again every `REFRESH_MS`. Raises `NodeLost`."""
    namespaces = [namespace for namespace, _ in queues]
    if await conn.fetchval(_NOTE, epoch, namespaces, [queue for _, queue in queues], now_ms) is None:
        raise NodeLost(epoch)


async def forget(conn: Connection, *, epoch: int, now_ms: int) -> None:
    """Delete this node's words that hold no longer, so that the table stays as small as the demand."""
    await conn.execute("DELETE FROM demand WHERE epoch = $1 AND seen_ms <= $2", epoch, now_ms - VALID_MS)


# $1 namespace, $2 queues, $3 the oldest word that still holds
_LIVE = """
SELECT a.queue FROM unnest($2::text[]) AS a(queue)
WHERE (
  SELECT true FROM demand d WHERE d.namespace = $1 AND d.queue = a.queue AND d.seen_ms > $3 LIMIT 1
)
"""


async def live(conn: Connection, *, namespace: str, queues: Sequence[str], now_ms: int) -> set[str]:
    """Those of the queues for which some node has demand."""
    rows = await conn.fetch(_LIVE, namespace, queues, now_ms - VALID_MS)
    return {row["queue"] for row in rows}
