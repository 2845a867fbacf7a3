"""A Worker against nodes that a test scripts: what it runs, says, keeps and gives back."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from maestoso import (
    BusinessError,
    CallbackAfter,
    PermissionDenied,
    TaskCanceled,
    TaskContext,
    TaskFailed,
    Worker,
    _worker,
    current_task,
    worker,
)
from maestoso.error.v1 import error_pb2
from maestoso.task.v1 import task_pb2
from maestoso.task.v1 import task_service_pb2 as frames
from scripted_node import DEADLINE_SECONDS, Node, Stream, ack, assignment, cluster

FENCE_SECONDS = 0.8
"""A fence short enough to wait for."""


@worker("greet")
async def greet(name: str = "you") -> dict[str, str]:
    return {"hello": name}


class Gate:
    """A handler that waits inside until the test lets it go."""

    def __init__(self) -> None:
        self.entered = asyncio.Queue[TaskContext]()
        self.cancelled = asyncio.Event()
        self.open = asyncio.Event()

    @worker("gate")
    async def handle(self) -> str:
        self.entered.put_nowait(current_task())
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "through"

    async def next(self) -> TaskContext:
        """The next task that has come inside."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.entered.get()


class PlainGate:
    """The same as a plain function, in a thread."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    @worker("gate")
    def handle(self) -> str:
        self.entered.set()
        self.open.wait(DEADLINE_SECONDS)
        return "through"

    @worker("watching")
    def watch(self, context: TaskContext) -> str:
        event = context.cancel_event
        self.entered.set()
        event.wait(DEADLINE_SECONDS)
        return "stopped"


@asynccontextmanager
async def serving(
    *handlers: Callable[..., Any], fence: float | None = None, **options: Any
) -> AsyncIterator[tuple[Node, Stream, Worker]]:
    """One node and a worker that it has welcomed."""
    async with cluster() as (node,):
        node.fence_after = fence
        running = Worker(node.address, handlers, **options)
        async with running:
            yield node, await node.stream(), running


async def within(event: asyncio.Event, seconds: float = DEADLINE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        await event.wait()


def cancel(token: bytes) -> frames.ConnectResponse:
    item = frames.Cancel(token=token, reason=frames.CANCEL_REASON_WORKFLOW_ENDED)
    return frames.ConnectResponse(cancels=frames.Cancels(cancels=[item]))


def move(reason: frames.MoveReason.ValueType, *nodes: str) -> frames.ConnectResponse:
    return frames.ConnectResponse(move=frames.Move(reason=reason, nodes=nodes))


# Running tasks.


async def test_worker_says_who_it_is_and_what_it_runs() -> None:
    async with serving(greet, worker_id="w-1", labels={"zone": "a"}, api_key="k.s", concurrency=5) as (
        _,
        stream,
        _,
    ):
        hello = stream.hello
        assert (hello.namespace, hello.worker_id, dict(hello.labels)) == ("default", "w-1", {"zone": "a"})
        assert [offer.task_type for offer in hello.task_types] == ["greet"]
        assert hello.capacity.tasks == 5
        assert hello.sdk.startswith("maestoso-python/")
        assert stream.metadata["authorization"] == "Bearer k.s"


async def test_results_of_a_batch_travel_together() -> None:
    async with serving(greet) as (_, stream, _):
        tokens = [bytes([number]) for number in range(10)]
        stream.assign(*(assignment(token, input=b'{"name":"Ada"}') for token in tokens))

        first = await stream.expect("results")

        assert [result.token for result in first.results] == tokens
        assert {result.output for result in first.results} == {b'{"hello":"Ada"}'}
        stream.accept(*tokens)


async def test_plain_functions_run_in_threads() -> None:
    main_thread = threading.get_ident()

    @worker("where")
    def where() -> dict[str, Any]:
        return {"elsewhere": threading.get_ident() != main_thread, "task": current_task().task_id}

    async with serving(where) as (_, stream, _):
        stream.assign(assignment(b"a", "where"))

        [result] = await stream.expect_results(1)

        assert result.output == b'{"elsewhere":true,"task":"61"}'
        stream.accept(b"a")


async def test_context_tells_what_the_task_is() -> None:
    seen: list[TaskContext] = []

    @worker("look")
    async def look(context: TaskContext) -> None:
        assert context is current_task()
        seen.append(context)

    async with serving(look) as (_, stream, _):
        task = assignment(b"a", "look", b'{"n":1}', attempt=2, idempotency_key="key", traceparent="00-1")
        task.response_timeout.FromSeconds(30)
        stream.assign(task)
        await stream.expect_results(1)

        [context] = seen
        assert (context.attempt, context.idempotency_key, context.traceparent) == (2, "key", "00-1")
        assert (context.input, context.response_timeout, context.cancelled) == ({"n": 1}, 30.0, False)
        stream.accept(b"a")


async def test_ping_is_answered_while_handlers_wait() -> None:
    gate = Gate()
    async with serving(gate.handle) as (_, stream, _):
        stream.assign(assignment(b"a", "gate"))
        await gate.next()

        await stream.ping(7)

        gate.open.set()
        await stream.expect_results(1)
        stream.accept(b"a")


async def test_handler_that_waits_keeps_one_asyncio_task_from_its_first_line() -> None:
    @worker("same")
    async def same() -> bool:
        before = asyncio.current_task()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.sleep(0)
        return before is asyncio.current_task()

    async with serving(same) as (_, stream, _):
        stream.assign(*(assignment(bytes([number]), "same") for number in range(3)))

        results = await stream.expect_results(3)

        assert {result.output for result in results} == {b'{"result":true}'}
        stream.accept(*(result.token for result in results))


async def test_time_out_inside_a_handler_ends_that_handler_alone() -> None:
    gate = Gate()

    @worker("impatient")
    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async with serving(impatient, gate.handle) as (_, stream, _):
        stream.assign(assignment(b"g", "gate"), assignment(b"i", "impatient"))

        [failed] = await stream.expect_results(1)
        assert (failed.token, failed.failure.type) == (b"i", "TimeoutError")

        gate.open.set()
        [fine] = await stream.expect_results(1)
        assert fine.output == b'{"result":"through"}'
        stream.accept(b"i", b"g")


async def test_context_variables_do_not_leak_into_the_next_handler() -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")

    @worker("leak")
    async def leak() -> str:
        before = tenant.get()
        tenant.set("somebody")
        return before

    async with serving(leak) as (_, stream, _):
        stream.assign(*(assignment(bytes([number]), "leak") for number in range(3)))

        results = await stream.expect_results(3)

        assert {result.output for result in results} == {b'{"result":"nobody"}'}
        stream.accept(*(result.token for result in results))


async def test_no_more_handlers_run_than_there_are_slots() -> None:
    gate = Gate()
    async with serving(gate.handle, concurrency=2) as (_, stream, _):
        stream.assign(*(assignment(bytes([number]), "gate") for number in range(5)))
        await gate.next()
        await gate.next()
        await stream.ping()
        assert gate.entered.empty()

        gate.open.set()

        assert len(await stream.expect_results(5)) == 5
        stream.accept(*(bytes([number]) for number in range(5)))


async def test_unknown_task_type_is_handed_back() -> None:
    async with serving(greet) as (_, stream, _):
        stream.assign(assignment(b"a", "unheard"))

        nacks = (await stream.expect("nacks")).nacks

        assert [(nack.token, nack.reason) for nack in nacks] == [(b"a", frames.NACK_REASON_UNKNOWN_TYPE)]


async def test_handler_with_its_own_concurrency_has_a_stream_of_its_own() -> None:
    @worker("rare", concurrency=1)
    async def rare() -> None: ...

    async with cluster() as (node,), Worker(node.address, [greet, rare], concurrency=9):
        streams = [await node.stream(), await node.stream()]

        offers = {stream.hello.task_types[0].task_type: stream.hello.capacity.tasks for stream in streams}
        assert offers == {"greet": 9, "rare": 1}


async def test_one_type_in_two_domains_has_two_streams() -> None:
    @worker("greet", domain="fr")
    async def salue() -> str:
        return "salut"

    async with cluster() as (node,), Worker(node.address, [greet, salue]):
        streams = [await node.stream(), await node.stream()]
        by_domain = {stream.hello.task_types[0].domain: stream for stream in streams}
        by_domain["fr"].assign(assignment(b"a"))

        [result] = await by_domain["fr"].expect_results(1)

        assert result.output == b'{"result":"salut"}'
        by_domain["fr"].accept(b"a")


# Errors.


async def raising(error: BaseException) -> task_pb2.TaskResult:
    """The result of a handler that raises."""

    @worker("raise")
    async def fail() -> None:
        raise error

    async with serving(fail) as (_, stream, _):
        stream.assign(assignment(b"a", "raise"))
        [result] = await stream.expect_results(1)
        stream.accept(b"a")
        return result


async def test_unexpected_error_is_a_failure_that_may_be_retried() -> None:
    result = await raising(KeyError("order"))

    assert (result.failure.message, result.failure.type) == ("'order'", "KeyError")
    assert not result.failure.terminal
    assert "Traceback" in result.logs[0]


async def test_task_failed_says_what_it_wants() -> None:
    result = await raising(TaskFailed("no", terminal=True, retry_after=1.5, output={"a": 1}))

    assert (result.failure.message, result.failure.terminal) == ("no", True)
    assert result.failure.retry_after.ToMilliseconds() == 1500
    assert result.failure_output == b'{"a":1}'
    assert list(result.logs) == []


async def test_business_error_travels_by_name() -> None:
    result = await raising(BusinessError("CARD_DECLINED", output={"code": 5}))

    assert (result.failure.error_name, result.failure.terminal) == ("CARD_DECLINED", True)
    assert result.failure_output == b'{"code":5}'


async def test_output_of_an_error_that_is_not_json_does_not_hide_the_error() -> None:
    result = await raising(TaskFailed("no", output={"a": object()}))

    assert result.failure.message.startswith("no (its output is not JSON")


async def test_handler_can_refuse_a_task() -> None:
    result = await raising(TaskCanceled("not today"))

    assert result.canceled.reason == "not today"


async def test_handler_can_ask_to_be_called_again() -> None:
    @worker("later")
    async def later() -> CallbackAfter:
        return CallbackAfter(60, {"seen": 1})

    async with serving(later) as (_, stream, _):
        stream.assign(assignment(b"a", "later"))
        [result] = await stream.expect_results(1)

        assert (result.callback.after.seconds, result.callback.output) == (60, b'{"seen":1}')
        stream.accept(b"a")


async def test_input_that_does_not_fit_fails_for_good() -> None:
    async with serving(greet) as (_, stream, _):
        stream.assign(assignment(b"a", input=b'{"name":1}'))
        [result] = await stream.expect_results(1)

        assert result.failure.terminal
        assert result.failure.message == "input.name must be a string, not an integer"
        stream.accept(b"a")


async def test_output_that_is_not_json_fails_for_good() -> None:
    @worker("nan")
    def nan() -> float:
        return float("nan")

    async with serving(nan) as (_, stream, _):
        stream.assign(assignment(b"a", "nan"))
        [result] = await stream.expect_results(1)

        assert (result.failure.type, result.failure.terminal) == ("InvalidOutput", True)
        stream.accept(b"a")


async def test_handler_that_can_never_be_called_is_refused_when_the_worker_is_made() -> None:
    @worker("bad")
    async def bad(file: memoryview) -> None: ...

    with pytest.raises(TypeError, match="memoryview"):
        Worker("127.0.0.1:1", [bad])


# Progress and logs.


async def test_progress_and_lines_of_a_running_handler_are_sent() -> None:
    gate = Gate()

    @worker("talk")
    async def talk() -> None:
        current_task().progress({"done": 1})
        current_task().log("half way")
        await gate.open.wait()
        current_task().log("there")

    async with serving(talk) as (_, stream, _):
        stream.assign(assignment(b"a", "talk"))

        [item] = (await stream.expect("progress")).items
        [line] = (await stream.expect("logs")).lines
        assert (item.token, item.output) == (b"a", b'{"done":1}')
        assert (line.token, line.line) == (b"a", "half way")

        gate.open.set()
        [result] = await stream.expect_results(1)
        assert list(result.logs) == ["there"], "the last lines travel with the result"
        stream.accept(b"a")


async def test_plain_handlers_talk_too() -> None:
    gate = PlainGate()

    @worker("talk")
    def talk() -> None:
        current_task().progress()
        gate.open.wait(DEADLINE_SECONDS)

    async with serving(talk) as (_, stream, _):
        stream.assign(assignment(b"a", "talk"))

        [item] = (await stream.expect("progress")).items

        assert (item.token, item.output) == (b"a", b"")
        gate.open.set()
        await stream.expect_results(1)
        stream.accept(b"a")


# Cancels.


async def answers(stream: Stream, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found.extend(item.answer for item in (await stream.expect("cancel_answers")).answers)
    return found


async def test_cancelled_handler_stops_and_reports_nothing() -> None:
    gate = Gate()
    async with serving(gate.handle) as (_, stream, _):
        stream.assign(assignment(b"a", "gate"))
        await gate.next()

        stream.send(cancel(b"a"))

        assert await answers(stream, 2) == [frames.CANCEL_ANSWER_STOPPING, frames.CANCEL_ANSWER_STOPPED]
        assert gate.cancelled.is_set()
        await stream.ping()
        assert all(frame.WhichOneof("frame") != "results" for frame in stream.frames)


async def test_cancelled_task_that_waits_for_a_slot_never_runs() -> None:
    gate = Gate()
    async with serving(gate.handle, concurrency=1) as (_, stream, _):
        stream.assign(assignment(b"a", "gate"), assignment(b"b", "gate"))
        await gate.next()

        stream.send(cancel(b"b"))

        assert await answers(stream, 1) == [frames.CANCEL_ANSWER_STOPPED]
        gate.open.set()
        [result] = await stream.expect_results(1)
        assert result.token == b"a"
        assert gate.entered.empty()
        stream.accept(b"a")


async def test_plain_handler_that_watches_is_told() -> None:
    gate = PlainGate()
    async with serving(gate.watch) as (_, stream, _):
        stream.assign(assignment(b"a", "watching"))
        await asyncio.to_thread(gate.entered.wait, DEADLINE_SECONDS)

        stream.send(cancel(b"a"))

        assert await answers(stream, 2) == [frames.CANCEL_ANSWER_STOPPING, frames.CANCEL_ANSWER_STOPPED]


async def test_plain_handler_that_does_not_watch_cannot_be_stopped() -> None:
    gate = PlainGate()
    async with serving(gate.handle) as (_, stream, _):
        stream.assign(assignment(b"a", "gate"))
        await asyncio.to_thread(gate.entered.wait, DEADLINE_SECONDS)

        stream.send(cancel(b"a"))

        assert await answers(stream, 1) == [frames.CANCEL_ANSWER_NOT_SUPPORTED]
        gate.open.set()
        assert await answers(stream, 1) == [frames.CANCEL_ANSWER_STOPPED]


# Streams that end.


async def test_lost_stream_is_resumed_with_what_is_held() -> None:
    gate = Gate()
    async with serving(gate.handle, greet) as (node, stream, _):
        stream.assign(assignment(b"g", "gate"), assignment(b"r"))
        await stream.expect_results(1)
        await gate.next()

        stream.end(grpc.StatusCode.UNAVAILABLE)
        second = await node.stream()

        assert second.hello.session_id == stream.welcome.session_id
        assert sorted(second.hello.held) == [b"g", b"r"]
        [again] = await second.expect_results(1)
        assert again.token == b"r", "a result is kept until it is acknowledged"
        gate.open.set()
        [late] = await second.expect_results(1)
        assert late.token == b"g"
        second.accept(b"r", b"g")


async def test_acknowledged_results_are_not_sent_again() -> None:
    async with serving(greet) as (node, stream, _):
        stream.assign(assignment(b"a"))
        await stream.expect_results(1)
        stream.accept(b"a")
        await stream.ping()

        stream.end()
        second = await node.stream()

        assert list(second.hello.held) == []
        await second.ping()
        assert all(frame.WhichOneof("frame") != "results" for frame in second.frames)


async def test_revoked_handler_is_stopped_and_never_reported() -> None:
    gate = Gate()
    async with serving(gate.handle) as (node, stream, _):
        stream.assign(assignment(b"a", "gate"))
        await gate.next()
        node.sessions.deliveries[stream.welcome.session_id].clear()

        stream.end()
        second = await node.stream()

        assert list(second.welcome.revoked) == [b"a"]
        await within(gate.cancelled)
        await second.ping()
        assert all(frame.WhichOneof("frame") in ("pong", "capacity") for frame in second.frames)


async def test_expired_session_begins_anew() -> None:
    gate = Gate()
    async with serving(gate.handle) as (node, stream, _):
        stream.assign(assignment(b"a", "gate"))
        await gate.next()
        node.sessions.expire(stream.welcome.session_id)

        stream.end()
        second = await node.stream()

        assert not second.welcome.resumed
        await within(gate.cancelled)


async def test_superseded_session_is_not_resumed() -> None:
    async with serving(greet) as (node, stream, _):
        stream.end(grpc.StatusCode.ABORTED)

        second = await node.stream()

        assert second.hello.session_id == ""


async def test_result_that_the_server_could_not_store_is_sent_again() -> None:
    async with serving(greet) as (_, stream, _):
        stream.assign(assignment(b"a"))
        await stream.expect_results(1)

        unavailable = ack(b"a", task_pb2.RESULT_OUTCOME_UNAVAILABLE, "no database")
        stream.send(frames.ConnectResponse(acks=frames.ResultAcks(acks=[unavailable])))

        [again] = await stream.expect_results(1)
        assert again.token == b"a"
        stream.accept(b"a")


async def test_worker_waits_for_a_server_that_is_not_there_yet() -> None:
    async with cluster() as (node,):
        await node.stop()
        running = Worker(node.address, [greet])
        task = asyncio.create_task(running.run())
        await node.start_again()

        stream = await node.stream()

        await stream.ping()
        running.stop()
        await asyncio.wait_for(task, DEADLINE_SECONDS)


async def test_first_refusal_is_raised() -> None:
    async with cluster() as (node,):
        node.refuse = grpc.StatusCode.PERMISSION_DENIED
        node.trailer = error_pb2.Error(reason=error_pb2.REASON_PERMISSION_DENIED, message="not you")

        with pytest.raises(PermissionDenied, match="not you") as refusal:
            await Worker(node.address, [greet]).run()

        assert refusal.value.reason == "PERMISSION_DENIED"


async def test_later_refusal_is_borne() -> None:
    async with serving(greet) as (node, stream, running):
        before = node.hellos
        node.refuse = grpc.StatusCode.UNAUTHENTICATED
        stream.end()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while node.hellos < before + 2:  # it came again after a refusal
                await asyncio.sleep(0.01)
        node.refuse = None

        second = await node.stream()

        assert second.hello.session_id == stream.welcome.session_id
        assert running is not None


# Several nodes.


async def test_worker_holds_a_stream_to_every_node() -> None:
    async with cluster(3) as nodes, Worker(nodes[0].address, [greet], concurrency=9):
        streams = [await node.stream() for node in nodes]

        assert len({stream.welcome.session_id for stream in streams}) == 3
        await declared(streams, 9)


async def declared(streams: list[Stream], total: int) -> list[int]:
    """The capacities that the streams have declared last, once they add up."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            shares = [_capacity(stream) for stream in streams]
            if sum(shares) == total and min(shares) > 0:
                return shares
            await asyncio.sleep(0.01)


def _capacity(stream: Stream) -> int:
    said = [frame.capacity.tasks for frame in stream.frames if frame.WhichOneof("frame") == "capacity"]
    return said[-1] if said else stream.hello.capacity.tasks


async def test_idle_slots_move_to_the_stream_that_receives_work() -> None:
    gate = Gate()
    async with cluster(2) as nodes, Worker(nodes[0].address, [gate.handle], concurrency=10):
        busy, quiet = [await node.stream() for node in nodes]
        assert await declared([busy, quiet], 10) == [5, 5]
        tokens = [bytes([number]) for number in range(5)]

        busy.assign(*(assignment(token, "gate") for token in tokens))

        async with asyncio.timeout(DEADLINE_SECONDS):
            while _capacity(busy) < 8:
                await asyncio.sleep(0.01)
        assert sum(await declared([busy, quiet], 10)) == 10
        gate.open.set()
        await busy.expect_results(5)
        busy.accept(*tokens)


async def test_new_node_gets_a_stream() -> None:
    async with cluster(2) as (first, second):
        first.nodes = [first.address]
        async with Worker(first.address, [greet]):
            stream = await first.stream()

            nodes = frames.Nodes(addresses=[first.address, second.address])
            stream.send(frames.ConnectResponse(nodes=nodes))

            assert (await second.stream()).hello.session_id == ""


async def test_session_of_a_killed_node_is_resumed_at_another() -> None:
    gate = Gate()
    async with cluster(2) as (first, second), Worker(first.address, [gate.handle]):
        stream = await first.stream()
        own = await second.stream()
        stream.assign(assignment(b"a", "gate"))
        await gate.next()

        await first.stop()
        resumed = await second.stream()

        assert resumed.hello.session_id == stream.welcome.session_id
        assert list(resumed.hello.held) == [b"a"]
        gate.open.set()
        [result] = await resumed.expect_results(1)
        assert result.token == b"a"
        resumed.accept(b"a")
        await resumed.wait_ended()  # a guest leaves when nothing is held
        await own.ping()


async def test_move_opens_the_new_stream_before_the_old_one_ends() -> None:
    gate = Gate()
    async with cluster(2) as (first, second):
        first.nodes = [first.address]
        async with Worker(first.address, [gate.handle]):
            stream = await first.stream()
            stream.assign(assignment(b"a", "gate"))
            await gate.next()

            stream.send(move(frames.MOVE_REASON_STOPPING, second.address))
            moved = await second.stream()

            assert moved.hello.session_id == stream.welcome.session_id
            assert list(moved.hello.held) == [b"a"]
            await stream.wait_ended()
            assert not gate.cancelled.is_set()
            gate.open.set()
            [result] = await moved.expect_results(1)
            assert result.token == b"a"
            moved.accept(b"a")


async def test_move_takes_along_what_was_not_acknowledged() -> None:
    tokens = [b"%03d" % number for number in range(200)]

    @worker("slow")
    async def slow(context: TaskContext) -> None:
        for _ in range(5 * int(bytes.fromhex(context.task_id))):
            await asyncio.sleep(0)  # so that results come in every turn of the loop, while it moves too

    async with cluster(2) as (first, second):
        first.nodes = [first.address]
        async with Worker(first.address, [slow], concurrency=len(tokens)):
            stream = await first.stream()
            stream.assign(*(assignment(token, "slow") for token in tokens))
            await stream.expect("results")

            stream.send(move(frames.MOVE_REASON_STOPPING, second.address))
            moved = await second.stream()

            results = await moved.expect_results(len(tokens))
            assert sorted(result.token for result in results) == tokens
            moved.accept(*tokens)


async def test_worker_stays_where_no_other_node_answers() -> None:
    async with cluster(2) as (first, second):
        first.nodes = [first.address]
        await second.stop()
        async with Worker(first.address, [greet]):
            stream = await first.stream()

            stream.send(move(frames.MOVE_REASON_STOPPING, second.address))
            stream.assign(assignment(b"a"))

            [result] = await stream.expect_results(1)
            assert result.token == b"a"
            await stream.ping()
            stream.accept(b"a")


# The fence.


async def test_worker_that_loses_every_node_stops_its_handlers_and_says_so_later() -> None:
    gate = Gate()
    async with serving(gate.handle, fence=FENCE_SECONDS) as (node, stream, _):
        stream.assign(assignment(b"a", "gate"))
        await gate.next()

        await node.stop()
        await within(gate.cancelled)
        await node.start_again()
        second = await node.stream()

        assert list(second.hello.held) == [b"a"]
        [result] = await second.expect_results(1)
        assert (result.token, result.failure.type) == (b"a", "WorkerStopped")
        assert not result.failure.terminal
        second.accept(b"a")


async def test_task_that_was_not_started_is_missing_in_the_inventory_after_the_fence() -> None:
    gate = Gate()
    async with serving(gate.handle, fence=FENCE_SECONDS, concurrency=1) as (node, stream, _):
        stream.assign(assignment(b"a", "gate"), assignment(b"b", "gate"))
        await gate.next()

        await node.stop()
        await within(gate.cancelled)
        await node.start_again()
        second = await node.stream()

        assert list(second.hello.held) == [b"a"]
        assert gate.entered.empty()
        await second.expect_results(1)
        second.accept(b"a")


async def test_worker_told_that_the_node_is_degraded_does_not_fence_itself() -> None:
    gate = Gate()
    async with serving(gate.handle, fence=FENCE_SECONDS) as (node, stream, _):
        stream.assign(assignment(b"a", "gate"))
        await gate.next()
        stream.send(move(frames.MOVE_REASON_DEGRADED))
        await stream.ping()

        await node.stop()
        with pytest.raises(TimeoutError):
            await within(gate.cancelled, 2 * FENCE_SECONDS)
        await node.start_again()
        second = await node.stream()

        gate.open.set()
        [result] = await second.expect_results(1)
        assert result.output == b'{"result":"through"}'
        second.accept(b"a")


async def test_silent_stream_is_replaced() -> None:
    async with cluster() as (node,):
        node.fence_after = FENCE_SECONDS
        node.silent = True
        async with Worker(node.address, [greet]):
            stream = await node.stream()

            second = await node.stream()  # nobody said a word on the first one

            assert second.hello.session_id == stream.welcome.session_id


async def test_session_of_a_node_that_stands_still_is_resumed_at_another_before_the_fence_closes() -> None:
    gate = Gate()
    async with cluster(2) as (first, second):
        first.fence_after = second.fence_after = 2.0
        first.silent = True
        async with Worker(first.address, [gate.handle]):
            stream = await first.stream()
            await second.stream()
            stream.assign(assignment(b"a", "gate"))
            await gate.next()

            first.standing_still = True
            resumed = await second.stream()

            assert resumed.hello.session_id == stream.welcome.session_id
            assert list(resumed.hello.held) == [b"a"]
            assert not gate.cancelled.is_set()


# Stopping.


async def test_drain_finishes_hands_back_and_waits_for_the_last_acknowledgement() -> None:
    gate = Gate()
    async with cluster() as (node,):
        running = Worker(node.address, [gate.handle], concurrency=1)
        task = asyncio.create_task(running.run())
        stream = await node.stream()
        stream.assign(assignment(b"a", "gate"), assignment(b"b", "gate"))
        await gate.next()

        running.stop()
        await stream.expect("drain")
        [nack] = (await stream.expect("nacks")).nacks
        assert (nack.token, nack.reason) == (b"b", frames.NACK_REASON_DRAINING)

        gate.open.set()
        [result] = await stream.expect_results(1)
        assert result.token == b"a"
        await stream.ping()
        assert not task.done()
        stream.accept(b"a")
        await asyncio.wait_for(task, DEADLINE_SECONDS)
        assert stream.half_closed.is_set()


async def test_drain_keeps_a_result_through_a_lost_stream() -> None:
    gate = Gate()
    async with cluster() as (node,):
        running = Worker(node.address, [gate.handle])
        task = asyncio.create_task(running.run())
        stream = await node.stream()
        stream.assign(assignment(b"a", "gate"))
        await gate.next()
        running.stop()
        await stream.expect("drain")
        gate.open.set()
        await stream.expect_results(1)

        stream.end()
        second = await node.stream()

        [again] = await second.expect_results(1)
        assert again.token == b"a"
        second.accept(b"a")
        await asyncio.wait_for(task, DEADLINE_SECONDS)


async def test_handler_that_outlives_the_grace_is_stopped_and_reported() -> None:
    gate = Gate()
    async with cluster() as (node,):
        running = Worker(node.address, [gate.handle], grace=0.1)
        task = asyncio.create_task(running.run())
        stream = await node.stream()
        stream.assign(assignment(b"a", "gate"))
        await gate.next()

        running.stop()

        [result] = await stream.expect_results(1)
        assert result.failure.type == "WorkerStopped"
        assert gate.cancelled.is_set()
        stream.accept(b"a")
        await asyncio.wait_for(task, DEADLINE_SECONDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_drain_every_worker_of_the_process(number: signal.Signals) -> None:
    async with cluster() as (node,):
        workers = [Worker(node.address, [greet]) for _ in range(2)]
        tasks = [asyncio.create_task(one.run()) for one in workers]
        streams = [await node.stream(), await node.stream()]
        for one in workers:  # before its welcome a worker has nothing to drain
            await asyncio.wait_for(one._welcome.wait(), DEADLINE_SECONDS)

        os.kill(os.getpid(), number)

        for stream in streams:
            await stream.expect("drain")
        await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE_SECONDS)


async def test_operator_can_drain_a_worker() -> None:
    async with cluster() as (node,):
        task = asyncio.create_task(Worker(node.address, [greet]).run())
        stream = await node.stream()

        stream.send(frames.ConnectResponse(drain=frames.DrainRequest(reason="retire")))

        await stream.expect("drain")
        await asyncio.wait_for(task, DEADLINE_SECONDS)


async def test_changed_credential_is_sent_on_the_living_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_worker, "REFRESH_SECONDS", 0.0)
    tokens = iter(["Bearer one"])
    async with serving(greet, authorization=lambda: next(tokens, "Bearer two")) as (_, stream, _):
        assert stream.metadata["authorization"] == "Bearer one"

        refresh = await stream.expect("auth_refresh")

        assert refresh.authorization == "Bearer two"
