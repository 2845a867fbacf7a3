"""DYNAMIC: a worker task whose name is a value of its own input."""

from __future__ import annotations

from typing import Any

from ...payload import Json
from ..domains import domain_of
from ..expressions import Template
from ..needs import TaskDefinition
from ..nodes import Node, compile_fallbacks
from ..rows import add_row
from ..state import Path, TaskStatus
from ..turn import Turn
from .finishing import Unusable
from .worker import enqueue


def prepare(turn: Turn, node: Node, path: Path, _scope: int) -> tuple[Json, str, Any, str]:
    """(input, the task's name, its registered definition, domain)"""
    value = turn.resolve(node, path, turn.header.next_seq)
    parameter = node.task.dynamic_task_name_param or ""
    name = value.get(parameter)
    if turn.lacking:
        return Json.of(value), "", None, ""
    if not isinstance(name, str) or not name:
        raise Unusable(
            "Cannot map a dynamic task based on the parameter and input. "
            f"Parameter= {parameter}, input= {str(value)[:200]}"
        )
    definition = turn.ask(TaskDefinition(name))
    value = turn.fill(value, fallbacks_of(definition), node, path, turn.header.next_seq)
    return Json.of(value), name, definition, domain_of(turn, name)


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
    enqueue(turn, row, turn.policy_of(row, node), turn.now_ms + node.start_delay_s * 1000)
