"""A workflow's tasks as a person thinks of them: branches inside their fork, turns inside their loop.

The rows of a workflow are a flat list; which of them lie inside which operator is known from the
definition. Without one (it was given inline, or deleted) all tasks stand on one level.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maestoso.task.v1 import task_pb2


@dataclass(slots=True)
class Entry:
    """A line of the outline: a task, or a heading such as `branch 1` where `task` is None."""

    task: task_pb2.Task | None
    label: str
    children: list[Entry] = field(default_factory=list)

    def under(self, label: str) -> Entry:
        """The heading of this name inside this entry; made where there is none."""
        for child in self.children:
            if child.task is None and child.label == label:
                return child
        heading = Entry(None, label)
        self.children.append(heading)
        return heading


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a definition has a task: inside which container, under which heading, in a loop or not."""

    container: str
    heading: str
    loop: bool


def outline(tasks: Iterable[task_pb2.Task], definition: Mapping[str, Any] | None) -> list[Entry]:
    """The entries of a workflow's current run, in the order of their `seq`."""
    places = dict(_places(definition or {}))
    ordered = sorted(tasks, key=lambda task: task.seq)
    generation = max((task.generation for task in ordered), default=0)
    top: list[Entry] = []
    newest: dict[tuple[str, tuple[int, ...]], Entry] = {}
    forks: dict[tuple[int, ...], Entry] = {}
    for task in ordered:
        if task.generation != generation:
            continue
        path = tuple(task.iteration)
        reference = base_reference(task.reference, len(path))
        entry = Entry(task, reference)
        parent = _parent(places.get(reference), path, newest)
        if parent is None and definition and reference not in places and path in forks:
            parent = forks[path]  # a branch that only the run of a dynamic fork knows
        (top if parent is None else parent.children).append(entry)
        newest[reference, path] = entry
        if task.task_type in ("FORK_JOIN_DYNAMIC", "FORK") and _is_dynamic(definition, reference):
            forks[path] = entry
    return top


def base_reference(reference: str, depth: int) -> str:
    """The reference without the `__N` of `depth` enclosing loops."""
    parts = reference.rsplit("__", depth) if depth else [reference]
    return parts[0] if all(part.isdigit() for part in parts[1:]) else reference


def _parent(
    place: _Place | None,
    path: tuple[int, ...],
    newest: Mapping[tuple[str, tuple[int, ...]], Entry],
) -> Entry | None:
    if place is None or not place.container:
        return None
    container = newest.get((place.container, path[:-1] if place.loop and path else path))
    if container is None:
        return None
    if place.loop and path:
        return container.under(f"turn {path[-1]}")
    return container.under(place.heading) if place.heading else container


def _places(definition: Mapping[str, Any]) -> Iterable[tuple[str, _Place]]:
    """Every task of a definition by its reference."""
    waiting: list[tuple[Sequence[Any], _Place]] = [(definition.get("tasks", []), _Place("", "", False))]
    while waiting:
        tasks, place = waiting.pop()
        for task in tasks:
            reference = task.get("taskReferenceName", "")
            yield reference, place
            waiting.extend(_inside(task, reference))


def _inside(task: Mapping[str, Any], reference: str) -> Iterable[tuple[Sequence[Any], _Place]]:
    """The lists of tasks inside a task."""
    for number, branch in enumerate(task.get("forkTasks") or [], 1):
        yield branch, _Place(reference, f"branch {number}", False)
    for case, tasks in (task.get("decisionCases") or {}).items():
        yield tasks, _Place(reference, f"case {case}", False)
    yield task.get("defaultCase") or [], _Place(reference, "default", False)
    yield task.get("loopOver") or [], _Place(reference, "", True)
    yield task.get("tryTasks") or [], _Place(reference, "", False)
    for number, case in enumerate(task.get("catchCases") or [], 1):
        names = ", ".join([*(case.get("errorNames") or []), *(case.get("statuses") or [])])
        yield (
            case.get("tasks") or [],
            _Place(reference, f"catch {names}" if names else f"catch {number}", False),
        )
    yield task.get("finallyTasks") or [], _Place(reference, "finally", False)
    yield task.get("compensate") or [], _Place(reference, "compensate", False)


def _is_dynamic(definition: Mapping[str, Any] | None, reference: str) -> bool:
    waiting = list((definition or {}).get("tasks", []))
    while waiting:
        task = waiting.pop()
        if task.get("taskReferenceName") == reference:
            return bool(task.get("type") == "FORK_JOIN_DYNAMIC")
        waiting.extend(each for tasks, _ in _inside(task, "") for each in tasks)
    return False
