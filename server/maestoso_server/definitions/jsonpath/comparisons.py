"""The operators of filters: `[?(@.price < 10 && @.name =~ /a.*/i)]`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from .values import MISSING, PathError, is_number

_SUBJECT_MAX = 4096

FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "u": 0, "d": 0}
_QUANTIFIED_GROUP = re.compile(r"(?<!\\)\)[*+{]")
_UNBOUNDED = re.compile(r"(?<!\\)(?:[*+]|\{\d*,\})")


def safe_pattern(source: str, flags: int) -> re.Pattern[str]:
    """A pattern whose worst case is bounded: a filter runs inside a decision and nothing stops it."""
    if _QUANTIFIED_GROUP.search(source) or len(_UNBOUNDED.findall(source)) > 2:
        raise PathError(
            f"a pattern may not repeat a group, nor repeat without bound more than twice: {source}"
        )
    try:
        return re.compile(source, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise PathError(f"not a pattern: {source}: {error}") from error


def matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _SUBJECT_MAX and bool(pattern.fullmatch(value))


def exists(value: Any) -> bool:
    return value is not MISSING


def _equal(left: Any, right: Any) -> bool:
    """Equal as Jayway sees it: numbers by value, a number and its text alike."""
    if left is MISSING or right is MISSING:
        return False
    if is_number(left) and isinstance(right, str):
        return _equal_text(right, left)
    if isinstance(left, str) and is_number(right):
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
        comparable = (is_number(left) and is_number(right)) or (
            isinstance(left, str) and isinstance(right, str)
        )
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
    return isinstance(left, str | list | dict) and is_number(right) and len(left) == right


def _empty_is(left: Any, right: Any) -> bool:
    return isinstance(left, str | list | dict) and (len(left) == 0) is right


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
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
SYMBOLS = ("=~", *OPERATORS)
"""Longer symbols first, so that `==` is not read as two."""
