"""What a handler is, and what it sees of the task that it runs."""

from __future__ import annotations

import datetime
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from maestoso.task.v1 import task_pb2

from . import _json
from ._binding import Binding

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__maestoso_handlers__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A function that runs the tasks of one type, as `@worker` describes it.

    `concurrency` None: it shares the slots of its Worker. `domain` empty: tasks without a domain.
    """

    task_type: str
    function: Callable[..., Any]
    concurrency: int | None = None
    domain: str = ""

    @property
    def queue(self) -> str:
        """The queue that its tasks are taken from."""
        return f"{self.domain}:{self.task_type}" if self.domain else self.task_type

    @property
    def asynchronous(self) -> bool:
        """Whether it runs on the event loop; a plain function runs in a thread."""
        function = self.function
        while isinstance(function, functools.partial):
            function = function.func
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
        )


def worker(task_type: str, *, concurrency: int | None = None, domain: str = "") -> Callable[[F], F]:
    """Mark a function as the handler of a task type. The function itself stays as it is.

    Its parameters say what it gets. One parameter without an annotation, or annotated as a dict, a
    dataclass or a pydantic model, takes the whole input; otherwise each parameter takes the input
    field of its name, and those with a default may be absent. A parameter annotated `TaskContext`
    takes the context. What it returns becomes the output: a dict, a dataclass or a model as it
    is, None as {}, anything else as {"result": value}.

    `concurrency`: at most so many at once in one Worker, apart from its other handlers. `domain`:
    take only tasks that are routed to this domain. The tasks of an isolation group (`isolationGroupId` of
    the task definition) have a queue of their own: for group `gold` of `pay`, the `task_type` here is
    `pay-gold`.
    """
    if not 1 <= len(task_type) <= 255:
        raise ValueError("a task type has 1 to 255 characters")
    if concurrency is not None and concurrency < 1:
        raise ValueError("concurrency is at least 1")

    def mark(function: F) -> F:
        handler = Handler(task_type=task_type, function=function, concurrency=concurrency, domain=domain)
        setattr(function, _MARK, (*getattr(function, _MARK, ()), handler))
        return function

    return mark


def handlers_of(functions: Iterable[Callable[..., Any] | Handler]) -> list[Handler]:
    """The handlers that these functions and methods were marked as, bound to the objects given."""
    handlers: list[Handler] = []
    for function in functions:
        if isinstance(function, Handler):
            handlers.append(function)
            continue
        marks = getattr(function, _MARK, ())
        if not marks:
            raise TypeError(f"{function!r} is not marked with @worker")
        handlers.extend(replace(mark, function=function) for mark in marks)
    return handlers


@dataclass(frozen=True, slots=True)
class CallbackAfter:
    """Returned by a handler that is not finished: hand the task out again after so many seconds.

    `output`: what is known so far, a JSON object. No attempt is spent.
    """

    seconds: int
    output: Mapping[str, Any] = field(default_factory=dict)


class Sink(Protocol):
    """Where the words of a running handler go. Callable from any thread."""

    def progress(self, context: TaskContext, output: bytes) -> None: ...

    def log(self, context: TaskContext, line: str) -> None: ...


class TaskContext:
    """The task that a handler runs: what it is, and a way to talk back.

    An async handler is cancelled like any asyncio task. A plain one runs in a thread that nobody
    can stop: it should look at `cancelled` now and then, or wait on `cancel_event`.
    """

    __slots__ = ("_assignment", "_cancel_event", "_cancelled", "_input", "_sink", "watches_cancel")

    def __init__(self, assignment: task_pb2.Assignment, sink: Sink) -> None:
        self._assignment = assignment
        self._sink = sink
        self._input: Any = _UNREAD
        self._cancelled = False
        self._cancel_event: threading.Event | None = None
        self.watches_cancel = False

    @property
    def task_id(self) -> str:
        """The task's id, a UUID; each attempt has its own."""
        return self._assignment.task_id

    @property
    def workflow_id(self) -> str:
        """Its workflow's id, a UUID."""
        return self._assignment.workflow_id

    @property
    def workflow_name(self) -> str:
        """The definition's name of the workflow."""
        return self._assignment.workflow_name

    @property
    def correlation_id(self) -> str:
        """The workflow's correlation id; empty = none."""
        return self._assignment.correlation_id

    @property
    def task_type(self) -> str:
        """The task type that the handler was registered for."""
        return self._assignment.task_type

    @property
    def reference(self) -> str:
        """The task's name in its workflow, with `__N` inside loops."""
        return self._assignment.reference

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 0."""
        return self._assignment.attempt

    @property
    def redelivery(self) -> int:
        """How often this attempt was handed out before without being read, from 0."""
        return self._assignment.redelivery

    @property
    def priority(self) -> int:
        """0 to 99, higher first."""
        return self._assignment.priority

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts of this task: give it to third parties as their idempotency key."""
        return self._assignment.idempotency_key

    @property
    def runtime_metadata(self) -> dict[str, str]:
        """The values of the names in the task definition's `runtimeMetadata`."""
        return dict(self._assignment.runtime_metadata)

    @property
    def traceparent(self) -> str:
        """W3C trace context of the start call; empty = none."""
        return self._assignment.traceparent

    @property
    def response_timeout(self) -> float | None:
        """Seconds that the server waits for the result or the next `progress()`; None = for ever."""
        if not self._assignment.HasField("response_timeout"):
            return None
        return self._assignment.response_timeout.ToNanoseconds() / 1e9

    @property
    def schedule_time(self) -> datetime.datetime:
        """When the attempt was created, in UTC."""
        return self._assignment.schedule_time.ToDatetime(tzinfo=datetime.UTC)

    @property
    def raw_input(self) -> bytes:
        """The input as it came, a JSON object."""
        return self._assignment.input or b"{}"

    @property
    def input(self) -> Any:
        """The input as a Python value; parsed when first read."""
        if self._input is _UNREAD:
            self._input = _json.loads(self.raw_input)
        return self._input

    @property
    def cancelled(self) -> bool:
        """Whether the task was cancelled: its result is not wanted any more."""
        self.watches_cancel = True
        return self._cancelled

    @property
    def cancel_event(self) -> threading.Event:
        """Is set when the task is cancelled; for plain handlers that wait."""
        self.watches_cancel = True
        if self._cancel_event is None:
            self._cancel_event = threading.Event()
            if self._cancelled:
                self._cancel_event.set()
        return self._cancel_event

    def progress(self, output: Mapping[str, Any] | None = None) -> None:
        """Say that the task is still worked on: its response clock starts anew.

        `output`: a JSON object that is shown on the task; None = as before.
        """
        self._sink.progress(self, b"" if output is None else _json.dumps(output))

    def log(self, line: str) -> None:
        """Append a line to the task's log. Cut at 4,096 characters by the server."""
        self._sink.log(self, line)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._cancel_event is not None:
            self._cancel_event.set()


class Slot:
    """Holds the context of whatever its asyncio task, or thread, runs at the moment."""

    __slots__ = ("context",)

    def __init__(self, context: TaskContext | None = None) -> None:
        self.context = context


slot: ContextVar[Slot] = ContextVar("maestoso_task")


def current_task() -> TaskContext:
    """The task that the calling handler runs. RuntimeError outside of handlers."""
    holder = slot.get(None)
    if holder is None or holder.context is None:
        raise RuntimeError("current_task() is known only inside a handler that a Worker runs")
    return holder.context


def bind(handler: Handler) -> Binding:
    """How the handler's parameters are filled. TypeError where one of them cannot be."""
    return Binding(handler.function, context_type=TaskContext)


_UNREAD: Any = object()
