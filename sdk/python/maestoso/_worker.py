"""Worker: runs handlers for as long as a server has tasks for them.

Handlers that share the worker's slots form one pool; a handler with a `concurrency` of its own has
a pool to itself, because what a stream declares counts for all the task types on it. A pool holds
one stream to every live node and divides its slots over them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import grpc.aio

from maestoso.task.v1 import task_service_pb2, task_service_pb2_grpc

from . import __version__
from ._capacity import Load, divide
from ._channel import Credentials, Tls, open_channel
from ._errors import ServerError
from ._link import Call, Link
from ._runner import Runner, Stop
from ._session import (
    Assigned,
    Cancelled,
    DrainAsked,
    Dropped,
    Event,
    FrameRefused,
    NodesChanged,
    Revoked,
    Session,
)
from ._task import Handler, bind, handlers_of

_log = logging.getLogger("maestoso.worker")

CONCURRENCY = 100
"""Tasks that a worker runs at once unless it says otherwise."""
GRACE_SECONDS = 30.0
"""How long a stopping worker lets its handlers run on."""
ACKNOWLEDGE_SECONDS = 5.0
"""How long after that it waits for the server to acknowledge the last results."""
TICK_SECONDS = 0.25
"""How often fences are looked at: what makes them late must stay well below a second."""
SILENCE_PART = 0.75
"""A stream that is silent for this part of the fence's time is given up and resumed elsewhere."""
DIVIDE_AFTER = 0.05
"""How soon idle slots follow the work."""
REFRESH_SECONDS = 10.0
"""How often a changing credential is looked at."""


class Worker:
    """Runs handlers. Use it in one of three ways:

    `worker.run_until_stopped()` in a script; `await worker.run()` in a program with a loop; `async
    with worker:` around whatever needs it running. SIGTERM and SIGINT drain it in the first two:
    it takes nothing new, hands back what it has not started, lets handlers end within `grace`
    seconds and waits until their results are acknowledged.

    It connects again for ever. Only a refusal before it was ever welcome (no such namespace, a
    bad credential) is raised, as a ServerError.
    """

    def __init__(
        self,
        server: str | Sequence[str],
        handlers: Iterable[Callable[..., Any] | Handler],
        *,
        namespace: str = "default",
        concurrency: int = CONCURRENCY,
        worker_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        api_key: str | None = None,
        authorization: str | Callable[[], str] | None = None,
        tls: Tls | None = None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        """`server`: HOST:PORT of any node, or several of them. `concurrency`: tasks at once.

        `worker_id`: a name for people and logs, `host:process` by default.
        """
        if not 1 <= concurrency <= 10_000:
            raise ValueError("concurrency is 1 to 10,000")
        self._servers = [server] if isinstance(server, str) else list(server)
        self._handlers = handlers_of(handlers)
        for handler in self._handlers:
            bind(handler)  # a handler that cannot be called is refused here, not by its first task
        if not self._servers or not self._handlers:
            raise ValueError("a worker needs a server and a handler")
        self.namespace = namespace
        self.concurrency = concurrency
        self.worker_id = worker_id or f"{socket.gethostname()}:{os.getpid()}"
        self.labels = dict(labels or {})
        self.grace = grace
        self._tls = tls
        self._credentials = Credentials(api_key=api_key, authorization=authorization)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._pools: list[Pool] = []
        self._nodes: list[str] = []
        self._stopping = asyncio.Event()
        self._welcome = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._authorization: str | None = None

    # Running it.

    def run_until_stopped(self) -> None:
        """Run in an event loop of its own until a signal or an operator stops it."""
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self.run())

    async def run(self) -> None:
        """Run until SIGTERM, SIGINT, `stop()` or an operator's drain, and drain."""
        with _signals(self._signalled):
            await self._run()

    async def __aenter__(self) -> Worker:
        """Run in the background; returns once a node has welcomed every pool."""
        self._running = asyncio.create_task(self._run())
        welcome = asyncio.create_task(self._welcome.wait())
        await asyncio.wait({self._running, welcome}, return_when=asyncio.FIRST_COMPLETED)
        welcome.cancel()
        if self._running.done():
            await self._running  # raises why
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._running is not None
        self.stop()
        await self._running

    def stop(self) -> None:
        """Start to drain; `run` returns when it is done. A second call does nothing."""
        self._stopping.set()

    def _signalled(self) -> None:
        if self._stopping.is_set():
            _log.warning("stopping at once")
            self.grace = 0.0
            for pool in self._pools:
                pool.runner.cancel_all(Stop.STOPPED)
        self.stop()

    async def _run(self) -> None:
        self._links: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._pools = [Pool(self, handlers, limit) for handlers, limit in self._divided()]
        ticking = asyncio.create_task(self._tick())
        try:
            for pool in self._pools:
                pool.connect(self._servers[0])
            await self._stopping.wait()
            if self._failure is not None:
                raise self._failure
            await self._drain()
        finally:
            ticking.cancel()
            for task in self._links:
                task.cancel()
            await asyncio.gather(ticking, *self._links, return_exceptions=True)
            for pool in self._pools:
                pool.runner.close()
            for channel in self._channels.values():
                await channel.close()
            self._channels.clear()

    def _divided(self) -> list[tuple[list[Handler], int]]:
        """The handlers by pool. A task type stands once in a pool, so that its domain is not asked for."""
        shared: list[list[Handler]] = []
        own: list[tuple[list[Handler], int]] = []
        for handler in self._handlers:
            if handler.concurrency is not None:
                own.append(([handler], handler.concurrency))
                continue
            for pool in shared:
                if all(other.task_type != handler.task_type for other in pool):
                    pool.append(handler)
                    break
            else:
                shared.append([handler])
        return [(pool, self.concurrency) for pool in shared] + own

    async def _drain(self) -> None:
        _log.info("draining", extra={"running": sum(pool.runner.running for pool in self._pools)})
        for pool in self._pools:
            pool.drain()
        ended = asyncio.gather(*(pool.runner.wait_empty() for pool in self._pools))
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self.grace
        while not ended.done() and loop.time() < give_up_at and self.grace:
            await asyncio.wait({ended}, timeout=min(TICK_SECONDS, give_up_at - loop.time()))
        if not ended.done():
            for pool in self._pools:
                pool.runner.cancel_all(Stop.STOPPED)
            await asyncio.wait({ended}, timeout=1.0)  # the cancelled ones say so yet
            ended.cancel()
        for pool in self._pools:
            pool.finish()
        if self._links:
            await asyncio.wait(set(self._links), timeout=ACKNOWLEDGE_SECONDS)

    # What pools and links need.

    def call(self, address: str) -> Call:
        """Open a stream to a node."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = open_channel(address, self._tls)
        stub = cast(
            "task_service_pb2_grpc.TaskServiceAsyncStub", task_service_pb2_grpc.TaskServiceStub(channel)
        )
        metadata = self._credentials.metadata()
        self._authorization = dict(metadata).get("authorization")
        return stub.Connect(metadata=metadata)

    def leave(self, address: str) -> None:
        """Close the connection to a node: the next stream there is opened on a new one. A connection that
        was cut without a word (half-open) would swallow that stream too."""
        channel = self._channels.pop(address, None)
        if channel is not None:
            closing = asyncio.create_task(channel.close())
            self._links.add(closing)
            closing.add_done_callback(self._links.discard)

    def spawn(self, link: Link) -> None:
        """Run a link until it is retired."""
        task = link.start()
        self._links.add(task)
        task.add_done_callback(self._link_ended)

    def _link_ended(self, task: asyncio.Task[None]) -> None:
        self._links.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()
            self._stopping.set()

    @property
    def addresses(self) -> list[str]:
        """The live nodes as last heard, then what the user named; never empty."""
        return list(dict.fromkeys([*self._nodes, *self._servers]))

    def refused(self, error: ServerError) -> bool:
        """Whether to try again all the same: yes, if any node ever took us."""
        if not self._welcome.is_set():
            return False
        _log.error("refused", extra={"cause": str(error), "reason": error.reason})
        return True

    def opened(self, welcome: task_service_pb2.Welcome) -> None:
        """A node has welcomed a link."""
        if all(pool.live for pool in self._pools):
            self._welcome.set()
        self.nodes_changed(welcome.nodes)

    def nodes_changed(self, addresses: Sequence[str]) -> None:
        """Have a stream to each of these, in every pool."""
        if not addresses or self._stopping.is_set():
            return
        self._nodes = list(addresses)
        for pool in self._pools:
            pool.reconcile(self._nodes)

    # Time.

    async def _tick(self) -> None:
        """Everything that happens because time has passed."""
        loop = asyncio.get_running_loop()
        refresh_at = loop.time() + REFRESH_SECONDS
        while True:
            before = loop.time()
            await asyncio.sleep(TICK_SECONDS)
            if loop.time() - before > 2 * TICK_SECONDS:
                # The loop was blocked: words may lie unread. Read first, then judge.
                await asyncio.sleep(TICK_SECONDS / 5)
            now = loop.time()
            # A node without its database cannot give our tasks away: its worker goes on.
            degraded = any(link.degraded for pool in self._pools for link in pool.links)
            for pool in self._pools:
                if not degraded:
                    pool.keep_fences(now)
            if now >= refresh_at:
                refresh_at = now + REFRESH_SECONDS
                self._refresh()

    def _refresh(self) -> None:
        value = self._credentials.value()
        if value is None or value == self._authorization:
            return
        self._authorization = value
        for pool in self._pools:
            for link in pool.links:
                if link.open:
                    link.session.refresh(value)
                    link.wake()


class Pool:
    """Handlers that share slots, and their streams: one to each live node."""

    def __init__(self, worker: Worker, handlers: Sequence[Handler], concurrency: int) -> None:
        self.links: list[Link] = []
        self.runner = Runner(handlers, concurrency)
        self._worker = worker
        self._offers = [(handler.task_type, handler.domain) for handler in handlers]
        self._silent: set[str] = set()
        """Nodes that said nothing for too long, and no word since: they are asked last."""
        self._dividing: asyncio.TimerHandle | None = None

    @property
    def live(self) -> bool:
        """Whether any of its streams is open."""
        return any(link.open for link in self.links)

    def connect(self, home: str) -> None:
        """Add a link to a node. The first one takes all slots, later ones wait for the next division."""
        session = Session(
            namespace=self._worker.namespace,
            worker_id=self._worker.worker_id,
            offers=self._offers,
            capacity=0 if self.links else self.runner.concurrency,
            labels=self._worker.labels,
            sdk=f"maestoso-python/{__version__}",
        )
        link = Link(home, session, self)
        self.links.append(link)
        self._worker.spawn(link)

    def reconcile(self, nodes: Sequence[str]) -> None:
        """A link to each node; links to nodes that are gone end, but never the last one."""
        homes = {link.home for link in self.links}
        for address in nodes:
            if address not in homes:
                self.connect(address)
        for link in list(self.links):
            if link.home not in nodes and not link.open and link.session.idle and self.live:
                self._retire(link)

    def _retire(self, link: Link) -> None:
        self.links.remove(link)
        link.retire()
        self.divide()

    def drain(self) -> None:
        """Take nothing new, hand back what was not started."""
        for link in self.links:
            link.retire()
        self.runner.hand_back_waiting()

    def finish(self) -> None:
        """End the links that have nothing to say; the others once their results are acknowledged."""
        for link in self.links:
            link.wake()
            if not link.open and link.session.idle and link.task is not None:
                link.task.cancel()

    def keep_fences(self, now: float) -> None:
        """Give up silent streams, and stop the handlers of those that stay silent."""
        for link in self.links:
            fence = link.fence
            if link.open and now >= fence.heard_at + SILENCE_PART * fence.after:
                _log.warning("stream is silent", extra={"address": link.address})
                self._silent.add(link.address)
                link.cut()
                self._worker.leave(link.address)
            if fence.close_if_due(now):
                stopped = self.runner.fence(link)
                if stopped:
                    _log.error("no word from any node: handlers stopped", extra={"handlers": stopped})

    # What a link asks and tells.

    def call(self, address: str) -> Call:
        return self._worker.call(address)

    def candidates(self, link: Link) -> Sequence[str]:
        """Home first, silent nodes last: a node that stands still takes a Hello and answers none, while the
        fence closes. Elsewhere only with a session to resume, or where no other link is open: the lost
        node may have sent tasks that were never read, and only a resume tells the others so."""
        addresses = [link.home]
        if link.session.session_id or not any(other.open for other in self.links if other is not link):
            addresses.extend(self._worker.addresses)
        return sorted(dict.fromkeys(addresses), key=self._silent.__contains__)

    def elsewhere(self, link: Link) -> Sequence[str]:
        return [address for address in self._worker.addresses if address not in (link.address, link.home)]

    def opened(self, link: Link, welcome: task_service_pb2.Welcome) -> None:
        """Find out which node it is: home, a node without a link (the new home), or a visit."""
        self._silent.discard(link.address)
        node = welcome.nodes[0] if welcome.nodes else link.address
        if node != link.home and all(other.home != node for other in self.links):
            link.home = node
        link.guest = node != link.home
        self._worker.opened(welcome)
        self.divide()

    def closed(self, link: Link) -> None:
        if link.home not in self._worker.addresses and link.session.idle and self.live:
            self._retire(link)
        self.divide()

    def refused(self, link: Link, error: ServerError) -> bool:
        return self._worker.refused(error)

    def received(self, link: Link, event: Event) -> None:
        if isinstance(event, Assigned):
            link.received += len(event.tasks)
            self.runner.start(link, event.tasks)
            if len(link.session.held) >= link.session.capacity and len(self.links) > 1:
                self._divide_soon()
        elif isinstance(event, Cancelled):
            self.runner.cancel(event.token, Stop.CANCELLED)
        elif isinstance(event, Revoked):
            for token in event.tokens:
                self.runner.cancel(token, Stop.REVOKED)
        elif isinstance(event, NodesChanged):
            self._worker.nodes_changed(event.addresses)
        elif isinstance(event, DrainAsked):
            _log.info("an operator drains this worker", extra={"reason": event.reason})
            self._worker.grace = min(self._worker.grace, event.grace)
            self._worker.stop()
        else:
            _report(event)

    # Capacity.

    def _divide_soon(self) -> None:
        if self._dividing is None:
            self._dividing = asyncio.get_running_loop().call_later(DIVIDE_AFTER, self.divide)

    def divide(self) -> None:
        """Give idle slots to the streams that received work."""
        if self._dividing is not None:
            self._dividing.cancel()
            self._dividing = None
        loads = [
            Load(len(link.session.held), link.received, link.open and not link.guest) for link in self.links
        ]
        if not any(load.open for load in loads):
            return  # whoever opens first declares what it had
        for link, share in zip(self.links, divide(self.runner.concurrency, loads), strict=True):
            link.session.set_capacity(share)
            link.received = 0
            link.wake()


def _report(event: Event) -> None:
    """Log what the server did not take."""
    if isinstance(event, Dropped):
        outcome = event.outcome
        _log.warning("result not taken", extra={"outcome": outcome, "cause": event.error.message})
    elif isinstance(event, FrameRefused):
        _log.error("frame refused", extra={"cause": event.error.message, "frame": event.frame_number})


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where it is installed: a fifth less CPU."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


_to_signal: dict[Callable[[], None], None] = {}
"""What SIGTERM and SIGINT call: one for each Worker that runs in this process."""


@contextlib.contextmanager
def _signals(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` on SIGTERM and SIGINT, where this thread and platform can be told."""
    loop = asyncio.get_running_loop()
    _to_signal[act] = None
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, _signal_all)
    try:
        yield
    finally:
        del _to_signal[act]
        if not _to_signal:
            for number in (signal.SIGTERM, signal.SIGINT):
                with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                    loop.remove_signal_handler(number)


def _signal_all() -> None:
    for act in list(_to_signal):
        act()
