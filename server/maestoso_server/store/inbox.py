"""Messages to a workflow that do not come from another workflow's save. DELIVERY 6.

A node that keeps losing races for a workflow puts its events here for the node that wins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..engine.decision import Message, MessageKind
from ..payload import Json
from .database import Connection
from .load import InboxMessage


@dataclass(slots=True)
class Post:
    """A message to put."""

    workflow_id: str
    kind: MessageKind
    body: Json
    due_ms: int = 0
    parked: bool = False
    """An early signal: wakes nobody."""
    origin_epoch: int = 0
    """The node that waits for the answer (`answered`); 0 = nobody does."""
    delivery: tuple[int, int] | None = None
    """(seq, delivery) that the message speaks for: its queue row must carry it, and ends here. That is
    the acceptance of a result."""


@dataclass(slots=True)
class Posted:
    """What became of posts, in order."""

    node_alive: bool
    ids: list[int | None]
    """The message's id; None where the delivery is not current, or the workflow does not exist."""
    drainers: list[int | None]
    """The node that is to apply it: the workflow's last one while it lives, else this one."""
    foreign: list[tuple[str, int, int]] = field(default_factory=list)
    """(workflow, seq, owner epoch) of queue rows left marked `ended` for their owner."""


async def put(conn: Connection, posts: Sequence[Post], *, epoch: int) -> Posted:
    """Put messages in one statement. A (workflow, seq) may be spoken for once."""
    keys = [(post.workflow_id, post.delivery or ()) for post in posts]
    order = sorted(range(len(posts)), key=keys.__getitem__)
    ordered = [posts[place] for place in order]
    deliveries = [post.delivery or (None, None) for post in ordered]
    rows = await conn.fetch(
        _PUT,
        epoch,
        [post.workflow_id for post in ordered],
        [post.kind for post in ordered],
        [post.body.raw for post in ordered],
        [post.due_ms for post in ordered],
        [post.parked for post in ordered],
        [post.origin_epoch for post in ordered],
        [seq for seq, _ in deliveries],
        [delivery for _, delivery in deliveries],
    )
    posted = Posted(bool(rows), [None] * len(posts), [None] * len(posts))
    for place, row in zip(order, rows, strict=False):
        posted.ids[place], posted.drainers[place] = row["id"], row["drain_epoch"]
        if row["foreign_epoch"] is not None:
            posted.foreign.append((posts[place].workflow_id, row["seq"], row["foreign_epoch"]))
    return posted


# $1 this node's epoch; of each post, sorted by key: $2 workflow, $3 kind, $4 body, $5 due, $6 parked,
# $7 origin, $8 seq and $9 delivery that it speaks for (NULL = none)
_PUT = """/* put messages */
WITH self AS MATERIALIZED (SELECT n.epoch FROM node n WHERE n.epoch = $1::bigint FOR KEY SHARE),
held AS MATERIALIZED (
  SELECT i.*, q.found, q.owner_epoch, coalesce(l.epoch, $1) AS drain_epoch
  FROM unnest($2::uuid[], $3::smallint[], $4::bytea[], $5::bigint[], $6::boolean[], $7::bigint[],
    $8::integer[], $9::integer[])
    WITH ORDINALITY i(workflow_id, kind, body, due_ms, parked, origin_epoch, seq, delivery, place)
  JOIN workflow w ON w.id = i.workflow_id
  LEFT JOIN node l ON l.epoch = w.last_node
  LEFT JOIN LATERAL (
    SELECT true AS found, q.owner_epoch FROM task_queue q
    WHERE q.workflow_id = i.workflow_id AND q.seq = i.seq AND q.delivery = i.delivery AND NOT q.ended
      AND (SELECT count(*) FROM self) = 1
    FOR UPDATE) q ON true
  WHERE (SELECT count(*) FROM self) = 1),
taken AS MATERIALIZED (
  SELECT h.*, row_number() OVER (ORDER BY h.place) AS rank FROM held h WHERE h.found OR h.seq IS NULL),
sent AS (
  INSERT INTO inbox (workflow_id, kind, body, due_ms, parked, drain_epoch, origin_epoch)
  SELECT t.workflow_id, t.kind, t.body, t.due_ms, t.parked, t.drain_epoch, t.origin_epoch
  FROM taken t ORDER BY t.place RETURNING id),
gone AS (
  DELETE FROM task_queue q USING taken t
  WHERE q.workflow_id = t.workflow_id AND q.seq = t.seq AND t.found
    AND (t.owner_epoch IS NULL OR t.owner_epoch <= 0 OR t.owner_epoch = $1)),
marked AS (
  UPDATE task_queue q SET ended = true FROM taken t
  WHERE q.workflow_id = t.workflow_id AND q.seq = t.seq AND t.owner_epoch > 0 AND t.owner_epoch <> $1)
SELECT s.id, t.drain_epoch, t.seq,
  CASE WHEN t.owner_epoch > 0 AND t.owner_epoch <> $1 THEN t.owner_epoch END AS foreign_epoch
FROM self CROSS JOIN generate_series(1, cardinality($2::uuid[])) p(place)
LEFT JOIN taken t ON t.place = p.place
LEFT JOIN (SELECT s.id, row_number() OVER (ORDER BY s.id) AS rank FROM sent s) s ON s.rank = t.rank
ORDER BY p.place"""


async def replace(
    conn: Connection, workflow_id: str, gone: Sequence[tuple[int, Message | None]], *, epoch: int
) -> list[InboxMessage]:
    """Delete messages to a workflow that does not exist, and send for each the reply it has, if any, in
    one statement: one that somebody else has deleted is not replied to. The replies that were sent."""
    replies = [(number, reply) for number, reply in gone if reply is not None]
    rows = await conn.fetch(
        _REPLACE,
        epoch,
        workflow_id,
        [number for number, _ in gone],
        [number for number, _ in replies],
        [reply.workflow_id for _, reply in replies],
        [reply.kind for _, reply in replies],
        [reply.body.raw for _, reply in replies],
    )
    return [
        InboxMessage(
            id=row["id"],
            workflow_id=str(row["workflow_id"]),
            sender_id=None,
            kind=MessageKind(row["kind"]),
            body=Json(row["body"]),
            due_ms=0,
            origin_epoch=0,
        )
        for row in rows
    ]


# $1 this node's epoch, $2 workflow, $3 message ids; of each reply: $4 message replied to, $5 workflow,
# $6 kind, $7 body
_REPLACE = """/* reply in place of messages */
WITH self AS MATERIALIZED (SELECT n.epoch FROM node n WHERE n.epoch = $1::bigint FOR KEY SHARE),
gone AS (
  DELETE FROM inbox x USING unnest($3::bigint[]) i(id)
  WHERE x.workflow_id = $2::uuid AND x.id = i.id AND (SELECT count(*) FROM self) = 1
    AND NOT EXISTS (SELECT FROM workflow w WHERE w.id = $2::uuid)
  RETURNING x.id)
INSERT INTO inbox (workflow_id, sender_id, kind, body, due_ms, parked, drain_epoch)
SELECT i.workflow_id, $2::uuid, i.kind, i.body, 0, false, $1
FROM unnest($4::bigint[], $5::uuid[], $6::smallint[], $7::bytea[]) i(replied, workflow_id, kind, body)
JOIN gone g ON g.id = i.replied
RETURNING id, workflow_id, kind, body"""


async def due_workflows(conn: Connection, *, epoch: int, now_ms: int, limit: int = 1000) -> list[str]:
    """The workflows that have due messages for this node to apply, the longest due first."""
    rows = await conn.fetch(_DUE, epoch, now_ms, limit)
    return list(dict.fromkeys(str(row["workflow_id"]) for row in rows))


# $1 epoch, $2 now, $3 messages at most
_DUE = """/* due messages */
SELECT x.workflow_id FROM inbox x
WHERE x.drain_epoch = $1 AND x.due_ms <= $2 AND NOT x.parked AND x.outcome IS NULL
ORDER BY x.due_ms LIMIT $3"""


class Answer(NamedTuple):
    """The outcome of a command that another node applied for this one."""

    workflow_id: str
    id: int
    outcome: bytes


async def take_answers(conn: Connection, *, epoch: int, limit: int = 1000) -> list[Answer]:
    """Answers to this node's commands; they are deleted here. Those of a dead node go with its takeover."""
    rows = await conn.fetch(_TAKE_ANSWERS, epoch, limit)
    return [Answer(str(row["workflow_id"]), row["id"], row["outcome"]) for row in rows]


# $1 epoch, $2 at most
_TAKE_ANSWERS = """/* take answers */
DELETE FROM inbox x USING (
  SELECT o.workflow_id, o.id FROM inbox o WHERE o.origin_epoch = $1 AND o.outcome IS NOT NULL LIMIT $2) a
WHERE x.workflow_id = a.workflow_id AND x.id = a.id
RETURNING x.workflow_id, x.id, x.outcome"""
