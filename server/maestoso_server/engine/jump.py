"""Going on at another task of the same chain: the command JUMP and its step DROP.

The chain is that of the target: the workflow's own, or the branch, case or body that runs now.
Only what lies in it is touched. SKIPPED, not CANCELED: a join goes on over it, and a later retry
does not run it again.
"""

from __future__ import annotations

from typing import Any

from ..payload import Json
from . import messages, reasons
from .chains import chain_of, is_undoing, lineage
from .cursor import continues
from .decision import APPLIED, MessageKind, Outcome
from .ending import open_rows
from .events import Jump
from .guards import undoing
from .keys import is_follower
from .names import split_reference
from .nodes import JOIN, SUB_WORKFLOW, Node
from .outcomes import absent, behind, refused
from .rerun import TAKES_NO_INPUT, Place, step_within
from .rows import add_row
from .state import Path, TaskRow, TaskStatus, WorkflowStatus
from .steps import BIRTH, DROP, RECOUNT
from .turn import Step, Turn

_COMPLETED = int(TaskStatus.COMPLETED)
DROPPED_AT_ONCE = 200
_JUMPED = "skipped by a jump to task {}"


def apply_jump(turn: Turn, event: Jump) -> Outcome | None:
    header = turn.header
    if header.status != WorkflowStatus.RUNNING:
        return refused(f"it is {header.status.name}: only a RUNNING workflow can jump")
    if continues(header):
        return behind()
    node = turn.plan.nodes.get(event.reference) or turn.plan.nodes.get(split_reference(event.reference)[0])
    if node is None or is_undoing(node):
        return absent(f"the definition has no task {event.reference} in its flow")
    if undoing(turn):
        return refused("it is compensating what it had completed")
    if node.kind == JOIN:
        return refused(f"task {node.reference} is a JOIN: jump to its fork, or to the task after it")
    if event.input is not None and node.kind in TAKES_NO_INPUT:
        return refused(f"task {node.reference} is a {node.type}: it takes no input")
    where = _where(turn, node)
    if turn.lacking:
        return None
    if where is None:
        return refused(f"nothing runs in the chain of task {node.reference}")
    path, scope, at = where
    old = turn.newest(node.reference, path)
    place = Place(node, path, scope) if old is None else Place.find(turn, node, old)
    if old is None and place is not None and not place.look_around(turn):
        place = None
    chain = chain_of(turn.plan, node)
    place_of = {other.reference: number for number, other in enumerate(chain)}
    between = chain[at + 1 : place_of[node.reference]]
    missing = [other for other in between if turn.newest(other.reference, path) is None]
    if turn.lacking:
        return None
    if place is None:
        return refused("what is around the task is not kept any more")
    _forget_steps(turn, node, path)
    for other in missing:
        row = add_row(
            turn, other, path, scope, TaskStatus.SKIPPED, Json.of({}), reason=_JUMPED.format(node.reference)
        )
        row.state = None
    turn.later((DROP, 0, node.reference, path))
    if old is not None:
        turn.later(place.aside(turn))
    turn.agenda.extend(place.births_in_chain(turn, None if event.input is None else event.input.value))
    turn.changed = True
    return APPLIED


def _where(turn: Turn, target: Node) -> tuple[Path, int, int] | None:
    """(path, scope, how far the chain has come) of the running chain that the target is part of."""
    chain = [node.reference for node in chain_of(turn.plan, target)]
    furthest = -1
    found: tuple[Path, int] | None = ((), 0) if target.parent is None else None
    for node, path, scope in _positions(turn):
        for at in lineage(node):
            if at.reference in chain:
                here = path[: len(target.loops)]
                if found is None or here > found[0] or target.parent is None:
                    found = (here, scope)
                furthest = max(furthest, chain.index(at.reference))
                break
            container = turn.row(scope) if scope else None
            scope = container.scope if container is not None else 0
    if found is None:
        return None
    return found[0], found[1], furthest


def _positions(turn: Turn) -> list[tuple[Node, Path, int]]:
    """Where the flow is: open rows, and rows that are about to be made."""
    found: list[tuple[Node, Path, int]] = []
    after = 0
    while True:
        rows = open_rows(turn, after, DROPPED_AT_ONCE)
        for row in rows:
            node = turn.node_of(row)
            if node is not None:
                found.append((node, row.path, row.scope))
        if len(rows) < DROPPED_AT_ONCE:
            break
        after = rows[-1].seq
    for step in turn.pending():
        if step[0] == BIRTH:
            node = turn.node(step[1], step[3])
            if node is not None:
                found.append((node, step[2], step[3]))
    return found


def _in_chain(turn: Turn, target: Node, path: Path) -> Any:
    """Whether a row of a node in a turn lies in the chain of the target, as (node, path) -> bool."""
    chain = {node.reference for node in chain_of(turn.plan, target)}
    depth = len(target.loops)

    def holds(node: Node, at: Path) -> bool:
        return at[:depth] == path and any(other.reference in chain for other in lineage(node))

    return holds


def _forget_steps(turn: Turn, target: Node, path: Path) -> None:
    holds = _in_chain(turn, target, path)
    kept = [step for step in turn.agenda if not step_within(turn, step, holds)]
    turn.agenda.clear()
    turn.agenda.extend(kept)


def prepare_drop(turn: Turn, step: Step) -> tuple[list[tuple[TaskRow, Node]], list[TaskRow], int]:
    """(rows to end, joins elsewhere that wait for one of them, the last row looked at)"""
    _, after, reference, path = step
    target = turn.plan.nodes[reference]
    holds = _in_chain(turn, target, path)
    rows = open_rows(turn, after, DROPPED_AT_ONCE)
    found: list[tuple[TaskRow, Node]] = []
    joins: dict[int, TaskRow] = {}
    for row in rows:
        node = turn.node_of(row)
        if node is None or not holds(node, row.path):
            continue
        found.append((row, node))
        for join in node.joins:
            waiting = turn.newest(join.reference, row.path)
            if waiting is not None and waiting.status < _COMPLETED and not holds(join, waiting.path):
                joins[waiting.seq] = waiting
    return found, list(joins.values()), rows[-1].seq if len(rows) == DROPPED_AT_ONCE else 0


def act_drop(turn: Turn, step: Step, found: tuple[list[tuple[TaskRow, Node]], list[TaskRow], int]) -> None:
    _, _, reference, path = step
    rows, joins, last = found
    reason = _JUMPED.format(reference)
    told = messages.child_terminate(reasons.parent_ended(WorkflowStatus.TERMINATED, reason))
    for row, node in rows:
        mine = turn.edit(row)
        turn.close(node, mine, TaskStatus.SKIPPED, reason)
        if mine.child_id is not None and node.kind == SUB_WORKFLOW and not is_follower(mine):
            turn.send(mine.child_id, MessageKind.CHILD_TERMINATE, told)
    for join in joins:
        turn.later((RECOUNT, join.seq))
    if last:
        turn.first((DROP, last, reference, path))
