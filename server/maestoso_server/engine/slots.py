"""`rateLimitConfig`: how many workflows of one definition and key may run at once.

A start under QUEUE commits as RUNNING without tasks and waits for its slot; it begins when the slot is
given (`SlotGranted`), and its clock runs from then. Under REJECT a start that finds no slot free is
refused by its save; one that another workflow asks for has nobody to refuse, so it waits for the answer
and ends as FAILED where it is no. The end of a workflow gives its slot back in the same commit. What an
operator makes run again takes a slot whether one is free or not: it does not wait, but new starts do.

The header's cursor remembers what a workflow has: `"slot": "waits"` or `"holds"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..payload import encode
from .decision import APPLIED, Outcome, Slot
from .events import SlotGranted
from .outcomes import stale
from .state import WorkflowStatus
from .steps import END

if TYPE_CHECKING:
    from .turn import Turn

WAITS = "waits"
HOLDS = "holds"
KEY_MAX = 500
"""Characters of a key that count."""


def ask(turn: Turn, *, told: bool) -> bool | None:
    """A start asks for its slot. True: it may begin, if its save lets it; False: it waits; None while
    something is wanted. `told`: another workflow asks for the start."""
    limit = turn.plan.slots
    if limit is None:
        return True
    key = _key(turn)
    if turn.lacking:
        return None
    at_once = limit.refuse and not told
    _note(turn, HOLDS if at_once else WAITS)
    turn.slot = _slot(turn, key, holds=at_once, refusable=limit.refuse)
    return at_once


def grant(turn: Turn, event: SlotGranted) -> Outcome | None:
    """The slot was given, or refused; None: begin."""
    if turn.header.status >= WorkflowStatus.COMPLETED or turn.pending_work()["slot"] != WAITS:
        return stale("it does not wait for a slot")
    if event.refused is None:
        _note(turn, HOLDS)
        return None
    _note(turn, "")
    turn.header.status = WorkflowStatus.RUNNING
    turn.first((END, int(WorkflowStatus.FAILED), event.refused, 0))
    return APPLIED


def take_again(turn: Turn) -> None:
    """An ended workflow runs again: it counts, and does not wait."""
    if turn.plan.slots is not None:
        _note(turn, HOLDS)
        turn.slot = _slot(turn, _key(turn), holds=True, refusable=False)


def give_back(turn: Turn) -> None:
    """The workflow ends."""
    if (turn.header.cursor is not None or turn.cursor is not None) and turn.pending_work()["slot"]:
        _note(turn, "")
        turn.slot = Slot()


def waits(turn: Turn) -> bool:
    return bool(turn.pending_work()["slot"] == WAITS)


def _slot(turn: Turn, key: str, *, holds: bool, refusable: bool) -> Slot:
    limit = turn.plan.slots
    assert limit is not None
    return Slot(key, limit.slots, turn.now_ms, holds, refusable)


def _note(turn: Turn, what: str) -> None:
    turn.pending_work()["slot"] = what
    turn.keep_work()


def _key(turn: Turn) -> str:
    """Text: an expression's value that is none is written as JSON."""
    limit = turn.plan.slots
    assert limit is not None
    value: Any = turn.evaluate(limit.key, ())
    text = value if isinstance(value, str) else encode(value).decode()
    return text.replace("\0", "?")[:KEY_MAX]
