"""The syntax of `${...}`: where the expressions of a text are, and what they are made of.

What they mean is `engine.expressions`; `validate` reads the same pieces to check them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NESTING_MAX = 32
"""Expressions nested deeper than this stay text."""

SECRETS = "workflow.secrets."
ENVIRONMENT = "workflow.env."
TASK_ID = "CPEWF_TASK_ID"

_BRACE = re.compile("[{}]")


@dataclass(frozen=True, slots=True)
class Expression:
    """One `${...}`. `inside` is what is between the braces: text, and expressions nested in it."""

    source: str
    """With its `${` and `}`."""
    inside: tuple[str | Expression, ...]

    @property
    def text(self) -> str | None:
        """The path, when nothing is nested in it; else None."""
        if not self.inside:
            return ""
        first = self.inside[0]
        return first if len(self.inside) == 1 and isinstance(first, str) else None

    @property
    def prefix(self) -> str:
        """The part of the path that is known before anything is resolved."""
        first = self.inside[0] if self.inside else ""
        return first if isinstance(first, str) else ""


def parse_text(text: str) -> tuple[str | Expression, ...]:
    """A text as literal pieces and expressions, in order; `$${` is unescaped in the literals.

    An expression begins at a `${` that no `$` precedes and ends at the brace that balances it;
    without one it stays text.
    """
    if "${" not in text:
        return (text,)
    return _parse(text, 0, len(text), _closing_braces(text), 0)


def _parse(text: str, at: int, end: int, closing: dict[int, int], depth: int) -> tuple[str | Expression, ...]:
    pieces: list[str | Expression] = []
    literal_from = start = at
    while True:
        start = text.find("${", start, end)
        if start < 0:
            break
        close = closing.get(start + 1, end)
        if close >= end or (start > at and text[start - 1] == "$") or depth >= NESTING_MAX:
            start += 2
            continue
        if start > literal_from:
            pieces.append(text[literal_from:start].replace("$${", "${"))
        inside = _parse(text, start + 2, close, closing, depth + 1)
        pieces.append(Expression(text[start : close + 1], inside))
        start = literal_from = close + 1
    if literal_from < end:
        pieces.append(text[literal_from:end].replace("$${", "${"))
    return tuple(pieces)


def _closing_braces(text: str) -> dict[int, int]:
    """The position of each `{` that is closed -> the position of its `}`."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            opened.append(brace.start())
        elif opened:
            found[opened.pop()] = brace.start()
    return found


def root_of(prefix: str) -> str | None:
    """The name that a path begins with, when `prefix` is long enough to hold all of it; else None."""
    path = prefix.removeprefix("$.")
    ends = [at for at in (path.find("."), path.find("[")) if at > 0]
    return path[: min(ends)] if ends else None
