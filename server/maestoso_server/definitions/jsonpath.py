"""JSONPath as Conductor's definitions use it: Jayway's dialect with suppressed exceptions.

A path is *definite* when it can name one value only; it then reads that value or `MISSING`. An
indefinite one (wildcard, slice, filter, `..`) always reads a list. Nothing here raises while
reading: a path that does not fit the data finds nothing.

The document is never built: a path is split into root, attribute and the rest, and the first
two are looked up (`Lookup`), so that `${t1.output.a}` costs one call and two subscriptions.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec


class _Missing:
    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final[Any] = _Missing()
"""Nothing is there; not the same as null."""

Lookup = Callable[[str, str | None], Any]
"""(root, attribute) -> the value of that attribute of that root's document; the whole document of
the root for attribute None; all of it for root "". MISSING where there is none."""

MATCHES_MAX = 100_000
"""A path whose intermediate matches are more than this finds nothing (`..*..*` over a big document)."""

_REGEX_SUBJECT_MAX = 4096
_FILTER_DEPTH_MAX = 32


class PathError(ValueError):
    """The text is no path."""


@dataclass(frozen=True, slots=True)
class _Names:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Indexes:
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Slice:
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class _Filter:
    accepts: Callable[[Any, Lookup], bool]


@dataclass(frozen=True, slots=True)
class _Function:
    name: str
    arguments: tuple[Callable[[Any, Lookup], Any], ...]


class _Wildcard:
    __slots__ = ()


class _Scan:
    __slots__ = ()


_WILDCARD = _Wildcard()
_SCAN = _Scan()

Step = str | int | _Names | _Indexes | _Slice | _Filter | _Function | _Wildcard | _Scan


@dataclass(frozen=True, slots=True)
class Path:
    """A compiled path. `steps` of str (a member) and int (an element) only make it `plain`."""

    steps: tuple[Step, ...]
    definite: bool
    plain: bool

    @property
    def root(self) -> str:
        """The name of the document that it reads; "" when it may read any."""
        first = self.steps[0] if self.steps else None
        return first if isinstance(first, str) else ""

    @property
    def names(self) -> tuple[str | int, ...]:
        """The plain steps that follow the root, up to the first that is not plain."""
        found: list[str | int] = []
        for step in self.steps[1:]:
            if not isinstance(step, str | int):
                break
            found.append(step)
        return tuple(found)

    def reader(self) -> Callable[[Lookup], Any]:
        """A function that reads this path through a lookup: a value, or MISSING, or a list."""
        steps, root = self.steps, self.root
        attribute: str | None = None
        if root:
            steps = steps[1:]
            if steps and isinstance(steps[0], str):
                attribute, steps = steps[0], steps[1:]
        if self.plain:
            return _plain_reader(root, attribute, steps)
        inverted = bool(self.steps) and isinstance(self.steps[0], _Scan)

        def read(lookup: Lookup) -> Any:
            value = lookup(root, attribute)
            return _evaluate(steps, self.definite, inverted, value, lookup)

        return read


def _plain_reader(root: str, attribute: str | None, steps: tuple[Any, ...]) -> Callable[[Lookup], Any]:
    if not steps:
        return lambda lookup: lookup(root, attribute)

    if all(isinstance(step, str) for step in steps):

        def read_members(lookup: Lookup) -> Any:
            value = lookup(root, attribute)
            try:
                for step in steps:
                    value = value[step]
            except (KeyError, TypeError, IndexError):
                return MISSING
            return value

        return read_members

    def read_steps(lookup: Lookup) -> Any:
        value = lookup(root, attribute)
        try:
            for step in steps:
                if isinstance(value, str):  # the one value that takes an index and is no list
                    return MISSING
                value = value[step]
        except (KeyError, TypeError, IndexError):
            return MISSING
        return value

    return read_steps


# --- reading ---------------------------------------------------------------------------------


class _TooMany(Exception):
    pass


def _evaluate(steps: tuple[Step, ...], definite: bool, inverted: bool, value: Any, lookup: Lookup) -> Any:
    """Apply `steps` to `value`. `inverted`: a function at the end of a `$..` path takes the list."""
    nodes = [] if value is MISSING else [value]
    last = len(steps) - 1
    at = 0
    try:
        while at <= last:
            step = steps[at]
            if isinstance(step, _Scan):
                at += 1
                nodes = list(_bounded(_scanned(steps[at], nodes, lookup)))
            elif isinstance(step, _Function):
                subjects = [nodes] if inverted else nodes
                results = [_call(step, subject, lookup) for subject in subjects]
                nodes = [result for result in results if result is not MISSING]
                if inverted:
                    return nodes[0] if nodes else MISSING
            elif isinstance(step, _Names) and at == last:
                nodes = [
                    {name: node[name] for name in step.names if name in node}
                    for node in nodes
                    if isinstance(node, dict)
                ]
            else:
                nodes = list(_bounded(found for node in nodes for found in _children(step, node, lookup)))
            at += 1
    except _TooMany:
        nodes = []
    if definite:
        return nodes[0] if nodes else MISSING
    return nodes


def _bounded(found: Iterator[Any]) -> Iterator[Any]:
    for count, node in enumerate(found):
        if count >= MATCHES_MAX:
            raise _TooMany
        yield node


def _children(step: Step, node: Any, lookup: Lookup) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from _members(step, node, lookup)
    elif isinstance(node, list):
        yield from _elements(step, node, lookup)


def _members(step: Step, node: dict[str, Any], lookup: Lookup) -> Iterator[Any]:
    if isinstance(step, str):
        if step in node:
            yield node[step]
    elif isinstance(step, _Names):
        yield from (node[name] for name in step.names if name in node)
    elif isinstance(step, _Wildcard):
        yield from node.values()
    elif isinstance(step, _Filter) and step.accepts(node, lookup):
        yield node


def _elements(step: Step, node: list[Any], lookup: Lookup) -> Iterator[Any]:
    size = len(node)
    if isinstance(step, int):
        if -size <= step < size:
            yield node[step]
    elif isinstance(step, _Indexes):
        yield from (node[index] for index in step.indexes if -size <= index < size)
    elif isinstance(step, _Slice):
        start, stop = step.start, step.stop
        if start is not None and start < 0 and stop is None:
            start = max(0, size + start)
        if stop is not None and stop < 0 and start is None:
            stop = size + stop
        first, end = start or 0, size if stop is None else min(size, stop)
        yield from (node[index] for index in range(first, end) if index >= -size)
    elif isinstance(step, _Wildcard):
        yield from node
    elif isinstance(step, _Filter):
        yield from (element for element in node if step.accepts(element, lookup))


def _scanned(step: Step, nodes: list[Any], lookup: Lookup) -> Iterator[Any]:
    """What `..step` finds: the step applied to every node at or below, parents first."""
    stack = list(reversed(nodes))
    while stack:
        node = stack.pop()
        if isinstance(step, _Filter):
            if isinstance(node, dict | list) and step.accepts(node, lookup):
                yield node
        else:
            yield from _children(step, node, lookup)
        if isinstance(node, dict):
            stack.extend(reversed(node.values()))
        elif isinstance(node, list):
            stack.extend(reversed(node))


def _call(function: _Function, subject: Any, lookup: Lookup) -> Any:
    arguments = [argument(subject, lookup) for argument in function.arguments]
    apply = _FUNCTIONS.get(function.name)
    if apply is None:
        return MISSING
    try:
        return apply(subject, [argument for argument in arguments if argument is not MISSING])
    except (ArithmeticError, ValueError, IndexError, TypeError):
        return MISSING


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(subject: Any, arguments: list[Any]) -> list[float]:
    values = [*(subject if isinstance(subject, list) else ()), *_flat(arguments)]
    return [float(value) for value in values if _number(value)]


def _flat(arguments: list[Any]) -> Iterator[Any]:
    for argument in arguments:
        if isinstance(argument, list):
            yield from argument
        else:
            yield argument


def _average(numbers: list[float]) -> float:
    return math.fsum(numbers) / len(numbers)


def _deviation(numbers: list[float]) -> float:
    mean = _average(numbers)
    return math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))


def _total(numbers: list[float]) -> float:
    if not numbers:
        raise ValueError("no numbers")
    return math.fsum(numbers)


def _length(subject: Any, arguments: list[Any]) -> Any:
    measured = arguments[0] if arguments else subject
    return len(measured) if isinstance(measured, list | dict) else None


def _concat(subject: Any, arguments: list[Any]) -> str:
    values = [*(subject if isinstance(subject, list) else ()), *_flat(arguments)]
    return "".join(value if isinstance(value, str) else "" for value in values)


def _element(subject: Any, index: Any) -> Any:
    return subject[index] if isinstance(subject, list) and isinstance(index, int) else MISSING


_FUNCTIONS: dict[str, Callable[[Any, list[Any]], Any]] = {
    "length": _length,
    "size": _length,
    "sum": lambda subject, arguments: _total(_numbers(subject, arguments)),
    "avg": lambda subject, arguments: _average(_numbers(subject, arguments)),
    "stddev": lambda subject, arguments: _deviation(_numbers(subject, arguments)),
    "min": lambda subject, arguments: min(_numbers(subject, arguments)),
    "max": lambda subject, arguments: max(_numbers(subject, arguments)),
    "concat": _concat,
    "append": lambda subject, arguments: [*subject, *arguments] if isinstance(subject, list) else MISSING,
    "keys": lambda subject, _: list(subject) if isinstance(subject, dict) else MISSING,
    "first": lambda subject, _: _element(subject, 0),
    "last": lambda subject, _: _element(subject, -1),
    "index": lambda subject, arguments: _element(subject, arguments[0]),
}

# --- parsing ---------------------------------------------------------------------------------

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
    return _path(steps)


_compile_short = lru_cache(maxsize=4096)(_compile)


def _path(steps: list[Step]) -> Path:
    definite = all(
        isinstance(step, str | int | _Function) or (isinstance(step, _Names) and at == len(steps) - 1)
        for at, step in enumerate(steps)
    )
    if steps and isinstance(steps[0], _Scan) and isinstance(steps[-1], _Function):
        definite = True
    return Path(tuple(steps), definite, all(isinstance(step, str | int) for step in steps))


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
                steps.append(_SCAN)
                steps.append(self.bracket() if self.char == "[" else self.member(stops))
            elif self.take("."):
                steps.append(self.bracket() if self.char == "[" else self.member(stops))
            elif self.char == "[":
                steps.append(self.bracket())
            elif self.char in stops:
                break
            else:
                raise PathError(f"unexpected {self.char!r} at position {self.at} of {self.text!r}")
            if isinstance(steps[-1], _Function):
                break
        return steps

    def member(self, stops: frozenset[str]) -> Step:
        if self.take("*"):
            return _WILDCARD
        start = self.at
        while not self.ended and self.char not in ".[(" and self.char not in stops:
            if self.char == " ":
                raise PathError(f"a name with a blank needs brackets: {self.text!r}")
            self.at += 1
        name = self.text[start : self.at]
        if not name:
            raise PathError(f"a name is missing at position {start} of {self.text!r}")
        if self.take("("):
            return _Function(name, self.arguments())
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
            return _WILDCARD
        if self.take("?"):
            self.expect("(")
            accepts = self.disjunction()
            self.expect(")")
            self.expect("]")
            return _Filter(accepts)
        end = self.text.find("]", self.at)
        inside = self.text[self.at : end] if end >= 0 else ""
        self.at = end + 1
        if _INDEXES.match(inside):
            indexes = tuple(int(index) for index in inside.split(","))
            return indexes[0] if len(indexes) == 1 else _Indexes(indexes)
        span = _SLICE.match(inside)
        if span is None:
            raise PathError(f"not an index, a slice, a name in quotes or a filter: [{inside}]")
        start, stop = span.groups()
        return _Slice(None if start is None else int(start), None if stop is None else int(stop))

    def names(self) -> Step:
        names = [self.quoted()]
        self.skip_blanks()
        while self.take(","):
            self.skip_blanks()
            names.append(self.quoted())
            self.skip_blanks()
        self.expect("]")
        return names[0] if len(names) == 1 else _Names(tuple(names))

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
        for symbol in _SYMBOLS:
            if self.take(symbol):
                break
        else:
            return lambda node, lookup: _exists(left(node, lookup))
        self.skip_blanks()
        if symbol == "=~":
            pattern = self.pattern()
            return lambda node, lookup: _matches(pattern, left(node, lookup))
        right = self.operand()
        compare = _OPERATORS[symbol]
        return lambda node, lookup: compare(left(node, lookup), right(node, lookup))

    def operand(self) -> Callable[[Any, Lookup], Any]:
        self.skip_blanks()
        here = self.char
        if here in ("@", "$"):
            self.at += 1
            path = _path(self.steps(_FILTER_STOPS))
            if here == "$":
                read = path.reader()
                return lambda _, lookup: read(lookup)
            return lambda node, lookup: _evaluate(path.steps, path.definite, False, node, lookup)
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
        while self.char and self.char in _FLAGS:
            flags |= _FLAGS[self.char]
            self.at += 1
        return _safe_pattern(source, flags)


_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "u": 0, "d": 0}
_QUANTIFIED_GROUP = re.compile(r"(?<!\\)\)[*+{]")
_UNBOUNDED = re.compile(r"(?<!\\)(?:[*+]|\{\d*,\})")


def _safe_pattern(source: str, flags: int) -> re.Pattern[str]:
    """A pattern whose worst case is bounded: a filter runs inside a decision and nothing stops it."""
    if _QUANTIFIED_GROUP.search(source) or len(_UNBOUNDED.findall(source)) > 2:
        raise PathError(f"a pattern may not repeat a group, nor repeat without bound more than twice: {source}")
    try:
        return re.compile(source, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise PathError(f"not a pattern: {source}: {error}") from error


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _REGEX_SUBJECT_MAX and bool(pattern.fullmatch(value))


def _exists(value: Any) -> bool:
    return value is not MISSING


def _equal(left: Any, right: Any) -> bool:
    """Equal as Jayway sees it: numbers by value, a number and its text alike."""
    if left is MISSING or right is MISSING:
        return False
    if _number(left) and isinstance(right, str):
        return _equal_text(right, left)
    if isinstance(left, str) and _number(right):
        return _equal_text(left, right)
    return _same(left, right)


def _equal_text(text: str, number: float) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


def _same(left: Any, right: Any) -> bool:
    if left is MISSING or right is MISSING or isinstance(left, bool) is not isinstance(right, bool):
        return False
    return bool(left == right)


def _ordered(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    def holds(left: Any, right: Any) -> bool:
        comparable = (_number(left) and _number(right)) or (isinstance(left, str) and isinstance(right, str))
        return comparable and bool(compare(left, right))

    return holds


def _among(value: Any, values: Any) -> bool:
    return isinstance(values, list) and any(_equal(value, other) for other in values)


def _contains(left: Any, right: Any) -> bool:
    if isinstance(left, str):
        return isinstance(right, str) and right in left
    return _among(right, left)


def _any_of(left: Any, right: Any) -> bool:
    return isinstance(left, list) and any(_among(value, right) for value in left)


def _size_is(left: Any, right: Any) -> bool:
    return isinstance(left, str | list | dict) and _number(right) and len(left) == right


def _empty_is(left: Any, right: Any) -> bool:
    return isinstance(left, str | list | dict) and (len(left) == 0) is right


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "===": _same,
    "!==": lambda left, right: not _same(left, right),
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<=": _ordered(operator.le),
    ">=": _ordered(operator.ge),
    "<": _ordered(operator.lt),
    ">": _ordered(operator.gt),
    "in ": _among,
    "nin ": lambda left, right: isinstance(right, list) and not _among(left, right),
    "contains ": _contains,
    "subsetof ": lambda left, right: isinstance(left, list) and all(_among(value, right) for value in left),
    "anyof ": _any_of,
    "noneof ": lambda left, right: isinstance(left, list) and not _any_of(left, right),
    "size ": _size_is,
    "empty ": _empty_is,
}
_SYMBOLS = ("=~", *_OPERATORS)
"""Longer symbols first, so that `==` is not read as two."""
