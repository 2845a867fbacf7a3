"""The whole server, from its doors: what only shows when all floors are there."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from e2e.processes import get
from maestoso import Client, NotFound, TaskContext, Worker, worker
from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import workflow_pb2
from maestoso_server.clock import ManualClock
from maestoso_server.config import Config
from maestoso_server.server import Server
from maestoso_server.services.security import make_key

DEADLINE_S = 20.0
COMPLETED = workflow_pb2.WORKFLOW_STATUS_COMPLETED


def workflow(name: str, *tasks: dict[str, object]) -> dict[str, object]:
    return {"name": name, "version": 1, "schemaVersion": 2, "tasks": list(tasks)}


def simple(name: str, **inputs: object) -> dict[str, object]:
    return {"name": name, "taskReferenceName": name, "type": "SIMPLE", "inputParameters": inputs}


@worker("double")
async def double(number: int) -> dict[str, int]:
    return {"number": number * 2}


async def test_two_tasks_run_on_time_that_stands_still(server: Server) -> None:
    document = workflow(
        "twice",
        simple("double", number="${workflow.input.number}"),
        {**simple("double", number="${double.output.number}"), "taskReferenceName": "again"},
    )
    async with asyncio.timeout(DEADLINE_S), Client(server.grpc_address) as client:
        await client.register_workflows([document])
        async with Worker(server.grpc_address, [double]):
            ended = await client.wait(await client.start("twice", {"number": 3}))

    assert ended.status == COMPLETED
    assert json.loads(ended.output) == {"number": 12}


async def test_wait_ends_when_the_clock_is_moved_past_it(server: Server, manual_clock: ManualClock) -> None:
    wait = {
        "name": "wait",
        "taskReferenceName": "wait",
        "type": "WAIT",
        "inputParameters": {"duration": "1 hours"},
    }
    async with asyncio.timeout(DEADLINE_S), Client(server.grpc_address) as client:
        await client.register_workflows([workflow("patient", wait)])
        workflow_id = await client.start("patient")
        ended = asyncio.create_task(client.wait(workflow_id))
        manual_clock.advance(3_599_000)
        assert (await client.get(workflow_id)).status == workflow_pb2.WORKFLOW_STATUS_RUNNING

        manual_clock.advance(1_000)

        assert (await ended).status == COMPLETED


async def test_no_payload_is_logged_at_any_level(
    live_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "correct horse battery staple"

    @worker("keep")
    async def keep(words: str, context: TaskContext) -> dict[str, str]:
        return {"kept": words}

    with caplog.at_level(logging.DEBUG):
        async with asyncio.timeout(DEADLINE_S), Client(live_server.grpc_address) as client:
            await client.register_workflows(
                [workflow("secretive", simple("keep", words="${workflow.input.words}"))]
            )
            async with Worker(live_server.grpc_address, [keep]):
                ended = await client.wait(await client.start("secretive", {"words": secret}))

    assert json.loads(ended.output) == {"kept": secret}
    assert [record for record in caplog.records if secret in record.getMessage() + repr(vars(record))] == []


async def test_metrics_name_what_was_measured(live_server: Server) -> None:
    async with asyncio.timeout(DEADLINE_S), Client(live_server.grpc_address) as client:
        await client.register_workflows(
            [workflow("measured", simple("double", number=1)), workflow("left", simple("nobody"))]
        )
        async with Worker(live_server.grpc_address, [double]):
            await client.wait(await client.start("measured"))
        await client.start("left")
        status, text = await asyncio.to_thread(get, f"http://{live_server.http_address}/metrics")

    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert status == 200
    assert lines['maestoso_outcomes_total{of="workflow",status="COMPLETED"}'] == "1.0"
    assert lines['maestoso_outcomes_total{of="task",status="COMPLETED"}'] == "1.0"
    assert lines['maestoso_deliveries_total{way="stream"}'] == "1.0"
    assert lines['maestoso_queue_depth{namespace="default",queue="nobody"}'] == "1.0"
    for name in ("decide_seconds", "commit_seconds", "dispatch_seconds"):
        assert float(lines[f"maestoso_{name}_count"]) >= 1, name


class TestHttpBehindKeys:
    @pytest.fixture
    def credential(self, tmp_path: Path) -> str:
        credential, line = make_key("ops", "operator", actions=["metrics:read"])
        (tmp_path / "keys").write_text(line + "\n")
        return credential

    @pytest.fixture
    def server_config(self, database_url: str, tmp_path: Path, credential: str) -> Config:
        return Config(
            database_url=database_url,
            grpc_address="127.0.0.1:0",
            http_address="127.0.0.1:0",
            api_keys=str(tmp_path / "keys"),
        )

    async def test_metrics_ask_for_a_key_and_health_does_not(self, server: Server, credential: str) -> None:
        address = f"http://{server.http_address}"

        assert (await asyncio.to_thread(get, f"{address}/health"))[0] == 200
        assert (await asyncio.to_thread(get, f"{address}/ready"))[0] == 200
        refused, body = await asyncio.to_thread(get, f"{address}/metrics")
        assert (refused, json.loads(body)["reason"]) == (401, "REASON_UNAUTHENTICATED")
        wrong, _ = await asyncio.to_thread(get, f"{address}/metrics", authorization="Bearer ops.wrong")
        right, _ = await asyncio.to_thread(get, f"{address}/metrics", authorization=f"Bearer {credential}")
        assert (wrong, right) == (401, 200)


async def test_stopped_server_says_not_ready_while_it_drains_and_takes_no_more_calls(
    live_server: Server,
) -> None:
    released = asyncio.Event()

    @worker("linger")
    async def linger() -> None:
        await released.wait()

    async with asyncio.timeout(DEADLINE_S), Client(live_server.grpc_address, patience=0) as client:
        await client.register_workflows([workflow("slow", simple("linger"))])
        async with Worker(live_server.grpc_address, [linger], grace=1):
            workflow_id = await client.start("slow")
            while (await client.get(workflow_id)).tasks[0].status != task_pb2.TASK_STATUS_IN_PROGRESS:
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(live_server.stop())
            while (await asyncio.to_thread(get, f"http://{live_server.http_address}/ready"))[0] == 200:
                await asyncio.sleep(0.01)
            status, said = await asyncio.to_thread(get, f"http://{live_server.http_address}/ready")
            released.set()
            await stopping

    assert (status, said) == (503, "stopping\n")


async def test_unknown_workflow_is_not_found(server: Server) -> None:
    async with Client(server.grpc_address) as client:
        with pytest.raises(NotFound):
            await client.get("01977420-dc00-7679-8629-374509636667")
