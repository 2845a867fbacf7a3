"""The command line against a scripted server: what it prints, where, and its exit status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from maestoso._cli import main
from maestoso.admin.v1 import admin_pb2, admin_service_pb2
from maestoso.error.v1 import error_pb2
from maestoso.metadata.v1 import definition_pb2, metadata_service_pb2
from maestoso.search.v1 import search_service_pb2
from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import bulk_pb2, bulk_service_pb2, workflow_pb2, workflow_service_pb2
from scripted_server import Refusal, ScriptedServer, scripted_server

DONE, OTHER_END, REFUSED, UNREACHABLE = 0, 1, 2, 3
NOT_FOUND = Refusal(
    grpc.StatusCode.NOT_FOUND,
    error_pb2.Error(
        reason=error_pb2.REASON_WORKFLOW_NOT_FOUND, message="no workflow w-1", remedy="look for it"
    ),
)


@dataclass
class Shell:
    """Runs commands and gives back what they printed."""

    server: ScriptedServer
    capture: pytest.CaptureFixture[str]

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        self.capture.readouterr()
        status = await asyncio.to_thread(main, [*arguments, "--server", self.server.address])
        printed = self.capture.readouterr()
        return status, printed.out, printed.err


@pytest.fixture
async def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    for name in ("MAESTOSO_SERVER", "MAESTOSO_NAMESPACE", "MAESTOSO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    async with scripted_server() as server:
        yield Shell(server, capsys)


def started(workflow_id: str = "w-1") -> workflow_service_pb2.StartWorkflowResponse:
    return workflow_service_pb2.StartWorkflowResponse(started=workflow_pb2.Started(workflow_id=workflow_id))


def state(
    status: workflow_pb2.WorkflowStatus.ValueType, **more: Any
) -> workflow_service_pb2.WatchWorkflowResponse:
    workflow = workflow_pb2.Workflow(workflow_id="w-1", name="order", version=1, status=status, **more)
    return workflow_service_pb2.WatchWorkflowResponse(workflow=workflow)


# Usage.


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["start", "--help"]])
def test_help_and_version_need_no_server(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == DONE
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["strat", "x"], ["start"], ["start", "x", "--priority", "high"], ["get", "w", "--nope"]]
)
def test_wrong_usage_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == REFUSED


def test_nobody_there_is_unreachable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "--server", "127.0.0.1:1"]) == UNREACHABLE
    assert "127.0.0.1:1 cannot be reached" in capsys.readouterr().err


async def test_server_without_its_database_is_unreachable(shell: Shell) -> None:
    shell.server.on("ListNodes", Refusal(grpc.StatusCode.UNAVAILABLE, error_pb2.Error(message="no database")))

    status, _, err = await shell.run("nodes")

    assert status == UNREACHABLE
    assert "no database" in err


async def test_environment_names_server_namespace_and_key(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.server.on("StartWorkflow", started())
    monkeypatch.setenv("MAESTOSO_SERVER", shell.server.address)
    monkeypatch.setenv("MAESTOSO_NAMESPACE", "shop")
    monkeypatch.setenv("MAESTOSO_API_KEY", "id.secret")

    assert await asyncio.to_thread(main, ["start", "order"]) == DONE

    assert shell.server.requests[0].namespace == "shop"
    assert shell.server.metadata[0]["authorization"] == "Bearer id.secret"


async def test_missing_certificate_file_is_refused(shell: Shell) -> None:
    status, _, err = await shell.run("nodes", "--tls-ca", "/nowhere/ca.pem")

    assert status == REFUSED
    assert "/nowhere/ca.pem" in err


# start.


async def test_start_prints_the_id(shell: Shell) -> None:
    shell.server.on("StartWorkflow", started())

    status, out, err = await shell.run("start", "order", "--input", '{"n":1}', "--version", "3")

    assert (status, out, err) == (DONE, "w-1\n", "")
    [request] = shell.server.requests
    assert (request.start.name, request.start.version, request.start.input) == ("order", 3, b'{"n":1}')


async def test_start_reads_its_input_from_a_file(shell: Shell, tmp_path: Path) -> None:
    shell.server.on("StartWorkflow", started())
    (tmp_path / "input.json").write_text('{"big": 9007199254740993}')

    await shell.run("start", "order", "--input", f"@{tmp_path / 'input.json'}")

    assert shell.server.requests[0].start.input == b'{"big": 9007199254740993}'


async def test_input_file_that_is_not_there_is_refused(shell: Shell) -> None:
    status, _, err = await shell.run("start", "order", "--input", "@nowhere.json")

    assert status == REFUSED
    assert "nowhere.json" in err


async def test_start_with_a_key_returns_what_exists(shell: Shell) -> None:
    shell.server.on("StartWorkflow", started())

    await shell.run("start", "order", "--idempotency-key", "k", "--correlation-id", "c", "--json")

    start = shell.server.requests[0].start
    assert (start.idempotency_key, start.correlation_id) == ("k", "c")
    assert start.idempotency_strategy == workflow_pb2.IDEMPOTENCY_STRATEGY_RETURN_EXISTING


async def test_refused_start_says_why(shell: Shell) -> None:
    error = error_pb2.Error(
        reason=error_pb2.REASON_INVALID_REQUEST,
        message="one field",
        violations=[error_pb2.Violation(path="start.priority", message="must be 0 to 99")],
    )
    shell.server.on("StartWorkflow", Refusal(grpc.StatusCode.INVALID_ARGUMENT, error))

    status, out, err = await shell.run("start", "order")

    assert (status, out) == (REFUSED, "")
    assert "refused: one field" in err
    assert "start.priority: must be 0 to 99" in err


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (workflow_pb2.WORKFLOW_STATUS_COMPLETED, DONE),
        (workflow_pb2.WORKFLOW_STATUS_FAILED, OTHER_END),
        (workflow_pb2.WORKFLOW_STATUS_TIMED_OUT, OTHER_END),
        (workflow_pb2.WORKFLOW_STATUS_TERMINATED, OTHER_END),
    ],
)
async def test_start_and_wait_ends_as_the_workflow_does(
    shell: Shell, end: workflow_pb2.WorkflowStatus.ValueType, expected: int
) -> None:
    shell.server.on("StartWorkflow", started())
    running = state(workflow_pb2.WORKFLOW_STATUS_RUNNING, revision=1, task_count=2, open_task_count=1)
    shell.server.on("WatchWorkflow", [running, state(end, revision=2, reason="because")])

    status, out, err = await shell.run("start", "order", "--wait")

    assert (status, out) == (expected, "w-1\n")
    assert "1 of 2 tasks" in err
    assert "because" in err


async def test_start_and_wait_prints_the_end_as_json(shell: Shell) -> None:
    shell.server.on("StartWorkflow", started())
    output = b'{"n":1000000000000000000000000000001,"f":1.0}'
    shell.server.on("WatchWorkflow", [state(workflow_pb2.WORKFLOW_STATUS_COMPLETED, output=output)])

    status, out, _ = await shell.run("start", "order", "--wait", "--json")

    assert status == DONE
    workflow = json.loads(out)
    assert (workflow["status"], workflow["output"]["n"]) == ("COMPLETED", 10**30 + 1)
    assert '"f":1.0' in out


# register.


def put(**more: Any) -> definition_pb2.PutResult:
    return definition_pb2.PutResult(outcome=definition_pb2.PUT_OUTCOME_CREATED, **more)


def workflows_put(*results: definition_pb2.PutResult) -> metadata_service_pb2.PutWorkflowDefinitionsResponse:
    return metadata_service_pb2.PutWorkflowDefinitionsResponse(results=results)


def tasks_put(*results: definition_pb2.PutResult) -> metadata_service_pb2.PutTaskDefinitionsResponse:
    return metadata_service_pb2.PutTaskDefinitionsResponse(results=results)


async def test_register_sends_documents_as_they_stand_tasks_first(shell: Shell, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.json"
    mixed.write_text('[{"name": "order",  "tasks": []},\n {"name": "charge", "n": 1.0}]')
    shell.server.on("PutWorkflowDefinitions", workflows_put(put(name="order", version=1)))
    shell.server.on("PutTaskDefinitions", tasks_put(put(name="charge")))

    status, out, err = await shell.run("register", str(mixed))

    assert (status, out, err) == (DONE, "created charge\ncreated order version 1\n", "")
    kinds = [(type(request).__name__[3:7], request.validate_only) for request in shell.server.requests]
    assert kinds == [("Task", True), ("Work", True), ("Task", False), ("Work", False)]
    assert list(shell.server.requests[0].documents) == [b'{"name": "charge", "n": 1.0}']
    assert list(shell.server.requests[1].documents) == [b'{"name": "order",  "tasks": []}']


async def test_register_prints_faults_and_warnings_with_their_places(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "two.json"
    file.write_text('[\n  {"name": "a", "tasks": []}, {"name": "b",\n  "tasks": [{}]}\n]')
    warning = error_pb2.Violation(path="ownerApp", message="has no effect", line=1, column=3)
    fault = error_pb2.Violation(path="tasks[0].name", message="is missing", line=2, column=12)
    invalid = definition_pb2.PutResult(outcome=definition_pb2.PUT_OUTCOME_INVALID, violations=[fault])
    shell.server.on("PutWorkflowDefinitions", workflows_put(put(warnings=[warning]), invalid))

    status, out, err = await shell.run("register", str(file))

    assert (status, out) == (REFUSED, "")
    assert err.splitlines() == [
        f"{file}:2:5: warning: ownerApp: has no effect",
        f"{file}:3:12: tasks[0].name: is missing",
    ]
    assert all(request.validate_only for request in shell.server.requests), "nothing was stored"


async def test_register_places_the_violations_of_a_refused_call(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    file.write_text('{"name": "order", "tasks": []}')
    error = error_pb2.Error(
        message="one fault",
        violations=[error_pb2.Violation(path="documents[0].tasks", message="is empty", line=1, column=28)],
    )
    shell.server.on("PutWorkflowDefinitions", Refusal(grpc.StatusCode.INVALID_ARGUMENT, error))

    status, _, err = await shell.run("register", str(file))

    assert status == REFUSED
    assert f"{file}:1:28: tasks: is empty" in err


async def test_register_refuses_what_exists_unless_told_to_overwrite(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    file.write_text('{"name": "order", "tasks": []}')
    exists = Refusal(grpc.StatusCode.ALREADY_EXISTS, error_pb2.Error(message="order version 1 exists"))
    shell.server.on("PutWorkflowDefinitions", workflows_put(put()), exists)

    status, _, err = await shell.run("register", str(file))
    assert (status, "order version 1 exists" in err) == (REFUSED, True)
    assert shell.server.requests[-1].overwrite == definition_pb2.OVERWRITE_REFUSE

    shell.server.on("PutWorkflowDefinitions", workflows_put(put(name="order", version=1)))
    status, _, _ = await shell.run("register", str(file), "--overwrite")
    assert status == DONE
    assert shell.server.requests[-1].overwrite == definition_pb2.OVERWRITE_ALLOW


async def test_check_stores_nothing(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "charge.json"
    file.write_text('{"name": "charge"}')
    shell.server.on("PutTaskDefinitions", tasks_put(put(name="charge")))

    status, out, _ = await shell.run("register", str(file), "--check", "--strict", "--json")

    assert status == DONE
    assert json.loads(out) == [{"name": "charge", "outcome": "CREATED"}]
    [request] = shell.server.requests
    assert (request.validate_only, request.strict) == (True, True)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "{file}:1:2: "),
        ("[{},]", "{file}:1:5: "),
        ("[{} {}]", "{file}:1:5: expecting"),
        ("[{}] x", "{file}:1:6: extra data"),
        ("[\n 1]", "{file}:2:2: a definition is a JSON object"),
        ("[]", "name at least one file"),
    ],
)
async def test_file_that_holds_no_definitions_is_refused(
    shell: Shell, tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)

    status, _, err = await shell.run("register", str(file))

    assert status == REFUSED
    assert complaint.format(file=file) in err
    assert shell.server.requests == []


# get and list.


async def test_get_shows_a_tree_with_its_sub_workflow(shell: Shell) -> None:
    completed, failed = task_pb2.TASK_STATUS_COMPLETED, task_pb2.TASK_STATUS_FAILED
    tasks = [
        task_pb2.Task(seq=1, reference="fork", task_type="FORK", status=completed),
        task_pb2.Task(
            seq=2, reference="pay", task_type="SUB_WORKFLOW", status=completed, child_workflow_id="w-2"
        ),
        task_pb2.Task(seq=3, reference="pack", task_type="pack", status=failed, attempt=1, reason="no [box]"),
    ]
    parent = workflow_pb2.Workflow(workflow_id="w-1", name="order", version=1, status=4, tasks=tasks)
    child = workflow_pb2.Workflow(workflow_id="w-2", name="payment", version=2, status=3, input=b'{"a":1}')
    shell.server.on(
        "GetWorkflow",
        workflow_service_pb2.GetWorkflowResponse(workflow=parent),
        workflow_service_pb2.GetWorkflowResponse(workflow=child),
    )
    branches = [[{"taskReferenceName": "pay"}], [{"taskReferenceName": "pack"}]]
    fork = {"taskReferenceName": "fork", "type": "FORK_JOIN", "forkTasks": branches}
    document = json.dumps({"tasks": [fork]}).encode()
    shell.server.on(
        "GetWorkflowDefinition",
        metadata_service_pb2.GetWorkflowDefinitionResponse(
            definition=definition_pb2.WorkflowDefinition(document=document)
        ),
        Refusal(grpc.StatusCode.NOT_FOUND, error_pb2.Error(message="given inline")),
    )

    status, out, _ = await shell.run("get", "w-1")

    assert status == DONE
    lines = [line.replace("│", " ") for line in out.splitlines()]
    texts = (
        "order version 1",
        "fork FORK",
        "branch 1",
        "pay SUB",
        "payment version 2",
        '{"a":1}',
        "pack pack",
    )
    depth = {text: next(line.index(text) for line in lines if text in line) for text in texts}
    assert depth["order version 1"] < depth["fork FORK"] < depth["branch 1"] < depth["pay SUB"]
    assert depth["pay SUB"] < depth["payment version 2"]
    assert depth["pack pack"] == depth["pay SUB"]
    assert "attempt 2" in out
    assert "no [box]" in out


async def test_get_as_json_has_everything(shell: Shell) -> None:
    workflow = workflow_pb2.Workflow(workflow_id="w-1", status=3, tasks=[task_pb2.Task(reference="a")])
    shell.server.on("GetWorkflow", workflow_service_pb2.GetWorkflowResponse(workflow=workflow))

    status, out, _ = await shell.run("get", "w-1", "--json")

    assert status == DONE
    assert json.loads(out) == {"workflow_id": "w-1", "status": "COMPLETED", "tasks": [{"reference": "a"}]}


async def test_get_of_nothing_is_refused(shell: Shell) -> None:
    shell.server.on("GetWorkflow", NOT_FOUND)

    status, out, err = await shell.run("get", "w-1")

    assert (status, out) == (REFUSED, "")
    assert err.splitlines() == ["refused: no workflow w-1", "look for it"]


async def test_list_filters_and_stops_at_its_limit(shell: Shell) -> None:
    summaries = [workflow_pb2.WorkflowSummary(workflow_id=f"w-{n}", name="order", status=1) for n in range(3)]
    page = workflow_service_pb2.ListWorkflowsResponse(workflows=summaries, next_page_token="p")
    shell.server.on("ListWorkflows", page)

    status, out, _ = await shell.run(
        "list", "--status", "RUNNING", "--name", "order", "--limit", "2", "--json"
    )

    assert status == DONE
    assert [each["workflow_id"] for each in json.loads(out)] == ["w-0", "w-1"]
    [request] = shell.server.requests
    assert (request.status, request.name, request.page_size) == (1, "order", 2)


async def test_search_stops_at_its_limit(shell: Shell) -> None:
    found = [
        search_service_pb2.FoundWorkflow(
            workflow=workflow_pb2.WorkflowSummary(workflow_id=f"w-{n}", name="order", status=1)
        )
        for n in range(3)
    ]
    page = search_service_pb2.SearchWorkflowsResponse(workflows=found, next_page_token="p")
    shell.server.on("SearchWorkflows", page)

    status, out, _ = await shell.run("search", "version = 1", "--text", "card", "--limit", "2", "--json")

    assert status == DONE
    assert [each["workflow"]["workflow_id"] for each in json.loads(out)] == ["w-0", "w-1"]
    [request] = shell.server.requests
    assert (request.query, request.free_text, request.page_size) == ("version = 1", "card", 2)


async def test_count_marks_what_may_be_more(shell: Shell) -> None:
    exact = search_service_pb2.Total(count=7, relation=search_service_pb2.RELATION_EXACT)
    more = search_service_pb2.Total(count=1234, relation=search_service_pb2.RELATION_AT_LEAST)
    counted = search_service_pb2.CountWorkflowsResponse(
        total=more, groups=[search_service_pb2.Group(value="FAILED", total=exact)]
    )
    shell.server.on("CountWorkflows", counted)

    status, out, _ = await shell.run("count", "--group-by", "status")

    assert status == DONE
    assert "1,234+" in out
    assert "7+" not in out


async def test_list_of_nothing_says_so(shell: Shell) -> None:
    shell.server.on("ListWorkflows", workflow_service_pb2.ListWorkflowsResponse())

    status, out, _ = await shell.run("list")

    assert (status, out) == (DONE, "nothing\n")


# Everything else.


@pytest.mark.parametrize(
    ("arguments", "method", "response"),
    [
        (
            ["terminate", "w-1", "--reason", "why"],
            "TerminateWorkflow",
            workflow_service_pb2.TerminateWorkflowResponse(),
        ),
        (
            ["terminate", "w-1", "--compensate"],
            "TerminateWorkflow",
            workflow_service_pb2.TerminateWorkflowResponse(),
        ),
        (["pause", "w-1"], "PauseWorkflow", workflow_service_pb2.PauseWorkflowResponse()),
        (["resume", "w-1"], "ResumeWorkflow", workflow_service_pb2.ResumeWorkflowResponse()),
        (
            ["retry", "w-1", "--resume-children"],
            "RetryWorkflow",
            workflow_service_pb2.RetryWorkflowResponse(),
        ),
        (
            ["upgrade", "w-1", "--version", "2"],
            "UpgradeWorkflow",
            workflow_service_pb2.UpgradeWorkflowResponse(),
        ),
        (["restart", "w-1", "--latest"], "RestartWorkflow", workflow_service_pb2.RestartWorkflowResponse()),
        (
            ["signal", "w-1", "wait", "--output", '{"a":1}'],
            "SignalWorkflow",
            workflow_service_pb2.SignalWorkflowResponse(),
        ),
        (["drain", "--node", "n-1"], "DrainNode", admin_service_pb2.DrainNodeResponse()),
        (
            ["drain", "--session", "s-1", "--reason", "old"],
            "DrainSession",
            admin_service_pb2.DrainSessionResponse(),
        ),
        (["explain", "w-1"], "ExplainWorkflow", admin_service_pb2.ExplainWorkflowResponse()),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
async def test_each_command_makes_its_call_and_tells_a_refusal(
    shell: Shell, arguments: list[str], method: str, response: Any
) -> None:
    shell.server.on(method, response, NOT_FOUND)

    status, _, _ = await shell.run(*arguments)
    assert status == DONE
    status, _, err = await shell.run(*arguments)
    assert (status, "no workflow w-1" in err) == (REFUSED, True)


async def test_a_dry_upgrade_shows_what_changes_and_what_speaks_against_it(shell: Shell) -> None:
    report = workflow_pb2.UpgradeReport(
        from_version=1,
        to_version=2,
        workflow_fields=["timeoutSeconds"],
        differences=[
            workflow_pb2.Difference(
                reference="pay",
                kind=workflow_pb2.DIFFERENCE_KIND_CHANGED,
                fields=["inputParameters"],
                open_task_ids=["t-1"],
            ),
            workflow_pb2.Difference(reference="log", kind=workflow_pb2.DIFFERENCE_KIND_ADDED),
        ],
        warnings=[workflow_pb2.UpgradeNote(reference="log", message="it will never run here")],
    )
    possible = workflow_service_pb2.UpgradeWorkflowResponse(report=report)
    impossible = workflow_service_pb2.UpgradeWorkflowResponse(report=report)
    impossible.report.faults.add(reference="pay", message="is gone")
    shell.server.on("UpgradeWorkflow", possible, impossible, possible)

    status, out, _ = await shell.run("upgrade", "w-1", "--dry-run")
    assert status == DONE
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "it would go from version 1 to 2",
        "changed the workflow: timeoutSeconds",
        "changed pay: inputParameters (open)",
        "added log",
        "note log it will never run here",
    ]
    assert shell.server.requests[0].dry_run

    status, out, _ = await shell.run("upgrade", "w-1", "--dry-run")
    assert status == OTHER_END
    assert "it cannot go from version 1 to 2" in out
    assert "against   pay is gone" in out

    _, out, _ = await shell.run("upgrade", "w-1", "--json")
    assert json.loads(out)["to_version"] == 2


async def test_an_upgrade_that_does_not_fit_says_why(shell: Shell) -> None:
    error = error_pb2.Error(
        message="order version 2 does not fit it",
        violations=[
            error_pb2.Violation(path="pay", message="is gone"),
            error_pb2.Violation(message="it is another workflow"),
        ],
    )
    shell.server.on("UpgradeWorkflow", Refusal(grpc.StatusCode.FAILED_PRECONDITION, error))

    status, out, err = await shell.run("upgrade", "w-1")

    assert (status, out) == (REFUSED, "")
    assert "pay: is gone" in err
    assert "the workflow: it is another workflow" in err


@pytest.mark.parametrize("arguments", [[], ["--node", "n", "--session", "s"]])
async def test_drain_needs_exactly_one_target(shell: Shell, arguments: list[str]) -> None:
    status, _, _ = await shell.run("drain", *arguments)

    assert status == REFUSED
    assert shell.server.requests == []


BULK = bulk_pb2.BulkOperation(
    bulk_id="b-1", state=bulk_pb2.BULK_STATE_COMPLETED, total=2, succeeded=1, failed=1, reason="old ones",
    action=bulk_pb2.BulkAction(pause=bulk_pb2.BulkPause()),
)  # fmt: skip


async def test_bulk_start_sends_what_to_do_to_which_and_waits(shell: Shell) -> None:
    shell.server.on("CreateBulkOperation", bulk_service_pb2.CreateBulkOperationResponse(operation=BULK))
    shell.server.on("GetBulkOperation", bulk_service_pb2.GetBulkOperationResponse(operation=BULK))
    options = '{"reference": "pay", "status": "FAILED", "output": {"a": 1}, "reason": "why"}'

    status, out, _ = await shell.run("bulk", "start", "signal", "w-1", "w-2", "--options", options)
    assert (status, out) == (DONE, "b-1\n")
    status, out, _ = await shell.run("bulk", "start", "pause", "--query", "status = FAILED", "--wait")
    assert status == OTHER_END, "one workflow refused"
    assert out.splitlines()[1].split()[:6] == ["b-1", "pause", "COMPLETED", "2", "1", "1"]

    signal, pause = shell.server.asked(bulk_service_pb2.CreateBulkOperationRequest)
    assert signal.action.signal == bulk_pb2.BulkSignal(
        reference="pay", status=task_pb2.TASK_STATUS_FAILED, output=b'{"a":1}', reason="why"
    )
    assert list(signal.workflow_ids) == ["w-1", "w-2"]
    assert not signal.HasField("query")
    assert pause.query.query == "status = FAILED"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("[1]", "send a JSON object"),
        ('{"why": "x"}', "there are: reason"),
        ('{"reason": 1}', "reason is 1"),
        ("{", "--options is no JSON"),
    ],
)
async def test_bulk_start_refuses_options_that_its_action_lacks(
    shell: Shell, options: str, told: str
) -> None:
    status, _, err = await shell.run("bulk", "start", "terminate", "w-1", "--options", options)
    assert (status, told in err) == (REFUSED, True)
    assert shell.server.requests == []


async def test_bulk_shows_operations_and_their_items(shell: Shell) -> None:
    shell.server.on(
        "ListBulkOperations", bulk_service_pb2.ListBulkOperationsResponse(operations=[BULK, BULK])
    )
    shell.server.on("GetBulkOperation", bulk_service_pb2.GetBulkOperationResponse(operation=BULK))
    shell.server.on("CancelBulkOperation", bulk_service_pb2.CancelBulkOperationResponse(operation=BULK))
    error = error_pb2.Error(message="it has ended")
    item = bulk_pb2.BulkItem(workflow_id="w-1", state=bulk_pb2.BULK_ITEM_STATE_FAILED, error=error)
    shell.server.on("ListBulkItems", bulk_service_pb2.ListBulkItemsResponse(items=[item]))

    _, listed, _ = await shell.run("bulk", "list", "--limit", "1")
    _, one, _ = await shell.run("bulk", "get", "b-1")
    _, cancelled, _ = await shell.run("bulk", "cancel", "b-1")
    _, found, _ = await shell.run("bulk", "items", "b-1", "--refused")

    assert listed == one == cancelled
    assert len(listed.splitlines()) == 2
    assert found.splitlines()[1].split() == ["w-1", "FAILED", "it", "has", "ended"]


async def test_tables_show_queues_nodes_and_sessions(shell: Shell) -> None:
    queue = admin_pb2.Queue(task_type="pack", domain="eu", depth=3, has_worker=True)
    queue.oldest_age.FromSeconds(185)
    shell.server.on("ListQueues", admin_service_pb2.ListQueuesResponse(queues=[queue]))
    node = admin_pb2.Node(node_id="n-1", epoch=7, grpc_address="h:1", draining=True)
    shell.server.on("ListNodes", admin_service_pb2.ListNodesResponse(nodes=[node]))
    offer = task_pb2.TaskTypeOffer(task_type="pack", domain="eu")
    session = admin_pb2.Session(session_id="s-1", worker_id="w", state=1, task_types=[offer])
    shell.server.on("ListSessions", admin_service_pb2.ListSessionsResponse(sessions=[session]))

    _, queues, _ = await shell.run("queues")
    _, nodes, _ = await shell.run("nodes")
    _, sessions, _ = await shell.run("sessions")

    assert queues.splitlines()[1].split() == ["pack", "eu", "3", "3", "min", "05", "s", "yes"]
    assert nodes.splitlines()[1].split()[:3] == ["n-1", "7", "h:1"]
    assert "draining" in nodes
    assert "eu:pack" in sessions
    assert "ACTIVE" in sessions


async def test_explain_names_what_each_task_waits_for(shell: Shell) -> None:
    task = admin_pb2.OpenTask(
        reference="pack", task_type="pack", status=1, cause=3, explanation="no worker is connected for pack"
    )
    explanation = admin_pb2.Explanation(status=1, summary="waits for a worker", open_tasks=[task])
    shell.server.on("ExplainWorkflow", admin_service_pb2.ExplainWorkflowResponse(explanation=explanation))

    _, out, _ = await shell.run("explain", "w-1")
    _, as_json, _ = await shell.run("explain", "w-1", "--json")

    assert "waits for a worker" in out
    assert "no worker is connected for pack" in out
    assert json.loads(as_json)["open_tasks"][0]["cause"] == "NO_WORKER"
