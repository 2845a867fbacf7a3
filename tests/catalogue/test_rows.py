"""Rows of the lists "keep" (K) and "do better" (B) that have no other test, each named after its row."""

from __future__ import annotations

from typing import Any

import pytest

from engine.harness import World, flow, fork, inline, join, loop, simple, switch, task
from maestoso_server.definitions.parse import parse_workflow
from maestoso_server.engine.state import TaskStatus
from maestoso_server.payload import encode

FAILED = TaskStatus.FAILED


@pytest.mark.covers("K8")
def test_k8_the_status_in_a_successful_output_reads_running() -> None:
    world = World(flow(simple("t1"), outputParameters={"status": "${workflow.status}"}))
    done, failed = world.start("flow"), world.start("flow")
    world.result(done, "t1")
    world.result(failed, "t1", status=FAILED)

    assert world.output(done) == {"status": "RUNNING"}
    assert world.output(failed) == {"status": "FAILED"}


@pytest.mark.covers("K5")
def test_k5_a_reference_means_the_newest_attempt_and_turn() -> None:
    body = [simple("a", retryCount=1, taskDefinition={"name": "a", "retryDelaySeconds": 0})]
    world = World(flow(loop("w", body, 2), simple("after", {"a": "${a.output.v}", "n": "${a.retryCount}"})))
    run = world.start("flow")
    world.result(run, "a__1", {"v": 1})
    world.result(run, "a__2", {"v": 2}, FAILED)
    world.result(run, "a__2", {"v": 3})

    assert world.row(run, "after").input.value == {"a": 3, "n": 1}


@pytest.mark.covers("K7")
@pytest.mark.parametrize(
    ("more", "output"), [({}, {"last": True}), ({"outputParameters": {"o": "${t1.output.x}"}}, {"o": 1})]
)
def test_k7_output_parameters_go_before_the_last_rows_output(more: dict[str, Any], output: Any) -> None:
    world = World(flow(simple("t1"), simple("t2"), **more))
    run = world.start("flow")
    world.result(run, "t1", {"x": 1})
    world.result(run, "t2", {"last": True})
    assert world.output(run) == output


@pytest.mark.covers("K11")
def test_k11_the_queue_is_the_name_and_a_simple_called_like_a_system_task_is_that_task() -> None:
    world = World(
        flow(
            {**simple("v", {"x": 1}), "name": "SET_VARIABLE"},
            {**simple("t1"), "name": "charge_card"},
        )
    )
    run = world.start("flow")
    assert world.header(run).variables.value == {"x": 1}
    assert [row.type for row in world.open_worker_rows(run)] == ["charge_card"]


@pytest.mark.covers("K12")
def test_k12_an_unknown_type_is_work_for_its_own_queue() -> None:
    world = World(flow({**task("SEND_FAX", "t1"), "name": "fax"}))
    run = world.start("flow")
    row = world.row(run, "t1")
    assert (row.type, row.name, row.status, row.queued) == ("SEND_FAX", "fax", TaskStatus.SCHEDULED, True)


@pytest.mark.covers("K13")
@pytest.mark.parametrize(("given", "attempts"), [(None, 2), (-1, 2), (0, 1)])
def test_k13_no_retry_count_is_not_zero(given: int | None, attempts: int) -> None:
    document = simple("t1", taskDefinition={"name": "t1", "retryCount": 1, "retryDelaySeconds": 0})
    document["retryCount"] = given
    world = World(flow(document))
    run = world.start("flow")
    while world.status(run) == "RUNNING":
        world.result(run, "t1", status=FAILED)
    assert len(world.rows(run)) == attempts


@pytest.mark.covers("K14")
def test_k14_a_run_keeps_the_definition_it_began_with() -> None:
    world = World(flow(simple("t1"), simple("t2")))
    run = world.start("flow")
    world.documents["flow"] = flow(simple("t1"), simple("other"))
    world.result(run, "t1")
    assert world.shown(run)[-1] == "t2:SCHEDULED"
    later = world.start("flow")
    world.result(later, "t1")
    assert world.shown(later)[-1] == "other:SCHEDULED"


@pytest.mark.covers("K18", "M.4")
def test_k18_a_late_result_changes_nothing_and_is_no_error() -> None:
    world = World(flow(simple("t1"), simple("t2")))
    run = world.start("flow")
    seq = world.row(run, "t1").seq
    world.report(run, seq, {"v": 1})
    before = world.shown(run), world.output(run, "t1")
    outcome = world.report(run, seq, {"v": 2}, FAILED)
    assert outcome.verdict.name == "STALE"
    assert (world.shown(run), world.output(run, "t1")) == before


@pytest.mark.covers("K32")
def test_k32_a_dynamic_task_is_named_by_a_key_of_its_input() -> None:
    dynamic = task("DYNAMIC", "d", {"which": "${workflow.input.w}"}, dynamicTaskNameParam="which")
    world = World(flow(dynamic))
    run = world.start("flow", {"w": "pay"})
    row = world.row(run, "d")
    assert (row.type, row.name, row.status) == ("pay", "pay", TaskStatus.SCHEDULED)

    lost = world.start("flow")
    assert world.status(lost) == "FAILED"
    assert "Parameter= which" in (world.row(lost, "d").reason or "")


@pytest.mark.covers("K20")
def test_k20_a_decision_falls_back_to_its_default_for_an_empty_case() -> None:
    node = task(
        "DECISION",
        "d",
        {"v": "${workflow.input.v}"},
        caseValueParam="v",
        decisionCases={"none": []},
        defaultCase=[simple("dflt")],
    )
    world = World(flow(node))
    run = world.start("flow", {"v": "none"})
    assert world.shown(run) == ["d:COMPLETED", "dflt:SCHEDULED"]
    assert world.output(run, "d") == {"caseOutput": ["none"]}


# --- better --------------------------------------------------------------------------------------

_BROKEN: dict[str, dict[str, Any]] = {
    "wait": task("WAIT", "x", {"duration": "${workflow.input.text}"}),
    "keepLastN": loop("x", [task("NOOP", "n")], 2, inputParameters={"keepLastN": "${workflow.input.text}"}),
    "expression": inline("x", "1", {"expression": 5}),
    "sub-workflow": task("SUB_WORKFLOW", "x", subWorkflowParam={"name": "${workflow.input.nothing}"}),
    "script": switch("x", "a", {"a": []}) | {"evaluatorType": "javascript", "expression": "no.thing"},
}


@pytest.mark.covers("B1")
@pytest.mark.parametrize("broken", _BROKEN)
@pytest.mark.parametrize("flag", [None, "optional"])
def test_b1_a_node_that_cannot_be_evaluated_fails_by_itself(broken: str, flag: str | None) -> None:
    node = {**_BROKEN[broken], **({flag: True} if flag else {})}
    world = World(flow(node, simple("after")))
    run = world.start("flow", {"text": "soon"})
    row = world.row(run, "x")
    assert row.reason
    if flag:
        assert row.status is TaskStatus.COMPLETED_WITH_ERRORS
        assert world.shown(run)[-1] == "after:SCHEDULED"
    else:
        assert row.status in (FAILED, TaskStatus.FAILED_WITH_TERMINAL_ERROR)
        assert world.status(run) == "FAILED"


@pytest.mark.covers("B1")
@pytest.mark.parametrize("elements", [[None], [None, {"a": 1}]])
def test_b1_a_null_among_the_inputs_of_a_fork_is_an_input(elements: list[Any]) -> None:
    world = World(
        flow(task("FORK_JOIN_DYNAMIC", "d", {"forkTaskName": "t", "forkTaskInputs": elements}), join("j"))
    )
    run = world.start("flow")
    assert world.row(run, "_t_0").input.value == {"input": None, "__index": 0}
    assert world.status(run) == "RUNNING"


@pytest.mark.covers("B1")
@pytest.mark.parametrize("version", [2, "2"])
def test_b1_the_version_of_forked_children_may_be_a_number(version: Any) -> None:
    inputs = {"forkTaskWorkflow": "child", "forkTaskWorkflowVersion": version, "forkTaskInputs": [{}]}
    world = World(
        flow(task("FORK_JOIN_DYNAMIC", "d", inputs), join("j")),
        {**flow(simple("c1"), name="child"), "version": 2},
    )
    run = world.start("flow")
    (child,) = world.children(run)
    assert world.header(child).version == 2


@pytest.mark.covers("B2")
def test_b2_a_join_on_nothing_is_done_at_once() -> None:
    document = flow(fork("f", [simple("a")]), {**join("j"), "joinOn": None}, simple("after"))
    world = World(document)
    assert "after:SCHEDULED" in world.shown(world.start("flow"))


@pytest.mark.covers("B5")
def test_b5_a_callback_counts_with_in_progress_only() -> None:
    world = World(flow(simple("t1")))
    run = world.start("flow")
    world.result(run, "t1", {"v": 1}, callback_after_s=5)
    assert world.shown(run) == ["t1:COMPLETED"]
    assert world.status(run) == "COMPLETED"

    other = world.start("flow")
    world.result(other, "t1", {"v": 1}, TaskStatus.IN_PROGRESS, callback_after_s=5)
    row = world.row(other, "t1")
    assert (row.status, row.callback_after_s) == (TaskStatus.SCHEDULED, 5)


@pytest.mark.covers("B12", "B13")
def test_b12_a_human_holds_up_no_clock_of_the_others() -> None:
    timed = simple(
        "t1", taskDefinition={"name": "t1", "pollTimeoutSeconds": 10, "timeoutPolicy": "TIME_OUT_WF"}
    )
    world = World(flow(fork("f", [task("HUMAN", "h")], [timed]), join("j", "h", "t1")))
    run = world.start("flow")
    world.advance(9)
    assert world.status(run) == "RUNNING"
    world.advance(2)
    assert world.status(run) == "TIMED_OUT"
    assert world.row(run, "h").status is TaskStatus.CANCELED


@pytest.mark.covers("B13")
def test_b13_the_earliest_of_all_clocks_is_kept_to_the_second() -> None:
    definition = {
        "name": "w",
        "timeoutSeconds": 30,
        "totalTimeoutSeconds": 7200,
        "responseTimeoutSeconds": 30,
        "timeoutPolicy": "TIME_OUT_WF",
    }
    waiting = task("WAIT", "w", {"duration": "1 hour"}, taskDefinition=definition)
    world = World(flow(waiting, timeoutSeconds=600, timeoutPolicy="TIME_OUT_WF"))
    run = world.start("flow")
    world.advance(29)
    assert world.status(run) == "RUNNING"
    world.advance(1)
    assert world.status(run) == "TIMED_OUT"


@pytest.mark.covers("B14")
def test_b14_the_delay_of_a_retry_holds_for_the_engines_own_tasks() -> None:
    definition = {"name": "q", "retryCount": 1, "retryDelaySeconds": 30}
    query = task("JSON_JQ_TRANSFORM", "q", {"queryExpression": ".a | keys"}, taskDefinition=definition)
    world = World(flow(query))
    run = world.start("flow")
    assert world.shown(run) == ["q:FAILED", "q:SCHEDULED"]
    world.advance(29)
    assert world.status(run) == "RUNNING"
    world.advance(1)
    assert world.shown(run) == ["q:FAILED", "q:FAILED"]
    assert world.status(run) == "FAILED"


@pytest.mark.covers("B16")
@pytest.mark.parametrize("type_", ["LIST_API_TOOLS", "PLANNER_CONTEXT_FETCH", "HTTP", "CALL_MCP_TOOL"])
def test_b16_what_talks_to_others_is_queued_work_never_part_of_a_decision(type_: str) -> None:
    world = World(flow(task(type_, "t1", {"uri": "http://127.0.0.1:9/", "method": "GET"})))
    run = world.start("flow")
    row = world.row(run, "t1")
    assert (row.status, row.queued) == (TaskStatus.SCHEDULED, True)


@pytest.mark.covers("B17")
def test_b17_the_default_does_not_win_over_a_selected_path_that_runs() -> None:
    chosen = switch("s", "a", {"a": [simple("slow")]})
    ended = task("EXCLUSIVE_JOIN", "x", joinOn=["slow"], defaultExclusiveJoinTask=["first"])
    world = World(flow(simple("first"), fork("f", [chosen], [ended]), join("j", "s", "x")))
    run = world.start("flow")
    world.result(run, "first", {"by": "first"})
    assert world.row(run, "x").status is TaskStatus.IN_PROGRESS
    world.result(run, "slow", {"by": "slow"})
    assert world.output(run, "x") == {"by": "slow"}


@pytest.mark.covers("B18")
def test_b18_a_dynamic_task_runs_under_the_definition_of_what_it_turns_out_to_be() -> None:
    dynamic = task("DYNAMIC", "d", {"which": "${w.output.loopItem}"}, dynamicTaskNameParam="which")
    world = World(
        flow(loop("w", [dynamic], items="${workflow.input.names}")),
        tasks={
            "one": {"name": "one", "retryCount": 1, "retryDelaySeconds": 0},
            "two": {"name": "two", "retryCount": 0},
        },
    )
    run = world.start("flow", {"names": ["one", "two"]})
    world.result(run, "d__1", status=FAILED)
    assert world.row(run, "d__1").attempt == 1
    world.result(run, "d__1")
    world.result(run, "d__2", status=FAILED)
    assert world.row(run, "d__2").attempt == 0
    assert world.status(run) == "FAILED"


@pytest.mark.covers("B21")
def test_b21_the_template_holds_for_an_empty_input_too() -> None:
    world = World(flow(simple("t1", {"a": "${workflow.input.a}"}), inputTemplate={"a": "default"}))
    assert world.row(world.start("flow"), "t1").input.value == {"a": "default"}
    assert world.row(world.start("flow", {"a": 1}), "t1").input.value == {"a": 1}


@pytest.mark.covers("B27")
def test_b27_the_failed_run_is_told_in_bounded_form() -> None:
    after = flow(simple("mend", {"run": "${workflow.input.failedWorkflow}"}), name="after")
    world = World(flow(simple("t1"), failureWorkflow="after"), after)
    run = world.start("flow", {"big": "x" * 100_000, "small": 1})
    world.result(run, "t1", status=FAILED)

    mending = world.output(run)["conductor.failure_workflow"]
    told = world.row(mending, "mend").input.value["run"]
    assert told["workflowId"] == run
    assert "tasks" not in told
    assert len(encode(told)) < 70_000


@pytest.mark.covers("B36")
@pytest.mark.parametrize(
    ("inputs", "seconds"),
    [
        ({"duration": "PT1M"}, 60),
        ({"duration": "1d 2h"}, 93_600),
        ({"until": "2023-11-14T22:14:20Z"}, 60),
        ({"until": "2023-11-14 22:15"}, 100),
    ],
)
def test_b36_waits_take_iso_forms_in_utc(inputs: dict[str, str], seconds: int) -> None:
    world = World(flow(task("WAIT", "w", inputs)))
    run = world.start("flow")
    world.advance(seconds - 1)
    assert world.status(run) == "RUNNING"
    world.advance(1)
    assert world.status(run) == "COMPLETED"


@pytest.mark.covers("B36")
def test_b36_a_day_that_is_none_is_refused() -> None:
    world = World(flow(task("WAIT", "w", {"until": "${workflow.input.day}"})))
    run = world.start("flow", {"day": "2024-02-31"})
    assert world.row(run, "w").status is TaskStatus.FAILED_WITH_TERMINAL_ERROR


@pytest.mark.covers("B23")
def test_b23_what_conductor_refuses_for_its_defaults_registers() -> None:
    document = flow(
        loop("w", [simple("a")], items="${workflow.input.l}"),
        simple("t", taskDefinition={"name": "t", "timeoutSeconds": 60}),
        task("TERMINATE", "e", {"terminationStatus": "${workflow.input.s}"}),
    )
    assert list(parse_workflow(encode(document)).faults) == []
