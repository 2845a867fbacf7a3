"""Which domain a task's queue belongs to: `taskToDomain` with live pollers taken into account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .needs import Demand
from .nodes import SYSTEM_TYPES

if TYPE_CHECKING:
    from .policy import Policy
    from .turn import Turn

NO_DOMAIN = "NO_DOMAIN"


def domain_of(turn: Turn, task_type: str, policy: Policy) -> str:
    """The domain for a new row of this type; "" for none (or while the answer is wanted).

    Of a comma list the first one with a live poller wins, else the last; `NO_DOMAIN` in it stands
    for the queue without a domain."""
    mapping = turn.header.task_to_domain.value if turn.header.task_to_domain is not None else None
    if task_type in SYSTEM_TYPES or not isinstance(mapping, dict):
        return ""
    listed = mapping.get(task_type, mapping.get("*"))
    names = [name.strip() for name in str(listed or "").split(",") if name.strip()]
    if not names:
        return ""
    chosen = names[-1]
    if len(names) > 1:
        plain = f"{task_type}{policy.queue_suffix}"
        queues = {name: plain if name == NO_DOMAIN else f"{name}:{plain}" for name in names}
        live = turn.ask(Demand(tuple(dict.fromkeys(queues.values()))))
        chosen = next(
            (name for name in names if live and (name == NO_DOMAIN or queues[name] in live)), chosen
        )
    return "" if chosen == NO_DOMAIN else chosen
