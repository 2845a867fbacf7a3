"""What a client reads of simple workflows (A of the behaviour catalogue), over a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from engine.harness import flow, simple
from maestoso.metadata.v1 import metadata_service_pb2
from maestoso.task.v1.task_pb2 import TaskStatus as Wire
from maestoso.workflow.v1 import workflow_pb2
from maestoso_server.engine.events import Result
from maestoso_server.engine.state import TaskStatus
from maestoso_server.payload import Json
from services_kit import DEADLINE_S, Served, serve


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(database_url) as opened:
        yield opened


LINEAR = flow(
    simple("t1", {"p1": "${workflow.input.param1}", "p3": None}),
    simple("t2", {"tp1": "${workflow.input.param1}", "tp2": "${t1.output.op}", "tp3": None}),
    outputParameters={"o1": "${workflow.input.param1}", "o3": "${t1.output.op}"},
    name="linear",
)


async def read(served: Served, workflow_id: str) -> workflow_pb2.Workflow:
    return await served.get(workflow_id, include_tasks=True, include_payloads=True)


async def complete(served: Served, workflow_id: str, seq: int, output: dict[str, Any]) -> None:
    result = Result(
        now_ms=served.clock.now_ms(), seq=seq, status=TaskStatus.COMPLETED, output=Json.of(output), delivery=0
    )
    await served.happen(workflow_id, result)


def shown(workflow: workflow_pb2.Workflow) -> list[str]:
    return [f"{task.reference}:{Wire.Name(task.status)[12:]}" for task in workflow.tasks]


@pytest.mark.covers("A.1")
async def test_two_tasks_in_a_row(served: Served) -> None:
    await served.register(LINEAR)
    workflow_id = await served.start("linear", input=b'{"param1":"p1 value"}', correlation_id="c")
    assert shown(await read(served, workflow_id)) == ["t1:SCHEDULED"]
    await complete(served, workflow_id, 1, {"op": "t1 done"})
    workflow = await read(served, workflow_id)
    assert shown(workflow) == ["t1:COMPLETED", "t2:SCHEDULED"]
    given = msgspec.json.decode(workflow.tasks[1].input)
    assert given == {"tp1": "p1 value", "tp2": "t1 done", "tp3": None}
    await complete(served, workflow_id, 2, {})
    workflow = await read(served, workflow_id)
    assert shown(workflow) == ["t1:COMPLETED", "t2:COMPLETED"]
    assert workflow.status == workflow_pb2.WORKFLOW_STATUS_COMPLETED
    assert msgspec.json.decode(workflow.output) == {"o1": "p1 value", "o3": "t1 done"}
    assert workflow.correlation_id == "c"


@pytest.mark.covers("A.2")
async def test_nulls_stay_in_inputs_and_outputs(served: Served) -> None:
    await served.register(LINEAR)
    workflow_id = await served.start("linear", input=b'{"param1":null}')
    output = {"op": None, "nested": {"a": None, "b": [None, {"c": None}]}}
    await complete(served, workflow_id, 1, output)
    workflow = await read(served, workflow_id)
    assert workflow.tasks[0].input == b'{"p1":null,"p3":null}'
    assert msgspec.json.decode(workflow.tasks[0].output) == output
    assert workflow.tasks[1].input == b'{"tp1":null,"tp2":null,"tp3":null}'
    await complete(served, workflow_id, 2, {})
    assert (await read(served, workflow_id)).output == b'{"o1":null,"o3":null}'


@pytest.mark.covers("A.5")
async def test_a_definition_without_a_schema_version_is_one_of_version_two(served: Served) -> None:
    bare = {key: value for key, value in LINEAR.items() if key != "schemaVersion"}
    await served.register({**LINEAR, "name": "with"}, {**bare, "name": "without"})
    documents = []
    for name in ("with", "without"):
        response = await served.metadata.GetWorkflowDefinition(
            metadata_service_pb2.GetWorkflowDefinitionRequest(name=name), timeout=DEADLINE_S
        )
        documents.append(msgspec.json.decode(response.definition.document))
        workflow_id = await served.start(name)
        assert shown(await read(served, workflow_id)) == ["t1:SCHEDULED"]
    assert [document.get("schemaVersion", 2) for document in documents] == [2, 2]
