"""The language: what is written means what the tree says, and what cannot be honoured is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given

from maestoso_server.engine.state import TaskStatus, WorkflowStatus
from maestoso_server.errors import InvalidArgument
from maestoso_server.query import (
    EVERYTHING,
    TASKS,
    WORKFLOWS,
    And,
    Attribute,
    Between,
    Compare,
    In,
    Literal,
    Missing,
    Node,
    Not,
    Op,
    Or,
    Pattern,
    parse,
    parse_sort,
    parse_words,
    show,
)
from maestoso_server.query.fields import STATUSES
from query_kit import nodes

NAME, STATUS, STARTED, CORRELATION, PARENT = (
    WORKFLOWS.by_name[name]
    for name in ("workflowType", "status", "startTime", "correlationId", "parentWorkflowId")
)
UUID = "0198c5f2-7a30-7c4e-8d21-3f6f0c9a1b2d"


@given(nodes)
def test_a_tree_is_printed_and_read_back(node: Node) -> None:
    assert parse(show(node)).node == node


def test_statuses_are_those_of_the_engine() -> None:
    assert {
        "workflow": {status.value: status.name for status in WorkflowStatus},
        "task": {status.value: status.name for status in TaskStatus},
    } == STATUSES


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("", EVERYTHING),
        (" * ", EVERYTHING),
        # As the web pages and SDKs of Conductor send it.
        (
            "workflowType IN (a,b) AND status IN (RUNNING,PAUSED) AND startTime > 1700000000000",
            And(
                (
                    In(NAME, ("a", "b")),
                    In(STATUS, (WorkflowStatus.RUNNING, WorkflowStatus.PAUSED)),
                    Compare(STARTED, Op.GT, 1_700_000_000_000),
                )
            ),
        ),
        ("status = 'FAILED'", Compare(STATUS, Op.EQ, 4)),
        ('status="failed"', Compare(STATUS, Op.EQ, 4)),
        ("correlationId='x'", Compare(CORRELATION, Op.EQ, "x")),
        ("startTime BETWEEN 1 AND 2", Between(STARTED, 1, 2)),
        ('parentWorkflowId=""', Missing(PARENT)),
        ('parentWorkflowId != ""', Not(Missing(PARENT))),
        (f"workflowId={UUID.upper()}", Compare(WORKFLOWS.by_name["workflowId"], Op.EQ, UUID)),
        # Ours.
        ("name = a or name = b and version != 1", None),
        ("NOT status = FAILED", Not(Compare(STATUS, Op.EQ, 4))),
        ("not (name = a)", Not(Compare(NAME, Op.EQ, "a"))),
        ("name NOT IN (a)", Not(In(NAME, ("a",)))),
        ("name not starts_with 'x y'", Not(Compare(NAME, Op.STARTS_WITH, "x y"))),
        ("correlationId IS NOT NULL", Not(Missing(CORRELATION))),
        ("name = ord*", Compare(NAME, Op.EQ, Pattern(("ord", "")))),
        (r"name = 'a\*b*'", Compare(NAME, Op.EQ, Pattern(("a*b", "")))),
        (r"name = 'it\'s \\'", Compare(NAME, Op.EQ, "it's \\")),
        ("startTime >= 2026-11-25T08:00:00Z", Compare(STARTED, Op.GE, 1_795_593_600_000)),
        ("startTime < '2026-11-25 09:00:00+01:00'", Compare(STARTED, Op.LT, 1_795_593_600_000)),
        ("attributes.amount > 7.5", Compare(Attribute("amount"), Op.GT, Literal("7.5", Decimal("7.5")))),
        ("attributes.amount > '7.5'", Compare(Attribute("amount"), Op.GT, Literal("7.5"))),
        ("name = AND", Compare(NAME, Op.EQ, "AND")),
    ],
)
def test_a_text_has_its_tree(text: str, node: Node | None) -> None:
    if node is None:
        found = parse(text).node
        assert isinstance(found, Or)
        assert isinstance(found.parts[1], And)
        return
    assert parse(text).node == node


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("status", "column 7: found the end of the query, expected =, !=, <"),
        ("status = DONE", "column 10: 'DONE' is not a status of a workflow: RUNNING, PAUSED"),
        ("status > FAILED", "column 8: status is a status and has no order"),
        ("status == FAILED", "column 8: '==' is no comparison"),
        ("status ! FAILED", "'!' alone is no comparison"),
        ("version = one", "column 11: 'one' is not a whole number"),
        ("startTime > yesterday", "is not a time: milliseconds since 1970, or ISO 8601"),
        ("workflowId = abc", "column 14: 'abc' is not a UUID"),
        ("workflowId = abc*", "'abc*' is not a UUID"),
        ("version STARTS_WITH 1", "STARTS_WITH needs a text"),
        ("name IN a", "expected ( after IN"),
        ("name IN (a b)", "found 'b', expected , or ) (quote a value that has blanks)"),
        ("name IN ()", "expected a value for workflowType"),
        ("startTime BETWEEN 1, 2", "expected AND between the two bounds"),
        ("name IS 1", "expected NULL or NOT NULL"),
        ("name IS NOT 1", "expected NULL"),
        ("(name = a", "expected AND, OR or )"),
        ("name = a)", "expected AND, OR or the end of the query"),
        ("name = a name = b", "expected AND, OR or the end of the query"),
        ("name = 'a", "the text that begins with ' here has no end"),
        ("= a", "expected a field, NOT or ("),
        ("a.b = 1", "'a.b' is no field of a workflow"),
        ("attributes.1x = 1", "'1x' is no attribute's name"),
        ("name = a AND\nstatus = X", "line 2, column 10"),
        ("(" * 31 + "name = a" + ")" * 31, "at most 30 deep"),
        ("name = a" + " OR name = a" * 100, "at most 100 conditions"),
        ("name = " + "a" * 10_000, "at most 10,000 are accepted"),
        ("name IN (" + "a," * 1_000 + "a)", "at most 1,000 values"),
        ("name = 'a\0'", "U+0000"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(text)
    assert words in refused.value.message
    assert refused.value.violations[0].path == "query"


def test_a_name_that_is_no_field_may_be_an_attribute_of_workflows_only() -> None:
    assert "did you mean status?" in parse("statu = FAILED").guessed["statu"]
    with pytest.raises(InvalidArgument, match=r"'statu' is no field of a task; did you mean status\?"):
        parse("statu = FAILED", TASKS)
    with pytest.raises(InvalidArgument, match="is no field of a task"):
        parse("attributes.x = 1", TASKS)


def test_orders_are_read() -> None:
    first, second = parse_sort("status:ASC|name:desc", WORKFLOWS)
    assert (first.field, first.descending, second.field, second.descending) == (STATUS, False, NAME, True)
    assert parse_sort(" ", WORKFLOWS) == ()
    for text, words in {
        "reason:ASC": "cannot be sorted by 'reason'",
        "name": "expected name:ASC or name:DESC",
        "name:UP": "expected name:ASC or name:DESC",
        "name:ASC|workflowType:ASC": "is there twice",
        "name:ASC|": "cannot be sorted by ''",
    }.items():
        with pytest.raises(InvalidArgument) as refused:
            parse_sort(text, WORKFLOWS)
        assert words in refused.value.message


def test_free_text_is_words() -> None:
    assert parse_words(" * ") is None
    found = parse_words("card  declined")
    assert found is not None
    assert found.words == ("card", "declined")
    for text in ("a*", "a b c d e f g h i", "x" * 256, "a\0"):
        with pytest.raises(InvalidArgument):
            parse_words(text)
