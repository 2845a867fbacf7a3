"""Payloads go through unchanged, with `msgspec` and with the standard library alone."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from maestoso import _json

CODECS = [
    pytest.param(_json.loads, _json.dumps, id="msgspec"),
    pytest.param(_json._stdlib_loads, _json._stdlib_dumps, id="stdlib"),
]
Loads = Callable[[bytes], Any]
Dumps = Callable[[Any], bytes]

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    scalars | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20
)


@pytest.mark.parametrize(("loads", "dumps"), CODECS)
@given(value=values)
def test_values_come_back_as_they_were(loads: Loads, dumps: Dumps, value: Any) -> None:
    back = loads(dumps(value))

    assert back == value
    assert repr(back) == repr(value), "types too: 1.0 is not 1, True is not 1"


@pytest.mark.parametrize(("loads", "dumps"), CODECS)
@pytest.mark.parametrize(
    "raw",
    [b"9007199254740993", b"9223372036854775807", b"1" + b"0" * 30, b"1.0", b'{"a":null}', b"{}", b"[]",
     b'"\\u0000"', "\"\u00e9\U0001f600\"".encode()],
)  # fmt: skip
def test_text_comes_back_as_it_was(loads: Loads, dumps: Dumps, raw: bytes) -> None:
    assert dumps(loads(raw)) == raw


@pytest.mark.parametrize(("loads", "dumps"), CODECS)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_json_has_no_word_for_is_refused(loads: Loads, dumps: Dumps, number: float) -> None:
    for value in (number, [number], {"a": {"b": (number,)}}, Point(number, 0)):
        with pytest.raises(ValueError, match="JSON"):
            dumps(value)
    with pytest.raises(ValueError):
        loads(b"NaN")


@pytest.mark.parametrize(("loads", "dumps"), CODECS)
def test_objects_of_no_json_type_are_refused(loads: Loads, dumps: Dumps) -> None:
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        dumps({"a": object()})


@dataclasses.dataclass
class Point:
    x: float
    y: float


class Colour(enum.Enum):
    RED = "red"


class Order(BaseModel):
    number: int = Field(alias="orderNumber")


@pytest.mark.parametrize(("loads", "dumps"), CODECS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Point(1, 2.5), {"x": 1, "y": 2.5}),
        (Colour.RED, "red"),
        (datetime.date(2026, 11, 25), "2026-11-25"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.10"), "1.10"),
        (frozenset([1]), [1]),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Order(orderNumber=2**60), {"orderNumber": 2**60}),
    ],
)
def test_common_python_values_are_written(loads: Loads, dumps: Dumps, value: Any, expected: Any) -> None:
    assert loads(dumps({"value": value})) == {"value": expected}
