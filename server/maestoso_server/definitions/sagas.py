"""What TRY, COMPENSATE and `compensate` require of the places where they stand.

All of it is Maestoso's own, so nothing here is only a doubt: what could not be honoured is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..json_text import Path
from .models import WorkflowTask
from .report import Report
from .task_types import STEERING

FAILED_STATUSES = ("FAILED", "FAILED_WITH_TERMINAL_ERROR", "TIMED_OUT", "CANCELED")
"""What a task that a TRY catches may have as its status."""
_FIELDS = (("try_tasks", "tryTasks"), ("catch_cases", "catchCases"), ("finally_tasks", "finallyTasks"))

Part = tuple[str, str]
"""A chain that may be over before the workflow is: (reference of its TRY or compensated task, field)."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node stands."""

    parts: tuple[Part, ...] = ()
    """The parts around it, outermost first."""
    tries: tuple[str, ...] = ()
    """The TRYs around it, outermost first."""
    undoing: str = ""
    """The task that its chain undoes; empty: none."""
    dropped_by: str = ""
    """A loop around it that keeps only its last turns; empty: none."""


def judge_sagas(tasks: list[WorkflowTask], path: Path, report: Report) -> None:
    """Judge all nodes of one definition."""
    found = list(_walk(tasks, path, _Place()))
    parts = {node.task_reference_name: place.parts for node, _, place in found}
    for node, at, place in found:
        _judge_fields(node, at, report)
        _judge_place(node, at, place, report)
        if node.type in ("JOIN", "EXCLUSIVE_JOIN"):
            _judge_join(node, at, place, parts, report)


def _walk(
    tasks: list[WorkflowTask], path: Path, place: _Place
) -> Iterator[tuple[WorkflowTask, Path, _Place]]:
    for index, node in enumerate(tasks):
        at = (*path, index)
        yield node, at, place
        for chain, where, inside in _inside(node, at, place):
            yield from _walk(chain, where, inside)


def _inside(node: WorkflowTask, at: Path, place: _Place) -> Iterator[tuple[list[WorkflowTask], Path, _Place]]:
    reference = node.task_reference_name
    for key, case in node.decision_cases.items():
        yield case, (*at, "decisionCases", key), place
    yield node.default_case, (*at, "defaultCase"), place
    for index, branch in enumerate(node.fork_tasks):
        yield branch, (*at, "forkTasks", index), place
    keeps = node.input_parameters.get("keepLastN") is not None
    loop = _Place(place.parts, place.tries, place.undoing, reference if keeps else place.dropped_by)
    yield node.loop_over, (*at, "loopOver"), loop
    for chain, where in guarded_chains(node):
        part = (reference, ".".join(map(str, where)))
        tries = (*place.tries, reference)
        yield chain, (*at, *where), _Place((*place.parts, part), tries, place.undoing, place.dropped_by)
    chain_place = _Place((*place.parts, (reference, "compensate")), (), reference, place.dropped_by)
    yield node.compensate, (*at, "compensate"), chain_place


def guarded_chains(node: WorkflowTask) -> Iterator[tuple[list[WorkflowTask], Path]]:
    """(nodes, path from the node on) of each chain of a TRY."""
    yield node.try_tasks, ("tryTasks",)
    for index, case in enumerate(node.catch_cases):
        yield case.tasks, ("catchCases", index, "tasks")
    yield node.finally_tasks, ("finallyTasks",)


def _judge_fields(node: WorkflowTask, at: Path, report: Report) -> None:
    if node.type == "TRY":
        _judge_try(node, at, report)
        return
    for attribute, name in _FIELDS:
        if getattr(node, attribute):
            report.fault((*at, name), f"only a TRY has {name}; {node.task_reference_name} is a {node.type}")


def _judge_try(node: WorkflowTask, at: Path, report: Report) -> None:
    named = f"taskType: TRY taskName: {node.name}"
    if not node.try_tasks:
        report.fault((*at, "tryTasks"), f"tryTasks should have at least one task for {named}")
    if not node.catch_cases and not node.finally_tasks:
        report.fault(
            (*at, "catchCases"),
            f"catchCases or finallyTasks is required for {named}: else a TRY does nothing",
        )
    for index, case in enumerate(node.catch_cases):
        place = (*at, "catchCases", index)
        for number, name in enumerate(case.error_names):
            if not name:
                report.fault((*place, "errorNames", number), "an error's name cannot be empty")
        for number, status in enumerate(case.statuses):
            if status not in FAILED_STATUSES:
                report.fault(
                    (*place, "statuses", number),
                    f"{status} is no status of a failed task; there are {', '.join(FAILED_STATUSES)}",
                )
        if not case.error_names and not case.statuses and index + 1 < len(node.catch_cases):
            report.fault(
                place,
                f"case {index} of {node.task_reference_name} catches everything, so the cases after it never "
                "run: make it the last one, or give it errorNames or statuses",
            )


def _judge_place(node: WorkflowTask, at: Path, place: _Place, report: Report) -> None:
    reference = node.task_reference_name
    if node.compensate and node.type in STEERING:
        report.fault(
            (*at, "compensate"),
            f"{node.type} does no work of its own that could be undone: give compensate to the tasks that do",
        )
    if node.type == "COMPENSATE":
        _judge_compensate(node, at, place, report)
    saga = "compensate" if node.compensate else "type" if node.type == "COMPENSATE" else ""
    if place.undoing and (saga or node.type == "TERMINATE"):
        what = "compensate" if node.compensate else node.type
        report.fault(
            (*at, saga or "type"),
            f"{what} cannot stand among the tasks that undo {place.undoing}: nothing undoes an undoing",
        )
    elif saga and place.dropped_by:
        report.fault(
            (*at, saga),
            f"loop {place.dropped_by} keeps only its last turns (keepLastN), so {reference} could not "
            "be undone in the others: leave keepLastN out, or put the body into a SUB_WORKFLOW",
        )


def _judge_compensate(node: WorkflowTask, at: Path, place: _Place, report: Report) -> None:
    of = node.input_parameters.get("of")
    if of is None or (isinstance(of, str) and of in place.tries):
        return
    around = f"those around it are {', '.join(place.tries)}" if place.tries else "there is none around it"
    report.fault(
        (*at, "inputParameters", "of"),
        f"{of} is no TRY around {node.task_reference_name}; {around}. Without `of` it is the innermost one, "
        "or else the whole workflow",
    )


def _judge_join(
    node: WorkflowTask, at: Path, place: _Place, parts: dict[str, tuple[Part, ...]], report: Report
) -> None:
    """A join waits for ever for a task that was cut off with a part that the join is not in."""
    for index, reference in enumerate(node.join_on):
        around = parts.get(reference, ())
        if place.parts[: len(around)] == around:
            continue
        guard, field = around[len(_common(place.parts, around))]
        report.fault(
            (*at, "joinOn", index),
            f"{reference} is inside {field} of {guard} and may never run; "
            + ("join the TRY itself" if field != "compensate" else "nothing waits for a compensation"),
        )


def _common(one: tuple[Part, ...], other: tuple[Part, ...]) -> tuple[Part, ...]:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return one[:length]
