"""Rows of the keep and do-better lists that a definition shows: what is accepted, refused and warned of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maestoso_server.definitions.parse import parse_task, parse_workflow

SIMPLE = {"name": "t", "taskReferenceName": "t1"}


def node(type_name: str, reference: str = "n1", **fields: Any) -> dict[str, Any]:
    return {"name": "n", "taskReferenceName": reference, "type": type_name, **fields}


def simple(reference: str) -> dict[str, Any]:
    return {"name": reference, "taskReferenceName": reference}


def join(*on: str) -> dict[str, Any]:
    return node("JOIN", "j", joinOn=list(on))


def workflow(*tasks: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"name": "w", "tasks": list(tasks) or [SIMPLE], **fields}).encode()


def faults(raw: bytes, **options: Any) -> dict[str, str]:
    return {fault.path: fault.message for fault in parse_workflow(raw, **options).faults}


def warnings(raw: bytes) -> dict[str, str]:
    parsed = parse_workflow(raw)
    assert parsed.faults == ()
    return {warning.path: warning.message for warning in parsed.warnings}


FAULTY = {"name": "", "taskReferenceName": "inner", "type": "SIMPLE"}
"""A node that is refused wherever it stands."""


@pytest.mark.covers("B22")
@pytest.mark.parametrize(
    ("around", "path"),
    [
        (node("DO_WHILE", loopCondition="false", loopOver=[FAULTY]), "tasks[0].loopOver[0].name"),
        (
            node("SWITCH", evaluatorType="value-param", expression="x", decisionCases={"a": [FAULTY]}),
            "tasks[0].decisionCases.a[0].name",
        ),
        (
            node(
                "DO_WHILE",
                loopCondition="false",
                loopOver=[
                    node(
                        "SWITCH",
                        "s",
                        evaluatorType="value-param",
                        expression="x",
                        decisionCases={"a": [SIMPLE]},
                        defaultCase=[FAULTY],
                    )
                ],
            ),
            "tasks[0].loopOver[0].defaultCase[0].name",
        ),
        (
            node("SUB_WORKFLOW", subWorkflowParam={"workflowDefinition": {"name": "c", "tasks": [FAULTY]}}),
            "tasks[0].subWorkflowParam.workflowDefinition.tasks[0].name",
        ),
    ],
)
def test_b22_the_whole_tree_is_judged(around: dict[str, Any], path: str) -> None:
    assert faults(workflow(around)) == {path: "WorkflowTask name cannot be empty or null"}


@pytest.mark.covers("B22")
def test_b22_a_fork_needs_tasks_in_each_branch_and_a_join_behind_it() -> None:
    fork = node("FORK_JOIN", forkTasks=[[simple("a")], []])
    assert set(faults(workflow(fork))) == {"tasks[0].forkTasks[1]", "tasks[0].type"}
    fork["forkTasks"].pop()
    assert faults(workflow(fork, join("a"))) == {}


@pytest.mark.covers("B22")
@pytest.mark.parametrize(
    ("on", "fault"),
    [("nobody", "no task has the reference name"), ("j", "ends only after"), ("later", "ends only after")],
)
def test_b22_a_join_waits_for_what_can_end_before_it(on: str, fault: str) -> None:
    fork = node("FORK_JOIN", forkTasks=[[simple("a")], [simple("b")]])
    raw = workflow(fork, join("a", on), simple("later"))
    (message,) = faults(raw).values()
    assert fault in message
    assert list(faults(raw)) == ["tasks[1].joinOn[1]"]
    assert faults(workflow(fork, join("a", "b"), simple("later"))) == {}


@pytest.mark.covers("B22")
def test_b22_a_join_does_not_wait_for_the_loop_that_it_is_in() -> None:
    fork = node("FORK_JOIN", "f", forkTasks=[[simple("a")], [simple("b")]])
    loop = node("DO_WHILE", "loop", loopCondition="false", loopOver=[fork, join("a", "loop")])
    assert list(faults(workflow(loop))) == ["tasks[0].loopOver[1].joinOn[1]"]
    cases = {"loopOver": [fork, join("a", "switch")]}
    switch = node("SWITCH", "switch", evaluatorType="value-param", expression="x", decisionCases=cases)
    assert faults(workflow(switch)) == {}, "a switch has ended when its case begins"


@pytest.mark.covers("B22")
def test_b22_joins_across_the_bodies_of_loops_are_warned_of() -> None:
    loop = node("DO_WHILE", "loop", loopCondition="false", loopOver=[simple("inside")])
    fork = node("FORK_JOIN", "f", forkTasks=[[loop], [simple("b")]])
    assert "waits for the loop" in warnings(workflow(fork, join("inside", "b")))["tasks[1].joinOn[0]"]
    fork = node("FORK_JOIN", "f", forkTasks=[[simple("a")], [simple("b")]])
    body = node("DO_WHILE", "loop", loopCondition="false", loopOver=[fork, join("a", "outside")])
    found = warnings(workflow(simple("outside"), body))
    assert "does not wait for it" in found["tasks[1].loopOver[1].joinOn[1]"]


@pytest.mark.covers("B22")
@pytest.mark.parametrize(
    "task",
    [
        node("SWITCH", evaluatorType="ruby", expression="x", decisionCases={"a": [SIMPLE]}),
        node("INLINE", inputParameters={"evaluatorType": "ruby", "expression": "1"}),
        node("INLINE", inputParameters={"evaluatorType": ["javascript"], "expression": "1"}),
        node("INLINE", inputParameters={"evaluatorType": None, "expression": "1"}),
    ],
)
def test_b22_an_evaluator_must_be_one_that_there_is(task: dict[str, Any]) -> None:
    (message,) = faults(workflow(task)).values()
    assert "javascript" in message and "value-param" in message, "the remedy names those that there are"


@pytest.mark.covers("B22")
def test_b22_python_is_refused_by_the_name_of_its_extra_where_it_is_missing() -> None:
    has = frozenset({"javascript", "graaljs", "value-param"})
    inline = node("INLINE", inputParameters={"evaluatorType": "python", "expression": "1"})
    switch = node("SWITCH", "s", evaluatorType="python", expression="return 1", decisionCases={"1": [SIMPLE]})
    loop = node("DO_WHILE", "l", evaluatorType="python", loopCondition="False", loopOver=[simple("b")])
    for task in (inline, switch, loop):
        (message,) = faults(workflow(task), evaluators=has).values()
        assert "maestoso[server,python]" in message
        assert faults(workflow(task)) == {}


@pytest.mark.covers("B23")
def test_b23_a_loop_over_a_list_needs_no_condition() -> None:
    assert faults(workflow(node("DO_WHILE", items="${workflow.input.l}", loopOver=[SIMPLE]))) == {}
    assert list(faults(workflow(node("DO_WHILE", loopOver=[SIMPLE])))) == ["tasks[0].loopCondition"]


@pytest.mark.covers("B23")
def test_b23_a_response_time_out_that_is_not_given_fits_into_the_time_out() -> None:
    parsed = parse_task(b'{"name": "t", "timeoutSeconds": 60}')
    assert parsed.faults == ()
    assert parsed.definition is not None
    assert parsed.definition.response_timeout_seconds == 60
    given = parse_task(b'{"name": "t", "timeoutSeconds": 60, "responseTimeoutSeconds": 61}')
    assert [fault.message for fault in given.faults] == [
        "TaskDef: t responseTimeoutSeconds: 61 must be less than timeoutSeconds: 60"
    ]


@pytest.mark.covers("B23")
def test_b23_the_status_of_a_terminate_may_be_an_expression() -> None:
    def terminate(status: Any) -> bytes:
        return workflow(node("TERMINATE", inputParameters={"terminationStatus": status}))

    assert faults(terminate("${workflow.input.status}")) == {}
    assert list(faults(terminate("DONE"))) == ["tasks[0].inputParameters.terminationStatus"]


@pytest.mark.covers("B25")
def test_b25_a_time_out_that_only_alerts_is_warned_of() -> None:
    assert "ALERT_ONLY" in warnings(workflow(timeoutSeconds=60))["timeoutSeconds"]
    assert warnings(workflow(timeoutSeconds=60, timeoutPolicy="TIME_OUT_WF")) == {}
    assert warnings(workflow(timeoutSeconds=60, timeoutPolicy="ALERT_ONLY")) == {}


@pytest.mark.covers("B28")
@pytest.mark.parametrize(
    ("reference", "word"), [("a__b", "double underscore"), ("workflow", "workflow itself")]
)
def test_b28_references_that_expressions_could_not_tell_apart_are_refused(reference: str, word: str) -> None:
    assert word in faults(workflow(simple(reference)))["tasks[0].taskReferenceName"]
    assert faults(workflow(simple("a_b"), simple("workflows"))) == {}


@pytest.mark.covers("B10")
@pytest.mark.parametrize("type_name", ["JOIN", "WAIT", "PULL_WORKFLOW_MESSAGES"])
def test_b10_async_complete_is_refused_where_the_task_would_never_end(type_name: str) -> None:
    assert "asyncComplete" in faults(workflow(node(type_name, asyncComplete=True)))["tasks[0].asyncComplete"]
    assert faults(workflow(node(type_name, asyncComplete=False))) == {}


@pytest.mark.covers("K19")
def test_k19_fields_without_effect_are_accepted_and_kept_as_they_came() -> None:
    inert = {"joinStatus": "x", "rateLimited": True, "scriptExpression": "1", "inputExpression": {"a": 1}}
    raw = workflow({**SIMPLE, **inert})
    parsed = parse_workflow(raw)
    assert parsed.faults == ()
    assert {warning.path for warning in parsed.warnings} == {f"tasks[0].{field}" for field in inert}
    assert parsed.document.raw == raw
    assert {fault.path for fault in parse_workflow(raw, strict=True).faults} >= {
        f"tasks[0].{field}" for field in inert
    }


@pytest.mark.covers("K35")
def test_k35_refusals_are_in_conductors_words() -> None:
    raw = workflow(
        node("SWITCH", "s"), {"name": "", "taskReferenceName": ""}, node("EVENT", "e"), schemaVersion=1
    )
    assert set(faults(raw).values()) >= {
        "evaluatorType field is required for taskType: SWITCH taskName: n",
        "decisionCases should have atleast one task for taskType: SWITCH taskName: n",
        "WorkflowTask name cannot be empty or null",
        "WorkflowTask taskReferenceName name cannot be empty or null",
        "sink field is required for taskType: EVENT taskName: n",
        "workflowDef schemaVersion: 2 is only supported",
    }


@pytest.mark.parametrize("field", ["name", "taskReferenceName", "type"])
@pytest.mark.parametrize(("text", "why"), [("a\0b", "U+0000"), ("x" * 256, "256 characters")])
def test_names_that_cannot_be_stored_are_refused_with_their_place(field: str, text: str, why: str) -> None:
    assert why in faults(workflow({**SIMPLE, field: text}))[f"tasks[0].{field}"]
    assert faults(workflow({**SIMPLE, field: "x" * 255})) == {}


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (workflow(name="a\0b"), "name"),
        (workflow(failureWorkflow="a\0b"), "failureWorkflow"),
        (workflow(node("SUB_WORKFLOW", subWorkflowParam={"name": "a\0b"})), "tasks[0].subWorkflowParam.name"),
    ],
)
def test_workflow_names_that_cannot_be_stored_are_refused(raw: bytes, path: str) -> None:
    assert "U+0000" in faults(raw)[path]


def test_a_lone_surrogate_is_refused_with_line_and_column() -> None:
    (fault,) = parse_workflow(b'{"name": "w",\n "tasks": [{"name": "\\ud800"}]}').faults
    assert (fault.line, fault.column) == (2, 21)
    assert "surrogate" in fault.message


def test_deep_nesting_and_huge_numbers_are_refused_with_their_place() -> None:
    deep = b'{"name": "w", "tasks": ' + b"[" * 300 + b"]" * 300 + b"}"
    (fault,) = parse_workflow(deep).faults
    assert "nested deeper" in fault.message
    (huge,) = parse_workflow(b'{"name": "w", "version": 1e999, "tasks": []}').faults
    assert "too large for a double" in huge.message
    assert list(faults(workflow(version=2**40))) == ["version"]
