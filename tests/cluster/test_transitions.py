"""DELIVERY's transitions between real nodes on one database; workers are made of the protos alone.

What one node does by itself is in `tests/services/test_task_service.py`, every statement in
`tests/store`, all of it under faults in `tests/simulation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
import pytest

from maestoso.admin.v1 import admin_service_pb2
from maestoso.admin.v1.admin_service_pb2_grpc import AdminServiceStub
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso.task.v1.task_pb2 import RESULT_OUTCOME_ACCEPTED, RESULT_OUTCOME_STALE, Assignment, TaskResult
from maestoso_server.clock import Clock, ManualClock, SystemClock
from maestoso_server.config import Config
from maestoso_server.server import Server
from maestoso_server.store.database import Faults, Unavailable
from maestoso_server.store.nodes import TIME_TO_LIVE_MS
from servers import serving
from store_kit import Faulty
from worker_kit import DEADLINE_S, Caller, calling, chain, eventually, hello_of


@dataclass
class Cluster:
    """Nodes on one database, each with a caller of its own."""

    database_url: str
    stack: AsyncExitStack
    conn: Any

    async def node(
        self, *, clock: Clock | None = None, faults: Faults | None = None
    ) -> tuple[Server, Caller]:
        config = Config(
            database_url=self.database_url,
            grpc_address="127.0.0.1:0",
            http_address="127.0.0.1:0",
            drain_ms=1_000,
        )
        server = await self.stack.enter_async_context(serving(config, clock or SystemClock(), faults))
        caller = await self.stack.enter_async_context(calling(server.grpc_address))
        return server, caller

    async def advance(self, clock: ManualClock, look: Callable[[], Awaitable[Any]], wanted: Any) -> None:
        """Let time pass in steps of 100 ms until it is so. The statements of the nodes are real, so each
        step takes as long as some statements."""
        async with asyncio.timeout(DEADLINE_S):
            while await look() != wanted:
                clock.advance(100)
                for _ in range(10):
                    await self.conn.fetchval("SELECT 1")

    def value(self, query: str, *arguments: Any) -> Callable[[], Awaitable[Any]]:
        """Asks the database for one value."""

        async def look() -> Any:
            return await self.conn.fetchval(query, *arguments)

        return look


@pytest.fixture
async def cluster(database_url: str) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        conn = await asyncpg.connect(database_url)
        stack.push_async_callback(conn.close)
        yield Cluster(database_url, stack, conn)


def epoch_of(server: Server) -> int:
    assert server._core is not None
    return server._core.cluster.epoch()


async def test_2_rows_that_wait_at_one_node_are_taken_by_another(cluster: Cluster) -> None:
    _, here = await cluster.node()
    _, there = await cluster.node()
    await here.register(chain("one"))
    async with there.worker("one") as worker:
        workflow_id = await here.start()

        assert (await worker.task()).workflow_id == workflow_id


async def test_5_a_result_at_another_node_is_accepted_and_cancels_the_delivery(cluster: Cluster) -> None:
    _, owner = await cluster.node()
    _, other = await cluster.node()
    await owner.register(chain("one"))
    async with owner.worker("one", tasks=1) as worker:
        workflow_id = await owner.start()
        task = await worker.task()

        (ack,) = await other.report(TaskResult(token=task.token, output=b"{}"))

        assert ack.outcome == RESULT_OUTCOME_ACCEPTED
        assert await other.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"
        assert (await worker.frame("cancels")).cancels.cancels[0].token == task.token
        await eventually(cluster.value("SELECT count(*) FROM task_queue"), 0)
        assert await worker.finish(task) == RESULT_OUTCOME_STALE
        # Its place is free again.
        another = await owner.start()
        assert (await worker.task()).workflow_id == another


async def test_8_what_was_not_written_when_a_stream_ended_waits_again(cluster: Cluster) -> None:
    server, caller = await cluster.node()
    await caller.register(chain("one"))
    assert server._core is not None
    dispatcher = server._core.dispatcher
    async with caller.worker("one", tasks=5) as worker:
        session = dispatcher.session(worker.welcome.session_id)
        assert session is not None
        # The worker's side is full: nothing is written to it any more.
        session.frames = lambda now_ms: []  # type: ignore[method-assign]
        workflow_id = await caller.start()
        await eventually(cluster.value("SELECT delivery FROM task_queue"), 1)
    async with caller.worker("one") as other:
        task = await other.task()

        assert (task.workflow_id, task.redelivery) == (workflow_id, 0)


async def test_9_a_session_is_resumed_at_another_node(cluster: Cluster) -> None:
    here, first = await cluster.node()
    there, second = await cluster.node()
    await first.register(chain("one"))
    async with first.worker("one", tasks=1) as old:
        workflow_id = await first.start()
        task = await old.task()
        again = {"session_id": old.welcome.session_id, "resume_token": old.welcome.resume_token}
        async with second.worker("one", tasks=1, held=[task.token], **again) as new:
            assert list(new.welcome.kept) == [task.token]
            owner = cluster.value("SELECT owner_epoch FROM task_queue")
            assert await owner() == epoch_of(there)
            # The old node lets go of it.
            assert await old.end() is grpc.StatusCode.ABORTED

            assert await new.finish(task) == RESULT_OUTCOME_ACCEPTED

    assert await first.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"
    assert here._core is not None
    assert len(here._core.dispatcher.deliveries) == 0


async def test_9_a_hello_that_was_overtaken_changes_nothing(cluster: Cluster) -> None:
    _, first = await cluster.node()
    _, second = await cluster.node()
    await first.register(chain("one"))
    async with first.worker("one", tasks=1) as old:
        again = {"session_id": old.welcome.session_id, "resume_token": old.welcome.resume_token}
        async with second.worker("one", tasks=1, stream_number=3, **again) as new:
            await second.start()
            task = await new.task()

            async with first.worker("one", tasks=1, stream_number=2, **again) as late:
                assert not late.welcome.resumed

                assert await new.finish(task) == RESULT_OUTCOME_ACCEPTED


class TestExpiry:
    """On time that stands still: nothing here waits for five seconds."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    async def lose(self, caller: Caller, cluster: Cluster, *, answered: bool) -> Assignment:
        """A worker is given a task, perhaps proves that it read it, and is gone."""
        async with caller.worker("one") as worker:
            await caller.start()
            task = await worker.task()
            if answered:
                acks = wire.Acks(tokens=[task.token])
                await worker.send(acks=acks)
        await eventually(cluster.value("SELECT state FROM session"), "DETACHED")
        return task

    async def test_10_a_task_that_was_read_is_lost_with_its_worker(
        self, cluster: Cluster, clock: ManualClock
    ) -> None:
        _, caller = await cluster.node(clock=clock)
        await caller.register(chain("one"), {"name": "one", "retryCount": 1, "retryDelaySeconds": 0})
        task = await self.lose(caller, cluster, answered=True)
        clock.advance(TIME_TO_LIVE_MS - 1)
        assert await cluster.value("SELECT count(*) FROM session")() == 1

        await cluster.advance(clock, cluster.value("SELECT count(*) FROM session"), 0)

        async with caller.worker("one") as other:
            await cluster.advance(clock, cluster.value("SELECT max(attempt) FROM task"), 1)
            again = await other.task()
            assert (again.workflow_id, again.attempt) == (task.workflow_id, 1)
        (ack,) = await caller.report(TaskResult(token=task.token, output=b"{}"))
        assert ack.outcome == RESULT_OUTCOME_STALE

    async def test_10_a_task_that_nobody_read_goes_out_again_free(
        self, cluster: Cluster, clock: ManualClock
    ) -> None:
        _, caller = await cluster.node(clock=clock)
        await caller.register(chain("one"), {"name": "one", "retryCount": 0})
        task = await self.lose(caller, cluster, answered=False)

        await cluster.advance(clock, cluster.value("SELECT unread FROM task_queue"), 1)

        async with caller.worker("one") as other:
            again = await other.task()

        assert (again.task_id, again.attempt, again.redelivery) == (task.task_id, 0, 1)

    async def test_10_redeliver_on_loss_goes_out_again_though_it_was_read(
        self, cluster: Cluster, clock: ManualClock
    ) -> None:
        _, caller = await cluster.node(clock=clock)
        task_definition = {"name": "one", "retryCount": 0, "redeliverOnLoss": True}
        await caller.register(chain("one"), task_definition)
        task = await self.lose(caller, cluster, answered=True)

        await cluster.advance(clock, cluster.value("SELECT owner_epoch IS NULL FROM task_queue"), True)

        async with caller.worker("one") as other:
            again = await other.task()

        assert (again.task_id, again.attempt) == (task.task_id, 0)

    async def test_4_a_blocked_worker_gets_nothing_and_is_closed_in_the_end(
        self, cluster: Cluster, clock: ManualClock
    ) -> None:
        server, caller = await cluster.node(clock=clock)
        await caller.register(chain("one"))
        call = caller.tasks.Connect()
        await call.write(wire.ConnectRequest(hello=hello_of("one")))
        welcome = (await call.read()).welcome
        assert server._core is not None
        session = server._core.dispatcher.session(welcome.session_id)
        assert session is not None

        async def blocked() -> bool:
            return session.blocked

        await cluster.advance(clock, blocked, True)
        workflow_id = await caller.start()
        async with caller.worker("one") as healthy:
            assert (await healthy.task()).workflow_id == workflow_id

        async def ended() -> bool:
            return session.ended

        await cluster.advance(clock, ended, True)

    async def test_13_a_node_without_its_database_says_so_and_takes_up_again(
        self, cluster: Cluster, clock: ManualClock
    ) -> None:
        outage = Outage()
        server, caller = await cluster.node(clock=clock, faults=outage)
        await caller.register(chain("one", "two"))
        async with caller.worker("one", "two") as worker:
            workflow_id = await caller.start()
            task = await worker.task()
            outage.down = True

            assert server._core is not None
            node = server._core.cluster.node

            async def degraded() -> bool:
                return node.degraded

            await cluster.advance(clock, degraded, True)
            frame = await worker.frame("move")
            assert frame.move.reason == wire.MOVE_REASON_DEGRADED
            assert not frame.move.HasField("grace")
            await worker.send(results=wire.Results(results=[TaskResult(token=task.token, output=b"{}")]))
            assert (await worker.frame("acks")).acks.acks[0].error.retryable

            outage.down = False
            await cluster.advance(clock, degraded, False)
            await eventually(lambda: worker.finish(task), RESULT_OUTCOME_ACCEPTED)
            second = await worker.task()
            assert second.workflow_id == workflow_id


async def test_7_an_operator_retires_a_worker(cluster: Cluster) -> None:
    _, here = await cluster.node()
    _, there = await cluster.node()
    await here.register(chain("one"))
    async with here.worker("one", worker_id="retired") as retired:
        await here.start()
        task = await retired.task()
        request = admin_service_pb2.DrainSessionRequest(session_id=retired.welcome.session_id, reason="old")
        await AdminServiceStub(there.channel).DrainSession(request, timeout=DEADLINE_S)

        assert (await retired.frame("drain")).drain.reason == "old"
        assert await retired.finish(task) == RESULT_OUTCOME_ACCEPTED
        waiting = await here.start()
        async with there.worker("one") as other:
            assert (await other.task()).workflow_id == waiting


async def test_12_a_lost_reply_costs_the_worker_nothing(cluster: Cluster) -> None:
    faults = Faulty()
    server, caller = await cluster.node(faults=faults)
    await caller.register(chain("one", "two"))
    async with caller.worker("one", "two") as worker:
        workflow_id = await caller.start()
        task = await worker.task()
        before = epoch_of(server)
        # The save that ends the first task and bears the second one is applied, its reply lost.
        faults.plan("after", "INSERT INTO task_queue", _lose)

        # Its answer is UNAVAILABLE or, told again, STALE: the result counts all the same.
        outcome = await worker.finish(task)
        if outcome != RESULT_OUTCOME_STALE:
            await worker.finish(task)
        second = await worker.task()

        assert (second.task_type, second.redelivery) == ("two", 0)
        assert epoch_of(server) > before
        assert await worker.finish(second) == RESULT_OUTCOME_ACCEPTED
    assert await caller.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"


async def test_17_a_domain_is_served_as_soon_as_its_worker_is_welcome(cluster: Cluster) -> None:
    _, here = await cluster.node()
    _, there = await cluster.node()
    await here.register(chain("one"))
    async with there.worker("blue:one") as worker:
        # "blue" has a worker at the other node, "red" has none: Conductor takes the first that has one.
        workflow_id = await here.start(task_to_domain={"one": "red,blue"})

        assert (await worker.task()).workflow_id == workflow_id


class Outage:
    """While `down`, no statement gets through."""

    down = False

    async def before(self, sql: str, drop: Callable[[], None]) -> None:
        if self.down:
            raise Unavailable("the test has cut the database off")

    async def after(self, sql: str, drop: Callable[[], None]) -> None:
        return


def _lose(drop: Callable[[], None]) -> None:
    drop()
    raise Unavailable("the reply was lost", unknown=True)
