"""WAIT and HUMAN: they wait for a time, or for somebody."""

from __future__ import annotations

from typing import Any

from .. import messages
from ..durations import WaitError, wait_due_ms
from ..needs import ParkedSignals
from ..nodes import WAIT, Node
from ..state import TaskRow, TaskStatus
from ..turn import Turn
from .finishing import Unusable, finish


def prepare_run(turn: Turn, node: Node, row: TaskRow) -> tuple[int | None, list[tuple[int, Any]]]:
    """(when it is over, signals that came before it)"""
    due: int | None = None
    if node.kind == WAIT:
        inputs = row.input.value
        try:
            due = wait_due_ms(inputs.get("duration"), inputs.get("until"), turn.now_ms)
        except WaitError as error:
            raise Unusable(str(error)) from error
    parked: list[tuple[int, Any]] = []
    if node.reference in turn.pending_work()["parked"]:
        parked = turn.ask(ParkedSignals(node.reference)) or []
    return due, [(number, body) for number, body in parked if number not in turn.consumed]


def run(turn: Turn, node: Node, row: TaskRow, found: tuple[int | None, list[tuple[int, Any]]]) -> None:
    due, parked = found
    if parked:
        number, body = parked[0]
        event = messages.parked_signal(body)
        turn.consumed.append(number)
        turn.unpark(node.reference, last=len(parked) == 1)
        finish(turn, node, row, event.status, event.output, event.reason)
    elif due is not None and due <= turn.now_ms:
        finish(turn, node, row, TaskStatus.COMPLETED)
    elif due is not None:
        mine = turn.edit(row)
        turn.set_state(mine, due=due)
        turn.deadlines[mine.seq] = min(due, turn.deadlines.get(mine.seq) or due)
