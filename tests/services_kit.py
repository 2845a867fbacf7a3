"""The services behind the gate, in this process, over a real store and executor; no workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from maestoso.admin.v1.admin_service_pb2_grpc import AdminServiceStub
from maestoso.error.v1 import error_pb2
from maestoso.metadata.v1 import metadata_service_pb2
from maestoso.metadata.v1.metadata_service_pb2_grpc import MetadataServiceStub
from maestoso.search.v1.search_service_pb2_grpc import SearchServiceStub
from maestoso.task.v1.task_service_pb2_grpc import TaskServiceServicer
from maestoso.workflow.v1 import workflow_pb2, workflow_service_pb2
from maestoso.workflow.v1.bulk_service_pb2_grpc import BulkServiceStub
from maestoso.workflow.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from maestoso_server.clock import ManualClock
from maestoso_server.config import Config
from maestoso_server.engine.events import Event
from maestoso_server.executor import Executor, Nowhere, Starter
from maestoso_server.executor.answers import Answers
from maestoso_server.executor.plans import Plans
from maestoso_server.scripting.pool import Evaluators
from maestoso_server.services import registration, security
from maestoso_server.services.admin_service import AdminService
from maestoso_server.services.audit import Audit
from maestoso_server.services.bulk import BulkRunner, Filters
from maestoso_server.services.bulk_service import BulkService
from maestoso_server.services.documents import Judge
from maestoso_server.services.interceptors import Gate
from maestoso_server.services.limits import Limits
from maestoso_server.services.masking import Masks
from maestoso_server.services.metadata_service import MetadataService
from maestoso_server.services.namespaces import Namespaces
from maestoso_server.services.operations import Operations
from maestoso_server.services.refusals import ERROR_TRAILER
from maestoso_server.services.search_service import SearchService
from maestoso_server.services.security import Authenticator, Grants
from maestoso_server.services.trials import Trials
from maestoso_server.services.watches import Watches
from maestoso_server.services.workflow_service import WorkflowService
from maestoso_server.store import nodes
from maestoso_server.store.database import Database, Faults
from maestoso_server.telemetry import Metrics

if TYPE_CHECKING:
    from maestoso.admin.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from maestoso.metadata.v1.metadata_service_pb2_grpc import MetadataServiceAsyncStub
    from maestoso.search.v1.search_service_pb2_grpc import SearchServiceAsyncStub
    from maestoso.workflow.v1.bulk_service_pb2_grpc import BulkServiceAsyncStub
    from maestoso.workflow.v1.workflow_service_pb2_grpc import WorkflowServiceAsyncStub

DEADLINE_S = 10


@dataclass
class Served:
    """The services, and what a test needs behind their back."""

    port: int
    channel: grpc.aio.Channel
    database: Database
    clock: ManualClock
    executor: Executor
    watches: Watches
    epoch: int
    bulk: BulkRunner
    """Not running: a test runs it."""
    metrics: Metrics

    @property
    def metadata(self) -> MetadataServiceAsyncStub:
        return cast("MetadataServiceAsyncStub", MetadataServiceStub(self.channel))

    @property
    def workflows(self) -> WorkflowServiceAsyncStub:
        return cast("WorkflowServiceAsyncStub", WorkflowServiceStub(self.channel))

    @property
    def search(self) -> SearchServiceAsyncStub:
        return cast("SearchServiceAsyncStub", SearchServiceStub(self.channel))

    @property
    def bulks(self) -> BulkServiceAsyncStub:
        return cast("BulkServiceAsyncStub", BulkServiceStub(self.channel))

    @property
    def admin(self) -> AdminServiceAsyncStub:
        return cast("AdminServiceAsyncStub", AdminServiceStub(self.channel))

    async def register(self, *documents: dict[str, Any]) -> None:
        """Register workflow definitions, over what is there."""
        await self.metadata.PutWorkflowDefinitions(
            metadata_service_pb2.PutWorkflowDefinitionsRequest(
                documents=[msgspec.json.encode(document) for document in documents],
                overwrite="OVERWRITE_ALLOW",  # type: ignore[arg-type]
            ),
            timeout=DEADLINE_S,
        )

    async def start(self, name: str, **fields: Any) -> str:
        """Start a workflow; its id."""
        response = await self.workflows.StartWorkflow(
            workflow_service_pb2.StartWorkflowRequest(start=workflow_pb2.WorkflowStart(name=name, **fields)),
            timeout=DEADLINE_S,
        )
        return response.started.workflow_id

    async def get(self, workflow_id: str, **fields: Any) -> workflow_pb2.Workflow:
        response = await self.workflows.GetWorkflow(
            workflow_service_pb2.GetWorkflowRequest(workflow_id=workflow_id, **fields), timeout=DEADLINE_S
        )
        return response.workflow

    async def happen(self, workflow_id: str, event: Event) -> None:
        """Let an event happen that comes from elsewhere: a worker, a clock."""
        await self.executor.apply(workflow_id, event)


@asynccontextmanager
async def serve(
    database_url: str,
    *,
    config: Config | None = None,
    authenticator: Authenticator | None = None,
    faults: Faults | None = None,
) -> AsyncIterator[Served]:
    config, clock = config or Config(), ManualClock()
    async with AsyncExitStack() as stack:
        database = await Database.open(database_url, clock=clock, faults=faults)
        stack.push_async_callback(database.close)
        evaluators = Evaluators(processes=1)
        stack.push_async_callback(evaluators.stop)
        epoch = await node(database, clock)
        metrics = Metrics(CollectorRegistry())
        plans = Plans(database=database, clock=clock)
        executor = Executor(
            database=database,
            clock=clock,
            plans=plans,
            answers=Answers(database=database, clock=clock, evaluators=evaluators, plans=plans),
            placement=Nowhere(),
            epoch=lambda: epoch,
        )
        starter = Starter(executor=executor, plans=plans, database=database, clock=clock)
        watches = Watches(executor=executor, database=database, clock=clock)
        operations = Operations(
            executor=executor, plans=plans, database=database, clock=clock, watches=watches
        )
        selection = Filters()
        bulk = BulkRunner(
            operations=operations,
            selection=selection,
            database=database,
            clock=clock,
            epoch=lambda: epoch,
            metrics=metrics,
        )
        judge = Judge(database=database, evaluators=evaluators)
        limits = Limits.of(config)
        gate = Gate(
            authenticator=authenticator or security.authenticator(config),
            authorizer=Grants(),
            namespaces=Namespaces(database),
            audit=Audit(database=database, clock=clock),
            clock=clock,
            metrics=metrics,
        )
        health = registration.Health()
        server = registration.make_server(config, gate)
        masks = Masks(plans=plans, authorizer=Grants())
        registration.offer(
            server,
            health,
            metadata=MetadataService(plans=plans, judge=judge, database=database, clock=clock, limits=limits),
            workflow=WorkflowService(
                starter=starter,
                operations=operations,
                trials=Trials(plans=plans, evaluators=evaluators, clock=clock),
                judge=judge,
                database=database,
                watches=watches,
                limits=limits,
                masks=masks,
            ),
            bulk=BulkService(runner=bulk, selection=selection, database=database, clock=clock, limits=limits),
            search=SearchService(database=database, clock=clock),
            # A node without workers: the generated base answers UNIMPLEMENTED.
            task=TaskServiceServicer(),  # type: ignore[abstract]
            admin=AdminService(database=database, clock=clock, masks=masks),
        )
        credentials = security.server_credentials(config)
        port = (
            server.add_secure_port("localhost:0", credentials)
            if credentials
            else server.add_insecure_port("127.0.0.1:0")
        )
        await server.start()
        await health.set(serving=True)
        stack.push_async_callback(server.stop, None)
        large = [("grpc.max_receive_message_length", config.max_message_bytes)]  # as clients allow
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=large)
        )
        yield Served(port, channel, database, clock, executor, watches, epoch, bulk, metrics)


async def node(database: Database, clock: ManualClock, name: str = "node-1") -> int:
    """The epoch of a node that lives as long as the clock stands still."""
    async with database.acquire() as connection:
        epoch = await nodes.new_epoch(connection)
        row = nodes.NodeRow(
            epoch=epoch,
            node_id=name,
            grpc_address="127.0.0.1:1",
            http_address="127.0.0.1:2",
            version="test",
            started_ms=clock.now_ms(),
            lease_until_ms=clock.now_ms() + nodes.LEASE_MS,
        )
        await nodes.register(connection, row)
    return epoch


def detail(error: grpc.aio.AioRpcError) -> error_pb2.Error:
    """The refusal in a status's trailer."""
    found = dict(error.trailing_metadata() or ())[ERROR_TRAILER]
    assert isinstance(found, bytes)
    return error_pb2.Error.FromString(found)


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, error_pb2.Error]:
    """The code and the refusal of a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as seen:
        await call
    return seen.value.code(), detail(seen.value)
