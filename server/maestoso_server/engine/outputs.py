"""Outputs that are put together from the rows of others: once, at the end, without parsing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..payload import Json, encode
from .needs import ScopeRows
from .plan import LOOP_COUNTERS
from .state import Path, TaskRow

if TYPE_CHECKING:
    from .reading import Reading

_NOTHING = b"{}"


def splice(members: Iterable[tuple[str, bytes]]) -> Json:
    """An object of members that are JSON already."""
    return Json(b"{" + b",".join(encode(key) + b":" + raw for key, raw in members) + b"}")


def with_member(value: Json | None, key: str, raw: bytes) -> Json:
    """An object with one more member in front, unless it has that key itself."""
    if value is None or value.raw == _NOTHING:
        return splice([(key, raw)])
    if not isinstance(value.value, dict) or key in value.value:
        return value
    return Json(b"{" + encode(key) + b":" + raw + b"," + value.raw.lstrip()[1:])


def output_raw(row: TaskRow) -> bytes:
    return row.output.raw if row.output is not None else _NOTHING


def rows_inside(reading: Reading, scope: int, path: Path) -> list[TaskRow]:
    """Every row inside the container row `scope` in exactly the turn `path`, by seq, attempts and
    the turns of inner loops included. Costs what is found in a whole view; a partial one asks."""
    rows = {row.seq: row for row in _walk(reading, scope, path)}
    if not reading.view.whole:
        rows.update(_asked(reading, scope, path))
    return [row for _, row in sorted(rows.items())]


def _asked(reading: Reading, scope: int, path: Path) -> Iterator[tuple[int, TaskRow]]:
    undoing: set[int] = set()
    for row in reading.ask(ScopeRows(scope, path)) or ():
        if row.scope in undoing:
            undoing.add(row.seq)
        elif row.seq not in reading.deleted:
            yield row.seq, reading.rows.get(row.seq, row)
        if row.type == "COMPENSATE":
            undoing.add(row.seq)


def _walk(reading: Reading, scope: int, path: Path) -> Iterator[TaskRow]:
    """Down the containers, those of this decision included; inner loops with all their turns. What
    compensates lies apart: its rows belong to the turns of the tasks that they undo."""
    pending = [(scope, path)]
    while pending:
        at = pending.pop()
        for seq in (*reading.view.scopes.get(at, ()), *reading.new_scopes.get(at, ())):
            if seq in reading.deleted:
                continue
            row = reading.rows.get(seq) or reading.view.tasks.get(seq)
            if row is None:
                continue
            yield row
            if row.type == "DO_WHILE":
                last = (row.state or {}).get("turn", 0)
                pending.extend((seq, (*row.path, number)) for number in range(1, last + 1))
            elif row.type != "COMPENSATE" and (row.state is not None or row.type in _CONTAINERS):
                pending.append((seq, row.path))


_CONTAINERS = frozenset({"FORK", "SWITCH", "DECISION", "TRY"})


def loop_output(reading: Reading, loop: TaskRow) -> Json:
    """A DO_WHILE's output with every turn that is kept: `{"iteration": 2, "1": {...}, "2": {...}}`.

    Row order inside a turn; newest attempts; the rows of inner loops are in those loops' outputs,
    the branches of dynamic forks in their joins'.
    """
    state = loop.state or {}
    last = state.get("turn", 0)
    first = max(1, last - state["keep"] + 1) if state.get("keep") else 1
    counters = loop.output.value if loop.output is not None else {}
    members = [(key, encode(value)) for key, value in counters.items() if key in LOOP_COUNTERS]
    turns = _turns_of(reading, loop, first, last)
    members.extend((str(number), raw) for number, raw in turns)
    return splice(members)


def _turns_of(reading: Reading, loop: TaskRow, first: int, last: int) -> Iterator[tuple[int, bytes]]:
    depth = len(loop.path)
    stored: dict[int, dict[int, TaskRow]] = {}
    if not reading.view.whole:
        for seq, row in _asked(reading, loop.seq, loop.path):
            if len(row.path) > depth:
                stored.setdefault(row.path[depth], {})[seq] = row
    for number in range(first, last + 1):
        rows = stored.get(number, {})
        rows.update((row.seq, row) for row in _walk(reading, loop.seq, (*loop.path, number)))
        defined = [row for _, row in sorted(rows.items()) if row.reference in reading.plan.nodes]
        yield number, _turn_raw(defined, depth + 1)


def _turn_raw(rows: list[TaskRow], depth: int) -> bytes:
    inside = {row.reference: row for row in rows if len(row.path) == depth and not row.superseded}
    return splice((reference, output_raw(row)) for reference, row in inside.items()).raw
