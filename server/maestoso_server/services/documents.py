"""Definition documents on their way in and out: judged by `definitions`, told in facts.

What counts as a fault or a warning is the business of `definitions`; here a verdict becomes a refusal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..definitions.models import TaskDefinition, WorkflowDefinition, WorkflowTask
from ..definitions.parse import Fault, Parsed, parse_task, parse_workflow
from ..errors import InvalidArgument, Reason, Violation
from ..payload import decode
from .limits import invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A document with what was found in it. `version` is 0 for task definitions."""

    raw: bytes
    name: str
    version: int
    faults: tuple[Violation, ...]
    warnings: tuple[Violation, ...]


def judge_workflow(raw: bytes, *, strict: bool) -> Judged:
    """A workflow definition; `strict` makes faults of warnings."""
    parsed = parse_workflow(raw, strict=strict)
    return _judged(raw, parsed, version=parsed.definition.version if parsed.definition else 0)


def judge_task(raw: bytes, *, strict: bool) -> Judged:
    """A task definition, likewise."""
    return _judged(raw, parse_task(raw, strict=strict), version=0)


def _judged(
    raw: bytes, parsed: Parsed[WorkflowDefinition] | Parsed[TaskDefinition], *, version: int
) -> Judged:
    return Judged(
        raw=raw,
        name=parsed.definition.name if parsed.definition else "",
        version=version,
        faults=_violations(parsed.faults),
        warnings=_violations(parsed.warnings),
    )


def _violations(faults: Iterable[Fault]) -> tuple[Violation, ...]:
    return tuple(Violation(fault.path, fault.message, fault.line, fault.column) for fault in faults)


def refuse_faults(documents: Sequence[Judged], field: str = "documents") -> None:
    """Raises InvalidArgument with every fault of every document, its path below `field[i]`."""
    found = [
        Violation(f"{field}[{index}].{fault.path}".rstrip("."), fault.message, fault.line, fault.column)
        for index, document in enumerate(documents)
        for fault in document.faults
    ]
    if found:
        faulty = sum(1 for document in documents if document.faults)
        raise InvalidArgument(
            Reason.INVALID_DEFINITION,
            f"{faulty} of {len(documents)} documents have faults; nothing was stored. "
            f"The first: {found[0].path}: {found[0].message}",
            violations=found,
        )


def refuse_twins(documents: Mapping[int, Judged]) -> None:
    """Raises InvalidArgument where two documents have the same name and version."""
    first: dict[tuple[str, int], int] = {}
    for index, document in documents.items():
        earlier = first.setdefault((document.name, document.version), index)
        if earlier != index:
            raise invalid(
                f"documents[{index}]",
                f"has the name {document.name!r} and version {document.version} of documents[{earlier}]",
            )


def inline(raw: bytes, *, name: str, field: str) -> Any:
    """The JSON value of a definition given in a start. Raises InvalidArgument."""
    judged = judge_workflow(raw, strict=False)
    if judged.faults:
        found = [
            Violation(f"{field}.{fault.path}".rstrip("."), fault.message, fault.line, fault.column)
            for fault in judged.faults
        ]
        raise InvalidArgument(
            Reason.INVALID_DEFINITION,
            f"the definition has faults. The first: {found[0].path}: {found[0].message}",
            violations=found,
        )
    if name and name != judged.name:
        raise invalid(field, f"has the name {judged.name!r}, the start has {name!r}; leave one out")
    return decode(raw)


@dataclass(frozen=True, slots=True)
class Facts:
    """What programs ask of a document. `task_counts`: nodes by type, nested ones included."""

    description: str
    owner_email: str
    task_counts: dict[str, int]


def workflow_facts(raw: bytes) -> Facts:
    """The facts of a registered workflow definition."""
    definition = WorkflowDefinition.model_validate(decode(raw))
    counts = Counter(node.type for node in nodes(definition.tasks))
    return Facts(definition.description or "", definition.owner_email or "", dict(sorted(counts.items())))


def task_facts(raw: bytes) -> Facts:
    """The facts of a registered task definition."""
    definition = TaskDefinition.model_validate(decode(raw))
    return Facts(definition.description or "", definition.owner_email or "", {})


def nodes(tasks: Iterable[WorkflowTask]) -> Iterator[WorkflowTask]:
    """Every node, outer ones before those inside them; not those of inline sub-workflows."""
    for node in tasks:
        yield node
        for inside in (*node.decision_cases.values(), node.default_case, *node.fork_tasks, node.loop_over):
            yield from nodes(inside)
