"""Worker sessions: opened, moved between nodes, ended. DELIVERY 8, 9, 10, 12.

A session's row outlives its stream by the time to live. EXPIRED is final: `resume` refuses it from
then on, so exactly one of the two wins. An expired row stays until the last row of its session has
been dealt with, so that a crash in between loses nothing: the next node goes on with it.

A row that ends with its session and does not wait again stays its owner's, without a session and
due at once: "lost". The owner's deadlines (`deliveries.due_owned`) tell the engine, whoever owns
it by then.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from .database import Connection
from .deliveries import MOST_UNREAD, Delivery, Key, columns_of
from .nodes import ALIVE, TIME_TO_LIVE_MS, NodeLost
from .queue import QueueName, Taken, read


@dataclass(slots=True)
class Session:
    """One worker stream, as opened or listed. `resume_token_hash`: SHA-256 of the secret."""

    session_id: str
    epoch: int
    namespace: str
    worker_id: str
    resume_token_hash: bytes
    task_types: list[str]
    """Queue names: `domain:type`, or just the type."""
    principal: str
    sdk: str
    state: str
    """ACTIVE, DETACHED (its stream ended) or EXPIRED."""
    connected_ms: int
    """Rises with every resume, so it also tells one stream of the session from the next."""
    expires_ms: int | None = None


@dataclass(slots=True)
class Held:
    """A delivery as somebody remembers it."""

    workflow_id: str
    seq: int
    delivery: int


@dataclass(slots=True)
class KeptRow:
    """A delivery that the session still holds, now owned by the resuming node."""

    workflow_id: str
    seq: int
    delivery: int
    queue: str
    task_type: str
    priority: int
    size: int
    limit: int
    response_s: int
    started_ms: int
    """0: not marked read yet; being held, it was read."""


@dataclass(slots=True)
class Resumed:
    """The session goes on at this node. What was held and is not in `kept` is not the worker's.

    `redelivered`: rows that wait again, in the queues `waiting`; `lost`: rows that nobody read
    `MOST_UNREAD` times in a row, now due. `unsent` (with `adopt`): rows that the inventory lacks,
    to be sent under their delivery."""

    session: Session
    kept: list[KeptRow]
    redelivered: int
    waiting: set[QueueName]
    lost: int
    unsent: list[Taken]


@dataclass(slots=True)
class Expired:
    """What one round of expiry did. `lost` rows of this node are due now; `redelivered` ones wait
    again in the queues `waiting`; `left` sessions have rows left: call again."""

    sessions: set[str]
    lost: int
    redelivered: int
    waiting: set[QueueName]
    left: int


_COLUMNS = """s.session_id, s.epoch, s.namespace, s.worker_id, s.resume_token_hash, s.task_types, s.principal,
  s.sdk, s.state, s.connected_ms, s.expires_ms"""


def _session(row: Any) -> Session:
    session = Session(*row)
    session.session_id = str(session.session_id)
    return session


# $1 epoch, $2 to $10 the other columns but expires_ms
_OPEN = f"""
WITH {ALIVE}
INSERT INTO session (epoch, session_id, namespace, worker_id, resume_token_hash, task_types, principal, sdk,
  state, connected_ms)
SELECT epoch, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM alive
RETURNING true
"""


async def open_session(conn: Connection, session: Session) -> None:
    """Write a new session of this node (`session.epoch`), before its first delivery.

    Raises `NodeLost`."""
    written = await conn.fetchval(
        _OPEN,
        session.epoch,
        session.session_id,
        session.namespace,
        session.worker_id,
        session.resume_token_hash,
        session.task_types,
        session.principal,
        session.sdk,
        session.state,
        session.connected_ms,
    )
    if not written:
        raise NodeLost(session.epoch)


# $1 the new node's epoch, $2 session, $3 namespace, $4 hash of the token, $5 now, $6 NULL or when this node
# believes that it was connected, $7 the worker's number of the stream or 0
_MOVE = f"""
WITH {ALIVE},
moved AS (
  UPDATE session s SET epoch = $1, state = 'ACTIVE', expires_ms = NULL, departed = false,
    connected_ms = greatest($5, s.connected_ms + 1), stream_number = greatest(s.stream_number, $7)
  WHERE s.session_id = $2 AND s.namespace = $3 AND s.resume_token_hash = $4 AND s.state <> 'EXPIRED'
    AND ($6::bigint[] IS NULL OR s.connected_ms = ANY($6)) AND ($7::bigint = 0 OR s.stream_number < $7)
    AND EXISTS (SELECT FROM alive)
  RETURNING {_COLUMNS}
)
SELECT {_COLUMNS} FROM alive LEFT JOIN moved s ON true
"""

# What becomes of a row `q` of a session, by what is known of it in `p`.
_UNREAD_AGAIN = f"p.unread AND q.unread + 1 < {MOST_UNREAD}"

# $1 the new node's epoch, $2 session, $3 now, then the inventory as arrays: $4 workflow ids, $5 seqs,
# $6 deliveries; $7 whether the rest is new (adopted) and not unread.
# The first statement of the transaction holds this node's row. Rows that a save holds are waited for,
# in the order in which saves lock them.
_MOVE_ROWS = f"""
WITH p AS MATERIALIZED (
  SELECT q.workflow_id, q.seq, h.kept, NOT h.kept AND NOT $7::boolean AS unread
  FROM (
    SELECT workflow_id, seq, delivery FROM task_queue
    WHERE session_id = $2 AND owner_epoch > 0 AND NOT ended
    ORDER BY workflow_id, seq FOR UPDATE
  ) q
  CROSS JOIN LATERAL (SELECT (q.workflow_id, q.seq, q.delivery) IN (
    SELECT * FROM unnest($4::uuid[], $5::int[], $6::int[])
  ) AS kept) h
)
UPDATE task_queue q
SET owner_epoch = CASE WHEN {_UNREAD_AGAIN} THEN NULL ELSE $1::bigint END,
    session_id = CASE WHEN NOT p.unread THEN q.session_id END,
    unread = q.unread + p.unread::int,
    deadline_ms = CASE WHEN NOT p.unread THEN q.deadline_ms WHEN NOT ({_UNREAD_AGAIN}) THEN $3 END
FROM p WHERE q.workflow_id = p.workflow_id AND q.seq = p.seq
RETURNING q.workflow_id, q.seq, q.delivery, q.queue, q.task_type, 99 - q.rank, q.size, q.task_limit,
  q.response_s, q.started_ms, q.namespace, q.owner_epoch IS NULL AS waits, p.kept, p.unread
"""


async def resume(
    conn: Connection,
    *,
    epoch: int,
    session_id: str,
    namespace: str,
    resume_token_hash: bytes,
    held: Sequence[Delivery],
    now_ms: int,
    adopt: bool = False,
    since_ms: Sequence[int] | None = None,
    stream_number: int = 0,
) -> Resumed | None:
    """Transition 9: the session and what its worker holds belong to this node from now on.

    None: no such session, a wrong token, or it has expired. (Its time may be over: as long as
    nobody has expired it, its deliveries are its worker's.) Rows that the inventory lacks were
    unread: they wait again with `unread` + 1. With `adopt` (transition 12: the inventory is this
    node's own memory) they are new, stay the session's and come back as `unsent`; with `since_ms`
    only where `connected_ms` is one of these still: a node that was asleep must not take back a
    session that its worker has resumed elsewhere. `stream_number`, where it is counted, must be
    higher than at the last resume: a Hello that lay in a node that was asleep is outdated.
    One transaction of its own; raises `NodeLost`."""
    async with conn.transaction():
        moved = await conn.fetchrow(
            _MOVE, epoch, session_id, namespace, resume_token_hash, now_ms, since_ms, stream_number
        )
        if moved is None:
            raise NodeLost(epoch)
        if moved["session_id"] is None:
            return None
        rows = await conn.fetch(
            _MOVE_ROWS,
            epoch,
            session_id,
            now_ms,
            *columns_of(held),
            adopt,
        )
        new = [(str(row["workflow_id"]), row["seq"]) for row in rows if not row["kept"] and not row["unread"]]
        unsent = await read(conn, new) if new else []
    return Resumed(
        session=_session(moved),
        kept=[KeptRow(str(row[0]), *row[1:10]) for row in rows if row["kept"]],
        redelivered=sum(row["waits"] for row in rows),
        waiting={QueueName(row["namespace"], row["queue"]) for row in rows if row["waits"]},
        lost=sum(row["unread"] and not row["waits"] for row in rows),
        unsent=unsent,
    )


# $1 epoch, $2 sessions, $3 end of the time of each, $4 when each was connected, as far as is known, or NULL,
# $5 whether it has departed. When it was connected tells a stream as well as its node does, and better: the
# node may be about to rejoin, and the row still stand under its old epoch.
_DETACH = """
UPDATE session s SET state = 'DETACHED', expires_ms = a.expires_ms, departed = a.departed
FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::boolean[])
  AS a(session_id, expires_ms, connected_ms, departed)
WHERE s.session_id = a.session_id AND (s.epoch = $1 OR a.connected_ms IS NOT NULL) AND s.state = 'ACTIVE'
  AND s.connected_ms <= coalesce(a.connected_ms, s.connected_ms)
RETURNING s.session_id
"""


async def detach(
    conn: Connection,
    *,
    epoch: int,
    session_ids: Sequence[str],
    now_ms: int,
    connected_ms: Sequence[int] | None = None,
    departed: Collection[str] = (),
) -> set[str]:
    """Transition 8: these streams have ended; their sessions live on for `TIME_TO_LIVE_MS`. Those that have
    `departed` do not: their workers took their leave with empty hands, and nobody resumes them.

    Answers those that were this node's and, with `connected_ms` (one for each), that were not resumed
    later than that, at this node or another: a resume may overtake the word of the older stream's end."""
    known = connected_ms if connected_ms is not None else [None] * len(session_ids)
    gone = [session_id in departed for session_id in session_ids]
    expires_ms = [now_ms if left else now_ms + TIME_TO_LIVE_MS for left in gone]
    rows = await conn.fetch(_DETACH, epoch, session_ids, expires_ms, known, gone)
    return {str(row["session_id"]) for row in rows}


# $1 epoch, $2 now, then deliveries known to be unread as arrays: $3 workflow ids, $4 seqs,
# $5 deliveries; $6 rows at most
_EXPIRE = f"""
WITH {ALIVE},
over AS (
  UPDATE session SET state = 'EXPIRED'
  WHERE epoch = $1 AND expires_ms <= $2 AND state = 'DETACHED' AND EXISTS (SELECT FROM alive)
  RETURNING session_id, departed
),
ending AS MATERIALIZED (
  SELECT session_id, departed FROM over
  UNION
  SELECT session_id, departed FROM session
  WHERE epoch = $1 AND expires_ms <= $2 AND state = 'EXPIRED' AND EXISTS (SELECT FROM alive)
),
p AS MATERIALIZED (
  SELECT q.workflow_id, q.seq, u.unread, NOT u.unread AND q.redeliver_on_loss AS again
  FROM (
    SELECT q.workflow_id, q.seq, q.delivery, q.redeliver_on_loss, e.departed
    FROM ending e JOIN task_queue q ON q.session_id = e.session_id
    WHERE q.owner_epoch > 0 AND NOT q.ended
    LIMIT $6 FOR UPDATE OF q SKIP LOCKED
  ) q
  CROSS JOIN LATERAL (SELECT q.departed OR (q.workflow_id, q.seq, q.delivery) IN (
    SELECT * FROM unnest($3::uuid[], $4::int[], $5::int[])
  ) AS unread) u
),
done AS (
  UPDATE task_queue q
  SET owner_epoch = CASE WHEN p.again OR {_UNREAD_AGAIN} THEN NULL ELSE $1::bigint END,
      session_id = NULL,
      unread = CASE WHEN p.unread THEN q.unread + 1 ELSE 0 END,
      deadline_ms = CASE WHEN NOT (p.again OR {_UNREAD_AGAIN}) THEN $2 END
  FROM p WHERE q.workflow_id = p.workflow_id AND q.seq = p.seq
  RETURNING q.namespace, q.queue, q.owner_epoch IS NULL AS waits
)
SELECT ARRAY(SELECT session_id FROM over) AS sessions, d.namespace, d.queue, d.waits
FROM alive LEFT JOIN done d ON true
"""

# $1 epoch, $2 now
_BURY = f"""
WITH {ALIVE},
ending AS MATERIALIZED (
  SELECT s.session_id, (
    SELECT true FROM task_queue q WHERE q.session_id = s.session_id AND NOT q.ended LIMIT 1
  ) IS NOT NULL AS owes
  FROM session s
  WHERE s.epoch = $1 AND s.expires_ms <= $2 AND s.state = 'EXPIRED' AND EXISTS (SELECT FROM alive)
),
gone AS (
  DELETE FROM session s USING ending e WHERE s.session_id = e.session_id AND NOT e.owes
)
SELECT count(*) FROM ending WHERE owes
"""


async def expire(
    conn: Connection, *, epoch: int, unread: Sequence[Delivery], now_ms: int, limit: int = 1000
) -> Expired:
    """Transition 10, one round: this node's sessions whose time is over end, and their rows with
    them, whoever owns those.

    `unread`: deliveries of such sessions that this node itself knows were never read; they wait
    again with `unread` + 1, as do all of a session that departed. All others were read: their worker is
    lost, unless their definition has them wait again (`redeliver_on_loss`). Raises `NodeLost`."""
    rows = await conn.fetch(
        _EXPIRE,
        epoch,
        now_ms,
        *columns_of(unread),
        limit,
    )
    if not rows:
        raise NodeLost(epoch)
    left: int = await conn.fetchval(_BURY, epoch, now_ms)
    changed = [row for row in rows if row["waits"] is not None]
    back = [row for row in changed if row["waits"]]
    return Expired(
        sessions={str(session_id) for session_id in rows[0]["sessions"]},
        lost=len(changed) - len(back),
        redelivered=len(back),
        waiting={QueueName(row["namespace"], row["queue"]) for row in back},
        left=left,
    )


async def serving(conn: Connection, *, epoch: int) -> set[str]:
    """The sessions whose stream is at this node, as the database has it."""
    # $1 epoch
    rows = await conn.fetch("SELECT session_id FROM session WHERE epoch = $1 AND expires_ms IS NULL", epoch)
    return {str(row["session_id"]) for row in rows}


# $1 epoch, $2 sessions
_HELD_BY = """
SELECT workflow_id, seq, delivery FROM task_queue
WHERE session_id = ANY($2::uuid[]) AND coalesce(owner_epoch, -2) = $1 AND NOT ended
"""


async def held_by(conn: Connection, *, epoch: int, session_ids: Sequence[str]) -> list[Held]:
    """The deliveries of these sessions that are this node's, as the database has them."""
    return [Held(str(row[0]), row[1], row[2]) for row in await conn.fetch(_HELD_BY, epoch, session_ids)]


# $1 epoch, $2 session, $3 now
_PASS_ON = f"""
WITH {ALIVE},
followed AS (
  UPDATE task_queue q SET owner_epoch = p.epoch, deadline_ms = $3
  FROM (
    SELECT q.workflow_id, q.seq, s.epoch
    FROM task_queue q JOIN session s ON s.session_id = q.session_id JOIN node n ON n.epoch = s.epoch
    WHERE q.session_id = $2 AND q.owner_epoch = $1 AND s.epoch <> $1 AND NOT q.ended
      AND EXISTS (SELECT FROM alive)
    FOR UPDATE OF q SKIP LOCKED
  ) p
  WHERE q.workflow_id = p.workflow_id AND q.seq = p.seq
  RETURNING q.workflow_id, q.seq
)
SELECT f.workflow_id, f.seq FROM alive LEFT JOIN followed f ON true
"""


async def pass_on(conn: Connection, *, epoch: int, session_id: str, now_ms: int) -> set[Key]:
    """The old node's half of 9: rows of mine that were born for a session while it moved follow it.

    They are due there at once: that node does not know them yet, and sends them (again) under
    their delivery. Raises `NodeLost`."""
    rows = await conn.fetch(_PASS_ON, epoch, session_id, now_ms)
    if not rows:
        raise NodeLost(epoch)
    return {Key(str(row["workflow_id"]), row["seq"]) for row in rows if row["seq"] is not None}


# $1 namespace or NULL, $2 after this id, $3 at most, $4 state or NULL
_LIST = f"""
SELECT {_COLUMNS} FROM session s
WHERE s.session_id > $2 AND s.namespace = coalesce($1, s.namespace) AND s.state = coalesce($4, s.state)
ORDER BY s.session_id LIMIT $3
"""


async def list_sessions(
    conn: Connection,
    *,
    namespace: str | None = None,
    state: str | None = None,
    after: str = "00000000-0000-0000-0000-000000000000",
    limit: int = 1000,
) -> list[Session]:
    """Sessions by id, of one namespace or of all, in one state or in any; `after` is the last one of
    the page before."""
    return [_session(row) for row in await conn.fetch(_LIST, namespace, after, limit, state)]


# $1 session, $2 namespace, $3 when its stream is closed at the latest, $4 why. Asked twice, the
# earlier end holds.
_ASK_DRAIN = """
UPDATE session SET drain_close_ms = least(drain_close_ms, $3), drain_reason = coalesce(drain_reason, $4)
WHERE session_id = $1 AND namespace = $2 AND state = 'ACTIVE'
RETURNING true
"""


async def ask_drain(conn: Connection, *, namespace: str, session_id: str, reason: str, close_ms: int) -> bool:
    """Ask a worker to finish what it holds; its node sees it with its next beat (`Pulse.drains`).

    False: there is no such session with a stream."""
    return bool(await conn.fetchval(_ASK_DRAIN, session_id, namespace, close_ms, reason))
