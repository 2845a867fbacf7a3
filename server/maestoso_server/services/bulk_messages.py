"""Bulk operations between messages and values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from maestoso.error.v1 import error_pb2
from maestoso.workflow.v1 import bulk_pb2, bulk_service_pb2

from ..store.bulk import Bulk, BulkState, ItemState, ListedItem
from . import convert, limits
from .limits import Limits, invalid

IDS_MAX = 100_000
RATE_DEFAULT = 100
RATE_MAX = 1_000


def action_name(action: bulk_pb2.BulkAction) -> str:
    """Which member is set; empty = none."""
    return action.WhichOneof("action") or ""


def check_action(action: bulk_pb2.BulkAction, limits_: Limits) -> None:
    """Raises InvalidArgument where no workflow could take it."""
    name = action_name(action)
    if not name:
        raise invalid("action", "is required: set one of its members")
    asked, path = getattr(action, name), f"action.{name}"
    for field in asked.DESCRIPTOR.fields_by_name:
        if field in _FIELDS:
            _FIELDS[field](limits_, getattr(asked, field), f"{path}.{field}")
    _CHECKS.get(name, _nothing_more)(asked, path)


_FIELDS: dict[str, Callable[[Limits, Any, str], object]] = {
    "reason": lambda _, reason, path: limits.text(reason, path, limits.REASON_MAX),
    "version": lambda _, version, path: limits.number(version, path, 0, 2**31 - 1),
    "reference": lambda _, reference, path: limits.text(reference, path),
    **dict.fromkeys(
        ("workflow_input", "task_input", "input", "output", "variables"),
        lambda limits_, given, path: limits_.payload(given, path),
    ),
}
"""By the name of a field: it means the same in every action."""


def _nothing_more(asked: Any, path: str) -> None:
    return


def _signal(asked: bulk_pb2.BulkSignal, path: str) -> None:
    convert.signalled_status(asked.status)


def _named(asked: Any, path: str) -> None:
    limits.name(asked.reference, f"{path}.reference")


def _update_task(asked: bulk_pb2.BulkUpdateTask, path: str) -> None:
    _named(asked, path)
    convert.updated_status(asked.status)


def _update(asked: bulk_pb2.BulkUpdate, path: str) -> None:
    if not asked.variables:
        raise invalid(f"{path}.variables", "is missing: send a JSON object")


def _rerun(asked: bulk_pb2.BulkRerun, path: str) -> None:
    if asked.reference and asked.HasField("workflow_input"):
        raise invalid(f"{path}.workflow_input", "goes with a rerun from the beginning: leave `reference` out")
    if asked.HasField("task_input") and not asked.reference:
        raise invalid(f"{path}.task_input", "needs `reference`: the task that it is for")


_CHECKS: dict[str, Callable[[Any, str], None]] = {
    "signal": _signal,
    "skip": _named,
    "jump": _named,
    "update": _update,
    "update_task": _update_task,
    "rerun": _rerun,
}


def workflow_ids(given: Iterable[str]) -> list[str]:
    """Canonical ids, each once, in their order. Raises InvalidArgument."""
    found = {limits.uuid(one, f"workflow_ids[{place}]"): None for place, one in enumerate(given)}
    if len(found) > IDS_MAX:
        raise invalid(
            "workflow_ids",
            f"has {len(found):,} ids; at most {IDS_MAX:,} are accepted: use a query, or two calls",
        )
    return list(found)


def digest(request: bulk_service_pb2.CreateBulkOperationRequest) -> bytes:
    """The same for the same request."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def operation(bulk: Bulk) -> bulk_pb2.BulkOperation:
    """An operation as it is now."""
    return bulk_pb2.BulkOperation(
        bulk_id=bulk.id,
        action=bulk_pb2.BulkAction.FromString(bulk.action),
        state=bulk_pb2.BulkState.ValueType(bulk.state),
        total=bulk.total,
        succeeded=bulk.succeeded,
        failed=bulk.failed,
        rate=bulk.rate,
        reason=bulk.reason,
        create_time=convert.timestamp(bulk.created_ms),
        created_by=bulk.created_by,
        end_time=convert.timestamp(bulk.ended_ms),
        query=None if bulk.query is None else bulk_pb2.BulkQuery.FromString(bulk.query),
    )


def item(found: ListedItem) -> bulk_pb2.BulkItem:
    """One item; what is begun is still pending."""
    state = ItemState.PENDING if found.state is ItemState.BEGUN else found.state
    return bulk_pb2.BulkItem(
        workflow_id=found.workflow_id,
        state=bulk_pb2.BulkItemState.ValueType(state),
        error=None if found.error is None else error_pb2.Error.FromString(found.error),
    )


def state_filter(state: int) -> BulkState | None:
    """The state that a list is asked for; None = any. Raises InvalidArgument."""
    try:
        return BulkState(state) if state else None
    except ValueError:
        raise invalid("state", f"is {state}, which this server does not know") from None


def item_state_filter(state: int) -> ItemState | None:
    """The same for items."""
    if state not in (0, ItemState.PENDING, ItemState.SUCCEEDED, ItemState.FAILED):
        raise invalid("state", f"is {state}, which this server does not know")
    return ItemState(state) if state else None
