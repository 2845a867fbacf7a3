"""Everything that can go wrong, and whether a repeat can help.

    MaestosoError
    ├── ServerError                 the server refused a request, or could not be reached
    │   ├── InvalidArgument             a field or a document is wrong: see `violations`
    │   ├── NotFound                    no such namespace, definition, workflow, task, node
    │   ├── AlreadyExists               a definition, namespace or idempotency key is taken
    │   ├── FailedPrecondition          the state forbids it
    │   ├── Aborted                     somebody else was faster
    │   ├── Unauthenticated             no credential, or not a valid one
    │   ├── PermissionDenied            the principal may not do this
    │   ├── ResourceExhausted           too much at once; retryable
    │   ├── Unavailable                 no server, or a server without its database; retryable
    │   ├── DeadlineExceeded            no answer in time: it may have happened or not
    │   ├── Unimplemented               the server does not offer this
    │   └── Internal                    a fault of the server
    └── TaskError                   raised by a handler to end its task
        ├── TaskFailed                  a technical failure; retried unless `terminal`
        │   ├── InvalidInput                the input does not fit the handler; terminal
        │   └── InvalidOutput               the returned value is not JSON; terminal
        ├── BusinessError               an outcome with a name that the definition can catch
        └── TaskCanceled                the handler refuses to run this task

Any other exception that leaves a handler is a failure that the retry policy decides about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc.aio

    from maestoso.error.v1 import error_pb2

_TRAILER = "maestoso-error-bin"


class MaestosoError(Exception):
    """The root of all errors that this package raises."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a request or document: where, and what to do. Lines and columns from 1, 0 = unknown."""

    path: str
    message: str
    line: int = 0
    column: int = 0


class ServerError(MaestosoError):
    """The server refused a request, or could not be reached.

    `reason` is the name of a `maestoso.error.v1.Reason` without its prefix, such as
    `WORKFLOW_NOT_FOUND`; empty where no server answered. `retry_after` is in seconds.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        violations: tuple[Violation, ...] = (),
        retryable: bool | None = None,
        retry_after: float | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.violations = violations
        self.retry_after = retry_after
        self.remedy = remedy
        if retryable is not None:
            self.retryable = retryable


class InvalidArgument(ServerError):
    """A field of the request, or a document in it, is wrong: see `violations`."""


class NotFound(ServerError):
    """No such namespace, definition, workflow, task, node or session."""


class AlreadyExists(ServerError):
    """A definition, a namespace or an idempotency key is taken."""


class FailedPrecondition(ServerError):
    """The state of the workflow or task forbids the operation."""


class Aborted(ServerError):
    """Somebody else was faster."""


class Unauthenticated(ServerError):
    """No credential was sent, or it is not valid."""


class PermissionDenied(ServerError):
    """The principal may not do this."""


class ResourceExhausted(ServerError):
    """Too much at once: wait for `retry_after` seconds and repeat."""

    retryable = True


class Unavailable(ServerError):
    """No server can be reached, or it cannot reach its database."""

    retryable = True


class DeadlineExceeded(ServerError):
    """No answer came in time. What was asked may have happened."""


class Unimplemented(ServerError):
    """The server does not offer this operation."""


class Internal(ServerError):
    """A fault of the server; the id in the message is in its log."""


class TaskError(MaestosoError):
    """Raised by a handler to end its task in a way of its own."""


class TaskFailed(TaskError):
    """The attempt failed. The retry policy decides what follows, unless `terminal` forbids a retry.

    `retry_after`: wait at least so many seconds before the next attempt. `output`: a JSON object
    that is kept with the failed task.
    """

    def __init__(
        self,
        message: str,
        *,
        terminal: bool = False,
        retry_after: float | None = None,
        output: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.terminal = terminal
        self.retry_after = retry_after
        self.output = output


class InvalidInput(TaskFailed):
    """The task's input does not fit the handler's parameters; another attempt would not either."""

    def __init__(self, message: str) -> None:
        super().__init__(message, terminal=True)


class InvalidOutput(TaskFailed):
    """What the handler returned cannot be written as a JSON object."""

    def __init__(self, message: str) -> None:
        super().__init__(message, terminal=True)


class BusinessError(TaskError):
    """An outcome that the business knows by name, such as `CARD_DECLINED`; it is not retried."""

    def __init__(self, name: str, message: str = "", *, output: Mapping[str, Any] | None = None) -> None:
        super().__init__(message or name)
        self.name = name
        self.output = output


class TaskCanceled(TaskError):
    """The attempt ends as CANCELED: the handler refuses to run this task."""


def from_rpc(error: grpc.aio.AioRpcError) -> ServerError:
    """The refusal behind a failed call: the trailer's if there is one, else the bare status."""
    cls = _BY_STATUS.get(error.code().name, Internal)
    trailer = next((value for key, value in error.trailing_metadata() or () if key == _TRAILER), None)
    if not isinstance(trailer, bytes):
        return cls(error.details() or error.code().name)
    from maestoso.error.v1 import error_pb2

    return from_message(error_pb2.Error.FromString(trailer), cls)


def from_message(error: error_pb2.Error, cls: type[ServerError] | None = None) -> ServerError:
    """The exception that says what an `Error` message says; the reason chooses its class if none is given."""
    from maestoso.error.v1 import error_pb2

    try:
        reason = error_pb2.Reason.Name(error.reason).removeprefix("REASON_")
    except ValueError:  # a reason of a newer server
        reason = str(error.reason)
    return (cls or _BY_REASON.get(reason, Internal))(
        error.message,
        reason=reason,
        violations=tuple(Violation(v.path, v.message, v.line, v.column) for v in error.violations),
        retryable=error.retryable,
        retry_after=error.retry_after.ToNanoseconds() / 1e9 if error.HasField("retry_after") else None,
        remedy=error.remedy,
    )


_BY_STATUS: dict[str, type[ServerError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": AlreadyExists,
    "FAILED_PRECONDITION": FailedPrecondition,
    "ABORTED": Aborted,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "UNAVAILABLE": Unavailable,
    "CANCELLED": Unavailable,  # not by us, which raises CancelledError: gRPC's word for a server that stops
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNIMPLEMENTED": Unimplemented,
}

# The reasons as they are commented in error.proto, for items that carry an Error and no status.
_BY_REASON: dict[str, type[ServerError]] = {
    "INVALID_REQUEST": InvalidArgument,
    "INVALID_DEFINITION": InvalidArgument,
    "INVALID_JSON": InvalidArgument,
    "TOO_LARGE": InvalidArgument,
    "BAD_FRAME": InvalidArgument,
    "NAMESPACE_NOT_FOUND": NotFound,
    "DEFINITION_NOT_FOUND": NotFound,
    "WORKFLOW_NOT_FOUND": NotFound,
    "TASK_NOT_FOUND": NotFound,
    "NODE_NOT_FOUND": NotFound,
    "DEFINITION_EXISTS": AlreadyExists,
    "IDEMPOTENCY_CONFLICT": AlreadyExists,
    "NAMESPACE_EXISTS": AlreadyExists,
    "WRONG_STATE": FailedPrecondition,
    "STALE_TOKEN": FailedPrecondition,
    "SESSION_SUPERSEDED": Aborted,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "STORE_UNAVAILABLE": Unavailable,
    "NODE_STOPPING": Unavailable,
    "OVERLOADED": ResourceExhausted,
    "UNIMPLEMENTED": Unimplemented,
}
