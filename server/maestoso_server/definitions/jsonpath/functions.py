"""The functions that a path may end with: `.length()`, `.sum()`, `.keys()`, ...

Each takes the value that the path led to and the list of its arguments. Aggregates are doubles.
One that does not fit its subject finds nothing (`call`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from .values import MISSING, is_number


def call(name: str, subject: Any, arguments: list[Any]) -> Any:
    """The result of a function, or MISSING."""
    apply = _FUNCTIONS.get(name)
    if apply is None:
        return MISSING
    try:
        return apply(subject, [argument for argument in arguments if argument is not MISSING])
    except (ArithmeticError, ValueError, IndexError, TypeError):
        return MISSING


def _numbers(subject: Any, arguments: list[Any]) -> list[float]:
    values = [*(subject if isinstance(subject, list) else ()), *_flat(arguments)]
    return [float(value) for value in values if is_number(value)]


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
