"""Schemas, masks, caches and events: refused where they are unsafe, warned of where they do nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maestoso_server.definitions.models import SchemaDefinition
from maestoso_server.definitions.parse import parse_task, parse_workflow
from maestoso_server.definitions.schemas import FAULTS_MAX, compile_schema
from maestoso_server.definitions.state_changes import statuses_of

SIMPLE = {"name": "t", "taskReferenceName": "t1"}
DATA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def node(type_name: str = "SIMPLE", **fields: Any) -> dict[str, Any]:
    return {"name": "n", "taskReferenceName": "n1", "type": type_name, **fields}


def workflow(*tasks: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"name": "w", "tasks": list(tasks) or [SIMPLE], **fields}).encode()


def task(**fields: Any) -> bytes:
    return json.dumps({"name": "t", **fields}).encode()


def found(parsed: Any) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    return (
        [(one.path, one.message) for one in parsed.faults],
        [(one.path, one.message) for one in parsed.warnings],
    )


# --- what has an effect is accepted without a word ------------------------------------------------------


@pytest.mark.covers("B24")
@pytest.mark.parametrize(
    "raw",
    [
        workflow(inputSchema={"data": DATA}, outputSchema={"type": "JSON", "data": DATA}),
        workflow(maskedFields=["password", "card.number"]),
        workflow(workflowStatusListenerEnabled=True, workflowStatusListenerSink="conductor:status"),
        workflow(onMissing="error"),
        workflow(node(cacheConfig={"key": "${workflow.input.k}", "ttlInSecond": 5})),
        workflow(node("HTTP", inputParameters={"http_request": {}}, asyncComplete=True)),
        workflow(node(onStateChange={"onScheduled,onSuccess": [{"type": "t"}], "onFAILED": [{"type": "u"}]})),
        workflow(
            node("INLINE", inputParameters={"expression": "1"}, onStateChange={"onStart": [{"type": "t"}]})
        ),
        workflow(node("EVENT", sink="conductor:x", asyncComplete=True)),
        workflow(node("EVENT", sink="${workflow.input.sink}")),
    ],
)
def test_what_has_an_effect_is_accepted_without_a_word(raw: bytes) -> None:
    assert found(parse_workflow(raw)) == ([], [])


def test_a_task_definitions_enforced_schema_is_accepted_without_a_word() -> None:
    assert found(parse_task(task(inputSchema={"data": DATA}, enforceSchema=True))) == ([], [])


# --- what has none is said ------------------------------------------------------------------------------


@pytest.mark.covers("K19", "B24")
@pytest.mark.parametrize(
    ("raw", "path", "part"),
    [
        (
            workflow(inputSchema={"data": DATA}, enforceSchema=False),
            "inputSchema",
            "enforceSchema is not true",
        ),
        (
            workflow(inputSchema={"type": "AVRO", "data": DATA}),
            "inputSchema.type",
            "AVRO schemas are not enforced",
        ),
        (
            workflow(outputSchema={"type": "PROTOBUF", "externalRef": "x"}),
            "outputSchema.externalRef",
            "never fetched",
        ),
        (workflow(inputSchema={"name": "order", "version": 1}), "inputSchema.data", "nothing to enforce"),
        (workflow(cacheConfig={"key": "k", "ttlInSecond": 1}), "cacheConfig", "a workflow always runs"),
        (workflow(maskedFields=["a", ""]), "maskedFields[1]", "names no field"),
        (workflow(workflowStatusListenerSink="conductor:x"), "workflowStatusListenerSink", "nothing is told"),
        (
            workflow(workflowStatusListenerEnabled=True, workflowStatusListenerSink="kafka:x"),
            "workflowStatusListenerSink",
            "no kafka broker is configured",
        ),
        (workflow(node(cacheConfig={"ttlInSecond": 1})), "tasks[0].cacheConfig.key", "nothing is cached"),
        (workflow(node(cacheConfig={"key": "k"})), "tasks[0].cacheConfig.ttlInSecond", "nothing is cached"),
        (
            workflow(node("WAIT", cacheConfig={"key": "k", "ttlInSecond": 1})),
            "tasks[0].cacheConfig",
            "WAIT is never cached",
        ),
        (
            workflow(node(onStateChange={"onSuccess,onPaused": [{"type": "t"}]})),
            'tasks[0].onStateChange["onSuccess,onPaused"]',
            "'onPaused' is no change of a task",
        ),
        (
            workflow(node(onStateChange={"onStart": [{"type": "t"}]})),
            "tasks[0].onStateChange.onStart",
            "the start of a worker task is not told",
        ),
        (
            workflow(node(onStateChange={"onSuccess": [{"payload": {}}]})),
            "tasks[0].onStateChange.onSuccess[0].type",
            "without a type is not told",
        ),
        (
            workflow(
                node(onStateChange={"onSuccess": [{"type": "t", "payload": {"a": "${nobody.output.a}"}}]})
            ),
            "tasks[0].onStateChange.onSuccess[0].payload.a",
            "is not defined",
        ),
        (workflow(node("EVENT", sink="sqs:orders")), "tasks[0].sink", "no sqs broker is configured"),
        (workflow(node("EVENT", sink="conductors")), "tasks[0].sink", "conductors is no sink"),
        (workflow(node(asyncComplete=True)), "tasks[0].asyncComplete", "the worker's report ends the task"),
        (
            workflow(node("NOOP", asyncComplete=True)),
            "tasks[0].asyncComplete",
            "NOOP completes by itself",
        ),
        (workflow(node("EVENT", sink="conductor", startDelay=5)), "tasks[0].startDelay", "starts at once"),
    ],
)
def test_what_has_no_effect_is_warned_of_and_strict_refuses_it(raw: bytes, path: str, part: str) -> None:
    faults, warnings = found(parse_workflow(raw))
    assert faults == []
    assert any(at == path and part in message for at, message in warnings), warnings
    strictly, _ = found(parse_workflow(raw, strict=True))
    assert any(at == path and part in message for at, message in strictly)


def test_a_task_definitions_schema_is_off_by_default_and_it_is_said() -> None:
    _, warnings = found(parse_task(task(outputSchema={"data": DATA})))
    assert warnings == [
        ("outputSchema", "enforceSchema is not true: the schema is kept, nothing is held against it")
    ]


@pytest.mark.covers("K19")
def test_inert_fields_are_kept_as_they_came() -> None:
    raw = workflow(node(rateLimited=True, joinStatus="x"), cacheConfig={"key": "k", "ttlInSecond": 1})
    parsed = parse_workflow(raw)
    assert parsed.faults == ()
    assert parsed.document.raw == raw
    assert {one.path for one in parsed.warnings} == {
        "tasks[0].rateLimited",
        "tasks[0].joinStatus",
        "cacheConfig",
    }


# --- what is unsafe or cannot work is refused -------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "path", "part"),
    [
        ({"$ref": "file:///etc/hostname"}, 'inputSchema.data["$ref"]', "never fetched"),
        ({"allOf": [{"$ref": "http://127.0.0.1:9/x"}]}, 'inputSchema.data.allOf[0]["$ref"]', "never fetched"),
        ({"$ref": "other.json"}, 'inputSchema.data["$ref"]', "never fetched"),
        ({"$schema": "http://127.0.0.1:9/draft"}, 'inputSchema.data["$schema"]', "never fetched"),
        (
            {"properties": {"a": {"type": "text"}}},
            "inputSchema.data.properties.a.type",
            "no valid JSON schema",
        ),
        ({"pattern": "(("}, "inputSchema.data.pattern", "no valid JSON schema"),
    ],
)
@pytest.mark.parametrize("enforced", [True, False])
def test_a_schema_that_reaches_outside_or_is_none_is_refused(
    data: dict[str, Any], path: str, part: str, enforced: bool
) -> None:
    for parsed in (
        parse_workflow(workflow(inputSchema={"data": data}, enforceSchema=enforced)),
        parse_task(task(inputSchema={"data": data}, enforceSchema=enforced)),
    ):
        faults, _ = found(parsed)
        assert [at for at, _ in faults] == [path]
        assert part in faults[0][1]


@pytest.mark.parametrize(
    "data",
    [
        {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}},
        {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
    ],
)
def test_a_schema_that_stands_for_itself_is_accepted(data: dict[str, Any]) -> None:
    assert found(parse_workflow(workflow(inputSchema={"data": data}))) == ([], [])


@pytest.mark.covers("B10")
@pytest.mark.parametrize("type_name", ["JOIN", "WAIT", "PULL_WORKFLOW_MESSAGES"])
def test_what_would_hang_with_asynccomplete_is_refused(type_name: str) -> None:
    faults, _ = found(parse_workflow(workflow(node(type_name, asyncComplete=True))))
    assert (
        "tasks[0].asyncComplete",
        f"{type_name} would never end with asyncComplete; leave it out",
    ) in faults


def test_onmissing_is_null_or_error() -> None:
    faults, _ = found(parse_workflow(workflow(onMissing="ignore")))
    assert [at for at, _ in faults] == ["onMissing"]


# --- schemas themselves -----------------------------------------------------------------------------------


def schema(data: dict[str, Any]) -> Any:
    return compile_schema(SchemaDefinition.model_validate({"data": data}))


def test_faults_have_a_path_and_never_the_value() -> None:
    judge = schema({"properties": {"l": {"items": {"type": "string", "pattern": "^a"}}, "p": {"enum": [1]}}})
    assert sorted(judge.faults({"l": ["a", "secret"], "p": "hidden"}, "input")) == [
        ("input.l[1]", 'the value does not match "^a"'),
        ("input.p", "the value is not one of 1"),
    ]
    assert judge.faults({"l": ["a"], "p": 1}, "input") == []


def test_the_draft_is_what_schema_names() -> None:
    draft4 = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True}
    assert schema(draft4).faults(1, "n") != []
    assert schema(draft4).faults(2, "n") == []


def test_numbers_are_exact() -> None:
    judge = schema({"maximum": 9007199254740992})
    assert judge.faults(9007199254740992, "n") == []
    assert judge.faults(9007199254740993, "n") != []
    assert schema({"type": "integer"}).faults(10**400, "n") == []


def test_many_faults_are_told_up_to_a_number() -> None:
    assert len(schema({"items": {"type": "string"}}).faults([1] * 1_000, "n")) == FAULTS_MAX


def test_a_pattern_cannot_hold_the_engine_up() -> None:
    judge = schema({"pattern": "^(a+)+$"})
    assert judge.faults("a" * 40 + "b", "n") != []


@pytest.mark.parametrize(
    "definition", [{}, {"data": {}}, {"type": "AVRO", "data": DATA}, {"data": DATA, "externalRef": "x"}]
)
def test_nothing_is_held_against_what_cannot_be_enforced(definition: dict[str, Any]) -> None:
    assert compile_schema(SchemaDefinition.model_validate(definition)) is None


# --- keys of onStateChange ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "statuses", "unknown"),
    [
        ("onScheduled", ["SCHEDULED"], []),
        ("onFailed", ["FAILED", "FAILED_WITH_TERMINAL_ERROR"], []),
        ("onTIMED_OUT, onCANCELED", ["TIMED_OUT", "CANCELED"], []),
        ("onCompletedWithErrors,onSuccess", ["COMPLETED_WITH_ERRORS", "COMPLETED"], []),
        ("success,onNothing,", [], ["success", "onNothing", ""]),
    ],
)
def test_a_key_is_a_list_of_changes(key: str, statuses: list[str], unknown: list[str]) -> None:
    assert statuses_of(key) == (statuses, unknown)
