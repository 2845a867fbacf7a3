"""Another attempt of a row: after a failure by policy, or when an operator revives a workflow."""

from __future__ import annotations

from typing import Any

from ..definitions.models import TaskDefinition
from ..payload import Json
from . import closing
from .guards import holder_row
from .limits import PAYLOAD_MAX_BYTES
from .nodes import DYNAMIC, WORKER, Node
from .operators.births import BadInput, arm, input_fault
from .operators.dynamic import fallbacks_of
from .operators.table import INPUTS, RUNS
from .operators.worker import enqueue
from .retry import retry_delay_ms
from .rows import PASSED_BY, REVIVED, new_attempt
from .state import TaskRow, TaskStatus
from .steps import BY_POLICY, RUN, SETTLE
from .turn import Step, Turn


def prepare(turn: Turn, step: Step) -> tuple[TaskRow, Node, Json, str | None] | None:
    """(the row to repeat, its node, the new input, what is wrong with that); None where it has been
    repeated already."""
    row = turn.row(step[1])
    if row is None or row.superseded or row.status < TaskStatus.COMPLETED:
        return None
    node = turn.node_of(row)
    if node is None:
        return None
    if node.holder is not None and (row.state or {}).get("passed"):
        holder_row(turn, node, row.path)
    turn.unresolved.clear()
    value = _input(turn, row, node)
    policy = turn.policy_of(row, node)
    fault = None
    if turn.plan.strict or policy.input_schema is not None:
        fault = input_fault(turn, node, value, policy)
    return row, node, value, fault


def _input(turn: Turn, row: TaskRow, node: Node) -> Json:
    """The old input overlaid by a fresh resolution. A SUB_WORKFLOW's is made anew (B20)."""
    if (row.state or {}).get("given"):
        return row.input
    if node.kind in INPUTS:
        try:
            return INPUTS[node.kind](turn, node, row.path, row.scope)
        except BadInput as bad:  # judged again, with the others
            return bad.value
    if node.constant is not None:
        return row.input
    try:
        fresh = turn.resolve(node, row.path, turn.header.next_seq)
        if node.kind == DYNAMIC:
            definition = (row.state or {}).get("definition")
            fresh = turn.fill(fresh, fallbacks_of(definition), node, row.path, turn.header.next_seq)
        merged = Json.of({**row.input.value, **fresh})
        return merged if len(merged.raw) <= PAYLOAD_MAX_BYTES else row.input
    except Exception:  # whatever the data has become meanwhile: the old input was good
        return row.input


def act(turn: Turn, step: Step, found: tuple[TaskRow, Node, Json, str | None] | None) -> None:
    if found is None:
        return
    old, node, value, fault = found
    policy = turn.policy_of(old, node)
    delay_ms = _delay_ms(turn, old, policy.definition) if step[2] else 0
    before = turn.header.last_task
    row = new_attempt(turn, old, value, delay_ms)
    lasting = _lasting(turn, node, old, row)
    row.state = lasting
    if not step[2] and before != old.seq:
        turn.header.last_task = before  # it takes the place of the attempt before it
    if node.watched:
        closing.born(turn, node, row)
    if fault is not None:
        turn.close(node, row, TaskStatus.FAILED_WITH_TERMINAL_ERROR, fault)
        turn.later((SETTLE, row.seq, BY_POLICY))
    elif node.kind in (WORKER, DYNAMIC):
        enqueue(turn, row, policy, turn.now_ms + delay_ms)
    elif delay_ms > 0:
        row.state = {**(lasting or {}), "due": turn.now_ms + delay_ms}
        turn.deadlines[row.seq] = turn.now_ms + delay_ms
    else:
        begin(turn, node, row)


def _lasting(turn: Turn, node: Node, old: TaskRow, row: TaskRow) -> dict[str, Any] | None:
    """What the new attempt has in its record from the start: facts about its input, and whether the
    flow went on without it."""
    kept: dict[str, Any] = {}
    if row.state is not None:
        kept.update(row.state)
    if old.state is not None:
        if node.kind == DYNAMIC:
            kept = {**old.state, **kept}
            kept.pop("alerted", None)
        elif "cache" in old.state:
            kept["cache"] = old.state["cache"]
        if "given" in old.state:
            kept["given"] = old.state["given"]
    kept.update(revived(turn, node, old) or {})
    return kept or None


def revived(turn: Turn, node: Node, row: TaskRow) -> dict[str, int] | None:
    """What a row that runs again keeps of the fact that the flow went on without it. What holds its
    chain (the turn of a loop), which has to be known, waits for it from now on."""
    passed = (row.state or {}).get("passed")
    if not passed:
        return None
    holder = holder_row(turn, node, row.path)
    if passed == PASSED_BY and holder is not None:
        mine = turn.edit(holder)
        turn.set_state(mine, live=(mine.state or {}).get("live", 0) + 1)
    return {"passed": REVIVED}


def _delay_ms(turn: Turn, old: TaskRow, definition: TaskDefinition) -> int:
    asked = (old.state or {}).get("retry_after_s")
    return asked * 1000 if asked is not None else retry_delay_ms(definition, old.attempt, turn.seed)


def begin(turn: Turn, node: Node, row: TaskRow) -> None:
    """Start a repeated row that the engine works itself."""
    row.started_ms = turn.now_ms
    turn.set_status(row, TaskStatus.IN_PROGRESS)
    arm(turn, node, row.seq)
    if node.kind in RUNS:
        turn.later((RUN, row.seq))
