"""From what a worker reports to an event for the engine, and from its outcome to an acknowledgement.

A bad payload refuses that item and nothing else: its delivery lives on, so that the worker can
report something better. Nothing here waits.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from maestoso.error.v1.error_pb2 import Error
from maestoso.task.v1.task_pb2 import (
    RESULT_OUTCOME_ACCEPTED,
    RESULT_OUTCOME_REFUSED,
    RESULT_OUTCOME_STALE,
    RESULT_OUTCOME_UNAVAILABLE,
    ResultOutcome,
    TaskResult,
)

from ..engine.decision import Outcome, Verdict
from ..engine.events import Result
from ..engine.state import TaskStatus
from ..errors import FailedPrecondition, InvalidArgument, MaestosoError, NotFound, Reason, Unavailable
from ..json_text import check_object
from ..payload import EMPTY, Json
from .refusals import error_message

REASON_MAX = 500
"""Characters of a task's reason."""
ERROR_NAME_MAX = 255
LOG_LINES_MAX = 1_000
LOG_LINE_MAX = 4_096
"""Characters; a longer line of a report is cut."""
CALLBACK_MAX_S = 31_536_000
RETRY_LATER_MS = 1_000

Answer = tuple["ResultOutcome.ValueType", Error | None]

ACCEPTED: Answer = (RESULT_OUTCOME_ACCEPTED, None)


def to_event(
    result: TaskResult,
    *,
    seq: int,
    delivery: int | None,
    worker_id: str,
    started_ms: int,
    now_ms: int,
    max_payload_bytes: int,
) -> Result:
    """The event of one reported result. Raises InvalidArgument where it must be refused."""
    kind = result.WhichOneof("result")
    event = Result(
        now_ms=now_ms,
        seq=seq,
        status=TaskStatus.COMPLETED,
        delivery=delivery,
        worker_id=worker_id,
        started_ms=started_ms,
    )
    if kind == "output":
        event.output = payload(result.output, "output", max_payload_bytes)
    elif kind == "failure":
        _failed(event, result, max_payload_bytes)
    elif kind == "callback":
        event.status = TaskStatus.IN_PROGRESS
        event.callback_after_s = _seconds(result.callback.after, "callback.after")
        event.output = payload(result.callback.output, "callback.output", max_payload_bytes)
    elif kind == "canceled":
        event.status = TaskStatus.CANCELED
        event.reason = result.canceled.reason[:REASON_MAX] or "canceled by the worker"
    else:
        raise InvalidArgument(
            Reason.INVALID_REQUEST, "a result without output, failure, callback or canceled: set exactly one"
        )
    return event


def _failed(event: Result, result: TaskResult, max_payload_bytes: int) -> None:
    failure = result.failure
    event.status = TaskStatus.FAILED_WITH_TERMINAL_ERROR if failure.terminal else TaskStatus.FAILED
    said = f"{failure.type}: {failure.message}" if failure.type and failure.message else failure.message
    event.reason = (said or failure.type or "failed without a message")[:REASON_MAX]
    event.error_name = failure.error_name[:ERROR_NAME_MAX] or None
    if failure.HasField("retry_after"):
        event.retry_after_s = _seconds(failure.retry_after, "failure.retry_after")
    if result.failure_output:
        event.output = payload(result.failure_output, "failure_output", max_payload_bytes)


def payload(raw: bytes, path: str, max_bytes: int) -> Json:
    """A JSON object as it came; empty bytes are {}. Raises InvalidArgument."""
    return check_object(raw, field=path, limit=max_bytes) if raw else EMPTY


def _seconds(duration: Duration, path: str) -> int:
    """Whole seconds, rounded up, so that nothing happens earlier than asked for."""
    seconds = duration.seconds + (1 if duration.nanos > 0 else 0)
    if not 0 <= seconds <= CALLBACK_MAX_S:
        raise InvalidArgument(
            Reason.INVALID_REQUEST, f"{path} is {seconds} s: 0 to {CALLBACK_MAX_S} are allowed"
        )
    return seconds


def answer_to(outcome: Outcome | Exception) -> Answer:
    """What to tell the worker about an event's outcome."""
    if isinstance(outcome, Outcome):
        if outcome.verdict is Verdict.APPLIED:
            return ACCEPTED
        if outcome.verdict is Verdict.REFUSED:
            refusal = FailedPrecondition(Reason.WRONG_STATE, outcome.reason)
            return RESULT_OUTCOME_REFUSED, error_message(refusal)
        return stale(outcome.reason)
    if isinstance(outcome, NotFound):
        return stale(outcome.message)
    if isinstance(outcome, MaestosoError) and not outcome.rule.retryable:
        return RESULT_OUTCOME_REFUSED, error_message(outcome)
    return unavailable()


def stale(why: str) -> Answer:
    return RESULT_OUTCOME_STALE, error_message(FailedPrecondition(Reason.STALE_TOKEN, why))


def refused(refusal: MaestosoError) -> Answer:
    return RESULT_OUTCOME_REFUSED, error_message(refusal)


def unavailable() -> Answer:
    refusal = Unavailable(
        Reason.STORE_UNAVAILABLE,
        "the result could not be stored: keep it and report it again",
        retry_after_ms=RETRY_LATER_MS,
    )
    return RESULT_OUTCOME_UNAVAILABLE, error_message(refusal)
