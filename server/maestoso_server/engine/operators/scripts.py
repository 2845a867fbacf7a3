"""INLINE, LAMBDA and JSON_JQ_TRANSFORM: a script over the row's own input."""

from __future__ import annotations

from typing import Any

from ...payload import Json
from ..needs import ScriptAnswer
from ..nodes import INLINE, JQ, Node
from ..state import TaskRow, TaskStatus
from ..turn import Turn
from .finishing import Unusable, finish, language_of, script, wait_for_script

_MISSING_QUERY = "Missing 'queryExpression' in input parameters"


def prepare_run(
    turn: Turn, node: Node, row: TaskRow
) -> tuple[tuple[str, str, Any] | None, ScriptAnswer | None]:
    """((language, text, input), its answer); no script where `value-param` needs none."""
    inputs = row.input.value
    if node.kind == JQ:
        query = inputs.get("queryExpression")
        if query is None or query == "":
            return None, ScriptAnswer(error=_MISSING_QUERY, retriable=True)
        what = ("jq", _text(query, "queryExpression"), inputs)
    elif node.kind == INLINE:
        what_or_value = _inline(inputs)
        if isinstance(what_or_value, ScriptAnswer):
            return None, what_or_value
        what = what_or_value
    else:
        body = inputs.get("scriptExpression")
        if not body or not str(body).strip():
            return None, ScriptAnswer(
                error="Empty 'scriptExpression' in Lambda task's input parameters. "
                "A non-empty String value must be provided.",
                retriable=True,
            )
        text = _text(body, "scriptExpression")
        what = ("javascript-function", text, inputs)
    return what, script(turn, row, *what)


def _inline(inputs: dict[str, Any]) -> tuple[str, str, Any] | ScriptAnswer:
    evaluator = inputs.get("evaluatorType", "javascript")
    if not evaluator or not str(evaluator).strip():
        raise Unusable(_empty("evaluatorType"))
    expression = inputs.get("expression")
    if expression is None or expression == "" or (isinstance(expression, str) and not expression.strip()):
        raise Unusable(_empty("expression"))
    if evaluator == "value-param":
        return ScriptAnswer(value=inputs.get(str(expression)))
    language = language_of(str(evaluator))
    if language is None:
        raise Unusable(f"Unknown evaluator '{evaluator}' in INLINE task.")
    return language, _text(expression, "expression"), inputs


def _empty(parameter: str) -> str:
    return (
        f"Empty '{parameter}' in Inline task's input parameters. A non-empty String value must be provided."
    )


def _text(value: Any, parameter: str) -> str:
    if not isinstance(value, str):
        raise Unusable(f"'{parameter}' must be a text, not {type(value).__name__}")
    return value


def run(
    turn: Turn, node: Node, row: TaskRow, found: tuple[tuple[str, str, Any] | None, ScriptAnswer | None]
) -> None:
    what, answer = found
    if answer is None:
        return
    if answer.slow and what is not None:
        wait_for_script(turn, row, *what)
    elif answer.error is not None:
        _fail(turn, node, row, answer)
    elif node.kind == JQ:
        results = answer.value if isinstance(answer.value, list) else [answer.value]
        value = {"result": results[0] if results else None, "resultList": results}
        finish(turn, node, row, TaskStatus.COMPLETED, Json.of(value))
    else:
        finish(turn, node, row, TaskStatus.COMPLETED, Json.of({"result": answer.value}))


def _fail(turn: Turn, node: Node, row: TaskRow, answer: ScriptAnswer) -> None:
    """INLINE: a script's own error is final, a time-out is not. The older two are always retried."""
    final = node.kind == INLINE and not answer.retriable
    status = TaskStatus.FAILED_WITH_TERMINAL_ERROR if final else TaskStatus.FAILED
    finish(turn, node, row, status, Json.of({"error": answer.error}), answer.error)
