"""The `${...}` language against Conductor's tables, and what it does better."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestoso_server.engine.expressions import (
    MISSING,
    Reference,
    compile_template,
    resolve,
    text_of,
)
from maestoso_server.engine.secrets import marks

INPUT: dict[str, Any] = {
    "x": 1,
    "f": 3.0,
    "big": 2**70,
    "t": True,
    "n": None,
    "s": "str",
    "l": [1, 2, 3],
    "m": {"a": 1, "b": [1, "two"]},
    "i": 1,
    "key": "l",
    "path": "workflow.input.x",
    "template": "${workflow.input.x}",
    "dollars": "$${x}",
    "secret": "${workflow.secrets.OTHER}",
}
DOCUMENT: dict[str, Any] = {
    "workflow": {"input": INPUT, "env": {"REGION": "eu", "LIMITS": '{"a": {"b": [1, 2]}}'}},
    "t1": {"output": {"a": {"b": [9]}}},
}


def lookup(root: str, attribute: str | None) -> Any:
    value = DOCUMENT if root == "" else DOCUMENT.get(root, MISSING)
    if attribute is None or value is MISSING:
        return value
    return value.get(attribute, MISSING)


def resolved(value: Any) -> Any:
    return resolve(compile_template(value), lookup)


@pytest.mark.covers("K1", "K2", "K4")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${workflow.input.x}", 1),
        ("${workflow.input.f}", 3.0),
        ("${workflow.input.big}", 2**70),
        ("${workflow.input.t}", True),
        ("${workflow.input.n}", None),
        ("${workflow.input.m}", INPUT["m"]),
        ("${$.workflow.input.l}", [1, 2, 3]),
        ("${t1.output.a.b[0]}", 9),
        ("${workflow.input.absent}", None),
        ("${absent.output.x}", None),
        ("${workflow.input.absent[*]}", []),
        ("${workflow.input.sp ace}", None),
        ("${}", ""),
        ("${   }", ""),
        ("${workflow.input.l[${workflow.input.i}]}", 2),
        ("${workflow.input.${workflow.input.key}[0]}", 1),
        ("${${workflow.input.path}}", 1),
        ("${workflow.input.l[${workflow.input.l[${workflow.input.absent}]}]}", None),
        ("${workflow.input.template}", "${workflow.input.x}"),
        ("${workflow.env.REGION}", "eu"),
        ("${workflow.env.LIMITS.a.b[1]}", 2),
        ("${workflow.env.LIMITS.a.b[*]}", [1, 2]),
        ("${workflow.env.REGION.a}", None),
        ("${workflow.env.ABSENT}", None),
        ("${PATH}", None),
        ("${HOME}", None),
        ("${user.home}", None),
    ],
)
def test_a_whole_expression_keeps_the_type_of_its_value(text: str, expected: Any) -> None:
    value = resolved(text)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.covers("K1", "K2", "B34")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<${workflow.input.x}>", "<1>"),
        ("${workflow.input.x} ", "1 "),
        ("${workflow.input.x}${workflow.input.f}", "13.0"),
        ("${workflow.input.x}}", "1}"),
        ("is ${workflow.input.n}", "is null"),
        ("is ${workflow.input.absent}", "is null"),
        ("is ${workflow.input.t}", "is true"),
        ("is ${}", "is "),
        ("is ${workflow.input.m}", 'is {"a":1,"b":[1,"two"]}'),
        ("is ${workflow.input.l}", "is [1,2,3]"),
        ("is ${workflow.input.l[*]}", "is [1,2,3]"),
        ("is ${workflow.input.big}", f"is {2**70}"),
        ("$ {workflow.input.x}", "$ {workflow.input.x}"),
        ("${workflow.input.x", "${workflow.input.x"),
        ("${open ${workflow.input.x}", "${open 1"),
        ("line\n${workflow.input.x\n}", "line\nnull"),
    ],
)
def test_anything_else_becomes_text(text: str, expected: str) -> None:
    assert resolved(text) == expected


@pytest.mark.covers("K3", "K9")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$${x}", "${x}"),
        ("$$${x}", "$${x}"),
        ("a $${workflow.input.x} ${workflow.input.x}", "a ${workflow.input.x} 1"),
        ("keep ${workflow.input.dollars}", "keep $${x}"),
    ],
)
def test_a_doubled_dollar_escapes_in_the_template_and_leaves_data_alone(text: str, expected: str) -> None:
    assert resolved(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3.0, "3.0"),
        (0.1, "0.1"),
        (-0.0, "-0.0"),
        (0.001, "0.001"),
        (0.00099, "9.9E-4"),
        (9999999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (12345678.9, "1.23456789E7"),
        (1e21, "1.0E21"),
        (-1.5e300, "-1.5E300"),
    ],
)
def test_a_double_is_written_as_java_does(value: float, expected: str) -> None:
    assert text_of(value) == expected


def test_objects_lists_and_leaves_are_walked_and_keys_are_not_resolved() -> None:
    value = {"${k}": ["${workflow.input.x}", 2, {"deep": "v ${workflow.input.x}"}], "n": None, "f": 1.0}
    assert resolved(value) == {"${k}": [1, 2, {"deep": "v 1"}], "n": None, "f": 1.0}
    assert list(resolved({"b": "${workflow.input.x}", "a": 0})) == ["b", "a"]


def test_a_template_without_expressions_is_constant() -> None:
    template = compile_template({"a": ["$${x}", 1]})
    assert template.constant
    assert resolve(template, lookup) == {"a": ["${x}", 1]}
    assert not compile_template({"a": ["${x}", 1]}).constant


def test_resolving_leaves_the_template_and_the_data_alone() -> None:
    template = compile_template({"a": "${workflow.input.l}", "c": {"k": "${workflow.input.x}", "d": 1}})
    first = resolve(template, lookup)
    first["c"]["k"] = "changed"
    assert resolve(template, lookup)["c"] == {"k": 1, "d": 1}


def test_references_say_what_is_read() -> None:
    template = compile_template(
        [
            "${t1.output.a.b[0]}",
            "x ${loop.output.iteration}",
            "${t1.status}",
            "${t2}",
            "${t3..x}",
            "$${t4.output}",
        ]
    )
    assert template.references == (
        Reference("t1", ("output", "a", "b", 0)),
        Reference("loop", ("output", "iteration")),
        Reference("t1", ("status",)),
        Reference("t2"),
        Reference("t3"),
    )
    assert template.references[0].attribute == "output"
    assert template.references[3].attribute is None
    assert not template.open


def test_a_nested_expression_names_its_root_where_it_can() -> None:
    known = compile_template("${t1.output.rows[${loop.output.iteration}]}")
    assert set(known.references) == {Reference("t1", ("output",)), Reference("loop", ("output", "iteration"))}
    assert not known.open
    assert compile_template("${${workflow.input.path}}").open


def test_task_id_is_filled_in_where_there_is_one_and_stays_where_there_is_none() -> None:
    template = compile_template({"id": "${CPEWF_TASK_ID}", "text": "task ${CPEWF_TASK_ID}"})
    assert template.reads_task_id
    assert template.references == ()
    assert resolve(template, lookup) == {"id": "${CPEWF_TASK_ID}", "text": "task ${CPEWF_TASK_ID}"}

    def with_task(root: str, attribute: str | None) -> Any:
        return "id-1" if root == "CPEWF_TASK_ID" else lookup(root, attribute)

    assert resolve(template, with_task) == {"id": "id-1", "text": "task id-1"}


def test_secrets_stay_placeholders_and_only_the_templates_own_are_marked() -> None:
    template = compile_template(
        {
            "auth": {"token": "Bearer ${workflow.secrets.TOKEN.value}"},
            "list": ["${workflow.secrets.A}"],
            "any": "${workflow.secrets.${workflow.input.key}}",
            "data": "${workflow.input.secret}",
            "both": "${workflow.input.secret} and ${workflow.secrets.A}",
        }
    )
    value = resolve(template, lookup)
    assert value == {
        "auth": {"token": "Bearer ${workflow.secrets.TOKEN.value}"},
        "list": ["${workflow.secrets.A}"],
        "any": "${workflow.secrets.l}",
        "data": "${workflow.secrets.OTHER}",
        "both": "${workflow.secrets.OTHER} and ${workflow.secrets.A}",
    }
    assert template.secretive
    assert marks(value) == [
        [["auth", "token"], [[7, 38]]],
        [["list", 0], [[0, 21]]],
        [["any"], [[0, 21]]],
        [["both"], [[30, 51]]],
    ]


def test_data_cannot_choose_to_read_a_secret() -> None:
    template = compile_template({"a": "${${workflow.input.path}}"})
    value = resolve(template, lambda _root, _attribute: {"path": "workflow.secrets.A"})
    assert value == {"a": "${workflow.secrets.A}"}
    assert marks(value) == []


def test_missed_expressions_are_recorded_apart_from_null_data() -> None:
    missed: list[str] = []
    resolve(compile_template(["${workflow.input.n}", "a ${workflow.input.typo}", "${x y}"]), lookup, missed)
    assert missed == ["${workflow.input.typo}", "${x y}"]


def test_a_lookup_that_raises_is_heard() -> None:
    class RowMissing(Exception):
        pass

    def incomplete(root: str, attribute: str | None) -> Any:
        raise RowMissing(root)

    with pytest.raises(RowMissing):
        resolve(compile_template("${t1.output.a}"), incomplete)


def test_expressions_nested_without_end_stay_text() -> None:
    deep = "${" * 5000 + "}" * 5000
    assert isinstance(resolved(deep), str | None)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON)
def test_data_passes_through_exactly(value: Any) -> None:
    def one_value(root: str, attribute: str | None) -> Any:
        return {"v": value}

    assert resolve(compile_template({"a": "${t.output.v}"}), one_value) == {"a": value}


@given(st.text(alphabet="ab${}.[]'?(@) ", max_size=40))
def test_any_text_resolves(text: str) -> None:
    resolved(text)
