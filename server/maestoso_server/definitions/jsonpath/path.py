"""A compiled path and how it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .functions import call
from .values import MISSING, Lookup

MATCHES_MAX = 100_000
"""A path whose intermediate matches are more than this finds nothing (`..*..*` over a big document)."""


@dataclass(frozen=True, slots=True)
class Names:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Indexes:
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class Filter:
    accepts: Callable[[Any, Lookup], bool]


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    arguments: tuple[Callable[[Any, Lookup], Any], ...]


class Wildcard:
    __slots__ = ()


class Scan:
    __slots__ = ()


WILDCARD = Wildcard()
SCAN = Scan()

Step = str | int | Names | Indexes | Slice | Filter | Function | Wildcard | Scan


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
        inverted = bool(self.steps) and isinstance(self.steps[0], Scan)

        def read(lookup: Lookup) -> Any:
            value = lookup(root, attribute)
            return evaluate(steps, self.definite, inverted, value, lookup)

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


class _TooMany(Exception):
    pass


def evaluate(steps: tuple[Step, ...], definite: bool, inverted: bool, value: Any, lookup: Lookup) -> Any:
    """Apply `steps` to `value`. `inverted`: a function at the end of a `$..` path takes the list."""
    nodes = [] if value is MISSING else [value]
    last = len(steps) - 1
    at = 0
    try:
        while at <= last:
            step = steps[at]
            if isinstance(step, Scan):
                at += 1
                nodes = list(_bounded(_scanned(steps[at], nodes, lookup)))
            elif isinstance(step, Function):
                subjects = [nodes] if inverted else nodes
                results = [_apply(step, subject, lookup) for subject in subjects]
                nodes = [result for result in results if result is not MISSING]
                if inverted:
                    return nodes[0] if nodes else MISSING
            elif isinstance(step, Names) and at == last:
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
    elif isinstance(step, Names):
        yield from (node[name] for name in step.names if name in node)
    elif isinstance(step, Wildcard):
        yield from node.values()
    elif isinstance(step, Filter) and step.accepts(node, lookup):
        yield node


def _elements(step: Step, node: list[Any], lookup: Lookup) -> Iterator[Any]:
    size = len(node)
    if isinstance(step, int):
        if -size <= step < size:
            yield node[step]
    elif isinstance(step, Indexes):
        yield from (node[index] for index in step.indexes if -size <= index < size)
    elif isinstance(step, Slice):
        start, stop = step.start, step.stop
        if start is not None and start < 0 and stop is None:
            start = max(0, size + start)
        if stop is not None and stop < 0 and start is None:
            stop = size + stop
        first, end = start or 0, size if stop is None else min(size, stop)
        yield from (node[index] for index in range(first, end) if index >= -size)
    elif isinstance(step, Wildcard):
        yield from node
    elif isinstance(step, Filter):
        yield from (element for element in node if step.accepts(element, lookup))


def _scanned(step: Step, nodes: list[Any], lookup: Lookup) -> Iterator[Any]:
    """What `..step` finds: the step applied to every node at or below, parents first."""
    stack = list(reversed(nodes))
    while stack:
        node = stack.pop()
        if isinstance(step, Filter):
            if isinstance(node, dict | list) and step.accepts(node, lookup):
                yield node
        else:
            yield from _children(step, node, lookup)
        if isinstance(node, dict):
            stack.extend(reversed(node.values()))
        elif isinstance(node, list):
            stack.extend(reversed(node))


def _apply(function: Function, subject: Any, lookup: Lookup) -> Any:
    return call(function.name, subject, [argument(subject, lookup) for argument in function.arguments])


def path_of(steps: list[Step]) -> Path:
    """The path of these steps."""
    definite = all(
        isinstance(step, str | int | Function) or (isinstance(step, Names) and at == len(steps) - 1)
        for at, step in enumerate(steps)
    )
    if steps and isinstance(steps[0], Scan) and isinstance(steps[-1], Function):
        definite = True
    return Path(tuple(steps), definite, all(isinstance(step, str | int) for step in steps))
