"""The tables of tests/coverage are complete, and true: no row is missing or stale."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from coverage_kit import TABLES, Row, marked, read_table, write_table

MARKED = marked()


@pytest.fixture(params=sorted(TABLES))
def table(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if os.environ.get("MAESTOSO_REWRITE_COVERAGE"):
        write_table(name, [_as_marked(row) for row in read_table(name)])
    return name


def _as_marked(row: Row) -> Row:
    return Row(row.row, row.what, tuple(sorted(MARKED.get(row.row, ()))), row.differs)


def test_every_row_stands_in_its_table_once(table: str) -> None:
    listed = Counter(row.row for row in read_table(table))

    assert [row for row in TABLES[table] if not listed[row]] == [], "missing"
    assert [row for row in listed if row not in TABLES[table]] == [], "stale"
    assert [row for row, count in listed.items() if count > 1] == [], "twice"


def test_every_row_is_shown_by_a_test_or_says_why_not(table: str) -> None:
    assert [row.row for row in read_table(table) if not row.tests and not row.differs] == []
    assert [row.row for row in read_table(table) if not row.what] == []


def test_the_tests_of_a_row_are_those_that_say_so(table: str) -> None:
    wrong = {
        row.row: (row.tests, MARKED.get(row.row, []))
        for row in read_table(table)
        if sorted(row.tests) != sorted(MARKED.get(row.row, ()))
    }

    assert wrong == {}, "MAESTOSO_REWRITE_COVERAGE=1 writes the lists anew"


def test_every_mark_names_a_row() -> None:
    known = {row for rows in TABLES.values() for row in rows}

    assert {row: tests for row, tests in MARKED.items() if row not in known} == {}
