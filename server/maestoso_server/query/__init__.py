"""The query language of searches: text to a checked tree, and back. Pure; no SQL.

    workflowType IN (order, refund) AND (status = FAILED OR NOT correlationId = 'c-7*')

`parse` refuses what it cannot honour, with the column and what was expected there.
"""

from __future__ import annotations

from .fields import TASKS, WORKFLOWS, Field, Kind, Subject
from .parse import QUERY_MAX, parse
from .sort import Order, parse_sort
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
    Query,
    Value,
    Words,
    show,
)
from .words import parse_words

__all__ = [
    "EVERYTHING",
    "QUERY_MAX",
    "TASKS",
    "WORKFLOWS",
    "And",
    "Attribute",
    "Between",
    "Compare",
    "Field",
    "In",
    "Kind",
    "Literal",
    "Missing",
    "Node",
    "Not",
    "Op",
    "Or",
    "Order",
    "Pattern",
    "Query",
    "Subject",
    "Value",
    "Words",
    "parse",
    "parse_sort",
    "parse_words",
    "show",
]
