"""Random queries, rows to ask them of, and what a query means: an evaluation that knows no SQL."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from maestoso_server.query import (
    WORKFLOWS,
    And,
    Attribute,
    Between,
    Compare,
    Field,
    In,
    Kind,
    Literal,
    Missing,
    Node,
    Not,
    Op,
    Or,
    Pattern,
    Words,
)

TEXTS = ["a", "b", "ab", "a_b", "a%b", "a*b", "it's", 'say "x"', "back\\slash", "B", "é", "7", "true"]
IDS = [f"0190000{n}-0000-7000-8000-00000000000{n}" for n in range(6)]
NUMBERS = [Decimal("7"), Decimal("7.5"), Decimal("-1"), Decimal("12345678901234567890")]
ATTRIBUTES = ["customer", "amount"]


@dataclass
class Row:
    """One execution: values by the canonical names of fields; attributes are str or Decimal."""

    values: dict[str, Any]
    attributes: dict[str, str | Decimal] = field(default_factory=dict)


@st.composite
def rows(draw: st.DrawFn, count: int) -> list[Row]:
    made = []
    for number in range(count):
        values: dict[str, Any] = {
            "workflowId": f"0190000{number % 10}-0000-7000-8000-0000000000{number:02d}",
            "workflowType": draw(st.sampled_from(TEXTS)),
            "version": draw(st.integers(1, 3)),
            "status": draw(st.integers(1, 6)),
            "correlationId": draw(st.none() | st.sampled_from(TEXTS)),
            "startTime": draw(st.integers(1, 5)),
            "endTime": draw(st.none() | st.integers(1, 5)),
            "updateTime": draw(st.integers(1, 5)),
            "parentWorkflowId": draw(st.none() | st.sampled_from(IDS)),
            "priority": draw(st.integers(0, 2)),
            "createdBy": draw(st.none() | st.sampled_from(TEXTS)),
            "idempotencyKey": draw(st.none() | st.sampled_from(TEXTS)),
            "reasonForIncompletion": draw(st.none() | st.sampled_from(["card declined", "a", "timed out"])),
        }
        names = draw(st.sets(st.sampled_from(ATTRIBUTES)))
        value = st.sampled_from(TEXTS) | st.sampled_from(NUMBERS)
        made.append(Row(values, {name: draw(value) for name in sorted(names)}))
    return made


_patterns = st.lists(st.sampled_from(["", "a", "b", "*", "%", "\\"]), min_size=2, max_size=3).map(
    lambda parts: Pattern(tuple(parts))
)
_literals = st.sampled_from(TEXTS).map(Literal) | st.sampled_from(NUMBERS).map(lambda n: Literal(str(n), n))


def _values(place: Field | Attribute) -> st.SearchStrategy[Any]:
    if isinstance(place, Attribute):
        return _literals
    return {
        Kind.ID: st.sampled_from(IDS),
        Kind.TEXT: st.sampled_from(TEXTS),
        Kind.NUMBER: st.integers(-1, 3),
        Kind.TIME: st.integers(0, 6),
        Kind.STATUS: st.integers(1, 6),
    }[place.kind]


@st.composite
def conditions(draw: st.DrawFn) -> Node:
    place: Field | Attribute = draw(
        st.sampled_from(WORKFLOWS.fields) | st.sampled_from(ATTRIBUTES).map(Attribute)
    )
    attribute = isinstance(place, Attribute)
    kind = None if isinstance(place, Attribute) else place.kind
    values = _values(place)
    shapes = ["equal", "in"]
    if isinstance(place, Attribute) or place.optional:
        shapes.append("missing")
    if attribute or kind in (Kind.TEXT, Kind.NUMBER, Kind.TIME):
        shapes += ["order", "between"]
    if attribute or kind is Kind.TEXT:
        shapes += ["pattern", "starts"]
    shape = draw(st.sampled_from(shapes))
    if shape == "missing":
        return Missing(place)
    if shape == "in":
        return In(place, tuple(draw(st.lists(values, min_size=1, max_size=3))))
    if shape == "between":
        return Between(place, draw(values), draw(values))
    if shape == "pattern":
        return Compare(place, Op.EQ, draw(_patterns))
    if shape == "starts":
        text = draw(st.sampled_from(["a", "", "it", "a%", "\\"]))
        return Compare(place, Op.STARTS_WITH, Literal(text) if attribute else text)
    if shape == "order":
        return Compare(place, draw(st.sampled_from([Op.LT, Op.LE, Op.GT, Op.GE])), draw(values))
    return Compare(place, Op.EQ, draw(values))


words = st.lists(
    st.sampled_from(["a", "b", "card", "DECLINED", "out", "ab", "7", "true", *IDS]), min_size=1, max_size=2
).map(lambda chosen: Words(tuple(chosen)))
"""Only of letters and digits: how other texts fall into words is Postgres' affair."""

nodes: st.SearchStrategy[Node] = st.recursive(
    conditions(),
    lambda inner: (
        inner.map(Not)
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts)))
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts)))
    ),
    max_leaves=6,
)


def holds(node: Node, row: Row) -> bool:
    """Whether a query finds a row: the definition of the language."""
    match node:
        case Not(part):
            return not holds(part, row)
        case And(parts):
            return all(holds(part, row) for part in parts)
        case Or(parts):
            return any(holds(part, row) for part in parts)
        case Words(words):
            return all(_has_word(word, row) for word in words)
    attribute = isinstance(node.field, Attribute)
    value = (row.attributes if attribute else row.values).get(node.field.name)
    if value is None or isinstance(node, Missing):
        return isinstance(node, Missing) and value is None
    match node:
        case In(_, wanted):
            return any(_same(value, one) for one in wanted)
        case Between(_, low, high):
            return _ordered(value, Op.GE, low) and _ordered(value, Op.LE, high)
        case Compare(_, Op.EQ, Pattern(parts)):
            pattern = ".*".join(map(re.escape, parts))
            return isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL) is not None
        case Compare(_, Op.EQ, wanted_one):
            return _same(value, wanted_one)
        case Compare(_, Op.STARTS_WITH, start):
            text = start.text if isinstance(start, Literal) else str(start)
            return isinstance(value, str) and value.startswith(text)
        case Compare(_, op, bound):
            return _ordered(value, op, bound)


def _same(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Literal):
        return bool(value == wanted)
    return value == (wanted.text if isinstance(value, str) else wanted.number)


def _ordered(value: Any, op: Op, bound: Any) -> bool:
    if isinstance(bound, Literal):
        bound = bound.text if bound.number is None else bound.number
        if type(bound) is not type(value):
            return False
    return bool(
        {
            Op.LT: lambda: value < bound,
            Op.LE: lambda: value <= bound,
            Op.GT: lambda: value > bound,
            Op.GE: lambda: value >= bound,
        }[op]()
    )


def _has_word(word: str, row: Row) -> bool:
    """Ids and names as a whole; reasons and attributes by their words (here: letters only)."""
    whole = ("workflowId", "workflowType", "correlationId", "idempotencyKey")
    if word in [row.values[name] for name in whole]:
        return True
    texts = [row.values["reasonForIncompletion"] or "", *row.attributes.values()]
    return any(isinstance(text, str) and word.lower() in re.split(r"[\W_]+", text.lower()) for text in texts)
