"""A node that stands still past its lease, and one that is killed: nothing is stuck, lost or run twice.

Real server processes on one real Postgres, the SDK's worker and clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import pytest

from cluster_kit import (
    COMPLETED,
    Ledger,
    all_completed,
    connected,
    definition,
    loaded,
    nothing_left,
    simple,
    stored,
    until,
    until_stored,
)
from e2e.processes import Maestoso
from maestoso import Client, TaskContext, Worker

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

EPOCH = "SELECT epoch FROM node WHERE grpc_address = $1"


@pytest.fixture
def nodes(database_url: str) -> Iterator[tuple[Maestoso, Maestoso]]:
    with contextlib.ExitStack() as stack:
        first, second = (
            stack.enter_context(Maestoso("serve", "--database-url", database_url)) for _ in range(2)
        )
        yield first.ready(), second.ready()


async def test_a_node_that_stood_still_past_its_lease_writes_nothing_and_serves_again(
    nodes: tuple[Maestoso, Maestoso], database_url: str
) -> None:
    stopped, other = nodes
    async with loaded([stopped.grpc, other.grpc], database_url) as load:
        old = await stored(database_url, EPOCH, stopped.grpc)
        stopped.process.send_signal(signal.SIGSTOP)
        await until_stored(database_url, f"SELECT NOT EXISTS ({EPOCH})", stopped.grpc)
        await load.more(20)
        seen = await written_by(database_url, old)
        stopped.process.send_signal(signal.SIGCONT)
        await until_stored(
            database_url,
            "SELECT count(*) = 1 FROM node WHERE grpc_address = $1 AND epoch > $2",
            stopped.grpc,
            old,
        )
        new = await stored(database_url, EPOCH, stopped.grpc)
        await until_stored(database_url, "SELECT EXISTS (SELECT FROM workflow WHERE last_node = $1)", new)

        assert await written_by(database_url, old) <= seen
        assert await stored(database_url, "SELECT count(*) FROM task_queue WHERE owner_epoch = $1", old) == 0


async def written_by(url: str, epoch: int) -> set[tuple[str, int]]:
    """The workflows that this node was the last to write, with their revisions."""
    async with connected(url) as connection:
        rows = await connection.fetch("SELECT id, revision FROM workflow WHERE last_node = $1", epoch)
    return {(str(row["id"]), row["revision"]) for row in rows}


async def test_a_handler_goes_on_while_its_node_stands_still_and_its_one_result_counts(
    nodes: tuple[Maestoso, Maestoso], database_url: str
) -> None:
    stopped, other = nodes
    ledger = Ledger()
    finish = asyncio.Event()

    async def work(context: TaskContext) -> None:
        await finish.wait()

    async with Client(other.grpc) as client:
        await client.register_workflows([definition("long", simple("long"))])
        # One session to each node: workflows begun at a node have their task on its stream.
        async with Worker([stopped.grpc, other.grpc], [ledger.handler("long", work)], concurrency=8):
            await until_stored(database_url, "SELECT count(DISTINCT epoch) = 2 FROM session")
            async with Client(stopped.grpc) as at_stopped:
                started = [await at_stopped.start("long") for _ in range(2)]
            started += [await client.start("long") for _ in range(2)]
            await until(lambda: len(ledger.running) == 4, "four handlers run")
            stopped.process.send_signal(signal.SIGSTOP)
            await until_stored(database_url, f"SELECT NOT EXISTS ({EPOCH})", stopped.grpc)
            stopped.process.send_signal(signal.SIGCONT)
            await until_stored(database_url, f"SELECT EXISTS ({EPOCH})", stopped.grpc)
            finish.set()
            ended = [await client.wait(workflow_id) for workflow_id in started]

    assert [workflow.status for workflow in ended] == [COMPLETED] * 4
    assert set(ledger.runs.values()) == {1}
    await nothing_left(database_url)
    await all_completed(database_url, started)


async def test_a_killed_node_strands_nothing_and_burns_no_attempt(
    nodes: tuple[Maestoso, Maestoso], database_url: str
) -> None:
    killed, other = nodes
    async with loaded([killed.grpc, other.grpc], database_url) as load:
        killed.process.kill()
        killed.process.wait()
        await until_stored(database_url, "SELECT count(*) = 1 FROM node")
        await load.more(20)
