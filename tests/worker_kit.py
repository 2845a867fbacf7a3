"""A worker made of nothing but the protos, and the calls around it, against a whole server.

Everything waits with a deadline; nothing sleeps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio
import msgspec

from maestoso.metadata.v1 import metadata_service_pb2
from maestoso.metadata.v1.metadata_service_pb2_grpc import MetadataServiceStub
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso.task.v1.task_pb2 import (
    Assignment,
    Capacity,
    ResultAck,
    ResultOutcome,
    TaskResult,
    TaskTypeOffer,
)
from maestoso.task.v1.task_service_pb2_grpc import TaskServiceStub
from maestoso.workflow.v1 import workflow_pb2, workflow_service_pb2
from maestoso.workflow.v1.workflow_service_pb2_grpc import WorkflowServiceStub

DEADLINE_S = 10.0

T = TypeVar("T")


def chain(*task_types: str, name: str = "chain", **fields: Any) -> dict[str, Any]:
    """A definition of SIMPLE tasks in a row; `fields` go into each task."""
    tasks = [
        {"name": task_type, "taskReferenceName": f"{task_type}_{n}", "type": "SIMPLE", **fields}
        for n, task_type in enumerate(task_types)
    ]
    return {"name": name, "version": 1, "schemaVersion": 2, "tasks": tasks}


class Caller:
    """One client of one server."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)
        self.tasks: Any = TaskServiceStub(self.channel)
        self.workflows: Any = WorkflowServiceStub(self.channel)
        self.metadata: Any = MetadataServiceStub(self.channel)

    async def register(self, document: dict[str, Any], *tasks: dict[str, Any]) -> None:
        if tasks:
            await self.metadata.PutTaskDefinitions(
                metadata_service_pb2.PutTaskDefinitionsRequest(
                    documents=[msgspec.json.encode(task) for task in tasks], overwrite="OVERWRITE_ALLOW"
                ),
                timeout=DEADLINE_S,
            )
        await self.metadata.PutWorkflowDefinitions(
            metadata_service_pb2.PutWorkflowDefinitionsRequest(
                documents=[msgspec.json.encode(document)], overwrite="OVERWRITE_ALLOW"
            ),
            timeout=DEADLINE_S,
        )

    async def start(self, name: str = "chain", **fields: Any) -> str:
        request = workflow_service_pb2.StartWorkflowRequest(
            start=workflow_pb2.WorkflowStart(name=name, **fields)
        )
        response = await self.workflows.StartWorkflow(request, timeout=DEADLINE_S)
        workflow_id: str = response.started.workflow_id
        return workflow_id

    async def get(self, workflow_id: str) -> workflow_pb2.Workflow:
        request = workflow_service_pb2.GetWorkflowRequest(
            workflow_id=workflow_id, include_tasks=True, include_payloads=True
        )
        response = await self.workflows.GetWorkflow(request, timeout=DEADLINE_S)
        workflow: workflow_pb2.Workflow = response.workflow
        return workflow

    async def terminate(self, workflow_id: str) -> None:
        request = workflow_service_pb2.TerminateWorkflowRequest(workflow_id=workflow_id, reason="enough")
        await self.workflows.TerminateWorkflow(request, timeout=DEADLINE_S)

    async def status(self, workflow_id: str) -> str:
        return workflow_pb2.WorkflowStatus.Name((await self.get(workflow_id)).status)

    async def poll(
        self, *task_types: str, count: int = 1, wait_s: float = 0, worker_id: str = "p"
    ) -> Sequence[Assignment]:
        request = wire.PollTasksRequest(
            task_types=[offer(task_type) for task_type in task_types], max_tasks=count, worker_id=worker_id
        )
        request.wait.FromMilliseconds(int(wait_s * 1000))
        response = await self.tasks.PollTasks(request, timeout=DEADLINE_S + wait_s)
        tasks: Sequence[Assignment] = response.tasks
        return tasks

    async def report(self, *results: TaskResult) -> Sequence[ResultAck]:
        request = wire.ReportTasksRequest(results=results)
        response = await self.tasks.ReportTasks(request, timeout=DEADLINE_S)
        acks: Sequence[ResultAck] = response.acks
        return acks

    @asynccontextmanager
    async def worker(self, *task_types: str, tasks: int = 10, **hello: Any) -> AsyncIterator[Worker]:
        """A stream that is open."""
        worker = Worker(self, self.tasks.Connect())
        await worker.send(hello=hello_of(*task_types, tasks=tasks, **hello))
        worker.welcome = (await worker.frame("welcome")).welcome
        try:
            yield worker
        finally:
            worker.cut()


class Worker:
    """One stream of one worker, which reads all the time and answers pings by itself."""

    def __init__(self, caller: Caller, call: Any) -> None:
        self.caller = caller
        self.call = call
        self.welcome = wire.Welcome()
        self.accepted: set[bytes] = set()
        self.acks: dict[bytes, ResultAck] = {}
        self._frames: list[wire.ConnectResponse] = []
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        """gRPC takes one write at a time: the answer to a ping waits for a large result."""
        self._reader = asyncio.ensure_future(self._read())

    async def send(self, **frame: Any) -> None:
        async with asyncio.timeout(DEADLINE_S), self._writing:
            await self.call.write(wire.ConnectRequest(**frame))

    async def _read(self) -> None:
        try:
            while (frame := await self.call.read()) is not grpc.aio.EOF:
                if frame.WhichOneof("frame") == "ping":
                    await self.send(pong=wire.Pong(number=frame.ping.number))
                else:
                    self._note(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # it has ended, and says how: `code`
        finally:
            self._news.set()

    def _note(self, frame: wire.ConnectResponse) -> None:
        self._frames.append(frame)
        self.accepted.update(frame.tasks.accepted)
        self.accepted.update(frame.acks.accepted)
        for ack in frame.acks.acks:
            self.acks[ack.token] = ack
        self._news.set()

    async def _next(self) -> None:
        """Return when something came that was not looked at."""
        async with asyncio.timeout(DEADLINE_S):
            await self._news.wait()
        if self._reader.done():
            raise AssertionError(f"the stream has ended: {await self.code()}")
        self._news.clear()

    async def frame(self, kind: str) -> wire.ConnectResponse:
        """The next frame of this kind; others are kept for later."""
        while True:
            for index, frame in enumerate(self._frames):
                if frame.WhichOneof("frame") == kind:
                    return self._frames.pop(index)
            await self._next()

    async def end(self) -> grpc.StatusCode:
        """How the stream ends; whatever comes before is passed over."""
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([self._reader])
        return await self.code()

    async def task(self) -> Assignment:
        """The next task."""
        frame = await self.frame("tasks")
        (task,) = frame.tasks.tasks
        return task

    async def finish(self, task: Assignment, output: bytes = b"{}", **fields: Any) -> ResultOutcome.ValueType:
        """Report it, and wait for what became of that."""
        return await self.report(TaskResult(token=task.token, output=output, **fields))

    async def report(self, result: TaskResult) -> ResultOutcome.ValueType:
        self.acks.pop(result.token, None)
        self.accepted.discard(result.token)
        await self.send(results=wire.Results(results=[result]))
        while result.token not in self.accepted and result.token not in self.acks:
            await self._next()
        if result.token in self.accepted:
            return ResultOutcome.RESULT_OUTCOME_ACCEPTED
        return self.acks[result.token].outcome

    async def code(self) -> grpc.StatusCode:
        """How the stream ended."""
        async with asyncio.timeout(DEADLINE_S):
            code: grpc.StatusCode = await self.call.code()
            return code

    def cut(self) -> None:
        self.call.cancel()
        self._reader.cancel()


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Caller]:
    caller = Caller(address)
    try:
        yield caller
    finally:
        await caller.channel.close()


def offer(task_type: str) -> TaskTypeOffer:
    """`domain:type`, or just the type."""
    domain, _, name = task_type.rpartition(":")
    return TaskTypeOffer(task_type=name, domain=domain)


def hello_of(*task_types: str, tasks: int = 10, worker_id: str = "w", **fields: Any) -> wire.Hello:
    return wire.Hello(
        worker_id=worker_id,
        task_types=[offer(task_type) for task_type in task_types],
        capacity=Capacity(tasks=tasks),
        **fields,
    )


async def eventually(look: Callable[[], Awaitable[T]], wanted: T) -> None:
    """Ask until it is so; every question is a call, so nothing is slept away."""
    async with asyncio.timeout(DEADLINE_S):
        while await look() != wanted:
            await asyncio.sleep(0)
