"""Which texts can be names: of workflows, tasks, task types and references."""

from __future__ import annotations

NAME_MAX = 255
"""Characters; what indexes hold."""


def why_unusable(name: str) -> str | None:
    """What keeps a text from being a name, or None."""
    if len(name) > NAME_MAX:
        return f"has {len(name):,} characters; at most {NAME_MAX} are accepted"
    if "\0" in name:
        return "holds U+0000, which cannot be stored in a name"
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "holds half of a surrogate pair, which cannot be stored"
    return None
