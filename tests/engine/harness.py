"""A world in memory for the engine: workflows as rows, needs answered from them, messages delivered.

`World` is the smallest thing that obeys the contract of `decide`: it loads a view, answers needs,
writes the decision and passes the messages on. `partial` gives every decision a view with only the
header and the rows that its events name, so everything else must be asked for. `rows_max` bounds
decisions. Both must never change what becomes of a workflow.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import _quickjs
import jq

from maestoso_server.definitions.keys import KeyPolicy
from maestoso_server.definitions.models import WorkflowDefinition, WorkflowTask
from maestoso_server.engine import keys, messages, needs
from maestoso_server.engine.cursor import continues
from maestoso_server.engine.decide import ROWS_MAX, decide
from maestoso_server.engine.decision import (
    CacheWrite,
    Decision,
    Message,
    MessageKind,
    Outcome,
    Publication,
    Slot,
    Verdict,
)
from maestoso_server.engine.events import (
    ChildEnded,
    ChildPlaced,
    DeliveryDue,
    Due,
    Event,
    Follow,
    QueueFacts,
    Result,
    Start,
    Upgrade,
    WorkerLost,
)
from maestoso_server.engine.names import shown_reference
from maestoso_server.engine.nodes import Node
from maestoso_server.engine.operators.joins import is_ahead
from maestoso_server.engine.plan import Plan, compile
from maestoso_server.engine.rows import REVIVED
from maestoso_server.engine.state import Header, Path, TaskRow, TaskStatus, View, WorkflowStatus
from maestoso_server.payload import Json, decode, encode

START_MS = 1_700_000_000_000
WATCHED_MAX = 300
"""Rows up to which everything is checked after every decision."""


@dataclass
class Stored:
    """One workflow as the store has it."""

    header: Header
    rows: dict[int, TaskRow] = field(default_factory=dict)
    queue: dict[int, int] = field(default_factory=dict)
    """seq -> not before this moment: the open queue rows."""
    deadlines: dict[int, int] = field(default_factory=dict)
    fragments: dict[int, Json] = field(default_factory=dict)
    parked: dict[int, Json] = field(default_factory=dict)
    keys: set[tuple[int, str, Path, int]] = field(default_factory=set)
    view: View | None = None


class World:
    """Definitions, workflows and the clock."""

    def __init__(
        self,
        *definitions: dict[str, Any],
        tasks: dict[str, dict[str, Any]] | None = None,
        partial: bool = False,
        rows_max: int = ROWS_MAX,
        slow_scripts: bool = False,
    ) -> None:
        self.task_definitions = tasks or {}
        self.documents = {document["name"]: document for document in definitions}
        self.plans: dict[str, Plan] = {}
        self.partial = partial
        self.rows_max = rows_max
        self.slow_scripts = slow_scripts
        self.workflows: dict[str, Stored] = {}
        self.inbox: deque[tuple[int, Message]] = deque()
        self.now_ms = START_MS
        self.live_queues: set[str] = set()
        self.history: list[str] = []
        """What happened, for reading when a property fails."""
        self.decisions = 0
        self.ends: list[str] = []
        """Workflow ids, one for each decision that ended one."""
        self.needs_asked: list[needs.Need] = []
        self.most_rows = 0
        self.slots: list[Slot] = []
        """What decisions did to the slots of workflows, in the order of the commits."""
        self.published: list[tuple[str, Publication]] = []
        """(workflow, event), in the order of the commits."""
        self.cache: dict[tuple[str, str], CacheWrite] = {}
        self.keys: dict[str, str] = {}
        """Idempotency key -> the workflow that holds it."""
        self._ids = 0
        self._message_ids = 0

    # --- what a test does --------------------------------------------------------------------

    def start(self, name: str, input: dict[str, Any] | None = None, **header: Any) -> str:
        """Start a workflow and deliver all messages that follow."""
        self._ids += 1
        workflow_id = f"00000000-0000-7000-8000-{self._ids:06x}000000"
        document = self.documents[name]
        snapshot = self._snapshot(document)
        self.workflows[workflow_id] = Stored(
            Header(
                id=workflow_id,
                namespace="default",
                name=name,
                version=document.get("version", 1),
                snapshot_id=snapshot,
                created_ms=self.now_ms,
                input=Json.of(input or {}),
                **header,
            )
        )
        key = self.header(workflow_id).idempotency_key
        if key is not None:
            self.keys[key] = workflow_id
        self.happen(workflow_id, Start(now_ms=self.now_ms))
        return workflow_id

    def happen(self, workflow_id: str, *events: Event) -> list[Outcome]:
        """Let events happen, in one decision, and everything that follows from it."""
        outcomes = self._decide(workflow_id, events)
        self.deliver()
        return outcomes

    def deliver(self) -> None:
        """Apply messages until none is left."""
        while self.inbox:
            number, message = self.inbox.popleft()
            body = message.body.raw
            event = messages.decode(message.kind, body, now_ms=self.now_ms, seed=number)
            if message.workflow_id not in self.workflows and not self._is_born(message, event):
                continue
            (outcome,) = self._decide(message.workflow_id, [event])
            if outcome.verdict == Verdict.BEHIND:
                self.inbox.append((number, message))

    def _is_born(self, message: Message, event: Event) -> bool:
        """Whether the message begins its workflow; else whoever waits for it is answered."""
        if isinstance(event, Follow):
            self._send(keys.follower_lost(event, message.workflow_id))
        if not isinstance(event, Start):
            return False
        header = messages.child_header(message.workflow_id, message.body.raw, self.now_ms)
        key = header.idempotency_key
        holder = self.keys.get(key) if key is not None else None
        stored = self.workflows.get(holder) if holder is not None else None
        ended = stored is None or stored.header.status.terminal
        if holder is not None and not (ended and event.key_policy is KeyPolicy.FAIL_ON_RUNNING):
            self._send(keys.reply(event, header, holder, waits=holder in self._line(event.asked_by)))
            return False
        if key is not None:
            self.keys[key] = header.id
        self.workflows[header.id] = Stored(header)
        return True

    def _line(self, workflow_id: str) -> list[str]:
        parent = self.header(workflow_id).parent_id
        return [workflow_id, *(self._line(parent) if parent else [])]

    def _send(self, message: Message) -> None:
        self._message_ids += 1
        self.inbox.append((self._message_ids, message))

    def result(
        self,
        workflow_id: str,
        reference: str,
        output: Any = None,
        status: TaskStatus = TaskStatus.COMPLETED,
        **more: Any,
    ) -> Outcome:
        """A worker's result for the open row that users call so."""
        return self.report(workflow_id, self.row(workflow_id, reference).seq, output, status, **more)

    def upgrade(self, workflow_id: str, document: dict[str, Any], *, dry_run: bool = False) -> Outcome:
        """Have a workflow go on under another document."""
        event = Upgrade(
            now_ms=self.now_ms,
            snapshot_id=self._snapshot(document),
            name=document["name"],
            version=document["version"],
            dry_run=dry_run,
        )
        return self.happen(workflow_id, event)[0]

    def report(
        self,
        workflow_id: str,
        seq: int,
        output: Any = None,
        status: TaskStatus = TaskStatus.COMPLETED,
        **more: Any,
    ) -> Outcome:
        queued = seq in self.workflows[workflow_id].queue
        event = Result(
            now_ms=self.now_ms,
            seq=seq,
            status=status,
            output=None if output is None else Json.of(output),
            delivery=1 if queued else None,
            **more,
        )
        return self.happen(workflow_id, event)[0]

    def advance(self, seconds: float) -> None:
        """Let time pass; every deadline is answered at its moment, in order."""
        end = self.now_ms + int(seconds * 1000)
        while True:
            due = min(
                (
                    (due_ms, workflow_id, seq)
                    for workflow_id, stored in self.workflows.items()
                    for seq, due_ms in stored.deadlines.items()
                    if due_ms <= end
                ),
                default=None,
            )
            if due is None:
                break
            self.now_ms = max(self.now_ms, due[0])
            (outcome,) = self.happen(due[1], self.due(due[1], due[2]))
            if outcome.verdict == Verdict.STALE:
                self.workflows[due[1]].deadlines.pop(due[2], None)
        self.now_ms = end

    def due(self, workflow_id: str, seq: int) -> Due:
        stored = self.workflows[workflow_id]
        waiting = stored.queue.get(seq)
        facts = None if waiting is None else QueueFacts(owner_epoch=None, due_ms=waiting)
        return Due(now_ms=self.now_ms, seq=seq, queue=facts)

    def open_worker_rows(self, workflow_id: str) -> list[TaskRow]:
        stored = self.workflows[workflow_id]
        return [stored.rows[seq] for seq in sorted(stored.queue)]

    # --- what a test looks at ----------------------------------------------------------------

    def header(self, workflow_id: str) -> Header:
        return self.workflows[workflow_id].header

    def status(self, workflow_id: str) -> str:
        return self.header(workflow_id).status.name

    def rows(self, workflow_id: str) -> list[TaskRow]:
        """The rows of the current generation, in the order of their making."""
        stored = self.workflows[workflow_id]
        generation = stored.header.generation
        return [row for _, row in sorted(stored.rows.items()) if row.generation == generation]

    def row(self, workflow_id: str, reference: str) -> TaskRow:
        """The newest row that users call so."""
        found = [
            row for row in self.rows(workflow_id) if shown_reference(row.reference, row.path) == reference
        ]
        assert found, f"no row {reference} among {self.shown(workflow_id)}"
        return found[-1]

    def shown(self, workflow_id: str) -> list[str]:
        """`reference:STATUS` of every row."""
        return [
            f"{shown_reference(row.reference, row.path)}:{row.status.name}" for row in self.rows(workflow_id)
        ]

    def output(self, workflow_id: str, reference: str | None = None) -> Any:
        payload = (
            self.header(workflow_id).output if reference is None else self.row(workflow_id, reference).output
        )
        return None if payload is None else payload.value

    def children(self, workflow_id: str) -> list[str]:
        return [row.child_id for row in self.rows(workflow_id) if row.child_id]

    # --- the contract of decide ----------------------------------------------------------------

    def _decide(self, workflow_id: str, events: Sequence[Event]) -> list[Outcome]:
        stored = self.workflows[workflow_id]
        view = self._view(stored, events)
        watched = len(stored.rows) < WATCHED_MAX
        before = view.header.copy(), {seq: row.copy() for seq, row in stored.rows.items()} if watched else {}
        asking = decide(self.plans[stored.header.snapshot_id], view, events, rows_max=self.rows_max)
        answers: list[Any] | None = None
        while True:
            try:
                asked = asking.send(answers)  # type: ignore[arg-type]
            except StopIteration as end:
                decision: Decision = end.value
                break
            assert asked, "an empty list of needs would be asked for ever"
            self.needs_asked.extend(asked)
            answers = [self._answer(stored, need) for need in asked]
        assert before == (view.header, stored.rows if watched else {}), "a view was changed in place"
        for event, outcome in zip(events, decision.outcomes, strict=True):
            named = f" {event.seq}" if hasattr(event, "seq") else ""
            told = f" {event.status.name}" if isinstance(event, Result) else ""
            became = f"{outcome.verdict.name} {outcome.reason}"
            self.history.append(f"{workflow_id[-12:-6]} {type(event).__name__}{named}{told}: {became}")
        self._write(stored, view, decision, events)
        if watched:
            self.history.append("    " + " ".join(self.shown(workflow_id)))
        return decision.outcomes

    def _view(self, stored: Stored, events: Sequence[Event]) -> View:
        if not self.partial:
            if stored.view is None:
                stored.view = View(stored.header, whole=True)
            return stored.view
        view = View(stored.header.copy())
        for event in events:
            named = isinstance(event, Result | Due | DeliveryDue | WorkerLost | ChildEnded | ChildPlaced)
            if named and event.seq in stored.rows:
                view.add(stored.rows[event.seq].copy())
        return view

    def _write(self, stored: Stored, view: View, decision: Decision, events: Sequence[Event]) -> None:
        self.decisions += 1
        if decision.ended:
            self.ends.append(stored.header.id)
        rows = len(decision.inserted) + len(decision.updated)
        self.most_rows = max(self.most_rows, rows)
        if not decision.changed:
            assert not (rows or decision.messages or decision.births or decision.deleted)
            assert not (decision.published or decision.cached)
            return
        assert decision.header.revision == stored.header.revision + 1
        for seq in decision.aside:
            left = stored.rows[seq]
            stored.keys.discard((left.generation, left.reference, left.path, left.attempt))
        for row in decision.inserted:
            assert row.seq not in stored.rows
            key = (row.generation, row.reference, row.path, row.attempt)
            assert key not in stored.keys, f"two rows {key}"
            stored.keys.add(key)
            stored.rows[row.seq] = stored_row(row)
        for row in decision.updated:
            assert row.seq in stored.rows
            assert (row.seq in decision.aside) == (row.generation != stored.rows[row.seq].generation)
            stored.rows[row.seq] = stored_row(row)
        for seq in decision.deleted:
            del stored.rows[seq]
        self._write_queue(stored, decision, events)
        for seq, due_ms in decision.deadlines.items():
            if due_ms:
                stored.deadlines[seq] = due_ms
            else:
                stored.deadlines.pop(seq, None)
        stored.fragments.update(decision.fragments)
        for number in decision.consumed:
            del stored.parked[number]
        stored.header = decision.header.copy()
        if stored.view is not None:
            stored.view.apply(decision)
        for message in decision.messages:
            self._message_ids += 1
            if message.parked:
                stored.parked[self._message_ids] = message.body
            else:
                self.inbox.append((self._message_ids, message))
        if decision.slot is not None:
            self.slots.append(decision.slot)
        self.published.extend((stored.header.id, event) for event in decision.published)
        self.cache.update(((write.name, write.key), write) for write in decision.cached)
        for seq, script in decision.scripts.items():
            self.late_script(stored.header.id, seq, script)
        if len(stored.rows) < WATCHED_MAX or self.decisions % 50 == 0:
            self._check(stored)

    def _write_queue(self, stored: Stored, decision: Decision, events: Sequence[Event]) -> None:
        for birth in decision.births:
            assert birth.seq not in stored.queue
            stored.queue[birth.seq] = birth.due_ms
        ended: set[int] = set()
        for event, outcome in zip(events, decision.outcomes, strict=True):
            told = isinstance(event, Result | DeliveryDue | WorkerLost) and event.delivery is not None
            if told and outcome.verdict == Verdict.APPLIED and event.seq not in decision.asleep:
                ended.add(event.seq)
        for seq in ended:
            del stored.queue[seq]
        for seq in decision.released:
            del stored.queue[seq]
        stored.queue.update(decision.asleep)

    def _check(self, stored: Stored) -> None:
        """What must be true after every decision."""
        rows = [row for row in stored.rows.values() if row.generation == stored.header.generation]
        is_open = [row for row in rows if not row.status.terminal]
        assert stored.header.open == len(is_open), "the count of open rows is wrong"
        assert {row.seq for row in rows if row.queued} == set(stored.queue), "queue rows and tasks differ"
        for seq, due_ms in stored.deadlines.items():
            if seq and seq in stored.rows:
                assert not stored.rows[seq].status.terminal, f"row {seq} has ended and a deadline at {due_ms}"
        if stored.header.status == WorkflowStatus.RUNNING and not continues(stored.header):
            for row in is_open:
                self._check_counters(row, rows, self.plans[stored.header.snapshot_id])
        if stored.header.status.terminal and not continues(stored.header):
            assert not is_open, "an ended workflow has open rows"

    def _check_counters(self, container: TaskRow, rows: list[TaskRow], plan: Plan) -> None:
        """A container's counters equal a recount."""
        state = container.state or {}
        if container.type == "JOIN":
            here = [row for row in rows if row.path == container.path and not is_ahead(row)]
            done = {row.reference for row in here if row.status.terminal}
            still = {row.reference for row in rows if row.path == container.path and not row.status.terminal}
            node = plan.nodes.get(container.reference)
            listed = container.input.value["joinOn"]
            if node is not None and node.join_on and all(name in plan.nodes for name in listed):
                listed = node.awaited
            gone = (done - still) | unreached(plan, container, rows)
            waited = [name for name in listed if name not in gone]
            assert state["waiting"] == len(waited), f"{container.reference} waits for {waited}: {state}"
        elif container.type == "DO_WHILE" and not state.get("evaluating"):
            path = (*container.path, state["turn"])
            running = [row for row in held(rows, container.seq) if not row.status.terminal]
            live = [row for row in running if row.path == path or _is_revived(row, path)]
            assert state["live"] == len(live), f"{container.reference} has {len(live)} chains: {state}"
        elif container.type == "TRY":
            running = [row for row in held(rows, container.seq) if not row.status.terminal]
            live = [row for row in running if row.path == container.path]
            assert state["live"] == len(live), f"{container.reference} has {len(live)} chains: {state}"

    def late_script(self, workflow_id: str, seq: int, script: needs.Script) -> None:
        answer = evaluate(script)
        status = TaskStatus.COMPLETED
        if answer.error is not None:
            status = TaskStatus.FAILED if answer.retriable else TaskStatus.FAILED_WITH_TERMINAL_ERROR
        body = messages.result(
            Result(
                now_ms=self.now_ms,
                seq=seq,
                status=status,
                output=Json.of({"result": answer.value}),
                reason=answer.error,
            )
        )
        self._message_ids += 1
        self.inbox.append((self._message_ids, Message(workflow_id, MessageKind.RESULT, body)))

    # --- needs -------------------------------------------------------------------------------

    def _answer(self, stored: Stored, need: needs.Need) -> Any:
        if isinstance(need, needs.Script):
            return needs.ScriptAnswer(slow=True) if self.slow_scripts else evaluate(need)
        if isinstance(need, needs.Redact):
            return None
        if isinstance(need, needs.Child):
            return self._child(need)
        if isinstance(need, needs.Definition):
            return self.plans[need.snapshot_id]
        if isinstance(need, needs.TaskDefinition):
            return self.task_definitions.get(need.name)
        if isinstance(need, needs.ParkedSignals):
            found = [(number, body.value) for number, body in sorted(stored.parked.items())]
            return [(number, body) for number, body in found if body["reference"] == need.reference]
        if isinstance(need, needs.CachedOutput):
            kept = self.cache.get((need.name, need.key))
            return kept.output if kept is not None and kept.expires_ms > need.now_ms else None
        if isinstance(need, needs.Demand):
            return self.live_queues & set(need.queues)
        compiled_anew = isinstance(need, needs.Fragment)  # a whole view forgets branches with an upgrade
        assert self.partial or compiled_anew, f"a whole view was asked for {need}"
        return self._row_answer(stored, need)

    def _row_answer(self, stored: Stored, need: needs.Need) -> Any:
        generation = stored.header.generation
        rows = [row for _, row in sorted(stored.rows.items()) if row.generation == generation]
        if isinstance(need, needs.Row):
            row = stored.rows.get(need.seq)
            return None if row is None else row.copy()
        if isinstance(need, needs.Rows):
            return [newest(rows, reference, path, exact=need.exact) for reference, path in need.keys]
        if isinstance(need, needs.ScopeRows):
            return [row.copy() for row in inside(rows, need.scope) if starts_with(row.path, need.prefix)]
        if isinstance(need, needs.OpenRows):
            found = [row for row in rows if not row.status.terminal and row.seq > need.after]
            return [row.copy() for row in found[: need.limit]]
        if isinstance(need, needs.RowsAfter):
            return [row.copy() for row in rows if row.seq > need.after][: need.limit]
        if isinstance(need, needs.FailedRows):
            failed = (
                TaskStatus.FAILED,
                TaskStatus.FAILED_WITH_TERMINAL_ERROR,
                TaskStatus.TIMED_OUT,
                TaskStatus.CANCELED,
            )
            found = [r for r in rows if r.status in failed and not r.superseded and r.seq > need.after]
            return [row.copy() for row in found[: need.limit]]
        if isinstance(need, needs.OpenInside):
            found = [r for r in inside(rows, need.scope) if not r.status.terminal and r.seq > need.after]
            return [row.copy() for row in found[: need.limit]]
        if isinstance(need, needs.Compensable):
            before = need.before_ms, need.before_seq
            found = [
                row
                for row in rows
                if row.reference in need.references
                and starts_with(row.path, need.prefix)
                and row.status == TaskStatus.COMPLETED
                and not row.superseded
                and (row.ended_ms, row.seq) < before
            ]
            found.sort(key=lambda row: (row.ended_ms, row.seq), reverse=True)
            return [row.copy() for row in found[: need.limit]]
        assert isinstance(need, needs.Fragment)
        return stored.fragments.get(need.seq)

    def _child(self, need: needs.Child) -> needs.ChildAnswer:
        document = need.definition.value if need.definition is not None else self.documents.get(need.name)
        if document is None:
            return needs.ChildAnswer(
                error=f"The Task {need.name} defined as a sub-workflow has no workflow definition available "
            )
        version = document.get("version", 1)
        return needs.ChildAnswer(self._snapshot(document), document["name"], version)

    def _snapshot(self, document: dict[str, Any]) -> str:
        document = with_definitions(document, self.task_definitions)
        key = json.dumps(document, sort_keys=True)
        if key not in self.plans:
            self.plans[key] = compile(WorkflowDefinition.model_validate(document))
        return key


def stored_row(row: TaskRow) -> TaskRow:
    """The row as a store gives it back: payloads as text, the operator's record through JSON."""
    made = row.copy()
    made.input = Json(row.input.raw)
    made.output = None if row.output is None else Json(row.output.raw)
    made.state = None if row.state is None else decode(encode(row.state))
    return made


def _is_revived(row: TaskRow, path: Path) -> bool:
    """It runs again in an earlier turn: the loop's turn waits for it too."""
    return len(row.path) == len(path) and (row.state or {}).get("passed") == REVIVED


def starts_with(path: Path, prefix: Path) -> bool:
    return path[: len(prefix)] == prefix


def newest(rows: list[TaskRow], reference: str, path: Path, *, exact: bool) -> TaskRow | None:
    found = [
        row
        for row in rows
        if row.reference == reference and (row.path == path if exact else starts_with(row.path, path))
    ]
    return max(found, key=lambda row: (row.path, row.attempt)).copy() if found else None


def inside(rows: list[TaskRow], scope: int) -> list[TaskRow]:
    scopes = {scope}
    found = []
    for row in rows:
        if row.scope in scopes:
            scopes.add(row.seq)
            found.append(row)
    return found


def held(rows: list[TaskRow], scope: int) -> list[TaskRow]:
    """Rows inside a container, those left out that another TRY or compensation inside it holds."""
    scopes = {scope}
    found = []
    for row in rows:
        if row.scope in scopes:
            if row.type not in ("TRY", "COMPENSATE"):
                scopes.add(row.seq)
            found.append(row)
    return found


def with_definitions(document: Any, tasks: dict[str, dict[str, Any]]) -> Any:
    """The document with its task definitions inside, as a snapshot has them."""
    if isinstance(document, list):
        return [with_definitions(item, tasks) for item in document]
    if not isinstance(document, dict):
        return document
    made = {key: with_definitions(value, tasks) for key, value in document.items()}
    if "taskReferenceName" in made and made.get("name") in tasks and "taskDefinition" not in made:
        made["taskDefinition"] = tasks[made["name"]]
    return made


def unreached(plan: Plan, join: TaskRow, rows: list[TaskRow]) -> set[str]:
    """The tasks that a join names and that never run: a SWITCH around them chose another case, which is
    over."""
    newest = {row.reference: row for row in sorted(rows, key=lambda row: row.seq) if row.path == join.path}
    ended = {reference: row for reference, row in newest.items() if row.status.terminal}
    ran = {row.reference for row in rows if row.path == join.path}
    found = set()
    now = plan.nodes.get(join.reference)  # an upgrade may have changed what it lists
    for name in {*join.input.value["joinOn"], *(now.join_on if now is not None else ())} - ran:
        node = plan.nodes.get(name)
        if node is None:
            continue
        before = [ended.get(fork.reference) for fork in plan.nodes.values() if fork.next is node]
        if any(
            row is not None and row.type == "FORK" and row.status != TaskStatus.COMPLETED for row in before
        ):
            found.add(name)
        while node.parent is not None:
            switch = node.parent
            row = ended.get(switch.reference)
            if switch.cases and row is not None:
                chain = [task.task_reference_name for task in chosen_case(switch, row)]
                if node.reference not in chain and (not chain or is_over(plan, ended, chain[-1])):
                    found.add(name)
            node = switch
    return found


def chosen_case(node: Node, row: TaskRow) -> list[WorkflowTask]:
    """The tasks of the case that an ended SWITCH or DECISION chose; an empty case of a DECISION is its
    default (K20)."""
    output = row.output.value if row.output is not None else {}
    cases, default = node.task.decision_cases, node.task.default_case
    if "selectedCase" in output:
        return cases.get(output["selectedCase"], default)
    return cases.get(output["caseOutput"][0]) or default if "caseOutput" in output else []


def is_over(plan: Plan, ended: dict[str, TaskRow], last: str) -> bool:
    """Whether a chain is over that ends with this task: with it, or with the case that it chose."""
    row, node = ended.get(last), plan.nodes[last]
    if row is None:
        return False
    if not node.cases or row.output is None:
        return True
    chosen = chosen_case(node, row)
    return not chosen or is_over(plan, ended, chosen[-1].task_reference_name)


def evaluate(need: needs.Script) -> needs.ScriptAnswer:
    """Scripts run for real, in this process."""
    if need.language == "jq":
        try:
            return needs.ScriptAnswer(value=jq.compile(need.script).input_text(need.input.decode()).all())
        except ValueError as error:
            return needs.ScriptAnswer(error=str(error))
    context = _quickjs.Context()
    context.eval(f"var $ = {need.input.decode()};")
    script = need.script if need.language == "javascript" else f"(function () {{{need.script}\n}})()"
    context.eval("var run = eval;")
    try:
        text = context.eval(f"JSON.stringify(run({json.dumps(script)}))")
    except _quickjs.JSException as error:
        return needs.ScriptAnswer(error=str(error).splitlines()[0])
    return needs.ScriptAnswer(value=None if text is None else json.loads(text))


def flow(*tasks: dict[str, Any], name: str = "flow", **more: Any) -> dict[str, Any]:
    """A workflow document."""
    return {"name": name, "version": 1, "schemaVersion": 2, "tasks": list(tasks), **more}


def simple(reference: str, inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A SIMPLE task called like its reference, that is not retried unless `more` says so."""
    return {
        "name": reference,
        "taskReferenceName": reference,
        "type": "SIMPLE",
        "inputParameters": inputs or {},
        "retryCount": 0,
        **more,
    }


def task(type: str, reference: str, inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "name": reference,
        "taskReferenceName": reference,
        "type": type,
        "inputParameters": inputs or {},
        **more,
    }


def switch(reference: str, value: Any, cases: dict[str, Any], default: Any = ()) -> dict[str, Any]:
    return task(
        "SWITCH",
        reference,
        {"value": value},
        evaluatorType="value-param",
        expression="value",
        decisionCases=cases,
        defaultCase=list(default),
    )


def fork(reference: str, *branches: list[dict[str, Any]]) -> dict[str, Any]:
    return task("FORK_JOIN", reference, forkTasks=list(branches))


def join(reference: str, *on: str, **more: Any) -> dict[str, Any]:
    return task("JOIN", reference, joinOn=list(on), **more)


def loop(reference: str, body: list[dict[str, Any]], times: int | None = None, **more: Any) -> dict[str, Any]:
    condition = f"$.{reference}['iteration'] < {times}" if times is not None else None
    return task("DO_WHILE", reference, loopOver=body, **{"loopCondition": condition, **more})


def inline(
    reference: str, expression: str, inputs: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    given = {"evaluatorType": "javascript", "expression": expression, **(inputs or {})}
    return task("INLINE", reference, given, **more)


def guarded(
    reference: str,
    body: list[dict[str, Any]],
    *cases: dict[str, Any],
    last: list[dict[str, Any]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A TRY; `cases` by `catch`, `last` its finallyTasks."""
    return task("TRY", reference, tryTasks=body, catchCases=list(cases), finallyTasks=last or [], **more)


def catch(
    *tasks: dict[str, Any], names: tuple[str, ...] = (), statuses: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A catch case; without names and statuses it takes everything."""
    return {"errorNames": list(names), "statuses": list(statuses), "tasks": list(tasks)}
