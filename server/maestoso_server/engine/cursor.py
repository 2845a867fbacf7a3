"""What a workflow still has to do, kept in its header: `header.cursor`.

    {"v": 1,
     "steps": [...],   owed: a Continue is on its way (a wide fork, a loop of instant bodies, a cancel)
     "held": [...],    waits for an operator: a pause, or the end, came before these steps were done
     "parked": [...],  references for which signals wait in the inbox
     "skips": {...},   references that are to be stepped over: {"seq": its row} or, inside loops,
                       {"input": ..., "output": ...}
     "removing": true, the execution is being deleted
     "slot": "waits",  or "holds": of a workflow under a rateLimitConfig (see `slots`)
     "followers": [[workflow, seq], ...],  tasks elsewhere that want its outcome (see `keys`)
     "undoing": seq,   the workflow ends: the row that compensates meanwhile
     "undone": n,      compensations after which a retry would not know what it begins with
     "secrets": {...}} where `input` and `variables` hold placeholders of secrets (`secrets.marks`)

A key that is empty is left out; with nothing in it the cursor is None.
"""

from __future__ import annotations

from typing import Any

from ..payload import Json
from .state import Header

FORMAT = 1
_PATH_AT = {1: 2, 2: 2, 14: 2, 15: 4, 16: 2, 17: 3}
"""Kind of step -> where its path is (JSON has no tuples)."""


def read(header: Header) -> dict[str, Any]:
    """A fresh record with all its keys."""
    stored = header.cursor.value if header.cursor is not None else {}
    return {
        "steps": [step_of(step) for step in stored.get("steps", ())],
        "held": [step_of(step) for step in stored.get("held", ())],
        "parked": list(stored.get("parked", ())),
        "skips": dict(stored.get("skips", {})),
        "removing": stored.get("removing", False),
        "slot": stored.get("slot", ""),
        "followers": list(stored.get("followers", ())),
        "undoing": stored.get("undoing", 0),
        "undone": stored.get("undone", 0),
        "secrets": stored.get("secrets", {}),
    }


def write(record: dict[str, Any]) -> Json | None:
    kept = {key: value for key, value in record.items() if value}
    return Json.of({"v": FORMAT, **kept}) if kept else None


def continues(header: Header) -> bool:
    """A `Continue` is owed: a decision left steps for the next one."""
    return header.cursor is not None and bool(header.cursor.value.get("steps"))


def step_of(stored: list[Any]) -> tuple[Any, ...]:
    """A step as it was before it was stored."""
    at = _PATH_AT.get(stored[0])
    if at is None:
        return tuple(stored)
    return (*stored[:at], tuple(stored[at]), *stored[at + 1 :])
