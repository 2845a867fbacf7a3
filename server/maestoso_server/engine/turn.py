"""One decision in the making: what it reads (`Reading`), what it writes, what is still to be done.

Rows are copied when they are first changed. What was written is kept by seq, so that a row is
written once however often it changed, and `decision` hands all of it back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from ..payload import Json
from . import closing, cursor, secrets
from .attributes import AttributeValue, changes
from .changes import Change
from .decision import Alert, CacheWrite, Decision, Message, MessageKind, Publication, QueueBirth, Slot
from .needs import Script
from .nodes import DYNAMIC, Node
from .plan import Plan
from .policy import Policy, queue_name
from .reading import Reading
from .reasons import short
from .secrets import SecretJson
from .state import TaskRow, TaskStatus, View
from .steps import SETTLE

Step = tuple[Any, ...]
"""(kind, arguments...), JSON values only: what is left over goes into the header's cursor."""

_COMPLETED = int(TaskStatus.COMPLETED)
_TERMINAL = _COMPLETED
"""The lowest terminal status."""
UNRESOLVED_MAX = 20
"""Expressions that found nothing and are kept with their row."""
BYTES_A_ROW = 8 * 1024
"""A row counts once more in a decision's budget for each so many bytes of its payloads: what one save
writes is bounded in bytes, too."""
_CLOCKED = frozenset({"due", "clocks"})
"""Keys of a row's record that speak of a row in `deadline`."""


class Turn(Reading):
    """`now_ms` is the time of the event being applied. `budget` is how many rows may still be written
    before the rest is left to a `Continue`; large payloads count as several."""

    __slots__ = (
        "agenda",
        "alerts",
        "aside",
        "asleep",
        "births",
        "budget",
        "cached",
        "changed",
        "consumed",
        "corrected",
        "cursor",
        "deadlines",
        "ended",
        "fragments",
        "freed",
        "guarded",
        "inserted",
        "messages",
        "notices",
        "now_ms",
        "payload_changed",
        "published",
        "released",
        "revived",
        "scripts",
        "secretive",
        "seed",
        "slot",
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
        self.freed: list[tuple[str, str]] = []
        self.slot: Slot | None = None
        self.alerts: list[Alert] = []
        self.scripts: dict[int, Script] = {}
        self.corrected = False
        self.aside: dict[int, None] = {}
        self.published: list[Publication] = []
        self.cached: list[CacheWrite] = []
        self.notices: list[tuple[Node, TaskRow, Sequence[Change]]] = []
        """Changes of status that are to be told: (node, the row as it was then, what to tell)."""
        self.secretive = plan.secretive or bool(
            isinstance(self.header.input, SecretJson) or isinstance(self.header.variables, SecretJson)
        )
        """Payloads may hold placeholders of secrets."""

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
        if self.unresolved:
            note_unresolved(self, row)
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
        self.spend(row.input)

    def spend(self, payload: Json) -> None:
        """Count a payload that this decision puts together."""
        self.budget -= len(payload.raw) // BYTES_A_ROW

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
        """End a row of this turn together with its queue row and its clock. Its output is there."""
        seq = row.seq
        if node.watched:
            status, reason = closing.judge(self, node, row, status, reason)
        if row.queued:
            row.queued = False
            if seq not in self.guarded and self.births.pop(seq, None) is None:
                self.released[seq] = None
            self.asleep.pop(seq, None)
            if node.policy.frees or node.kind == DYNAMIC:
                self.note_freed(row, self.policy_of(row, node))
        # A DYNAMIC's clocks are those of the task that it turned out to be, which is not known here.
        clock = node.policy.row_clock or node.kind == DYNAMIC
        if clock or (row.state is not None and not _CLOCKED.isdisjoint(row.state)):
            self.deadlines[seq] = 0
        self.scripts.pop(seq, None)
        self.set_status(row, status)
        if reason is not None or status == _COMPLETED:
            row.reason = short(reason)
        if node.watched:
            closing.note(self, node, row)

    def note_freed(self, row: TaskRow, policy: Policy) -> None:
        """A row leaves its hands: where its definition has slots, another one may run."""
        if policy.frees:
            self.freed.append((queue_name(row, policy), row.type))

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

    def set_aside(self, row: TaskRow, past: int) -> None:
        """Have an ended row leave the generation: it stays as it is, and nothing reads it any more."""
        mine = self.edit(row)
        seq = mine.seq
        mine.generation = past
        mine.superseded = True
        self.aside[seq] = self.deleted[seq] = None
        key = (mine.reference, mine.path)
        if self.fresh.get(key) == seq:
            del self.fresh[key]
        if self.fresh_latest.get(mine.reference) == seq:
            del self.fresh_latest[mine.reference]

    def send(self, workflow_id: str, kind: MessageKind, body: Json, *, parked: bool = False) -> None:
        due = 0 if parked else self.now_ms
        self.messages.append(Message(workflow_id, kind, body, due, parked))
        self.changed = True

    def publish(self, publication: Publication) -> None:
        self.published.append(publication)
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

    def skip_of(self, reference: str) -> dict[str, Any] | None:
        """What an operator has said of a task that is to be stepped over (`Skip`)."""
        if self.header.cursor is None:
            return None
        found: dict[str, Any] | None = self.pending_work()["skips"].get(reference)
        return found

    def unpark(self, reference: str, *, last: bool) -> None:
        """A parked signal was used up; with the last one its reference is forgotten."""
        work = self.pending_work()
        if last and reference in work["parked"]:
            work["parked"].remove(reference)
            self.keep_work()

    # --- the end -----------------------------------------------------------------------------

    def _keep_secrets(self) -> None:
        """Note beside every payload that was made where its placeholders are."""
        for row in (*self.inserted.values(), *self.updated.values()):
            secrets.keep_row(row)
        kept = secrets.kept_by(self.header)
        if kept or self.header.cursor is not None:
            work = self.pending_work()
            if work["secrets"] != kept:
                work["secrets"] = kept
                self.keep_work()
        secrets.mark_header(self.header)

    def decision(self) -> Decision:
        """What all of it comes to."""
        header = self.header
        if self.secretive and self.changed:
            self._keep_secrets()
        if self.changed:
            header.revision += 1
            header.updated_ms = self.now_ms
        found: dict[str, AttributeValue | None] = {}
        if (self.payload_changed or self.revived) and self.plan.attributes:
            fresh = self.revived or not self.view.header.revision
            found = changes(self.plan, None if fresh else self.view.header, header)
        return Decision(
            header,
            self.changed,
            self.payload_changed,
            self.ended,
            self.revived,
            list(self.inserted.values()),
            list(self.updated.values()),
            [seq for seq in self.deleted if seq not in self.aside] if self.aside else list(self.deleted),
            list(self.births.values()),
            list(self.released),
            self.asleep,
            self.deadlines,
            self.messages,
            self.fragments,
            self.parsed_fragments,
            self.consumed,
            self.scripts,
            self.published,
            self.cached,
            self.slot,
            self.alerts,
            self.freed,
            attributes=found,
            corrected=self.corrected,
            aside=self.aside,
        )


def note_unresolved(turn: Turn, row: TaskRow) -> None:
    """Keep with a new row which of its expressions found nothing (B42)."""
    missed = list(dict.fromkeys(turn.unresolved))[:UNRESOLVED_MAX]
    turn.unresolved.clear()
    row.state = {**(row.state or {}), "unresolved": missed}


def lasting(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """What stays in the record of a row that has ended or begins again: facts about its input, and
    that the flow has passed it."""
    if state is None:
        return None
    return {key: state[key] for key in _LASTING if key in state} or None


_LASTING = ("unresolved", "cache", "cached", "passed", "given")
