"""Definitions over the wire: put, read, listed, removed; and each refused."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from maestoso.error.v1 import error_pb2
from maestoso.metadata.v1 import definition_pb2
from maestoso.metadata.v1 import metadata_service_pb2 as wire
from maestoso_server.config import Config
from services_kit import Served, refused


def workflow(name: str = "order", version: int = 1, **fields: Any) -> bytes:
    document = {
        "name": name,
        "version": version,
        "schemaVersion": 2,
        "ownerEmail": "team@example.com",
        "tasks": [{"name": "pay", "taskReferenceName": "pay", "type": "SIMPLE"}],
        **fields,
    }
    return json.dumps(document).encode()


def task(name: str = "pay", **fields: Any) -> bytes:
    return json.dumps({"name": name, "ownerEmail": "team@example.com", **fields}).encode()


async def put(served: Served, *documents: bytes, **fields: Any) -> list[definition_pb2.PutResult]:
    request = wire.PutWorkflowDefinitionsRequest(documents=documents, **fields)
    return list((await served.metadata.PutWorkflowDefinitions(request, timeout=10)).results)


async def names(served: Served) -> list[tuple[str, int]]:
    response = await served.metadata.ListWorkflowDefinitions(
        wire.ListWorkflowDefinitionsRequest(), timeout=10
    )
    return [(found.name, found.version) for found in response.definitions]


# --- put ----------------------------------------------------------------------------------------


async def test_a_new_definition_is_created(served: Served) -> None:
    (result,) = await put(served, workflow())

    assert (result.name, result.version) == ("order", 1)
    assert result.outcome == definition_pb2.PUT_OUTCOME_CREATED


async def test_the_same_document_again_is_unchanged(served: Served) -> None:
    await put(served, workflow())

    (result,) = await put(served, workflow())

    assert result.outcome == definition_pb2.PUT_OUTCOME_UNCHANGED


async def test_another_document_under_the_same_version_is_refused(served: Served) -> None:
    await put(served, workflow())

    code, refusal = await refused(put(served, workflow("other"), workflow(description="changed")))

    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == error_pb2.REASON_DEFINITION_EXISTS
    assert await names(served) == [("order", 1)]


@pytest.mark.covers("K15", "B26")
async def test_overwrite_replaces_it(served: Served) -> None:
    await put(served, workflow())

    (result,) = await put(served, workflow(description="changed"), overwrite=definition_pb2.OVERWRITE_ALLOW)

    assert result.outcome == definition_pb2.PUT_OUTCOME_REPLACED


async def test_overwrite_of_what_must_exist_refuses_what_does_not(served: Served) -> None:
    code, refusal = await refused(put(served, workflow(), overwrite=definition_pb2.OVERWRITE_REQUIRE))

    assert code is grpc.StatusCode.NOT_FOUND
    assert refusal.reason == error_pb2.REASON_DEFINITION_NOT_FOUND


async def test_every_fault_of_every_document_is_named_and_nothing_is_stored(served: Served) -> None:
    nameless = workflow("broken", tasks=[{"name": "a", "type": "SIMPLE"}])

    code, refusal = await refused(put(served, workflow(), nameless, b'{"name":'))

    paths = [violation.path for violation in refusal.violations]
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == error_pb2.REASON_INVALID_DEFINITION
    assert "documents[1].tasks[0].taskReferenceName" in paths
    assert "documents[2]" in paths
    assert all(violation.line for violation in refusal.violations)
    assert await names(served) == []


async def test_validate_only_answers_faults_and_stores_nothing(served: Served) -> None:
    sound, broken = await put(served, workflow(), b"[]", validate_only=True)

    assert sound.outcome == definition_pb2.PUT_OUTCOME_CREATED
    assert broken.outcome == definition_pb2.PUT_OUTCOME_INVALID
    assert broken.violations
    assert await names(served) == []


async def test_a_field_without_effect_is_warned_of_by_path(served: Served) -> None:
    (result,) = await put(served, workflow(colour="red"))

    assert [warning.path for warning in result.warnings] == ["colour"]


async def test_strict_refuses_what_is_otherwise_warned_of(served: Served) -> None:
    code, refusal = await refused(put(served, workflow(colour="red"), strict=True))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.path for violation in refusal.violations] == ["documents[0].colour"]


async def test_a_script_that_cannot_be_read_is_a_fault(served: Served) -> None:
    switch = {
        "name": "choose",
        "taskReferenceName": "choose",
        "type": "SWITCH",
        "evaluatorType": "javascript",
        "expression": "$.a ===",
        "decisionCases": {"x": [{"name": "pay", "taskReferenceName": "pay", "type": "SIMPLE"}]},
    }

    code, refusal = await refused(put(served, workflow(tasks=[switch])))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.path for violation in refusal.violations] == ["documents[0].tasks[0].expression"]


async def test_the_same_definition_twice_in_one_put_is_refused(served: Served) -> None:
    code, refusal = await refused(put(served, workflow(), workflow(description="other")))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.path for violation in refusal.violations] == ["documents[1]"]


@pytest.mark.parametrize("name", ["x" * 256, "a\0b"])
async def test_a_name_that_cannot_be_kept_is_refused(served: Served, name: str) -> None:
    code, refusal = await refused(put(served, workflow(name)))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "documents[0].name" in [violation.path for violation in refusal.violations]


async def test_a_document_over_its_limit_is_refused_with_both_sizes(served: Served) -> None:
    limit = Config().max_definition_bytes

    code, refusal = await refused(put(served, workflow(description="x" * limit)))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == error_pb2.REASON_TOO_LARGE
    assert f"{limit:,}" in refusal.message


async def test_a_put_of_nothing_is_refused(served: Served) -> None:
    code, _ = await refused(put(served))

    assert code is grpc.StatusCode.INVALID_ARGUMENT


# --- read ---------------------------------------------------------------------------------------


async def test_a_definition_comes_back_byte_for_byte_with_its_facts(served: Served) -> None:
    document = b' {"name":"order","version":2,"schemaVersion":2,"description":"d","ownerEmail":"o@e",\n' + (
        b'"inputTemplate":{"n":9007199254740993,"f":1.0},"tasks":[{"name":"s","taskReferenceName":"s",'
        b'"type":"FORK_JOIN","forkTasks":[[{"name":"a","taskReferenceName":"a","type":"SIMPLE"}]]},'
        b'{"name":"j","taskReferenceName":"j","type":"JOIN","joinOn":["a"]}]} '
    )
    await put(served, document)

    response = await served.metadata.GetWorkflowDefinition(
        wire.GetWorkflowDefinitionRequest(name="order"), timeout=10
    )

    found = response.definition
    assert found.document == document
    assert (found.name, found.version, found.description, found.owner_email) == ("order", 2, "d", "o@e")
    assert (found.task_count, dict(found.task_counts)) == (3, {"FORK_JOIN": 1, "JOIN": 1, "SIMPLE": 1})
    assert (found.created_by, found.updated_by) == ("anonymous", "anonymous")
    assert found.create_time.ToMilliseconds() == served.clock.now_ms()


@pytest.mark.covers("K15")
async def test_without_a_version_the_highest_is_meant(served: Served) -> None:
    await put(served, workflow(version=10), workflow(version=9))

    response = await served.metadata.GetWorkflowDefinition(
        wire.GetWorkflowDefinitionRequest(name="order"), timeout=10
    )

    assert response.definition.version == 10


async def test_a_definition_that_is_not_registered_is_not_found(served: Served) -> None:
    await put(served, workflow())

    code, refusal = await refused(
        served.metadata.GetWorkflowDefinition(
            wire.GetWorkflowDefinitionRequest(name="order", version=7), timeout=10
        )
    )

    assert code is grpc.StatusCode.NOT_FOUND
    assert refusal.reason == error_pb2.REASON_DEFINITION_NOT_FOUND


async def test_definitions_are_listed_by_pages(served: Served) -> None:
    await put(served, *(workflow(name, version) for name in "abc" for version in (1, 2)))
    seen: list[tuple[str, int]] = []
    token = ""

    while True:
        response = await served.metadata.ListWorkflowDefinitions(
            wire.ListWorkflowDefinitionsRequest(page_size=4, page_token=token), timeout=10
        )
        seen += [(found.name, found.version) for found in response.definitions]
        assert not any(found.document for found in response.definitions)
        token = response.next_page_token
        if not token:
            break

    assert seen == [(name, version) for name in "abc" for version in (1, 2)]


async def test_a_list_can_be_narrowed(served: Served) -> None:
    await put(served, *(workflow(name, version) for name in "ab" for version in (1, 2)))

    latest = await served.metadata.ListWorkflowDefinitions(
        wire.ListWorkflowDefinitionsRequest(latest_only=True, include_documents=True), timeout=10
    )
    named = await served.metadata.ListWorkflowDefinitions(
        wire.ListWorkflowDefinitionsRequest(name="b"), timeout=10
    )

    assert [(found.name, found.version) for found in latest.definitions] == [("a", 2), ("b", 2)]
    assert all(found.document for found in latest.definitions)
    assert [(found.name, found.version) for found in named.definitions] == [("b", 1), ("b", 2)]


async def test_a_token_of_no_list_is_refused(served: Served) -> None:
    code, _ = await refused(
        served.metadata.ListWorkflowDefinitions(
            wire.ListWorkflowDefinitionsRequest(page_token="nonsense"), timeout=10
        )
    )

    assert code is grpc.StatusCode.INVALID_ARGUMENT


# --- delete -------------------------------------------------------------------------------------


async def test_a_deleted_version_is_gone_and_the_others_stay(served: Served) -> None:
    await put(served, workflow(version=1), workflow(version=2))

    await served.metadata.DeleteWorkflowDefinition(
        wire.DeleteWorkflowDefinitionRequest(name="order", version=2), timeout=10
    )

    assert await names(served) == [("order", 1)]


@pytest.mark.parametrize(
    ("version", "code"), [(7, grpc.StatusCode.NOT_FOUND), (0, grpc.StatusCode.INVALID_ARGUMENT)]
)
async def test_a_delete_names_what_exists(served: Served, version: int, code: grpc.StatusCode) -> None:
    await put(served, workflow())

    found, _ = await refused(
        served.metadata.DeleteWorkflowDefinition(
            wire.DeleteWorkflowDefinitionRequest(name="order", version=version), timeout=10
        )
    )

    assert found is code
    assert await names(served) == [("order", 1)]


# --- task definitions ---------------------------------------------------------------------------


async def put_tasks(served: Served, *documents: bytes, **fields: Any) -> list[definition_pb2.PutResult]:
    request = wire.PutTaskDefinitionsRequest(documents=documents, **fields)
    return list((await served.metadata.PutTaskDefinitions(request, timeout=10)).results)


async def test_a_task_definition_is_put_read_and_listed(served: Served) -> None:
    document = task(description="charges a card", retryCount=5)
    (result,) = await put_tasks(served, document)

    found = await served.metadata.GetTaskDefinition(wire.GetTaskDefinitionRequest(name="pay"), timeout=10)
    listed = await served.metadata.ListTaskDefinitions(wire.ListTaskDefinitionsRequest(), timeout=10)

    assert (result.name, result.version) == ("pay", 0)
    assert result.outcome == definition_pb2.PUT_OUTCOME_CREATED
    assert found.definition.document == document
    assert found.definition.description == "charges a card"
    assert [one.name for one in listed.definitions] == ["pay"]


async def test_a_task_definition_with_faults_is_refused(served: Served) -> None:
    code, refusal = await refused(put_tasks(served, task(retryCount=-1)))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.path for violation in refusal.violations] == ["documents[0].retryCount"]


async def test_another_task_definition_of_the_same_name_is_refused(served: Served) -> None:
    await put_tasks(served, task())

    code, _ = await refused(put_tasks(served, task(retryCount=9)))

    assert code is grpc.StatusCode.ALREADY_EXISTS


async def test_a_task_definition_that_is_not_registered_is_not_found(served: Served) -> None:
    code, _ = await refused(
        served.metadata.GetTaskDefinition(wire.GetTaskDefinitionRequest(name="pay"), timeout=10)
    )

    assert code is grpc.StatusCode.NOT_FOUND


async def test_a_task_definition_is_deleted_once(served: Served) -> None:
    await put_tasks(served, task())
    request = wire.DeleteTaskDefinitionRequest(name="pay")

    await served.metadata.DeleteTaskDefinition(request, timeout=10)
    code, _ = await refused(served.metadata.DeleteTaskDefinition(request, timeout=10))

    assert code is grpc.StatusCode.NOT_FOUND


async def test_task_definitions_are_listed_by_pages(served: Served) -> None:
    await put_tasks(served, *(task(name) for name in "abc"))

    first = await served.metadata.ListTaskDefinitions(
        wire.ListTaskDefinitionsRequest(page_size=2), timeout=10
    )
    second = await served.metadata.ListTaskDefinitions(
        wire.ListTaskDefinitionsRequest(page_size=2, page_token=first.next_page_token), timeout=10
    )

    assert [one.name for one in (*first.definitions, *second.definitions)] == ["a", "b", "c"]
    assert second.next_page_token == ""


async def test_a_page_token_is_refused_in_a_list_of_another_kind(served: Served) -> None:
    await put(served, workflow("a"), workflow("b"))
    page = await served.metadata.ListWorkflowDefinitions(
        wire.ListWorkflowDefinitionsRequest(page_size=1), timeout=10
    )

    code, _ = await refused(
        served.metadata.ListTaskDefinitions(
            wire.ListTaskDefinitionsRequest(page_token=page.next_page_token), timeout=10
        )
    )

    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unknown_namespace_is_not_found(served: Served) -> None:
    code, refusal = await refused(put(served, workflow(), namespace="nowhere"))

    assert code is grpc.StatusCode.NOT_FOUND
    assert refusal.reason == error_pb2.REASON_NAMESPACE_NOT_FOUND
