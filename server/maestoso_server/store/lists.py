"""Reads for the API: one workflow, its tasks by page, lists by keyset, what an open task waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.state import Header, TaskRow, WorkflowStatus
from .database import Connection
from .rows import HEADER_COLUMNS, TASK_COLUMNS, TASK_WIDTH, header_from, task_from

PAGE_BYTES = 8 * 1024 * 1024
"""Payload bytes at which a page of tasks ends early; it holds one task at least."""


async def get_workflow(conn: Connection, namespace: str, workflow_id: str) -> Header | None:
    """A workflow with its payloads."""
    row = await conn.fetchrow(_GET_WORKFLOW, workflow_id)
    # Not in the statement: an index that begins with the namespace may seem as good as the key.
    return None if row is None or row["namespace"] != namespace else header_from(row)


# $1 id
_GET_WORKFLOW = f"""/* get workflow */
SELECT {HEADER_COLUMNS} FROM workflow w JOIN workflow_payload p ON p.workflow_id = w.id
WHERE w.id = $1"""


async def list_tasks(
    conn: Connection,
    workflow_id: str,
    *,
    payloads: bool,
    after: int = 0,
    limit: int = 1000,
    max_bytes: int = PAGE_BYTES,
) -> list[TaskRow]:
    """Task rows of all generations by seq, those after `after`. Without `payloads` their input is `{}`
    and their output absent. A page with payloads may be shorter than `limit` (`max_bytes`)."""
    if payloads:
        rows = await conn.fetch(_LIST_TASKS, workflow_id, after, limit, max_bytes)
    else:
        rows = await conn.fetch(_LIST_BARE_TASKS, workflow_id, after, limit)
    return [task_from(row) for row in rows]


_BARE_COLUMNS = TASK_COLUMNS.replace("t.input", "'{}'::bytea AS input").replace(
    "t.output", "NULL::bytea AS output"
)

# $1 workflow, $2 after this seq, $3 rows at most, $4 bytes at most. Sizes are read without the payloads.
_LIST_TASKS = f"""/* list tasks */
SELECT {TASK_COLUMNS} FROM (
  SELECT k.seq, sum(k.size) OVER (ORDER BY k.seq) AS so_far, k.size FROM (
    SELECT t.seq, octet_length(t.input) + coalesce(octet_length(t.output), 0) AS size FROM task t
    WHERE t.workflow_id = $1 AND t.seq > $2 ORDER BY t.seq LIMIT $3) k) k
CROSS JOIN LATERAL (SELECT * FROM task t WHERE t.workflow_id = $1 AND t.seq = k.seq OFFSET 0) t
WHERE k.so_far <= $4::bigint OR k.so_far = k.size
ORDER BY k.seq"""

# $1 workflow, $2 after this seq, $3 at most
_LIST_BARE_TASKS = f"""/* list bare tasks */
SELECT {_BARE_COLUMNS} FROM task t WHERE t.workflow_id = $1 AND t.seq > $2 ORDER BY t.seq LIMIT $3"""


async def revisions(conn: Connection, workflow_ids: Sequence[str]) -> dict[str, int]:
    """The revision of each of these workflows that exists."""
    rows = await conn.fetch(_REVISIONS, list(workflow_ids))
    return {str(row["id"]): row["revision"] for row in rows}


# $1 ids
_REVISIONS = """/* revisions */
SELECT w.id, w.revision FROM workflow w WHERE w.id = ANY ($1::uuid[])"""


@dataclass(slots=True)
class FoundTask:
    """A task with what its workflow says of it."""

    namespace: str
    workflow_id: str
    workflow_name: str
    snapshot_id: str
    row: TaskRow


async def get_task(conn: Connection, namespace: str, low: str, high: str, seq: int) -> FoundTask | None:
    """The task `seq` of the workflow whose id is from `low` to `high` (`ids.split_task_id`)."""
    row = await conn.fetchrow(_GET_TASK, namespace, low, high, seq)
    if row is None:
        return None
    workflow_id, snapshot_id = str(row["workflow_id"]), str(row["snapshot_id"])
    return FoundTask(namespace, workflow_id, row["workflow_name"], snapshot_id, task_from(row))


# $1 namespace, $2 lowest and $3 highest workflow id, $4 seq
_GET_TASK = f"""/* get task */
SELECT {TASK_COLUMNS}, w.namespace, t.workflow_id, w.name AS workflow_name, w.snapshot_id
FROM task t JOIN workflow w ON w.id = t.workflow_id
WHERE t.workflow_id BETWEEN $2::uuid AND $3::uuid AND t.seq = $4 AND w.namespace = $1
ORDER BY t.workflow_id LIMIT 1"""


# ---- lists ---------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Filter:
    """Which workflows of a namespace; None = any."""

    name: str | None = None
    status: WorkflowStatus | None = None
    correlation_id: str | None = None
    created_from_ms: int | None = None
    created_before_ms: int | None = None


@dataclass(slots=True, frozen=True)
class WorkflowSummary:
    id: str
    name: str
    version: int
    status: WorkflowStatus
    correlation_id: str | None
    created_ms: int
    ended_ms: int


async def list_workflows(
    conn: Connection,
    namespace: str,
    filter: Filter,
    *,
    after: tuple[int, str] | None = None,
    limit: int = 100,
) -> list[WorkflowSummary]:
    """Workflows, the youngest first, those after (created_ms, id) of the last page's last one."""
    values: list[Any] = [namespace, limit]
    conditions = ["w.namespace = $1"]
    for condition, value in _conditions(filter, after):
        for item in value:
            values.append(item)
            condition = condition.replace("?", f"${len(values)}", 1)
        conditions.append(condition)
    rows = await conn.fetch(_LIST_WORKFLOWS.format(" AND ".join(conditions)), *values)
    return [
        WorkflowSummary(
            str(row["id"]),
            row["name"],
            row["version"],
            WorkflowStatus(row["status"]),
            row["correlation_id"],
            row["created_ms"],
            row["ended_ms"],
        )
        for row in rows
    ]


def _conditions(filter: Filter, after: tuple[int, str] | None) -> list[tuple[str, tuple[Any, ...]]]:
    """Only what is asked for, so that the planner sees which index serves it."""
    found: list[tuple[str, tuple[Any, ...]]] = []
    if filter.name is not None:
        found.append(("w.name = ?", (filter.name,)))
    if filter.status is not None:
        found.append(("w.status = ?::smallint", (int(filter.status),)))
    if filter.correlation_id is not None:
        found.append(("w.correlation_id = ?", (filter.correlation_id,)))
    if filter.created_from_ms is not None:
        found.append(("w.created_ms >= ?", (filter.created_from_ms,)))
    if filter.created_before_ms is not None:
        found.append(("w.created_ms < ?", (filter.created_before_ms,)))
    if after is not None:
        found.append(("(w.created_ms, w.id) < (?::bigint, ?::uuid)", after))
    return found


# $1 namespace, $2 at most, from $3 on the filter's values
_LIST_WORKFLOWS = """/* list workflows */
SELECT w.id, w.name, w.version, w.status, w.correlation_id, w.created_ms, w.ended_ms
FROM workflow w WHERE {} ORDER BY w.created_ms DESC, w.id DESC LIMIT $2"""


# ---- explain -------------------------------------------------------------------------------


@dataclass(slots=True)
class OpenTask:
    """An open task with the rows that say what it waits for; None where there is no such row."""

    row: TaskRow
    """Without payloads."""
    queue: str | None
    owner_epoch: int | None
    """None waiting for a taker, -1 asleep, 0 polled, else the node (only where `queue` is set)."""
    session_id: str | None
    delivery: int | None
    due_ms: int | None
    """Since when, or from when, it may be taken."""
    delivery_deadline_ms: int | None
    worker_id: str
    timer_ms: int | None
    """Of its row in `deadline`."""
    limit: int
    """More than 0: it stands under limits (`store.limits`)."""


@dataclass(slots=True)
class Explanation:
    header: Header
    open_tasks: list[OpenTask]
    workflow_timer_ms: int | None
    pending_messages: int


async def explain(
    conn: Connection, namespace: str, workflow_id: str, *, after: int = 0, limit: int = 100
) -> Explanation | None:
    """What each open task of a workflow waits for, by seq, those after `after`."""
    header = await get_workflow(conn, namespace, workflow_id)
    if header is None:
        return None
    facts = await conn.fetchrow(_EXPLAIN, workflow_id)
    rows = await conn.fetch(_OPEN_TASKS, workflow_id, header.generation, after, limit)
    open_tasks = [OpenTask(task_from(row), *_open_facts(row)) for row in rows]
    return Explanation(header, open_tasks, facts["timer_ms"], facts["pending"])


def _open_facts(row: Any) -> tuple[Any, ...]:
    queue, owner, session, delivery, due_ms, deadline_ms, worker_id, timer_ms, limit = list(row)[TASK_WIDTH:]
    session_id = None if session is None else str(session)
    return queue, owner, session_id, delivery, due_ms, deadline_ms, worker_id or "", timer_ms, limit


# $1 workflow
_EXPLAIN = """/* explain workflow */
SELECT (SELECT d.due_ms FROM deadline d WHERE d.workflow_id = $1 AND d.seq = 0) AS timer_ms,
  (SELECT count(*) FROM inbox x WHERE x.workflow_id = $1 AND x.outcome IS NULL) AS pending"""

# $1 workflow, $2 generation, $3 after this seq, $4 at most
# The generation is written so that no index answers it (see `needs`).
_OPEN_TASKS = f"""/* explain open tasks */
SELECT {_BARE_COLUMNS}, q.queue, q.owner_epoch, q.session_id, q.delivery, q.due_ms, q.deadline_ms,
  q.worker_id, d.due_ms, coalesce(q.task_limit, 0)
FROM task t
LEFT JOIN LATERAL (
  SELECT * FROM task_queue q WHERE q.workflow_id = t.workflow_id AND q.seq = t.seq OFFSET 0) q ON NOT q.ended
LEFT JOIN deadline d ON d.workflow_id = t.workflow_id AND d.seq = t.seq
WHERE t.workflow_id = $1 AND t.seq > $3 AND coalesce(t.generation, 0) = $2 AND t.status <= 2
ORDER BY t.seq LIMIT $4"""
