"""Jayway's dialect, by table."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestoso_server.definitions.jsonpath import MISSING, PathError, compile_path

DOCUMENT: dict[str, Any] = {
    "workflow": {
        "input": {
            "x": 1,
            "l": [1, 2, 3],
            "o": [{"p": 1, "t": ["a"]}, {"p": 2, "q": None}],
            "s": "str",
            "n": None,
            "a.b": 5,
            "my-key": 7,
            "sp ace": 8,
        }
    },
    "my-task": {"output": {"k": "v"}},
}


def lookup(root: str, attribute: str | None) -> Any:
    value = DOCUMENT if root == "" else DOCUMENT.get(root, MISSING)
    if attribute is None or value is MISSING:
        return value
    return value.get(attribute, MISSING)


def read(path: str) -> Any:
    return compile_path(path).reader()(lookup)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("workflow.input.x", 1),
        ("$.workflow.input.x", 1),
        ("workflow.input.x ", 1),
        ("workflow.input.l[0]", 1),
        ("workflow.input.l[-1]", 3),
        ("workflow.input['a.b']", 5),
        ('workflow["input"]["sp ace"]', 8),
        ("workflow.input.my-key", 7),
        ("my-task.output.k", "v"),
        ("['my-task'].output.k", "v"),
        ("workflow.input.n", None),
        ("workflow.input['x','s']", {"x": 1, "s": "str"}),
        ("workflow.input.l.length()", 3),
        ("workflow.input.l.size()", 3),
        ("workflow.input.l.sum()", 6.0),
        ("workflow.input.l.max()", 3.0),
        ("workflow.input.l.min()", 1.0),
        ("workflow.input.l.avg()", 2.0),
        ("workflow.input.l.first()", 1),
        ("workflow.input.l.last()", 3),
        ("workflow.input.l.index(1)", 2),
        ("workflow.input.l.append(4)", [1, 2, 3, 4]),
        ("my-task.output.keys()", ["k"]),
        ("my-task.output.concat('a', $.my-task.output.k)", "av"),
        ("$..p.length()", 2),
    ],
)
def test_definite_path_reads_its_value(path: str, expected: Any) -> None:
    value = read(path)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    "path",
    [
        "workflow.input.absent",
        "workflow.input.absent.deeper",
        "workflow.input.l[3]",
        "workflow.input.l[-4]",
        "workflow.input.l.x",
        "workflow.input.x[0]",
        "workflow.input.s[0]",
        "workflow.input.n.x",
        "workflow.input.x.y",
        "absent.output.x",
        "workflow.input.l.unknown()",
        "workflow.input.o.sum()",
    ],
)
def test_definite_path_that_does_not_fit_finds_nothing(path: str) -> None:
    assert read(path) is MISSING


def test_length_of_a_text_is_null() -> None:
    assert read("workflow.input.s.length()") is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("workflow.input.l[0:2]", [1, 2]),
        ("workflow.input.l[1:]", [2, 3]),
        ("workflow.input.l[:-1]", [1, 2]),
        ("workflow.input.l[-2:]", [2, 3]),
        ("workflow.input.l[0,2]", [1, 3]),
        ("workflow.input.l[0,9]", [1]),
        ("workflow.input.l[*]", [1, 2, 3]),
        ("workflow.input.o[*].p", [1, 2]),
        ("workflow..p", [1, 2]),
        ("$..k", ["v"]),
        ("my-task.*.k", ["v"]),
        ("workflow.input.o[?(@.p>1)].p", [2]),
        ("workflow.input.o[?(@.p >= 1 && @.p < 2)].p", [1]),
        ("workflow.input.o[?(@.p == 2 || @.t)].p", [1, 2]),
        ("workflow.input.o[?(!@.t)].p", [2]),
        ("workflow.input.o[?(@.q)].p", [2]),
        ("workflow.input.o[?(@.p == $.workflow.input.x)].p", [1]),
        ("workflow.input.o[?(@.p in [2, 3])].p", [2]),
        ("workflow.input.o[?(@.p nin [2, 3])].p", [1]),
        ("workflow.input.o[?(@.t contains 'a')].p", [1]),
        ("workflow.input.o[?(@.t size 1)].p", [1]),
        ("workflow.input.o[?(@.t empty false)].p", [1]),
        ("workflow.input.o[?(@.t anyof ['a', 'b'])].p", [1]),
        ("workflow.input.o[?(@.p == '1')].p", [1]),
        ("workflow.input.o[?(@.p === '1')].p", []),
        ("workflow.input.o[?(@.absent == null)].p", []),
        ("workflow.input[?(@.s =~ /ST.*/i)].x", [1]),
        ("workflow.input[?(@.s =~ /t/)].x", []),
        ("workflow.input.absent[*].x", []),
        ("absent.output[*]", []),
        ("workflow.input.n[*]", []),
    ],
)
def test_indefinite_path_always_reads_a_list(path: str, expected: list[Any]) -> None:
    assert read(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "",
        "workflow.input.sp ace",
        "workflow.input.",
        "workflow.input..",
        " workflow.input.x",
        "workflow.input.tasks[some_ref].x",
        "workflow.input.l[",
        "workflow.input['x",
        "workflow.input.o[?(@.p >)]",
        "workflow.input.o[?(@.p == 1]",
        "workflow.input.o[?(@.s =~ /(a+)+/)]",
        "workflow.input.o[?(@.s =~ /[/)]",
        "workflow.input.l.sum().x",
    ],
)
def test_text_that_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(PathError):
        compile_path(path)


def test_filters_nested_too_deep_are_refused_instead_of_exhausting_the_stack() -> None:
    with pytest.raises(PathError):
        compile_path("a[?(" + "(" * 5000 + "@.x" + ")" * 5000 + ")]")


def test_a_path_that_matches_without_end_finds_nothing() -> None:
    wide = {"a": [[[0] * 50] * 50] * 50}
    assert compile_path("r.o..*..*").reader()(lambda root, attribute: wide) == []


def test_a_plain_path_tells_its_root_and_names() -> None:
    path = compile_path("t1.output.a[0].b")
    assert (path.root, path.names, path.plain) == ("t1", ("output", "a", 0, "b"), True)
    assert not compile_path("t1.output.a[*]").plain


@given(st.text(alphabet="ab.[]()'\"*?@$0-9:, =~/!&|<>", max_size=30))
def test_any_text_is_a_path_or_refused_and_reading_never_raises(text: str) -> None:
    try:
        path = compile_path(text)
    except PathError:
        return
    path.reader()(lookup)
