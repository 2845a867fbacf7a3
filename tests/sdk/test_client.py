"""Client: what it sends, what it raises, and when it calls again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from maestoso import (
    AlreadyExists,
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    Mock,
    Mocks,
    NotFound,
    Start,
    Tls,
    Unavailable,
    Unimplemented,
    Violation,
)
from maestoso.admin.v1 import admin_pb2, admin_service_pb2
from maestoso.error.v1 import error_pb2
from maestoso.metadata.v1 import definition_pb2, metadata_service_pb2
from maestoso.search.v1 import search_service_pb2
from maestoso.task.v1 import task_pb2, task_service_pb2
from maestoso.workflow.v1 import bulk_pb2, bulk_service_pb2, workflow_pb2, workflow_service_pb2
from scripted_server import Refusal, ScriptedServer, Silence, scripted_server

UNAVAILABLE = Refusal(
    grpc.StatusCode.UNAVAILABLE,
    error_pb2.Error(reason=error_pb2.REASON_STORE_UNAVAILABLE, message="no database", retryable=True),
)


def refusal(code: grpc.StatusCode, reason: error_pb2.Reason.ValueType, message: str = "no") -> Refusal:
    return Refusal(code, error_pb2.Error(reason=reason, message=message))


def started(workflow_id: str) -> workflow_service_pb2.StartWorkflowResponse:
    return workflow_service_pb2.StartWorkflowResponse(started=workflow_pb2.Started(workflow_id=workflow_id))


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as made:
        yield made


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[Client]:
    async with Client(server.address, namespace="shop", timeout=5, patience=5) as made:
        yield made


# Starting.


async def test_start_sends_everything_and_returns_the_id(client: Client, server: ScriptedServer) -> None:
    server.on("StartWorkflow", started("w-1"))

    workflow_id = await client.start(
        "order",
        {"n": 10**30},
        version=2,
        correlation_id="c",
        priority=9,
        task_to_domain={"*": "eu"},
        idempotency_key="k",
        idempotency="return_existing",
        traceparent="00-1",
    )

    assert workflow_id == "w-1"
    [request] = server.requests
    assert request.namespace == "shop"
    assert request.start == workflow_pb2.WorkflowStart(
        name="order",
        version=2,
        input=b'{"n":1000000000000000000000000000000}',
        correlation_id="c",
        priority=9,
        task_to_domain={"*": "eu"},
        idempotency_key="k",
        idempotency_strategy=workflow_pb2.IDEMPOTENCY_STRATEGY_RETURN_EXISTING,
        traceparent="00-1",
    )


async def test_input_as_bytes_travels_untouched(client: Client, server: ScriptedServer) -> None:
    server.on("StartWorkflow", started("w-1"))

    await client.start("order", b'{ "a" : 1.0 }')

    assert server.requests[0].start.input == b'{ "a" : 1.0 }'


async def test_start_without_a_key_is_not_repeated(client: Client, server: ScriptedServer) -> None:
    server.on("StartWorkflow", UNAVAILABLE, started("w-1"))

    with pytest.raises(Unavailable, match="no database"):
        await client.start("order")

    assert len(server.requests) == 1


async def test_start_with_a_key_is_repeated(client: Client, server: ScriptedServer) -> None:
    server.on("StartWorkflow", UNAVAILABLE, UNAVAILABLE, started("w-1"))

    assert await client.start("order", idempotency_key="k") == "w-1"
    assert len(server.requests) == 3


async def test_start_many_answers_each_in_order(client: Client, server: ScriptedServer) -> None:
    fine = workflow_pb2.StartOutcome(started=workflow_pb2.Started(workflow_id="w"))
    refused = workflow_pb2.StartOutcome(
        error=error_pb2.Error(reason=error_pb2.REASON_DEFINITION_NOT_FOUND, message="no such definition")
    )
    first = workflow_service_pb2.StartWorkflowsResponse(outcomes=[fine] * 999 + [refused])
    second = workflow_service_pb2.StartWorkflowsResponse(outcomes=[fine])
    server.on("StartWorkflows", first, second)

    answers = await client.start_many([Start(name="order")] * 1001)

    assert [len(request.starts) for request in server.requests] == [1000, 1]
    assert isinstance(answers[999], NotFound)
    assert [answer for answer in answers if answer != "w"] == [answers[999]]


# Refusals.


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, error_pb2.REASON_INVALID_REQUEST, InvalidArgument),
        (grpc.StatusCode.NOT_FOUND, error_pb2.REASON_WORKFLOW_NOT_FOUND, NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, error_pb2.REASON_IDEMPOTENCY_CONFLICT, AlreadyExists),
        (grpc.StatusCode.FAILED_PRECONDITION, error_pb2.REASON_WRONG_STATE, FailedPrecondition),
        (grpc.StatusCode.UNIMPLEMENTED, error_pb2.REASON_UNIMPLEMENTED, Unimplemented),
        (grpc.StatusCode.INTERNAL, error_pb2.REASON_INTERNAL, Internal),
        (grpc.StatusCode.UNKNOWN, error_pb2.REASON_INTERNAL, Internal),
    ],
)
async def test_refusals_are_raised_by_their_code(
    client: Client, server: ScriptedServer, code: grpc.StatusCode, reason: Any, expected: type[Exception]
) -> None:
    server.on("GetTask", refusal(code, reason, "what was wrong"))

    with pytest.raises(expected, match="what was wrong") as raised:
        await client.get_task("t")

    assert raised.value.reason == error_pb2.Reason.Name(reason).removeprefix("REASON_")  # type: ignore[attr-defined]
    assert len(server.requests) == 1


async def test_refusal_tells_everything_that_the_server_said(client: Client, server: ScriptedServer) -> None:
    error = error_pb2.Error(
        reason=error_pb2.REASON_INVALID_DEFINITION,
        message="one fault",
        violations=[error_pb2.Violation(path="tasks[0].name", message="is missing", line=3, column=5)],
        retryable=False,
        remedy="mend it",
    )
    error.retry_after.FromMilliseconds(1500)
    server.on("PutWorkflowDefinitions", Refusal(grpc.StatusCode.INVALID_ARGUMENT, error))

    with pytest.raises(InvalidArgument) as raised:
        await client.register_workflows([{"name": "x"}])

    assert raised.value.violations == (Violation("tasks[0].name", "is missing", 3, 5),)
    assert (raised.value.retry_after, raised.value.remedy, raised.value.retryable) == (1.5, "mend it", False)


async def test_status_without_a_trailer_is_raised_too(client: Client, server: ScriptedServer) -> None:
    server.on("GetTask", Refusal(grpc.StatusCode.NOT_FOUND))

    with pytest.raises(NotFound) as raised:
        await client.get_task("t")

    assert raised.value.reason == ""


async def test_reason_of_a_newer_server_is_its_number(client: Client, server: ScriptedServer) -> None:
    error = error_pb2.Error(message="new")
    error.MergeFromString(b"\x08\xe7\x07")  # reason = 999
    server.on("GetTask", Refusal(grpc.StatusCode.ABORTED, error))

    with pytest.raises(Exception, match="new") as raised:
        await client.get_task("t")

    assert raised.value.reason == "999"  # type: ignore[attr-defined]


async def test_read_is_repeated_until_patience_ends(server: ScriptedServer) -> None:
    server.on("GetTask", UNAVAILABLE)
    async with Client(server.address, patience=0.3) as client:
        with pytest.raises(Unavailable) as raised:
            await client.get_task("t")

    assert raised.value.retryable
    assert len(server.requests) > 1


async def test_nobody_there_is_unavailable() -> None:
    async with Client("127.0.0.1:1", patience=0) as client:
        with pytest.raises(Unavailable) as raised:
            await client.get_task("t")

    assert raised.value.retryable


async def test_a_call_that_a_stopping_server_cancels_is_repeated(
    client: Client, server: ScriptedServer
) -> None:
    cancelled = refusal(grpc.StatusCode.CANCELLED, error_pb2.REASON_UNSPECIFIED, "the server stops")
    server.on("StartWorkflow", cancelled, started("w-1"))

    assert await client.start("order", idempotency_key="k") == "w-1"
    assert len(server.requests) == 2


async def test_no_answer_in_time_is_said(server: ScriptedServer) -> None:
    server.on("GetTask", Silence())
    async with Client(server.address, timeout=0.1) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get_task("t")


# Reading.


async def test_get_collects_all_pages_of_tasks(client: Client, server: ScriptedServer) -> None:
    def page(*seqs: int, more: str = "") -> workflow_service_pb2.GetWorkflowResponse:
        tasks = [task_pb2.Task(seq=seq) for seq in seqs]
        workflow = workflow_pb2.Workflow(workflow_id="w", tasks=tasks)
        return workflow_service_pb2.GetWorkflowResponse(workflow=workflow, next_task_page_token=more)

    server.on("GetWorkflow", page(1, 2, more="p"), page(3))

    workflow = await client.get("w")

    assert [task.seq for task in workflow.tasks] == [1, 2, 3]
    assert server.requests[1].task_page_token == "p"
    assert server.requests[0].include_payloads


async def test_lists_follow_their_pages(client: Client, server: ScriptedServer) -> None:
    def page(*names: str, more: str = "") -> workflow_service_pb2.ListWorkflowsResponse:
        summaries = [workflow_pb2.WorkflowSummary(name=name) for name in names]
        return workflow_service_pb2.ListWorkflowsResponse(workflows=summaries, next_page_token=more)

    server.on("ListWorkflows", page("a", more="p"), UNAVAILABLE, page("b"))

    found = [summary.name async for summary in client.list(status=workflow_pb2.WORKFLOW_STATUS_RUNNING)]

    assert found == ["a", "b"]
    assert [request.page_token for request in server.requests] == ["", "p", "p"]
    assert server.requests[0].status == workflow_pb2.WORKFLOW_STATUS_RUNNING


async def test_a_search_goes_on_past_pages_that_ended_early(client: Client, server: ScriptedServer) -> None:
    def page(*names: str, more: str = "") -> search_service_pb2.SearchWorkflowsResponse:
        found = [
            search_service_pb2.FoundWorkflow(workflow=workflow_pb2.WorkflowSummary(name=name))
            for name in names
        ]
        return search_service_pb2.SearchWorkflowsResponse(
            workflows=found, next_page_token=more, partial=bool(more)
        )

    server.on("SearchWorkflows", page(more="p"), page("a", more="q"), UNAVAILABLE, page("b"))

    found = [item.workflow.name async for item in client.search("status = FAILED", sort="name:ASC")]

    assert found == ["a", "b"]
    assert [request.page_token for request in server.requests] == ["", "p", "q", "q"]
    assert (server.requests[0].query, server.requests[0].sort) == ("status = FAILED", "name:ASC")


async def test_watch_goes_on_where_a_stream_broke(client: Client, server: ScriptedServer) -> None:
    def state(revision: int, status: int) -> workflow_service_pb2.WatchWorkflowResponse:
        workflow = workflow_pb2.Workflow(revision=revision, status=status)  # type: ignore[arg-type]
        return workflow_service_pb2.WatchWorkflowResponse(workflow=workflow)

    running, completed = workflow_pb2.WORKFLOW_STATUS_RUNNING, workflow_pb2.WORKFLOW_STATUS_COMPLETED
    server.on("WatchWorkflow", [state(1, running), state(4, running), UNAVAILABLE], [state(9, completed)])

    last = await client.wait("w")

    assert last.status == completed
    assert [request.after_revision for request in server.requests] == [0, 4]


async def test_watch_of_nothing_is_refused(client: Client, server: ScriptedServer) -> None:
    server.on("WatchWorkflow", [refusal(grpc.StatusCode.NOT_FOUND, error_pb2.REASON_WORKFLOW_NOT_FOUND)])

    with pytest.raises(NotFound):
        await client.wait("w")


# Everything else: each call, its request, and whether UNAVAILABLE is met by a repeat.

Call = Callable[[Client], Coroutine[Any, Any, Any]]


@pytest.mark.parametrize(
    ("method", "call", "response", "repeated"),
    [
        (
            "TerminateWorkflow",
            lambda c: c.terminate("w", "why"),
            workflow_service_pb2.TerminateWorkflowResponse(),
            True,
        ),
        ("PauseWorkflow", lambda c: c.pause("w"), workflow_service_pb2.PauseWorkflowResponse(), True),
        ("ResumeWorkflow", lambda c: c.resume("w"), workflow_service_pb2.ResumeWorkflowResponse(), False),
        (
            "RetryWorkflow",
            lambda c: c.retry("w", resume_children=True),
            workflow_service_pb2.RetryWorkflowResponse(),
            False,
        ),
        (
            "RestartWorkflow",
            lambda c: c.restart("w", latest_definitions=True),
            workflow_service_pb2.RestartWorkflowResponse(),
            False,
        ),
        (
            "SignalWorkflow",
            lambda c: c.signal("w", "wait", {"a": 1}),
            workflow_service_pb2.SignalWorkflowResponse(),
            False,
        ),
        ("UpgradeWorkflow", lambda c: c.upgrade("w"), workflow_service_pb2.UpgradeWorkflowResponse(), True),
        ("TestWorkflow", lambda c: c.test_workflow("x"), workflow_service_pb2.TestWorkflowResponse(), True),
        (
            "CreateBulkOperation",
            lambda c: c.create_bulk("pause", ["w"]),
            bulk_service_pb2.CreateBulkOperationResponse(),
            False,
        ),
        (
            "CreateBulkOperation",
            lambda c: c.create_bulk("pause", ["w"], idempotency_key="k"),
            bulk_service_pb2.CreateBulkOperationResponse(),
            True,
        ),
        ("GetBulkOperation", lambda c: c.get_bulk("b"), bulk_service_pb2.GetBulkOperationResponse(), True),
        (
            "CancelBulkOperation",
            lambda c: c.cancel_bulk("b"),
            bulk_service_pb2.CancelBulkOperationResponse(),
            True,
        ),
        ("GetTask", lambda c: c.get_task("t"), task_service_pb2.GetTaskResponse(), True),
        ("AddTaskLogs", lambda c: c.add_task_logs("t", ["x"]), task_service_pb2.AddTaskLogsResponse(), False),
        ("PollTasks", lambda c: c.poll(["a"], wait=1.0), task_service_pb2.PollTasksResponse(), False),
        ("ReportTasks", lambda c: c.report([]), task_service_pb2.ReportTasksResponse(), True),
        ("ExtendTasks", lambda c: c.extend([b"t"]), task_service_pb2.ExtendTasksResponse(), True),
        (
            "PutWorkflowDefinitions",
            lambda c: c.register_workflows(['{"name":"x"}'], overwrite="allow"),
            metadata_service_pb2.PutWorkflowDefinitionsResponse(),
            True,
        ),
        (
            "PutTaskDefinitions",
            lambda c: c.register_tasks([b"{}"]),
            metadata_service_pb2.PutTaskDefinitionsResponse(),
            True,
        ),
        (
            "GetWorkflowDefinition",
            lambda c: c.get_workflow_definition("x"),
            metadata_service_pb2.GetWorkflowDefinitionResponse(),
            True,
        ),
        (
            "GetTaskDefinition",
            lambda c: c.get_task_definition("x"),
            metadata_service_pb2.GetTaskDefinitionResponse(),
            True,
        ),
        (
            "DeleteWorkflowDefinition",
            lambda c: c.delete_workflow_definition("x", 1),
            metadata_service_pb2.DeleteWorkflowDefinitionResponse(),
            False,
        ),
        (
            "DeleteTaskDefinition",
            lambda c: c.delete_task_definition("x"),
            metadata_service_pb2.DeleteTaskDefinitionResponse(),
            False,
        ),
        ("ListNodes", lambda c: c.nodes(), admin_service_pb2.ListNodesResponse(), True),
        ("DrainNode", lambda c: c.drain_node("n"), admin_service_pb2.DrainNodeResponse(), True),
        ("DrainSession", lambda c: c.drain_session("s"), admin_service_pb2.DrainSessionResponse(), True),
        ("ExplainWorkflow", lambda c: c.explain("w"), admin_service_pb2.ExplainWorkflowResponse(), True),
        (
            "CreateNamespace",
            lambda c: c.create_namespace("x"),
            admin_service_pb2.CreateNamespaceResponse(),
            False,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_each_call_is_repeated_only_where_that_is_safe(
    client: Client, server: ScriptedServer, method: str, call: Call, response: Any, repeated: bool
) -> None:
    server.on(method, UNAVAILABLE, response)

    if repeated:
        await call(client)
        assert len(server.requests) == 2
    else:
        with pytest.raises(Unavailable):
            await call(client)
        assert len(server.requests) == 1
    assert getattr(server.requests[0], "namespace", "shop") in ("shop", "x")


@pytest.mark.parametrize(
    ("method", "items", "call"),
    [
        (
            "ListWorkflowDefinitions",
            metadata_service_pb2.ListWorkflowDefinitionsResponse(
                definitions=[definition_pb2.WorkflowDefinition()]
            ),
            lambda c: c.workflow_definitions("x", latest_only=True),
        ),
        (
            "ListTaskDefinitions",
            metadata_service_pb2.ListTaskDefinitionsResponse(definitions=[definition_pb2.TaskDefinition()]),
            lambda c: c.task_definitions(),
        ),
        (
            "ListBulkOperations",
            bulk_service_pb2.ListBulkOperationsResponse(operations=[bulk_pb2.BulkOperation()]),
            lambda c: c.bulks(),
        ),
        (
            "ListBulkItems",
            bulk_service_pb2.ListBulkItemsResponse(items=[bulk_pb2.BulkItem()]),
            lambda c: c.bulk_items("b", bulk_pb2.BULK_ITEM_STATE_FAILED),
        ),
        (
            "ListTaskLogs",
            task_service_pb2.ListTaskLogsResponse(lines=[task_service_pb2.TaskLogLine()]),
            lambda c: c.task_logs("t"),
        ),
        (
            "ListSessions",
            admin_service_pb2.ListSessionsResponse(sessions=[admin_pb2.Session()]),
            lambda c: c.sessions(),
        ),
        (
            "ListQueues",
            admin_service_pb2.ListQueuesResponse(queues=[admin_pb2.Queue()]),
            lambda c: c.queues(),
        ),
        (
            "ListNamespaces",
            admin_service_pb2.ListNamespacesResponse(namespaces=[admin_pb2.Namespace()]),
            lambda c: c.namespaces(),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_each_list_yields_its_items(
    client: Client, server: ScriptedServer, method: str, items: Any, call: Any
) -> None:
    server.on(method, items)

    assert len([item async for item in call(client)]) == 1


async def test_validation_stores_nothing(client: Client, server: ScriptedServer) -> None:
    result = definition_pb2.PutResult(
        outcome=definition_pb2.PUT_OUTCOME_INVALID, violations=[error_pb2.Violation(path="name")]
    )
    server.on("PutTaskDefinitions", metadata_service_pb2.PutTaskDefinitionsResponse(results=[result]))

    [answer] = await client.validate_tasks([{}], strict=True)

    assert answer.violations[0].path == "name"
    assert (server.requests[0].validate_only, server.requests[0].strict) == (True, True)


async def test_a_dry_upgrade_returns_its_report(client: Client, server: ScriptedServer) -> None:
    fault = workflow_pb2.UpgradeNote(reference="a", message="is gone")
    report = workflow_pb2.UpgradeReport(from_version=1, to_version=2, faults=[fault])
    server.on("UpgradeWorkflow", workflow_service_pb2.UpgradeWorkflowResponse(report=report))

    assert await client.upgrade("w", version=2, dry_run=True) == report
    assert await client.upgrade("w", definition={"name": "order"}) == report

    by_version, by_document = server.requests
    assert (by_version.version, by_version.definition, by_version.dry_run) == (2, b"", True)
    assert (by_document.version, by_document.definition, by_document.dry_run) == (
        0,
        b'{"name":"order"}',
        False,
    )


async def test_an_upgrade_that_does_not_fit_is_refused_task_by_task(
    client: Client, server: ScriptedServer
) -> None:
    violation = error_pb2.Violation(path="a", message="has an open task and is gone")
    error = error_pb2.Error(reason=error_pb2.REASON_WRONG_STATE, message="no", violations=[violation])
    server.on("UpgradeWorkflow", Refusal(grpc.StatusCode.FAILED_PRECONDITION, error))

    with pytest.raises(FailedPrecondition) as raised:
        await client.upgrade("w", version=2)

    assert [one.path for one in raised.value.violations] == ["a"]


async def test_mocks_travel_with_those_of_children(client: Client, server: ScriptedServer) -> None:
    server.on("TestWorkflow", workflow_service_pb2.TestWorkflowResponse(lacking=["c"]))
    failing = Mock(status="FAILED", reason="late", error_name="Late", execution_time=1.5, times=2)
    inner = Mocks({"a": Mock(output=b'{"n":1.0}')})

    found = await client.test_workflow(
        "order",
        {"k": 7},
        mocks=Mocks({"pay": [failing, Mock(output={"n": 10**30})]}, {"sub": inner}),
        version=3,
    )

    assert list(found.lacking) == ["c"]
    [request] = server.requests
    assert (request.start.name, request.start.version, request.start.input) == ("order", 3, b'{"k":7}')
    first, second = request.mocks.tasks["pay"].mocks
    assert (first.status, first.reason, first.error_name, first.times) == (
        task_pb2.TASK_STATUS_FAILED,
        "late",
        "Late",
        2,
    )
    assert first.execution_time.ToMilliseconds() == 1_500
    assert (second.status, second.output) == (
        task_pb2.TASK_STATUS_COMPLETED,
        b'{"n":1000000000000000000000000000000}',
    )
    assert request.mocks.children["sub"].tasks["a"].mocks[0].output == b'{"n":1.0}'


async def test_mocks_may_be_given_by_reference_alone(client: Client, server: ScriptedServer) -> None:
    server.on("TestWorkflow", workflow_service_pb2.TestWorkflowResponse())

    await client.test_workflow(definition={"name": "x"}, mocks={"a": Mock()})

    [request] = server.requests
    assert request.start.definition == b'{"name":"x"}'
    assert list(request.mocks.tasks) == ["a"]


async def test_a_bulk_operation_names_its_action_and_its_workflows(
    client: Client, server: ScriptedServer
) -> None:
    made = bulk_pb2.BulkOperation(bulk_id="b", state=bulk_pb2.BULK_STATE_RUNNING)
    server.on("CreateBulkOperation", bulk_service_pb2.CreateBulkOperationResponse(operation=made))
    remove = bulk_pb2.BulkAction(remove=bulk_pb2.BulkRemove(recursive=True))

    assert await client.create_bulk("pause", ["w-1", "w-2"], rate=5, reason="night") == made
    await client.create_bulk(remove, query="status = COMPLETED")

    by_ids, by_query = server.requests
    assert by_ids.action.WhichOneof("action") == "pause"
    assert (list(by_ids.workflow_ids), by_ids.rate, by_ids.reason) == (["w-1", "w-2"], 5, "night")
    assert not by_ids.HasField("query")
    assert by_query.action == remove
    assert by_query.query.query == "status = COMPLETED"


async def test_an_action_that_does_not_exist_is_not_sent(client: Client, server: ScriptedServer) -> None:
    with pytest.raises(ValueError, match="explode"):
        await client.create_bulk("explode", ["w"])

    assert server.requests == []


@pytest.mark.parametrize("last", [bulk_pb2.BULK_STATE_COMPLETED, bulk_pb2.BULK_STATE_CANCELLED])
async def test_a_bulk_operation_is_waited_for(
    client: Client, server: ScriptedServer, last: bulk_pb2.BulkState.ValueType
) -> None:
    def at(state: bulk_pb2.BulkState.ValueType) -> bulk_service_pb2.GetBulkOperationResponse:
        return bulk_service_pb2.GetBulkOperationResponse(operation=bulk_pb2.BulkOperation(state=state))

    collecting, running = bulk_pb2.BULK_STATE_COLLECTING, bulk_pb2.BULK_STATE_RUNNING
    server.on("GetBulkOperation", at(collecting), UNAVAILABLE, at(running), at(last))

    assert (await client.wait_for_bulk("b", every=0)).state == last
    assert len(server.requests) == 4


async def test_signal_says_whether_it_was_applied(client: Client, server: ScriptedServer) -> None:
    server.on(
        "SignalWorkflow",
        workflow_service_pb2.SignalWorkflowResponse(outcome=workflow_service_pb2.SIGNAL_OUTCOME_APPLIED),
        workflow_service_pb2.SignalWorkflowResponse(outcome=workflow_service_pb2.SIGNAL_OUTCOME_KEPT),
    )

    assert await client.signal("w", "wait", {"a": 1}) is True
    assert await client.signal("w") is False


# Credentials.


async def test_api_key_travels_with_every_call(server: ScriptedServer) -> None:
    server.on("ListNodes", admin_service_pb2.ListNodesResponse())
    async with Client(server.address, api_key="id.secret") as client:
        await client.nodes()
    async with Client(server.address, authorization=lambda: "Bearer other") as client:
        await client.nodes()
    async with Client(server.address) as client:
        await client.nodes()

    assert [each.get("authorization") for each in server.metadata] == [
        "Bearer id.secret",
        "Bearer other",
        None,
    ]


def test_two_credentials_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        Client(api_key="a", authorization="b")


def test_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(ValueError, match="both cert and key"):
        Tls(cert="a.pem")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    """An authority, and a folder with its certificate and one for a client."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    own = ca.issue_cert("client@example.test")
    own.private_key_pem.write_to_path(folder / "key.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return ca, folder


def demanding(ca: trustme.CA) -> grpc.ServerCredentials:
    """A server certificate for 127.0.0.1 that asks for the client's."""
    own = ca.issue_cert("127.0.0.1")
    pair = own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()
    return grpc.ssl_server_credentials([pair], ca.cert_pem.bytes(), require_client_auth=True)


async def test_tls_with_a_client_certificate(authority: tuple[trustme.CA, Path]) -> None:
    ca, folder = authority
    async with scripted_server(demanding(ca)) as server:
        server.on("ListNodes", admin_service_pb2.ListNodesResponse())
        tls = Tls(ca=folder / "ca.pem", cert=folder / "cert.pem", key=folder / "key.pem")
        async with Client(server.address, tls=tls) as client:
            assert list(await client.nodes()) == []


async def test_tls_without_a_client_certificate_is_refused(authority: tuple[trustme.CA, Path]) -> None:
    ca, folder = authority
    async with scripted_server(demanding(ca)) as server:
        server.on("ListNodes", admin_service_pb2.ListNodesResponse())
        async with Client(server.address, tls=Tls(ca=folder / "ca.pem"), patience=0) as client:
            with pytest.raises(Unavailable):
                await client.nodes()


async def test_server_of_a_strange_authority_is_refused(authority: tuple[trustme.CA, Path]) -> None:
    _, folder = authority
    strange = trustme.CA()
    async with (
        scripted_server(demanding(strange)) as server,
        Client(server.address, tls=Tls(ca=folder / "ca.pem"), patience=0) as client,
    ):
        with pytest.raises(Unavailable):
            await client.nodes()
