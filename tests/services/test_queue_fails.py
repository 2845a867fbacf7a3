"""What is left when every statement that touches the queue fails, before or after Postgres has done it.

The queue is part of the database, and what an operation does to it rides in the commit of the rest: so a
call is done as a whole or not at all, and says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from databases import fetch
from maestoso.admin.v1 import admin_service_pb2
from maestoso.admin.v1.admin_service_pb2_grpc import AdminServiceStub
from maestoso.search.v1 import search_service_pb2
from maestoso.search.v1.search_service_pb2_grpc import SearchServiceStub
from maestoso.task.v1 import task_service_pb2
from maestoso.task.v1.task_pb2 import (
    RESULT_OUTCOME_ACCEPTED,
    RESULT_OUTCOME_UNAVAILABLE,
    Callback,
    TaskResult,
    TaskStatus,
)
from maestoso.workflow.v1 import workflow_service_pb2 as wire
from maestoso_server.clock import ManualClock
from maestoso_server.config import Config
from servers import serving
from worker_kit import DEADLINE_S, Caller, calling, chain

HUMANS = {
    "name": "humans",
    "tasks": [
        {"name": name, "taskReferenceName": name, "type": "HUMAN", "inputParameters": {}}
        for name in ("first", "second")
    ],
}


class QueueAway:
    """Every statement that touches the queue fails while `when` says so."""

    def __init__(self) -> None:
        self.when = ""

    async def before(self, sql: str, drop: Callable[[], None]) -> None:
        self._fail("before", sql)

    async def after(self, sql: str, drop: Callable[[], None]) -> None:
        self._fail("after", sql)

    def _fail(self, when: str, sql: str) -> None:
        if when == self.when and "task_queue" in sql:
            raise ConnectionResetError("the queue is out of reach")


class Refused(Exception):
    """What a call was answered with."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code)
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


REFUSALS = (grpc.aio.AioRpcError, Refused)


@dataclass
class Bench:
    caller: Caller
    url: str
    away: QueueAway
    workflow_id: str = ""
    token: bytes = b""

    async def state(self) -> str:
        """Everything that is stored of workflows and their tasks."""
        tables = ("workflow", "workflow_payload", "task", "task_queue", "deadline", "inbox")
        texts = [f"(SELECT string_agg(t::text, ';' ORDER BY t::text) FROM {table} t)" for table in tables]
        return str(await fetch(self.url, f"SELECT concat_ws('|', {', '.join(texts)})"))

    async def status(self) -> str:
        return (await self.caller.status(self.workflow_id)).removeprefix("WORKFLOW_STATUS_")

    async def tasks(self) -> list[str]:
        shown = (await self.caller.get(self.workflow_id)).tasks
        return [TaskStatus.Name(task.status).removeprefix("TASK_STATUS_") for task in shown]

    async def call(self, method: str, request: Any) -> Any:
        return await getattr(self.caller.workflows, method)(request, timeout=DEADLINE_S)

    async def command(self, verb: str, **fields: Any) -> Any:
        request = getattr(wire, f"{verb}WorkflowRequest")(workflow_id=self.workflow_id, **fields)
        return await self.call(f"{verb}Workflow", request)

    async def report(self, **result: Any) -> None:
        """A result, whose outcome is one of many in its answer."""
        (ack,) = await self.caller.report(TaskResult(token=self.token, **result))
        if ack.outcome == RESULT_OUTCOME_UNAVAILABLE:
            raise Refused(grpc.StatusCode.UNAVAILABLE)
        if ack.outcome != RESULT_OUTCOME_ACCEPTED:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION)


@pytest.fixture
async def bench(server_config: Config) -> AsyncIterator[Bench]:
    away = QueueAway()
    async with (
        serving(server_config, ManualClock(), away) as server,
        calling(server.grpc_address) as caller,
    ):
        await caller.register(chain("pay", "ship"))
        await caller.register(HUMANS)
        yield Bench(caller, server_config.database_url or "", away)


Step = Callable[[Bench], Awaitable[Any]]


async def running(bench: Bench) -> None:
    bench.workflow_id = await bench.caller.start(correlation_id="order-1")


async def terminated(bench: Bench) -> None:
    await running(bench)
    await bench.command("Terminate", reason="")


async def polled(bench: Bench) -> None:
    await running(bench)
    (task,) = await bench.caller.poll("pay")
    bench.token = task.token


async def held_back(bench: Bench) -> None:
    """Paused, with a task to begin at its resumption."""
    await polled(bench)
    await bench.command("Pause")
    await bench.report(output=b"{}")


async def with_people(bench: Bench) -> None:
    bench.workflow_id = await bench.caller.start("humans")


async def start(bench: Bench) -> None:
    bench.workflow_id = await bench.caller.start(idempotency_key="k", idempotency_strategy=2)


async def called_back(bench: Bench) -> None:
    """Its task sleeps for ten minutes."""
    await polled(bench)
    await bench.report(callback=Callback(after=Duration(seconds=600), output=b"{}"))


async def reset_callbacks(bench: Bench) -> None:
    request = wire.ResetCallbacksRequest(workflow_id=bench.workflow_id)
    await bench.call("ResetCallbacks", request)


WRITES: list[tuple[str, Step | None, Step, str, list[str]]] = [
    ("J.queue.1", None, start, "RUNNING", ["SCHEDULED"]),
    ("J.queue.2", running, lambda b: b.command("Terminate", reason=""), "TERMINATED", ["CANCELED"]),
    ("J.queue.3", terminated, lambda b: b.command("Restart"), "RUNNING", ["CANCELED", "SCHEDULED"]),
    ("J.queue.5", terminated, lambda b: b.command("Retry"), "RUNNING", ["CANCELED", "SCHEDULED"]),
    ("J.queue.11", held_back, lambda b: b.command("Resume"), "RUNNING", ["COMPLETED", "SCHEDULED"]),
    ("J.queue.17", polled, lambda b: b.report(output=b"{}"), "RUNNING", ["COMPLETED", "SCHEDULED"]),
    ("J.queue.4", terminated, lambda b: b.command("Rerun"), "RUNNING", ["CANCELED", "SCHEDULED"]),
    ("J.queue.12", called_back, reset_callbacks, "RUNNING", ["SCHEDULED"]),
    (
        "J.queue.18",
        polled,
        lambda b: b.report(callback=Callback(after=Duration(seconds=9), output=b"{}")),
        "RUNNING",
        ["SCHEDULED"],
    ),
]


@pytest.mark.covers("J.queue.1", "J.queue.2", "J.queue.3", "J.queue.4", "J.queue.5")
@pytest.mark.covers("J.queue.11", "J.queue.12", "J.queue.17", "J.queue.18")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("prepare", "act", "status", "tasks"), [pytest.param(*case, id=scenario) for scenario, *case in WRITES]
)
async def test_a_call_that_needs_the_queue_is_done_as_a_whole_or_not_at_all(
    bench: Bench, when: str, prepare: Step | None, act: Step, status: str, tasks: list[str]
) -> None:
    if prepare is not None:
        await prepare(bench)
    before = await bench.state()

    bench.away.when = when
    with pytest.raises(REFUSALS) as seen:
        await act(bench)
    bench.away.when = ""

    assert seen.value.code() is grpc.StatusCode.UNAVAILABLE
    if when == "before":
        assert await bench.state() == before
    else:
        done = await bench.state()
        assert done != before
    try:
        await act(bench)
    except REFUSALS as error:
        assert (when, error.code()) == ("after", grpc.StatusCode.FAILED_PRECONDITION)
        assert await bench.state() == done
    assert (await bench.status(), await bench.tasks()) == (status, tasks)


@pytest.mark.covers("J.queue.6")
async def test_a_workflow_is_read(bench: Bench) -> None:
    await running(bench)
    bench.away.when = "before"
    assert await bench.status() == "RUNNING"


@pytest.mark.covers("J.queue.7")
async def test_workflows_are_listed(bench: Bench) -> None:
    await running(bench)
    bench.away.when = "before"
    request = wire.ListWorkflowsRequest(correlation_id="order-1")
    response = await bench.call("ListWorkflows", request)
    assert [found.workflow_id for found in response.workflows] == [bench.workflow_id]


@pytest.mark.covers("J.queue.13", "J.queue.14")
async def test_workflows_and_tasks_are_searched(bench: Bench) -> None:
    await running(bench)
    bench.away.when = "before"
    finder = SearchServiceStub(bench.caller.channel)
    workflows = await finder.SearchWorkflows(
        search_service_pb2.SearchWorkflowsRequest(query="status = RUNNING"), timeout=DEADLINE_S
    )
    assert [found.workflow.workflow_id for found in workflows.workflows] == [bench.workflow_id]
    tasks = await finder.SearchTasks(
        search_service_pb2.SearchTasksRequest(query="taskType = pay"), timeout=DEADLINE_S
    )
    assert [found.task.reference for found in tasks.tasks] == ["pay_0"]


@pytest.mark.covers("J.queue.9")
async def test_what_needs_no_queue_goes_on(bench: Bench) -> None:
    await with_people(bench)
    bench.away.when = "before"
    await bench.command("Signal", reference="first")
    assert (await bench.status(), await bench.tasks()) == ("RUNNING", ["COMPLETED", "IN_PROGRESS"])


@pytest.mark.covers("J.queue.8")
async def test_an_ended_workflow_is_removed(bench: Bench) -> None:
    await terminated(bench)
    bench.away.when = "before"
    await bench.command("Remove")
    with pytest.raises(grpc.aio.AioRpcError) as seen:
        await bench.status()
    assert seen.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.covers("J.queue.10")
async def test_a_workflow_is_paused(bench: Bench) -> None:
    await running(bench)
    bench.away.when = "before"
    await bench.command("Pause")
    assert await bench.status() == "PAUSED"


@pytest.mark.covers("J.queue.16")
async def test_a_poll_says_so_and_loses_nothing(bench: Bench) -> None:
    await running(bench)
    bench.away.when = "before"
    with pytest.raises(grpc.aio.AioRpcError) as seen:
        await bench.caller.poll("pay")
    assert seen.value.code() is grpc.StatusCode.UNAVAILABLE
    bench.away.when = ""
    (task,) = await bench.caller.poll("pay")
    assert (task.workflow_id, task.redelivery) == (bench.workflow_id, 0)


@pytest.mark.covers("J.queue.19", "J.queue.20")
async def test_depths_are_not_known(bench: Bench) -> None:
    await running(bench)
    admin: Any = AdminServiceStub(bench.caller.channel)
    bench.away.when = "before"
    with pytest.raises(grpc.aio.AioRpcError) as seen:
        await admin.ListQueues(admin_service_pb2.ListQueuesRequest(), timeout=DEADLINE_S)
    assert seen.value.code() is grpc.StatusCode.UNAVAILABLE
    bench.away.when = ""
    response = await admin.ListQueues(admin_service_pb2.ListQueuesRequest(), timeout=DEADLINE_S)
    assert [(queue.task_type, queue.depth) for queue in response.queues] == [("pay", 1)]


@pytest.mark.covers("J.queue.21", "J.queue.22")
async def test_workers_are_listed(bench: Bench) -> None:
    admin: Any = AdminServiceStub(bench.caller.channel)
    async with bench.caller.worker("pay"):
        bench.away.when = "before"
        response = await admin.ListSessions(admin_service_pb2.ListSessionsRequest(), timeout=DEADLINE_S)
        bench.away.when = ""
    (session,) = response.sessions
    assert [offer.task_type for offer in session.task_types] == ["pay"]


@pytest.mark.covers("J.queue.23")
async def test_a_task_is_read(bench: Bench) -> None:
    await running(bench)
    (task,) = (await bench.caller.get(bench.workflow_id)).tasks
    bench.away.when = "before"
    request = task_service_pb2.GetTaskRequest(task_id=task.task_id)
    response = await bench.caller.tasks.GetTask(request, timeout=DEADLINE_S)
    assert response.task.reference == "pay_0"


@pytest.mark.covers("J.task.1")
async def test_the_next_task_cannot_be_lost_between_its_row_and_its_queue(bench: Bench) -> None:
    """Where the queue is away as the first one ends, the second is neither scheduled nor queued; later
    it is both."""
    await polled(bench)
    bench.away.when = "before"
    with pytest.raises(Refused):
        await bench.report(output=b"{}")
    bench.away.when = ""
    assert len(await bench.tasks()) == 1
    await bench.report(output=b"{}")
    (task,) = await bench.caller.poll("ship")
    bench.token = task.token
    await bench.report(output=b"{}")
    assert await bench.status() == "COMPLETED"
