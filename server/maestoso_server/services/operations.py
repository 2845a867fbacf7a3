"""What operators do to one workflow: one function for each operation, whoever asks for it.

The RPCs of WorkflowService call them for one workflow, bulk operations for many, one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypedDict

from ..clock import Clock
from ..engine import events
from ..engine.decision import Outcome, Verdict
from ..engine.events import Event
from ..engine.state import Header, TaskStatus
from ..errors import FailedPrecondition, InvalidArgument, MaestosoError, NotFound, Reason, Violation
from ..executor import Executor
from ..executor.plans import Plans, Resolved
from ..payload import EMPTY, Json
from ..store import lists
from ..store.database import Database
from . import limits
from .interceptors import as_refusal

MANY_MAX = 1_000
"""Ids of one call that waits for all of them, as with Conductor."""
AT_ONCE = 50
"""Workflows under way at once: they ride in the same batches."""

Operation = Callable[[str, str], Awaitable[object]]
"""(namespace, workflow id): one operation with its options. Raises MaestosoError."""


class _Now(TypedDict):
    now_ms: int
    seed: int


class Operations:
    """Every function raises NotFound, and FailedPrecondition where the workflow's state forbids it."""

    def __init__(self, *, executor: Executor, plans: Plans, database: Database, clock: Clock) -> None:
        self._executor = executor
        self._plans = plans
        self._database = database
        self._clock = clock

    async def terminate(
        self, namespace: str, workflow_id: str, *, reason: str = "", compensate: bool = False
    ) -> None:
        header = await self.header(namespace, workflow_id)
        event = events.Terminate(reason=reason, compensate=compensate, **self.now())
        await self.command(header, event)

    async def pause(self, namespace: str, workflow_id: str) -> None:
        header = await self.header(namespace, workflow_id)
        await self.command(header, events.Pause(**self.now()))

    async def resume(self, namespace: str, workflow_id: str) -> None:
        header = await self.header(namespace, workflow_id)
        await self.command(header, events.Resume(**self.now()))

    async def retry(self, namespace: str, workflow_id: str, *, resume_children: bool = False) -> None:
        header = await self.header(namespace, workflow_id)
        await self.command(header, events.Retry(resume_children=resume_children, **self.now()))

    async def restart(self, namespace: str, workflow_id: str, *, latest: bool = False) -> None:
        header = await self.header(namespace, workflow_id)
        event = events.Restart(**self.now())
        if latest:
            found = await self._plans.resolve(header.namespace, header.name, None)
            event.snapshot_id, event.name, event.version = found.snapshot_id, found.name, found.version
        await self.command(header, event)

    async def signal(
        self,
        namespace: str,
        workflow_id: str,
        *,
        reference: str | None = None,
        status: TaskStatus = TaskStatus.COMPLETED,
        output: Json = EMPTY,
        reason: str | None = None,
    ) -> Outcome:
        """Whether it was applied or is kept for its task."""
        header = await self.header(namespace, workflow_id)
        event = events.Signal(reference=reference, status=status, output=output, reason=reason, **self.now())
        outcome = await self.command(header, event)
        if outcome.verdict is Verdict.STALE:
            raise wrong_state(header, outcome)
        return outcome

    async def upgrade(
        self,
        namespace: str,
        workflow_id: str,
        *,
        version: int | None = None,
        definition: Any = None,
        dry_run: bool = False,
    ) -> Json:
        """The report (`engine/upgrade.py`). `definition` (a validated JSON value) wins over `version`,
        None the highest."""
        header = await self.header(namespace, workflow_id)
        found = await self._version(header, version, definition)
        event = events.Upgrade(
            snapshot_id=found.snapshot_id,
            name=found.name,
            version=found.version,
            dry_run=dry_run,
            **self.now(),
        )
        outcome = await self.command(header, event)
        if outcome.report is None:
            raise wrong_state(header, outcome)
        return outcome.report

    async def _version(self, header: Header, version: int | None, definition: Any) -> Resolved:
        if definition is not None:
            return await self._plans.inline(header.namespace, definition)
        return await self._plans.resolve(header.namespace, header.name, version)

    # -- shared --------------------------------------------------------------------------------

    async def header(self, namespace: str, workflow_id: str) -> Header:
        """The workflow of this id in this namespace. Raises InvalidArgument and NotFound."""
        canonical = limits.uuid(workflow_id, "workflow_id")
        async with self._database.acquire() as connection:
            header = await lists.get_workflow(connection, namespace, canonical)
        if header is None:
            raise NotFound(Reason.WORKFLOW_NOT_FOUND, f"no workflow {canonical} in namespace {namespace!r}")
        return header

    async def command(self, header: Header, event: Event) -> Outcome:
        """Let an operator's command happen; one that finds it done is STALE. Raises FailedPrecondition
        where the state forbids it, with every fault that was found."""
        outcome = await self._executor.apply(header.id, event)
        if outcome.verdict is Verdict.REFUSED:
            raise wrong_state(header, outcome)
        return outcome

    def now(self) -> _Now:
        """What every event carries."""
        return {"now_ms": self._clock.now_ms(), "seed": self._executor.seed()}


def wrong_state(header: Header, outcome: Outcome) -> FailedPrecondition:
    """The refusal of a command."""
    faults = outcome.report.value["faults"] if outcome.report is not None else ()
    return FailedPrecondition(
        Reason.WRONG_STATE,
        f"workflow {header.id}: {outcome.reason}",
        violations=[Violation(fault["reference"], fault["message"]) for fault in faults],
    )


async def for_each(
    namespace: str, workflow_ids: Sequence[str], operation: Operation, *, name: str
) -> list[MaestosoError | None]:
    """Do one operation to each of up to 1,000 workflows; what each came to, None where it was done. One
    that is refused stops no other. Raises InvalidArgument for too many."""
    if len(workflow_ids) > MANY_MAX:
        raise InvalidArgument(
            Reason.INVALID_REQUEST,
            f"{len(workflow_ids)} workflows in one call; at most {MANY_MAX:,} are accepted: "
            "CreateBulkOperation takes more",
        )
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(workflow_id: str) -> MaestosoError | None:
        async with turns:
            return await refusal_of(operation(namespace, workflow_id), name)

    return list(await asyncio.gather(*(one(workflow_id) for workflow_id in workflow_ids)))


async def refusal_of(doing: Awaitable[object], name: str) -> MaestosoError | None:
    """What an operation was refused with; None where it was done. A fault of ours is INTERNAL, and
    logged."""
    try:
        await doing
    except Exception as error:
        return as_refusal(error, name)
    return None
