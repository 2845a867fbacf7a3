"""Write a batch of decisions: one statement, one transaction, all or nothing a workflow.

`save_batch.py` sorts the decisions into arrays, `save_statement.py` has the rules and the SQL.
"""

from __future__ import annotations

from collections.abc import Sequence

from .database import Connection
from .rows import plain
from .save_batch import Arrays, SaveResult, WorkflowSave
from .save_statement import text
from .slots import SlotKey, lock_and_count, refusal

__all__ = ["SaveResult", "WorkflowSave", "save"]


async def save(conn: Connection, batch: Sequence[WorkflowSave], *, epoch: int, now_ms: int) -> SaveResult:
    """Write up to about 200 decisions in one transaction. `epoch` is this node's.

    Raises `Unavailable`; any other error is a bug and nothing was written. Costs one round trip, a
    second one only when a start was refused.
    """
    if any(_may_be_refused(item) for item in batch):
        return await _save_within_slots(conn, batch, epoch, now_ms)
    return await _save(conn, batch, epoch, now_ms)


async def _save(conn: Connection, batch: Sequence[WorkflowSave], epoch: int, now_ms: int) -> SaveResult:
    arrays = Arrays(batch, now_ms)
    row = await conn.fetchrow(text(arrays.present()), epoch, now_ms, *arrays.values())
    result = arrays.result(row, batch)
    if result.node_alive and len(result.fresh) < len(batch):
        await _explain_refused_starts(conn, arrays.starting, result)
    return result


def _may_be_refused(item: WorkflowSave) -> bool:
    slot = item.decision.slot
    return slot is not None and slot.refusable and slot.holds


async def _save_within_slots(
    conn: Connection, batch: Sequence[WorkflowSave], epoch: int, now_ms: int
) -> SaveResult:
    """Starts that do not wait for a slot are saved while their keys are locked, those for which one is
    free: in the order of the batch. The lock comes before all others."""
    async with conn.transaction():
        asked = {slot_key(item): None for item in batch if _may_be_refused(item)}
        taken = await lock_and_count(conn, list(asked))
        kept: list[WorkflowSave] = []
        left: list[WorkflowSave] = []
        for item in batch:
            if not _may_be_refused(item):
                kept.append(item)
                continue
            key, slot = slot_key(item), item.decision.slot
            if slot is not None and taken[key] < slot.slots:
                taken[key] += 1
                kept.append(item)
            else:
                left.append(item)
        result = await _save(conn, kept, epoch, now_ms) if kept else SaveResult(node_alive=True, fresh=set())
        await _explain_refused_starts(conn, left, result)
    for item in left:
        header = item.decision.header
        if header.id not in result.existing and header.id not in result.metadata_stale:
            result.refused[header.id] = refusal(slot_key(item))
    return result


def slot_key(item: WorkflowSave) -> SlotKey:
    header, slot = item.decision.header, item.decision.slot
    assert slot is not None
    return SlotKey(header.namespace, header.name, plain(slot.key))


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
