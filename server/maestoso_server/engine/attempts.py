"""Another attempt of a row: after a failure by policy, or when an operator revives a workflow."""

from __future__ import annotations

from ..definitions.models import TaskDefinition
from ..payload import Json
from .limits import PAYLOAD_MAX_BYTES
from .nodes import DYNAMIC, WORKER, Node
from .operators.births import arm
from .operators.dynamic import fallbacks_of
from .operators.table import INPUTS, RUNS
from .operators.worker import enqueue
from .retry import retry_delay_ms
from .rows import PASSED_BY, REVIVED, new_attempt
from .state import TaskRow, TaskStatus
from .steps import RUN
from .turn import Step, Turn


def prepare(turn: Turn, step: Step) -> tuple[TaskRow, Node, Json] | None:
    """(the row to repeat, its node, the new input); None where it has been repeated already."""
    row = turn.row(step[1])
    if row is None or row.superseded or row.status < TaskStatus.COMPLETED:
        return None
    node = turn.node_of(row)
    if node is None:
        return None
    if node.loops and (row.state or {}).get("passed"):
        turn.newest(node.loops[-1], row.path[:-1])
    return row, node, _input(turn, row, node)


def _input(turn: Turn, row: TaskRow, node: Node) -> Json:
    """The old input overlaid by a fresh resolution. A SUB_WORKFLOW's is made anew (B20)."""
    if node.kind in INPUTS:
        return INPUTS[node.kind](turn, node, row.path, row.scope)
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


def act(turn: Turn, step: Step, found: tuple[TaskRow, Node, Json] | None) -> None:
    if found is None:
        return
    old, node, value = found
    policy = turn.policy_of(old, node)
    delay_ms = _delay_ms(turn, old, policy.definition) if step[2] else 0
    row = new_attempt(turn, old, value, delay_ms)
    passed = revived(turn, node, old)
    if node.kind in (WORKER, DYNAMIC):
        row.state = {**(old.state or {}), **(passed or {})} if node.kind == DYNAMIC else passed
        enqueue(turn, row, policy, turn.now_ms + delay_ms)
    elif delay_ms > 0:
        row.state = {**(passed or {}), "due": turn.now_ms + delay_ms}
        turn.deadlines[row.seq] = turn.now_ms + delay_ms
    else:
        row.state = passed
        begin(turn, node, row)


def revived(turn: Turn, node: Node, row: TaskRow) -> dict[str, int] | None:
    """What a row that runs again keeps of the fact that the flow went on without it. The turn of
    its loop, which has to be known, waits for it from now on."""
    passed = (row.state or {}).get("passed")
    if not passed:
        return None
    loop = turn.newest(node.loops[-1], row.path[:-1]) if node.loops else None
    if passed == PASSED_BY and loop is not None:
        mine = turn.edit(loop)
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
