"""Free text: which words an execution must have."""

from __future__ import annotations

from .tokens import Text
from .tree import Words

WORDS_MAX = 8
WORD_MAX = 255


def parse_words(text: str, *, field: str = "free_text") -> Words | None:
    """The words, or None for everything (empty or `*`). Raises InvalidArgument."""
    source = Text(text, field)
    words = text.split()
    if words in ([], ["*"]):
        return None
    if "\0" in text:
        source.refuse(text.index("\0"), "holds U+0000")
    if len(words) > WORDS_MAX:
        source.refuse(0, f"has {len(words)} words; at most {WORDS_MAX} are accepted")
    for word in words:
        if len(word) > WORD_MAX:
            source.refuse(text.index(word), f"a word has at most {WORD_MAX} characters")
        if "*" in word:
            source.refuse(
                text.index(word), f"{word[:50]!r}: words are whole; `=` in the query takes wildcards"
            )
    return Words(tuple(words))
