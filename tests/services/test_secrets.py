"""Secrets reach workers and scripts, and nothing else: the whole server over a real store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from maestoso.task.v1.task_pb2 import Failure, TaskResult
from maestoso_server.clock import SystemClock
from maestoso_server.config import Config
from servers import serving
from worker_kit import Caller, calling, eventually

KEY = "s3cr3t-key-91"
TOKEN = "t0ken-of-another-kind"


@pytest.fixture
async def caller(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Caller]:
    (tmp_path / "KEY").write_text(KEY + "\n")
    (tmp_path / "DB").write_text(json.dumps({"user": "ann", "port": 5432}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "OTHERS").write_text("of another namespace")
    monkeypatch.setenv("CONDUCTOR_SECRET_TOKEN", TOKEN)
    monkeypatch.setenv("MAESTOSO_ENV_REGION", "eu-1")
    monkeypatch.setenv("CONDUCTOR_ENV_LIMITS", '{"most": 7}')
    config = Config(
        database_url=database_url,
        grpc_address="127.0.0.1:0",
        http_address="127.0.0.1:0",
        secrets_dir=str(tmp_path),
    )
    async with serving(config, SystemClock()) as server, calling(server.grpc_address) as found:
        yield found


def node(reference: str, inputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "name": reference,
        "taskReferenceName": reference,
        "type": "SIMPLE",
        "inputParameters": inputs,
        **fields,
    }


def flow(*tasks: dict[str, Any], name: str = "flow", **fields: Any) -> dict[str, Any]:
    return {"name": name, "version": 1, "schemaVersion": 2, "tasks": list(tasks), **fields}


def _branch(task: dict[str, Any]) -> dict[str, Any]:
    """A SWITCH that always runs the task."""
    return node(
        "s",
        {"k": "a"},
        type="SWITCH",
        evaluatorType="value-param",
        expression="k",
        decisionCases={"a": [task]},
    )


def sub_workflow(inputs: dict[str, Any]) -> dict[str, Any]:
    return node("sub", inputs, type="SUB_WORKFLOW", subWorkflowParam={"name": "child"})


async def given(caller: Caller, task_type: str, output: bytes = b"{}") -> dict[str, Any]:
    """What the worker of a task gets; it completes the task."""
    async with caller.worker(task_type) as worker:
        task = await worker.task()
        await worker.finish(task, output)
        found: dict[str, Any] = json.loads(task.input)
        return found


async def stored(database_url: str) -> str:
    """Every payload in the database, as text."""
    connection = await asyncpg.connect(database_url)
    try:
        found = []
        for table in ("workflow_payload", "task", "inbox", "plan_fragment", "workflow"):
            for row in await connection.fetch(f"SELECT * FROM {table}"):
                found.extend(
                    value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
                    for value in row.values()
                )
        return "\n".join(found)
    finally:
        await connection.close()


async def tasks_of(caller: Caller, workflow_id: str) -> dict[str, dict[str, Any]]:
    """Inputs and outputs by reference, as readers see them."""
    found = await caller.get(workflow_id)
    return {
        task.reference: {"in": json.loads(task.input or b"{}"), "out": json.loads(task.output or b"{}")}
        for task in found.tasks
    }


@pytest.mark.covers("H.env_backed.1")
async def test_a_worker_gets_the_value_and_the_store_keeps_the_placeholder(
    caller: Caller, database_url: str
) -> None:
    inputs = {
        "key": "${workflow.secrets.KEY}",
        "header": "Bearer ${workflow.secrets.TOKEN}!",
        "port": "${workflow.secrets.DB.port}",
        "none": "${workflow.secrets.NONE}",
        "region": "${workflow.env.REGION}",
        "most": "${workflow.env.LIMITS.most}",
    }
    await caller.register(flow(node("pay", inputs)))
    workflow_id = await caller.start("flow")

    assert await given(caller, "pay") == {
        "key": KEY,
        "header": f"Bearer {TOKEN}!",
        "port": 5432,
        "none": None,
        "region": "eu-1",
        "most": 7,
    }
    shown = (await tasks_of(caller, workflow_id))["pay"]["in"]
    assert shown == {**inputs, "region": "eu-1", "most": 7}
    assert KEY not in await stored(database_url)


async def test_a_poller_gets_the_value_too(caller: Caller) -> None:
    await caller.register(flow(node("pay", {"key": "x ${workflow.secrets.KEY}"})))
    await caller.start("flow")

    (task,) = await caller.poll("pay")

    assert json.loads(task.input) == {"key": f"x {KEY}"}


@pytest.mark.covers("B29")
async def test_a_placeholder_that_came_as_data_is_never_filled_in(caller: Caller) -> None:
    told = "${workflow.secrets.KEY}"
    inputs = {
        "direct": "${workflow.input.told}",
        "mixed": "${workflow.input.told} ${workflow.secrets.TOKEN}",
        "chosen": "${${workflow.input.path}}",
        "output": "${first.output.told}",
    }
    await caller.register(flow(node("first", {}), node("pay", inputs)))
    await caller.start("flow", input=json.dumps({"told": told, "path": "workflow.secrets.KEY"}).encode())
    await given(caller, "first", json.dumps({"told": told}).encode())

    assert await given(caller, "pay") == {
        "direct": told,
        "mixed": f"{told} {TOKEN}",
        "chosen": told,
        "output": told,
    }


@pytest.mark.covers("B30", "H.sync.1")
async def test_variables_and_children_pass_placeholders_on(caller: Caller, database_url: str) -> None:
    child = flow(
        node("inner", {"key": "${workflow.input.key}", "text": "k=${workflow.input.key}"}), name="child"
    )
    set_variable = node("keep", {"token": "${workflow.secrets.TOKEN}"}, type="SET_VARIABLE")
    start = node(
        "sub", {"key": "${workflow.secrets.KEY}"}, type="SUB_WORKFLOW", subWorkflowParam={"name": "child"}
    )
    last = node("last", {"token": "${workflow.variables.token}", "again": "${sub.input.workflowInput.key}"})
    await caller.register(child)
    await caller.register(flow(set_variable, start, last))
    workflow_id = await caller.start("flow")

    assert await given(caller, "inner") == {"key": KEY, "text": f"k={KEY}"}
    assert await given(caller, "last") == {"token": TOKEN, "again": KEY}
    await eventually(lambda: caller.status(workflow_id), "WORKFLOW_STATUS_COMPLETED")
    everything = await stored(database_url)
    assert KEY not in everything
    assert TOKEN not in everything
    assert json.loads((await caller.get(workflow_id)).variables) == {"token": "${workflow.secrets.TOKEN}"}


@pytest.mark.covers("H.sub_workflow.1")
async def test_a_childs_input_shows_the_placeholder(caller: Caller) -> None:
    await caller.register(flow(node("inner", {"key": "${workflow.input.key}"}), name="child"))
    start = node(
        "sub", {"key": "${workflow.secrets.KEY}"}, type="SUB_WORKFLOW", subWorkflowParam={"name": "child"}
    )
    await caller.register(flow(start))
    await caller.start("flow")

    async with caller.worker("inner") as worker:
        task = await worker.task()
        assert json.loads(task.input) == {"key": KEY}
        child = await caller.get(task.workflow_id)
        assert json.loads(child.input) == {"key": "${workflow.secrets.KEY}"}
        assert json.loads(child.tasks[0].input) == {"key": "${workflow.secrets.KEY}"}


@pytest.mark.covers("H.inline.1", "H.sync.2")
async def test_a_script_computes_with_the_value_and_its_result_hides_it(
    caller: Caller, database_url: str
) -> None:
    inline = node(
        "script",
        {"key": "${workflow.secrets.KEY}", "expression": "({auth: 'Basic ' + $.key, length: $.key.length})"},
        type="INLINE",
    )
    query = node(
        "query", {"key": "${workflow.secrets.KEY}", "queryExpression": "[.key, 1]"}, type="JSON_JQ_TRANSFORM"
    )
    last = node("pay", {"auth": "${script.output.result.auth}", "list": "${query.output.result}"})
    await caller.register(flow(inline, query, last))
    workflow_id = await caller.start("flow")

    assert await given(caller, "pay") == {"auth": f"Basic {KEY}", "list": [KEY, 1]}
    shown = await tasks_of(caller, workflow_id)
    assert shown["script"]["out"] == {"result": {"auth": "Basic ${workflow.secrets.KEY}", "length": len(KEY)}}
    assert KEY not in await stored(database_url)


async def test_what_a_worker_echoes_is_hidden_again(caller: Caller, database_url: str) -> None:
    await caller.register(
        flow(node("pay", {"key": "${workflow.secrets.KEY}"}), node("last", {"echo": "${pay.output.echo}"}))
    )
    workflow_id = await caller.start("flow")
    await given(caller, "pay", json.dumps({"echo": f"<{KEY}>", "more": [1, 2.0]}).encode())

    shown = (await tasks_of(caller, workflow_id))["pay"]["out"]
    assert shown == {"echo": "<${workflow.secrets.KEY}>", "more": [1, 2.0]}
    assert await given(caller, "last") == {"echo": f"<{KEY}>"}
    assert KEY not in await stored(database_url)


async def test_a_secret_of_another_namespace_is_not_there(caller: Caller) -> None:
    await caller.register(flow(node("pay", {"key": "${workflow.secrets.OTHERS}"})))
    await caller.start("flow")

    assert await given(caller, "pay") == {"key": None}


@pytest.mark.covers("B31")
async def test_the_process_environment_is_out_of_reach(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIN", "visible")
    inputs = {"path": "${PATH}", "plain": "${workflow.env.PLAIN}", "secret": "${workflow.env.TOKEN}"}
    await caller.register(flow(_branch(node("pay", inputs))))
    await caller.start("flow")

    assert await given(caller, "pay") == {"path": None, "plain": None, "secret": None}


@pytest.mark.covers("H.declared.1")
async def test_names_that_a_task_definition_declares_come_with_the_task(
    caller: Caller, database_url: str
) -> None:
    declared = {"name": "pay", "runtimeMetadata": ["KEY", "REGION", "NONE"]}
    await caller.register(flow(node("pay", {})), declared)
    workflow_id = await caller.start("flow")

    (task,) = await caller.poll("pay")

    assert dict(task.runtime_metadata) == {"KEY": KEY, "REGION": "eu-1"}
    assert KEY not in await stored(database_url)
    assert (await caller.get(workflow_id)).tasks[0].reference == "pay"


async def test_another_attempt_gets_the_value_again(caller: Caller) -> None:
    await caller.register(
        flow(node("pay", {"key": "${workflow.secrets.KEY}"}, retryCount=1)),
        {"name": "pay", "retryDelaySeconds": 0},
    )
    await caller.start("flow")

    (first,) = await caller.poll("pay")
    await caller.report(TaskResult(token=first.token, failure=Failure(message=f"refused {KEY}")))
    (second,) = await caller.poll("pay")

    assert json.loads(second.input) == {"key": KEY}
