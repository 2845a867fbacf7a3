"""SIMPLE and every unknown type: work for a queue. Also the server's own queue-driven work."""

from __future__ import annotations

from typing import Any

from ...payload import Json
from ..decision import QueueBirth
from ..domains import domain_of
from ..nodes import Node
from ..policy import Policy
from ..state import Path, TaskRow, TaskStatus
from ..turn import Turn
from .births import resolved

_SCHEDULED = TaskStatus.SCHEDULED


def prepare(turn: Turn, node: Node, path: Path, _scope: int) -> Any:
    """(input, domain)"""
    value = node.constant or resolved(turn, node, path)
    return value, domain_of(turn, node.row_type) if turn.header.task_to_domain is not None else ""


def birth(turn: Turn, node: Node, path: Path, scope: int, prepared: tuple[Json, str]) -> None:
    now = turn.now_ms
    header = turn.header
    value, domain = prepared
    seq = header.next_seq
    header.next_seq = seq + 1
    row = TaskRow(
        seq,
        header.generation,
        node.reference,
        path,
        0,
        scope,
        node.row_type,
        node.name,
        _SCHEDULED,
        now,
        now,
        value,
    )
    row.updated_ms = now
    row.domain = domain
    row.callback_after_s = node.start_delay_s
    turn.insert(row)
    enqueue(turn, row, node.policy, now + node.start_delay_s * 1000)


def enqueue(turn: Turn, row: TaskRow, policy: Policy, due_ms: int) -> None:
    """Give a row of this turn its place in the queue, takeable from `due_ms` on."""
    row.queued = True
    if policy.definition.runtime_metadata:
        turn.set_state(row, runtime=list(policy.definition.runtime_metadata))
    task_type = row.type
    total_due_ms = row.first_scheduled_ms + policy.total_s * 1000 if policy.total_s else 0
    turn.births[row.seq] = QueueBirth(
        row.seq,
        f"{row.domain}:{task_type}" if row.domain else task_type,
        task_type,
        turn.header.priority,
        due_ms,
        len(row.input.raw),
        policy.limit,
        policy.response_s,
        policy.timeout_s,
        total_due_ms,
        policy.redeliver_on_loss,
    )
    if policy.row_clock:
        poll_due_ms = due_ms + policy.poll_s * 1000 if policy.poll_s else total_due_ms
        turn.deadlines[row.seq] = min(poll_due_ms, total_due_ms or poll_due_ms)
