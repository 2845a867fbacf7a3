"""Due rows of `deadline`: claimed for a while, so that nodes share them. DELIVERY 15.

The save that applies a deadline deletes its row or arms it anew. A claim only pushes it ahead: if
its node dies, another one finds it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..engine.events import QueueFacts
from .database import Connection

CLAIM_MS = 5_000
"""How long a claimed deadline stays out of sight: longer than a batch takes, shorter than anybody waits."""


class Claim(NamedTuple):
    """A deadline to be answered by this node until `until_ms`. `seq` 0 is the workflow's own clock."""

    workflow_id: str
    seq: int
    until_ms: int
    due_ms: int
    """When it was due."""
    queue: QueueFacts | None
    """The task's queue row, as it is now."""


# $1 now, $2 end of the claim, $3 rows at most
_CLAIM = """
WITH claimed AS (
  UPDATE deadline d SET due_ms = $2
  FROM (
    SELECT workflow_id, seq, due_ms FROM deadline WHERE due_ms <= $1
    ORDER BY due_ms LIMIT $3 FOR UPDATE SKIP LOCKED
  ) p
  WHERE d.workflow_id = p.workflow_id AND d.seq = p.seq
  RETURNING d.workflow_id, d.seq, p.due_ms
)
SELECT c.workflow_id, c.seq, c.due_ms,
  q.seq IS NOT NULL AS queued, q.owner_epoch, q.due_ms AS waiting_ms, q.started_ms, q.progress_ms, q.worker_id
FROM claimed c LEFT JOIN task_queue q ON q.workflow_id = c.workflow_id AND q.seq = c.seq AND NOT q.ended
"""


async def claim(conn: Connection, *, now_ms: int, limit: int = 1000) -> list[Claim]:
    """Due deadlines, the longest due first, that no other node has claimed."""
    until_ms = now_ms + CLAIM_MS
    rows = await conn.fetch(_CLAIM, now_ms, until_ms, limit)
    return [
        Claim(str(row["workflow_id"]), row["seq"], until_ms, row["due_ms"], _queue_facts(row)) for row in rows
    ]


def _queue_facts(row: Any) -> QueueFacts | None:
    if not row["queued"]:
        return None
    return QueueFacts(
        owner_epoch=row["owner_epoch"],
        due_ms=row["waiting_ms"],
        started_ms=row["started_ms"],
        progress_ms=row["progress_ms"],
        worker_id=row["worker_id"],
    )


# $1 workflow ids, $2 seqs, $3 ends of the claims
_DROP = """
DELETE FROM deadline d
USING (
  SELECT d.workflow_id, d.seq
  FROM unnest($1::uuid[], $2::int[], $3::bigint[]) AS a(workflow_id, seq, until_ms)
  JOIN deadline d ON d.workflow_id = a.workflow_id AND d.seq = a.seq AND d.due_ms = a.until_ms
  ORDER BY d.workflow_id, d.seq FOR UPDATE OF d SKIP LOCKED
) p
WHERE d.workflow_id = p.workflow_id AND d.seq = p.seq
"""


async def drop(conn: Connection, claims: Sequence[Claim]) -> None:
    """The engine has nothing to do at these: they go, unless they were armed anew meanwhile."""
    await conn.execute(
        _DROP,
        [claim.workflow_id for claim in claims],
        [claim.seq for claim in claims],
        [claim.until_ms for claim in claims],
    )
