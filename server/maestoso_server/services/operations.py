"""Operators' commands on one workflow, for the RPCs and for whoever gives them in bulk.

Each takes the header that was read by id and namespace, so that the caller has checked both. Raises
NotFound and FailedPrecondition as the RPCs say. Those that run something again answer after the
commit of the topmost ancestor.
"""

from __future__ import annotations

from typing import TypedDict

from .. import ids
from ..clock import Clock
from ..engine import events
from ..engine.decision import Outcome, Verdict
from ..engine.events import Event, Keep
from ..engine.state import Header, TaskStatus, WorkflowStatus
from ..errors import FailedPrecondition, NotFound, Reason
from ..executor import Executor
from ..executor.plans import Plans
from ..payload import EMPTY, Json
from ..store import families, lists, removal
from ..store.database import Database
from .watches import Watches

CHILDREN_AT_ONCE = 500


class _Now(TypedDict):
    now_ms: int
    seed: int


class Operations:
    """Commands, each answered after its commit."""

    def __init__(
        self, *, executor: Executor, plans: Plans, database: Database, clock: Clock, watches: Watches
    ) -> None:
        self._executor = executor
        self._plans = plans
        self._database = database
        self._clock = clock
        self._watches = watches

    async def header(self, namespace: str, workflow_id: str) -> Header:
        """The workflow with this canonical id in this namespace. Raises NotFound."""
        async with self._database.acquire() as connection:
            header = await lists.get_workflow(connection, namespace, workflow_id)
        if header is None:
            raise NotFound(Reason.WORKFLOW_NOT_FOUND, f"no workflow {workflow_id} in namespace {namespace!r}")
        return header

    # -- running on --------------------------------------------------------------------------

    async def terminate(
        self, header: Header, reason: str, *, trigger_failure: bool = False, compensate: bool = False
    ) -> None:
        event = events.Terminate(
            reason=reason, trigger_failure=trigger_failure, compensate=compensate, **self._now()
        )
        await self.command(header, event)

    async def pause(self, header: Header) -> None:
        await self.command(header, events.Pause(**self._now()))

    async def resume(self, header: Header) -> None:
        await self.command(header, events.Resume(**self._now()))

    async def skip(self, header: Header, reference: str, given: Json = EMPTY, told: Json = EMPTY) -> None:
        """Step over a task that is still to come; `told` is the output that it shows."""
        await self.command(header, events.Skip(reference=reference, input=given, output=told, **self._now()))

    async def jump(self, header: Header, reference: str, given: Json | None = None) -> None:
        await self.command(header, events.Jump(reference=reference, input=given, **self._now()))

    async def reset_callbacks(self, header: Header) -> int:
        """Have sleeping tasks handed out now; how many."""
        if header.status.terminal:
            raise _wrong_state(header, f"it is {header.status.name}: none of its tasks waits")
        return await self._executor.wake(header.id)

    async def update_variables(self, header: Header, variables: Json, *, replace: bool = False) -> None:
        event = events.ChangeVariables(variables=variables, replace=replace, **self._now())
        await self.command(header, event)

    async def update_task(
        self, header: Header, reference: str, status: TaskStatus, output: Json, reason: str | None
    ) -> str:
        """Report on the open task with this reference; the task's id."""
        event = events.UpdateTask(
            reference=reference, status=status, output=output, reason=reason, **self._now()
        )
        outcome = await self.command(header, event)
        return ids.task_id(header.id, outcome.seq)

    # -- signals -----------------------------------------------------------------------------

    async def signal(
        self,
        header: Header,
        reference: str | None,
        status: TaskStatus,
        output: Json,
        reason: str | None,
        *,
        keep: bool = True,
    ) -> tuple[str, Outcome]:
        """Tell the first waiting task: of this workflow, else of its running children, depth first. Without
        `keep` a signal that finds none is refused; the workflow that took it, and how."""

        def event(how: Keep) -> events.Signal:
            return events.Signal(
                reference=reference, status=status, output=output, reason=reason, keep=how, **self._now()
            )

        own = await self._executor.apply(header.id, event(Keep.NAMED if keep else Keep.NEVER))
        if own.verdict is Verdict.STALE:
            raise _wrong_state(header, own.reason)
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
        raise _wrong_state(header, own.reason)

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

    # -- running again -----------------------------------------------------------------------

    async def retry(self, header: Header, *, resume_children: bool = False) -> None:
        await self.command(header, events.Retry(resume_children=resume_children, **self._now()))
        await self.ancestors_told(header)

    async def restart(self, header: Header, *, use_latest_definitions: bool = False) -> None:
        event = events.Restart(**self._now())
        if use_latest_definitions:
            latest = await self._plans.resolve(header.namespace, header.name, None)
            event.snapshot_id, event.name, event.version = latest.snapshot_id, latest.name, latest.version
        await self.command(header, event)
        await self.ancestors_told(header)

    async def rerun(
        self,
        header: Header,
        *,
        task_id: str = "",
        workflow_input: Json | None = None,
        task_input: Json | None = None,
        correlation_id: str | None = None,
    ) -> str:
        """From the beginning, or from a task (canonical id) of the workflow or of one below it; the
        workflow that runs again."""
        target, seq = header, 0
        if task_id:
            target, seq = await self._owner(header, task_id)
            if not header.status.terminal:
                raise _wrong_state(header, "it is not in terminal state, unable to rerun")
        event = events.Rerun(
            seq=seq,
            input=workflow_input,
            task_input=task_input,
            correlation_id=correlation_id,
            **self._now(),
        )
        await self.command(target, event)
        await self.ancestors_told(target)
        return target.id

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

    # -- removal -----------------------------------------------------------------------------

    async def remove(
        self, header: Header, *, terminate: bool = False, reason: str = "", recursive: bool = False
    ) -> int:
        """Delete the execution, with `recursive` after all below it; how many went."""
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
                raise _wrong_state(
                    header, f"it is {header.status.name}: terminate it first, or set `terminate`"
                )
            outcome = await self._executor.apply(
                header.id, events.Terminate(reason=reason or "removed", **self._now())
            )
            if outcome.verdict is Verdict.REFUSED:  # it has COMPLETED meanwhile
                header.status = WorkflowStatus.COMPLETED
        await self.command(header, events.Remove(**self._now()))

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

    # -- shared ------------------------------------------------------------------------------

    async def command(self, header: Header, event: Event) -> Outcome:
        """Let an operator's command happen; one that finds it done is STALE. Raises FailedPrecondition
        where the state forbids it, NotFound where there is no such task."""
        outcome = await self._executor.apply(header.id, event)
        if outcome.verdict is Verdict.REFUSED:
            raise _wrong_state(header, outcome.reason)
        if outcome.verdict is Verdict.ABSENT:
            raise NotFound(Reason.TASK_NOT_FOUND, f"workflow {header.id}: {outcome.reason}")
        return outcome

    def _now(self) -> _Now:
        """What every event carries."""
        return {"now_ms": self._clock.now_ms(), "seed": self._executor.seed()}


def _names(reference: str) -> tuple[str, ...]:
    """The base references that a signal's reference can mean."""
    base, separator, _ = reference.partition("__")
    return (reference, base) if separator else (reference,)


def _wrong_state(header: Header, reason: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.WRONG_STATE, f"workflow {header.id}: {reason}")
