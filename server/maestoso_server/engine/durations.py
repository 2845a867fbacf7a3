"""When a WAIT ends. The texts are read by `definitions.durations`."""

from __future__ import annotations

from typing import Any

from ..definitions.durations import parse_duration_ms, parse_moment_ms

_FOREVER_MS = 2**62


class WaitError(ValueError):
    """The inputs of a WAIT mean no point in time; the text is the task's reason, and it is final."""


def wait_due_ms(duration: Any, until: Any, now_ms: int) -> int | None:
    """When a WAIT with these resolved inputs is over; None when only a signal ends it.

    Neither input, or blank ones, wait for a signal. A time in the past is due at once.
    """
    lasting, moment = _text(duration), _text(until)
    if lasting and moment:
        raise WaitError("Both 'duration' and 'until' specified. Please provide only one input")
    if lasting:
        try:
            return min(now_ms + parse_duration_ms(lasting), _FOREVER_MS)
        except ValueError as error:
            raise WaitError(f"Invalid/Unsupported Wait duration.  Provided: {lasting} ({error})") from error
    if moment:
        try:
            return parse_moment_ms(moment)
        except ValueError as error:
            raise WaitError(f"Invalid/Unsupported Wait Until format.  Provided: {moment}") from error
    return None


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
