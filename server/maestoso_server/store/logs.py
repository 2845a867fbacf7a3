"""The log lines of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .database import Connection
from .rows import plain


class NewLine(NamedTuple):
    workflow_id: str
    seq: int
    at_ms: int
    line: str


class LogLine(NamedTuple):
    id: int
    at_ms: int
    line: str


async def append(conn: Connection, lines: Sequence[NewLine]) -> None:
    """Append lines, of any tasks, in order. Whether the tasks exist is the caller's business."""
    await conn.execute(
        _APPEND,
        [line.workflow_id for line in lines],
        [line.seq for line in lines],
        [line.at_ms for line in lines],
        [plain(line.line) for line in lines],
    )


# $1 workflow, $2 seq, $3 time, $4 text: one of each a line
_APPEND = """/* append logs */
INSERT INTO task_log (workflow_id, seq, at_ms, line)
SELECT i.workflow_id, i.seq, i.at_ms, i.line
FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::text[]) WITH ORDINALITY
  i(workflow_id, seq, at_ms, line, place)
ORDER BY i.place"""


async def read(
    conn: Connection, workflow_id: str, seq: int, *, after: int = 0, limit: int = 100
) -> list[LogLine]:
    """The lines of a task, oldest first, those after the id `after`."""
    return [LogLine(*row) for row in await conn.fetch(_READ, workflow_id, seq, after, limit)]


# $1 workflow, $2 seq, $3 after this id, $4 at most
_READ = """/* read logs */
SELECT l.id, l.at_ms, l.line FROM task_log l
WHERE l.workflow_id = $1 AND l.seq = $2 AND l.id > $3 ORDER BY l.id LIMIT $4"""
