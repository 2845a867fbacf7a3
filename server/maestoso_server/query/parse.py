"""Text to tree: recursive descent, one method a rule.

    either     = every { OR every }
    every      = single { AND single }
    single     = NOT single | "(" either ")" | condition
    condition  = field ( operator value | [NOT] IN "(" value { "," value } ")"
                       | [NOT] BETWEEN value AND value | [NOT] STARTS_WITH value | IS [NOT] NULL )

Keywords may be in any case; field names are exact.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import NoReturn

from .. import ids
from .fields import WORKFLOWS, Field, Kind, Subject
from .tokens import Sort, Text, Token
from .tree import (
    EVERYTHING,
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
    Place,
    Query,
    Value,
)

QUERY_MAX = 10_000
"""Characters of a query."""
CONDITIONS_MAX = 100
VALUES_MAX = 1_000
"""Values in one IN."""
DEPTH_MAX = 30
"""Parentheses and NOTs inside each other."""
ATTRIBUTES = "attributes."
ATTRIBUTE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,100}(\.[0-9]{1,100})?([eE][+-]?[0-9]{1,2})?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_ORDERED = (Kind.TEXT, Kind.NUMBER, Kind.TIME)


def parse(text: str, subject: Subject = WORKFLOWS, *, field: str = "query") -> Query:
    """The tree of a query; empty or `*` finds everything. `field` is named in refusals.

    Raises InvalidArgument with the column and what was expected."""
    source = Text(text, field)
    if len(text) > QUERY_MAX:
        source.refuse(
            QUERY_MAX, f"the query has {len(text):,} characters; at most {QUERY_MAX:,} are accepted"
        )
    if text.strip() in ("", "*"):
        return Query()
    parser = _Parser(source, subject)
    return Query(parser.whole(), parser.guessed)


class _Parser:
    def __init__(self, source: Text, subject: Subject) -> None:
        self._source = source
        self._subject = subject
        self._tokens = source.tokens()
        self._next = 0
        self._conditions = 0
        self._depth = 0
        self.guessed: dict[str, str] = {}

    # -- the rules

    def whole(self) -> Node:
        node = self._either()
        if self._token.sort is not Sort.END:
            self._expected("AND, OR or the end of the query")
        return node

    def _either(self) -> Node:
        parts = [self._every()]
        while self._take("OR"):
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _every(self) -> Node:
        parts = [self._single()]
        while self._take("AND"):
            parts.append(self._single())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _single(self) -> Node:
        if self._token.keyword == "NOT":
            self._deeper()
            node: Node = Not(self._single())
        elif self._token.text == "(" and self._token.sort is Sort.SIGN:
            self._deeper()
            node = self._either()
            if not self._take(")"):
                self._expected("AND, OR or )")
        elif self._token.text == "*" and self._token.sort is Sort.WORD:
            self._next += 1
            return EVERYTHING
        else:
            return self._condition()
        self._depth -= 1
        return node

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            self._source.refuse(self._token.at, f"parentheses and NOTs go at most {DEPTH_MAX} deep")
        self._next += 1

    def _condition(self) -> Node:
        self._conditions += 1
        if self._conditions > CONDITIONS_MAX:
            self._source.refuse(self._token.at, f"a query has at most {CONDITIONS_MAX} conditions; use IN")
        if self._token.sort is not Sort.WORD:
            self._expected("a field, NOT or (")
        place = self._field(self._advance())
        if self._take("IS"):
            absent = not self._take("NOT")
            if not self._take("NULL"):
                self._expected("NULL" if not absent else "NULL or NOT NULL")
            return Missing(place) if absent else Not(Missing(place))
        negated = self._take("NOT")
        node = self._test(place, negated)
        return Not(node) if negated else node

    def _test(self, place: Place, negated: bool) -> Node:
        token = self._token
        if self._take("IN"):
            return In(place, self._list(place))
        if self._take("BETWEEN"):
            self._refuse_unordered(place, token)
            low = self._value(place)
            if not self._take("AND"):
                self._expected("AND between the two bounds")
            return Between(place, low, self._value(place))
        if self._take("STARTS_WITH"):
            if isinstance(place, Field) and place.kind is not Kind.TEXT:
                self._source.refuse(token.at, f"{place.name} is {place.kind.value}: STARTS_WITH needs a text")
            return self._starts_with(place)
        if token.sort is Sort.OPERATOR and not negated:
            self._next += 1
            return self._compare(place, token)
        tests = "IN, BETWEEN or STARTS_WITH"
        self._expected(tests if negated else f"=, !=, <, <=, >, >=, IS, NOT, {tests}")

    def _compare(self, place: Place, operator: Token) -> Node:
        if operator.text in ("=", "!="):
            node = self._equals(place)
            return node if operator.text == "=" else Not(node)
        self._refuse_unordered(place, operator)
        return Compare(place, Op(operator.text), self._value(place))

    def _equals(self, place: Place) -> Node:
        token = self._token
        optional = isinstance(place, Attribute) or place.optional
        if token.sort is Sort.QUOTED and token.text == "" and optional:
            self._next += 1
            return Missing(place)
        if len(token.parts) > 1 and (isinstance(place, Attribute) or place.kind is Kind.TEXT):
            self._next += 1
            return Compare(place, Op.EQ, Pattern(token.parts))
        return Compare(place, Op.EQ, self._value(place))

    def _starts_with(self, place: Place) -> Node:
        value = self._value(place)
        if isinstance(value, Literal):
            value = Literal(value.text)
        return Compare(place, Op.STARTS_WITH, value)

    def _list(self, place: Place) -> tuple[Value, ...]:
        if not self._take("("):
            self._expected("( after IN")
        values = [self._value(place)]
        while self._take(","):
            values.append(self._value(place))
            if len(values) > VALUES_MAX:
                self._source.refuse(self._token.at, f"IN takes at most {VALUES_MAX:,} values")
        if not self._take(")"):
            self._expected(", or ) (quote a value that has blanks)")
        return tuple(values)

    # -- fields and values

    def _field(self, token: Token) -> Place:
        known = self._subject.by_name.get(token.text)
        if known is not None:
            return known
        if self._subject is not WORKFLOWS:
            self._unknown(token, "")
        if token.text.startswith(ATTRIBUTES):
            name = token.text.removeprefix(ATTRIBUTES)
            if ATTRIBUTE_NAME.fullmatch(name) is None:
                self._source.refuse(token.at, f"{name[:50]!r} is no attribute's name: letters, digits and _")
            return Attribute(name)
        if ATTRIBUTE_NAME.fullmatch(token.text) is None:
            self._unknown(token, "")
        message = self._unknown_message(token, ", and no workflow has a search attribute of that name")
        self.guessed.setdefault(token.text, self._source.told(token.at, message))
        return Attribute(token.text)

    def _unknown(self, token: Token, more: str) -> NoReturn:
        self._source.refuse(token.at, self._unknown_message(token, more))

    def _unknown_message(self, token: Token, more: str) -> str:
        names = [field.name for field in self._subject.fields]
        lowered = {name.lower(): name for name in self._subject.by_name}
        close = difflib.get_close_matches(token.text.lower(), lowered, n=1, cutoff=0.7)
        meant = f"; did you mean {lowered[close[0]]}?" if close else "."
        listed = ", ".join(names) + (", attributes.<name>" if self._subject is WORKFLOWS else "")
        return (
            f"{token.text[:50]!r} is no field of a {self._subject.noun}{more}{meant} The fields are {listed}"
        )

    def _refuse_unordered(self, place: Place, token: Token) -> None:
        if isinstance(place, Field) and place.kind not in _ORDERED:
            self._source.refuse(
                token.at, f"{place.name} is {place.kind.value} and has no order: use =, != or IN"
            )

    def _value(self, place: Place) -> Value:
        token = self._token
        if token.sort not in (Sort.WORD, Sort.QUOTED):
            self._expected(f"a value for {place.name}")
        self._next += 1
        if isinstance(place, Attribute):
            number = None
            if token.sort is Sort.WORD and _NUMBER.fullmatch(token.text):
                number = Decimal(token.text)
            return Literal(token.text, number)
        if place.kind is Kind.TEXT:
            return token.text
        value: int | str | None = _READERS[place.kind](place, token.text.strip())
        if value is None:
            self._source.refuse(token.at, f"{token.text[:50]!r} is not {_wanted(place)}")
        return value

    # -- tokens

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _advance(self) -> Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _take(self, word: str) -> bool:
        token = self._token
        found = token.keyword == word or (token.sort is Sort.SIGN and token.text == word)
        self._next += found
        return found

    def _expected(self, what: str) -> NoReturn:
        self._source.refuse(self._token.at, f"found {self._token.shown}, expected {what}")


def _wanted(field: Field) -> str:
    if field.kind is Kind.STATUS:
        return f"a status of a {field.of}: {', '.join(field.statuses.values())}"
    return str(field.kind.value)


def _status(field: Field, text: str) -> int | None:
    return {name: number for number, name in field.statuses.items()}.get(text.upper())


def _time(_field: Field, text: str) -> int | None:
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def _number(_field: Field, text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


def _id(_field: Field, text: str) -> str | None:
    return ids.canonical(text)


_READERS: dict[Kind, Callable[[Field, str], int | str | None]] = {
    Kind.ID: _id,
    Kind.TASK_ID: _id,
    Kind.NUMBER: _number,
    Kind.TIME: _time,
    Kind.STATUS: _status,
}
