"""From waiting to handed out: the takes of DELIVERY, and what can be asked of the waiting rows.

All takes read the same index in the same order (rank, due, workflow, seq) and skip rows that
somebody else is taking. Each is one UPDATE of at most `MOST` rows, conditional on the taker's own
node row (`nodes.ALIVE`): a node that lost its lease takes nothing and gets `NodeLost`. What a
worker must be told comes back in the same statement.

Tasks under a limit (`concurrentExecLimit`, a rate) are taken by the takes that hold the limit's lock,
only: a plain take stops before the first such row and names its task definition in `Take.limited`.

The statements expect a connection of `Database`, which pins index plans.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ..definitions.models import NO_SLOT_LIMIT, TaskDefinition, TaskLimits
from ..engine.state import TaskStatus
from ..payload import Json, decode
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

    `limited`: the task definition under whose limits the row at the head stands, so whoever wants more
    calls `take_limited`. Of `take_limited` itself: its limits are used up, and keep back whatever
    waits; `opens_ms` is when the next hand-out may follow, 0 when one of its tasks ends."""

    rows: list[Taken]
    limited: str | None = None
    opens_ms: int = 0


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
    """The parts of a take that depend on limits. `kept_back` and `opens_ms` answer `Take`."""

    room: str
    most: str
    judged: str
    fits: str
    spent: str
    kept_back: str
    opens_ms: str


_NAME = "coalesce(q.limit_name, q.task_type)"
"""The task definition whose limits hold for a limited row."""

_FREE_MOST = 16
"""Rows whose hand-out was counted before that a take looks at beyond what its window leaves."""
_EXACT_MOST = 2_000
"""Up to so many a window, grants are counted by the millisecond; of larger ones by a part of the window."""


def _passing(skipping: str) -> str:
    """Passes over the rows under the limits of these names."""
    return f"AND (q.task_limit = 0 OR {_NAME} <> ALL ({skipping}::text[]))"


def _up_to_a_limited_one(taker: _Taker) -> _Admission:
    """Takes in order, and stops before the first row that has a limit."""
    return _Admission(
        room="",
        most=taker.asked,
        judged="q.*, false AS counted",
        fits="NOT bool_or(q.task_limit > 0) OVER first",
        spent="",
        kept_back=f"(SELECT {_NAME} FROM head q WHERE NOT q.fits ORDER BY q.place LIMIT 1)",
        opens_ms="NULL::bigint",
    )


def _within_the_limit(taker: _Taker, first: int) -> _Admission:
    """Takes what the limits of one name leave, where they hold for the first row; stops before the first
    row under those of another.

    From ${first} on: the name; its registered limits (NULL: what the rows were born under): slots, rate,
    window in seconds; the names to pass over. $9 now."""
    name, slots, rate, window_s, skipping = (f"${place}" for place in range(first, first + 5))
    passed = _passing(skipping)
    return _Admission(
        room=f"""
bounds AS MATERIALIZED (
  SELECT q.task_type IS NOT NULL AS found, coalesce({slots}::int, q.task_limit, 0) AS slots,
    coalesce({rate}::int, q.rate, 0) AS rate,
    greatest(coalesce({window_s}::int, q.rate_window_s, 1), 1)::bigint * 1000 AS window_ms, q.task_type
  FROM alive LEFT JOIN (
    SELECT q.task_limit, q.rate, q.rate_window_s, q.task_type, q.limit_name FROM task_queue q
    WHERE {_WAITS} {passed} ORDER BY {_ORDER} LIMIT 1
  ) q ON q.task_limit > 0 AND {_NAME} = {name}::text
),
held AS MATERIALIZED (
  SELECT CASE WHEN b.found AND b.slots < {NO_SLOT_LIMIT} THEN (
    SELECT count(*) FROM task_queue q
    WHERE q.namespace = $2 AND q.task_type = b.task_type AND q.owner_epoch IS NOT NULL
      AND q.owner_epoch >= 0 AND q.task_limit > 0 AND NOT q.ended AND {_NAME} = {name}::text
  ) ELSE 0 END::int AS n FROM bounds b
),
window_now AS MATERIALIZED (
  SELECT coalesce(sum(g.granted), 0)::bigint AS n, min(g.at_ms) AS oldest_ms
  FROM bounds b CROSS JOIN LATERAL (
    SELECT g.granted, g.at_ms FROM task_grant g
    WHERE b.rate > 0 AND g.namespace = $2 AND g.name = {name}::text AND g.at_ms > $9::bigint - b.window_ms
  ) g
),
room AS MATERIALIZED (
  SELECT b.found, CASE WHEN b.found THEN greatest(b.slots - held.n, 0) ELSE 0 END AS slots,
    b.window_ms, w.oldest_ms,
    CASE WHEN b.rate > 0 THEN greatest(b.rate - w.n, 0) END AS grants,
    CASE WHEN b.rate > {_EXACT_MOST} THEN greatest(b.window_ms / {_EXACT_MOST}, 1) ELSE 1 END AS step_ms
  FROM bounds b, held, window_now w
),""",
        most=f"""(SELECT CASE WHEN r.found THEN least({taker.asked}, r.slots, r.grants + {_FREE_MOST})
    ELSE {taker.asked} END FROM room r)""",
        judged=f"""q.*, q.task_limit > 0 AND {_NAME} = {name}::text AS mine,
      q.task_limit > 0 AND (SELECT grants FROM room) IS NOT NULL
        AND NOT (q.granted IS TRUE AND (q.unread > 0 OR q.started_ms = 0)) AS counted""",
        fits="""NOT bool_or(q.task_limit > 0 AND NOT q.mine) OVER first AND (q.task_limit = 0 OR (
      count(*) FILTER (WHERE q.mine) OVER first <= (SELECT slots FROM room)
      AND (NOT q.counted OR count(*) FILTER (WHERE q.counted) OVER first <= (SELECT grants FROM room))))""",
        spent=f""",
spent AS (
  INSERT INTO task_grant (namespace, name, at_ms, granted)
  SELECT $2, {name}::text, ($9::bigint + r.step_ms - 1) / r.step_ms * r.step_ms, t.n
  FROM room r, (SELECT count(*) AS n FROM head h WHERE h.fits AND h.counted) t WHERE t.n > 0
  ON CONFLICT (namespace, name, at_ms) DO UPDATE SET granted = task_grant.granted + excluded.granted
),
faded AS (
  DELETE FROM task_grant g USING bounds b
  WHERE b.rate > 0 AND g.namespace = $2 AND g.name = {name}::text AND g.at_ms <= $9::bigint - b.window_ms
)""",
        kept_back=f"""(SELECT {name}::text FROM room r, tally t
    WHERE r.found AND (t.mine >= r.slots OR t.counted >= r.grants))""",
        opens_ms="""(SELECT CASE WHEN t.mine < r.slots
      THEN coalesce(r.oldest_ms, ($9::bigint + r.step_ms - 1) / r.step_ms * r.step_ms) + r.window_ms END
    FROM room r, tally t WHERE r.found AND t.counted >= r.grants)""",
    )


_TALLY = """,
tally AS MATERIALIZED (
  SELECT count(*) FILTER (WHERE h.mine) AS mine, count(*) FILTER (WHERE h.counted) AS counted
  FROM head h WHERE h.fits
)"""


def _take(taker: _Taker, admission: _Admission, *, skipping: str = "") -> str:
    """The text of a take.

    $1 epoch, $2 namespace, $3 queue, $4 sessions (of a poller: how many rows), $5 to $8 watermark;
    of a poller and under limits: $9 now; of a poller: $10 worker; under limits what
    `_within_the_limit` says. `skipping`: the parameter with the names whose rows are passed over; it
    comes last.

    The first rows are looked for in two scans: what is more urgent than the watermark, then what
    comes after it. Locked rows cannot move, so they are updated by their place in the table: by key,
    a plan made while the queue was empty would read all of it. (A row that changed between this
    statement's snapshot and its lock has another place, and is left for the next take.) The constant
    limit tells the planner that few rows come: it cannot see $4."""
    limits = ", q.task_type, q.limit_name"
    if admission.spent:
        limits += ", q.granted, q.unread, q.started_ms"
    columns = f"q.ctid AS place_in_table, {_ORDER}, q.task_limit{limits}"
    passed = _passing(skipping) if skipping else ""
    scan = f"SELECT {columns} FROM task_queue q {taker.task} WHERE {_WAITS} {passed}"
    lock = "FOR UPDATE OF q SKIP LOCKED"
    granted = ", granted = CASE WHEN h.counted OR q.granted THEN true END" if admission.spent else ""
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
  SELECT q.*, row_number() OVER first AS place, {admission.fits} AS fits
  FROM (
    SELECT {admission.judged} FROM (SELECT * FROM urgent UNION ALL SELECT * FROM rest) q
  ) q
  WINDOW first AS (ORDER BY {_ORDER} ROWS UNBOUNDED PRECEDING)
  LIMIT {MOST}
){_TALLY if admission.spent else ""},
taken AS (
  UPDATE task_queue q SET {taker.owner}, delivery = q.delivery + 1{granted}
  FROM head h WHERE q.ctid = h.place_in_table AND h.fits
  RETURNING q.*, h.place
){taker.after}{admission.spent}
SELECT {admission.kept_back} AS kept_back, {admission.opens_ms} AS opens_ms, {_TAKEN}
FROM alive LEFT JOIN (taken {_TAKEN_FROM}) ON true
ORDER BY q.place
"""


_TAKE = _take(_STREAMS, _up_to_a_limited_one(_STREAMS))
_TAKE_PAST = _take(_STREAMS, _up_to_a_limited_one(_STREAMS), skipping="$9")
_TAKE_LIMITED = _take(_STREAMS, _within_the_limit(_STREAMS, 10), skipping="$14")
_TAKE_POLLED = _take(_POLLER, _up_to_a_limited_one(_POLLER))
_TAKE_POLLED_PAST = _take(_POLLER, _up_to_a_limited_one(_POLLER), skipping="$11")
_TAKE_POLLED_LIMITED = _take(_POLLER, _within_the_limit(_POLLER, 11), skipping="$15")

# $1 epoch, $2 namespace, $3 task definition
_LOCK_LIMIT = f"""
WITH {ALIVE},
locked AS MATERIALIZED (
  SELECT true AS held FROM task_limit
  WHERE namespace = $2 AND task_type = $3 AND EXISTS (SELECT FROM alive) FOR UPDATE
)
SELECT l.held, (SELECT document FROM task_definition d WHERE d.namespace = $2 AND d.name = $3) AS document
FROM alive LEFT JOIN locked l ON true
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
    skip: Sequence[str] = (),
) -> Take:
    """Transition 2: hand the first waiting rows of a queue to `sessions`, the i-th to the i-th.

    A session may stand in the list as often as it has room; at most `MOST` entries. The backlog
    costs nothing, each row O(log n). Rows limited by a task definition in `skip` are passed over (and
    read). Raises `NodeLost`; then nothing was taken."""
    asked = (epoch, namespace, queue, sessions, *(after or _ANYTHING))
    rows = await (conn.fetch(_TAKE_PAST, *asked, skip) if skip else conn.fetch(_TAKE, *asked))
    return _taking(epoch, rows)


async def take_limited(
    conn: Connection,
    *,
    epoch: int,
    namespace: str,
    queue: str,
    limit_name: str,
    sessions: Sequence[str],
    now_ms: int,
    after: Watermark | None = None,
    skip: Sequence[str] = (),
) -> Take:
    """Transition 2 for rows under the limits of a task definition: as `take`, never beyond them.

    Opens a transaction and locks (namespace, limit_name) first: takers of one name go one after the
    other, on all nodes, and each reads the limits that are registered now. Every owned row of the name
    and its type counts towards `concurrentExecLimit`, polled ones too, in whatever domain; every
    hand-out within the window towards the rate, but those of one delivery that nobody has read."""
    async with conn.transaction():
        limits = await _lock_limit(conn, epoch, namespace, limit_name)
        asked = (epoch, namespace, queue, sessions, *(after or _ANYTHING), now_ms, limit_name, *limits, skip)
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
    limit_name: str | None = None,
    skip: Sequence[str] = (),
) -> Take:
    """Transition 14: as `take`, for a poller. Start, worker and clocks are committed with it.

    The rows belong to no node (`owner_epoch` 0); their clocks are rows of `deadline`. After a take
    that named a `limited` definition, give it as `limit_name`: then as `take_limited`."""
    asked = (epoch, namespace, queue, count, *_ANYTHING, now_ms, worker_id)
    if limit_name is None:
        rows = await (
            conn.fetch(_TAKE_POLLED_PAST, *asked, skip) if skip else conn.fetch(_TAKE_POLLED, *asked)
        )
        return _taking(epoch, rows)
    async with conn.transaction():
        limits = await _lock_limit(conn, epoch, namespace, limit_name)
        return _taking(epoch, await conn.fetch(_TAKE_POLLED_LIMITED, *asked, limit_name, *limits, skip))


async def _lock_limit(
    conn: Connection, epoch: int, namespace: str, name: str
) -> TaskLimits | tuple[None, None, None]:
    """Hold the node's row, then the limit's, to the end of the transaction. The next statement's
    snapshot then sees all that earlier holders took. The limits that are registered under this name."""
    while True:
        row = await conn.fetchrow(_LOCK_LIMIT, epoch, namespace, name)
        if row is None:
            raise NodeLost(epoch)
        if row["held"]:
            return (None, None, None) if row["document"] is None else registered_limits(row["document"])
        # $1 namespace, $2 name: the first taker of this name ever
        await conn.execute(
            "INSERT INTO task_limit (namespace, task_type) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            namespace,
            name,
        )


@lru_cache(maxsize=1_000)
def registered_limits(document: bytes) -> TaskLimits:
    """The limits in a registered task definition."""
    return TaskDefinition.model_validate(decode(document)).limits


def _taking(epoch: int, rows: Sequence[Any]) -> Take:
    if not rows:
        raise NodeLost(epoch)
    first = rows[0]
    taken = [_taken(row[2:]) for row in rows if row["seq"] is not None]
    return Take(taken, first["kept_back"], first["opens_ms"] or 0)


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


async def namespaces_with(conn: Connection, queue: str) -> list[str]:
    """The namespaces in which something waits in this queue. One index probe each."""
    # $1 queue
    rows = await conn.fetch(_NAMESPACES_WITH, queue)
    return [row["name"] for row in rows]


_NAMESPACES_WITH = """
SELECT n.name FROM namespace n
WHERE (
  SELECT true FROM task_queue q
  WHERE q.namespace = n.name AND q.queue = $1 AND q.owner_epoch IS NULL AND NOT q.ended LIMIT 1
)
"""


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


async def wake(conn: Connection, workflow_id: str, *, now_ms: int) -> int:
    """Make every sleeping row of a workflow (callbackAfterSeconds, a delay) due now; how many. The loop
    that wakes rows in time gives them to takers."""
    return int(await conn.fetchval(_WAKE, workflow_id, now_ms))


# $1 workflow, $2 now. Queue rows are locked before task rows, as by a save.
_WAKE = """/* wake rows */
WITH woken AS (
  UPDATE task_queue q SET due_ms = $2::bigint, deadline_ms = $2::bigint
  WHERE q.workflow_id = $1 AND q.owner_epoch = -1 AND NOT q.ended AND q.deadline_ms > $2::bigint
  RETURNING q.seq),
shown AS (
  UPDATE task t SET callback_after_s = 0 FROM woken w
  WHERE t.workflow_id = $1 AND t.seq = w.seq AND t.callback_after_s > 0)
SELECT count(*) FROM woken"""
