"""Keeps one session connected: dials, says hello, reads, writes, reconnects, moves.

A link has a *home*: the node that it is there for. When home cannot be reached the session is
resumed at another node, because its deliveries live only for seconds; there the link is a *guest*
that takes nothing new, and it goes home once nothing is held. A link never gives up.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Protocol

import grpc
import grpc.aio

from maestoso.task.v1 import task_service_pb2

from ._errors import ServerError, from_rpc
from ._session import Assigned, Event, Fence, Moved, NodesChanged, Opened, Session, State

_log = logging.getLogger("maestoso.worker")

BACKOFF_FIRST = 0.1
BACKOFF_MAX = 5.0
WELCOME_WITHIN = 5.0
"""Seconds that a node may take to answer Hello."""
MOVE_AGAIN_AFTER = 1.0
"""Seconds between two looks for a node that has its database, while ours has not."""
COALESCE_SECONDS = 0.001
"""How long results may wait for others that are about to follow."""
CLOSE_WITHIN = 2.0
"""Seconds that a node may take to end a stream that we have ended."""

_FATAL = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""Refusals that no repeat will change: of a worker that never was welcome anywhere."""

_SESSION_GONE = {
    grpc.StatusCode.ABORTED,  # a newer stream than any of ours has it
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
}
"""Ends after which a resume of the same session would only meet the same end."""

Call = grpc.aio.StreamStreamCall[task_service_pb2.ConnectRequest, task_service_pb2.ConnectResponse]


class Owner(Protocol):
    """What a link needs of the worker that it belongs to."""

    def call(self, address: str) -> Call:
        """Open a stream to a node."""

    def candidates(self, link: Link) -> Sequence[str]:
        """Where the session of this link may connect, best first; at least one address."""

    def elsewhere(self, link: Link) -> Sequence[str]:
        """Other live nodes than the one that the link is connected to."""

    def opened(self, link: Link, welcome: task_service_pb2.Welcome) -> None:
        """The session is open at `link.address`."""

    def closed(self, link: Link) -> None:
        """The link's stream ended."""

    def received(self, link: Link, event: Event) -> None:
        """Any other event of the session."""

    def refused(self, link: Link, error: ServerError) -> bool:
        """The server does not want us; True = try again all the same."""


class Link:
    """One session and the stream that carries it at the moment."""

    def __init__(self, home: str, session: Session, owner: Owner) -> None:
        self.home = home
        self.session = session
        self.address = ""
        """The node that it is connected to; empty = none."""
        self.guest = False
        self.degraded = False
        self.received = 0
        """Tasks received since the capacity was last divided."""
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.fence = Fence(self._loop.time())
        self._call: Call | None = None
        self._next: Call | None = None
        self._moving: asyncio.Task[None] | None = None
        self._wakeup = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._retired = False
        self._pause: asyncio.Event = asyncio.Event()

    @property
    def open(self) -> bool:
        """Whether the session has a living stream."""
        return self.session.state in (State.OPEN, State.MOVING)

    def wake(self) -> None:
        """There is something to send."""
        self._wakeup.set()

    def retire(self) -> None:
        """End once nothing is held and everything is acknowledged; at once if that is so already."""
        self._retired = True
        self.session.drain()
        self._pause.set()
        self._wakeup.set()

    def cut(self) -> None:
        """Drop a stream that has fallen silent."""
        if self._call is not None:
            self._call.cancel()

    def start(self) -> asyncio.Task[None]:
        """Run in the background."""
        self.task = self._loop.create_task(self.run())
        return self.task

    async def run(self) -> None:
        """Stay connected until retired. Raises the ServerError of a final refusal."""
        attempt = 0
        try:
            while not (self._retired and self.session.idle):
                call, self._next = self._next, None
                if call is None:
                    call = await self._connect(attempt)
                if call is None:
                    attempt += 1
                    await self._back_off(attempt)
                    continue
                attempt = 0
                await self._serve(call)
        finally:
            if self._moving is not None:
                self._moving.cancel()
            if self._call is not None:
                self._call.cancel()

    async def _back_off(self, attempt: int) -> None:
        limit = min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** min(attempt - 1, 16))
        try:
            async with asyncio.timeout(random.uniform(0, limit)):
                await self._pause.wait()
        except TimeoutError:
            pass

    # Opening.

    async def _connect(self, attempt: int) -> Call | None:
        candidates = self._owner.candidates(self)
        address = candidates[attempt % len(candidates)]
        try:
            return await self._open(address)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            self.session.lost()
            self._failed(address, error)
            return None

    def _failed(self, address: str, error: BaseException) -> None:
        if isinstance(error, grpc.aio.AioRpcError):
            refusal = from_rpc(error)
            if error.code() in _SESSION_GONE:
                self._lose_session()
            if error.code() in _FATAL and not self._owner.refused(self, refusal):
                raise refusal
            _log.info("no stream", extra={"address": address, "cause": str(refusal)})
        else:
            _log.info("no welcome", extra={"address": address, "seconds": WELCOME_WITHIN})

    def _lose_session(self) -> None:
        """Nothing of the session is ours any more."""
        for event in self.session.forget():
            self._owner.received(self, event)

    async def _open(self, address: str) -> Call:
        """A stream whose Hello was answered. AioRpcError where the node refuses or is not there."""
        call = self._owner.call(address)
        try:
            async with asyncio.timeout(WELCOME_WITHIN):
                await self._send(call, self.session.hello())
                frame = await self._receive(call)
                while frame is not None and frame.WhichOneof("frame") != "welcome":
                    frame = await self._receive(call)
            if frame is None:
                raise await _status(call)
        except BaseException:
            call.cancel()
            raise
        self.address = address
        self.degraded = False
        self.fence.heard(self._loop.time())
        for event in self.session.receive(frame, self._loop.time()):
            self._handle(event)
        return call

    async def _send(self, call: Call, frame: task_service_pb2.ConnectRequest) -> None:
        try:
            await call.write(frame)
        except asyncio.InvalidStateError:  # gRPC's word for "the call has ended"
            raise await _status(call) from None

    async def _receive(self, call: Call) -> task_service_pb2.ConnectResponse | None:
        frame = await call.read()
        if isinstance(frame, task_service_pb2.ConnectResponse):
            return frame
        return None

    # Serving.

    async def _serve(self, call: Call) -> None:
        """Read and write until the stream ends or is replaced."""
        self._call = call
        writer = asyncio.create_task(self._write(call))
        try:
            await self._read(call)
        finally:
            writer.cancel()
            call.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        self._call = None
        if self._moving is not None:
            if self.session.state is State.MOVING:
                await self._moving  # another node is about to answer
            else:
                self._moving.cancel()
        if self._next is None:
            await self._after(call)

    async def _after(self, call: Call) -> None:
        """The stream ended and no other took its place."""
        self.session.lost()
        error = await _status(call)
        if error.code() in _SESSION_GONE:
            self._lose_session()
        if self.guest and self.session.idle:
            self._leave()
        if error.code() is not grpc.StatusCode.OK and not self._retired:
            _log.info("stream ended", extra={"address": self.address, "cause": str(from_rpc(error))})
        self.address = ""
        self._owner.closed(self)

    def _leave(self) -> None:
        """The visit is over: at home a new session begins."""
        self.guest = False
        self.session.forget()
        if not self._retired:
            self.session.draining = False

    async def _read(self, call: Call) -> None:
        session, loop, fence = self.session, self._loop, self.fence
        while True:
            try:
                frame = await call.read()
            except grpc.aio.AioRpcError:
                return
            except asyncio.CancelledError:
                # Our own `call.cancel()` surfaces here too; only a cancelled task goes on.
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise
                return
            if not isinstance(frame, task_service_pb2.ConnectResponse):
                return
            now = loop.time()
            fence.heard(now)
            for event in session.receive(frame, now):
                self._handle(event)
            if session.has_output or session.draining or self.guest or session.repeat_at() is not None:
                self._wakeup.set()

    def _handle(self, event: Event) -> None:
        if isinstance(event, Opened):
            if event.welcome.HasField("fence_after"):
                self.fence.after = event.welcome.fence_after.ToNanoseconds() / 1e9
            self._owner.opened(self, event.welcome)
        elif isinstance(event, Moved):
            self._move(event)
        else:
            if isinstance(event, (Assigned, NodesChanged)):
                self.degraded = False  # only a node that has its database says such things
            self._owner.received(self, event)

    # Writing.

    async def _write(self, call: Call) -> None:
        """Send what the session has to say; results that come close together go together."""
        session, loop, wakeup = self.session, self._loop, self._wakeup
        wakeup.set()
        while True:
            await self._until_woken()
            wakeup.clear()
            due = loop.time() + COALESCE_SECONDS
            await asyncio.sleep(0)
            while wakeup.is_set() and loop.time() < due:
                wakeup.clear()
                await asyncio.sleep(0)
            if self._next is not None:
                return  # another stream has the session: what there is to say is said there
            try:
                for frame in session.output(loop.time()):
                    await call.write(frame)
                if self.guest and session.idle:
                    session.drain()
                if session.draining and session.idle and not wakeup.is_set():
                    for frame in session.output(loop.time()):
                        await call.write(frame)
                    await call.done_writing()
                    break
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # the reader sees the end too, and knows why
        await asyncio.sleep(CLOSE_WITHIN)
        call.cancel()

    async def _until_woken(self) -> None:
        """Until there is something to send, or a result is due to be sent again."""
        repeat_at = self.session.repeat_at()
        if repeat_at is None:
            await self._wakeup.wait()
            return
        try:
            async with asyncio.timeout_at(repeat_at):
                await self._wakeup.wait()
        except TimeoutError:
            pass

    # Moving.

    def _move(self, move: Moved) -> None:
        self.degraded = move.degraded
        if self._moving is None or self._moving.done():
            self._moving = asyncio.create_task(self._find_better(move))

    async def _find_better(self, move: Moved) -> None:
        """Resume the session at another node, then let go of this one.

        A node that stops is tried to be left once per address. A node without its database is
        left as soon as another one is found; until then the worker stays and goes on.
        """
        call = self._call
        while not self._retired and self._call is call:
            for address in dict.fromkeys([*move.addresses, *self._owner.elsewhere(self)]):
                if await self._resume_at(address):
                    return
            if not self.degraded:
                return
            await asyncio.sleep(MOVE_AGAIN_AFTER)

    async def _resume_at(self, address: str) -> bool:
        old = self._call
        try:
            self._next = await self._open(address)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            _log.info("could not move", extra={"address": address, "cause": repr(error)})
            if old is not None and not old.done():
                for event in self.session.move_failed(self._loop.time()):
                    self._handle(event)
                self._wakeup.set()
            return False
        if old is not None:
            old.cancel()
        return True


async def _status(call: Call) -> grpc.aio.AioRpcError:
    """How a call ended, as the error that gRPC would raise."""
    return grpc.aio.AioRpcError(
        await call.code(),
        grpc.aio.Metadata(),
        await call.trailing_metadata(),
        await call.details(),
    )
