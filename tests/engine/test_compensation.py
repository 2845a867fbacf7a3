"""Compensation: what completed is undone once, in reverse order of completion."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Pause, Restart, Resume, Retry, Terminate
from maestoso_server.engine.state import TaskStatus

from .harness import World, catch, flow, fork, guarded, join, loop, simple, switch, task

FAILED = TaskStatus.FAILED


@pytest.fixture(params=[(False, 500), (True, 500), (True, 2)], ids=["whole", "partial", "bounded"])
def world(request: pytest.FixtureRequest) -> Any:
    """Worlds that must not differ."""
    partial, rows_max = request.param

    def make(*documents: dict[str, Any], **more: Any) -> World:
        return World(*documents, partial=partial, rows_max=rows_max, **more)

    return make


def undone(reference: str, **more: Any) -> dict[str, Any]:
    """A task with one that undoes it: `undo_<reference>`, which is given its output."""
    undo = simple(f"undo_{reference}", {"of": f"${{{reference}.output.n}}"})
    return simple(reference, compensate=[undo], **more)


def run(world: World, workflow: str, *references: str, **more: Any) -> None:
    """Results, each a second later than the one before."""
    for number, reference in enumerate(references, 1):
        world.advance(1)
        world.result(workflow, reference, {"n": number}, **more)


def made(world: World, workflow: str) -> list[str]:
    return [row.reference for row in world.rows(workflow) if row.reference.startswith("undo_")]


def test_what_completed_is_undone_backwards_before_the_workflow_ends(world: Any) -> None:
    w = world(
        flow(undone("a"), undone("b"), simple("c"), undone("d"), outputParameters={"s": "${workflow.status}"})
    )
    w_id = w.start("flow")
    run(w, w_id, "a", "b", "c")
    w.result(w_id, "d", status=FAILED, reason="broken")
    assert w.status(w_id) == "RUNNING"
    assert w.shown(w_id)[-2:] == ["__compensate:IN_PROGRESS", "undo_b:SCHEDULED"]
    assert w.row(w_id, "undo_b").input.value == {"of": 2}
    w.result(w_id, "undo_b")
    assert w.row(w_id, "undo_a").input.value == {"of": 1}
    w.result(w_id, "undo_a")
    header = w.header(w_id)
    assert header.status.name == "FAILED"
    assert header.reason == f"Task {w_id[:-6]}000004 failed with status: FAILED and reason: 'broken'"
    assert header.failed_task == 4
    assert header.output is not None and header.output.value == {"s": "FAILED"}
    assert w.output(w_id, "__compensate") == {"compensated": 2, "failed": []}
    assert made(w, w_id) == ["undo_b", "undo_a"]


def test_nothing_to_undo_changes_nothing(world: Any) -> None:
    w = world(flow(undone("a")))
    w_id = w.start("flow")
    w.result(w_id, "a", status=FAILED)
    assert w.shown(w_id) == ["a:FAILED"]
    assert w.happen(w_id, Retry(now_ms=w.now_ms))[0].verdict == Verdict.APPLIED
    w.result(w_id, "a")
    assert w.shown(w_id) == ["a:FAILED", "a:COMPLETED"]
    assert w.status(w_id) == "COMPLETED"


def test_the_order_is_that_of_completion(world: Any) -> None:
    w = world(
        flow(fork("f", [undone("a")], [undone("b")], [undone("c")]), join("j", "a", "b", "c"), simple("z"))
    )
    w_id = w.start("flow")
    run(w, w_id, "b", "c", "a")
    w.result(w_id, "z", status=FAILED)
    for reference in ("undo_a", "undo_c", "undo_b"):
        assert [row.reference for row in w.open_worker_rows(w_id)] == [reference]
        w.result(w_id, reference)
    assert w.status(w_id) == "FAILED"


def test_all_that_is_open_is_cancelled_first(world: Any) -> None:
    w = world(flow(undone("a"), fork("f", [simple("b")], [simple("c")]), join("j", "b", "c")))
    w_id = w.start("flow")
    run(w, w_id, "a")
    w.result(w_id, "b", status=FAILED)
    assert w.row(w_id, "c").status.name == w.row(w_id, "j").status.name == "CANCELED"
    assert [row.reference for row in w.open_worker_rows(w_id)] == ["undo_a"]


def test_every_turn_of_a_loop_is_undone_with_its_own_output(world: Any) -> None:
    w = world(flow(loop("l", [undone("a")], 3), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "a__1", "a__2", "a__3")
    w.result(w_id, "z", status=FAILED)
    seen = []
    while rows := w.open_worker_rows(w_id):
        seen.append((rows[0].path, rows[0].input.value["of"]))
        w.report(w_id, rows[0].seq)
    assert seen == [((3,), 3), ((2,), 2), ((1,), 1)]
    assert w.status(w_id) == "FAILED"


def test_many_turns_are_found_page_by_page(world: Any) -> None:
    w = world(flow(loop("l", [task("NOOP", "a", compensate=[task("NOOP", "undo_a")])], 230), simple("z")))
    w_id = w.start("flow")
    w.result(w_id, "z", status=FAILED)
    assert w.status(w_id) == "FAILED"
    assert w.output(w_id, "__compensate") == {"compensated": 230, "failed": []}
    assert [row.path[0] for row in w.rows(w_id) if row.reference == "undo_a"] == list(range(230, 0, -1))


def test_a_chain_may_have_operators(world: Any) -> None:
    chain = [
        fork("uf", [simple("u1")], [switch("us", "x", {"x": [simple("u2")]})]),
        join("uj", "u1"),
        guarded("ug", [simple("u3")], catch(simple("u4"))),
        loop("ul", [simple("u5")], 2),
    ]
    w = world(flow(simple("a", compensate=chain), undone("b"), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "a", "b")
    w.result(w_id, "z", status=FAILED)
    run(w, w_id, "undo_b", "u2", "u1")
    w.result(w_id, "u3", status=FAILED)
    run(w, w_id, "u4", "u5__1", "u5__2")
    assert w.status(w_id) == "FAILED"
    assert w.output(w_id, "__compensate") == {"compensated": 2, "failed": []}


def test_a_compensation_that_fails_is_told_and_the_others_run(world: Any) -> None:
    chain = [fork("uf", [simple("u1")], [simple("u2")]), join("uj", "u1", "u2"), simple("u3")]
    w = world(flow(undone("a"), simple("b", compensate=chain), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "a", "b")
    w.result(w_id, "z", status=FAILED, reason="broken")
    w.result(w_id, "u1", status=FAILED, reason="no refund")
    assert w.row(w_id, "u2").status.name == "CANCELED"
    w.result(w_id, "undo_a")
    assert w.status(w_id) == "FAILED"
    assert (w.header(w_id).reason or "").endswith("reason: 'broken' Compensation of b failed.")
    assert w.output(w_id, "__compensate") == {
        "compensated": 1,
        "failed": [{"reference": "b", "taskId": f"{w_id[:-6]}000002", "reason": "no refund"}],
    }
    assert w.row(w_id, "__compensate").status.name == "COMPLETED_WITH_ERRORS"


def test_a_compensation_is_tried_again_like_any_task(world: Any) -> None:
    undo = simple("undo", retryCount=1, taskDefinition={"name": "undo", "retryDelaySeconds": 0})
    w = world(flow(simple("a", compensate=[undo]), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "a")
    w.result(w_id, "z", status=FAILED)
    w.result(w_id, "undo", status=FAILED)
    w.result(w_id, "undo")
    assert w.output(w_id, "__compensate") == {"compensated": 1, "failed": []}


def test_the_newest_attempt_is_undone_and_failed_ones_are_not(world: Any) -> None:
    again = {"retryCount": 1, "taskDefinition": {"name": "a", "retryDelaySeconds": 0}}
    w = world(flow(undone("a", **again), undone("b", optional=True), simple("z")))
    w_id = w.start("flow")
    w.result(w_id, "a", {"n": 1}, status=FAILED)
    w.result(w_id, "a", {"n": 2})
    w.result(w_id, "b", {"n": 3}, status=FAILED)
    w.result(w_id, "z", status=FAILED)
    assert w.row(w_id, "undo_a").input.value == {"of": 2}
    w.result(w_id, "undo_a")
    assert made(w, w_id) == ["undo_a"]


def test_the_workflows_own_time_out_compensates_with_its_clock_off(world: Any) -> None:
    w = world(flow(undone("a"), simple("z"), timeoutSeconds=30, timeoutPolicy="TIME_OUT_WF"))
    w_id = w.start("flow")
    run(w, w_id, "a")
    w.advance(30)
    assert w.row(w_id, "z").status.name == "CANCELED"
    w.happen(w_id, Pause(now_ms=w.now_ms))
    w.happen(w_id, Resume(now_ms=w.now_ms))
    w.advance(100)
    w.result(w_id, "undo_a")
    assert w.status(w_id) == "TIMED_OUT"
    assert "Workflow timed out after 30 seconds" in (w.header(w_id).reason or "")


@pytest.mark.parametrize("asks", [True, False])
def test_a_terminate_task_may_ask_for_it(world: Any, asks: bool) -> None:
    inputs = {"terminationStatus": "TERMINATED", "workflowOutput": {"x": 1}, "compensate": asks}
    w = world(flow(undone("a"), task("TERMINATE", "t", inputs)))
    w_id = w.start("flow")
    run(w, w_id, "a")
    if asks:
        assert w.status(w_id) == "RUNNING"
        w.result(w_id, "undo_a")
    assert w.status(w_id) == "TERMINATED"
    assert w.output(w_id) == {"x": 1}
    assert made(w, w_id) == (["undo_a"] if asks else [])


@pytest.mark.parametrize("paused", [True, False])
def test_an_operator_may_ask_for_it(world: Any, paused: bool) -> None:
    w = world(flow(undone("a"), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "a")
    if paused:
        w.happen(w_id, Pause(now_ms=w.now_ms))
    w.happen(w_id, Terminate(now_ms=w.now_ms, reason="enough", compensate=True))
    again = Terminate(now_ms=w.now_ms, reason="enough", compensate=True)
    assert w.happen(w_id, again)[0].verdict == Verdict.REFUSED
    w.result(w_id, "undo_a")
    assert (w.status(w_id), w.header(w_id).reason) == ("TERMINATED", "enough")


def test_a_plain_terminate_does_not_and_stops_one_that_runs(world: Any) -> None:
    w = world(flow(undone("a"), undone("b"), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "a", "b")
    w.result(w_id, "z", status=FAILED)
    w.happen(w_id, Terminate(now_ms=w.now_ms, reason="stop"))
    assert (w.status(w_id), w.header(w_id).reason) == ("TERMINATED", "stop")
    assert made(w, w_id) == ["undo_b"]
    assert w.row(w_id, "undo_b").status.name == "CANCELED"


def test_a_pause_holds_it_up(world: Any) -> None:
    w = world(flow(undone("a"), undone("b"), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "a", "b")
    w.result(w_id, "z", status=FAILED)
    w.happen(w_id, Pause(now_ms=w.now_ms))
    w.result(w_id, "undo_b")
    assert made(w, w_id) == ["undo_b"]
    w.happen(w_id, Resume(now_ms=w.now_ms))
    w.result(w_id, "undo_a")
    assert w.status(w_id) == "FAILED"


def test_a_retry_is_refused_and_a_restart_works(world: Any) -> None:
    w = world(flow(undone("a"), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "a")
    w.result(w_id, "z", status=FAILED)
    w.result(w_id, "undo_a")
    (outcome,) = w.happen(w_id, Retry(now_ms=w.now_ms))
    assert outcome.verdict == Verdict.REFUSED and "Restart it" in outcome.reason
    w.happen(w_id, Restart(now_ms=w.now_ms))
    run(w, w_id, "a", "z")
    assert w.status(w_id) == "COMPLETED"


def test_a_catch_case_asks_for_what_the_body_completed(world: Any) -> None:
    body = [undone("a"), undone("b"), simple("charge")]
    case = catch(task("COMPENSATE", "undo"), simple("told", {"undone": "${undo.output.compensated}"}))
    w = world(flow(undone("first"), guarded("guard", body, case), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "first", "a", "b")
    w.result(w_id, "charge", status=FAILED)
    run(w, w_id, "undo_b", "undo_a")
    assert w.row(w_id, "told").input.value == {"undone": 2}
    run(w, w_id, "told")
    w.result(w_id, "z", status=FAILED)
    w.result(w_id, "undo_first")
    assert w.status(w_id) == "FAILED"
    assert made(w, w_id) == ["undo_b", "undo_a", "undo_first"]


def test_a_compensated_and_caught_try_does_not_forbid_a_retry(world: Any) -> None:
    w = world(
        flow(guarded("guard", [undone("a"), simple("b")], catch(task("COMPENSATE", "undo"))), simple("z"))
    )
    w_id = w.start("flow")
    run(w, w_id, "a")
    w.result(w_id, "b", status=FAILED)
    w.result(w_id, "undo_a")
    w.result(w_id, "z", status=FAILED)
    assert w.status(w_id) == "FAILED"
    assert w.happen(w_id, Retry(now_ms=w.now_ms))[0].verdict == Verdict.APPLIED
    w.result(w_id, "z")
    assert w.status(w_id) == "COMPLETED"


def test_a_compensated_body_whose_failure_went_on_forbids_it(world: Any) -> None:
    case = catch(task("COMPENSATE", "undo"), task("TERMINATE", "t", {"terminationStatus": "FAILED"}))
    w = world(flow(guarded("guard", [undone("a"), simple("b")], case)))
    w_id = w.start("flow")
    run(w, w_id, "a")
    w.result(w_id, "b", status=FAILED)
    w.result(w_id, "undo_a")
    assert w.status(w_id) == "FAILED"
    assert w.happen(w_id, Retry(now_ms=w.now_ms))[0].verdict == Verdict.REFUSED


@pytest.mark.parametrize("of", [None, "outer"])
def test_it_undoes_the_try_that_is_named(world: Any, of: str | None) -> None:
    inputs = {"of": of} if of else {}
    inner = guarded("inner", [undone("b"), simple("c")], catch(task("COMPENSATE", "undo", inputs)))
    w = world(flow(guarded("outer", [undone("a"), inner], catch()), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "a", "b")
    w.result(w_id, "c", status=FAILED)
    run(w, w_id, "undo_b")
    if of:
        run(w, w_id, "undo_a")
    assert w.row(w_id, "z").status.name == "SCHEDULED"


def test_outside_of_any_try_it_undoes_the_workflow_and_goes_on(world: Any) -> None:
    w = world(flow(undone("a"), undone("b"), task("COMPENSATE", "undo"), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "a", "b", "undo_b", "undo_a")
    w.result(w_id, "z", status=FAILED)
    assert w.status(w_id) == "FAILED"
    assert made(w, w_id) == ["undo_b", "undo_a"]


def test_in_a_loop_only_this_turn_is_undone(world: Any) -> None:
    body = guarded("guard", [undone("a"), simple("b")], catch(task("COMPENSATE", "undo")))
    w = world(flow(loop("l", [body], 2)))
    w_id = w.start("flow")
    run(w, w_id, "a__1", "b__1", "a__2")
    w.result(w_id, "b__2", status=FAILED)
    assert [(row.reference, row.path) for row in w.open_worker_rows(w_id)] == [("undo_a", (2,))]
    w.result(w_id, "undo_a__2")
    assert w.status(w_id) == "COMPLETED"
    assert "undo_a" not in w.output(w_id, "l")["2"]


def test_a_failed_child_undoes_itself_and_a_completed_one_is_undone_by_its_parent(world: Any) -> None:
    child = flow(undone("c"), simple("d"), name="child")
    first = task("SUB_WORKFLOW", "one", subWorkflowParam={"name": "child"}, compensate=[simple("undo_one")])
    second = task("SUB_WORKFLOW", "two", subWorkflowParam={"name": "child"}, compensate=[simple("undo_two")])
    w = world(flow(first, second), child)
    w_id = w.start("flow")
    run(w, w.children(w_id)[0], "c", "d")
    other = w.children(w_id)[1]
    run(w, other, "c")
    w.result(other, "d", status=FAILED)
    assert (w.status(w_id), w.status(other)) == ("RUNNING", "RUNNING")
    w.result(other, "undo_c")
    assert w.status(other) == "FAILED"
    w.result(w_id, "undo_one")
    assert w.status(w_id) == "FAILED"
    assert made(w, w_id) == ["undo_one"]
    assert made(w, w.children(w_id)[0]) == []


@pytest.mark.parametrize("how", ["fails", "terminated"])
def test_a_running_child_of_a_parent_that_fails_undoes_itself(world: Any, how: str) -> None:
    child = flow(undone("c"), simple("d"), name="child")
    sub = task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})
    w = world(flow(fork("f", [sub], [simple("a")]), join("j", "sub", "a")), child)
    w_id = w.start("flow")
    child_id = w.children(w_id)[0]
    run(w, child_id, "c")
    if how == "fails":
        w.result(w_id, "a", status=FAILED)
    else:
        w.happen(w_id, Terminate(now_ms=w.now_ms, reason="enough"))
    assert made(w, child_id) == (["undo_c"] if how == "fails" else [])
    if how == "fails":
        w.result(child_id, "undo_c")
    assert w.status(child_id) == "TERMINATED"


def test_a_child_that_has_undone_its_work_begins_anew_for_its_parent(world: Any) -> None:
    child = flow(undone("c"), simple("d"), name="child")
    w = world(flow(task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})), child)
    w_id = w.start("flow")
    child_id = w.children(w_id)[0]
    run(w, child_id, "c")
    w.result(child_id, "d", status=FAILED)
    w.result(child_id, "undo_c")
    assert w.status(w_id) == "FAILED"
    w.happen(w_id, Retry(now_ms=w.now_ms, resume_children=True))
    run(w, child_id, "c", "d")
    assert (w.status(child_id), w.status(w_id)) == ("COMPLETED", "COMPLETED")


def test_the_failure_workflow_starts_when_all_is_undone(world: Any) -> None:
    w = world(flow(undone("a"), simple("z"), failureWorkflow="after"), flow(simple("x"), name="after"))
    w_id = w.start("flow")
    run(w, w_id, "a")
    w.result(w_id, "z", status=FAILED)
    assert len(w.workflows) == 1
    w.result(w_id, "undo_a")
    assert len(w.workflows) == 2


def test_a_caught_failure_leaves_what_completed_for_a_later_end(world: Any) -> None:
    w = world(flow(guarded("guard", [undone("a"), simple("b")], catch(simple("c"))), simple("z")))
    w_id = w.start("flow")
    run(w, w_id, "a")
    w.result(w_id, "b", status=FAILED)
    run(w, w_id, "c")
    w.result(w_id, "z", status=FAILED)
    w.result(w_id, "undo_a")
    assert w.status(w_id) == "FAILED"
