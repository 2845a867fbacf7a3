"""Whether a bound document can work: every fault and every doubt, with its path.

Conductor checks the workflow's own nodes and those in cases and forks, and the expressions of the
outermost ones. Here the whole tree is judged, loop bodies and inline children included: what
Conductor would refuse or what cannot work is a fault, what it accepts and may work is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..json_text import Path
from .expressions import ENVIRONMENT, SECRETS, TASK_ID, Expression, parse_text, root_of
from .fields import judge_fields, parts
from .jsonpath import PathError, compile_path
from .models import SubWorkflowParams, TaskDefinition, WorkflowDefinition, WorkflowTask
from .names import why_unusable
from .nodes import Judge, Scope
from .policies import judge_node_policies, judge_task_schemas, judge_workflow_policies
from .report import Report
from .sagas import guarded_chains, judge_sagas
from .search_attributes import judge_search_attributes
from .task_types import EVALUATORS

_WORKFLOW_ATTRIBUTES = frozenset(
    {
        "input",
        "output",
        "variables",
        "status",
        "workflowId",
        "parentWorkflowId",
        "parentWorkflowTaskId",
        "workflowType",
        "version",
        "schemaVersion",
        "correlationId",
        "reasonForIncompletion",
        "createTime",
        "taskToDomain",
        "priority",
        "env",
        "secrets",
    }
)
_SERVER_ENVIRONMENT = frozenset({"NETFLIX_ENV", "NETFLIX_STACK"})


def judge_workflow(
    definition: WorkflowDefinition,
    report: Report,
    task_definitions: Mapping[str, TaskDefinition] | None = None,
    *,
    evaluators: frozenset[str] = EVALUATORS,
    path: Path = (),
    inline: bool = False,
) -> None:
    """Judge a definition; `inline` for one inside a SUB_WORKFLOW, which Conductor never checks.

    `task_definitions` are the registered ones of the names it uses: their templates count as inputs.
    `evaluators` are those that the server has.
    """
    if not definition.name:
        report.say(not inline, (*path, "name"), "WorkflowDef name cannot be null or empty")
    unusable = why_unusable(definition.name)
    if unusable is not None:
        report.fault((*path, "name"), unusable)
    if not definition.tasks:
        report.say(not inline, (*path, "tasks"), "WorkflowTask list cannot be empty")
    if definition.schema_version != 2:
        text = "workflowDef schemaVersion: 2 is only supported"
        report.say(not inline, (*path, "schemaVersion"), text)
    if definition.timeout_seconds > 0 and "timeout_policy" not in definition.model_fields_set:
        report.warn(
            (*path, "timeoutSeconds"),
            "without timeoutPolicy TIME_OUT_WF the time-out only alerts; the default is ALERT_ONLY",
        )
    judge_workflow_policies(definition, path, report)
    _judge_failure_workflow(definition, (*path, "failureWorkflow"), report)
    judge_search_attributes(
        definition.search_attributes, definition.masked_fields, (*path, "searchAttributes"), report
    )
    _judge_parts(definition, path, report)
    references, places = _references(definition, path, report)
    scope = Scope(references, places, task_definitions or {}, evaluators)
    judge_sagas(definition.tasks, (*path, "tasks"), report)
    _Tree(definition, scope, report, path, inline).judge()


def judge_task(definition: TaskDefinition, report: Report, *, path: Path = (), inline: bool = False) -> None:
    """Judge a task definition; one written into a node (`inline`) is never refused, as with Conductor."""

    def say(field: str, message: str) -> None:
        report.say(not inline, (*path, field) if field else path, message)

    if not definition.name and not inline:
        say("name", "TaskDef name cannot be null or empty")
    unusable = why_unusable(definition.name)
    if unusable is not None:
        report.fault((*path, "name"), unusable)
    for field, value in {
        "retryCount": definition.retry_count,
        "pollTimeoutSeconds": definition.poll_timeout_seconds or 0,
        "maxRetryDelaySeconds": definition.max_retry_delay_seconds,
        "backoffJitterMs": definition.backoff_jitter_ms,
        "totalTimeoutSeconds": definition.total_timeout_seconds,
    }.items():
        if value < 0:
            say(field, f"TaskDef {field}: 0 must be >= 0")
    response, timeout, total = (
        definition.response_timeout_seconds,
        definition.timeout_seconds,
        definition.total_timeout_seconds,
    )
    if response < 1 and not (inline and response == 0):
        text = f"TaskDef responseTimeoutSeconds: {response} should be minimum 1 second"
        say("responseTimeoutSeconds", text)
    if definition.backoff_scale_factor < 1:
        say("backoffScaleFactor", "Backoff scale factor. Applicable for LINEAR_BACKOFF")
    name = definition.name
    if 0 < timeout < response:
        say(
            "responseTimeoutSeconds",
            f"TaskDef: {name} responseTimeoutSeconds: {response} must be less than timeoutSeconds: {timeout}",
        )
    if timeout > 0 and 0 < total < timeout:
        say(
            "timeoutSeconds",
            f"TaskDef: {name} timeoutSeconds: {timeout} must be less than or equal to "
            f"totalTimeoutSeconds: {total}",
        )
    if definition.retry_delay_seconds < 0:
        report.warn((*path, "retryDelaySeconds"), "a negative delay counts as 0")
    judge_task_schemas(definition, path, report, inline=inline)
    _judge_parts(definition, path, report)


def _judge_parts(model: Any, path: Path, report: Report) -> None:
    """The fields without effect of an object and of the plain objects inside it."""
    judge_fields(model, path, report)
    for name, part in parts(model).items():
        if not isinstance(part, WorkflowDefinition):
            _judge_parts(part, (*path, name), report)


def _judge_failure_workflow(definition: WorkflowDefinition, path: Path, report: Report) -> None:
    name = definition.failure_workflow or ""
    unusable = why_unusable(name)
    if name.startswith("${"):
        report.warn(path, "this names no workflow: write $workflow.input.KEY, without braces")
    elif unusable is not None:
        report.fault(path, unusable)
    elif name.startswith("$") and name.count(".") < 2:
        report.fault(path, f"{name} has too few parts: write $workflow.input.KEY")


def _references(
    definition: WorkflowDefinition, path: Path, report: Report
) -> tuple[dict[str, WorkflowTask], dict[str, Path]]:
    """The nodes and their places by reference name; duplicates and impossible names are faults."""
    found: dict[str, WorkflowTask] = {}
    places: dict[str, Path] = {}
    for node, at in walk(definition.tasks, (*path, "tasks")):
        reference = node.task_reference_name
        place = (*at, "taskReferenceName")
        if reference and reference in found:
            report.fault(
                place,
                f"taskReferenceName: {reference} should be unique across tasks for a given "
                f"workflowDefinition: {definition.name}",
            )
        if reference == "workflow":
            report.fault(place, "workflow is what expressions call the workflow itself; choose another name")
        if "__" in reference:
            report.fault(place, f"{reference} has a double underscore, which marks the turns of loops")
        found[reference] = node
        places[reference] = at
    return found, places


def walk(tasks: list[WorkflowTask], path: Path) -> Iterator[tuple[WorkflowTask, Path]]:
    """Every node of a definition in the order of the document, outer before inner."""
    for index, node in enumerate(tasks):
        at = (*path, index)
        yield node, at
        for chain, place, _ in chains(node, at):
            yield from walk(chain, place)


def chains(node: WorkflowTask, path: Path) -> Iterator[tuple[list[WorkflowTask], Path, bool]]:
    """(nodes, path, whether it is a loop's body) of each chain directly inside a node."""
    for key, case in node.decision_cases.items():
        yield case, (*path, "decisionCases", key), False
    yield node.default_case, (*path, "defaultCase"), False
    for index, branch in enumerate(node.fork_tasks):
        yield branch, (*path, "forkTasks", index), False
    yield node.loop_over, (*path, "loopOver"), True
    for chain, place in guarded_chains(node):
        yield chain, (*path, *place), False
    yield node.compensate, (*path, "compensate"), False


class _Tree:
    """Walks the nodes of one definition."""

    def __init__(
        self, definition: WorkflowDefinition, scope: Scope, report: Report, path: Path, inline: bool
    ) -> None:
        self._definition = definition
        self._scope = scope
        self._report = report
        self._path = path
        self._inline = inline

    def judge(self) -> None:
        self._chain(
            self._definition.tasks, (*self._path, "tasks"), looked_at=not self._inline, outermost=True
        )
        self._expressions(
            self._definition.output_parameters, (*self._path, "outputParameters"), None, is_fault=False
        )

    def _chain(self, tasks: list[WorkflowTask], path: Path, *, looked_at: bool, outermost: bool) -> None:
        for index, node in enumerate(tasks):
            at = (*path, index)
            before = tasks[index - 1] if index > 0 else None
            after = tasks[index + 1] if index + 1 < len(tasks) else None
            Judge(node, at, before, after, self._scope, looked_at, self._report).judge()
            self._parts(node, at)
            self._expressions(
                node.input_parameters, (*at, "inputParameters"), node, is_fault=looked_at and outermost
            )
            for text, field in ((node.sink, "sink"), (node.items, "items")):
                self._expressions(text, (*at, field), node, is_fault=False)
            for chain, place, is_body in chains(node, at):
                self._chain(chain, place, looked_at=looked_at and not is_body, outermost=False)

    def _parts(self, node: WorkflowTask, path: Path) -> None:
        _judge_parts(node, path, self._report)
        if node.task_definition is not None:
            judge_task(node.task_definition, self._report, path=(*path, "taskDefinition"), inline=True)
        judge_node_policies(node, path, self._report)
        if node.cache_config is not None:
            self._expressions(node.cache_config.key, (*path, "cacheConfig", "key"), node, is_fault=False)
        for key, events in node.on_state_change.items():
            for index, event in enumerate(events):
                place = (*path, "onStateChange", key, index)
                judge_fields(event, place, self._report)
                self._expressions(event.payload, (*place, "payload"), node, is_fault=False)
        for index, case in enumerate(node.catch_cases):
            judge_fields(case, (*path, "catchCases", index), self._report)
        if node.sub_workflow_param is not None:
            self._child(node.sub_workflow_param, (*path, "subWorkflowParam"), node)

    def _child(self, params: SubWorkflowParams, path: Path, node: WorkflowTask) -> None:
        for value, field in (
            (params.name, "name"),
            (params.task_to_domain, "taskToDomain"),
            (params.priority, "priority"),
            (params.idempotency_key, "idempotencyKey"),
            (params.idempotency_strategy, "idempotencyStrategy"),
        ):
            self._expressions(value, (*path, field), node, is_fault=False)
        definition = params.workflow_definition
        place = (*path, "workflowDefinition")
        if isinstance(definition, WorkflowDefinition):
            known = self._scope.task_definitions
            has = self._scope.evaluators
            judge_workflow(definition, self._report, known, evaluators=has, path=place, inline=True)
        elif definition is not None:
            if not (definition.startswith("${") and definition.endswith("}")):
                self._report.fault(place, "workflowDefinition is a string, but not a valid DSL string")
            self._expressions(definition, place, node, is_fault=False)

    def _expressions(self, value: Any, path: Path, node: WorkflowTask | None, *, is_fault: bool) -> None:
        """Judge every expression in a template."""
        if isinstance(value, str):
            for piece in parse_text(value):
                if isinstance(piece, Expression):
                    self._expression(piece, path, node, is_fault)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._expressions(item, (*path, key), node, is_fault=is_fault)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self._expressions(item, (*path, index), node, is_fault=is_fault)

    def _expression(
        self, expression: Expression, path: Path, node: WorkflowTask | None, is_fault: bool
    ) -> None:
        text = expression.text
        if text is None:
            for piece in expression.inside:
                if isinstance(piece, Expression):
                    self._expression(piece, path, node, is_fault)
            self._root(root_of(expression.prefix), expression.source, path, node, is_fault=False)
            return
        if not text.strip() or text == TASK_ID or text.startswith((SECRETS, ENVIRONMENT)):
            return
        if text in _SERVER_ENVIRONMENT:
            self._report.warn(path, f"{expression.source} is null here: use workflow.env.NAME")
            return
        try:
            found = compile_path(text)
        except PathError as error:
            key = _last_name(path)
            self._report.say(
                is_fault, path, f"key: {key} input parameter value: {text} is not valid ({error})"
            )
            return
        self._root(found.root or None, text, path, node, is_fault=is_fault)
        if found.root == "workflow" and found.names and found.names[0] not in _WORKFLOW_ATTRIBUTES:
            self._report.warn(path, f"{expression.source} is always null: workflow has no {found.names[0]}")

    def _root(
        self, root: str | None, text: str, path: Path, node: WorkflowTask | None, *, is_fault: bool
    ) -> None:
        """Judge what an expression begins with: `workflow`, or a task of this definition."""
        if root is None or root == "workflow" or root in self._scope.references:
            return
        made_later = root.startswith("_") and self._scope.has_dynamic_fork
        message = (
            f"taskReferenceName: {root} for given task: {node.name if node else ''} input value: "
            f"{_last_name(path)} of input parameter: {text} is not defined in workflow definition."
        )
        if _in_script(path):
            message += " If it belongs to the script, write $${...}"
        self._report.say(is_fault and not made_later, path, message)


def _last_name(path: Path) -> str:
    return next((str(step) for step in reversed(path) if isinstance(step, str)), "")


def _in_script(path: Path) -> bool:
    return path[-1] in ("expression", "scriptExpression", "queryExpression") if path else False
