"""Simple workflows and their configuration (A and B of the behaviour catalogue)."""

from __future__ import annotations

import pytest

from engine.harness import World, flow, fork, inline, join, simple, task
from maestoso_server.definitions.models import WorkflowDefinition
from maestoso_server.engine.plan import compile
from maestoso_server.engine.state import TaskStatus


@pytest.mark.covers("A.1")
def test_two_tasks_in_a_row_hand_their_values_on() -> None:
    reads = {"tp1": "${workflow.input.p}", "tp2": "${t1.output.op}"}
    world = World(flow(simple("t1"), simple("t2", reads), outputParameters={"o3": "${t2.output.o}"}))
    run = world.start("flow", {"p": 1})
    assert world.shown(run) == ["t1:SCHEDULED"]

    world.result(run, "t1", {"op": "two"})
    assert world.shown(run) == ["t1:COMPLETED", "t2:SCHEDULED"]
    assert world.row(run, "t2").input.value == {"tp1": 1, "tp2": "two"}

    world.result(run, "t2", {"o": 3})
    assert world.status(run) == "COMPLETED"
    assert world.output(run) == {"o3": 3}


@pytest.mark.covers("A.2")
def test_nulls_stay_in_inputs_and_outputs() -> None:
    world = World(flow(simple("t1", {"none": None, "given": "${workflow.input.n}"})))
    run = world.start("flow", {"n": None})
    world.result(run, "t1", {"a": None, "b": {"c": None}})

    assert world.row(run, "t1").input.value == {"none": None, "given": None}
    assert world.output(run, "t1") == {"a": None, "b": {"c": None}}


@pytest.mark.covers("B.14")
def test_a_workflow_without_tasks_is_complete_at_once() -> None:
    world = World(flow())
    run = world.start("flow")

    assert world.status(run) == "COMPLETED"
    assert world.rows(run) == []


@pytest.mark.covers("B.15")
def test_a_task_definitions_template_is_resolved_with_environment_and_input() -> None:
    template = {"nested": {"env": "${workflow.env.REGION}", "in": "${workflow.input.p}"}, "own": "default"}
    definition = {"name": "t1", "inputTemplate": template}
    world = World(flow(simple("t1", {"own": "mine"}, taskDefinition=definition)))
    run = world.start("flow", {"p": 7})
    assert world.row(run, "t1").input.value == {"own": "mine", "nested": {"env": None, "in": 7}}

    plan = compile(WorkflowDefinition.model_validate(world.documents["flow"]), {"REGION": "eu"})
    assert plan.environment == {"REGION": "eu"}


@pytest.mark.covers("B.16", "K10")
def test_k10_an_unregistered_task_runs_under_the_defaults() -> None:
    document = flow({"name": "unknown", "taskReferenceName": "t1", "type": "SIMPLE", "inputParameters": {}})
    world = World(document)
    run = world.start("flow")
    row = world.row(run, "t1")
    assert (row.name, row.type, row.status) == ("unknown", "unknown", TaskStatus.SCHEDULED)

    for attempt in range(3):
        world.result(run, "t1", status=TaskStatus.FAILED)
        row = world.row(run, "t1")
        assert (row.attempt, row.callback_after_s) == (attempt + 1, 60)
    world.result(run, "t1", status=TaskStatus.FAILED)
    assert world.status(run) == "FAILED"

    other = World(flow(task("custom_type", "u")))
    started = other.start("flow")
    other.result(started, "u", status=TaskStatus.FAILED)
    assert other.shown(started) == ["u:FAILED"]


@pytest.mark.covers("G.variable.1", "K27")
def test_k27_variables_are_set_key_by_key_and_read_by_the_output() -> None:
    world = World(
        flow(
            task("SET_VARIABLE", "v1", {"var": {"a": 1, "b": 2}, "other": "x"}),
            task("SET_VARIABLE", "v2", {"var": {"a": 3}, "gone": None}),
            variables={"first": True},
            outputParameters={"all": "${workflow.variables}"},
        )
    )
    run = world.start("flow")

    assert world.status(run) == "COMPLETED"
    assert world.output(run) == {"all": {"first": True, "var": {"a": 3}, "other": "x", "gone": None}}
    assert world.output(run, "v1") == {}


@pytest.mark.covers("G.variable.2", "K27")
def test_k27_variables_above_the_limit_fail_the_task_and_change_nothing() -> None:
    world = World(flow(task("SET_VARIABLE", "v", {"big": "${workflow.input.big}"})))
    run = world.start("flow", {"big": "x" * 300_000})

    row = world.row(run, "v")
    assert row.status is TaskStatus.FAILED_WITH_TERMINAL_ERROR
    assert "256 kilobytes" in (row.reason or "")
    assert world.header(run).variables.value == {}
    assert world.status(run) == "FAILED"


@pytest.mark.covers("G.wait.1")
def test_a_wait_after_large_data_is_ended_by_an_update() -> None:
    world = World(
        flow(
            simple("t1"),
            task("SET_VARIABLE", "v", {"data": "${t1.output.data}"}),
            task("WAIT", "w"),
            outputParameters={"data": "${workflow.variables.data}", "told": "${w.output.told}"},
        )
    )
    run = world.start("flow")
    world.result(run, "t1", {"data": "x" * 100_000})
    assert world.shown(run) == ["t1:COMPLETED", "v:COMPLETED", "w:IN_PROGRESS"]

    world.result(run, "w", {"told": 1})
    assert world.status(run) == "COMPLETED"
    assert world.output(run) == {"data": "x" * 100_000, "told": 1}


@pytest.mark.covers("G.wait.2")
def test_a_wait_at_the_start_lets_the_next_task_follow() -> None:
    world = World(flow(task("WAIT", "w"), simple("t1")))
    run = world.start("flow")
    assert world.shown(run) == ["w:IN_PROGRESS"]

    world.result(run, "w")
    assert world.shown(run) == ["w:COMPLETED", "t1:SCHEDULED"]


@pytest.mark.covers("G.system.1", "B9")
def test_b9_an_async_complete_system_task_is_done_once_and_waits_for_its_update() -> None:
    world = World(flow(task("EVENT", "e", {"k": 1}, sink="conductor:told", asyncComplete=True), simple("t1")))
    run = world.start("flow")
    assert world.shown(run) == ["e:IN_PROGRESS"]
    assert [event.queue for _, event in world.published] == ["conductor:flow:told"]

    world.advance(3600)
    assert world.shown(run) == ["e:IN_PROGRESS"]
    assert len(world.published) == 1

    world.result(run, "e", {"done": True})
    assert world.shown(run) == ["e:COMPLETED", "t1:SCHEDULED"]


@pytest.mark.covers("G.start_workflow.1", "K34")
def test_k34_another_workflow_is_started_and_not_waited_for() -> None:
    request = {"name": "other", "input": {"k": "${workflow.input.k}"}}
    world = World(
        flow(task("START_WORKFLOW", "s", {"startWorkflow": request})),
        flow(simple("inner", {"k": "${workflow.input.k}"}), name="other"),
    )
    run = world.start("flow", {"k": 7}, correlation_id="c-1")

    started = world.output(run, "s")["workflowId"]
    assert world.status(run) == "COMPLETED"
    assert world.status(started) == "RUNNING"
    assert world.row(started, "inner").input.value == {"k": 7}
    header = world.header(started)
    assert (header.correlation_id, header.parent_id) == ("c-1", None)


@pytest.mark.covers("G.start_workflow.2")
@pytest.mark.parametrize("request_", [None, "text", {"version": 1}])
def test_a_start_request_that_is_none_fails_the_task_with_a_reason(request_: object) -> None:
    inputs = {} if request_ is None else {"startWorkflow": request_}
    world = World(flow(task("START_WORKFLOW", "s", inputs)))
    run = world.start("flow")

    row = world.row(run, "s")
    assert row.status is TaskStatus.FAILED_WITH_TERMINAL_ERROR
    assert row.reason and "tartWorkflow" in row.reason
    assert world.status(run) == "FAILED"


@pytest.mark.covers("M.10", "K25")
def test_k25_the_id_of_a_child_follows_from_its_parent() -> None:
    child = flow(simple("inner"), name="child")
    parent = flow(task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"}))
    first, second = World(parent, child), World(parent, child)
    one, two = first.start("flow"), second.start("flow")

    assert first.children(one) == second.children(two)
    first.result(first.children(one)[0], "inner", {"subWorkflowId": "mine", "x": 1})
    assert first.output(one, "sub") == {"subWorkflowId": "mine", "x": 1}


@pytest.mark.covers("M.7", "K9")
def test_k9_data_that_looks_like_an_expression_stays_data() -> None:
    world = World(flow(simple("t1", {"sole": "${workflow.input.a}", "text": "<${workflow.input.a}>"})))
    run = world.start("flow", {"a": "${workflow.input.b}", "b": "secret"})

    assert world.row(run, "t1").input.value == {
        "sole": "${workflow.input.b}",
        "text": "<${workflow.input.b}>",
    }


@pytest.mark.covers("M.9", "K16")
@pytest.mark.parametrize(
    ("status", "ended"),
    [
        (TaskStatus.FAILED, "FAILED"),
        (TaskStatus.FAILED_WITH_TERMINAL_ERROR, "FAILED"),
        (TaskStatus.CANCELED, "TERMINATED"),
    ],
)
def test_k16_the_reason_names_task_status_and_reason(status: TaskStatus, ended: str) -> None:
    world = World(flow(simple("t1")))
    run = world.start("flow")
    world.result(run, "t1", status=status, reason="no luck")

    header = world.header(run)
    task_id = f"{run[:-6]}{world.row(run, 't1').seq:06x}"
    assert header.status.name == ended
    assert header.reason == f"Task {task_id} failed with status: {ended} and reason: 'no luck'"


@pytest.mark.covers("A.5")
def test_a_plan_of_a_document_without_schema_version_is_that_of_version_2() -> None:
    document = flow(simple("t1"))
    del document["schemaVersion"]
    assert WorkflowDefinition.model_validate(document).schema_version == 2
    assert WorkflowDefinition.model_validate(flow(simple("t1"))).schema_version == 2


@pytest.mark.covers("C.terminate.5")
def test_a_lambda_alone_completes_the_workflow_with_its_result() -> None:
    script = "if ($.a == 1) { return {testvalue: true} } else { return {testvalue: false} }"
    world = World(flow(task("LAMBDA", "l", {"a": "${workflow.input.a}", "scriptExpression": script})))
    run = world.start("flow", {"a": 1})

    assert world.status(run) == "COMPLETED"
    assert world.output(run) == {"result": {"testvalue": True}}


@pytest.mark.covers("K30")
def test_k30_an_inline_error_is_final_and_stands_in_the_output() -> None:
    world = World(flow(inline("i", "nothing.here")))
    run = world.start("flow")

    row = world.row(run, "i")
    assert row.status is TaskStatus.FAILED_WITH_TERMINAL_ERROR
    assert world.output(run, "i") == {"error": row.reason}


@pytest.mark.covers("B.4")
def test_the_workflows_template_fills_what_the_caller_leaves_out() -> None:
    template = {"text": "t", "list": [1, 2], "deep": {"a": {"b": 1}}, "given": "default"}
    world = World(flow(simple("t1"), inputTemplate=template, outputParameters={"all": "${workflow.input}"}))
    run = world.start("flow", {"given": "mine", "more": 1, "list": None})
    world.result(run, "t1")

    assert world.output(run) == {
        "all": {"given": "mine", "more": 1, "list": [1, 2], "text": "t", "deep": {"a": {"b": 1}}}
    }


@pytest.mark.covers("M.1")
def test_no_workflow_is_complete_while_a_required_task_is_open() -> None:
    branches = fork("f", [simple("a", optional=True)], [simple("b", permissive=True)], [simple("c")])
    world = World(flow(branches, join("j", "a")))
    run = world.start("flow")
    for reference in ("a", "b", "c"):
        assert world.status(run) == "RUNNING"
        world.result(run, reference)
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("E.async.2", "E.duplicate.1")
def test_a_parent_that_is_looked_at_again_and_again_starts_one_child_once() -> None:
    """There is no sweep: whatever else happens to the parent, the child's start was one message."""
    child = flow(simple("c1"), name="child")
    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})
    world = World(flow(fork("f", [sub], [task("WAIT", "w")]), join("j", "sub", "w")), child)
    run = world.start("flow")
    for _ in range(5):
        world.happen(run, world.due(run, world.row(run, "sub").seq))
        world.result(run, "w", {"seen": True}, TaskStatus.IN_PROGRESS)

    assert len(world.children(run)) == 1
    assert [row.reference for row in world.rows(run)].count("sub") == 1
    assert world.shown(world.children(run)[0]) == ["c1:SCHEDULED"]
    assert not world.row(run, "sub").queued
