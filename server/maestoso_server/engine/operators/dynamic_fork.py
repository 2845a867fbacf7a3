"""FORK_JOIN_DYNAMIC: branches that the input names. Three ways to name them, tried in this order.

A. `forkTaskInputs`: one task, an input for each branch. The row's `state` says it all.
B. a list of tasks and a map of their inputs. The list is stored once, as the row's fragment.
C. the older list of tasks with their inputs inside. Turned into B.
"""

from __future__ import annotations

from typing import Any

from ...definitions.models import WorkflowTask
from ...payload import Json, encode
from ..expressions import text_of
from ..fragment import Fragment
from ..guards import holder_row
from ..limits import BRANCHES_MAX
from ..needs import TaskDefinition
from ..nodes import DYNAMIC_FORK, JOIN, KINDS, SYSTEM_TYPES, Node
from ..reasons import DYNAMIC_FORK_WITHOUT_JOIN
from ..state import TaskRow
from ..turn import Turn, lasting
from .finishing import Unusable, check_name
from .forks import spread


class _Branches:
    __slots__ = ("document", "fragment", "holder", "references", "state")

    def __init__(self, fragment: Fragment, state: dict[str, Any], document: Json | None) -> None:
        self.fragment = fragment
        self.state = state
        self.document = document
        self.references = [fragment.reference(index) for index in range(fragment.count)]
        self.holder: TaskRow | None = None


def prepare_run(turn: Turn, node: Node, row: TaskRow) -> _Branches | None:
    if node.next is None or node.next.kind != JOIN:
        raise Unusable(DYNAMIC_FORK_WITHOUT_JOIN)
    inputs = row.input.value
    if isinstance(inputs.get("forkTaskInputs"), list):
        found = _same(turn, node, row, inputs)
    else:
        found = _different(turn, node, inputs)
    if found is None:
        return None
    _refuse_duplicates(turn, node, row, found)
    found.holder = holder_row(turn, node, row.path)
    return found


def run(turn: Turn, node: Node, row: TaskRow, found: _Branches | None) -> None:
    if found is None:
        return
    mine = turn.edit(row)
    mine.state = {**found.state, **(lasting(mine.state) or {})}
    turn.parsed_fragments[row.seq] = found.fragment
    if found.document is not None:
        turn.fragments[row.seq] = found.document
    spread(turn, node, mine, found.holder, found.references)


# --- A: one task -------------------------------------------------------------------------------


def _same(turn: Turn, node: Node, row: TaskRow, inputs: dict[str, Any]) -> _Branches | None:
    elements = inputs["forkTaskInputs"]
    _limit(node, len(elements))
    workflow = inputs.get("forkTaskWorkflow")
    task_type = "SUB_WORKFLOW" if workflow else str(inputs.get("forkTaskType") or "SIMPLE")
    named = not workflow and (task_type in KINDS or task_type in SYSTEM_TYPES)
    name = str(inputs.get("forkTaskName") or (task_type if named else node.reference))
    check_name(task_type, "forkTaskType")
    check_name(f"_{node.reference}_{name}_{len(elements)}", "The reference name of a forked task")
    task: dict[str, Any] = {"name": name, "taskReferenceName": "", "type": task_type}
    if workflow:
        task["subWorkflowParam"] = {"name": str(workflow), "version": _version(inputs)}
    if not _attach_definition(turn, task):
        return None
    prefix = f"_{name}_" if _first_fork(turn, node, row) else f"_{node.reference}_{name}_"
    state = {"count": len(elements), "prefix": prefix, "same": task}
    return _Branches(Fragment.same(node, task, prefix, len(elements)), state, None)


def _version(inputs: dict[str, Any]) -> int | None:
    given = inputs.get("forkTaskWorkflowVersion")
    try:
        return None if given is None else int(given)
    except (TypeError, ValueError) as error:
        raise Unusable(f"forkTaskWorkflowVersion is no number: {given}") from error


def _first_fork(turn: Turn, node: Node, row: TaskRow) -> bool:
    """The first dynamic fork of a run has the shorter references."""
    if any(number > 1 for number in row.path):
        return False
    others = (other for other in turn.plan.nodes.values() if other.kind == DYNAMIC_FORK and other is not node)
    return all(turn.visible(other.reference, row.path) is None for other in others)


def _attach_definition(turn: Turn, task: dict[str, Any]) -> bool:
    """Freeze the registered task definition into the task; False while it is wanted."""
    if task.get("taskDefinition") is not None:
        return True
    need = TaskDefinition(str(task.get("name") or ""))
    definition = turn.ask(need)
    if need not in turn.answers:
        return False
    if definition is not None:
        task["taskDefinition"] = definition
    return True


# --- B and C: different tasks ------------------------------------------------------------------


def _different(turn: Turn, node: Node, inputs: dict[str, Any]) -> _Branches | None:
    listed = _legacy(node, inputs) if node.task.dynamic_fork_join_tasks_param else _listed(node, inputs)
    _limit(node, len(listed))
    for task in listed:
        for key in ("name", "taskReferenceName", "type"):
            check_name(str(task.get(key) or ""), f"The {key} of a forked task")
    _refuse_guards(node, listed)
    attached = [_attach_definition(turn, task) for task in listed]
    if not all(attached):
        return None
    try:
        tasks = [WorkflowTask.model_validate(task) for task in listed]
    except ValueError as error:
        raise Unusable(_unreadable(node, inputs)) from error
    fragment = Fragment.different(node, tasks, turn.plan)
    return _Branches(fragment, {"count": len(tasks)}, Json(encode(listed)))


def _listed(node: Node, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    found = inputs.get(node.task.dynamic_fork_tasks_param or "")
    if not isinstance(found, list) or not all(
        isinstance(task, dict) and isinstance(task.get("taskReferenceName"), str) for task in found
    ):
        raise Unusable(_unreadable(node, inputs))
    given = inputs.get(node.task.dynamic_fork_tasks_input_param_name or "")
    if not isinstance(given, dict):
        raise Unusable(
            f"Input to the dynamically forked tasks is not a map -> expecting a map of K,V  but found "
            f"{text_of(given)[:200]}"
        )
    tasks = []
    for task in found:
        mine = given.get(task["taskReferenceName"])
        if mine is not None and not isinstance(mine, dict):
            raise Unusable(f"The input of forked task {task['taskReferenceName']} is no map: {mine}")
        tasks.append(dict(task))
    return tasks


def _unreadable(node: Node, inputs: dict[str, Any]) -> str:
    parameter = node.task.dynamic_fork_tasks_param
    shown = text_of(inputs.get(parameter or ""))[:200]
    return f"Input '{parameter}' is invalid. Cannot deserialize a list of Workflow Tasks from '{shown}'"


def _legacy(node: Node, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    found = inputs.get(node.task.dynamic_fork_join_tasks_param or "")
    listed = found.get("dynamicTasks") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise Unusable("Dynamic tasks could not be created. The value of the input parameter is no task list")
    tasks = []
    for item in listed:
        if not isinstance(item, dict) or not item.get("referenceName"):
            raise Unusable("Dynamic tasks could not be created. A task has no referenceName")
        tasks.append(
            {
                "name": item.get("taskName") or "",
                "taskReferenceName": str(item["referenceName"]),
                "type": item.get("type") or "SIMPLE",
            }
        )
    return tasks


def _refuse_guards(node: Node, listed: list[dict[str, Any]]) -> None:
    """What a saga needs is known from the definition; in tasks that come as data it would be too late."""
    for index, task in enumerate(listed):
        found = _guard_in(task)
        if found is not None:
            raise Unusable(
                f"branch {index} of fork {node.reference}: {found} cannot come with a dynamic fork; "
                "put it into a workflow of its own and fork SUB_WORKFLOW tasks"
            )


def _guard_in(value: Any) -> str | None:
    pending = [value]
    while pending:
        at = pending.pop()
        if isinstance(at, list):
            pending.extend(at)
        elif isinstance(at, dict):
            if at.get("type") in ("TRY", "COMPENSATE"):
                return f"the {at['type']} task {at.get('taskReferenceName')}"
            if at.get("compensate"):
                return f"compensate of task {at.get('taskReferenceName')}"
            pending.extend(at.get(key) for key in ("defaultCase", "forkTasks", "loopOver"))
            cases = at.get("decisionCases")
            pending.extend(cases.values() if isinstance(cases, dict) else ())
    return None


def _limit(node: Node, count: int) -> None:
    if count > BRANCHES_MAX:
        raise Unusable(f"fork {node.reference} has {count} branches, more than {BRANCHES_MAX}")


def _refuse_duplicates(turn: Turn, node: Node, row: TaskRow, found: _Branches) -> None:
    seen: set[str] = set()
    for reference in found.references:
        used = reference in turn.plan.nodes or (reference, row.path) in turn.fresh
        known = turn.view.newest.get((reference, row.path))
        used = used or (known is not None and known not in turn.deleted)
        if reference in seen or used:
            raise Unusable(
                f"No dynamic tasks could be created for the Workflow: {turn.header.name}, Dynamic Fork Task: "
                f"{node.reference} attempted to create a duplicate task reference name: {reference}"
            )
        seen.add(reference)
