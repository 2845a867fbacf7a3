"""DYNAMIC: a worker task whose name is a value of its own input."""

from __future__ import annotations

from typing import Any

from ...payload import Json
from .. import closing
from ..domains import domain_of
from ..expressions import Template
from ..needs import TaskDefinition
from ..nodes import Node, compile_fallbacks, dynamic_policy
from ..rows import add_row
from ..state import Path, TaskStatus
from ..turn import Turn
from .births import BadInput, input_fault
from .finishing import Unusable, check_name
from .worker import enqueue


def prepare(turn: Turn, node: Node, path: Path, _scope: int) -> tuple[Json, str, Any, str]:
    """(input, the task's name, its registered definition, domain)"""
    return prepare_with(turn, node, Json.of(turn.resolve(node, path, turn.header.next_seq)), path)


def prepare_with(turn: Turn, node: Node, given: Json, path: Path | None = None) -> tuple[Json, str, Any, str]:
    """The same with this input. In the turn `path` the task's defaults stand in for what it lacks."""
    value = given.value
    parameter = node.task.dynamic_task_name_param or ""
    name = value.get(parameter)
    if turn.lacking:
        return given, "", None, ""
    if not isinstance(name, str) or not name:
        raise Unusable(
            "Cannot map a dynamic task based on the parameter and input. "
            f"Parameter= {parameter}, input= {str(value)[:200]}"
        )
    definition = turn.ask(TaskDefinition(check_name(name, f"The task name that {parameter} gives")))
    if not turn.lacking:
        fallbacks = fallbacks_of(definition)
        if fallbacks is not None and path is not None:
            given = Json.of(turn.fill(value, fallbacks, node, path, turn.header.next_seq))
        policy = dynamic_policy(node, definition)
        fault = input_fault(turn, node, given, policy)
        if fault is not None:
            raise BadInput(fault, given)
        return given, name, definition, domain_of(turn, name, policy)
    return given, name, None, ""


def fallbacks_of(definition: dict[str, Any] | None) -> dict[str, Template] | None:
    """The defaults in the `inputTemplate` of the task that a DYNAMIC turned out to be."""
    return compile_fallbacks((definition or {}).get("inputTemplate") or {})


def birth(turn: Turn, node: Node, path: Path, scope: int, prepared: tuple[Json, str, Any, str]) -> None:
    value, name, definition, domain = prepared
    row = add_row(
        turn,
        node,
        path,
        scope,
        TaskStatus.SCHEDULED,
        value,
        state={"definition": definition},
        row_type=name,
    )
    row.name = name
    row.started_ms = 0
    row.domain = domain
    row.callback_after_s = node.start_delay_s
    closing.born(turn, node, row)
    enqueue(turn, row, turn.policy_of(row, node), turn.now_ms + node.start_delay_s * 1000)
