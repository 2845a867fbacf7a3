"""JOIN and EXCLUSIVE_JOIN: they wait for tasks by reference, by counting them down."""

from __future__ import annotations

from typing import Any

from ...payload import Json
from ..faults import first_name, name
from ..names import shown_reference
from ..nodes import DECISION, EXCLUSIVE_JOIN, SWITCH, Node
from ..outputs import output_raw, splice
from ..rows import add_row
from ..state import Path, TaskRow, TaskStatus
from ..steps import CLOSE, NOTIFY, SETTLE, UNREACHED
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


def awaited(node: Node, fork: TaskRow | None, listed: list[str]) -> list[str]:
    """Those of the references that a join is told about: what it counts."""
    return list(node.awaited) if fork is None or "count" not in (fork.state or {}) else listed


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
    # A static fork's row may have a record too: of what in its input was not found.
    is_dynamic = fork is not None and "count" in (fork.state or {})
    inside = None if ours and is_dynamic else node.own
    shown: dict[str, Any] = {"joinOn": listed}
    if is_dynamic:
        shown = {**node.task.input_parameters, **shown}
    if node.kind == EXCLUSIVE_JOIN:
        shown["defaultExclusiveJoinTask"] = list(node.task.default_exclusive_join_task)
    waited = awaited(node, fork, listed)
    return node, shown, counters(turn, node, waited, path, inside if ours else frozenset())


def counters(
    turn: Turn, join: Node, waited: list[str], path: Path, inside: frozenset[str] | None
) -> dict[str, Any]:
    """Count what a join waits for. References `inside` (None: all) can only have rows of this
    decision. A row whose settling is still to come will be counted then, and a task that a switch never
    gets to when the switch says so."""
    unsettled = {step[1] for step in turn.pending() if step[0] in (SETTLE, NOTIFY)}
    pending = unsettled | {step[1] for step in turn.pending() if step[0] == UNREACHED}
    waiting = failed_permissive = failed_optional = 0
    for reference in waited:
        ours = inside is None or reference in inside
        row = _row(turn, reference, path, ours)
        if row is None:
            node = turn.plan.nodes.get(reference)
            if node is None or not _is_unreached(turn, join, node, path, ours, pending):
                waiting += 1
        elif row.status < _COMPLETED or row.seq in unsettled or is_ahead(row):
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


def is_ahead(row: TaskRow) -> bool:
    """It was skipped by an operator before the flow has come to it."""
    return row.status == TaskStatus.SKIPPED and bool((row.state or {}).get("ahead"))


def _row(turn: Turn, reference: str, path: Path, ours: bool) -> TaskRow | None:
    """The newest row; one that is `ours` can only be of this decision."""
    if not ours:
        return turn.newest(reference, path)
    seq = turn.fresh.get((reference, path))
    return turn.rows[seq] if seq is not None else None


def _is_unreached(turn: Turn, join: Node, node: Node, path: Path, ours: bool, pending: set[int]) -> bool:
    """Whether a task without a row never gets one: something around it chose another case, or failed."""
    for guard in node.guarded_by:
        row = _row(turn, guard.reference, path, ours)
        if row is not None and row.status >= _COMPLETED and row.seq not in pending and not is_ahead(row):
            if any(held is node and _leads_to(guard, row, head) for head, held in guard.guards):
                return False
            return _is_over(turn, guard, row, path, ours, pending)
    return False


def is_left_out(turn: Turn, node: Node, path: Path) -> bool:
    """Whether a task without a row is known never to get one: what is around it has gone another way. A
    join that waits for it hears so once that way has ended."""
    for guard in node.guarded_by:
        row = turn.newest(guard.reference, path)
        if row is not None and row.status >= _COMPLETED and not is_ahead(row):
            return not any(held is node and _leads_to(guard, row, head) for head, held in guard.guards)
    return False


def _is_over(turn: Turn, guard: Node, row: TaskRow, path: Path, ours: bool, pending: set[int]) -> bool:
    """Whether the case that an ended switch chose has ended."""
    head = _chosen(guard, row)
    while head is not None:
        while head.next is not None:
            head = head.next
        last = _row(turn, head.reference, path, ours)
        if last is None or last.status < _COMPLETED or last.seq in pending:
            return False
        head = _chosen(head, last)
    return True


def _leads_to(guard: Node, row: TaskRow, head: Node | None) -> bool:
    """Whether an ended SWITCH or DECISION chose the case with this head, or a fork did not fail."""
    if guard.kind not in (SWITCH, DECISION):
        return row.status == _COMPLETED
    return head is not None and head is _chosen(guard, row)


def _chosen(node: Node, row: TaskRow) -> Node | None:
    """The head of the case that an ended row chose; None where it chose none, or is no such node."""
    output = row.output.value if row.output is not None else {}
    if node.kind == SWITCH and "selectedCase" in output:
        return node.cases.get(output["selectedCase"], node.default)
    if node.kind == DECISION and "caseOutput" in output:
        (key,) = output["caseOutput"]
        return node.cases.get(key) or node.default
    return None


def prepare_unreached(turn: Turn, step: Step) -> list[tuple[TaskRow, int]]:
    """The open joins outside a switch or fork, and how many of their tasks it never gets to."""
    row = turn.row(step[1])
    node = turn.node_of(row) if row is not None else None
    if row is None or node is None or row.superseded:
        return []
    gone = [held for head, held in node.guards if not _leads_to(node, row, head)]
    found: dict[int, tuple[TaskRow, int]] = {}
    for target in gone:
        if turn.newest(target.reference, row.path) is not None:
            continue
        for join in target.joins:
            joining = turn.newest(join.reference, row.path)
            if joining is not None:
                found[joining.seq] = (joining, found.get(joining.seq, (joining, 0))[1] + 1)
    return list(found.values())


def act_unreached(turn: Turn, _step: Step, found: list[tuple[TaskRow, int]]) -> None:
    for joining, gone in found:
        state = joining.state or {}
        if joining.status >= _COMPLETED or state.get("recount"):
            continue
        waiting = state.get("waiting", gone) - gone
        turn.set_state(turn.edit(joining), waiting=waiting)
        if waiting <= 0 or joining.type == "EXCLUSIVE_JOIN":
            turn.later((CLOSE, joining.seq))


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
    rows = [row for _, row in joined]
    status, reason = _outcome(turn, rows)
    mine = finish(turn, node, join, status, output, reason)
    if reason is not None:
        name(turn, mine, first_name(rows))


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
    if (join.state or {}).get("waiting", 0) <= 0:  # none of them was chosen, and none will be
        finish(turn, node, join, TaskStatus.COMPLETED, Json(b"{}"))
