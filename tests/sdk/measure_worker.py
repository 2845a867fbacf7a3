"""What one task costs the worker: CPU of this process against a bare node in another.

    python tests/sdk/measure_worker.py [--batch 10] [--seconds 5] [--handler async|waits|plain]

The node keeps 64 tasks in flight, sends a batch for each frame of results and does nothing else.
Prints microseconds of worker CPU per task, a bare echo of the same frames (the part that gRPC
takes) and the difference: what this SDK adds.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import time
from typing import Any

import grpc.aio

from maestoso import Worker, worker
from maestoso.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc

IN_FLIGHT = 64
INPUT = json.dumps({"order_id": "A-1", "amount": 1299, "note": "x" * 250}).encode()


@worker("async")
async def quick(order_id: str, amount: int, note: str) -> dict[str, Any]:
    return {"order_id": order_id, "amount": amount, "note": note}


@worker("waits")
async def waits(order_id: str, amount: int, note: str) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"order_id": order_id, "amount": amount, "note": note}


@worker("plain")
def plain(order_id: str, amount: int, note: str) -> dict[str, Any]:
    return {"order_id": order_id, "amount": amount, "note": note}


class Node(task_service_pb2_grpc.TaskServiceServicer):
    """Sends tasks in batches of a given size, as long as fewer than IN_FLIGHT are out."""

    def __init__(self, batch: int, task_type: str) -> None:
        self._batch = batch
        self._type = task_type

    async def Connect(self, request_iterator: Any, context: Any) -> None:
        await context.read()
        await context.write(
            task_service_pb2.ConnectResponse(welcome=task_service_pb2.Welcome(session_id="s"))
        )
        numbers = itertools.count()
        owed = IN_FLIGHT
        while True:
            while owed >= self._batch:
                owed -= self._batch
                await context.write(self._tasks(numbers))
            frame = await context.read()
            if not isinstance(frame, task_service_pb2.ConnectRequest):
                return
            results = frame.results.results
            if results:
                owed += len(results)
                acks = [task_pb2.ResultAck(token=r.token, outcome=1) for r in results]
                await context.write(
                    task_service_pb2.ConnectResponse(acks=task_service_pb2.ResultAcks(acks=acks))
                )

    def _tasks(self, numbers: Any) -> task_service_pb2.ConnectResponse:
        tasks = [
            task_pb2.Assignment(
                token=next(numbers).to_bytes(24, "big"),
                task_id="01890a5d-ac96-774b-bcce-b302099a8057",
                workflow_id="01890a5d-ac96-774b-bcce-b302099a8057",
                reference="charge",
                task_type=self._type,
                input=INPUT,
            )
            for _ in range(self._batch)
        ]
        return task_service_pb2.ConnectResponse(tasks=task_service_pb2.TaskBatch(tasks=tasks))


def serve(batch: int, task_type: str, address: Any) -> None:
    async def main() -> None:
        server = grpc.aio.server()
        task_service_pb2_grpc.add_TaskServiceServicer_to_server(Node(batch, task_type), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        address.put(f"127.0.0.1:{port}")
        await server.wait_for_termination()

    asyncio.run(main())


async def bare(address: str, seconds: float) -> tuple[float, int]:
    """CPU seconds and tasks of a client that answers each batch with prepared results."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = task_service_pb2_grpc.TaskServiceStub(channel).Connect()
        await call.write(task_service_pb2.ConnectRequest(hello=task_service_pb2.Hello()))
        done, cpu, end = 0, time.process_time(), time.monotonic() + seconds
        while time.monotonic() < end:
            frame = await call.read()
            tasks = frame.tasks.tasks
            if tasks:
                results = [task_pb2.TaskResult(token=task.token, output=task.input) for task in tasks]
                await call.write(
                    task_service_pb2.ConnectRequest(results=task_service_pb2.Results(results=results))
                )
                done += len(results)
        call.cancel()
        return time.process_time() - cpu, done


async def sdk(address: str, handler: Any, seconds: float) -> tuple[float, int]:
    """CPU seconds and tasks of a Worker."""
    done = 0
    counted = handler

    async with Worker(address, [counted], concurrency=1_000) as running:
        session = running._pools[0].links[0].session
        before = session.report

        def count(result: task_pb2.TaskResult) -> None:
            nonlocal done
            done += 1
            before(result)

        session.report = count  # type: ignore[method-assign]
        cpu, start = time.process_time(), done
        await asyncio.sleep(seconds)
        return time.process_time() - cpu, done - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--handler", choices=["async", "waits", "plain"], default="async")
    options = parser.parse_args()
    address: Any = multiprocessing.Queue()
    node = multiprocessing.Process(target=serve, args=(options.batch, options.handler, address), daemon=True)
    node.start()
    where = address.get()
    handler = {"async": quick, "waits": waits, "plain": plain}[options.handler]
    results = {}
    for name, run in (("bare", bare(where, options.seconds)), ("sdk", sdk(where, handler, options.seconds))):
        cpu, done = asyncio.run(run)
        results[name] = cpu / done * 1e6
        print(f"{name}: {cpu / done * 1e6:.1f} us of CPU a task, {done / options.seconds:,.0f} tasks/s")
    print(f"added by the SDK: {results['sdk'] - results['bare']:.1f} us a task")
    node.terminate()


if __name__ == "__main__":
    main()
