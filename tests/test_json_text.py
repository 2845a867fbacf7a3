"""JSON from outside: what passes is unchanged, what does not is refused with its place."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestoso_server.errors import InvalidArgument, Reason
from maestoso_server.json_text import (
    DEPTH_MAX,
    JsonFault,
    check_object,
    check_value,
    parse,
    path_text,
    places,
)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1.0,"b":123456789012345678901234567890,"c":1E5,"d":-0.0}',
        b'{ "b" : null,\n "a" : "\\u0000\\u00e9" }',
        '{"z":"é","a":"\\ud83d\\ude00"}'.encode(),
        b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}',
        b"{}",
    ],
)
def test_text_passes_byte_for_byte(raw: bytes) -> None:
    assert check_object(raw, field="input", limit=1000).raw == raw


def test_numbers_keep_their_kind_and_size() -> None:
    value = check_object(
        b'{"i":1,"f":1.0,"big":123456789012345678901234567890}', field="input", limit=1000
    ).value
    assert (type(value["i"]), type(value["f"])) == (int, float)
    assert value["big"] == 123456789012345678901234567890


def test_a_byte_order_mark_is_dropped() -> None:
    assert parse(b"\xef\xbb\xbf{}").raw == b"{}"


@pytest.mark.parametrize(
    ("raw", "line", "column", "message"),
    [
        (b"", 1, 1, "expected a value, found the end"),
        (b'{"a":NaN}', 1, 6, "NaN is no JSON number"),
        (b'{"a":-Infinity}', 1, 6, "-Infinity is no JSON number"),
        (b'{"a":1e400}', 1, 6, "a number too large for a double"),
        (b'{"a":' + b"9" * 4301 + b"}", 1, 6, "an integer of more than 4,300 digits"),
        (b'{"a":1,\n "b":{"c":1,"c":2}}', 2, 13, 'duplicate key "c"'),
        (b'{"a":1,"\\u0061":2}', 1, 8, 'duplicate key "a"'),
        (b'{"a":1,"a":100000000000000000000}', 1, 8, 'duplicate key "a"'),
        (b'{"a":"\\ud800"}', 1, 6, "half of a surrogate pair"),
        (b'{"a":"\xff"}', 1, 7, "not UTF-8"),
        (b'{\n "a":1,\n}', 3, 1, "a comma before the closing bracket"),
        (b'{\n /* why */ "a":1}', 2, 2, "JSON has no comments"),
        (b'{"a":"x', 1, 6, "not closed"),
        (b"{'a':1}", 1, 2, "a member's name in double quotes"),
        (b'{"a":01}', 1, 7, "expected ',' or '}'"),
        (b"{} {}", 1, 4, "text after the end"),
        (b'{"a":1', 1, 7, "'}' is missing"),
        ('{"é":[1 2]}'.encode(), 1, 9, "expected ',' or ']'"),
    ],
)
def test_other_text_is_refused_with_its_place(raw: bytes, line: int, column: int, message: str) -> None:
    with pytest.raises(JsonFault) as caught:
        parse(raw)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message in caught.value.message


def test_a_document_may_be_nested_as_deep_as_the_limit_and_no_deeper() -> None:
    assert parse(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)
    for depth in (DEPTH_MAX + 1, 100_000):
        with pytest.raises(JsonFault, match=f"nested deeper than {DEPTH_MAX}") as caught:
            parse(b"[" * depth + b"]" * depth)
        assert caught.value.column == DEPTH_MAX + 1
    assert parse(b"[" + b"[]," * 1000 + b"[]]"), "many brackets are not deep"


def test_a_refusal_names_the_field_and_the_place() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_object(b'{"a":\nNaN}', field="input", limit=100)
    assert caught.value.reason is Reason.INVALID_JSON
    (violation,) = caught.value.violations
    assert (violation.path, violation.line, violation.column) == ("input", 2, 1)


@pytest.mark.parametrize("raw", [b"[]", b"1", b"null", b'"x"', b"true"])
def test_what_must_be_an_object_is_refused_otherwise(raw: bytes) -> None:
    with pytest.raises(InvalidArgument, match="must be a JSON object"):
        check_object(raw, field="input", limit=100)
    assert check_value(raw, field="input", limit=100).raw == raw


def test_the_limit_counts_bytes() -> None:
    raw = '{"a":"é"}'.encode()
    assert check_object(raw, field="input", limit=len(raw))
    with pytest.raises(InvalidArgument) as caught:
        check_object(raw, field="input", limit=len(raw) - 1)
    assert caught.value.reason is Reason.TOO_LARGE


def test_places_tell_where_members_and_elements_stand() -> None:
    raw = b'{\n  "tasks": [\n    {"name": "a"},\n    {"x": 1}\n  ]\n}'
    assert places(raw, [("tasks", 1), ("tasks", 1, "x"), ("tasks", 0, "name"), ("absent",)]) == {
        ("tasks", 1): (4, 5),
        ("tasks", 1, "x"): (4, 6),
        ("tasks", 0, "name"): (3, 6),
    }


def test_paths_read_as_in_a_program() -> None:
    assert (
        path_text(("tasks", 0, "decisionCases", "a.b", 1, "name")) == 'tasks[0].decisionCases["a.b"][1].name'
    )


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON, st.sampled_from([None, 1]), st.booleans())
def test_any_json_of_another_writer_is_accepted(value: Any, indent: int | None, ascii_only: bool) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    checked = parse(raw)
    assert checked.raw == raw
    assert checked.value == value


@given(st.text(alphabet='{}[]",:0123456789.eE-+truefalsn \n\\ud8', max_size=30))
def test_text_is_judged_as_the_standard_library_does_and_always_with_a_place(text: str) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("duplicate key")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        valid = True
    except ValueError:
        valid = False
    try:
        parse(text.encode())
    except JsonFault as fault:
        assert not valid
        assert fault.message != "not valid JSON", "the scan agrees that there is a fault"
    else:
        assert valid
