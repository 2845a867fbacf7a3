"""The keys of `onStateChange`: comma lists of the changes that an event is told for."""

from __future__ import annotations

_WORDS = {
    "scheduled": ("SCHEDULED",),
    "start": ("IN_PROGRESS",),
    "started": ("IN_PROGRESS",),
    "inprogress": ("IN_PROGRESS",),
    "success": ("COMPLETED",),
    "completed": ("COMPLETED",),
    "completedwitherrors": ("COMPLETED_WITH_ERRORS",),
    "failed": ("FAILED", "FAILED_WITH_TERMINAL_ERROR"),
    "failedwithterminalerror": ("FAILED_WITH_TERMINAL_ERROR",),
    "timedout": ("TIMED_OUT",),
    "cancelled": ("CANCELED",),
    "canceled": ("CANCELED",),
    "skipped": ("SKIPPED",),
}


def statuses_of(key: str) -> tuple[list[str], list[str]]:
    """(names of the task statuses that a key stands for, its words that mean nothing)."""
    found: dict[str, None] = {}
    unknown = []
    for given in key.split(","):
        word = given.strip()
        lower = word.lower().replace("_", "")
        statuses = _WORDS.get(lower.removeprefix("on")) if lower.startswith("on") else None
        if statuses is None:
            unknown.append(word)
        else:
            found.update(dict.fromkeys(statuses))
    return list(found), unknown
