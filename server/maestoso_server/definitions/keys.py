"""Idempotency keys of starts: which there are, and what a used one means."""

from __future__ import annotations

from enum import IntEnum

KEY_MAX = 255
"""Characters; what the index holds."""


class KeyPolicy(IntEnum):
    """What a used idempotency key means."""

    FAIL = 1
    RETURN_EXISTING = 2
    FAIL_ON_RUNNING = 3


def why_no_strategy(name: object) -> str | None:
    """What keeps a value from being an `idempotencyStrategy`, or None."""
    if isinstance(name, str) and name in KeyPolicy.__members__:
        return None
    return f"is no strategy: {str(name)[:40]!r}. Use {', '.join(KeyPolicy.__members__)}"
