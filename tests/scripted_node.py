"""A node as the protos describe it, for testing the SDK: a real gRPC server that a test scripts.

It keeps the promises that a worker relies on (Welcome for each Hello, kept and revoked deliveries on
a resume, superseded streams) and leaves the rest to the test, which sends and reads frames.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from maestoso.error.v1 import error_pb2
from maestoso.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc

DEADLINE_SECONDS = 10.0
PING_SECONDS = 0.2
"""How often a node pings by itself, with the number 0: fences stay open, as with a real one."""


def assignment(
    token: bytes, task_type: str = "greet", input: bytes = b"{}", **more: Any
) -> task_pb2.Assignment:
    """A task to hand out; its id is its token in hex."""
    return task_pb2.Assignment(
        token=token,
        task_id=token.hex(),
        workflow_id="00000000-0000-7000-8000-000000000001",
        reference=task_type,
        task_type=task_type,
        input=input,
        **more,
    )


def ack(token: bytes, outcome: int = task_pb2.RESULT_OUTCOME_ACCEPTED, message: str = "") -> Any:
    """The answer to one result."""
    error = error_pb2.Error(message=message) if message else None
    return task_pb2.ResultAck(token=token, outcome=outcome, error=error)


def accepted(tokens: Iterable[bytes]) -> task_service_pb2.ConnectResponse:
    """A frame that takes all these results."""
    return task_service_pb2.ConnectResponse(
        acks=task_service_pb2.ResultAcks(acks=[ack(token) for token in tokens])
    )


@dataclass
class Sessions:
    """What the nodes of one cluster know together: each session's token, stream and deliveries."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    deliveries: dict[str, set[bytes]] = field(default_factory=dict)

    def expire(self, session_id: str) -> None:
        """Forget a session, as if nobody had resumed it in time."""
        del self.secrets[session_id]


class Stream:
    """One worker stream, as the node sees it."""

    def __init__(self, sessions: Sessions, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        self.metadata = dict(metadata)
        self.hello = task_service_pb2.Hello()
        self.welcome = task_service_pb2.Welcome()
        self.ended = asyncio.Event()
        self.half_closed = asyncio.Event()
        self.frames: list[task_service_pb2.ConnectRequest] = []
        """Everything that came after Hello, in order."""
        self._sessions = sessions
        self._unread: dict[str, asyncio.Queue[Any]] = {}
        self._out: asyncio.Queue[task_service_pb2.ConnectResponse | grpc.StatusCode] = asyncio.Queue()

    def send(self, frame: task_service_pb2.ConnectResponse) -> None:
        """Send any frame."""
        self._out.put_nowait(frame)

    def assign(self, *tasks: task_pb2.Assignment) -> None:
        """Hand out tasks in one frame."""
        known = self._sessions.deliveries.setdefault(self.welcome.session_id, set())
        known.update(task.token for task in tasks)
        self.send(task_service_pb2.ConnectResponse(tasks=task_service_pb2.TaskBatch(tasks=tasks)))

    def accept(self, *tokens: bytes) -> None:
        """Acknowledge results as committed."""
        self._sessions.deliveries[self.welcome.session_id].difference_update(tokens)
        self.send(accepted(tokens))

    def end(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        """End the stream with a status."""
        self._out.put_nowait(code)

    async def expect(self, kind: str) -> Any:
        """The next frame of a kind (`results`, `pong`, ...) that was not read yet."""
        queue = self._unread.setdefault(kind, asyncio.Queue())
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await queue.get()

    async def expect_results(self, count: int) -> list[task_pb2.TaskResult]:
        """So many results, over as many frames as it takes."""
        results: list[task_pb2.TaskResult] = []
        while len(results) < count:
            results.extend((await self.expect("results")).results)
        return results

    async def ping(self, number: int = 1) -> None:
        """Ping, and wait for the Pong: everything sent before was read."""
        self.send(task_service_pb2.ConnectResponse(ping=task_service_pb2.Ping(number=number)))
        while (await self.expect("pong")).number != number:
            pass

    async def wait_ended(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.ended.wait()

    def _take(self, frame: task_service_pb2.ConnectRequest) -> None:
        self.frames.append(frame)
        kind = frame.WhichOneof("frame")
        assert kind is not None
        self._unread.setdefault(kind, asyncio.Queue()).put_nowait(getattr(frame, kind))


class Node(task_service_pb2_grpc.TaskServiceServicer):
    """One node. `refuse`: end every new stream with this status instead of a Welcome."""

    def __init__(self, sessions: Sessions | None = None) -> None:
        self.sessions = sessions or Sessions()
        self.address = ""
        self.nodes: list[str] = []
        """What Welcome says about the live nodes; empty = only this one."""
        self.fence_after: float | None = None
        self.refuse: grpc.StatusCode | None = None
        self.trailer: error_pb2.Error | None = None
        self.silent = False
        """Send no pings of its own."""
        self.standing_still = False
        """Take Hellos and answer none."""
        self.hellos = 0
        self._server: grpc.aio.Server | None = None
        self._opened: asyncio.Queue[Stream] = asyncio.Queue()
        self._numbers = itertools.count(1)

    async def start(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self._server = grpc.aio.server()
        task_service_pb2_grpc.add_TaskServiceServicer_to_server(self, self._server)
        if credentials is None:
            port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def start_again(self) -> None:
        """Start where it was before, as a restarted process would."""
        await self.start(int(self.address.rpartition(":")[2]))

    async def stop(self) -> None:
        """Stop at once, as a killed process would."""
        assert self._server is not None
        await self._server.stop(None)

    async def stream(self) -> Stream:
        """The next stream that a worker opens here, already welcomed."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self._opened.get()

    async def Connect(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        self.hellos += 1
        if self.refuse is not None:
            trailer = (("maestoso-error-bin", self.trailer.SerializeToString()),) if self.trailer else ()
            await context.abort(self.refuse, "no", trailer)
        stream = Stream(self.sessions, context.invocation_metadata())
        first = await anext(request_iterator)
        assert first.WhichOneof("frame") == "hello"
        if self.standing_still:
            await stream.ended.wait()  # until the worker gives up
        stream.hello = first.hello
        self._welcome(stream)
        yield task_service_pb2.ConnectResponse(welcome=stream.welcome)
        self._opened.put_nowait(stream)
        reading = asyncio.create_task(self._read(request_iterator, stream))
        try:
            while True:
                frame = await self._next(stream)
                if frame is None:
                    return
                if isinstance(frame, grpc.StatusCode):
                    await context.abort(frame, "ended by the test")
                yield frame
        finally:
            reading.cancel()
            stream.ended.set()

    async def _read(self, request_iterator: Any, stream: Stream) -> None:
        async for frame in request_iterator:
            stream._take(frame)
        stream.half_closed.set()

    async def _next(self, stream: Stream) -> Any:
        """The next frame to send, a ping if there is none; None once the worker has ended its side."""
        frame = asyncio.ensure_future(stream._out.get())
        closed = asyncio.ensure_future(stream.half_closed.wait())
        try:
            while not frame.done() and not closed.done():
                patience = None if self.silent else PING_SECONDS
                waiting = {frame, closed}
                done, _ = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    return task_service_pb2.ConnectResponse(ping=task_service_pb2.Ping(number=0))
            return frame.result() if frame.done() else None
        finally:
            closed.cancel()
            frame.cancel()

    def _welcome(self, stream: Stream) -> None:
        hello, welcome, sessions = stream.hello, stream.welcome, self.sessions
        welcome.resumed = (
            bool(hello.session_id) and sessions.secrets.get(hello.session_id) == hello.resume_token
        )
        if welcome.resumed:
            welcome.session_id = hello.session_id
            known = sessions.deliveries.setdefault(hello.session_id, set())
            welcome.kept.extend(token for token in hello.held if token in known)
            welcome.revoked.extend(token for token in hello.held if token not in known)
            known.intersection_update(hello.held)
            sessions.streams[hello.session_id].end(grpc.StatusCode.ABORTED)
        else:
            welcome.session_id = str(uuid.uuid4())
            sessions.secrets[welcome.session_id] = uuid.uuid4().bytes
            sessions.deliveries[welcome.session_id] = set()
        welcome.resume_token = sessions.secrets[welcome.session_id]
        welcome.nodes.extend(self.nodes or [self.address])
        if self.fence_after is not None:
            welcome.fence_after.FromNanoseconds(int(self.fence_after * 1e9))
        sessions.streams[welcome.session_id] = stream


@asynccontextmanager
async def cluster(size: int = 1) -> AsyncIterator[list[Node]]:
    """Nodes that know of each other."""
    sessions = Sessions()
    nodes = [Node(sessions) for _ in range(size)]
    for node in nodes:
        await node.start()
    addresses = [node.address for node in nodes]
    for node in nodes:
        node.nodes = [node.address, *(address for address in addresses if address != node.address)]
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.stop()
