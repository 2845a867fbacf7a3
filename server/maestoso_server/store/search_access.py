"""By which index a search reads: the access path is chosen here, not left to the planner's statistics.

A search reads executions in the order of their start, the newest first, and tests each against the
whole query (`search_conditions`), so an access path only ever narrows what is read and cannot make a
result wrong. It is a set of *arms*, each an index in that order (an execution's name, status,
correlation id, parent, one value of an attribute) or a small set of ids; Postgres merges them. Where
several paths would do, each is probed for its size: a few thousand index entries at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from .. import ids
from ..query import (
    EVERYTHING,
    TASKS,
    And,
    Attribute,
    Between,
    Compare,
    Field,
    In,
    Literal,
    Missing,
    Node,
    Not,
    Op,
    Or,
    Pattern,
    Subject,
    Value,
    Words,
)
from ..query.fields import STATUSES
from .database import Connection
from .search_conditions import OF_NUMBER, OF_TEXT, Parameters, attribute_test

ARMS_MAX = 32
"""Indexes read at once."""
IDS_MAX = 5_000
"""A larger set of ids than this is found sooner by reading from the newest on."""
PROBED = 10_000
"""Entries counted to tell a small path from a large one."""


class By(IntEnum):
    """What an arm reads."""

    IDS = 0
    CORRELATION = 1
    PARENT = 2
    TEXT = 3
    NUMBER = 4
    NAME = 5
    STATUS = 6
    AGE = 7


@dataclass(frozen=True, slots=True)
class Arm:
    by: By
    value: Any = None
    attribute: str = ""


BY_AGE = (Arm(By.AGE),)


@dataclass(frozen=True, slots=True)
class Access:
    """`exact`: every execution that the arms and bounds leave is found; no condition is left to test.
    Bounds of the start time belong to it; None = open."""

    arms: tuple[Arm, ...] = BY_AGE
    exact: bool = False
    from_ms: int | None = None
    to_ms: int | None = None

    @property
    def by_age(self) -> bool:
        return self.arms == BY_AGE

    @property
    def disjoint(self) -> bool:
        """No execution is in two of the arms."""
        return len(self.arms) < 2 or (
            len({(arm.by, arm.attribute) for arm in self.arms}) == 1 and self.arms[0].by is not By.IDS
        )


async def choose(
    conn: Connection, namespace: str, subject: Subject, node: Node, *, probed: int = PROBED
) -> Access:
    """The path for a query. Costs a statement where several would do, and one for each set of ids."""
    return await _Chooser(conn, namespace, subject, probed).of(affirm(node))


def affirm(node: Node, negated: bool = False) -> Node:
    """The same tree with every NOT pushed down to the conditions."""
    match node:
        case Not(part):
            return affirm(part, not negated)
        case And(()):
            return Not(EVERYTHING) if negated else node
        case And(parts) | Or(parts):
            kind = And if isinstance(node, And) is not negated else Or
            return kind(tuple(affirm(part, negated) for part in parts))
    return Not(node) if negated else node


class _Chooser:
    def __init__(self, conn: Connection, namespace: str, subject: Subject, probed: int) -> None:
        self._conn = conn
        self._namespace = namespace
        self._tasks = subject is TASKS
        self._probed = probed

    async def of(self, node: Node) -> Access:
        match node:
            case And(()):
                return Access(exact=not self._tasks)
            case And(parts):
                return await self._every(parts)
            case Or(parts):
                return _either([await self.of(part) for part in parts])
            case Not(part):
                return self._not(part)
            case Words(words):
                return (
                    await self._every([Words((word,)) for word in words])
                    if len(words) > 1
                    else (await self._word(words[0]))
                )
            case _:
                return await self._condition(node)

    async def _every(self, parts: Sequence[Node]) -> Access:
        found = [await self.of(part) for part in parts]
        narrow = [access for access in found if not access.by_age]
        chosen = narrow[0] if narrow else Access(exact=True)
        if len(narrow) > 1:
            chosen = await self._smallest(narrow)
        lows = [access.from_ms for access in found if access.from_ms is not None]
        highs = [access.to_ms for access in found if access.to_ms is not None]
        rest = all(access.exact and access.by_age for access in found if access is not chosen)
        return replace(
            chosen,
            exact=chosen.exact and rest,
            from_ms=max(lows, default=None),
            to_ms=min(highs, default=None),
        )

    async def _smallest(self, paths: list[Access]) -> Access:
        parameters = Parameters(self._namespace)
        counts = [f"(SELECT count(*) FROM ({count_sql(path, parameters, self._probed)}) x)" for path in paths]
        sizes = await self._conn.fetchrow(
            f"/* search probe */ SELECT {', '.join(counts)}", *parameters.values
        )
        order = sorted(range(len(paths)), key=lambda place: (sizes[place], paths[place].arms[0].by))
        return paths[order[0]]

    # -- conditions

    async def _condition(self, node: Node) -> Access:
        assert isinstance(node, Compare | In | Between | Missing)
        if isinstance(node.field, Attribute):
            return await self._attribute(node.field, node)
        return await self._field(node.field, node)

    async def _field(self, field: Field, node: Compare | In | Between | Missing) -> Access:
        values = _equals(node)
        match "workflowStartTime" if self._tasks and field.name == "workflowStartTime" else field.name:
            case "workflowStartTime":
                return _started(node)
            case "startTime" if not self._tasks:
                return _started(node)
            case "workflowStatus" if self._tasks and values:
                return self._arms(By.STATUS, values)
            case "status" if not self._tasks and values:
                return self._arms(By.STATUS, values)
            case "workflowType" if values:
                return self._arms(By.NAME, values)
            case "correlationId" if values:
                return self._arms(By.CORRELATION, values)
            case "parentWorkflowId" if values:
                return self._arms(By.PARENT, values)
            case "workflowId" if values:
                return Access((Arm(By.IDS, tuple(map(str, values))),), exact=not self._tasks)
            case "taskId" if values:
                return await self._task_ids([str(value) for value in values])
            case "idempotencyKey" if values:
                return await self._ids(_KEYED, list(values), exact=True)
        return Access()

    def _arms(self, by: By, values: Sequence[Value]) -> Access:
        distinct = dict.fromkeys(values)
        if len(distinct) > ARMS_MAX:
            return Access()
        return Access(tuple(Arm(by, value) for value in distinct), exact=not self._tasks)

    def _not(self, part: Node) -> Access:
        """Of all conditions only one on the status says much by its negation."""
        if isinstance(part, Compare | In) and isinstance(part.field, Field) and part.field.of == "workflow":
            excluded = set(_equals(part))
            return self._arms(
                By.STATUS, [status for status in STATUSES["workflow"] if status not in excluded]
            )
        return Access()

    async def _attribute(self, attribute: Attribute, node: Compare | In | Between | Missing) -> Access:
        if isinstance(node, Missing):
            return Access()
        values = [value for value in _equals(node) if isinstance(value, Literal)]
        if values and len(values) * 2 <= ARMS_MAX:
            texts = dict.fromkeys(Arm(By.TEXT, value.text, attribute.name) for value in values)
            numbers = dict.fromkeys(
                Arm(By.NUMBER, value.number, attribute.name) for value in values if value.number is not None
            )
            return Access((*texts, *numbers), exact=True)
        if isinstance(node, Compare) and isinstance(node.value, Pattern) and not node.value.parts[0]:
            return Access()
        parameters = Parameters(self._namespace, attribute.name)
        test = attribute_test(node, parameters)
        sql = f"""/* search attributes */ SELECT a.workflow_id AS id FROM search_attribute a
          WHERE a.namespace = $1 AND a.name = $2 AND {test} LIMIT {IDS_MAX + 1}"""
        return await self._ids(sql, *parameters.values[2:], attribute=attribute.name)

    async def _task_ids(self, tasks: list[str]) -> Access:
        lows, highs = zip(*(ids.split_task_id(task)[:2] for task in tasks), strict=True)
        return await self._ids(_OF_TASKS, list(lows), list(highs))

    async def _word(self, word: str) -> Access:
        """The execution that is called so, or has the word in its reason or an attribute."""
        canonical = ids.canonical(word)
        named = [Arm(By.NAME, word), Arm(By.CORRELATION, word)]
        if canonical is not None:
            named.append(Arm(By.IDS, (canonical,)))
        keyed = await self._ids(_KEYED, [word], exact=True)
        await self._conn.execute("SET LOCAL enable_bitmapscan = on")
        worded = await self._ids(_WORDED, word, exact=True)
        await self._conn.execute("SET LOCAL enable_bitmapscan = off")
        return _either([Access(tuple(named), exact=not self._tasks), keyed, worded])

    async def _ids(self, sql: str, *values: Any, attribute: str = "", exact: bool = False) -> Access:
        """The set of ids that a statement finds, or everything where there are too many."""
        first = (self._namespace, attribute) if attribute else ()
        rows = await self._conn.fetch(sql, *first, *values)
        if len(rows) > IDS_MAX:
            return Access()
        return Access((Arm(By.IDS, tuple(sorted({str(row["id"]) for row in rows}))),), exact=exact)


# $1 keys
_KEYED = f"""/* search keys */
SELECT p.workflow_id AS id FROM workflow_payload p WHERE p.idempotency_key = ANY ($1::text[])
LIMIT {IDS_MAX + 1}"""

# $1 lowest, $2 highest workflow ids that tasks may belong to
_OF_TASKS = f"""/* search tasks by id */
SELECT w.id FROM unnest($1::uuid[], $2::uuid[]) i(low, high)
JOIN workflow w ON w.id BETWEEN i.low AND i.high LIMIT {IDS_MAX + 1}"""

# $1 the word
_WORDED = f"""/* search words */
SELECT p.workflow_id AS id FROM workflow_payload p
WHERE p.reason IS NOT NULL AND to_tsvector('simple', p.reason) @@ plainto_tsquery('simple', $1::text)
UNION ALL
SELECT a.workflow_id FROM search_attribute a
WHERE {OF_TEXT} AND to_tsvector('simple', a.text) @@ plainto_tsquery('simple', $1::text)
LIMIT {IDS_MAX + 1}"""


def _equals(node: Node) -> tuple[Value, ...]:
    """The values of a condition that names each of them; empty where it does not."""
    match node:
        case In(_, values):
            return values
        case Compare(_, Op.EQ, value) if not isinstance(value, Pattern):
            return (value,)
    return ()


def _started(node: Compare | In | Between | Missing) -> Access:
    """Bounds of the start time."""
    match node:
        case Between(_, int(low), int(high)):
            return Access(exact=True, from_ms=low, to_ms=high)
        case Compare(_, Op.EQ, int(value)):
            return Access(exact=True, from_ms=value, to_ms=value)
        case Compare(_, Op.LT | Op.LE as op, int(value)):
            return Access(exact=True, to_ms=value - (op is Op.LT))
        case Compare(_, Op.GT | Op.GE as op, int(value)):
            return Access(exact=True, from_ms=value + (op is Op.GT))
    return Access()


def _either(paths: Sequence[Access]) -> Access:
    """All of several paths at once."""
    arms = tuple(dict.fromkeys(arm for path in paths for arm in path.arms))
    same_bounds = len({(path.from_ms, path.to_ms) for path in paths}) == 1
    if any(path.by_age for path in paths) or len(arms) > ARMS_MAX:
        return Access()
    lows, highs = [path.from_ms for path in paths], [path.to_ms for path in paths]
    return Access(
        arms,
        exact=same_bounds and all(path.exact for path in paths),
        from_ms=None if None in lows else min(low for low in lows if low is not None),
        to_ms=None if None in highs else max(high for high in highs if high is not None),
    )


# ---- SQL


_CONDITIONS = {
    By.NAME: ("w.name", "text"),
    By.STATUS: ("w.status", "smallint"),
    By.CORRELATION: ("w.correlation_id", "text"),
    By.PARENT: ("w.parent_id", "uuid"),
}
Position = tuple[int, str]
"""(created_ms, id) of the last execution that was read."""


def arms_sql(
    access: Access,
    parameters: Parameters,
    columns: Iterable[str],
    after: Position | None,
    limit: int,
    *,
    ascending: bool = False,
) -> str:
    """The first `limit` rows of the path after a position: created_ms, id and `columns` of `workflow w`,
    each execution once. $1 is the namespace."""
    direction = "ASC" if ascending else "DESC"
    arms = [_arm_sql(arm, access, parameters, columns, after, limit, direction) for arm in access.arms]
    if len(arms) == 1:
        return arms[0]
    once = "" if access.disjoint else "DISTINCT ON (created_ms, id) "
    merged = " UNION ALL ".join(f"({arm})" for arm in arms)
    return (
        f"SELECT {once}* FROM ({merged}) merged ORDER BY created_ms {direction}, id {direction} LIMIT {limit}"
    )


def count_sql(access: Access, parameters: Parameters, most: int | None) -> str:
    """Entries of the path, in any order, at most so many. $1 is the namespace."""
    arms = [_arm_sql(arm, access, parameters, (), None, most, None) for arm in access.arms]
    if len(arms) == 1:
        return arms[0]
    once = "UNION ALL" if access.disjoint else "UNION"
    limit = "" if most is None else f" LIMIT {most}"
    return f" {once} ".join(f"({arm})" for arm in arms) + limit


def _arm_sql(
    arm: Arm,
    access: Access,
    parameters: Parameters,
    columns: Iterable[str],
    after: Position | None,
    limit: int | None,
    direction: str | None,
) -> str:
    attribute = arm.by in (By.TEXT, By.NUMBER)
    at, id_ = ("a.created_ms", "a.workflow_id") if attribute else ("w.created_ms", "w.id")
    selected = [f"{at} AS created_ms", f"{id_} AS id", *(f"w.{name}" for name in columns)]
    source = "workflow w"
    if attribute:
        source = "search_attribute a" + (" JOIN workflow w ON w.id = a.workflow_id" if columns else "")
    where = [*_of_arm(arm, parameters)]
    if access.from_ms is not None:
        where.append(f"{at} >= {parameters.add(access.from_ms, 'bigint')}")
    if access.to_ms is not None:
        where.append(f"{at} <= {parameters.add(access.to_ms, 'bigint')}")
    if after is not None:
        sign = ">" if direction == "ASC" else "<"
        moment, last = parameters.add(after[0], "bigint"), parameters.add(after[1], "uuid")
        where.append(f"({at}, {id_}) {sign} ({moment}, {last})")
    sql = f"SELECT {', '.join(selected)} FROM {source} WHERE {' AND '.join(where)}"
    if direction is not None:
        sql += f" ORDER BY {at} {direction}, {id_} {direction}"
    return sql if limit is None else f"{sql} LIMIT {limit}"


def _of_arm(arm: Arm, parameters: Parameters) -> list[str]:
    if arm.by is By.AGE:
        return ["w.namespace = $1"]
    if arm.by is By.IDS:
        # Concatenated, so that no index that begins with the namespace seems as good as the key.
        return [f"w.id = ANY ({parameters.add(list(arm.value), 'uuid[]')})", "(w.namespace || '') = $1"]
    if arm.by is By.TEXT:
        name, value = parameters.add(arm.attribute, "text"), parameters.add(arm.value, "text")
        return ["a.namespace = $1", f"a.name = {name}", f"a.text = {value}", OF_TEXT]
    if arm.by is By.NUMBER:
        name, value = parameters.add(arm.attribute, "text"), parameters.add(arm.value, "numeric")
        return ["a.namespace = $1", f"a.name = {name}", f"a.number = {value}", OF_NUMBER]
    column, type_ = _CONDITIONS[arm.by]
    return ["w.namespace = $1", f"{column} = {parameters.add(arm.value, type_)}"]
