"""Does the HTTP tasks: a worker like any other, inside the server.

A session for each namespace that has such tasks, opened when the first one is seen, over the same frames
as a worker's stream: so ownership, proof of reading, limits, secrets, drain and redelivery are the ones
of every worker, and nothing of it is written a second time.

    dispatcher ──frames──▶ _Stream ──a coroutine a task──▶ HttpClient ──Results──▶ dispatcher
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

import aiohttp

from maestoso.task.v1 import task_service_pb2 as wire
from maestoso.task.v1.task_pb2 import (
    RESULT_OUTCOME_REFUSED,
    RESULT_OUTCOME_UNAVAILABLE,
    Assignment,
    Capacity,
    Failure,
    ResultAck,
    TaskResult,
    TaskTypeOffer,
)

from ..clock import Clock
from ..dispatch.attempt import attempt
from ..dispatch.dispatcher import Dispatcher
from ..dispatch.reports import CALLBACK_MAX_S
from ..dispatch.session import Session
from ..dispatch.streams import Streams
from ..payload import decode, encode
from ..store import queue
from ..store.database import Database
from .egress import Blocked
from .http_client import HttpClient, TooLarge
from .http_request import HttpRequest, Unusable, is_final, read_request, response_map, why_failed

log = logging.getLogger(__name__)

QUEUE = "HTTP"
LOOK_MS = 5_000
"""How often tasks are looked for that no hint told of: those of a node that has gone."""
AGAIN_MS = 500
"""Pause before a result is reported again that could not be stored."""


class HttpWorker:
    """`run` until cancelled; it closes the client, too."""

    def __init__(
        self,
        *,
        client: HttpClient,
        dispatcher: Dispatcher,
        streams: Streams,
        database: Database,
        clock: Clock,
        concurrency: int,
        max_output_bytes: int,
    ) -> None:
        """`concurrency`: requests under way at once, of all namespaces together."""
        self._client = client
        self._dispatcher = dispatcher
        self._streams = streams
        self._database = database
        self._clock = clock
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._do = _Doing(client, max_output_bytes)
        self._wanted: set[str] = set()
        self._open: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    def waiting(self, namespace: str, queue_name: str) -> None:
        """Rows wait in this queue."""
        if queue_name == QUEUE and namespace not in self._open:
            self._wanted.add(namespace)
            self._news.set()

    async def run(self) -> None:
        """Open a session for each namespace that needs one, for ever."""
        try:
            while True:
                await attempt(self._look)
                until_ms = self._clock.now_ms() + LOOK_MS
                while self._clock.now_ms() < until_ms:
                    await self._clock.wait(self._news, until_ms)
                    self._news.clear()
                    self._start()
        finally:
            for stream in self._open.values():
                stream.cancel()
            await asyncio.gather(*self._open.values(), return_exceptions=True)
            await self._client.close()

    async def _look(self) -> None:
        async with self._database.acquire() as connection:
            self._wanted.update(await queue.namespaces_with(connection, QUEUE))
        self._start()

    def _start(self) -> None:
        if self._dispatcher.leaving or self._dispatcher.degraded:
            return
        for namespace in self._wanted - self._open.keys():
            task = asyncio.get_running_loop().create_task(self._carry(namespace))
            self._open[namespace] = task
            task.add_done_callback(partial(self._closed, namespace))
        self._wanted.clear()

    def _closed(self, namespace: str, _: object) -> None:
        del self._open[namespace]

    async def _carry(self, namespace: str) -> None:
        await attempt(lambda: self._stream(namespace))

    async def _stream(self, namespace: str) -> None:
        hello = wire.Hello(
            worker_id="maestoso-server",
            task_types=[TaskTypeOffer(task_type=QUEUE)],
            capacity=Capacity(tasks=self._concurrency),
            sdk="maestoso-server",
        )
        session = await self._streams.open(hello, namespace=namespace, principal="")
        stream = _Stream(session, self._dispatcher, self._clock, self._slots, self._do)
        try:
            await stream.run()
        finally:
            await stream.end()
            self._dispatcher.ended_stream(session)


class _Stream:
    """One session's frames, and the tasks that it holds."""

    def __init__(
        self,
        session: Session,
        dispatcher: Dispatcher,
        clock: Clock,
        slots: asyncio.Semaphore,
        do: _Doing,
    ) -> None:
        self._session = session
        self._dispatcher = dispatcher
        self._clock = clock
        self._slots = slots
        self._do = do
        self._wake = asyncio.Event()
        session.wake = self._wake.set
        self._running: dict[bytes, asyncio.Task[None]] = {}
        self._results: dict[bytes, TaskResult] = {}
        """Reported, and not yet answered."""
        self._leaving = False

    async def run(self) -> None:
        """Until the server ends the stream, or has asked for its end and nothing is held any more."""
        while self._session.closing is None:
            self._wake.clear()
            frames = self._dispatcher.frames(self._session)
            for frame in frames:
                self._read(frame)
            if self._leaving and not self._running and not self._results:
                return
            if not frames:
                await self._wake.wait()

    async def end(self) -> None:
        """Stop what still runs: the tasks go out again, to whoever takes them then."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _read(self, frame: wire.ConnectResponse) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "ping":
            self._send(pong=wire.Pong(number=frame.ping.number))
        elif kind == "tasks":
            for token in frame.tasks.accepted:
                self._results.pop(token, None)
            for task in frame.tasks.tasks:
                self._begin(task.token, self._run(task))
        elif kind == "acks":
            for token in frame.acks.accepted:
                self._results.pop(token, None)
            for ack in frame.acks.acks:
                self._answered(ack)
        elif kind == "cancels":
            for cancel in frame.cancels.cancels:
                self._cancel(cancel.token)
        elif kind == "drain" or (kind == "move" and frame.move.HasField("grace")):
            self._leaving = True

    def _begin(self, token: bytes, work: Any) -> None:
        self._running[token] = task = asyncio.get_running_loop().create_task(work)

        def ended(_: object) -> None:
            if self._running.get(token) is task:
                del self._running[token]
            self._wake.set()

        task.add_done_callback(ended)

    async def _run(self, task: Assignment) -> None:
        async with self._slots:
            result = await self._do(task)
        self._report(result)

    def _report(self, result: TaskResult) -> None:
        self._results[result.token] = result
        self._send(results=wire.Results(results=[result]))

    def _answered(self, ack: ResultAck) -> None:
        result = self._results.pop(ack.token, None)
        if result is None:
            return
        if ack.outcome == RESULT_OUTCOME_UNAVAILABLE:
            self._begin(ack.token, self._report_later(result))
        elif ack.outcome == RESULT_OUTCOME_REFUSED and result.WhichOneof("result") != "failure":
            self._report(_failed(ack.token, f"the output was refused: {ack.error.message}", final=True))

    async def _report_later(self, result: TaskResult) -> None:
        await self._clock.sleep_until(self._clock.now_ms() + AGAIN_MS)
        self._report(result)

    def _cancel(self, token: bytes) -> None:
        self._results.pop(token, None)
        running = self._running.pop(token, None)
        answer = wire.CANCEL_ANSWER_NOT_FOUND if running is None else wire.CANCEL_ANSWER_STOPPED
        if running is not None:
            running.cancel()
        item = wire.CancelAnswerItem(token=token, answer=answer)
        self._send(cancel_answers=wire.CancelAnswers(answers=[item]))

    def _send(self, **frame: Any) -> None:
        self._dispatcher.receive(self._session, wire.ConnectRequest(**frame))
        self._wake.set()


class _Doing:
    """One task, from its input to its result. What was sent and what came is never logged."""

    def __init__(self, client: HttpClient, max_output_bytes: int) -> None:
        self._client = client
        self._max_output_bytes = max_output_bytes

    async def __call__(self, task: Assignment) -> TaskResult:
        """Whatever goes wrong fails the attempt, at once (B2)."""
        try:
            return await self._done(task)
        except (Unusable, Blocked) as error:
            return _failed(task.token, f"Failed to invoke HTTP task due to: {error}", final=True)
        except TooLarge as error:
            return _failed(task.token, f"Failed to invoke HTTP task due to: {error}")
        except TimeoutError as error:
            told = str(error) or "the time for the answer is over"
            return _failed(task.token, f"Failed to invoke HTTP task due to: {told}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            told = str(error) or type(error).__name__
            return _failed(task.token, f"Failed to invoke HTTP task due to: {told}")
        except Exception as error:
            log.error("an HTTP task failed by a bug", extra={"kind": type(error).__name__})
            return _failed(task.token, f"Failed to invoke HTTP task due to: {type(error).__name__}")

    async def _done(self, task: Assignment) -> TaskResult:
        request = read_request(decode(task.input))
        answer = await self._client.send(request)
        output = encode({"response": response_map(answer)})
        if len(output) > self._max_output_bytes:
            raise TooLarge(
                f"the answer ({answer.status}) makes an output of {len(output):,} bytes; "
                f"{self._max_output_bytes:,} are accepted"
            )
        why = why_failed(answer)
        if why:
            failed = _failed(task.token, why, final=is_final(request, answer))
            failed.failure_output = output
            return failed
        return _succeeded(task.token, request, output)


def _succeeded(token: bytes, request: HttpRequest, output: bytes) -> TaskResult:
    if not request.async_complete:
        return TaskResult(token=token, output=output)
    waits = TaskResult(token=token)
    waits.callback.after.FromSeconds(CALLBACK_MAX_S)
    waits.callback.output = output
    return waits


def _failed(token: bytes, message: str, *, final: bool = False) -> TaskResult:
    return TaskResult(token=token, failure=Failure(message=message, terminal=final))
