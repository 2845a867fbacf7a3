"""What the interpreter needs of Conductor's `${}` language and of JavaScript: a small subset of each.

Written from the reference alone (01, sections 2 and 3.11); it shares nothing with the server. The
documents of `documents.py` use no more than this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

TASK_ID = "CPEWF_TASK_ID"
_STEP = re.compile(r"\.?([A-Za-z_][\w-]*)|\[(-?\d+|\*)\]|\['([^']*)'\]")


class ScriptFailed(Exception):
    """The script threw."""


# --- ${...} ------------------------------------------------------------------------------------------


def resolve(template: Any, document: dict[str, Any], task_id: str | None = None) -> Any:
    """The template with its expressions replaced; `task_id` None leaves `${CPEWF_TASK_ID}` as it is."""
    if isinstance(template, dict):
        return {key: resolve(value, document, task_id) for key, value in template.items()}
    if isinstance(template, list):
        return [resolve(value, document, task_id) for value in template]
    if isinstance(template, str):
        return _resolve_text(template, document, task_id)
    return template


def fill(template: Any, task_id: str) -> Any:
    """K23: only `${CPEWF_TASK_ID}` is replaced, the one thing a dynamic fork resolves a second time."""
    if isinstance(template, dict):
        return {key: fill(value, task_id) for key, value in template.items()}
    if isinstance(template, list):
        return [fill(value, task_id) for value in template]
    return template.replace("${" + TASK_ID + "}", task_id) if isinstance(template, str) else template


def _resolve_text(text: str, document: dict[str, Any], task_id: str | None) -> Any:
    parts = _split(text)
    if len(parts) == 1 and isinstance(parts[0], tuple):
        return _look_up(parts[0][0], document, task_id)
    shown = [
        part if isinstance(part, str) else _as_text(_look_up(part[0], document, task_id)) for part in parts
    ]
    return "".join(shown).replace("$${", "${")


def _split(text: str) -> list[str | tuple[str]]:
    """Literal pieces as text, expressions as a tuple of one."""
    parts: list[str | tuple[str]] = []
    literal, at = "", 0
    while at < len(text):
        end = _end_of_expression(text, at)
        if end is None:
            literal += text[at]
            at += 1
            continue
        if literal:
            parts.append(literal)
        parts.append((text[at + 2 : end],))
        literal, at = "", end + 1
    if literal:
        parts.append(literal)
    return parts


def _end_of_expression(text: str, at: int) -> int | None:
    """Where the brace is that ends the expression beginning here; None if none begins."""
    if not text.startswith("${", at) or (at and text[at - 1] == "$"):
        return None
    depth = 0
    for index in range(at + 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index
    return None


def _look_up(inner: str, document: dict[str, Any], task_id: str | None) -> Any:
    path = _as_text(_resolve_text(inner, document, task_id)) if "${" in inner else inner
    if not path.strip():
        return ""
    if path == TASK_ID:
        return "${" + TASK_ID + "}" if task_id is None else task_id
    value: Any = document
    many = False
    for name, index, quoted in _STEP.findall(path.removeprefix("$.")):
        values = value if many else [value]
        if index == "*":
            found = [item for one in values if isinstance(one, list) for item in one]
            value, many = found, True
            continue
        steps = [_step(one, name or quoted, index) for one in values]
        found = [hit[0] for hit in steps if hit]
        value = found if many else (found[0] if found else None)
    return value


def _step(value: Any, name: str, index: str) -> tuple[Any] | None:
    """What one step finds, in a tuple; None if nothing."""
    if index:
        inside = isinstance(value, list) and -len(value) <= int(index) < len(value)
        return (value[int(index)],) if inside else None
    return (value[name],) if isinstance(value, dict) and name in value else None


def _as_text(value: Any) -> str:
    """How a value reads within a text. B34: maps and lists as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# --- scripts -----------------------------------------------------------------------------------------

_CONDITION = re.compile(r"^(\$\S+) (<|>|<=|>=) (\S+)$")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda left, right: left < right,
    ">": lambda left, right: left > right,
    "<=": lambda left, right: left <= right,
    ">=": lambda left, right: left >= right,
}
_UNDEFINED = object()


def run_script(script: str, given: dict[str, Any]) -> Any:
    """The value of a script of one of three forms: a path, `({key: path})`, or a comparison.

    A comparison may stand within `if (...) { yes; } else { no; }`, whose value is that of its branch.
    """
    if found := re.fullmatch(r"if \((.+)\) \{ (.+); \} else \{ (.+); \}", script):
        return run_script(found[2] if truth(run_script(found[1], given)) else found[3], given)
    if found := re.fullmatch(r"\(\{(\w+): (.+)\}\)", script):
        value = _term(found[2], given)
        return {} if value is _UNDEFINED else {found[1]: _as_script_value(value)}
    if found := _CONDITION.match(script):
        left, right = (_number(_term(text, given)) for text in (found[1], found[3]))
        return _OPERATORS[found[2]](left, right)
    value = _term(script, given)
    return None if value is _UNDEFINED else _as_script_value(value)


def _as_script_value(value: Any) -> Any:
    """JavaScript knows no 1.0."""
    if isinstance(value, dict):
        return {key: _as_script_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_script_value(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def truth(value: Any) -> bool:
    """A loop goes on: on true and on numbers above 0."""
    if isinstance(value, bool):
        return value
    return isinstance(value, int | float) and value > 0


def _term(text: str, given: dict[str, Any]) -> Any:
    if not text.startswith("$"):
        return json.loads(text)
    value: Any = given
    for name, index, quoted in _STEP.findall(text[1:]):
        if value is None or value is _UNDEFINED:
            raise ScriptFailed(text)
        if isinstance(value, list):
            value = value[int(index)] if index and int(index) < len(value) else _UNDEFINED
        else:
            key = name or quoted or index
            value = value.get(key, _UNDEFINED) if isinstance(value, dict) else _UNDEFINED
    return value


def _number(value: Any) -> float:
    """As a comparison with a number sees it."""
    if value is None:
        return 0
    return value if isinstance(value, int | float) else float("nan")
