"""How a row is called for users: Conductor's `__N` for the turns of loops."""

from __future__ import annotations

from .state import Path

_SEPARATOR = "__"


def shown_reference(reference: str, path: Path) -> str:
    """`t` in turn 3 is `t__3`; in turn 2 of a loop inside turn 3 of another it is `t__3__2`."""
    if not path:
        return reference
    return reference + _SEPARATOR + _SEPARATOR.join(map(str, path))


def split_reference(shown: str) -> tuple[str, Path]:
    """(base reference, path) of what a user calls a row. A suffix that is no number is a name."""
    path: list[int] = []
    reference = shown
    while True:
        base, separator, suffix = reference.rpartition(_SEPARATOR)
        if not separator or not base or not (suffix.isascii() and suffix.isdigit()):
            return reference, tuple(reversed(path))
        path.append(int(suffix))
        reference = base
