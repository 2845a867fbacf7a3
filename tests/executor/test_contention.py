"""Several nodes at one workflow: nothing is lost, nothing happens twice. DELIVERY 6."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Due, Pause, Result, Resume
from maestoso_server.engine.state import TaskStatus
from maestoso_server.executor import Nowhere
from maestoso_server.executor.forwarding import Forwarding
from maestoso_server.executor.lanes import Item
from maestoso_server.payload import Json
from maestoso_server.store import inbox

from .conftest import Engine, open_engine
from .test_executor import simple

BRANCHES = 64


@pytest.fixture
async def nodes(database_url: str) -> AsyncIterator[list[Engine]]:
    made = [await open_engine(database_url) for _ in range(3)]
    yield made
    for engine in made:
        await engine.executor.idle()
        await engine.evaluators.stop()
        await engine.database.close()


def wide() -> dict[str, Any]:
    names = [f"b{number}" for number in range(BRANCHES)]
    return {
        "name": "wide",
        "version": 1,
        "tasks": [
            {
                "name": "fork",
                "taskReferenceName": "fork",
                "type": "FORK_JOIN",
                "forkTasks": [[simple(name)] for name in names],
            },
            {"name": "join", "taskReferenceName": "join", "type": "JOIN", "joinOn": names},
            simple("after"),
        ],
    }


async def deliver_messages(nodes: list[Engine]) -> None:
    """What the inbox loops of the nodes do."""
    for engine in nodes:
        async with engine.database.acquire() as connection:
            due = await inbox.due_workflows(connection, epoch=engine.epoch, now_ms=engine.clock.now_ms())
            answers = await inbox.take_answers(connection, epoch=engine.epoch)
        for workflow_id in due:
            engine.executor.drain(workflow_id)
        for answer in answers:
            engine.executor.answered(answer.id, answer.outcome)
    for engine in nodes:
        await engine.executor.idle()


async def test_64_concurrent_completions_on_three_nodes_make_one_successor(nodes: list[Engine]) -> None:
    workflow_id = await nodes[0].start(wide())
    async with nodes[0].database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT t.seq, q.delivery FROM task t JOIN task_queue q USING (workflow_id, seq)"
            " WHERE t.workflow_id = $1",
            workflow_id,
        )
    assert len(rows) == BRANCHES

    async def report(place: int, row: Any, twice: int) -> Verdict:
        engine = nodes[(place + twice) % len(nodes)]
        event = Result(
            now_ms=engine.clock.now_ms(),
            seq=row["seq"],
            delivery=row["delivery"],
            status=TaskStatus.COMPLETED,
            output=Json.of({"place": place}),
        )
        return (await engine.executor.apply(workflow_id, event)).verdict

    verdicts = await asyncio.gather(
        *(report(place, row, twice) for place, row in enumerate(rows) for twice in (0, 1))
    )
    assert sorted(verdicts) == [Verdict.APPLIED] * BRANCHES + [Verdict.STALE] * BRANCHES
    await deliver_messages(nodes)
    left = await nodes[0].fetchrow("SELECT count(*) AS n FROM inbox")
    assert left["n"] == 0
    after = await nodes[0].fetchrow(
        "SELECT count(*) AS n FROM task WHERE workflow_id = $1 AND reference = 'after'", workflow_id
    )
    assert after["n"] == 1
    await nodes[1].report(workflow_id, "after")
    assert await nodes[0].status(workflow_id) == 3


async def test_a_forwarded_command_is_answered_when_it_was_applied(nodes: list[Engine]) -> None:
    here, there = nodes[:2]
    workflow_id = await there.start(wide())
    answered: list[Any] = []
    forwarding = Forwarding(database=here.database, placement=Nowhere(), epoch=lambda: here.epoch)
    item = Item(Pause(now_ms=here.clock.now_ms()), answered.append)
    assert await forwarding.forward(workflow_id, [item]) == ([], False)
    assert answered == []
    there.executor.drain(workflow_id)
    await there.executor.idle()
    assert await here.status(workflow_id) == 2
    async with here.database.acquire() as connection:
        (answer,) = await inbox.take_answers(connection, epoch=here.epoch)
    forwarding.answered(answer.id, answer.outcome)
    (outcome,) = answered
    assert outcome.verdict is Verdict.APPLIED


async def test_a_forwarded_result_with_a_stale_token_is_refused(nodes: list[Engine]) -> None:
    here, there = nodes[:2]
    workflow_id = await there.start(wide())
    answered: list[Any] = []
    forwarding = Forwarding(database=here.database, placement=Nowhere(), epoch=lambda: here.epoch)
    event = Result(now_ms=here.clock.now_ms(), seq=3, delivery=99, status=TaskStatus.COMPLETED)
    assert await forwarding.forward(workflow_id, [Item(event, answered.append)]) == ([], False)
    (outcome,) = answered
    assert outcome.verdict is Verdict.STALE
    left = await here.fetchrow("SELECT count(*) AS n FROM inbox")
    assert left["n"] == 0


async def test_a_view_that_another_node_has_outdated_answers_nobody(nodes: list[Engine]) -> None:
    here, there = nodes[:2]
    workflow_id = await here.start({"name": "two", "version": 1, "tasks": [simple("one"), simple("two")]})
    await there.report(workflow_id, "one")
    # What `here` remembers of the workflow has no task `two`.
    outcome = await here.report(workflow_id, "two")
    assert outcome.verdict is Verdict.APPLIED
    assert await there.status(workflow_id) == 3


async def test_a_deadline_that_another_node_has_armed_is_heeded(nodes: list[Engine]) -> None:
    here, there = nodes[:2]
    wait = {
        "name": "wait",
        "taskReferenceName": "wait",
        "type": "WAIT",
        "inputParameters": {"duration": "1 s"},
    }
    workflow_id = await here.start({"name": "later", "version": 1, "tasks": [simple("one"), wait]})
    await there.report(workflow_id, "one")
    row = await here.fetchrow("SELECT seq, due_ms FROM deadline WHERE workflow_id = $1", workflow_id)
    outcome = await here.executor.apply(workflow_id, Due(now_ms=row["due_ms"], seq=row["seq"]))
    assert outcome.verdict is Verdict.APPLIED
    assert await there.status(workflow_id) == 3


async def test_a_command_that_another_node_has_made_possible_is_not_refused(nodes: list[Engine]) -> None:
    here, there = nodes[:2]
    workflow_id = await here.start({"name": "one", "version": 1, "tasks": [simple("one")]})
    now_ms = here.clock.now_ms()
    assert (await there.executor.apply(workflow_id, Pause(now_ms=now_ms))).verdict is Verdict.APPLIED
    assert (await here.executor.apply(workflow_id, Resume(now_ms=now_ms))).verdict is Verdict.APPLIED
