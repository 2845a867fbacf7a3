"""What operators do to one workflow: one function for each operation, whoever asks for it.

The RPCs of WorkflowService call them for one workflow, bulk operations for many, one by one. Those that
run something again answer after the commit of the topmost ancestor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypedDict

from .. import ids
from ..clock import Clock
from ..engine import events
from ..engine.decision import Outcome, Verdict
from ..engine.events import Event, Keep
from ..engine.outcomes import refused
from ..engine.state import Header, TaskStatus, WorkflowStatus
from ..errors import FailedPrecondition, InvalidArgument, MaestosoError, NotFound, Reason, Violation
from ..executor import Executor
from ..executor.plans import Plans, Resolved
from ..payload import EMPTY, Json
from ..store import families, lists, removal
from ..store.database import Database
from . import limits
from .interceptors import as_refusal
from .watches import Watches

MANY_MAX = 1_000
"""Ids of one call that waits for all of them, as with Conductor."""
CHILDREN_AT_ONCE = 500
"""Children that a removal looks up in one page."""
AT_ONCE = 50
"""Workflows under way at once: they ride in the same batches."""

Operation = Callable[[str, str], Awaitable[object]]
"""(namespace, workflow id): one operation with its options. Raises MaestosoError."""


class _Now(TypedDict):
    now_ms: int
    seed: int


class Operations:
    """Every function raises NotFound, and FailedPrecondition where the workflow's state forbids it."""

    def __init__(
        self, *, executor: Executor, plans: Plans, database: Database, clock: Clock, watches: Watches
    ) -> None:
        self._executor = executor
        self._plans = plans
        self._database = database
        self._clock = clock
        self._watches = watches

    async def terminate(
        self,
        namespace: str,
        workflow_id: str,
        *,
        reason: str = "",
        compensate: bool = False,
        trigger_failure: bool = False,
    ) -> None:
        header = await self.header(namespace, workflow_id)
        event = events.Terminate(
            reason=reason, compensate=compensate, trigger_failure=trigger_failure, **self.now()
        )
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
        await self.ancestors_told(header)

    async def restart(self, namespace: str, workflow_id: str, *, latest: bool = False) -> None:
        header = await self.header(namespace, workflow_id)
        event = events.Restart(**self.now())
        if latest:
            found = await self._plans.resolve(header.namespace, header.name, None)
            event.snapshot_id, event.name, event.version = found.snapshot_id, found.name, found.version
        await self.command(header, event)
        await self.ancestors_told(header)

    async def skip(
        self, namespace: str, workflow_id: str, reference: str, *, input: Json = EMPTY, output: Json = EMPTY
    ) -> None:
        """Step over a task that is still to come; `output` is what it shows."""
        header = await self.header(namespace, workflow_id)
        await self.command(header, events.Skip(reference=reference, input=input, output=output, **self.now()))

    async def jump(
        self, namespace: str, workflow_id: str, reference: str, *, input: Json | None = None
    ) -> None:
        header = await self.header(namespace, workflow_id)
        await self.command(header, events.Jump(reference=reference, input=input, **self.now()))

    async def reset_callbacks(self, namespace: str, workflow_id: str) -> int:
        """Have sleeping tasks handed out now; how many."""
        header = await self.header(namespace, workflow_id)
        if header.status.terminal:
            raise wrong_state(header, refused(f"it is {header.status.name}: none of its tasks waits"))
        return await self._executor.wake(header.id)

    async def update_variables(
        self, namespace: str, workflow_id: str, variables: Json, *, replace: bool = False
    ) -> None:
        header = await self.header(namespace, workflow_id)
        event = events.ChangeVariables(variables=variables, replace=replace, **self.now())
        await self.command(header, event)

    async def update_task(
        self,
        namespace: str,
        workflow_id: str,
        reference: str,
        *,
        status: TaskStatus = TaskStatus.COMPLETED,
        output: Json = EMPTY,
        reason: str | None = None,
    ) -> str:
        """Report on the open task with this reference; the task's id."""
        header = await self.header(namespace, workflow_id)
        event = events.UpdateTask(
            reference=reference, status=status, output=output, reason=reason, **self.now()
        )
        outcome = await self.command(header, event)
        return ids.task_id(header.id, outcome.seq)

    async def signal(
        self,
        namespace: str,
        workflow_id: str,
        *,
        reference: str | None = None,
        status: TaskStatus = TaskStatus.COMPLETED,
        output: Json = EMPTY,
        reason: str | None = None,
        keep: bool = True,
    ) -> tuple[str, Outcome]:
        """Tell the first waiting task: of this workflow, else of its running children, depth first. Without
        `keep` a signal that finds none is refused. The workflow that took it, and how."""
        header = await self.header(namespace, workflow_id)

        def event(how: Keep) -> events.Signal:
            return events.Signal(
                reference=reference, status=status, output=output, reason=reason, keep=how, **self.now()
            )

        own = await self._executor.apply(header.id, event(Keep.NAMED if keep else Keep.NEVER))
        if own.verdict is Verdict.STALE:
            raise wrong_state(header, own)
        if own.verdict is not Verdict.REFUSED:
            return header.id, own
        below = await self._running_below(header.id)
        for workflow_id, waits in below:
            if any(reference is None or task.reference in _names(reference) for task in waits):
                outcome = await self._executor.apply(workflow_id, event(Keep.NEVER))
                if outcome.verdict is Verdict.APPLIED:
                    return workflow_id, outcome
        if keep and reference is not None:
            for workflow_id in (header.id, *(workflow_id for workflow_id, _ in below)):
                outcome = await self._executor.apply(workflow_id, event(Keep.ALWAYS))
                if outcome.verdict in (Verdict.APPLIED, Verdict.PARKED):
                    return workflow_id, outcome
        raise wrong_state(header, own)

    async def _running_below(self, workflow_id: str) -> list[tuple[str, list[families.OpenTask]]]:
        """The running children of a workflow and theirs, depth first, with their waiting tasks."""
        found: list[tuple[str, list[families.OpenTask]]] = []
        pending = [workflow_id]
        async with self._database.acquire() as connection:
            while pending:
                at = pending.pop()
                tasks = await families.open_waits(connection, at)
                if at != workflow_id:
                    found.append((at, [task for task in tasks if task.child_id is None]))
                pending.extend(task.child_id for task in reversed(tasks) if task.child_id is not None)
        return found

    async def rerun(
        self,
        namespace: str,
        workflow_id: str,
        *,
        task_id: str = "",
        reference: str = "",
        workflow_input: Json | None = None,
        task_input: Json | None = None,
        correlation_id: str | None = None,
    ) -> str:
        """From the beginning, or from a task (canonical id) of the workflow or of one below it, or from
        the newest task of a reference of its own; the workflow that runs again."""
        header = await self.header(namespace, workflow_id)
        target, seq = header, 0
        if task_id:
            target, seq = await self._owner(header, task_id)
        elif reference:
            seq = await self._newest(header, reference)
        if seq and not header.status.terminal:
            raise wrong_state(header, refused("it is not in terminal state, unable to rerun"))
        event = events.Rerun(
            seq=seq,
            input=workflow_input,
            task_input=task_input,
            correlation_id=correlation_id,
            **self.now(),
        )
        await self.command(target, event)
        await self.ancestors_told(target)
        return target.id

    async def _newest(self, header: Header, reference: str) -> int:
        """The newest task of a reference in the workflow's present run."""
        async with self._database.acquire() as connection:
            seq = await families.newest(connection, header.id, reference)
        if seq is None:
            raise NotFound(Reason.TASK_NOT_FOUND, f"workflow {header.id} has no task {reference!r}")
        return seq

    async def _owner(self, header: Header, task_id: str) -> tuple[Header, int]:
        """The workflow that has a task: this one, or one below it. A task's id says which it is; that
        it lies below is seen from its ancestors."""
        low, high, seq = ids.split_task_id(task_id)
        async with self._database.acquire() as connection:
            found = await lists.get_task(connection, header.namespace, low, high, seq)
            if found is not None and found.workflow_id == header.id:
                return header, seq
            above = await families.ancestors(connection, found.workflow_id) if found is not None else []
            if found is not None and header.id in above:
                owner = await lists.get_workflow(connection, header.namespace, found.workflow_id)
                if owner is not None:
                    return owner, seq
        raise NotFound(
            Reason.TASK_NOT_FOUND, f"workflow {header.id} and its sub-workflows have no task {task_id}"
        )

    async def ancestors_told(self, header: Header) -> None:
        """Return when every ancestor that is to run again with this workflow does, whichever nodes commit
        that. The message that goes up is a row until its last commit: exact, and one read where there is
        no parent to wait for."""
        if header.parent_id is None:
            return
        async with self._database.acquire() as connection:
            above = await families.ancestors(connection, header.id)
            waiting = await families.being_revived(connection, above)
        while waiting is not None:
            with self._watches.follow(waiting) as watch:
                async with self._database.acquire() as connection:
                    still = await families.being_revived(connection, above)
                if still == waiting:
                    await watch.changed()
                    async with self._database.acquire() as connection:
                        still = await families.being_revived(connection, above)
                waiting = still

    async def remove(
        self,
        namespace: str,
        workflow_id: str,
        *,
        terminate: bool = False,
        reason: str = "",
        recursive: bool = False,
    ) -> int:
        """Delete the execution, with `recursive` after all below it; how many went."""
        header = await self.header(namespace, workflow_id)
        await self._mark_removed(header, terminate=terminate, reason=reason)
        removed = 0
        pending: list[tuple[Header, bool]] = [(header, False)]
        while pending:
            at, children_done = pending.pop()
            if recursive and not children_done:
                pending.append((at, True))
                for child in await self._children(at):
                    await self._mark_removed(child, terminate=terminate, reason=reason)
                    pending.append((child, False))
                continue
            removed += await self._delete(at.id)
        return removed

    async def _mark_removed(self, header: Header, *, terminate: bool, reason: str) -> None:
        if not header.status.terminal:
            if not terminate:
                told = f"it is {header.status.name}: terminate it first, or set `terminate`"
                raise wrong_state(header, refused(told))
            outcome = await self._executor.apply(
                header.id, events.Terminate(reason=reason or "removed", **self.now())
            )
            if outcome.verdict is Verdict.REFUSED:  # it has COMPLETED meanwhile
                header.status = WorkflowStatus.COMPLETED
        await self.command(header, events.Remove(**self.now()))

    async def _children(self, header: Header) -> list[Header]:
        """What its tasks started as children, in any of its runs, and is still there."""
        found: list[Header] = []
        after = 0
        while True:
            async with self._database.acquire() as connection:
                page = await families.children(connection, header.id, after=after, limit=CHILDREN_AT_ONCE)
                for _, child_id in page:
                    child = await lists.get_workflow(connection, header.namespace, child_id)
                    if child is not None:
                        found.append(child)
            if len(page) < CHILDREN_AT_ONCE:
                return found
            after = page[-1][0]

    async def _delete(self, workflow_id: str) -> bool:
        while True:
            async with self._database.acquire() as connection:
                if not await removal.remove_tasks(connection, workflow_id):
                    return await removal.remove_workflow(connection, workflow_id)

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
        where the state forbids it, with every fault that was found, and NotFound where there is no such
        task."""
        outcome = await self._executor.apply(header.id, event)
        if outcome.verdict is Verdict.REFUSED:
            raise wrong_state(header, outcome)
        if outcome.verdict is Verdict.ABSENT:
            raise NotFound(Reason.TASK_NOT_FOUND, f"workflow {header.id}: {outcome.reason}")
        return outcome

    def now(self) -> _Now:
        """What every event carries."""
        return {"now_ms": self._clock.now_ms(), "seed": self._executor.seed()}


def _names(reference: str) -> tuple[str, ...]:
    """The base references that a signal's reference can mean."""
    base, separator, _ = reference.partition("__")
    return (reference, base) if separator else (reference,)


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
