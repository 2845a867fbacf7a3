"""What a workflow runs on: its definition with everything it depends on written into it.

The registered task definition of each node is embedded as `taskDefinition`, and a SUB_WORKFLOW
without a version gets the one that is the latest now. A snapshot is named by its content and
never changes, so later registrations do not touch workflows that run.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..payload import encode

_AUDIT = frozenset({"createTime", "updateTime", "createdBy", "updatedBy"})
"""Who registered it and when is no part of what it says: the same document makes the same snapshot."""

Node = dict[str, Any]


def task_names(document: Any) -> list[str]:
    """The names under which nodes of a workflow document look up their task definitions, sorted."""
    names = (node.get("name") for node in _nodes(document) if not node.get("taskDefinition"))
    return sorted({name for name in names if isinstance(name, str) and name})


def unpinned_children(document: Any) -> list[str]:
    """The names of workflows that it starts in their latest version, sorted.

    Not those named by an expression or given inline, nor version 0, which is the latest of the
    time when the child starts."""
    names = {_unpinned(node) for node in _nodes(document)}
    return sorted(name for name in names if name is not None)


def snapshot(
    document: Any, task_definitions: Mapping[str, Any], latest_versions: Mapping[str, int]
) -> tuple[str, bytes]:
    """(id, JSON text) of a workflow document with task definitions by name and versions by child.

    What the mappings lack stays as it is: an unregistered task has its kind's default policy, an
    unregistered child is looked up when it is to start.
    """

    def pin(node: Node) -> Node:
        pinned = dict(node)
        name = node.get("name")
        if not node.get("taskDefinition") and isinstance(name, str) and name in task_definitions:
            pinned["taskDefinition"] = _unaudited(task_definitions[name])
        child = _unpinned(node)
        if child is not None and child in latest_versions:
            pinned["subWorkflowParam"] = {**node["subWorkflowParam"], "version": latest_versions[child]}
        return pinned

    raw = encode(_unaudited(_with_nodes(document, pin)))
    return str(uuid.UUID(bytes=hashlib.sha256(raw).digest()[:16])), raw


def _unaudited(document: Any) -> Any:
    if not isinstance(document, dict) or _AUDIT.isdisjoint(document):
        return document
    return {key: value for key, value in document.items() if key not in _AUDIT}


def _unpinned(node: Node) -> str | None:
    """The child whose latest version this node asks for."""
    params = node.get("subWorkflowParam")
    if node.get("type") != "SUB_WORKFLOW" or not isinstance(params, dict):
        return None
    name = params.get("name")
    if params.get("version") is not None or params.get("workflowDefinition") is not None:
        return None
    return name if isinstance(name, str) and name and "${" not in name else None


def _nodes(document: Any) -> Iterator[Node]:
    """Every node of a workflow document, those inside operators included; not those of inline children."""
    pending: list[Any] = [document.get("tasks")] if isinstance(document, dict) else []
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict):
            yield value
            pending.extend(value.get(key) for key in _CHAINS)
            cases = value.get("decisionCases")
            pending.extend(cases.values() if isinstance(cases, dict) else ())
            pending.extend(case.get("tasks") for case in _catches(value))


_CHAINS = ("defaultCase", "forkTasks", "loopOver", "tryTasks", "finallyTasks", "compensate")


def _catches(node: Node) -> list[dict[str, Any]]:
    """The catch cases of a TRY: objects that hold nodes and are none."""
    cases = node.get("catchCases")
    return [case for case in cases if isinstance(case, dict)] if isinstance(cases, list) else []


def _with_nodes(document: Any, change: Callable[[Node], Node]) -> Any:
    """A copy of the document with each node changed."""

    def inside(value: Any) -> Any:
        if isinstance(value, list):
            return [inside(item) for item in value]
        if not isinstance(value, dict):
            return value
        node = change(value)
        for key in _CHAINS:
            if key in node:
                node[key] = inside(node[key])
        cases = node.get("decisionCases")
        if isinstance(cases, dict):
            node["decisionCases"] = {key: inside(case) for key, case in cases.items()}
        if _catches(node):
            node["catchCases"] = [
                {**case, "tasks": inside(case["tasks"])}
                if isinstance(case, dict) and "tasks" in case
                else case
                for case in node["catchCases"]
            ]
        return node

    if not isinstance(document, dict):
        return document
    return {**document, "tasks": inside(document.get("tasks"))}
