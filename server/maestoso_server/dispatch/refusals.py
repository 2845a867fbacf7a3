"""A refusal as the message that travels inside frames and acknowledgements."""

from __future__ import annotations

from maestoso.error.v1.error_pb2 import Error

from ..errors import MaestosoError


def error_message(refusal: MaestosoError) -> Error:
    rule = refusal.rule
    message = Error(
        reason=int(refusal.reason),  # type: ignore[arg-type]
        message=refusal.message,
        retryable=rule.retryable,
        remedy=rule.remedy,
    )
    if refusal.retry_after_ms is not None:
        message.retry_after.FromMilliseconds(refusal.retry_after_ms)
    for fault in refusal.violations:
        message.violations.add(path=fault.path, message=fault.message, line=fault.line, column=fault.column)
    return message
