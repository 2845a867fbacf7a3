"""A definition document: read, bound, judged.

    parsed = parse_workflow(raw)
    if parsed.faults: ...                 # each with path, line, column and what to do
    document = parsed.document.raw        # what to store: the text as it came

The syntax of its scripts is judged by evaluators, which this floor does not know: either pass
`check_script`, or have `parsed.scripts` checked and hand the answers to `with_script_errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from ..errors import Violation
from ..json_text import JsonFault, Path, parse, path_text, places
from ..payload import EMPTY, Json
from .models import TaskDefinition, WorkflowDefinition
from .report import Finding, Report, ScriptText
from .task_types import EVALUATORS
from .validate import judge_task, judge_workflow

Fault = Violation
"""Path, message, line and column; the last two count from 1, 0 where there is no place."""

CheckScript = Callable[[str, str], str | None]
"""(language, script) -> what is wrong with its syntax, or None."""

Definition = TypeVar("Definition", WorkflowDefinition, TaskDefinition)


@dataclass(frozen=True, slots=True)
class Parsed(Generic[Definition]):
    """A document and what was found in it. `definition` is None where it could not be bound."""

    definition: Definition | None
    document: Json
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    scripts: tuple[ScriptText, ...] = ()
    """Scripts whose syntax nobody has judged yet."""

    def with_script_errors(self, errors: Sequence[str | None]) -> Parsed[Definition]:
        """The same with the evaluators' answers, one for each of `scripts`."""
        report = Report()
        for script, error in zip(self.scripts, errors, strict=True):
            if error is not None:
                report.say(script.fatal, script.path, script.refusal.replace("{}", error, 1))
        return replace(
            self,
            faults=self.faults + _placed(report.faults, self.document),
            warnings=self.warnings + _placed(report.warnings, self.document),
            scripts=(),
        )


def parse_workflow(
    raw: bytes,
    *,
    strict: bool = False,
    limit: int | None = None,
    check_script: CheckScript | None = None,
    task_definitions: Mapping[str, TaskDefinition] | None = None,
    evaluators: frozenset[str] = EVALUATORS,
) -> Parsed[WorkflowDefinition]:
    """Read a workflow definition. `strict` makes faults of all warnings; `limit` is its size in
    bytes at most; `task_definitions` are registered ones, whose templates count as inputs;
    `evaluators` are those that the server has.
    """

    def judge(definition: WorkflowDefinition, report: Report) -> None:
        judge_workflow(definition, report, task_definitions, evaluators=evaluators)

    return _parse(raw, WorkflowDefinition, judge, strict, limit, check_script)


def parse_task(raw: bytes, *, strict: bool = False, limit: int | None = None) -> Parsed[TaskDefinition]:
    """Read a task definition, likewise."""
    return _parse(raw, TaskDefinition, judge_task, strict, limit, None)


def _parse(
    raw: bytes,
    model: type[Definition],
    judge: Callable[[Definition, Report], None],
    strict: bool,
    limit: int | None,
    check_script: CheckScript | None,
) -> Parsed[Definition]:
    if limit is not None and len(raw) > limit:
        message = f"the document has {len(raw):,} bytes; at most {limit:,} are allowed"
        return _unusable(Fault("", message))
    try:
        document = parse(raw)
    except JsonFault as fault:
        return _unusable(Fault("", f"not valid JSON: {fault.message}", fault.line, fault.column))
    if not isinstance(document.value, dict):
        return _unusable(Fault("", "a definition is a JSON object", 1, 1))
    try:
        definition = model.model_validate(document.value)
    except ValidationError as error:
        return Parsed(None, document, _placed(_binding_faults(error, document.value), document), ())
    report = Report()
    judge(definition, report)
    if strict:
        report.faults.extend(report.warnings)
        report.warnings.clear()
        report.scripts = [replace(script, fatal=True) for script in report.scripts]
    parsed = Parsed(
        definition,
        document,
        _placed(report.faults, document),
        _placed(report.warnings, document),
        tuple(report.scripts),
    )
    if check_script is None:
        return parsed
    errors = [check_script(script.language, script.text) for script in parsed.scripts]
    return parsed.with_script_errors(errors)


def _unusable(fault: Fault) -> Parsed[Any]:
    return Parsed(None, EMPTY, (fault,), ())


def _binding_faults(error: ValidationError, value: Any) -> list[Finding]:
    """What does not fit the model, by the path of the document."""
    found = []
    for fault in error.errors(include_url=False, include_context=False):
        given = fault["input"]
        shown = "" if isinstance(given, dict | list) else f", found {_shown(given)}"
        found.append(Finding(_document_path(fault["loc"], value), f"cannot be read: {fault['msg']}{shown}"))
    return found


def _document_path(location: tuple[str | int, ...], value: Any) -> Path:
    """A location of the binder without the names of alternatives that it adds."""
    path: list[str | int] = []
    for step in location:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(step)
    return tuple(path)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _placed(findings: Sequence[Finding], document: Json) -> tuple[Fault, ...]:
    """The findings with line and column; what is missing has the place of what should hold it."""
    wanted = {finding.path[:end] for finding in findings for end in range(len(finding.path) + 1)}
    found = places(document.raw, wanted)
    placed = []
    for finding in findings:
        path = finding.path
        while path and path not in found:
            path = path[:-1]
        line, column = found.get(path, (1, 1))
        placed.append(Fault(path_text(finding.path), finding.message, line, column))
    return tuple(placed)
