"""How a node gets its first row, for every kind that the engine works itself.

The row is made with its resolved input and is run at once (`RUN`): before its siblings where
Conductor decides while mapping (a SWITCH and its first case task come before the next branch of a
fork), after them where it executes later.
"""

from __future__ import annotations

from typing import Any

from ...payload import EMPTY, Json, encode
from .. import reasons
from ..limits import PAYLOAD_MAX_BYTES
from ..nodes import Node
from ..policy import Policy
from ..rows import add_row
from ..state import Path, TaskStatus
from ..steps import RUN
from ..turn import Turn
from .finishing import Unusable, too_large


def prepare_input(turn: Turn, node: Node, path: Path, _scope: int) -> Json:
    """The resolved `inputParameters`."""
    return node.constant or resolved(turn, node, path)


def resolved(turn: Turn, node: Node, path: Path) -> Json:
    """The input as text already: what cannot be written, or is too much of it, fails here."""
    seq = turn.header.next_seq
    value = Json.of(turn.resolve(node, path, seq))
    if len(value.raw) > PAYLOAD_MAX_BYTES:
        raise Unusable(too_large(turn, seq, value))
    if (turn.unresolved and turn.plan.strict) or node.policy.input_schema is not None:
        fault = input_fault(turn, node, value, node.policy)
        if fault is not None:
            raise BadInput(fault, value)
    return value


class BadInput(Unusable):
    """An input that the definition does not allow. The row shows it, and nobody gets it."""

    def __init__(self, reason: str, value: Json) -> None:
        super().__init__(reason)
        self.value = value


def input_fault(turn: Turn, node: Node, value: Json, policy: Policy) -> str | None:
    """What is wrong with an input that has just been resolved: an expression that finds nothing
    where the definition forbids that, or its schema. Not judged while something is wanted."""
    if turn.lacking:
        return None
    if turn.unresolved and turn.plan.strict:
        source = turn.unresolved[0]
        return reasons.unresolved(source, _place_of(source, node.task.input_parameters))
    if policy.input_schema is not None:
        faults = policy.input_schema.faults(value.value, "input")
        if faults:
            return reasons.breaks_schema("input", "inputSchema", faults)
    return None


def _place_of(source: str, parameters: dict[str, Any]) -> str:
    """The input key whose value holds an expression."""
    for key, value in parameters.items():
        if source in encode(value).decode():
            return f"input {key}"
    return "the input"


def prepare_nothing(_turn: Turn, _node: Node, _path: Path, _scope: int) -> Json:
    return EMPTY


def birth_now(turn: Turn, node: Node, path: Path, scope: int, value: Any) -> None:
    """A row that runs before anything else."""
    row = add_row(turn, node, path, scope, TaskStatus.IN_PROGRESS, value)
    arm(turn, node, row.seq)
    turn.first((RUN, row.seq))


def birth_later(turn: Turn, node: Node, path: Path, scope: int, value: Any) -> None:
    """A row that runs after all that is being mapped now."""
    row = add_row(turn, node, path, scope, TaskStatus.IN_PROGRESS, value)
    arm(turn, node, row.seq)
    turn.later((RUN, row.seq))


def birth_delayed(turn: Turn, node: Node, path: Path, scope: int, value: Any) -> None:
    """A row that runs after its `startDelay`."""
    if not node.start_delay_s:
        birth_later(turn, node, path, scope, value)
        return
    due_ms = turn.now_ms + node.start_delay_s * 1000
    row = add_row(turn, node, path, scope, TaskStatus.SCHEDULED, value, state={"due": due_ms})
    row.started_ms = 0
    row.callback_after_s = node.start_delay_s
    turn.deadlines[row.seq] = due_ms


def arm(turn: Turn, node: Node, seq: int) -> None:
    """Start the clocks that a row of the engine's own has: `timeoutSeconds`, `totalTimeoutSeconds`."""
    policy = node.policy
    if policy.row_clock:
        limits = [limit for limit in (policy.timeout_s, policy.total_s) if limit]
        turn.deadlines[seq] = turn.now_ms + min(limits) * 1000
