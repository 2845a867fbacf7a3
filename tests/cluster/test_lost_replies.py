"""A statement that was applied and whose reply is lost: nothing is stuck, nothing happens twice."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from cluster_kit import (
    COMPLETED,
    MIXED,
    SUB,
    Ledger,
    all_completed,
    cluster,
    loaded,
    nothing_left,
    until,
)
from maestoso import Client, Worker
from store_kit import Faulty

LOST_PART = 0.05
"""Of all statements, twice."""


class Losing(Faulty):
    """Loses replies of applied statements."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0

    def lose(self, text: str) -> None:
        """The reply of the next statement that contains `text`."""
        self.plan("after", text, self._lose)

    def _lose(self, drop: Callable[[], None]) -> None:
        self.lost += 1
        drop()
        raise ConnectionResetError("the reply was lost")


@pytest.mark.parametrize(
    "part",
    [
        pytest.param("INSERT INTO workflow (", id="start"),
        pytest.param("saved_touch", id="result"),
        pytest.param("sent AS", id="message"),
        pytest.param("INSERT INTO task_queue", id="birth"),
        pytest.param("INSERT INTO session", id="hello"),
        pytest.param("INSERT INTO demand", id="demand"),
        pytest.param("SKIP LOCKED", id="take"),
    ],
)
async def test_a_lost_reply_loses_nothing_else(database_url: str, part: str) -> None:
    faults, ledger = Losing(), Ledger()
    handlers = [ledger.handler(step) for step in ("step_one", "step_two", "step_three")]
    async with cluster(database_url, faults) as (node,), Client(node.grpc_address) as client:
        await client.register_workflows([SUB, MIXED])
        warm = await client.start("mixed")
        faults.lose(part)
        async with Worker(node.grpc_address, handlers):
            await client.wait(warm)
            key = {"idempotency_key": "k", "idempotency": "return_existing"}
            ended = [await client.wait(await client.start("mixed", **key)) for _ in range(2)]

    assert faults.lost == 1
    assert [workflow.status for workflow in ended] == [COMPLETED, COMPLETED]
    assert [workflow.output for workflow in ended] == [b'{"sum":2}'] * 2
    assert ended[0].workflow_id == ended[1].workflow_id
    assert set(ledger.runs.values()) == {1}
    await all_completed(database_url, [warm, ended[0].workflow_id])
    await nothing_left(database_url)


class Flaky:
    """Loses, before or after they are applied, some of all statements, while `on`."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.on = False
        self.lost: dict[str, int] = {}

    async def before(self, sql: str, drop: Callable[[], None]) -> None:
        self._strike("before", drop)

    async def after(self, sql: str, drop: Callable[[], None]) -> None:
        self._strike("after", drop)

    def _strike(self, when: str, drop: Callable[[], None]) -> None:
        if self.on and self._random.random() < LOST_PART:
            self.lost[when] = self.lost.get(when, 0) + 1
            drop()
            raise ConnectionResetError(f"lost {when} it was applied")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_replies_lost_again_and_again_cost_time_and_nothing_else(database_url: str, seed: int) -> None:
    faults = [Flaky(seed), Flaky(seed + 100)]
    async with (
        cluster(database_url, *faults) as nodes,
        loaded([node.grpc_address for node in nodes], database_url, "mixed") as load,
    ):
        for fault in faults:
            fault.on = True
        await until(lambda: all(sum(fault.lost.values()) > 40 for fault in faults), "enough is lost")
        for fault in faults:
            fault.on = False

    assert all(fault.lost.keys() == {"before", "after"} for fault in faults)
    assert all(refusal.retry_after is not None for refusal in load.refusals)
