"""What a branch of a dynamic fork gets as its input: data of the fork's row, resolved already."""

from __future__ import annotations

from typing import Any

from .fragment import Fragment
from .nodes import Node
from .state import TaskRow


def branch_input(
    fork: TaskRow, fork_node: Node, fragment: Fragment, node: Node, own_id: str
) -> dict[str, Any]:
    """The data of one branch. Only `${CPEWF_TASK_ID}` is filled in (K23); nothing else in it is
    looked at again."""
    inputs = fork.input.value
    reference = node.reference
    index = fragment.index(reference)
    if fragment.references is None:
        element = inputs["forkTaskInputs"][index or 0]
        given = element if isinstance(element, dict) else {"input": element}
        value = {**given, "__index": index}
    elif fork_node.task.dynamic_fork_join_tasks_param:
        element = inputs[fork_node.task.dynamic_fork_join_tasks_param]["dynamicTasks"][index or 0]
        value = _merged(node, element.get("input"))
    else:
        value = _merged(node, inputs[fork_node.task.dynamic_fork_tasks_input_param_name or ""].get(reference))
    filled: dict[str, Any] = _fill_task_id(value, own_id)
    return filled


def _merged(node: Node, given: Any) -> dict[str, Any]:
    return (
        {**node.task.input_parameters, **given}
        if isinstance(given, dict)
        else dict(node.task.input_parameters)
    )


_TASK_ID = "${CPEWF_TASK_ID}"


def _fill_task_id(value: Any, own_id: str) -> Any:
    if isinstance(value, str):
        return value.replace(_TASK_ID, own_id) if _TASK_ID in value else value
    if isinstance(value, dict):
        return {key: _fill_task_id(item, own_id) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_task_id(item, own_id) for item in value]
    return value
