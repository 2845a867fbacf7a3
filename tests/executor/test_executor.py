"""Start, results, races and losses, on a real database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.state import TaskStatus
from maestoso_server.errors import AlreadyExists, NotFound
from maestoso_server.executor import KeyPolicy, StartRequest

from .conftest import Engine


def simple(name: str, **inputs: Any) -> dict[str, Any]:
    return {"name": name, "taskReferenceName": name, "type": "SIMPLE", "inputParameters": inputs}


TWO = {
    "name": "two",
    "version": 1,
    "tasks": [
        simple("first", a="${workflow.input.a}"),
        simple("second", b="${first.output.b}"),
    ],
}


async def test_a_two_task_workflow_completes(engine: Engine) -> None:
    workflow_id = await engine.start(TWO, {"a": 1})
    assert (await engine.report(workflow_id, "first", {"b": 2**60 + 1})).verdict is Verdict.APPLIED
    assert (await engine.report(workflow_id, "second", {"c": 1.0})).verdict is Verdict.APPLIED
    assert await engine.status(workflow_id) == 3
    assert await engine.output(workflow_id) == {"c": 1.0}
    row = await engine.fetchrow(
        "SELECT input FROM task WHERE workflow_id = $1 AND reference = 'second'", workflow_id
    )
    assert row["input"] == b'{"b":1152921504606846977}'
    left = await engine.fetchrow(
        "SELECT (SELECT count(*) FROM task_queue) + (SELECT count(*) FROM deadline)"
        " + (SELECT count(*) FROM inbox) AS n"
    )
    assert left["n"] == 0


@pytest.mark.covers("K18")
async def test_a_repeated_result_is_stale(engine: Engine) -> None:
    workflow_id = await engine.start(TWO, {"a": 1})
    result = await engine.result(workflow_id, "first")
    outcomes = await asyncio.gather(*(engine.executor.apply(workflow_id, result) for _ in range(64)))
    assert sorted(outcome.verdict for outcome in outcomes) == [Verdict.APPLIED] + [Verdict.STALE] * 63
    row = await engine.fetchrow("SELECT count(*) AS n FROM task WHERE workflow_id = $1", workflow_id)
    assert row["n"] == 2


async def test_an_unknown_workflow_is_not_found(engine: Engine) -> None:
    workflow_id = await engine.start(TWO, {"a": 1})
    missing = workflow_id[:-4] + "0000"
    with pytest.raises(NotFound):
        from maestoso_server.engine.events import Terminate

        await engine.executor.apply(missing, Terminate(now_ms=1, reason="no such"))


async def test_a_used_idempotency_key_starts_once(engine: Engine) -> None:
    def request(policy: KeyPolicy) -> StartRequest:
        return StartRequest(namespace="default", definition=TWO, idempotency_key="k", key_policy=policy)

    outcomes = await engine.starter.start([request(KeyPolicy.RETURN_EXISTING) for _ in range(20)])
    assert len({outcome.workflow_id for outcome in outcomes}) == 1
    assert sum(not outcome.existing for outcome in outcomes) == 1
    (refused,) = await engine.starter.start([request(KeyPolicy.FAIL)])
    assert isinstance(refused.error, AlreadyExists)
    (running,) = await engine.starter.start([request(KeyPolicy.FAIL_ON_RUNNING)])
    assert isinstance(running.error, AlreadyExists)
    workflow_id = outcomes[0].workflow_id
    await engine.report(workflow_id, "first")
    await engine.report(workflow_id, "second")
    (again,) = await engine.starter.start([request(KeyPolicy.FAIL_ON_RUNNING)])
    assert again.error is None and again.workflow_id != workflow_id


async def test_a_sub_workflow_completes_its_parent(engine: Engine) -> None:
    parent = {
        "name": "parent",
        "version": 1,
        "tasks": [
            {
                "name": "child",
                "taskReferenceName": "child",
                "type": "SUB_WORKFLOW",
                "inputParameters": {"a": "${workflow.input.a}"},
                "subWorkflowParam": {"name": "two", "version": 1, "workflowDefinition": TWO},
            }
        ],
    }
    workflow_id = await engine.start(parent, {"a": 5})
    await engine.executor.idle()
    row = await engine.fetchrow("SELECT id FROM workflow WHERE parent_id = $1", workflow_id)
    child_id = str(row["id"])
    await engine.report(child_id, "first")
    await engine.report(child_id, "second", {"c": 3})
    await engine.executor.idle()
    assert await engine.status(child_id) == 3
    assert await engine.status(workflow_id) == 3
    assert await engine.output(workflow_id) == {"subWorkflowId": child_id, "c": 3}


def inline(expression: str) -> dict[str, Any]:
    task = {
        "name": "sum",
        "taskReferenceName": "sum",
        "type": "INLINE",
        "inputParameters": {
            "evaluatorType": "javascript",
            "expression": expression,
            "a": "${workflow.input.a}",
        },
    }
    return {"name": "inline", "version": 1, "tasks": [task]}


async def test_a_script_operator_is_done_when_the_start_is_answered(engine: Engine) -> None:
    workflow_id = await engine.start(inline("$.a + 1"), {"a": 41})
    assert await engine.ended(workflow_id) == 3
    assert await engine.output(workflow_id) == {"result": 42}


async def test_a_slow_script_holds_nobody_up_and_ends_its_task(engine: Engine) -> None:
    slow = "let n = 0; for (let i = 0; i < 3e6; i++) n += i % 7; n > 0 ? $.a : 0"
    workflow_id = await engine.start(inline(slow), {"a": 7})
    assert await engine.status(workflow_id) == 1
    assert await engine.ended(workflow_id) == 3
    assert await engine.output(workflow_id) == {"result": 7}


async def test_a_script_that_throws_fails_its_workflow(engine: Engine) -> None:
    workflow_id = await engine.start(inline("$.a.b.c"), {"a": 41})
    assert await engine.ended(workflow_id) == 4


async def test_a_failed_task_fails_its_workflow(engine: Engine) -> None:
    definition = {
        "name": "f",
        "version": 1,
        "tasks": [{**simple("first"), "retryCount": 0}, simple("second")],
    }
    workflow_id = await engine.start(definition)
    await engine.report(workflow_id, "first", status=TaskStatus.FAILED)
    assert await engine.status(workflow_id) == 4
