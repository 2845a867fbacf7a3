"""One decision in the making: what it reads (`Reading`), what it writes, what is still to be done.

Rows are copied when they are first changed. What was written is kept by seq, so that a row is
written once however often it changed, and `decision` hands all of it back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from ..payload import Json
from . import cursor
from .decision import Decision, Message, MessageKind, QueueBirth
from .needs import Script
from .nodes import DYNAMIC, Node
from .plan import Plan
from .reading import Reading
from .reasons import short
from .state import TaskRow, TaskStatus, View
from .steps import SETTLE

Step = tuple[Any, ...]
"""(kind, arguments...), JSON values only: what is left over goes into the header's cursor."""

_COMPLETED = int(TaskStatus.COMPLETED)
_TERMINAL = _COMPLETED
"""The lowest terminal status."""


class Turn(Reading):
    """`now_ms` is the time of the event being applied. `budget` is how many rows may still be written
    before the rest is left to a `Continue`."""

    __slots__ = (
        "agenda",
        "asleep",
        "births",
        "budget",
        "changed",
        "consumed",
        "cursor",
        "deadlines",
        "ended",
        "fragments",
        "guarded",
        "inserted",
        "messages",
        "now_ms",
        "payload_changed",
        "released",
        "revived",
        "scripts",
        "seed",
        "updated",
    )

    def __init__(self, plan: Plan, view: View, budget: int) -> None:
        super().__init__(plan, view)
        self.budget = budget
        self.now_ms = 0
        self.seed = 0
        self.agenda: deque[Step] = deque()
        self.cursor: dict[str, Any] | None = None
        """The header's cursor, parsed, where a step or a command has touched it."""
        self.changed = False
        self.payload_changed = False
        self.ended = False
        self.revived = False
        self.inserted: dict[int, TaskRow] = {}
        self.updated: dict[int, TaskRow] = {}
        self.births: dict[int, QueueBirth] = {}
        self.released: dict[int, None] = {}
        self.guarded: set[int] = set()
        """Rows whose queue rows the save ends by its guards: their events name deliveries."""
        self.asleep: dict[int, int] = {}
        self.deadlines: dict[int, int] = {}
        self.messages: list[Message] = []
        self.fragments: dict[int, Json] = {}
        self.consumed: list[int] = []
        self.scripts: dict[int, Script] = {}

    # --- writing -----------------------------------------------------------------------------

    def edit(self, row: TaskRow) -> TaskRow:
        """The row of this turn to change: a copy at the first call, the same one afterwards."""
        seq = row.seq
        mine = self.rows.get(seq)
        if mine is None:
            mine = row.copy()
            self.rows[seq] = mine
            self.updated[seq] = mine
            self.changed = True
            self.budget -= 1
        return mine

    def insert(self, row: TaskRow) -> None:
        """Add a new row; its `seq` was taken with `take_seq`."""
        seq = row.seq
        self.rows[seq] = row
        self.inserted[seq] = row
        self.fresh[(row.reference, row.path)] = seq
        if row.path:
            self.fresh_latest[row.reference] = seq
        if row.scope:
            self.new_scopes.setdefault((row.scope, row.path), []).append(seq)
        header = self.header
        if row.status < _TERMINAL:
            header.open += 1
        header.last_task = seq
        self.changed = True
        self.budget -= 1

    def take_seq(self) -> int:
        header = self.header
        seq = header.next_seq
        header.next_seq = seq + 1
        return seq

    def set_status(self, row: TaskRow, status: TaskStatus) -> None:
        """Change the status of a row of this turn and keep the count of open rows."""
        was_open = row.status < _TERMINAL
        row.status = status
        row.updated_ms = self.now_ms
        is_open = status < _TERMINAL
        if was_open and not is_open:
            self.header.open -= 1
            row.ended_ms = self.now_ms
        elif is_open and not was_open:
            self.header.open += 1
            row.ended_ms = 0

    def set_state(self, row: TaskRow, **changes: Any) -> None:
        """Change an operator's own record; the old one may be shared with the view."""
        row.state = {**(row.state or {}), **changes}

    def close(self, node: Node, row: TaskRow, status: TaskStatus, reason: str | None = None) -> None:
        """End a row of this turn together with its queue row and its clock."""
        seq = row.seq
        if row.queued:
            row.queued = False
            if seq not in self.guarded and self.births.pop(seq, None) is None:
                self.released[seq] = None
            self.asleep.pop(seq, None)
        # A DYNAMIC's clocks are those of the task that it turned out to be, which is not known here.
        clock = node.policy.row_clock or node.kind == DYNAMIC
        if clock or (row.state is not None and "due" in row.state):
            self.deadlines[seq] = 0
        self.scripts.pop(seq, None)
        self.set_status(row, status)
        if reason is not None or status == _COMPLETED:
            row.reason = short(reason)

    def delete(self, row: TaskRow) -> None:
        """Remove a row for good (keepLastN). Only ended rows are removed."""
        seq = row.seq
        self.rows.pop(seq, None)
        self.updated.pop(seq, None)
        if self.inserted.pop(seq, None) is None:
            self.deleted[seq] = None
        else:
            self.new_scopes[(row.scope, row.path)].remove(seq)
        key = (row.reference, row.path)
        if self.fresh.get(key) == seq:
            del self.fresh[key]
        self.changed = True

    def send(self, workflow_id: str, kind: MessageKind, body: Json, *, parked: bool = False) -> None:
        due = 0 if parked else self.now_ms
        self.messages.append(Message(workflow_id, kind, body, due, parked))
        self.changed = True

    # --- what is left to do ------------------------------------------------------------------

    def first(self, *steps: Step) -> None:
        """Do these next, in this order."""
        self.agenda.extendleft(reversed(steps))

    def later(self, step: Step) -> None:
        """Do this after all that is waiting now."""
        self.agenda.append(step)

    def forget_rows(self, view: View) -> None:
        """Go on over another view: the workflow begins anew, in a new generation."""
        self.view = view
        self.rows.clear()
        self.fresh.clear()
        self.fresh_latest.clear()
        self.new_scopes.clear()
        self.parsed_fragments.clear()
        self.agenda.clear()

    def pending_work(self) -> dict[str, Any]:
        """The header's cursor, to read or to change (then call `keep_work`)."""
        if self.cursor is None:
            self.cursor = cursor.read(self.header)
        return self.cursor

    def keep_work(self) -> None:
        """Write the changed cursor back."""
        if self.cursor is not None:
            self.header.cursor = cursor.write(self.cursor)
            self.changed = True

    def pending(self) -> Iterator[Step]:
        """Every step that is still to be done, now or later."""
        yield from self.agenda
        if self.header.cursor is not None:
            work = self.pending_work()
            yield from work["steps"]
            yield from work["held"]

    def drop_settling(self, seq: int) -> bool:
        """Forget that a row had ended, where nothing has followed from it yet (see SETTLE)."""
        if not any(step[0] == SETTLE and step[1] == seq for step in self.pending()):
            return False
        kept = [step for step in self.agenda if step[0] != SETTLE or step[1] != seq]
        self.agenda.clear()
        self.agenda.extend(kept)
        work = self.pending_work()
        for key in ("steps", "held"):
            work[key] = [step for step in work[key] if step[0] != SETTLE or step[1] != seq]
        self.keep_work()
        return True

    def unpark(self, reference: str, *, last: bool) -> None:
        """A parked signal was used up; with the last one its reference is forgotten."""
        work = self.pending_work()
        if last and reference in work["parked"]:
            work["parked"].remove(reference)
            self.keep_work()

    # --- the end -----------------------------------------------------------------------------

    def decision(self) -> Decision:
        """What all of it comes to."""
        header = self.header
        if self.changed:
            header.revision += 1
            header.updated_ms = self.now_ms
        return Decision(
            header,
            self.changed,
            self.payload_changed,
            self.ended,
            self.revived,
            list(self.inserted.values()),
            list(self.updated.values()),
            list(self.deleted),
            list(self.births.values()),
            list(self.released),
            self.asleep,
            self.deadlines,
            self.messages,
            self.fragments,
            self.parsed_fragments,
            self.consumed,
            self.scripts,
        )
