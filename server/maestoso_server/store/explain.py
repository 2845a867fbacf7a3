"""Why open tasks wait: what their queue rows and deadlines say. For operators, not for hot paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .database import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """The queue row of an open task. `owner_epoch`: None waiting, -1 asleep, 0 polled, else a node.

    `limit` is the task type's `concurrentExecLimit` (0 = none), `used` how much of it is taken."""

    queue: str
    owner_epoch: int | None
    due_ms: int
    deadline_ms: int | None
    worker_id: str
    started_ms: int
    limit: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFacts:
    """What the tables beside `task` know of an open task. `due_ms`: its row in `deadline`, None = none."""

    queue: QueueFacts | None
    due_ms: int | None


async def open_facts(conn: Connection, workflow_id: str, seqs: Sequence[int]) -> dict[int, OpenFacts]:
    """The facts of these tasks of a workflow, by seq."""
    return {
        row["seq"]: OpenFacts(
            queue=None
            if row["queue"] is None
            else QueueFacts(
                queue=row["queue"],
                owner_epoch=row["owner_epoch"],
                due_ms=row["due_ms"],
                deadline_ms=row["deadline_ms"],
                worker_id=row["worker_id"],
                started_ms=row["started_ms"],
                limit=row["task_limit"],
                used=row["used"],
            ),
            due_ms=row["clock_ms"],
        )
        for row in await conn.fetch(_OPEN_FACTS, workflow_id, seqs)
    }


# $1 workflow, $2 seqs
_OPEN_FACTS = """/* explain */
SELECT i.seq, q.queue, q.owner_epoch, q.due_ms, q.deadline_ms, q.worker_id, q.started_ms, q.task_limit,
  CASE WHEN q.task_limit > 0 THEN (
    SELECT count(*) FROM task_queue o
    WHERE o.namespace = q.namespace AND o.task_type = q.task_type
      AND o.owner_epoch IS NOT NULL AND o.owner_epoch >= 0 AND o.task_limit > 0 AND NOT o.ended)
  ELSE 0 END AS used,
  d.due_ms AS clock_ms
FROM unnest($2::integer[]) i(seq)
LEFT JOIN task_queue q ON q.workflow_id = $1::uuid AND q.seq = i.seq AND NOT q.ended
LEFT JOIN deadline d ON d.workflow_id = $1::uuid AND d.seq = i.seq"""


async def pending_messages(conn: Connection, workflow_id: str) -> int:
    """Messages that the workflow has not applied, kept signals among them."""
    return int(await conn.fetchval(_PENDING, workflow_id))


# $1 workflow
_PENDING = """/* explain messages */
SELECT count(*) FROM inbox WHERE workflow_id = $1::uuid AND outcome IS NULL"""
