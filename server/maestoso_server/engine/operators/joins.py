"""JOIN and EXCLUSIVE_JOIN: they wait for tasks by reference, by counting them down."""

from __future__ import annotations

from typing import Any

from ...payload import Json
from ..names import shown_reference
from ..nodes import EXCLUSIVE_JOIN, Node
from ..outputs import output_raw, splice
from ..rows import add_row
from ..state import Path, TaskRow, TaskStatus
from ..steps import CLOSE, NOTIFY, SETTLE
from ..turn import Step, Turn
from .births import arm
from .finishing import finish

_COMPLETED = int(TaskStatus.COMPLETED)


def references(turn: Turn, node: Node, fork: TaskRow | None) -> list[str] | None:
    """What a join waits for: its `joinOn`, or the branches of the dynamic fork before it."""
    if fork is None or fork.state is None or "count" not in fork.state:
        return list(node.join_on)
    fragment = turn.fragment(fork)
    return None if fragment is None else [fragment.reference(index) for index in range(fragment.count)]


# --- birth -------------------------------------------------------------------------------------


def prepare_birth(turn: Turn, step: Step) -> tuple[Node, dict[str, Any], dict[str, Any]] | None:
    """(the join, its input, its counters)"""
    _, reference, path, scope, fork_seq = step
    node = turn.node(reference, scope)
    fork = turn.row(fork_seq) if fork_seq else None
    if node is None or (fork is None and fork_seq):
        return None
    listed = references(turn, node, fork)
    if listed is None:
        return None
    ours = fork_seq in turn.inserted
    inside = None if ours and fork is not None and fork.state is not None else node.own
    shown: dict[str, Any] = {"joinOn": listed}
    if fork is not None and fork.state is not None and "count" in fork.state:  # a dynamic fork
        shown = {**node.task.input_parameters, **shown}
    if node.kind == EXCLUSIVE_JOIN:
        shown["defaultExclusiveJoinTask"] = list(node.task.default_exclusive_join_task)
    return node, shown, counters(turn, listed, path, inside if ours else frozenset())


def counters(turn: Turn, listed: list[str], path: Path, inside: frozenset[str] | None) -> dict[str, Any]:
    """Count what a join waits for. References `inside` (None: all) can only have rows of this
    decision. A row whose settling is still to come will be counted then."""
    pending = {step[1] for step in turn.pending() if step[0] in (SETTLE, NOTIFY)}
    waiting = failed_permissive = failed_optional = 0
    for reference in listed:
        if inside is None or reference in inside:
            seq = turn.fresh.get((reference, path))
            row = turn.rows[seq] if seq is not None else None
        else:
            row = turn.newest(reference, path)
        if row is None or row.status < _COMPLETED or row.seq in pending:
            waiting += 1
        elif row.status == TaskStatus.COMPLETED_WITH_ERRORS:
            failed_optional += 1
        elif row.status not in (TaskStatus.COMPLETED, TaskStatus.SKIPPED):
            failed_permissive += 1
    return {
        "waiting": waiting,
        "failed_permissive": failed_permissive,
        "failed_optional": failed_optional,
    }


def act_birth(turn: Turn, step: Step, found: tuple[Node, dict[str, Any], dict[str, Any]] | None) -> None:
    if found is None:
        return
    node, shown, state = found
    _, _, path, scope, fork_seq = step
    if fork_seq:
        state["fork"] = fork_seq
    row = add_row(turn, node, path, scope, TaskStatus.IN_PROGRESS, Json.of(shown), state=state)
    arm(turn, node, row.seq)
    if state["waiting"] == 0 or node.kind == EXCLUSIVE_JOIN:
        turn.later((CLOSE, row.seq))


# --- close -------------------------------------------------------------------------------------


def prepare_close(turn: Turn, step: Step) -> tuple[Node, TaskRow, list[tuple[str, TaskRow]]] | None:
    """The rows that an open join with nothing left to wait for joins."""
    join = turn.row(step[1])
    if join is None or join.status >= _COMPLETED:
        return None
    node = turn.node_of(join)
    if node is None:
        return None
    state = join.state or {}
    if node.kind == EXCLUSIVE_JOIN:
        listed: list[str] | None = [*node.join_on, *node.task.default_exclusive_join_task]
    else:
        if state.get("waiting", 0) > 0 or state.get("recount"):
            return None
        fork = turn.row(state["fork"]) if state.get("fork") else None
        listed = references(turn, node, fork)
    if listed is None:
        return None
    rows = [(reference, turn.newest(reference, join.path)) for reference in listed]
    return node, join, [(reference, row) for reference, row in rows if row is not None]


def act_close(turn: Turn, _step: Step, found: tuple[Node, TaskRow, list[tuple[str, TaskRow]]] | None) -> None:
    if found is None:
        return
    node, join, joined = found
    if node.kind == EXCLUSIVE_JOIN:
        _close_exclusive(turn, node, join, joined)
        return
    output = splice(
        (shown_reference(reference, row.path), output_raw(row))
        for reference, row in joined
        if row.output is not None and row.output.raw != b"{}"
    )
    status, reason = _outcome(turn, [row for _, row in joined])
    finish(turn, node, join, status, output, reason)


def _outcome(turn: Turn, rows: list[TaskRow]) -> tuple[TaskStatus, str | None]:
    failed = [row for row in rows if TaskStatus.FAILED <= row.status <= TaskStatus.CANCELED]
    if failed:
        cancelled = all(row.status == TaskStatus.CANCELED for row in failed)
        reason = " ".join(row.reason for row in failed if row.reason)
        return (TaskStatus.CANCELED if cancelled else TaskStatus.FAILED), reason
    optional = [row for row in rows if row.status == TaskStatus.COMPLETED_WITH_ERRORS]
    if optional:
        named = " ".join(f"{row.name}/{turn.task_id(row.seq)}" for row in optional)
        return TaskStatus.COMPLETED_WITH_ERRORS, f"{named} completed with errors"
    return TaskStatus.COMPLETED, None


def _close_exclusive(turn: Turn, node: Node, join: TaskRow, joined: list[tuple[str, TaskRow]]) -> None:
    """The first in list order that has a row; while that one runs, wait (B17)."""
    by_reference = dict(joined)
    for reference in (*node.join_on, *node.task.default_exclusive_join_task):
        row = by_reference.get(reference)
        if row is None or row.status == TaskStatus.SKIPPED:
            continue
        if row.status < _COMPLETED:
            return
        if row.status in (TaskStatus.COMPLETED, TaskStatus.COMPLETED_WITH_ERRORS):
            finish(turn, node, join, TaskStatus.COMPLETED, row.output or Json(b"{}"))
        else:
            finish(turn, node, join, TaskStatus.FAILED, reason=row.reason or "")
        return
