"""Runs the tasks that a worker was handed.

An async handler that never has to wait costs no asyncio task of its own: one *runner* task starts
one handler after the other. A handler that does wait keeps the runner's task as its own (so that
`asyncio.current_task()`, time-outs and task groups see one and the same task from its first line
on), and another runner goes on with the rest.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import traceback
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from enum import Enum
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration

from maestoso.task.v1 import task_pb2, task_service_pb2

from . import _json
from ._binding import output
from ._errors import BusinessError, TaskCanceled, TaskError, TaskFailed
from ._session import LINES_A_RESULT, Session, timestamp
from ._task import CallbackAfter, Handler, Slot, TaskContext, bind, slot
from ._threads import Threads

_log = logging.getLogger("maestoso.worker")

TURN_SECONDS = 0.005
"""How long handlers may run one after the other before the loop sees to its streams."""
TALK_SECONDS = 0.1
"""How long log lines and progress of running handlers are collected before they are sent."""
LINE_CHARACTERS = 4_096


class Stop(Enum):
    """Why a handler was told to stop, and so what is said about it afterwards."""

    CANCELLED = "cancelled"
    """The server does not want it any more: nothing is reported, the cancel is answered."""
    REVOKED = "revoked"
    """It belongs to somebody else by now: nothing is said at all."""
    FENCED = "fenced"
    """The worker lost touch with all nodes: reported as failed, or with its result if it ended well."""
    STOPPED = "stopped"
    """The worker's grace is over: the same."""


class Stream(Protocol):
    """Where a delivery came from and its result goes."""

    session: Session

    def wake(self) -> None:
        """There is something to send."""


class Delivery(TaskContext):
    """One delivery from its assignment until its handler has ended."""

    __slots__ = ("handler", "lines", "progress_output", "started", "stop", "stream", "task", "token")

    def __init__(
        self, assignment: task_pb2.Assignment, runner: Runner, stream: Stream, handler: _Prepared
    ) -> None:
        super().__init__(assignment, runner)
        self.token = assignment.token
        self.stream = stream
        self.handler = handler
        self.task: asyncio.Task[None] | None = None
        self.started = 0.0
        self.stop: Stop | None = None
        self.lines: list[tuple[float, str]] = []
        self.progress_output: bytes | None = None


class _Prepared:
    """A handler with what is known about it once its worker starts."""

    __slots__ = ("arguments", "asynchronous", "function")

    def __init__(self, handler: Handler) -> None:
        self.function = handler.function
        self.asynchronous = handler.asynchronous
        self.arguments: Callable[[bytes, object], dict[str, Any]] = bind(handler).arguments


class Runner:
    """Runs at most `concurrency` deliveries at once; more wait for a free slot, in order."""

    def __init__(self, handlers: Iterable[Handler], concurrency: int) -> None:
        self.concurrency = concurrency
        self._handlers = {handler.task_type: _Prepared(handler) for handler in handlers}
        self._by_queue = {handler.queue: self._handlers[handler.task_type] for handler in handlers}
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._threads: Threads[Delivery] = Threads(self._call_plain, self._plain_ended)
        self._deliveries: dict[bytes, Delivery] = {}
        self._waiting: deque[Delivery] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runners = 0  # tasks between two handlers, or inside one that has not waited yet
        self._busy = 0  # handlers that wait, or run in a thread
        self._expect_waits = False  # what the last handler did, the next one probably does too
        self._talking: dict[Delivery, None] = {}
        self._talk_due = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def running(self) -> int:
        """Deliveries that were started and have not ended."""
        return len(self._deliveries) - len(self._waiting)

    # What comes in.

    def start(self, stream: Stream, tasks: Iterable[task_pb2.Assignment]) -> None:
        """Run these, or keep them until a slot is free."""
        for task in tasks:
            handler = self._handlers.get(task.task_type)
            if task.queue:
                handler = self._by_queue.get(task.queue, handler)
            if handler is None:
                stream.session.hand_back([task.token], task_service_pb2.NACK_REASON_UNKNOWN_TYPE)
                stream.wake()
                continue
            delivery = Delivery(task, self, stream, handler)
            self._deliveries[delivery.token] = delivery
            self._waiting.append(delivery)
        self._empty.clear()
        self._go_on()

    def cancel(self, token: bytes, stop: Stop) -> None:
        """Stop a delivery. An async handler is cancelled; a plain one can only be told."""
        delivery = self._deliveries.get(token)
        if delivery is None or delivery.stop is Stop.REVOKED:
            return
        delivery.stop = stop
        delivery._cancel()
        if not delivery.started:
            self._forget(delivery)
            self._say(delivery, None)
        elif delivery.task is not None:
            delivery.task.cancel()
            self._answer(delivery, task_service_pb2.CANCEL_ANSWER_STOPPING)
        else:
            answer = task_service_pb2.CANCEL_ANSWER_NOT_SUPPORTED
            if delivery.watches_cancel:
                answer = task_service_pb2.CANCEL_ANSWER_STOPPING
            self._answer(delivery, answer)

    def cancel_all(self, stop: Stop) -> None:
        """Stop every delivery that runs; those that wait for a slot are not touched."""
        for delivery in list(self._deliveries.values()):
            if delivery.started and delivery.stop is None:
                self.cancel(delivery.token, stop)

    def fence(self, stream: Stream) -> int:
        """Stop what came from a stream, and how many handlers that were.

        What was not started is forgotten: missing in the inventory of a resume it counts as unread.
        """
        stopped = 0
        for delivery in list(self._deliveries.values()):
            if delivery.stream is not stream or delivery.stop is not None:
                continue
            if delivery.started:
                stopped += 1
                self.cancel(delivery.token, Stop.FENCED)
            else:
                self._forget(delivery)
                stream.session.release(delivery.token)
        self._check_empty()
        return stopped

    def _forget(self, delivery: Delivery) -> None:
        self._waiting.remove(delivery)
        del self._deliveries[delivery.token]

    def hand_back_waiting(self) -> None:
        """Give back what was not started."""
        for delivery in list(self._waiting):
            self._forget(delivery)
            delivery.stream.session.hand_back([delivery.token], task_service_pb2.NACK_REASON_DRAINING)
            delivery.stream.wake()
        self._check_empty()

    async def wait_empty(self) -> None:
        """Until no delivery runs or waits."""
        await self._empty.wait()

    def close(self) -> None:
        """Let the threads go. Call it when nothing runs any more, or nobody cares."""
        self._threads.close()

    # Running.

    def _go_on(self) -> None:
        """Have a runner for what waits, or one for each where handlers are known to wait themselves."""
        free = min(len(self._waiting), self.concurrency - self._busy)
        wanted = free if self._expect_waits else min(free, 1)
        while self._runners < wanted:
            self._runners += 1
            context = self._context.copy()
            task = self._loop.create_task(self._run(), context=context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        """Start what waits, one after the other, until one of them has to wait itself."""
        holder = Slot()
        slot.set(holder)
        clean = contextvars.copy_context()
        yield_at = self._loop.time() + TURN_SECONDS
        while self._waiting and self._busy < self.concurrency:
            delivery = self._waiting.popleft()
            delivery.started = time.time()
            holder.context = delivery
            if not delivery.handler.asynchronous:
                self._busy += 1
                self._threads.submit(delivery)
                continue
            result = await self._call(delivery)
            if delivery.task is not None:  # it had to wait: this task was its own
                self._busy -= 1
                self._ended(delivery, result)
                self._go_on()
                return
            self._expect_waits = False
            self._ended(delivery, result)
            if contextvars.copy_context() != clean:  # it left a context variable behind
                break
            if self._loop.time() >= yield_at:
                await asyncio.sleep(0)
                yield_at = self._loop.time() + TURN_SECONDS
        self._runners -= 1
        self._go_on()

    async def _call(self, delivery: Delivery) -> task_pb2.TaskResult:
        try:
            arguments = delivery.handler.arguments(delivery._assignment.input or b"{}", delivery)
            value = await _eager(delivery.handler.function(**arguments), self._waits, delivery)
            return completed(delivery, value)
        except (Exception, asyncio.CancelledError) as error:
            return failed(delivery, error)

    def _waits(self, delivery: Delivery) -> None:
        """A handler has to wait: it keeps this task, another runner takes over."""
        delivery.task = asyncio.current_task()
        self._runners -= 1
        self._busy += 1
        self._expect_waits = True
        self._go_on()

    def _call_plain(self, delivery: Delivery) -> Any:
        """Run a plain handler, in a thread."""
        arguments = delivery.handler.arguments(delivery.raw_input, delivery)
        context = self._context.copy()
        context.run(slot.set, Slot(delivery))
        return context.run(delivery.handler.function, **arguments)

    def _plain_ended(self, delivery: Delivery, value: Any, error: BaseException | None) -> None:
        self._busy -= 1
        result = completed(delivery, value) if error is None else failed(delivery, error)
        self._ended(delivery, result)
        self._go_on()

    # What goes out.

    def _ended(self, delivery: Delivery, result: task_pb2.TaskResult) -> None:
        """The handler has ended."""
        del self._deliveries[delivery.token]
        self._talking.pop(delivery, None)
        self._say(delivery, result)

    def _say(self, delivery: Delivery, result: task_pb2.TaskResult | None) -> None:
        """Report what came of a delivery that is over; None: it was never started."""
        session = delivery.stream.session
        if delivery.stop is Stop.CANCELLED:
            session.release(delivery.token)
            session.answer_cancel(delivery.token, task_service_pb2.CANCEL_ANSWER_STOPPED)
        elif result is not None and delivery.stop is not Stop.REVOKED:
            if delivery.lines:
                self._attach_lines(delivery, result)
            session.report(result)
        delivery.stream.wake()
        self._check_empty()

    def _check_empty(self) -> None:
        if not self._deliveries:
            self._empty.set()

    def _answer(self, delivery: Delivery, answer: task_service_pb2.CancelAnswer.ValueType) -> None:
        if delivery.stop is Stop.CANCELLED:
            delivery.stream.session.answer_cancel(delivery.token, answer)
            delivery.stream.wake()

    # What handlers say while they run, from any thread.

    def progress(self, context: TaskContext, output: bytes) -> None:
        assert isinstance(context, Delivery)
        context.progress_output = output or context.progress_output or b""
        self._talk(context)

    def log(self, context: TaskContext, line: str) -> None:
        assert isinstance(context, Delivery)
        context.lines.append((time.time(), line[:LINE_CHARACTERS]))
        self._talk(context)

    def _talk(self, delivery: Delivery) -> None:
        self._talking[delivery] = None
        if not self._talk_due:
            self._talk_due = True
            self._loop.call_soon_threadsafe(self._loop.call_later, TALK_SECONDS, self._send_talk)

    def _send_talk(self) -> None:
        self._talk_due = False
        talking, self._talking = self._talking, {}
        for delivery in talking:
            session = delivery.stream.session
            if delivery.progress_output is not None:
                session.progress(delivery.token, delivery.progress_output)
                delivery.progress_output = None
            lines, delivery.lines = delivery.lines, []
            for when, line in lines:
                session.log(delivery.token, line, when)
            delivery.stream.wake()

    def _attach_lines(self, delivery: Delivery, result: task_pb2.TaskResult) -> None:
        """The last lines travel with the result, so that they are stored with it."""
        early, last = delivery.lines[:-LINES_A_RESULT], delivery.lines[-LINES_A_RESULT:]
        for when, line in early:
            delivery.stream.session.log(delivery.token, line, when)
        room = LINES_A_RESULT - len(result.logs)
        own = list(result.logs)
        del result.logs[:]
        result.logs.extend([line for _, line in last[-room:]] + own)


@types.coroutine
def _eager(
    coroutine: Coroutine[Any, Any, Any], waits: Callable[[Delivery], None], delivery: Delivery
) -> Generator[Any, Any, Any]:
    """Await a coroutine, and call `waits(delivery)` if and when it first has to wait."""
    try:
        yielded = coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    waits(delivery)
    while True:
        thrown: BaseException | None = None
        try:
            sent = yield yielded
        except BaseException as error:
            thrown = error
        try:
            yielded = coroutine.send(sent) if thrown is None else coroutine.throw(thrown)
        except StopIteration as stop:
            return stop.value


def completed(delivery: Delivery, value: Any) -> task_pb2.TaskResult:
    """The result for what a handler returned."""
    try:
        if isinstance(value, CallbackAfter):
            callback = task_pb2.Callback(after=Duration(seconds=value.seconds), output=output(value.output))
            return task_pb2.TaskResult(
                token=delivery.token, callback=callback, start_time=timestamp(delivery.started)
            )
        return task_pb2.TaskResult(
            token=delivery.token, output=output(value), start_time=timestamp(delivery.started)
        )
    except TaskFailed as error:
        return failed(delivery, error)


def failed(delivery: Delivery, error: BaseException) -> task_pb2.TaskResult:
    """The result for what a handler raised."""
    result = task_pb2.TaskResult(token=delivery.token, start_time=timestamp(delivery.started))
    if isinstance(error, TaskCanceled):
        result.canceled.reason = str(error)
        return result
    failure = result.failure
    failure.message = str(error) or type(error).__name__
    failure.type = type(error).__qualname__[:255]
    if isinstance(error, TaskError):
        _describe(error, failure, result)
    elif isinstance(error, asyncio.CancelledError):
        failure.message = _STOPPED.get(delivery.stop, "the handler cancelled itself")
        failure.type = "WorkerStopped" if delivery.stop in _STOPPED else "CancelledError"
    else:
        _log.warning(
            "handler failed",
            exc_info=error,
            extra={"task_id": delivery.task_id, "workflow_id": delivery.workflow_id},
        )
        result.logs.append("".join(traceback.format_exception(error))[-LINE_CHARACTERS:])
    return result


_STOPPED: Mapping[Stop | None, str] = {
    Stop.FENCED: "the worker lost touch with every node and stopped the handler",
    Stop.STOPPED: "the worker stopped before the handler had ended",
}


def _describe(error: TaskError, failure: task_pb2.Failure, result: task_pb2.TaskResult) -> None:
    """What our own errors say beyond their message."""
    if isinstance(error, BusinessError):
        failure.error_name = error.name
        failure.terminal = True
    elif isinstance(error, TaskFailed):
        failure.terminal = error.terminal
        if error.retry_after is not None:
            failure.retry_after.FromNanoseconds(int(error.retry_after * 1e9))
    kept = getattr(error, "output", None)
    if kept is not None:
        try:
            result.failure_output = _json.dumps(kept)
        except (TypeError, ValueError, RecursionError) as problem:
            failure.message += f" (its output is not JSON: {problem})"
