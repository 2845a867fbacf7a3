"""The policy of a node, resolved once: how often it is tried again and which clocks it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..definitions.models import NO_SLOT_LIMIT, TaskDefinition, TaskTimeoutPolicy
from ..definitions.schemas import compile_schema

if TYPE_CHECKING:
    from .state import TaskRow

RETRY = 0
TIME_OUT_WF = 1
ALERT_ONLY = 2

_TIMEOUT_POLICIES = {
    TaskTimeoutPolicy.RETRY: RETRY,
    TaskTimeoutPolicy.TIME_OUT_WF: TIME_OUT_WF,
    TaskTimeoutPolicy.ALERT_ONLY: ALERT_ONLY,
}


class Policy:
    """Seconds are whole, 0 = the clock is off."""

    __slots__ = (
        "definition",
        "frees",
        "input_schema",
        "limit",
        "limits",
        "output_schema",
        "poll_s",
        "queue_suffix",
        "redeliver_on_loss",
        "response_s",
        "retries",
        "row_clock",
        "timeout_policy",
        "timeout_s",
        "total_s",
    )

    def __init__(
        self, definition: TaskDefinition, retries: int, *, is_operator: bool, is_system: bool
    ) -> None:
        self.definition = definition
        self.retries = retries
        self.timeout_policy = _TIMEOUT_POLICIES[definition.timeout_policy]
        self.timeout_s = max(definition.timeout_seconds, 0)
        self.poll_s = 0 if is_operator else max(definition.poll_timeout_seconds or 0, 0)
        self.total_s = max(definition.total_timeout_seconds, 0)
        self.response_s = 0 if is_operator else max(definition.response_timeout_seconds, 0)
        self.limits = definition.limits
        self.limit = self.limits.slots if self.limits.any and not is_operator else 0
        """0 where nothing is limited; its rows are handed out under a lock else."""
        self.frees = 0 < self.limit < NO_SLOT_LIMIT
        """The end of a row lets another one run."""
        self.queue_suffix = queue_suffix(definition, is_system=is_system)
        asked = definition.redeliver_on_loss
        enforced = definition.enforce_schema
        self.input_schema = compile_schema(definition.input_schema) if enforced else None
        self.output_schema = compile_schema(definition.output_schema) if enforced else None
        self.redeliver_on_loss = is_system if asked is None else asked
        self.row_clock = bool(self.total_s or (self.timeout_s if is_operator else self.poll_s))
        """Its rows have a row in `deadline` from birth."""

    @property
    def clocks(self) -> tuple[int, ...]:
        """All that the clocks of an attempt depend on."""
        return self.timeout_policy, self.timeout_s, self.poll_s, self.total_s, self.response_s

    def with_clocks(self, clocks: Sequence[int]) -> Policy:
        """The same policy with the clocks of another one."""
        made = Policy.__new__(Policy)
        for slot in Policy.__slots__:
            setattr(made, slot, getattr(self, slot))
        made.timeout_policy, made.timeout_s, made.poll_s, made.total_s, made.response_s = clocks
        made.row_clock = True
        return made


def queue_name(row: TaskRow, policy: Policy) -> str:
    """`[domain:]type[@executionNameSpace][-isolationGroupId]`, as in Conductor."""
    name = f"{row.type}{policy.queue_suffix}"
    return f"{row.domain}:{name}" if row.domain else name


def queue_suffix(definition: TaskDefinition, *, is_system: bool) -> str:
    """What a task definition appends to the queue's name: `@executionNameSpace`, as in Conductor of the
    server's own tasks only, and `-isolationGroupId`."""
    namespace = definition.execution_name_space if is_system else None
    group = definition.isolation_group_id
    return (f"@{namespace}" if namespace else "") + (f"-{group}" if group else "")
