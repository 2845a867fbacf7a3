"""Mock and Mocks: how tasks turn out in a test of a workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from google.protobuf.duration_pb2 import Duration

from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import workflow_pb2

from . import _json

Status = Literal["COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR", "CANCELED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mock:
    """How one attempt of a task turns out; `times`: so many attempts, one after the other.

    `execution_time` and `queue_wait_time` are seconds of the test's own time, which passes at once: a
    task that takes longer than its definition allows times out.
    """

    output: Mapping[str, Any] | bytes = field(default_factory=dict)
    status: Status = "COMPLETED"
    reason: str = ""
    error_name: str = ""
    execution_time: float = 0.0
    queue_wait_time: float = 0.0
    times: int = 1

    def message(self) -> workflow_pb2.TaskMock:
        """The same as a message."""
        return workflow_pb2.TaskMock(
            status=task_pb2.TaskStatus.Value(f"TASK_STATUS_{self.status}"),
            output=self.output if isinstance(self.output, bytes) else _json.dumps(self.output),
            reason=self.reason,
            error_name=self.error_name,
            execution_time=_duration(self.execution_time),
            queue_wait_time=_duration(self.queue_wait_time),
            times=self.times,
        )


OfTasks = Mapping[str, Mock | Sequence[Mock]]
"""By task reference: one mock, or one for each attempt."""


@dataclass(frozen=True, slots=True)
class Mocks:
    """The mocks of one workflow. `tasks`: `ref` holds for all turns of a loop together, `ref__2` for the
    second one alone; a SUB_WORKFLOW task with a mock starts nothing. `children`: by the reference of a
    SUB_WORKFLOW task, the mocks of the workflow that it runs.
    """

    tasks: OfTasks = field(default_factory=dict)
    children: Mapping[str, Mocks] = field(default_factory=dict)

    def message(self) -> workflow_pb2.WorkflowMocks:
        """The same as a message."""
        return workflow_pb2.WorkflowMocks(
            tasks={name: _listed(given) for name, given in self.tasks.items()},
            children={name: given.message() for name, given in self.children.items()},
        )


def _listed(given: Mock | Sequence[Mock]) -> workflow_pb2.TaskMocks:
    mocks = [given] if isinstance(given, Mock) else given
    return workflow_pb2.TaskMocks(mocks=[mock.message() for mock in mocks])


def _duration(seconds: float) -> Duration | None:
    if not seconds:
        return None
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
