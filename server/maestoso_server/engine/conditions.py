"""What a DO_WHILE's condition reads, found in its text, so that it gets no more than that.

A condition is JavaScript over `$`: the loop's own inputs, `$.<loop>` (its output) and
`$.<task>` (a body task's output). In Python these are names of their own, and members of `inputs`.
One that names what it reads costs the same in every turn.
"""

from __future__ import annotations

import re

_NAMED = re.compile(r"""\$\s*(?:\.\s*([A-Za-z_]\w*)|\[\s*(['"])(.*?)\2\s*\])""")
_COUNTER = re.compile(r"""\s*(?:\.\s*([A-Za-z_]\w*)|\[\s*(['"])(.*?)\2\s*\])""")
_WORD = re.compile(r"[^\W\d]\w*")
_DOLLAR = re.compile(r"(?<![\w$])\$(?![\w${])")


class Condition:
    """`whole` means that it reads turns of the loop by number (or `$` as a whole): it gets them all."""

    __slots__ = ("language", "references", "text", "whole")

    def __init__(self, text: str, loop: str, body: frozenset[str], language: str = "javascript") -> None:
        self.text = text
        self.language = language
        if language == "python":
            words = list(_WORD.finditer(text))
            found = {word.group() for word in words}
            uses = [word.end() for word in words if word.group() == loop]
            self.whole = "inputs" in found
        else:
            named = list(_NAMED.finditer(text))
            found = {match.group(1) or match.group(3) or "" for match in named}
            uses = [match.end() for match in named if (match.group(1) or match.group(3)) == loop]
            self.whole = len(named) < len(_DOLLAR.findall(text))
        self.whole = self.whole or not all(_reads_counter(text, end) for end in uses)
        self.references = tuple(sorted(body if self.whole else body & found))
        """The body tasks whose output it reads."""


def _reads_counter(text: str, at: int) -> bool:
    match = _COUNTER.match(text, at)
    return match is not None and (match.group(1) or match.group(3)) in ("iteration", "loopIndex", "loopItem")
