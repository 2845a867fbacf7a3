"""The order of results: `field:ASC` or `field:DESC`, several joined by `|`."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import Field, Subject
from .tokens import Text

ORDERS_MAX = 4


@dataclass(frozen=True, slots=True)
class Order:
    field: Field
    descending: bool


def parse_sort(text: str, subject: Subject, *, field: str = "sort") -> tuple[Order, ...]:
    """The orders, the most important first; empty text = (). Raises InvalidArgument."""
    source = Text(text, field)
    if not text.strip():
        return ()
    orders: list[Order] = []
    at = 0
    for part in text.split("|"):
        name, _, direction = (piece.strip() for piece in part.partition(":"))
        known = subject.by_name.get(name)
        if known is None or not known.sortable:
            names = ", ".join(found.name for found in subject.fields if found.sortable)
            source.refuse(at, f"results cannot be sorted by {name[:50]!r}; sortable are {names}")
        if direction.upper() not in ("ASC", "DESC"):
            source.refuse(at, f"{part.strip()[:60]!r}: expected {name}:ASC or {name}:DESC")
        if known in [order.field for order in orders]:
            source.refuse(at, f"{known.name} is there twice")
        orders.append(Order(known, direction.upper() == "DESC"))
        at += len(part) + 1
    if len(orders) > ORDERS_MAX:
        source.refuse(0, f"has {len(orders)} fields; at most {ORDERS_MAX} are accepted")
    return tuple(orders)
