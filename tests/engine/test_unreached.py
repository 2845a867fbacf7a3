"""Joins that name tasks which never run: they wait for what can still come, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.events import Retry
from maestoso_server.engine.state import TaskStatus

from .harness import World, flow, fork, join, loop, simple, switch, task


def cased(case: str, *, on: tuple[str, ...], branch: Any = None) -> dict[str, Any]:
    """A fork over `plain` and a switch with cases `a` and `b`, joined on what `on` names."""
    chosen = switch("s", case, {"a": [simple("in_a"), simple("end_a")], "b": [simple("in_b")]})
    return flow(fork("f", [simple("plain")], [branch or chosen]), join("j", *on), simple("after"))


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("case", ["a", "b", "other"])
@pytest.mark.parametrize("first", ["plain", "case"])
def test_a_task_of_a_case_that_was_not_chosen_is_not_waited_for(case: str, first: str, partial: bool) -> None:
    world = World(cased(case, on=("plain", "end_a", "in_b")), partial=partial)
    workflow = world.start("flow")
    in_case = {"a": ["in_a", "end_a"], "b": ["in_b"], "other": []}[case]
    for reference in ["plain", *in_case] if first == "plain" else [*in_case, "plain"]:
        assert world.row(workflow, "j").status.name == "IN_PROGRESS"
        world.result(workflow, reference, {"of": reference})
    assert world.row(workflow, "j").status.name == "COMPLETED"
    joined = ["plain", *in_case[-1:]]
    assert world.output(workflow, "j") == {reference: {"of": reference} for reference in joined}


@pytest.mark.parametrize("partial", [False, True])
def test_the_case_that_was_chosen_is_waited_for_instead(partial: bool) -> None:
    world = World(cased("a", on=("plain", "in_b")), partial=partial)
    workflow = world.start("flow")
    world.result(workflow, "plain")
    for reference in ("in_a", "end_a"):
        assert world.row(workflow, "j").status.name == "IN_PROGRESS"
        world.result(workflow, reference)
    assert world.row(workflow, "j").status.name == "COMPLETED"
    assert world.output(workflow, "j") == {}


def test_a_join_on_nothing_but_such_tasks_ends_when_the_switch_has_chosen() -> None:
    late = [simple("before"), switch("s", "b", {"a": [simple("in_a")], "b": []})]
    world = World(flow(fork("f", late, [simple("slow")]), join("j", "in_a"), simple("after")))
    workflow = world.start("flow")
    assert world.row(workflow, "j").status.name == "IN_PROGRESS"
    world.result(workflow, "before")
    assert world.shown(workflow)[-1] == "after:SCHEDULED"


def test_a_task_behind_two_switches_is_given_up_by_whichever_turns_away() -> None:
    for outer, inner, ends in (("x", "y", True), ("x", "a", False), ("a", "a", True), ("x", "z", True)):
        inside = switch("inner", inner, {"a": [simple("deep")], "y": [simple("other")]})
        chosen = switch("outer", outer, {"x": [inside], "a": []})
        world = World(flow(fork("f", [chosen], [simple("plain")]), join("j", "deep", "plain")))
        workflow = world.start("flow")
        world.result(workflow, "plain")
        if inner == "y":
            assert not world.row(workflow, "j").status.terminal, "the case that was chosen still runs"
            world.result(workflow, "other")
        assert world.row(workflow, "j").status.terminal is ends, (outer, inner)


def test_a_switch_that_fails_and_is_optional_gives_up_all_its_cases() -> None:
    broken = {**switch("s", "a", {"a": [simple("in_a")]}), "evaluatorType": "abacus", "optional": True}
    world = World(cased("", on=("plain", "in_a"), branch=broken))
    workflow = world.start("flow")
    world.result(workflow, "plain")
    assert world.row(workflow, "j").status.name == "COMPLETED"


def test_an_inner_join_whose_fork_fails_and_is_optional_is_not_waited_for() -> None:
    inner = task(
        "FORK_JOIN_DYNAMIC",
        "inner",
        {"list": "no list", "inputs": {}},
        optional=True,
        dynamicForkTasksParam="list",
        dynamicForkTasksInputParamName="inputs",
    )
    branch = [inner, join("inner_join"), simple("then")]
    world = World(flow(fork("f", branch, [simple("plain")]), join("j", "inner_join", "plain")))
    workflow = world.start("flow")
    world.result(workflow, "plain")
    assert world.row(workflow, "j").status.name == "COMPLETED"


@pytest.mark.parametrize("partial", [False, True])
def test_a_task_inside_a_loop_is_done_when_the_loop_is(partial: bool) -> None:
    branch = [loop("turns", [simple("body")], 2)]
    world = World(
        flow(fork("f", branch, [simple("plain")]), join("j", "body", "plain"), simple("after")),
        partial=partial,
    )
    workflow = world.start("flow")
    world.result(workflow, "plain")
    world.result(workflow, "body__1")
    assert world.row(workflow, "j").status.name == "IN_PROGRESS"
    world.result(workflow, "body__2")
    assert world.row(workflow, "j").status.name == "COMPLETED"


def test_a_join_in_a_loop_does_not_wait_for_what_is_outside_of_it() -> None:
    body = [fork("f", [simple("inside")], [simple("more")]), join("j", "inside", "outside")]
    world = World(flow(simple("outside"), loop("turns", body, 1)))
    workflow = world.start("flow")
    world.result(workflow, "outside")
    world.result(workflow, "inside__1")
    assert world.row(workflow, "j__1").status.name == "COMPLETED"


def test_a_switch_in_a_loop_is_given_up_in_each_turn_anew() -> None:
    case = "${turns.output.iteration}"
    body = [
        fork("f", [simple("plain")], [switch("s", case, {"2": [simple("even")]})]),
        join("j", "plain", "even"),
    ]
    world = World(flow(loop("turns", body, 2)))
    workflow = world.start("flow")
    world.result(workflow, "plain__1")
    world.result(workflow, "plain__2")
    assert world.row(workflow, "j__1").status.name == "COMPLETED"
    assert world.row(workflow, "j__2").status.name == "IN_PROGRESS"
    world.result(workflow, "even__2")
    assert world.status(workflow) == "COMPLETED"


def test_a_joined_switch_that_failed_is_still_given_up_after_a_retry() -> None:
    world = World(cased("b", on=("plain", "end_a", "in_b")))
    workflow = world.start("flow")
    world.result(workflow, "in_b")
    world.result(workflow, "plain", status=TaskStatus.FAILED)
    assert world.status(workflow) == "FAILED"
    world.happen(workflow, Retry(now_ms=world.now_ms))
    world.result(workflow, "plain")
    assert world.row(workflow, "j").status.name == "COMPLETED"


@pytest.mark.covers("K21")
def test_an_empty_join_on_is_done_at_once() -> None:
    world = World(flow(fork("f", [simple("a")], [simple("b")]), join("j"), simple("after")))
    workflow = world.start("flow")
    assert world.shown(workflow)[-1] == "after:SCHEDULED"


def test_an_exclusive_join_of_which_nothing_was_chosen_is_done() -> None:
    chosen = switch("s", "none", {"a": [simple("in_a")], "none": []})
    world = World(flow(chosen, task("EXCLUSIVE_JOIN", "j", joinOn=["in_a"]), simple("after")))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["s:COMPLETED", "j:COMPLETED", "after:SCHEDULED"]


def test_a_default_of_an_exclusive_join_on_a_task_that_is_none_changes_nothing() -> None:
    first = simple("first")
    world = World(flow(first, {**simple("second"), "defaultExclusiveJoinTask": ["first", "second"]}))
    workflow = world.start("flow")
    world.result(workflow, "first")
    assert world.shown(workflow) == ["first:COMPLETED", "second:SCHEDULED"]
