"""Secrets in payloads: placeholders that a *template* wrote, told apart from text that looks like one.

`${workflow.secrets.NAME}` stays in every stored payload as it is. Where the definition put it there,
directly or through an input or a variable that passes it on, the text is a `SecretText` while a
decision works with it, and its place is kept beside the payload (`marks`): only there the value is
put in, on a private copy, when the payload leaves the engine for a worker or a script (`reveal`).
The same text in anybody's data stays data (B29). What comes back has known secret values replaced
by their placeholders (`redact`), so that no value is ever stored (B30).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..definitions.expressions import SECRETS
from ..definitions.jsonpath import MISSING, PathError, compile_path
from ..payload import DecodeError, Json, decode
from .state import Header, TaskRow
from .texts import text_of

Span = tuple[int, int]
Mark = list[Any]
"""[path of keys and indexes, [[start, end], ...]]: where placeholders are in one text. JSON values."""

REDACTED_MIN = 4
"""Secret values shorter than this are not looked for in what comes back: they are in every text."""


class SecretText(str):
    """A text with placeholders at `spans`, written by a template. Equal to its plain text."""

    spans: tuple[Span, ...]

    @classmethod
    def whole(cls, placeholder: str) -> SecretText:
        """A text that is one placeholder."""
        return cls.of(placeholder, ((0, len(placeholder)),))

    @classmethod
    def of(cls, text: str, spans: Iterable[Span]) -> SecretText:
        made = cls(text)
        made.spans = tuple(spans)
        return made


def join(texts: Iterable[str]) -> str:
    """Texts put together; the placeholders in them stay marked."""
    parts = list(texts)
    spans: list[Span] = []
    at = 0
    for part in parts:
        if isinstance(part, SecretText):
            spans.extend((at + start, at + end) for start, end in part.spans)
        at += len(part)
    text = "".join(parts)
    return SecretText.of(text, spans) if spans else text


def marks(value: Any) -> list[Mark]:
    """Where the marked texts of a value are. Costs the whole value."""
    return list(_marks(value, ()))


def _marks(value: Any, path: tuple[str | int, ...]) -> Iterable[Mark]:
    if isinstance(value, SecretText):
        yield [list(path), [list(span) for span in value.spans]]
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _marks(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _marks(item, (*path, index))


def marked(value: Any, kept: Iterable[Mark]) -> Any:
    """A value as it was before it was stored. What a mark does not fit stays as it is."""
    return _change(value, kept, SecretText.of)


def reveal(value: Any, kept: Iterable[Mark], read: Callable[[str], str | None]) -> Any:
    """A copy of a value with its secrets in it. `read` knows the value of a name. A text that is one
    placeholder becomes the value (null without one), in longer texts a missing value is empty."""

    def change(text: str, spans: Iterable[Span]) -> Any:
        spans = list(spans)
        if spans == [(0, len(text))]:
            return value_of(text, read)
        pieces: list[str] = []
        at = 0
        for start, end in spans:
            found = value_of(text[start:end], read)
            pieces.extend((text[at:start], "" if found is None else text_of(found)))
            at = end
        return "".join((*pieces, text[at:]))

    return _change(value, kept, change)


def _change(value: Any, kept: Iterable[Mark], change: Callable[[str, Iterable[Span]], Any]) -> Any:
    for path, spans in kept:
        value = _changed_at(value, path, [(start, end) for start, end in spans], change)
    return value


def _changed_at(
    value: Any, path: list[Any], spans: list[Span], change: Callable[[str, Iterable[Span]], Any]
) -> Any:
    """A copy of the containers on the way, with the text at the end of it changed."""
    if not path:
        fits = isinstance(value, str) and all(value[start:].startswith("${" + SECRETS) for start, _ in spans)
        return change(value, spans) if fits else value
    head, rest = path[0], path[1:]
    if isinstance(value, dict) and head in value:
        return {**value, head: _changed_at(value[head], rest, spans, change)}
    if isinstance(value, list) and isinstance(head, int) and head < len(value):
        return [*value[:head], _changed_at(value[head], rest, spans, change), *value[head + 1 :]]
    return value


def sources(value: Any, kept: Iterable[Mark]) -> tuple[str, ...]:
    """The placeholders at these marks, each once."""
    found: dict[str, None] = {}

    def note(text: str, spans: Iterable[Span]) -> str:
        found.update((text[start:end], None) for start, end in spans)
        return text

    _change(value, kept, note)
    return tuple(found)


def value_of(placeholder: str, read: Callable[[str], str | None]) -> Any:
    """The value of `${workflow.secrets.NAME}`, or of a path into the JSON that it holds; else None."""
    inside = placeholder.removeprefix("${" + SECRETS).removesuffix("}")
    name, rest = head(inside)
    secret = read(name)
    if secret is None or not rest:
        return secret
    try:
        document = decode(secret)
        found = compile_path("value" + rest).reader()(lambda _root, attribute: _member(document, attribute))
    except (DecodeError, PathError, RecursionError, UnicodeEncodeError):
        return None
    return None if found is MISSING else found


def _member(document: Any, attribute: str | None) -> Any:
    if attribute is None:
        return document
    return document.get(attribute, MISSING) if isinstance(document, dict) else MISSING


def head(text: str) -> tuple[str, str]:
    """The name that a path begins with, and the rest of the path, its dot or bracket included."""
    ends = [at for at in (text.find("."), text.find("[")) if at >= 0]
    return (text[: min(ends)], text[min(ends) :]) if ends else (text, "")


def redact(value: Any, secrets: Mapping[str, Any]) -> Any:
    """A value with every known secret in its texts replaced by its placeholder. `secrets`:
    placeholder -> value; only texts of some length are looked for."""
    known = sorted(
        (
            (secret, placeholder)
            for placeholder, secret in secrets.items()
            if isinstance(secret, str) and len(secret) >= REDACTED_MIN
        ),
        key=lambda pair: -len(pair[0]),
    )
    return _redacted(value, known) if known else value


def _redacted(value: Any, known: list[tuple[str, str]]) -> Any:
    if isinstance(value, str):
        return _redacted_text(value, known)
    if isinstance(value, dict):
        return {key: _redacted(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item, known) for item in value]
    return value


def _redacted_text(text: str, known: list[tuple[str, str]]) -> str:
    for secret, placeholder in known:
        at = text.find(secret)
        if at >= 0:
            before, after = text[:at], text[at + len(secret) :]
            hidden = SecretText.whole(placeholder)
            return join((_redacted_text(before, known), hidden, _redacted_text(after, known)))
    return text


class SecretJson(Json):
    """A payload with placeholders in it: whoever parses it finds them as `SecretText`."""

    __slots__ = ("kept",)

    def __init__(self, raw: bytes, kept: list[Mark]) -> None:
        super().__init__(raw)
        self.kept = kept

    @property
    def value(self) -> Any:
        if not self.is_parsed:
            self.parse(marked(decode(self.raw), self.kept))
        return super().value


def marks_of(payload: Json) -> list[Mark]:
    """Where placeholders are in a payload."""
    return payload.kept if isinstance(payload, SecretJson) else marks(payload.value)


def with_marks(payload: Json, kept: list[Mark]) -> Json:
    """The same payload, its placeholders known also after it was stored."""
    return SecretJson(payload.raw, kept) if kept else payload


# --- beside what is stored: a row's `state`, a workflow's cursor -----------------------------------


def keep_row(row: TaskRow) -> None:
    """Note in a row's state where its payloads hold placeholders."""
    _keep(row, "secrets", marks_of(row.input))
    _keep(row, "output_secrets", marks_of(row.output) if row.output is not None else [])
    mark_row(row)


def _keep(row: TaskRow, key: str, kept: list[Mark]) -> None:
    state = row.state or {}
    if kept and state.get(key) != kept:
        row.state = {**state, key: kept}
    elif not kept and key in state:
        row.state = {name: value for name, value in state.items() if name != key} or None


def mark_row(row: TaskRow) -> None:
    """Have the payloads of a row know their placeholders."""
    state = row.state or {}
    if "secrets" in state:
        row.input = with_marks(row.input, state["secrets"])
    if "output_secrets" in state and row.output is not None:
        row.output = with_marks(row.output, state["output_secrets"])


def kept_by(header: Header) -> dict[str, list[Mark]]:
    """What a cursor keeps of a workflow's payloads."""
    found = {"input": marks_of(header.input), "variables": marks_of(header.variables)}
    return {key: kept for key, kept in found.items() if kept}


def mark_header(header: Header) -> None:
    """Have the payloads of a workflow know their placeholders."""
    kept = header.cursor.value.get("secrets", {}) if header.cursor is not None else {}
    header.input = with_marks(header.input, kept.get("input", []))
    header.variables = with_marks(header.variables, kept.get("variables", []))
