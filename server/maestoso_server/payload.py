"""A JSON value as it travels: bytes outside, a Python value only while somebody looks.

Law 8: what goes in comes out unchanged. Integers of any size, the same double, ``1.0`` as a
float, null apart from absent, key order, U+0000. `msgspec` keeps all of these; nothing here
may go through ``Struct``, ``jsonb`` or a double.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec


def _plain(value: Any) -> str:
    """Texts of a kind of their own are written as texts."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder(enc_hook=_plain).encode
DecodeError = msgspec.DecodeError

Record = msgspec.Struct
"""Base of a small typed JSON record; `encode` writes one, `reader` reads one."""
Raw = msgspec.Raw
"""A member of a `Record` that stays text: spliced in and cut out, never parsed."""

_R = TypeVar("_R", bound=Record)


def reader(kind: type[_R]) -> Callable[[bytes], _R]:
    """A function that reads records of one kind."""
    return msgspec.json.Decoder(kind).decode


class Json:
    """One JSON value. `raw` is its text; `value` parses it once, `forget` drops the parsed form.

    A value built from Python (`Json.of`) is encoded when `raw` is first read. The parsed value
    is shared: nobody changes it in place.
    """

    __slots__ = ("_raw", "_value")

    def __init__(self, raw: bytes) -> None:
        self._raw: bytes | None = raw
        self._value: Any = _UNPARSED

    @classmethod
    def of(cls, value: Any) -> Json:
        made = cls.__new__(cls)
        made._raw = None
        made._value = value
        return made

    @classmethod
    def parsed(cls, raw: bytes, value: Any) -> Json:
        """Text and value of one who has just parsed it."""
        made = cls(raw)
        made._value = value
        return made

    @property
    def raw(self) -> bytes:
        if self._raw is None:
            self._raw = encode(self._value)
        return self._raw

    @property
    def value(self) -> Any:
        if self._value is _UNPARSED:
            self._value = decode(self._raw or b"null")
        return self._value

    @property
    def is_parsed(self) -> bool:
        return self._value is not _UNPARSED

    def parse(self, value: Any) -> None:
        """Keep what the text means, by one who has parsed it."""
        self._value = value

    def forget(self) -> None:
        """Keep the bytes only: what a cache of many workflows should hold."""
        if self._raw is None:
            self._raw = encode(self._value)
        self._value = _UNPARSED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Json) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Json({self.raw[:80]!r})"


_UNPARSED: Any = object()
EMPTY = Json(b"{}")
