"""Read workflows into the engine's views: one statement for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engine.decision import MessageKind
from ..engine.state import Header, TaskRow
from ..payload import Json
from .database import Connection
from .rows import HEADER_COLUMNS, TASK_COLUMNS, header_from, task_from

WHOLE_BELOW = 64
"""A workflow that made no more rows than this is loaded whole: that saves the needs that follow."""


@dataclass(slots=True)
class LoadRequest:
    """A workflow to load and the rows that its events name."""

    workflow_id: str
    seqs: Sequence[int] = ()


@dataclass(slots=True)
class InboxMessage:
    """A message that waits for its workflow. `origin_epoch` is the node that waits for the answer,
    0 = none."""

    id: int
    workflow_id: str
    sender_id: str | None
    kind: MessageKind
    body: Json
    due_ms: int
    origin_epoch: int


@dataclass(slots=True)
class Loaded:
    """What is stored of a workflow."""

    header: Header | None
    """None for a workflow that does not exist yet: its CHILD_START is among the messages."""
    tasks: list[TaskRow] = field(default_factory=list)
    """The rows asked for and the containers around them, or all of the generation; by seq."""
    whole: bool = False
    """Every row of the current generation is here."""
    messages: list[InboxMessage] = field(default_factory=list)
    """Due, not parked and not answered yet, oldest first."""


async def load(
    conn: Connection, requests: Sequence[LoadRequest], *, now_ms: int, whole_below: int = WHOLE_BELOW
) -> dict[str, Loaded]:
    """Load many workflows in one round trip; one of which nothing is stored is missing in the answer.

    A workflow may be asked for once. Costs the rows returned, never the workflow's size.
    """
    asked = sorted(requests, key=lambda request: request.workflow_id)
    named = [(place, seq) for place, request in enumerate(asked, 1) for seq in request.seqs]
    rows = await conn.fetch(
        _LOAD,
        [request.workflow_id for request in asked],
        [place for place, _ in named],
        [seq for _, seq in named],
        whole_below,
        now_ms,
    )
    loaded = {}
    for row in rows:
        workflow_id = asked[row["place"] - 1].workflow_id
        messages = [message_from(workflow_id, message) for message in row["messages"] or ()]
        if row["id"] is not None:
            header = header_from(row)
            tasks = [task_from(task) for task in row["tasks"] or ()]
            loaded[workflow_id] = Loaded(header, tasks, header.next_seq <= whole_below, messages)
        elif messages:
            loaded[workflow_id] = Loaded(None, messages=messages)
    return loaded


def message_from(workflow_id: str, record: Any) -> InboxMessage:
    """A message from (id, sender_id, kind, body, due_ms, origin_epoch)."""
    message_id, sender_id, kind, body, due_ms, origin_epoch = record
    return InboxMessage(
        id=message_id,
        workflow_id=workflow_id,
        sender_id=None if sender_id is None else str(sender_id),
        kind=MessageKind(kind),
        body=Json(body),
        due_ms=due_ms,
        origin_epoch=origin_epoch,
    )


_BY_KEY = "CROSS JOIN LATERAL (SELECT * FROM task t WHERE t.workflow_id = w.id AND t.seq = c.seq OFFSET 0) t"
"""The rows of a `chain c`, each by its key: the planner takes workflows to be small, and would read all
of one to find a few; OFFSET 0 keeps it from that."""

# $1 workflow ids; $2, $3 (place in $1, seq) of rows asked for; $4 workflows with at most this next_seq
# whole; $5 now
_LOAD = f"""/* load */
SELECT {HEADER_COLUMNS},
  CASE WHEN w.next_seq <= $4::integer THEN (
    SELECT array_agg(ROW({TASK_COLUMNS}) ORDER BY t.seq) FROM task t
    WHERE t.workflow_id = w.id AND (t.generation = w.generation OR t.seq = ANY (n.seqs)))
  ELSE (
    WITH RECURSIVE chain(seq) AS (
      SELECT unnest(n.seqs)
      UNION
      SELECT t.scope FROM chain c {_BY_KEY} WHERE t.scope > 0)
    SELECT array_agg(ROW({TASK_COLUMNS}) ORDER BY t.seq)
    FROM chain c {_BY_KEY})
  END AS tasks,
  (SELECT array_agg(ROW(x.id, x.sender_id, x.kind, x.body, x.due_ms, x.origin_epoch) ORDER BY x.id)
   FROM (SELECT * FROM inbox x WHERE x.workflow_id = n.id OFFSET 0) x
   WHERE NOT x.parked AND x.outcome IS NULL AND x.due_ms <= $5::bigint
  ) AS messages,
  n.place
FROM (
  SELECT i.id, i.place, (SELECT array_agg(s.seq) FROM unnest($2::integer[], $3::integer[]) s(place, seq)
                WHERE s.place = i.place) AS seqs
  FROM unnest($1::uuid[]) WITH ORDINALITY i(id, place)) n
LEFT JOIN (workflow w JOIN workflow_payload p ON p.workflow_id = w.id) ON w.id = n.id"""
