"""A flat list of task rows as the outline that people see."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso._cli._outline import Entry, base_reference, outline
from maestoso.task.v1 import task_pb2


def row(seq: int, reference: str, task_type: str = "SIMPLE", **more: Any) -> task_pb2.Task:
    return task_pb2.Task(seq=seq, reference=reference, task_type=task_type, **{"generation": 1, **more})


def simple(reference: str) -> dict[str, Any]:
    return {"name": reference, "taskReferenceName": reference, "type": "SIMPLE"}


def shape(entries: list[Entry]) -> list[Any]:
    """Labels, with what is inside as a list behind them."""
    lines: list[Any] = []
    for entry in entries:
        lines.append(entry.label)
        if entry.children:
            lines.append(shape(entry.children))
    return lines


def test_rows_without_a_definition_stand_on_one_level() -> None:
    assert shape(outline([row(2, "b"), row(1, "a")], None)) == ["a", "b"]


def test_branches_stand_inside_their_fork() -> None:
    fork = {
        "taskReferenceName": "fork",
        "type": "FORK_JOIN",
        "forkTasks": [[simple("a"), simple("b")], [simple("c")]],
    }
    definition = {"tasks": [fork, {"taskReferenceName": "join", "type": "JOIN"}]}
    rows = [row(1, "fork", "FORK"), row(2, "a"), row(3, "c"), row(4, "join", "JOIN"), row(5, "b")]

    assert shape(outline(rows, definition)) == ["fork", ["branch 1", ["a", "b"], "branch 2", ["c"]], "join"]


def test_taken_case_stands_inside_its_switch() -> None:
    switch = {
        "taskReferenceName": "switch",
        "type": "SWITCH",
        "decisionCases": {"abroad": [simple("customs")]},
        "defaultCase": [simple("stamp")],
    }

    rows = [row(1, "switch", "SWITCH"), row(2, "customs")]
    assert shape(outline(rows, {"tasks": [switch]})) == ["switch", ["case abroad", ["customs"]]]
    rows = [row(1, "switch", "SWITCH"), row(2, "stamp")]
    assert shape(outline(rows, {"tasks": [switch]})) == ["switch", ["default", ["stamp"]]]


def test_turns_stand_inside_their_loops() -> None:
    inner = {"taskReferenceName": "inner", "type": "DO_WHILE", "loopOver": [simple("step")]}
    outer = {"taskReferenceName": "outer", "type": "DO_WHILE", "loopOver": [inner]}
    rows = [
        row(1, "outer", "DO_WHILE"),
        row(2, "inner__1", "DO_WHILE", iteration=[1]),
        row(3, "step__1__1", iteration=[1, 1]),
        row(4, "step__1__2", iteration=[1, 2]),
        row(5, "inner__2", "DO_WHILE", iteration=[2]),
        row(6, "step__2__1", iteration=[2, 1]),
    ]

    assert shape(outline(rows, {"tasks": [outer]})) == [
        "outer",
        [
            "turn 1",
            ["inner", ["turn 1", ["step"], "turn 2", ["step"]]],
            "turn 2",
            ["inner", ["turn 1", ["step"]]],
        ],
    ]


def test_attempts_stand_side_by_side() -> None:
    assert shape(outline([row(1, "a"), row(2, "a", attempt=1)], {"tasks": [simple("a")]})) == ["a", "a"]


def test_tasks_that_only_a_dynamic_fork_knows_stand_inside_it() -> None:
    fork = {"taskReferenceName": "fork", "type": "FORK_JOIN_DYNAMIC"}
    definition = {"tasks": [fork, {"taskReferenceName": "join", "type": "JOIN"}]}
    rows = [row(1, "fork", "FORK"), row(2, "item_1"), row(3, "item_2"), row(4, "join", "JOIN")]

    assert shape(outline(rows, definition)) == ["fork", ["item_1", "item_2"], "join"]


def test_earlier_runs_are_left_out() -> None:
    rows = [row(1, "a"), row(2, "b"), row(3, "a", generation=2)]

    assert shape(outline(rows, None)) == ["a"]


@pytest.mark.parametrize(
    ("reference", "depth", "expected"),
    [
        ("a", 0, "a"),
        ("a__1", 1, "a"),
        ("a__1__2", 2, "a"),
        ("a__b", 0, "a__b"),
        ("a__b__3", 1, "a__b"),
        ("a__b", 1, "a__b"),
    ],
)
def test_reference_without_its_iterations(reference: str, depth: int, expected: str) -> None:
    assert base_reference(reference, depth) == expected
