"""The tasks of a definition as the engine sees them: what kind they are and all that follows from it."""

from __future__ import annotations

from typing import Any

from ..definitions.models import (
    TaskDefinition,
    WorkflowDefinition,
    WorkflowTask,
    effective_task_definition,
)
from ..payload import Json
from .cache import Cache, cache_of
from .changes import Change, compile_changes
from .conditions import Condition
from .expressions import MISSING, Template, compile_template, resolve
from .policy import Policy
from .state import TaskStatus

# What the engine does with a node. Plain numbers: they are compared at every step.
WORKER = 0
SWITCH = 1
FORK = 2
JOIN = 3
DYNAMIC_FORK = 4
LOOP = 5
SUB_WORKFLOW = 6
SET_VARIABLE = 7
INLINE = 8
WAIT = 9
TERMINATE = 10
NOOP = 11
HUMAN = 12
START_WORKFLOW = 13
DYNAMIC = 14
EXCLUSIVE_JOIN = 15
DECISION = 16
LAMBDA = 17
JQ = 18
EVENT = 19
TRY = 20
COMPENSATE = 21

KINDS = {
    "SWITCH": SWITCH,
    "DECISION": DECISION,
    "FORK_JOIN": FORK,
    "FORK": FORK,
    "FORK_JOIN_DYNAMIC": DYNAMIC_FORK,
    "JOIN": JOIN,
    "EXCLUSIVE_JOIN": EXCLUSIVE_JOIN,
    "DO_WHILE": LOOP,
    "SUB_WORKFLOW": SUB_WORKFLOW,
    "SET_VARIABLE": SET_VARIABLE,
    "INLINE": INLINE,
    "LAMBDA": LAMBDA,
    "JSON_JQ_TRANSFORM": JQ,
    "WAIT": WAIT,
    "TERMINATE": TERMINATE,
    "NOOP": NOOP,
    "HUMAN": HUMAN,
    "START_WORKFLOW": START_WORKFLOW,
    "DYNAMIC": DYNAMIC,
    "EVENT": EVENT,
    "TRY": TRY,
    "COMPENSATE": COMPENSATE,
}

SYSTEM_TYPES = frozenset({"HTTP", "KAFKA_PUBLISH", "JDBC"})
"""Queue-driven work that the server does itself; no domain applies to it."""

_BY_NAME = frozenset(
    {"INLINE", "LAMBDA", "JSON_JQ_TRANSFORM", "SET_VARIABLE", "NOOP", "TERMINATE", "HUMAN", "WAIT"}
)
"""A SIMPLE node with such a name is that task (K11)."""

_QUEUED = frozenset({WORKER, DYNAMIC})
_TEMPLATED = frozenset({WORKER, INLINE, LAMBDA, JQ, LOOP})
"""Kinds whose first attempt sees the task definition's `inputTemplate`. A DYNAMIC's is that of the
task that it turns out to be (B18)."""

_WITHOUT_TASK_ID = frozenset(
    {SWITCH, DECISION, FORK, DYNAMIC_FORK, JOIN, EXCLUSIVE_JOIN, SET_VARIABLE, SUB_WORKFLOW, START_WORKFLOW}
)
"""Kinds in whose inputs `${CPEWF_TASK_ID}` stays as it is."""

_CALLED_BY_TYPE = frozenset({SWITCH, DECISION, FORK, DYNAMIC_FORK, JOIN})
"""Kinds whose rows have their type for a `taskDefName`."""

NEVER_RETRIED = frozenset({SWITCH, DECISION, FORK, DYNAMIC_FORK, JOIN, EXCLUSIVE_JOIN, LOOP, TRY, COMPENSATE})

PASSED_THROUGH = frozenset({SWITCH, DECISION, FORK, DYNAMIC_FORK})
"""Kinds whose chains belong to what is around them: a loop's turn, a part of a TRY."""

BODY = 0
"""The part of a TRY that its tryTasks are; its catch cases are 1, 2, ..."""
FINALLY = -1

UNREGISTERED = TaskDefinition()
"""What a worker task without a task definition runs under (K10)."""


class Node:
    """One task of the definition. `task` is the document's own record of it.

    `successor` runs when it is done: its next sibling, or that of the SWITCH whose case it ends
    (`climb` SWITCHes up). Where there is none, `closes` is the fork or loop whose chain ends here;
    None for the workflow's own chain.
    """

    __slots__ = (
        "awaited",
        "branches",
        "cache",
        "cases",
        "changes",
        "climb",
        "closes",
        "compensable",
        "compensation",
        "condition",
        "constant",
        "default",
        "fallbacks",
        "guard",
        "guarded_by",
        "guards",
        "holder",
        "input",
        "inputs_whole",
        "is_branch",
        "items",
        "join_on",
        "joins",
        "kind",
        "leaves",
        "loops",
        "name",
        "next",
        "optional",
        "own",
        "parent",
        "part",
        "permissive",
        "policy",
        "reads_task_id",
        "reference",
        "row_type",
        "secretive",
        "start_delay_s",
        "sub",
        "successor",
        "task",
        "type",
        "watched",
    )

    def __init__(self, task: WorkflowTask, parent: Node | None, loops: tuple[str, ...]) -> None:
        self.task = task
        self.parent = parent
        self.loops = loops
        """References of the enclosing DO_WHILEs, outermost first: one for each element of a path."""
        self.reference = task.task_reference_name
        self.name = task.name
        self.type = task.type
        kind_of = task.name if task.type == "SIMPLE" and task.name in _BY_NAME else task.type
        self.kind: int = KINDS.get(kind_of, WORKER)
        self.row_type = _row_type(task, self.kind)
        if self.kind in _CALLED_BY_TYPE:
            self.name = self.row_type
        self.guard: Node | None = None
        """What takes this node's failures: the innermost TRY around it, or the task that its chain
        compensates; None: the workflow."""
        self.holder: Node | None = None
        """What waits for the chains around it to end: the innermost loop, TRY or compensated task."""
        self.part = BODY
        """Which part of its guard it lies in."""
        if parent is not None:
            passes = parent.kind in PASSED_THROUGH
            self.holder = parent.holder if passes else parent
            own = parent.kind != LOOP and not passes
            self.guard, self.part = (parent, BODY) if own else (parent.guard, parent.part)
        self.compensation: Node | None = None
        """The head of the chain that undoes this task."""
        self.compensable: tuple[str, ...] = ()
        """Of a TRY: the tasks inside it that have such a chain."""
        self.optional = task.optional
        self.permissive = task.permissive and not task.optional
        self.start_delay_s = max(task.start_delay, 0)
        definition = effective_task_definition(task)
        self.policy = policy_of(self.kind, task, definition)
        self.input, self.fallbacks = input_template(_parameters(task, self.kind), definition, self.kind)
        self.constant: Json | None = None
        """The input where nothing in it is resolved: shared by all rows."""
        if self.input.constant and self.fallbacks is None and self.policy.input_schema is None:
            self.constant = Json.of(resolve(self.input, _nothing))
        self.cache: Cache | None = cache_of(task) if self.kind == WORKER else None
        self.changes: dict[TaskStatus, tuple[Change, ...]] | None = compile_changes(task.on_state_change)
        self.watched = (
            self.kind == DYNAMIC
            or self.policy.output_schema is not None
            or self.cache is not None
            or self.changes is not None
        )
        """Something follows from its rows' births and ends beyond the flow (`closing`)."""
        self.secretive = self.input.secretive or any(
            fallback.secretive for fallback in (self.fallbacks or {}).values()
        )
        self.inputs_whole: frozenset[str] = frozenset()
        """Loops whose whole output the input reads, not just its counters."""
        self.reads_task_id = self.input.reads_task_id and self.kind not in _WITHOUT_TASK_ID
        self.is_branch = False
        """The head of a dynamic fork's branch: its input is data of the fork."""
        self.next: Node | None = None
        self.successor: Node | None = None
        self.climb = 0
        self.closes: Node | None = None
        self.joins: list[Node] = []
        """The joins that wait for this node, in the same turn of the same loops."""
        self.branches: list[Node | None] = []
        """Heads of a fork's branches; of a loop, the one head of its body."""
        self.cases: dict[str, Node | None] = {}
        self.default: Node | None = None
        self.join_on: tuple[str, ...] = ()
        self.awaited: tuple[str, ...] = ()
        """Of a join: the tasks that can tell it that they are done, at the same turn of its loops."""
        self.own: frozenset[str] = frozenset()
        """Those of `awaited` that lie inside the fork before this join."""
        self.guarded_by: list[Node] = []
        """The nodes whose `guards` name it, from the inside out."""
        self.leaves: tuple[str, ...] = ()
        """The SWITCHes and DECISIONs with `guards` whose case ends with this node, from the inside out."""
        self.guards: list[tuple[Node | None, Node]] = []
        """Of a SWITCH or DECISION: (head of a case, a task in that case that a join outside it awaits).
        Of a fork: (None, such a task in a branch, or the fork's own join); a fork that fails runs neither."""
        self.condition: Condition | None = None
        self.items: Template | None = None
        self.sub: SubWorkflow | None = None

    def renamed(self, reference: str) -> Node:
        """The same node under another reference."""
        node = Node.__new__(Node)
        for slot in Node.__slots__:
            setattr(node, slot, getattr(self, slot))
        node.reference = reference
        return node


class SubWorkflow:
    """What a SUB_WORKFLOW node says about the workflow that it starts."""

    __slots__ = ("definition", "inline", "parameters")

    def __init__(self, task: WorkflowTask) -> None:
        params = task.sub_workflow_param
        given = params.workflow_definition if params is not None else None
        self.inline: dict[str, Any] | None = None
        """The child's document where it is written inside the parent's; its `${}` are its own."""
        self.definition: Template | None = None
        """An expression that yields the child's document."""
        if isinstance(given, WorkflowDefinition):
            self.inline = given.model_dump(mode="json", by_alias=True, exclude_unset=True)
        elif given is not None:
            self.definition = compile_template(given)
        self.parameters = compile_template(
            {
                "name": params.name if params else None,
                "version": params.version if params else None,
                "taskToDomain": params.task_to_domain if params else None,
                "priority": params.priority if params else None,
                "idempotencyKey": params.idempotency_key if params else None,
                "idempotencyStrategy": params.idempotency_strategy if params else None,
            }
        )


def policy_of(kind: int, task: WorkflowTask, definition: TaskDefinition) -> Policy:
    """The policy of a node under a task definition; the node's own `retryCount` goes first."""
    given = task.retry_count
    retries = given if given is not None and given >= 0 else definition.retry_count
    if kind in NEVER_RETRIED:
        retries = 0
    return Policy(definition, retries, is_operator=kind not in _QUEUED, is_system=task.type in SYSTEM_TYPES)


def dynamic_policy(node: Node, document: Any) -> Policy:
    """The policy of a DYNAMIC node that turned out to be the task of this registered definition (None:
    it is not registered)."""
    definition = TaskDefinition.model_validate(document) if document else UNREGISTERED
    return policy_of(WORKER, node.task, definition)


def input_template(
    parameters: dict[str, Any], definition: TaskDefinition, kind: int
) -> tuple[Template, dict[str, Template] | None]:
    """`inputParameters` over the task definition's `inputTemplate` (K6): it fills keys that are
    absent or null, and (the second value) replaces results that turn out null."""
    defaults = definition.input_template if kind in _TEMPLATED else None
    if not defaults:
        return compile_template(parameters), None
    merged = {**parameters, **{key: value for key, value in defaults.items() if parameters.get(key) is None}}
    given = {key: value for key, value in defaults.items() if parameters.get(key) is not None}
    return compile_template(merged), compile_fallbacks(given)


def branch_fallbacks(definition: TaskDefinition, kind: int) -> dict[str, Template] | None:
    """The defaults of a task whose input is data: nothing is known of it ahead."""
    return compile_fallbacks(definition.input_template) if kind in _TEMPLATED else None


def compile_fallbacks(defaults: dict[str, Any]) -> dict[str, Template] | None:
    """Values for keys that turn out absent or null; None where there are none."""
    return {key: compile_template(value) for key, value in defaults.items()} or None


def _parameters(task: WorkflowTask, kind: int) -> dict[str, Any]:
    """What is resolved as the input; an EVENT's sink with it, once (B6). The server's own HTTP task hears of
    the node's `asyncComplete`, which takes the place of an input of that name."""
    if kind != EVENT:
        if task.type == "HTTP" and (task.async_complete or "asyncComplete" in task.input_parameters):
            return {**task.input_parameters, "asyncComplete": task.async_complete}
        return task.input_parameters
    return {**task.input_parameters, "sink": task.sink, "asyncComplete": task.async_complete}


def _nothing(_root: str, _attribute: str | None) -> Any:
    return MISSING


def _row_type(task: WorkflowTask, kind: int) -> str:
    """Conductor's `taskType` of the row."""
    if kind in (FORK, DYNAMIC_FORK):
        return "FORK"
    return task.name if task.type == "SIMPLE" else task.type
