"""SIMPLE and every unknown type: work for a queue. Also the server's own queue-driven work."""

from __future__ import annotations

from typing import Any

from ...payload import Json
from .. import closing
from ..cache import Cache, key_of
from ..decision import QueueBirth
from ..domains import domain_of
from ..expressions import resolve
from ..needs import CachedOutput
from ..nodes import Node
from ..policy import Policy, queue_name
from ..state import Path, TaskRow, TaskStatus
from ..steps import BY_POLICY, SETTLE
from ..turn import Turn
from .births import resolved

_SCHEDULED = TaskStatus.SCHEDULED


def prepare(turn: Turn, node: Node, path: Path, _scope: int) -> Any:
    """(input, domain), and for a node with a cache (its key, the output found under it)"""
    value = node.constant or resolved(turn, node, path)
    domain = domain_of(turn, node.row_type, node.policy) if turn.header.task_to_domain is not None else ""
    return (value, domain) if node.cache is None else (value, domain, *_look_up(turn, node, node.cache, path))


def _look_up(turn: Turn, node: Node, cache: Cache, path: Path) -> tuple[str | None, Json | None]:
    """No key where an expression in it finds nothing: strangers would share one."""
    missed: list[str] = []
    key = key_of(resolve(cache.key, turn.lookup(path), missed))
    if missed or turn.lacking:
        return None, None
    for write in reversed(turn.cached):  # put out in this very decision
        if (write.name, write.key) == (node.name, key):
            return key, write.output
    return key, turn.ask(CachedOutput(node.name, key, turn.now_ms))


def birth(turn: Turn, node: Node, path: Path, scope: int, prepared: tuple[Any, ...]) -> None:
    now = turn.now_ms
    header = turn.header
    value, domain = prepared[0], prepared[1]
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
    if node.watched:
        if len(prepared) > 2 and prepared[2] is not None:
            turn.set_state(row, cache=prepared[2])
            if prepared[3] is not None:
                _use(turn, node, row, prepared[3])
                return
        closing.born(turn, node, row)
    enqueue(turn, row, node.policy, now + node.start_delay_s * 1000)


def _use(turn: Turn, node: Node, row: TaskRow, output: Json) -> None:
    """Complete a row at once with an output from the cache: no worker sees it."""
    row.output = output
    row.callback_after_s = 0
    turn.set_state(row, cached=True)
    turn.close(node, row, TaskStatus.COMPLETED)
    turn.later((SETTLE, row.seq, BY_POLICY))


def enqueue(turn: Turn, row: TaskRow, policy: Policy, due_ms: int) -> None:
    """Give a row of this turn its place in the queue, takeable from `due_ms` on."""
    row.queued = True
    if policy.definition.runtime_metadata:
        turn.set_state(row, runtime=list(policy.definition.runtime_metadata))
    task_type = row.type
    limits = policy.limits
    total_due_ms = row.first_scheduled_ms + policy.total_s * 1000 if policy.total_s else 0
    turn.births[row.seq] = QueueBirth(
        row.seq,
        queue_name(row, policy) if row.domain or policy.queue_suffix else task_type,
        task_type,
        turn.header.priority,
        due_ms,
        len(row.input.raw),
        policy.limit,
        policy.response_s,
        policy.timeout_s,
        total_due_ms,
        policy.redeliver_on_loss,
        row.name if policy.limit else "",
        limits.rate,
        limits.window_s,
    )
    if policy.row_clock:
        poll_due_ms = due_ms + policy.poll_s * 1000 if policy.poll_s else total_due_ms
        turn.deadlines[row.seq] = min(poll_due_ms, total_due_ms or poll_due_ms)
