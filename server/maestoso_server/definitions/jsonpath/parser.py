"""The text of a path, read into its steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from .comparisons import FLAGS, OPERATORS, SYMBOLS, exists, matches, safe_pattern
from .path import SCAN, WILDCARD, Filter, Function, Indexes, Names, Path, Slice, Step, evaluate, path_of
from .values import Lookup, PathError

_FILTER_DEPTH_MAX = 32
_INDEXES = re.compile(r"\s*-?\d{1,18}(\s*,\s*-?\d{1,18})*\s*\Z")
_SLICE = re.compile(r"\s*(-?\d{1,18})?\s*:\s*(-?\d{1,18})?\s*\Z")
_FILTER_STOPS = frozenset("<>=~!&|), ]")
_NO_STOPS: frozenset[str] = frozenset()


def compile_path(text: str) -> Path:
    """The path of a text such as `workflow.input.items[0]`; a leading `$.` is optional.

    Raises PathError, with Jayway's notion of what is no path (a blank in a name, a dot at the end).
    Short paths are remembered: those with expressions nested in them are compiled at run time.
    """
    return _compile_short(text) if len(text) <= 256 else _compile(text)


def _compile(text: str) -> Path:
    text = text.rstrip(" ")
    if not text:
        raise PathError("a path must not be empty")
    if text[0] != "$":
        text = "$." + text
    reader = _Reader(text, 1)
    steps = reader.steps(_NO_STOPS)
    if not reader.ended:
        raise PathError(f"unexpected {reader.char!r} at position {reader.at} of {text!r}")
    return path_of(steps)


_compile_short = lru_cache(maxsize=4096)(_compile)


class _Reader:
    """A cursor over the text of a path and of the filters inside it."""

    __slots__ = ("at", "depth", "text")

    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at
        self.depth = 0

    @property
    def ended(self) -> bool:
        return self.at >= len(self.text)

    @property
    def char(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def skip_blanks(self) -> None:
        while self.char == " ":
            self.at += 1

    def take(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        self.skip_blanks()
        if not self.take(token):
            raise PathError(f"expected {token!r} at position {self.at} of {self.text!r}")

    # paths

    def steps(self, stops: frozenset[str]) -> list[Step]:
        steps: list[Step] = []
        while not self.ended:
            if self.take(".."):
                steps.append(SCAN)
                steps.append(self.bracket() if self.char == "[" else self.member(stops))
            elif self.take("."):
                steps.append(self.bracket() if self.char == "[" else self.member(stops))
            elif self.char == "[":
                steps.append(self.bracket())
            elif self.char in stops:
                break
            else:
                raise PathError(f"unexpected {self.char!r} at position {self.at} of {self.text!r}")
            if isinstance(steps[-1], Function):
                break
        return steps

    def member(self, stops: frozenset[str]) -> Step:
        if self.take("*"):
            return WILDCARD
        start = self.at
        while not self.ended and self.char not in ".[(" and self.char not in stops:
            if self.char == " ":
                raise PathError(f"a name with a blank needs brackets: {self.text!r}")
            self.at += 1
        name = self.text[start : self.at]
        if not name:
            raise PathError(f"a name is missing at position {start} of {self.text!r}")
        if self.take("("):
            return Function(name, self.arguments())
        return name

    def arguments(self) -> tuple[Callable[[Any, Lookup], Any], ...]:
        found: list[Callable[[Any, Lookup], Any]] = []
        self.skip_blanks()
        while not self.take(")"):
            if found:
                self.expect(",")
            found.append(self.operand())
            self.skip_blanks()
        return tuple(found)

    def bracket(self) -> Step:
        self.at += 1
        self.skip_blanks()
        if self.char in ("'", '"'):
            return self.names()
        if self.take("*"):
            self.expect("]")
            return WILDCARD
        if self.take("?"):
            self.expect("(")
            accepts = self.disjunction()
            self.expect(")")
            self.expect("]")
            return Filter(accepts)
        end = self.text.find("]", self.at)
        inside = self.text[self.at : end] if end >= 0 else ""
        self.at = end + 1
        if _INDEXES.match(inside):
            indexes = tuple(int(index) for index in inside.split(","))
            return indexes[0] if len(indexes) == 1 else Indexes(indexes)
        span = _SLICE.match(inside)
        if span is None:
            raise PathError(f"not an index, a slice, a name in quotes or a filter: [{inside}]")
        start, stop = span.groups()
        return Slice(None if start is None else int(start), None if stop is None else int(stop))

    def names(self) -> Step:
        names = [self.quoted()]
        self.skip_blanks()
        while self.take(","):
            self.skip_blanks()
            names.append(self.quoted())
            self.skip_blanks()
        self.expect("]")
        return names[0] if len(names) == 1 else Names(tuple(names))

    def quoted(self) -> str:
        quote = self.char
        if quote not in ("'", '"'):
            raise PathError(f"expected a name in quotes at position {self.at} of {self.text!r}")
        self.at += 1
        found: list[str] = []
        while not self.ended and self.char != quote:
            if self.char == "\\":
                self.at += 1
            found.append(self.char)
            self.at += 1
        if not self.take(quote):
            raise PathError(f"an open quote in {self.text!r}")
        return "".join(found)

    # filters

    def disjunction(self) -> Callable[[Any, Lookup], bool]:
        self.depth += 1
        if self.depth > _FILTER_DEPTH_MAX:
            raise PathError("a filter nested too deep")
        alternatives = [self.conjunction()]
        self.skip_blanks()
        while self.take("||"):
            alternatives.append(self.conjunction())
            self.skip_blanks()
        self.depth -= 1
        if len(alternatives) == 1:
            return alternatives[0]
        return lambda node, lookup: any(accepts(node, lookup) for accepts in alternatives)

    def conjunction(self) -> Callable[[Any, Lookup], bool]:
        conditions = [self.condition()]
        self.skip_blanks()
        while self.take("&&"):
            conditions.append(self.condition())
            self.skip_blanks()
        if len(conditions) == 1:
            return conditions[0]
        return lambda node, lookup: all(accepts(node, lookup) for accepts in conditions)

    def condition(self) -> Callable[[Any, Lookup], bool]:
        self.skip_blanks()
        negations = 0
        while self.take("!"):
            negations += 1
            self.skip_blanks()
        if self.take("("):
            accepts = self.disjunction()
            self.expect(")")
        else:
            accepts = self.comparison()
        if negations % 2 == 0:
            return accepts
        return lambda node, lookup: not accepts(node, lookup)

    def comparison(self) -> Callable[[Any, Lookup], bool]:
        left = self.operand()
        self.skip_blanks()
        for symbol in SYMBOLS:
            if self.take(symbol):
                break
        else:
            return lambda node, lookup: exists(left(node, lookup))
        self.skip_blanks()
        if symbol == "=~":
            pattern = self.pattern()
            return lambda node, lookup: matches(pattern, left(node, lookup))
        right = self.operand()
        compare = OPERATORS[symbol]
        return lambda node, lookup: compare(left(node, lookup), right(node, lookup))

    def operand(self) -> Callable[[Any, Lookup], Any]:
        self.skip_blanks()
        here = self.char
        if here in ("@", "$"):
            self.at += 1
            path = path_of(self.steps(_FILTER_STOPS))
            if here == "$":
                read = path.reader()
                return lambda _, lookup: read(lookup)
            return lambda node, lookup: evaluate(path.steps, path.definite, False, node, lookup)
        value = self.quoted() if here in ("'", '"') else self.literal()
        return lambda _node, _lookup: value

    def literal(self) -> Any:
        """A JSON value: a number, true, false, null, or an array or object."""
        if self.char in ("[", "{"):
            end = self.closing()
        else:
            end = self.at
            while end < len(self.text) and self.text[end] not in _FILTER_STOPS:
                end += 1
        raw = self.text[self.at : end]
        for text in (raw, raw.replace("'", '"')):
            try:
                value = msgspec.json.decode(text.encode())
            except (msgspec.DecodeError, UnicodeEncodeError):
                continue
            self.at = end
            return value
        raise PathError(f"not a value: {raw!r}")

    def closing(self) -> int:
        """Just behind the bracket that closes the one at the cursor; brackets in quotes do not count."""
        depth, quote = 0, ""
        for at in range(self.at, len(self.text)):
            char = self.text[at]
            if quote:
                quote = "" if char == quote else quote
            elif char in ("'", '"'):
                quote = char
            elif char in "[{":
                depth += 1
            elif char in "]}":
                depth -= 1
                if depth == 0:
                    return at + 1
        raise PathError(f"an open bracket in {self.text!r}")

    def pattern(self) -> re.Pattern[str]:
        self.expect("/")
        start = self.at
        while not self.ended and self.char != "/":
            self.at += 2 if self.char == "\\" else 1
        source = self.text[start : self.at]
        self.expect("/")
        flags = 0
        while self.char and self.char in FLAGS:
            flags |= FLAGS[self.char]
            self.at += 1
        return safe_pattern(source, flags)
