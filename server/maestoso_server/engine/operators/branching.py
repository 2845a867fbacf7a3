"""SWITCH and DECISION: one of several chains, or none."""

from __future__ import annotations

from typing import Any

from ...payload import Json
from ..expressions import text_of
from ..needs import ScriptAnswer
from ..nodes import DECISION, Node
from ..state import TaskRow, TaskStatus
from ..steps import BIRTH, NOTIFY
from ..turn import Turn, lasting
from .finishing import finish, language_of, script, wait_for_script


class _Evaluation:
    """(language, text, input) of a script, or the value that needs none."""

    __slots__ = ("answer", "error", "value", "what")

    def __init__(self) -> None:
        self.what: tuple[str, str, Any] | None = None
        self.answer: ScriptAnswer | None = None
        self.value: Any = None
        self.error: str | None = None


def prepare_run(turn: Turn, node: Node, row: TaskRow) -> _Evaluation:
    found = _Evaluation()
    inputs = row.input.value
    task = node.task
    if node.kind == DECISION:
        if task.case_expression and task.case_expression.strip():
            found.what = ("javascript", task.case_expression, inputs)
        else:
            found.value = inputs.get(task.case_value_param or "")
    elif task.evaluator_type == "value-param":
        found.value = inputs.get(task.expression or "")
    else:
        language = language_of(task.evaluator_type) if task.evaluator_type else None
        if language is None:
            found.error = f"No evaluator registered for type: {task.evaluator_type}"
        else:
            found.what = (language, task.expression or "", inputs)
    if found.what is not None:
        found.answer = script(turn, row, *found.what)
    return found


def run(turn: Turn, node: Node, row: TaskRow, found: _Evaluation) -> None:
    answer = found.answer
    if answer is not None:
        if answer.slow and found.what is not None:
            wait_for_script(turn, row, *found.what)
            return
        if answer.error is not None:
            finish(turn, node, row, TaskStatus.FAILED, reason=answer.error)
            return
        found.value = answer.value
    if found.error is not None:
        finish(turn, node, row, TaskStatus.FAILED_WITH_TERMINAL_ERROR, reason=found.error)
        return
    _choose(turn, node, row, found.value)


def _choose(turn: Turn, node: Node, row: TaskRow, value: Any) -> None:
    key = case_of(value, node)
    chosen = key in node.cases and (node.kind != DECISION or node.cases[key] is not None)
    head = node.cases[key] if chosen else node.default
    mine = turn.edit(row)
    shown: dict[str, Any] = {} if node.kind == DECISION else dict(row.input.value)
    shown["case"] = key
    if head is not None:
        shown["hasChildren"] = "true"
    mine.input = Json.of(shown)
    output: dict[str, Any]
    if node.kind == DECISION:
        output = {"caseOutput": [key]}
    else:
        output = {"evaluationResult": [key], "selectedCase": key}
    if head is None:
        finish(turn, node, mine, TaskStatus.COMPLETED, Json.of(output))
        return
    mine.output = Json.of(output)
    turn.close(node, mine, TaskStatus.COMPLETED)
    mine.state = lasting(mine.state)
    turn.first((BIRTH, head.reference, row.path, row.seq))
    if node.joins:
        turn.later((NOTIFY, row.seq))


def case_of(value: Any, node: Node) -> str:
    """The text that is looked up; a whole double also matches the case written without fraction."""
    key = text_of(value)
    if key not in node.cases and isinstance(value, float) and value.is_integer():
        whole = str(int(value))
        return whole if whole in node.cases else key
    if key not in node.cases and isinstance(value, int) and not isinstance(value, bool):
        double = f"{value}.0"
        return double if double in node.cases else key
    return key
