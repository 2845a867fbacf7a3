"""Workflows over the wire: started, read, watched, steered; and each refused."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from maestoso.error.v1 import error_pb2
from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import workflow_pb2
from maestoso.workflow.v1 import workflow_service_pb2 as wire
from maestoso_server.config import Config
from maestoso_server.engine.events import Result
from maestoso_server.engine.state import TaskStatus
from services_kit import DEADLINE_S, Served, refused, serve

UNKNOWN = "0198c5f2-7a30-7c4e-8d21-3f6f0c9a1b2d"
RUNNING = workflow_pb2.WORKFLOW_STATUS_RUNNING
COMPLETED = workflow_pb2.WORKFLOW_STATUS_COMPLETED


def node(type_: str, reference: str, **fields: Any) -> dict[str, Any]:
    return {"name": reference, "taskReferenceName": reference, "type": type_, **fields}


def definition(name: str, *tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": 1,
        "schemaVersion": 2,
        "ownerEmail": "team@example.com",
        "tasks": list(tasks),
        **fields,
    }


ASK = definition("ask", node("HUMAN", "answer"), outputParameters={"got": "${answer.output}"})
PAY = definition("pay", node("SIMPLE", "charge"))
NOTHING = definition("nothing", node("NOOP", "done"))


async def signal(served: Served, workflow_id: str, **fields: Any) -> wire.SignalWorkflowResponse:
    return await served.workflows.SignalWorkflow(
        wire.SignalWorkflowRequest(workflow_id=workflow_id, **fields), timeout=DEADLINE_S
    )


async def listed(served: Served, **fields: Any) -> list[str]:
    response = await served.workflows.ListWorkflows(wire.ListWorkflowsRequest(**fields), timeout=DEADLINE_S)
    return [found.workflow_id for found in response.workflows]


# --- start --------------------------------------------------------------------------------------


async def test_a_started_workflow_has_its_first_task(served: Served) -> None:
    await served.register(PAY)

    workflow_id = await served.start("pay", input=b'{"n":1.0}', correlation_id="c-1", priority=7)

    found = await served.get(workflow_id, include_tasks=True, include_payloads=True)
    assert (found.status, found.name, found.version, found.created_by) == (RUNNING, "pay", 1, "anonymous")
    assert (found.input, found.correlation_id, found.priority) == (b'{"n":1.0}', "c-1", 7)
    assert (found.task_count, found.open_task_count) == (1, 1)
    assert [(task.reference, task.status) for task in found.tasks] == [
        ("charge", task_pb2.TASK_STATUS_SCHEDULED)
    ]


async def test_a_workflow_of_operators_has_ended_when_its_start_answers(served: Served) -> None:
    await served.register(NOTHING)

    found = await served.get(await served.start("nothing"))

    assert found.status == COMPLETED
    assert found.HasField("end_time")


async def test_a_start_of_what_is_not_registered_is_not_found(served: Served) -> None:
    code, refusal = await refused(served.start("absent"))

    assert code is grpc.StatusCode.NOT_FOUND
    assert refusal.reason == error_pb2.REASON_DEFINITION_NOT_FOUND


async def test_an_inline_definition_runs_and_is_not_registered(served: Served) -> None:
    workflow_id = await served.start("", definition=json.dumps(NOTHING).encode())

    assert (await served.get(workflow_id)).name == "nothing"
    code, _ = await refused(served.start("nothing"))
    assert code is grpc.StatusCode.NOT_FOUND


async def test_an_inline_definition_with_faults_is_refused_by_path(served: Served) -> None:
    broken = json.dumps(definition("broken", node("SWITCH", "choose"))).encode()

    code, refusal = await refused(served.start("", definition=broken))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == error_pb2.REASON_INVALID_DEFINITION
    assert all(fault.path.startswith("start.definition.tasks[0]") for fault in refusal.violations)


async def test_an_inline_definition_of_another_name_is_refused(served: Served) -> None:
    code, _ = await refused(served.start("other", definition=json.dumps(NOTHING).encode()))

    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.covers("B37")
@pytest.mark.parametrize(
    "text",
    [
        b'{"n":9007199254740993,"m":9223372036854775807,"big":1000000000000000000000000000000}',
        b'{"f":1.0,"none":null,"o":{},"l":[],"deep":[[[[{"a":[1]}]]]]}',
        '{"s":"✂ \\u0000 \U0001f600","z":1,"a":2}'.encode(),
    ],
)
async def test_json_passes_through_start_and_signal_byte_for_byte(served: Served, text: bytes) -> None:
    await served.register(ASK)

    workflow_id = await served.start("ask", input=text)
    await signal(served, workflow_id, reference="answer", output=text)

    found = await served.get(workflow_id, include_tasks=True, include_payloads=True)
    assert found.input == text
    assert found.tasks[0].output == text
    assert found.output == b'{"got":' + text + b"}"


async def test_many_starts_have_an_outcome_each(served: Served) -> None:
    await served.register(PAY)
    starts = [
        workflow_pb2.WorkflowStart(name="pay"),
        workflow_pb2.WorkflowStart(name="absent"),
        workflow_pb2.WorkflowStart(name="pay", input=b"[]"),
        workflow_pb2.WorkflowStart(name="pay"),
    ]

    response = await served.workflows.StartWorkflows(
        wire.StartWorkflowsRequest(starts=starts), timeout=DEADLINE_S
    )

    reasons = [outcome.error.reason for outcome in response.outcomes]
    assert reasons == [0, error_pb2.REASON_DEFINITION_NOT_FOUND, error_pb2.REASON_INVALID_JSON, 0]
    assert len(await listed(served)) == 2


@pytest.mark.parametrize("count", [0, Config().max_batch + 1])
async def test_a_batch_of_another_size_is_refused(served: Served, count: int) -> None:
    request = wire.StartWorkflowsRequest(starts=[workflow_pb2.WorkflowStart(name="pay")] * count)

    code, refusal = await refused(served.workflows.StartWorkflows(request, timeout=DEADLINE_S))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [fault.path for fault in refusal.violations] == ["starts"]


# --- idempotency --------------------------------------------------------------------------------


async def test_a_used_key_refuses_a_second_start(served: Served) -> None:
    await served.register(PAY)
    await served.start("pay", idempotency_key="k")

    code, refusal = await refused(served.start("pay", idempotency_key="k"))

    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == error_pb2.REASON_IDEMPOTENCY_CONFLICT


async def test_a_used_key_can_answer_with_its_workflow(served: Served) -> None:
    await served.register(PAY)
    first = await served.start("pay", idempotency_key="k")
    start = workflow_pb2.WorkflowStart(
        name="pay",
        idempotency_key="k",
        idempotency_strategy=workflow_pb2.IDEMPOTENCY_STRATEGY_RETURN_EXISTING,
    )

    response = await served.workflows.StartWorkflow(
        wire.StartWorkflowRequest(start=start), timeout=DEADLINE_S
    )

    assert (response.started.workflow_id, response.started.existing) == (first, True)


async def test_the_key_of_an_ended_workflow_can_be_used_again(served: Served) -> None:
    await served.register(NOTHING)
    strategy = workflow_pb2.IDEMPOTENCY_STRATEGY_FAIL_ON_RUNNING
    first = await served.start("nothing", idempotency_key="k")

    second = await served.start("nothing", idempotency_key="k", idempotency_strategy=strategy)

    assert second != first


async def test_the_key_of_a_running_workflow_can_not(served: Served) -> None:
    await served.register(PAY)
    strategy = workflow_pb2.IDEMPOTENCY_STRATEGY_FAIL_ON_RUNNING
    await served.start("pay", idempotency_key="k", idempotency_strategy=strategy)

    code, _ = await refused(served.start("pay", idempotency_key="k", idempotency_strategy=strategy))

    assert code is grpc.StatusCode.ALREADY_EXISTS


# --- read ---------------------------------------------------------------------------------------


async def test_what_was_not_asked_for_is_not_sent(served: Served) -> None:
    await served.register(PAY)

    found = await served.get(await served.start("pay", input=b'{"a":1}'))

    assert (found.input, len(found.tasks)) == (b"", 0)


async def test_tasks_come_by_pages(served: Served) -> None:
    branches = [[node("SIMPLE", f"b{number}")] for number in range(4)]
    join = node("JOIN", "join", joinOn=[f"b{number}" for number in range(4)])
    await served.register(definition("wide", node("FORK_JOIN", "fork", forkTasks=branches), join))
    workflow_id = await served.start("wide")
    seqs: list[int] = []
    token = ""

    while True:
        response = await served.workflows.GetWorkflow(
            wire.GetWorkflowRequest(
                workflow_id=workflow_id, include_tasks=True, task_page_size=4, task_page_token=token
            ),
            timeout=DEADLINE_S,
        )
        seqs += [task.seq for task in response.workflow.tasks]
        token = response.next_task_page_token
        if not token:
            break

    assert seqs == list(range(1, response.workflow.task_count + 1))
    assert len(seqs) > 4


@pytest.mark.parametrize(
    ("workflow_id", "code"),
    [
        (UNKNOWN, grpc.StatusCode.NOT_FOUND),
        ("", grpc.StatusCode.INVALID_ARGUMENT),
        ("not-an-id", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_workflow_is_found_by_its_id(served: Served, workflow_id: str, code: grpc.StatusCode) -> None:
    found, _ = await refused(served.get(workflow_id))

    assert found is code


async def test_an_id_is_found_in_any_spelling(served: Served) -> None:
    await served.register(PAY)
    workflow_id = await served.start("pay")

    assert (await served.get(workflow_id.upper())).workflow_id == workflow_id


async def test_workflows_are_listed_youngest_first_by_pages(served: Served) -> None:
    await served.register(PAY)
    started = []
    for _ in range(5):
        started.append(await served.start("pay"))
        served.clock.advance(1)
    seen: list[str] = []
    token = ""

    while True:
        response = await served.workflows.ListWorkflows(
            wire.ListWorkflowsRequest(page_size=2, page_token=token), timeout=DEADLINE_S
        )
        seen += [found.workflow_id for found in response.workflows]
        token = response.next_page_token
        if not token:
            break

    assert seen == started[::-1]


async def test_every_filter_narrows_a_list(served: Served) -> None:
    await served.register(PAY, NOTHING)
    old = await served.start("pay", correlation_id="c-1")
    served.clock.advance(1_000)
    boundary = Timestamp()
    boundary.FromMilliseconds(served.clock.now_ms())
    young = await served.start("nothing", correlation_id="c-2")

    assert await listed(served, name="pay") == [old]
    assert await listed(served, status=COMPLETED) == [young]
    assert await listed(served, status=RUNNING) == [old]
    assert await listed(served, correlation_id="c-2") == [young]
    assert await listed(served, created_from=boundary) == [young]
    assert await listed(served, created_before=boundary) == [old]
    assert await listed(served, name="pay", status=COMPLETED) == []


@pytest.mark.parametrize("fields", [{"status": 99}, {"page_size": 1_001}, {"page_token": "nonsense"}])
async def test_a_list_that_makes_no_sense_is_refused(served: Served, fields: dict[str, Any]) -> None:
    code, _ = await refused(listed(served, **fields))

    assert code is grpc.StatusCode.INVALID_ARGUMENT


# --- watch --------------------------------------------------------------------------------------


async def watch(served: Served, workflow_id: str, **fields: Any) -> AsyncIterator[workflow_pb2.Workflow]:
    request = wire.WatchWorkflowRequest(workflow_id=workflow_id, **fields)
    async for message in served.workflows.WatchWorkflow(request, timeout=DEADLINE_S):
        yield message.workflow


async def test_a_watch_tells_the_state_at_once_then_changes_until_the_end(served: Served) -> None:
    await served.register(ASK)
    workflow_id = await served.start("ask")

    stream = watch(served, workflow_id, include_payloads=True)
    first = await anext(stream)
    await signal(served, workflow_id, reference="answer", output=b'{"a":1}')
    rest = [told async for told in stream]

    assert first.status == RUNNING
    assert (rest[-1].status, rest[-1].output) == (COMPLETED, b'{"got":{"a":1}}')
    assert rest[-1].revision > first.revision


async def test_a_resumed_watch_tells_nothing_that_was_seen(served: Served) -> None:
    await served.register(ASK)
    workflow_id = await served.start("ask")
    seen = (await anext(watch(served, workflow_id))).revision

    await signal(served, workflow_id, reference="answer")
    told = [found.revision async for found in watch(served, workflow_id, after_revision=seen)]

    assert min(told) > seen


async def test_a_watcher_that_goes_away_leaves_no_error_in_the_log(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    await served.register(ASK)
    workflow_id = await served.start("ask")
    call = served.workflows.WatchWorkflow(wire.WatchWorkflowRequest(workflow_id=workflow_id))
    await call.read()

    call.cancel()
    gc.collect()  # a generator that nobody closed is closed by the collector, in another context
    for _ in range(20):
        await served.get(workflow_id)

    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_an_ended_workflow_is_told_once(served: Served) -> None:
    await served.register(NOTHING)
    workflow_id = await served.start("nothing")
    revision = (await served.get(workflow_id)).revision

    told = [found.status async for found in watch(served, workflow_id, after_revision=revision)]

    assert told == [COMPLETED]


async def test_a_change_by_another_node_is_told_after_the_next_poll(
    served: Served, database_url: str
) -> None:
    await served.register(ASK)
    workflow_id = await served.start("ask")
    stream = watch(served, workflow_id)
    await anext(stream)
    await served.watches.run_once()

    async with serve(database_url) as other:
        await signal(other, workflow_id, reference="answer")
    await served.watches.run_once()

    assert (await anext(stream)).status == COMPLETED


async def test_a_stopping_node_ends_its_watches(served: Served) -> None:
    await served.register(ASK)
    stream = watch(served, await served.start("ask"))
    await anext(stream)

    served.watches.end()
    code, refusal = await refused(anext(stream))

    assert code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == error_pb2.REASON_NODE_STOPPING


async def test_a_watch_of_an_unknown_workflow_is_not_found(served: Served) -> None:
    code, _ = await refused(anext(watch(served, UNKNOWN)))

    assert code is grpc.StatusCode.NOT_FOUND


# --- steer --------------------------------------------------------------------------------------


async def test_a_terminated_workflow_says_why_and_stays_so(served: Served) -> None:
    await served.register(PAY)
    workflow_id = await served.start("pay")
    request = wire.TerminateWorkflowRequest(workflow_id=workflow_id, reason="wrong order")

    await served.workflows.TerminateWorkflow(request, timeout=DEADLINE_S)
    await served.workflows.TerminateWorkflow(request, timeout=DEADLINE_S)

    found = await served.get(workflow_id)
    assert (found.status, found.reason) == (workflow_pb2.WORKFLOW_STATUS_TERMINATED, "wrong order")


async def test_a_completed_workflow_is_not_terminated(served: Served) -> None:
    await served.register(NOTHING)
    request = wire.TerminateWorkflowRequest(workflow_id=await served.start("nothing"))

    code, refusal = await refused(served.workflows.TerminateWorkflow(request, timeout=DEADLINE_S))

    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == error_pb2.REASON_WRONG_STATE


async def test_a_paused_workflow_goes_on_when_resumed(served: Served) -> None:
    await served.register(PAY)
    workflow_id = await served.start("pay")

    await served.workflows.PauseWorkflow(
        wire.PauseWorkflowRequest(workflow_id=workflow_id), timeout=DEADLINE_S
    )
    paused = (await served.get(workflow_id)).status
    await served.workflows.ResumeWorkflow(
        wire.ResumeWorkflowRequest(workflow_id=workflow_id), timeout=DEADLINE_S
    )

    assert paused == workflow_pb2.WORKFLOW_STATUS_PAUSED
    assert (await served.get(workflow_id)).status == RUNNING


async def test_an_ended_workflow_is_not_paused(served: Served) -> None:
    await served.register(NOTHING)
    request = wire.PauseWorkflowRequest(workflow_id=await served.start("nothing"))

    code, _ = await refused(served.workflows.PauseWorkflow(request, timeout=DEADLINE_S))

    assert code is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.covers("B38")
async def test_a_running_workflow_is_not_resumed(served: Served) -> None:
    await served.register(PAY)
    request = wire.ResumeWorkflowRequest(workflow_id=await served.start("pay"))

    code, _ = await refused(served.workflows.ResumeWorkflow(request, timeout=DEADLINE_S))

    assert code is grpc.StatusCode.FAILED_PRECONDITION


async def failed(served: Served) -> str:
    """A workflow that has failed for good."""
    await served.register(PAY)
    workflow_id = await served.start("pay")
    event = Result(
        now_ms=served.clock.now_ms(), seq=1, status=TaskStatus.FAILED_WITH_TERMINAL_ERROR, reason="no money"
    )
    await served.happen(workflow_id, event)
    return workflow_id


async def test_a_failed_workflow_runs_again_from_its_failed_task(served: Served) -> None:
    workflow_id = await failed(served)

    await served.workflows.RetryWorkflow(
        wire.RetryWorkflowRequest(workflow_id=workflow_id), timeout=DEADLINE_S
    )

    found = await served.get(workflow_id, include_tasks=True)
    assert (found.status, found.generation) == (RUNNING, 1)
    assert [task.attempt for task in found.tasks] == [0, 1]


async def test_a_running_workflow_is_not_retried(served: Served) -> None:
    await served.register(PAY)
    request = wire.RetryWorkflowRequest(workflow_id=await served.start("pay"))

    code, _ = await refused(served.workflows.RetryWorkflow(request, timeout=DEADLINE_S))

    assert code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_failed_workflow_runs_again_from_its_beginning(served: Served) -> None:
    workflow_id = await failed(served)

    await served.workflows.RestartWorkflow(
        wire.RestartWorkflowRequest(workflow_id=workflow_id), timeout=DEADLINE_S
    )

    found = await served.get(workflow_id)
    assert (found.status, found.generation, found.version) == (RUNNING, 2, 1)


async def test_a_restart_can_use_the_latest_definition(served: Served) -> None:
    workflow_id = await failed(served)
    await served.register({**PAY, "version": 2})

    await served.workflows.RestartWorkflow(
        wire.RestartWorkflowRequest(workflow_id=workflow_id, use_latest_definitions=True), timeout=DEADLINE_S
    )

    assert (await served.get(workflow_id)).version == 2


async def test_a_running_workflow_is_not_restarted(served: Served) -> None:
    await served.register(PAY)
    request = wire.RestartWorkflowRequest(workflow_id=await served.start("pay"))

    code, _ = await refused(served.workflows.RestartWorkflow(request, timeout=DEADLINE_S))

    assert code is grpc.StatusCode.FAILED_PRECONDITION


# --- signal -------------------------------------------------------------------------------------


async def test_a_signal_ends_the_waiting_task(served: Served) -> None:
    await served.register(ASK)
    workflow_id = await served.start("ask")

    response = await signal(served, workflow_id, reference="answer", output=b'{"yes":true}')

    assert response.outcome == wire.SIGNAL_OUTCOME_APPLIED
    assert (await served.get(workflow_id)).status == COMPLETED


async def test_an_early_signal_is_kept_for_its_task(served: Served) -> None:
    await served.register(definition("later", node("SIMPLE", "first"), node("HUMAN", "answer")))
    workflow_id = await served.start("later")

    response = await signal(served, workflow_id, reference="answer")
    await served.happen(workflow_id, Result(now_ms=served.clock.now_ms(), seq=1, status=TaskStatus.COMPLETED))

    assert response.outcome == wire.SIGNAL_OUTCOME_KEPT
    assert (await served.get(workflow_id)).status == COMPLETED


async def test_a_signal_to_an_ended_workflow_is_refused(served: Served) -> None:
    await served.register(NOTHING)

    code, _ = await refused(signal(served, await served.start("nothing"), reference="done"))

    assert code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_repeated_signal_is_refused_once_its_task_has_ended(served: Served) -> None:
    await served.register(definition("two", node("HUMAN", "answer"), node("HUMAN", "again")))
    workflow_id = await served.start("two")
    await signal(served, workflow_id, reference="answer")

    code, _ = await refused(signal(served, workflow_id, reference="answer"))

    assert code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_signal_to_a_task_that_the_definition_lacks_is_refused(served: Served) -> None:
    await served.register(ASK)

    code, _ = await refused(signal(served, await served.start("ask"), reference="absent"))

    assert code is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("fields", [{"output": b"1"}, {"status": task_pb2.TASK_STATUS_CANCELED}])
async def test_a_signal_that_makes_no_sense_is_refused(served: Served, fields: dict[str, Any]) -> None:
    await served.register(ASK)

    code, _ = await refused(signal(served, await served.start("ask"), reference="answer", **fields))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
