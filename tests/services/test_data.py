"""Schemas, masked fields, cached outputs and events over the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from maestoso.admin.v1 import admin_service_pb2
from maestoso.metadata.v1 import metadata_service_pb2
from maestoso.workflow.v1 import workflow_pb2
from maestoso.workflow.v1 import workflow_service_pb2 as wire
from maestoso_server.engine.events import Result
from maestoso_server.engine.state import TaskStatus
from maestoso_server.payload import Json
from maestoso_server.services.masking import Mask
from maestoso_server.services.security import ApiKeys, make_key, read_keys
from services_kit import DEADLINE_S, Served, refused, serve

COMPLETED = workflow_pb2.WORKFLOW_STATUS_COMPLETED
FAILED = workflow_pb2.WORKFLOW_STATUS_FAILED
NEEDS_N = {"data": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}


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


async def report(served: Served, workflow_id: str, seq: int, output: Any) -> None:
    """A worker's result."""
    event = Result(now_ms=served.clock.now_ms(), seq=seq, status=TaskStatus.COMPLETED, output=Json.of(output))
    await served.executor.apply(workflow_id, event)


async def events(served: Served, **fields: Any) -> admin_service_pb2.ListEventsResponse:
    return await served.admin.ListEvents(admin_service_pb2.ListEventsRequest(**fields), timeout=DEADLINE_S)


# --- schemas ----------------------------------------------------------------------------------------


@pytest.mark.covers("B24")
async def test_a_start_whose_input_does_not_fit_is_refused_with_its_paths(served: Served) -> None:
    await served.register(definition("pay", node("SIMPLE", "charge"), inputSchema=NEEDS_N))

    code, found = await refused(served.start("pay", input=b'{"n":"secret"}'))

    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert [(one.path, one.message) for one in found.violations] == [
        ("input.n", 'the value is not of type "integer"')
    ]
    assert "inputSchema of pay version 1" in found.message
    listed = await served.workflows.ListWorkflows(wire.ListWorkflowsRequest(), timeout=DEADLINE_S)
    assert list(listed.workflows) == []
    assert await served.start("pay", input=b'{"n":1}')


async def test_of_many_starts_only_those_are_refused_that_do_not_fit(served: Served) -> None:
    await served.register(
        definition("pay", node("SIMPLE", "charge"), inputSchema=NEEDS_N),
        definition("free", node("SIMPLE", "charge")),
    )
    await served.start("pay", input=b'{"n":1}')
    await served.start("free")

    starts = [("free", b"{}"), ("pay", b"{}"), ("pay", b'{"n":1}'), ("free", b"{}"), ("pay", b'{"n":null}')]
    response = await served.workflows.StartWorkflows(
        wire.StartWorkflowsRequest(
            starts=[workflow_pb2.WorkflowStart(name=name, input=input) for name, input in starts]
        ),
        timeout=DEADLINE_S,
    )

    assert [outcome.WhichOneof("result") for outcome in response.outcomes] == [
        *("started", "error", "started", "started", "error")
    ]


async def test_an_inline_definition_is_judged_by_its_own_schema(served: Served) -> None:
    document = definition("once", node("SIMPLE", "charge"), inputSchema=NEEDS_N)

    code, _ = await refused(served.start("once", definition=json.dumps(document).encode()))

    assert code == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_schema_that_reaches_outside_is_refused_with_its_place(served: Served) -> None:
    schema = {"data": {"$ref": "file:///etc/hostname"}}

    code, found = await refused(
        served.register(definition("pay", node("SIMPLE", "charge"), inputSchema=schema))
    )

    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert [one.path for one in found.violations] == ['documents[0].inputSchema.data["$ref"]']


async def test_a_workflow_fails_whose_output_does_not_fit(served: Served) -> None:
    await served.register(definition("pay", node("SIMPLE", "charge"), outputSchema=NEEDS_N))
    workflow_id = await served.start("pay")

    await report(served, workflow_id, 1, {"n": "one"})

    found = await served.get(workflow_id)
    assert found.status == FAILED
    assert found.reason == (
        'The workflow output does not match the outputSchema: output.n: the value is not of type "integer"'
    )


# --- masked fields ----------------------------------------------------------------------------------

SECRET = {
    "password": "s3cret",
    "user": {"card": {"number": 7, "kind": "x"}, "list": [{"password": {"a": 1}}]},
}
HIDDEN = {"password": "***", "user": {"card": {"number": "***", "kind": "x"}, "list": [{"password": "***"}]}}
MASKED = definition(
    "login",
    node(
        "SIMPLE",
        "check",
        inputParameters={"all": "${workflow.input}", "password": "${workflow.input.password}"},
    ),
    node("EVENT", "tell", sink="conductor", inputParameters={"password": "${check.input.password}"}),
    maskedFields=["password", "card.number"],
    variables={"password": "v"},
)


@pytest.mark.covers("B24")
async def test_masked_fields_are_shown_as_stars_and_used_as_they_are(served: Served) -> None:
    await served.register(MASKED)
    workflow_id = await served.start("login", input=json.dumps(SECRET).encode())
    await report(served, workflow_id, 1, SECRET)

    found = await served.get(workflow_id, include_tasks=True, include_payloads=True)
    assert found.status == COMPLETED
    assert json.loads(found.input) == HIDDEN
    assert json.loads(found.variables) == {"password": "***"}
    check, tell = found.tasks
    assert json.loads(check.input) == {"all": HIDDEN, "password": "***"}
    assert json.loads(check.output) == HIDDEN
    assert json.loads(tell.input)["password"] == "***"
    (told,) = (await events(served, include_bodies=True)).events
    assert json.loads(told.body)["password"] == "***"

    watched = served.workflows.WatchWorkflow(
        wire.WatchWorkflowRequest(workflow_id=workflow_id, include_payloads=True), timeout=DEADLINE_S
    )
    (seen,) = [response async for response in watched]
    assert json.loads(seen.workflow.input) == HIDDEN

    whole = await served.get(workflow_id, include_tasks=True, include_payloads=True, unmask=True)
    assert json.loads(whole.input) == SECRET
    assert json.loads(whole.tasks[0].input) == {"all": SECRET, "password": "s3cret"}
    (told,) = (await events(served, include_bodies=True, unmask=True)).events
    assert json.loads(told.body)["password"] == "s3cret"


@pytest.fixture
async def guarded(database_url: str) -> AsyncIterator[tuple[Served, str, str]]:
    """Two callers with keys: one may read, the other may unmask, too."""
    reader, first = make_key("r", "reader", actions=("*:read", "definition:write", "workflow:start"))
    auditor, second = make_key("a", "auditor", actions=("*:read", "workflow:unmask"))
    keys = ApiKeys(read_keys(f"{first}\n{second}", "test"))
    async with serve(database_url, authenticator=keys) as served:
        yield served, reader, auditor


async def test_only_who_has_the_right_sees_what_is_masked(guarded: tuple[Served, str, str]) -> None:
    served, reader, auditor = guarded
    as_reader = (("authorization", f"Bearer {reader}"),)
    as_auditor = (("authorization", f"Bearer {auditor}"),)
    await served.metadata.PutWorkflowDefinitions(
        metadata_service_pb2.PutWorkflowDefinitionsRequest(documents=[json.dumps(MASKED).encode()]),
        timeout=DEADLINE_S,
        metadata=as_reader,
    )
    started = await served.workflows.StartWorkflow(
        wire.StartWorkflowRequest(
            start=workflow_pb2.WorkflowStart(name="login", input=json.dumps(SECRET).encode())
        ),
        timeout=DEADLINE_S,
        metadata=as_reader,
    )
    request = wire.GetWorkflowRequest(
        workflow_id=started.started.workflow_id, include_payloads=True, unmask=True
    )

    code, _ = await refused(served.workflows.GetWorkflow(request, timeout=DEADLINE_S, metadata=as_reader))
    assert code == grpc.StatusCode.PERMISSION_DENIED
    code, _ = await refused(
        served.admin.ListEvents(
            admin_service_pb2.ListEventsRequest(include_bodies=True, unmask=True),
            timeout=DEADLINE_S,
            metadata=as_reader,
        )
    )
    assert code == grpc.StatusCode.PERMISSION_DENIED
    seen = await served.workflows.GetWorkflow(request, timeout=DEADLINE_S, metadata=as_auditor)
    assert json.loads(seen.workflow.input) == SECRET


@pytest.mark.parametrize(
    ("fields", "value", "shown"),
    [
        ([], {"a": 1}, {"a": 1}),
        (["a"], {"b": {"a": [1]}}, {"b": {"a": "***"}}),
        (["a.b"], {"a": [{"b": 1, "c": 2}], "b": 3}, {"a": [{"b": "***", "c": 2}], "b": 3}),
        (["a.b"], {"x": {"a": {"b": 1}}}, {"x": {"a": {"b": "***"}}}),
        (["a"], [1, {"a": None}], [1, {"a": "***"}]),
        ([""], {"": 1}, {"": 1}),
    ],
)
def test_a_mask_covers_a_name_or_the_end_of_a_path(fields: list[str], value: Any, shown: Any) -> None:
    assert json.loads(Mask(fields).hide(Json.of(value))) == shown


def test_a_mask_leaves_numbers_as_they_are() -> None:
    raw = b'{"big":100000000000000000000000000000001,"float":1.0,"a":1}'
    assert Mask(["a"]).hide(Json(raw)) == raw.replace(b'"a":1', b'"a":"***"')
    assert Mask().hide(Json(raw)) is raw


# --- cached outputs ---------------------------------------------------------------------------------


@pytest.mark.covers("B24")
async def test_a_cached_output_completes_a_task_and_the_record_says_so(served: Served) -> None:
    cached = node("SIMPLE", "price", cacheConfig={"key": "${workflow.input.k}", "ttlInSecond": 1})
    await served.register(definition("quote", cached))
    first = await served.start("quote", input=b'{"k":"x"}')
    await report(served, first, 1, {"price": 7})

    second = await served.get(
        await served.start("quote", input=b'{"k":"x"}'), include_tasks=True, include_payloads=True
    )

    assert (second.status, json.loads(second.output)) == (COMPLETED, {"price": 7})
    (task,) = second.tasks
    assert task.cached and not task.worker_id
    served.clock.advance(1_000)
    third = await served.get(await served.start("quote", input=b'{"k":"x"}'))
    assert third.open_task_count == 1


@pytest.mark.covers("B42")
async def test_the_record_says_which_expressions_found_nothing(served: Served) -> None:
    await served.register(
        definition("pay", node("SIMPLE", "charge", inputParameters={"x": "${workflow.input.typo}"}))
    )
    found = await served.get(await served.start("pay"), include_tasks=True)
    assert list(found.tasks[0].unresolved) == ["${workflow.input.typo}"]


# --- events -----------------------------------------------------------------------------------------


async def test_events_are_listed_by_page_and_by_queue(served: Served) -> None:
    told = [node("EVENT", f"e{number}", sink=f"conductor:q{number % 2}") for number in range(5)]
    await served.register(definition("tell", *told))
    workflow_id = await served.start("tell")

    page = await events(served, workflow_id=workflow_id, page_size=3)
    rest = await events(served, workflow_id=workflow_id, page_size=3, page_token=page.next_page_token)
    assert len(page.events) == 3 and len(rest.events) == 2 and not rest.next_page_token
    assert [event.queue for event in [*page.events, *rest.events]] == [
        f"conductor:tell:q{number % 2}" for number in range(5)
    ]
    assert {event.body for event in page.events} == {b""}
    one = await events(served, queue="conductor:tell:q1", include_bodies=True)
    assert [json.loads(event.body)["event_produced"] for event in one.events] == ["conductor:tell:q1"] * 2
    assert len((await events(served, only_unacknowledged=True)).events) == 5


@pytest.mark.parametrize("fields", [{"workflow_id": "x"}, {"page_size": -1}, {"page_token": "?"}])
async def test_a_list_of_events_that_cannot_be_is_refused(served: Served, fields: dict[str, Any]) -> None:
    code, _ = await refused(events(served, **fields))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
