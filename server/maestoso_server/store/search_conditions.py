"""A query's tree as SQL that says of a row whether it is found: true or false, never NULL.

Everything that a caller gave is a parameter. Values that lie outside the narrow row are read by scalar
sub-selects, which run only where the conditions before them leave the row undecided: cheap parts of an
AND or OR come first.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from .. import ids
from ..query import (
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
    Subject,
    Value,
    Words,
)
from ..query.fields import TASKS


class Parameters:
    """The values of a statement, in the order of their `$n`."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def add(self, value: Any, type_: str) -> str:
        self.values.append(value)
        return f"${len(self.values)}::{type_}"


def _payload(column: str) -> str:
    return f"(SELECT p.{column} FROM workflow_payload p WHERE p.workflow_id = w.id)"


WORKFLOW_SQL = {
    "workflowId": "w.id",
    "workflowType": "w.name",
    "version": "w.version",
    "status": "w.status",
    "correlationId": "w.correlation_id",
    "startTime": "w.created_ms",
    "endTime": "nullif(w.ended_ms, 0)",
    "updateTime": "w.updated_ms",
    "parentWorkflowId": "w.parent_id",
    "priority": "w.priority",
    "createdBy": f"nullif({_payload('created_by')}, '')",
    "idempotencyKey": _payload("idempotency_key"),
    "reasonForIncompletion": _payload("reason"),
}
TASK_SQL = {
    "taskType": "t.type",
    "taskDefName": "t.name",
    "referenceTaskName": "t.reference",
    "status": "t.status",
    "retryCount": "t.attempt",
    "scheduledTime": "t.scheduled_ms",
    "startTime": "nullif(t.started_ms, 0)",
    "endTime": "nullif(t.ended_ms, 0)",
    "updateTime": "nullif(t.updated_ms, 0)",
    "workerId": "nullif(t.worker_id, '')",
    "domain": "nullif(t.domain, '')",
    "reasonForIncompletion": "t.reason",
    "workflowId": "w.id",
    "workflowType": "w.name",
    "workflowStatus": "w.status",
    "workflowStartTime": "w.created_ms",
    "correlationId": "w.correlation_id",
}
_TYPES = {
    Kind.ID: "uuid",
    Kind.TEXT: "text",
    Kind.NUMBER: "bigint",
    Kind.TIME: "bigint",
    Kind.STATUS: "smallint",
}
_DEAR = ("createdBy", "idempotencyKey", "reasonForIncompletion")
OF_TEXT = "a.kind IN (1, 3)"
OF_NUMBER = "a.kind = 2"


def condition(node: Node, subject: Subject, parameters: Parameters) -> str:
    """The SQL of a tree, over `workflow w` and, for tasks, `task t`."""
    return _Conditions(TASK_SQL if subject is TASKS else WORKFLOW_SQL, parameters).of(node)


class _Conditions:
    def __init__(self, columns: dict[str, str], parameters: Parameters) -> None:
        self._columns = columns
        self._parameters = parameters

    def of(self, node: Node) -> str:
        match node:
            case And(()):
                return "true"
            case And(parts):
                return "(" + " AND ".join(map(self.of, sorted(parts, key=_price))) + ")"
            case Or(parts):
                return "(" + " OR ".join(map(self.of, sorted(parts, key=_price))) + ")"
            case Not(part):
                return f"(NOT {self.of(part)})"
            case Words(words):
                return "(" + " AND ".join(map(self._word, words)) + ")"
        if isinstance(node.field, Attribute):
            return self._attribute(node.field, node)
        return self._field(node.field, node)

    # -- fields

    def _field(self, field: Field, node: Compare | In | Between | Missing) -> str:
        if field.kind is Kind.TASK_ID:
            return self._task_id(node)
        column, type_ = self._columns[field.name], _TYPES[field.kind]
        ordered = f'{column} COLLATE "C"' if field.kind is Kind.TEXT else column
        add = self._parameters.add
        match node:
            case Missing():
                return f"({column} IS NULL)"
            case In(_, values):
                found = f"{column} = ANY ({add(list(values), type_ + '[]')})"
            case Between(_, low, high):
                found = f"{ordered} BETWEEN {add(low, type_)} AND {add(high, type_)}"
            case Compare(_, op, value):
                found = self._compared(column, ordered, op, value, type_)
        return f"coalesce({found}, false)" if field.optional else f"({found})"

    def _compared(self, column: str, ordered: str, op: Op, value: Value, type_: str) -> str:
        if isinstance(value, Pattern):
            return f"{column} LIKE {self._parameters.add(like(value), 'text')}"
        if op is Op.STARTS_WITH:
            return f"starts_with({column}, {self._parameters.add(value, 'text')})"
        left = column if op is Op.EQ else ordered
        return f"{left} {op} {self._parameters.add(value, type_)}"

    def _task_id(self, node: Compare | In | Between | Missing) -> str:
        values = node.values if isinstance(node, In) else (node.value,) if isinstance(node, Compare) else ()
        found = []
        for value in values:
            low, high, seq = ids.split_task_id(str(value))
            add = self._parameters.add
            found.append(
                f"(w.id BETWEEN {add(low, 'uuid')} AND {add(high, 'uuid')} AND t.seq = {add(seq, 'integer')})"
            )
        return f"({' OR '.join(found) or 'false'})"

    # -- attributes

    def _attribute(self, attribute: Attribute, node: Compare | In | Between | Missing) -> str:
        row = (
            "FROM search_attribute a WHERE a.workflow_id = w.id"
            f" AND a.name = {self._parameters.add(attribute.name, 'text')}"
        )
        if isinstance(node, Missing):
            return f"coalesce((SELECT a.kind > 3 {row}), true)"
        return f"coalesce((SELECT {attribute_test(node, self._parameters)} {row}), false)"

    # -- words

    def _word(self, word: str) -> str:
        text = self._parameters.add(word, "text")
        found = [f"w.name = {text}", f"coalesce(w.correlation_id = {text}, false)"]
        if (canonical := ids.canonical(word)) is not None:
            found.append(f"w.id = {self._parameters.add(canonical, 'uuid')}")
        # In a sub-select of its own it is made once, not for each row.
        wanted = f"(SELECT plainto_tsquery('simple', {text}))"
        found.append(
            f"coalesce((SELECT p.idempotency_key = {text} OR to_tsvector('simple', p.reason) @@ {wanted}"
            " FROM workflow_payload p WHERE p.workflow_id = w.id), false)"
        )
        found.append(
            "(SELECT true FROM search_attribute a WHERE a.workflow_id = w.id"
            f" AND {OF_TEXT} AND to_tsvector('simple', a.text) @@ {wanted} LIMIT 1) IS NOT NULL"
        )
        return f"({' OR '.join(found)})"


def attribute_test(node: Compare | In | Between, parameters: Parameters) -> str:
    """Whether the row `search_attribute a` passes. True, false or NULL.

    A bare number is compared with numbers, and with texts that are spelt like it."""
    match node:
        case In(_, values):
            return _equals(values, parameters)
        case Between(_, low, high):
            return f"({_ordered(low, '>=', parameters)} AND {_ordered(high, '<=', parameters)})"
        case Compare(_, Op.EQ, Pattern() as pattern):
            return f"({OF_TEXT} AND a.text LIKE {parameters.add(like(pattern), 'text')})"
        case Compare(_, Op.EQ, value):
            return _equals((value,), parameters)
        case Compare(_, Op.STARTS_WITH, Literal(text)):
            return f"({OF_TEXT} AND starts_with(a.text, {parameters.add(text, 'text')}))"
        case Compare(_, op, value):
            return _ordered(value, op, parameters)


def _equals(values: tuple[Value, ...], parameters: Parameters) -> str:
    literals = [value for value in values if isinstance(value, Literal)]
    texts = parameters.add([literal.text for literal in literals], "text[]")
    found = f"({OF_TEXT} AND a.text = ANY ({texts}))"
    numbers = [literal.number for literal in literals if literal.number is not None]
    if numbers:
        found = f"({found} OR ({OF_NUMBER} AND a.number = ANY ({parameters.add(numbers, 'numeric[]')})))"
    return found


def _ordered(value: Value, op: str, parameters: Parameters) -> str:
    """A bare number orders numbers, a quoted text orders texts."""
    assert isinstance(value, Literal)
    if value.number is None:
        return f"({OF_TEXT} AND a.text {op} {parameters.add(value.text, 'text')})"
    return f"({OF_NUMBER} AND a.number {op} {parameters.add(value.number, 'numeric')})"


def like(pattern: Pattern) -> str:
    """A pattern as LIKE has it."""
    return "%".join(
        part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") for part in pattern.parts
    )


def number_of(value: Value) -> Decimal | None:
    """The number that an attribute is compared with."""
    return value.number if isinstance(value, Literal) else None


def _price(node: Node) -> int:
    """How dear a condition is to evaluate."""
    match node:
        case And(parts) | Or(parts):
            return max(map(_price, parts), default=0)
        case Not(part):
            return _price(part)
        case Words():
            return 3
    if isinstance(node.field, Attribute):
        return 2
    return 1 if node.field.name in _DEAR else 0
