"""JSON for payloads: integers of any size stay exact, `1.0` stays a float, NaN is refused.

The standard library does this; `msgspec` does it several times faster and is used where it can
be imported. Both refuse what JSON has no word for: NaN, infinities, unknown types.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

try:
    import msgspec
except ImportError:
    msgspec = None  # type: ignore[assignment, unused-ignore]


def plain(value: Any) -> Any:
    """What stands for a value that JSON does not know: models and dataclasses as objects, names as text."""
    if hasattr(value, "model_dump"):  # pydantic, without importing it
        return value.model_dump(mode="json", by_alias=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (uuid.UUID, decimal.Decimal)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__qualname__} cannot be written as JSON")


def _stdlib_loads(raw: bytes) -> Any:
    return json.loads(raw, parse_constant=_refuse_constant)


def _stdlib_dumps(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain)
    return text.encode()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _msgspec_dumps(value: Any) -> bytes:
    # msgspec writes NaN as null: such a value must not pass for an absent one.
    raw: bytes = _encode(value)
    if b"null" in raw:
        _refuse_nan(value)
    return raw


def _refuse_nan(value: Any) -> None:
    """Raise ValueError if a NaN or an infinity is anywhere inside."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                raise ValueError(f"{item} is not JSON")
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting.extend(item)
        elif dataclasses.is_dataclass(item) or hasattr(item, "model_dump"):
            waiting.append(plain(item))


if msgspec is None:
    loads, dumps = _stdlib_loads, _stdlib_dumps
else:
    _encode = msgspec.json.Encoder(enc_hook=plain, decimal_format="string").encode
    loads, dumps = msgspec.json.Decoder().decode, _msgspec_dumps
