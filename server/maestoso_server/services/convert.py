"""Between messages and values: the only file that knows both.

Out: a value of the engine or the store becomes a message; payloads stay the bytes that they are. In:
a message becomes a value, refused where a single field is wrong. No rule lives here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import workflow_pb2

from .. import ids
from ..engine.state import Header, Path, TaskRow, TaskStatus, WorkflowStatus
from ..executor import KeyPolicy, StartRequest
from ..payload import Json
from . import limits
from .limits import Limits, invalid

# --- time and pages -----------------------------------------------------------------------------


def timestamp(ms: int) -> Timestamp | None:
    """A moment; 0 = none."""
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000) if ms else None


def milliseconds(moment: Timestamp, field: str) -> int:
    """The first whole millisecond not before `moment`. Raises InvalidArgument outside 1970 to 9999."""
    limits.number(moment.seconds, f"{field}.seconds", 0, 253_402_300_799)
    limits.number(moment.nanos, f"{field}.nanos", 0, 999_999_999)
    return moment.seconds * 1000 + -(-moment.nanos // 1_000_000)


def duration_ms(length: Duration, field: str, most_ms: int) -> int:
    """A length of time of at most `most_ms`. Raises InvalidArgument."""
    ms = length.seconds * 1000 + length.nanos // 1_000_000
    if not 0 <= ms <= most_ms:
        raise invalid(field, f"is {ms} ms; 0 to {most_ms:,} ms is accepted")
    return ms


def page_token(*position: str | int) -> str:
    """Where the next page begins: the key of the last row sent. Opaque to callers."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(position)).decode().rstrip("=")


def page_position(
    token: str, kinds: tuple[type, ...], field: str = "page_token"
) -> tuple[str | int, ...] | None:
    """What `page_token` was made from, None for an empty token. Raises InvalidArgument."""
    if not token:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        position = msgspec.msgpack.decode(raw)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        position = None
    if not isinstance(position, list) or tuple(type(part) for part in position) != kinds:
        raise invalid(field, "is not a token of this list; send the `next_page_token` of the page before")
    return tuple(position)


# --- workflows ----------------------------------------------------------------------------------


def start_request(
    start: workflow_pb2.WorkflowStart,
    *,
    namespace: str,
    created_by: str,
    limits_: Limits,
    field: str = "start",
) -> StartRequest:
    """What to start, without its inline definition, which the caller judges. Raises InvalidArgument."""
    if not start.definition:
        limits.name(start.name, f"{field}.name")
    elif start.version:
        raise invalid(f"{field}.version", "must be 0 with an inline definition, which has its own version")
    policy = start.idempotency_strategy
    if policy and not start.idempotency_key:
        raise invalid(f"{field}.idempotency_strategy", "needs an idempotency_key")
    return StartRequest(
        namespace=namespace,
        name=start.name,
        version=limits.number(start.version, f"{field}.version", 0, 2**31 - 1) or None,
        input=limits_.payload(start.input, f"{field}.input"),
        correlation_id=limits.text(start.correlation_id, f"{field}.correlation_id") or None,
        priority=limits.number(start.priority, f"{field}.priority", 0, 99),
        task_to_domain=domains(start.task_to_domain, f"{field}.task_to_domain"),
        idempotency_key=limits.text(start.idempotency_key, f"{field}.idempotency_key") or None,
        key_policy=key_policy(policy, f"{field}.idempotency_strategy"),
        traceparent=limits.text(start.traceparent, f"{field}.traceparent", 55),
        created_by=created_by,
    )


def key_policy(strategy: int, field: str) -> KeyPolicy:
    """What a used idempotency key means; unspecified = FAIL. Raises InvalidArgument."""
    try:
        return KeyPolicy(strategy or KeyPolicy.FAIL)
    except ValueError:
        raise invalid(field, f"is {strategy}, which this server does not know") from None


def domains(routes: Mapping[str, str], field: str) -> Json | None:
    """Where tasks are routed, in the order of the names; None = nowhere in particular."""
    for task_type, route in routes.items():
        limits.name(task_type, f"{field} (a key)")
        limits.name(route, f"{field}.{task_type}")
    return Json.of({task_type: routes[task_type] for task_type in sorted(routes)}) if routes else None


def workflow(header: Header, *, payloads: bool, tasks: Sequence[TaskRow] = ()) -> workflow_pb2.Workflow:
    """An execution, with these of its tasks."""
    message = workflow_pb2.Workflow(
        workflow_id=header.id,
        name=header.name,
        version=header.version,
        status=workflow_status(header.status),
        revision=header.revision,
        generation=header.generation,
        correlation_id=header.correlation_id or "",
        priority=header.priority,
        create_time=timestamp(header.created_ms),
        update_time=timestamp(header.updated_ms),
        end_time=timestamp(header.ended_ms),
        parent_workflow_id=header.parent_id or "",
        parent_task_id=ids.task_id(header.parent_id, header.parent_seq) if header.parent_id else "",
        task_to_domain=header.task_to_domain.value if header.task_to_domain else None,
        reason=header.reason or "",
        failed_task_id=ids.task_id(header.id, header.failed_task) if header.failed_task else "",
        created_by=header.created_by,
        traceparent=header.traceparent,
        idempotency_key=header.idempotency_key or "",
        task_count=header.next_seq - 1,
        open_task_count=header.open,
        tasks=[task(header.id, row, payloads=payloads) for row in tasks],
    )
    if payloads:
        message.input = header.input.raw
        message.output = header.output.raw if header.output else b""
        message.variables = header.variables.raw
    return message


def workflow_status(status: WorkflowStatus) -> workflow_pb2.WorkflowStatus.ValueType:
    """Both enums have the same numbers (a test holds them together)."""
    return workflow_pb2.WorkflowStatus.ValueType(status)


def status_filter(status: int) -> WorkflowStatus | None:
    """The status that a list is asked for; None = any. Raises InvalidArgument."""
    try:
        return WorkflowStatus(status) if status else None
    except ValueError:
        raise invalid("status", f"is {status}, which this server does not know") from None


# --- tasks --------------------------------------------------------------------------------------


def task(workflow_id: str, row: TaskRow, *, payloads: bool) -> task_pb2.Task:
    """One attempt of one task."""
    message = task_pb2.Task(
        task_id=ids.task_id(workflow_id, row.seq),
        workflow_id=workflow_id,
        seq=row.seq,
        reference=reference(row.reference, row.path),
        task_type=row.type,
        name=row.name,
        status=task_status(row.status),
        attempt=row.attempt,
        iteration=row.path,
        reason=row.reason or "",
        schedule_time=timestamp(row.scheduled_ms),
        start_time=timestamp(row.started_ms),
        end_time=timestamp(row.ended_ms),
        worker_id=row.worker_id,
        domain=row.domain,
        child_workflow_id=row.child_id or "",
        retried_task_id=ids.task_id(workflow_id, row.retried_seq) if row.retried_seq else "",
        generation=row.generation,
    )
    if payloads:
        message.input = row.input.raw
        message.output = row.output.raw if row.output else b""
    return message


def reference(base: str, path: Path) -> str:
    """Conductor's name of a task inside loops: `work__2`, `work__2__1` when nested."""
    return base + "".join(f"__{turn}" for turn in path)


def task_status(status: TaskStatus) -> task_pb2.TaskStatus.ValueType:
    """Both enums have the same numbers (a test holds them together)."""
    return task_pb2.TaskStatus.ValueType(status)


SIGNALLED = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.FAILED_WITH_TERMINAL_ERROR)


def signalled_status(status: int) -> TaskStatus:
    """How a signal ends its task; unspecified = COMPLETED. Raises InvalidArgument."""
    wanted = status or TaskStatus.COMPLETED
    if wanted not in SIGNALLED:
        raise invalid("status", f"is {status}; COMPLETED, FAILED or FAILED_WITH_TERMINAL_ERROR is accepted")
    return TaskStatus(wanted)
