"""Bulk operations and their items.

An operation is worked on by one node, its owner, whose every write is guarded by its own node row and
by the ownership: a node that was declared dead writes nothing more. An item is begun (`claim`) and ended
(`finish`) in statements of their own; what is begun and not ended when an owner dies is looked at by the
next one (`begun`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from .database import Connection


class BulkState(IntEnum):
    """The numbers are stored, and the contract's."""

    COLLECTING = 1
    RUNNING = 2
    COMPLETED = 3
    CANCELLED = 4


class ItemState(IntEnum):
    """The numbers are stored. The contract knows the first three: what is begun is pending."""

    PENDING = 1
    SUCCEEDED = 2
    FAILED = 3
    BEGUN = 4


@dataclass(slots=True, kw_only=True)
class Bulk:
    """An operation. `action` and `query` are opaque here."""

    namespace: str
    id: str
    state: BulkState
    action: bytes
    query: bytes | None
    rate: int
    reason: str
    created_ms: int
    created_by: str
    ended_ms: int = 0
    idempotency_key: str | None = None
    request_digest: bytes = b""
    collected: tuple[int, str] | None = None
    total: int = 0
    claimed: int = 0
    succeeded: int = 0
    failed: int = 0


@dataclass(slots=True, frozen=True)
class Facts:
    """What tells whether something was done to a workflow since."""

    revision: int
    generation: int
    ended_ms: int


@dataclass(slots=True)
class Item:
    """One workflow. `seen` are its facts when the item was begun, `now` those at present; None where there
    is no such workflow."""

    seq: int
    workflow_id: str
    seen: Facts | None = None
    now: Facts | None = None


@dataclass(slots=True)
class ListedItem:
    seq: int
    workflow_id: str
    state: ItemState
    error: bytes | None


_COLUMNS = """o.namespace, o.id, o.state, o.action, o.query, o.rate, o.reason, o.created_ms, o.created_by,
  o.ended_ms, o.idempotency_key, o.request_digest, o.collected_ms, o.collected_id, o.total, o.claimed,
  o.succeeded, o.failed"""


def _bulk(row: Any) -> Bulk:
    collected = None if row["collected_ms"] is None else (row["collected_ms"], str(row["collected_id"]))
    return Bulk(
        namespace=row["namespace"],
        id=str(row["id"]),
        state=BulkState(row["state"]),
        action=row["action"],
        query=row["query"],
        rate=row["rate"],
        reason=row["reason"],
        created_ms=row["created_ms"],
        created_by=row["created_by"],
        ended_ms=row["ended_ms"],
        idempotency_key=row["idempotency_key"],
        request_digest=row["request_digest"],
        collected=collected,
        total=row["total"],
        claimed=row["claimed"],
        succeeded=row["succeeded"],
        failed=row["failed"],
    )


# ---- by callers ----------------------------------------------------------------------------


async def create(conn: Connection, made: Bulk, workflow_ids: Sequence[str]) -> bool:
    """Store an operation with the items that are known. False: its idempotency key was used."""
    row = await conn.fetchrow(
        _CREATE,
        made.namespace,
        made.id,
        int(made.state),
        made.action,
        made.query,
        made.rate,
        made.reason,
        made.created_ms,
        made.created_by,
        made.idempotency_key,
        made.request_digest,
        list(workflow_ids),
    )
    return bool(row["made"])


# $1 namespace, $2 id, $3 state, $4 action, $5 query, $6 rate, $7 reason, $8 now, $9 principal,
# $10 idempotency key, $11 digest of the request, $12 workflows
_CREATE = """/* create bulk */
WITH made AS (
  INSERT INTO bulk_operation (namespace, id, state, action, query, rate, reason, created_ms, created_by,
    idempotency_key, request_digest, total)
  VALUES ($1, $2, $3::smallint, $4, $5, $6, $7, $8, $9, $10, $11, cardinality($12::uuid[]))
  ON CONFLICT DO NOTHING RETURNING id),
items AS (
  INSERT INTO bulk_item (namespace, bulk_id, seq, workflow_id)
  SELECT $1, made.id, i.seq, i.workflow_id
  FROM made CROSS JOIN unnest($12::uuid[]) WITH ORDINALITY i(workflow_id, seq))
SELECT EXISTS (SELECT FROM made) AS made"""


async def get(conn: Connection, namespace: str, bulk_id: str) -> Bulk | None:
    row = await conn.fetchrow(_GET, namespace, bulk_id)
    return None if row is None else _bulk(row)


# $1 namespace, $2 id
_GET = f"""/* get bulk */
SELECT {_COLUMNS} FROM bulk_operation o WHERE o.namespace = $1 AND o.id = $2"""


async def find(conn: Connection, namespace: str, idempotency_key: str) -> Bulk | None:
    """The operation that has this key."""
    row = await conn.fetchrow(_FIND, namespace, idempotency_key)
    return None if row is None else _bulk(row)


# $1 namespace, $2 idempotency key
_FIND = f"""/* find bulk */
SELECT {_COLUMNS} FROM bulk_operation o WHERE o.namespace = $1 AND o.idempotency_key = $2"""


async def list_operations(
    conn: Connection, namespace: str, *, state: BulkState | None, before: str | None, limit: int
) -> list[Bulk]:
    """Operations, the youngest first, those made before the one with the id `before`."""
    wanted = None if state is None else int(state)
    return [_bulk(row) for row in await conn.fetch(_LIST, namespace, wanted, before, limit)]


# $1 namespace, $2 state or NULL, $3 before this id or NULL, $4 at most
_LIST = f"""/* list bulk */
SELECT {_COLUMNS} FROM bulk_operation o
WHERE o.namespace = $1 AND ($2::smallint IS NULL OR o.state = $2) AND ($3::uuid IS NULL OR o.id < $3)
ORDER BY o.id DESC LIMIT $4"""


async def list_items(
    conn: Connection, namespace: str, bulk_id: str, *, state: ItemState | None, after: int, limit: int
) -> list[ListedItem]:
    """Items in their order, those after `after`. PENDING holds those that are begun, too."""
    condition = {
        None: "true",
        ItemState.PENDING: "i.state IN (1, 4)",
        ItemState.SUCCEEDED: "i.state = 2",
        ItemState.FAILED: "i.state = 3",
    }[state]
    rows = await conn.fetch(_ITEMS.format(condition), namespace, bulk_id, after, limit)
    return [ListedItem(row[0], str(row[1]), ItemState(row[2]), row[3]) for row in rows]


# $1 namespace, $2 operation, $3 after this seq, $4 at most
_ITEMS = """/* list bulk items */
SELECT i.seq, i.workflow_id, i.state, i.error FROM bulk_item i
WHERE i.namespace = $1 AND i.bulk_id = $2 AND i.seq > $3 AND {} ORDER BY i.seq LIMIT $4"""


async def cancel(conn: Connection, namespace: str, bulk_id: str, *, now_ms: int) -> Bulk | None:
    """Stop an operation; one that has ended stays as it is. None: there is none."""
    await conn.execute(_CANCEL, namespace, bulk_id, now_ms)
    return await get(conn, namespace, bulk_id)


# $1 namespace, $2 id, $3 now
_CANCEL = """/* cancel bulk */
UPDATE bulk_operation o SET state = 4, ended_ms = $3 WHERE o.namespace = $1 AND o.id = $2 AND o.state <= 2"""


# ---- by owners -----------------------------------------------------------------------------

_SELF = "self AS MATERIALIZED (SELECT true AS alive FROM node n WHERE n.epoch = $3::bigint FOR KEY SHARE)"
_MINE = "o.namespace = $1 AND o.id = $2 AND o.owner_epoch = $3 AND (SELECT alive FROM self)"


async def take(conn: Connection, *, epoch: int, busy: Sequence[str], limit: int) -> list[Bulk]:
    """Become the owner of operations that nobody works on, the oldest first: nobody's, those of nodes
    that are gone, and our own but for the `busy` ones."""
    return [_bulk(row) for row in await conn.fetch(_TAKE, epoch, list(busy), limit)]


# $1 this node's epoch, $2 operations that are worked on here, $3 at most
_TAKE = f"""/* take bulk */
WITH self AS MATERIALIZED (SELECT true AS alive FROM node n WHERE n.epoch = $1::bigint FOR KEY SHARE),
free AS MATERIALIZED (
  SELECT o.namespace, o.id FROM bulk_operation o LEFT JOIN node n ON n.epoch = o.owner_epoch
  WHERE o.state <= 2 AND (n.epoch IS NULL OR n.epoch = $1) AND o.id <> ALL ($2::uuid[])
    AND (SELECT alive FROM self)
  ORDER BY o.id LIMIT $3 FOR UPDATE OF o SKIP LOCKED)
UPDATE bulk_operation o SET owner_epoch = $1 FROM free f
WHERE o.namespace = f.namespace AND o.id = f.id RETURNING {_COLUMNS}"""


async def collect(
    conn: Connection,
    bulk: Bulk,
    found: Sequence[tuple[int, str]],
    *,
    epoch: int,
    last: bool,
    now_ms: int,
) -> Bulk | None:
    """Add a page of workflows, (created_ms, id), to the items; `last` ends the collecting. The operation
    as it is then, None where it is not ours any more."""
    position = found[-1] if found else bulk.collected or (None, None)
    row = await conn.fetchrow(
        _COLLECT,
        bulk.namespace,
        bulk.id,
        epoch,
        bulk.total,
        [workflow_id for _, workflow_id in found],
        *position,
        last,
        now_ms,
    )
    return None if row is None else _bulk(row)


# $1 namespace, $2 id, $3 this node's epoch, $4 items so far, $5 workflows, $6 and $7 the last one's place,
# $8 no more follow, $9 now
_COLLECT = f"""/* collect bulk */
WITH {_SELF},
op AS (
  UPDATE bulk_operation o SET total = o.total + cardinality($5::uuid[]), collected_ms = $6::bigint,
    collected_id = $7::uuid,
    state = CASE WHEN NOT $8 THEN 1 WHEN o.total + cardinality($5::uuid[]) = 0 THEN 3 ELSE 2 END,
    ended_ms = CASE WHEN $8 AND o.total + cardinality($5::uuid[]) = 0 THEN $9::bigint ELSE 0 END
  WHERE {_MINE} AND o.state = 1 AND o.total = $4 RETURNING {_COLUMNS}),
items AS (
  INSERT INTO bulk_item (namespace, bulk_id, seq, workflow_id)
  SELECT $1, $2, $4 + i.seq, i.workflow_id
  FROM op CROSS JOIN unnest($5::uuid[]) WITH ORDINALITY i(workflow_id, seq))
SELECT * FROM op"""


async def claim(
    conn: Connection, bulk: Bulk, *, epoch: int, limit: int, action: str, now_ms: int
) -> list[Item] | None:
    """Begin the next items, and note in the audit who does what to each. None: it is not ours any more,
    or cancelled. The caller counts `claimed` on."""
    rows = await conn.fetch(_CLAIM, bulk.namespace, bulk.id, epoch, bulk.claimed, limit, action, now_ms)
    if not rows:
        return None
    return sorted((_item(row) for row in rows), key=lambda item: item.seq)


def _item(row: Any) -> Item:
    item = Item(row["seq"], str(row["workflow_id"]))
    if row["seen_revision"] is not None:
        item.seen = Facts(row["seen_revision"], row["seen_generation"], row["seen_ended_ms"])
    if row["revision"] is not None:
        item.now = Facts(row["revision"], row["generation"], row["ended_ms"])
    return item


# $1 namespace, $2 id, $3 this node's epoch, $4 items begun so far, $5 at most, $6 action, $7 now
_CLAIM = f"""/* claim bulk */
WITH {_SELF},
op AS MATERIALIZED (
  UPDATE bulk_operation o SET claimed = least(o.claimed + $5, o.total)
  WHERE {_MINE} AND o.state = 2 AND o.claimed = $4 RETURNING o.claimed, o.created_by),
facts AS MATERIALIZED (
  SELECT j.seq, w.revision, w.generation, w.ended_ms, op.created_by
  FROM op CROSS JOIN bulk_item j LEFT JOIN workflow w ON w.id = j.workflow_id AND w.namespace = $1
  WHERE j.namespace = $1 AND j.bulk_id = $2 AND j.seq > $4 AND j.seq <= $4 + $5),
trail AS (
  INSERT INTO audit (namespace, at_ms, principal, action, resource)
  SELECT $1, $7, f.created_by, $6, i.workflow_id::text FROM facts f
  JOIN bulk_item i ON i.namespace = $1 AND i.bulk_id = $2 AND i.seq = f.seq ORDER BY f.seq)
UPDATE bulk_item i SET state = 4, revision = f.revision, generation = f.generation,
  workflow_ended_ms = f.ended_ms
FROM facts f WHERE i.namespace = $1 AND i.bulk_id = $2 AND i.seq = f.seq
RETURNING i.seq, i.workflow_id, f.revision, f.generation, f.ended_ms,
  f.revision AS seen_revision, f.generation AS seen_generation, f.ended_ms AS seen_ended_ms"""


async def begun(conn: Connection, bulk: Bulk) -> list[Item]:
    """Items that were begun and not ended: of an owner that is gone."""
    return [_item(row) for row in await conn.fetch(_BEGUN, bulk.namespace, bulk.id, bulk.claimed)]


LOOK_BACK = 1_000
"""More than an owner has under way at once."""

# $1 namespace, $2 id, $3 items begun so far
_BEGUN = f"""/* bulk items begun */
SELECT i.seq, i.workflow_id, w.revision, w.generation, w.ended_ms,
  i.revision AS seen_revision, i.generation AS seen_generation, i.workflow_ended_ms AS seen_ended_ms
FROM bulk_item i LEFT JOIN workflow w ON w.id = i.workflow_id AND w.namespace = $1
WHERE i.namespace = $1 AND i.bulk_id = $2 AND i.seq > $3 - {LOOK_BACK} AND i.seq <= $3 AND i.state = 4
ORDER BY i.seq"""


async def finish(
    conn: Connection, bulk: Bulk, results: Sequence[tuple[int, bytes | None]], *, epoch: int, now_ms: int
) -> Bulk | None:
    """End items that were begun: (seq, error, None = done). The last one completes the operation. The
    operation as it is then, None where it is not ours any more: then nothing was written."""
    failed = sum(1 for _, error in results if error is not None)
    row = await conn.fetchrow(
        _FINISH,
        bulk.namespace,
        bulk.id,
        epoch,
        [seq for seq, _ in results],
        [error for _, error in results],
        len(results) - failed,
        failed,
        now_ms,
    )
    return None if row is None else _bulk(row)


# $1 namespace, $2 id, $3 this node's epoch, $4 items, $5 their errors, $6 done, $7 refused, $8 now
_FINISH = f"""/* finish bulk items */
WITH {_SELF},
op AS (
  UPDATE bulk_operation o SET succeeded = o.succeeded + $6::integer, failed = o.failed + $7::integer,
    state = CASE WHEN o.state = 2 AND o.succeeded + o.failed + $6 + $7 = o.total THEN 3 ELSE o.state END,
    ended_ms = CASE WHEN o.state = 2 AND o.succeeded + o.failed + $6 + $7 = o.total THEN $8::bigint
      ELSE o.ended_ms END
  WHERE {_MINE} RETURNING {_COLUMNS}),
done AS (
  UPDATE bulk_item i SET state = CASE WHEN r.error IS NULL THEN 2 ELSE 3 END, error = r.error
  FROM op CROSS JOIN unnest($4::integer[], $5::bytea[]) r(seq, error)
  WHERE i.namespace = $1 AND i.bulk_id = $2 AND i.seq = r.seq)
SELECT * FROM op"""


# ---- retention -----------------------------------------------------------------------------


async def forget(conn: Connection, *, ended_before_ms: int, limit: int) -> bool:
    """Remove up to `limit` items of one operation that ended before, and it with the last of them. False
    where there is no such operation."""
    row = await conn.fetchrow(_FORGET, ended_before_ms, limit)
    return bool(row["found"])


# $1 ended before, $2 items at most
_FORGET = """/* forget bulk */
WITH old AS MATERIALIZED (
  SELECT o.namespace, o.id FROM bulk_operation o WHERE o.ended_ms > 0 AND o.ended_ms < $1
  ORDER BY o.ended_ms LIMIT 1 FOR UPDATE SKIP LOCKED),
items AS MATERIALIZED (
  SELECT i.namespace, i.bulk_id, i.seq FROM old
  JOIN bulk_item i ON i.namespace = old.namespace AND i.bulk_id = old.id LIMIT $2),
gone AS (
  DELETE FROM bulk_item i USING items x
  WHERE i.namespace = x.namespace AND i.bulk_id = x.bulk_id AND i.seq = x.seq),
ended AS (
  DELETE FROM bulk_operation o USING old
  WHERE o.namespace = old.namespace AND o.id = old.id AND (SELECT count(*) FROM items) < $2)
SELECT EXISTS (SELECT FROM old) AS found"""
