"""What follows from a row that has ended: another attempt, the next node, or the workflow's end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import closing, reasons
from .guards import guard_row, holder_row
from .nodes import DYNAMIC_FORK, FORK, JOIN, LOOP, NEVER_RETRIED, Node
from .rows import PASSED_BY
from .state import TaskRow, TaskStatus, WorkflowStatus
from .steps import (
    AGAIN,
    BIRTH,
    BY_POLICY,
    CATCH,
    CLOSE,
    END,
    PART,
    SETTLE,
    TIME_OUT_WORKFLOW,
    TURN,
    UNDO,
    UNREACHED,
)

if TYPE_CHECKING:
    from .turn import Step, Turn

_GO_ON = 0
_AGAIN = 1
_END = 2

PERMISSIVE_MAX = 50
"""Permissive failures that a guard remembers; its reason names no more."""

_COMPLETED = int(TaskStatus.COMPLETED)
_COMPLETED_WITH_ERRORS = int(TaskStatus.COMPLETED_WITH_ERRORS)
_SKIPPED = int(TaskStatus.SKIPPED)
_FAILED = int(TaskStatus.FAILED)
_TIMED_OUT = int(TaskStatus.TIMED_OUT)


class _Settling:
    """What `prepare` found out about one row. `joins`, `holder`, `guard` and `scope` are the rows it
    touches."""

    __slots__ = ("guard", "holder", "joins", "left", "node", "passed", "reason", "row", "scope", "verdict")

    def __init__(self, row: TaskRow, node: Node, verdict: int, reason: str | None) -> None:
        self.row = row
        self.node = node
        self.verdict = verdict
        self.reason = reason
        self.joins: list[TaskRow] = []
        self.holder: TaskRow | None = None
        """The loop, TRY or compensation that waits for its chain to end."""
        self.guard: TaskRow | None = None
        """The TRY or compensation that takes its failure."""
        self.scope = 0
        self.passed = False
        """The flow has gone on from here before: this chain leads nowhere."""
        self.left: list[TaskRow] = []
        """Switches whose chosen case is over with this row."""


def prepare(turn: Turn, step: Step) -> _Settling | None:
    """None where there is nothing to settle (or not yet)."""
    row = turn.row(step[1])
    if row is None or row.superseded or row.status < _COMPLETED:
        return None
    node = turn.node_of(row)
    if node is None:
        return None
    verdict, reason = (_GO_ON, None) if _successful(row) else _judge(turn, row, node, step[2])
    found = _Settling(row, node, verdict, reason)
    if verdict == _GO_ON:
        _reach(turn, found)
    if node.guard is not None and verdict != _AGAIN and not _successful(row):
        found.guard = guard_row(turn, node, row.path)
    return found


def _successful(row: TaskRow) -> bool:
    return row.status in (_COMPLETED, _COMPLETED_WITH_ERRORS, _SKIPPED)


def _judge(turn: Turn, row: TaskRow, node: Node, mode: int) -> tuple[int, str | None]:
    """What an unsuccessful row leads to, and the workflow's reason where it is not the usual one."""
    reason: str | None = None
    policy = turn.policy_of(row, node)
    if mode == TIME_OUT_WORKFLOW:
        reason = row.reason
    elif (
        row.status in (_FAILED, _TIMED_OUT)
        and row.attempt < policy.retries
        and node.kind not in NEVER_RETRIED
    ):
        elapsed_ms = turn.now_ms - row.first_scheduled_ms
        if not policy.total_s or elapsed_ms < policy.total_s * 1000:
            return _AGAIN, None
        task = turn.task_id(row.seq)
        reason = reasons.no_time_to_retry(task, row.name, policy.total_s, elapsed_ms // 1000)
    return (_GO_ON if node.optional or node.permissive else _END), reason


def _reach(turn: Turn, found: _Settling) -> None:
    """Look up the rows that going on from a row touches."""
    row, node = found.row, found.node
    for join in node.joins:
        joining = turn.newest(join.reference, row.path)
        if joining is not None:
            found.joins.append(joining)
    leaving = _leaving(node, row)
    for reference in leaving.leaves:
        switch = turn.newest(reference, row.path)
        if switch is not None:
            found.left.append(switch)
    found.passed = _passed(row)
    if node.kind == JOIN and row.state is not None and row.state.get("fork"):
        fork = turn.row(row.state["fork"])
        found.passed = found.passed or (fork is not None and _passed(fork))
    scope = (row.state or {}).get("scope", row.scope)  # one that was skipped ahead of its container
    for _ in range(leaving.climb):
        container = turn.row(scope)
        if container is None:
            break
        scope = container.scope
        found.passed = found.passed or _passed(container)
    found.scope = scope
    if node.holder is not None and (found.passed or leaving.successor is None or not _successful(row)):
        found.holder = holder_row(turn, node, row.path)


def _passed(row: TaskRow) -> bool:
    return row.state is not None and bool(row.state.get("passed"))


def _leaving(node: Node, row: TaskRow) -> Node:
    """The node whose successor follows: a fork that failed takes its join with it."""
    if node.kind in (FORK, DYNAMIC_FORK) and row.status != _COMPLETED and node.next is not None:
        return node.next
    return node


def act(turn: Turn, _step: Step, found: _Settling | None) -> None:
    if found is None:
        return
    row, node = found.row, found.node
    if found.verdict == _AGAIN:
        turn.first((AGAIN, row.seq, True))
        return
    if found.verdict == _END:
        _end(turn, found)
        return
    if not _successful(row):
        _tolerate(turn, found)
    for joining in sorted(found.joins, key=lambda join: join.seq):
        count(turn, joining, row)
    if node.guards:
        turn.later((UNREACHED, row.seq))
    if not found.passed:
        for switch in found.left:
            turn.later((UNREACHED, switch.seq))
        _move_on(turn, found)
    elif node.holder is not None:
        end_chain(turn, found.holder)


def _end(turn: Turn, found: _Settling) -> None:
    """The failure is for the guard around the row, or for the workflow."""
    row, guard = found.row, found.guard
    failure = (row.state or {}).get("failure") if row.type == "TRY" else None
    if failure is not None:  # what failed in it goes on outward, as it was
        status, reason, seq = failure[:3]
    else:
        ended = {
            TaskStatus.CANCELED: WorkflowStatus.TERMINATED,
            TaskStatus.TIMED_OUT: WorkflowStatus.TIMED_OUT,
        }.get(row.status, WorkflowStatus.FAILED)
        status, seq = int(ended), row.seq
        reason = found.reason or reasons.task_failed(turn.task_id(row.seq), ended, row.reason)
    if guard is not None:
        turn.first((CATCH, guard.seq, (guard.state or {}).get("part"), status, reason, seq))
    else:
        turn.first((END, status, reason, seq))


def _tolerate(turn: Turn, found: _Settling) -> None:
    """An unsuccessful row that is optional or permissive."""
    if found.node.optional:
        found.row = turn.edit(found.row)
        turn.set_status(found.row, TaskStatus.COMPLETED_WITH_ERRORS)
        if found.node.watched:
            closing.note(turn, found.node, found.row)
        return
    turn.set_state(turn.edit(found.row), passed=PASSED_BY)
    if found.guard is not None:
        guard = turn.edit(found.guard)
        known = (guard.state or {}).get("permissive", [])
        turn.set_state(guard, permissive=[*known, found.row.seq][:PERMISSIVE_MAX])
    else:
        turn.header.permissive_failed += 1
    if found.node.is_branch:  # it fails its join, not the loop
        return
    if found.holder is not None and found.node.holder is not None and found.node.holder.kind == LOOP:
        loop = turn.edit(found.holder)
        turn.set_state(loop, failed_permissive=(loop.state or {}).get("failed_permissive", 0) + 1)


def count(turn: Turn, joining: TaskRow, row: TaskRow) -> None:
    """One of the tasks that a join waits for has its final outcome."""
    state = joining.state or {}
    if joining.status >= _COMPLETED or state.get("recount"):
        return
    join = turn.edit(joining)
    changes: dict[str, Any] = {"waiting": state.get("waiting", 1) - 1}
    if row.status == _COMPLETED_WITH_ERRORS:
        changes["failed_optional"] = state.get("failed_optional", 0) + 1
    elif row.status not in (_COMPLETED, _SKIPPED):
        changes["failed_permissive"] = state.get("failed_permissive", 0) + 1
    turn.set_state(join, **changes)
    if changes["waiting"] <= 0 or join.type == "EXCLUSIVE_JOIN":
        turn.later((CLOSE, join.seq))


def _move_on(turn: Turn, found: _Settling) -> None:
    row, node = found.row, found.node
    leaving = _leaving(node, row)
    successor = leaving.successor
    if successor is not None:
        turn.first((BIRTH, successor.reference, row.path, found.scope))
    elif leaving.holder is not None:
        end_chain(turn, found.holder)


def end_chain(turn: Turn, holder: TaskRow | None) -> None:
    """One of the chains that run in a loop's turn, a TRY's part or a compensation is at its end; the
    last one ends all of it."""
    if holder is None or holder.status >= _COMPLETED or (holder.state or {}).get("recount"):
        return
    mine = turn.edit(holder)
    live = (mine.state or {}).get("live", 1) - 1
    turn.set_state(mine, live=live)
    if live <= 0:
        turn.later(next_of(mine))


def next_of(holder: TaskRow) -> Step:
    """What follows when nothing runs any more in what a holder has begun."""
    state = holder.state or {}
    if holder.type == "TRY":
        return (PART, holder.seq, state.get("part"))
    if holder.type == "COMPENSATE":
        return (UNDO, holder.seq, state.get("part"))
    return (TURN, holder.seq, state.get("turn", 0))


def settle(turn: Turn, row: TaskRow, mode: int = BY_POLICY) -> None:
    """Have an ended row settled next."""
    turn.first((SETTLE, row.seq, mode))


def prepare_notify(turn: Turn, step: Step) -> tuple[TaskRow, list[TaskRow]] | None:
    row = turn.row(step[1])
    node = turn.node_of(row) if row is not None else None
    if row is None or node is None or row.superseded:
        return None
    joins = [turn.newest(join.reference, row.path) for join in node.joins]
    return row, [join for join in joins if join is not None]


def act_notify(turn: Turn, _step: Step, found: tuple[TaskRow, list[TaskRow]] | None) -> None:
    if found is not None:
        for joining in found[1]:
            count(turn, joining, found[0])
