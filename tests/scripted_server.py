"""The unary services as a test scripts them: a real gRPC server that answers what it was told to.

server.on("GetWorkflow", response)                 the same answer each time
server.on("GetWorkflow", Refusal(...), response)   one after the other, the last one again
server.on("WatchWorkflow", [first, Refusal(...)])  a stream
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from maestoso.admin.v1 import admin_service_pb2
from maestoso.error.v1 import error_pb2
from maestoso.metadata.v1 import metadata_service_pb2
from maestoso.search.v1 import search_service_pb2
from maestoso.task.v1 import task_service_pb2
from maestoso.workflow.v1 import bulk_service_pb2, workflow_service_pb2

_METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in (
        admin_service_pb2,
        bulk_service_pb2,
        metadata_service_pb2,
        search_service_pb2,
        task_service_pb2,
        workflow_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status, with an Error in the trailer unless it is None (a proxy's word, not a server's)."""

    code: grpc.StatusCode
    error: error_pb2.Error | None = None


class Silence:
    """No answer, as long as the caller waits."""


Answer: TypeAlias = Message | Refusal | Silence | list[Message | Refusal]


class ScriptedServer(grpc.GenericRpcHandler):
    """Answers what the test says, and keeps what was asked."""

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self._answers: dict[str, list[Answer]] = {}

    def on(self, method: str, *answers: Answer) -> None:
        """Answer a method with these, one call after the other; the last one stays."""
        self._answers[method] = list(answers)

    def asked(self, kind: type[Message]) -> list[Any]:
        """The requests of one kind, in order."""
        return [request for request in self.requests if isinstance(request, kind)]

    def service(self, details: Any) -> Any:
        method = _METHODS.get(details.method)
        if method is None:
            return None
        handle: Callable[[Any, Any], Awaitable[Any] | AsyncIterator[Any]]
        if method.server_streaming:
            make = grpc.unary_stream_rpc_method_handler
            handle = self._stream(method.name)
        else:
            make = grpc.unary_unary_rpc_method_handler
            handle = self._unary(method.name)
        return make(
            handle,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _unary(self, name: str) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            answer = self._next(name, request, context)
            if isinstance(answer, Refusal):
                await _refuse(context, answer)
            if isinstance(answer, Silence):
                await asyncio.Event().wait()
            return answer

        return handle

    def _stream(self, name: str) -> Any:
        async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
            answers = self._next(name, request, context)
            for answer in answers if isinstance(answers, list) else [answers]:
                if isinstance(answer, Refusal):
                    await _refuse(context, answer)
                yield answer

        return handle

    def _next(self, name: str, request: Any, context: Any) -> Answer:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        answers = self._answers.get(name)
        if not answers:
            return Refusal(grpc.StatusCode.UNIMPLEMENTED)
        return answers.pop(0) if len(answers) > 1 else answers[0]


async def _refuse(context: Any, refusal: Refusal) -> None:
    message = refusal.error.message if refusal.error else "no"
    trailer: tuple[tuple[str, bytes], ...] = ()
    if refusal.error is not None:
        trailer = (("maestoso-error-bin", refusal.error.SerializeToString()),)
    await context.abort(refusal.code, message, trailer)


@asynccontextmanager
async def scripted_server(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[ScriptedServer]:
    """A server that answers UNIMPLEMENTED to everything it was not told about."""
    script = ScriptedServer()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((script,))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    script.address = f"127.0.0.1:{port}"
    try:
        yield script
    finally:
        await asyncio.wait_for(server.stop(None), 5)
