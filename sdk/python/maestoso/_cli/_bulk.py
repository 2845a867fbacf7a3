"""The commands on many workflows: `maestoso bulk ...`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import App

from ._connection import Connection

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from maestoso.workflow.v1 import bulk_pb2

    from .._client import Client

bulk = App(name="bulk", help="Do one operation to many workflows, in the background.")

SOME_REFUSED = 1
"""The exit status of `bulk start --wait` where some workflows refused."""
Action = Literal[
    "pause", "resume", "terminate", "restart", "retry", "rerun", "skip", "jump", "reset", "update",
    "update_task", "signal", "upgrade", "remove",
]  # fmt: skip


@bulk.command
def start(
    action: Action,
    *workflow_ids: str,
    query: str | None = None,
    options: str = "{}",
    rate: int = 0,
    reason: str = "",
    key: str = "",
    wait: bool = False,
    connection: Connection | None = None,
) -> int:
    """Begin an operation on the workflows of these ids, or on all that a query finds now. Prints its id.

    Parameters
    ----------
    query
        As for `search`, such as `status = FAILED AND workflowType = order`; an empty one finds all.
    options
        What the action takes: a JSON object, `@FILE` with one in it, or `-` for stdin, such as
        `{"reason": "closed"}` for terminate or `{"reference": "pay", "output": {"ok": true}}` for signal.
    rate
        Workflows a second; 0 = 100.
    reason
        Why, for people who read the list of operations.
    key
        An idempotency key: the same call again answers the same operation.
    wait
        Return when all is done: 0 if every workflow took it, 1 if some refused.
    """
    connection = connection or Connection()

    async def act(client: Client) -> int:
        from . import _show

        made = await client.create_bulk(
            _action(action, options),
            workflow_ids,
            query=query,
            rate=rate,
            reason=reason,
            idempotency_key=key,
        )
        if not wait:
            _show.print_json({"bulkId": made.bulk_id}) if connection.as_json else print(made.bulk_id)
            return 0
        done = await client.wait_for_bulk(made.bulk_id)
        _show_operations(connection, [done])
        return SOME_REFUSED if done.failed else 0

    return connection.run(act)


def _action(name: str, options: str) -> bulk_pb2.BulkAction:
    """The action with what was given for it. Raises ValueError."""
    from maestoso.workflow.v1 import bulk_pb2

    from .. import _json
    from ._files import payload

    made = bulk_pb2.BulkAction()
    asked = getattr(made, name)
    asked.SetInParent()
    try:
        given = _json.loads(payload(options))
    except ValueError as fault:
        raise ValueError(f"--options is no JSON: {fault}") from None
    if not isinstance(given, dict):
        raise ValueError(f"--options is {options!r}: send a JSON object")
    for field, value in given.items():
        _set(asked, name, field, value)
    return made


def _set(asked: Message, name: str, field: str, value: Any) -> None:
    """Set one field: payloads are given as JSON, statuses by their short names."""
    from .. import _json

    described = asked.DESCRIPTOR.fields_by_name.get(field)
    if described is None:
        known = ", ".join(asked.DESCRIPTOR.fields_by_name) or "none"
        raise ValueError(f"--options: {name} has no option {field!r}; there are: {known}")
    if described.type == described.TYPE_BYTES:
        value = _json.dumps(value)
    elif described.enum_type is not None and isinstance(value, str):
        named = described.enum_type.values_by_name.get(f"TASK_STATUS_{value}")
        if named is None:
            raise ValueError(f"--options: {field} is {value!r}, which is no task's status")
        value = named.number
    try:
        setattr(asked, field, value)
    except (TypeError, ValueError) as wrong:
        raise ValueError(f"--options: {field} is {value!r}: {wrong}") from None


@bulk.command
def get(bulk_id: str, *, connection: Connection | None = None) -> int:
    """Show how far an operation is."""
    connection = connection or Connection()

    async def act(client: Client) -> None:
        _show_operations(connection, [await client.get_bulk(bulk_id)])

    return connection.run(act)


@bulk.command(name="list")
def list_(*, limit: int = 20, connection: Connection | None = None) -> int:
    """List operations, the youngest first; they are forgotten 7 days after their end.

    Parameters
    ----------
    limit
        At most so many.
    """
    connection = connection or Connection()

    async def act(client: Client) -> None:
        found: list[bulk_pb2.BulkOperation] = []
        async for operation in client.bulks():
            if len(found) >= limit:
                break
            found.append(operation)
        _show_operations(connection, found)

    return connection.run(act)


@bulk.command
def items(bulk_id: str, *, refused: bool = False, connection: Connection | None = None) -> int:
    """List what became of each workflow of an operation.

    Parameters
    ----------
    refused
        Only those that refused it, with the reason.
    """
    connection = connection or Connection()

    async def act(client: Client) -> None:
        from maestoso.workflow.v1 import bulk_pb2

        from . import _show

        state = bulk_pb2.BULK_ITEM_STATE_FAILED if refused else bulk_pb2.BULK_ITEM_STATE_UNSPECIFIED
        found = [item async for item in client.bulk_items(bulk_id, state)]
        if connection.as_json:
            _show.print_json(found)
        else:
            _show.table(("workflow", "state", "why"), map(_item, found))

    return connection.run(act)


def _item(item: bulk_pb2.BulkItem) -> Sequence[str]:
    from rich.markup import escape

    from maestoso.workflow.v1 import bulk_pb2

    state = bulk_pb2.BulkItemState.Name(item.state).removeprefix("BULK_ITEM_STATE_")
    return item.workflow_id, state, escape(item.error.message)


@bulk.command
def cancel(bulk_id: str, *, connection: Connection | None = None) -> int:
    """Stop an operation; what it has done stays done."""
    connection = connection or Connection()

    async def act(client: Client) -> None:
        _show_operations(connection, [await client.cancel_bulk(bulk_id)])

    return connection.run(act)


def _show_operations(connection: Connection, found: list[bulk_pb2.BulkOperation]) -> None:
    from . import _show

    if connection.as_json:
        _show.print_json(found)
    else:
        titles = ("id", "action", "state", "workflows", "done", "refused", "started", "reason")
        _show.table(titles, map(_operation, found))


def _operation(found: bulk_pb2.BulkOperation) -> Sequence[str]:
    from rich.markup import escape

    from maestoso.workflow.v1 import bulk_pb2

    from . import _show

    return (
        found.bulk_id,
        found.action.WhichOneof("action") or "",
        bulk_pb2.BulkState.Name(found.state).removeprefix("BULK_STATE_"),
        f"{found.total:,}",
        f"{found.succeeded:,}",
        f"{found.failed:,}",
        _show.when(found.create_time),
        escape(found.reason),
    )
