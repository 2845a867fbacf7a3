"""Every fault of a document is named, with its place; what may still work is a warning."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestoso_server.definitions.models import TaskDefinition
from maestoso_server.definitions.parse import Fault, parse_task, parse_workflow

SIMPLE = {"name": "t", "taskReferenceName": "t1"}
JOIN = {"name": "j", "taskReferenceName": "j", "type": "JOIN"}


def node(type_name: str, **fields: Any) -> dict[str, Any]:
    return {"name": "n", "taskReferenceName": "n1", "type": type_name, **fields}


def workflow(*tasks: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"name": "w", "tasks": list(tasks) or [SIMPLE], **fields}).encode()


def faults(raw: bytes) -> list[tuple[str, str]]:
    return [(fault.path, fault.message) for fault in parse_workflow(raw).faults]


KEYED = {"name": "c", "idempotencyKey": "k"}


def warnings(raw: bytes) -> list[tuple[str, str]]:
    parsed = parse_workflow(raw)
    assert parsed.faults == ()
    return [(warning.path, warning.message) for warning in parsed.warnings]


def test_a_sound_document_has_no_findings_and_is_kept_as_it_is() -> None:
    raw = workflow(SIMPLE, version=2)
    parsed = parse_workflow(raw)
    assert (parsed.faults, parsed.warnings) == ((), ())
    assert parsed.definition is not None
    assert parsed.definition.version == 2
    assert parsed.document.raw == raw


def test_a_fault_has_the_place_of_the_field_or_of_what_lacks_it() -> None:
    tasks = '[\n  {"name": "", "taskReferenceName": "a"},\n  {"taskReferenceName": "b"}\n ]'
    raw = f'{{\n "name": "w",\n "tasks": {tasks}\n}}'.encode()
    assert parse_workflow(raw).faults == (
        Fault("tasks[0].name", "WorkflowTask name cannot be empty or null", 4, 4),
        Fault("tasks[1].name", "WorkflowTask name cannot be empty or null", 5, 3),
    )


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b'{"name": "w",}', Fault("", "not valid JSON: a comma before the closing bracket", 1, 14)),
        (b'{"name": 1, "name": 2}', Fault("", 'not valid JSON: duplicate key "name"', 1, 13)),
        (b"[]", Fault("", "a definition is a JSON object", 1, 1)),
        (
            b'{"name": "w", "tasks": [{"name": "t", "optional": "perhaps"}]}',
            Fault(
                "tasks[0].optional",
                "cannot be read: Input should be a valid boolean, unable to interpret input, found 'perhaps'",
                1,
                39,
            ),
        ),
        (
            b'{"tasks": [{"subWorkflowParam": {"workflowDefinition": {"version": "x"}}}]}',
            Fault(
                "tasks[0].subWorkflowParam.workflowDefinition.version",
                "cannot be read: Input should be a valid integer, unable to parse string as an integer, "
                "found 'x'",
                1,
                57,
            ),
        ),
    ],
)
def test_what_cannot_be_bound_says_where(raw: bytes, fault: Fault) -> None:
    parsed = parse_workflow(raw)
    assert parsed.faults == (fault,)
    assert parsed.definition is None


def test_a_document_beyond_its_limit_is_not_read() -> None:
    raw = workflow()
    assert parse_workflow(raw, limit=len(raw)).faults == ()
    (fault,) = parse_workflow(raw, limit=len(raw) - 1).faults
    assert "bytes" in fault.message


def test_a_byte_order_mark_is_not_part_of_the_document() -> None:
    parsed = parse_workflow(b"\xef\xbb\xbf" + workflow())
    assert parsed.faults == ()
    assert parsed.document.raw == workflow()


@pytest.mark.parametrize(
    ("raw", "path", "message"),
    [
        (
            b'{"tasks": [{"name": "t", "taskReferenceName": "r"}]}',
            "name",
            "WorkflowDef name cannot be null or empty",
        ),
        (b'{"name": "w"}', "tasks", "WorkflowTask list cannot be empty"),
        (workflow(schemaVersion=1), "schemaVersion", "workflowDef schemaVersion: 2 is only supported"),
        (
            workflow(SIMPLE, SIMPLE),
            "tasks[1].taskReferenceName",
            "taskReferenceName: t1 should be unique across tasks for a given workflowDefinition: w",
        ),
        (
            workflow({"name": "t", "taskReferenceName": ""}),
            "tasks[0].taskReferenceName",
            "WorkflowTask taskReferenceName name cannot be empty or null",
        ),
        (workflow(node("EVENT")), "tasks[0].sink", "sink field is required for taskType: EVENT taskName: n"),
        (
            workflow(node("SWITCH", expression="x", decisionCases={"a": []})),
            "tasks[0].evaluatorType",
            "evaluatorType field is required for taskType: SWITCH taskName: n",
        ),
        (
            workflow(node("SWITCH", evaluatorType="value-param", decisionCases={"a": []})),
            "tasks[0].expression",
            "expression field is required for taskType: SWITCH taskName: n",
        ),
        (
            workflow(node("SWITCH", evaluatorType="value-param", expression="x")),
            "tasks[0].decisionCases",
            "decisionCases should have atleast one task for taskType: SWITCH taskName: n",
        ),
        (
            workflow(node("DECISION", decisionCases={"a": []})),
            "tasks[0].caseValueParam",
            "caseValueParam or caseExpression field is required for taskType: DECISION taskName: n",
        ),
        (
            workflow(node("DYNAMIC")),
            "tasks[0].dynamicTaskNameParam",
            "dynamicTaskNameParam field is required for taskType: DYNAMIC taskName: n",
        ),
        (
            workflow(node("FORK_JOIN_DYNAMIC"), JOIN),
            "tasks[0].dynamicForkTasksParam",
            "dynamicForkTasksParam field is required for taskType: FORK_JOIN_DYNAMIC taskName: n",
        ),
        (
            workflow(
                node("FORK_JOIN_DYNAMIC", dynamicForkJoinTasksParam="a", dynamicForkTasksParam="b"), JOIN
            ),
            "tasks[0].dynamicForkJoinTasksParam",
            "dynamicForkJoinTasksParam or combination of dynamicForkTasksInputParamName and "
            "dynamicForkTasksParam cam be used for taskType: FORK_JOIN_DYNAMIC taskName: n",
        ),
        (
            workflow(node("FORK_JOIN"), JOIN),
            "tasks[0].forkTasks",
            "forkTasks should have atleast one task for taskType: FORK_JOIN taskName: n",
        ),
        (
            workflow(node("FORK_JOIN", forkTasks=[[SIMPLE]])),
            "tasks[0].type",
            "Fork task definition is not followed by a join task.  Check the blueprint",
        ),
        (
            workflow(node("DO_WHILE", loopOver=[SIMPLE])),
            "tasks[0].loopCondition",
            "loopCondition field is required for taskType: DO_WHILE taskName: n",
        ),
        (
            workflow(node("DO_WHILE", loopCondition="true")),
            "tasks[0].loopOver",
            "loopOver field is required for taskType: DO_WHILE taskName: n",
        ),
        (
            workflow(node("SUB_WORKFLOW")),
            "tasks[0].subWorkflowParam",
            "subWorkflowParam field is required for taskType: SUB_WORKFLOW taskName: n",
        ),
        (
            workflow(node("SUB_WORKFLOW", subWorkflowParam={**KEYED, "idempotencyStrategy": "SHARE"})),
            "tasks[0].subWorkflowParam.idempotencyStrategy",
            "idempotencyStrategy is no strategy: 'SHARE'. Use FAIL, RETURN_EXISTING, FAIL_ON_RUNNING",
        ),
        (
            workflow(node("SUB_WORKFLOW", subWorkflowParam={**KEYED, "idempotencyKey": "k" * 256})),
            "tasks[0].subWorkflowParam.idempotencyKey",
            "idempotencyKey has 256 characters; at most 255 are accepted",
        ),
        (
            workflow(
                node(
                    "START_WORKFLOW",
                    inputParameters={"startWorkflow": {**KEYED, "idempotencyStrategy": "fail"}},
                )
            ),
            "tasks[0].inputParameters.startWorkflow.idempotencyStrategy",
            "idempotencyStrategy is no strategy: 'fail'. Use FAIL, RETURN_EXISTING, FAIL_ON_RUNNING",
        ),
        (
            workflow(node("JSON_JQ_TRANSFORM")),
            "tasks[0].inputParameters.queryExpression",
            "inputParameters.queryExpression field is required for taskType: JSON_JQ_TRANSFORM taskName: n",
        ),
        (
            workflow(node("TERMINATE", optional=True, inputParameters={"terminationStatus": "FAILED"})),
            "tasks[0].optional",
            "terminate task cannot be optional, taskName: n",
        ),
        (
            workflow(node("TERMINATE", inputParameters={"terminationStatus": "DONE"})),
            "tasks[0].inputParameters.terminationStatus",
            "terminate task must have an terminationStatus parameter and must be set to COMPLETED or FAILED, "
            "taskName: n",
        ),
        (
            workflow(node("WAIT", inputParameters={"duration": "1s", "until": "2024-01-01"})),
            "tasks[0].inputParameters",
            "Both 'duration' and 'until' specified. Please provide only one input",
        ),
        (
            workflow({**SIMPLE, "inputParameters": {"k": "${nowhere.output.x}"}}),
            "tasks[0].inputParameters.k",
            "taskReferenceName: nowhere for given task: t input value: k of input parameter: "
            "nowhere.output.x is not defined in workflow definition.",
        ),
        (
            workflow({**SIMPLE, "inputParameters": {"a": [{"k": "x ${workflow.input.l[${nowhere.x}]}"}]}}),
            "tasks[0].inputParameters.a[0].k",
            "taskReferenceName: nowhere for given task: t input value: k of input parameter: nowhere.x "
            "is not defined in workflow definition.",
        ),
        (
            workflow({"name": "t", "taskReferenceName": "workflow"}),
            "tasks[0].taskReferenceName",
            "workflow is what expressions call the workflow itself; choose another name",
        ),
        (
            workflow({"name": "t", "taskReferenceName": "a__b"}),
            "tasks[0].taskReferenceName",
            "a__b has a double underscore, which marks the turns of loops",
        ),
        (
            workflow(node("FORK_JOIN", forkTasks=[[SIMPLE]]), {**JOIN, "joinOn": ["t1", "t9"]}),
            "tasks[1].joinOn[1]",
            "no task has the reference name t9, so the join would wait for ever",
        ),
        (
            workflow(node("FORK_JOIN", forkTasks=[[SIMPLE], []]), JOIN),
            "tasks[0].forkTasks[1]",
            "branch 1 of n1 has no task",
        ),
        (
            workflow(node("WAIT", asyncComplete=True)),
            "tasks[0].asyncComplete",
            "WAIT would never end with asyncComplete; leave it out",
        ),
        (
            workflow(failureWorkflow="$workflow.name"),
            "failureWorkflow",
            "$workflow.name has too few parts: write $workflow.input.KEY",
        ),
    ],
)
def test_a_document_that_cannot_work_is_refused(raw: bytes, path: str, message: str) -> None:
    assert (path, message) in faults(raw)


@pytest.mark.parametrize(
    ("raw", "start"),
    [
        (
            workflow({**SIMPLE, "inputParameters": {"k": "${workflow.input.a b}"}}),
            "key: k input parameter value: workflow.input.a b is not valid",
        ),
        (workflow(node("WAIT", inputParameters={"until": "soon"})), "Unable to parse date "),
        (
            workflow(node("WAIT", inputParameters={"duration": "30m 2h"})),
            "Either date or duration is passed as null ",
        ),
        (
            workflow(node("SWITCH", evaluatorType="cobol", expression="x", decisionCases={"a": []})),
            "No evaluator registered for type: cobol",
        ),
        (
            workflow(node("INLINE", inputParameters={"evaluatorType": "ruby", "expression": "1"})),
            "Unknown evaluator 'ruby' in INLINE task.",
        ),
    ],
)
def test_a_refusal_begins_with_conductors_words(raw: bytes, start: str) -> None:
    ((_, message),) = faults(raw)
    assert message.startswith(start)


@pytest.mark.parametrize(
    "raw",
    [
        workflow(node("DO_WHILE", items="${workflow.input.l}", loopOver=[SIMPLE])),
        workflow(node("DO_WHILE", inputParameters={"_items": [1]}, loopOver=[SIMPLE])),
        workflow(node("TERMINATE", inputParameters={"terminationStatus": "${workflow.input.s}"})),
        workflow(node("TERMINATE", inputParameters={"terminationStatus": "TERMINATED"})),
        workflow(node("WAIT", inputParameters={"until": "2024-01-01T10:00:00Z"})),
        workflow(node("WAIT", inputParameters={"duration": "${workflow.input.d}"})),
        workflow(node("WAIT")),
        workflow(node("FORK_JOIN_DYNAMIC", inputParameters={"forkTaskInputs": "${workflow.input.l}"}), JOIN),
        workflow(node("HTTP", inputParameters={"uri": "u"})),
        workflow(node("SUB_WORKFLOW", subWorkflowParam={"name": "c"})),
        workflow(
            {**SIMPLE, "inputParameters": {"a": "${t2.output.x}"}}, {"name": "t", "taskReferenceName": "t2"}
        ),
        workflow({**SIMPLE, "inputParameters": {"a": "${}", "b": "$${nowhere.x}", "c": "${CPEWF_TASK_ID}"}}),
        workflow({**SIMPLE, "inputParameters": {"a": "${workflow.env.A} ${workflow.secrets.B.c}"}}),
        workflow(failureWorkflow="$workflow.input.name"),
        workflow({"name": "t", "taskReferenceName": "t1", "type": "MY_OWN_TYPE"}),
    ],
)
def test_a_document_that_can_work_is_accepted_without_a_word(raw: bytes) -> None:
    assert warnings(raw) == []


@pytest.mark.parametrize("strategy", ["FAIL", "RETURN_EXISTING", "FAIL_ON_RUNNING", "${workflow.input.how}"])
def test_keys_of_children_have_their_effect(strategy: str) -> None:
    keyed = {**KEYED, "idempotencyStrategy": strategy}
    nodes = (
        node("SUB_WORKFLOW", subWorkflowParam=keyed),
        node("START_WORKFLOW", taskReferenceName="s", inputParameters={"startWorkflow": keyed}),
    )
    parsed = parse_workflow(workflow(*nodes))
    assert (parsed.faults, parsed.warnings) == ((), ())


def test_a_strategy_without_a_key_is_warned_of() -> None:
    lone = node("SUB_WORKFLOW", subWorkflowParam={"name": "c", "idempotencyStrategy": "FAIL"})
    place = "tasks[0].subWorkflowParam.idempotencyStrategy"
    assert warnings(workflow(lone)) == [(place, "without an idempotencyKey it has no effect")]


@pytest.mark.parametrize(
    ("raw", "path", "part"),
    [
        (workflow(timeoutSeconds=5), "timeoutSeconds", "only alerts"),
        (workflow(failureWorkflow="${workflow.input.f}"), "failureWorkflow", "write $workflow.input.KEY"),
        (workflow(colour="red"), "colour", "unknown field, ignored"),
        (workflow(timeout_seconds=5), "timeout_seconds", "did you mean timeoutSeconds?"),
        (
            workflow({**SIMPLE, "retryLogic": "FIXED"}),
            "tasks[0].retryLogic",
            "belongs into the task definition",
        ),
        (workflow({**SIMPLE, "joinOn": ["a"]}), "tasks[0].joinOn", "SIMPLE does not read it"),
        (workflow({**SIMPLE, "rateLimited": True}), "tasks[0].rateLimited", "nothing acts on this field"),
        (
            workflow({**SIMPLE, "onStateChange": {"onSCHEDULED": [{"type": "x", "y": 1}]}}),
            "tasks[0].onStateChange.onSCHEDULED[0].y",
            "unknown field",
        ),
        (
            workflow({**SIMPLE, "taskDefinition": {"name": "t", "retryCount": -1, "x": 1}}),
            "tasks[0].taskDefinition.retryCount",
            "must be >= 0",
        ),
        (
            workflow({**SIMPLE, "inputParameters": {"a": "${workflow.owner}"}}),
            "tasks[0].inputParameters.a",
            "always null",
        ),
        (workflow(outputParameters={"a": "${nowhere.output.x}"}), "outputParameters.a", "is not defined"),
        (
            workflow(node("DO_WHILE", loopCondition="false", loopOver=[node("HTTP", taskReferenceName="h")])),
            "tasks[0].loopOver[0].inputParameters.http_request",
            "field is required",
        ),
        (
            workflow(
                node(
                    "SWITCH",
                    evaluatorType="value-param",
                    expression="x",
                    decisionCases={"a": [{**SIMPLE, "inputParameters": {"k": "${nowhere.x}"}}]},
                )
            ),
            "tasks[0].decisionCases.a[0].inputParameters.k",
            "is not defined",
        ),
        (
            workflow(
                node("SUB_WORKFLOW", subWorkflowParam={"workflowDefinition": {"name": "c", "tasks": []}})
            ),
            "tasks[0].subWorkflowParam.workflowDefinition.tasks",
            "cannot be empty",
        ),
        (workflow(node("HTTP_POLL")), "tasks[0].type", "waits for a worker"),
        (workflow(node("Http")), "tasks[0].type", "the built-in type is HTTP"),
        (workflow(node("WAIT", startDelay=5)), "tasks[0].startDelay", "starts at once"),
        (workflow(node("INLINE")), "tasks[0].inputParameters.expression", "always fails"),
    ],
)
def test_what_may_still_work_is_warned_of_and_strict_refuses_it(raw: bytes, path: str, part: str) -> None:
    found = [message for at, message in warnings(raw) if at == path]
    assert any(part in message for message in found)
    strict = parse_workflow(raw, strict=True)
    assert strict.warnings == ()
    assert any(part in fault.message for fault in strict.faults)


def test_loop_bodies_and_inline_children_are_judged_where_conductor_does_not_look() -> None:
    broken = {"name": "e", "taskReferenceName": "e1", "type": "EVENT"}
    loop = node("DO_WHILE", loopCondition="false", loopOver=[broken])
    child = node("SUB_WORKFLOW", subWorkflowParam={"workflowDefinition": {"name": "c", "tasks": [broken]}})
    message = "sink field is required for taskType: EVENT taskName: e"
    assert faults(workflow(loop)) == [("tasks[0].loopOver[0].sink", message)]
    assert faults(workflow(child)) == [
        ("tasks[0].subWorkflowParam.workflowDefinition.tasks[0].sink", message)
    ]


def test_an_inline_child_has_names_of_its_own() -> None:
    inner = {**SIMPLE, "inputParameters": {"a": "${t1.output.x}"}}
    child = node("SUB_WORKFLOW", subWorkflowParam={"workflowDefinition": {"name": "c", "tasks": [inner]}})
    assert warnings(workflow(SIMPLE, child)) == []
    outside = {"name": "t", "taskReferenceName": "t1", "inputParameters": {"a": "${n1.output.x}"}}
    child["subWorkflowParam"]["workflowDefinition"]["tasks"] = [outside]
    assert ["is not defined" in message for _, message in warnings(workflow(child))] == [True]


def test_a_registered_template_counts_as_input() -> None:
    raw = workflow(node("HTTP"))
    registered = TaskDefinition.model_validate({"name": "n", "inputTemplate": {"http_request": {"uri": "u"}}})
    assert parse_workflow(raw).faults
    assert parse_workflow(raw, task_definitions={"n": registered}).faults == ()


def test_scripts_are_judged_by_who_knows_their_language() -> None:
    switch = node("SWITCH", evaluatorType="javascript", expression="if (", decisionCases={"a": []})
    inline = node("INLINE", taskReferenceName="i", inputParameters={"expression": "x y"})
    resolved_later = node(
        "INLINE", taskReferenceName="l", inputParameters={"expression": "${workflow.input.s}"}
    )
    raw = workflow(switch, inline, resolved_later)

    def check(language: str, text: str) -> str | None:
        return f"{language} cannot read {text}"

    parsed = parse_workflow(raw, check_script=check)
    assert [(fault.path, fault.message) for fault in parsed.faults] == [
        (
            "tasks[0].expression",
            "Expression is not well formatted: javascript cannot read if (, taskType: SWITCH taskName n",
        )
    ]
    assert [warning.path for warning in parsed.warnings] == ["tasks[1].inputParameters.expression"]
    open_question = parse_workflow(raw)
    assert [script.text for script in open_question.scripts] == ["if (", "x y"]
    assert open_question.with_script_errors(["bad", None]).faults[0].path == "tasks[0].expression"
    assert open_question.with_script_errors([None, None]).faults == ()
    assert len(parse_workflow(raw, strict=True, check_script=check).faults) == 2


def test_a_document_nested_to_the_limit_is_judged() -> None:
    inner: dict[str, Any] = {**SIMPLE}
    for level in range(60):
        inner = node("DO_WHILE", taskReferenceName=f"l{level}", loopCondition="false", loopOver=[inner])
    assert warnings(workflow(inner)) == []


def task(**fields: Any) -> bytes:
    return json.dumps({"name": "t", **fields}).encode()


@pytest.mark.parametrize(
    ("raw", "path", "message"),
    [
        (b"{}", "name", "TaskDef name cannot be null or empty"),
        (task(retryCount=-1), "retryCount", "TaskDef retryCount: 0 must be >= 0"),
        (task(pollTimeoutSeconds=-1), "pollTimeoutSeconds", "TaskDef pollTimeoutSeconds: 0 must be >= 0"),
        (
            task(responseTimeoutSeconds=0),
            "responseTimeoutSeconds",
            "TaskDef responseTimeoutSeconds: 0 should be minimum 1 second",
        ),
        (
            task(backoffScaleFactor=0),
            "backoffScaleFactor",
            "Backoff scale factor. Applicable for LINEAR_BACKOFF",
        ),
        (
            task(timeoutSeconds=60, responseTimeoutSeconds=61),
            "responseTimeoutSeconds",
            "TaskDef: t responseTimeoutSeconds: 61 must be less than timeoutSeconds: 60",
        ),
        (
            task(timeoutSeconds=60, totalTimeoutSeconds=50),
            "timeoutSeconds",
            "TaskDef: t timeoutSeconds: 60 must be less than or equal to totalTimeoutSeconds: 50",
        ),
    ],
)
def test_a_task_definition_is_refused_in_conductors_words(raw: bytes, path: str, message: str) -> None:
    assert [(fault.path, fault.message) for fault in parse_task(raw).faults] == [(path, message)]


@pytest.mark.parametrize(
    "raw",
    [
        task(),
        task(timeoutSeconds=60),
        task(timeoutSeconds=60, responseTimeoutSeconds=60, totalTimeoutSeconds=60),
        task(retryCount=0, concurrentExecLimit=5, retryLogic="LINEAR_BACKOFF"),
    ],
)
def test_a_sound_task_definition_is_accepted(raw: bytes) -> None:
    parsed = parse_task(raw)
    assert (parsed.faults, parsed.warnings) == ((), ())


def test_a_task_definition_names_what_has_no_effect() -> None:
    raw = task(isolationgroupId="x", retryDelaySeconds=-1)
    found = {warning.path: warning.message for warning in parse_task(raw).warnings}
    assert "did you mean isolationGroupId?" in found["isolationgroupId"]
    assert "retryDelaySeconds" in found
    (fault,) = parse_task(task(retryLogic="SOMETIMES")).faults
    assert fault.path == "retryLogic"
    assert "EXPONENTIAL_BACKOFF" in fault.message


_NAMES = st.sampled_from(
    [
        "name",
        "tasks",
        "type",
        "taskReferenceName",
        "inputParameters",
        "decisionCases",
        "forkTasks",
        "loopOver",
        "subWorkflowParam",
        "workflowDefinition",
        "taskDefinition",
        "joinOn",
        "expression",
        "version",
        "retryCount",
    ]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["SWITCH", "DO_WHILE", "FORK_JOIN", "SUB_WORKFLOW", "WAIT", "${a.b", "${x[${y}]}", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=6))
def test_any_document_gets_a_verdict(document: dict[str, Any]) -> None:
    raw = json.dumps(document).encode()
    for parsed in (parse_workflow(raw), parse_task(raw)):
        assert parsed.definition is not None or parsed.faults
        assert all(fault.line > 0 for fault in parsed.faults)
