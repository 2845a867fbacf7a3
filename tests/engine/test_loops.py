"""DO_WHILE: turns, conditions, lists, keepLastN, nesting, and what a turn costs."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine import needs
from maestoso_server.engine.conditions import Condition
from maestoso_server.engine.state import TaskStatus

from .harness import World, flow, inline, join, loop, simple, task


def test_a_loop_gives_the_reasons_of_its_own_body_only() -> None:
    """What failed in an inner loop is in that loop's reason already."""
    inner = {**loop("inner", [simple("a", permissive=True)], 1), "permissive": True}
    world = World(flow(loop("outer", [inner], 1)))
    workflow = world.start("flow")
    world.result(workflow, "a__1__1", status=TaskStatus.FAILED, reason="no luck")
    assert (world.row(workflow, "inner__1").reason, world.row(workflow, "outer").reason) == ("no luck",) * 2


def test_a_permissive_failure_of_a_turn_that_is_not_kept_fails_nothing() -> None:
    """Its row is gone, and the workflow ended as FAILED without a reason."""
    inner = {**loop("inner", [simple("a", permissive=True)], 1), "optional": True}
    world = World(flow(loop("outer", [inner], 2, inputParameters={"keepLastN": 1})))
    workflow = world.start("flow")
    world.result(workflow, "a__1__1", status=TaskStatus.FAILED, reason="no luck")
    assert world.header(workflow).permissive_failed == 1
    world.result(workflow, "a__2__1")
    assert (world.header(workflow).permissive_failed, world.status(workflow)) == (0, "COMPLETED")


def test_the_iteration_of_a_loop_is_its_counter() -> None:
    """While it runs and afterwards; that of a task in it is the turn it belongs to."""
    body = [simple("a", {"loop": "${l.iteration}"})]
    world = World(
        flow(loop("l", body, 2), simple("after", {"loop": "${l.iteration}", "a": "${a.iteration}"}))
    )
    workflow = world.start("flow")
    for turn in (1, 2):
        assert world.row(workflow, f"a__{turn}").input.value == {"loop": turn}
        world.result(workflow, f"a__{turn}")
    assert world.row(workflow, "after").input.value == {"loop": 2, "a": 2}


@pytest.mark.covers("K5")
def test_a_second_loop_reads_the_newest_turn_of_the_first() -> None:
    """Not the turn of the same number: the loops have nothing to do with each other."""
    first = loop("one", [simple("a")], 3)
    second = loop("two", [simple("b", {"seen": "${a.output.n}"})], 1)
    for partial in (False, True):
        world = World(flow(first, second), partial=partial)
        workflow = world.start("flow")
        for turn in (1, 2, 3):
            world.result(workflow, f"a__{turn}", {"n": turn})
        assert world.row(workflow, "b__1").input.value == {"seen": 3}


def test_a_loop_sees_the_branches_of_a_dynamic_fork_through_their_join_only() -> None:
    """They are no tasks of its body: not in its output, and a permissive one fails the join alone."""
    tasks = [simple("x", permissive=True), simple("y")]
    inputs = {"tasks": tasks, "inputs": {}}
    params = {"dynamicForkTasksParam": "tasks", "dynamicForkTasksInputParamName": "inputs"}
    body = [task("FORK_JOIN_DYNAMIC", "d", inputs, **params), join("j", optional=True), simple("after")]
    world = World(flow(loop("l", body, 1)))
    workflow = world.start("flow")
    world.result(workflow, "y__1", {"n": 1})
    world.result(workflow, "x__1", status=TaskStatus.FAILED)
    assert world.row(workflow, "j__1").status == TaskStatus.COMPLETED_WITH_ERRORS
    world.result(workflow, "after__1", {"n": 2})
    assert world.row(workflow, "l").status == TaskStatus.COMPLETED
    expected = {"iteration": 1, "1": {"d": {}, "j": {"y__1": {"n": 1}}, "after": {"n": 2}}}
    assert world.output(workflow, "l") == expected


def test_turns_and_their_outputs() -> None:
    world = World(
        flow(loop("l", [simple("a", {"n": "${l.output.iteration}"}), simple("b")], 2), simple("after"))
    )
    workflow = world.start("flow")
    for turn in (1, 2):
        assert world.row(workflow, f"a__{turn}").input.value == {"n": turn}
        world.result(workflow, f"a__{turn}", {"x": turn})
        world.result(workflow, f"b__{turn}")
    assert world.output(workflow, "l") == {
        "iteration": 2,
        "1": {"a": {"x": 1}, "b": {}},
        "2": {"a": {"x": 2}, "b": {}},
    }
    assert world.shown(workflow)[-1] == "after:SCHEDULED"


def test_the_newest_turn_is_what_the_base_name_means() -> None:
    body = [simple("a", {"mine": "${a.output.n}"}), simple("b", {"a": "${a.output.n}"})]
    world = World(flow(loop("l", body, 2), simple("after", {"a": "${a.output.n}"})))
    workflow = world.start("flow")
    for turn in (1, 2):
        world.result(workflow, f"a__{turn}", {"n": turn})
        world.result(workflow, f"b__{turn}")
    inputs = [row.input.value for row in world.rows(workflow)[1:]]
    assert inputs == [{"mine": None}, {"a": 1}, {"mine": 1}, {"a": 2}, {"a": 2}]


@pytest.mark.parametrize(
    ("condition", "turns"),
    [
        ("$.a.n < 3", 3),
        ("$.l['iteration'] < 2", 2),
        ("if ($.l.iteration < $.most) { true } else { false }", 2),
        ("$.l['1']['a']['n'] == 1 && $.l.iteration < 2", 2),
        ("2 - $.l.iteration", 2),
        ("'true'", 1),
        ("null", 1),
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_conditions(condition: str, turns: int, partial: bool) -> None:
    world = World(
        flow(loop("l", [simple("a")], loopCondition=condition, inputParameters={"most": 2})), partial=partial
    )
    workflow = world.start("flow")
    for turn in range(1, turns + 1):
        world.result(workflow, f"a__{turn}", {"n": turn})
    assert world.status(workflow) == "COMPLETED"
    assert world.output(workflow, "l")["iteration"] == turns


@pytest.mark.parametrize(
    ("text", "references", "whole"),
    [
        ("$.loop['iteration'] < 3", (), False),
        ("$.loop.iteration < $.n && $['a'].x", ("a",), False),
        ("$.loop['2'].a", ("a", "b"), True),
        ("JSON.stringify($)", ("a", "b"), True),
        ("$[name]", ("a", "b"), True),
        ("$.loop", ("a", "b"), True),
        ("`${$.a}`", ("a",), False),
    ],
)
def test_what_a_condition_reads(text: str, references: tuple[str, ...], whole: bool) -> None:
    condition = Condition(text, "loop", frozenset({"a", "b"}))
    assert (condition.references, condition.whole) == (references, whole)


def test_a_condition_that_cannot_be_evaluated_fails_the_loop() -> None:
    world = World(flow(loop("l", [inline("a", "1")], loopCondition="nonsense(")))
    workflow = world.start("flow")
    assert world.row(workflow, "l").status == TaskStatus.FAILED_WITH_TERMINAL_ERROR
    assert (world.row(workflow, "l").reason or "").startswith(
        "Unable to evaluate condition nonsense(, exception"
    )
    assert world.status(workflow) == "FAILED"


@pytest.mark.parametrize(
    ("items", "seen"),
    [(["x", "y"], ["x", "y"]), ({"k": 1}, [{"k": 1}]), ("one", ["one"])],
)
def test_a_list_is_gone_through(items: Any, seen: list[Any]) -> None:
    body = [simple("a", {"item": "${l.output.loopItem}", "index": "${l.output.loopIndex}"})]
    world = World(flow(loop("l", body, items="${workflow.input.items}")))
    workflow = world.start("flow", {"items": items})
    for turn in range(1, len(seen) + 1):
        world.result(workflow, f"a__{turn}")
    inputs = [row.input.value for row in world.rows(workflow)[1:]]
    assert inputs == [{"item": item, "index": index} for index, item in enumerate(seen)]
    assert world.status(workflow) == "COMPLETED"


@pytest.mark.parametrize("items", [[], None])
def test_an_empty_list_completes_without_a_turn(items: Any) -> None:
    world = World(flow(loop("l", [simple("a")], items="${workflow.input.items}")))
    workflow = world.start("flow", {"items": items})
    assert (world.shown(workflow), world.output(workflow)) == (["l:COMPLETED"], {"iteration": 0})


def test_a_list_stops_where_its_condition_says_so() -> None:
    world = World(
        flow(loop("l", [simple("a")], items="${workflow.input.items}", loopCondition="$.loopItem < 2"))
    )
    workflow = world.start("flow", {"items": [1, 2, 3]})
    world.result(workflow, "a__1")
    world.result(workflow, "a__2")
    assert world.output(workflow, "l")["iteration"] == 2


@pytest.mark.parametrize("partial", [False, True])
def test_keep_last_n_deletes_older_turns(partial: bool) -> None:
    body = [simple("a", retryCount=1, taskDefinition={"name": "a", "retryDelaySeconds": 0})]
    world = World(flow(loop("l", body, 4, inputParameters={"keepLastN": 2})), partial=partial)
    workflow = world.start("flow")
    for turn in range(1, 5):
        world.result(workflow, f"a__{turn}", status=TaskStatus.FAILED)
        world.result(workflow, f"a__{turn}", {"n": turn})
    assert world.output(workflow, "l") == {"iteration": 4, "3": {"a": {"n": 3}}, "4": {"a": {"n": 4}}}
    assert {row.path for row in world.rows(workflow)} == {(), (3,), (4,)}
    assert len(world.rows(workflow)) == 5


@pytest.mark.parametrize("keep", ["2", 0, 1.5, True])
def test_keep_last_n_must_be_a_number(keep: Any) -> None:
    world = World(flow(loop("l", [simple("a")], 2, inputParameters={"keepLastN": keep})))
    workflow = world.start("flow")
    assert world.shown(workflow) == ["l:FAILED_WITH_TERMINAL_ERROR"]
    assert "keepLastN" in (world.row(workflow, "l").reason or "")


def test_nested_loops_count_for_themselves() -> None:
    inner = loop(
        "inner", [simple("a", {"o": "${outer.output.iteration}", "i": "${inner.output.iteration}"})], 2
    )
    world = World(flow(loop("outer", [inner], 2)))
    workflow = world.start("flow")
    for outer in (1, 2):
        for turn in (1, 2):
            row = world.row(workflow, f"a__{outer}__{turn}")
            assert row.input.value == {"o": outer, "i": turn}
            world.result(workflow, f"a__{outer}__{turn}", {"at": [outer, turn]})
    assert world.output(workflow, "outer")["2"]["inner"] == {
        "iteration": 2,
        "1": {"a": {"at": [2, 1]}},
        "2": {"a": {"at": [2, 2]}},
    }


def test_a_failed_body_ends_the_workflow_a_permissive_one_the_loop() -> None:
    for permissive, status, reason in ((False, "CANCELED", None), (True, "FAILED", "no luck")):
        world = World(flow(loop("l", [simple("a", permissive=permissive)], 2)))
        workflow = world.start("flow")
        world.result(workflow, "a__1", status=TaskStatus.FAILED, reason="no luck")
        assert (world.row(workflow, "l").status.name, world.row(workflow, "l").reason) == (status, reason)
        assert world.status(workflow) == "FAILED"


def test_many_turns_of_instant_bodies_need_no_depth() -> None:
    world = World(
        flow(loop("l", [inline("a", "$.n - 1", {"n": "${l.output.iteration}"})], 500), simple("after"))
    )
    workflow = world.start("flow")
    assert world.output(workflow, "l")["500"] == {"a": {"result": 499}}
    assert world.most_rows <= 510


def _cost_of_turns(keep: dict[str, Any], first: int, last: int) -> list[int]:
    """Rows that a partial view is given in each turn: what a turn costs the store."""
    world = World(flow(loop("l", [simple("a")], last + 5, inputParameters=keep)), partial=True)
    workflow = world.start("flow")
    costs = []
    for turn in range(1, last + 1):
        world.needs_asked.clear()
        seq = world.row(workflow, f"a__{turn}").seq
        world.report(workflow, seq, {"n": turn})
        costs.append(
            sum(
                len(world._row_answer(world.workflows[workflow], need))
                for need in world.needs_asked
                if isinstance(need, needs.Rows | needs.ScopeRows)
            )
        )
    return costs[first - 1 :]


@pytest.mark.parametrize("keep", [{}, {"keepLastN": 3}])
def test_a_turn_costs_the_same_however_many_went_before(keep: dict[str, Any]) -> None:
    costs = _cost_of_turns(keep, first=10, last=60)
    assert len(set(costs)) == 1 and costs[0] <= 5


def test_a_template_that_reads_turns_by_number_sees_them_while_the_loop_runs() -> None:
    body = [simple("a", {"first": "${l.output.1.a.n}", "all": "${l.output}"})]
    for partial in (False, True):
        world = World(flow(loop("l", body, 3)), partial=partial)
        workflow = world.start("flow")
        world.result(workflow, "a__1", {"n": 1})
        expected = {"iteration": 2, "1": {"a": {"n": 1}}, "2": {}}
        assert world.row(workflow, "a__2").input.value == {"first": 1, "all": expected}


def test_variables_drive_a_loop() -> None:
    body = [task("SET_VARIABLE", "v", {"n": "${l.output.iteration}"})]
    condition = {"loopCondition": "$.n < 3", "inputParameters": {"n": "${workflow.variables.n}"}}
    world = World(flow(loop("l", body, **condition), variables={"n": 0}))
    workflow = world.start("flow")
    assert world.header(workflow).variables.value == {"n": 3}
    assert world.status(workflow) == "COMPLETED"


def test_large_outputs_are_written_by_several_decisions() -> None:
    """A save is bounded in bytes, too; what comes of it is the same."""
    decisions = []
    for size in (10, 400_000):
        world = World(
            flow(loop("l", [inline("n", "({text: $.text})", {"text": "${workflow.input.text}"})], 8))
        )
        run = world.start("flow", {"text": "x" * size})
        assert world.shown(run) == ["l:COMPLETED", *(f"n__{number}:COMPLETED" for number in range(1, 9))]
        decisions.append(world.decisions)
    small, large = decisions
    assert small == 1 < large
