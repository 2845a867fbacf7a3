"""What differs between two plans: which references are new, gone or changed, and what can still run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .nodes import BODY, FINALLY, LOOP, TRY, Node
from .plan import UNDOING, Plan

_CHAINS = frozenset(
    {
        "decision_cases",
        "default_case",
        "fork_tasks",
        "loop_over",
        "try_tasks",
        "catch_cases",
        "finally_tasks",
        "compensate",
    }
)
"""Fields that hold tasks: what differs in them is told of those tasks, and as `tasks` of this one."""
_WORKFLOW_FIELDS = (
    "input_template",
    "variables",
    "output_parameters",
    "failure_workflow",
    "failure_workflow_version",
    "restartable",
    "timeout_policy",
    "timeout_seconds",
    "rate_limit_config",
    "input_schema",
    "output_schema",
    "enforce_schema",
    "masked_fields",
)


class Kind(StrEnum):
    """What became of a reference."""

    ADDED = "ADDED"
    REMOVED = "REMOVED"
    CHANGED = "CHANGED"


@dataclass(frozen=True, slots=True)
class Difference:
    """One reference. `fields`: the JSON names of what differs; `container` means that it lies in another
    fork, switch, loop or TRY, or in another part of one; `tasks` that other tasks lie directly in it."""

    reference: str
    kind: Kind
    fields: tuple[str, ...] = ()


def differences(old: Plan, new: Plan) -> list[Difference]:
    """Every reference that differs: in the order of the old document, then the new ones."""
    found = []
    for reference, node in old.nodes.items():
        if reference == UNDOING:
            continue
        other = new.nodes.get(reference)
        if other is None:
            found.append(Difference(reference, Kind.REMOVED))
        elif fields := _changed(node, other):
            found.append(Difference(reference, Kind.CHANGED, fields))
    added = (name for name in new.nodes if name not in old.nodes and name != UNDOING)
    found += [Difference(reference, Kind.ADDED) for reference in added]
    return found


def workflow_fields(old: Plan, new: Plan) -> list[str]:
    """The JSON names of the workflow's own fields that differ, those that an execution uses."""
    before, after = old.definition, new.definition
    names = (name for name in _WORKFLOW_FIELDS if hasattr(before, name))
    return [_json_name(name) for name in names if getattr(before, name) != getattr(after, name)]


def _changed(old: Node, new: Node) -> tuple[str, ...]:
    fields = [
        _json_name(name)
        for name in type(old.task).model_fields
        if name not in _CHAINS and getattr(old.task, name) != getattr(new.task, name)
    ]
    if _catches(old) != _catches(new):
        fields.append("catchCases")
    if chain(old) != chain(new):
        fields.append("container")
    if _contents(old) != _contents(new):
        fields.append("tasks")
    return tuple(fields)


def _contents(node: Node) -> Any:
    """The references directly inside a container, chain by chain, and of what undoes the task."""
    cases = [(key, _references(head)) for key, head in node.cases.items()]
    branches = [_references(head) for head in node.branches]
    return cases, _references(node.default), branches, _references(node.compensation)


def _catches(node: Node) -> list[tuple[list[str], list[str]]]:
    """What each catch case is for."""
    return [(case.error_names, case.statuses) for case in node.task.catch_cases]


def _references(head: Node | None) -> list[str]:
    return [node.reference for node in siblings(head)]


def _json_name(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


# --- the shape of a plan ---------------------------------------------------------------------------


def siblings(head: Node | None) -> Iterator[Node]:
    """A node and those that follow it in its chain."""
    while head is not None:
        yield head
        head = head.next


def chain(node: Node) -> tuple[tuple[str, int, int], ...]:
    """The containers around a node, the innermost first: (reference, kind, part of a TRY). A task whose
    compensation it belongs to is one of them."""
    found = []
    inner, at = node, node.parent
    while at is not None:
        found.append((at.reference, at.kind, inner.part if at.kind == TRY else BODY))
        inner, at = at, at.parent
    return tuple(found)


def place(node: Node) -> str:
    """Where a node lies, for people."""
    around = []
    inner, at = node, node.parent
    while at is not None:
        around.append(_room(at, inner))
        inner, at = at, at.parent
    return f"inside {' / '.join(reversed(around))}" if around else "in no container"


def _room(node: Node, inner: Node) -> str:
    if node.kind == TRY:
        part = {BODY: "tryTasks", FINALLY: "finallyTasks"}.get(inner.part, f"catchCases[{inner.part - 1}]")
        return f"{node.reference}.{part}"
    if node.compensation is not None and any(other is inner for other in siblings(node.compensation)):
        return f"{node.reference}.compensate"
    return node.reference


def inside(node: Node) -> Iterator[Node]:
    """Every node inside a container, at any depth; what undoes it is not."""
    pending = [*node.branches, *node.cases.values(), node.default]
    while pending:
        for found in siblings(pending.pop()):
            yield found
            pending += [*found.branches, *found.cases.values(), found.default]


class Reach:
    """What can still get its first row in the turn that runs now (`soon`), and in a later turn of a loop
    that runs (`later`)."""

    def __init__(self) -> None:
        self.soon: set[str] = set()
        self.later: set[str] = set()
        self._followed: set[str] = set()

    def __contains__(self, reference: str) -> bool:
        return reference in self.soon or reference in self.later

    def born(self, node: Node) -> None:
        """`node` is about to get its first row."""
        self._take(node)
        self.follow(node)

    def opened(self, node: Node) -> None:
        """`node` has an open row: what it contains is still to come, and what follows it."""
        where = self.later if node.kind == LOOP else self.soon
        where.update(found.reference for found in inside(node))
        self.follow(node)

    def follow(self, node: Node) -> None:
        """The flow leaves `node` at some time: all that follows it can come."""
        while node.reference not in self._followed:
            self._followed.add(node.reference)
            if node.successor is None:
                return
            node = node.successor
            self._take(node)

    def take_all(self, nodes: Iterable[Node]) -> None:
        """Each of these is about to get its first row."""
        for node in nodes:
            self.born(node)

    def _take(self, node: Node) -> None:
        self.soon.add(node.reference)
        self.soon.update(found.reference for found in inside(node))
