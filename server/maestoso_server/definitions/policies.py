"""What a document says beyond the flow: schemas, masked fields, caches, events of changes. Where it
has no effect as written, its author is told by path.
"""

from __future__ import annotations

from ..json_text import Path
from .models import SchemaDefinition, StateChangeEvent, TaskDefinition, WorkflowDefinition, WorkflowTask
from .report import Report
from .schemas import doubts, faults_of
from .sinks import NoQueue, queue_of
from .state_changes import statuses_of
from .task_types import NEVER_CACHED, OPERATORS


def judge_workflow_policies(definition: WorkflowDefinition, path: Path, report: Report) -> None:
    """Those of a workflow definition itself."""
    _judge_schemas(definition, path, report, is_fault=True)
    _judge_listener(definition, path, report)
    if definition.cache_config is not None:
        report.warn((*path, "cacheConfig"), "a workflow always runs; its worker tasks may be cached")
    for index, field in enumerate(definition.masked_fields):
        if not field.rpartition(".")[2]:
            report.warn((*path, "maskedFields", index), "names no field: nothing is masked by it")


def _judge_listener(definition: WorkflowDefinition, path: Path, report: Report) -> None:
    sink, at = definition.workflow_status_listener_sink, (*path, "workflowStatusListenerSink")
    if not sink:
        return
    if not definition.workflow_status_listener_enabled:
        report.warn(at, "nothing is told without workflowStatusListenerEnabled")
        return
    try:
        queue_of(sink, definition.name, "", "")
    except NoQueue as refusal:
        report.warn(at, f"nothing is told: {refusal.why}")


def judge_task_schemas(definition: TaskDefinition, path: Path, report: Report, *, inline: bool) -> None:
    """Those of a task definition; one written into a node is never refused."""
    _judge_schemas(definition, path, report, is_fault=not inline)


def _judge_schemas(
    definition: WorkflowDefinition | TaskDefinition, path: Path, report: Report, *, is_fault: bool
) -> None:
    for schema, field in (
        (definition.input_schema, "inputSchema"),
        (definition.output_schema, "outputSchema"),
    ):
        if schema is None:
            continue
        at = (*path, field)
        if not definition.enforce_schema:
            report.warn(at, "enforceSchema is not true: the schema is kept, nothing is held against it")
        _judge_schema(schema, at, report, is_fault=is_fault)


def _judge_schema(schema: SchemaDefinition, path: Path, report: Report, *, is_fault: bool) -> None:
    for field, message in doubts(schema):
        report.warn((*path, field), message)
    if schema.data and schema.type in (None, "JSON"):
        for inside, message in faults_of(schema.data):
            report.say(is_fault, (*path, "data", *inside), message)


def judge_node_policies(node: WorkflowTask, path: Path, report: Report) -> None:
    """Those of a node."""
    if node.cache_config is not None:
        _judge_cache(node, (*path, "cacheConfig"), report)
    for key, events in node.on_state_change.items():
        _judge_changes(node, key, events, (*path, "onStateChange", key), report)


def _judge_cache(node: WorkflowTask, path: Path, report: Report) -> None:
    config = node.cache_config
    if node.type in NEVER_CACHED:
        report.warn(path, f"{node.type} is never cached; worker tasks and HTTP are")
    elif config is not None and not config.key:
        report.warn((*path, "key"), "without a key nothing is cached")
    elif config is not None and config.ttl_in_second <= 0:
        report.warn((*path, "ttlInSecond"), "nothing is cached for 0 seconds; write at least 1")


def _judge_changes(
    node: WorkflowTask, key: str, events: list[StateChangeEvent], path: Path, report: Report
) -> None:
    statuses, unknown = statuses_of(key)
    for word in unknown:
        report.warn(
            path,
            f"{word!r} is no change of a task: onScheduled, onStart, onSuccess, onFailed, onTimedOut, "
            "onCancelled, onSkipped or onCompletedWithErrors",
        )
    if "IN_PROGRESS" in statuses and (node.type not in OPERATORS or node.type == "DYNAMIC"):
        report.warn(path, f"the start of a worker task is not told: no commit makes it; {node.type} is one")
    for index, event in enumerate(events):
        if not event.type:
            report.warn((*path, index, "type"), "an event without a type is not told")
