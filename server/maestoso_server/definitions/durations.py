"""Durations and points in time as definitions write them: Conductor's forms, and ISO 8601.

Fields are strict (no 31 February, no minute 75) and a time without a zone is UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_PARTS = re.compile(
    r"\s*(?:(?P<d>\d{1,9})\s*(?:days?|d))?"
    r"\s*(?:(?P<h>\d{1,9})\s*(?:hours?|hrs?|h))?"
    r"\s*(?:(?P<m>\d{1,9})\s*(?:minutes?|mins?|m))?"
    r"\s*(?:(?P<s>\d{1,9})\s*(?:seconds?|secs?|s))?\s*",
    re.IGNORECASE | re.ASCII,
)
_ISO_DURATION = re.compile(
    r"P(?:(?P<w>\d{1,9})W)?(?:(?P<d>\d{1,9})D)?"
    r"(?:T(?=\d)(?:(?P<h>\d{1,9})H)?(?:(?P<m>\d{1,9})M)?(?:(?P<s>\d{1,9})(?:[.,](?P<f>\d{1,9}))?S)?)?",
    re.IGNORECASE | re.ASCII,
)
_MOMENT = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<time>\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)"
    r"(?:\s*(?P<zone>[A-Za-z][A-Za-z0-9:+-]*|[+-][\d:]+))?)?",
    re.ASCII,
)
_OFFSET = re.compile(r"(?:(?:GMT|UTC)(?=[+-]))?(?P<sign>[+-])(?P<h>\d{1,2}):?(?P<m>\d{2})?", re.ASCII)
_ZONE_HOURS = {
    "Z": 0.0, "UTC": 0.0, "GMT": 0.0, "UT": 0.0, "WET": 0.0, "WEST": 1.0, "BST": 1.0, "CET": 1.0, "CEST": 2.0,
    "EET": 2.0, "EEST": 3.0, "MSK": 3.0, "IST": 5.5, "JST": 9.0, "KST": 9.0, "AEST": 10.0, "AEDT": 11.0,
    "EST": -5.0, "EDT": -4.0, "CST": -6.0, "CDT": -5.0, "MST": -7.0, "MDT": -6.0, "PST": -8.0, "PDT": -7.0,
    "AKST": -9.0, "AKDT": -8.0, "HST": -10.0,
}  # fmt: skip
_UNIT_MS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration_ms(text: str) -> int:
    """Milliseconds of `1d 2h 30m 10s` (days, hours, minutes, seconds in that order, each optional,
    also in words) or of an ISO 8601 duration without years and months. Raises ValueError."""
    for form in (_ISO_DURATION, _PARTS):
        found = form.fullmatch(text.strip())
        if found is None:
            continue
        parts = found.groupdict()
        fraction = parts.pop("f", None)
        given = {unit: int(value) for unit, value in parts.items() if value is not None}
        if given:
            millis = int((fraction or "0").ljust(3, "0")[:3])
            return sum(value * _UNIT_MS[unit] for unit, value in given.items()) + millis
    raise ValueError(
        f"not a duration: {text!r}; write parts such as 1d 2h 30m 10s, or ISO 8601 such as PT90S"
    )


def parse_moment_ms(text: str) -> int:
    """Milliseconds since 1970 UTC of `yyyy-MM-dd`, `yyyy-MM-dd HH:mm`, the same with a zone (`PST`,
    `GMT+04:00`), or an ISO 8601 date-time. Raises ValueError."""
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a point in time: {text!r}; write yyyy-MM-dd HH:mm, or ISO 8601")
    time = (found["time"] or "00:00").replace(",", ".")
    whole, _, fraction = time.partition(".")
    moment = datetime.fromisoformat(f"{found['date']}T{whole}").replace(tzinfo=_zone(found["zone"] or "Z"))
    millis = int(fraction.ljust(3, "0")[:3]) if fraction else 0
    return (moment - _EPOCH) // timedelta(milliseconds=1) + millis


def _zone(text: str) -> timezone:
    hours = _ZONE_HOURS.get(text.upper())
    if hours is not None:
        return timezone(timedelta(hours=hours))
    found = _OFFSET.fullmatch(text.upper())
    if found is None or int(found["h"]) > 18 or int(found["m"] or 0) > 59:
        raise ValueError(f"not a known time zone: {text!r}; write an offset such as +02:00, or UTC")
    offset = timedelta(hours=int(found["h"]), minutes=int(found["m"] or 0))
    return timezone(-offset if found["sign"] == "-" else offset)
