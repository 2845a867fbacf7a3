"""What people see: trees, tables, times."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import workflow_pb2

from .. import _json
from ._json_view import status_name, view
from ._outline import Entry

# A pipe has no width: nothing is cut short for it.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)

_STYLES = {
    "COMPLETED": "green",
    "COMPLETED_WITH_ERRORS": "yellow",
    "RUNNING": "cyan",
    "IN_PROGRESS": "cyan",
    "SCHEDULED": "blue",
    "PAUSED": "magenta",
    "SKIPPED": "dim",
    "CANCELED": "dim",
    "FAILED": "red",
    "FAILED_WITH_TERMINAL_ERROR": "red",
    "TIMED_OUT": "red",
    "TERMINATED": "red",
}


def print_json(value: Message | Sequence[Message] | Any) -> None:
    """Print one JSON value; integers of any size exact."""
    if isinstance(value, Message):
        value = view(value)
    elif isinstance(value, list):
        value = [view(item) if isinstance(item, Message) else item for item in value]
    print(_json.dumps(value).decode())


def status(message: Message) -> str:
    """A status in its colour."""
    name = status_name(message)
    style = _STYLES.get(name, "white")
    return f"[{style}]{name}[/]"


def when(time: Timestamp) -> str:
    """A time of this machine's zone, to the second."""
    moment = time.ToDatetime(tzinfo=datetime.UTC).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def seconds(value: float) -> str:
    """A time span as people say it: 850 ms, 4.2 s, 3 min 05 s, 2 h 10 min."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{value // 60:.0f} min {value % 60:02.0f} s"
    return f"{value // 3600:.0f} h {value % 3600 // 60:02.0f} min"


def span(start: Timestamp, end: Timestamp) -> str:
    """The time between two moments."""
    return seconds(max(0.0, (end.ToNanoseconds() - start.ToNanoseconds()) / 1e9))


def age(duration: Duration) -> str:
    """A duration of a message."""
    return seconds(duration.ToNanoseconds() / 1e9)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, or say that there is nothing in it."""
    made = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*row)
    for name in made.columns[:1]:  # what a person copies from it
        name.no_wrap, name.overflow = True, "ignore"
        name.min_width = max((len(str(cell)) for cell in name.cells), default=0)
    if made.row_count:
        out.print(made)
    else:
        out.print("nothing")


def workflow_line(workflow: workflow_pb2.Workflow) -> str:
    """A workflow in one line."""
    line = f"[bold]{escape(workflow.name)}[/] version {workflow.version}  {status(workflow)}"
    if workflow.HasField("end_time"):
        line += f"  {span(workflow.create_time, workflow.end_time)}"
    return f"{line}  [dim]{workflow.workflow_id}[/]"


def workflow_tree(
    workflow: workflow_pb2.Workflow, entries: Iterable[Entry], children: dict[str, Tree]
) -> Tree:
    """A workflow with its tasks. `children`: the trees of its sub-workflows by workflow id."""
    tree = Tree(workflow_line(workflow), guide_style="dim")
    for fact in _facts(workflow):
        tree.add(fact)
    _grow(tree, entries, children)
    return tree


def _facts(workflow: workflow_pb2.Workflow) -> Iterable[str]:
    yield f"[dim]started[/] {when(workflow.create_time)}"
    if workflow.reason:
        yield f"[dim]reason[/]  [red]{escape(workflow.reason)}[/]"
    if workflow.correlation_id:
        yield f"[dim]correlation id[/] {escape(workflow.correlation_id)}"
    for name in ("input", "output"):
        payload = getattr(workflow, name)
        if payload:
            yield f"[dim]{name:<7}[/] {escape(_short(payload))}"


def _grow(tree: Tree, entries: Iterable[Entry], children: dict[str, Tree]) -> None:
    for entry in entries:
        if entry.task is None:
            _grow(tree.add(f"[dim]{escape(entry.label)}[/]"), entry.children, children)
            continue
        branch = tree.add(task_line(entry.task, entry.label))
        child = children.get(entry.task.child_workflow_id)
        if child is not None:
            branch.children.append(child)
        _grow(branch, entry.children, children)


def task_line(task: task_pb2.Task, label: str) -> str:
    """A task in one line: name, type, status, times, attempt, worker, reason."""
    line = f"{escape(label)} [dim]{escape(task.task_type)}[/]  {status(task)}"
    if task.HasField("end_time"):
        line += f"  {span(task.schedule_time, task.end_time)}"
    if task.attempt:
        line += f"  attempt {task.attempt + 1}"
    if task.worker_id:
        line += f"  [dim]by {escape(task.worker_id)}[/]"
    if task.reason:
        line += f"  [red]{escape(task.reason)}[/]"
    return line


def _short(payload: bytes, characters: int = 200) -> str:
    text = payload.decode("utf-8", "replace")
    return text if len(text) <= characters else f"{text[:characters]}… ({len(payload):,} bytes)"
