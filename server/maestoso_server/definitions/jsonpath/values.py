"""What every part of the path language speaks of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final


class _Missing:
    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final[Any] = _Missing()
"""Nothing is there; not the same as null."""

Lookup = Callable[[str, str | None], Any]
"""(root, attribute) -> the value of that attribute of that root's document; the whole document of
the root for attribute None; all of it for root "". MISSING where there is none."""


class PathError(ValueError):
    """The text is no path."""


def is_number(value: Any) -> bool:
    """A JSON number; Python counts true and false among the integers."""
    return isinstance(value, int | float) and not isinstance(value, bool)
