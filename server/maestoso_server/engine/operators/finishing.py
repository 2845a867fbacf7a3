"""Ending a row that the engine works itself, and asking for the scripts that it runs."""

from __future__ import annotations

from typing import Any

from ...definitions.names import why_unusable
from ...payload import EMPTY, Json, encode
from .. import reasons
from ..limits import PAYLOAD_MAX_BYTES
from ..needs import Script, ScriptAnswer
from ..nodes import Node
from ..secrets import marks
from ..state import TaskRow, TaskStatus
from ..steps import BY_POLICY, SETTLE
from ..turn import Turn

PATIENCE_MS = 15_000
"""A slow script whose value has not come by then is asked for again: its process is gone."""


class Unusable(Exception):
    """The node's inputs mean nothing; the text becomes the row's reason, and it is final."""


def check_name(name: str, what: str) -> str:
    """The name. Raises Unusable where no row could hold it."""
    reason = why_unusable(name)
    if reason is not None:
        raise Unusable(f"{what} {reason}: {name[:40]!r}")
    return name


def finish(
    turn: Turn,
    node: Node,
    row: TaskRow,
    status: TaskStatus,
    output: Json | None = None,
    reason: str | None = None,
) -> TaskRow:
    """End a row and have its outcome settled."""
    mine = turn.edit(row)
    if output is not None and len(output.raw) > PAYLOAD_MAX_BYTES:
        status, reason = TaskStatus.FAILED_WITH_TERMINAL_ERROR, too_large(turn, row.seq, output)
        output = EMPTY
    if output is not None:
        mine.output = output
        turn.spend(output)
    turn.close(node, mine, status, reason)
    if mine.state is not None:
        mine.state = {key: value for key, value in mine.state.items() if key not in _TRANSIENT} or None
    turn.later((SETTLE, mine.seq, BY_POLICY))
    return mine


def too_large(turn: Turn, seq: int, payload: Json) -> str:
    return reasons.task_too_large(len(payload.raw), turn.task_id(seq), turn.header.id, PAYLOAD_MAX_BYTES)


_TRANSIENT = frozenset({"evaluating", "answer", "due"})


def script(turn: Turn, row: TaskRow, language: str, text: str, value: Any) -> ScriptAnswer | None:
    """The value of a script over an input; None while it is wanted. One that came as a `Result`
    (it had been slow) lies in the row."""
    state = row.state or {}
    late = state.get("answer")
    if late is not None:
        return ScriptAnswer(**late)
    answer: ScriptAnswer | None = turn.ask(_script(turn, language, text, value))
    return answer


def _script(turn: Turn, language: str, text: str, value: Any) -> Script:
    found = marks(value) if turn.secretive else []
    return Script(language, text, encode(value), encode(found) if found else b"")


def wait_for_script(turn: Turn, row: TaskRow, language: str, text: str, value: Any) -> None:
    """The script is slow: leave the row open, its value comes as a `Result`."""
    mine = turn.edit(row)
    turn.set_state(mine, evaluating=True, due=turn.now_ms + PATIENCE_MS)
    turn.scripts[mine.seq] = _script(turn, language, text, value)
    turn.deadlines[mine.seq] = turn.now_ms + PATIENCE_MS


def language_of(evaluator: str | None) -> str | None:
    """The evaluators' name of a Conductor `evaluatorType`; None where there is none."""
    return {"javascript": "javascript", "graaljs": "javascript", "python": "python"}.get(
        evaluator or "javascript"
    )
