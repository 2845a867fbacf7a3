"""Writing a workflow's variables."""

from __future__ import annotations

from typing import Any

from ..payload import Json, encode
from . import reasons
from .limits import VARIABLES_MAX_KB
from .turn import Turn


def write(turn: Turn, variables: dict[str, Any]) -> str | None:
    """Replace them all. Answers why not, where they are too large together."""
    header = turn.header
    raw = encode(variables)
    if len(raw) > VARIABLES_MAX_KB * 1024:
        return reasons.variables_too_large(len(raw), header.id, VARIABLES_MAX_KB)
    header.variables = Json.parsed(raw, variables)
    turn.changed = turn.payload_changed = True
    return None
