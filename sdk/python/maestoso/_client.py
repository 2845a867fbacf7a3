"""Client: everything but running tasks.

What comes back are the messages of the contract (`maestoso.workflow.v1` and so on); their payloads
are JSON as bytes, so that nothing is lost on the way. What goes in may be any Python value that JSON
has words for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from maestoso.admin.v1 import admin_pb2, admin_service_pb2, admin_service_pb2_grpc
from maestoso.metadata.v1 import definition_pb2, metadata_service_pb2, metadata_service_pb2_grpc
from maestoso.search.v1 import search_service_pb2, search_service_pb2_grpc
from maestoso.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from maestoso.workflow.v1 import (
    bulk_pb2,
    bulk_service_pb2,
    bulk_service_pb2_grpc,
    workflow_pb2,
    workflow_service_pb2,
    workflow_service_pb2_grpc,
)

from . import _json
from ._channel import Credentials, Tls, open_channel
from ._errors import ServerError, Unavailable, from_message, from_rpc
from ._mocks import Mocks, OfTasks
from ._session import timestamp

SERVER = "127.0.0.1:8090"
TIMEOUT_SECONDS = 30.0
"""How long one call may take."""
PATIENCE_SECONDS = 10.0
"""How long an unreachable server is called again, where a repeat is safe."""
TEST_SECONDS = 60.0
"""How long the server lets the test of a workflow run."""
BULK_POLL_SECONDS = 1.0
STARTS_MAX = 1_000
"""Starts in one call; more are split."""
_BACKOFF_FIRST = 0.1
_BACKOFF_MAX = 2.0

Document = Mapping[str, Any] | bytes | str
"""A definition: parsed, or its JSON text."""
Overwrite = Literal["refuse", "allow", "require"]
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_OVERWRITE: dict[str, definition_pb2.Overwrite.ValueType] = {
    "refuse": definition_pb2.OVERWRITE_REFUSE,
    "allow": definition_pb2.OVERWRITE_ALLOW,
    "require": definition_pb2.OVERWRITE_REQUIRE,
}
_IDEMPOTENCY: dict[str, workflow_pb2.IdempotencyStrategy.ValueType] = {
    "fail": workflow_pb2.IDEMPOTENCY_STRATEGY_FAIL,
    "return_existing": workflow_pb2.IDEMPOTENCY_STRATEGY_RETURN_EXISTING,
    "fail_on_running": workflow_pb2.IDEMPOTENCY_STRATEGY_FAIL_ON_RUNNING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What to start. `version` 0 = the highest; `definition`: run this document, registered or not.

    `idempotency_key` makes a repeat safe; `idempotency` says what a used key does: "fail",
    "return_existing", or "fail_on_running" (fail while that workflow runs, else start anew).
    `task_to_domain`: task type, or `*`, to domains in order of preference, comma separated.
    """

    name: str = ""
    input: Mapping[str, Any] | bytes | None = None
    version: int = 0
    definition: Document | None = None
    correlation_id: str = ""
    priority: int = 0
    task_to_domain: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str = ""
    idempotency: Literal["fail", "return_existing", "fail_on_running"] = "fail"
    traceparent: str = ""

    def message(self) -> workflow_pb2.WorkflowStart:
        """The same as a message."""
        return workflow_pb2.WorkflowStart(
            name=self.name,
            version=self.version,
            definition=b"" if self.definition is None else _document(self.definition),
            input=_payload(self.input),
            correlation_id=self.correlation_id,
            priority=self.priority,
            task_to_domain=self.task_to_domain,
            idempotency_key=self.idempotency_key,
            idempotency_strategy=(
                _IDEMPOTENCY[self.idempotency]
                if self.idempotency_key
                else workflow_pb2.IDEMPOTENCY_STRATEGY_UNSPECIFIED
            ),
            traceparent=self.traceparent,
        )


class Client:
    """Talks to a server. Use it as `async with Client(...) as client:`, or close it yourself.

    Refusals are raised as `ServerError`s. UNAVAILABLE is met by calling again, with a growing random
    delay, where a repeat cannot do harm: reads, and writes that the server makes safe to repeat. A
    start is such a write if it has an idempotency key.
    """

    def __init__(
        self,
        server: str = SERVER,
        *,
        namespace: str = "default",
        api_key: str | None = None,
        authorization: str | Callable[[], str] | None = None,
        tls: Tls | None = None,
        timeout: float = TIMEOUT_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """`timeout`: seconds for a call. `patience`: seconds for which UNAVAILABLE is met by repeats."""
        self.namespace = namespace
        self.timeout = timeout
        self.patience = patience
        self._credentials = Credentials(api_key=api_key, authorization=authorization)
        self._channel = open_channel(server, tls)
        self._metadata = cast(
            "metadata_service_pb2_grpc.MetadataServiceAsyncStub",
            metadata_service_pb2_grpc.MetadataServiceStub(self._channel),
        )
        self._workflows = cast(
            "workflow_service_pb2_grpc.WorkflowServiceAsyncStub",
            workflow_service_pb2_grpc.WorkflowServiceStub(self._channel),
        )
        self._bulks = cast(
            "bulk_service_pb2_grpc.BulkServiceAsyncStub", bulk_service_pb2_grpc.BulkServiceStub(self._channel)
        )
        self._tasks = cast(
            "task_service_pb2_grpc.TaskServiceAsyncStub", task_service_pb2_grpc.TaskServiceStub(self._channel)
        )
        self._search = cast(
            "search_service_pb2_grpc.SearchServiceAsyncStub",
            search_service_pb2_grpc.SearchServiceStub(self._channel),
        )
        self._admin = cast(
            "admin_service_pb2_grpc.AdminServiceAsyncStub",
            admin_service_pb2_grpc.AdminServiceStub(self._channel),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way end with an error."""
        await self._channel.close()

    # Definitions.

    async def register_workflows(
        self, documents: Iterable[Document], *, overwrite: Overwrite = "refuse", strict: bool = False
    ) -> Sequence[definition_pb2.PutResult]:
        """Register workflow definitions: all of them, or none. InvalidArgument lists every fault.

        `overwrite`: "refuse" what exists and differs, "allow" it, or "require" that it exists.
        `strict`: refuse fields without an effect instead of warning of them.
        """
        return await self._put_workflows(documents, _OVERWRITE[overwrite], strict, validate_only=False)

    async def validate_workflows(
        self, documents: Iterable[Document], *, strict: bool = False
    ) -> Sequence[definition_pb2.PutResult]:
        """Check workflow definitions and store nothing. Faults are in the results."""
        return await self._put_workflows(
            documents, definition_pb2.OVERWRITE_ALLOW, strict, validate_only=True
        )

    async def _put_workflows(
        self,
        documents: Iterable[Document],
        overwrite: definition_pb2.Overwrite.ValueType,
        strict: bool,
        *,
        validate_only: bool,
    ) -> Sequence[definition_pb2.PutResult]:
        request = metadata_service_pb2.PutWorkflowDefinitionsRequest(
            namespace=self.namespace,
            documents=[_document(document) for document in documents],
            overwrite=overwrite,
            validate_only=validate_only,
            strict=strict,
        )
        return (await self._repeat(self._metadata.PutWorkflowDefinitions, request)).results

    async def get_workflow_definition(self, name: str, version: int = 0) -> definition_pb2.WorkflowDefinition:
        """One workflow definition with its document; version 0 = the highest."""
        request = metadata_service_pb2.GetWorkflowDefinitionRequest(
            namespace=self.namespace, name=name, version=version
        )
        return (await self._repeat(self._metadata.GetWorkflowDefinition, request)).definition

    def workflow_definitions(
        self, name: str = "", *, latest_only: bool = False, documents: bool = False
    ) -> AsyncIterator[definition_pb2.WorkflowDefinition]:
        """All workflow definitions, or those of one name, by name and version."""
        request = metadata_service_pb2.ListWorkflowDefinitionsRequest(
            namespace=self.namespace, name=name, latest_only=latest_only, include_documents=documents
        )
        return self._pages(self._metadata.ListWorkflowDefinitions, request, "definitions")

    async def delete_workflow_definition(self, name: str, version: int) -> None:
        """Remove one version. Running workflows are not touched."""
        request = metadata_service_pb2.DeleteWorkflowDefinitionRequest(
            namespace=self.namespace, name=name, version=version
        )
        await self._once(self._metadata.DeleteWorkflowDefinition, request)

    async def register_tasks(
        self, documents: Iterable[Document], *, overwrite: Overwrite = "refuse", strict: bool = False
    ) -> Sequence[definition_pb2.PutResult]:
        """Register task definitions, as `register_workflows` does."""
        return await self._put_tasks(documents, _OVERWRITE[overwrite], strict, validate_only=False)

    async def validate_tasks(
        self, documents: Iterable[Document], *, strict: bool = False
    ) -> Sequence[definition_pb2.PutResult]:
        """Check task definitions and store nothing. Faults are in the results."""
        return await self._put_tasks(documents, definition_pb2.OVERWRITE_ALLOW, strict, validate_only=True)

    async def _put_tasks(
        self,
        documents: Iterable[Document],
        overwrite: definition_pb2.Overwrite.ValueType,
        strict: bool,
        *,
        validate_only: bool,
    ) -> Sequence[definition_pb2.PutResult]:
        request = metadata_service_pb2.PutTaskDefinitionsRequest(
            namespace=self.namespace,
            documents=[_document(document) for document in documents],
            overwrite=overwrite,
            validate_only=validate_only,
            strict=strict,
        )
        return (await self._repeat(self._metadata.PutTaskDefinitions, request)).results

    async def get_task_definition(self, name: str) -> definition_pb2.TaskDefinition:
        """One task definition with its document."""
        request = metadata_service_pb2.GetTaskDefinitionRequest(namespace=self.namespace, name=name)
        return (await self._repeat(self._metadata.GetTaskDefinition, request)).definition

    def task_definitions(self, *, documents: bool = False) -> AsyncIterator[definition_pb2.TaskDefinition]:
        """All task definitions by name."""
        request = metadata_service_pb2.ListTaskDefinitionsRequest(
            namespace=self.namespace, include_documents=documents
        )
        return self._pages(self._metadata.ListTaskDefinitions, request, "definitions")

    async def delete_task_definition(self, name: str) -> None:
        """Remove a task definition. Running workflows are not touched."""
        request = metadata_service_pb2.DeleteTaskDefinitionRequest(namespace=self.namespace, name=name)
        await self._once(self._metadata.DeleteTaskDefinition, request)

    # Workflows.

    async def start(
        self,
        name: str = "",
        input: Mapping[str, Any] | bytes | None = None,
        **more: Any,
    ) -> str:
        """Start a workflow and return its id. `more`: the other fields of `Start`."""
        start = Start(name=name, input=input, **more)
        request = workflow_service_pb2.StartWorkflowRequest(namespace=self.namespace, start=start.message())
        call = self._repeat if start.idempotency_key else self._once
        response = await call(self._workflows.StartWorkflow, request)
        return response.started.workflow_id

    async def start_many(self, starts: Iterable[Start]) -> Sequence[str | ServerError]:
        """Start many workflows; for each, in order, its id or why it was refused."""
        waiting = list(starts)
        answers: list[str | ServerError] = []
        for first in range(0, len(waiting), STARTS_MAX):
            part = waiting[first : first + STARTS_MAX]
            request = workflow_service_pb2.StartWorkflowsRequest(
                namespace=self.namespace, starts=[start.message() for start in part]
            )
            safe = all(start.idempotency_key for start in part)
            response = await (self._repeat if safe else self._once)(self._workflows.StartWorkflows, request)
            answers.extend(_started(outcome) for outcome in response.outcomes)
        return answers

    async def get(
        self, workflow_id: str, *, tasks: bool = True, payloads: bool = True
    ) -> workflow_pb2.Workflow:
        """One workflow, by default with all its tasks and payloads."""
        request = workflow_service_pb2.GetWorkflowRequest(
            namespace=self.namespace,
            workflow_id=workflow_id,
            include_tasks=tasks,
            include_payloads=payloads,
        )
        response = await self._repeat(self._workflows.GetWorkflow, request)
        workflow = response.workflow
        while response.next_task_page_token:
            request.task_page_token = response.next_task_page_token
            response = await self._repeat(self._workflows.GetWorkflow, request)
            workflow.tasks.extend(response.workflow.tasks)
        return workflow

    def list(
        self,
        *,
        name: str = "",
        status: workflow_pb2.WorkflowStatus.ValueType = workflow_pb2.WORKFLOW_STATUS_UNSPECIFIED,
        correlation_id: str = "",
        created_from: float | None = None,
        created_before: float | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[workflow_pb2.WorkflowSummary]:
        """Workflows that match all filters, the youngest first; times in seconds since 1970."""
        request = workflow_service_pb2.ListWorkflowsRequest(
            namespace=self.namespace,
            name=name,
            status=status,
            correlation_id=correlation_id,
            created_from=None if created_from is None else timestamp(created_from),
            created_before=None if created_before is None else timestamp(created_before),
            page_size=page_size,
        )
        return self._pages(self._workflows.ListWorkflows, request, "workflows")

    def search(
        self, query: str = "", *, free_text: str = "", sort: str = "", page_size: int = 0
    ) -> AsyncIterator[search_service_pb2.FoundWorkflow]:
        """Workflows that a query finds, such as `status = FAILED AND customer = 'c-17'`: all of them, page
        after page, also past pages that the server ended early. `sort`: `startTime:DESC` by default; by
        another field only the newest 20,000 candidates are put in order (see `search_page`)."""
        request = search_service_pb2.SearchWorkflowsRequest(
            namespace=self.namespace, query=query, free_text=free_text, sort=sort, page_size=page_size
        )
        return self._pages(self._search.SearchWorkflows, request, "workflows")

    async def search_page(
        self,
        query: str = "",
        *,
        free_text: str = "",
        sort: str = "",
        start: int = 0,
        page_size: int = 0,
        page_token: str = "",
        with_total: bool = False,
    ) -> search_service_pb2.SearchWorkflowsResponse:
        """One page of a search, with its `partial` and `total`."""
        request = search_service_pb2.SearchWorkflowsRequest(
            namespace=self.namespace,
            query=query,
            free_text=free_text,
            sort=sort,
            start=start,
            page_size=page_size,
            page_token=page_token,
            with_total=with_total,
        )
        return await self._repeat(self._search.SearchWorkflows, request)

    def search_tasks(
        self, query: str = "", *, page_size: int = 0
    ) -> AsyncIterator[search_service_pb2.FoundTask]:
        """Tasks that a query finds, those of the newest workflow first."""
        request = search_service_pb2.SearchTasksRequest(
            namespace=self.namespace, query=query, page_size=page_size
        )
        return self._pages(self._search.SearchTasks, request, "tasks")

    async def count(
        self, query: str = "", *, free_text: str = "", group_by: str = ""
    ) -> search_service_pb2.CountWorkflowsResponse:
        """How many workflows a query finds, in all and by `status`, `workflowType`, `version` or
        `attributes.<name>`; each number says whether it is exact."""
        request = search_service_pb2.CountWorkflowsRequest(
            namespace=self.namespace, query=query, free_text=free_text, group_by=group_by
        )
        return await self._repeat(self._search.CountWorkflows, request)

    async def watch(
        self, workflow_id: str, *, after_revision: int = 0, payloads: bool = False
    ) -> AsyncIterator[workflow_pb2.Workflow]:
        """The workflow's state now and after changes, until it has ended. Goes on where a stream broke."""
        request = workflow_service_pb2.WatchWorkflowRequest(
            namespace=self.namespace,
            workflow_id=workflow_id,
            after_revision=after_revision,
            include_payloads=payloads,
        )
        repeats = _Repeats(self.patience)
        while True:
            call = self._workflows.WatchWorkflow(request, metadata=self._credentials.metadata())
            try:
                async for response in call:
                    repeats = _Repeats(self.patience)
                    request.after_revision = response.workflow.revision
                    yield response.workflow
                return
            except grpc.aio.AioRpcError as error:
                await repeats.after(from_rpc(error))
            finally:
                call.cancel()

    async def wait(self, workflow_id: str) -> workflow_pb2.Workflow:
        """Until the workflow has ended; its final state with payloads and without tasks."""
        last = workflow_pb2.Workflow()
        async for workflow in self.watch(workflow_id, payloads=True):
            last = workflow
        return last

    async def terminate(
        self,
        workflow_id: str,
        reason: str = "",
        *,
        trigger_failure_workflow: bool = False,
        compensate: bool = False,
    ) -> None:
        """End a workflow as TERMINATED, with its open tasks and children.

        `trigger_failure_workflow`: start the definition's failure workflow, as if it had failed.
        `compensate`: undo first what it has completed, where its definition says how; it is RUNNING
        until that is done.
        """
        request = workflow_service_pb2.TerminateWorkflowRequest(
            namespace=self.namespace,
            workflow_id=workflow_id,
            reason=reason,
            trigger_failure_workflow=trigger_failure_workflow,
            compensate=compensate,
        )
        await self._repeat(self._workflows.TerminateWorkflow, request)

    async def pause(self, workflow_id: str) -> None:
        """Hold a workflow: results are taken, nothing new is scheduled."""
        request = workflow_service_pb2.PauseWorkflowRequest(namespace=self.namespace, workflow_id=workflow_id)
        await self._repeat(self._workflows.PauseWorkflow, request)

    async def resume(self, workflow_id: str) -> None:
        """Let a held workflow go on."""
        request = workflow_service_pb2.ResumeWorkflowRequest(
            namespace=self.namespace, workflow_id=workflow_id
        )
        await self._once(self._workflows.ResumeWorkflow, request)

    async def retry(self, workflow_id: str, *, resume_children: bool = False) -> None:
        """Run an ended workflow again from its failed tasks.

        `resume_children`: where the failed task is a SUB_WORKFLOW, retry inside its child.
        """
        request = workflow_service_pb2.RetryWorkflowRequest(
            namespace=self.namespace, workflow_id=workflow_id, resume_children=resume_children
        )
        await self._once(self._workflows.RetryWorkflow, request)

    async def restart(self, workflow_id: str, *, latest_definitions: bool = False) -> None:
        """Run an ended workflow again from the beginning, under the same id."""
        request = workflow_service_pb2.RestartWorkflowRequest(
            namespace=self.namespace, workflow_id=workflow_id, use_latest_definitions=latest_definitions
        )
        await self._once(self._workflows.RestartWorkflow, request)

    async def rerun(
        self,
        workflow_id: str,
        task_id: str = "",
        *,
        workflow_input: Mapping[str, Any] | bytes | None = None,
        task_input: Mapping[str, Any] | bytes | None = None,
        correlation_id: str | None = None,
    ) -> str:
        """Run an ended workflow again from the beginning, or from one of its tasks (also one of a child)
        and all that comes after it.

        `workflow_input` replaces its input (without a task), `task_input` that of the task. The
        workflow that runs again: this one, or the child that has the task.
        """
        request = workflow_service_pb2.RerunWorkflowRequest(
            namespace=self.namespace,
            workflow_id=workflow_id,
            task_id=task_id,
            workflow_input=None if workflow_input is None else _payload(workflow_input),
            task_input=None if task_input is None else _payload(task_input),
            correlation_id=correlation_id,
        )
        return str((await self._once(self._workflows.RerunWorkflow, request)).workflow_id)

    async def skip_task(
        self,
        workflow_id: str,
        reference: str,
        output: Mapping[str, Any] | bytes | None = None,
        *,
        input: Mapping[str, Any] | bytes | None = None,
    ) -> None:
        """Step over a task that is still to come; it shows this output. Inside a loop: in every turn that
        has not reached it yet."""
        request = workflow_service_pb2.SkipTaskRequest(
            namespace=self.namespace,
            workflow_id=workflow_id,
            reference=reference,
            input=_payload(input),
            output=_payload(output),
        )
        await self._once(self._workflows.SkipTask, request)

    async def jump_to_task(
        self, workflow_id: str, reference: str, input: Mapping[str, Any] | bytes | None = None
    ) -> None:
        """Go on at another task of a running chain; what is open in the chain, and what lies between,
        becomes SKIPPED. `input` replaces the task's own."""
        request = workflow_service_pb2.JumpToTaskRequest(
            namespace=self.namespace,
            workflow_id=workflow_id,
            reference=reference,
            input=None if input is None else _payload(input),
        )
        await self._once(self._workflows.JumpToTask, request)

    async def reset_callbacks(self, workflow_id: str) -> int:
        """Have tasks that wait for a time handed out now; how many did."""
        request = workflow_service_pb2.ResetCallbacksRequest(
            namespace=self.namespace, workflow_id=workflow_id
        )
        return int((await self._repeat(self._workflows.ResetCallbacks, request)).tasks)

    async def update_variables(
        self, workflow_id: str, variables: Mapping[str, Any] | bytes, *, replace: bool = False
    ) -> None:
        """Set variables of a workflow; with `replace` the others go."""
        request = workflow_service_pb2.UpdateVariablesRequest(
            namespace=self.namespace, workflow_id=workflow_id, variables=_payload(variables), replace=replace
        )
        await self._repeat(self._workflows.UpdateVariables, request)

    async def update_task(
        self,
        workflow_id: str,
        reference: str,
        output: Mapping[str, Any] | bytes | None = None,
        *,
        status: task_pb2.TaskStatus.ValueType = task_pb2.TASK_STATUS_COMPLETED,
        reason: str = "",
    ) -> str:
        """Report on the open task with this reference, whoever has it; the task's id. The output is
        merged into what it has; IN_PROGRESS changes the output only."""
        request = workflow_service_pb2.UpdateTaskRequest(
            namespace=self.namespace,
            workflow_id=workflow_id,
            reference=reference,
            status=status,
            output=_payload(output),
            reason=reason,
        )
        return str((await self._once(self._workflows.UpdateTask, request)).task_id)

    async def remove(
        self, workflow_id: str, *, terminate: bool = False, reason: str = "", recursive: bool = False
    ) -> int:
        """Delete an execution for good; how many were deleted.

        `terminate`: end it first where it runs. `recursive`: its children too, and theirs.
        """
        request = workflow_service_pb2.RemoveWorkflowRequest(
            namespace=self.namespace,
            workflow_id=workflow_id,
            terminate=terminate,
            reason=reason,
            recursive=recursive,
        )
        return int((await self._once(self._workflows.RemoveWorkflow, request)).workflows)

    async def signal(
        self,
        workflow_id: str,
        reference: str = "",
        output: Mapping[str, Any] | bytes | None = None,
        *,
        status: task_pb2.TaskStatus.ValueType = task_pb2.TASK_STATUS_COMPLETED,
        reason: str = "",
    ) -> bool:
        """End the waiting task of this reference, here or in a running child; empty = the first that waits.

        True: it has ended. False: no such task waits yet, the signal is kept for it.
        """
        request = workflow_service_pb2.SignalWorkflowRequest(
            namespace=self.namespace,
            workflow_id=workflow_id,
            reference=reference,
            status=status,
            output=_payload(output),
            reason=reason,
        )
        response = await self._once(self._workflows.SignalWorkflow, request)
        return bool(response.outcome == workflow_service_pb2.SIGNAL_OUTCOME_APPLIED)

    async def upgrade(
        self,
        workflow_id: str,
        *,
        version: int = 0,
        definition: Document | None = None,
        dry_run: bool = False,
    ) -> workflow_pb2.UpgradeReport:
        """Let a running workflow go on under another version of its definition; what that changes.

        `version` 0 = the highest that is registered; `definition`: this document, registered or not.
        FailedPrecondition names in its violations every task that has no place in the new version.
        `dry_run`: change nothing; these reasons are then the report's `faults`, none = it is possible.
        """
        request = workflow_service_pb2.UpgradeWorkflowRequest(
            namespace=self.namespace,
            workflow_id=workflow_id,
            version=version,
            definition=b"" if definition is None else _document(definition),
            dry_run=dry_run,
        )
        return (await self._repeat(self._workflows.UpgradeWorkflow, request)).report

    async def test_workflow(
        self,
        name: str = "",
        input: Mapping[str, Any] | bytes | None = None,
        *,
        mocks: Mocks | OfTasks | None = None,
        **more: Any,
    ) -> workflow_service_pb2.TestWorkflowResponse:
        """Run a workflow with tasks that turn out as `mocks` say: in memory, in its own time, storing and
        starting nothing. What it came to, with all its tasks, and the references that `lack` a mock.

        `mocks`: by task reference, or `Mocks` where children have some too. `more`: the other fields of
        `Start`; with `definition` nothing needs to be registered.
        """
        given = mocks if isinstance(mocks, Mocks) else Mocks(mocks or {})
        request = workflow_service_pb2.TestWorkflowRequest(
            namespace=self.namespace,
            start=Start(name=name, input=input, **more).message(),
            mocks=given.message(),
        )
        return await self._repeat(self._workflows.TestWorkflow, request, extra=TEST_SECONDS)

    # One operation on many workflows.

    async def create_bulk(
        self,
        action: bulk_pb2.BulkAction | str,
        workflow_ids: Iterable[str] = (),
        *,
        query: bulk_pb2.BulkQuery | str | None = None,
        rate: int = 0,
        reason: str = "",
        idempotency_key: str = "",
    ) -> bulk_pb2.BulkOperation:
        """Make an operation on many workflows, which the server does in the background: on these ids, or
        on all that a query finds now, such as `status = FAILED AND workflowType = order`.

        `action`: "pause", "resume", "terminate", "restart", "retry", "upgrade", "signal", "rerun", "remove"
        or "reset"; a `BulkAction` where it has options, as skip, jump, update and update_task have. `rate`:
        workflows a second, 0 = 100. A call with an `idempotency_key` is repeated where the server was
        UNAVAILABLE, one without is not.
        """
        asked = bulk_pb2.BulkQuery(query=query) if isinstance(query, str) else query
        request = bulk_service_pb2.CreateBulkOperationRequest(
            namespace=self.namespace,
            action=_action(action),
            workflow_ids=workflow_ids,
            query=asked,
            rate=rate,
            reason=reason,
            idempotency_key=idempotency_key,
        )
        call = self._repeat if idempotency_key else self._once
        return (await call(self._bulks.CreateBulkOperation, request)).operation

    async def get_bulk(self, bulk_id: str) -> bulk_pb2.BulkOperation:
        """An operation with its counts as they are now."""
        request = bulk_service_pb2.GetBulkOperationRequest(namespace=self.namespace, bulk_id=bulk_id)
        return (await self._repeat(self._bulks.GetBulkOperation, request)).operation

    async def wait_for_bulk(
        self, bulk_id: str, *, every: float = BULK_POLL_SECONDS
    ) -> bulk_pb2.BulkOperation:
        """Until the operation has completed or was cancelled, asking `every` so many seconds. Workflows
        that refused it are counted in `failed`: `bulk_items` tells why."""
        while True:
            found = await self.get_bulk(bulk_id)
            if found.state in (bulk_pb2.BULK_STATE_COMPLETED, bulk_pb2.BULK_STATE_CANCELLED):
                return found
            await asyncio.sleep(every)

    def bulks(
        self, state: bulk_pb2.BulkState.ValueType = bulk_pb2.BULK_STATE_UNSPECIFIED
    ) -> AsyncIterator[bulk_pb2.BulkOperation]:
        """The operations, the youngest first; they are forgotten 7 days after their end."""
        request = bulk_service_pb2.ListBulkOperationsRequest(namespace=self.namespace, state=state)
        return self._pages(self._bulks.ListBulkOperations, request, "operations")

    def bulk_items(
        self,
        bulk_id: str,
        state: bulk_pb2.BulkItemState.ValueType = bulk_pb2.BULK_ITEM_STATE_UNSPECIFIED,
    ) -> AsyncIterator[bulk_pb2.BulkItem]:
        """What became of each workflow of an operation, in their order; one that refused has its error."""
        request = bulk_service_pb2.ListBulkItemsRequest(
            namespace=self.namespace, bulk_id=bulk_id, state=state
        )
        return self._pages(self._bulks.ListBulkItems, request, "items")

    async def cancel_bulk(self, bulk_id: str) -> bulk_pb2.BulkOperation:
        """Stop an operation; what it has done stays done."""
        request = bulk_service_pb2.CancelBulkOperationRequest(namespace=self.namespace, bulk_id=bulk_id)
        return (await self._repeat(self._bulks.CancelBulkOperation, request)).operation

    # Tasks.

    async def get_task(self, task_id: str) -> task_pb2.Task:
        """One task with its payloads."""
        request = task_service_pb2.GetTaskRequest(namespace=self.namespace, task_id=task_id)
        return (await self._repeat(self._tasks.GetTask, request)).task

    def task_logs(self, task_id: str) -> AsyncIterator[task_service_pb2.TaskLogLine]:
        """The lines of a task's log, oldest first."""
        request = task_service_pb2.ListTaskLogsRequest(namespace=self.namespace, task_id=task_id)
        return self._pages(self._tasks.ListTaskLogs, request, "lines")

    async def add_task_logs(self, task_id: str, lines: Iterable[str]) -> None:
        """Append lines to a task's log."""
        request = task_service_pb2.AddTaskLogsRequest(namespace=self.namespace, task_id=task_id, lines=lines)
        await self._once(self._tasks.AddTaskLogs, request)

    async def poll(
        self,
        task_types: Iterable[str],
        *,
        max_tasks: int = 1,
        wait: float = 0.0,
        worker_id: str = "",
        domain: str = "",
    ) -> Sequence[task_pb2.Assignment]:
        """Take tasks without a stream; waits up to `wait` seconds for the first one."""
        request = task_service_pb2.PollTasksRequest(
            namespace=self.namespace,
            task_types=[task_pb2.TaskTypeOffer(task_type=each, domain=domain) for each in task_types],
            max_tasks=max_tasks,
            wait=_duration(wait),
            worker_id=worker_id,
        )
        return (await self._once(self._tasks.PollTasks, request, extra=wait)).tasks

    async def report(self, results: Iterable[task_pb2.TaskResult]) -> Sequence[task_pb2.ResultAck]:
        """Report results without a stream; the answers tell for each, in order, what became of it."""
        request = task_service_pb2.ReportTasksRequest(namespace=self.namespace, results=results)
        return (await self._repeat(self._tasks.ReportTasks, request)).acks

    async def extend(self, tokens: Iterable[bytes]) -> Sequence[task_pb2.ResultAck]:
        """Say that polled tasks are still worked on: their response clocks start anew."""
        items = [task_service_pb2.ProgressItem(token=token) for token in tokens]
        request = task_service_pb2.ExtendTasksRequest(namespace=self.namespace, items=items)
        return (await self._repeat(self._tasks.ExtendTasks, request)).acks

    # Administration.

    async def nodes(self) -> Sequence[admin_pb2.Node]:
        """The live nodes."""
        return (await self._repeat(self._admin.ListNodes, admin_service_pb2.ListNodesRequest())).nodes

    async def drain_node(self, node_id: str) -> None:
        """Tell a node to move its streams elsewhere and take no new ones."""
        await self._repeat(self._admin.DrainNode, admin_service_pb2.DrainNodeRequest(node_id=node_id))

    def sessions(
        self, state: admin_pb2.SessionState.ValueType = admin_pb2.SESSION_STATE_UNSPECIFIED
    ) -> AsyncIterator[admin_pb2.Session]:
        """The worker sessions of the namespace."""
        request = admin_service_pb2.ListSessionsRequest(namespace=self.namespace, state=state)
        return self._pages(self._admin.ListSessions, request, "sessions")

    async def drain_session(self, session_id: str, *, reason: str = "", grace: float | None = None) -> None:
        """Ask a worker to finish what it holds, within `grace` seconds, and take nothing new."""
        request = admin_service_pb2.DrainSessionRequest(
            namespace=self.namespace,
            session_id=session_id,
            reason=reason,
            grace=None if grace is None else _duration(grace),
        )
        await self._repeat(self._admin.DrainSession, request)

    def queues(self, task_type: str = "") -> AsyncIterator[admin_pb2.Queue]:
        """The queues that have open tasks, or those of one task type."""
        request = admin_service_pb2.ListQueuesRequest(namespace=self.namespace, task_type=task_type)
        return self._pages(self._admin.ListQueues, request, "queues")

    async def explain(self, workflow_id: str) -> admin_pb2.Explanation:
        """For every open task of a workflow, what it waits for."""
        request = admin_service_pb2.ExplainWorkflowRequest(namespace=self.namespace, workflow_id=workflow_id)
        response = await self._repeat(self._admin.ExplainWorkflow, request)
        explanation = response.explanation
        while response.next_page_token:
            request.page_token = response.next_page_token
            response = await self._repeat(self._admin.ExplainWorkflow, request)
            explanation.open_tasks.extend(response.explanation.open_tasks)
        return explanation

    async def create_namespace(self, name: str) -> admin_pb2.Namespace:
        """Create a namespace."""
        request = admin_service_pb2.CreateNamespaceRequest(namespace=name)
        return (await self._once(self._admin.CreateNamespace, request)).namespace

    def namespaces(self) -> AsyncIterator[admin_pb2.Namespace]:
        """All namespaces by name."""
        request = admin_service_pb2.ListNamespacesRequest()
        return self._pages(self._admin.ListNamespaces, request, "namespaces")

    # Calling.

    async def _once(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Q, R], request: Q, *, extra: float = 0.0
    ) -> R:
        """Call once: a repeat might do it twice. `extra` seconds are added to the time-out."""
        try:
            return await method(request, timeout=self.timeout + extra, metadata=self._credentials.metadata())
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None

    async def _repeat(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Q, R], request: Q, *, extra: float = 0.0
    ) -> R:
        """Call, and again while the server is UNAVAILABLE and our patience lasts."""
        repeats = _Repeats(self.patience)
        while True:
            try:
                return await self._once(method, request, extra=extra)
            except Unavailable as error:
                await repeats.after(error)

    async def _pages(self, method: Any, request: Any, items: str) -> AsyncIterator[Any]:
        """The items of all pages, fetched as they are asked for."""
        while True:
            response = await self._repeat(method, request)
            for item in getattr(response, items):
                yield item
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token


class _Repeats:
    """How long to wait before a call is repeated, and when to give up."""

    def __init__(self, patience: float) -> None:
        self._give_up_at = asyncio.get_running_loop().time() + patience
        self._limit = _BACKOFF_FIRST

    async def after(self, error: ServerError) -> None:
        """Wait as long as is fit after this error; raises it where a repeat is no use."""
        delay = max(random.uniform(0, self._limit), error.retry_after or 0.0)
        self._limit = min(self._limit * 2, _BACKOFF_MAX)
        if not isinstance(error, Unavailable):
            raise error
        if asyncio.get_running_loop().time() + delay > self._give_up_at:
            raise error
        await asyncio.sleep(delay)


def _document(document: Document) -> bytes:
    if isinstance(document, bytes):
        return document
    return document.encode() if isinstance(document, str) else _json.dumps(document)


def _payload(value: Mapping[str, Any] | bytes | None) -> bytes:
    if value is None:
        return b""
    return value if isinstance(value, bytes) else _json.dumps(value)


def _action(given: bulk_pb2.BulkAction | str) -> bulk_pb2.BulkAction:
    if not isinstance(given, str):
        return given
    names = bulk_pb2.BulkAction.DESCRIPTOR.fields_by_name
    if given not in names:
        raise ValueError(f"{given!r} is no action on workflows; there are {', '.join(names)}")
    made = bulk_pb2.BulkAction()
    getattr(made, given).SetInParent()
    return made


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration


def _started(outcome: workflow_pb2.StartOutcome) -> str | ServerError:
    if outcome.HasField("error"):
        return from_message(outcome.error)
    return outcome.started.workflow_id
