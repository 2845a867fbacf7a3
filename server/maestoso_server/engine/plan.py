"""A definition compiled for the engine: `compile(definition) -> Plan`.

Everything that depends on the document alone is worked out here, once, so that an event only
follows pointers: who comes after a node, which container its chain closes, which joins wait for
it, which rows its expressions read, under which policy it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..definitions.models import (
    WorkflowDefinition,
    WorkflowTask,
    WorkflowTimeoutPolicy,
)
from .attributes import compile_attributes
from .conditions import Condition
from .expressions import Template, compile_template
from .nodes import (
    DECISION,
    DYNAMIC_FORK,
    EXCLUSIVE_JOIN,
    FORK,
    JOIN,
    LOOP,
    SUB_WORKFLOW,
    SWITCH,
    Node,
    SubWorkflow,
)

LOOP_COUNTERS = frozenset({"iteration", "loopIndex", "loopItem"})
"""Keys of a running loop's output that are kept in its row; the turns are read from their rows."""


class Plan:
    """A compiled definition. Immutable; shared by all workflows of one snapshot."""

    __slots__ = (
        "attributes",
        "definition",
        "environment",
        "first",
        "input_template",
        "name",
        "nodes",
        "output",
        "output_whole",
        "restartable",
        "timeout_s",
        "variables",
        "version",
    )

    def __init__(self, definition: WorkflowDefinition, environment: Mapping[str, str]) -> None:
        self.definition = definition
        self.environment = environment
        """What `${workflow.env.NAME}` may read."""
        self.name = definition.name
        self.version = definition.version
        self.input_template = definition.input_template
        self.variables = definition.variables
        self.restartable = definition.restartable
        ends = definition.timeout_policy is WorkflowTimeoutPolicy.TIME_OUT_WF
        self.timeout_s = max(definition.timeout_seconds, 0) if ends else 0
        """0 where the clock is off or only alerts."""
        self.output = compile_template(definition.output_parameters) if definition.output_parameters else None
        self.attributes = (
            compile_attributes(definition.search_attributes) if definition.search_attributes else {}
        )
        self.nodes: dict[str, Node] = {}
        self.first: Node | None = None
        self.output_whole: frozenset[str] = frozenset()


def compile(definition: WorkflowDefinition, environment: Mapping[str, str] | None = None) -> Plan:
    """The plan of a definition. Never fails: what a document gets wrong, its nodes say when they run."""
    plan = Plan(definition, environment or {})
    plan.first = grow(plan.nodes, definition.tasks, None, ())
    link(plan.nodes.values(), plan.nodes)
    if plan.output is not None:
        plan.output_whole = whole_loops(plan.output, plan.nodes)
    return plan


def grow(
    nodes: dict[str, Node], tasks: list[WorkflowTask], parent: Node | None, loops: tuple[str, ...]
) -> Node | None:
    """Make the nodes of a chain and of all that it contains; the head of the chain."""
    head = _chain(nodes, tasks, parent, loops)
    pending = list(_siblings(head))
    while pending:
        node = pending.pop()
        for child in _contain(nodes, node):
            pending.extend(_siblings(child))
    return head


def link(made: Iterable[Node], nodes: Mapping[str, Node]) -> None:
    """Tell each node what follows it and who waits for it."""
    made = list(made)
    for node in made:
        _follow(node)
        node.inputs_whole = whole_loops(node.input, nodes)
        for reference in dict.fromkeys((*node.join_on, *node.task.default_exclusive_join_task)):
            target = nodes.get(reference)
            if target is not None and target.loops == node.loops:
                target.joins.append(node)
    for node in made:
        if node.kind == FORK and node.next is not None:
            inside = (ref for ref in node.next.join_on if ref in nodes and _within(nodes[ref], node))
            node.next.own = frozenset(inside)


def whole_loops(template: Template, nodes: Mapping[str, Node]) -> frozenset[str]:
    """The loops whose output of all turns a template reads; most read the counters only."""
    if template.open or any(not reference.root for reference in template.references):
        return frozenset(node.reference for node in nodes.values() if node.kind == LOOP)
    found = set()
    for reference in template.references:
        node = nodes.get(reference.root)
        if node is None or node.kind != LOOP or reference.attribute not in ("output", None):
            continue
        if len(reference.path) < 2 or reference.path[1] not in LOOP_COUNTERS:
            found.add(reference.root)
    return frozenset(found)


def _chain(
    nodes: dict[str, Node], tasks: list[WorkflowTask], parent: Node | None, loops: tuple[str, ...]
) -> Node | None:
    head: Node | None = None
    previous: Node | None = None
    for task in tasks:
        node = Node(task, parent, loops)
        nodes[node.reference] = node
        if previous is None:
            head = node
        else:
            previous.next = node
        previous = node
    return head


def _contain(nodes: dict[str, Node], node: Node) -> list[Node | None]:
    """Make the chains inside a node; their heads."""
    task = node.task
    if node.kind in (SWITCH, DECISION):
        node.cases = {
            key: _chain(nodes, tasks, node, node.loops) for key, tasks in task.decision_cases.items()
        }
        node.default = _chain(nodes, task.default_case, node, node.loops)
        return [*node.cases.values(), node.default]
    if node.kind == FORK:
        node.branches = [_chain(nodes, tasks, node, node.loops) for tasks in task.fork_tasks]
    elif node.kind == LOOP:
        node.branches = [_chain(nodes, task.loop_over, node, (*node.loops, node.reference))]
        if task.loop_condition:
            node.condition = Condition(task.loop_condition, node.reference, _body(task.loop_over))
        listed = task.items if task.items and task.items.strip() else task.input_parameters.get("_items")
        if listed is not None and listed != "":
            node.items = compile_template(listed)
    elif node.kind in (JOIN, EXCLUSIVE_JOIN):
        node.join_on = tuple(dict.fromkeys(task.join_on))
    elif node.kind == SUB_WORKFLOW:
        node.sub = SubWorkflow(task)
    return node.branches


def _body(tasks: list[WorkflowTask]) -> frozenset[str]:
    """The references inside a loop's body, those inside inner loops left out."""
    found = set()
    pending = list(tasks)
    while pending:
        task = pending.pop()
        found.add(task.task_reference_name)
        for inner in (*task.decision_cases.values(), task.default_case, *task.fork_tasks):
            pending.extend(inner)
    return frozenset(found)


def _siblings(head: Node | None) -> Iterator[Node]:
    while head is not None:
        yield head
        head = head.next


def _follow(node: Node) -> None:
    at = node
    while at.next is None:
        parent = at.parent
        if parent is None or parent.kind in (FORK, DYNAMIC_FORK, LOOP):
            node.closes = parent
            return
        at = parent
        node.climb += 1
    node.successor = at.next


def _within(node: Node, container: Node) -> bool:
    at: Node | None = node
    while at is not None:
        if at is container:
            return True
        at = at.parent
    return False
