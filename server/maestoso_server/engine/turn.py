"""One decision in the making: what is read through, written to, asked for and still to be done.

A `Turn` lies over a `View`. Rows are copied when first changed; what was not loaded is asked for:
a read that finds nothing because the row is unknown notes a need in `wanted` and answers as if it
were absent. Whoever reads looks at `wanted` before acting on what it read (`decide` does so
between the two halves of each step), so that a partial view decides exactly as a whole one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from .. import ids
from ..definitions.models import TaskDefinition
from ..payload import Json
from . import cursor
from . import needs as asked
from .branches import branch_input
from .decision import Decision, Message, MessageKind, QueueBirth
from .expressions import MISSING, Lookup, Template, resolve
from .fragment import Fragment
from .lookup import make_lookup
from .needs import Need, Row, Rows, Script
from .plan import DYNAMIC, UNREGISTERED, WORKER, Node, Plan, policy_of
from .policy import Policy
from .reasons import short
from .state import Header, Path, TaskKey, TaskRow, TaskStatus, View, WorkflowStatus
from .steps import SETTLE

Step = tuple[Any, ...]
"""(kind, arguments...), JSON values only: what is left over goes into the header's cursor."""

_TERMINAL = int(TaskStatus.COMPLETED)


class Turn:
    """`now` is the time of the event being applied. `budget` is how many rows may still be written
    before the rest is left to a `Continue`."""

    __slots__ = (
        "agenda",
        "answers",
        "asleep",
        "births",
        "budget",
        "changed",
        "consumed",
        "cursor",
        "deadlines",
        "deleted",
        "ended",
        "fragments",
        "fresh",
        "fresh_latest",
        "guarded",
        "header",
        "inserted",
        "messages",
        "new_scopes",
        "now_ms",
        "parsed_fragments",
        "payload_changed",
        "plan",
        "released",
        "revived",
        "rows",
        "scripts",
        "seed",
        "updated",
        "view",
        "wanted",
        "wanted_keys",
        "wanted_latest",
    )

    def __init__(self, plan: Plan, view: View, budget: int) -> None:
        self.plan = plan
        self.view = view
        self.header: Header = view.header.copy()
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
        self.rows: dict[int, TaskRow] = {}
        self.inserted: dict[int, TaskRow] = {}
        self.updated: dict[int, TaskRow] = {}
        self.deleted: dict[int, None] = {}
        self.fresh: dict[TaskKey, int] = {}
        self.fresh_latest: dict[str, int] = {}
        self.new_scopes: dict[tuple[int, Path], list[int]] = {}
        self.births: dict[int, QueueBirth] = {}
        self.released: dict[int, None] = {}
        self.guarded: set[int] = set()
        """Rows whose queue rows the save ends by its guards: their events name deliveries."""
        self.asleep: dict[int, int] = {}
        self.deadlines: dict[int, int] = {}
        self.messages: list[Message] = []
        self.fragments: dict[int, Json] = {}
        self.parsed_fragments: dict[int, Fragment] = {}
        self.consumed: list[int] = []
        self.scripts: dict[int, Script] = {}
        self.wanted: list[Need] = []
        self.wanted_keys: dict[TaskKey, None] = {}
        self.wanted_latest: dict[str, None] = {}
        self.answers: dict[Need, Any] = {}

    # --- reading -----------------------------------------------------------------------------

    @property
    def lacking(self) -> bool:
        """Something read since the last answers is not known yet."""
        return bool(self.wanted or self.wanted_keys or self.wanted_latest)

    def ask(self, need: Need) -> Any:
        """The answer to a need that is not a row; None, and noted as wanted, until it is there."""
        found = self.answers.get(need, MISSING)
        if found is MISSING:
            self.wanted.append(need)
            return None
        return found

    def row(self, seq: int) -> TaskRow | None:
        """The row with this seq. A whole view knows those of the current generation only."""
        row = self.rows.get(seq)
        if row is None:
            row = self.view.tasks.get(seq)
            if row is None:
                need = Row(seq)
                if not self.view.whole and need not in self.answers:
                    self.wanted.append(need)
        return row

    def newest(self, reference: str, path: Path) -> TaskRow | None:
        """The newest attempt of a task in exactly this turn of its loops."""
        key = (reference, path)
        view = self.view
        seq = self.fresh.get(key)
        if seq is None:
            seq = view.newest.get(key)
            if seq is None:
                if not view.whole and key not in view.absent:
                    self.wanted_keys[key] = None
                return None
            if seq in self.deleted:
                return None
        return self.rows.get(seq) or view.tasks[seq]

    def latest(self, reference: str) -> TaskRow | None:
        """The newest attempt of a task in its newest turn."""
        view = self.view
        seq = self.fresh_latest.get(reference)
        if seq is None:
            seq = view.latest.get(reference)
            if seq is None:
                if not view.whole:
                    self.wanted_latest[reference] = None
                return None
        return self.rows.get(seq) or (None if seq in self.deleted else view.tasks.get(seq))

    def visible(self, reference: str, path: Path) -> TaskRow | None:
        """The row that `${reference...}` means for a reader in the turn `path`: the newest."""
        node = self.plan.nodes.get(reference)
        if node is None:
            return self.newest(reference, path) or (self.latest(reference) if path else None)
        depth = len(node.loops)
        if depth == 0:
            return self.newest(reference, ())
        if depth <= len(path):
            here = self.newest(reference, path[:depth])
            if here is not None or self.wanted_keys:
                return here
        return self.latest(reference)

    def node_of(self, row: TaskRow) -> Node | None:
        """The definition of a row; None where it is wanted first or the row has none."""
        return self.plan.nodes.get(row.reference) or self._branch_node(row.reference, row.scope)

    def node(self, reference: str, scope: int) -> Node | None:
        """The definition of a task inside the container row `scope`."""
        return self.plan.nodes.get(reference) or self._branch_node(reference, scope)

    def _branch_node(self, reference: str, scope: int) -> Node | None:
        while scope:
            container = self.row(scope)
            if container is None:
                return None
            if container.state is not None and "count" in container.state:  # a dynamic fork
                fragment = self.fragment(container)
                return fragment.node(reference) if fragment is not None else None
            scope = container.scope
        return None

    def fragment(self, fork: TaskRow) -> Fragment | None:
        """The branches of a dynamic fork's row; None where they are wanted first."""
        known = self.parsed_fragments.get(fork.seq) or self.view.fragments.get(fork.seq)
        if isinstance(known, Fragment):
            return known
        owner = self.node_of(fork)
        if owner is None:
            return None
        document: Json | None = None
        if not Fragment.is_inline(fork):
            document = self.ask(asked.Fragment(fork.seq))
            if document is None:
                return None
        made = Fragment.load(owner, fork, document, self.plan)
        self.parsed_fragments[fork.seq] = made
        return made

    def policy_of(self, row: TaskRow, node: Node) -> Policy:
        """The policy that a row runs under; a DYNAMIC's is that of the task it turned out to be."""
        if node.kind != DYNAMIC or row.state is None or "definition" not in row.state:
            return node.policy
        document = row.state["definition"]
        definition = TaskDefinition.model_validate(document) if document else None
        return policy_of(WORKER, node.task, definition or UNREGISTERED)

    # --- values ------------------------------------------------------------------------------

    def task_id(self, seq: int) -> str:
        return ids.task_id(self.header.id, seq)

    def resolve(self, node: Node, path: Path, own_seq: int = 0) -> dict[str, Any]:
        """The input of a node, with its task definition's defaults."""
        if node.is_branch:
            return self._branch_input(node, path, own_seq)
        template = node.input
        if template.constant and node.fallbacks is None:
            return resolve(template, _no_lookup)  # type: ignore[no-any-return]
        lookup = self.lookup(path, node.inputs_whole, own_seq if node.reads_task_id else 0)
        value: dict[str, Any] = resolve(template, lookup)
        if node.fallbacks is not None:
            for key, fallback in node.fallbacks.items():
                if value.get(key) is None:
                    value = {**value, key: resolve(fallback, lookup)}
        return value

    def _branch_input(self, node: Node, path: Path, own_seq: int) -> dict[str, Any]:
        fork_node = node.parent
        fork = self.newest(fork_node.reference, path) if fork_node is not None else None
        fragment = self.fragment(fork) if fork is not None else None
        if fork is None or fork_node is None or fragment is None:
            return {}
        return branch_input(fork, fork_node, fragment, node, self.task_id(own_seq))

    def evaluate(self, template: Template, path: Path, whole: frozenset[str] = frozenset()) -> Any:
        """The value of a template that is no task's input."""
        return resolve(template, self.lookup(path, whole))

    def lookup(self, path: Path, whole: frozenset[str] = frozenset(), own_seq: int = 0) -> Lookup:
        """How a template reads this workflow from the turn `path` (see `document`)."""
        return make_lookup(self, path, whole, own_seq)

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
        if node.policy.row_clock or (row.state is not None and "due" in row.state):
            self.deadlines[seq] = 0
        self.scripts.pop(seq, None)
        self.set_status(row, status)
        if reason is not None:
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

    def set_deadline(self, seq: int, due_ms: int) -> None:
        self.deadlines[seq] = due_ms

    def send(self, workflow_id: str, kind: MessageKind, body: Json, *, parked: bool = False) -> None:
        due = 0 if parked else self.now_ms
        self.messages.append(Message(workflow_id, kind, body, due, parked))
        self.changed = True

    # --- what is left to do ------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self.header.status == WorkflowStatus.RUNNING

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

    # --- asking ------------------------------------------------------------------------------

    def take_wanted(self) -> list[Need]:
        """Everything wanted so far, as needs to be answered together."""
        needs: list[Need] = list(dict.fromkeys(self.wanted))
        if self.wanted_keys:
            needs.append(Rows(tuple(self.wanted_keys)))
        if self.wanted_latest:
            needs.append(Rows(tuple((reference, ()) for reference in self.wanted_latest), exact=False))
        self.wanted.clear()
        self.wanted_keys.clear()
        self.wanted_latest.clear()
        return needs

    def learn(self, needs: list[Need], answers: list[Any]) -> None:
        """Take in the answers, in the order of the needs. Rows go into the view."""
        view = self.view
        for need, answer in zip(needs, answers, strict=True):
            if isinstance(need, Rows):
                self._learn_rows(need, answer)
            elif isinstance(need, Row):
                if answer is not None:
                    view.add(answer)
                self.answers[need] = answer
            else:
                if isinstance(answer, list):
                    for item in answer:
                        if isinstance(item, TaskRow):
                            view.add(item)
                self.answers[need] = answer

    def _learn_rows(self, need: Rows, answer: list[TaskRow | None]) -> None:
        view = self.view
        for (reference, path), row in zip(need.keys, answer, strict=True):
            if row is not None:
                view.add(row)
            if not need.exact:
                view.add_latest(reference, row)
            elif row is None:
                view.absent.add((reference, path))

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


def _no_lookup(_root: str, _attribute: str | None) -> Any:
    return MISSING
