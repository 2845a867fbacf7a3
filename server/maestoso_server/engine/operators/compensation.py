"""Compensation: what completed is undone, one after the other, the newest completion first.

A row of type COMPENSATE does it: that of a COMPENSATE task, or the one that a workflow makes before
it ends as failed (`UNDOING`). Its `state`: `within`, the TRY whose tasks are meant (0: all of the
workflow); `queue`, the tasks found but not begun; `before`, where to look for more, and `done`, that
there are none; `part`, the number of the chain that runs; `of`, the task that it undoes (0: none yet, -1: its
chain has failed) and `at`, that one's reference and path; `live`, `permissive` and `failure` as in a
TRY; `ended` and `failed`, how the
chains ended. The row of a task that is undone names it in `state["undo"]`, so that it happens once.
"""

from __future__ import annotations

from typing import Any

from ...payload import Json
from .. import reasons
from ..guards import NO_PART
from ..names import shown_reference
from ..needs import Compensable
from ..nodes import Node
from ..plan import UNDOING
from ..rows import add_row
from ..state import Path, TaskRow, TaskStatus
from ..steps import BIRTH, COMPENSATED, END, SWEEP, UNDO
from ..turn import Step, Turn
from .finishing import Unusable, finish

FOUND_AT_ONCE = 100
FAILED_MAX = 20
"""Failed chains that are told one by one."""
_COMPLETED = int(TaskStatus.COMPLETED)


# --- the COMPENSATE task ---------------------------------------------------------------------------


def prepare_run(turn: Turn, node: Node, row: TaskRow) -> TaskRow | None:
    """The row of the TRY that is meant; None for the whole workflow."""
    wanted = row.input.value.get("of")
    guard = node.guard
    while guard is not None and wanted is not None and guard.reference != wanted:
        guard = guard.guard
    if guard is None and wanted is not None:
        raise Unusable(f"COMPENSATE {node.reference} is in no TRY with the reference {wanted}")
    return None if guard is None else turn.newest(guard.reference, row.path[: len(guard.loops)])


def run(turn: Turn, _node: Node, row: TaskRow, within: TaskRow | None) -> None:
    mine = turn.edit(row)
    mine.state = _begun(turn, within.seq if within is not None else 0)
    turn.first((UNDO, row.seq, 0))


def _begun(turn: Turn, within: int) -> dict[str, Any]:
    return {
        "within": within,
        "queue": [],
        "before": [turn.now_ms + 1, 0],
        "done": False,
        "part": 0,
        "live": 0,
        "ended": 0,
        "failed": [],
        "failures": 0,
    }


# --- before the workflow ends ----------------------------------------------------------------------


def is_due(turn: Turn) -> bool:
    """Something has completed that is to be undone before the workflow ends."""
    found = page(turn, turn.plan.compensable, (), [turn.now_ms + 1, 0])
    return any(not _is_undone(row) for row in found)


def begin_end(turn: Turn, status: int, reason: str | None, by: int) -> None:
    """Compensate first; then the workflow ends like this. All else that it was doing is over."""
    work = turn.pending_work()
    work["steps"], work["held"] = [], []
    turn.agenda.clear()
    header = turn.header
    last = header.last_task
    state = {**_begun(turn, 0), "part": NO_PART, "end": [status, reason, by], "last": last}
    node = turn.plan.nodes[UNDOING]
    shown = Json.of({"reason": reason})
    row = add_row(turn, node, (), 0, TaskStatus.IN_PROGRESS, shown, state=state)
    work["undoing"] = row.seq
    turn.keep_work()
    if turn.plan.timeout_s:
        turn.deadlines[0] = 0
    turn.first((SWEEP, row.seq, 0))


# --- finding --------------------------------------------------------------------------------------


def page(turn: Turn, references: tuple[str, ...], prefix: Path, before: list[int]) -> list[TaskRow]:
    """Completed tasks of these references and in this turn, by when they ended, the newest first;
    those that ended before (ms, seq). Costs their number once for `FOUND_AT_ONCE` of them."""
    known = turn.view.tasks
    oldest = (0, 0)
    if not turn.view.whole:
        need = Compensable(references, prefix, before[0], before[1], FOUND_AT_ONCE)
        answer = turn.ask(need)
        if answer is None:
            return []
        known = {row.seq: row for row in answer}
        if len(answer) == FOUND_AT_ONCE:
            oldest = _age(answer[-1])
    named = frozenset(references)
    generation, depth = turn.header.generation, len(prefix)
    found = [
        row
        for row in {**known, **turn.rows}.values()
        if row.status == _COMPLETED
        and row.reference in named
        and not row.superseded
        and row.generation == generation
        and row.path[:depth] == prefix
        and oldest <= _age(row) < (before[0], before[1])
    ]
    found.sort(key=_age, reverse=True)
    return found[:FOUND_AT_ONCE]


def _age(row: TaskRow) -> tuple[int, int]:
    return row.ended_ms, row.seq


def _is_undone(row: TaskRow) -> bool:
    return row.state is not None and "undo" in row.state


# --- one after the other ---------------------------------------------------------------------------


class _Next:
    """`target` is undone next; None where nothing is left."""

    __slots__ = ("before", "done", "node", "passed", "queue", "row", "target", "within")

    def __init__(self, node: Node, row: TaskRow) -> None:
        state = row.state or {}
        self.node = node
        self.row = row
        self.within: TaskRow | None = None
        self.passed: TaskRow | None = None
        self.target: TaskRow | None = None
        self.queue: list[int] = list(state["queue"])
        self.before: list[int] = list(state["before"])
        self.done: bool = state["done"]


def prepare_undo(turn: Turn, step: Step) -> _Next | None:
    """None where that chain is over already, or runs."""
    row = turn.row(step[1])
    state = row.state or {} if row is not None else {}
    if row is None or row.status >= _COMPLETED or state.get("part") != step[2] or state.get("live", 0) > 0:
        return None
    node = turn.node_of(row)
    if node is None:
        return None
    found = _Next(node, row)
    if state.get("permissive"):
        found.passed = turn.row(state["permissive"][0])
    if state["within"]:
        found.within = turn.row(state["within"])
    if not turn.lacking:
        _find(turn, found)
    return found


def _find(turn: Turn, found: _Next) -> None:
    references, prefix = _meant(turn, found)
    while True:
        while found.queue:
            row = turn.row(found.queue.pop(0))
            if turn.lacking:
                return
            if row is not None and not _is_undone(row) and _has_chain(turn, row):
                found.target = row
                return
        if found.done:
            return
        rows = page(turn, references, prefix, found.before)
        if turn.lacking:
            return
        found.queue = [row.seq for row in rows]
        found.done = len(rows) < FOUND_AT_ONCE
        if rows:
            found.before = list(_age(rows[-1]))


def _has_chain(turn: Turn, row: TaskRow) -> bool:
    """Not where the workflow was upgraded since the task was found."""
    node = turn.plan.nodes.get(row.reference)
    return node is not None and node.compensation is not None


def _meant(turn: Turn, found: _Next) -> tuple[tuple[str, ...], Path]:
    if found.within is None:
        return turn.plan.compensable, ()
    guard = turn.plan.nodes[found.within.reference]
    return guard.compensable, found.within.path


def act_undo(turn: Turn, step: Step, found: _Next | None) -> None:
    if found is None:
        return
    row = turn.edit(found.row)
    state = row.state or {}
    of = state.get("of", 0)
    if found.passed is not None:
        note_failure(turn, row, found.passed.reason)
    elif of > 0:
        turn.set_state(row, ended=state["ended"] + 1)
    target = found.target
    head = turn.plan.nodes[target.reference].compensation if target is not None else None
    if target is None or head is None:
        _finish(turn, found.node, row)
        return
    if not of:
        _count(turn, found.within)
    part = step[2] + 1
    turn.set_state(turn.edit(target), undo=row.seq)
    turn.set_state(
        row,
        part=part,
        live=1,
        permissive=[],
        queue=found.queue,
        before=found.before,
        done=found.done,
        of=target.seq,
        at=[target.reference, list(target.path)],
    )
    row.updated_ms = turn.now_ms
    turn.first((BIRTH, head.reference, target.path, row.seq))


def _count(turn: Turn, within: TaskRow | None) -> None:
    """From now on a retry would not know what it begins with, unless that TRY is over by then."""
    work = turn.pending_work()
    work["undone"] += 1
    turn.keep_work()
    if within is not None:
        mine = turn.edit(within)
        turn.set_state(mine, undone=(mine.state or {}).get("undone", 0) + 1)


def chain_failed(turn: Turn, row: TaskRow, failed: TaskRow | None) -> None:
    """What was open of a failed chain has been cancelled: note it, and go on."""
    failure = (row.state or {}).get("failure")
    part = 0
    if failure is not None:
        note_failure(turn, row, failed.reason if failed is not None else None)
        part = failure[3] + 1
    turn.set_state(row, part=part, live=0, permissive=[], failure=None)
    turn.first((UNDO, row.seq, part))


def note_failure(turn: Turn, row: TaskRow, reason: str | None) -> None:
    """The chain that ran last has failed."""
    state = row.state or {}
    told = [state["of"], *state["at"], reason]
    turn.set_state(row, failed=[*state["failed"], told][:FAILED_MAX], failures=state["failures"] + 1, of=-1)


def _finish(turn: Turn, node: Node, row: TaskRow) -> None:
    state = row.state or {}
    failed = [
        {"reference": shown_reference(reference, tuple(path)), "taskId": turn.task_id(seq), "reason": reason}
        for seq, reference, path, reason in state["failed"]
    ]
    names = [str(one["reference"]) for one in failed]
    output = Json.of({"compensated": state["ended"], "failed": failed})
    status = TaskStatus.COMPLETED_WITH_ERRORS if failed else TaskStatus.COMPLETED
    reason = reasons.not_compensated(names, state["failures"]) if failed else None
    if "end" not in state:
        finish(turn, node, row, status, output, reason)
        row.state = {"part": NO_PART}
        return
    ends, why, by = state["end"]
    row.output = output
    turn.close(node, row, status, reason)
    row.state = {"part": NO_PART}
    turn.header.last_task = state["last"]
    work = turn.pending_work()
    work["undoing"] = 0
    turn.keep_work()
    turn.first((END, ends, reasons.with_addition(why, reason), by, COMPENSATED))
