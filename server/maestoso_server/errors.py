"""Refusals: one exception per gRPC code, one table of reasons that gRPC and HTTP share.

    MaestosoError
     ├─ InvalidArgument      the request is wrong, whatever the state of the server
     ├─ NotFound             what it names does not exist
     ├─ AlreadyExists        what it would make exists
     ├─ FailedPrecondition   not in this state
     ├─ Aborted              another took its place
     ├─ ResourceExhausted    too much at once
     ├─ Unauthenticated      nobody knows who is asking
     ├─ PermissionDenied     who asks may not
     ├─ Unavailable          not now; the same request can succeed later
     ├─ Unimplemented        not offered
     └─ Internal             our fault

Expected outcomes (a failed task, a stale report) are values, never one of these. A message says
what was asked, what was found and what to do. The table is the README's and the wire's too: a test
holds it against the enum of `maestoso/error/v1/error.proto`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

VIOLATIONS_MAX = 1_000
"""Faults listed in one refusal; more help nobody and could outgrow a trailer."""


class Reason(IntEnum):
    """Why, for programs. Names and numbers are those of the proto enum."""

    INVALID_REQUEST = 1
    INVALID_DEFINITION = 2
    INVALID_JSON = 3
    TOO_LARGE = 4
    NAMESPACE_NOT_FOUND = 5
    DEFINITION_NOT_FOUND = 6
    WORKFLOW_NOT_FOUND = 7
    TASK_NOT_FOUND = 8
    NODE_NOT_FOUND = 9
    DEFINITION_EXISTS = 10
    IDEMPOTENCY_CONFLICT = 11
    WRONG_STATE = 12
    STALE_TOKEN = 13
    UNAUTHENTICATED = 14
    PERMISSION_DENIED = 15
    STORE_UNAVAILABLE = 16
    NODE_STOPPING = 17
    OVERLOADED = 18
    SESSION_SUPERSEDED = 19
    BAD_FRAME = 20
    INTERNAL = 21
    NAMESPACE_EXISTS = 22
    UNIMPLEMENTED = 23


class Code(IntEnum):
    """The gRPC status codes that we use, with gRPC's numbers: floors below the services have no grpc."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Rule:
    """What follows from a reason. `retryable`: the very same request can succeed later."""

    code: Code
    http: int
    retryable: bool
    remedy: str


RULES: dict[Reason, Rule] = {
    Reason.INVALID_REQUEST: Rule(
        Code.INVALID_ARGUMENT, 400, False, "Correct the fields named in the violations."
    ),
    Reason.INVALID_DEFINITION: Rule(
        Code.INVALID_ARGUMENT, 400, False, "Correct the document at the paths named in the violations."
    ),
    Reason.INVALID_JSON: Rule(
        Code.INVALID_ARGUMENT, 400, False, "Send JSON text in UTF-8, without NaN and without duplicate keys."
    ),
    Reason.TOO_LARGE: Rule(
        Code.INVALID_ARGUMENT, 413, False, "Send less at once, or store it elsewhere and send its address."
    ),
    Reason.NAMESPACE_NOT_FOUND: Rule(
        Code.NOT_FOUND, 404, False, "Create the namespace, or name one that exists; empty means `default`."
    ),
    Reason.DEFINITION_NOT_FOUND: Rule(
        Code.NOT_FOUND, 404, False, "Register the definition, or name a version that is registered."
    ),
    Reason.WORKFLOW_NOT_FOUND: Rule(
        Code.NOT_FOUND, 404, False, "Check the id and the namespace; an old execution may have been removed."
    ),
    Reason.TASK_NOT_FOUND: Rule(Code.NOT_FOUND, 404, False, "Check the task's id and the namespace."),
    Reason.NODE_NOT_FOUND: Rule(
        Code.NOT_FOUND, 404, False, "List the nodes or sessions again: it may have ended."
    ),
    Reason.DEFINITION_EXISTS: Rule(
        Code.ALREADY_EXISTS, 409, False, "Register a new version, or ask to overwrite this one."
    ),
    Reason.IDEMPOTENCY_CONFLICT: Rule(
        Code.ALREADY_EXISTS,
        409,
        False,
        "Use another key, or RETURN_EXISTING to get the workflow that has it.",
    ),
    Reason.WRONG_STATE: Rule(
        Code.FAILED_PRECONDITION, 409, False, "Read the workflow again: its state forbids this."
    ),
    Reason.STALE_TOKEN: Rule(
        Code.FAILED_PRECONDITION,
        409,
        False,
        "Drop the result: the delivery is over and another may be under way.",
    ),
    Reason.UNAUTHENTICATED: Rule(
        Code.UNAUTHENTICATED, 401, False, "Send a valid credential in the `authorization` metadata."
    ),
    Reason.PERMISSION_DENIED: Rule(
        Code.PERMISSION_DENIED, 403, False, "Ask for a key that allows this action in this namespace."
    ),
    Reason.STORE_UNAVAILABLE: Rule(
        Code.UNAVAILABLE, 503, True, "Repeat after the given time; look at the database if it lasts."
    ),
    Reason.NODE_STOPPING: Rule(Code.UNAVAILABLE, 503, True, "Repeat: another node answers."),
    Reason.OVERLOADED: Rule(
        Code.RESOURCE_EXHAUSTED, 429, True, "Repeat after the given time, and send less at once."
    ),
    Reason.SESSION_SUPERSEDED: Rule(
        Code.ABORTED, 409, False, "Close this stream: a newer one of the same session goes on."
    ),
    Reason.BAD_FRAME: Rule(
        Code.INVALID_ARGUMENT, 400, False, "Correct the frame; the stream lives on unless it was the first."
    ),
    Reason.INTERNAL: Rule(
        Code.INTERNAL, 500, False, "Report it with the id in the message: the server's log has the details."
    ),
    Reason.NAMESPACE_EXISTS: Rule(
        Code.ALREADY_EXISTS, 409, False, "Use the namespace that is there, or choose another name."
    ),
    Reason.UNIMPLEMENTED: Rule(Code.UNIMPLEMENTED, 501, False, "Use a server that offers this operation."),
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a request or document. Line and column count from 1; 0 = unknown."""

    path: str
    message: str
    line: int = 0
    column: int = 0


class MaestosoError(Exception):
    """A refused request. Raise one of the classes below, whose code is the reason's."""

    code: ClassVar[Code]

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_after_ms: int | None = None,
    ) -> None:
        assert RULES[reason].code is self.code, f"{reason.name} is not {type(self).__name__}"
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = tuple(violations[:VIOLATIONS_MAX])
        self.retry_after_ms = retry_after_ms

    @property
    def rule(self) -> Rule:
        """Code, HTTP status, retryability and remedy."""
        return RULES[self.reason]


class InvalidArgument(MaestosoError):
    """The request is wrong, whatever the state of the server."""

    code = Code.INVALID_ARGUMENT


class NotFound(MaestosoError):
    """What the request names does not exist."""

    code = Code.NOT_FOUND


class AlreadyExists(MaestosoError):
    """What the request would make exists."""

    code = Code.ALREADY_EXISTS


class FailedPrecondition(MaestosoError):
    """The state of the workflow or task forbids it."""

    code = Code.FAILED_PRECONDITION


class Aborted(MaestosoError):
    """Another took its place."""

    code = Code.ABORTED


class ResourceExhausted(MaestosoError):
    """Too much at once."""

    code = Code.RESOURCE_EXHAUSTED


class Unauthenticated(MaestosoError):
    """Nobody knows who is asking."""

    code = Code.UNAUTHENTICATED


class PermissionDenied(MaestosoError):
    """Who asks may not."""

    code = Code.PERMISSION_DENIED


class Unavailable(MaestosoError):
    """Not now; the same request can succeed later."""

    code = Code.UNAVAILABLE


class Unimplemented(MaestosoError):
    """Not offered."""

    code = Code.UNIMPLEMENTED


class Internal(MaestosoError):
    """Our fault. The message carries an id that is in the log, and nothing else."""

    code = Code.INTERNAL
