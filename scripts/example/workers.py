"""The workers of the order-processing example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maestoso import TaskContext, worker


@worker("reserve_stock")
async def reserve_stock(order_id: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"reservation": f"R-{order_id}", "pieces": sum(item["quantity"] for item in items)}


@worker("book_courier")
async def book_courier(order_id: str) -> dict[str, Any]:
    return {"courier": f"bicycle for {order_id}"}


@worker("declare_customs")
async def declare_customs(country: str, amount: int) -> dict[str, Any]:
    return {"declaration": f"{country}-{amount}"}


@worker("authorise_card")
async def authorise_card(order_id: str, amount: int, context: TaskContext) -> dict[str, Any]:
    """The bank's line is busy at the first call: the server tries again after a second."""
    if context.attempt == 0:
        raise ConnectionError("the bank's line is busy")
    return {"authorisation": f"A-{order_id}-{amount}", "attempts": context.attempt + 1}


@worker("capture_card")
async def capture_card(authorisation: str, amount: int) -> dict[str, Any]:
    return {"receipt": f"receipt for {amount} on {authorisation}"}


@worker("pack_parcel")
def pack_parcel(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A plain function: it runs in a thread."""
    return {"parcel": " + ".join(f"{item['quantity']} {item['name']}" for item in items)}


@worker("print_label")
def print_label(order_id: str, parcel: str) -> dict[str, Any]:
    return {"label": f"{order_id}: {parcel}"}


@worker("send_confirmation")
async def send_confirmation(order_id: str, receipt: str, label: str) -> dict[str, Any]:
    return {"letter": f"Your order {order_id} is on its way ({label}); {receipt}."}


WORKERS: list[Callable[..., Any]] = [
    reserve_stock,
    book_courier,
    declare_customs,
    authorise_card,
    capture_card,
    pack_parcel,
    print_label,
    send_confirmation,
]
