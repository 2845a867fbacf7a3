"""What workflows tell one another: the bodies of inbox messages, both ways.

A body is JSON. Payloads inside it are spliced in and cut out as text, never parsed.
"""

from __future__ import annotations

from typing import Any

from ..definitions.keys import KeyPolicy
from ..payload import EMPTY, Json, Raw, Record, encode, reader
from .decision import MessageKind
from .events import (
    ChangeVariables,
    ChildEnded,
    ChildPlaced,
    ChildRevived,
    Continue,
    Event,
    Follow,
    Jump,
    Keep,
    Pause,
    Remove,
    Rerun,
    Restart,
    Result,
    Resume,
    Retry,
    Signal,
    Skip,
    SlotGranted,
    Start,
    Terminate,
    UpdateTask,
    Upgrade,
)
from .secrets import marks_of, with_marks
from .state import Header, TaskStatus

ABSENT = Raw()
"""A payload that is not there: a member that is text cannot also be null."""


class _Body(Record, omit_defaults=True):
    """All fields that bodies have; each kind uses some."""

    seq: int = 0
    child: str = ""
    status: int = 0
    output: Raw = ABSENT
    reason: str | None = None
    input: Raw = ABSENT
    domains: Raw = ABSENT
    namespace: str = ""
    name: str = ""
    version: int = 0
    snapshot: str = ""
    parent: str = ""
    priority: int = 0
    correlation: str | None = None
    created_by: str = ""
    traceparent: str = ""
    resume: bool = False
    by_parent: bool = False
    reference: str | None = None
    delivery: int | None = None
    error: str | None = None
    worker: str = ""
    started_ms: int = 0
    callback_s: int = 0
    retry_s: int | None = None
    command: str = ""
    renamed: str | None = None
    compensate: bool = False
    generation: int = 0
    keep: int = int(Keep.ALWAYS)
    trigger: bool = False
    replace: bool = False
    secrets: list[Any] | None = None
    dry_run: bool = False
    key: str | None = None
    key_policy: int = 0
    asker: str = ""
    answers: bool = False
    workflow: str = ""


_read = reader(_Body)


def _json(body: _Body) -> Json:
    return Json(encode(body))


def _raw(value: Json | None) -> Raw:
    return ABSENT if value is None else Raw(value.raw)


def _payload(raw: Raw) -> Json | None:
    text = bytes(raw)
    return Json(text) if text else None


# --- between parent and child ----------------------------------------------------------------


def child_start(
    header: Header,
    seq: int,
    *,
    name: str,
    version: int,
    snapshot_id: str,
    input: Json,
    task_to_domain: Json | None,
    priority: int,
    correlation_id: str | None = None,
    orphan: bool = False,
    secretive: bool = False,
    key: tuple[str, KeyPolicy] | None = None,
) -> Json:
    """CHILD_START, to the id of the child: all that its header needs. An `orphan` has no parent
    and will tell nobody of its end. `secretive`: there may be placeholders in the input. With an
    idempotency `key` the asker is told what the start came to (CHILD_PLACED): an orphan's always, a
    parent where the key was used."""
    return _json(
        _Body(
            namespace=header.namespace,
            name=name,
            version=version,
            snapshot=snapshot_id,
            parent="" if orphan else header.id,
            seq=seq,
            input=_raw(input),
            domains=_raw(task_to_domain),
            priority=priority,
            correlation=correlation_id or header.correlation_id,
            created_by=header.created_by,
            traceparent=header.traceparent,
            secrets=(marks_of(input) or None) if secretive else None,
            key=key[0] if key else None,
            key_policy=int(key[1]) if key else 0,
            asker=header.id if key else "",
            answers=key is not None and orphan,
        )
    )


def child_header(workflow_id: str, body: bytes, now_ms: int) -> Header:
    """The header of the workflow that a CHILD_START asks for; insert it with revision 0."""
    told = _read(body)
    header = Header(
        id=workflow_id,
        namespace=told.namespace,
        name=told.name,
        version=told.version,
        snapshot_id=told.snapshot,
        created_ms=now_ms,
        parent_id=told.parent or None,
        parent_seq=told.seq if told.parent else 0,
        priority=told.priority,
        correlation_id=told.correlation,
        clock_ms=now_ms,
        updated_ms=now_ms,
        input=_payload(told.input) or EMPTY,
        task_to_domain=_payload(told.domains),
        created_by=told.created_by,
        traceparent=told.traceparent,
        idempotency_key=told.key,
    )
    if told.secrets:
        header.input = with_marks(header.input, told.secrets)
    return header


def child_placed(seq: int, child_id: str, workflow_id: str, reason: str | None) -> Json:
    """CHILD_PLACED, to the asker of a start with an idempotency key."""
    return _json(_Body(seq=seq, child=child_id, workflow=workflow_id, reason=reason))


def follow(workflow_id: str, seq: int) -> Json:
    """FOLLOW, to a workflow whose outcome a task wants that did not start it."""
    return _json(_Body(asker=workflow_id, seq=seq))


def child_ended(header: Header, error: str | None = None, *, seq: int | None = None) -> Json:
    """CHILD_ENDED, to the parent, or to the task `seq` of a follower. `error`: the name of the error that
    it failed with, where it has one."""
    return _json(
        _Body(
            seq=header.parent_seq if seq is None else seq,
            child=header.id,
            status=int(header.status),
            output=_raw(header.output),
            reason=header.reason,
            name=header.name,
            version=header.version,
            error=error,
        )
    )


def child_terminate(reason: str, *, compensate: bool = False) -> Json:
    """CHILD_TERMINATE, to a child whose parent has ended, or that is not wanted any more.
    `compensate`: it undoes what it has completed, since nobody else will."""
    return _json(_Body(reason=reason, by_parent=True, compensate=compensate))


def child_revived(header: Header) -> Json:
    """CHILD_REVIVED, to the parent of a workflow that runs again."""
    return _json(_Body(seq=header.parent_seq, child=header.id))


def child_retry(*, resume: bool) -> Json:
    """CHILD_RETRY, to a child whose parent runs again."""
    return _json(_Body(resume=resume))


def slot_granted(refused: str | None) -> Json:
    """SLOT_GRANTED, to a workflow that waits for its slot."""
    return _json(_Body(reason=refused))


# --- to oneself, and from outside through the inbox --------------------------------------------


def continuation(generation: int) -> Json:
    return _json(_Body(generation=generation))


def signal(event: Signal) -> Json:
    return _json(
        _Body(
            reference=event.reference,
            status=int(event.status),
            output=_raw(event.output),
            reason=event.reason,
            keep=int(event.keep),
        )
    )


def result(event: Result) -> Json:
    return _json(
        _Body(
            seq=event.seq,
            status=int(event.status),
            delivery=event.delivery,
            output=_raw(event.output),
            reason=event.reason,
            error=event.error_name,
            worker=event.worker_id,
            started_ms=event.started_ms,
            callback_s=event.callback_after_s,
            retry_s=event.retry_after_s,
        )
    )


_COMMANDS: dict[str, type[Event]] = {
    "pause": Pause,
    "resume": Resume,
    "terminate": Terminate,
    "retry": Retry,
    "restart": Restart,
    "rerun": Rerun,
    "skip": Skip,
    "jump": Jump,
    "variables": ChangeVariables,
    "update": UpdateTask,
    "remove": Remove,
    "upgrade": Upgrade,
}
_COMMAND_NAMES = {made: name for name, made in _COMMANDS.items()}


def command(event: Event) -> Json:
    """COMMAND: an operator's command on its way through the inbox."""
    body = _Body(command=_COMMAND_NAMES[type(event)])
    if isinstance(event, Terminate):
        body.reason = event.reason
        body.by_parent = event.by_parent
        body.trigger = event.trigger_failure
        body.compensate = event.compensate
    elif isinstance(event, Retry):
        body.resume = event.resume_children
    elif isinstance(event, Restart):
        body.snapshot = event.snapshot_id or ""
        body.renamed = event.name
        body.version = event.version or 0
    elif isinstance(event, Rerun):
        body.seq, body.correlation = event.seq, event.correlation_id
        body.input, body.output = _raw(event.input), _raw(event.task_input)
    elif isinstance(event, Skip):
        body.reference = event.reference
        body.input, body.output = _raw(event.input), _raw(event.output)
    elif isinstance(event, Jump):
        body.reference, body.input = event.reference, _raw(event.input)
    elif isinstance(event, ChangeVariables):
        body.input, body.replace = _raw(event.variables), event.replace
    elif isinstance(event, UpdateTask):
        body.reference, body.status = event.reference, int(event.status)
        body.output, body.reason = _raw(event.output), event.reason
    elif isinstance(event, Upgrade):
        body.snapshot = event.snapshot_id
        body.renamed = event.name
        body.version = event.version or 0
        body.dry_run = event.dry_run
    return _json(body)


# --- reading -----------------------------------------------------------------------------------


def decode(kind: MessageKind, body: bytes, *, now_ms: int, seed: int = 0) -> Event:
    """The event that a message stands for. A CHILD_START also needs `child_header`."""
    told = _read(body)
    stamp: dict[str, Any] = {"now_ms": now_ms, "seed": seed}
    if kind == MessageKind.CHILD_START:
        return Start(
            told=True,
            key_policy=KeyPolicy(told.key_policy or KeyPolicy.FAIL),
            asked_by=told.asker,
            asked_seq=told.seq,
            answers=told.answers,
            **stamp,
        )
    if kind == MessageKind.CHILD_PLACED:
        return ChildPlaced(
            seq=told.seq, child_id=told.child, workflow_id=told.workflow, reason=told.reason, **stamp
        )
    if kind == MessageKind.FOLLOW:
        return Follow(by=told.asker, seq=told.seq, **stamp)
    if kind == MessageKind.SLOT_GRANTED:
        return SlotGranted(refused=told.reason, **stamp)
    if kind == MessageKind.CHILD_ENDED:
        return ChildEnded(
            seq=told.seq,
            child_id=told.child,
            status=told.status,
            output=_payload(told.output),
            reason=told.reason,
            name=told.name,
            version=told.version,
            error_name=told.error,
            **stamp,
        )
    if kind == MessageKind.CHILD_TERMINATE:
        return Terminate(reason=told.reason or "", by_parent=True, compensate=told.compensate, **stamp)
    if kind == MessageKind.CHILD_REVIVED:
        return ChildRevived(seq=told.seq, child_id=told.child, **stamp)
    if kind == MessageKind.CHILD_RETRY:
        return Retry(resume_children=told.resume, by_parent=True, **stamp)
    if kind == MessageKind.CONTINUE:
        return Continue(**stamp)
    if kind == MessageKind.SIGNAL:
        return _signal(told, stamp)
    if kind == MessageKind.RESULT:
        return _result(told, stamp)
    return _command(told, stamp)


def parked_signal(body: Any) -> Signal:
    """A parked signal as `ParkedSignals` answers it."""
    return _signal(_read(body if isinstance(body, bytes) else encode(body)), {"now_ms": 0})


def _signal(told: _Body, stamp: dict[str, Any]) -> Signal:
    return Signal(
        reference=told.reference,
        status=TaskStatus(told.status),
        output=_payload(told.output) or EMPTY,
        reason=told.reason,
        keep=Keep(told.keep),
        **stamp,
    )


def _result(told: _Body, stamp: dict[str, Any]) -> Result:
    return Result(
        seq=told.seq,
        status=TaskStatus(told.status),
        delivery=told.delivery,
        output=_payload(told.output),
        reason=told.reason,
        error_name=told.error,
        worker_id=told.worker,
        started_ms=told.started_ms,
        callback_after_s=told.callback_s,
        retry_after_s=told.retry_s,
        **stamp,
    )


def _command(told: _Body, stamp: dict[str, Any]) -> Event:
    made = _COMMANDS[told.command]
    if made is Terminate:
        return Terminate(
            reason=told.reason or "",
            by_parent=told.by_parent,
            trigger_failure=told.trigger,
            compensate=told.compensate,
            **stamp,
        )
    if made is Retry:
        return Retry(resume_children=told.resume, **stamp)
    if made is Restart:
        return Restart(
            snapshot_id=told.snapshot or None, name=told.renamed, version=told.version or None, **stamp
        )
    if made is Upgrade:
        return Upgrade(
            snapshot_id=told.snapshot,
            name=told.renamed,
            version=told.version or None,
            dry_run=told.dry_run,
            **stamp,
        )
    input, output, reference = _payload(told.input), _payload(told.output), told.reference or ""
    if made is Rerun:
        return Rerun(seq=told.seq, input=input, task_input=output, correlation_id=told.correlation, **stamp)
    if made is Skip:
        return Skip(reference=reference, input=input or EMPTY, output=output or EMPTY, **stamp)
    if made is Jump:
        return Jump(reference=reference, input=input, **stamp)
    if made is ChangeVariables:
        return ChangeVariables(variables=input or EMPTY, replace=told.replace, **stamp)
    if made is UpdateTask:
        return UpdateTask(
            reference=reference,
            status=TaskStatus(told.status),
            output=output or EMPTY,
            reason=told.reason,
            **stamp,
        )
    return made(**stamp)
