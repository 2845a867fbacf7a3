"""Write a batch of decisions: one statement, one transaction, all or nothing a workflow.

`save_batch.py` sorts the decisions into arrays, `save_statement.py` has the rules and the SQL.
"""

from __future__ import annotations

from collections.abc import Sequence

from .database import Connection
from .save_batch import Arrays, SaveResult, WorkflowSave
from .save_statement import text

__all__ = ["SaveResult", "WorkflowSave", "save"]


async def save(conn: Connection, batch: Sequence[WorkflowSave], *, epoch: int, now_ms: int) -> SaveResult:
    """Write up to about 200 decisions in one transaction. `epoch` is this node's.

    Raises `Unavailable`; any other error is a bug and nothing was written. Costs one round trip, a
    second one only when a start was refused.
    """
    arrays = Arrays(batch, now_ms)
    row = await conn.fetchrow(text(arrays.present()), epoch, now_ms, *arrays.values())
    result = arrays.result(row, batch)
    if result.node_alive and len(result.fresh) < len(batch):
        await _explain_refused_starts(conn, arrays.starting, result)
    return result


async def _explain_refused_starts(
    conn: Connection, starting: Sequence[WorkflowSave], result: SaveResult
) -> None:
    """Why starts were not written. A statement of its own: the winner of a key may have committed
    after the save's snapshot was taken."""
    refused = [s for s in starting if s.decision.header.id not in result.fresh]
    if not refused:
        return
    headers = [s.decision.header for s in refused]
    rows = await conn.fetch(
        _EXPLAIN_REFUSED, [h.namespace for h in headers], [h.idempotency_key for h in headers]
    )
    for start, row in zip(refused, rows, strict=True):
        header = start.decision.header
        if row["winner"] is not None and str(row["winner"]) != header.id:
            result.existing[header.id] = str(row["winner"])
        elif start.metadata_revision is not None and row["metadata_revision"] != start.metadata_revision:
            result.metadata_stale.add(header.id)


# $1 namespaces, $2 idempotency keys of refused starts, in the same order
_EXPLAIN_REFUSED = """/* explain refused starts */
SELECT (SELECT k.workflow_id FROM idempotency k WHERE k.namespace = i.namespace AND k.key = i.key) AS winner,
       (SELECT s.metadata_revision FROM namespace s WHERE s.name = i.namespace) AS metadata_revision
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY i(namespace, key, place)
ORDER BY i.place"""
