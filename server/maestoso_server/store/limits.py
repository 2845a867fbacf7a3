"""How the limits of task definitions stand: for people who ask why a task waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..definitions.models import NO_SLOT_LIMIT
from .database import Connection
from .queue import registered_limits


@dataclass(slots=True, frozen=True)
class LimitState:
    """`held` of `slots` may run at once; `granted` of `rate` hand-outs (0 = any number) lie in the window
    of `window_s`, and the next one may follow at `opens_ms`."""

    slots: int = NO_SLOT_LIMIT
    held: int = 0
    rate: int = 0
    window_s: int = 0
    granted: int = 0
    opens_ms: int = 0


async def states(
    conn: Connection, keys: Sequence[tuple[str, int]], *, now_ms: int
) -> dict[tuple[str, int], LimitState]:
    """Of those of the tasks (workflow id, seq) that wait under limits."""
    found = {}
    for workflow_id, seq in keys:
        row = await conn.fetchrow(_BOUNDS, workflow_id, seq)
        if row is None:
            continue
        slots, rate, window_s = row["task_limit"], row["rate"] or 0, row["rate_window_s"] or 0
        if row["document"] is not None:
            slots, rate, window_s = registered_limits(row["document"])
        facts = await conn.fetchrow(
            _STATE, row["namespace"], row["name"], row["task_type"], now_ms - window_s * 1000
        )
        found[workflow_id, seq] = LimitState(
            slots,
            facts["held"],
            rate,
            window_s,
            facts["granted"],
            (facts["oldest_ms"] or 0) + window_s * 1000,
        )
    return found


# $1 workflow, $2 seq
_BOUNDS = """/* limits of a task */
SELECT q.namespace, coalesce(q.limit_name, q.task_type) AS name, q.task_type, q.task_limit, q.rate,
  q.rate_window_s, d.document
FROM task_queue q
LEFT JOIN task_definition d ON d.namespace = q.namespace AND d.name = coalesce(q.limit_name, q.task_type)
WHERE q.workflow_id = $1 AND q.seq = $2 AND q.task_limit > 0 AND NOT q.ended"""

# $1 namespace, $2 task definition, $3 task type, $4 the window's beginning (excluded)
_STATE = """/* state of limits */
SELECT (
    SELECT count(*) FROM task_queue q
    WHERE q.namespace = $1 AND q.task_type = $3 AND q.owner_epoch IS NOT NULL AND q.owner_epoch >= 0
      AND q.task_limit > 0 AND NOT q.ended
      AND coalesce(q.limit_name, q.task_type) = $2) AS held,
  coalesce(sum(g.granted), 0)::int AS granted, min(g.at_ms) AS oldest_ms
FROM task_grant g WHERE g.namespace = $1 AND g.name = $2 AND g.at_ms > $4::bigint"""
