"""Values inside a text, and the text of a path."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from ..definitions.jsonpath import MISSING, Lookup
from ..payload import DecodeError, decode, encode


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


def head(text: str) -> tuple[str, str]:
    """The name that a path begins with, and the rest of the path, its dot or bracket included."""
    ends = [at for at in (text.find("."), text.find("[")) if at >= 0]
    return (text[: min(ends)], text[min(ends) :]) if ends else (text, "")


def inside_json(text: Any) -> Lookup:
    """A lookup into the JSON document that a text holds; it finds nothing where it holds none."""
    try:
        document = decode(text)
    except (DecodeError, TypeError, UnicodeEncodeError, RecursionError):
        document = MISSING

    def lookup(_root: str, attribute: str | None) -> Any:
        if attribute is None:
            return document
        return document.get(attribute, MISSING) if isinstance(document, dict) else MISSING

    return lookup
