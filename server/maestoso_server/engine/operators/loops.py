"""DO_WHILE: its body again and again, in turns counted from 1.

The row's `state`: `turn`, the current one (0 before the first); `live`, the chains that still run
in it; `failed_permissive`, what failed in it; `keep`, how many turns are kept (0: all). Its output
holds the counters only while it runs; the turns are put in at the end.
"""

from __future__ import annotations

from typing import Any

from ...payload import Json
from ..faults import first_name, name
from ..guards import over
from ..needs import ScriptAnswer
from ..nodes import Node
from ..outputs import loop_output, rows_inside
from ..rows import PASSED_BY, add_row
from ..state import Path, TaskRow, TaskStatus
from ..steps import BIRTH, TURN
from ..turn import Step, Turn
from .births import arm
from .finishing import Unusable, finish, script, wait_for_script

_COMPLETED = int(TaskStatus.COMPLETED)


def birth(turn: Turn, node: Node, path: Path, scope: int, value: Json) -> None:
    keep = value.value.get("keepLastN")
    if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
        raise Unusable(f"keepLastN of loop {node.reference} must be a whole number above 0, not {keep!r}")
    if not node.branches or node.branches[0] is None:
        raise Unusable(f"loop {node.reference} has no tasks")
    state = {"turn": 0, "live": 0, "keep": keep or 0}
    row = add_row(turn, node, path, scope, TaskStatus.IN_PROGRESS, value, state=state)
    arm(turn, node, row.seq)
    turn.later((TURN, row.seq, 0))


class _Verdict:
    """What comes after a turn."""

    __slots__ = (
        "again",
        "answer",
        "error",
        "failed",
        "item",
        "listed",
        "name",
        "node",
        "old",
        "output",
        "row",
        "what",
    )

    def __init__(self, node: Node, row: TaskRow) -> None:
        self.node = node
        self.row = row
        self.again = False
        self.listed = False
        self.item: Any = None
        self.failed: str | None = None
        self.name: str | None = None
        """The error's, where something failed in the turn."""
        self.error: str | None = None
        self.what: tuple[str, str, Any] | None = None
        self.answer: ScriptAnswer | None = None
        self.old: list[TaskRow] = []
        """Rows of the turn that is no longer kept."""
        self.output: Json | None = None


def prepare_turn(turn: Turn, step: Step) -> _Verdict | None:
    """None where that turn is over already, or something runs in it again."""
    row = turn.row(step[1])
    state = row.state or {} if row is not None else {}
    if row is None or row.status >= _COMPLETED or state.get("turn") != step[2] or state.get("live"):
        return None
    node = turn.node_of(row)
    if node is None:
        return None
    found = _Verdict(node, row)
    try:
        _judge(turn, found)
    except Exception as error:  # whatever the data is: the loop fails, not the decision
        found.error = f"loop {node.reference} cannot be evaluated: {error}"
    if state.get("keep") and state["turn"] > state["keep"]:
        found.old = _inside(turn, row, state["turn"] - state["keep"])
    if not found.again and not turn.lacking:
        found.output = loop_output(turn, row)
    return found


def _judge(turn: Turn, found: _Verdict) -> None:
    row, node = found.row, found.node
    state = row.state or {}
    number = state["turn"]
    if state.get("failed_permissive"):
        failed = [inner for inner in _inside(turn, row, number) if _failed_in_body(turn, row, inner)]
        failed = [inner for inner in failed if not _is_caught(turn, inner)]
        found.failed = " ".join(inner.reason for inner in failed if inner.reason)
        found.name = first_name(failed)
        return
    if node.items is not None:
        items = _items(turn, node, row)
        found.listed = True
        if number >= len(items):
            return
        found.item = items[number]
    if number == 0:
        found.again = True
    elif node.condition is None:
        found.again = found.listed
    elif not turn.lacking:
        _ask(turn, found)


def _items(turn: Turn, node: Node, row: TaskRow) -> list[Any]:
    if node.items is None:
        return []
    value = turn.evaluate(node.items, row.path, node.inputs_whole, node.loops)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def counters_of(turn: Turn, node: Node, row: TaskRow, number: int) -> dict[str, Any]:
    """The counters that a loop shows in this turn, to run in it again."""
    counters: dict[str, Any] = {"iteration": number}
    shown = row.output.value if row.output is not None else {}
    if "loopIndex" in shown:
        counters["loopIndex"] = number - 1
        counters["loopItem"] = shown.get("loopItem")
        if number != (row.state or {}).get("turn"):
            items = _items(turn, node, row)
            counters["loopItem"] = items[number - 1] if number <= len(items) else None
    return counters


def _ask(turn: Turn, found: _Verdict) -> None:
    """Evaluate the condition over what it reads."""
    node, row = found.node, found.row
    condition = node.condition
    if condition is None:
        return
    number = (row.state or {})["turn"]
    value = dict(turn.resolve(node, row.path, row.seq))
    inside = (*row.path, number)
    for reference in condition.references:
        inner = turn.visible(reference, inside, (*node.loops, node.reference))
        if inner is not None:
            value[reference] = inner.output.value if inner.output is not None else {}
    counters = row.output.value if row.output is not None else {}
    value[node.reference] = loop_output(turn, row).value if condition.whole else counters
    if found.listed:
        value["loopIndex"] = number - 1
        value["loopItem"] = counters.get("loopItem")
    if turn.lacking:
        return
    found.what = (condition.language, condition.text, value)
    found.answer = script(turn, row, *found.what)
    answer = found.answer
    if answer is not None and not answer.slow:
        if answer.error is not None:
            found.error = f"Unable to evaluate condition {condition.text}, exception {answer.error}"
        else:
            found.again = _is_true(answer.value)


def _is_true(value: Any) -> bool:
    return value if isinstance(value, bool) else isinstance(value, int | float) and value > 0


def _failed_in_body(turn: Turn, loop: TaskRow, row: TaskRow) -> bool:
    """A task of the loop's own body: those of inner loops and of dynamic forks fail those."""
    own = len(row.path) == len(loop.path) + 1 and row.reference in turn.plan.nodes
    return own and TaskStatus.FAILED <= row.status <= TaskStatus.CANCELED and not row.superseded


def _is_caught(turn: Turn, row: TaskRow) -> bool:
    """A TRY in the turn has taken the failure."""
    node = turn.node_of(row) if turn.plan.guarded else None
    return node is not None and over(turn, node, row.path) is not None


def _inside(turn: Turn, loop: TaskRow, number: int) -> list[TaskRow]:
    return rows_inside(turn, loop.seq, (*loop.path, number))


def act_turn(turn: Turn, _step: Step, found: _Verdict | None) -> None:
    if found is None:
        return
    node, row = found.node, found.row
    if found.answer is not None and found.answer.slow and found.what is not None:
        wait_for_script(turn, row, *found.what)
        return
    for old in found.old:
        _forget(turn, old)
    if found.failed is not None:
        name(turn, finish(turn, node, row, TaskStatus.FAILED, found.output, found.failed), found.name)
    elif found.error is not None:
        finish(turn, node, row, TaskStatus.FAILED_WITH_TERMINAL_ERROR, found.output, found.error)
    elif found.again:
        _next(turn, found)
    else:
        finish(turn, node, row, TaskStatus.COMPLETED, _counted(found))


def _forget(turn: Turn, row: TaskRow) -> None:
    """A row of a turn that is not kept. A permissive failure that goes with it fails nothing any more."""
    node = turn.node_of(row)
    passed = (row.state or {}).get("passed") == PASSED_BY and row.status >= TaskStatus.FAILED
    if passed and node is not None and node.guard is None and turn.header.permissive_failed:
        turn.header.permissive_failed -= 1
    turn.delete(row)


def _counted(found: _Verdict) -> Json | None:
    """An empty list still says how many turns there were."""
    if (found.row.state or {}).get("turn") == 0:
        return Json.of({"iteration": 0})
    return found.output


def _next(turn: Turn, found: _Verdict) -> None:
    row = turn.edit(found.row)
    state = row.state or {}
    number = state["turn"] + 1
    row.state = {"turn": number, "live": 1, "keep": state.get("keep", 0)}
    if state.get("passed"):
        row.state["passed"] = state["passed"]
    counters: dict[str, Any] = {"iteration": number}
    if found.listed:
        counters["loopIndex"] = number - 1
        counters["loopItem"] = found.item
    row.output = Json.of(counters)
    row.updated_ms = turn.now_ms
    head = found.node.branches[0]
    if head is not None:
        turn.first((BIRTH, head.reference, (*row.path, number), row.seq))
