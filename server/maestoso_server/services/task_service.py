"""TaskService: the worker stream and its unary twins. Convert, call, convert; no rule lives here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from maestoso.error.v1.error_pb2 import Error
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso.task.v1.task_pb2 import ResultAck, ResultOutcome, TaskTypeOffer
from maestoso.task.v1.task_service_pb2_grpc import TaskServiceServicer

from .. import ids
from ..clock import Clock
from ..dispatch import reports
from ..dispatch.deliveries import Delivery
from ..dispatch.dispatcher import Dispatcher
from ..dispatch.loops import Loops, Named
from ..dispatch.polling import Polling
from ..dispatch.session import Session
from ..dispatch.streams import Streams, invalid, name_fault, queue_name
from ..errors import InvalidArgument, MaestosoError, NotFound, Reason, Unavailable, Violation
from ..store import deliveries, lists, logs
from ..store.database import Database
from ..store.nodes import NodeLost
from ..telemetry import Metrics
from . import convert, limits
from .actions import namespace_of
from .limits import Limits
from .masking import Masks
from .security import caller

POLL_TYPES_MAX = 100
POLL_WAIT_MAX_MS = 60_000
LINES_MAX = 1_000
BUSY_TRIES = 20
"""How often an extension is repeated whose row a commit holds at that moment; each takes a millisecond."""


class TaskService(TaskServiceServicer):
    """Hands tasks to workers and takes their results."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        streams: Streams,
        loops: Loops,
        polling: Polling,
        database: Database,
        clock: Clock,
        epoch: Callable[[], int],
        limits: Limits,
        metrics: Metrics,
        masks: Masks,
    ) -> None:
        self._dispatcher = dispatcher
        self._streams = streams
        self._loops = loops
        self._polling = polling
        self._database = database
        self._clock = clock
        self._epoch = epoch
        self._limits = limits
        self._masks = masks
        self._sessions = metrics.sessions
        self._streamed = metrics.deliveries.labels("stream")
        self._polled = metrics.deliveries.labels("poll")
        self._batch_size = metrics.batch_size.labels("send")
        self._dispatch_seconds = metrics.dispatch_seconds

    # -- the stream ----------------------------------------------------------------------------------

    # Reads and writes the stream itself instead of yielding: what the generated type does not know.
    async def Connect(  # type: ignore[override]
        self, frames: AsyncIterator[wire.ConnectRequest], context: Any
    ) -> None:
        first = await anext(frames)
        if first.WhichOneof("frame") != "hello":
            raise InvalidArgument(Reason.BAD_FRAME, "the first frame is not Hello; send Hello, once")
        self._refuse_when_degraded()
        if self._dispatcher.leaving:
            raise Unavailable(Reason.NODE_STOPPING, "this node takes no more workers; connect to another one")
        namespace = namespace_of(first.hello)
        try:
            session = await self._streams.open(first.hello, namespace=namespace, principal=caller().name)
        except NodeLost:
            raise _rejoining() from None
        self._sessions.inc()
        try:
            await self._carry(session, frames, context)
        finally:
            self._sessions.dec()
            self._dispatcher.ended_stream(session)

    async def _carry(
        self, session: Session, frames: AsyncIterator[wire.ConnectRequest], context: Any
    ) -> None:
        """Read and write until one side ends the stream."""
        wake = asyncio.Event()
        session.wake = wake.set
        session.on_written = self._on_written
        reader = asyncio.get_running_loop().create_task(self._read(session, frames))
        reader.add_done_callback(lambda _: wake.set())
        try:
            await self._write(session, context, wake, reader)
        finally:
            reader.cancel()

    async def _read(self, session: Session, frames: AsyncIterator[wire.ConnectRequest]) -> None:
        receive = self._dispatcher.receive
        async for frame in frames:
            receive(session, frame)

    async def _write(
        self, session: Session, context: Any, wake: asyncio.Event, reader: asyncio.Task[None]
    ) -> None:
        while True:
            wake.clear()
            frames = self._dispatcher.frames(session)
            for frame in frames:
                await context.write(frame)
            if session.closing is not None:
                raise session.closing
            if reader.done():
                reader.result()  # raises what ended it, if it was not the worker's half-close
                return
            if not frames:
                await wake.wait()

    def _on_written(self, deliveries: Sequence[Delivery], now_ms: int) -> None:
        self._streamed.inc(len(deliveries))
        self._batch_size.observe(len(deliveries))
        for delivery in deliveries:
            self._dispatch_seconds.observe(max(0, now_ms - delivery.due_ms) / 1000)

    # -- unary twins -----------------------------------------------------------------------------------

    async def PollTasks(self, request: wire.PollTasksRequest, context: Any) -> wire.PollTasksResponse:
        self._refuse_when_degraded()
        wait_ms = convert.duration_ms(request.wait, "wait", POLL_WAIT_MAX_MS)
        try:
            rows = await self._polling.poll(
                namespace=namespace_of(request),
                queues=_offered(request.task_types),
                worker_id=limits.text(request.worker_id, "worker_id"),
                count=limits.number(request.max_tasks, "max_tasks", 0, self._limits.batch_items) or 1,
                until_ms=self._clock.now_ms() + wait_ms,
            )
        except NodeLost:
            raise _rejoining() from None
        self._polled.inc(len(rows))
        of_taken = self._dispatcher.assignments.of_taken
        return wire.PollTasksResponse(
            tasks=[of_taken(row, ids.make_token(row.workflow_id, row.seq, row.delivery)) for row in rows]
        )

    async def ReportTasks(self, request: wire.ReportTasksRequest, context: Any) -> wire.ReportTasksResponse:
        self._limits.batch(request.results, "results")
        answers = _Answers(request.results)
        named: list[Named] = []
        now_ms = self._clock.now_ms()
        for index, result in enumerate(request.results):
            answer = partial(answers.put, index)
            if result.token:
                self._dispatcher.report(result, None, result.worker_id, answer, now_ms)
            else:
                named.append(Named(result, result.worker_id, answer))
        if named:
            await self._loops.report_named(namespace_of(request), named)
        return wire.ReportTasksResponse(acks=await answers.all())

    async def ExtendTasks(self, request: wire.ExtendTasksRequest, context: Any) -> wire.ExtendTasksResponse:
        self._limits.batch(request.items, "items")
        answers = _Answers(request.items)
        made: dict[int, deliveries.ProgressMade] = {}
        for index, item in enumerate(request.items):
            place = ids.read_token(item.token)
            if place is None:
                answers.put(index, *reports.stale("the token is not one of this server"))
                continue
            try:
                output = self._limits.payload(item.output, "output").raw if item.output else None
            except MaestosoError as refusal:
                answers.put(index, *reports.refused(refusal))
                continue
            made[index] = deliveries.ProgressMade(*place, output)
            self._dispatcher.progressed(item.token)
        await self._extend(made, answers)
        return wire.ExtendTasksResponse(acks=await answers.all())

    async def _extend(self, made: dict[int, deliveries.ProgressMade], answers: _Answers) -> None:
        for _ in range(BUSY_TRIES):
            if not made:
                return
            made = await self._extend_once(made, answers)
            if made:
                await self._clock.sleep_until(self._clock.now_ms() + 1)
        for index in made:
            answers.put(index, *reports.unavailable())

    async def _extend_once(
        self, made: dict[int, deliveries.ProgressMade], answers: _Answers
    ) -> dict[int, deliveries.ProgressMade]:
        """The items whose rows were busy."""
        try:
            async with self._database.acquire() as conn:
                touched = await deliveries.progress(
                    conn, epoch=self._epoch(), items=list(made.values()), now_ms=self._clock.now_ms()
                )
        except NodeLost:
            raise _rejoining() from None
        busy: dict[int, deliveries.ProgressMade] = {}
        for index, item in made.items():
            key = deliveries.Key(item.workflow_id, item.seq)
            if key in touched.done:
                answers.put(index, *reports.ACCEPTED)
            elif key in touched.busy:
                busy[index] = item
            else:
                answers.put(index, *reports.stale("the delivery is over"))
        return busy

    # -- reading ---------------------------------------------------------------------------------------

    async def GetTask(self, request: wire.GetTaskRequest, context: Any) -> wire.GetTaskResponse:
        found = await self._task(request)
        mask = await self._masks.of(
            found.namespace, found.snapshot_id, found.workflow_id, unmask=request.unmask
        )
        return wire.GetTaskResponse(task=convert.task(found.workflow_id, found.row, payloads=True, mask=mask))

    async def ListTaskLogs(
        self, request: wire.ListTaskLogsRequest, context: Any
    ) -> wire.ListTaskLogsResponse:
        size = limits.page_size(request.page_size)
        (after,) = convert.page_position(request.page_token, (0,))
        found = await self._task(request)
        async with self._database.acquire() as conn:
            lines = await logs.read(conn, found.workflow_id, found.row.seq, after=after, limit=size)
        return wire.ListTaskLogsResponse(
            lines=[wire.TaskLogLine(time=convert.timestamp(line.at_ms), line=line.line) for line in lines],
            next_page_token=convert.page_token(lines[-1].id) if len(lines) == size else "",
        )

    async def AddTaskLogs(self, request: wire.AddTaskLogsRequest, context: Any) -> wire.AddTaskLogsResponse:
        if not 1 <= len(request.lines) <= LINES_MAX:
            raise limits.invalid("lines", f"has {len(request.lines)} items; send 1 to {LINES_MAX:,}")
        for index, line in enumerate(request.lines):
            limits.text(line, f"lines[{index}]", reports.LOG_LINE_MAX)
        found = await self._task(request)
        now_ms = self._clock.now_ms()
        async with self._database.acquire() as conn:
            await logs.append(
                conn,
                [logs.NewLine(found.workflow_id, found.row.seq, now_ms, line) for line in request.lines],
            )
        return wire.AddTaskLogsResponse()

    async def _task(self, request: Any) -> lists.FoundTask:
        task_id = limits.uuid(request.task_id, "task_id")
        async with self._database.acquire() as conn:
            found = await lists.get_task(conn, namespace_of(request), *ids.split_task_id(task_id))
        if found is None:
            raise NotFound(Reason.TASK_NOT_FOUND, f"no task {task_id} in namespace {namespace_of(request)!r}")
        return found

    def _refuse_when_degraded(self) -> None:
        if self._dispatcher.degraded:
            raise Unavailable(
                Reason.STORE_UNAVAILABLE,
                "this node cannot reach its database; try another one, or again",
                retry_after_ms=reports.RETRY_LATER_MS,
            )


class _Answers:
    """The acknowledgements of one report, in the order of its items, complete when all are there."""

    def __init__(self, items: Any) -> None:
        self._acks: list[ResultAck | None] = [None] * len(items)
        self._items = items
        self._missing = len(items)
        self._complete = asyncio.Event()

    def put(self, index: int, outcome: ResultOutcome.ValueType, error: Error | None) -> None:
        if self._acks[index] is not None:
            return
        item = self._items[index]
        task_id = "" if item.token else getattr(item, "task_id", "")
        self._acks[index] = ResultAck(token=item.token, outcome=outcome, error=error, task_id=task_id)
        self._missing -= 1
        if not self._missing:
            self._complete.set()

    async def all(self) -> list[ResultAck]:
        await self._complete.wait()
        return [ack for ack in self._acks if ack is not None]


def _offered(offers: Any) -> dict[str, str]:
    """queue -> task type of a poll. Raises InvalidArgument."""
    if not 1 <= len(offers) <= POLL_TYPES_MAX:
        raise limits.invalid("task_types", f"has {len(offers)} items; send 1 to {POLL_TYPES_MAX}")
    faults = [
        Violation(f"task_types[{index}]", fault)
        for index, offer in enumerate(offers)
        if (fault := name_fault(offer.task_type, offer.domain))
    ]
    if faults:
        raise invalid(faults)
    return {_queue(offer): offer.task_type for offer in offers}


def _queue(offer: TaskTypeOffer) -> str:
    return queue_name(offer.task_type, offer.domain)


def _rejoining() -> Unavailable:
    return Unavailable(
        Reason.STORE_UNAVAILABLE,
        "this node lost its place and takes a new one; repeat",
        retry_after_ms=reports.RETRY_LATER_MS,
    )
