"""Nodes: their rows, their leases, their beat, and what becomes of a dead one. DELIVERY 11 to 13.

A node is its epoch. Every statement that hands out work or writes a workflow begins with `ALIVE`:
it locks the node's own row FOR KEY SHARE and the rest reads it. Beats do not conflict with that
lock; a takeover, which deletes the row, waits for statements in flight.

A node also holds an advisory lock named by its epoch, on a connection of its own: when its process
dies the lock falls at once, long before the lease runs out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .database import Connection

BEAT_MS = 1_000
LEASE_MS = 4_000

TIME_TO_LIVE_MS = 5_000
"""How long a session outlives its stream. A worker fences itself after 4 s."""

ALIVE = "alive AS MATERIALIZED (SELECT epoch FROM node WHERE epoch = $1 FOR KEY SHARE)"
"""The first CTE of a guarded statement; $1 is the node's epoch. The rest must read it, and ends in
`FROM alive LEFT JOIN ...`, so that an answer without rows means `NodeLost`."""

_LIFE_LOCK = 0x4D61
"""First half of the advisory locks that prove life; the second is the epoch."""

_TAKEOVER_ROWS = 5_000
"""Rows that one statement of a takeover moves."""


class NodeLost(Exception):
    """This node's row is gone: others have taken over what it owned. The statement wrote nothing."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"node epoch {epoch} has been taken over")
        self.epoch = epoch


@dataclass(slots=True)
class NodeRow:
    """One server process."""

    epoch: int
    node_id: str
    grpc_address: str
    http_address: str
    version: str
    started_ms: int
    lease_until_ms: int
    draining: bool = False
    degraded: bool = False


@dataclass(slots=True)
class AskedDrain:
    """A worker is to finish what it holds; its stream is closed at `close_ms` at the latest."""

    session_id: str
    close_ms: int
    reason: str


@dataclass(slots=True)
class Pulse:
    """What one beat found for this node. `*_due_ms`: the earliest time, None where there is nothing."""

    deadline_due_ms: int | None
    """Of `deadline`: any node's business."""
    owned_due_ms: int | None
    """Of rows that this node owns."""
    asleep_due_ms: int | None
    """Of sleeping rows: any node's business."""
    inbox_due_ms: int | None
    """Of messages that this node drains."""
    session_due_ms: int | None
    """When the next of this node's ended streams expires."""
    sessions: int
    """How many ACTIVE sessions are this node's: another number than its open streams means that some
    have moved, or that a row has no stream (`sessions.serving`)."""
    ended: bool
    """Rows of this node are marked ended."""
    answered: bool
    """Commands of this node were answered."""
    draining: bool
    """An operator asks this node to drain."""
    nodes: list[NodeRow]
    """All node rows, this one included, by epoch."""
    dead: list[int]
    """Epochs of other nodes to take over: the lease has run out, or the lock that proves their
    life has fallen."""
    orphans: list[int]
    """Epochs without a node row that still own rows, sessions or messages."""
    waiting: list[tuple[str, str]]
    """Those of the queues asked about in which something waits: (namespace, queue)."""
    drains: list[AskedDrain]
    """Sessions of this node that an operator asks to drain: named with every beat until they end."""
    slot_work: bool = False
    """Slots of workflows may be given: any node's business."""


@dataclass(slots=True)
class Takeover:
    """What one round moved to the taker; nothing at all = done, or the rest is busy."""

    sessions: int
    rows: int
    messages: int

    @property
    def moved(self) -> int:
        return self.sessions + self.rows + self.messages


_NODE_COLUMNS = (
    "epoch, node_id, grpc_address, http_address, version, started_ms, lease_until_ms, draining, degraded"
)


async def new_epoch(conn: Connection) -> int:
    """An epoch that was never used and never will be again."""
    epoch: int = await conn.fetchval("SELECT nextval('node_epoch')")
    return epoch


async def prove_life(conn: Connection, epoch: int) -> bool:
    """Hold the lock of this epoch for as long as the connection lives; before `register`.

    False: another connection holds it, such as an own one that Postgres has not yet given up. Try
    again with the next beat."""
    # $1 and $2 name the lock
    proven: bool = await conn.fetchval("SELECT pg_try_advisory_lock($1::int, $2::int)", _LIFE_LOCK, epoch)
    return proven


async def stop_proving(conn: Connection, epoch: int) -> None:
    """Give the lock of an epoch back that this connection held."""
    # $1 and $2 name the lock
    await conn.execute("SELECT pg_advisory_unlock($1::int, $2::int)", _LIFE_LOCK, epoch)


async def register(conn: Connection, node: NodeRow) -> None:
    """Write a new node's row. Its epoch comes from `new_epoch` and its lock is held."""
    await conn.execute(
        f"INSERT INTO node ({_NODE_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        node.epoch,
        node.node_id,
        node.grpc_address,
        node.http_address,
        node.version,
        node.started_ms,
        node.lease_until_ms,
        node.draining,
        node.degraded,
    )


async def remove(conn: Connection, epoch: int) -> None:
    """Delete this node's own row, after statements in flight: it stops, or takes a new epoch. What
    it still owns is found as an orphan."""
    await conn.execute("DELETE FROM node WHERE epoch = $1", epoch)


async def list_nodes(conn: Connection) -> list[NodeRow]:
    """All node rows by epoch. A row whose lease has run out is not gone before its takeover."""
    rows = await conn.fetch(f"SELECT {_NODE_COLUMNS} FROM node ORDER BY epoch")
    return [NodeRow(*row) for row in rows]


async def set_draining(conn: Connection, epoch: int, draining: bool) -> bool:
    """Ask a node to drain, or not to; it sees it with its next beat. False: there is no such node."""
    # $1 epoch, $2 draining
    found = await conn.fetchval(
        "UPDATE node SET draining = $2 WHERE epoch = $1 RETURNING true", epoch, draining
    )
    return bool(found)


def _epochs(name: str, table: str, column: str, condition: str) -> str:
    """A loose scan: one index probe for each epoch in the column, whatever the number of rows."""
    return f"""{name}(epoch) AS (
  (SELECT {column} FROM {table} WHERE {column} > 0 {condition} ORDER BY {column} LIMIT 1)
  UNION ALL
  SELECT (SELECT {column} FROM {table} WHERE {column} > e.epoch {condition} ORDER BY {column} LIMIT 1)
  FROM {name} e WHERE e.epoch IS NOT NULL
)"""


# $1 epoch, $2 now, $3 new end of the lease, $4 namespaces and $5 queues with room, $6 whether fallen
# locks count, $7 the lock's first half
_PULSE = f"""
WITH RECURSIVE beat AS (
  UPDATE node SET lease_until_ms = $3 WHERE epoch = $1 RETURNING draining
),
{_epochs("owners", "task_queue", "owner_epoch", "")},
{_epochs("servers", "session", "epoch", "")},
{_epochs("drains", "inbox", "drain_epoch", "AND NOT parked AND outcome IS NULL")},
{_epochs("origins", "inbox", "origin_epoch", "AND outcome IS NOT NULL")},
dead AS (
  SELECT epoch FROM node
  WHERE epoch <> $1
    AND (lease_until_ms < $2 OR CASE WHEN $6 THEN pg_try_advisory_xact_lock_shared($7::int, epoch::int) END)
),
orphan AS (
  SELECT e.epoch FROM (
    SELECT epoch FROM owners UNION SELECT epoch FROM servers
    UNION SELECT epoch FROM drains UNION SELECT epoch FROM origins
  ) e
  WHERE e.epoch IS NOT NULL AND (SELECT true FROM node n WHERE n.epoch = e.epoch) IS NULL
)
SELECT
  (SELECT due_ms FROM deadline ORDER BY due_ms LIMIT 1) AS deadline_due_ms,
  (SELECT deadline_ms FROM task_queue WHERE owner_epoch = $1 AND deadline_ms IS NOT NULL
     ORDER BY deadline_ms LIMIT 1) AS owned_due_ms,
  (SELECT deadline_ms FROM task_queue WHERE owner_epoch = -1 AND deadline_ms IS NOT NULL
     ORDER BY deadline_ms LIMIT 1) AS asleep_due_ms,
  (SELECT due_ms FROM inbox WHERE drain_epoch = $1 AND NOT parked AND outcome IS NULL
     ORDER BY due_ms LIMIT 1) AS inbox_due_ms,
  (SELECT expires_ms FROM session WHERE epoch = $1 AND expires_ms IS NOT NULL
     ORDER BY expires_ms LIMIT 1) AS session_due_ms,
  (SELECT count(*) FROM session WHERE epoch = $1 AND expires_ms IS NULL) AS sessions,
  EXISTS (SELECT FROM task_queue WHERE owner_epoch = $1 AND ended) AS ended,
  EXISTS (SELECT FROM inbox WHERE origin_epoch = $1 AND outcome IS NOT NULL) AS answered,
  beat.draining AS draining,
  ARRAY(SELECT ROW({_NODE_COLUMNS}) FROM node ORDER BY epoch) AS nodes,
  ARRAY(SELECT epoch FROM dead ORDER BY epoch) AS dead,
  ARRAY(SELECT epoch FROM orphan ORDER BY epoch) AS orphans,
  ARRAY(
    SELECT ROW(a.namespace, a.queue) FROM unnest($4::text[], $5::text[]) AS a(namespace, queue)
    WHERE (
      SELECT true FROM task_queue q
      WHERE q.namespace = a.namespace AND q.queue = a.queue AND q.owner_epoch IS NULL AND NOT q.ended LIMIT 1
    )
  ) AS waiting,
  ARRAY(
    SELECT ROW(session_id, drain_close_ms, drain_reason) FROM session
    WHERE epoch = $1 AND drain_close_ms IS NOT NULL AND state = 'ACTIVE' ORDER BY session_id
  ) AS drains,
  EXISTS (SELECT FROM slot_work) AS slot_work
FROM beat
"""


async def pulse(
    conn: Connection,
    *,
    epoch: int,
    queues: Sequence[tuple[str, str]],
    now_ms: int,
    trust_locks: bool = False,
) -> Pulse:
    """The beat: the lease runs `LEASE_MS` from `now_ms`; and everything that is due for this node,
    found by index probes. `queues` are those, (namespace, queue), that have room for more.

    `trust_locks`: a fallen lock proves a death. Only where this node's own connection has been
    unbroken for one lease: after an outage all locks have fallen. Raises `NodeLost`."""
    row = await conn.fetchrow(
        _PULSE,
        epoch,
        now_ms,
        now_ms + LEASE_MS,
        [namespace for namespace, _ in queues],
        [queue for _, queue in queues],
        trust_locks,
        _LIFE_LOCK,
    )
    if row is None:
        raise NodeLost(epoch)
    found = dict(row)
    found["nodes"] = [NodeRow(*node) for node in found["nodes"]]
    found["waiting"] = [(namespace, queue) for namespace, queue in found["waiting"]]
    found["drains"] = [AskedDrain(str(session), close_ms, why) for session, close_ms, why in found["drains"]]
    return Pulse(**found)


# $1 the taker's epoch, $2 the dead one's, $3 now, $4 whether fallen locks count, $5 the lock's first half
_BURY = f"""
WITH {ALIVE},
gone AS (
  DELETE FROM node
  WHERE epoch = $2 AND EXISTS (SELECT FROM alive)
    AND (lease_until_ms < $3 OR CASE WHEN $4 THEN pg_try_advisory_xact_lock_shared($5::int, epoch::int) END)
  RETURNING epoch
)
SELECT EXISTS (SELECT FROM gone) OR NOT EXISTS (SELECT FROM node WHERE epoch = $2) AS dead FROM alive
"""

# $1 the taker's epoch, $2 the dead one's, $3 now, $4 end of the sessions' time, $5 rows at most.
# A row without a session counts as read, like all that is inherited; its worker is lost. A row whose
# session another node serves was handed out while the session moved: it follows it and is due there at
# once, as a row passed on (`sessions.pass_on`).
_INHERIT = f"""
WITH {ALIVE},
streams AS (
  UPDATE session s
  SET epoch = $1, expires_ms = coalesce(s.expires_ms, $4),
      state = CASE WHEN s.state = 'ACTIVE' THEN 'DETACHED' ELSE s.state END
  FROM (
    SELECT session_id FROM session WHERE epoch = $2 AND EXISTS (SELECT FROM alive)
    LIMIT $5 FOR UPDATE SKIP LOCKED
  ) p
  WHERE s.session_id = p.session_id
  RETURNING s.session_id
),
rows AS (
  UPDATE task_queue q
  SET owner_epoch = CASE
        WHEN p.lost AND q.redeliver_on_loss THEN NULL WHEN p.moved THEN p.served_by ELSE $1 END,
      session_id = CASE WHEN NOT p.lost THEN q.session_id END,
      deadline_ms = CASE WHEN p.moved THEN $3 WHEN NOT p.lost THEN q.deadline_ms
        WHEN NOT q.redeliver_on_loss THEN $3 END
  FROM (
    SELECT r.workflow_id, r.seq, r.served_by, NOT r.ended AND r.served_by IS NULL AS lost,
      NOT r.ended AND r.served_by <> $2 AS moved
    FROM (
      SELECT workflow_id, seq, ended, (
        SELECT s.epoch FROM session s WHERE s.session_id = task_queue.session_id
      ) AS served_by
      FROM task_queue WHERE owner_epoch = $2 AND $2 > 0 AND EXISTS (SELECT FROM alive)
      LIMIT $5 FOR UPDATE SKIP LOCKED
    ) r
  ) p
  WHERE q.workflow_id = p.workflow_id AND q.seq = p.seq
  RETURNING q.seq
),
messages AS (
  UPDATE inbox i SET drain_epoch = $1
  FROM (
    SELECT workflow_id, id FROM inbox
    WHERE drain_epoch = $2 AND NOT parked AND outcome IS NULL AND EXISTS (SELECT FROM alive)
    LIMIT $5 FOR UPDATE SKIP LOCKED
  ) p
  WHERE i.workflow_id = p.workflow_id AND i.id = p.id
  RETURNING i.id
),
answers AS (
  DELETE FROM inbox i
  USING (
    SELECT workflow_id, id FROM inbox
    WHERE origin_epoch = $2 AND outcome IS NOT NULL AND EXISTS (SELECT FROM alive)
    LIMIT $5 FOR UPDATE SKIP LOCKED
  ) p
  WHERE i.workflow_id = p.workflow_id AND i.id = p.id
  RETURNING i.id
),
offers AS (
  DELETE FROM demand WHERE epoch = $2 AND EXISTS (SELECT FROM alive)
)
SELECT (SELECT count(*) FROM streams), (SELECT count(*) FROM rows),
       (SELECT count(*) FROM messages) + (SELECT count(*) FROM answers)
FROM alive
"""


async def takeover(
    conn: Connection, *, epoch: int, dead: int, now_ms: int, trust_locks: bool = False
) -> Takeover | None:
    """Transition 11, one round: the dead node's row goes, its sessions and rows become this node's.

    Two statements in one transaction: the second one's snapshot sees the rows of saves that the
    deletion waited for. Busy rows are skipped: repeat until nothing moves, and see the next pulse
    for the rest. Its open streams count as ended now. None: the node lives. Raises `NodeLost`."""
    async with conn.transaction():
        is_dead = await conn.fetchval(_BURY, epoch, dead, now_ms, trust_locks, _LIFE_LOCK)
        if is_dead is None:
            raise NodeLost(epoch)
        if not is_dead:
            return None
        row = await conn.fetchrow(_INHERIT, epoch, dead, now_ms, now_ms + TIME_TO_LIVE_MS, _TAKEOVER_ROWS)
    if row is None:
        raise NodeLost(epoch)
    return Takeover(*row)
