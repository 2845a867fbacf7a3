"""What the definition's `searchAttributes` come to: the values by which an execution is found.

They read `workflow.*` only, which the header holds, so they never make a decision wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from .document import workflow_value
from .expressions import MISSING, Template, compile_template, resolve
from .state import Header

if TYPE_CHECKING:
    from .plan import Plan

TEXT_MAX = 255
DIGITS_MAX = 100


class AttributeKind(IntEnum):
    """Types of values. The numbers are stored."""

    TEXT = 1
    NUMBER = 2
    BOOLEAN = 3
    FAULT = 4
    """The value could not be taken; the text says why."""


@dataclass(frozen=True, slots=True)
class AttributeValue:
    """`text` of a number is as exact as the number, of a boolean `true` or `false`."""

    kind: AttributeKind
    text: str
    number: Decimal | None = None


Attributes = dict[str, AttributeValue]


def compile_attributes(given: Mapping[str, Any]) -> dict[str, Template]:
    """The templates of a definition, without those that read more than `workflow.*` (an unchecked document
    may have some)."""
    templates = {name: compile_template(value) for name, value in given.items()}
    return {
        name: template
        for name, template in templates.items()
        if not template.open and all(reference.root == "workflow" for reference in template.references)
    }


def changes(plan: Plan, before: Header | None, after: Header) -> dict[str, AttributeValue | None]:
    """What to write: each attribute whose value is another one now; None where it has no value any more.
    Without `before` all of them: the execution begins, or another definition holds."""
    now = _evaluate(plan, after)
    if before is None:
        return dict(now)
    old = _evaluate(plan, before)
    return {name: now.get(name) for name in plan.attributes if now.get(name) != old.get(name)}


def _evaluate(plan: Plan, header: Header) -> Attributes:
    def lookup(root: str, attribute: str | None) -> Any:
        return workflow_value(header, attribute, plan.environment) if root == "workflow" else MISSING

    found = {name: _taken(resolve(template, lookup)) for name, template in plan.attributes.items()}
    return {name: value for name, value in found.items() if value is not None}


def _taken(value: Any) -> AttributeValue | None:
    """A value as it can be searched; None where there is none."""
    match value:
        case None | "":
            return None
        case bool():
            return AttributeValue(AttributeKind.BOOLEAN, "true" if value else "false")
        case int() | float():
            return _number(value)
        case str() if len(value) <= TEXT_MAX:
            return AttributeValue(AttributeKind.TEXT, value)
        case str():
            return _fault(f"a text of {len(value):,} characters; at most {TEXT_MAX} are taken")
    shape = "a list" if isinstance(value, list) else "an object"
    return _fault(f"{shape}; texts, numbers and booleans are taken")


def _number(value: int | float) -> AttributeValue:
    if isinstance(value, int) and abs(value) >= 10**DIGITS_MAX:
        return _fault(f"a number of more than {DIGITS_MAX} digits")
    return AttributeValue(AttributeKind.NUMBER, repr(value), Decimal(repr(value)))


def _fault(message: str) -> AttributeValue:
    return AttributeValue(AttributeKind.FAULT, message)
