"""What operators see: log lines, metrics, spans.

A log line is a fixed message with its facts as fields (`extra={"workflow_id": ...}`); never a
payload, never a secret. A metric carries its unit in its name; labels are few and bounded, never
ids. Spans go through `Tracer`, which does nothing unless OpenTelemetry is installed and switched on.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Read by prometheus_client when it is imported: the folder that all processes of a server share."""

disable_created_metrics()  # a second series for each, which says when it began

# --- logs ---------------------------------------------------------------------------------------

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_bound: ContextVar[Mapping[str, Any]] = ContextVar("maestoso_log_fields", default={})  # noqa: B039


@contextmanager
def bound(**facts: Any) -> Iterator[None]:
    """Every line logged inside carries these fields, in this task and those it starts."""
    token = _bound.set({**_bound.get(), **facts})
    try:
        yield
    finally:
        _bound.reset(token)


def bind(**facts: Any) -> None:
    """Every further line of this task carries these fields. For a call that streams: its generator may
    be closed from another context, where `bound` could not take its fields back."""
    _bound.set({**_bound.get(), **facts})


def set_up_logging(level: str, style: str) -> None:
    """Write log lines of `level` and above to stderr, as `text` or `json`. Replaces earlier handlers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("maestoso").setLevel(level.upper())
    logging.getLogger("maestoso_server").setLevel(level.upper())
    logging.getLogger("asyncpg").setLevel(logging.ERROR)  # an outage is told once, by us


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    facts = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {**_bound.get(), **facts}


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`time LEVEL logger: message key=value ...`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname:7} {record.name}: {record.getMessage()}{facts}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


# --- metrics ------------------------------------------------------------------------------------

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_TINY = (0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.5)
_LATE = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

MAX_QUEUES = 200
"""Most queues with a label of their own; the rest are added up as `(others)`."""


class QueueDepth(Protocol):
    """One queue as the database has it."""

    @property
    def namespace(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def depth(self) -> int: ...
    @property
    def oldest_age_ms(self) -> int: ...


class Metrics:
    """Every metric of the server. One object a process, made by the composition root.

    Those without labels are used at once (`metrics.lost_races.inc()`); of those with labels keep
    the child where the path is hot (`metrics.batch_size.labels("commit")`)."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self.dispatch_seconds = self._histogram(
            "maestoso_dispatch_seconds",
            "From the moment a task may run until it is written to a stream.",
            _FAST,
        )
        self.decide_seconds = self._histogram(
            "maestoso_decide_seconds", "One decision of the engine, needs not counted.", _TINY
        )
        self.commit_seconds = self._histogram("maestoso_commit_seconds", "One commit of a batch.", _FAST)
        self.batch_size = self._histogram(
            "maestoso_batch_size", "Items in one batch, by what it carries.", _SIZES, ("kind",)
        )
        """kind: commit, load, take, send, results."""
        self.deadline_lag_seconds = self._histogram(
            "maestoso_deadline_lag_seconds", "How late a deadline was seen.", _LATE
        )
        self.sessions = self._gauge("maestoso_sessions", "Worker sessions with a living stream.")
        self.deliveries = self._counter("maestoso_deliveries_total", "Tasks handed out.", ("way",))
        """way: stream, poll."""
        self.redeliveries = self._counter(
            "maestoso_redeliveries_total", "Tasks handed out again, by why.", ("cause",)
        )
        """cause: unread, lost, handed_back, forgotten (should never happen: see the log)."""
        self.retries = self._counter("maestoso_retries_total", "New attempts of failed tasks.")
        self.lost_races = self._counter(
            "maestoso_lost_races_total", "Decisions that found their workflow changed by another node."
        )
        self.outcomes = self._counter(
            "maestoso_outcomes_total", "Ended workflows and tasks, by status.", ("of", "status")
        )
        """of: workflow, task. status: Conductor's name."""
        self.events = self._counter("maestoso_events_total", "Events that workflows have told.")
        self.cache_hits = self._counter(
            "maestoso_cache_hits_total", "Tasks completed with the output of an earlier one."
        )
        self.alerts = self._counter(
            "maestoso_alerts_total", "Clocks under ALERT_ONLY that have run out.", ("of", "clock")
        )
        """of: workflow, task. clock: execution, poll, total. Once an attempt."""
        self.rpc_seconds = self._histogram(
            "maestoso_rpc_seconds", "Unary calls, by method and gRPC code.", _FAST, ("method", "code")
        )
        self.bulk_items = self._counter(
            "maestoso_bulk_items_total", "Items of bulk operations that ended.", ("action", "outcome")
        )
        """action: pause, resume, ... outcome: succeeded, failed."""
        self.degraded = self._gauge("maestoso_degraded", "1 while this node cannot reach the database.")

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry, multiprocess_mode="livesum")

    def render(self, queues: Iterable[QueueDepth] = ()) -> bytes:
        """The text of `/metrics`: this process's numbers, or those of all processes of the server
        where they share a folder; the queues are the database's and so the same for all."""
        if MULTIPROCESS_VARIABLE in os.environ:
            shared = CollectorRegistry()
            MultiProcessCollector(shared)
        else:
            shared = self.registry
        waiting = CollectorRegistry()
        waiting.register(_Queues(queues))
        return generate_latest(shared) + generate_latest(waiting)


class _Queues(Collector):
    """Depth and oldest age of the deepest queues."""

    def __init__(self, queues: Iterable[QueueDepth]) -> None:
        self._queues = sorted(queues, key=lambda row: -row.depth)

    def collect(self) -> Iterator[Metric]:
        labels = ("namespace", "queue")
        depth = GaugeMetricFamily("maestoso_queue_depth", "Tasks that wait for a worker.", labels=labels)
        age = GaugeMetricFamily(
            "maestoso_queue_oldest_age_seconds", "Age of the oldest waiting task.", labels=labels
        )
        for row in self._queues[:MAX_QUEUES]:
            depth.add_metric((row.namespace, row.queue), row.depth)
            age.add_metric((row.namespace, row.queue), row.oldest_age_ms / 1000)
        if rest := self._queues[MAX_QUEUES:]:
            others = ("(others)", "(others)")
            depth.add_metric(others, sum(row.depth for row in rest))
            age.add_metric(others, max(row.oldest_age_ms for row in rest) / 1000)
        yield depth
        yield age


# --- spans --------------------------------------------------------------------------------------


class Tracer(Protocol):
    """The seam for tracing."""

    def span(
        self, name: str, traceparent: str = "", attributes: Mapping[str, str] | None = None
    ) -> AbstractContextManager[None]:
        """A span around a piece of work, a child of `traceparent` (W3C) where one is given."""
        ...

    def close(self) -> None:
        """Send what is left. Blocks for a moment."""
        ...


class NoTracer:
    """Traces nothing and costs nothing."""

    _nothing = nullcontext()

    def span(
        self, name: str, traceparent: str = "", attributes: Mapping[str, str] | None = None
    ) -> AbstractContextManager[None]:
        return self._nothing

    def close(self) -> None:
        return


class OpenTelemetryTracer:
    """Spans of OpenTelemetry, made by `provider` (an SDK TracerProvider)."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("maestoso")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self, name: str, traceparent: str = "", attributes: Mapping[str, str] | None = None
    ) -> Iterator[None]:
        parent = self._propagator.extract({"traceparent": traceparent}) if traceparent else None
        with self._tracer.start_as_current_span(name, context=parent, attributes=dict(attributes or {})):
            yield

    def close(self) -> None:
        self._provider.shutdown()


def _exporting_provider() -> Any:
    """A provider that sends over gRPC, set up by OpenTelemetry's own variables."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "maestoso"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def make_tracer(tracing: str) -> Tracer:
    """The tracer for the setting `tracing`. Raises RuntimeError when `otel` is asked for and the
    extra is not installed."""
    if tracing == "off":
        return NoTracer()
    try:
        return OpenTelemetryTracer(_exporting_provider())
    except ImportError as missing:
        raise RuntimeError(
            f"tracing=otel needs the extra: pip install 'maestoso[otel]' ({missing.name} is missing)"
        ) from missing
