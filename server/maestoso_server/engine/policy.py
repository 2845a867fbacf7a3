"""The policy of a node, resolved once: how often it is tried again and which clocks it has."""

from __future__ import annotations

from collections.abc import Sequence

from ..definitions.models import TaskDefinition, TaskTimeoutPolicy

RETRY = 0
TIME_OUT_WF = 1
ALERT_ONLY = 2

_TIMEOUT_POLICIES = {
    TaskTimeoutPolicy.RETRY: RETRY,
    TaskTimeoutPolicy.TIME_OUT_WF: TIME_OUT_WF,
    TaskTimeoutPolicy.ALERT_ONLY: ALERT_ONLY,
}


class Policy:
    """Seconds are whole, 0 = the clock is off. A clock that only alerts is never armed: nothing
    would follow from it."""

    __slots__ = (
        "definition",
        "limit",
        "poll_s",
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
        armed = self.timeout_policy != ALERT_ONLY
        self.timeout_s = max(definition.timeout_seconds, 0) if armed else 0
        self.poll_s = max(definition.poll_timeout_seconds or 0, 0) if armed and not is_operator else 0
        self.total_s = max(definition.total_timeout_seconds, 0) if armed else 0
        self.response_s = 0 if is_operator else max(definition.response_timeout_seconds, 0)
        self.limit = max(definition.concurrent_exec_limit or 0, 0)
        asked = definition.redeliver_on_loss
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
