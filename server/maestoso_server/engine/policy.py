"""The policy of a node, resolved once: how often it is tried again and which clocks it has."""

from __future__ import annotations

from ..definitions.models import TaskDefinition, TaskTimeoutPolicy
from ..definitions.schemas import compile_schema

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
        "input_schema",
        "limit",
        "output_schema",
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
        enforced = definition.enforce_schema
        self.input_schema = compile_schema(definition.input_schema) if enforced else None
        self.output_schema = compile_schema(definition.output_schema) if enforced else None
        self.redeliver_on_loss = is_system if asked is None else asked
        self.row_clock = bool(self.total_s or (self.timeout_s if is_operator else self.poll_s))
        """Its rows have a row in `deadline` from birth."""
