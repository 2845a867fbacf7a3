"""What can be asked about: the fields of workflows and of tasks, with their types and aliases."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

STATUSES = {
    "workflow": {1: "RUNNING", 2: "PAUSED", 3: "COMPLETED", 4: "FAILED", 5: "TIMED_OUT", 6: "TERMINATED"},
    "task": {
        1: "SCHEDULED",
        2: "IN_PROGRESS",
        3: "COMPLETED",
        4: "COMPLETED_WITH_ERRORS",
        5: "FAILED",
        6: "FAILED_WITH_TERMINAL_ERROR",
        7: "TIMED_OUT",
        8: "CANCELED",
        9: "SKIPPED",
    },
}
"""The numbers are those that the engine stores; a test holds them against its enums."""


class Kind(Enum):
    """Types of values, in the words of a refusal."""

    ID = "a UUID"
    TASK_ID = "a task's id (a UUID)"
    TEXT = "a text"
    NUMBER = "a whole number"
    TIME = "a time: milliseconds since 1970, or ISO 8601 such as 2026-11-25T08:00:00Z"
    STATUS = "a status"


@dataclass(frozen=True, eq=False)
class Field:
    """One field. `optional`: it may be missing. `sortable`: results can be ordered by it."""

    name: str
    kind: Kind
    aliases: tuple[str, ...] = ()
    optional: bool = False
    sortable: bool = True
    of: str = ""
    """Whose statuses, for a STATUS."""

    @property
    def statuses(self) -> dict[int, str]:
        """Number -> name; empty where it is no STATUS."""
        return STATUSES.get(self.of, {})


class Subject:
    """What is searched for, and its fields by name and alias."""

    def __init__(self, noun: str, *fields: Field) -> None:
        self.noun = noun
        self.fields = fields
        self.by_name = {name: field for field in fields for name in (field.name, *field.aliases)}


WORKFLOWS = Subject(
    "workflow",
    Field("workflowId", Kind.ID, ("id",)),
    Field("workflowType", Kind.TEXT, ("name", "workflowName")),
    Field("version", Kind.NUMBER, ("workflowVersion",)),
    Field("status", Kind.STATUS, ("workflowStatus",), of="workflow"),
    Field("correlationId", Kind.TEXT, optional=True),
    Field("startTime", Kind.TIME, ("createTime", "createdTime")),
    Field("endTime", Kind.TIME, optional=True),
    Field("updateTime", Kind.TIME, ("updatedTime", "modifiedTime")),
    Field("parentWorkflowId", Kind.ID, optional=True, sortable=False),
    Field("priority", Kind.NUMBER),
    Field("createdBy", Kind.TEXT, optional=True, sortable=False),
    Field("idempotencyKey", Kind.TEXT, optional=True, sortable=False),
    Field("reasonForIncompletion", Kind.TEXT, ("reason",), optional=True, sortable=False),
)

TASKS = Subject(
    "task",
    Field("taskId", Kind.TASK_ID, sortable=False),
    Field("taskType", Kind.TEXT),
    Field("taskDefName", Kind.TEXT, ("taskName",)),
    Field("referenceTaskName", Kind.TEXT, ("taskReferenceName", "taskRefName")),
    Field("status", Kind.STATUS, ("taskStatus",), of="task"),
    Field("retryCount", Kind.NUMBER, ("attempt",)),
    Field("scheduledTime", Kind.TIME, ("scheduleTime",)),
    Field("startTime", Kind.TIME, optional=True),
    Field("endTime", Kind.TIME, optional=True),
    Field("updateTime", Kind.TIME, ("updatedTime",), optional=True),
    Field("workerId", Kind.TEXT, optional=True, sortable=False),
    Field("domain", Kind.TEXT, optional=True, sortable=False),
    Field("reasonForIncompletion", Kind.TEXT, ("reason",), optional=True, sortable=False),
    Field("workflowId", Kind.ID, ("workflowInstanceId",), sortable=False),
    Field("workflowType", Kind.TEXT, ("workflowName",)),
    Field("workflowStatus", Kind.STATUS, of="workflow"),
    Field("workflowStartTime", Kind.TIME, ("workflowCreateTime",)),
    Field("correlationId", Kind.TEXT, optional=True),
)
