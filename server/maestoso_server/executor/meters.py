"""What the executor measures, with the labels' children looked up once."""

from __future__ import annotations

from collections.abc import Iterable

from ..engine.decision import Decision
from ..engine.state import TaskStatus, WorkflowStatus
from ..telemetry import Metrics


class Meters:
    """A few counters and histograms; each call costs a microsecond or two."""

    def __init__(self, metrics: Metrics) -> None:
        self.decided = metrics.decide_seconds.observe
        """Seconds of one decision, between two needs."""
        self.lost_race = metrics.lost_races.inc
        self.loaded = metrics.batch_size.labels("load").observe
        """Workflows of one load."""
        self._commit_seconds = metrics.commit_seconds.observe
        self._commit_size = metrics.batch_size.labels("commit").observe
        self._retries = metrics.retries.inc
        self._events = metrics.events.inc
        self._cache_hits = metrics.cache_hits.inc
        self._alerts = metrics.alerts
        self._workflows = {
            status: metrics.outcomes.labels("workflow", status.name).inc
            for status in WorkflowStatus
            if status.terminal
        }
        self._tasks = {
            status: metrics.outcomes.labels("task", status.name).inc
            for status in TaskStatus
            if status.terminal
        }

    def committed(self, seconds: float, size: int, written: Iterable[Decision]) -> None:
        """One commit of `size` decisions, and those of them that were written."""
        self._commit_seconds(seconds)
        self._commit_size(size)
        for decision in written:
            now_ms = decision.header.updated_ms
            for rows in (decision.inserted, decision.updated):
                for row in rows:
                    if row.ended_ms == now_ms and row.status.terminal:  # later changes do not count again
                        self._tasks[row.status]()
                        if row.state is not None and "cached" in row.state:
                            self._cache_hits()
            retries = sum(1 for row in decision.inserted if row.retried_seq)
            if retries:
                self._retries(retries)
            if decision.published:
                self._events(len(decision.published))
            for alert in decision.alerts:
                self._alerts.labels(alert.of, alert.clock).inc()
            if decision.ended:
                self._workflows[decision.header.status]()
