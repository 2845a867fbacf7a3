"""The composition root: everything of one server process, built, started and stopped in written order.

`Server._start` is read from top to bottom; what it starts, `stop` stops from bottom to top. Nothing
below this file knows who else there is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc.aio

from . import __version__
from .clock import Clock, SystemClock
from .config import Config, ConfigError, join_address, split_address
from .dispatch.attempt import attempt
from .dispatch.cluster import Cluster
from .dispatch.demand import Demand
from .dispatch.dispatcher import Dispatcher
from .dispatch.loops import Loops
from .dispatch.node import Identity
from .dispatch.polling import Polling
from .dispatch.retention import Retention
from .dispatch.streams import Streams
from .executor.answers import Answers
from .executor.executor import Executor
from .executor.plans import Plans
from .executor.starts import Starter
from .gateway.app import make_app
from .gateway.http import HttpServer
from .scripting.pool import Evaluators
from .services import registration, security
from .services.admin_service import AdminService
from .services.audit import Audit
from .services.bulk import BulkRunner, Filters, Selection
from .services.bulk_service import BulkService
from .services.documents import Judge
from .services.interceptors import Gate
from .services.limits import Limits
from .services.masking import Masks
from .services.metadata_service import MetadataService
from .services.namespaces import Namespaces
from .services.operations import Operations
from .services.search_service import SearchService
from .services.task_service import TaskService
from .services.trials import Trials
from .services.watches import Watches
from .services.workflow_service import WorkflowService
from .store import queue
from .store.database import Database, Faults
from .store.migrate import check_schema
from .system_tasks.egress import Egress
from .system_tasks.http_client import HttpClient
from .system_tasks.http_worker import HttpWorker
from .telemetry import Metrics, make_tracer
from .vault import ProcessVault

log = logging.getLogger("maestoso.server")

STATEMENTS_KEPT = 1024
"""Prepared statements kept by each connection: all that we have."""
ALONE_MS = 1_000
"""How long a stopping server that is the only one waits for its workers: they have nowhere to go."""
CALLS_S = 2.0
"""How long calls under way may still take once the streams are gone."""
CLOSE_S = 5.0
"""How long statements under way may still take after that."""
LOOK_S = 0.02
"""How often a stopping server looks whether its workers are gone."""
DEPTHS_KEPT_MS = 2_000
"""How long the depths of the queues are believed: counting a long one costs some 10 ms."""


class Server:
    """One node. `start` once, `stop` once; `failed` is set when it cannot go on by itself."""

    def __init__(self, config: Config, *, clock: Clock | None = None, faults: Faults | None = None) -> None:
        """Tests give a `ManualClock`, and `faults` to strike the database's statements."""
        self.config = config
        self.clock = SystemClock() if clock is None else clock
        self.metrics = Metrics()
        self.failed = asyncio.Event()
        self.grpc_address = ""
        self.http_address = ""
        self._faults = faults
        self._tracer = make_tracer(config.tracing)
        self._health = registration.Health()
        self._phase = "starting"
        self._draining = False
        self._core: Core | None = None
        self._running = AsyncExitStack()

    async def start(self) -> None:
        """Raises ConfigError, SchemaError, Unavailable and OSError; then nothing is left running."""
        async with AsyncExitStack() as started:
            await self._start(started)
            self._running = started.pop_all()
        self._phase = "serving"
        if self.config.insecure:
            log.warning("anonymous callers are let in from everywhere (--insecure)")
        log.info("serving", extra={"grpc": self.grpc_address, "http": self.http_address})

    async def stop(self) -> None:
        """Let workers resume elsewhere and calls finish, then end. Nothing is lost by a shorter way."""
        self._phase = "stopping"
        await self._running.aclose()

    async def _start(self, started: AsyncExitStack) -> None:
        started.callback(self._tracer.close)
        database = await self._open_database()
        started.push_async_callback(_close, database)
        evaluators = self._make_evaluators()
        started.push_async_callback(evaluators.stop)

        # Ports are bound before the node says where it is, and served once it is one.
        gate = self._make_gate(database)
        grpc_server = registration.make_server(self.config, gate)
        self.grpc_address = _bind(grpc_server, self.config)
        http_server = self._make_http_server(database, gate)
        started.push_async_callback(http_server.stop)
        self.http_address = http_server.address

        core = self._core = self._build(database, evaluators)
        started.push_async_callback(core.executor.idle)
        self._offer(grpc_server, core, Judge(database=database, evaluators=evaluators))
        await core.cluster.node.start()
        started.push_async_callback(core.cluster.node.stop)
        background = Background(self.failed)
        started.push_async_callback(background.stop)
        for part in (core.cluster, core.loops, core.watches, core.retention, core.bulk):
            background.run(part.run(), type(part).__name__)
        if self.config.http_tasks:
            self._do_http_tasks(background, core)

        http_server.start()
        await grpc_server.start()
        started.push_async_callback(self._close_doors, grpc_server, core)
        await self._health.set(serving=True)

    def _do_http_tasks(self, background: Background, core: Core) -> None:
        """Raises ConfigError."""
        try:
            egress = Egress(self.config.http_task_allow)
        except ValueError as error:
            raise ConfigError(f"--http-task-allow: {error}") from None
        http = HttpWorker(
            client=HttpClient(egress, self.config.http_task_max_bytes),
            dispatcher=core.dispatcher,
            streams=core.streams,
            database=core.database,
            clock=self.clock,
            concurrency=self.config.http_task_concurrency,
            max_output_bytes=self.config.max_payload_bytes,
        )

        def told(namespace: str, queue_name: str) -> None:
            core.polling.waiting(namespace, queue_name)
            http.waiting(namespace, queue_name)

        core.dispatcher.on_waiting = told
        background.run(http.run(), type(http).__name__)

    async def _close_doors(self, grpc_server: grpc.aio.Server, core: Core) -> None:
        """Send workers elsewhere and wait until they are gone, but no longer than `drain_ms`; then end
        what is left and write what is owed."""
        await self._health.stop()
        core.watches.end()
        grace_ms = core.move_workers(self.config.drain_ms)
        await _until_empty(core.dispatcher, grace_ms / 1000)
        await grpc_server.stop(CALLS_S)
        await core.executor.idle()
        for duty in (core.loops.write_behind, core.loops.write_at_once):
            await attempt(duty)

    # -- parts, in the order in which they are made --------------------------------------------------

    async def _open_database(self) -> Database:
        """Raises Unavailable and SchemaError."""
        database = await Database.open(
            self.config.database_url,
            clock=self.clock,
            max_size=self.config.database_connections,
            statement_cache_size=STATEMENTS_KEPT if self.config.statement_cache else 0,
            statement_s=self.config.statement_timeout_ms / 1000,
            faults=self._faults,
        )
        try:
            async with database.acquire() as connection:
                await check_schema(connection)
        except BaseException:
            await database.close()
            raise
        return database

    def _make_evaluators(self) -> Evaluators:
        return Evaluators(
            processes=self.config.evaluators,
            limit_s=self.config.script_timeout_ms / 1000,
            memory_bytes=self.config.script_memory_bytes,
        )

    def _make_gate(self, database: Database) -> Gate:
        """Raises ConfigError."""
        return Gate(
            authenticator=security.authenticator(self.config),
            authorizer=security.Grants(),
            namespaces=Namespaces(database),
            audit=Audit(database=database, clock=self.clock),
            clock=self.clock,
            metrics=self.metrics,
            tracer=self._tracer,
        )

    def _make_http_server(self, database: Database, gate: Gate) -> HttpServer:
        depths = Depths(database, self.clock)
        app = make_app(gate=gate, metrics=self.metrics, unready=self._why_not_ready, queues=depths.read)
        return HttpServer(app, self.config)

    def _build(self, database: Database, evaluators: Evaluators) -> Core:
        """What decides, what hands out, and the node among the others."""
        clock, config = self.clock, self.config
        cluster = Cluster(
            database=database,
            clock=clock,
            identity=self._identity(),
            on_lag=self.metrics.deadline_lag_seconds.observe,
            on_drain=self._on_drain,
        )
        epoch = cluster.epoch
        vault = ProcessVault(os.environ, config.secrets_dir)
        dispatcher = Dispatcher(
            clock=clock, outside=cluster, max_payload_bytes=config.max_payload_bytes, vault=vault
        )
        dispatcher.on_redelivered = self._on_redelivered
        plans = Plans(database=database, clock=clock, environment=vault.environment)
        executor = Executor(
            database=database,
            clock=clock,
            plans=plans,
            answers=Answers(database=database, clock=clock, evaluators=evaluators, plans=plans, vault=vault),
            placement=dispatcher,
            epoch=epoch,
            metrics=self.metrics,
        )
        demand = Demand(database=database, clock=clock, epoch=epoch)
        polling = Polling(dispatcher=dispatcher, database=database, clock=clock, demand=demand, epoch=epoch)
        loops = Loops(
            dispatcher=dispatcher,
            database=database,
            clock=clock,
            demand=demand,
            epoch=epoch,
            wanted=lambda: polling.wanted().union(dispatcher.matching.queues()),
        )
        streams = Streams(
            dispatcher=dispatcher,
            loops=loops,
            database=database,
            clock=clock,
            demand=demand,
            epoch=epoch,
            addresses=cluster.node.addresses,
            moved=cluster.hints.session_moved,
            max_message_bytes=config.max_message_bytes,
            max_payload_bytes=config.max_payload_bytes,
        )
        watches = Watches(executor=executor, database=database, clock=clock)
        operations = Operations(
            executor=executor, plans=plans, database=database, clock=clock, watches=watches
        )
        selection = Filters()
        cluster.join(executor=executor, dispatcher=dispatcher, streams=streams, polling=polling)
        return Core(
            database=database,
            plans=plans,
            executor=executor,
            dispatcher=dispatcher,
            streams=streams,
            polling=polling,
            loops=loops,
            cluster=cluster,
            watches=watches,
            retention=Retention(database=database, clock=clock),
            operations=operations,
            evaluators=evaluators,
            selection=selection,
            bulk=BulkRunner(
                operations=operations,
                selection=selection,
                database=database,
                clock=clock,
                epoch=epoch,
                metrics=self.metrics,
            ),
        )

    def _offer(self, server: grpc.aio.Server, core: Core, judge: Judge) -> None:
        """Register the services."""
        database, plans, clock = core.database, core.plans, self.clock
        limits = Limits.of(self.config)
        masks = Masks(plans=plans, authorizer=security.Grants())
        registration.offer(
            server,
            self._health,
            metadata=MetadataService(plans=plans, judge=judge, database=database, clock=clock, limits=limits),
            workflow=WorkflowService(
                starter=Starter(executor=core.executor, plans=plans, database=database, clock=clock),
                operations=core.operations,
                trials=Trials(plans=plans, evaluators=core.evaluators, clock=clock),
                judge=judge,
                database=database,
                watches=core.watches,
                limits=limits,
                masks=masks,
            ),
            bulk=BulkService(
                runner=core.bulk, selection=core.selection, database=database, clock=clock, limits=limits
            ),
            search=SearchService(database=database, clock=clock),
            task=TaskService(
                dispatcher=core.dispatcher,
                streams=core.streams,
                loops=core.loops,
                polling=core.polling,
                database=database,
                clock=clock,
                epoch=core.cluster.epoch,
                limits=limits,
                metrics=self.metrics,
                masks=masks,
            ),
            admin=AdminService(database=database, clock=clock, masks=masks),
        )

    def _identity(self) -> Identity:
        return Identity(
            node_id=self.config.node_id or f"{socket.gethostname()}-{os.getpid()}",
            grpc_address=self.config.advertise_address or self.grpc_address,
            http_address=self.http_address,
            version=__version__,
        )

    # -- while it runs -------------------------------------------------------------------------------

    def _on_drain(self, draining: bool) -> None:
        """An operator retires this node: it lives on, without workers."""
        if draining != self._draining and self._core is not None:
            self._draining = draining
            log.info("draining" if draining else "no longer draining")
            if draining:
                self._core.move_workers(self.config.drain_ms)
            else:
                self._core.dispatcher.stay()

    def _on_redelivered(self, cause: str, count: int) -> None:
        if count:
            self.metrics.redeliveries.labels(cause).inc(count)

    def _why_not_ready(self) -> str | None:
        if self._phase != "serving":
            return self._phase
        if self._core is not None and self._core.cluster.node.degraded:
            return "cut off from the database"
        return "draining" if self._draining else None


@dataclass(slots=True, kw_only=True)
class Core:
    """What is behind the doors."""

    database: Database
    plans: Plans
    executor: Executor
    dispatcher: Dispatcher
    streams: Streams
    polling: Polling
    loops: Loops
    cluster: Cluster
    watches: Watches
    retention: Retention
    operations: Operations
    evaluators: Evaluators
    selection: Selection
    bulk: BulkRunner

    def move_workers(self, drain_ms: int) -> int:
        """Send all workers elsewhere; returns how long, in ms, to wait for them. Where there is no other
        node they have nowhere to go: they get just the time to send what they have finished."""
        others = self.cluster.node.addresses()[1:]
        grace_ms = drain_ms if others else min(ALONE_MS, drain_ms)
        self.dispatcher.move_all(others, grace_ms)
        return grace_ms


class Background:
    """Loops that never end by themselves. One that does is a bug: the server cannot go on without it."""

    def __init__(self, failed: asyncio.Event) -> None:
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []

    def run(self, loop: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(loop, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.critical("a loop has ended", exc_info=task.exception(), extra={"loop": task.get_name()})
            self._failed.set()


class Depths:
    """The depths of all queues, read for `/metrics` and kept for a moment."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._read_ms = 0
        self._depths: list[queue.Depth] = []

    async def read(self) -> list[queue.Depth]:
        """Raises Unavailable."""
        now_ms = self._clock.now_ms()
        if now_ms - self._read_ms >= DEPTHS_KEPT_MS:
            async with self._database.acquire() as connection:
                self._depths = await queue.depths(connection, now_ms=now_ms)
            self._read_ms = now_ms
        return self._depths


def _bind(server: grpc.aio.Server, config: Config) -> str:
    """Bind the gRPC port and return HOST:PORT as it really is. Raises OSError and ConfigError."""
    host, port = split_address(config.grpc_address)
    address = join_address(host, port)
    credentials = security.server_credentials(config)
    try:
        if credentials is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials)
    except RuntimeError:
        bound = 0
    if not bound:
        raise OSError(f"cannot listen on grpc address {address}: it is taken, or not this machine's")
    return join_address(host, bound)


async def _close(database: Database) -> None:
    """Close the connections; cut those that do not end by themselves."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await database.close()
    except TimeoutError:
        database.terminate()


async def _until_empty(dispatcher: Dispatcher, seconds: float) -> None:
    """Until no stream is open, or the time is over. Real time: a stopping server waits for nobody's clock."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while dispatcher.open_sessions() and loop.time() < deadline:
        await asyncio.sleep(LOOK_S)
