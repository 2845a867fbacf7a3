"""The tree of a query: names are canonical, values have their field's type.

Two-valued: a condition on a value that is missing is false, and NOT turns it into true. So
`correlationId != 'x'` finds executions without a correlation id too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from .fields import Field


class Op(StrEnum):
    """Comparisons. `!=` is the negation of `=`."""

    EQ = "="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    STARTS_WITH = "STARTS_WITH"


@dataclass(frozen=True, slots=True)
class Attribute:
    """A search attribute: `attributes.customer`, or just `customer`."""

    name: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text with wildcards: the texts between the stars, the first and last anchored. At least two."""

    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Literal:
    """What an attribute is compared with. `number` is set for a bare number, which matches numbers of
    that value and the very text."""

    text: str
    number: Decimal | None = None


Value = int | str | Pattern | Literal
"""Of a number, a time (ms) or a status: int. Of an id or a text: str or Pattern. Of an attribute:
Literal or Pattern."""

Place = Field | Attribute
"""What a condition is about."""


@dataclass(frozen=True, slots=True)
class Compare:
    field: Place
    op: Op
    value: Value


@dataclass(frozen=True, slots=True)
class In:
    """One of some values, without wildcards."""

    field: Place
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """Both bounds belong to it."""

    field: Place
    low: Value
    high: Value


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no value: IS NULL, or `= ""`."""

    field: Place


@dataclass(frozen=True, slots=True)
class Words:
    """Free text: every word must be found (`words.parse_words`)."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Node


@dataclass(frozen=True, slots=True)
class And:
    """All of at least two; of none: everything."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of at least two."""

    parts: tuple[Node, ...]


Node = Compare | In | Between | Missing | Words | Not | And | Or

EVERYTHING = And(())


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query. `guessed`: bare names that are no fields, and so must be attributes that
    exist, each with the refusal to give where it does not."""

    node: Node = EVERYTHING
    guessed: dict[str, str] = field(default_factory=dict)


def show(node: Node) -> str:
    """The text of a tree; parsing it gives the tree again. Free text has none of its own."""
    match node:
        case And(()):
            return "*"
        case And(parts):
            return " AND ".join(_inside(part) for part in parts)
        case Or(parts):
            return " OR ".join(_inside(part) for part in parts)
        case Not(part):
            return f"NOT {_inside(part)}"
        case Compare(place, Op.STARTS_WITH, value):
            return f"{_name(place)} STARTS_WITH {_value(place, value)}"
        case Compare(place, op, value):
            return f"{_name(place)} {op} {_value(place, value)}"
        case In(place, values):
            return f"{_name(place)} IN ({', '.join(_value(place, value) for value in values)})"
        case Between(place, low, high):
            return f"{_name(place)} BETWEEN {_value(place, low)} AND {_value(place, high)}"
        case Missing(place):
            return f"{_name(place)} IS NULL"
        case Words(words):
            raise ValueError(f"free text {words} is not part of the query language")


def _inside(node: Node) -> str:
    return f"({show(node)})" if isinstance(node, And | Or | Not) else show(node)


def _name(place: Place) -> str:
    return f"attributes.{place.name}" if isinstance(place, Attribute) else place.name


def _value(place: Place, value: Value) -> str:
    match value:
        case int():
            return place.statuses[value] if isinstance(place, Field) and place.statuses else str(value)
        case Pattern(parts):
            return "'" + "*".join(_escaped(part) for part in parts) + "'"
        case Literal(text, number):
            return text if number is not None else f"'{_escaped(text)}'"
        case str():
            return f"'{_escaped(value)}'"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'").replace("*", "\\*")
