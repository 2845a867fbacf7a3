"""All clocks of tasks and of the workflow: what was due, and what is due next.

The order of the clocks is Conductor's; the first that has run out gives the reason. All are whole
seconds, exact to the millisecond of the event that brings them.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import reasons
from .decision import Alert
from .events import QueueFacts
from .nodes import Node
from .policy import ALERT_ONLY, RETRY, Policy
from .state import TaskRow
from .turn import Turn

_POLICY_NAMES = {0: "RETRY", 1: "TIME_OUT_WF", 2: "ALERT_ONLY"}


class Verdict:
    """`reason` is set where a clock has run out; `ends` tells that it is one of those that obey
    the timeout policy (a response time-out is always retried). Else `next_ms`, 0 for none.

    `alerts`: (clock, text) of those that have run out under ALERT_ONLY and were not told yet."""

    __slots__ = ("alerts", "ends", "next_ms", "reason")

    def __init__(
        self,
        reason: str | None,
        *,
        ends: bool = False,
        next_ms: int = 0,
        alerts: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.reason = reason
        self.ends = ends
        self.next_ms = next_ms
        self.alerts = alerts


def judge_row(turn: Turn, node: Node, row: TaskRow, facts: QueueFacts | None) -> Verdict:
    """The clocks of an open row. `facts` is its queue row, None for a row without one."""
    policy = turn.policy_of(row, node)
    if facts is None:
        return judge(turn, row, policy, started_ms=row.started_ms)
    if facts.owner_epoch is None or facts.owner_epoch < 0:
        return judge(turn, row, policy, waiting_ms=facts.due_ms)
    if facts.owner_epoch > 0:
        owned = turn.now_ms + policy.poll_s * 1000 if policy.poll_s else 0
        return Verdict(None, next_ms=owned)  # its owner watches; look again in case it is handed back
    return judge(turn, row, policy, started_ms=facts.started_ms, progress_ms=facts.progress_ms)


def judge(
    turn: Turn,
    row: TaskRow,
    policy: Policy,
    *,
    waiting_ms: int = 0,
    started_ms: int = 0,
    progress_ms: int = 0,
) -> Verdict:
    """`waiting_ms`: since when it waits to be taken. `started_ms`: since when it runs. 0: it does not."""
    now = turn.now_ms
    name = _POLICY_NAMES[policy.timeout_policy]
    task = turn.task_id(row.seq)
    dues: list[int] = []
    ran_out: list[tuple[str, str]] = []
    if policy.total_s:
        due = row.first_scheduled_ms + policy.total_s * 1000
        if now >= due:
            elapsed = (now - row.first_scheduled_ms) // 1000
            ran_out.append(("total", reasons.total_timed_out(row.name, task, policy.total_s, elapsed, name)))
        else:
            dues.append(due)
    if policy.timeout_s and started_ms:
        due = started_ms + policy.timeout_s * 1000
        if now >= due:
            text = reasons.timed_out((now - started_ms) // 1000, policy.timeout_s, name)
            ran_out.append(("execution", text))
        else:
            dues.append(due)
    if policy.poll_s and waiting_ms:
        due = waiting_ms + policy.poll_s * 1000
        if now >= due:
            ran_out.append(("poll", reasons.poll_timed_out((now - waiting_ms) // 1000, policy.poll_s, name)))
        else:
            dues.append(due)
    if ran_out and policy.timeout_policy != ALERT_ONLY:
        return Verdict(ran_out[0][1], ends=policy.timeout_policy != RETRY)
    if ran_out:
        told = (row.state or {}).get("alerted", ())
        ran_out = [(clock, text) for clock, text in ran_out if clock not in told]
    if policy.response_s and started_ms:
        due = max(started_ms, progress_ms) + policy.response_s * 1000
        if now >= due:
            return Verdict(reasons.response_timed_out(policy.response_s, task, row.name), alerts=ran_out)
        dues.append(due)
    return Verdict(None, next_ms=min(dues, default=0), alerts=ran_out)


def alert(turn: Turn, row: TaskRow, alerts: Sequence[tuple[str, str]]) -> None:
    """Tell of clocks that only alert, once an attempt."""
    if not alerts:
        return
    mine = turn.edit(row)
    told = (mine.state or {}).get("alerted", [])
    turn.set_state(mine, alerted=[*told, *(clock for clock, _ in alerts)])
    turn.alerts += [Alert("task", clock, text, mine.seq) for clock, text in alerts]
