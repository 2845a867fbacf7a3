"""Every reason that the engine writes, word for word what Conductor's users match against (K16)."""

from __future__ import annotations

from collections.abc import Sequence

from .state import TaskStatus, WorkflowStatus

REASON_MAX = 500
"""Characters of a reason that are kept, as in Conductor."""


def short(text: str | None) -> str | None:
    return text if text is None or len(text) <= REASON_MAX else text[:REASON_MAX]


def task_failed(task: str, status: WorkflowStatus, reason: str | None) -> str:
    return f"Task {task} failed with status: {status.name} and reason: '{_shown(reason)}'"


def permissive_failed(task: str, status: TaskStatus, reason: str | None) -> str:
    return f"Task {task} failed with status: {status.name} and reason: '{_shown(reason)}'"


def timed_out(elapsed_s: int, limit_s: int, policy: str) -> str:
    return (
        f"Task timed out after {elapsed_s} seconds. Timeout configured as {limit_s} seconds. "
        f"Timeout policy configured to {policy}"
    )


def poll_timed_out(elapsed_s: int, limit_s: int, policy: str) -> str:
    return (
        f"Task poll timed out after {elapsed_s} seconds. Poll timeout configured as {limit_s} seconds. "
        f"Timeout policy configured to {policy}"
    )


def response_timed_out(limit_s: int, task: str, name: str) -> str:
    return f"responseTimeout: {limit_s} exceeded for the taskId: {task} with Task Definition: {name}"


def total_timed_out(name: str, task: str, limit_s: int, elapsed_s: int, policy: str) -> str:
    return (
        f"Task {name}/{task} exceeded total timeout of {limit_s} seconds (elapsed {elapsed_s} seconds "
        f"across all attempts including retry delays). Timeout policy: {policy}"
    )


def no_time_to_retry(task: str, name: str, limit_s: int, elapsed_s: int) -> str:
    return (
        f"Task {task}/{name} exceeded total timeout of {limit_s} seconds (elapsed {elapsed_s} seconds "
        "across all attempts). No further retries will be attempted."
    )


def workflow_timed_out(elapsed_s: int, limit_s: int, policy: str) -> str:
    return (
        f"Workflow timed out after {elapsed_s} seconds. Timeout configured as {limit_s} seconds. "
        f"Timeout policy configured to {policy}"
    )


def terminated_by_task(status: WorkflowStatus, task: str) -> str:
    return f"Workflow is {status.name} by TERMINATE task: {task}"


def child_failed(name: str, version: int | None, child_id: str, reason: str | None) -> str:
    shown = name if version is None else f"{name}.{version}"
    return f"Sub workflow {shown}/{child_id} failure reason: {_shown(reason)}"


def parent_ended(status: WorkflowStatus, reason: str | None) -> str:
    if reason:
        return f"Parent workflow has been terminated with reason: {reason}"
    return f"Parent workflow has been terminated with status {status.name}"


def swept(guard: str) -> str:
    """Of a row that was open in a part of a TRY (or in a workflow that compensates) that failed."""
    return (
        f"Canceled: another task inside TRY {guard} has failed"
        if guard
        else "Canceled: the workflow has failed"
    )


_NAMED_MAX = 5


def not_compensated(names: list[str], count: int) -> str:
    shown = ", ".join(names[:_NAMED_MAX])
    return f"Compensation of {shown}{' and others' if count > _NAMED_MAX else ''} failed."


def with_addition(reason: str | None, addition: str | None) -> str | None:
    """Both, whatever has to go of the first one."""
    if addition is None:
        return reason
    return f"{(reason or '')[: REASON_MAX - len(addition) - 1]} {addition}".strip()


def workflow_too_large(size: int, workflow: str, limit: int) -> str:
    told = f"The payload size: {size} of workflow: {workflow}"
    return f"{told} is greater than the permissible limit: {limit} bytes"


def task_too_large(size: int, task: str, workflow: str, limit: int) -> str:
    return (
        f"The payload size: {size} of task: {task} in workflow: {workflow}  "
        f"is greater than the permissible limit: {limit} bytes"
    )


def breaks_schema(what: str, schema: str, faults: Sequence[tuple[str, str]]) -> str:
    """`faults` are (path, message), at least one."""
    path, message = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"The {what} does not match the {schema}: {path}: {message}{more}"


def unresolved(expression: str, place: str) -> str:
    return f"{expression} in {place} finds nothing, and the definition has onMissing: error"


def variables_too_large(size: int, workflow: str, limit_kb: int) -> str:
    return (
        f"The variables payload size: {size} of workflow: {workflow} is greater than "
        f"the permissible limit: {limit_kb} kilobytes"
    )


def _shown(reason: str | None) -> str:
    return "null" if reason is None else reason


WORKER_LOST = "worker lost"
NO_TASKS = "No tasks found to be executed"
FORK_WITHOUT_JOIN = "Fork task definition is not followed by a join task.  Check the blueprint"
DYNAMIC_FORK_WITHOUT_JOIN = (
    "Dynamic join definition is not followed by a join task.  Check the workflow definition."
)
TERMINATION_STATUS = "given termination status is not valid"


def never_read(name: str) -> str:
    return f"task {name} was delivered 5 times in a row and no worker is known to have read it"
