"""TRY: tasks whose failure does not end the workflow, what follows it, and what follows in any case.

The row's `state`: `part`, which of its chains run (`BODY`, a catch case from 1 on, `FINALLY`, or
`NO_PART` while open tasks of a failed part are being cancelled); `live`, how many of them;
`permissive`, the rows that failed in it and were passed by; `failure`, what goes on outward at the
end: [workflow status, reason, seq of the failed task, part, live]; `held`, steps of a part that was
over before they were done; `again`, that a retry has reopened it, so its tasks may have rows already.
"""

from __future__ import annotations

from typing import Any

from ...definitions.models import CatchCase
from ...payload import EMPTY, Json
from .. import messages, reasons
from ..decision import MessageKind
from ..ending import CANCELLED_AT_ONCE, open_rows
from ..faults import TIMEOUT, error_name, name
from ..guards import NO_PART
from ..keys import is_follower
from ..limits import PAYLOAD_MAX_BYTES
from ..names import shown_reference
from ..needs import OpenInside
from ..nodes import BODY, FINALLY, SUB_WORKFLOW, TRY, Node
from ..outputs import output_raw, splice
from ..plan import UNDOING
from ..rows import add_row
from ..state import Path, TaskRow, TaskStatus, WorkflowStatus
from ..steps import BIRTH, CHOOSE, SWEEP
from ..turn import Step, Turn
from .births import arm
from .compensation import chain_failed
from .finishing import Unusable, finish

_COMPLETED = int(TaskStatus.COMPLETED)


def birth(turn: Turn, node: Node, path: Path, scope: int, value: Json) -> None:
    if not node.branches or node.branches[0] is None:
        raise Unusable(f"TRY {node.reference} has no tryTasks")
    row = add_row(turn, node, path, scope, TaskStatus.IN_PROGRESS, value, state={})
    arm(turn, node, row.seq)
    _enter(turn, node, row, BODY)


def _enter(turn: Turn, node: Node, row: TaskRow, part: int) -> None:
    """Begin a part that has tasks."""
    head = node.branches[part]
    if head is not None:
        turn.set_state(row, part=part, live=1, permissive=[])
        turn.first((BIRTH, head.reference, row.path, row.seq))


# --- a failure -----------------------------------------------------------------------------------


def prepare_catch(turn: Turn, step: Step) -> tuple[Node, TaskRow] | None:
    """None where that part is over already."""
    row = turn.row(step[1])
    if row is None or row.status >= _COMPLETED or (row.state or {}).get("part") != step[2]:
        return None
    node = turn.node_of(row)
    return None if node is None else (node, row)


def act_catch(turn: Turn, step: Step, found: tuple[Node, TaskRow] | None) -> None:
    """A part has failed: it is over, and what is still open in it is cancelled."""
    if found is None:
        return
    node, row = found
    _, _, part, status, reason, seq = step
    mine = turn.edit(row)
    live = (mine.state or {}).get("live", 0)
    turn.set_state(mine, part=NO_PART, failure=[status, reason, seq, part, live])
    if node.policy.row_clock:
        turn.deadlines[row.seq] = 0
    turn.first((SWEEP, row.seq, row.seq))


def prepare_sweep(turn: Turn, step: Step) -> tuple[TaskRow, list[tuple[TaskRow, Node | None]], bool] | None:
    """(the guard, what is open inside it, whether there may be more)"""
    row = turn.row(step[1])
    if row is None or row.status >= _COMPLETED or (row.state or {}).get("part") != NO_PART:
        return None
    if row.reference == UNDOING and "at" not in (row.state or {}):
        found = open_rows(turn, step[2], CANCELLED_AT_ONCE)
    else:
        found = open_inside(turn, row, step[2], CANCELLED_AT_ONCE)
    inside = [(other, turn.node_of(other)) for other in found if other.seq != row.seq]
    return row, inside, len(found) == CANCELLED_AT_ONCE


def open_inside(turn: Turn, guard: TaskRow, after: int, limit: int) -> list[TaskRow]:
    """Open rows inside a guard, however deep, by seq."""
    known: dict[int, TaskRow] = {}
    if not turn.view.whole:
        answer = turn.ask(OpenInside(guard.seq, after, limit))
        if answer is None:
            return []
        known = {row.seq: row for row in answer}
    last = max(known) if len(known) >= limit else turn.header.next_seq
    for row in _walk(turn, guard):
        known[row.seq] = row
    found = [turn.rows.get(seq, row) for seq, row in known.items() if after < seq <= last]
    found = [row for row in found if row.status < _COMPLETED and row.seq not in turn.deleted]
    return sorted(found, key=lambda row: row.seq)[:limit]


def _walk(turn: Turn, guard: TaskRow) -> list[TaskRow]:
    """What the view and this decision know inside a guard; of loops the turn that runs."""
    found = []
    pending = [(guard.seq, _path_in(guard))]
    while pending:
        at = pending.pop()
        for seq in (*turn.view.scopes.get(at, ()), *turn.new_scopes.get(at, ())):
            row = turn.rows.get(seq) or turn.view.tasks.get(seq)
            if row is None:
                continue
            found.append(row)
            if row.type == "DO_WHILE":
                turns = range(1, (row.state or {}).get("turn", 0) + 1)
                pending.extend((seq, (*row.path, number)) for number in turns)
            else:
                pending.append((seq, _path_in(row)))
    return found


def _path_in(row: TaskRow) -> Path:
    """The path of the rows inside a container that is no loop."""
    at = (row.state or {}).get("at") if row.type == "COMPENSATE" else None
    return tuple(at[1]) if at else row.path


def act_sweep(
    turn: Turn, step: Step, found: tuple[TaskRow, list[tuple[TaskRow, Node | None]], bool] | None
) -> None:
    if found is None:
        return
    guard, inside, more = found
    why = reasons.swept(guard.reference if guard.type == "TRY" else "")
    for stale, node in inside:
        row = turn.edit(stale)
        if node is None:
            continue
        turn.close(node, row, TaskStatus.CANCELED, why)
        if row.child_id is not None and node.kind == SUB_WORKFLOW and not is_follower(row):
            told = messages.child_terminate(why, compensate=True)
            turn.send(row.child_id, MessageKind.CHILD_TERMINATE, told)
    turn.first((SWEEP, guard.seq, inside[-1][0].seq) if more and inside else (CHOOSE, guard.seq))


def prepare_choose(turn: Turn, step: Step) -> tuple[Node, TaskRow, TaskRow | None] | None:
    """(the guard's node and row, the task that failed in it)"""
    row = turn.row(step[1])
    if row is None or row.status >= _COMPLETED or (row.state or {}).get("part") != NO_PART:
        return None
    node = turn.node_of(row)
    failure = (row.state or {}).get("failure")
    failed = turn.row(failure[2]) if failure else None
    return None if node is None else (node, row, failed)


def act_choose(turn: Turn, _step: Step, found: tuple[Node, TaskRow, TaskRow | None] | None) -> None:
    """Nothing runs in the guard: the case that fits, `finally`, or the next compensation."""
    if found is None:
        return
    node, row, failed = found
    mine = turn.edit(row)
    if node.kind == TRY:
        _choose(turn, node, mine, failed)
    else:
        chain_failed(turn, mine, failed)


def _choose(turn: Turn, node: Node, row: TaskRow, failed: TaskRow | None) -> None:
    failure = (row.state or {})["failure"]
    told = _error(turn, row, failed, failure)
    part = _matching(node, told) if failure[3] == BODY else 0
    row.output = _output(turn, row, failed, told, caught=bool(part))
    row.updated_ms = turn.now_ms
    if not part:
        if failure[3] == FINALLY:
            _conclude(turn, node, row)
        else:
            _finally(turn, node, row)
        return
    turn.set_state(row, failure=None, caught=failure)
    if node.branches[part] is not None:
        _enter(turn, node, row, part)
    else:
        _finally(turn, node, row)


def _error(turn: Turn, row: TaskRow, failed: TaskRow | None, failure: list[Any]) -> dict[str, Any]:
    """What users read at `${guard.output.error}`, without the failed task's output."""
    if failed is None or failed.seq == row.seq:  # its own time is up
        status, reason, of = TaskStatus.TIMED_OUT, failure[1], row
        called: str | None = TIMEOUT
    else:
        status, reason, of, called = failed.status, failed.reason, failed, error_name(failed)
    return {
        "name": called,
        "status": status.name,
        "reason": reason,
        "reference": shown_reference(of.reference, of.path),
        "taskId": turn.task_id(of.seq),
    }


def _output(turn: Turn, row: TaskRow, failed: TaskRow | None, told: dict[str, Any], *, caught: bool) -> Json:
    """The row's output; the failed task's own output is left out where it would make it too large."""
    given = output_raw(failed) if failed is not None and failed.seq != row.seq else EMPTY.raw
    head = [("caught", b"true" if caught else b"false")]
    for raw in (given, EMPTY.raw):
        error = splice([*((key, Json.of(value).raw) for key, value in told.items()), ("output", raw)])
        made = splice([*head, ("error", error.raw)])
        if len(made.raw) <= PAYLOAD_MAX_BYTES:
            break
    return made


def _matching(node: Node, told: dict[str, Any]) -> int:
    """The first catch case that fits, counted from 1; 0 for none."""
    for part, case in enumerate(node.task.catch_cases, 1):
        if _fits(case, told):
            return part
    return 0


def _fits(case: CatchCase, told: dict[str, Any]) -> bool:
    by_name = not case.error_names or told["name"] in case.error_names
    return by_name and (not case.statuses or told["status"] in case.statuses)


# --- the end of a part -----------------------------------------------------------------------------


def prepare_part(turn: Turn, step: Step) -> tuple[Node, TaskRow, list[TaskRow]] | None:
    """(node, row, what failed in the part and was passed by); None where it has not ended."""
    row = turn.row(step[1])
    state = row.state or {} if row is not None else {}
    if row is None or row.status >= _COMPLETED or state.get("part") != step[2] or state.get("live", 0) > 0:
        return None
    node = turn.node_of(row)
    passed = [turn.row(seq) for seq in sorted(state.get("permissive", ()))]
    return None if node is None else (node, row, [other for other in passed if other is not None])


def act_part(turn: Turn, step: Step, found: tuple[Node, TaskRow, list[TaskRow]] | None) -> None:
    if found is None:
        return
    node, row, passed = found
    mine = turn.edit(row)
    part = step[2]
    if node.policy.row_clock:
        turn.deadlines[row.seq] = 0
    if passed:
        reason = permissive_reason(turn, passed)
        failure = [int(WorkflowStatus.FAILED), reason, passed[0].seq, part, 0]
        turn.set_state(mine, part=NO_PART, failure=failure)
        turn.first((CHOOSE, row.seq))
    elif part == FINALLY:
        _conclude(turn, node, mine)
    else:
        _finally(turn, node, mine)


def permissive_reason(turn: Turn, passed: list[TaskRow]) -> str:
    return ". ".join(
        reasons.permissive_failed(turn.task_id(row.seq), row.status, row.reason) for row in passed
    )


def _finally(turn: Turn, node: Node, row: TaskRow) -> None:
    if node.branches[FINALLY] is not None:
        _enter(turn, node, row, FINALLY)
    else:
        _conclude(turn, node, row)


_NOTHING_CAUGHT = Json.of({"caught": False})


def _conclude(turn: Turn, node: Node, row: TaskRow) -> None:
    """All that belongs to it is done."""
    state = row.state or {}
    failure = state.get("failure")
    if failure is None:
        _forgive(turn, state)
        passed = {"passed": state["passed"]} if "passed" in state else {}
        row.state = {**passed, "part": NO_PART}
        finish(turn, node, row, TaskStatus.COMPLETED, row.output or _NOTHING_CAUGHT)
        return
    finish(turn, node, row, TaskStatus.FAILED, reason=failure[1])
    error = row.output.value.get("error") if row.output is not None else None
    name(turn, row, error["name"] if error else None)


def _forgive(turn: Turn, state: dict[str, Any]) -> None:
    """Nothing of it will be reopened: what it compensated does not stand in a retry's way."""
    if state.get("undone"):
        work = turn.pending_work()
        work["undone"] = max(work["undone"] - state["undone"], 0)
        turn.keep_work()
