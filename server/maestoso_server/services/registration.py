"""What the gRPC port offers: our services behind the gate, health and reflection beside it."""

from __future__ import annotations

from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from maestoso.admin.v1 import admin_service_pb2
from maestoso.admin.v1.admin_service_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from maestoso.metadata.v1 import metadata_service_pb2
from maestoso.metadata.v1.metadata_service_pb2_grpc import (
    MetadataServiceServicer,
    add_MetadataServiceServicer_to_server,
)
from maestoso.search.v1 import search_service_pb2
from maestoso.search.v1.search_service_pb2_grpc import (
    SearchServiceServicer,
    add_SearchServiceServicer_to_server,
)
from maestoso.task.v1 import task_service_pb2
from maestoso.task.v1.task_service_pb2_grpc import TaskServiceServicer, add_TaskServiceServicer_to_server
from maestoso.workflow.v1 import bulk_service_pb2, workflow_service_pb2
from maestoso.workflow.v1.bulk_service_pb2_grpc import BulkServiceServicer, add_BulkServiceServicer_to_server
from maestoso.workflow.v1.workflow_service_pb2_grpc import (
    WorkflowServiceServicer,
    add_WorkflowServiceServicer_to_server,
)

from ..config import Config
from .interceptors import Gate

SERVICES: tuple[str, ...] = tuple(
    service.full_name
    for file in (
        metadata_service_pb2,
        workflow_service_pb2,
        bulk_service_pb2,
        search_service_pb2,
        task_service_pb2,
        admin_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
)


class Health:
    """The standard health service: one answer for the whole server and each of its services."""

    def __init__(self) -> None:
        self.servicer: Any = health.aio.HealthServicer()

    async def set(self, *, serving: bool) -> None:
        """Whether calls can be expected to succeed: not before the start, nor without the database."""
        answer = health_pb2.HealthCheckResponse
        for service in (health.OVERALL_HEALTH, *SERVICES):
            await self.servicer.set(service, answer.SERVING if serving else answer.NOT_SERVING)

    async def stop(self) -> None:
        """Not serving, from now on for good: balancers send no more calls."""
        await self.servicer.enter_graceful_shutdown()


def make_server(config: Config, gate: Gate) -> grpc.aio.Server:
    """A server behind the gate that offers nothing yet, without a port and not started."""
    return grpc.aio.server(interceptors=[gate], options=options(config))


def offer(
    server: grpc.aio.Server,
    health_: Health,
    *,
    metadata: MetadataServiceServicer,
    workflow: WorkflowServiceServicer,
    bulk: BulkServiceServicer,
    search: SearchServiceServicer,
    task: TaskServiceServicer,
    admin: AdminServiceServicer,
) -> None:
    """Register everything. Before the start; the port may be bound already."""
    add_MetadataServiceServicer_to_server(metadata, server)
    add_WorkflowServiceServicer_to_server(workflow, server)
    add_BulkServiceServicer_to_server(bulk, server)
    add_SearchServiceServicer_to_server(search, server)
    add_TaskServiceServicer_to_server(task, server)
    add_AdminServiceServicer_to_server(admin, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_.servicer, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)


def options(config: Config) -> list[tuple[str, Any]]:
    """Channel arguments of the server."""
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        # Two processes on one port would each get some of the calls: fail instead.
        ("grpc.so_reuseport", 0),
        # Half-open connections: a client that is gone without a word is found within 15 s. Whether a
        # worker lives is judged on its stream, not here.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]
