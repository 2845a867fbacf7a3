"""`onStateChange`: which events a node tells when its status changes.

The keys are comma lists of names. Both Orkes' words (`onScheduled`, `onStart`, `onSuccess`,
`onFailed`, `onCancelled`) and `on` with a status (`onTIMED_OUT`, `onCompletedWithErrors`) are read,
in any case.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..definitions.models import StateChangeEvent
from ..definitions.state_changes import statuses_of
from .expressions import Template, compile_template
from .state import TaskStatus

KEYS = {status: status.name for status in TaskStatus}
TOLD_AT_BIRTH = {TaskStatus.IN_PROGRESS: (TaskStatus.SCHEDULED, TaskStatus.IN_PROGRESS)}
"""A row that starts where it is made was scheduled in the same moment."""


@dataclass(slots=True, frozen=True)
class Change:
    """One event to tell."""

    type: str
    payload: Template


def compile_changes(
    given: dict[str, list[StateChangeEvent]],
) -> dict[TaskStatus, tuple[Change, ...]] | None:
    """The events by the status that tells them; None where there are none."""
    found: dict[TaskStatus, list[Change]] = {}
    for key, events in given.items():
        names, _ = statuses_of(key)
        for name in names:
            told = found.setdefault(TaskStatus[name], [])
            told.extend(Change(event.type, compile_template(event.payload)) for event in events if event.type)
    return {status: tuple(changes) for status, changes in found.items() if changes} or None
