"""Between messages and values: the only file that knows both.

Out: a value of the engine or the store becomes a message; payloads stay the bytes that they are. In:
a message becomes a value, refused where a single field is wrong. No rule lives here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from maestoso.admin.v1 import admin_pb2
from maestoso.metadata.v1 import definition_pb2
from maestoso.search.v1 import search_service_pb2
from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import bulk_pb2, workflow_pb2, workflow_service_pb2

from .. import ids
from ..engine.attributes import AttributeKind
from ..engine.decision import Outcome, Verdict
from ..engine.faults import error_name
from ..engine.names import shown_reference
from ..engine.state import Header, TaskRow, TaskStatus, WorkflowStatus
from ..errors import MaestosoError
from ..executor import KeyPolicy, StartOutcome, StartRequest
from ..executor.trial import Mock, Mocks, Run, Trial
from ..payload import Json
from ..store import lists, metadata, nodes, outbox, search, sessions
from ..store.queue import Depth
from . import documents, limits
from .explain import Waiting
from .limits import Limits, invalid
from .masking import NOTHING, Mask
from .refusals import duration, refusal, violations

PAGE_BYTES = 8 * 1024 * 1024
"""A page ends early at half of what a message may have."""

Row = TypeVar("Row")


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


Position = TypeVar("Position", bound=tuple[str | int, ...])


def page_position(token: str, first: Position, field: str = "page_token") -> Position:
    """What `page_token` was made from; `first` for an empty token. Raises InvalidArgument."""
    if not token:
        return first
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        found = msgspec.msgpack.decode(raw, type=tuple[str | int, ...])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        found = ()
    if [type(part) for part in found] != [type(part) for part in first] or not all(map(_storable, found)):
        raise invalid(field, "is not a token of this list; send the `next_page_token` of the page before")
    return cast(Position, found)


def _storable(part: str | int) -> bool:
    """Whether Postgres can compare a column with it."""
    return "\0" not in part if isinstance(part, str) else 0 <= part < 1 << 63


def fill_page(
    messages: Any,
    rows: Sequence[Row],
    *,
    size: int,
    to_message: Callable[[Row], Message],
    position: Callable[[Row], tuple[str | int, ...]],
    most_bytes: int = PAGE_BYTES,
) -> str:
    """Append at most `size` rows to a repeated field, fewer where they outgrow `most_bytes` (one at
    least). Returns the token of the next page, empty when all `rows` were taken: read one more than
    `size` to know."""
    taken = 0
    for row in rows[:size]:
        message = to_message(row)
        taken += message.ByteSize()
        if taken > most_bytes and messages:
            break
        messages.append(message)
    return page_token(*position(rows[len(messages) - 1])) if len(messages) < len(rows) else ""


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


def started(outcome: StartOutcome) -> workflow_pb2.Started:
    """A start that was accepted."""
    return workflow_pb2.Started(workflow_id=outcome.workflow_id, existing=outcome.existing)


def start_outcome(outcome: StartOutcome, refused: MaestosoError | None) -> workflow_pb2.StartOutcome:
    """One start of many, `refused` where it was not accepted."""
    if refused is not None:
        return workflow_pb2.StartOutcome(error=refusal(refused))
    return workflow_pb2.StartOutcome(started=started(outcome))


def workflow(
    header: Header, *, payloads: bool, tasks: Sequence[TaskRow] = (), mask: Mask = NOTHING
) -> workflow_pb2.Workflow:
    """An execution, with these of its tasks, as its mask lets it be seen."""
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
        tasks=[task(header.id, row, payloads=payloads, mask=mask) for row in tasks],
    )
    if payloads:
        message.input = mask.hide(header.input)
        message.output = mask.hide(header.output) if header.output else b""
        message.variables = mask.hide(header.variables)
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


_BOUNDS: tuple[Literal["created_from", "created_before"], ...] = ("created_from", "created_before")


def workflow_filter(
    request: workflow_service_pb2.ListWorkflowsRequest | bulk_pb2.BulkQuery,
) -> lists.Filter:
    """Which workflows are asked for. Raises InvalidArgument."""
    bounds = {name: milliseconds(getattr(request, name), name) for name in _BOUNDS if request.HasField(name)}
    return lists.Filter(
        name=limits.text(request.name, "name") or None,
        status=status_filter(request.status),
        correlation_id=limits.text(request.correlation_id, "correlation_id") or None,
        created_from_ms=bounds.get("created_from"),
        created_before_ms=bounds.get("created_before"),
    )


def summary(found: lists.WorkflowSummary) -> workflow_pb2.WorkflowSummary:
    """A workflow as lists show it."""
    return workflow_pb2.WorkflowSummary(
        workflow_id=found.id,
        name=found.name,
        version=found.version,
        status=workflow_status(found.status),
        correlation_id=found.correlation_id or "",
        create_time=timestamp(found.created_ms),
        end_time=timestamp(found.ended_ms),
    )


def signalled(workflow_id: str, outcome: Outcome) -> workflow_service_pb2.SignalWorkflowResponse:
    """Whether a signal has ended its task or is kept for it, and which workflow took it."""
    kept = outcome.verdict is Verdict.PARKED
    return workflow_service_pb2.SignalWorkflowResponse(
        outcome=workflow_service_pb2.SIGNAL_OUTCOME_KEPT
        if kept
        else workflow_service_pb2.SIGNAL_OUTCOME_APPLIED,
        workflow_id=workflow_id,
        task_id=ids.task_id(workflow_id, outcome.seq) if outcome.seq else "",
    )


def upgrade_report(report: Json) -> workflow_pb2.UpgradeReport:
    """What an upgrade changes (the JSON of `engine/upgrade.py`)."""
    found = report.value
    return workflow_pb2.UpgradeReport(
        from_version=found["from"]["version"],
        to_version=found["to"]["version"],
        workflow_fields=found["workflow"],
        differences=[
            workflow_pb2.Difference(
                reference=one["reference"],
                kind=workflow_pb2.DifferenceKind.Value(f"DIFFERENCE_KIND_{one['change']}"),
                fields=one["fields"],
                open_task_ids=one["open"],
            )
            for one in found["changes"]
        ],
        faults=[workflow_pb2.UpgradeNote(**note) for note in found["faults"]],
        warnings=[workflow_pb2.UpgradeNote(**note) for note in found["warnings"]],
    )


# --- tests --------------------------------------------------------------------------------------

MOCKS_MAX = 1_000
MOCK_TIMES_MAX = 100_000
MOCK_MS_MAX = 10 * 366 * 86_400_000
CHILD_DEPTH_MAX = 20


def mocks(
    message: workflow_pb2.WorkflowMocks, limits_: Limits, field: str = "mocks", depth: int = 0
) -> Mocks:
    """How the tasks of a test turn out. Raises InvalidArgument."""
    if depth > CHILD_DEPTH_MAX:
        raise invalid(field, f"lies more than {CHILD_DEPTH_MAX} workflows deep")
    tasks = {}
    for reference, listed in message.tasks.items():
        place = f"{field}.tasks[{reference[:NAMED_MAX]}].mocks"
        limits.number(len(listed.mocks), f"the length of {place}", 1, MOCKS_MAX)
        tasks[reference] = [_mock(one, limits_, f"{place}[{at}]") for at, one in enumerate(listed.mocks)]
    children = {
        reference: mocks(inner, limits_, f"{field}.children[{reference[:NAMED_MAX]}]", depth + 1)
        for reference, inner in message.children.items()
    }
    return Mocks(tasks, children)


NAMED_MAX = 60


def _mock(message: workflow_pb2.TaskMock, limits_: Limits, field: str) -> Mock:
    return Mock(
        status=mocked_status(message.status, f"{field}.status"),
        output=limits_.payload(message.output, f"{field}.output"),
        reason=limits.text(message.reason, f"{field}.reason", limits.REASON_MAX) or None,
        error_name=limits.text(message.error_name, f"{field}.error_name") or None,
        execution_ms=duration_ms(message.execution_time, f"{field}.execution_time", MOCK_MS_MAX),
        queue_wait_ms=duration_ms(message.queue_wait_time, f"{field}.queue_wait_time", MOCK_MS_MAX),
        times=limits.number(message.times, f"{field}.times", 0, MOCK_TIMES_MAX) or 1,
    )


MOCKED = (
    TaskStatus.COMPLETED,
    TaskStatus.FAILED,
    TaskStatus.FAILED_WITH_TERMINAL_ERROR,
    TaskStatus.CANCELED,
)


def mocked_status(status: int, field: str) -> TaskStatus:
    """How a mocked task ends; unspecified = COMPLETED. Raises InvalidArgument."""
    wanted = status or TaskStatus.COMPLETED
    if wanted not in MOCKED:
        names = ", ".join(one.name for one in MOCKED)
        raise invalid(field, f"is {status}; one of {names} is accepted")
    return TaskStatus(wanted)


def trial(found: Trial) -> workflow_service_pb2.TestWorkflowResponse:
    """How a test went."""
    return workflow_service_pb2.TestWorkflowResponse(
        workflow=_tried(found.root),
        children=[_tried(run) for run in found.children],
        stop=workflow_pb2.TestStop.ValueType(found.stop),
        lacking=found.lacking(),
        would_start=found.would_start,
    )


def _tried(run: Run) -> workflow_pb2.Workflow:
    rows = [row for _, row in sorted(run.rows.items())]
    return workflow(run.header, payloads=True, tasks=rows)


# --- tasks --------------------------------------------------------------------------------------


def task(workflow_id: str, row: TaskRow, *, payloads: bool, mask: Mask = NOTHING) -> task_pb2.Task:
    """One attempt of one task."""
    message = task_pb2.Task(
        task_id=ids.task_id(workflow_id, row.seq),
        workflow_id=workflow_id,
        seq=row.seq,
        reference=shown_reference(row.reference, row.path),
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
        error_name=error_name(row) or "",
    )
    if row.state is not None:
        message.unresolved.extend(row.state.get("unresolved", ()))
        message.cached = bool(row.state.get("cached"))
    if payloads:
        message.input = mask.hide(row.input)
        message.output = mask.hide(row.output) if row.output else b""
    return message


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


def updated_status(status: int) -> TaskStatus:
    """What an update by reference makes of its task; unspecified = COMPLETED. Raises InvalidArgument."""
    if status == TaskStatus.IN_PROGRESS:
        return TaskStatus.IN_PROGRESS
    return signalled_status(status)


# --- definitions --------------------------------------------------------------------------------


def overwrite(rule: int) -> metadata.Overwrite:
    """What a put does to what exists; unspecified = REFUSE. Raises InvalidArgument."""
    try:
        return metadata.Overwrite(rule or metadata.Overwrite.REFUSE)
    except ValueError:
        raise invalid("overwrite", f"is {rule}, which this server does not know") from None


def workflow_definition(
    found: metadata.Definition, *, document: bool = True
) -> definition_pb2.WorkflowDefinition:
    """A registered workflow definition with the facts that its document tells."""
    facts = documents.workflow_facts(found.document)
    return definition_pb2.WorkflowDefinition(
        name=found.name,
        version=found.version,
        document=found.document if document else b"",
        description=facts.description,
        owner_email=facts.owner_email,
        create_time=timestamp(found.created_ms),
        created_by=found.created_by,
        update_time=timestamp(found.updated_ms),
        updated_by=found.updated_by,
        task_count=sum(facts.task_counts.values()),
        task_counts=facts.task_counts,
    )


def task_definition(found: metadata.Definition, *, document: bool = True) -> definition_pb2.TaskDefinition:
    """A registered task definition with the facts that its document tells."""
    facts = documents.task_facts(found.document)
    return definition_pb2.TaskDefinition(
        name=found.name,
        document=found.document if document else b"",
        description=facts.description,
        owner_email=facts.owner_email,
        create_time=timestamp(found.created_ms),
        created_by=found.created_by,
        update_time=timestamp(found.updated_ms),
        updated_by=found.updated_by,
    )


def put_result(judged: documents.Judged, outcome: metadata.Put | None) -> definition_pb2.PutResult:
    """What became of one document; `outcome` None = it has faults."""
    return definition_pb2.PutResult(
        name=judged.name,
        version=judged.version,
        outcome=definition_pb2.PUT_OUTCOME_INVALID
        if outcome is None
        else definition_pb2.PutOutcome.ValueType(outcome),
        warnings=violations(judged.warnings),
        violations=violations(judged.faults),
    )


# --- events -------------------------------------------------------------------------------------


def event(found: outbox.StoredEvent, *, body: bool, mask: Mask = NOTHING) -> admin_pb2.Event:
    """An event of the outbox, as the mask of its workflow lets it be seen."""
    return admin_pb2.Event(
        event_id=found.id,
        queue=found.queue,
        message_id=found.message_id,
        workflow_id=found.workflow_id,
        create_time=timestamp(found.created_ms),
        acknowledge_time=timestamp(found.acknowledged_ms),
        body=mask.hide_text(found.body) if body else b"",
    )


# --- administration -----------------------------------------------------------------------------


def node(row: nodes.NodeRow) -> admin_pb2.Node:
    """One server process."""
    return admin_pb2.Node(
        node_id=row.node_id,
        epoch=row.epoch,
        grpc_address=row.grpc_address,
        http_address=row.http_address,
        version=row.version,
        start_time=timestamp(row.started_ms),
        lease_end_time=timestamp(row.lease_until_ms),
        draining=row.draining,
        degraded=row.degraded,
    )


SESSION_STATES = {
    "ACTIVE": admin_pb2.SESSION_STATE_ACTIVE,
    "DETACHED": admin_pb2.SESSION_STATE_DETACHED,
    "EXPIRED": admin_pb2.SESSION_STATE_EXPIRED,
}


def session_filter(state: int) -> str | None:
    """The state that a list is asked for; None = any. Raises InvalidArgument."""
    if not state:
        return None
    for stored, wanted in SESSION_STATES.items():
        if wanted == state:
            return stored
    raise invalid("state", f"is {state}, which this server does not know")


def session(row: sessions.Session) -> admin_pb2.Session:
    """One worker stream."""
    return admin_pb2.Session(
        session_id=row.session_id,
        namespace=row.namespace,
        worker_id=row.worker_id,
        node_epoch=row.epoch,
        task_types=[offer(queue) for queue in row.task_types],
        principal=row.principal,
        sdk=row.sdk,
        state=SESSION_STATES[row.state],
        connect_time=timestamp(row.connected_ms),
        expire_time=timestamp(row.expires_ms or 0),
    )


def offer(queue: str) -> task_pb2.TaskTypeOffer:
    """What a queue's name (`domain:type`, or just the type) stands for."""
    domain, _, task_type = queue.rpartition(":")
    return task_pb2.TaskTypeOffer(task_type=task_type, domain=domain)


def queue(depth: Depth, *, has_worker: bool) -> admin_pb2.Queue:
    """A queue in which tasks wait."""
    name = offer(depth.queue)
    return admin_pb2.Queue(
        task_type=name.task_type,
        domain=name.domain,
        depth=depth.depth,
        oldest_age=duration(depth.oldest_age_ms),
        depth_capped=not depth.exact,
        has_worker=has_worker,
    )


def open_task(workflow_id: str, waiting: Waiting) -> admin_pb2.OpenTask:
    """One open task and what it waits for."""
    row = waiting.row
    return admin_pb2.OpenTask(
        task_id=ids.task_id(workflow_id, row.seq),
        reference=shown_reference(row.reference, row.path),
        task_type=row.type,
        status=task_status(row.status),
        attempt=row.attempt,
        schedule_time=timestamp(row.scheduled_ms),
        cause=admin_pb2.WaitCause.ValueType(waiting.cause),
        explanation=waiting.explanation,
        due_time=timestamp(waiting.due_ms),
        worker_id=waiting.worker_id,
        child_workflow_id=row.child_id or "",
        references=waiting.references,
        queue=waiting.queue,
    )


def namespace(name: str, created_ms: int) -> admin_pb2.Namespace:
    """A namespace. `default` was there before the first moment."""
    return admin_pb2.Namespace(name=name, create_time=timestamp(created_ms))


# --- searches -----------------------------------------------------------------------------------


def found_workflow(found: search.FoundWorkflow) -> search_service_pb2.FoundWorkflow:
    """A workflow as results show it."""
    return search_service_pb2.FoundWorkflow(
        workflow=summary(
            lists.WorkflowSummary(
                found.id,
                found.name,
                found.version,
                found.status,
                found.correlation_id,
                found.created_ms,
                found.ended_ms,
            )
        ),
        update_time=timestamp(found.updated_ms),
        parent_workflow_id=found.parent_id or "",
        priority=found.priority,
        created_by=found.created_by,
        idempotency_key=found.idempotency_key or "",
        reason=found.reason or "",
        attributes=[_attribute(attribute) for attribute in found.attributes],
    )


def _attribute(found: search.FoundAttribute) -> search_service_pb2.SearchAttribute:
    message = search_service_pb2.SearchAttribute(name=found.name)
    if found.kind == AttributeKind.TEXT:
        message.text = found.text
    elif found.kind == AttributeKind.NUMBER:
        message.number = found.text
    elif found.kind == AttributeKind.BOOLEAN:
        message.boolean = found.text == "true"
    else:
        message.fault = found.text
    return message


def found_task(found: search.FoundTask) -> search_service_pb2.FoundTask:
    """A task as results show it."""
    return search_service_pb2.FoundTask(
        task=task(found.workflow_id, found.row, payloads=False),
        workflow_name=found.workflow_name,
        correlation_id=found.correlation_id or "",
    )


def total(count: int, *, exact: bool) -> search_service_pb2.Total:
    """A count, and whether there may be more."""
    relation = search_service_pb2.RELATION_EXACT if exact else search_service_pb2.RELATION_AT_LEAST
    return search_service_pb2.Total(count=count, relation=relation)
