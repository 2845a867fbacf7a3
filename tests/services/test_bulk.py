"""Bulk operations over the wire and at work: every item once, at its rate, whatever happens to nodes."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from maestoso.error.v1 import error_pb2
from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import bulk_pb2, workflow_pb2
from maestoso.workflow.v1 import bulk_service_pb2 as wire
from maestoso_server.config import Config
from maestoso_server.engine.events import Result
from maestoso_server.engine.state import TaskStatus
from maestoso_server.errors import MaestosoError
from maestoso_server.executor.plans import Plans
from maestoso_server.services.bulk import KINDS, RETENTION_MS, BulkRunner, Selection
from maestoso_server.services.operations import Operations, for_each
from maestoso_server.services.security import ApiKey, ApiKeys, Principal, digest
from maestoso_server.store import audit
from maestoso_server.store import bulk as rows
from maestoso_server.telemetry import Metrics
from services_kit import DEADLINE_S, Served, node, refused, serve

UNKNOWN = "0198c5f2-7a30-7c4e-8d21-3f6f0c9a1b2d"
PAUSE = bulk_pb2.BulkAction(pause=bulk_pb2.BulkPause())
TERMINATE = bulk_pb2.BulkAction(terminate=bulk_pb2.BulkTerminate(reason="enough"))
RESTART = bulk_pb2.BulkAction(restart=bulk_pb2.BulkRestart())
RETRY = bulk_pb2.BulkAction(retry=bulk_pb2.BulkRetry())
RERUN = bulk_pb2.BulkAction(rerun=bulk_pb2.BulkRerun())
REMOVE = bulk_pb2.BulkAction(remove=bulk_pb2.BulkRemove())
SIGNAL = bulk_pb2.BulkAction(signal=bulk_pb2.BulkSignal(reference="a", output=b'{"n":1}'))
COMPLETED = bulk_pb2.BULK_STATE_COMPLETED
PAUSED = workflow_pb2.WORKFLOW_STATUS_PAUSED
RUNNING = workflow_pb2.WORKFLOW_STATUS_RUNNING
SUCCEEDED = bulk_pb2.BULK_ITEM_STATE_SUCCEEDED
FAILED = bulk_pb2.BULK_ITEM_STATE_FAILED
SCHEDULED = task_pb2.TASK_STATUS_SCHEDULED
TERMINAL = task_pb2.TASK_STATUS_FAILED_WITH_TERMINAL_ERROR


def definition(name: str, *tasks: dict[str, Any], version: int = 1) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "schemaVersion": 2,
        "ownerEmail": "team@example.com",
        "tasks": list(tasks),
    }


def task(type_: str, reference: str) -> dict[str, Any]:
    return {"name": reference, "taskReferenceName": reference, "type": type_, "retryCount": 0}


PAY = definition("pay", task("SIMPLE", "a"))
CHAIN = definition("chain", task("SIMPLE", "a"), task("SIMPLE", "b"))
ASK = definition("ask", task("HUMAN", "a"))


@asynccontextmanager
async def working(*runners: BulkRunner) -> AsyncIterator[None]:
    tasks = [asyncio.get_running_loop().create_task(runner.run()) for runner in runners]
    try:
        yield
    finally:
        for running in tasks:
            running.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def create(
    served: Served, action: bulk_pb2.BulkAction, ids: list[str] | None = None, **fields: Any
) -> bulk_pb2.BulkOperation:
    response = await served.bulks.CreateBulkOperation(
        wire.CreateBulkOperationRequest(action=action, workflow_ids=ids or [], **fields), timeout=DEADLINE_S
    )
    return response.operation


async def read(served: Served, bulk_id: str) -> bulk_pb2.BulkOperation:
    response = await served.bulks.GetBulkOperation(
        wire.GetBulkOperationRequest(bulk_id=bulk_id), timeout=DEADLINE_S
    )
    return response.operation


async def items(served: Served, bulk_id: str, **fields: Any) -> list[bulk_pb2.BulkItem]:
    response = await served.bulks.ListBulkItems(
        wire.ListBulkItemsRequest(bulk_id=bulk_id, **fields), timeout=DEADLINE_S
    )
    return list(response.items)


async def until(
    served: Served, bulk_id: str, reached: Callable[[bulk_pb2.BulkOperation], bool], *, advance: bool = True
) -> bulk_pb2.BulkOperation:
    """The operation once it is so; time passes meanwhile, a tenth of a second at each look."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = await read(served, bulk_id)
            if reached(found):
                return found
            if advance:
                served.clock.advance(100)


def ended(found: bulk_pb2.BulkOperation) -> bool:
    return found.state >= COMPLETED


async def started(served: Served, name: str, count: int) -> list[str]:
    return [await served.start(name) for _ in range(count)]


async def completed(served: Served, workflow_id: str, *seqs: int) -> None:
    for seq in seqs:
        now_ms = served.clock.now_ms()
        await served.happen(workflow_id, Result(now_ms=now_ms, seq=seq, status=TaskStatus.COMPLETED))


async def newest(served: Served, workflow_id: str) -> task_pb2.Task:
    found = await served.get(workflow_id, include_tasks=True, include_payloads=True)
    return found.tasks[-1]


async def failed(served: Served, workflow_id: str) -> None:
    now_ms = served.clock.now_ms()
    await served.happen(workflow_id, Result(now_ms=now_ms, seq=1, status=TaskStatus.FAILED))


# --- at work --------------------------------------------------------------------------------------


async def test_every_workflow_is_reached_and_one_bad_item_stops_no_other(served: Served) -> None:
    await served.register(PAY, definition("done", task("NOOP", "n")))
    ids = await started(served, "pay", 3)
    over = await served.start("done")
    given = [ids[0], UNKNOWN, ids[1], over, ids[2].upper(), ids[0]]

    async with working(served.bulk):
        made = await create(served, PAUSE, given, reason="maintenance")
        found = await until(served, made.bulk_id, ended)

    assert (found.state, found.total, found.succeeded, found.failed) == (COMPLETED, 5, 3, 2)
    assert (found.reason, found.created_by, found.rate) == ("maintenance", "anonymous", 100)
    assert found.HasField("end_time")
    assert [(await served.get(one)).status for one in ids] == [PAUSED] * 3
    listed = await items(served, made.bulk_id)
    assert [(one.workflow_id, one.state) for one in listed] == [
        (ids[0], SUCCEEDED),
        (UNKNOWN, FAILED),
        (ids[1], SUCCEEDED),
        (over, FAILED),
        (ids[2], SUCCEEDED),
    ]
    refusals = [one.error.reason for one in listed if one.state == FAILED]
    assert refusals == [error_pb2.REASON_WORKFLOW_NOT_FOUND, error_pb2.REASON_WRONG_STATE]
    assert await items(served, made.bulk_id, state=FAILED) == [listed[1], listed[3]]
    total = served.metrics.registry.get_sample_value
    for outcome, count in (("succeeded", 3), ("failed", 2)):
        labels = {"action": "pause", "outcome": outcome}
        assert total("maestoso_bulk_items_total", labels) == count


async def test_a_query_reaches_what_existed_when_it_was_made(served: Served) -> None:
    await served.register(PAY, ASK)
    mine = await started(served, "pay", 3)
    other = await served.start("ask")
    made = await create(served, PAUSE, query=bulk_pb2.BulkQuery(name="pay", status=RUNNING))
    served.clock.advance(1)
    late = await served.start("pay")

    async with working(served.bulk):
        found = await until(served, made.bulk_id, ended)

    assert (found.total, found.succeeded, found.query.name) == (3, 3, "pay")
    assert [(await served.get(one)).status for one in mine] == [PAUSED] * 3
    assert [(await served.get(one)).status for one in (other, late)] == [RUNNING] * 2


async def test_the_language_of_searches_selects_too(served: Served) -> None:
    await served.register(PAY, ASK)
    mine = await started(served, "pay", 3)
    other = await served.start("ask")
    query = bulk_pb2.BulkQuery(query="workflowType IN (pay, ask) AND NOT workflowType = ask", status=RUNNING)
    made = await create(served, PAUSE, query=query)

    async with working(served.bulk):
        found = await until(served, made.bulk_id, ended)

    assert (found.total, found.succeeded) == (3, 3)
    assert [(await served.get(one)).status for one in mine] == [PAUSED] * 3
    assert (await served.get(other)).status == RUNNING


async def test_a_query_that_finds_nothing_completes(served: Served) -> None:
    async with working(served.bulk):
        made = await create(served, PAUSE, query=bulk_pb2.BulkQuery(name="absent"))
        found = await until(served, made.bulk_id, ended)

    assert (found.state, found.total) == (COMPLETED, 0)


@pytest.mark.parametrize(
    ("action", "status"),
    [
        (bulk_pb2.BulkAction(resume=bulk_pb2.BulkResume()), RUNNING),
        (TERMINATE, workflow_pb2.WORKFLOW_STATUS_TERMINATED),
        (SIGNAL, workflow_pb2.WORKFLOW_STATUS_COMPLETED),
        (bulk_pb2.BulkAction(upgrade=bulk_pb2.BulkUpgrade(version=2)), PAUSED),
    ],
)
async def test_each_action_does_what_its_operation_does(
    served: Served, action: bulk_pb2.BulkAction, status: int
) -> None:
    await served.register(ASK, definition("ask", task("HUMAN", "a"), task("NOOP", "n"), version=2))
    workflow_id = await served.start("ask", version=1)
    async with working(served.bulk):
        if action.WhichOneof("action") != "signal":
            await until(served, (await create(served, PAUSE, [workflow_id])).bulk_id, ended)
        found = await until(served, (await create(served, action, [workflow_id])).bulk_id, ended)

    assert found.succeeded == 1, await items(served, found.bulk_id)
    after = await served.get(workflow_id, include_payloads=True)
    assert after.status == status
    if action.HasField("upgrade"):
        assert after.version == 2
    if action.HasField("terminate"):
        assert after.reason == "enough"
    if action.HasField("signal"):
        assert json.loads(after.output) == {"n": 1}


async def test_ended_workflows_are_restarted_and_retried(served: Served) -> None:
    await served.register(PAY)
    one, other = await started(served, "pay", 2)
    await failed(served, one)
    await failed(served, other)

    async with working(served.bulk):
        await until(served, (await create(served, RESTART, [one])).bulk_id, ended)
        await until(served, (await create(served, RETRY, [other])).bulk_id, ended)

    assert [(await served.get(id_)).status for id_ in (one, other)] == [RUNNING] * 2
    assert [(await served.get(id_)).generation for id_ in (one, other)] == [2, 1]


async def test_workflows_are_rerun_with_their_input_or_with_another(served: Served) -> None:
    await served.register(PAY)
    ids = [await served.start("pay", input=b'{"n":1}') for _ in range(2)]
    running = await served.start("pay")
    for one in ids:
        await failed(served, one)
    other = bulk_pb2.BulkAction(rerun=bulk_pb2.BulkRerun(workflow_input=b'{"n":2}'))

    async with working(served.bulk):
        same = await create(served, RERUN, [ids[0], running])
        await until(served, same.bulk_id, ended)
        await until(served, (await create(served, other, [ids[1]])).bulk_id, ended)

    found = [await served.get(one, include_payloads=True) for one in ids]
    assert [(one.status, one.generation, one.input) for one in found] == [
        (RUNNING, 2, b'{"n":1}'),
        (RUNNING, 2, b'{"n":2}'),
    ]
    (refused_,) = await items(served, same.bulk_id, state=FAILED)
    assert refused_.workflow_id == running
    assert refused_.error.reason == error_pb2.REASON_WRONG_STATE


async def test_workflows_are_rerun_from_a_task_each_of_its_own(served: Served) -> None:
    await served.register(CHAIN)
    ids = await started(served, "chain", 2)
    for one in ids:
        await completed(served, one, 1, 2)
    from_b = bulk_pb2.BulkAction(rerun=bulk_pb2.BulkRerun(reference="b", task_input=b'{"n":2}'))
    from_c = bulk_pb2.BulkAction(rerun=bulk_pb2.BulkRerun(reference="c"))

    async with working(served.bulk):
        await until(served, (await create(served, from_b, ids)).bulk_id, ended)
        nowhere = await until(served, (await create(served, from_c, ids)).bulk_id, ended)

    for one in ids:
        assert (await served.get(one)).status == RUNNING
        last = await newest(served, one)
        assert (last.reference, last.status, last.input) == ("b", SCHEDULED, b'{"n":2}')
    assert [one.error.reason for one in await items(served, nowhere.bulk_id)] == [
        error_pb2.REASON_TASK_NOT_FOUND
    ] * 2


async def test_tasks_of_many_workflows_are_skipped_jumped_to_and_reported_on(served: Served) -> None:
    await served.register(CHAIN)
    skipping, jumping, reporting = await started(served, "chain", 3)
    skip = bulk_pb2.BulkAction(skip=bulk_pb2.BulkSkip(reference="b", output=b'{"s":1}'))
    jump = bulk_pb2.BulkAction(jump=bulk_pb2.BulkJump(reference="b", input=b'{"j":1}'))
    report = bulk_pb2.BulkAction(
        update_task=bulk_pb2.BulkUpdateTask(reference="a", output=b'{"r":1}', status=TERMINAL, reason="no")
    )

    async with working(served.bulk):
        for action, one in ((skip, skipping), (jump, jumping), (report, reporting)):
            done = await until(served, (await create(served, action, [one, UNKNOWN])).bulk_id, ended)
            assert (done.succeeded, done.failed) == (1, 1)
        await completed(served, skipping, 1)

    assert (await served.get(skipping)).status == workflow_pb2.WORKFLOW_STATUS_COMPLETED
    last = await newest(served, jumping)
    assert (last.reference, last.status, last.input) == ("b", SCHEDULED, b'{"j":1}')
    found = await served.get(reporting, include_payloads=True)
    assert found.status == workflow_pb2.WORKFLOW_STATUS_FAILED
    assert found.reason.endswith("reason: 'no'")


async def test_variables_of_many_workflows_are_changed_and_sleeping_tasks_handed_out(served: Served) -> None:
    await served.register(CHAIN)
    ids = await started(served, "chain", 2)
    update = bulk_pb2.BulkAction(update=bulk_pb2.BulkUpdate(variables=b'{"v":1}'))
    reset = bulk_pb2.BulkAction(reset=bulk_pb2.BulkReset())

    async with working(served.bulk):
        for action in (update, reset):
            done = await until(served, (await create(served, action, [*ids, UNKNOWN])).bulk_id, ended)
            assert (done.succeeded, done.failed) == (2, 1)

    assert [(await served.get(one, include_payloads=True)).variables for one in ids] == [b'{"v":1}'] * 2


async def test_workflows_are_removed_and_running_ones_only_where_they_may_be_ended(served: Served) -> None:
    await served.register(PAY)
    over, running = await started(served, "pay", 2)
    await failed(served, over)
    ending = bulk_pb2.BulkAction(remove=bulk_pb2.BulkRemove(terminate=True, reason="old"))

    async with working(served.bulk):
        first = await until(served, (await create(served, REMOVE, [over, running])).bulk_id, ended)
        second = await until(served, (await create(served, ending, [over, running])).bulk_id, ended)

    assert [one.state for one in await items(served, first.bulk_id)] == [SUCCEEDED, FAILED]
    assert [one.state for one in await items(served, second.bulk_id)] == [FAILED, SUCCEEDED]
    for one in (over, running):
        code, _ = await refused(served.get(one))
        assert code is grpc.StatusCode.NOT_FOUND


async def test_what_a_dead_node_had_removed_is_done(served: Served) -> None:
    """And what it had not, is removed."""
    await served.register(PAY)
    ids = await started(served, "pay", 2)
    for one in ids:
        await failed(served, one)
    bulk_id, dead = await begun(served, REMOVE, [*ids, UNKNOWN])
    await another(served, served.epoch)._operations.remove("default", ids[0])
    await gone(served, dead)

    async with working(served.bulk):
        await until(served, bulk_id, ended)

    assert [one.state for one in await items(served, bulk_id)] == [SUCCEEDED, SUCCEEDED, FAILED]


async def test_a_bulk_upgrade_tells_which_workflows_do_not_fit(served: Served) -> None:
    await served.register(PAY, definition("pay", task("SIMPLE", "b"), version=2))
    workflow_id = await served.start("pay", version=1)
    action = bulk_pb2.BulkAction(upgrade=bulk_pb2.BulkUpgrade(dry_run=True))

    async with working(served.bulk):
        made = await until(served, (await create(served, action, [workflow_id])).bulk_id, ended)

    (item,) = await items(served, made.bulk_id)
    assert item.state == FAILED
    assert "a: has an open task" in item.error.message


async def test_its_rate_is_kept(served: Served) -> None:
    await served.register(PAY)
    ids = await started(served, "pay", 6)
    async with working(served.bulk):
        made = await create(served, PAUSE, ids, rate=2)
        for done in range(1, 7):
            await until(served, made.bulk_id, lambda found, n=done: found.succeeded == n, advance=False)
            if done == 6:
                break
            async with asyncio.timeout(DEADLINE_S):
                await served.clock.awaited(served.clock.now_ms() + 500)
            served.clock.advance(499)
            assert (await read(served, made.bulk_id)).succeeded == done
            served.clock.advance(1)
        await until(served, made.bulk_id, ended, advance=False)


async def test_a_cancelled_operation_stops_and_says_what_was_done(served: Served) -> None:
    await served.register(PAY)
    ids = await started(served, "pay", 4)
    async with working(served.bulk):
        made = await create(served, PAUSE, ids, rate=1)
        await until(served, made.bulk_id, lambda found: found.succeeded == 1, advance=False)
        response = await served.bulks.CancelBulkOperation(
            wire.CancelBulkOperationRequest(bulk_id=made.bulk_id), timeout=DEADLINE_S
        )
        assert response.operation.state == bulk_pb2.BULK_STATE_CANCELLED
        served.clock.advance(60_000)
        made = await create(served, PAUSE, ids[3:])
        await until(served, made.bulk_id, ended)

    assert [(await served.get(one)).status for one in ids] == [PAUSED, RUNNING, RUNNING, PAUSED]


async def test_each_item_is_in_the_audit_before_it_is_done(served: Served) -> None:
    await served.register(PAY)
    ids = await started(served, "pay", 2)
    async with working(served.bulk):
        await until(served, (await create(served, PAUSE, ids)).bulk_id, ended)

    async with served.database.acquire() as connection:
        trail = await audit.read(connection, "default")
    done = [(row.principal, row.action, row.resource) for row in trail if row.action == "workflow:pause"]
    assert done == [("anonymous", "workflow:pause", one) for one in ids]
    assert "bulk:create" in {row.action for row in trail}


async def test_what_ended_a_week_ago_is_forgotten(served: Served) -> None:
    await served.register(PAY)
    ids = await started(served, "pay", 2)
    async with working(served.bulk):
        old = await until(served, (await create(served, PAUSE, ids)).bulk_id, ended)
    served.clock.advance(RETENTION_MS + 1)
    await _node_lives(served)
    young = await create(served, PAUSE, ids)

    async with working(served.bulk):
        await until(served, young.bulk_id, ended)

    code, _ = await refused(read(served, old.bulk_id))
    assert code is grpc.StatusCode.NOT_FOUND
    async with served.database.acquire() as connection:
        left = await connection.fetchval("SELECT count(DISTINCT bulk_id) FROM bulk_item")
    assert left == 1


async def _node_lives(served: Served) -> None:
    async with served.database.acquire() as connection:
        await connection.execute("UPDATE node SET lease_until_ms = $1", served.clock.now_ms() + 60_000)


# --- nodes that go away -----------------------------------------------------------------------------


class Breaking(Selection):
    """Finds workflows page by page, and dies before a page."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.broken = asyncio.Event()

    async def page(self, *arguments: Any, limit: int, **more: Any) -> list[tuple[int, str]]:
        if self.left == 0:
            self.broken.set()
            await asyncio.Event().wait()
        self.left -= 1
        return await super().page(*arguments, limit=limit, **more)


def another(served: Served, epoch: int, **parts: Any) -> BulkRunner:
    """The runner of another node, over the same store and executor."""
    plans = Plans(database=served.database, clock=served.clock)
    operations = Operations(
        executor=served.executor,
        plans=plans,
        database=served.database,
        clock=served.clock,
        watches=served.watches,
    )
    given = {"operations": operations, "selection": Selection(), **parts}
    return BulkRunner(
        database=served.database,
        clock=served.clock,
        epoch=lambda: epoch,
        metrics=Metrics(CollectorRegistry()),
        **given,
    )


async def begun(served: Served, action: bulk_pb2.BulkAction, ids: list[str]) -> tuple[str, int]:
    """An operation whose owner died after it had begun all items: its id, and the dead node's epoch."""
    dead = await node(served.database, served.clock, "node-dead")
    made = await create(served, action, ids)
    async with served.database.acquire() as connection:
        (bulk,) = await rows.take(connection, epoch=dead, busy=[], limit=1)
        taken = await rows.claim(
            connection, bulk, epoch=dead, limit=50, action="workflow:x", now_ms=served.clock.now_ms()
        )
    assert taken is not None
    assert len(taken) == len(ids)
    return made.bulk_id, dead


async def gone(served: Served, epoch: int) -> None:
    async with served.database.acquire() as connection:
        await connection.execute("DELETE FROM node n WHERE n.epoch = $1", epoch)


async def test_nobody_takes_what_a_living_node_works_on(served: Served) -> None:
    await served.register(PAY)
    bulk_id, _ = await begun(served, PAUSE, await started(served, "pay", 1))

    async with working(served.bulk):
        other = await create(served, PAUSE, [UNKNOWN])
        await until(served, other.bulk_id, ended)

    assert (await read(served, bulk_id)).state == bulk_pb2.BULK_STATE_RUNNING


async def test_a_dead_nodes_items_are_done_once(served: Served) -> None:
    """One had been restarted before the node died and has failed again since; the other had not."""
    await served.register(PAY)
    reached, missed = await started(served, "pay", 2)
    for one in (reached, missed):
        await failed(served, one)
    bulk_id, dead = await begun(served, RESTART, [reached, missed])
    operations = another(served, dead)._operations
    await operations.restart("default", reached)
    await served.happen(reached, Result(now_ms=served.clock.now_ms(), seq=2, status=TaskStatus.FAILED))
    await gone(served, dead)

    async with working(served.bulk):
        found = await until(served, bulk_id, ended)

    assert (found.succeeded, found.failed) == (2, 0)
    assert [(await served.get(one)).generation for one in (reached, missed)] == [2, 2]


async def test_a_retry_that_was_done_before_its_node_died_is_not_done_again(served: Served) -> None:
    await served.register(PAY)
    (workflow_id,) = await started(served, "pay", 1)
    await failed(served, workflow_id)
    bulk_id, dead = await begun(served, RETRY, [workflow_id])
    served.clock.advance(5)
    await another(served, dead)._operations.retry("default", workflow_id)
    await served.happen(workflow_id, Result(now_ms=served.clock.now_ms(), seq=2, status=TaskStatus.FAILED))
    await gone(served, dead)

    async with working(served.bulk):
        found = await until(served, bulk_id, ended)

    assert found.succeeded == 1
    assert (await served.get(workflow_id)).task_count == 2


async def test_a_signal_that_may_have_been_given_is_not_given_again(served: Served) -> None:
    await served.register(definition("twice", task("HUMAN", "a"), task("HUMAN", "b")))
    touched, untouched = await started(served, "twice", 2)
    bulk_id, dead = await begun(served, SIGNAL, [touched, untouched])
    await another(served, dead)._operations.signal("default", touched, reference="a")
    await gone(served, dead)

    async with working(served.bulk):
        found = await until(served, bulk_id, ended)

    assert (found.succeeded, found.failed) == (1, 1)
    (item,) = await items(served, bulk_id, state=FAILED)
    assert item.workflow_id == touched
    assert "look whether it was done" in item.error.message


async def test_a_dead_node_writes_nothing_more(served: Served) -> None:
    await served.register(PAY)
    bulk_id, dead = await begun(served, PAUSE, await started(served, "pay", 1))
    await gone(served, dead)

    async with served.database.acquire() as connection:
        bulk = await rows.get(connection, "default", bulk_id)
        assert bulk is not None
        now_ms = served.clock.now_ms()
        assert await rows.finish(connection, bulk, [(1, None)], epoch=dead, now_ms=now_ms) is None
        assert await rows.claim(connection, bulk, epoch=dead, limit=1, action="x", now_ms=now_ms) is None
        assert await rows.take(connection, epoch=dead, busy=[], limit=1) == []

    assert (await read(served, bulk_id)).succeeded == 0


async def test_collecting_goes_on_where_a_dead_node_left_it(served: Served) -> None:
    await served.register(PAY)
    ids = await started(served, "pay", 5)
    dead = await node(served.database, served.clock, "node-dead")
    breaking = Breaking(at=2)
    made = await create(served, PAUSE, query=bulk_pb2.BulkQuery(name="pay"))
    async with working(another(served, dead, selection=breaking, page=2)):
        await asyncio.wait_for(breaking.broken.wait(), DEADLINE_S)
    assert (await read(served, made.bulk_id)).total == 4
    await gone(served, dead)

    async with working(another(served, served.epoch, page=2)):
        found = await until(served, made.bulk_id, ended)

    assert (found.total, found.succeeded) == (5, 5)
    assert sorted(one.workflow_id for one in await items(served, made.bulk_id)) == sorted(ids)


# --- reading, and what is refused -----------------------------------------------------------------


async def test_operations_are_listed_the_youngest_first_page_by_page(served: Served) -> None:
    made = []
    for _ in range(3):
        made.append((await create(served, PAUSE, [UNKNOWN])).bulk_id)
        served.clock.advance(1)
    first = await served.bulks.ListBulkOperations(
        wire.ListBulkOperationsRequest(page_size=2), timeout=DEADLINE_S
    )
    second = await served.bulks.ListBulkOperations(
        wire.ListBulkOperationsRequest(page_size=2, page_token=first.next_page_token), timeout=DEADLINE_S
    )

    assert [one.bulk_id for one in (*first.operations, *second.operations)] == made[::-1]
    assert second.next_page_token == ""


async def test_a_repeat_with_the_same_key_finds_the_operation(served: Served) -> None:
    one = await create(served, PAUSE, [UNKNOWN], idempotency_key="k")
    same = await create(served, PAUSE, [UNKNOWN], idempotency_key="k")
    assert one == same

    code, refusal = await refused(create(served, TERMINATE, [UNKNOWN], idempotency_key="k"))
    assert (code, refusal.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        error_pb2.REASON_IDEMPOTENCY_CONFLICT,
    )


@pytest.mark.parametrize(
    ("action", "fields", "path"),
    [
        (bulk_pb2.BulkAction(), {"workflow_ids": [UNKNOWN]}, "action"),
        (PAUSE, {}, "workflow_ids"),
        (PAUSE, {"workflow_ids": [UNKNOWN], "query": bulk_pb2.BulkQuery()}, "query"),
        (PAUSE, {"query": bulk_pb2.BulkQuery(query="status = DONE")}, "query.query"),
        (PAUSE, {"query": bulk_pb2.BulkQuery(query="customer = 'c-1'")}, "query.query"),
        (PAUSE, {"workflow_ids": [UNKNOWN, "x"]}, "workflow_ids[1]"),
        (PAUSE, {"workflow_ids": [UNKNOWN], "rate": 1001}, "rate"),
        (PAUSE, {"workflow_ids": [UNKNOWN], "reason": "x" * 501}, "reason"),
        (
            bulk_pb2.BulkAction(terminate=bulk_pb2.BulkTerminate(reason="x" * 501)),
            {"workflow_ids": [UNKNOWN]},
            "action.terminate.reason",
        ),
        (
            bulk_pb2.BulkAction(remove=bulk_pb2.BulkRemove(reason="x" * 501)),
            {"workflow_ids": [UNKNOWN]},
            "action.remove.reason",
        ),
        (
            bulk_pb2.BulkAction(rerun=bulk_pb2.BulkRerun(workflow_input=b"[1]")),
            {"workflow_ids": [UNKNOWN]},
            "action.rerun.workflow_input",
        ),
        (
            bulk_pb2.BulkAction(rerun=bulk_pb2.BulkRerun(reference="a", workflow_input=b"{}")),
            {"workflow_ids": [UNKNOWN]},
            "action.rerun.workflow_input",
        ),
        (
            bulk_pb2.BulkAction(rerun=bulk_pb2.BulkRerun(task_input=b"{}")),
            {"workflow_ids": [UNKNOWN]},
            "action.rerun.task_input",
        ),
        (
            bulk_pb2.BulkAction(skip=bulk_pb2.BulkSkip()),
            {"workflow_ids": [UNKNOWN]},
            "action.skip.reference",
        ),
        (
            bulk_pb2.BulkAction(jump=bulk_pb2.BulkJump(reference="a", input=b"1")),
            {"workflow_ids": [UNKNOWN]},
            "action.jump.input",
        ),
        (
            bulk_pb2.BulkAction(update=bulk_pb2.BulkUpdate()),
            {"workflow_ids": [UNKNOWN]},
            "action.update.variables",
        ),
        (
            bulk_pb2.BulkAction(update_task=bulk_pb2.BulkUpdateTask(reference="a", status=SCHEDULED)),
            {"workflow_ids": [UNKNOWN]},
            "status",
        ),
        (
            bulk_pb2.BulkAction(upgrade=bulk_pb2.BulkUpgrade(version=-1)),
            {"workflow_ids": [UNKNOWN]},
            "action.upgrade.version",
        ),
    ],
)
async def test_an_operation_that_nothing_could_come_of_is_refused(
    served: Served, action: bulk_pb2.BulkAction, fields: dict[str, Any], path: str
) -> None:
    request = wire.CreateBulkOperationRequest(action=action, **fields)

    code, refusal = await refused(served.bulks.CreateBulkOperation(request, timeout=DEADLINE_S))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.path for violation in refusal.violations] == [path]


async def test_more_than_a_hundred_thousand_ids_are_refused(served: Served) -> None:
    ids = [str(uuid.UUID(int=number)) for number in range(100_001)]

    code, refusal = await refused(create(served, PAUSE, ids))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 100,000" in refusal.message


async def test_a_completed_operation_is_not_cancelled(served: Served) -> None:
    async with working(served.bulk):
        made = await until(served, (await create(served, PAUSE, [UNKNOWN])).bulk_id, ended)

    code, _ = await refused(
        served.bulks.CancelBulkOperation(
            wire.CancelBulkOperationRequest(bulk_id=made.bulk_id), timeout=DEADLINE_S
        )
    )
    assert code is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("bulk_id", [UNKNOWN, "x"])
async def test_an_unknown_operation_is_not_found(served: Served, bulk_id: str) -> None:
    expected = grpc.StatusCode.NOT_FOUND if bulk_id == UNKNOWN else grpc.StatusCode.INVALID_ARGUMENT
    for call in (
        served.bulks.GetBulkOperation(wire.GetBulkOperationRequest(bulk_id=bulk_id), timeout=DEADLINE_S),
        served.bulks.ListBulkItems(wire.ListBulkItemsRequest(bulk_id=bulk_id), timeout=DEADLINE_S),
        served.bulks.CancelBulkOperation(
            wire.CancelBulkOperationRequest(bulk_id=bulk_id), timeout=DEADLINE_S
        ),
    ):
        code, _ = await refused(call)
        assert code is expected


async def test_a_caller_needs_the_right_to_what_is_done_to_each(database_url: str) -> None:
    actions = ("bulk:*", "workflow:pause")
    principal = Principal(name="operator", namespaces=("default",), actions=actions)
    key = ApiKey(key_id="k", digest=digest("k", "s"), principal=principal)
    async with serve(database_url, config=Config(), authenticator=ApiKeys([key])) as served:
        metadata = (("authorization", "Bearer k.s"),)

        async def make(action: bulk_pb2.BulkAction) -> object:
            request = wire.CreateBulkOperationRequest(action=action, workflow_ids=[UNKNOWN])
            return await served.bulks.CreateBulkOperation(request, timeout=DEADLINE_S, metadata=metadata)

        await make(PAUSE)
        code, refusal = await refused(make(TERMINATE))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "workflow:terminate" in refusal.message


def test_every_action_of_the_contract_is_done() -> None:
    assert set(KINDS) == set(bulk_pb2.BulkAction.DESCRIPTOR.fields_by_name)


# --- a call that waits for all --------------------------------------------------------------------


async def test_a_call_that_waits_does_each_and_tells_of_each(served: Served) -> None:
    await served.register(PAY)
    ids = await started(served, "pay", 2)
    operations = another(served, served.epoch)._operations

    found = await for_each("default", [ids[0], UNKNOWN, ids[1]], operations.pause, name="bulk")

    assert [None if one is None else one.reason.name for one in found] == [None, "WORKFLOW_NOT_FOUND", None]
    assert [(await served.get(one)).status for one in ids] == [PAUSED] * 2


async def test_a_call_that_waits_takes_a_thousand(served: Served) -> None:
    operations = another(served, served.epoch)._operations
    with pytest.raises(MaestosoError, match="at most 1,000"):
        await for_each("default", [UNKNOWN] * 1001, operations.pause, name="bulk")
    assert len(await for_each("default", [UNKNOWN] * 1000, operations.pause, name="bulk")) == 1000
