"""The gate before real calls: rights, refusals on the wire, streams, and that nothing escapes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from maestoso.admin.v1 import admin_service_pb2
from maestoso.error.v1 import error_pb2
from maestoso.metadata.v1 import metadata_service_pb2
from maestoso.search.v1 import search_service_pb2
from maestoso.task.v1 import task_service_pb2
from maestoso.workflow.v1 import bulk_service_pb2, workflow_service_pb2
from maestoso_server.clock import ManualClock
from maestoso_server.errors import (
    VIOLATIONS_MAX,
    InvalidArgument,
    MaestosoError,
    NotFound,
    Reason,
    Unavailable,
    Violation,
)
from maestoso_server.services.actions import ACTIONS, OPEN_SERVICES
from maestoso_server.services.interceptors import Gate
from maestoso_server.services.refusals import ERROR_TRAILER, TRAILER_BYTES_MAX, trailer
from maestoso_server.services.security import (
    Anonymous,
    ApiKeys,
    Authenticator,
    Grants,
    Peer,
    Principal,
    caller,
    make_key,
    read_keys,
)
from maestoso_server.store.database import Unavailable as StoreUnavailable
from maestoso_server.telemetry import Metrics

FILES = (
    admin_service_pb2,
    bulk_service_pb2,
    metadata_service_pb2,
    search_service_pb2,
    task_service_pb2,
    workflow_service_pb2,
)
GET = "/maestoso.metadata.v1.MetadataService/GetWorkflowDefinition"
TERMINATE = "/maestoso.workflow.v1.WorkflowService/TerminateWorkflow"
WATCH = "/maestoso.workflow.v1.WorkflowService/WatchWorkflow"
CONNECT = "/maestoso.task.v1.TaskService/Connect"

Request = metadata_service_pb2.GetWorkflowDefinitionRequest
Response = metadata_service_pb2.GetWorkflowDefinitionResponse


class OnlyDefault:
    """The namespaces of a server that has just been set up."""

    async def require(self, namespace: str) -> None:
        if namespace != "default":
            raise NotFound(Reason.NAMESPACE_NOT_FOUND, f"namespace {namespace!r} does not exist")


class Kept(list[tuple[str, str, str, str]]):
    """An audit trail in memory."""

    async def record(self, *, namespace: str, principal: str, action: str, resource: str) -> None:
        self.append((namespace, principal, action, resource))


async def answer(request: Any, context: Any) -> Response:
    response = Response()
    response.definition.created_by = caller().name
    return response


@asynccontextmanager
async def serving(
    method: str,
    handler: grpc.RpcMethodHandler[Any, Any],
    *,
    authenticator: Authenticator | None = None,
    clock: ManualClock | None = None,
    metrics: Metrics | None = None,
    audit: Kept | None = None,
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server that offers this one method behind the gate."""
    gate = Gate(
        authenticator=authenticator or Anonymous(),
        authorizer=Grants(),
        namespaces=OnlyDefault(),
        audit=Kept() if audit is None else audit,
        clock=clock or ManualClock(),
        metrics=metrics or Metrics(CollectorRegistry()),
    )
    server = grpc.aio.server(interceptors=[gate])
    _, service, name = method.split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


def unary(behaviour: Callable[[Any, Any], Any]) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(
        behaviour, request_deserializer=Request.FromString, response_serializer=Response.SerializeToString
    )


async def call(
    channel: grpc.aio.Channel, request: Request, *, token: str = "", method: str = GET
) -> Response:
    multi: Any = channel.unary_unary(method, Request.SerializeToString, Response.FromString)
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    answered: Response = await multi(request, metadata=metadata, timeout=10)
    return answered


def raising(error: Exception) -> Callable[[Any, Any], Any]:
    async def behaviour(request: Any, context: Any) -> Response:
        raise error

    return behaviour


async def refusal_of(error: Exception) -> tuple[grpc.aio.AioRpcError, error_pb2.Error]:
    """What a client sees when the service raises `error`."""
    async with serving(GET, unary(raising(error))) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await call(channel, Request(name="order"))
    return seen.value, detail(seen.value)


def detail(error: grpc.aio.AioRpcError) -> error_pb2.Error:
    found = dict(error.trailing_metadata() or ())[ERROR_TRAILER]
    assert isinstance(found, bytes)
    return error_pb2.Error.FromString(found)


# --- nothing escapes ----------------------------------------------------------------------------


def every_method() -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_every_rpc_has_an_action_and_every_action_an_rpc() -> None:
    assert set(ACTIONS) == every_method()


def test_only_health_and_reflection_are_open() -> None:
    assert {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} == OPEN_SERVICES


async def test_a_method_without_an_action_is_not_served() -> None:
    method = "/maestoso.metadata.v1.MetadataService/Unheard"

    async with serving(method, unary(answer)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await call(channel, Request(), method=method)

    assert seen.value.code() is grpc.StatusCode.PERMISSION_DENIED


# --- rights -------------------------------------------------------------------------------------


async def test_the_service_learns_who_calls() -> None:
    token, line = make_key("ci", "deploy-bot")

    async with serving(GET, unary(answer), authenticator=ApiKeys(read_keys(line, "keys"))) as channel:
        answered = await call(channel, Request(name="order"), token=token)

    assert answered.definition.created_by == "deploy-bot"


async def test_without_a_credential_the_call_is_unauthenticated() -> None:
    async with serving(GET, unary(answer), authenticator=ApiKeys([])) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await call(channel, Request(name="order"))

    assert seen.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert detail(seen.value).reason == error_pb2.REASON_UNAUTHENTICATED


async def test_without_the_right_the_call_is_denied() -> None:
    token, line = make_key("ci", "deploy-bot", ["default"], ["workflow:*"])

    async with serving(GET, unary(answer), authenticator=ApiKeys(read_keys(line, "keys"))) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await call(channel, Request(name="order"), token=token)

    assert seen.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_unknown_namespace_is_not_found() -> None:
    async with serving(GET, unary(answer)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await call(channel, Request(namespace="nowhere", name="order"))

    assert seen.value.code() is grpc.StatusCode.NOT_FOUND
    assert detail(seen.value).reason == error_pb2.REASON_NAMESPACE_NOT_FOUND


async def test_who_has_no_right_in_a_namespace_does_not_learn_whether_it_exists() -> None:
    token, line = make_key("ci", "deploy-bot", ["default"])

    async with serving(GET, unary(answer), authenticator=ApiKeys(read_keys(line, "keys"))) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await call(channel, Request(namespace="nowhere", name="order"), token=token)

    assert seen.value.code() is grpc.StatusCode.PERMISSION_DENIED


# --- refusals -----------------------------------------------------------------------------------


async def test_a_refusal_travels_as_status_and_trailer() -> None:
    error, sent = await refusal_of(
        Unavailable(Reason.STORE_UNAVAILABLE, "the database does not answer", retry_after_ms=1_500)
    )

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == sent.message == "the database does not answer"
    assert sent.retryable
    assert sent.retry_after.ToMilliseconds() == 1_500
    assert sent.remedy


async def test_violations_travel_with_their_place() -> None:
    fault = Violation("tasks[2].type", "is not a type", line=7, column=3)

    error, sent = await refusal_of(InvalidArgument(Reason.INVALID_DEFINITION, "1 fault", violations=[fault]))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(sent.violations) == [
        error_pb2.Violation(path="tasks[2].type", message="is not a type", line=7, column=3)
    ]


async def test_more_violations_than_fit_are_counted() -> None:
    faults = [Violation(f"tasks[{number}].type", "is not a type") for number in range(VIOLATIONS_MAX)]

    _, sent = await refusal_of(InvalidArgument(Reason.INVALID_DEFINITION, "many faults", violations=faults))

    assert sent.violations[0].path == "tasks[0].type"
    assert len(sent.violations) + sent.omitted_violations == VIOLATIONS_MAX


def test_no_refusal_outgrows_the_trailer() -> None:
    endless = InvalidArgument(
        Reason.INVALID_JSON, "✂" * 100_000, violations=[Violation("x" * 9_000, "y"), Violation("z", "short")]
    )

    sent = error_pb2.Error.FromString(trailer(endless))

    assert sent.ByteSize() <= TRAILER_BYTES_MAX
    assert [violation.path for violation in sent.violations] == ["z"]
    assert sent.omitted_violations == 1


async def test_an_unforeseen_error_is_internal_with_an_id_that_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        error, sent = await refusal_of(ZeroDivisionError("secret detail"))

    (record,) = (record for record in caplog.records if hasattr(record, "error_id"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert sent.message == f"internal error {record.error_id}"
    assert "secret detail" not in sent.message
    assert record.exc_info and record.exc_info[0] is ZeroDivisionError


async def test_calls_are_counted_by_method_and_code() -> None:
    registry = CollectorRegistry()

    async with serving(GET, unary(answer), metrics=Metrics(registry)) as channel:
        await call(channel, Request(name="order"))
        with pytest.raises(grpc.aio.AioRpcError):
            await call(channel, Request(namespace="nowhere"))

    def count(code: str) -> float | None:
        return registry.get_sample_value("maestoso_rpc_seconds_count", {"method": GET, "code": code})

    assert (count("OK"), count("NOT_FOUND")) == (1, 1)


async def test_an_operators_command_is_kept_with_who_gave_it() -> None:
    audit = Kept()
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=workflow_service_pb2.TerminateWorkflowRequest.FromString,
        response_serializer=Response.SerializeToString,
    )

    async with serving(TERMINATE, handler, audit=audit) as channel:
        multi: Any = channel.unary_unary(
            TERMINATE,
            workflow_service_pb2.TerminateWorkflowRequest.SerializeToString,
            Response.FromString,
        )
        await multi(workflow_service_pb2.TerminateWorkflowRequest(workflow_id="w-1"), timeout=10)

    assert audit == [("default", "anonymous", "workflow:terminate", "w-1")]


async def test_a_read_is_not_kept() -> None:
    audit = Kept()

    async with serving(GET, unary(answer), audit=audit) as channel:
        await call(channel, Request(name="order"))

    assert audit == []


async def test_a_call_without_a_database_can_be_repeated() -> None:
    error, sent = await refusal_of(StoreUnavailable("ConnectionRefusedError: 10.0.0.3", unknown=False))

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert sent.reason == error_pb2.REASON_STORE_UNAVAILABLE
    assert sent.HasField("retry_after")
    assert "10.0.0.3" not in sent.message


# --- streams ------------------------------------------------------------------------------------


class Expiring:
    """Credentials whose value is `NAME:EXPIRES_MS`."""

    async def authenticate(self, metadata: Any, peer: Peer) -> Principal:
        name, _, expires = metadata["authorization"].partition(":")
        return Principal(name=name, expires_ms=int(expires))


async def echo(frames: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    """Answers each frame with a Ping of its Pong's number."""
    async for frame in frames:
        yield task_service_pb2.ConnectResponse(ping=task_service_pb2.Ping(number=frame.pong.number))


async def echo_written(frames: AsyncIterator[Any], context: Any) -> None:
    """The same, by writing to the context."""
    async for response in echo(frames, context):
        await context.write(response)


def stream_handler(behaviour: Callable[[Any, Any], Any]) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.stream_stream_rpc_method_handler(
        behaviour,
        request_deserializer=task_service_pb2.ConnectRequest.FromString,
        response_serializer=task_service_pb2.ConnectResponse.SerializeToString,
    )


def connect(channel: grpc.aio.Channel, credential: str = "") -> Any:
    multi: Any = channel.stream_stream(
        CONNECT,
        task_service_pb2.ConnectRequest.SerializeToString,
        task_service_pb2.ConnectResponse.FromString,
    )
    return multi(metadata=(("authorization", credential),), timeout=10)


def hello(namespace: str = "") -> Any:
    return task_service_pb2.ConnectRequest(hello=task_service_pb2.Hello(namespace=namespace))


def pong(number: int) -> Any:
    return task_service_pb2.ConnectRequest(pong=task_service_pb2.Pong(number=number))


def refresh(credential: str) -> Any:
    return task_service_pb2.ConnectRequest(
        auth_refresh=task_service_pb2.AuthRefresh(authorization=credential)
    )


@pytest.mark.parametrize("behaviour", [echo, echo_written])
async def test_a_stream_passes_with_all_its_frames(behaviour: Callable[[Any, Any], Any]) -> None:
    async with serving(CONNECT, stream_handler(behaviour)) as channel:
        stream = connect(channel)
        await stream.write(hello())
        await stream.write(pong(7))
        await stream.done_writing()
        numbers = [response.ping.number async for response in stream]

    assert numbers == [0, 7]


async def test_a_stream_to_an_unknown_namespace_is_refused_at_its_first_frame() -> None:
    async with serving(CONNECT, stream_handler(echo)) as channel:
        stream = connect(channel)
        await stream.write(hello("nowhere"))
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await stream.read()

    assert seen.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stream_closed_without_a_frame_is_refused() -> None:
    async with serving(CONNECT, stream_handler(echo)) as channel:
        stream = connect(channel)
        await stream.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await stream.read()

    assert detail(seen.value).reason == error_pb2.REASON_BAD_FRAME


async def test_a_stream_ends_when_its_credential_has_expired() -> None:
    clock = ManualClock()
    soon = clock.now_ms() + 1_000

    async with serving(CONNECT, stream_handler(echo), authenticator=Expiring(), clock=clock) as channel:
        stream = connect(channel, f"bot:{soon}")
        await stream.write(hello())
        await stream.read()
        clock.advance(1_000)
        await stream.write(pong(1))
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await stream.read()

    assert seen.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_refreshed_credential_keeps_the_stream_alive() -> None:
    clock = ManualClock()
    soon = clock.now_ms() + 1_000

    async with serving(CONNECT, stream_handler(echo), authenticator=Expiring(), clock=clock) as channel:
        stream = connect(channel, f"bot:{soon}")
        await stream.write(hello())
        await stream.read()
        await stream.write(refresh(f"bot:{soon + 60_000}"))
        await stream.write(pong(1))
        await stream.read()
        clock.advance(1_000)
        await stream.write(pong(2))
        response = await stream.read()

    assert response.ping.number == 2


async def test_a_refresh_by_somebody_else_ends_the_stream() -> None:
    clock = ManualClock()
    later = clock.now_ms() + 60_000

    async with serving(CONNECT, stream_handler(echo), authenticator=Expiring(), clock=clock) as channel:
        stream = connect(channel, f"bot:{later}")
        await stream.write(hello())
        await stream.read()
        await stream.write(refresh(f"mallory:{later}"))
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await stream.read()

    assert seen.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_refusal_inside_a_watch_travels_with_its_trailer() -> None:
    async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
        yield workflow_service_pb2.WatchWorkflowResponse()
        raise NotFound(Reason.WORKFLOW_NOT_FOUND, "it was removed")

    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(
        watch,
        request_deserializer=workflow_service_pb2.WatchWorkflowRequest.FromString,
        response_serializer=workflow_service_pb2.WatchWorkflowResponse.SerializeToString,
    )
    async with serving(WATCH, handler) as channel:
        multi: Any = channel.unary_stream(
            WATCH,
            workflow_service_pb2.WatchWorkflowRequest.SerializeToString,
            workflow_service_pb2.WatchWorkflowResponse.FromString,
        )
        stream = multi(workflow_service_pb2.WatchWorkflowRequest(), timeout=10)
        await stream.read()
        with pytest.raises(grpc.aio.AioRpcError) as seen:
            await stream.read()

    assert detail(seen.value).reason == error_pb2.REASON_WORKFLOW_NOT_FOUND


async def test_a_stream_that_its_client_leaves_closes_its_service() -> None:
    closed = asyncio.Event()

    async def endless(frames: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        try:
            async for _ in frames:
                yield task_service_pb2.ConnectResponse()
        finally:
            closed.set()

    async with serving(CONNECT, stream_handler(endless)) as channel:
        stream = connect(channel)
        await stream.write(hello())
        await stream.read()
        stream.cancel()
        await asyncio.wait_for(closed.wait(), 10)


def test_every_refusal_of_the_tree_has_a_grpc_status() -> None:
    theirs = {code.value[0] for code in grpc.StatusCode}

    assert all(cls.code.value in theirs for cls in MaestosoError.__subclasses__())
