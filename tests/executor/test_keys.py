"""Idempotency keys of workflows that other workflows start: through commits, over two nodes, and crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from maestoso_server import ids
from maestoso_server.engine.events import Terminate
from maestoso_server.store import inbox
from maestoso_server.store.database import Unavailable

from .conftest import Engine, open_engine

CHILD = {"name": "child", "tasks": [{"name": "work", "taskReferenceName": "work", "type": "SIMPLE"}]}


def sub(strategy: str) -> dict[str, Any]:
    params = {
        "workflowDefinition": CHILD,
        "idempotencyKey": "${workflow.input.key}",
        "idempotencyStrategy": strategy,
    }
    node = {"name": "sub", "taskReferenceName": "sub", "type": "SUB_WORKFLOW", "subWorkflowParam": params}
    return {"name": "flow", "tasks": [node]}


def starting(strategy: str) -> dict[str, Any]:
    request = {
        "workflowDef": CHILD,
        "idempotencyKey": "${workflow.input.key}",
        "idempotencyStrategy": strategy,
    }
    node = {"name": "start", "taskReferenceName": "start", "type": "START_WORKFLOW"}
    return {"name": "flow", "tasks": [{**node, "inputParameters": {"startWorkflow": request}}]}


async def children(engine: Engine) -> list[str]:
    async with engine.database.acquire() as connection:
        rows = await connection.fetch("SELECT id FROM workflow WHERE name = 'child' ORDER BY created_ms")
    return [str(row["id"]) for row in rows]


async def reason(engine: Engine, workflow_id: str) -> str:
    row = await engine.fetchrow("SELECT reason FROM task WHERE workflow_id = $1", workflow_id)
    return str(row["reason"])


async def nothing_is_left(engine: Engine) -> None:
    await engine.executor.idle()
    row = await engine.fetchrow("SELECT count(*) AS n FROM inbox")
    assert row["n"] == 0


async def test_all_follow_the_one_that_won_the_key(engine: Engine) -> None:
    family = await asyncio.gather(*(engine.start(sub("RETURN_EXISTING"), {"key": "k"}) for _ in range(20)))
    await engine.executor.idle()
    (child,) = await children(engine)
    await engine.report(child, "work", {"x": 1})
    assert [await engine.ended(workflow) for workflow in family] == [3] * 20
    assert [await engine.output(workflow) for workflow in family] == [{"subWorkflowId": child, "x": 1}] * 20
    late = await engine.start(sub("RETURN_EXISTING"), {"key": "k"})
    assert (await engine.ended(late), await engine.output(late)) == (3, {"subWorkflowId": child, "x": 1})
    await nothing_is_left(engine)


@pytest.mark.parametrize("document", [sub, starting])
async def test_all_but_one_fail_where_a_key_must_be_new(engine: Engine, document: Any) -> None:
    family = await asyncio.gather(*(engine.start(document("FAIL"), {"key": "k"}) for _ in range(10)))
    await engine.executor.idle()
    (child,) = await children(engine)
    statuses = [await engine.status(workflow) for workflow in family]
    (winner,) = (place for place, status in enumerate(statuses) if status != 4)
    for place, workflow in enumerate(family):
        if place != winner:
            assert await reason(engine, workflow) == f"idempotency key 'k' was used by workflow {child}"
    await nothing_is_left(engine)


@pytest.mark.parametrize("document", [sub, starting])
async def test_a_key_is_free_again_when_its_run_has_ended(engine: Engine, document: Any) -> None:
    await engine.start(document("FAIL_ON_RUNNING"), {"key": "k"})
    await engine.executor.idle()
    (first,) = await children(engine)
    refused = await engine.start(document("FAIL_ON_RUNNING"), {"key": "k"})
    assert await engine.ended(refused) == 4
    await engine.report(first, "work")
    await engine.executor.idle()
    await engine.start(document("FAIL_ON_RUNNING"), {"key": "k"})
    await engine.executor.idle()
    assert len(await children(engine)) == 2
    await nothing_is_left(engine)


async def test_a_start_by_a_caller_and_one_by_a_workflow_share_their_keys(engine: Engine) -> None:
    holder = await engine.start(CHILD, idempotency_key="k")
    workflow = await engine.start(starting("RETURN_EXISTING"), {"key": "k"})
    assert (await engine.ended(workflow), await engine.output(workflow)) == (3, {"workflowId": holder})
    assert await children(engine) == [holder]


async def test_a_workflow_does_not_follow_itself(engine: Engine) -> None:
    workflow = await engine.start(sub("RETURN_EXISTING"), {"key": "k"}, idempotency_key="k")
    assert await engine.ended(workflow) == 4
    assert "which waits for this task" in await reason(engine, workflow)


async def test_what_ends_while_its_start_loses_the_key_leaves_nothing(engine: Engine) -> None:
    holder = await engine.start(CHILD, idempotency_key="k")
    workflow = await engine.start(sub("RETURN_EXISTING"), {"key": "k"})
    await engine.executor.apply(workflow, Terminate(now_ms=engine.clock.now_ms(), reason="enough"))
    await nothing_is_left(engine)
    assert (await engine.status(workflow), await engine.status(holder)) == (6, 1)


async def test_two_nodes_race_for_a_key_and_one_child_is_born(engine: Engine, database_url: str) -> None:
    other = await open_engine(database_url)
    try:
        for turn in range(10):
            starts = [node.start(sub("RETURN_EXISTING"), {"key": f"k{turn}"}) for node in (engine, other) * 3]
            family = await asyncio.gather(*starts)
            await engine.executor.idle()
            await other.executor.idle()
            row = await engine.fetchrow(
                "SELECT count(DISTINCT t.child_id) AS n, min(t.child_id::text) AS child FROM task t"
                " WHERE t.workflow_id = ANY ($1::uuid[])",
                family,
            )
            assert row["n"] == 1
            await other.report(row["child"], "work")
            await engine.executor.idle()
            await other.executor.idle()
            assert [await engine.ended(workflow) for workflow in family] == [3] * 6
        assert len(await children(engine)) == 10
        await nothing_is_left(engine)
    finally:
        await other.evaluators.stop()
        await other.database.close()


async def drained(engine: Engine) -> None:
    """What a node does that takes over the messages of a dead one."""
    while True:
        await engine.executor.idle()
        async with engine.database.acquire() as connection:
            await connection.execute("UPDATE inbox SET drain_epoch = $1", engine.epoch)
            waiting = await inbox.due_workflows(connection, epoch=engine.epoch, now_ms=engine.clock.now_ms())
        if not waiting:
            return
        for workflow_id in waiting:
            engine.executor.drain(workflow_id)


class Death:
    """The process is dead from its `step`-th statement on, which Postgres has `done` or not."""

    def __init__(self, *, done: bool) -> None:
        self.done = done
        self.step = 0
        self.count = 0

    async def before(self, sql: str, drop: Callable[[], None]) -> None:
        self.count += 1
        if self.step and self.count >= self.step + self.done:
            drop()
            raise ConnectionResetError

    async def after(self, sql: str, drop: Callable[[], None]) -> None:
        if self.step and self.count >= self.step:
            drop()
            raise ConnectionResetError


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("strategy", ["FAIL", "RETURN_EXISTING"])
@pytest.mark.parametrize("document", [sub, starting])
async def test_each_statement_may_be_the_last_of_its_process(
    engine: Engine, database_url: str, document: Any, strategy: str, done: bool
) -> None:
    """Another process goes on where the first one died."""
    death = Death(done=done)
    dying = await open_engine(database_url, faults=death)
    died = 0
    try:
        for step in range(1, 30):
            holder = await engine.start(CHILD, idempotency_key=f"k{step}")
            workflow_id = ids.workflow_id(engine.clock.now_ms())
            dying.executor.forget_views()
            death.count, death.step = 0, step
            with suppress(Unavailable):
                await dying.start(document(strategy), {"key": f"k{step}"}, workflow_id=workflow_id)
            await dying.executor.idle()
            lived, death.step = death.count < step, 0
            died += not lived
            await drained(engine)
            row = await engine.fetchrow(
                "SELECT w.status, t.reason, t.child_id FROM workflow w JOIN task t ON t.workflow_id = w.id"
                " WHERE w.id = $1",
                workflow_id,
            )
            assert row is not None or not lived
            if row is not None and strategy == "FAIL":
                assert row["reason"] == f"idempotency key 'k{step}' was used by workflow {holder}"
            elif row is not None and document is sub:
                assert str(row["child_id"]) == holder
                await engine.report(holder, "work")
                await drained(engine)
            if row is not None:
                assert await engine.status(workflow_id) == (4 if strategy == "FAIL" else 3)
            await nothing_is_left(engine)
            if lived:
                break
        assert lived and died >= 5
    finally:
        await dying.evaluators.stop()
        await dying.database.close()
