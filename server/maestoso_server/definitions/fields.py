"""Fields that have no effect: unknown ones, and those of Conductor that nothing here reads."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ..json_text import Path
from .models import TaskDefinition, WorkflowTask
from .report import Report
from .task_types import NEVER_RETRIED, STARTED_AT_ONCE

_UNREAD: dict[type[BaseModel], tuple[str, ...]] = {
    TaskDefinition: (
        "base_type",
        "task_status_listener_enabled",
    ),
    WorkflowTask: ("rate_limited", "script_expression", "join_status"),
}
"""Accepted, stored and returned, but nothing here acts on them."""

_READ_BY: dict[str, frozenset[str]] = {
    "evaluator_type": frozenset({"SWITCH", "DO_WHILE"}),
    "expression": frozenset({"SWITCH"}),
    "decision_cases": frozenset({"SWITCH", "DECISION"}),
    "default_case": frozenset({"SWITCH", "DECISION"}),
    "case_value_param": frozenset({"DECISION"}),
    "case_expression": frozenset({"DECISION"}),
    "fork_tasks": frozenset({"FORK_JOIN"}),
    "dynamic_fork_tasks_param": frozenset({"FORK_JOIN_DYNAMIC"}),
    "dynamic_fork_tasks_input_param_name": frozenset({"FORK_JOIN_DYNAMIC"}),
    "dynamic_fork_join_tasks_param": frozenset({"FORK_JOIN_DYNAMIC"}),
    "join_on": frozenset({"JOIN", "EXCLUSIVE_JOIN"}),
    "join_mode": frozenset({"JOIN"}),
    "default_exclusive_join_task": frozenset({"EXCLUSIVE_JOIN"}),
    "loop_condition": frozenset({"DO_WHILE"}),
    "loop_over": frozenset({"DO_WHILE"}),
    "items": frozenset({"DO_WHILE"}),
    "dynamic_task_name_param": frozenset({"DYNAMIC"}),
    "sub_workflow_param": frozenset({"SUB_WORKFLOW"}),
    "sink": frozenset({"EVENT"}),
}
"""Fields of a node that only these types read."""


def judge_fields(model: BaseModel, path: Path, report: Report) -> None:
    """Warn of the fields of one object, not of those inside it, that have no effect."""
    for name in model.model_extra or ():
        report.warn((*path, name), _unknown(name, model))
    for attribute in _UNREAD.get(type(model), ()):
        if _given(model, attribute):
            report.warn((*path, _name(model, attribute)), "nothing acts on this field yet; it is only kept")
    if isinstance(model, WorkflowTask):
        _judge_node(model, path, report)


def _judge_node(node: WorkflowTask, path: Path, report: Report) -> None:
    for attribute in node.model_fields_set:
        readers = _READ_BY.get(attribute)
        if readers is not None and node.type not in readers and _given(node, attribute):
            report.warn(
                (*path, _name(node, attribute)), f"{node.type} does not read it; {_listed(readers)} does"
            )
    if node.start_delay > 0 and node.type in STARTED_AT_ONCE:
        report.warn((*path, "startDelay"), f"{node.type} starts at once whatever its delay")
    if (node.retry_count or 0) > 0 and node.type in NEVER_RETRIED:
        report.warn((*path, "retryCount"), f"{node.type} is never retried")


def _given(model: BaseModel, attribute: str) -> bool:
    """Whether the document gives the field a value other than its default or nothing."""
    if attribute not in model.model_fields_set:
        return False
    value = getattr(model, attribute)
    return value not in (None, "", [], {}) and value != type(model).model_fields[attribute].default


def _unknown(name: str, model: BaseModel) -> str:
    known = {str(field.alias).lower(): str(field.alias) for field in type(model).model_fields.values()}
    meant = known.get(name.lower().replace("_", "").replace("-", ""))
    if meant is not None:
        return f"unknown field, ignored; did you mean {meant}?"
    if isinstance(model, WorkflowTask) and name in _TASK_DEFINITION_FIELDS:
        return "unknown field, ignored; it belongs into the task definition"
    return "unknown field, ignored"


_TASK_DEFINITION_FIELDS = frozenset(str(field.alias) for field in TaskDefinition.model_fields.values())


def _name(model: BaseModel, attribute: str) -> str:
    return str(type(model).model_fields[attribute].alias)


def _listed(names: frozenset[str]) -> str:
    return " or ".join(sorted(names))


def parts(model: BaseModel) -> dict[str, Any]:
    """The objects directly inside one that have fields of their own, nodes and task definitions apart."""
    found: dict[str, Any] = {}
    for attribute in model.model_fields_set:
        value = getattr(model, attribute)
        if isinstance(value, BaseModel) and not isinstance(value, TaskDefinition):
            found[_name(model, attribute)] = value
    return found
