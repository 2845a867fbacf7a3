"""Log lines, metrics and the tracer seam."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from maestoso_server.telemetry import (
    MAX_QUEUES,
    MULTIPROCESS_VARIABLE,
    JsonFormatter,
    Metrics,
    NoTracer,
    OpenTelemetryTracer,
    TextFormatter,
    bound,
    make_tracer,
)

ROOT = Path(__file__).parents[2]


def record(message: str, **facts: object) -> logging.LogRecord:
    return logging.getLogger("maestoso.test").makeRecord(
        "maestoso.test", logging.INFO, __file__, 1, message, (), None, extra=facts
    )


def test_json_line_has_the_message_its_facts_and_those_bound_outside() -> None:
    with bound(workflow_id="w"):
        line = json.loads(JsonFormatter().format(record("decided", task_id="t", attempt=2)))

    assert line["message"] == "decided"
    assert (line["workflow_id"], line["task_id"], line["attempt"], line["level"]) == ("w", "t", 2, "info")
    assert line["time"].endswith("Z")


def test_bound_facts_end_with_their_block() -> None:
    with bound(workflow_id="w"):
        pass

    assert "workflow_id" not in json.loads(JsonFormatter().format(record("later")))


def test_text_line_names_the_facts() -> None:
    assert TextFormatter().format(record("decided", task_id="t")).endswith("maestoso.test: decided task_id=t")


def test_traceback_is_in_the_line() -> None:
    try:
        raise ValueError("lost")
    except ValueError:
        failed = record("failed")
        failed.exc_info = sys.exc_info()

    assert "ValueError: lost" in json.loads(JsonFormatter().format(failed))["traceback"]


@dataclass
class Queue:
    namespace: str
    queue: str
    depth: int
    oldest_age_ms: int


def test_metrics_text_has_the_process_and_the_queues() -> None:
    metrics = Metrics()
    metrics.lost_races.inc()

    text = metrics.render([Queue("default", "charge", 3, 1_500)]).decode()

    assert "maestoso_lost_races_total 1.0" in text
    assert 'maestoso_queue_depth{namespace="default",queue="charge"} 3.0' in text
    assert 'maestoso_queue_oldest_age_seconds{namespace="default",queue="charge"} 1.5' in text


def test_labels_of_queues_are_bounded() -> None:
    queues = [Queue("default", f"q{number}", number, number) for number in range(MAX_QUEUES + 50)]

    text = Metrics().render(queues).decode()

    assert text.count("maestoso_queue_depth{") == MAX_QUEUES + 1
    assert f'maestoso_queue_depth{{namespace="(others)",queue="(others)"}} {sum(range(50))}.0' in text


def test_processes_that_share_a_folder_answer_for_each_other(tmp_path: Path) -> None:
    script = (
        "from maestoso_server.telemetry import Metrics; m = Metrics(); m.lost_races.inc(); m.sessions.set(2);"
        "print(m.render().decode())"
    )
    environment = {**os.environ, MULTIPROCESS_VARIABLE: str(tmp_path), "PYTHONPATH": str(ROOT / "server")}
    texts = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]

    assert "maestoso_lost_races_total 1.0" in texts[0]
    assert "maestoso_lost_races_total 2.0" in texts[1]
    assert "maestoso_sessions 4.0" in texts[1]


def test_tracing_is_off_unless_asked_for() -> None:
    tracer = make_tracer("off")

    assert isinstance(tracer, NoTracer)
    with tracer.span("decide", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
        pass


def test_spans_of_opentelemetry_follow_the_traceparent() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    sent = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(sent))
    tracer = OpenTelemetryTracer(provider)

    with tracer.span(
        "decide", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", {"namespace": "default"}
    ):
        pass

    [span] = sent.get_finished_spans()
    assert (span.name, dict(span.attributes or {})) == ("decide", {"namespace": "default"})
    assert f"{span.get_span_context().trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
