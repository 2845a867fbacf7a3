"""SUB_WORKFLOW and START_WORKFLOW: other workflows, started by a message in the same commit."""

from __future__ import annotations

from typing import Any

from ... import ids
from ...payload import EMPTY, Json
from .. import messages
from ..decision import MessageKind
from ..keys import BadKey, Key, read_key
from ..needs import Child, ChildAnswer
from ..nodes import Node
from ..state import Path, TaskRow, TaskStatus
from ..turn import Turn
from .births import BadInput, input_fault
from .finishing import Unusable, check_name, finish


def prepare_input(turn: Turn, node: Node, path: Path, _scope: int) -> Json:
    """The row's input: whom to start, and with what."""
    sub = node.sub
    if sub is None:
        return EMPTY
    params = turn.evaluate(sub.parameters, path, loops=node.loops)
    definition: Any = sub.inline
    if definition is None and sub.definition is not None:
        definition = turn.evaluate(sub.definition, path, loops=node.loops)
    given = turn.resolve(node, path, turn.header.next_seq)
    named = isinstance(definition, dict)
    value = Json.of(
        {
            "subWorkflowName": definition.get("name") if named else params["name"],
            "subWorkflowVersion": None if named else params["version"],
            "subWorkflowTaskToDomain": params["taskToDomain"],
            "priority": params["priority"],
            "idempotencyKey": params["idempotencyKey"],
            "idempotencyStrategy": params["idempotencyStrategy"],
            "subWorkflowDefinition": definition if named else None,
            "workflowInput": given,
        }
    )
    fault = input_fault(turn, node, value, node.policy)
    if fault is not None:
        raise BadInput(fault, value)
    return value


def prepare_run(turn: Turn, node: Node, row: TaskRow) -> ChildAnswer | None:
    """Which snapshot to start."""
    asked = row.input.value
    if node.sub is None or "subWorkflowName" not in asked:
        raise Unusable(f"Task {node.reference} is defined as sub-workflow and is missing subWorkflowParam")
    name, definition = asked["subWorkflowName"], asked["subWorkflowDefinition"]
    if definition is None and (not isinstance(name, str) or not name):
        raise Unusable(f"The sub-workflow of task {node.reference} has no name")
    _key(asked)
    answer: ChildAnswer | None = turn.ask(
        Child(name or "", _version(asked["subWorkflowVersion"]), _inline(definition))
    )
    return answer


def _key(asked: dict[str, Any]) -> Key | None:
    try:
        return read_key(asked.get("idempotencyKey"), asked.get("idempotencyStrategy"))
    except BadKey as error:
        raise Unusable(str(error)) from None


def _version(value: Any) -> int | None:
    """0 and null mean the latest; a text must be a number."""
    if value is None or value == "":
        return None
    try:
        version = int(value)
    except (TypeError, ValueError) as error:
        raise Unusable(f"The sub-workflow's version is no number: {value}") from error
    if not 0 <= version < 1 << 31:
        raise Unusable(f"The sub-workflow's version is out of range: {value}")
    return version or None


def run(turn: Turn, node: Node, row: TaskRow, answer: ChildAnswer | None) -> None:
    if answer is None:
        return
    if answer.error is not None:
        finish(turn, node, row, TaskStatus.FAILED, reason=answer.error)
        return
    asked = row.input.value
    header = turn.header
    domains = asked["subWorkflowTaskToDomain"]
    priority = asked["priority"]
    given = asked["workflowInput"]
    if asked["subWorkflowDefinition"] is not None:
        given = {**given, "_systemMetadata": {"dynamic": True}}
    child_id = ids.child_id(header.id, turn.task_id(row.seq), row.attempt)
    mine = turn.edit(row)
    mine.child_id = child_id
    mine.reason = None
    mine.output = Json.of({"subWorkflowId": child_id})
    turn.set_status(mine, TaskStatus.IN_PROGRESS)
    turn.send(
        child_id,
        MessageKind.CHILD_START,
        messages.child_start(
            header,
            row.seq,
            name=answer.name,
            version=answer.version,
            snapshot_id=answer.snapshot_id,
            input=Json.of(given),
            task_to_domain=_domains(domains) if isinstance(domains, dict) else header.task_to_domain,
            priority=_priority(priority, header.priority),
            secretive=turn.secretive,
            key=_key(asked),
        ),
    )


def _domains(mapping: dict[str, Any]) -> Json:
    """A child's `taskToDomain`, whose values become names of queues."""
    for task_type, domain in mapping.items():
        check_name(str(domain), f"The domain of {task_type[:40]!r}")
    return Json.of(mapping)


def _inline(definition: Any) -> Json | None:
    return None if definition is None else Json.of(definition)


def _priority(asked: Any, inherited: int) -> int:
    if isinstance(asked, bool) or not isinstance(asked, int | float):
        return inherited
    return max(0, min(int(asked), 99))


# --- START_WORKFLOW ------------------------------------------------------------------------------


def prepare_start(turn: Turn, _node: Node, row: TaskRow) -> ChildAnswer | None:
    request = _request(row)
    _key(request)
    version = request.get("version")
    answer: ChildAnswer | None = turn.ask(
        Child(str(request.get("name") or ""), _version(version), _inline(request.get("workflowDef")))
    )
    return answer


def _request(row: TaskRow) -> dict[str, Any]:
    request = row.input.value.get("startWorkflow")
    if request is None:
        raise Unusable("Missing 'startWorkflow' in input data.")
    if not isinstance(request, dict):
        raise Unusable("Error reading StartWorkflowRequest. It is no object.")
    if not request.get("name") and not isinstance(request.get("workflowDef"), dict):
        raise Unusable("startWorkflow validation failed. 'name' -> Workflow name cannot be null or empty.")
    return request


def run_start(turn: Turn, node: Node, row: TaskRow, answer: ChildAnswer | None) -> None:
    """Fire and forget: the started workflow has no parent. With an idempotency key the task waits for
    the word which workflow it is (`keys`)."""
    if answer is None:
        return
    if answer.error is not None:
        finish(turn, node, row, TaskStatus.FAILED, reason=answer.error)
        return
    request = _request(row)
    header = turn.header
    domains, given, key = request.get("taskToDomain"), request.get("input"), _key(request)
    started = ids.child_id(header.id, turn.task_id(row.seq), row.attempt)
    turn.send(
        started,
        MessageKind.CHILD_START,
        messages.child_start(
            header,
            row.seq if key else 0,
            name=answer.name,
            version=answer.version,
            snapshot_id=answer.snapshot_id,
            input=Json.of(given if isinstance(given, dict) else {}),
            task_to_domain=_domains(domains)
            if isinstance(domains, dict) and domains
            else header.task_to_domain,
            priority=_priority(request.get("priority"), 0),
            correlation_id=request.get("correlationId") or header.correlation_id,
            orphan=True,
            secretive=turn.secretive,
            key=key,
        ),
    )
    if key is None:
        finish(turn, node, row, TaskStatus.COMPLETED, Json.of({"workflowId": started}))
        return
    mine = turn.edit(row)
    mine.reason = None
    turn.set_state(mine, asked=started)
    turn.set_status(mine, TaskStatus.IN_PROGRESS)
