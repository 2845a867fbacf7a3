"""Compiled definitions: which snapshot a start uses, and the plan of every snapshot.

Snapshots are immutable and named by their content, so plans are cached without a doubt. What may
go out of date is only which snapshot a name stands for now: that is cached with the namespace's
`metadata_revision`, and a start's save refuses an outdated one (`Outdated`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..clock import Clock
from ..definitions import snapshot
from ..definitions.models import WorkflowDefinition
from ..definitions.names import why_unusable
from ..definitions.parse import parse_workflow
from ..engine.needs import Child, ChildAnswer
from ..engine.plan import Plan, compile
from ..errors import InvalidArgument, MaestosoError, NotFound, Reason
from ..payload import decode
from ..store import metadata
from ..store.database import Database

PLANS_MAX = 2_000
"""Plans kept, least recently used ones first to go."""


@dataclass(slots=True, frozen=True)
class Resolved:
    """What a start runs on, as of `metadata_revision` of its namespace."""

    snapshot_id: str
    name: str
    version: int
    metadata_revision: int
    judging: Plan | None = None
    """The plan, where its schema judges the input before anything is started."""


@dataclass(slots=True, frozen=True)
class Draft:
    """What a start would run on. Its snapshot need not be stored."""

    snapshot_id: str
    plan: Plan


class Plans:
    """Resolves names to snapshots and snapshots to plans."""

    def __init__(
        self, *, database: Database, clock: Clock, environment: Mapping[str, str] | None = None
    ) -> None:
        self._environment = environment or {}
        self._database = database
        self._clock = clock
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._resolved: dict[tuple[str, str, int], Resolved] = {}
        self._task_definitions: dict[tuple[str, str], Any] = {}

    def known(self, snapshot_id: str) -> Plan | None:
        """The plan, if it is in memory."""
        plan = self._plans.get(snapshot_id)
        if plan is not None:
            self._plans.move_to_end(snapshot_id)
        return plan

    async def load(self, namespace: str, snapshot_id: str) -> Plan:
        """The plan of a stored snapshot."""
        async with self._database.acquire() as connection:
            document = await metadata.get_snapshot(connection, namespace, snapshot_id)
        if document is None:
            raise NotFound(Reason.DEFINITION_NOT_FOUND, f"snapshot {snapshot_id} is not stored")
        return self._keep(
            snapshot_id, compile(WorkflowDefinition.model_validate(decode(document)), self._environment)
        )

    def forget(self, namespace: str) -> None:
        """Definitions of this namespace changed."""
        self._resolved = {key: value for key, value in self._resolved.items() if key[0] != namespace}
        self._task_definitions = {
            key: value for key, value in self._task_definitions.items() if key[0] != namespace
        }

    def resolved(self, namespace: str, name: str, version: int | None) -> Resolved | None:
        """The same as `resolve`, if it is in memory."""
        return self._resolved.get((namespace, name, -1 if version is None else version))

    async def resolve(self, namespace: str, name: str, version: int | None) -> Resolved:
        """The snapshot that a start of this name uses now; `version` None = the highest.

        Raises NotFound for the namespace or the definition."""
        key = (namespace, name, -1 if version is None else version)
        resolved = self._resolved.get(key)
        if resolved is None:
            resolved = self._resolved[key] = await self._resolve(namespace, name, version)
        return resolved

    async def inline(self, namespace: str, document: Any) -> Resolved:
        """The snapshot of a definition given in the request itself (already validated)."""
        async with self._database.acquire() as connection:
            revision = await self._revision(connection, namespace)
            return await self._snapshot(connection, namespace, document, revision)

    async def child(self, namespace: str, need: Child) -> ChildAnswer:
        """The snapshot of a SUB_WORKFLOW's child, or why there is none."""
        unusable = why_unusable(need.name)
        if unusable is not None:
            return ChildAnswer(error=f"the name of the workflow to start {unusable}")
        try:
            if need.definition is not None:
                resolved = await self._made_at_run_time(namespace, need.definition.raw)
            else:
                resolved = await self.resolve(namespace, need.name, need.version)
        except MaestosoError as refusal:
            return ChildAnswer(error=refusal.message)
        return ChildAnswer(snapshot_id=resolved.snapshot_id, name=resolved.name, version=resolved.version)

    async def _made_at_run_time(self, namespace: str, raw: bytes) -> Resolved:
        """The snapshot of a definition that nobody judged at registration: an expression made it."""
        return await self.inline(namespace, _judged(raw))

    # -- without storing anything ------------------------------------------------------------

    async def draft(self, namespace: str, name: str, version: int | None) -> Draft:
        """What a start of this name would use now. Raises NotFound."""
        async with self._database.acquire() as connection:
            document = await self._document(connection, namespace, name, version)
            return self._compiled(*await self._pinned(connection, namespace, document))

    async def draft_of(self, namespace: str, document: Any) -> Draft:
        """What a start of this (validated) definition would use now."""
        async with self._database.acquire() as connection:
            return self._compiled(*await self._pinned(connection, namespace, document))

    async def draft_made_at_run_time(self, namespace: str, raw: bytes) -> Draft:
        """The same for a definition that an expression made. Raises InvalidArgument."""
        return await self.draft_of(namespace, _judged(raw))

    def _compiled(self, snapshot_id: str, raw: bytes) -> Draft:
        plan = self.known(snapshot_id)  # what is known is stored: a draft's plan is not kept
        if plan is None:
            plan = compile(WorkflowDefinition.model_validate(decode(raw)), self._environment)
        return Draft(snapshot_id, plan)

    async def task_definition(self, namespace: str, name: str) -> Any:
        """The registered task definition, as JSON value; None where there is none."""
        if why_unusable(name) is not None:
            return None
        key = (namespace, name)
        if key not in self._task_definitions:
            async with self._database.acquire() as connection:
                found = await metadata.get_task_documents(connection, namespace, [name])
            raw = found.get(name)
            self._task_definitions[key] = None if raw is None else decode(raw)
        return self._task_definitions[key]

    async def _resolve(self, namespace: str, name: str, version: int | None) -> Resolved:
        async with self._database.acquire() as connection:
            # The revision is read first: a change after it makes the start's save refuse.
            revision = await self._revision(connection, namespace)
            document = await self._document(connection, namespace, name, version)
            return await self._snapshot(connection, namespace, document, revision)

    async def _document(self, connection: Any, namespace: str, name: str, version: int | None) -> Any:
        raw = await metadata.get_workflow_document(connection, namespace, name, version)
        if raw is None:
            wanted = name if version is None else f"{name} version {version}"
            raise NotFound(
                Reason.DEFINITION_NOT_FOUND,
                f"no workflow definition {wanted} in namespace {namespace}; register it first",
            )
        return decode(raw)

    async def _revision(self, connection: Any, namespace: str) -> int:
        revision = await metadata.metadata_revision(connection, namespace)
        if revision is None:
            raise NotFound(
                Reason.NAMESPACE_NOT_FOUND,
                f"namespace {namespace} does not exist; create it or use `default`",
            )
        return revision

    async def _pinned(self, connection: Any, namespace: str, document: Any) -> tuple[str, bytes]:
        """(id, text) of the document's snapshot as of now."""
        names = snapshot.task_names(document)
        tasks = await metadata.get_task_documents(connection, namespace, names)
        children = snapshot.unpinned_children(document)
        pinned = await metadata.latest_versions(connection, namespace, children)
        return snapshot.snapshot(document, {name: decode(task) for name, task in tasks.items()}, pinned)

    async def _snapshot(self, connection: Any, namespace: str, document: Any, revision: int) -> Resolved:
        snapshot_id, raw = await self._pinned(connection, namespace, document)
        definition = WorkflowDefinition.model_validate(decode(raw))
        plan = self.known(snapshot_id)
        if plan is None:
            plan = compile(definition, self._environment)
            await metadata.put_snapshot(
                connection,
                namespace,
                snapshot_id,
                name=definition.name,
                version=definition.version,
                document=raw,
                now_ms=self._clock.now_ms(),
            )
            self._keep(snapshot_id, plan)
        judging = plan if plan.input_schema is not None else None
        return Resolved(snapshot_id, definition.name, definition.version, revision, judging)

    def _keep(self, snapshot_id: str, plan: Plan) -> Plan:
        self._plans[snapshot_id] = plan
        if len(self._plans) > PLANS_MAX:
            self._plans.popitem(last=False)
        return plan


def _judged(raw: bytes) -> Any:
    """The document of a definition that an expression made. Raises InvalidArgument."""
    parsed = parse_workflow(raw)
    if parsed.faults:
        first = parsed.faults[0]
        raise InvalidArgument(
            Reason.INVALID_DEFINITION,
            f"the sub-workflow's definition has {len(parsed.faults)} faults, first at {first.path}: "
            f"{first.message}",
        )
    return parsed.document.value
