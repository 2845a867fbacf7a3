"""WorkflowService: check, convert, call, convert. No rule lives here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypedDict

from maestoso.workflow.v1 import workflow_pb2
from maestoso.workflow.v1 import workflow_service_pb2 as wire
from maestoso.workflow.v1.workflow_service_pb2_grpc import WorkflowServiceServicer

from ..clock import Clock
from ..engine import events
from ..engine.decision import Outcome, Verdict
from ..engine.events import Event
from ..engine.state import Header, TaskRow
from ..errors import FailedPrecondition, MaestosoError, NotFound, Reason
from ..executor import Executor, Starter, StartOutcome, StartRequest
from ..executor.plans import Plans
from ..store import lists
from ..store.database import Database
from . import convert, limits
from .actions import namespace_of
from .documents import Judge
from .interceptors import as_refusal
from .limits import Limits
from .masking import NOTHING, Mask, Masks
from .security import caller
from .watches import Watches

TASK_PAGE_DEFAULT = 1_000
TASK_PAGE_MAX = 10_000


class _Now(TypedDict):
    now_ms: int
    seed: int


class WorkflowService(WorkflowServiceServicer):
    """Starts, reads, watches and steers workflows."""

    def __init__(
        self,
        *,
        executor: Executor,
        starter: Starter,
        plans: Plans,
        judge: Judge,
        database: Database,
        clock: Clock,
        watches: Watches,
        limits: Limits,
        masks: Masks,
    ) -> None:
        self._executor = executor
        self._starter = starter
        self._plans = plans
        self._judge = judge
        self._database = database
        self._clock = clock
        self._watches = watches
        self._limits = limits
        self._masks = masks

    # -- start -------------------------------------------------------------------------------

    async def StartWorkflow(
        self, request: wire.StartWorkflowRequest, context: Any
    ) -> wire.StartWorkflowResponse:
        start = await self._start_request(request.start, namespace_of(request), "start")
        (outcome,) = await self._starter.start([start])
        if outcome.error is not None:
            raise outcome.error
        return wire.StartWorkflowResponse(started=convert.started(outcome))

    async def StartWorkflows(
        self, request: wire.StartWorkflowsRequest, context: Any
    ) -> wire.StartWorkflowsResponse:
        self._limits.batch(request.starts, "starts")
        outcomes: list[StartOutcome | None] = []
        accepted: list[StartRequest] = []
        namespace = namespace_of(request)
        for index, start in enumerate(request.starts):
            try:
                accepted.append(await self._start_request(start, namespace, f"starts[{index}]"))
                outcomes.append(None)
            except MaestosoError as refusal:
                outcomes.append(StartOutcome(error=refusal))
        answers = iter(await self._starter.start(accepted) if accepted else ())
        return wire.StartWorkflowsResponse(
            outcomes=[_start_outcome(outcome or next(answers)) for outcome in outcomes]
        )

    async def _start_request(
        self, start: workflow_pb2.WorkflowStart, namespace: str, field: str
    ) -> StartRequest:
        request = convert.start_request(
            start, namespace=namespace, created_by=caller().name, limits_=self._limits, field=field
        )
        if start.definition:
            place = f"{field}.definition"
            raw = self._limits.definition(start.definition, place)
            request.definition = await self._judge.inline(namespace, raw, name=start.name, field=place)
        return request

    # -- read --------------------------------------------------------------------------------

    async def GetWorkflow(self, request: wire.GetWorkflowRequest, context: Any) -> wire.GetWorkflowResponse:
        size = limits.page_size(
            request.task_page_size, "task_page_size", default=TASK_PAGE_DEFAULT, most=TASK_PAGE_MAX
        )
        (after,) = convert.page_position(request.task_page_token, (0,), "task_page_token")
        header = await self._header(namespace_of(request), request.workflow_id)
        mask = await self._mask(header, request)
        rows: list[TaskRow] = []
        if request.include_tasks:
            async with self._database.acquire() as connection:
                rows = await lists.list_tasks(
                    connection, header.id, payloads=request.include_payloads, after=after, limit=size
                )
        # A page with payloads may be short; the last task that the header knows of ends the list.
        more = bool(rows) and rows[-1].seq < header.next_seq - 1
        return wire.GetWorkflowResponse(
            workflow=convert.workflow(header, payloads=request.include_payloads, tasks=rows, mask=mask),
            next_task_page_token=convert.page_token(rows[-1].seq) if more else "",
        )

    async def ListWorkflows(
        self, request: wire.ListWorkflowsRequest, context: Any
    ) -> wire.ListWorkflowsResponse:
        size = limits.page_size(request.page_size)
        filters = convert.workflow_filter(request)
        created_ms, last = convert.page_position(request.page_token, (0, ""))
        async with self._database.acquire() as connection:
            rows = await lists.list_workflows(
                connection,
                namespace_of(request),
                filters,
                after=(created_ms, limits.uuid(last, "page_token")) if request.page_token else None,
                limit=size + 1,
            )
        response = wire.ListWorkflowsResponse()
        response.next_page_token = convert.fill_page(
            response.workflows,
            rows,
            size=size,
            to_message=convert.summary,
            position=lambda row: (row.created_ms, row.id),
        )
        return response

    async def WatchWorkflow(
        self, request: wire.WatchWorkflowRequest, context: Any
    ) -> AsyncIterator[wire.WatchWorkflowResponse]:
        namespace = namespace_of(request)
        workflow_id = limits.uuid(request.workflow_id, "workflow_id")
        seen = request.after_revision
        with self._watches.follow(workflow_id) as watch:
            # The first read checks the namespace, too; only then is what was committed here believed.
            header = await self._header(namespace, workflow_id)
            mask = await self._mask(header, request)
            snapshot_id = header.snapshot_id
            while True:
                if header.snapshot_id != snapshot_id:
                    mask, snapshot_id = await self._mask(header, request), header.snapshot_id
                if header.revision > seen or header.status.terminal:
                    seen = header.revision
                    yield wire.WatchWorkflowResponse(
                        workflow=convert.workflow(header, payloads=request.include_payloads, mask=mask)
                    )
                if header.status.terminal:
                    return
                await watch.changed()
                header = watch.header or await self._header(namespace, workflow_id)

    # -- steer -------------------------------------------------------------------------------

    async def TerminateWorkflow(
        self, request: wire.TerminateWorkflowRequest, context: Any
    ) -> wire.TerminateWorkflowResponse:
        reason = limits.text(request.reason, "reason", limits.REASON_MAX)
        header = await self._header(namespace_of(request), request.workflow_id)
        terminate = events.Terminate(reason=reason, compensate=request.compensate, **self._now())
        await self._command(header, terminate)
        return wire.TerminateWorkflowResponse()

    async def PauseWorkflow(
        self, request: wire.PauseWorkflowRequest, context: Any
    ) -> wire.PauseWorkflowResponse:
        header = await self._header(namespace_of(request), request.workflow_id)
        await self._command(header, events.Pause(**self._now()))
        return wire.PauseWorkflowResponse()

    async def ResumeWorkflow(
        self, request: wire.ResumeWorkflowRequest, context: Any
    ) -> wire.ResumeWorkflowResponse:
        header = await self._header(namespace_of(request), request.workflow_id)
        await self._command(header, events.Resume(**self._now()))
        return wire.ResumeWorkflowResponse()

    async def RetryWorkflow(
        self, request: wire.RetryWorkflowRequest, context: Any
    ) -> wire.RetryWorkflowResponse:
        header = await self._header(namespace_of(request), request.workflow_id)
        event = events.Retry(resume_children=request.resume_children, **self._now())
        await self._command(header, event)
        return wire.RetryWorkflowResponse()

    async def RestartWorkflow(
        self, request: wire.RestartWorkflowRequest, context: Any
    ) -> wire.RestartWorkflowResponse:
        header = await self._header(namespace_of(request), request.workflow_id)
        event = events.Restart(**self._now())
        if request.use_latest_definitions:
            latest = await self._plans.resolve(header.namespace, header.name, None)
            event.snapshot_id, event.name, event.version = latest.snapshot_id, latest.name, latest.version
        await self._command(header, event)
        return wire.RestartWorkflowResponse()

    async def SignalWorkflow(
        self, request: wire.SignalWorkflowRequest, context: Any
    ) -> wire.SignalWorkflowResponse:
        event = events.Signal(
            reference=limits.text(request.reference, "reference") or None,
            status=convert.signalled_status(request.status),
            output=self._limits.payload(request.output, "output"),
            reason=limits.text(request.reason, "reason", limits.REASON_MAX) or None,
            **self._now(),
        )
        header = await self._header(namespace_of(request), request.workflow_id)
        outcome = await self._command(header, event)
        if outcome.verdict is Verdict.STALE:
            raise _wrong_state(header, outcome)
        return wire.SignalWorkflowResponse(outcome=convert.signal_outcome(outcome))

    # -- shared ------------------------------------------------------------------------------

    async def _header(self, namespace: str, workflow_id: str) -> Header:
        """The workflow of this id in this namespace. Raises InvalidArgument and NotFound."""
        canonical = limits.uuid(workflow_id, "workflow_id")
        async with self._database.acquire() as connection:
            header = await lists.get_workflow(connection, namespace, canonical)
        if header is None:
            raise NotFound(Reason.WORKFLOW_NOT_FOUND, f"no workflow {canonical} in namespace {namespace!r}")
        return header

    async def _mask(
        self, header: Header, request: wire.GetWorkflowRequest | wire.WatchWorkflowRequest
    ) -> Mask:
        """Under which the caller sees the payloads that it asks for. Raises PermissionDenied."""
        if not request.include_payloads:
            return NOTHING
        return await self._masks.of(header.namespace, header.snapshot_id, header.id, unmask=request.unmask)

    async def _command(self, header: Header, event: Event) -> Outcome:
        """Let an operator's command happen; one that finds it done is STALE. Raises FailedPrecondition
        where the state forbids it."""
        outcome = await self._executor.apply(header.id, event)
        if outcome.verdict is Verdict.REFUSED:
            raise _wrong_state(header, outcome)
        return outcome

    def _now(self) -> _Now:
        """What every event carries."""
        return {"now_ms": self._clock.now_ms(), "seed": self._executor.seed()}


def _start_outcome(outcome: StartOutcome) -> workflow_pb2.StartOutcome:
    refused = None if outcome.error is None else as_refusal(outcome.error, "StartWorkflows")
    return convert.start_outcome(outcome, refused)


def _wrong_state(header: Header, outcome: Outcome) -> FailedPrecondition:
    return FailedPrecondition(Reason.WRONG_STATE, f"workflow {header.id}: {outcome.reason}")
