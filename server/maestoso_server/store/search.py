"""Searches: pages of executions and of tasks, ids for bulk operations, counts.

Executions are read in chunks by an access path (`search_access`) in the order of their start and tested
against the whole query (`search_conditions`). A search takes a bounded time: where a page is not full
when that is used up, it ends early and says so (`Page.partial`), with the position to go on from. So
nothing is ever left out silently, and no query holds a connection for long.

All statements of one search see the same snapshot.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import asyncpg

from ..engine.state import TaskRow, TaskStatus, WorkflowStatus
from ..errors import InvalidArgument, Reason, ResourceExhausted, Violation
from ..query import TASKS, WORKFLOWS, Node, Order, Query, parse
from .database import Connection
from .search_access import Access, Arm, By, Position, affirm, arms_sql, choose, count_sql
from .search_conditions import WORKFLOW_SQL, Parameters, condition

CHUNK_FIRST = 1_000
CHUNK_MAX = 20_000
TASK_CHUNK_FIRST = 100
"""Executions whose tasks are read at first."""
TASK_CHUNK_MAX = 2_000
EXAMINED_MAX = 200_000
"""Executions that one page reads at most, however fast."""
SORT_WINDOW = 20_000
"""Executions read to sort results by anything but the start time."""
PAGE_MS = 80.0
"""No further chunk is read once a page has taken this long."""
COUNT_MS = 110.0
"""The same for counts."""
COUNT_FIRST = 50_000
"""Entries counted before the clock is looked at."""
NAMES_MAX = 100
"""Names whose executions are counted each by its own index."""
STATEMENT_MS = 5_000
"""A statement that takes longer is given up: something is wrong then."""


class Budget:
    """How long a search may go on. `local_ms` is a clock's."""

    def __init__(self, local_ms: Callable[[], float], limit_ms: float) -> None:
        self._local_ms = local_ms
        self._began_ms = local_ms()
        self._limit_ms = limit_ms

    @property
    def left_ms(self) -> float:
        return self._limit_ms - (self._local_ms() - self._began_ms)

    def next_chunk(self, last: int, first: int, most: int) -> int:
        """How many rows to read after a chunk of `last`: more, as far as the time allows; 0 = stop."""
        left_ms = self.left_ms
        if left_ms <= 0:
            return 0
        per_row_ms = (self._limit_ms - left_ms) / last
        affordable = most if per_row_ms <= 0 else int(left_ms / per_row_ms)
        return max(min(last * 4, affordable, most), first)


@dataclass(slots=True)
class FoundWorkflow:
    """An execution as results show it."""

    id: str
    name: str
    version: int
    status: WorkflowStatus
    correlation_id: str | None
    created_ms: int
    ended_ms: int
    updated_ms: int
    parent_id: str | None
    priority: int
    created_by: str
    idempotency_key: str | None
    reason: str | None
    attributes: list[FoundAttribute] = field(default_factory=list)


@dataclass(slots=True)
class FoundAttribute:
    """A search attribute. `kind` as in the schema: 1 text, 2 number, 3 boolean, 4 not taken."""

    name: str
    kind: int
    text: str


@dataclass(slots=True)
class FoundTask:
    workflow_id: str
    workflow_name: str
    correlation_id: str | None
    workflow_created_ms: int
    row: TaskRow
    """Without payloads."""


T = TypeVar("T")


@dataclass(slots=True)
class Page(Generic[T]):
    """`next`: where to go on, None when everything was seen. `partial`: the page ended early."""

    items: list[T]
    next: tuple[Any, ...] | None = None
    partial: bool = False


@dataclass(slots=True)
class IdPage:
    found: list[Position]
    """(created_ms, id) of each."""
    next: Position | None
    """To go on after; None = all were seen."""

    @property
    def ids(self) -> list[str]:
        return [id_ for _, id_ in self.found]


@dataclass(slots=True)
class Count:
    """`exact`: else there are at least so many."""

    total: int = 0
    exact: bool = True
    groups: dict[str, int] = field(default_factory=dict)
    inexact: set[str] = field(default_factory=set)
    """Groups that may have more."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is searched: a bound tree. `sort` () = by the start time, the newest first."""

    namespace: str
    node: Node
    sort: tuple[Order, ...] = ()


# ---- the snapshot


@asynccontextmanager
async def snapshot(conn: Connection) -> AsyncIterator[None]:
    """One snapshot for the statements of a search. Raises ResourceExhausted where one takes too long."""
    try:
        async with conn.transaction():
            await conn.execute(
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;"
                f" SET LOCAL statement_timeout = {STATEMENT_MS};"
                " SET LOCAL max_parallel_workers_per_gather = 0"
            )
            yield
    except asyncpg.QueryCanceledError as error:
        raise ResourceExhausted(
            Reason.OVERLOADED,
            f"the search took longer than {STATEMENT_MS // 1000} s: narrow it, by startTime at best",
            retry_after_ms=1_000,
        ) from error


async def check_guesses(conn: Connection, namespace: str, query: Query, *, field: str = "query") -> None:
    """Bare names that are no fields must be attributes that some execution has. Raises InvalidArgument."""
    if not query.guessed:
        return
    rows = await conn.fetch(_KNOWN_ATTRIBUTES, namespace, list(query.guessed))
    for name, message in query.guessed.items():
        if name not in {row["name"] for row in rows}:
            raise InvalidArgument(
                Reason.INVALID_REQUEST, f"{field}, {message}", violations=[Violation(field, message)]
            )


# $1 namespace, $2 names
_KNOWN_ATTRIBUTES = """/* known attributes */
SELECT i.name FROM unnest($2::text[]) i(name)
WHERE (SELECT true FROM search_attribute a
       WHERE a.namespace = $1 AND a.name = i.name AND a.kind IN (1, 3) LIMIT 1)
   OR (SELECT true FROM search_attribute a
       WHERE a.namespace = $1 AND a.name = i.name AND a.kind = 2 LIMIT 1)"""


# ---- ids


async def select_ids(
    conn: Connection,
    namespace: str,
    query: Query | str,
    *,
    after: Position | None = None,
    limit: int = 1_000,
) -> IdPage:
    """Ids of the executions that a query finds, the newest first, those after a position.

    A page may be short or even empty while `next` is set: go on until it is None. Takes a connection
    that is in no transaction. Raises InvalidArgument and ResourceExhausted."""
    asked = parse(query) if isinstance(query, str) else query
    async with snapshot(conn):
        await check_guesses(conn, namespace, asked)
        scan = await _Scan.open(conn, Asked(namespace, asked.node))
        rows, seen = await scan.page(after, limit, None)
    position = None
    if len(rows) == limit:
        position = rows[-1]
    elif seen is not None:
        position = seen
    return IdPage(rows, position)


# ---- executions


async def search_workflows(
    conn: Connection,
    asked: Asked,
    *,
    budget: Budget,
    after: tuple[Any, ...] | None = None,
    start: int = 0,
    size: int = 100,
) -> Page[FoundWorkflow]:
    """A page, those after `Page.next` of the last one; `start` leaves out so many. Inside a `snapshot`."""
    scan = await _Scan.open(conn, asked)
    further: tuple[Any, ...] | None
    if scan.sorted:
        offset, until_ms = after if after is not None else (start, None)
        ids, further, partial = await scan.sorted_page(offset, until_ms, size)
    else:
        rows, seen = await scan.page(after, start + size + 1, budget)
        ids = [row[1] for row in rows[start : start + size]]
        more = len(rows) > start + size
        further = rows[start + size - 1] if more else seen
        partial = not more and seen is not None
    return Page(await _details(conn, ids), further, partial)


async def _details(conn: Connection, ids: list[str]) -> list[FoundWorkflow]:
    if not ids:
        return []
    found = {}
    for row in await conn.fetch(_DETAILS, ids):
        workflow = FoundWorkflow(*row)
        workflow.id, workflow.status = str(row["id"]), WorkflowStatus(row["status"])
        workflow.parent_id = None if workflow.parent_id is None else str(workflow.parent_id)
        found[workflow.id] = workflow
    for row in await conn.fetch(_ATTRIBUTES, ids):
        attribute = FoundAttribute(row["name"], row["kind"], row["text"])
        found[str(row["workflow_id"])].attributes.append(attribute)
    return [found[id_] for id_ in ids if id_ in found]


# $1 ids
_DETAILS = """/* search details */
SELECT w.id, w.name, w.version, w.status, w.correlation_id, w.created_ms, w.ended_ms, w.updated_ms,
  w.parent_id, w.priority, p.created_by, p.idempotency_key, p.reason
FROM workflow w JOIN workflow_payload p ON p.workflow_id = w.id WHERE w.id = ANY ($1::uuid[])"""

# $1 ids
_ATTRIBUTES = """/* search attributes of workflows */
SELECT a.workflow_id, a.name, a.kind, a.text FROM search_attribute a
WHERE a.workflow_id = ANY ($1::uuid[]) ORDER BY a.workflow_id, a.name"""


class _Scan:
    """One query over executions: its path and its condition."""

    def __init__(self, conn: Connection, asked: Asked, access: Access) -> None:
        self._conn = conn
        self._asked = asked
        self._access = access
        self._node = affirm(asked.node)
        first = asked.sort[0] if asked.sort else None
        by_start = first is None or (len(asked.sort) == 1 and first.field.name == "startTime")
        self.sorted = not by_start
        self._ascending = by_start and first is not None and not first.descending

    @classmethod
    async def open(cls, conn: Connection, asked: Asked) -> _Scan:
        return cls(conn, asked, await choose(conn, asked.namespace, WORKFLOWS, asked.node))

    async def page(
        self, after: Position | None, limit: int, budget: Budget | None
    ) -> tuple[list[Position], Position | None]:
        """Up to `limit` positions; and how far was read, where that is neither full nor the end."""
        found: list[Position] = []
        chunk, examined = max(CHUNK_FIRST, limit), 0
        while True:
            rows, after, ended = await self._chunk(after, limit - len(found), chunk)
            found += rows
            if ended or len(found) >= limit:
                return found, None
            examined += chunk
            chunk = CHUNK_MAX if budget is None else budget.next_chunk(chunk, CHUNK_FIRST, CHUNK_MAX)
            if not chunk or examined >= EXAMINED_MAX:
                return found, after

    async def _chunk(
        self, after: Position | None, limit: int, chunk: int
    ) -> tuple[list[Position], Position | None, bool]:
        """What the next `chunk` executions of the path hold, where it ends, whether that is the end."""
        parameters = Parameters(self._asked.namespace)
        inner = self._read(parameters, after, chunk, "")
        way, back = ("ASC", "DESC") if self._ascending else ("DESC", "ASC")
        rows = await self._conn.fetch(
            f"""/* search */
WITH chunk AS MATERIALIZED ({inner})
(SELECT c.created_ms, c.id, 0 AS part FROM chunk c WHERE c.hit
  ORDER BY c.created_ms {way}, c.id {way} LIMIT {limit})
UNION ALL
(SELECT c.created_ms, c.id, (SELECT count(*) FROM chunk) FROM chunk c
  ORDER BY c.created_ms {back}, c.id {back} LIMIT 1)""",
            *parameters.values,
        )
        if not rows:
            return [], None, True
        last = rows.pop()
        hits = [(row["created_ms"], str(row["id"])) for row in rows]
        return hits, (last["created_ms"], str(last["id"])), last["part"] < chunk

    def _read(self, parameters: Parameters, after: Position | None, limit: int, more: str) -> str:
        """The executions of the path with whether they are found: created_ms, id, hit and `more`."""
        test = condition(self._node, WORKFLOWS, parameters)
        path = arms_sql(
            self._access, parameters, _columns(test + more), after, limit, ascending=self._ascending
        )
        return f"SELECT w.created_ms, w.id, {test} AS hit{more} FROM ({path}) w"

    async def sorted_page(
        self, offset: int, until_ms: int | None, size: int
    ) -> tuple[list[str], tuple[int, int] | None, bool]:
        """Ids in the order asked for, among the newest `SORT_WINDOW` executions of the path that had
        begun at `until_ms`: the first page fixes that for those that follow."""
        if until_ms is not None:
            bound = until_ms if self._access.to_ms is None else min(until_ms, self._access.to_ms)
            self._access = Access(self._access.arms, False, self._access.from_ms, bound)
        parameters = Parameters(self._asked.namespace)
        keys = [WORKFLOW_SQL[order.field.name] for order in self._asked.sort]
        more = "".join(f", {key} AS key{place}" for place, key in enumerate(keys))
        inner = self._read(parameters, None, SORT_WINDOW, more)
        orders = [
            f"c.key{place} {'DESC NULLS LAST' if order.descending else 'ASC NULLS FIRST'}"
            for place, order in enumerate(self._asked.sort)
        ]
        rows = await self._conn.fetch(
            f"""/* search sorted */
WITH chunk AS MATERIALIZED ({inner})
SELECT i.id, s.examined, s.newest FROM (SELECT count(*) AS examined, max(created_ms) AS newest FROM chunk) s
LEFT JOIN LATERAL (SELECT c.id FROM chunk c WHERE c.hit
  ORDER BY {", ".join(orders)}, c.created_ms DESC, c.id DESC LIMIT {size + 1} OFFSET {offset}) i ON true""",
            *parameters.values,
        )
        ids = [str(row["id"]) for row in rows if row["id"] is not None]
        newest = rows[0]["newest"]
        further = (offset + size, until_ms or newest) if len(ids) > size else None
        return ids[:size], further, rows[0]["examined"] >= SORT_WINDOW


_COLUMN = re.compile(r"\bw\.(\w+)")


def _columns(sql: str) -> list[str]:
    """The columns of `workflow w` that are read, besides those of every path."""
    return sorted({*_COLUMN.findall(sql)} - {"created_ms", "id"})


# ---- tasks


async def search_tasks(
    conn: Connection,
    asked: Asked,
    *,
    budget: Budget,
    after: tuple[Any, ...] | None = None,
    size: int = 100,
) -> Page[FoundTask]:
    """A page of tasks: those of the newest execution first, in it the last first. Inside a `snapshot`.

    Executions are read by the path of their own conditions; a task has no index of its own, which
    every step would have to pay for."""
    access = await choose(conn, asked.namespace, TASKS, asked.node)
    node = affirm(asked.node)
    found: list[FoundTask] = []
    chunk = TASK_CHUNK_FIRST
    while True:
        more = size + 1 - len(found)
        rows, after, ended = await _task_chunk(conn, asked.namespace, access, node, after, more, chunk)
        found += rows
        if len(found) > size:
            last = found[size - 1]
            return Page(found[:size], (last.workflow_created_ms, last.workflow_id, last.row.seq))
        if ended:
            return Page(found)
        chunk = budget.next_chunk(chunk, TASK_CHUNK_FIRST, TASK_CHUNK_MAX)
        if not chunk:
            return Page(found, after, partial=True)


async def _task_chunk(
    conn: Connection,
    namespace: str,
    access: Access,
    node: Node,
    after: tuple[Any, ...] | None,
    limit: int,
    chunk: int,
) -> tuple[list[FoundTask], tuple[Any, ...] | None, bool]:
    """`after` is (created_ms, workflow id, seq): seq 0 where all tasks of that execution were seen."""
    parameters = Parameters(namespace)
    test = condition(node, TASKS, parameters)
    head = None
    below = ""
    if after is not None:
        created_ms, workflow_id, seq = after
        # An execution that was left in the middle is read again: its successor in the order begins there.
        head = (created_ms, workflow_id) if seq == 0 else (created_ms, _next_id(workflow_id))
        if seq:
            current, last = parameters.add(workflow_id, "uuid"), parameters.add(seq, "integer")
            below = f" AND (w.id <> {current} OR t.seq < {last})"
    path = arms_sql(access, parameters, sorted({*_columns(test), "name", "correlation_id"}), head, chunk)
    rows = await conn.fetch(
        f"""/* search tasks */
WITH chunk AS MATERIALIZED ({path}),
page AS MATERIALIZED (SELECT w.created_ms, w.id, t.seq, w.name, w.correlation_id FROM chunk w
  CROSS JOIN LATERAL (SELECT t.* FROM task t WHERE t.workflow_id = w.id ORDER BY t.seq DESC) t
  WHERE {test}{below} ORDER BY w.created_ms DESC, w.id DESC, t.seq DESC LIMIT {limit})
SELECT g.created_ms, g.id, g.name AS workflow_name, g.correlation_id, {_BARE_TASK}, 0::bigint AS part
FROM page g JOIN task t ON t.workflow_id = g.id AND t.seq = g.seq
UNION ALL
(SELECT c.created_ms, c.id, NULL, NULL, {_NO_TASK}, (SELECT count(*) FROM chunk) FROM chunk c
  ORDER BY c.created_ms, c.id LIMIT 1)""",
        *parameters.values,
    )
    if not rows:
        return [], None, True
    last = rows.pop()
    tasks = sorted(rows, key=lambda row: (row["created_ms"], row["id"].int, row["seq"]), reverse=True)
    found = [
        FoundTask(str(row["id"]), row["workflow_name"], row["correlation_id"], row["created_ms"], _task(row))
        for row in tasks
    ]
    return found, (last["created_ms"], str(last["id"]), 0), last["part"] < chunk


_TASK_FIELDS = (
    ("seq", "integer"), ("generation", "integer"), ("reference", "text"), ("path", "integer[]"),
    ("attempt", "integer"), ("scope", "integer"), ("type", "text"), ("name", "text"), ("status", "smallint"),
    ("scheduled_ms", "bigint"), ("first_scheduled_ms", "bigint"), ("reason", "text"),
    ("started_ms", "bigint"), ("updated_ms", "bigint"), ("ended_ms", "bigint"), ("worker_id", "text"),
    ("domain", "text"), ("retried_seq", "integer"), ("superseded", "boolean"), ("child_id", "uuid"),
    ("callback_after_s", "integer"), ("poll_count", "integer"),
)  # fmt: skip
_BARE_TASK = ", ".join(f"t.{name}" for name, _ in _TASK_FIELDS)
_NO_TASK = ", ".join(f"NULL::{type_}" for _, type_ in _TASK_FIELDS)


def _task(row: Any) -> TaskRow:
    fields = {name: row[name] for name, _ in _TASK_FIELDS}
    fields["path"] = tuple(fields["path"])
    fields["status"] = TaskStatus(fields["status"])
    fields["child_id"] = None if fields["child_id"] is None else str(fields["child_id"])
    return TaskRow(**fields)


def _next_id(workflow_id: str) -> str:
    """The id right above: reading after it begins with `workflow_id` itself."""
    number = int(workflow_id.replace("-", ""), 16) + 1
    text = f"{min(number, (1 << 128) - 1):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


# ---- counts


async def count_workflows(conn: Connection, asked: Asked, *, budget: Budget, group_by: str = "") -> Count:
    """How many executions a query finds, in all and by `group_by`: status, workflowType, version, or
    `attributes.<name>`. Inside a `snapshot`. Exact as far as the time goes."""
    access = await choose(conn, asked.namespace, WORKFLOWS, asked.node, probed=COUNT_FIRST)
    counter = _Counter(conn, asked, budget, group_by)
    count = Count()
    for label, lane in await counter.lanes(access):
        if budget.left_ms <= 0:
            count.exact = False
            if label:
                count.inexact.add(label)
            continue
        await counter.add(count, label, lane)
    if not count.exact and not all(label in count.inexact for label in count.groups):
        count.inexact |= set(count.groups) if counter.mixed else set()
    return count


class _Counter:
    def __init__(self, conn: Connection, asked: Asked, budget: Budget, group_by: str) -> None:
        self._conn = conn
        self._asked = asked
        self._budget = budget
        self._group_by = group_by
        self._node = affirm(asked.node)
        self.mixed = False
        """Some lane holds several groups."""

    async def lanes(self, access: Access) -> list[tuple[str, Access]]:
        """The path, as several where each is one group: (the group's name or empty, its path)."""
        by = {"status": By.STATUS, "workflowType": By.NAME}.get(self._group_by)
        if by is not None and access.by_age:
            names = await self._names(by)
            if names is not None:
                access = Access(
                    tuple(Arm(by, name) for name in names), access.exact, access.from_ms, access.to_ms
                )
        if not access.disjoint:
            self.mixed = True
            return [("", access)]
        lanes = []
        for arm in access.arms:
            label = _label(by, arm.value) if by is not None and arm.by is by else ""
            self.mixed |= bool(self._group_by) and not label
            lanes.append((label, Access((arm,), access.exact, access.from_ms, access.to_ms)))
        return lanes

    async def _names(self, by: By) -> list[Any] | None:
        if by is By.STATUS:
            return list(WorkflowStatus)  # the running ones first, the many that are COMPLETED not last
        rows = await self._conn.fetch(_NAMES, self._asked.namespace, NAMES_MAX + 1)
        names = [row["name"] for row in rows if row["name"] is not None]
        return names if 0 < len(names) <= NAMES_MAX else None

    async def add(self, count: Count, label: str, lane: Access) -> None:
        if lane.exact and (label or not self._group_by):
            await self._whole(count, label, lane)
        else:
            await self._tested(count, label, lane)

    async def _whole(self, count: Count, label: str, lane: Access) -> None:
        """Nothing is left to test: count index entries."""
        found, exact = await self._entries(lane, COUNT_FIRST), True
        if found == COUNT_FIRST:
            exact = False
            try:
                async with self._conn.transaction():
                    left_ms = max(int(self._budget.left_ms), 1)
                    await self._conn.execute(f"SET LOCAL statement_timeout = {left_ms}")
                    found, exact = await self._entries(lane, None), True
            except asyncpg.QueryCanceledError:
                pass
            finally:
                await self._conn.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}")
        _note(count, label or None, found, exact)

    async def _entries(self, lane: Access, most: int | None) -> int:
        parameters = Parameters(self._asked.namespace)
        path = count_sql(lane, parameters, most)
        sql = f"/* search count */ SELECT count(*) FROM ({path}) x"
        return int(await self._conn.fetchval(sql, *parameters.values))

    async def _tested(self, count: Count, label: str, lane: Access) -> None:
        after: Position | None = None
        chunk = CHUNK_FIRST
        while True:
            parameters = Parameters(self._asked.namespace)
            test = condition(self._node, WORKFLOWS, parameters)
            group = self._group(label, parameters)
            path = arms_sql(lane, parameters, _columns(test + group), after, chunk)
            rows = await self._conn.fetch(
                f"""/* search count tested */
WITH chunk AS MATERIALIZED (SELECT w.created_ms, w.id, {test} AS hit, {group} AS label FROM ({path}) w)
SELECT c.label, count(*) FILTER (WHERE c.hit) AS found, count(*) AS examined,
  min(c.created_ms) AS created_ms, NULL::uuid AS id FROM chunk c GROUP BY c.label
UNION ALL
(SELECT NULL, 0, -1, c.created_ms, c.id FROM chunk c ORDER BY c.created_ms, c.id LIMIT 1)""",
                *parameters.values,
            )
            for row in rows:
                if row["found"]:
                    _note(count, row["label"] or "" if self._group_by else None, row["found"], True)
            examined = sum(row["examined"] for row in rows if row["examined"] > 0)
            if examined < chunk:
                return
            chunk = self._budget.next_chunk(chunk, CHUNK_FIRST, CHUNK_MAX)
            if not chunk:
                _note(count, label or None, 0, False)
                return
            (after,) = [(row["created_ms"], str(row["id"])) for row in rows if row["examined"] < 0]

    def _group(self, label: str, parameters: Parameters) -> str:
        if label:
            return parameters.add(label, "text")
        if self._group_by == "status":
            return f"({parameters.add([status.name for status in WorkflowStatus], 'text[]')})[w.status]"
        if self._group_by in ("workflowType", "version"):
            return f"{WORKFLOW_SQL[self._group_by]}::text"
        if self._group_by:
            name = parameters.add(self._group_by.removeprefix("attributes."), "text")
            return (
                "(SELECT a.text FROM search_attribute a WHERE a.workflow_id = w.id"
                f" AND a.name = {name} AND a.kind < 4)"
            )
        return "NULL::text"


def _label(by: By, value: Any) -> str:
    return WorkflowStatus(value).name if by is By.STATUS else str(value)


def _note(count: Count, label: str | None, found: int, exact: bool) -> None:
    """Add to a count, and to a group where there is one; "" is the group of those without a value."""
    count.total += found
    count.exact &= exact
    if label is not None and (found or not exact):
        count.groups[label] = count.groups.get(label, 0) + found
        if not exact:
            count.inexact.add(label)


# $1 namespace, $2 at most. Each name by one probe of the index on names.
_NAMES = """/* names of workflows */
WITH RECURSIVE names AS (
  (SELECT w.name FROM workflow w WHERE w.namespace = $1 ORDER BY w.name LIMIT 1)
  UNION ALL
  SELECT (SELECT w.name FROM workflow w WHERE w.namespace = $1 AND w.name > n.name ORDER BY w.name LIMIT 1)
  FROM names n WHERE n.name IS NOT NULL)
SELECT n.name FROM names n LIMIT $2"""
