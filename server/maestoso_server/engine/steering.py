"""Operators' commands that change what a workflow will do: skip, variables, removal."""

from __future__ import annotations

from ..payload import Json, encode
from . import reasons
from .chains import is_undoing
from .cursor import continues
from .decision import APPLIED, Outcome
from .events import ChangeVariables, Remove, Skip
from .limits import VARIABLES_MAX_KB
from .nodes import JOIN
from .outcomes import absent, behind, refused
from .rows import add_row
from .state import TaskStatus, WorkflowStatus
from .turn import Turn

_ENDED = int(WorkflowStatus.COMPLETED)


def apply_skip(turn: Turn, event: Skip) -> Outcome | None:
    """Outside loops the SKIPPED row is there at once; inside one each turn makes its own."""
    header = turn.header
    if header.status != WorkflowStatus.RUNNING:
        return refused(f"it is {header.status.name}: only tasks of a RUNNING workflow can be skipped")
    node = turn.plan.nodes.get(event.reference)
    if node is None or is_undoing(node):
        return absent(f"the definition has no task {event.reference} in its flow")
    if node.kind == JOIN:
        return refused(f"task {node.reference} is a JOIN: it is skipped with its fork")
    skips = turn.pending_work()["skips"]
    if node.reference in skips:
        return refused(f"task {node.reference} is skipped already")
    if node.loops:
        skips[node.reference] = {"input": event.input.value, "output": event.output.value}
        turn.keep_work()
        return APPLIED
    known = turn.newest(node.reference, ())
    if turn.lacking:
        return None
    if known is not None:
        return refused(f"task {node.reference} is {known.status.name} already")
    last = header.last_task
    row = add_row(
        turn, node, (), 0, TaskStatus.SKIPPED, event.input, output=event.output, state={"ahead": True}
    )
    header.last_task = last
    skips[node.reference] = {"seq": row.seq}
    turn.keep_work()
    return APPLIED


def apply_change_variables(turn: Turn, event: ChangeVariables) -> Outcome | None:
    header = turn.header
    if header.status >= _ENDED:
        return refused(f"it is {header.status.name}: its variables cannot change any more")
    changes = event.variables.value
    variables = changes if event.replace else {**header.variables.value, **changes}
    raw = encode(variables)
    if len(raw) > VARIABLES_MAX_KB * 1024:
        return refused(reasons.variables_too_large(len(raw), header.id, VARIABLES_MAX_KB))
    header.variables = Json.parsed(raw, variables)
    turn.changed = turn.payload_changed = True
    return APPLIED


def apply_remove(turn: Turn, _event: Remove) -> Outcome | None:
    """Mark it, so that no operator and no child revives what is being deleted."""
    header = turn.header
    if header.status < _ENDED:
        return refused(f"it is {header.status.name}: terminate it first")
    if continues(header):
        return behind()
    turn.pending_work()["removing"] = True
    turn.keep_work()
    return APPLIED
