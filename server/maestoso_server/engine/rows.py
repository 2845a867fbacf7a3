"""Making rows: what every operator's first attempt has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..payload import Json
from . import closing
from .nodes import DYNAMIC
from .state import Path, TaskRow, TaskStatus

if TYPE_CHECKING:
    from .nodes import Node
    from .turn import Turn


PASSED_BY = 1
"""`state["passed"]`: the flow went on after this row although it failed (or was complete)."""
REVIVED = 2
"""`state["passed"]`: it runs again since, as a chain of its own that leads nowhere."""


def add_row(
    turn: Turn,
    node: Node,
    path: Path,
    scope: int,
    status: TaskStatus,
    input: Json,
    *,
    output: Json | None = None,
    reason: str | None = None,
    state: dict[str, Any] | None = None,
    row_type: str = "",
) -> TaskRow:
    """The first attempt of a node that the engine works itself: it starts where it is made."""
    now = turn.now_ms
    row = TaskRow(
        seq=turn.take_seq(),
        generation=turn.header.generation,
        reference=node.reference,
        path=path,
        attempt=0,
        scope=scope,
        type=row_type or node.row_type,
        name=node.name,
        status=status,
        scheduled_ms=now,
        first_scheduled_ms=now,
        input=input,
        output=output,
        reason=reason,
        started_ms=now,
        updated_ms=now,
        ended_ms=now if status >= TaskStatus.COMPLETED else 0,
        state=state,
    )
    turn.insert(row)
    if node.watched and node.kind != DYNAMIC:  # whose name and type are known a little later
        closing.born(turn, node, row)
    return row


def new_attempt(turn: Turn, old: TaskRow, input: Json, delay_ms: int) -> TaskRow:
    """The next attempt of an ended row, which it supersedes. The caller sets what runs it."""
    last = turn.edit(old)
    last.superseded = True
    row = last.copy()
    row.seq = turn.take_seq()
    row.attempt = old.attempt + 1
    row.retried_seq = old.seq
    row.superseded = False
    row.status = TaskStatus.SCHEDULED
    row.input = input
    row.output = None
    row.scheduled_ms = turn.now_ms
    row.started_ms = 0
    row.updated_ms = turn.now_ms
    row.ended_ms = 0
    row.worker_id = ""
    row.child_id = None
    row.poll_count = 0
    row.queued = False
    row.callback_after_s = delay_ms // 1000
    row.state = None
    turn.insert(row)
    return row
