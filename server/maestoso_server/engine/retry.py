"""Whether a failed attempt is repeated, and after how long. The policy is the definition's."""

from __future__ import annotations

import hashlib

from ..definitions.models import RetryLogic, TaskDefinition
from .state import TaskStatus

_DELAY_MAX_S = 2**31 - 1
_DOUBLINGS_MAX = 31

_NEVER_RETRIED_TYPES = frozenset(
    {"DECISION", "SWITCH", "FORK", "FORK_JOIN", "FORK_JOIN_DYNAMIC", "JOIN", "EXCLUSIVE_JOIN", "DO_WHILE"}
)
_RETRIED_STATUSES = frozenset({TaskStatus.FAILED, TaskStatus.TIMED_OUT})


def may_retry(task_type: str, status: TaskStatus, attempt: int, retries: int) -> bool:
    """Whether the attempt (0 is the first) of a row of this type, ended so, is repeated.

    Operators never are. Neither is a task that was cancelled or failed for good
    (FAILED_WITH_TERMINAL_ERROR)."""
    return status in _RETRIED_STATUSES and task_type not in _NEVER_RETRIED_TYPES and attempt < retries


def retry_delay_ms(policy: TaskDefinition, attempt: int, seed: int) -> int:
    """How long to wait before repeating `attempt` (0 is the first).

    `maxRetryDelaySeconds` caps every logic; then 0..`backoffJitterMs` is added, chosen by `seed`
    and the attempt alone. Never more than 2^31-1 s, never less than 0.
    """
    base = policy.retry_delay_seconds
    if policy.retry_logic is RetryLogic.LINEAR_BACKOFF:
        delay = base * policy.backoff_scale_factor * (attempt + 1)
    elif policy.retry_logic is RetryLogic.EXPONENTIAL_BACKOFF:
        delay = base << min(attempt, _DOUBLINGS_MAX)
    else:
        delay = base
    if policy.max_retry_delay_seconds > 0:
        delay = min(delay, policy.max_retry_delay_seconds)
    return max(0, min(delay, _DELAY_MAX_S)) * 1000 + _jitter_ms(policy.backoff_jitter_ms, attempt, seed)


def _jitter_ms(most: int, attempt: int, seed: int) -> int:
    if most <= 0:
        return 0
    drawn = hashlib.blake2b(f"{seed}:{attempt}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") % (most + 1)
