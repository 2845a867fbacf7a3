"""SWITCH and DECISION."""

from __future__ import annotations

from typing import Any

import pytest

from .harness import World, flow, fork, join, simple, switch, task


def cased(value: Any, cases: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {**switch("s", value, cases or {"a": [simple("in_a"), simple("more_a")], "none": []}), **more}


def test_rows_of_branching_operators_are_called_by_their_type() -> None:
    """`taskDefName`, as Conductor has it; every other row has its node's name."""
    document = flow(switch("s", "a", {"a": [fork("f", [task("NOOP", "n")]), join("j", "n")]}))
    world = World(document)
    workflow = world.start("flow")
    shown = [(row.reference, row.name) for row in world.rows(workflow)]
    assert shown == [("s", "SWITCH"), ("f", "FORK"), ("n", "n"), ("j", "JOIN")]


@pytest.mark.covers("K20")
@pytest.mark.parametrize(
    ("given", "key"),
    [("a", "a"), (None, "null"), (True, "true"), (1, "1"), (1.5, "1.5"), ({"x": 1}, '{"x":1}')],
)
def test_the_value_is_looked_up_as_text(given: Any, key: str) -> None:
    world = World(flow(cased("${workflow.input.k}", {key: [simple("hit")]}), simple("after")))
    workflow = world.start("flow", {"k": given})
    assert world.shown(workflow) == ["s:COMPLETED", "hit:SCHEDULED"]
    assert world.output(workflow, "s") == {"evaluationResult": [key], "selectedCase": key}
    assert world.row(workflow, "s").input.value["hasChildren"] == "true"


@pytest.mark.covers("K20", "B40")
@pytest.mark.parametrize(("given", "key"), [(1.0, "1"), (1, "1.0")])
def test_whole_numbers_match_with_and_without_fraction(given: Any, key: str) -> None:
    world = World(flow(cased("${workflow.input.k}", {key: [simple("hit")]})))
    workflow = world.start("flow", {"k": given})
    assert world.shown(workflow) == ["s:COMPLETED", "hit:SCHEDULED"]


def test_a_case_runs_in_order_and_then_the_flow_goes_on() -> None:
    world = World(flow(cased("a"), simple("after")))
    workflow = world.start("flow")
    for reference in ("in_a", "more_a", "after"):
        world.result(workflow, reference)
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.covers("K20")
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("none", ["s:COMPLETED", "after:SCHEDULED"]),
        ("other", ["s:COMPLETED", "in_default:SCHEDULED"]),
    ],
)
def test_an_empty_case_runs_nothing_an_absent_one_the_default(value: str, shown: list[str]) -> None:
    world = World(flow(cased(value, defaultCase=[simple("in_default")]), simple("after")))
    assert world.shown(world.start("flow")) == shown


def test_nested_switches_climb_out_together() -> None:
    inner = switch("inner", "x", {"x": [simple("deep")]})
    world = World(flow(switch("outer", "y", {"y": [inner]}), simple("after")))
    workflow = world.start("flow")
    world.result(workflow, "deep")
    assert world.shown(workflow)[-1] == "after:SCHEDULED"
    assert world.row(workflow, "after").scope == 0


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("$.k > 1 ? 'a' : 'none'", ["s:COMPLETED", "in_a:SCHEDULED"]),
        ("$.k > 5 ? 'a' : 'none'", ["s:COMPLETED", "after:SCHEDULED"]),
        ("nonsense(", ["s:FAILED"]),
    ],
)
def test_javascript_decides(expression: str, shown: list[str]) -> None:
    tasks = cased("", evaluatorType="javascript", expression=expression, inputParameters={"k": 2})
    world = World(flow(tasks, simple("after")))
    assert world.shown(world.start("flow")) == shown


def test_an_optional_switch_whose_script_fails_is_skipped() -> None:
    tasks = cased("", evaluatorType="javascript", expression="nonsense(", optional=True)
    world = World(flow(tasks, simple("after")))
    assert world.shown(world.start("flow")) == ["s:COMPLETED_WITH_ERRORS", "after:SCHEDULED"]


def test_an_unknown_evaluator_fails_the_task_by_name() -> None:
    world = World(flow(cased("", evaluatorType="abacus")))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["s:FAILED_WITH_TERMINAL_ERROR"]
    assert world.row(workflow, "s").reason == "No evaluator registered for type: abacus"
    assert world.status(workflow) == "FAILED"


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"caseValueParam": "v"}, ["d:COMPLETED", "in_a:SCHEDULED"]),
        ({"caseExpression": "$.v == 'a' ? 'b' : 'c'"}, ["d:COMPLETED", "in_default:SCHEDULED"]),
        ({"caseValueParam": "absent"}, ["d:COMPLETED", "in_default:SCHEDULED"]),
    ],
)
def test_decision_falls_back_to_its_default_for_an_empty_case(more: dict[str, Any], shown: list[str]) -> None:
    cases = {"a": [simple("in_a")], "b": []}
    tasks = task("DECISION", "d", {"v": "a"}, decisionCases=cases, defaultCase=[simple("in_default")], **more)
    world = World(flow(tasks))
    workflow = world.start("flow")
    assert world.shown(workflow) == shown
    assert list(world.output(workflow, "d")) == ["caseOutput"]
