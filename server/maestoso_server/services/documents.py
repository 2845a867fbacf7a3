"""Definition documents on their way in and out: judged by `definitions`, told in facts.

What counts as a fault or a warning is the business of `definitions`. Here it gets what it cannot read
itself (registered task definitions, the syntax of scripts), and its verdict becomes a refusal.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..definitions import snapshot
from ..definitions.models import TaskDefinition, WorkflowDefinition, WorkflowTask
from ..definitions.names import why_unusable
from ..definitions.parse import Parsed, parse_task, parse_workflow
from ..definitions.task_types import EVALUATORS
from ..definitions.validate import chains
from ..errors import InvalidArgument, Reason, Violation
from ..json_text import without_mark
from ..payload import decode
from ..scripting.pool import Evaluators
from ..store import metadata
from ..store.database import Database
from .limits import invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A document with what was found in it. `version` is 0 for task definitions, `name` is empty where
    the document cannot be read."""

    raw: bytes
    name: str = ""
    version: int = 0
    faults: tuple[Violation, ...]
    warnings: tuple[Violation, ...]


class Judge:
    """Judges documents. With `strict` the warnings are faults, too."""

    def __init__(self, *, database: Database, evaluators: Evaluators) -> None:
        self._database = database
        self._evaluators = evaluators
        missing = {"python"} - evaluators.languages
        self._offered = EVALUATORS - missing

    async def workflows(self, namespace: str, documents: Sequence[bytes], *, strict: bool) -> list[Judged]:
        """Workflow definitions, one verdict each."""
        documents = [without_mark(raw) for raw in documents]
        registered = await self._registered(namespace, documents)
        return list(
            await asyncio.gather(*(self._workflow(raw, registered, strict=strict) for raw in documents))
        )

    async def tasks(self, namespace: str, documents: Sequence[bytes], *, strict: bool) -> list[Judged]:
        """Task definitions, one verdict each."""
        bare = [without_mark(raw) for raw in documents]
        return [_task(raw, parse_task(raw, strict=strict)) for raw in bare]

    async def inline(self, namespace: str, raw: bytes, *, name: str, field: str) -> Any:
        """The JSON value of a definition given in a start; `name` is what the start calls it, if
        anything. Raises InvalidArgument."""
        (judged,) = await self.workflows(namespace, [raw], strict=False)
        if judged.faults:
            found = [_below(field, fault) for fault in judged.faults]
            raise InvalidArgument(
                Reason.INVALID_DEFINITION, f"the definition has faults. {_first(found)}", violations=found
            )
        if name and name != judged.name:
            raise invalid(field, f"has the name {judged.name!r}, the start has {name!r}; leave one out")
        return decode(judged.raw)

    async def _registered(self, namespace: str, documents: Sequence[bytes]) -> dict[str, TaskDefinition]:
        """The task definitions that these documents use: their templates count as inputs."""
        names: set[str] = set()
        for raw in documents:
            try:
                names.update(snapshot.task_names(decode(raw)))
            except (ValueError, RecursionError):
                continue  # Not JSON, or too deep: judged so below.
        names = {name for name in names if why_unusable(name) is None}
        async with self._database.acquire() as connection:
            found = await metadata.get_task_documents(connection, namespace, sorted(names))
        return {name: TaskDefinition.model_validate(decode(raw)) for name, raw in found.items()}

    async def _workflow(
        self, raw: bytes, registered: Mapping[str, TaskDefinition], *, strict: bool
    ) -> Judged:
        parsed = parse_workflow(raw, strict=strict, task_definitions=registered, evaluators=self._offered)
        errors = await asyncio.gather(
            *(self._evaluators.check(script.language, script.text) for script in parsed.scripts)
        )
        parsed = parsed.with_script_errors(errors)
        faults, warnings = parsed.faults, parsed.warnings
        if strict:
            faults, warnings = (*faults, *warnings), ()
        definition = parsed.definition
        return _named(raw, definition, definition.version if definition else 0, faults, warnings)


def _task(raw: bytes, parsed: Parsed[TaskDefinition]) -> Judged:
    return _named(raw, parsed.definition, 0, parsed.faults, parsed.warnings)


def _named(
    raw: bytes,
    definition: WorkflowDefinition | TaskDefinition | None,
    version: int,
    faults: tuple[Violation, ...],
    warnings: tuple[Violation, ...],
) -> Judged:
    name = definition.name if definition else ""
    return Judged(raw=raw, name=name, version=version, faults=faults, warnings=warnings)


def refuse_faults(documents: Sequence[Judged]) -> None:
    """Raises InvalidArgument with every fault of every document, its path below `documents[i]`."""
    found = [
        _below(f"documents[{index}]", fault)
        for index, document in enumerate(documents)
        for fault in document.faults
    ]
    if found:
        faulty = sum(1 for document in documents if document.faults)
        raise InvalidArgument(
            Reason.INVALID_DEFINITION,
            f"{faulty} of {len(documents)} documents have faults; nothing was stored. {_first(found)}",
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


def _below(field: str, fault: Violation) -> Violation:
    path = f"{field}.{fault.path}" if fault.path else field
    return Violation(path, fault.message, fault.line, fault.column)


def _first(faults: Sequence[Violation]) -> str:
    return f"The first: {faults[0].path}: {faults[0].message}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What programs ask of a document. `task_counts`: nodes by type, nested ones included."""

    description: str
    owner_email: str
    task_counts: dict[str, int]


def workflow_facts(raw: bytes) -> Facts:
    """The facts of a registered workflow definition."""
    definition = WorkflowDefinition.model_validate(decode(raw))
    counts = Counter(node.type for node in _nodes(definition.tasks))
    return Facts(definition.description or "", definition.owner_email or "", dict(sorted(counts.items())))


def task_facts(raw: bytes) -> Facts:
    """The facts of a registered task definition."""
    definition = TaskDefinition.model_validate(decode(raw))
    return Facts(definition.description or "", definition.owner_email or "", {})


def _nodes(tasks: Iterable[WorkflowTask]) -> Iterator[WorkflowTask]:
    """Every node, outer ones before those inside them; not those of inline sub-workflows."""
    for node in tasks:
        yield node
        for inside, _, _ in chains(node, ()):
            yield from _nodes(inside)
