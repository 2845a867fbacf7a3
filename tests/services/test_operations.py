"""Operators' commands over the wire and a real store: reruns, skips, jumps, signals to children, removal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from maestoso import Client, FailedPrecondition, InvalidArgument, NotFound
from maestoso.error.v1 import error_pb2
from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import workflow_pb2
from maestoso.workflow.v1 import workflow_service_pb2 as wire
from maestoso_server.engine import events
from maestoso_server.engine.state import TaskStatus
from maestoso_server.payload import Json
from maestoso_server.store import removal
from services_kit import DEADLINE_S, Served, refused, serve

RUNNING = workflow_pb2.WORKFLOW_STATUS_RUNNING
UNKNOWN = "0198c5f2-7a30-7c4e-8d21-3f6f0c9a1b2d"


def node(type_: str, reference: str, **fields: Any) -> dict[str, Any]:
    return {"name": reference, "taskReferenceName": reference, "type": type_, "retryCount": 0, **fields}


def sub(name: str, reference: str = "sub") -> dict[str, Any]:
    return node("SUB_WORKFLOW", reference, subWorkflowParam={"name": name})


def definition(name: str, *tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "version": 1, "schemaVersion": 2, "tasks": list(tasks), **fields}


CHAIN = definition("chain", *(node("SIMPLE", name) for name in ("a", "b", "c")))
FAMILY = (
    definition("root", node("SIMPLE", "r"), sub("middle")),
    definition("middle", node("SIMPLE", "m"), sub("leaf")),
    definition("leaf", node("SIMPLE", "l1"), node("SIMPLE", "l2")),
)
ASKING = (
    definition("asks_below", sub("asks"), node("WAIT", "own")),
    definition("asks", node("HUMAN", "answer"), node("SIMPLE", "z"), node("WAIT", "later")),
)


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(database_url) as served:
        yield served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    async with asyncio.timeout(30), Client(f"127.0.0.1:{served.port}") as client:
        yield client


async def tasks(served: Served, workflow_id: str) -> list[task_pb2.Task]:
    """The newest run: those that a rerun has left behind are not in it."""
    found = await served.get(workflow_id, include_tasks=True, include_payloads=True)
    return [task for task in found.tasks if task.generation == found.generation]


async def shown(served: Served, workflow_id: str) -> list[str]:
    return [
        f"{task.reference}:{task_pb2.TaskStatus.Name(task.status).removeprefix('TASK_STATUS_')}"
        for task in await tasks(served, workflow_id)
    ]


async def result(
    served: Served, workflow_id: str, reference: str, status: TaskStatus = TaskStatus.COMPLETED
) -> None:
    (row,) = [
        t for t in await tasks(served, workflow_id) if t.reference == reference and not t.end_time.seconds
    ]
    event = events.Result(
        now_ms=served.clock.now_ms(), seq=row.seq, status=status, output=Json.of({"by": reference})
    )
    await served.happen(workflow_id, event)


async def child_of(served: Served, workflow_id: str) -> str:
    await served.executor.idle()
    return [task.child_workflow_id for task in await tasks(served, workflow_id) if task.child_workflow_id][-1]


async def failed_family(served: Served) -> tuple[str, str, str]:
    await served.register(*FAMILY)
    root = await served.start("root")
    await result(served, root, "r")
    middle = await child_of(served, root)
    await result(served, middle, "m")
    leaf = await child_of(served, middle)
    await result(served, leaf, "l1")
    await result(served, leaf, "l2", TaskStatus.FAILED)
    await served.executor.idle()
    assert (await served.get(root)).status == workflow_pb2.WORKFLOW_STATUS_FAILED
    return root, middle, leaf


async def finish(served: Served, workflow_id: str, *references: str) -> None:
    for reference in references:
        await result(served, workflow_id, reference)
    await served.executor.idle()


async def test_a_rerun_from_a_task_keeps_the_old_attempts(served: Served, client: Client) -> None:
    await served.register(CHAIN)
    workflow = await client.start("chain")
    await finish(served, workflow, "a", "b", "c")
    second = (await tasks(served, workflow))[1]
    assert await client.rerun(workflow, second.task_id, task_input={"n": 1}, correlation_id="x") == workflow
    assert await shown(served, workflow) == ["a:COMPLETED", "b:SCHEDULED"]
    assert json.loads((await tasks(served, workflow))[1].input) == {"n": 1}
    await finish(served, workflow, "b", "c")
    found = await served.get(workflow, include_tasks=True)
    assert found.status == workflow_pb2.WORKFLOW_STATUS_COMPLETED and found.correlation_id == "x"
    assert len(found.tasks) == 5
    assert sum(task.generation < 0 for task in found.tasks) == 2


async def test_a_rerun_from_the_beginning_takes_another_input(served: Served, client: Client) -> None:
    await served.register(CHAIN)
    workflow = await client.start("chain", {"n": 1})
    await finish(served, workflow, "a", "b", "c")
    assert await client.rerun(workflow, workflow_input={"n": 2}) == workflow
    found = await served.get(workflow, include_payloads=True)
    assert (json.loads(found.input), found.generation) == ({"n": 2}, 2)
    served.executor.forget_views()  # what is stored, not what is remembered
    assert await shown(served, workflow) == ["a:SCHEDULED"]
    await finish(served, workflow, "a", "b", "c")
    assert (await served.get(workflow)).status == workflow_pb2.WORKFLOW_STATUS_COMPLETED


async def test_reruns_that_are_refused(served: Served, client: Client) -> None:
    await served.register(CHAIN)
    workflow = await client.start("chain")
    (first,) = await tasks(served, workflow)
    with pytest.raises(FailedPrecondition):
        await client.rerun(workflow, first.task_id)
    other = await client.start("chain")
    (theirs,) = await tasks(served, other)
    await client.terminate(workflow)
    with pytest.raises(NotFound):
        await client.rerun(workflow, theirs.task_id)
    with pytest.raises(InvalidArgument):
        await client.rerun(workflow, first.task_id, workflow_input={})
    with pytest.raises(InvalidArgument):
        await client.rerun(workflow, task_input={})
    with pytest.raises(InvalidArgument):
        await client.rerun(workflow, "no id")


@pytest.mark.parametrize("how", ["retry", "restart", "rerun", "rerun_task"])
async def test_what_runs_again_below_answers_when_all_above_run(
    served: Served, client: Client, how: str
) -> None:
    root, middle, leaf = await failed_family(served)
    if how == "retry":
        await client.retry(leaf)
    elif how == "restart":
        await client.restart(leaf)
    elif how == "rerun":
        await client.rerun(leaf)
    else:  # found from the root
        task = (await tasks(served, leaf))[1]
        assert await client.rerun(root, task.task_id) == leaf
    statuses = [(await served.get(workflow)).status for workflow in (root, middle, leaf)]
    assert statuses == [RUNNING] * 3  # at once: no waiting here
    await finish(served, leaf, *(["l2"] if how in ("retry", "rerun_task") else ["l1", "l2"]))
    assert (await served.get(root)).status == workflow_pb2.WORKFLOW_STATUS_COMPLETED


@pytest.mark.covers("G.signal.4")
async def test_a_signal_goes_down_into_running_children(served: Served, client: Client) -> None:
    await served.register(*ASKING)
    workflow = await client.start("asks_below")
    child = await child_of(served, workflow)
    response = await served.workflows.SignalWorkflow(
        wire.SignalWorkflowRequest(workflow_id=workflow, output=b'{"x":1}'), timeout=DEADLINE_S
    )
    assert (response.workflow_id, response.outcome) == (child, wire.SIGNAL_OUTCOME_APPLIED)
    assert response.task_id == (await tasks(served, child))[0].task_id
    assert await shown(served, child) == ["answer:COMPLETED", "z:SCHEDULED"]
    # One that only the child has is kept there; one that this definition has, here.
    for reference, taker in (("later", child), ("own", workflow)):
        response = await served.workflows.SignalWorkflow(
            wire.SignalWorkflowRequest(workflow_id=workflow, reference=reference), timeout=DEADLINE_S
        )
        assert (response.workflow_id, response.outcome) == (taker, wire.SIGNAL_OUTCOME_KEPT)
        assert response.task_id == ""
    await finish(served, child, "z")
    assert (await served.get(workflow)).status == workflow_pb2.WORKFLOW_STATUS_COMPLETED


@pytest.mark.covers("G.signal.2", "G.signal.3")
async def test_a_signal_that_nothing_takes(served: Served, client: Client) -> None:
    await served.register(CHAIN)
    workflow = await client.start("chain")
    for reference in ("", "a", "nobody"):
        with pytest.raises(FailedPrecondition):
            await client.signal(workflow, reference)
    with pytest.raises(NotFound):
        await client.signal(UNKNOWN)
    assert await shown(served, workflow) == ["a:SCHEDULED"]


async def test_skip_jump_variables_and_updates(served: Served, client: Client) -> None:
    await served.register(CHAIN)
    workflow = await client.start("chain")
    await client.skip_task(workflow, "b", {"x": 1})
    await client.update_task(workflow, "a", {"p": 1}, status=task_pb2.TASK_STATUS_IN_PROGRESS)
    first = (await tasks(served, workflow))[0]
    assert await client.update_task(workflow, "a", {"q": 2}) == first.task_id
    assert await shown(served, workflow) == ["a:COMPLETED", "b:SKIPPED", "c:SCHEDULED"]
    assert json.loads((await tasks(served, workflow))[0].output) == {"p": 1, "q": 2}
    await client.jump_to_task(workflow, "a", {"n": 3})
    served.executor.forget_views()
    assert await shown(served, workflow) == ["a:SCHEDULED"]
    await client.jump_to_task(workflow, "c")
    assert await shown(served, workflow) == ["a:SKIPPED", "b:SKIPPED", "c:SCHEDULED"]
    await client.update_variables(workflow, {"v": 1})
    await client.update_variables(workflow, {"w": 2}, replace=True)
    await client.update_task(workflow, "c")
    found = await served.get(workflow, include_payloads=True)
    assert found.status == workflow_pb2.WORKFLOW_STATUS_COMPLETED
    assert json.loads(found.variables) == {"w": 2}


async def test_commands_that_find_nothing_or_come_too_late(served: Served, client: Client) -> None:
    await served.register(CHAIN)
    workflow = await client.start("chain")
    for call in (client.skip_task, client.jump_to_task, client.update_task):
        with pytest.raises(NotFound, match="nobody"):
            await call(workflow, "nobody")
        with pytest.raises(NotFound):
            await call(UNKNOWN, "a")
        with pytest.raises(InvalidArgument):
            await call(workflow, "")
    with pytest.raises(FailedPrecondition, match="SCHEDULED already"):
        await client.skip_task(workflow, "a")
    with pytest.raises(InvalidArgument):
        await client.update_task(workflow, "a", status=task_pb2.TASK_STATUS_TIMED_OUT)
    with pytest.raises(InvalidArgument):
        await client.update_variables(workflow, b"")
    await client.terminate(workflow)
    for call in (client.skip_task, client.jump_to_task, client.update_task):
        with pytest.raises(FailedPrecondition):
            await call(workflow, "a")
    with pytest.raises(FailedPrecondition):
        await client.update_variables(workflow, {})
    with pytest.raises(FailedPrecondition):
        await client.reset_callbacks(workflow)


@pytest.mark.covers("A.11")
async def test_reset_callbacks_makes_sleeping_tasks_due(served: Served, client: Client) -> None:
    delayed = definition("delayed", node("SIMPLE", "a", startDelay=3600))
    await served.register(delayed)
    workflow = await client.start("delayed")
    read = "SELECT owner_epoch, deadline_ms FROM task_queue WHERE workflow_id = $1"
    async with served.database.acquire() as connection:
        before = await connection.fetchrow(read, workflow)
    assert (before["owner_epoch"], before["deadline_ms"]) == (-1, served.clock.now_ms() + 3_600_000)
    assert await client.reset_callbacks(workflow) == 1
    async with served.database.acquire() as connection:
        after = await connection.fetchrow(read, workflow)
    assert (after["owner_epoch"], after["deadline_ms"]) == (-1, served.clock.now_ms())
    assert await client.reset_callbacks(workflow) == 0


LEFTOVERS = ("workflow_payload", "task", "task_log", "plan_fragment", "deadline", "inbox", "idempotency")


async def left(served: Served, workflow_id: str) -> list[str]:
    """The tables that still know the workflow."""
    async with served.database.acquire() as connection:
        found = [
            table
            for table in LEFTOVERS
            if await connection.fetchval(f"SELECT count(*) FROM {table} WHERE workflow_id = $1", workflow_id)
        ]
        alive = await connection.fetchval("SELECT count(*) FROM workflow WHERE id = $1", workflow_id)
    return [*found, *(["workflow"] if alive else [])]


async def test_remove_leaves_nothing_behind(served: Served, client: Client) -> None:
    await served.register(*ASKING, CHAIN)
    workflow = await client.start("asks_below", idempotency_key="once")
    child = await child_of(served, workflow)
    await client.signal(workflow, "own")
    with pytest.raises(FailedPrecondition, match="terminate"):
        await client.remove(workflow)
    assert await client.remove(workflow, terminate=True) == 1
    assert await left(served, workflow) == []
    with pytest.raises(NotFound):
        await client.get(workflow)
    with pytest.raises(NotFound):
        await client.remove(workflow)
    await served.executor.idle()
    assert (await served.get(child)).status == workflow_pb2.WORKFLOW_STATUS_TERMINATED
    assert await client.start("asks_below", idempotency_key="once") != workflow


async def test_remove_reaches_children_where_asked(served: Served, client: Client) -> None:
    root, middle, leaf = await failed_family(served)
    assert await client.remove(root, recursive=True) == 3
    for workflow in (root, middle, leaf):
        assert await left(served, workflow) == []


async def test_a_message_to_a_removed_workflow_is_dropped(served: Served, client: Client) -> None:
    root, _, leaf = await failed_family(served)
    middle = await child_of(served, root)
    await client.remove(middle)
    # The leaf runs again and ends: its messages find no parent.
    await client.retry(leaf)
    await finish(served, leaf, "l2")
    assert await left(served, middle) == []


async def test_no_running_descendant_after_a_terminate_that_starts_the_failure_workflow(
    served: Served, client: Client
) -> None:
    await served.register(
        definition("mend", node("NOOP", "n")),
        definition("frail", node("SIMPLE", "a"), failureWorkflow="mend"),
    )
    workflow = await client.start("frail")
    await client.terminate(workflow, "enough", trigger_failure_workflow=True)
    output = json.loads((await served.get(workflow, include_payloads=True)).output)
    await served.executor.idle()
    assert (await served.get(output["conductor.failure_workflow"])).name == "mend"


async def test_a_refusal_names_its_reason(served: Served) -> None:
    await served.register(CHAIN)
    workflow = await served.start("chain")
    code, error = await refused(
        served.workflows.SkipTask(
            wire.SkipTaskRequest(workflow_id=workflow, reference="nobody"), timeout=DEADLINE_S
        )
    )
    assert (code, error.reason) == (grpc.StatusCode.NOT_FOUND, error_pb2.REASON_TASK_NOT_FOUND)
    assert "nobody" in error.message


async def test_who_watches_a_workflow_hears_that_it_was_removed(served: Served, client: Client) -> None:
    await served.register(CHAIN)
    workflow = await client.start("chain")
    stream = served.workflows.WatchWorkflow(
        wire.WatchWorkflowRequest(workflow_id=workflow), timeout=DEADLINE_S
    )
    assert (await stream.read()).workflow.status == RUNNING
    async with served.database.acquire() as connection:  # another node removes it
        await connection.execute("UPDATE workflow SET status = 6 WHERE id = $1", workflow)
        await removal.remove_workflow(connection, workflow)
    await served.watches.run_once()
    with pytest.raises(grpc.aio.AioRpcError) as seen:
        await stream.read()
    assert seen.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.covers("A.7")
async def test_a_restart_on_the_latest_definition_runs_its_new_task(served: Served, client: Client) -> None:
    await served.register(CHAIN)
    workflow = await client.start("chain")
    await result(served, workflow, "a", TaskStatus.FAILED)
    longer = {**CHAIN, "version": 2, "tasks": [*CHAIN["tasks"], node("SIMPLE", "d")]}
    await served.register(longer)
    await client.restart(workflow, latest_definitions=True)
    await finish(served, workflow, "a", "b", "c", "d")
    found = await served.get(workflow)
    assert (found.status, found.version) == (workflow_pb2.WORKFLOW_STATUS_COMPLETED, 2)
