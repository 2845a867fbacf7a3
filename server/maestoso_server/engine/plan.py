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
from ..definitions.schemas import compile_schema
from .attributes import compile_attributes
from .conditions import Condition
from .expressions import Template, compile_template
from .nodes import (
    BODY,
    COMPENSATE,
    DECISION,
    DYNAMIC_FORK,
    EXCLUSIVE_JOIN,
    FINALLY,
    FORK,
    JOIN,
    LOOP,
    PASSED_THROUGH,
    SUB_WORKFLOW,
    SWITCH,
    TERMINATE,
    TRY,
    Node,
    SubWorkflow,
)
from .statuses import status_queue

UNDOING = "__compensate"
"""The reference of the row that a failing workflow compensates by. No document may have such a one."""

LOOP_COUNTERS = frozenset({"iteration", "loopIndex", "loopItem"})
"""Keys of a running loop's output that are kept in its row; the turns are read from their rows."""


class Plan:
    """A compiled definition. Immutable; shared by all workflows of one snapshot."""

    __slots__ = (
        "attributes",
        "compensable",
        "definition",
        "environment",
        "first",
        "guarded",
        "input_schema",
        "input_template",
        "name",
        "nodes",
        "only_alerts",
        "output",
        "output_schema",
        "output_whole",
        "restartable",
        "secretive",
        "slots",
        "status_queue",
        "strict",
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
        self.only_alerts = definition.timeout_policy is WorkflowTimeoutPolicy.ALERT_ONLY
        self.timeout_s = max(definition.timeout_seconds, 0)
        """0 where the clock is off."""
        self.output = compile_template(definition.output_parameters) if definition.output_parameters else None
        self.attributes = (
            compile_attributes(definition.search_attributes) if definition.search_attributes else {}
        )
        enforced = definition.enforce_schema
        self.input_schema = compile_schema(definition.input_schema) if enforced else None
        self.output_schema = compile_schema(definition.output_schema) if enforced else None
        self.strict = definition.on_missing == "error"
        """An expression that finds nothing fails its task, or the workflow whose output it is in."""
        self.status_queue = status_queue(definition)
        self.slots = _slot_limit(definition)
        """How many of its workflows may run at once; None: any number."""
        self.nodes: dict[str, Node] = {}
        self.first: Node | None = None
        self.output_whole: frozenset[str] = frozenset()
        self.compensable: tuple[str, ...] = ()
        """The tasks with a chain that undoes them."""
        self.guarded = False
        """There are parts of it that can be over before the workflow is: a TRY's, a compensation's."""
        self.secretive = False
        """Some input has placeholders of secrets in it."""


class SlotLimit:
    """A `rateLimitConfig`: `slots` workflows of one key may run; `refuse`: others do not wait."""

    __slots__ = ("key", "refuse", "slots")

    def __init__(self, key: Template, slots: int, *, refuse: bool) -> None:
        self.key = key
        self.slots = slots
        self.refuse = refuse


def _slot_limit(definition: WorkflowDefinition) -> SlotLimit | None:
    config = definition.rate_limit_config
    if config is None or config.concurrent_exec_limit <= 0:
        return None
    key = compile_template(config.rate_limit_key or "")
    return SlotLimit(key, config.concurrent_exec_limit, refuse=config.policy == "REJECT")


def compile(definition: WorkflowDefinition, environment: Mapping[str, str] | None = None) -> Plan:
    """The plan of a definition. Never fails: what a document gets wrong, its nodes say when they run."""
    plan = Plan(definition, environment or {})
    plan.first = grow(plan.nodes, definition.tasks, None, ())
    link(plan.nodes.values(), plan.nodes)
    plan.secretive = any(node.secretive for node in plan.nodes.values())
    if plan.output is not None:
        plan.output_whole = whole_loops(plan.output, plan.nodes)
    _find_sagas(plan)
    return plan


def _find_sagas(plan: Plan) -> None:
    """What a saga needs to know of its plan."""
    tries = [node for node in plan.nodes.values() if node.kind == TRY]
    undone = [node for node in plan.nodes.values() if node.compensation is not None]
    plan.compensable = tuple(node.reference for node in undone)
    plan.guarded = bool(tries or undone)
    for guard in tries:
        guard.compensable = tuple(node.reference for node in undone if _within(node, guard))
    if undone:
        task = WorkflowTask.model_validate(
            {"name": "compensate", "taskReferenceName": UNDOING, "type": "COMPENSATE"}
        )
        plan.nodes[UNDOING] = Node(task, None, ())


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
        if node.kind in (JOIN, EXCLUSIVE_JOIN):
            _await(node, nodes)
    for node in made:
        if node.kind in (FORK, DYNAMIC_FORK) and node.next is not None and node.next.joins:
            _guard(node, None, node.next, first=True)
        if node.kind == FORK and node.next is not None:
            node.next.own = frozenset(ref for ref in node.next.awaited if _within(nodes[ref], node))
    for node in made:
        node.leaves = tuple(_leaves(node))


def _leaves(node: Node) -> Iterator[str]:
    at = node
    while at.next is None and at.parent is not None and at.parent.kind in (SWITCH, DECISION):
        at = at.parent
        if at.guards:
            yield at.reference


def _await(join: Node, nodes: Mapping[str, Node]) -> None:
    """Work out which tasks a join waits for.

    One inside a loop beside it is done when that loop is; one that the definition lacks, or that runs
    in other turns than the join, is not waited for. Of one in a case that is not chosen it learns when
    the chosen case has ended (`guards`)."""
    listed = join.join_on
    if join.kind == EXCLUSIVE_JOIN:
        listed = (*listed, *join.task.default_exclusive_join_task)
    depth = len(join.loops)
    found: dict[str, Node] = {}
    for reference in listed:
        target = nodes.get(reference)
        if target is None or target.loops[:depth] != join.loops:
            continue
        if len(target.loops) > depth:
            target = nodes[target.loops[depth]]
        found[target.reference] = target
    join.awaited = tuple(found)
    for target in found.values():
        target.joins.append(join)
        inside, at = target, target.parent
        while at is not None and at is not join.parent:
            if at.kind in (SWITCH, DECISION):
                _guard(at, _head(inside, at), target)
            elif at.kind == FORK:
                _guard(at, None, target)
            inside, at = at, at.parent


def _guard(guard: Node, head: Node | None, target: Node, *, first: bool = False) -> None:
    if guard not in target.guarded_by:
        guard.guards.append((head, target))
        target.guarded_by.insert(0 if first else len(target.guarded_by), guard)


def _head(inside: Node, switch: Node) -> Node | None:
    """The head of the case that holds a node directly."""
    for head in (*switch.cases.values(), switch.default):
        if any(node is inside for node in _siblings(head)):
            return head
    return None


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
    nodes: dict[str, Node],
    tasks: list[WorkflowTask],
    parent: Node | None,
    loops: tuple[str, ...],
    part: int | None = None,
) -> Node | None:
    head: Node | None = None
    previous: Node | None = None
    for task in tasks:
        node = Node(task, parent, loops)
        if part is not None:
            node.part = part
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
    if task.compensate and node.kind not in _STEERING:
        node.compensation = _chain(nodes, task.compensate, node, node.loops)
        return [node.compensation, *_operator_chains(nodes, node)]
    return _operator_chains(nodes, node)


_STEERING = frozenset({*PASSED_THROUGH, JOIN, EXCLUSIVE_JOIN, LOOP, TRY, COMPENSATE, TERMINATE})


def _operator_chains(nodes: dict[str, Node], node: Node) -> list[Node | None]:
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
            language = "python" if task.evaluator_type == "python" else "javascript"
            body = _body(task.loop_over)
            node.condition = Condition(task.loop_condition, node.reference, body, language)
        listed = task.items if task.items and task.items.strip() else task.input_parameters.get("_items")
        if listed is not None and listed != "":
            node.items = compile_template(listed)
    elif node.kind in (JOIN, EXCLUSIVE_JOIN):
        node.join_on = tuple(dict.fromkeys(task.join_on))
    elif node.kind == TRY:
        node.branches = [
            _chain(nodes, task.try_tasks, node, node.loops, BODY),
            *(
                _chain(nodes, case.tasks, node, node.loops, part)
                for part, case in enumerate(task.catch_cases, 1)
            ),
            _chain(nodes, task.finally_tasks, node, node.loops, FINALLY),
        ]
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
        for inner in (task.try_tasks, *(case.tasks for case in task.catch_cases), task.finally_tasks):
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
        if parent is None or parent.kind not in (SWITCH, DECISION):
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
