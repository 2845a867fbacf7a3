"""Answers to the needs that rows can answer: one statement for each kind, whatever workflows ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..engine.decision import MessageKind
from ..engine.needs import (
    CachedOutput,
    ChildStatus,
    Compensable,
    Demand,
    FailedRows,
    Fragment,
    Need,
    OpenInside,
    OpenRows,
    ParkedSignals,
    Row,
    Rows,
    RowsAfter,
    ScopeRows,
)
from ..engine.state import Path, View
from ..payload import Json
from . import demand
from .database import Connection
from .rows import TASK_COLUMNS, path_text, task_from

Asked = tuple[View, Any]


async def fetch(conn: Connection, asked: Sequence[tuple[View, Need]], *, now_ms: int) -> list[Any]:
    """The answer of each need, in order (`engine/needs.py` says what each answer is).

    Takes every need but Script, Child, Definition and TaskDefinition. The views are not changed.
    """
    answers: list[Any] = [None] * len(asked)
    kinds: dict[type, list[int]] = {}
    for place, (_, need) in enumerate(asked):
        kinds.setdefault(type(need), []).append(place)
    for kind, places in kinds.items():
        group = [asked[place] for place in places]
        found = await (_demand(conn, group, now_ms) if kind is Demand else _ANSWER[kind](conn, group))
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
    return answers


async def _rows(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    keys = [(view.header, *key, need.exact) for view, need in asked for key in need.keys]
    columns = (
        [header.id for header, _, _, _ in keys],
        [header.generation for header, _, _, _ in keys],
        [reference for _, reference, _, _ in keys],
        [path_text(prefix) for _, _, prefix, _ in keys],
        [path_text(prefix) if exact else _after(prefix) for _, _, prefix, exact in keys],
        [exact for _, _, _, exact in keys],
    )
    records = iter(await conn.fetch(_ROWS, *columns))
    return [[_task_or_none(next(records)) for _ in need.keys] for _, need in asked]


def _after(prefix: Path) -> str | None:
    """The first path after all those that start with `prefix`; None: there is no end."""
    return path_text((*prefix[:-1], prefix[-1] + 1)) if prefix else None


# $1 workflow, $2 generation, $3 reference, $4 lowest path, $5 highest path (excluded unless exact,
# NULL = no end), $6 exact: one of each a key
_ROWS = f"""/* need rows */
SELECT t.* FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::boolean[])
  WITH ORDINALITY i(workflow_id, generation, reference, low, high, exact, place)
LEFT JOIN LATERAL (
  SELECT {TASK_COLUMNS} FROM task t
  WHERE t.workflow_id = i.workflow_id AND t.generation = i.generation AND t.reference = i.reference
    AND t.path >= i.low::integer[] AND t.path <= coalesce(i.high, '{{2147483647}}')::integer[]
    AND (i.exact OR i.high IS NULL OR t.path < i.high::integer[])
  ORDER BY t.path DESC, t.attempt DESC LIMIT 1) t ON true
ORDER BY i.place"""


async def _row(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    records = await conn.fetch(_ROW, [view.header.id for view, _ in asked], [need.seq for _, need in asked])
    return [_task_or_none(record) for record in records]


# $1 workflow, $2 seq: one of each a need
_ROW = f"""/* need row */
SELECT {TASK_COLUMNS} FROM unnest($1::uuid[], $2::integer[]) WITH ORDINALITY i(workflow_id, seq, place)
LEFT JOIN task t ON t.workflow_id = i.workflow_id AND t.seq = i.seq
ORDER BY i.place"""


async def _scope_rows(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    records = await conn.fetch(
        _SCOPE_ROWS,
        [view.header.id for view, _ in asked],
        [view.header.generation for view, _ in asked],
        [need.scope for _, need in asked],
        [path_text(need.prefix) for _, need in asked],
        [_after(need.prefix) for _, need in asked],
    )
    return _grouped(records, len(asked))


# The planner takes workflows to be small and would read all of one; OFFSET 0 has it look up each row by its
# key, and the order, which only the index on scope has, each container's rows by that.
# $1 workflow, $2 generation, $3 scope, $4 lowest path, $5 first path after the prefix (NULL = no end)
_SCOPE_ROWS = f"""/* need scope rows */
SELECT i.place, t.* FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::text[], $5::text[])
  WITH ORDINALITY i(workflow_id, generation, scope, low, high, place)
CROSS JOIN LATERAL (
  WITH RECURSIVE inside(seq) AS (
    SELECT i.scope
    UNION ALL
    SELECT t.seq FROM inside c CROSS JOIN LATERAL (
      SELECT t.seq, t.generation FROM task t
      WHERE t.workflow_id = i.workflow_id AND t.scope = c.seq AND t.scope > 0 AND t.path >= i.low::integer[]
        AND t.path <= coalesce(i.high, '{{2147483647}}')::integer[]
      ORDER BY t.path OFFSET 0) t
    WHERE t.generation = i.generation)
  SELECT {TASK_COLUMNS} FROM inside c
  CROSS JOIN LATERAL (SELECT * FROM task t WHERE t.workflow_id = i.workflow_id AND t.seq = c.seq OFFSET 0) t
  WHERE c.seq <> i.scope AND (i.high IS NULL OR t.path < i.high::integer[])) t
ORDER BY i.place, t.seq"""


async def _open_rows(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    return await _pages(conn, _OPEN_ROWS, asked)


async def _failed_rows(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    return await _pages(conn, _FAILED_ROWS, asked)


async def _rows_after(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    return await _pages(conn, _ROWS_AFTER, asked)


async def _pages(conn: Connection, sql: str, asked: Sequence[Asked]) -> list[Any]:
    records = await conn.fetch(
        sql,
        [view.header.id for view, _ in asked],
        [view.header.generation for view, _ in asked],
        [need.after for _, need in asked],
        [need.limit for _, need in asked],
    )
    return _grouped(records, len(asked))


_OF_GENERATION = "coalesce(t.generation, 0) = i.generation"
"""Written so that `task_key`, which begins with workflow and generation, does not answer it: on old
statistics Postgres takes it for a page by key, and reads all rows of the workflow."""


def _page(condition: str) -> str:
    """Rows of a workflow by key. There is no index on a task's status (it would make every end of a
    task a non-HOT update), so this walks over the rows from `after` on: for operators' commands."""
    return f"""
SELECT i.place, t.* FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[])
  WITH ORDINALITY i(workflow_id, generation, after, most, place)
CROSS JOIN LATERAL (
  SELECT {TASK_COLUMNS} FROM task t
  WHERE t.workflow_id = i.workflow_id AND t.seq > i.after AND {_OF_GENERATION} AND {condition}
  ORDER BY t.seq LIMIT i.most) t
ORDER BY i.place, t.seq"""


# $1 workflow, $2 generation, $3 after this seq, $4 at most: one of each a need
_OPEN_ROWS = "/* need open rows */" + _page("t.status <= 2")
_ROWS_AFTER = "/* need rows after */" + _page("true")
_FAILED_ROWS = "/* need failed rows */" + _page("t.status BETWEEN 5 AND 8 AND NOT t.superseded")


async def _open_inside(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    records = await conn.fetch(
        _OPEN_INSIDE,
        [view.header.id for view, _ in asked],
        [view.header.generation for view, _ in asked],
        [need.scope for _, need in asked],
        [need.after for _, need in asked],
        [need.limit for _, need in asked],
    )
    return _grouped(records, len(asked))


# Open rows by key, as for the whole workflow, each with a look up its containers: a page costs the rows
# that it passes, and the next one goes on behind it.
# $1 workflow, $2 generation, $3 scope, $4 after this seq, $5 at most: one of each a need
_OPEN_INSIDE = f"""/* need open inside */
SELECT i.place, t.* FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[], $5::integer[])
  WITH ORDINALITY i(workflow_id, generation, scope, after, most, place)
CROSS JOIN LATERAL (
  SELECT {TASK_COLUMNS} FROM task t
  WHERE t.workflow_id = i.workflow_id AND t.seq > greatest(i.after, i.scope) AND {_OF_GENERATION}
    AND t.status <= 2 AND t.scope > 0 AND (t.scope = i.scope OR EXISTS (
      WITH RECURSIVE around(scope) AS (
        SELECT t.scope
        UNION ALL
        SELECT u.scope FROM around c CROSS JOIN LATERAL (
          SELECT u.scope FROM task u WHERE u.workflow_id = i.workflow_id AND u.seq = c.scope OFFSET 0) u)
      SELECT FROM around c WHERE c.scope = i.scope))
  ORDER BY t.seq LIMIT i.most) t
ORDER BY i.place, t.seq"""


async def _compensable(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    records = await conn.fetch(
        _COMPENSABLE,
        [view.header.id for view, _ in asked],
        [view.header.generation for view, _ in asked],
        [path_text(need.prefix) for _, need in asked],
        [_after(need.prefix) for _, need in asked],
        [need.before_ms for _, need in asked],
        [need.before_seq for _, need in asked],
        [need.limit for _, need in asked],
        [place for place, (_, need) in enumerate(asked, 1) for _ in need.references],
        [reference for _, need in asked for reference in need.references],
    )
    return _grouped(records, len(asked))


# $1 workflow, $2 generation, $3 lowest path, $4 first path after the prefix (NULL = no end), $5 and $6 ended
# before this (ms, seq), $7 at most: one of each a need. $8 place of a need, $9 a reference of it.
_COMPENSABLE = f"""/* need compensable */
SELECT i.place, t.* FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::bigint[],
  $6::integer[], $7::integer[])
  WITH ORDINALITY i(workflow_id, generation, low, high, before_ms, before_seq, most, place)
CROSS JOIN LATERAL (
  SELECT {TASK_COLUMNS} FROM (
    SELECT k.seq FROM unnest($8::bigint[], $9::text[]) r(place, reference)
    CROSS JOIN LATERAL (
      SELECT t.seq, t.ended_ms FROM task t
      WHERE t.workflow_id = i.workflow_id AND t.generation = i.generation AND t.reference = r.reference
        AND t.path >= i.low::integer[] AND t.path <= coalesce(i.high, '{{2147483647}}')::integer[]
        AND (i.high IS NULL OR t.path < i.high::integer[])
        AND t.status = 3 AND NOT t.superseded
      ORDER BY t.path OFFSET 0) k
    WHERE r.place = i.place AND (k.ended_ms, k.seq) < (i.before_ms, i.before_seq)
    ORDER BY k.ended_ms DESC, k.seq DESC LIMIT i.most) k
  CROSS JOIN LATERAL (SELECT * FROM task t WHERE t.workflow_id = i.workflow_id AND t.seq = k.seq OFFSET 0) t
  ) t
ORDER BY i.place, t.ended_ms DESC, t.seq DESC"""


async def _fragment(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    records = await conn.fetch(
        _FRAGMENT, [view.header.id for view, _ in asked], [need.seq for _, need in asked]
    )
    return [None if record["document"] is None else Json(record["document"]) for record in records]


# $1 workflow, $2 seq: one of each a need
_FRAGMENT = """/* need fragment */
SELECT f.document FROM unnest($1::uuid[], $2::integer[]) WITH ORDINALITY i(workflow_id, seq, place)
LEFT JOIN plan_fragment f ON f.workflow_id = i.workflow_id AND f.seq = i.seq
ORDER BY i.place"""


async def _child_status(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    records = await conn.fetch(_CHILD_STATUS, [need.child_id for _, need in asked])
    return [record["status"] for record in records]


# $1 ids of children. Running and paused are 1, absent is 0.
_CHILD_STATUS = """/* need child status */
SELECT CASE WHEN w.status IS NULL THEN 0 WHEN w.status <= 2 THEN 1 ELSE w.status END AS status
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, place) LEFT JOIN workflow w ON w.id = i.id
ORDER BY i.place"""


async def _parked_signals(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    records = await conn.fetch(_PARKED, [view.header.id for view, _ in asked], int(MessageKind.SIGNAL))
    parked: list[list[Any]] = [[] for _ in asked]
    for record in records:
        place = record["place"] - 1
        body = Json(record["body"]).value
        if body["reference"] == asked[place][1].reference:
            parked[place].append((record["id"], body))
    return parked


# $1 workflow of each need, $2 the kind of a signal
_PARKED = """/* need parked signals */
SELECT i.place, x.id, x.body FROM unnest($1::uuid[]) WITH ORDINALITY i(workflow_id, place)
JOIN inbox x ON x.workflow_id = i.workflow_id
WHERE x.parked AND x.kind = $2::smallint
ORDER BY i.place, x.id"""


async def _demand(conn: Connection, asked: Sequence[Asked], now_ms: int) -> list[Any]:
    """One statement a namespace: a batch rarely has two."""
    wanted: dict[str, set[str]] = {}
    for view, need in asked:
        wanted.setdefault(view.header.namespace, set()).update(need.queues)
    live = {
        namespace: await demand.live(conn, namespace=namespace, queues=sorted(queues), now_ms=now_ms)
        for namespace, queues in wanted.items()
    }
    return [live[view.header.namespace].intersection(need.queues) for view, need in asked]


async def _cached_output(conn: Connection, asked: Sequence[Asked]) -> list[Any]:
    records = await conn.fetch(
        _CACHED_OUTPUT,
        [view.header.namespace for view, _ in asked],
        [need.name for _, need in asked],
        [need.key for _, need in asked],
        [need.now_ms for _, need in asked],
    )
    return [None if record["output"] is None else Json(record["output"]) for record in records]


# $1 namespace, $2 task name, $3 key, $4 now in milliseconds: one of each a need
_CACHED_OUTPUT = """/* need cached output */
SELECT c.output FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
  WITH ORDINALITY i(namespace, name, key, now_ms, place)
LEFT JOIN task_cache c
  ON c.namespace = i.namespace AND c.name = i.name AND c.key = i.key AND c.expires_ms > i.now_ms
ORDER BY i.place"""


_ANSWER: dict[type, Callable[[Connection, Sequence[Asked]], Awaitable[list[Any]]]] = {
    Rows: _rows,
    Row: _row,
    ScopeRows: _scope_rows,
    OpenRows: _open_rows,
    FailedRows: _failed_rows,
    RowsAfter: _rows_after,
    OpenInside: _open_inside,
    Compensable: _compensable,
    Fragment: _fragment,
    ChildStatus: _child_status,
    ParkedSignals: _parked_signals,
    CachedOutput: _cached_output,
}


def _task_or_none(record: Any) -> Any:
    return None if record["seq"] is None else task_from(record)


def _grouped(records: Sequence[Any], groups: int) -> list[Any]:
    """Tasks by the place in a record's first column, counted from 1."""
    grouped: list[list[Any]] = [[] for _ in range(groups)]
    for record in records:
        grouped[record[0] - 1].append(task_from(record, 1))
    return grouped
