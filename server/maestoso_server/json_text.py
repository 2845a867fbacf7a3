"""JSON text from outside: accepted as it is, or refused with its place.

What is accepted goes on byte for byte, so this is where law 8 is kept: invalid JSON, NaN and
numbers beyond a double, duplicate keys, lone surrogates, integers of more than 4,300 digits and
documents nested deeper than `DEPTH_MAX` are refused. A byte order mark is dropped.

The common case, compact text, costs one decode and one encode whose bytes are compared: equal bytes
cannot hide a duplicate key. Other text is read once more by the standard library, which shows
the pairs of each object. Only a fault, or the wish to know where something stands (`places`),
costs a scan in Python (about 0.2 s for 1 MiB).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from .errors import InvalidArgument, Reason, Violation
from .payload import Json, decode, encode

DEPTH_MAX = 256
"""Objects and arrays inside each other."""

Path = tuple[str | int, ...]
"""Where a value is: names of members and indexes of elements, from the outside in."""

_BOM = b"\xef\xbb\xbf"
_DIGITS_MAX = 4300


class JsonFault(ValueError):
    """Text that is refused as JSON, and where: line and column count from 1, in characters."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


def check_value(raw: bytes, *, field: str, limit: int | None = None) -> Json:
    """The JSON value in `raw`, parsed once, its text kept.

    `field` names it in the refusal; `limit` is the most bytes that it may have, where the caller
    has not looked already. Raises InvalidArgument (INVALID_JSON with line and column, or TOO_LARGE).
    """
    if limit is not None and len(raw) > limit:
        raise InvalidArgument(
            Reason.TOO_LARGE,
            f"{field} has {len(raw):,} bytes; at most {limit:,} are allowed",
            violations=[Violation(field, f"{len(raw):,} bytes are more than {limit:,}")],
        )
    try:
        return parse(raw)
    except JsonFault as fault:
        raise _refusal(field, fault) from None


def check_object(raw: bytes, *, field: str, limit: int | None = None) -> Json:
    """As `check_value`, for a field that must be a JSON object."""
    checked = check_value(raw, field=field, limit=limit)
    if not isinstance(checked.value, dict):
        raise _refusal(field, JsonFault(f"must be a JSON object, not {_kind(checked.value)}", 1, 1))
    return checked


def parse(raw: bytes) -> Json:
    """The JSON value in `raw`. Raises JsonFault with the place of the first fault."""
    raw = without_mark(raw)
    try:
        value = decode(raw)
        if encode(value) != raw:
            json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        raise _fault(raw) from None
    if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX and _depth(value) > DEPTH_MAX:
        raise _fault(raw)
    return Json.parsed(raw, value)


def without_mark(raw: bytes) -> bytes:
    """The text without the byte order mark that some editors put before it."""
    return raw.removeprefix(_BOM)


def places(raw: bytes, paths: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Line and column of values in valid JSON text: of a member's name, of an element's first character."""
    wanted = set(paths)
    found: dict[Path, tuple[int, int]] = {}
    if not wanted:
        return found
    text = raw.decode("utf-8-sig")
    for path, at in _walk(text):
        if path in wanted and path not in found:
            found[path] = _place(text, at)
    return found


def path_text(path: Path) -> str:
    """`tasks[0].inputParameters["a.b"]`."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _NAME.fullmatch(step):
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{json.dumps(step, ensure_ascii=False)}]")
    return "".join(parts)


_NAME = re.compile(r"[^\W\d][\w-]*")


def _refusal(field: str, fault: JsonFault) -> InvalidArgument:
    where = f"line {fault.line}, column {fault.column}"
    return InvalidArgument(
        Reason.INVALID_JSON,
        f"{field}, {where}: {fault.message}",
        violations=[Violation(field, fault.message, fault.line, fault.column)],
    )


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("duplicate key")


def _depth(value: Any) -> int:
    depth = 0
    level = [value]
    while level:
        inside: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                inside.extend(node.values())
            else:
                inside.extend(node)
        level = [node for node in inside if isinstance(node, dict | list)]
        depth += 1
    return depth


def _kind(value: Any) -> str:
    kinds = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


# --- the exact scan --------------------------------------------------------------------------

_BLANK = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"')
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_LITERAL = re.compile(r"true|false|null")
_WORD = re.compile(r"[-+]?\w+")


class _Stop(Exception):
    def __init__(self, message: str, at: int) -> None:
        self.message = message
        self.at = at


def _fault(raw: bytes) -> JsonFault:
    """What is wrong with text that was refused."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        return JsonFault("not UTF-8", *_place(before, len(before)))
    try:
        for _ in _walk(text):
            pass
    except _Stop as stop:
        return JsonFault(stop.message, *_place(text, stop.at))
    return JsonFault("not valid JSON", 1, 1)


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1


def _walk(text: str) -> Iterator[tuple[Path, int]]:
    """Every member and element with the offset where it begins; raises _Stop at the first fault."""
    at = _skip(text, 0)
    path: list[str | int] = []
    keys: list[set[str] | None] = []  # per open container: the keys seen, None for an array
    while True:
        opened = text[at : at + 1]
        if opened in ("{", "["):
            if len(keys) >= DEPTH_MAX:
                raise _Stop(f"nested deeper than {DEPTH_MAX}", at)
            at = _skip(text, at + 1)
            if text[at : at + 1] == ("}" if opened == "{" else "]"):
                at += 1
            else:
                keys.append(set() if opened == "{" else None)
                path.append(-1)
                at = yield from _enter(text, at, path, keys[-1])
                continue
        else:
            at = _scalar(text, at)
        while keys:  # after a value: the next member or element, or the ends of containers
            at = _skip(text, at)
            close = "]" if keys[-1] is None else "}"
            if text[at : at + 1] == ",":
                at = _skip(text, at + 1)
                if text[at : at + 1] == close:
                    raise _Stop("a comma before the closing bracket", at)
                at = yield from _enter(text, at, path, keys[-1])
                break
            if text[at : at + 1] != close:
                raise _Stop(f"expected ',' or '{close}'" if at < len(text) else f"'{close}' is missing", at)
            at += 1
            keys.pop()
            path.pop()
        else:
            at = _skip(text, at)
            if at < len(text):
                raise _Stop("text after the end of the JSON value", at)
            return


def _enter(
    text: str, at: int, path: list[str | int], seen: set[str] | None
) -> Generator[tuple[Path, int], None, int]:
    """Step to the next member or element of the innermost container; returns where its value begins."""
    if seen is None:
        last = path[-1]
        path[-1] = last + 1 if isinstance(last, int) else 0
        yield tuple(path), at
        return at
    if text[at : at + 1] != '"':
        raise _Stop(_unexpected(text, at, "a member's name in double quotes"), at)
    end = _string(text, at)
    key = json.loads(text[at:end])
    if key in seen:
        raise _Stop(f"duplicate key {json.dumps(key, ensure_ascii=False)}", at)
    seen.add(key)
    path[-1] = key
    yield tuple(path), at
    at = _skip(text, end)
    if text[at : at + 1] != ":":
        raise _Stop("expected ':'", at)
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _scalar(text: str, at: int) -> int:
    """The end of the string, number or literal at `at`."""
    if text[at : at + 1] == '"':
        return _string(text, at)
    literal = _LITERAL.match(text, at)
    if literal:
        return literal.end()
    number = _NUMBER.match(text, at)
    if number is None:
        raise _Stop(_unexpected(text, at, "a value"), at)
    fraction, exponent = number.groups()
    if fraction is None and exponent is None:
        if len(number.group()) > _DIGITS_MAX:
            raise _Stop(f"an integer of more than {_DIGITS_MAX:,} digits", at)
    elif math.isinf(float(number.group())):
        raise _Stop("a number too large for a double", at)
    return number.end()


def _string(text: str, at: int) -> int:
    found = _STRING.match(text, at)
    if found is None:
        raise _Stop("a string that is not closed, or has a control character or a wrong escape in it", at)
    if "\\u" in found.group():
        try:
            json.loads(found.group()).encode()
        except UnicodeEncodeError:
            raise _Stop("a string with half of a surrogate pair in it", at) from None
    return found.end()


def _unexpected(text: str, at: int, expected: str) -> str:
    if at >= len(text):
        return f"expected {expected}, found the end"
    if text.startswith(("//", "/*", "#"), at):
        return f"expected {expected}; JSON has no comments"
    word = _WORD.match(text, at)
    found = word.group()[:20] if word else text[at]
    if found.lstrip("+-") in ("NaN", "Infinity"):
        return f"{found} is no JSON number"
    return f"expected {expected}, found {found!r}"
