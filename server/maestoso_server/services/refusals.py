"""A refusal as it travels: the message `maestoso.error.v1.Error`, on gRPC and on HTTP.

gRPC carries it as the binary trailer `maestoso-error-bin`. Peers refuse metadata beyond 8 KiB, base64
and status text included, so the trailer has a limit of its own and counts what it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from maestoso.error.v1 import error_pb2

from ..errors import MaestosoError, Violation

ERROR_TRAILER = "maestoso-error-bin"
TRAILER_BYTES_MAX = 4_096
MESSAGE_MAX = 900
"""Characters of the message in the trailer: up to 2,700 bytes, with room for the rest."""
_FRAMING_BYTES = 8
"""Tag and length of a field, with a byte or two to spare."""


def refusal(error: MaestosoError) -> error_pb2.Error:
    """The whole refusal."""
    rule = error.rule
    return error_pb2.Error(
        reason=error_pb2.Reason.ValueType(error.reason),
        message=error.message,
        violations=violations(error.violations),
        retryable=rule.retryable,
        retry_after=None if error.retry_after_ms is None else duration(error.retry_after_ms),
        remedy=rule.remedy,
    )


def violations(faults: Iterable[Violation]) -> list[error_pb2.Violation]:
    """Faults of a request or document."""
    return [
        error_pb2.Violation(path=fault.path, message=fault.message, line=fault.line, column=fault.column)
        for fault in faults
    ]


def duration(ms: int) -> Duration:
    """A length of time, not negative."""
    return Duration(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def trailer(error: MaestosoError) -> bytes:
    """The refusal as at most `TRAILER_BYTES_MAX` bytes: violations that do not fit are counted."""
    message = refusal(error)
    message.message = message.message[:MESSAGE_MAX]
    violations = list(message.violations)
    del message.violations[:]
    room = TRAILER_BYTES_MAX - message.ByteSize() - _FRAMING_BYTES
    for violation in violations:
        size = violation.ByteSize() + _FRAMING_BYTES
        if size <= room:
            message.violations.append(violation)
            room -= size
    message.omitted_violations = len(violations) - len(message.violations)
    return message.SerializeToString()
