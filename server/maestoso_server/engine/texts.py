"""Values inside a text."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from ..definitions.jsonpath import MISSING
from ..payload import encode


def text_of(value: Any) -> str:
    """A value inside a text as Java writes it (`null`, `3.0`, `1.0E10`); objects and lists as JSON."""
    if isinstance(value, str):
        return value
    if value is None or value is MISSING:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _text_of_double(value)
    return encode(value).decode()


def _text_of_double(value: float) -> str:
    """`Double.toString`: plain from 0.001 up to 10,000,000, scientific with at least one decimal beyond."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        text = format(Decimal(repr(value)), "f")
        return text if "." in text else text + ".0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    first, rest = digits[0], "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{first}.{rest}E{int(exponent) + len(digits) - 1}"
