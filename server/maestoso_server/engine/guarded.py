"""The steps of a plan with TRYs or compensations: those of a part that is over are not done.

Every other plan's steps go past this: `decide` chooses the table once an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .guards import guard_row, hold, over_step
from .nodes import TRY, Node
from .state import Path, TaskRow
from .steps import (
    AGAIN,
    BIRTH,
    BRANCHES,
    CATCH,
    CHOOSE,
    CLOSE,
    JOIN_BIRTH,
    NOTIFY,
    PART,
    RUN,
    SETTLE,
    SWEEP,
    TURN,
    UNDO,
)
from .turn import Step, Turn

Prepare = Callable[[Turn, Step], Any]
Act = Callable[[Turn, Step, Any], None]

_WATCHED = frozenset(
    {
        BIRTH,
        JOIN_BIRTH,
        AGAIN,
        RUN,
        SETTLE,
        NOTIFY,
        BRANCHES,
        TURN,
        CLOSE,
        CATCH,
        SWEEP,
        CHOOSE,
        PART,
        UNDO,
    }
)


class _Held:
    """The step belongs to a part of this guard that is over."""

    __slots__ = ("guard",)

    def __init__(self, guard: TaskRow) -> None:
        self.guard = guard


class _Anew:
    """The task has a row already: a retry reopened the TRY around it."""

    __slots__ = ("old", "prepared")

    def __init__(self, old: TaskRow, prepared: Any) -> None:
        self.old = old
        self.prepared = prepared


def watched_prepare(steps: dict[int, Prepare]) -> dict[int, Prepare]:
    return {kind: _prepare(prepare) if kind in _WATCHED else prepare for kind, prepare in steps.items()}


def watched_act(steps: dict[int, Act]) -> dict[int, Act]:
    return {kind: _act(act) if kind in _WATCHED else act for kind, act in steps.items()}


def _prepare(prepare: Prepare) -> Prepare:
    def watched(turn: Turn, step: Step) -> Any:
        guard = over_step(turn, step)
        if guard is not None:
            return _Held(guard)
        found = prepare(turn, step)
        if step[0] in (BIRTH, JOIN_BIRTH) and found is not None:
            old = _row_before(turn, step)
            if old is not None:
                return _Anew(old, found)
        return found

    return watched


def _act(act: Act) -> Act:
    def watched(turn: Turn, step: Step, found: Any) -> None:
        if isinstance(found, _Held):
            hold(turn, found.guard, step)
        elif isinstance(found, _Anew):
            act(turn, step, found.prepared)
            _supersede(turn, step, found.old)
        else:
            act(turn, step, found)

    return watched


def _row_before(turn: Turn, step: Step) -> TaskRow | None:
    """The row that a task has from before its TRY was reopened."""
    _, reference, path, scope = step[:4]
    node = turn.node(reference, scope)
    if node is None or not _runs_again(turn, node, path):
        return None
    return turn.newest(reference, path)


def _runs_again(turn: Turn, node: Node, path: Path) -> bool:
    at: Node | None = node
    while at is not None and at.guard is not None and at.guard.kind == TRY:
        row = guard_row(turn, at, path)
        if row is not None and (row.state or {}).get("again"):
            return True
        at = at.guard
    return False


def _supersede(turn: Turn, step: Step, old: TaskRow) -> None:
    """The row that was just made is another attempt."""
    row = turn.rows[turn.fresh[(step[1], step[2])]]
    if row.seq != old.seq:
        row.attempt = old.attempt + 1
        row.retried_seq = old.seq
        turn.edit(old).superseded = True
