"""TRY: what it catches, what it leaves to others, and what a retry makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.decision import Verdict
from maestoso_server.engine.events import Pause, Restart, Result, Resume, Retry, Terminate, WorkerLost
from maestoso_server.engine.state import TaskStatus

from .harness import World, catch, flow, fork, guarded, inline, join, loop, simple, switch, task

FAILED = TaskStatus.FAILED
FINAL = TaskStatus.FAILED_WITH_TERMINAL_ERROR
CHILD = flow(simple("c"), name="child")


@pytest.fixture(params=[(False, 500), (True, 500), (True, 2)], ids=["whole", "partial", "bounded"])
def world(request: pytest.FixtureRequest) -> Any:
    """Worlds that must not differ."""
    partial, rows_max = request.param

    def make(*documents: dict[str, Any], **more: Any) -> World:
        return World(*documents, partial=partial, rows_max=rows_max, **more)

    return make


def decline(world: World, workflow: str, reference: str, name: str = "PaymentDeclined") -> None:
    """A worker's business error."""
    world.result(workflow, reference, {"code": 51}, FINAL, reason="no funds", error_name=name)


def test_a_body_that_completes_goes_on_after_finally(world: Any) -> None:
    w = world(
        flow(
            guarded("guard", [simple("a"), simple("b")], catch(simple("c")), last=[simple("f")]), simple("z")
        )
    )
    w_id = w.start("flow")
    for reference in ("a", "b", "f"):
        w.result(w_id, reference)
    assert w.shown(w_id) == [
        "guard:COMPLETED",
        "a:COMPLETED",
        "b:COMPLETED",
        "f:COMPLETED",
        "z:SCHEDULED",
    ]
    assert w.output(w_id, "guard") == {"caught": False}
    w.result(w_id, "z")
    assert w.status(w_id) == "COMPLETED"


def test_a_business_error_is_caught_by_its_name(world: Any) -> None:
    told = {"error": "${guard.output.error}", "caught": "${guard.output.caught}"}
    cases = [
        catch(simple("other"), names=("OutOfStock",)),
        catch(simple("refund", told), names=("PaymentDeclined",)),
        catch(simple("rest")),
    ]
    w = world(flow(guarded("guard", [simple("charge"), simple("ship")], *cases), simple("z")))
    w_id = w.start("flow")
    decline(w, w_id, "charge")
    assert w.shown(w_id) == [
        "guard:IN_PROGRESS",
        "charge:FAILED_WITH_TERMINAL_ERROR",
        "refund:SCHEDULED",
    ]
    assert w.row(w_id, "refund").input.value == {
        "caught": True,
        "error": {
            "name": "PaymentDeclined",
            "status": "FAILED_WITH_TERMINAL_ERROR",
            "reason": "no funds",
            "reference": "charge",
            "taskId": f"{w_id[:-6]}000002",
            "output": {"code": 51},
        },
    }
    w.result(w_id, "refund")
    assert w.row(w_id, "guard").status.name == "COMPLETED"
    w.result(w_id, "z")
    assert w.status(w_id) == "COMPLETED"
    assert w.header(w_id).permissive_failed == 0


def test_an_error_that_no_case_names_goes_on_after_finally(world: Any) -> None:
    case = catch(simple("other"), names=("OutOfStock",))
    w = world(flow(guarded("guard", [simple("charge")], case, last=[simple("f", {"e": "${guard.output}"})])))
    w_id = w.start("flow")
    decline(w, w_id, "charge")
    assert w.row(w_id, "f").input.value["e"]["caught"] is False
    assert w.row(w_id, "f").input.value["e"]["error"]["name"] == "PaymentDeclined"
    w.result(w_id, "f")
    header = w.header(w_id)
    assert header.status.name == "FAILED"
    assert header.failed_task == 2
    assert header.reason == f"Task {w_id[:-6]}000002 failed with status: FAILED and reason: 'no funds'"
    assert w.row(w_id, "guard").status.name == "FAILED"
    assert w.row(w_id, "guard").reason == header.reason


def test_a_retry_inside_the_body_comes_before_the_catch(world: Any) -> None:
    w = world(
        flow(
            guarded(
                "guard",
                [simple("a", retryCount=1, taskDefinition={"name": "a", "retryDelaySeconds": 0})],
                catch(simple("c")),
            )
        )
    )
    w_id = w.start("flow")
    w.result(w_id, "a", status=FAILED)
    assert w.row(w_id, "a").attempt == 1
    w.result(w_id, "a", status=FAILED)
    assert w.row(w_id, "c").status.name == "SCHEDULED"


def test_names_and_statuses_narrow_each_other(world: Any) -> None:
    cases = [
        catch(simple("x"), names=("PaymentDeclined",), statuses=("TIMED_OUT",)),
        catch(simple("y"), statuses=("FAILED_WITH_TERMINAL_ERROR",)),
    ]
    w = world(flow(guarded("guard", [simple("a")], *cases)))
    w_id = w.start("flow")
    decline(w, w_id, "a")
    assert w.row(w_id, "y").status.name == "SCHEDULED"


def test_the_names_of_what_happens_by_itself(world: Any) -> None:
    seen = {}
    body = {
        "timeout": [simple("a", taskDefinition={"name": "a", "timeoutSeconds": 5, "pollTimeoutSeconds": 5})],
        "script": [inline("a", "nothing.at.all")],
        "child": [task("SUB_WORKFLOW", "a", subWorkflowParam={"name": "child"})],
        "lost": [simple("a")],
        "canceled": [simple("a")],
        "plain": [simple("a")],
    }
    for what, tasks in body.items():
        w = world(
            flow(guarded("guard", tasks, catch(simple("h", {"name": "${guard.output.error.name}"})))), CHILD
        )
        w_id = w.start("flow")
        if what == "timeout":
            w.advance(6)
        elif what == "child":
            w.result(w.children(w_id)[0], "c", status=FAILED)
        elif what == "lost":
            w.happen(w_id, WorkerLost(now_ms=w.now_ms, seq=2, delivery=1))
        elif what == "canceled":
            w.result(w_id, "a", status=TaskStatus.CANCELED)
        elif what == "plain":
            w.result(w_id, "a", status=FAILED)
        seen[what] = w.row(w_id, "h").input.value["name"]
    assert seen == {
        "timeout": "TIMEOUT",
        "script": "SCRIPT_ERROR",
        "child": "CHILD_FAILED",
        "lost": "WORKER_LOST",
        "canceled": "CANCELED",
        "plain": "TASK_FAILED",
    }


def test_a_childs_error_comes_up_by_its_own_name(world: Any) -> None:
    w = world(
        flow(
            guarded(
                "guard",
                [task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})],
                catch(simple("h"), names=("PaymentDeclined",)),
            )
        ),
        CHILD,
    )
    w_id = w.start("flow")
    decline(w, w.children(w_id)[0], "c")
    assert w.row(w_id, "h").status.name == "SCHEDULED"


def test_what_is_open_in_the_body_is_cancelled(world: Any) -> None:
    body = [
        fork(
            "f",
            [simple("a")],
            [simple("b")],
            [task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child"})],
        ),
        join("j", "a", "b", "sub"),
    ]
    outside = fork("o", [guarded("guard", body, catch(simple("h")))], [simple("elsewhere")])
    w = world(flow(outside, join("oj", "guard", "elsewhere")), CHILD)
    w_id = w.start("flow")
    child = w.children(w_id)[0]
    w.result(w_id, "a", status=FAILED, reason="broken")
    states = dict(line.split(":") for line in w.shown(w_id))
    assert states["b"] == states["sub"] == states["j"] == "CANCELED"
    assert states["elsewhere"] == states["h"] == "SCHEDULED"
    assert w.status(child) == "TERMINATED"
    w.result(w_id, "h")
    w.result(w_id, "elsewhere")
    assert w.status(w_id) == "COMPLETED"


def test_a_failure_outside_of_any_try_still_ends_the_workflow(world: Any) -> None:
    w = world(flow(guarded("guard", [simple("a")], catch(simple("c")), last=[simple("f")]), simple("z")))
    w_id = w.start("flow")
    w.result(w_id, "a")
    w.result(w_id, "f")
    w.result(w_id, "z", status=FAILED)
    assert w.status(w_id) == "FAILED"


def test_a_failing_case_is_followed_by_finally_and_goes_on(world: Any) -> None:
    w = world(flow(guarded("guard", [simple("a")], catch(simple("c")), last=[simple("f")])))
    w_id = w.start("flow")
    w.result(w_id, "a", status=FAILED, reason="first")
    w.result(w_id, "c", status=FAILED, reason="second")
    w.result(w_id, "f")
    assert w.status(w_id) == "FAILED"
    assert "second" in (w.header(w_id).reason or "")
    assert w.header(w_id).failed_task == w.row(w_id, "c").seq
    assert w.output(w_id, "guard")["error"]["reference"] == "c"


def test_a_failing_finally_goes_on_although_something_was_caught(world: Any) -> None:
    w = world(flow(guarded("guard", [simple("a")], catch(simple("c")), last=[simple("f")])))
    w_id = w.start("flow")
    w.result(w_id, "a", status=FAILED, reason="first")
    w.result(w_id, "c")
    w.result(w_id, "f", status=FAILED, reason="third")
    assert w.header(w_id).failed_task == w.row(w_id, "f").seq
    assert w.status(w_id) == "FAILED"


def test_an_inner_try_passes_on_to_the_outer_one(world: Any) -> None:
    inner = guarded("inner", [simple("a")], catch(simple("no"), names=("Other",)), last=[simple("fi")])
    w = world(
        flow(guarded("outer", [inner, simple("never")], catch(simple("h", {"of": "${outer.output.error}"}))))
    )
    w_id = w.start("flow")
    decline(w, w_id, "a")
    w.result(w_id, "fi")
    told = w.row(w_id, "h").input.value["of"]
    assert (told["reference"], told["name"]) == ("a", "PaymentDeclined")
    assert w.row(w_id, "inner").status.name == "FAILED"
    w.result(w_id, "h")
    assert w.status(w_id) == "COMPLETED"


@pytest.mark.parametrize("flag", ["optional", "permissive"])
def test_a_try_may_be_optional_or_permissive(world: Any, flag: str) -> None:
    w = world(flow(guarded("guard", [simple("a")], last=[simple("f")], **{flag: True}), simple("z")))
    w_id = w.start("flow")
    w.result(w_id, "a", status=FAILED)
    w.result(w_id, "f")
    w.result(w_id, "z")
    ends = {"optional": ("COMPLETED", "COMPLETED_WITH_ERRORS"), "permissive": ("FAILED", "FAILED")}
    assert (w.status(w_id), w.row(w_id, "guard").status.name) == ends[flag]


def test_permissive_failures_are_the_bodys_failure_at_its_end(world: Any) -> None:
    body = [simple("a", permissive=True), simple("b")]
    w = world(flow(guarded("guard", body, catch(simple("h", {"e": "${guard.output.error.reference}"})))))
    w_id = w.start("flow")
    decline(w, w_id, "a")
    assert w.row(w_id, "b").status.name == "SCHEDULED"
    w.result(w_id, "b")
    assert w.row(w_id, "h").input.value == {"e": "a"}
    w.result(w_id, "h")
    assert w.status(w_id) == "COMPLETED"


def test_of_permissive_failures_in_a_body_the_first_record_counts(world: Any) -> None:
    """Not the first that failed."""
    body = [
        fork("f", [simple("a", permissive=True)], [simple("b", permissive=True)]),
        join("j", permissive=True),
    ]
    w = world(flow(guarded("guard", body, catch(simple("h")))))
    w_id = w.start("flow")
    w.result(w_id, "b", status=FAILED, reason="second")
    w.result(w_id, "a", status=FAILED, reason="first")
    assert w.row(w_id, "guard").output.value["error"]["reference"] == "a"


def test_permissive_failures_that_no_case_takes_end_the_workflow(world: Any) -> None:
    body = [simple("a", permissive=True), simple("b")]
    w = world(flow(guarded("guard", body, last=[simple("f")])))
    w_id = w.start("flow")
    w.result(w_id, "a", status=FAILED, reason="bad luck")
    w.result(w_id, "b")
    w.result(w_id, "f")
    assert w.status(w_id) == "FAILED"
    assert "bad luck" in (w.header(w_id).reason or "")


def test_terminate_and_the_workflows_own_time_are_not_caught(world: Any) -> None:
    document = flow(
        guarded(
            "guard",
            [simple("a"), task("TERMINATE", "t", {"terminationStatus": "FAILED"})],
            catch(simple("c")),
            last=[simple("f")],
        ),
        timeoutSeconds=60,
        timeoutPolicy="TIME_OUT_WF",
    )
    ends = []
    for how in ("task", "operator", "time"):
        w = world(document)
        w_id = w.start("flow")
        if how == "task":
            w.result(w_id, "a")
        elif how == "operator":
            w.happen(w_id, Terminate(now_ms=w.now_ms, reason="enough"))
        else:
            w.advance(61)
        ends.append(w.status(w_id))
        assert not {"c", "f"} & {row.reference for row in w.rows(w_id)}
    assert ends == ["FAILED", "TERMINATED", "TIMED_OUT"]


def test_a_try_in_a_loop_catches_turn_by_turn(world: Any) -> None:
    body = guarded(
        "guard", [simple("a"), simple("b")], catch(simple("h", {"of": "${guard.output.error.reference}"}))
    )
    w = world(flow(loop("l", [body], 2)))
    w_id = w.start("flow")
    w.result(w_id, "a__1", status=FAILED)
    assert w.row(w_id, "h__1").input.value == {"of": "a__1"}
    w.result(w_id, "h__1")
    w.result(w_id, "a__2")
    w.result(w_id, "b__2")
    assert w.status(w_id) == "COMPLETED"
    assert [row.path for row in w.rows(w_id) if row.reference == "guard"] == [(1,), (2,)]


def test_a_loop_in_a_try_is_cancelled_with_what_runs_in_it(world: Any) -> None:
    body = [loop("l", [simple("a")], 3)]
    w = world(flow(guarded("guard", body, catch(simple("h")))))
    w_id = w.start("flow")
    w.result(w_id, "a__1")
    w.result(w_id, "a__2", status=FAILED)
    assert w.row(w_id, "l").status.name == "CANCELED"
    w.result(w_id, "h")
    assert w.status(w_id) == "COMPLETED"


def test_a_join_waits_for_the_try_in_its_branch(world: Any) -> None:
    w = world(
        flow(fork("f", [guarded("guard", [simple("a")], catch())], [simple("b")]), join("j", "guard", "b"))
    )
    w_id = w.start("flow")
    w.result(w_id, "b")
    w.result(w_id, "a", status=FAILED)
    assert w.status(w_id) == "COMPLETED"
    assert w.output(w_id, "j")["guard"]["caught"] is True


def test_a_switch_around_and_inside(world: Any) -> None:
    inner = guarded("guard", [switch("s", "x", {"x": [simple("a")]})], catch(simple("h")), last=[simple("f")])
    w = world(flow(switch("out", "y", {"y": [inner]}), simple("z")))
    w_id = w.start("flow")
    w.result(w_id, "a", status=FAILED)
    w.result(w_id, "h")
    w.result(w_id, "f")
    w.result(w_id, "z")
    assert w.status(w_id) == "COMPLETED"


def test_its_own_time_is_that_of_the_body(world: Any) -> None:
    definition = {"name": "guard", "timeoutSeconds": 10, "responseTimeoutSeconds": 1}
    w = world(
        flow(
            guarded(
                "guard",
                [simple("a")],
                catch(simple("h", {"e": "${guard.output.error}"})),
                taskDefinition=definition,
            )
        )
    )
    w_id = w.start("flow")
    w.advance(11)
    told = w.row(w_id, "h").input.value["e"]
    assert (told["name"], told["status"], told["reference"]) == ("TIMEOUT", "TIMED_OUT", "guard")
    assert w.row(w_id, "a").status.name == "CANCELED"
    w.advance(100)
    w.result(w_id, "h")
    assert w.status(w_id) == "COMPLETED"


def test_late_results_of_a_body_that_is_over_change_nothing(world: Any) -> None:
    w = world(
        flow(
            guarded(
                "guard",
                [fork("f", [simple("a")], [simple("b"), simple("b2")]), join("j", "a", "b2")],
                catch(simple("h")),
            )
        )
    )
    w_id = w.start("flow")
    rows = {row.reference: row.seq for row in w.rows(w_id)}
    outcomes = w.happen(
        w_id,
        Result(now_ms=w.now_ms, seq=rows["a"], status=FINAL, delivery=1),
        Result(now_ms=w.now_ms, seq=rows["b"], status=TaskStatus.COMPLETED, delivery=1),
    )
    assert outcomes[0].verdict == Verdict.APPLIED
    assert "b2" not in {row.reference for row in w.rows(w_id)}
    w.result(w_id, "h")
    assert w.status(w_id) == "COMPLETED"


def test_a_retry_reopens_the_body_and_not_the_case(world: Any) -> None:
    w = world(
        flow(
            guarded(
                "guard", [simple("a"), simple("b")], catch(simple("no"), names=("Other",)), last=[simple("f")]
            )
        )
    )
    w_id = w.start("flow")
    w.result(w_id, "a")
    w.result(w_id, "b", status=FAILED)
    w.result(w_id, "f")
    assert w.status(w_id) == "FAILED"
    assert w.happen(w_id, Retry(now_ms=w.now_ms))[0].verdict == Verdict.APPLIED
    w.result(w_id, "b")
    assert w.row(w_id, "f").attempt == 1
    w.result(w_id, "f")
    assert w.status(w_id) == "COMPLETED"
    assert w.output(w_id, "guard") == {"caught": False}


def test_a_retry_reopens_the_case_that_failed(world: Any) -> None:
    w = world(flow(guarded("guard", [simple("a")], catch(simple("c1"), simple("c2")), last=[simple("f")])))
    w_id = w.start("flow")
    w.result(w_id, "a", status=FAILED)
    w.result(w_id, "c1")
    w.result(w_id, "c2", status=FAILED)
    w.result(w_id, "f")
    w.happen(w_id, Retry(now_ms=w.now_ms))
    assert [row.attempt for row in w.rows(w_id) if row.reference == "a"] == [0]
    w.result(w_id, "c2")
    w.result(w_id, "f")
    assert w.status(w_id) == "COMPLETED"


def test_a_retry_leaves_what_was_caught_alone(world: Any) -> None:
    w = world(flow(guarded("guard", [simple("a")], catch(simple("c"))), simple("z")))
    w_id = w.start("flow")
    w.result(w_id, "a", status=FAILED)
    w.result(w_id, "c")
    w.result(w_id, "z", status=FAILED)
    w.happen(w_id, Retry(now_ms=w.now_ms))
    assert [row.reference for row in w.open_worker_rows(w_id)] == ["z"]
    w.result(w_id, "z")
    assert w.status(w_id) == "COMPLETED"


def test_a_retry_does_what_the_failed_body_had_held_back(world: Any) -> None:
    body = [fork("f", [simple("a")], [simple("b"), simple("b2")]), join("j", "a", "b2")]
    w = world(flow(guarded("guard", body, last=[simple("fin")])))
    w_id = w.start("flow")
    seqs = {row.reference: row.seq for row in w.rows(w_id)}
    w.happen(
        w_id,
        Result(now_ms=w.now_ms, seq=seqs["a"], status=FINAL, delivery=1),
        Result(now_ms=w.now_ms, seq=seqs["b"], status=TaskStatus.COMPLETED, delivery=1),
    )
    w.result(w_id, "fin")
    w.happen(w_id, Retry(now_ms=w.now_ms))
    while rows := w.open_worker_rows(w_id):
        w.report(w_id, rows[0].seq)
    assert w.status(w_id) == "COMPLETED"
    assert w.row(w_id, "b2").status.name == "COMPLETED"


def test_pause_and_restart(world: Any) -> None:
    w = world(flow(guarded("guard", [simple("a")], catch(simple("c")))))
    w_id = w.start("flow")
    w.happen(w_id, Pause(now_ms=w.now_ms))
    w.result(w_id, "a", status=FAILED)
    assert w.shown(w_id) == ["guard:IN_PROGRESS", "a:FAILED"]
    w.happen(w_id, Resume(now_ms=w.now_ms))
    w.result(w_id, "c", status=FAILED)
    assert w.status(w_id) == "FAILED"
    w.happen(w_id, Restart(now_ms=w.now_ms))
    w.result(w_id, "a")
    assert w.status(w_id) == "COMPLETED"


def test_a_join_that_fails_by_a_permissive_error_has_its_name(world: Any) -> None:
    body = [fork("f", [simple("a", permissive=True)], [simple("b")]), join("j", "a", "b")]
    w = world(flow(guarded("guard", body, catch(simple("h"), names=("PaymentDeclined",)))))
    w_id = w.start("flow")
    decline(w, w_id, "a")
    w.result(w_id, "b")
    w.result(w_id, "h")
    assert w.status(w_id) == "COMPLETED"


def test_a_try_does_not_come_with_a_dynamic_fork(world: Any) -> None:
    branch = guarded("late", [simple("x")], catch())
    inputs = {"tasks": [branch], "inputs": {}}
    params = {"dynamicForkTasksParam": "tasks", "dynamicForkTasksInputParamName": "inputs"}
    w = world(flow(task("FORK_JOIN_DYNAMIC", "d", inputs, **params), join("j")))
    w_id = w.start("flow")
    assert w.status(w_id) == "FAILED"
    assert "branch 0 of fork d: the TRY task late cannot come" in (w.header(w_id).reason or "")


def test_a_dynamic_fork_inside_a_body_is_cancelled_with_it(world: Any) -> None:
    inputs = {"forkTaskName": "t", "forkTaskInputs": [{}, {}, {}]}
    body = [task("FORK_JOIN_DYNAMIC", "d", inputs), join("j")]
    w = world(flow(guarded("guard", body, catch(simple("h")))))
    w_id = w.start("flow")
    w.result(w_id, "_t_1", status=FINAL)
    assert [w.row(w_id, f"_t_{n}").status.name for n in (0, 2)] == ["CANCELED", "CANCELED"]
    w.result(w_id, "h")
    assert w.status(w_id) == "COMPLETED"


def test_a_workflow_whose_first_failures_were_all_caught_says_why_it_failed() -> None:
    """The first fifty failed rows are those of a loop of TRYs, which count for nothing."""
    body = guarded("guard", [simple("a")], catch())
    world = World(flow(loop("l", [body], 60), simple("p", permissive=True), simple("after")))
    workflow_id = world.start("flow")
    for turn in range(1, 61):
        world.result(workflow_id, f"a__{turn}", status=TaskStatus.FAILED, reason="caught")
    world.result(workflow_id, "p", status=TaskStatus.FAILED, reason="not caught")
    world.result(workflow_id, "after")

    assert world.status(workflow_id) == "FAILED"
    assert "not caught" in (world.header(workflow_id).reason or "")
