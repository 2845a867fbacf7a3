"""Start a server, run an order through it, and show what became of it.

`--once` takes free ports and a temporary folder and ends with the first finished workflow: exit
status 0 where it COMPLETED. Without it the server keeps its data and stays up until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from maestoso import Client, MaestosoError, Worker
from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import workflow_pb2

from .workers import WORKERS

HERE = Path(__file__).parent
READY = re.compile(r"ready grpc=(\S+) http=(\S+)")
START_S = 120.0
"""A first start sets up Postgres; a slow disk takes its time."""
WORKFLOW_S = 60.0
STOP_S = 40.0
ORDER = {
    "orderId": "A-1001",
    "country": "CH",
    "items": [
        {"name": "metronome", "quantity": 1, "cents": 4900},
        {"name": "baton", "quantity": 2, "cents": 1250},
    ],
}


class Failed(Exception):
    """The example did not come to its end; the message says where."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/run", description="Run Maestoso with an example on it.")
    parser.add_argument("--once", action="store_true", help="end after the first finished workflow")
    once = parser.parse_args().once
    # The bank that is busy at first is part of the show; its traceback is not.
    logging.getLogger("maestoso.worker").setLevel(logging.CRITICAL)
    try:
        asyncio.run(show(once))
        return 0
    except (Failed, MaestosoError, TimeoutError, OSError) as error:
        print(f"scripts/run: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


async def show(once: bool) -> None:
    with contextlib.ExitStack() as stack:
        arguments = stack.enter_context(throwaway()) if once else []
        async with server(arguments) as (grpc_address, http_address), Client(grpc_address) as client:
            await register(client)
            async with Worker(grpc_address, WORKERS):
                async with asyncio.timeout(WORKFLOW_S):
                    workflow = await run_order(client)
                print_addresses(grpc_address, http_address)
                if workflow.status != workflow_pb2.WORKFLOW_STATUS_COMPLETED:
                    raise Failed(f"the workflow ended as {status_of(workflow)}: {workflow.reason}")
                if not once:
                    print("\nThe server and its workers stay up; Ctrl-C stops them.", flush=True)
                    await stopped()


async def register(client: Client) -> None:
    await client.register_tasks(json.loads((HERE / "tasks.json").read_text()), overwrite="allow")
    await client.register_workflows(json.loads((HERE / "order.json").read_text()), overwrite="allow")


async def run_order(client: Client) -> workflow_pb2.Workflow:
    workflow_id = await client.start("order_processing", ORDER)
    print(f"started order_processing {workflow_id}", flush=True)
    await client.wait(workflow_id)
    return await print_workflow(client, workflow_id)


# --- the server -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def server(arguments: list[str]) -> AsyncIterator[tuple[str, str]]:
    """A `maestoso dev` of our own; gives its gRPC and HTTP addresses."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "maestoso_server", "dev", *arguments),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches us; the server is stopped after the workers
    )
    try:
        async with asyncio.timeout(START_S):
            found = await addresses(process)
        yield found
    finally:
        await stop(process)


async def addresses(process: asyncio.subprocess.Process) -> tuple[str, str]:
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode():
        if found := READY.fullmatch(line.strip()):
            return found[1], found[2]
    raise Failed(f"the server ended with status {await process.wait()} before it was ready")


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@contextlib.contextmanager
def throwaway() -> Iterator[list[str]]:
    """Arguments for free ports and a folder that is removed afterwards."""
    folder = tempfile.mkdtemp(prefix="maestoso-")
    try:
        yield [
            *("--data", folder),
            *("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--log-level", "warning"),
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def stopped() -> None:
    """Until Ctrl-C or SIGTERM."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()


# --- what became of it ------------------------------------------------------------------------------


async def print_workflow(client: Client, workflow_id: str, indent: str = "") -> workflow_pb2.Workflow:
    """Print an execution and its children, each task on a line."""
    workflow = await client.get(workflow_id)
    print(f"{indent}{workflow.name} {workflow.workflow_id} {status_of(workflow)}")
    for task in workflow.tasks:
        retried = f" attempt {task.attempt + 1}" if task.attempt or task.reason else ""
        said = shortened(task.output) if task.status == task_pb2.TASK_STATUS_COMPLETED else task.reason
        print(f"{indent}  {task_status(task):<10} {task.reference:<16} {task.task_type:<18}{retried} {said}")
        if task.child_workflow_id:
            await print_workflow(client, task.child_workflow_id, indent + "      ")
    print(f"{indent}  output: {readable(workflow.output)}", flush=True)
    return workflow


def status_of(workflow: workflow_pb2.Workflow) -> str:
    name: str = workflow_pb2.WorkflowStatus.Name(workflow.status)
    return name.removeprefix("WORKFLOW_STATUS_")


def task_status(task: task_pb2.Task) -> str:
    name: str = task_pb2.TaskStatus.Name(task.status)
    return name.removeprefix("TASK_STATUS_")


def shortened(output: bytes, most: int = 70) -> str:
    text = readable(output)
    return text if len(text) <= most else text[: most - 3] + "..."


def readable(output: bytes) -> str:
    return json.dumps(json.loads(output or b"{}"), ensure_ascii=False)


def print_addresses(grpc_address: str, http_address: str) -> None:
    print(f"\ngRPC {grpc_address}   HTTP http://{http_address} (/health /ready /metrics)", flush=True)
