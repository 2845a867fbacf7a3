"""The gRPC port as a whole: every RPC is behind the gate, TLS names its callers, outages are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from maestoso.admin.v1 import admin_service_pb2
from maestoso.error.v1 import error_pb2
from maestoso.metadata.v1 import metadata_service_pb2
from maestoso.metadata.v1.metadata_service_pb2_grpc import MetadataServiceStub
from maestoso.search.v1 import search_service_pb2
from maestoso.task.v1 import task_service_pb2
from maestoso.workflow.v1 import bulk_service_pb2, workflow_pb2, workflow_service_pb2
from maestoso_server.config import Config
from maestoso_server.services.actions import ACTIONS
from maestoso_server.services.security import ApiKeys, make_key, read_keys
from services_kit import DEADLINE_S, Served, refused, serve

FILES = (
    admin_service_pb2,
    bulk_service_pb2,
    metadata_service_pb2,
    search_service_pb2,
    task_service_pb2,
    workflow_service_pb2,
)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


async def code_of(served: Served, path: str, token: str = "") -> grpc.StatusCode:
    """The status of a call of this method with an empty request."""
    method = METHODS[path]
    sides = (
        "stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming)
    )
    multi = getattr(served.channel, "_".join(sides))(path, lambda _: b"", lambda raw: raw)
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    if method.client_streaming:
        call = multi(metadata=metadata, timeout=DEADLINE_S)
        # Refused before it was read: the status says so.
        with suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            await call.write(None)
            await call.done_writing()
    else:
        call = multi(None, metadata=metadata, timeout=DEADLINE_S)
    code: grpc.StatusCode = await call.code()
    return code


async def test_every_rpc_refuses_a_caller_that_nobody_knows(database_url: str) -> None:
    async with serve(database_url, authenticator=ApiKeys([])) as served:
        found = {path: await code_of(served, path) for path in METHODS}

    assert found == dict.fromkeys(METHODS, grpc.StatusCode.UNAUTHENTICATED)


async def test_every_rpc_refuses_a_caller_without_the_right(database_url: str) -> None:
    token, line = make_key("k", "bot", ["default"], ["nothing:*"])

    async with serve(database_url, authenticator=ApiKeys(read_keys(line, "keys"))) as served:
        found = {path: await code_of(served, path, token) for path in METHODS}

    assert found == dict.fromkeys(METHODS, grpc.StatusCode.PERMISSION_DENIED)


async def test_a_right_to_read_lets_reads_through_and_nothing_else(database_url: str) -> None:
    token, line = make_key("k", "bot", ["*"], ["*:read"])

    async with serve(database_url, authenticator=ApiKeys(read_keys(line, "keys"))) as served:
        let = {
            path
            for path in METHODS
            if await code_of(served, path, token) is not grpc.StatusCode.PERMISSION_DENIED
        }

    assert let == {path for path, action in ACTIONS.items() if action.name.endswith(":read")}


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> Config:
    """Settings of a server that wants client certificates of `authority`."""
    certificate = authority.issue_cert("localhost")
    for name, content in (
        ("key.pem", certificate.private_key_pem.bytes()),
        ("cert.pem", b"".join(blob.bytes() for blob in certificate.cert_chain_pems)),
        ("ca.pem", authority.cert_pem.bytes()),
    ):
        (tmp_path / name).write_bytes(content)
    return Config(
        tls_key=str(tmp_path / "key.pem"),
        tls_cert=str(tmp_path / "cert.pem"),
        tls_client_ca=str(tmp_path / "ca.pem"),
    )


@asynccontextmanager
async def connected(
    served: Served, authority: trustme.CA, client: trustme.LeafCert | None
) -> AsyncIterator[Any]:
    """A stub of MetadataService over TLS, with a client certificate or without."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=authority.cert_pem.bytes(),
        private_key=client.private_key_pem.bytes() if client else None,
        certificate_chain=client.cert_chain_pems[0].bytes() if client else None,
    )
    async with grpc.aio.secure_channel(f"localhost:{served.port}", credentials) as channel:
        yield MetadataServiceStub(channel)


PUT = metadata_service_pb2.PutTaskDefinitionsRequest(
    documents=[b'{"name":"pay","ownerEmail":"o@example.com"}']
)


async def test_a_client_certificate_names_the_caller(
    database_url: str, tls: Config, authority: trustme.CA
) -> None:
    client = authority.issue_cert("deploy-bot.example")

    async with serve(database_url, config=tls) as served, connected(served, authority, client) as metadata:
        await metadata.PutTaskDefinitions(PUT, timeout=DEADLINE_S)
        response = await metadata.GetTaskDefinition(
            metadata_service_pb2.GetTaskDefinitionRequest(name="pay"), timeout=DEADLINE_S
        )

    assert response.definition.created_by == "deploy-bot.example"


@pytest.mark.parametrize("issuer", [None, trustme.CA], ids=["no certificate", "another authority"])
async def test_a_caller_without_a_certificate_of_ours_gets_no_connection(
    database_url: str, tls: Config, authority: trustme.CA, issuer: Callable[[], trustme.CA] | None
) -> None:
    client = issuer().issue_cert("mallory.example") if issuer else None

    async with serve(database_url, config=tls) as served, connected(served, authority, client) as metadata:
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await metadata.PutTaskDefinitions(PUT, timeout=DEADLINE_S)

    assert seen.value.code() is grpc.StatusCode.UNAVAILABLE


# --- outages ------------------------------------------------------------------------------------


class Outage:
    """A database that goes away when `down` is set."""

    def __init__(self) -> None:
        self.down = False

    async def before(self, sql: str, drop: Callable[[], None]) -> None:
        if self.down:
            raise ConnectionResetError("the database went away")

    async def after(self, sql: str, drop: Callable[[], None]) -> None:
        return


PAY = {
    "name": "pay",
    "version": 1,
    "schemaVersion": 2,
    "ownerEmail": "o@example.com",
    "tasks": [{"name": "charge", "taskReferenceName": "charge", "type": "SIMPLE"}],
}


async def test_without_a_database_a_call_is_unavailable_and_says_when_to_repeat(database_url: str) -> None:
    outage = Outage()

    async with serve(database_url, faults=outage) as served:
        await served.register(PAY)
        outage.down = True
        code, refusal = await refused(served.start("pay"))
        outage.down = False
        workflow_id = await served.start("pay")

    assert code is grpc.StatusCode.UNAVAILABLE
    assert (refusal.reason, refusal.retryable) == (error_pb2.REASON_STORE_UNAVAILABLE, True)
    assert refusal.HasField("retry_after")
    assert workflow_id


async def test_without_a_database_each_of_many_starts_says_so_for_itself(database_url: str) -> None:
    outage = Outage()
    starts = [workflow_pb2.WorkflowStart(name="pay"), workflow_pb2.WorkflowStart(name="")]

    async with serve(database_url, faults=outage) as served:
        await served.register(PAY)
        await served.start("pay")
        outage.down = True
        response = await served.workflows.StartWorkflows(
            workflow_service_pb2.StartWorkflowsRequest(starts=starts), timeout=DEADLINE_S
        )

    assert [outcome.error.reason for outcome in response.outcomes] == [
        error_pb2.REASON_STORE_UNAVAILABLE,
        error_pb2.REASON_INVALID_REQUEST,
    ]


async def test_a_message_over_its_limit_is_refused(database_url: str) -> None:
    async with serve(database_url, config=Config(max_message_bytes=100_000)) as served:
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await served.start("pay", input=b"x" * 200_000)

    assert seen.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "200" in (seen.value.details() or "")
    assert "100000" in (seen.value.details() or "")
