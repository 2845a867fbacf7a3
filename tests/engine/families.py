"""Families of workflows for the tests of what runs again: root, middle and leaf, in several shapes.

Each level does the same: a task, then the level below (the leaf: a task that fails until it is
told not to), inside a shape. Every worker answers with the reference of its task, so that a run's
output says which way it went.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maestoso_server.engine.state import TaskStatus

from .harness import World, flow, fork, join, loop, simple, switch, task

LEVELS = ("root", "middle", "leaf")
BELOW = {"root": "middle", "middle": "leaf"}
Tasks = list[dict[str, Any]]


def _plain(level: str, first: Tasks, call: dict[str, Any]) -> Tasks:
    return [*first, call]


def _fork(level: str, first: Tasks, call: dict[str, Any]) -> Tasks:
    reference = call["taskReferenceName"]
    other = simple(f"{level}_other")
    return [
        *first,
        fork(f"{level}_fork", [call], [other, simple(f"{level}_late")]),
        join(f"{level}_join", reference, f"{level}_late"),
    ]


def _loop(level: str, first: Tasks, call: dict[str, Any]) -> Tasks:
    return [loop(f"{level}_loop", [*first, call, simple(f"{level}_late")], 2)]


def _sub_workflow_in_fork(level: str, first: Tasks, call: dict[str, Any]) -> Tasks:
    reference = call["taskReferenceName"]
    cousin = task("SUB_WORKFLOW", f"{level}_cousin", subWorkflowParam={"name": "cousin"})
    return [
        *first,
        fork(f"{level}_fork", [cousin], [call]),
        join(f"{level}_join", reference, f"{level}_cousin"),
    ]


def _loop_in_fork(level: str, first: Tasks, call: dict[str, Any]) -> Tasks:
    reference = call["taskReferenceName"]
    inner = switch(
        f"{level}_switch",
        "go",
        {
            "go": [
                fork(f"{level}_fork", [call], [simple(f"{level}_other")]),
                join(f"{level}_join", reference, f"{level}_other"),
            ]
        },
    )
    return [*first, loop(f"{level}_loop", [simple(f"{level}_early"), inner], 2)]


def _try(level: str, first: Tasks, call: dict[str, Any]) -> Tasks:
    """The failure is not for its catch case, so it goes on; `finally` runs in any case."""
    guard = task(
        "TRY",
        f"{level}_try",
        tryTasks=[*first, call],
        catchCases=[{"errorNames": ["NEVER"], "tasks": [simple(f"{level}_caught")]}],
        finallyTasks=[simple(f"{level}_finally")],
    )
    return [simple(f"{level}_before"), guard]


def _fork_in_try(level: str, first: Tasks, call: dict[str, Any]) -> Tasks:
    guard = task("TRY", f"{level}_try", tryTasks=_fork(level, first, call))
    return [loop(f"{level}_loop", [guard], 2)]


SHAPES: dict[str, Callable[[str, Tasks, dict[str, Any]], Tasks]] = {
    "plain": _plain,
    "fork": _fork,
    "loop": _loop,
    "sub_workflow_in_fork": _sub_workflow_in_fork,
    "fork_in_switch_in_loop": _loop_in_fork,
    "try": _try,
    "fork_in_try_in_loop": _fork_in_try,
}
"""Another construct joins the matrix by one line here."""


class Family:
    """A world with a root, its middle and its leaf, which fails at its second task."""

    def __init__(self, shape: str, *, ends: bool = True, **world: Any) -> None:
        """`ends`: another task follows; else the construct is the last thing that a level does."""
        build = SHAPES[shape]
        documents = []
        for level in LEVELS:
            below = BELOW.get(level)
            call = (
                simple("leaf_second", {"seen": "${leaf_first.output.by}"})
                if below is None
                else task("SUB_WORKFLOW", f"{level}_call", subWorkflowParam={"name": below})
            )
            tasks = build(level, [simple(f"{level}_first")], call)
            if ends:
                tasks = [*tasks, simple(f"{level}_end", {"seen": f"${{{call['taskReferenceName']}.output}}"})]
            documents.append(flow(*tasks, name=level))
        documents.append(flow(simple("cousin_task"), name="cousin"))
        self.world = World(*documents, **world)
        self.broken = True
        self.root = self.world.start("root", {"n": 1})

    def work(self) -> None:
        """Workers do whatever is there, in order, until nothing is."""
        while todo := [
            (workflow, row)
            for workflow in list(self.world.workflows)
            for row in self.world.open_worker_rows(workflow)
        ]:
            for workflow, row in todo:
                if row.seq not in self.world.workflows[workflow].queue:
                    continue
                failing = self.broken and row.reference == "leaf_second"
                status = TaskStatus.FAILED if failing else TaskStatus.COMPLETED
                answer = {"by": row.reference, "path": list(row.path), "of": row.input.value}
                self.world.report(workflow, row.seq, answer, status, reason="no luck" if failing else None)

    def members(self) -> dict[str, str]:
        """Level -> the id of its newest execution, going down from the root by its newest rows."""
        found = {"root": self.root}
        for level, below in BELOW.items():
            if level in found:
                rows = [row for row in self.world.rows(found[level]) if row.reference == f"{level}_call"]
                if rows and rows[-1].child_id:
                    found[below] = rows[-1].child_id
        return found

    def output(self) -> Any:
        return without_ids(self.world.output(self.root))


def without_ids(value: Any) -> Any:
    """A value without the ids of children, which differ from run to run."""
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key != "subWorkflowId"}
    if isinstance(value, list):
        return [without_ids(item) for item in value]
    return value
