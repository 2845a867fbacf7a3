"""Slots of workflows under a `rateLimitConfig`: who holds one, who waits, and in which order.

A row of `workflow_slot` is written by the save that starts its workflow and deleted by the one that ends
it. Both leave word in `slot_work` that slots of that key may be given. Giving is a transaction of its own:
it locks the key, then sees in one snapshot the words (which it deletes) and the rows that they are about.
So no word is lost, whoever dies, and nothing is asked while there is none.

The lock is an advisory one: keys come from the inputs of workflows, and a table of them would only grow.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..engine import messages
from ..engine.decision import MessageKind
from .database import Connection
from .nodes import ALIVE, NodeLost

_LOCK_CLASS = 0x510751
"""First half of the advisory locks of slot keys."""
GIVEN_MOST = 200
"""Slots that one transaction gives."""


class SlotKey(NamedTuple):
    """What is limited: the running workflows of a definition's name with one key."""

    namespace: str
    name: str
    key: str


async def _lock(conn: Connection, keys: Sequence[SlotKey]) -> None:
    """Hold these keys to the end of the transaction; the same order everywhere."""
    for number in sorted({zlib.crc32("\x1f".join(key).encode()) - 2**31 for key in keys}):
        # $1 class, $2 key
        await conn.execute("SELECT pg_advisory_xact_lock($1::int, $2::int)", _LOCK_CLASS, number)


async def lock_and_count(conn: Connection, keys: Sequence[SlotKey]) -> dict[SlotKey, int]:
    """Hold these keys to the end of the transaction; how many workflows of each hold a slot or wait for
    one."""
    await _lock(conn, keys)
    rows = await conn.fetch(_COUNT, *_columns(keys))
    return {key: row["taken"] for key, row in zip(keys, rows, strict=True)}


# $1 namespaces, $2 names, $3 keys
_COUNT = """/* count slots */
SELECT (SELECT count(*) FROM workflow_slot s
        WHERE s.namespace = i.namespace AND s.name = i.name AND s.key = i.key) AS taken
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY i(namespace, name, key, place)
ORDER BY i.place"""


def _columns(keys: Sequence[SlotKey]) -> tuple[list[str], list[str], list[str]]:
    return [key.namespace for key in keys], [key.name for key in keys], [key.key for key in keys]


async def work(conn: Connection, *, limit: int = 100) -> list[SlotKey]:
    """Keys of which slots may be given."""
    # $1 at most
    rows = await conn.fetch(
        "SELECT DISTINCT namespace, name, key FROM (SELECT * FROM slot_work LIMIT $1) w ORDER BY 1, 2, 3",
        limit,
    )
    return [SlotKey(*row) for row in rows]


async def give(conn: Connection, key: SlotKey, *, epoch: int, now_ms: int) -> list[str]:
    """Give the free slots of a key to the first that wait, and tell those that no slot is left for and
    that may not wait. Returns the workflows that have a message now. Raises `NodeLost`."""
    async with conn.transaction():
        await _lock(conn, [key])
        rows = await conn.fetch(
            _GIVE,
            epoch,
            *key,
            GIVEN_MOST,
            int(MessageKind.SLOT_GRANTED),
            messages.slot_granted(None).raw,
            messages.slot_granted(refusal(key)).raw,
            now_ms,
        )
    if not rows:
        raise NodeLost(epoch)
    return [str(row["workflow_id"]) for row in rows if row["workflow_id"] is not None]


def refusal(key: SlotKey) -> str:
    """Why a start under REJECT does not run."""
    shown = f" with rateLimitKey {key.key!r}" if key.key else ""
    return (
        f"as many workflows {key.name!r}{shown} are running as rateLimitConfig.concurrentExecLimit allows; "
        "start it again when one has ended, raise the limit, or set rateLimitConfig.policy to QUEUE"
    )


# $1 epoch, $2 namespace, $3 name, $4 key, $5 at most, $6 kind of the message, $7 its body where a slot is
# given and $8 where it is refused, $9 now. Each waiting row is judged by the number of the definition version
# that its workflow runs.
_GIVE = f"""/* give slots */
WITH {ALIVE},
seen AS (
  DELETE FROM slot_work w
  WHERE w.namespace = $2 AND w.name = $3 AND w.key = $4 AND EXISTS (SELECT FROM alive)
),
held AS MATERIALIZED (
  SELECT count(*) AS n FROM workflow_slot s
  WHERE s.namespace = $2 AND s.name = $3 AND s.key = $4 AND s.holds
),
line AS MATERIALIZED (
  SELECT s.workflow_id, s.slots, s.refusable,
    row_number() OVER (ORDER BY s.rank, s.arrived_ms, s.workflow_id) AS place
  FROM (
    SELECT * FROM workflow_slot s
    WHERE s.namespace = $2 AND s.name = $3 AND s.key = $4 AND NOT s.holds AND EXISTS (SELECT FROM alive)
    ORDER BY s.rank, s.arrived_ms, s.workflow_id LIMIT $5::int
  ) s
),
judged AS MATERIALIZED (SELECT l.*, held.n + l.place <= l.slots AS fits FROM line l, held),
given AS (
  UPDATE workflow_slot s SET holds = true FROM judged j
  WHERE s.workflow_id = j.workflow_id AND j.fits AND NOT s.holds RETURNING s.workflow_id
),
refused AS (
  DELETE FROM workflow_slot s USING judged j
  WHERE s.workflow_id = j.workflow_id AND NOT j.fits AND j.refusable RETURNING s.workflow_id
),
more AS (
  INSERT INTO slot_work (namespace, name, key)
  SELECT $2, $3, $4 FROM (SELECT count(*) AS n FROM line l) l WHERE l.n = $5::int
    AND (SELECT bool_and(fits OR refusable) FROM judged)
),
sent AS (
  INSERT INTO inbox (workflow_id, kind, body, due_ms, parked, drain_epoch)
  SELECT g.workflow_id, $6::smallint, $7::bytea, $9::bigint, false, $1::bigint FROM given g
  UNION ALL
  SELECT r.workflow_id, $6::smallint, $8::bytea, $9::bigint, false, $1::bigint FROM refused r
  RETURNING workflow_id
)
SELECT s.workflow_id FROM alive LEFT JOIN sent s ON true
"""


@dataclass(slots=True, frozen=True)
class Place:
    """Where a workflow stands: `ahead` others wait before it; `held` of `slots` are taken."""

    key: SlotKey
    slots: int
    held: int
    ahead: int


async def place(conn: Connection, workflow_id: str) -> Place | None:
    """The place in line of a workflow that waits for its slot; None: it does not."""
    row = await conn.fetchrow(_PLACE, workflow_id)
    if row is None:
        return None
    return Place(SlotKey(row["namespace"], row["name"], row["key"]), row["slots"], row["held"], row["ahead"])


# $1 workflow
_PLACE = """/* place in line */
SELECT s.namespace, s.name, s.key, s.slots,
  (SELECT count(*) FROM workflow_slot o WHERE o.namespace = s.namespace AND o.name = s.name AND o.key = s.key
     AND o.holds) AS held,
  (SELECT count(*) FROM workflow_slot o WHERE o.namespace = s.namespace AND o.name = s.name AND o.key = s.key
     AND NOT o.holds
     AND (o.rank, o.arrived_ms, o.workflow_id) < (s.rank, s.arrived_ms, s.workflow_id)) AS ahead
FROM workflow_slot s WHERE s.workflow_id = $1 AND NOT s.holds"""
