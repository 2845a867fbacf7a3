"""From waiting to handed out: the takes of DELIVERY, and what can be asked of the waiting rows.

All takes read the same index in the same order (rank, due, workflow, seq) and skip rows that
somebody else is taking. Each is one UPDATE of at most `MOST` rows, conditional on the taker's own
node row (`nodes.ALIVE`): a node that lost its lease takes nothing and gets `NodeLost`. What a
worker must be told comes back in the same statement.

Tasks under a `concurrentExecLimit` are taken by the takes that hold the limit's lock, only: a
plain take stops before the first such row and says so in `Take.limited`.

The statements expect a connection of `Database`, which pins index plans.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..engine.state import TaskStatus
from ..payload import Json
from .clocks import first_start, next_clock
from .database import Connection
from .nodes import ALIVE, NodeLost
from .rows import decode_state

MOST = 1000
"""Rows of one take."""

LOWEST_PRIORITY_RANK = 99
"""`rank` of priority 0: rank = 99 - priority, so that the index order is the order of hand-out."""


class Watermark(NamedTuple):
    """The last row taken from a queue: a hint that nothing waits before it *within its rank*.

    It saves a take from walking over the dead index entries of a long drain. Rows of a more urgent
    rank are always looked for. Drop it when a take comes back short, and every second."""

    rank: int
    due_ms: int
    workflow_id: str
    seq: int


class QueueName(NamedTuple):
    """A queue: task type with its domain (`domain:type`, or just the type), in its namespace."""

    namespace: str
    queue: str


@dataclass(slots=True)
class Taken:
    """A row that was just handed out: all that its `Assignment` and its owner's memory need."""

    workflow_id: str
    seq: int
    delivery: int
    session_id: str | None
    """None for a polled one."""
    unread: int
    """Earlier deliveries in a row that nobody is known to have read."""
    namespace: str
    queue: str
    task_type: str
    priority: int
    due_ms: int
    size: int
    limit: int
    response_s: int
    timeout_s: int
    total_due_ms: int
    redeliver_on_loss: bool
    # of the task
    generation: int
    reference: str
    path: tuple[int, ...]
    attempt: int
    scheduled_ms: int
    input: Json
    # of its workflow
    workflow_name: str
    correlation_id: str
    """Empty = none."""
    traceparent: str
    state: dict[str, Any] | None = None
    """Of the task, see `TaskRow`: where its input holds placeholders of secrets, for one."""

    @property
    def watermark(self) -> Watermark:
        return Watermark(LOWEST_PRIORITY_RANK - self.priority, self.due_ms, self.workflow_id, self.seq)


@dataclass(slots=True)
class Take:
    """What a take brought, in order of hand-out.

    `limited`: a task under a limit stood at the head, so whoever wants more calls `take_limited`.
    (Of `take_limited` itself: the limit kept rows back.)"""

    rows: list[Taken]
    limited: bool


@dataclass(slots=True)
class Depth:
    """One queue. `depth` counts rows that wait and are due; `exact` is False where counting stopped
    at the cap. `oldest_age_ms` is since the oldest of them was due."""

    namespace: str
    queue: str
    depth: int
    oldest_age_ms: int
    exact: bool


_ORDER = "q.rank, q.due_ms, q.workflow_id, q.seq"

_WAITS = """q.namespace = $2 AND q.queue = $3 AND q.owner_epoch IS NULL AND NOT q.ended
  AND EXISTS (SELECT FROM alive)"""

_TAKEN = f"""
  q.workflow_id, q.seq, q.delivery, q.session_id, q.unread, q.namespace, q.queue, q.task_type,
  {LOWEST_PRIORITY_RANK} - q.rank, q.due_ms, q.size, q.task_limit, q.response_s, q.timeout_s, q.total_due_ms,
  q.redeliver_on_loss, t.generation, t.reference, t.path, t.attempt, t.scheduled_ms, t.input,
  w.name, coalesce(w.correlation_id, ''), p.traceparent, t.state"""
"""The fields of `Taken`, in order."""

# LATERAL with its own LIMIT, so that every plan looks these up by key, row by row.
_TAKEN_FROM = """q
  CROSS JOIN LATERAL (SELECT * FROM task t WHERE t.workflow_id = q.workflow_id AND t.seq = q.seq LIMIT 1) t
  CROSS JOIN LATERAL (SELECT name, correlation_id FROM workflow w WHERE w.id = q.workflow_id LIMIT 1) w
  CROSS JOIN LATERAL (
    SELECT traceparent FROM workflow_payload p WHERE p.workflow_id = q.workflow_id LIMIT 1
  ) p"""


class _Taker(NamedTuple):
    """The parts of a take that depend on who takes. `asked`: how many rows at most."""

    asked: str
    task: str
    owner: str
    after: str


_STREAMS = _Taker(
    asked="cardinality($4::uuid[])",
    task="",
    owner="owner_epoch = $1, session_id = ($4::uuid[])[h.place], deadline_ms = NULL",
    after="",
)

# Locks the task rows along (and skips those that a save holds): it writes them.
_POLLER = _Taker(
    asked="$4::int",
    task="""CROSS JOIN LATERAL (
    SELECT FROM task t WHERE t.workflow_id = q.workflow_id AND t.seq = q.seq FOR UPDATE SKIP LOCKED
  ) t""",
    owner=f"""owner_epoch = 0, session_id = NULL, deadline_ms = NULL, unread = 0, worker_id = $10,
      started_ms = {first_start("q", "$9")}, progress_ms = $9""",
    after=f""",
begun AS (
  UPDATE task t
  SET status = {int(TaskStatus.IN_PROGRESS)}, started_ms = {first_start("t", "$9")}, updated_ms = $9,
      worker_id = $10, poll_count = t.poll_count + 1, callback_after_s = 0
  FROM taken q WHERE t.workflow_id = q.workflow_id AND t.seq = q.seq
),
clocks AS (
  INSERT INTO deadline (workflow_id, seq, due_ms)
  SELECT q.workflow_id, q.seq, {next_clock("q.started_ms", "q.progress_ms")} FROM taken q
  WHERE {next_clock("q.started_ms", "q.progress_ms")} IS NOT NULL
  ORDER BY q.workflow_id, q.seq
  ON CONFLICT (workflow_id, seq) DO UPDATE SET due_ms = excluded.due_ms
)""",
)


class _Admission(NamedTuple):
    """The parts of a take that depend on the limit. `kept_back` answers `Take.limited`."""

    room: str
    most: str
    fits: str
    kept_back: str


def _up_to_a_limited_one(taker: _Taker) -> _Admission:
    """Takes in order, and stops before the first row that has a limit."""
    return _Admission(
        room="",
        most=taker.asked,
        fits="NOT bool_or(q.task_limit > 0) OVER first",
        kept_back="EXISTS (SELECT FROM head WHERE NOT fits)",
    )


def _within_the_limit(taker: _Taker, task_type: str) -> _Admission:
    """Takes what the limit of the first row leaves; rows with other limits keep to their own."""
    return _Admission(
        room=f"""
held AS MATERIALIZED (
  SELECT count(*)::int AS n FROM task_queue
  WHERE namespace = $2 AND task_type = {task_type} AND owner_epoch IS NOT NULL AND owner_epoch >= 0
    AND task_limit > 0 AND NOT ended
),
room AS MATERIALIZED (
  SELECT CASE WHEN q.task_limit = 0 THEN {taker.asked} ELSE greatest(q.task_limit - held.n, 0) END AS n
  FROM held, (SELECT q.task_limit FROM task_queue q WHERE {_WAITS} ORDER BY {_ORDER} LIMIT 1) q
),""",
        most=f"least({taker.asked}, (SELECT coalesce(max(n), 0) FROM room))",
        fits="""q.task_limit = 0 OR (SELECT n FROM held)
         + count(*) FILTER (WHERE q.task_limit > 0) OVER first <= q.task_limit""",
        kept_back=f"(SELECT coalesce(max(n), {taker.asked}) FROM room) < {taker.asked}",
    )


def _take(taker: _Taker, admission: _Admission) -> str:
    """The text of a take.

    $1 epoch, $2 namespace, $3 queue, $4 sessions (of a poller: how many rows), $5 to $8 watermark;
    of a poller: $9 now, $10 worker; under a limit the task type comes last.

    The first rows are looked for in two scans: what is more urgent than the watermark, then what
    comes after it. Locked rows cannot move, so they are updated by their place in the table: by key,
    a plan made while the queue was empty would read all of it. (A row that changed between this
    statement's snapshot and its lock has another place, and is left for the next take.) The constant
    limit tells the planner that few rows come: it cannot see $4."""
    columns = f"q.ctid AS place_in_table, {_ORDER}, q.task_limit"
    scan = f"SELECT {columns} FROM task_queue q {taker.task} WHERE {_WAITS}"
    lock = "FOR UPDATE OF q SKIP LOCKED"
    return f"""
WITH {ALIVE},{admission.room}
urgent AS MATERIALIZED (
  {scan} AND q.rank < $5 ORDER BY {_ORDER} LIMIT {admission.most} {lock}
),
rest AS MATERIALIZED (
  {scan} AND ({_ORDER}) > ($5, $6, $7::uuid, $8) ORDER BY {_ORDER}
  LIMIT {admission.most} - (SELECT count(*) FROM urgent) {lock}
),
head AS MATERIALIZED (
  SELECT q.place_in_table, row_number() OVER first AS place, {admission.fits} AS fits
  FROM (SELECT * FROM urgent UNION ALL SELECT * FROM rest) q
  WINDOW first AS (ORDER BY {_ORDER} ROWS UNBOUNDED PRECEDING)
  LIMIT {MOST}
),
taken AS (
  UPDATE task_queue q SET {taker.owner}, delivery = q.delivery + 1
  FROM head h WHERE q.ctid = h.place_in_table AND h.fits
  RETURNING q.*, h.place
){taker.after}
SELECT {admission.kept_back} AS kept_back, {_TAKEN}
FROM alive LEFT JOIN (taken {_TAKEN_FROM}) ON true
ORDER BY q.place
"""


_TAKE = _take(_STREAMS, _up_to_a_limited_one(_STREAMS))
_TAKE_LIMITED = _take(_STREAMS, _within_the_limit(_STREAMS, "$9"))
_TAKE_POLLED = _take(_POLLER, _up_to_a_limited_one(_POLLER))
_TAKE_POLLED_LIMITED = _take(_POLLER, _within_the_limit(_POLLER, "$11"))

# $1 epoch, $2 namespace, $3 task type
_LOCK_LIMIT = f"""
WITH {ALIVE},
locked AS MATERIALIZED (
  SELECT true AS held FROM task_limit
  WHERE namespace = $2 AND task_type = $3 AND EXISTS (SELECT FROM alive) FOR UPDATE
)
SELECT l.held FROM alive LEFT JOIN locked l ON true
"""

_ANYTHING = Watermark(-1, 0, "00000000-0000-0000-0000-000000000000", 0)
"""Before every row: ranks begin at 0."""


async def take(
    conn: Connection,
    *,
    epoch: int,
    namespace: str,
    queue: str,
    sessions: Sequence[str],
    after: Watermark | None = None,
) -> Take:
    """Transition 2: hand the first waiting rows of a queue to `sessions`, the i-th to the i-th.

    A session may stand in the list as often as it has room; at most `MOST` entries. The backlog
    costs nothing, each row O(log n). Raises `NodeLost`; then nothing was taken."""
    rows = await conn.fetch(_TAKE, epoch, namespace, queue, sessions, *(after or _ANYTHING))
    return _taking(epoch, rows)


async def take_limited(
    conn: Connection,
    *,
    epoch: int,
    namespace: str,
    queue: str,
    task_type: str,
    sessions: Sequence[str],
    after: Watermark | None = None,
) -> Take:
    """Transition 2 for a task type with a limit: as `take`, never beyond the limit.

    Opens a transaction and locks (namespace, task_type) first: takers of one type go one after the
    other, on all nodes. Every owned row of the type counts, polled ones too, in whatever domain."""
    async with conn.transaction():
        await _lock_limit(conn, epoch, namespace, task_type)
        asked = (epoch, namespace, queue, sessions, *(after or _ANYTHING), task_type)
        return _taking(epoch, await conn.fetch(_TAKE_LIMITED, *asked))


async def take_polled(
    conn: Connection,
    *,
    epoch: int,
    namespace: str,
    queue: str,
    worker_id: str,
    count: int,
    now_ms: int,
    limited_type: str | None = None,
) -> Take:
    """Transition 14: as `take`, for a poller. Start, worker and clocks are committed with it.

    The rows belong to no node (`owner_epoch` 0); their clocks are rows of `deadline`. After a take
    that said `limited`, give the task type as `limited_type`: then as `take_limited`."""
    asked = (epoch, namespace, queue, count, *_ANYTHING, now_ms, worker_id)
    if limited_type is None:
        return _taking(epoch, await conn.fetch(_TAKE_POLLED, *asked))
    async with conn.transaction():
        await _lock_limit(conn, epoch, namespace, limited_type)
        return _taking(epoch, await conn.fetch(_TAKE_POLLED_LIMITED, *asked, limited_type))


async def _lock_limit(conn: Connection, epoch: int, namespace: str, task_type: str) -> None:
    """Hold the node's row, then the limit's, to the end of the transaction. The next statement's
    snapshot then sees all that earlier holders took."""
    while True:
        row = await conn.fetchrow(_LOCK_LIMIT, epoch, namespace, task_type)
        if row is None:
            raise NodeLost(epoch)
        if row["held"]:
            return
        # $1 namespace, $2 task type: the first taker of this type ever
        await conn.execute(
            "INSERT INTO task_limit (namespace, task_type) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            namespace,
            task_type,
        )


def _taking(epoch: int, rows: Sequence[Any]) -> Take:
    if not rows:
        raise NodeLost(epoch)
    return Take([_taken(row[1:]) for row in rows if row["seq"] is not None], bool(rows[0]["kept_back"]))


def _taken(row: Any) -> Taken:
    taken = Taken(*row)
    taken.workflow_id = str(taken.workflow_id)
    taken.session_id = None if taken.session_id is None else str(taken.session_id)
    taken.path = tuple(taken.path)
    taken.input = Json(row[21])
    if taken.state is not None:
        taken.state = decode_state(row[25])
    return taken


# $1 workflow ids, $2 seqs
_READ = f"""
SELECT {_TAKEN}
FROM unnest($1::uuid[], $2::int[]) AS a(workflow_id, seq)
CROSS JOIN LATERAL (
  SELECT * FROM task_queue q WHERE q.workflow_id = a.workflow_id AND q.seq = a.seq LIMIT 1
) {_TAKEN_FROM}
"""


async def read(conn: Connection, keys: Sequence[tuple[str, int]]) -> list[Taken]:
    """The rows (workflow id, seq) as they stand, in any order; those that are gone are left out."""
    rows = await conn.fetch(_READ, [workflow_id for workflow_id, _ in keys], [seq for _, seq in keys])
    return [_taken(row) for row in rows]


# $1 namespaces, $2 queues
_BACKLOG = """
SELECT a.namespace, a.queue FROM unnest($1::text[], $2::text[]) AS a(namespace, queue)
WHERE (
  SELECT true FROM task_queue q
  WHERE q.namespace = a.namespace AND q.queue = a.queue AND q.owner_epoch IS NULL AND NOT q.ended LIMIT 1
)
"""


async def backlog(conn: Connection, queues: Collection[tuple[str, str]]) -> set[QueueName]:
    """Those of the queues (namespace, queue) in which something waits. One index probe each."""
    rows = await conn.fetch(_BACKLOG, [namespace for namespace, _ in queues], [queue for _, queue in queues])
    return {QueueName(*row) for row in rows}


# A loose scan finds the first row of each (namespace, queue, rank) by one index probe. Its due_ms is
# the oldest of its rank, so the oldest of the queue is among them.
# $1 namespace or NULL, $2 rows counted at most
_DEPTHS = """
WITH RECURSIVE first AS (
  (SELECT namespace, queue, rank, due_ms FROM task_queue
   WHERE owner_epoch IS NULL AND NOT ended AND namespace >= coalesce($1, '')
   ORDER BY namespace, queue, rank, due_ms LIMIT 1)
  UNION ALL
  SELECT n.namespace, n.queue, n.rank, n.due_ms
  FROM first f CROSS JOIN LATERAL (
    SELECT namespace, queue, rank, due_ms FROM task_queue
    WHERE owner_epoch IS NULL AND NOT ended AND (namespace, queue, rank) > (f.namespace, f.queue, f.rank)
    ORDER BY namespace, queue, rank, due_ms LIMIT 1
  ) n
  WHERE f.namespace = coalesce($1, f.namespace)
)
SELECT f.namespace, f.queue, min(f.due_ms) AS oldest_ms, (
  SELECT count(*) FROM (
    SELECT FROM task_queue q
    WHERE q.namespace = f.namespace AND q.queue = f.queue AND q.owner_epoch IS NULL AND NOT q.ended
    LIMIT $2
  ) counted
) AS depth
FROM first f WHERE f.namespace = coalesce($1, f.namespace)
GROUP BY f.namespace, f.queue
ORDER BY f.namespace, f.queue
"""


async def depths(
    conn: Connection, *, now_ms: int, namespace: str | None = None, cap: int = 100_000
) -> list[Depth]:
    """Every queue in which something waits, by name; of one namespace, or of all.

    The oldest rows cost an index probe for each queue and priority; counting stops at `cap`
    (100,000 index entries are some 10 ms), and `exact` says whether it did."""
    rows = await conn.fetch(_DEPTHS, namespace, cap)
    return [
        Depth(
            namespace=row["namespace"],
            queue=row["queue"],
            depth=row["depth"],
            oldest_age_ms=max(now_ms - row["oldest_ms"], 0),
            exact=row["depth"] < cap,
        )
        for row in rows
    ]
