"""What happens to a row of `task_queue` between its hand-out and its end.

Three statements change rows that a caller believes to own: `mark_read`, `progress`, `hand_back`.
They never wait for a row that a save holds at this moment (saves lock in another order): such a
row is answered `busy`, and the caller asks again while it still believes to own it. A row that is
in neither set is not the caller's any more: ended, superseded or moved to another node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..engine.state import TaskStatus
from .clocks import first_start, next_clock, next_clock_after
from .database import Connection
from .nodes import ALIVE, NodeLost
from .queue import QueueName

MOST_UNREAD = 5
"""Deliveries in a row that nobody read; then the task fails by name."""


class Key(NamedTuple):
    """A row of `task_queue`."""

    workflow_id: str
    seq: int


class Delivery(Protocol):
    """What names one hand-out of a task. `delivery` is its fencing token."""

    workflow_id: str
    seq: int
    delivery: int


@dataclass(slots=True)
class Touched:
    """What became of the rows asked for; see the module's word on `busy`."""

    done: set[Key]
    busy: set[Key]


@dataclass(slots=True)
class Read:
    """A delivery that its worker is known to have read at `started_ms`."""

    workflow_id: str
    seq: int
    delivery: int
    started_ms: int
    worker_id: str


@dataclass(slots=True)
class ProgressMade:
    """Word from the worker about a delivery; `output` (JSON) replaces the task's, None keeps it."""

    workflow_id: str
    seq: int
    delivery: int
    output: bytes | None = None


@dataclass(slots=True)
class HandBack:
    """A delivery that goes back without having run. `due_ms`: not before this; 0 = at once, in its
    old place in the order."""

    workflow_id: str
    seq: int
    delivery: int
    due_ms: int = 0


@dataclass(slots=True)
class EndedRow:
    """A row of mine whose task ended elsewhere; it is deleted now."""

    workflow_id: str
    seq: int
    delivery: int
    session_id: str | None


@dataclass(slots=True)
class OwnedDue:
    """A row of mine whose clock ran out, or (`lost`) whose worker is gone.

    `unread` says of a lost one that nobody read it `MOST_UNREAD` times in a row."""

    workflow_id: str
    seq: int
    delivery: int
    deadline_ms: int
    started_ms: int
    progress_ms: int
    worker_id: str
    session_id: str | None
    """None: it is lost."""
    unread: bool

    @property
    def lost(self) -> bool:
        return self.session_id is None


@dataclass(slots=True)
class Current:
    """The delivery that a report without a token means. `delivery` 0: never handed out.

    `owner_epoch`: None waiting, -1 asleep, 0 polled, else a node. `worker_id` is empty while
    nobody holds it."""

    workflow_id: str
    seq: int
    delivery: int
    owner_epoch: int | None
    worker_id: str


_LIVES = """q.workflow_id = a.workflow_id AND q.seq = a.seq AND q.delivery = a.delivery AND NOT q.ended"""
"""That a row `q` is what was asked for in `a`. Always inside LATERAL with its own LIMIT or lock, so that
the plan looks each row up by its key."""

# Written so that no index on the owner can answer it: the key finds the row.
_MINE = "coalesce(q.owner_epoch, -2) = $1"
_MINE_OR_POLLED = "coalesce(q.owner_epoch, -2) IN ($1, 0)"
_ANYBODYS = "coalesce(q.owner_epoch, -2) >= 0"


def _locked(asked: str, owner: str, columns: str) -> str:
    """The CTEs that lock what is asked for, queue row and task row, where nobody else holds them.

    `asked` is an alias list for `unnest`, beginning with workflow_id, seq, delivery."""
    return f"""asked AS MATERIALIZED (SELECT * FROM {asked}),
locked AS MATERIALIZED (
  SELECT a.*, l.* FROM asked a
  CROSS JOIN LATERAL (
    SELECT {columns} FROM task_queue q JOIN task t ON t.workflow_id = q.workflow_id AND t.seq = q.seq
    WHERE {_LIVES} AND {owner} AND EXISTS (SELECT FROM alive)
    FOR UPDATE OF q, t SKIP LOCKED
  ) l
)"""


_DONE = "SELECT l.workflow_id, l.seq FROM alive LEFT JOIN locked l ON true"


def _busy(owner: str) -> str:
    """$1 epoch, $2 workflow ids, $3 seqs, $4 deliveries: those that live, whoever holds them now."""
    return f"""
SELECT a.workflow_id, a.seq
FROM unnest($2::uuid[], $3::int[], $4::int[]) AS a(workflow_id, seq, delivery)
CROSS JOIN LATERAL (
  SELECT true FROM task_queue q WHERE {_LIVES} AND {owner} AND $1::bigint > 0 LIMIT 1
) l
"""


async def _touch(
    conn: Connection, statement: str, owner: str, epoch: int, items: Sequence[Delivery], *columns: object
) -> Touched:
    """Run a statement built on `_locked` for these items; $1 to $4 are epoch and the three arrays."""
    keys = columns_of(items)
    rows = await conn.fetch(statement, epoch, *keys, *columns)
    if not rows:
        raise NodeLost(epoch)
    done = _keys(row for row in rows if row["seq"] is not None)
    if len(done) == len(items):
        return Touched(done, set())
    return Touched(done, _keys(await conn.fetch(_busy(owner), epoch, *keys)) - done)


def columns_of(items: Sequence[Delivery]) -> tuple[list[str], list[int], list[int]]:
    """Deliveries as the three arrays that a statement takes."""
    return (
        [item.workflow_id for item in items],
        [item.seq for item in items],
        [item.delivery for item in items],
    )


def _keys(rows: Iterable[Any]) -> set[Key]:
    return {Key(str(row["workflow_id"]), row["seq"]) for row in rows}


# $1 epoch, then arrays: $2 workflow ids, $3 seqs, $4 deliveries, $5 times of reading, $6 workers.
# A start that an earlier delivery of the attempt had stands; the response clock begins with this one.
_MARK_READ = f"""
WITH {ALIVE},
{
    _locked(
        "unnest($2::uuid[], $3::int[], $4::int[], $5::bigint[], $6::text[]) "
        "AS a(workflow_id, seq, delivery, read_ms, worker_id)",
        _MINE,
        first_start("q", "a.read_ms") + " AS started_ms",
    )
},
read AS (
  UPDATE task_queue q
  SET unread = 0, worker_id = l.worker_id, started_ms = l.started_ms, progress_ms = l.read_ms,
      deadline_ms = {next_clock("l.started_ms", "l.read_ms")}
  FROM locked l WHERE q.workflow_id = l.workflow_id AND q.seq = l.seq
),
begun AS (
  UPDATE task t
  SET status = {int(TaskStatus.IN_PROGRESS)}, started_ms = {first_start("t", "l.read_ms")},
      updated_ms = l.read_ms, worker_id = l.worker_id, poll_count = t.poll_count + 1, callback_after_s = 0
  FROM locked l WHERE t.workflow_id = l.workflow_id AND t.seq = l.seq
)
{_DONE}
"""


async def mark_read(conn: Connection, *, epoch: int, reads: Sequence[Read]) -> Touched:
    """Transition 4, written behind: IN_PROGRESS, start, worker, `unread` 0, and the row's clocks
    start. Leaves the workflow's revision alone. Raises `NodeLost`."""
    return await _touch(
        conn,
        _MARK_READ,
        _MINE,
        epoch,
        reads,
        [item.started_ms for item in reads],
        [item.worker_id for item in reads],
    )


# $1 epoch, then arrays: $2 workflow ids, $3 seqs, $4 deliveries, $5 outputs or NULL; $6 now
_PROGRESS = f"""
WITH {ALIVE},
{
    _locked(
        "unnest($2::uuid[], $3::int[], $4::int[], $5::bytea[]) AS a(workflow_id, seq, delivery, output)",
        _ANYBODYS,
        first_start("q", "$6") + " AS started_ms",
    )
},
heard AS (
  UPDATE task_queue q
  SET unread = 0, started_ms = l.started_ms, progress_ms = $6,
      deadline_ms = CASE WHEN q.owner_epoch > 0 THEN {next_clock("l.started_ms", "$6")} END
  FROM locked l WHERE q.workflow_id = l.workflow_id AND q.seq = l.seq
  RETURNING q.workflow_id, q.seq, q.owner_epoch, {next_clock("q.started_ms", "$6")} AS due_ms
),
shown AS (
  UPDATE task t
  SET status = {int(TaskStatus.IN_PROGRESS)}, started_ms = {first_start("t", "$6")}, updated_ms = $6,
      output = coalesce(l.output, t.output)
  FROM locked l WHERE t.workflow_id = l.workflow_id AND t.seq = l.seq
),
clocks AS (
  INSERT INTO deadline (workflow_id, seq, due_ms)
  SELECT workflow_id, seq, due_ms FROM heard WHERE owner_epoch = 0 AND due_ms IS NOT NULL
  ORDER BY workflow_id, seq
  ON CONFLICT (workflow_id, seq) DO UPDATE SET due_ms = excluded.due_ms
)
{_DONE}
"""


async def progress(conn: Connection, *, epoch: int, items: Sequence[ProgressMade], now_ms: int) -> Touched:
    """The response clock of these deliveries starts anew; also of polled ones, and of those that
    another node owns (the token is the proof). Counts as read. Raises `NodeLost`."""
    outputs = [item.output for item in items]
    return await _touch(conn, _PROGRESS, _ANYBODYS, epoch, items, outputs, now_ms)


# $1 epoch, then arrays: $2 workflow ids, $3 seqs, $4 deliveries, $5 due times or 0; $6 now.
# Where this was the delivery that began the task, the task has not begun after all. Its next clock
# is the engine's to find: a deadline that is due now makes it look.
_HAND_BACK = f"""
WITH {ALIVE},
{
    _locked(
        "unnest($2::uuid[], $3::int[], $4::int[], $5::bigint[]) AS a(workflow_id, seq, delivery, due_ms)",
        _MINE_OR_POLLED,
        "q.started_ms > 0 AS read, q.started_ms > 0 AND q.started_ms = t.started_ms AS begun",
    )
},
back AS (
  UPDATE task_queue q
  SET owner_epoch = CASE WHEN l.due_ms > $6 THEN -1 END, session_id = NULL, worker_id = '',
      due_ms = CASE WHEN l.due_ms > 0 THEN l.due_ms ELSE q.due_ms END,
      deadline_ms = CASE WHEN l.due_ms > $6 THEN l.due_ms END, started_ms = 0, progress_ms = 0
  FROM locked l WHERE q.workflow_id = l.workflow_id AND q.seq = l.seq
),
undone AS (
  UPDATE task t
  SET status = {int(TaskStatus.SCHEDULED)}, started_ms = 0, worker_id = ''
  FROM locked l WHERE t.workflow_id = l.workflow_id AND t.seq = l.seq AND l.begun
),
clocks AS (
  INSERT INTO deadline (workflow_id, seq, due_ms)
  SELECT workflow_id, seq, $6::bigint FROM locked WHERE read ORDER BY workflow_id, seq
  ON CONFLICT (workflow_id, seq) DO UPDATE SET due_ms = least(deadline.due_ms, excluded.due_ms)
)
{_DONE}
"""


async def hand_back(conn: Connection, *, epoch: int, items: Sequence[HandBack], now_ms: int) -> Touched:
    """Transitions 7 and 8: these deliveries wait again, or sleep until they are due. Neither an
    attempt nor `unread` is spent. Mine, and polled ones (a cancelled poll). Raises `NodeLost`."""
    due = [item.due_ms for item in items]
    return await _touch(conn, _HAND_BACK, _MINE_OR_POLLED, epoch, items, due, now_ms)


# $1 epoch, $2 now, $3 rows at most
_WAKE_ASLEEP = f"""
WITH {ALIVE},
woken AS (
  UPDATE task_queue q SET owner_epoch = NULL, deadline_ms = NULL
  FROM (
    SELECT workflow_id, seq FROM task_queue
    WHERE owner_epoch = -1 AND deadline_ms <= $2 AND EXISTS (SELECT FROM alive)
    ORDER BY deadline_ms LIMIT $3 FOR UPDATE SKIP LOCKED
  ) p
  WHERE q.workflow_id = p.workflow_id AND q.seq = p.seq
  RETURNING q.namespace, q.queue
)
SELECT w.namespace, w.queue, w.n
FROM alive LEFT JOIN (SELECT namespace, queue, count(*) AS n FROM woken GROUP BY namespace, queue) w ON true
"""


async def wake_asleep(
    conn: Connection, *, epoch: int, now_ms: int, limit: int = 1000
) -> tuple[int, set[QueueName]]:
    """Sleeping rows that are due wait from now on: how many (`limit` = ask again), in which queues.

    Raises `NodeLost`."""
    rows = await conn.fetch(_WAKE_ASLEEP, epoch, now_ms, limit)
    if not rows:
        raise NodeLost(epoch)
    woken = [row for row in rows if row["n"]]
    return sum(row["n"] for row in woken), {QueueName(row["namespace"], row["queue"]) for row in woken}


# $1 epoch, $2 rows at most
_ENDED = """
DELETE FROM task_queue q
USING (
  SELECT workflow_id, seq FROM task_queue WHERE owner_epoch = $1 AND ended LIMIT $2 FOR UPDATE SKIP LOCKED
) p
WHERE q.workflow_id = p.workflow_id AND q.seq = p.seq
RETURNING q.workflow_id, q.seq, q.delivery, q.session_id
"""


async def ended_rows(conn: Connection, *, epoch: int, limit: int = 1000) -> list[EndedRow]:
    """Transition 5, at the owner: rows marked ended go, and their deliveries are to be cancelled."""
    return [
        EndedRow(str(row[0]), row[1], row[2], None if row[3] is None else str(row[3]))
        for row in await conn.fetch(_ENDED, epoch, limit)
    ]


# $1 epoch, $2 now, $3 rows at most
_DUE_OWNED = f"""
SELECT workflow_id, seq, delivery, deadline_ms, started_ms, progress_ms, worker_id,
       session_id::text, session_id IS NULL AND unread >= {MOST_UNREAD} AS unread
FROM task_queue WHERE owner_epoch = $1 AND deadline_ms <= $2 AND NOT ended
ORDER BY deadline_ms LIMIT $3
"""


async def due_owned(conn: Connection, *, epoch: int, now_ms: int, limit: int = 1000) -> list[OwnedDue]:
    """Transition 15: rows of mine whose clock has run out, or whose worker was lost (10), earliest
    first. Only reads: nobody else watches them."""
    rows = await conn.fetch(_DUE_OWNED, epoch, now_ms, limit)
    return [OwnedDue(str(row[0]), *row[1:]) for row in rows]


# $1 epoch, then arrays: $2 workflow ids, $3 seqs, $4 deliveries, $5 deadlines answered; $6 now
_SETTLE_DUE = f"""
UPDATE task_queue q SET deadline_ms = {next_clock_after("$6")}
FROM (
  SELECT a.workflow_id, a.seq
  FROM unnest($2::uuid[], $3::int[], $4::int[], $5::bigint[]) AS a(workflow_id, seq, delivery, deadline_ms)
  CROSS JOIN LATERAL (
    SELECT true FROM task_queue q WHERE {_LIVES} AND {_MINE} AND q.deadline_ms = a.deadline_ms
    FOR UPDATE SKIP LOCKED
  ) l
) p
WHERE q.workflow_id = p.workflow_id AND q.seq = p.seq
"""


async def settle_due(conn: Connection, *, epoch: int, rows: Sequence[OwnedDue], now_ms: int) -> None:
    """The engine has answered these and left their tasks alone (an alert, not an end): their next
    clock counts. A lost one has no next clock and must not be among them."""
    await conn.execute(
        _SETTLE_DUE,
        epoch,
        *columns_of(rows),
        [row.deadline_ms for row in rows],
        now_ms,
    )


# $1 lowest and $2 highest workflow ids, $3 seqs. A delivery that is not marked read yet has its
# worker in its session.
_CURRENT = """
SELECT c.workflow_id, a.seq, c.delivery, c.owner_epoch, c.worker_id
FROM unnest($1::uuid[], $2::uuid[], $3::int[]) WITH ORDINALITY AS a(lowest, highest, seq, place)
LEFT JOIN LATERAL (
  SELECT q.workflow_id, q.delivery, q.owner_epoch,
    coalesce(nullif(q.worker_id, ''), s.worker_id, '') AS worker_id
  FROM task_queue q LEFT JOIN session s ON s.session_id = q.session_id
  WHERE q.workflow_id BETWEEN a.lowest AND a.highest AND q.seq = a.seq AND NOT q.ended
  LIMIT 1
) c ON true
ORDER BY a.place
"""


async def current_deliveries(conn: Connection, tasks: Sequence[tuple[str, str, int]]) -> list[Current | None]:
    """The open rows of tasks, in order; None where there is none.

    A task is (lowest workflow id, highest workflow id, seq) as `ids.split_task_id` gives it; a
    known workflow stands in both places."""
    rows = await conn.fetch(
        _CURRENT, [task[0] for task in tasks], [task[1] for task in tasks], [task[2] for task in tasks]
    )
    return [Current(str(row[0]), *row[1:]) if row["workflow_id"] is not None else None for row in rows]
