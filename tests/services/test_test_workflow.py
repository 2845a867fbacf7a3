"""TestWorkflow: what a workflow does when its tasks turn out as mocks say; nothing is left behind."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from maestoso.error.v1 import error_pb2
from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import workflow_pb2
from maestoso.workflow.v1 import workflow_service_pb2 as wire
from services_kit import DEADLINE_S, Served, refused

COMPLETED = workflow_pb2.WORKFLOW_STATUS_COMPLETED
FAILED = workflow_pb2.WORKFLOW_STATUS_FAILED
RUNNING = workflow_pb2.WORKFLOW_STATUS_RUNNING
TIMED_OUT = workflow_pb2.WORKFLOW_STATUS_TIMED_OUT
ENDED = workflow_pb2.TEST_STOP_ENDED
LACKS_MOCKS = workflow_pb2.TEST_STOP_LACKS_MOCKS


def node(type_: str, reference: str, **fields: Any) -> dict[str, Any]:
    return {"name": reference, "taskReferenceName": reference, "type": type_, **fields}


def simple(reference: str, **fields: Any) -> dict[str, Any]:
    return node("SIMPLE", reference, **{"retryCount": 0, **fields})


def definition(*tasks: dict[str, Any], name: str = "tried", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": 1,
        "schemaVersion": 2,
        "ownerEmail": "team@example.com",
        "tasks": list(tasks),
        **fields,
    }


def mock(output: Any = None, status: str = "COMPLETED", **fields: Any) -> workflow_pb2.TaskMock:
    for name in ("execution_time", "queue_wait_time"):
        if name in fields:
            fields[name] = Duration(seconds=fields[name])
    return workflow_pb2.TaskMock(
        output=json.dumps(output or {}).encode(),
        status=task_pb2.TaskStatus.Value(f"TASK_STATUS_{status}"),
        **fields,
    )


def mocks(
    children: dict[str, workflow_pb2.WorkflowMocks] | None = None, **tasks: list[workflow_pb2.TaskMock]
) -> workflow_pb2.WorkflowMocks:
    return workflow_pb2.WorkflowMocks(
        tasks={name: workflow_pb2.TaskMocks(mocks=listed) for name, listed in tasks.items()},
        children=children or {},
    )


async def tried(
    served: Served,
    document: dict[str, Any],
    mocked: workflow_pb2.WorkflowMocks | None = None,
    input: Any = None,
    **start: Any,
) -> wire.TestWorkflowResponse:
    return await served.workflows.TestWorkflow(
        wire.TestWorkflowRequest(
            start=workflow_pb2.WorkflowStart(
                definition=json.dumps(document).encode(), input=json.dumps(input or {}).encode(), **start
            ),
            mocks=mocked,
        ),
        timeout=DEADLINE_S,
    )


def shown(workflow: workflow_pb2.Workflow) -> list[str]:
    names = task_pb2.TaskStatus.Name
    return [f"{task.reference}:{names(task.status).removeprefix('TASK_STATUS_')}" for task in workflow.tasks]


def output(response: wire.TestWorkflowResponse) -> Any:
    return json.loads(response.workflow.output)


@pytest.mark.covers("G.test_workflow.1")
async def test_a_mocked_task_completes_and_the_next_one_waits_for_its_mock(served: Served) -> None:
    document = definition(simple("t1"), simple("t2", inputParameters={"got": "${t1.output.v}"}))

    found = await tried(served, document, mocks(t1=[mock({"v": 7})]))

    assert shown(found.workflow) == ["t1:COMPLETED", "t2:SCHEDULED"]
    assert found.workflow.status == RUNNING
    assert (found.stop, list(found.lacking)) == (LACKS_MOCKS, ["t2"])
    assert json.loads(found.workflow.tasks[1].input) == {"got": 7}


@pytest.mark.covers("G.test_workflow.2")
async def test_the_switch_between_takes_the_case_that_the_mock_says(served: Served) -> None:
    chosen = node(
        "SWITCH",
        "s",
        evaluatorType="javascript",
        expression="$.v > 5 ? 'high' : 'low'",
        inputParameters={"v": "${t1.output.v}"},
        decisionCases={"high": [node("SIMPLE", "d2", name="task2")], "low": [simple("d1")]},
    )

    found = await tried(served, definition(simple("t1"), chosen), mocks(t1=[mock({"v": 7})]))

    assert shown(found.workflow) == ["t1:COMPLETED", "s:COMPLETED", "d2:SCHEDULED"]
    assert found.workflow.tasks[2].name == "task2"


async def test_nothing_is_stored_and_nobody_is_asked_to_work(served: Served) -> None:
    async def counted() -> list[int]:
        tables = [
            "workflow",
            "workflow_payload",
            "task",
            "task_queue",
            "deadline",
            "inbox",
            "snapshot",
            "idempotency",
        ]
        async with served.database.acquire() as connection:
            return [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]

    before = await counted()
    document = definition(
        node("START_WORKFLOW", "begin", inputParameters={"startWorkflow": {"name": "other"}}),
        simple("t"),
        failureWorkflow="other",
    )
    await served.register(definition(node("NOOP", "n"), name="other"))

    found = await tried(served, document, mocks(t=[mock(status="FAILED")]))

    assert found.workflow.status == FAILED
    assert list(found.would_start) == ["other", "other"]
    assert await counted() == before


async def test_a_start_with_a_key_finds_it_free(served: Served) -> None:
    await served.register(definition(node("NOOP", "n"), name="other"))
    await served.start("other", idempotency_key="k")
    keyed = {"name": "other", "idempotencyKey": "k", "idempotencyStrategy": "FAIL"}

    document = definition(node("START_WORKFLOW", "begin", inputParameters={"startWorkflow": keyed}))
    found = await tried(served, document)

    assert (found.workflow.status, list(found.would_start)) == (COMPLETED, ["other"])


async def test_a_registered_definition_is_tried_with_its_registered_tasks(served: Served) -> None:
    await served.register(definition(simple("t"), outputParameters={"v": "${t.output.v}"}))
    response = await served.workflows.TestWorkflow(
        wire.TestWorkflowRequest(
            start=workflow_pb2.WorkflowStart(name="tried"), mocks=mocks(t=[mock({"v": 1})])
        ),
        timeout=DEADLINE_S,
    )

    assert (response.stop, output(response)) == (ENDED, {"v": 1})


async def test_retries_pass_at_once_and_use_one_mock_each(served: Served) -> None:
    policy = {"name": "t", "retryCount": 2, "retryDelaySeconds": 3600}
    document = definition(node("SIMPLE", "t", taskDefinition=policy))
    listed = [mock(status="FAILED", reason="no luck", times=2), mock({"v": 1}, execution_time=5)]

    found = await tried(served, document, mocks(t=listed))

    assert shown(found.workflow) == ["t:FAILED", "t:FAILED", "t:COMPLETED"]
    assert found.workflow.tasks[0].reason == "no luck"
    took_s = found.workflow.end_time.seconds - found.workflow.create_time.seconds
    assert took_s == 2 * 3600 + 5


async def test_loops_use_the_next_mock_by_turn_or_the_one_of_that_turn(served: Served) -> None:
    body = [simple("a"), simple("b")]
    loop = node("DO_WHILE", "l", loopOver=body, loopCondition="$.l['iteration'] < 3")
    listed = {"a": [mock({"n": 1}), mock({"n": 2}), mock({"n": 3})], "b": [mock({"n": 0}, times=2)]}

    found = await tried(served, definition(loop), mocks(**listed, b__2=[mock({"n": 22})]))

    assert found.workflow.status == COMPLETED
    values = {task.reference: json.loads(task.output) for task in found.workflow.tasks}
    assert [values[f"a__{turn}"]["n"] for turn in (1, 2, 3)] == [1, 2, 3]
    assert [values[f"b__{turn}"]["n"] for turn in (1, 2, 3)] == [0, 22, 0]


async def test_waits_pass_and_people_are_mocked(served: Served) -> None:
    document = definition(
        node("WAIT", "w", inputParameters={"duration": "2 days"}),
        node("HUMAN", "h"),
        outputParameters={"said": "${h.output.said}"},
    )

    found = await tried(served, document, mocks(h=[mock({"said": "yes"})]))

    assert output(found) == {"said": "yes"}
    assert found.workflow.end_time.seconds - found.workflow.create_time.seconds == 2 * 86_400


async def test_a_mock_that_runs_too_long_times_out(served: Served) -> None:
    policy = {"name": "t", "retryCount": 0, "responseTimeoutSeconds": 10}
    document = definition(node("SIMPLE", "t", taskDefinition=policy))

    late = await tried(served, document, mocks(t=[mock(execution_time=11)]))
    just = await tried(served, document, mocks(t=[mock(execution_time=9)]))

    assert (late.workflow.status, shown(late.workflow)) == (TIMED_OUT, ["t:TIMED_OUT"])
    assert just.workflow.status == COMPLETED


async def test_a_mock_that_waits_too_long_in_its_queue_times_out(served: Served) -> None:
    policy = {"name": "t", "retryCount": 0, "pollTimeoutSeconds": 10, "timeoutPolicy": "RETRY"}
    document = definition(node("SIMPLE", "t", taskDefinition=policy))

    late = await tried(served, document, mocks(t=[mock(queue_wait_time=11)]))

    assert shown(late.workflow) == ["t:TIMED_OUT"]


async def test_the_workflows_own_time_out_runs_in_its_own_time(served: Served) -> None:
    document = definition(simple("t"), timeoutSeconds=60, timeoutPolicy="TIME_OUT_WF")

    assert (await tried(served, document, mocks(t=[mock(execution_time=61)]))).workflow.status == TIMED_OUT
    assert (await tried(served, document, mocks(t=[mock(execution_time=59)]))).workflow.status == COMPLETED
    stopped = await tried(served, document)
    assert (stopped.workflow.status, list(stopped.lacking)) == (RUNNING, ["t"])


CHILD = definition(simple("c"), name="child", outputParameters={"c": "${c.output.v}"})
PARENT = definition(
    node("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child", "version": 1}),
    outputParameters={"from_child": "${sub.output.c}"},
)


async def test_a_child_runs_with_mocks_of_its_own(served: Served) -> None:
    await served.register(CHILD)

    found = await tried(served, PARENT, mocks(children={"sub": mocks(c=[mock({"v": 9})])}))

    assert output(found) == {"from_child": 9}
    assert [shown(child) for child in found.children] == [["c:COMPLETED"]]
    assert found.children[0].parent_workflow_id == found.workflow.workflow_id


async def test_a_child_without_mocks_says_what_it_lacks(served: Served) -> None:
    await served.register(CHILD)

    found = await tried(served, PARENT)

    assert (found.stop, list(found.lacking)) == (LACKS_MOCKS, ["sub/c"])


async def test_a_mocked_child_does_not_run(served: Served) -> None:
    await served.register(CHILD)

    found = await tried(served, PARENT, mocks(sub=[mock({"c": 3})]))

    assert output(found) == {"from_child": 3}
    assert len(found.children) == 0


async def test_a_fork_is_joined_whatever_its_branches_take(served: Served) -> None:
    fork = node("FORK_JOIN", "f", forkTasks=[[simple("a")], [simple("b")], [simple("c")]])
    document = definition(fork, node("JOIN", "j", joinOn=["a", "b", "c"]))
    listed = {"a": [mock(execution_time=30)], "b": [mock(execution_time=10)], "c": [mock()]}

    found = await tried(served, document, mocks(**listed))

    ends = {task.reference: task.end_time.seconds for task in found.workflow.tasks}
    assert found.workflow.status == COMPLETED
    assert ends["j"] == ends["a"] == ends["b"] + 20 == ends["c"] + 30


async def test_a_dynamic_forks_branches_are_mocked_by_their_references(served: Served) -> None:
    inputs = {"forkTaskName": "t", "forkTaskInputs": [{"n": 1}, {"n": 2}]}
    document = definition(node("FORK_JOIN_DYNAMIC", "d", inputParameters=inputs), node("JOIN", "j"))

    found = await tried(served, document, mocks(_t_0=[mock({"n": 1})], _t_1=[mock({"n": 2})]))

    assert json.loads(found.workflow.output) == {"_t_0": {"n": 1}, "_t_1": {"n": 2}}


async def test_a_loop_without_end_stops_at_the_limit(served: Served) -> None:
    grows = {"evaluatorType": "javascript", "expression": "'x'.repeat(2000000)"}
    body = [node("INLINE", "n", inputParameters=grows)]
    document = definition(node("DO_WHILE", "l", loopOver=body, loopCondition="true"))

    found = await tried(served, document)

    assert found.stop == workflow_pb2.TEST_STOP_LIMIT
    assert 4 <= len(found.workflow.tasks) <= 8


# --- refused --------------------------------------------------------------------------------------

BASE = definition(
    simple("t"),
    node("INLINE", "i", inputParameters={"evaluatorType": "javascript", "expression": "1"}),
)


@pytest.mark.parametrize(
    ("mocked", "path", "told"),
    [
        (mocks(absent=[mock()]), "mocks.tasks[absent]", "names no task of tried"),
        (mocks(i=[mock()]), "mocks.tasks[i]", "really evaluated"),
        (mocks(t__2=[mock()]), "mocks.tasks[t__2]", "lies in no loop"),
        (mocks(children={"t": mocks()}), "mocks.children[t]", "names no SUB_WORKFLOW"),
        (mocks(t=[]), "the length of mocks.tasks[t].mocks", "1 to 1,000"),
        (mocks(t=[mock(status="IN_PROGRESS")]), "mocks.tasks[t].mocks[0].status", "is accepted"),
        (mocks(t=[mock(times=-1)]), "mocks.tasks[t].mocks[0].times", "0 to 100,000"),
        (mocks(t=[mock(execution_time=-1)]), "mocks.tasks[t].mocks[0].execution_time", "is -1000 ms"),
    ],
)
async def test_a_mock_that_nothing_could_use_is_refused(
    served: Served, mocked: workflow_pb2.WorkflowMocks, path: str, told: str
) -> None:
    code, refusal = await refused(tried(served, BASE, mocked))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.path for violation in refusal.violations] == [path]
    assert told in refusal.violations[0].message


async def test_the_mocks_of_a_child_are_checked_when_it_starts(served: Served) -> None:
    await served.register(CHILD)

    code, refusal = await refused(tried(served, PARENT, mocks(children={"sub": mocks(x=[mock()])})))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations[0].path == "mocks.children[sub].tasks[x]"


async def test_a_mocked_output_that_is_no_json_is_refused(served: Served) -> None:
    mocked = mocks(t=[workflow_pb2.TaskMock(output=b"[1]")])

    code, refusal = await refused(tried(served, BASE, mocked))

    assert (code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, error_pb2.REASON_INVALID_JSON)


async def test_an_idempotency_key_is_refused(served: Served) -> None:
    code, refusal = await refused(tried(served, BASE, idempotency_key="k"))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.path for violation in refusal.violations] == ["start.idempotency_key"]


async def test_a_definition_that_is_not_registered_is_not_found(served: Served) -> None:
    request = wire.TestWorkflowRequest(start=workflow_pb2.WorkflowStart(name="absent"))

    code, _ = await refused(served.workflows.TestWorkflow(request, timeout=DEADLINE_S))

    assert code is grpc.StatusCode.NOT_FOUND
