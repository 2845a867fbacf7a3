"""Deleting an execution for good: its tasks in statements of bounded size, then what names it.

The caller has marked it first (`engine.events.Remove`), so that nothing revives it meanwhile. What is
left of a removal that broke off is a marked workflow: remove it again. Queue rows are not touched:
an ended workflow has none but those that their owners are still to be told of.
"""

from __future__ import annotations

from ..engine.decision import MessageKind
from .database import Connection

ROWS_AT_ONCE = 1_000


async def remove_tasks(conn: Connection, workflow_id: str, *, limit: int = ROWS_AT_ONCE) -> bool:
    """Delete some of the tasks, their logs and fragments; False when none is left."""
    for statement in (_LOGS, _FRAGMENTS, _TASKS):
        if await conn.fetchval(statement, workflow_id, limit):
            return True
    return False


def _some(table: str, key: str) -> str:
    """Delete at most $2 rows of workflow $1; answers how many."""
    columns = ", ".join(f"x.{column}" for column in key.split(", "))
    return f"""/* remove from {table} */
WITH gone AS (
  DELETE FROM {table} x WHERE x.workflow_id = $1 AND ({columns}) IN (
    SELECT {columns} FROM {table} x WHERE x.workflow_id = $1 ORDER BY {columns} LIMIT $2)
  RETURNING 1)
SELECT count(*) FROM gone"""


# $1 workflow, $2 rows at most
_LOGS = _some("task_log", "seq, id")
_FRAGMENTS = _some("plan_fragment", "seq")
_TASKS = _some("task", "seq")


async def remove_workflow(conn: Connection, workflow_id: str) -> bool:
    """Delete the ended workflow's own row and all that names it; whether it was there."""
    return bool(await conn.fetchval(_WORKFLOW, workflow_id, int(MessageKind.FOLLOW)))


# $1 workflow, $2 the kind of a message that is answered all the same
_WORKFLOW = """/* remove workflow */
WITH gone AS (DELETE FROM workflow w WHERE w.id = $1 AND w.status > 2 RETURNING w.id, w.namespace),
paid AS (
  DELETE FROM workflow_payload p USING gone g WHERE p.workflow_id = g.id
  RETURNING g.namespace, p.idempotency_key),
freed AS (
  DELETE FROM idempotency k USING paid p
  WHERE k.namespace = p.namespace AND k.key = p.idempotency_key AND k.workflow_id = $1),
told AS (DELETE FROM inbox x USING gone g WHERE x.workflow_id = g.id AND x.kind <> $2::smallint),
found AS (DELETE FROM search_attribute s USING gone g WHERE s.workflow_id = g.id),
timed AS (DELETE FROM deadline d USING gone g WHERE d.workflow_id = g.id),
heard AS (DELETE FROM event e USING gone g WHERE e.workflow_id = g.id AND e.acknowledged_ms IS NOT NULL)
SELECT count(*) FROM gone"""
