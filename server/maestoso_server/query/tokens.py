"""The words of a query, each with its place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from ..errors import InvalidArgument, Reason, Violation

_STOPS = frozenset("(),=<>!'\"")
_OPERATORS = ("<=", ">=", "!=", "<>", "=", "<", ">")
_ESCAPED = ("\\", "'", '"', "*")


class Sort(Enum):
    """Sorts of tokens."""

    WORD = 1
    QUOTED = 2
    OPERATOR = 3
    SIGN = 4
    """( ) or a comma."""
    END = 5


@dataclass(frozen=True, slots=True)
class Token:
    """`parts` are the texts between unescaped stars; `text` has them joined by `*`."""

    sort: Sort
    text: str
    at: int
    parts: tuple[str, ...] = ()

    @property
    def keyword(self) -> str:
        """Its text in capitals where it is a bare word, else empty."""
        return self.text.upper() if self.sort is Sort.WORD else ""

    @property
    def shown(self) -> str:
        """As a refusal names it."""
        return "the end of the query" if self.sort is Sort.END else repr(self.text[:50])


class Text:
    """A query's text, which knows how to refuse itself at a place."""

    def __init__(self, text: str, field: str) -> None:
        self.text = text
        self.field = field

    def refuse(self, at: int, message: str) -> NoReturn:
        """Raises InvalidArgument that names the place, counted from 1."""
        place, where = self._place(at)
        raise InvalidArgument(
            Reason.INVALID_REQUEST,
            f"{self.field}, {where}: {message}",
            violations=[Violation(self.field, message, *place)],
        )

    def told(self, at: int, message: str) -> str:
        """The message of such a refusal, for later."""
        return f"{self._place(at)[1]}: {message}"

    def _place(self, at: int) -> tuple[tuple[int, int], str]:
        line = self.text.count("\n", 0, at) + 1
        column = at - (self.text.rfind("\n", 0, at) + 1) + 1
        return (
            line,
            column,
        ), f"column {column}" if "\n" not in self.text else f"line {line}, column {column}"

    def tokens(self) -> list[Token]:
        """All of them, the last one END."""
        found, at = [], 0
        while at < len(self.text):
            if self.text[at].isspace():
                at += 1
                continue
            token, at = self._token(at)
            found.append(token)
        return [*found, Token(Sort.END, "", len(self.text))]

    def _token(self, at: int) -> tuple[Token, int]:
        char = self.text[at]
        if char in "(),":
            return Token(Sort.SIGN, char, at), at + 1
        if char in "'\"":
            return self._quoted(at)
        for operator in _OPERATORS:
            if self.text.startswith(operator, at):
                end = at + len(operator)
                if self.text[end : end + 1] == "=":
                    self.refuse(at, f"{self.text[at : end + 1]!r} is no comparison; `=` compares")
                return Token(Sort.OPERATOR, "!=" if operator == "<>" else operator, at), end
        if char == "!":
            self.refuse(at, "'!' alone is no comparison; write != or NOT")
        end = at
        while end < len(self.text) and not self.text[end].isspace() and self.text[end] not in _STOPS:
            end += 1
        word = self.text[at:end]
        if "\0" in word:
            self.refuse(at, "holds U+0000")
        return Token(Sort.WORD, word, at, tuple(word.split("*"))), end

    def _quoted(self, start: int) -> tuple[Token, int]:
        quote, at, parts, part = self.text[start], start + 1, [], ""
        while at < len(self.text):
            char = self.text[at]
            if char == quote:
                parts.append(part)
                return Token(Sort.QUOTED, "*".join(parts), start, tuple(parts)), at + 1
            if char == "\\" and self.text[at + 1 : at + 2] in _ESCAPED:
                at += 1
                part += self.text[at]
            elif char == "*":
                parts.append(part)
                part = ""
            elif char == "\0":
                self.refuse(at, "holds U+0000")
            else:
                part += char
            at += 1
        self.refuse(start, f"the text that begins with {quote} here has no end; expected another {quote}")
