"""What is answered about an event that changed nothing."""

from __future__ import annotations

from .decision import Outcome, Verdict


def stale(reason: str) -> Outcome:
    """It came too late, or again, or is about something superseded."""
    return Outcome(Verdict.STALE, reason)


def refused(reason: str) -> Outcome:
    """The workflow's state forbids it."""
    return Outcome(Verdict.REFUSED, reason)


def absent(reason: str) -> Outcome:
    """The workflow has no such task."""
    return Outcome(Verdict.ABSENT, reason)


def behind() -> Outcome:
    """It has to wait until a cursor is used up."""
    return Outcome(Verdict.BEHIND, "the workflow is still being ended")
