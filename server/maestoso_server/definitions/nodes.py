"""What each type of task requires of its node.

Conductor's own rules keep Conductor's words. Where Conductor does not look (loop bodies, inline
children) a broken rule is a fault only if the node cannot work; else it is a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..json_text import Path
from .durations import parse_duration_ms, parse_moment_ms
from .keys import KEY_MAX, why_no_strategy
from .models import TaskDefinition, WorkflowTask
from .names import why_unusable
from .report import Report, ScriptText
from .sinks import NoQueue, queue_of
from .task_types import ELSEWHERE, EVALUATORS, KNOWN, OPERATORS


@dataclass(frozen=True, slots=True)
class Scope:
    """The definition that a node is part of, as far as its nodes must know it."""

    references: Mapping[str, WorkflowTask]
    places: Mapping[str, Path]
    task_definitions: Mapping[str, TaskDefinition]
    evaluators: frozenset[str] = EVALUATORS
    """Those that this server has."""

    @property
    def has_dynamic_fork(self) -> bool:
        """Whether tasks may come to be that the definition does not name."""
        return any(node.type == "FORK_JOIN_DYNAMIC" for node in self.references.values())


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges one node. `looked_at` says that Conductor checks nodes at this place, too."""

    node: WorkflowTask
    path: Path
    preceding: WorkflowTask | None
    following: WorkflowTask | None
    scope: Scope
    looked_at: bool
    report: Report

    def judge(self) -> None:
        """All rules for the node's own type and for nodes of any type."""
        if not self.node.name:
            self.broken("name", "WorkflowTask name cannot be empty or null")
        if not self.node.task_reference_name:
            self.broken("taskReferenceName", "WorkflowTask taskReferenceName name cannot be empty or null")
        for field, name in (
            ("name", self.node.name),
            ("taskReferenceName", self.node.task_reference_name),
            ("type", self.node.type),
        ):
            self.named(field, name)
        if self.node.start_delay < 0:
            self.broken("startDelay", "must be greater than or equal to 0")
        self._type()
        self._async_complete()
        rule = _RULES.get(self.node.type)
        if rule is not None:
            rule(self)

    def named(self, field: str, name: str) -> None:
        """A fault where a text cannot be a name."""
        reason = why_unusable(name)
        if reason is not None:
            self.broken(field, reason)

    def broken(self, field: str, message: str) -> None:
        """A fault: the node cannot work, or a rule of ours without exception."""
        self.report.fault((*self.path, *_steps(field)), message)

    def refused(self, field: str, message: str) -> None:
        """A fault where Conductor looks; elsewhere the node may work and this is a warning."""
        self.report.say(self.looked_at, (*self.path, *_steps(field)), message)

    def doubtful(self, field: str, message: str) -> None:
        """A warning."""
        self.report.warn((*self.path, *_steps(field)), message)

    def missing(self, field: str, words: str = "", *, fatal: bool = True) -> None:
        """A required field is not there; `words` are Conductor's where it names several."""
        node = self.node
        text = f"{words or field} field is required for taskType: {node.type} taskName: {node.name}"
        (self.broken if fatal else self.refused)(field, text)

    def has_input(self, *names: str) -> bool:
        """Whether the node, or the task definition that fills its inputs, gives one of these."""
        definition = self.node.task_definition or self.scope.task_definitions.get(self.node.name)
        template = definition.input_template if definition is not None else {}
        return any(
            self.node.input_parameters.get(name) is not None or template.get(name) is not None
            for name in names
        )

    def script(self, field: str, language: str, text: Any, refusal: str, *, fatal: bool = False) -> None:
        """Have the syntax of a script judged, if its text is final now."""
        if isinstance(text, str) and text.strip() and "${" not in text:
            path = (*self.path, *_steps(field))
            self.report.scripts.append(ScriptText(path, language, text, refusal, fatal))

    def _type(self) -> None:
        given = self.node.type
        if given in ELSEWHERE:
            self.doubtful("type", f"nothing in this server does {given}: it waits for a worker that polls it")
        elif given not in KNOWN:
            meant = given.upper().replace("-", "_").replace(" ", "_")
            if meant in KNOWN:
                self.doubtful("type", f"{given} is a queue for workers; the built-in type is {meant}")

    def _async_complete(self) -> None:
        if not self.node.async_complete or self.node.type in ("EVENT", "HTTP"):
            return
        if self.node.type in ("JOIN", "WAIT", "PULL_WORKFLOW_MESSAGES"):
            self.broken("asyncComplete", f"{self.node.type} would never end with asyncComplete; leave it out")
        elif self.node.type in OPERATORS:
            self.doubtful("asyncComplete", f"{self.node.type} completes by itself; the field has no effect")
        else:
            self.doubtful("asyncComplete", "the worker's report ends the task; the field has no effect")


def _steps(field: str) -> tuple[str, ...]:
    return tuple(field.split("."))


def _event(judge: Judge) -> None:
    sink = judge.node.sink
    if sink is None:
        judge.missing("sink")
    elif "${" not in sink:
        try:
            queue_of(sink, "", judge.node.task_reference_name, "")
        except NoQueue as refusal:
            judge.doubtful("sink", f"the task will fail: {refusal.why}")


def _switch(judge: Judge) -> None:
    node = judge.node
    if not node.evaluator_type:
        judge.missing("evaluatorType")
    elif node.evaluator_type not in judge.scope.evaluators:
        offered = _offered(judge, node.evaluator_type)
        judge.broken("evaluatorType", f"No evaluator registered for type: {node.evaluator_type}{offered}")
    if node.expression is None:
        judge.missing("expression")
    _cases(judge)
    language = _LANGUAGES.get(node.evaluator_type or "")
    if language is not None:
        refusal = f"Expression is not well formatted: {{}}, taskType: SWITCH taskName {node.name}"
        judge.script("expression", language, node.expression, refusal, fatal=judge.looked_at)


def _decision(judge: Judge) -> None:
    node = judge.node
    if not node.case_value_param and not node.case_expression:
        judge.missing("caseValueParam", "caseValueParam or caseExpression")
    _cases(judge)
    refusal = f"Expression is not well formatted: {{}}, taskType: DECISION taskName {node.name}"
    judge.script("caseExpression", "javascript", node.case_expression, refusal, fatal=judge.looked_at)


def _cases(judge: Judge) -> None:
    node = judge.node
    if not node.decision_cases:
        text = f"decisionCases should have atleast one task for taskType: {node.type} taskName: {node.name}"
        judge.refused("decisionCases", text)


def _dynamic(judge: Judge) -> None:
    if not judge.node.dynamic_task_name_param:
        judge.missing("dynamicTaskNameParam")


def _fork(judge: Judge) -> None:
    node = judge.node
    if not node.fork_tasks:
        text = f"forkTasks should have atleast one task for taskType: FORK_JOIN taskName: {node.name}"
        judge.broken("forkTasks", text)
    for index, branch in enumerate(node.fork_tasks):
        if not branch:
            judge.report.fault(
                (*judge.path, "forkTasks", index), f"branch {index} of {node.task_reference_name} has no task"
            )
    if judge.following is None or judge.following.type != "JOIN":
        judge.broken("type", "Fork task definition is not followed by a join task.  Check the blueprint")


def _dynamic_fork(judge: Judge) -> None:
    node = judge.node
    pair = (node.dynamic_fork_tasks_param, node.dynamic_fork_tasks_input_param_name)
    if not judge.has_input("forkTaskInputs"):
        if node.dynamic_fork_join_tasks_param and any(pair):
            judge.broken(
                "dynamicForkJoinTasksParam",
                "dynamicForkJoinTasksParam or combination of dynamicForkTasksInputParamName and "
                "dynamicForkTasksParam cam be used for "
                f"taskType: FORK_JOIN_DYNAMIC taskName: {node.name}",
            )
        elif not node.dynamic_fork_join_tasks_param:
            if not pair[0]:
                judge.missing("dynamicForkTasksParam")
            if not pair[1]:
                judge.missing("dynamicForkTasksInputParamName")
    if judge.following is None or judge.following.type != "JOIN":
        judge.broken(
            "type", "Dynamic join definition is not followed by a join task.  Check the workflow definition."
        )


def _join(judge: Judge) -> None:
    if judge.preceding is not None and judge.preceding.type == "FORK_JOIN_DYNAMIC":
        return  # it waits for what that fork makes, whatever it lists
    for reference, path in _unknown(judge, "joinOn", judge.node.join_on):
        text = f"no task has the reference name {reference}"
        if judge.scope.has_dynamic_fork:
            judge.report.warn(path, f"{text}, unless a dynamic fork makes one")
        else:
            judge.report.fault(path, f"{text}, so the join would wait for ever")
    for index, reference in enumerate(judge.node.join_on):
        _joined(judge, reference, (*judge.path, "joinOn", index))


def _joined(judge: Judge, reference: str, path: Path) -> None:
    """What a join waits for must be able to end before it, in the same turn of the same loops."""
    place = judge.scope.places.get(reference)
    if place is None:
        return
    if _ends_later(judge, place):
        judge.report.fault(path, f"{reference} ends only after this join, so it would wait for ever")
        return
    theirs, ours = _bodies(place), _bodies(judge.path)
    if theirs[: len(ours)] != ours:
        text = f"{reference} is outside the loop that this join is in, so the join does not wait for it"
        judge.report.warn(path, text)
    elif len(theirs) > len(ours):
        text = (
            f"{reference} is inside a loop: the join waits for the loop, and joins no output of {reference}"
        )
        judge.report.warn(path, text)


def _ends_later(judge: Judge, place: Path) -> bool:
    """Whether the task at a place is the judged one, a loop around it, or comes after it in a chain."""
    ours = judge.path
    at = next((i for i, (a, b) in enumerate(zip(place, ours, strict=False)) if a != b), None)
    if at is None:  # the same, or one lies inside the other
        return place == ours or ours[len(place) : len(place) + 1] == ("loopOver",)
    mine, other = ours[at], place[at]
    between_branches = _is_field(ours, at - 1, "forkTasks")
    return isinstance(mine, int) and isinstance(other, int) and other > mine and not between_branches


def _bodies(path: Path) -> list[Path]:
    """The bodies of loops that a place is in, outermost first."""
    return [path[: at + 1] for at in range(len(path)) if _is_field(path, at, "loopOver")]


def _is_field(path: Path, at: int, field: str) -> bool:
    """Whether that step is a node's field, and not a case that is called so."""
    return at > 0 and path[at] == field and path[at - 1] != "decisionCases"


def _exclusive_join(judge: Judge) -> None:
    node = judge.node
    for reference, path in (
        *_unknown(judge, "joinOn", node.join_on),
        *_unknown(judge, "defaultExclusiveJoinTask", node.default_exclusive_join_task),
    ):
        judge.report.warn(path, f"no task has the reference name {reference}")


def _unknown(judge: Judge, field: str, references: list[str]) -> list[tuple[str, Path]]:
    return [
        (reference, (*judge.path, field, index))
        for index, reference in enumerate(references)
        if reference not in judge.scope.references
    ]


def _loop(judge: Judge) -> None:
    node = judge.node
    lists = bool((node.items or "").strip()) or judge.has_input("_items")
    if not lists and node.loop_condition is None:
        judge.missing("loopCondition")
    elif not lists and not (node.loop_condition or "").strip():
        judge.doubtful("loopCondition", "an empty condition is never true: the loop ends after one turn")
    if not node.loop_over:
        judge.missing("loopOver")
    keep = node.input_parameters.get("keepLastN")
    if keep is not None and not isinstance(keep, str) and (type(keep) is not int or keep < 1):
        judge.broken("inputParameters.keepLastN", f"keepLastN must be a whole number above 0, not {keep}")
    if node.evaluator_type == "python" and "python" not in judge.scope.evaluators:
        text = f"No evaluator registered for type: python{_offered(judge, 'python')}"
        judge.broken("evaluatorType", text)
        return
    language = _LANGUAGES.get(node.evaluator_type or "javascript", "javascript")
    if node.evaluator_type and node.evaluator_type not in _LANGUAGES:
        text = f"a loop's condition is a script: {node.evaluator_type} is ignored, it is read as JavaScript"
        judge.doubtful("evaluatorType", text)
    refusal = f"Unable to evaluate condition {node.loop_condition}: {{}}"
    judge.script("loopCondition", language, node.loop_condition, refusal)


def _sub_workflow(judge: Judge) -> None:
    params = judge.node.sub_workflow_param
    if params is None:
        judge.missing("subWorkflowParam")
        return
    if not params.name and params.workflow_definition is None:
        judge.missing("subWorkflowParam.name")
    if params.name and "${" not in params.name:
        judge.named("subWorkflowParam.name", params.name)
    _judge_key(judge, "subWorkflowParam", params.idempotency_key, params.idempotency_strategy)


def _judge_key(judge: Judge, at: str, key: Any, strategy: Any) -> None:
    """What a start's idempotency key and its strategy are, where they are no expressions."""
    if strategy not in (None, "") and not _is_expression(strategy):
        fault = why_no_strategy(strategy)
        if fault is not None:
            judge.broken(f"{at}.idempotencyStrategy", f"idempotencyStrategy {fault}")
        elif key in (None, ""):
            judge.doubtful(f"{at}.idempotencyStrategy", "without an idempotencyKey it has no effect")
    if isinstance(key, str) and not _is_expression(key) and len(key) > KEY_MAX:
        text = f"idempotencyKey has {len(key)} characters; at most {KEY_MAX} are accepted"
        judge.broken(f"{at}.idempotencyKey", text)


def _is_expression(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _http(judge: Judge) -> None:
    if not judge.has_input("http_request", "uri", "method"):
        words = "inputParameters.http_request or inputParameters.uri"
        judge.missing("inputParameters.http_request", words, fatal=False)


def _kafka(judge: Judge) -> None:
    if not judge.has_input("kafka_request"):
        judge.missing("inputParameters.kafka_request", fatal=False)


def _jq(judge: Judge) -> None:
    if not judge.has_input("queryExpression"):
        judge.missing("inputParameters.queryExpression", fatal=False)
    query = judge.node.input_parameters.get("queryExpression")
    judge.script("inputParameters.queryExpression", "jq", query, "the query does not compile: {}")


def _terminate(judge: Judge) -> None:
    node = judge.node
    if node.optional:
        judge.refused("optional", f"terminate task cannot be optional, taskName: {node.name}")
    status = node.input_parameters.get("terminationStatus")
    if status in ("COMPLETED", "FAILED", "TERMINATED") or (isinstance(status, str) and "${" in status):
        return
    judge.broken(
        "inputParameters.terminationStatus",
        "terminate task must have an terminationStatus parameter and must be set to COMPLETED or FAILED, "
        f"taskName: {node.name}",
    )


def _wait(judge: Judge) -> None:
    duration, until = (judge.node.input_parameters.get(name) for name in ("duration", "until"))
    if _blank(duration) is False and _blank(until) is False:
        judge.broken(
            "inputParameters", "Both 'duration' and 'until' specified. Please provide only one input"
        )
        return
    for name, value, parse, words in (
        ("until", until, parse_moment_ms, "Unable to parse date "),
        ("duration", duration, parse_duration_ms, "Either date or duration is passed as null "),
    ):
        if _blank(value) or "${" in str(value):
            continue
        try:
            parse(str(value))
        except ValueError as error:
            judge.broken(f"inputParameters.{name}", f"{words}({error})")


def _blank(value: Any) -> bool:
    return value is None or not str(value).strip()


def _inline(judge: Judge) -> None:
    inputs = judge.node.input_parameters
    evaluator = inputs.get("evaluatorType", "javascript")
    if not judge.has_input("expression"):
        judge.doubtful("inputParameters.expression", "without an expression the task always fails")
    if isinstance(evaluator, str) and "${" in evaluator:
        return
    if not isinstance(evaluator, str) or evaluator not in judge.scope.evaluators:
        text = f"Unknown evaluator '{evaluator}' in INLINE task.{_offered(judge, evaluator)}"
        judge.broken("inputParameters.evaluatorType", text)
    elif evaluator != "value-param":
        refusal = f"Expression is not well formatted: {{}}, taskType: INLINE taskName {judge.node.name}"
        judge.script("inputParameters.expression", _LANGUAGES[evaluator], inputs.get("expression"), refusal)


def _lambda(judge: Judge) -> None:
    if not judge.has_input("scriptExpression"):
        judge.doubtful("inputParameters.scriptExpression", "without a scriptExpression the task always fails")
    refusal = f"Expression is not well formatted: {{}}, taskType: LAMBDA taskName {judge.node.name}"
    script = judge.node.input_parameters.get("scriptExpression")
    judge.script("inputParameters.scriptExpression", "javascript-function", script, refusal)


def _start_workflow(judge: Judge) -> None:
    if not judge.has_input("startWorkflow"):
        judge.doubtful("inputParameters.startWorkflow", "without startWorkflow the task always fails")
    request = judge.node.input_parameters.get("startWorkflow")
    if isinstance(request, dict):
        at = "inputParameters.startWorkflow"
        _judge_key(judge, at, request.get("idempotencyKey"), request.get("idempotencyStrategy"))


def _offered(judge: Judge, asked: Any) -> str:
    has = f" This server has {', '.join(sorted(judge.scope.evaluators))}"
    return f"{has}; python needs its extra: maestoso[server,python]" if asked == "python" else has


_LANGUAGES = {"javascript": "javascript", "graaljs": "javascript", "python": "python"}
"""The language of each evaluator that runs scripts."""

_RULES: dict[str, Callable[[Judge], None]] = {
    "EVENT": _event,
    "SWITCH": _switch,
    "DECISION": _decision,
    "DYNAMIC": _dynamic,
    "FORK_JOIN": _fork,
    "FORK_JOIN_DYNAMIC": _dynamic_fork,
    "JOIN": _join,
    "EXCLUSIVE_JOIN": _exclusive_join,
    "DO_WHILE": _loop,
    "SUB_WORKFLOW": _sub_workflow,
    "HTTP": _http,
    "KAFKA_PUBLISH": _kafka,
    "JSON_JQ_TRANSFORM": _jq,
    "TERMINATE": _terminate,
    "WAIT": _wait,
    "INLINE": _inline,
    "LAMBDA": _lambda,
    "START_WORKFLOW": _start_workflow,
}
