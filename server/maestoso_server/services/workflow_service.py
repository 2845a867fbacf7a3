"""WorkflowService: check, convert, call, convert. No rule lives here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from maestoso.workflow.v1 import workflow_pb2
from maestoso.workflow.v1 import workflow_service_pb2 as wire
from maestoso.workflow.v1.workflow_service_pb2_grpc import WorkflowServiceServicer

from ..engine.state import Header, TaskRow
from ..errors import MaestosoError
from ..executor import Starter, StartOutcome, StartRequest
from ..payload import Json
from ..store import lists
from ..store.database import Database
from . import convert, limits
from .actions import namespace_of
from .documents import Judge
from .interceptors import as_refusal
from .limits import Limits
from .masking import NOTHING, Mask, Masks
from .operations import Operations
from .security import caller
from .trials import Trials
from .watches import Watches

TASK_PAGE_DEFAULT = 1_000
TASK_PAGE_MAX = 10_000


class WorkflowService(WorkflowServiceServicer):
    """Starts, reads, watches and steers workflows."""

    def __init__(
        self,
        *,
        starter: Starter,
        operations: Operations,
        trials: Trials,
        judge: Judge,
        database: Database,
        watches: Watches,
        limits: Limits,
        masks: Masks,
    ) -> None:
        self._starter = starter
        self._operations = operations
        self._trials = trials
        self._judge = judge
        self._database = database
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
        await self._operations.terminate(
            namespace_of(request),
            request.workflow_id,
            reason=reason,
            compensate=request.compensate,
            trigger_failure=request.trigger_failure_workflow,
        )
        return wire.TerminateWorkflowResponse()

    async def PauseWorkflow(
        self, request: wire.PauseWorkflowRequest, context: Any
    ) -> wire.PauseWorkflowResponse:
        await self._operations.pause(namespace_of(request), request.workflow_id)
        return wire.PauseWorkflowResponse()

    async def ResumeWorkflow(
        self, request: wire.ResumeWorkflowRequest, context: Any
    ) -> wire.ResumeWorkflowResponse:
        await self._operations.resume(namespace_of(request), request.workflow_id)
        return wire.ResumeWorkflowResponse()

    async def RetryWorkflow(
        self, request: wire.RetryWorkflowRequest, context: Any
    ) -> wire.RetryWorkflowResponse:
        await self._operations.retry(
            namespace_of(request), request.workflow_id, resume_children=request.resume_children
        )
        return wire.RetryWorkflowResponse()

    async def RestartWorkflow(
        self, request: wire.RestartWorkflowRequest, context: Any
    ) -> wire.RestartWorkflowResponse:
        await self._operations.restart(
            namespace_of(request), request.workflow_id, latest=request.use_latest_definitions
        )
        return wire.RestartWorkflowResponse()

    async def RerunWorkflow(
        self, request: wire.RerunWorkflowRequest, context: Any
    ) -> wire.RerunWorkflowResponse:
        task_id = limits.uuid(request.task_id, "task_id") if request.task_id else ""
        if task_id and request.HasField("workflow_input"):
            raise limits.invalid("workflow_input", "goes with a rerun from the beginning: leave task_id out")
        if not task_id and request.HasField("task_input"):
            raise limits.invalid("task_input", "needs the task_id of the task that gets it")
        workflow_input = self._optional(request, "workflow_input")
        task_input = self._optional(request, "task_input")
        correlation_id = None
        if request.HasField("correlation_id"):
            correlation_id = limits.text(request.correlation_id, "correlation_id")
        ran = await self._operations.rerun(
            namespace_of(request),
            request.workflow_id,
            task_id=task_id,
            workflow_input=workflow_input,
            task_input=task_input,
            correlation_id=correlation_id,
        )
        return wire.RerunWorkflowResponse(workflow_id=ran)

    async def SkipTask(self, request: wire.SkipTaskRequest, context: Any) -> wire.SkipTaskResponse:
        reference = limits.name(request.reference, "reference")
        given = self._limits.payload(request.input, "input")
        told = self._limits.payload(request.output, "output")
        await self._operations.skip(
            namespace_of(request), request.workflow_id, reference, input=given, output=told
        )
        return wire.SkipTaskResponse()

    async def JumpToTask(self, request: wire.JumpToTaskRequest, context: Any) -> wire.JumpToTaskResponse:
        reference = limits.name(request.reference, "reference")
        given = self._optional(request, "input")
        await self._operations.jump(namespace_of(request), request.workflow_id, reference, input=given)
        return wire.JumpToTaskResponse()

    async def ResetCallbacks(
        self, request: wire.ResetCallbacksRequest, context: Any
    ) -> wire.ResetCallbacksResponse:
        count = await self._operations.reset_callbacks(namespace_of(request), request.workflow_id)
        return wire.ResetCallbacksResponse(tasks=count)

    async def UpdateVariables(
        self, request: wire.UpdateVariablesRequest, context: Any
    ) -> wire.UpdateVariablesResponse:
        if not request.variables:
            raise limits.invalid("variables", "is missing: send a JSON object")
        variables = self._limits.payload(request.variables, "variables")
        await self._operations.update_variables(
            namespace_of(request), request.workflow_id, variables, replace=request.replace
        )
        return wire.UpdateVariablesResponse()

    async def UpdateTask(self, request: wire.UpdateTaskRequest, context: Any) -> wire.UpdateTaskResponse:
        reference = limits.name(request.reference, "reference")
        status = convert.updated_status(request.status)
        output = self._limits.payload(request.output, "output")
        reason = limits.text(request.reason, "reason", limits.REASON_MAX) or None
        task_id = await self._operations.update_task(
            namespace_of(request),
            request.workflow_id,
            reference,
            status=status,
            output=output,
            reason=reason,
        )
        return wire.UpdateTaskResponse(task_id=task_id)

    async def RemoveWorkflow(
        self, request: wire.RemoveWorkflowRequest, context: Any
    ) -> wire.RemoveWorkflowResponse:
        reason = limits.text(request.reason, "reason", limits.REASON_MAX)
        count = await self._operations.remove(
            namespace_of(request),
            request.workflow_id,
            terminate=request.terminate,
            reason=reason,
            recursive=request.recursive,
        )
        return wire.RemoveWorkflowResponse(workflows=count)

    async def SignalWorkflow(
        self, request: wire.SignalWorkflowRequest, context: Any
    ) -> wire.SignalWorkflowResponse:
        taker, outcome = await self._operations.signal(
            namespace_of(request),
            request.workflow_id,
            reference=limits.text(request.reference, "reference") or None,
            status=convert.signalled_status(request.status),
            output=self._limits.payload(request.output, "output"),
            reason=limits.text(request.reason, "reason", limits.REASON_MAX) or None,
        )
        return convert.signalled(taker, outcome)

    async def UpgradeWorkflow(
        self, request: wire.UpgradeWorkflowRequest, context: Any
    ) -> wire.UpgradeWorkflowResponse:
        namespace = namespace_of(request)
        version = limits.number(request.version, "version", 0, 2**31 - 1) or None
        definition: Any = None
        if request.definition:
            if version is not None:
                raise limits.invalid("version", "must be 0 with a definition, which has its own version")
            raw = self._limits.definition(request.definition, "definition")
            definition = await self._judge.inline(namespace, raw, name="", field="definition")
        report = await self._operations.upgrade(
            namespace, request.workflow_id, version=version, definition=definition, dry_run=request.dry_run
        )
        return wire.UpgradeWorkflowResponse(report=convert.upgrade_report(report))

    # -- try out -----------------------------------------------------------------------------

    async def TestWorkflow(
        self, request: wire.TestWorkflowRequest, context: Any
    ) -> wire.TestWorkflowResponse:
        namespace = namespace_of(request)
        if request.start.idempotency_key:
            raise limits.invalid("start.idempotency_key", "has no effect in a test, which starts nothing")
        start = await self._start_request(request.start, namespace, "start")
        mocks = convert.mocks(request.mocks, self._limits)
        trial = await self._trials.run(start, mocks)
        return convert.trial(trial)

    # -- shared ------------------------------------------------------------------------------

    async def _header(self, namespace: str, workflow_id: str) -> Header:
        """The workflow of this id in this namespace. Raises InvalidArgument and NotFound."""
        return await self._operations.header(namespace, workflow_id)

    def _optional(self, request: Any, field: str) -> Json | None:
        """A payload that may be absent. Raises InvalidArgument."""
        return self._limits.payload(getattr(request, field), field) if request.HasField(field) else None

    async def _mask(
        self, header: Header, request: wire.GetWorkflowRequest | wire.WatchWorkflowRequest
    ) -> Mask:
        """Under which the caller sees the payloads that it asks for. Raises PermissionDenied."""
        if not request.include_payloads:
            return NOTHING
        return await self._masks.of(header.namespace, header.snapshot_id, header.id, unmask=request.unmask)


def _start_outcome(outcome: StartOutcome) -> workflow_pb2.StartOutcome:
    refused = None if outcome.error is None else as_refusal(outcome.error, "StartWorkflows")
    return convert.start_outcome(outcome, refused)
