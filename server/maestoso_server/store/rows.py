"""Rows of the database to the engine's records and back. No statement is sent here.

The order of each tuple is the order of the composite type of the same name in the schema.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..engine.attributes import AttributeValue
from ..engine.decision import QueueBirth, Slot
from ..engine.secrets import mark_header, mark_row
from ..engine.state import Header, Path, TaskRow, TaskStatus, WorkflowStatus
from ..payload import Json

STATE_FORMAT = b"\x01"
"""First byte of a stored `state`: MessagePack, as written since schema 1."""

_pack = msgspec.msgpack.Encoder(enc_hook=str).encode
_unpack = msgspec.msgpack.Decoder().decode

_KEPT_SECRETS = b'"secrets"'
"""In a cursor: there may be marks in it."""

_STATUS = {status.value: status for status in TaskStatus}
_WORKFLOW_STATUS = {status.value: status for status in WorkflowStatus}


def encode_state(state: dict[str, Any] | None) -> bytes | None:
    return None if state is None else STATE_FORMAT + _pack(state)


def decode_state(stored: bytes | None) -> dict[str, Any] | None:
    if stored is None:
        return None
    if stored[:1] != STATE_FORMAT:
        raise ValueError(f"a task's state in format {stored[0]} was written by a newer server")
    return _unpack(stored[1:])  # type: ignore[no-any-return]


def path_text(path: Path) -> str:
    """A path as Postgres writes an int[]."""
    return "{" + ",".join(map(str, path)) + "}"


def plain(text: str) -> str:
    """Free text as Postgres can hold it: U+0000 and lone surrogates become a question mark."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\x00", "?")


def plain_or_none(text: str | None) -> str | None:
    return None if text is None else plain(text)


def raw(value: Json | None) -> bytes | None:
    return None if value is None else value.raw


def json(stored: bytes | None) -> Json | None:
    return None if stored is None else Json(stored)


def saved_start(n: int, header: Header, metadata_revision: int | None) -> tuple[Any, ...]:
    return (
        n,
        header.id,
        header.namespace,
        header.revision,
        header.status,
        header.generation,
        header.snapshot_id,
        header.name,
        header.version,
        header.parent_id,
        header.parent_seq,
        header.priority,
        plain_or_none(header.correlation_id),
        header.created_ms,
        header.clock_ms,
        header.updated_ms,
        header.ended_ms,
        header.next_seq,
        header.open,
        header.permissive_failed,
        header.last_task,
        raw(header.cursor),
        metadata_revision,
        header.idempotency_key is not None,
    )


def saved_key(header: Header, metadata_revision: int | None) -> tuple[Any, ...]:
    return header.namespace, header.idempotency_key, header.id, header.created_ms, metadata_revision


def saved_header(n: int, header: Header) -> tuple[Any, ...]:
    return (
        n,
        header.revision,
        header.status,
        header.generation,
        header.clock_ms,
        header.updated_ms,
        header.ended_ms,
        header.next_seq,
        header.open,
        header.permissive_failed,
        header.last_task,
        raw(header.cursor),
    )


def saved_payload(n: int, header: Header) -> tuple[Any, ...]:
    """The payload of a workflow that starts."""
    return (
        n,
        raw(header.output),
        header.variables.raw,
        plain_or_none(header.reason),
        header.failed_task,
        header.input.raw,
        raw(header.task_to_domain),
        header.created_by,
        header.traceparent,
        header.idempotency_key,
    )


def changed_payload(n: int, header: Header) -> tuple[Any, ...]:
    """What may change in it."""
    unchanged = (None,) * 5
    return (
        n,
        raw(header.output),
        header.variables.raw,
        plain_or_none(header.reason),
        header.failed_task,
        *unchanged,
    )


def saved_task(n: int, row: TaskRow) -> tuple[Any, ...]:
    path, state, output, reason = row.path, row.state, row.output, row.reason
    return (
        n,
        row.seq,
        row.generation,
        row.reference,
        path_text(path) if path else "{}",
        row.attempt,
        row.scope,
        row.type,
        row.name,
        row.status,
        row.scheduled_ms,
        row.first_scheduled_ms,
        row.started_ms,
        row.updated_ms,
        row.ended_ms,
        row.retried_seq,
        row.superseded,
        row.queued,
        row.callback_after_s,
        row.poll_count,
        row.child_id,
        plain(row.worker_id),
        row.domain,
        None if reason is None else plain(reason),
        None if state is None else encode_state(state),
        row.input.raw,
        None if output is None else output.raw,
    )


def saved_change(n: int, row: TaskRow) -> tuple[Any, ...]:
    """What may change after a row's birth; not its input."""
    state, output, reason = row.state, row.output, row.reason
    return (
        n,
        row.seq,
        row.status,
        row.started_ms,
        row.updated_ms,
        row.ended_ms,
        row.superseded,
        row.queued,
        row.callback_after_s,
        row.poll_count,
        row.child_id,
        plain(row.worker_id),
        None if reason is None else plain(reason),
        None if state is None else encode_state(state),
        None if output is None else output.raw,
    )


def saved_move(n: int, row: TaskRow) -> tuple[Any, ...]:
    """A row that leaves the generation, with what may have ended it."""
    return (
        n,
        row.seq,
        row.generation,
        row.status,
        row.updated_ms,
        row.ended_ms,
        row.queued,
        plain_or_none(row.reason),
    )


def saved_birth(
    n: int, namespace: str, birth: QueueBirth, session_id: str | None, place: int
) -> tuple[Any, ...]:
    return (
        n,
        birth.seq,
        namespace,
        birth.queue,
        birth.task_type,
        99 - birth.priority,
        birth.due_ms,
        birth.size,
        birth.limit,
        birth.response_s,
        birth.timeout_s,
        birth.total_due_ms,
        birth.redeliver_on_loss,
        session_id,
        place,
    )


def saved_limited(n: int, namespace: str, birth: QueueBirth) -> tuple[Any, ...]:
    """A birth under a limit: it always waits."""
    return (
        *saved_birth(n, namespace, birth, None, 0)[:-2],
        birth.limit_name or birth.task_type,
        birth.rate,
        birth.rate_window_s,
    )


def saved_slot(n: int, header: Header, slot: Slot) -> tuple[Any, ...]:
    return (
        n,
        header.namespace,
        header.name,
        plain(slot.key),
        slot.slots,
        99 - header.priority,
        slot.arrived_ms,
        slot.holds,
        slot.refusable,
    )


def saved_attribute(n: int, header: Header, name: str, value: AttributeValue) -> tuple[Any, ...]:
    text = plain(value.text)
    return n, name, header.namespace, header.created_ms, value.kind, text, value.number


HEADER_COLUMNS = (
    "w.id, w.namespace, w.name, w.version, w.snapshot_id, w.created_ms, w.revision, w.status, w.generation,"
    " w.parent_id, w.parent_seq, w.priority, w.correlation_id, w.next_seq, w.open, w.permissive_failed,"
    " w.last_task, w.clock_ms, w.updated_ms, w.ended_ms, w.cursor, w.last_node,"
    " p.input, p.output, p.variables, p.task_to_domain, p.reason, p.failed_task, p.created_by,"
    " p.traceparent, p.idempotency_key"
)
"""Of `workflow w` and `workflow_payload p`, in the order of `Header`'s fields."""

HEADER_WIDTH = 31


def header_from(record: Any) -> Header:
    """The header in the first `HEADER_WIDTH` columns of a record (`HEADER_COLUMNS`)."""
    fields = list(record)[:HEADER_WIDTH]
    fields[0] = str(fields[0])
    fields[4] = str(fields[4])
    fields[7] = _WORKFLOW_STATUS[fields[7]]
    if fields[9] is not None:
        fields[9] = str(fields[9])
    for place in (20, 22, 23, 24, 25):
        if fields[place] is not None:
            fields[place] = Json(fields[place])
    header = Header(*fields)
    if header.cursor is not None and _KEPT_SECRETS in header.cursor.raw:
        mark_header(header)
    return header


TASK_COLUMNS = (
    "t.seq, t.generation, t.reference, t.path, t.attempt, t.scope, t.type, t.name, t.status, t.scheduled_ms,"
    " t.first_scheduled_ms, t.input, t.output, t.reason, t.started_ms, t.updated_ms, t.ended_ms, t.worker_id,"
    " t.domain, t.retried_seq, t.superseded, t.child_id, t.callback_after_s, t.poll_count, t.queued, t.state"
)
"""Of `task t`, in the order of `TaskRow`'s fields."""

TASK_WIDTH = 26


def task_from(record: Any, start: int = 0) -> TaskRow:
    """The task in `TASK_WIDTH` columns of a record from `start` on (`TASK_COLUMNS`)."""
    fields = list(record)[start : start + TASK_WIDTH]
    fields[3] = tuple(fields[3])
    fields[8] = _STATUS[fields[8]]
    fields[11] = Json(fields[11])
    if fields[12] is not None:
        fields[12] = Json(fields[12])
    if fields[21] is not None:
        fields[21] = str(fields[21])
    if fields[25] is not None:
        fields[25] = decode_state(fields[25])
    row = TaskRow(*fields)
    if row.state is not None:
        mark_row(row)
    return row
