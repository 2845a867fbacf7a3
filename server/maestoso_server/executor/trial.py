"""A workflow tried out: an engine of its own, in memory, in its own time, with tasks as mocks say.

The decisions are those of `engine.decide`, with real scripts and the registered definitions; the world
around them is this file: rows are kept in views, a queue hands out to mocks, deadlines pass at once.
Nothing is written, nothing is started, no worker sees a task.

    trial = Trial(namespace, plans=plans, evaluators=evaluators, mocks=mocks, now_ms=clock.now_ms())
    await trial.run(draft, request)
    trial.stop, trial.root, trial.children, trial.lacking()
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count
from typing import Any

from ..engine import messages, needs
from ..engine.decide import decide
from ..engine.decision import Decision, Message, MessageKind, Verdict
from ..engine.events import ChildPlaced, Due, Event, QueueFacts, Result, SlotGranted, Start
from ..engine.names import shown_reference, split_reference
from ..engine.nodes import DYNAMIC, DYNAMIC_FORK, HUMAN, SUB_WORKFLOW, WAIT, WORKER, Node
from ..engine.plan import Plan
from ..engine.policy import Policy
from ..engine.reading import Reading
from ..engine.state import Header, TaskRow, TaskStatus, View
from ..errors import InvalidArgument, MaestosoError, Reason, Violation
from ..payload import EMPTY, Json
from ..scripting.pool import Evaluators
from .plans import Draft, Plans, Resolved
from .starts import StartRequest, new_header

DECISIONS_MAX = 20_000
TASKS_MAX = 20_000
PAYLOAD_BYTES_MAX = 8 * 1024 * 1024
"""Of all tasks together: the answer has to fit into one message."""
SECONDS_MAX = 60.0

MOCKED = frozenset({WORKER, DYNAMIC, SUB_WORKFLOW, WAIT, HUMAN})
"""Kinds of nodes whose result comes from outside; the engine decides all others itself."""


class Stop(IntEnum):
    """Why a trial stopped. The numbers are the contract's."""

    ENDED = 1
    LACKS_MOCKS = 2
    LIMIT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Mock:
    """How one attempt turns out. `times`: for how many attempts."""

    status: TaskStatus = TaskStatus.COMPLETED
    output: Json = EMPTY
    reason: str | None = None
    error_name: str | None = None
    execution_ms: int = 0
    queue_wait_ms: int = 0
    times: int = 1


@dataclass(frozen=True, slots=True)
class Mocks:
    """Of one workflow, by reference: `ref` for all turns together, `ref__2` for one alone."""

    tasks: Mapping[str, Sequence[Mock]] = field(default_factory=dict)
    children: Mapping[str, Mocks] = field(default_factory=dict)


class Run:
    """One workflow of a trial."""

    def __init__(self, header: Header, mocks: Mocks, name: str) -> None:
        self.view = View(header, whole=True)
        self.mocks = mocks
        self.name = name
        """The reference of its SUB_WORKFLOW task, below that of the parent's; empty for the root."""
        self.rows: dict[int, TaskRow] = {}
        self.deadlines: dict[int, int] = {}
        self.waiting: dict[int, int] = {}
        """Queue rows that no mock has taken: seq -> due_ms."""
        self.started: dict[int, int] = {}
        """Queue rows that run: seq -> since when."""
        self.fragments: dict[int, Json] = {}
        self.used: dict[str, int] = {}
        """How many mocks of a key have been used."""

    @property
    def header(self) -> Header:
        return self.view.header

    def mock_for(self, row: TaskRow) -> Mock | None:
        """The next mock of a row, which is used up; None where there is none."""
        shown = shown_reference(row.reference, row.path)
        key = shown if shown in self.mocks.tasks else row.reference
        number = self.used.get(key, 0)
        for mock in self.mocks.tasks.get(key, ()):
            if number < mock.times:
                self.used[key] = self.used.get(key, 0) + 1
                return mock
            number -= mock.times
        return None

    def keep(self, decision: Decision) -> int:
        """Become what a decision made of it; returns how many bytes of payload it grew."""
        grown = 0
        for row in (*decision.inserted, *decision.updated):
            before = self.rows.get(row.seq)
            grown += _size(row) - (_size(before) if before is not None else 0)
            self.rows[row.seq] = row
        for seq in decision.deleted:
            grown -= _size(self.rows.pop(seq))
        for seq in decision.released:
            self._end(seq)
        for birth in decision.births:
            self.waiting[birth.seq] = birth.due_ms
        for seq, due_ms in decision.asleep.items():
            self._end(seq)
            self.waiting[seq] = due_ms
        for seq, due_ms in decision.deadlines.items():
            if due_ms:
                self.deadlines[seq] = due_ms
            else:
                self.deadlines.pop(seq, None)
        for row in decision.updated:
            if row.status.terminal:
                self._end(row.seq)
                self.deadlines.pop(row.seq, None)
        self.fragments.update(decision.fragments)
        self.view.apply(decision)
        return grown

    def _end(self, seq: int) -> None:
        self.waiting.pop(seq, None)
        self.started.pop(seq, None)


class Trial:
    """Use once."""

    def __init__(
        self, namespace: str, *, plans: Plans, evaluators: Evaluators, mocks: Mocks, now_ms: int
    ) -> None:
        self.runs: dict[str, Run] = {}
        self.stop = Stop.LIMIT
        self.would_start: list[str] = []
        self._namespace = namespace
        self._plans = plans
        self._evaluators = evaluators
        self._mocks = mocks
        self._now_ms = now_ms
        self._drafts: dict[str, Draft] = {}
        self._resolved: dict[tuple[str, int | None], Draft] = {}
        self._inbox: deque[tuple[str, Event, Header | None]] = deque()
        self._moments: list[tuple[int, int, str, int, str, Any]] = []
        """(when, order, workflow, seq, what, mock): results and starts of mocked tasks."""
        self._order = count()
        self._seed = count(1)
        self._decisions = 0
        self._tasks = 0
        self._bytes = 0
        self._touched: deque[tuple[str, int]] = deque()
        """Rows that decisions have written since mocks were handed out."""
        self._clocks: list[tuple[int, int, str, int]] = []
        """(when, order, workflow, seq) of deadlines; those that were moved since are passed over."""
        self._halted: list[tuple[int, int, str, int]] = []
        """Clocks of workflows, which stand still while a mock is missing."""
        self._asked: set[tuple[str, int]] = set()
        """Open rows for which a mock was looked for."""
        self._lacking: dict[tuple[str, int], None] = {}

    @property
    def root(self) -> Run:
        return next(iter(self.runs.values()))

    @property
    def children(self) -> list[Run]:
        return list(self.runs.values())[1:]

    def lacking(self) -> list[str]:
        """The references of open tasks that lack a mock, below those of their SUB_WORKFLOW tasks."""
        found = []
        for workflow_id, seq in self._lacking:
            run = self.runs[workflow_id]
            row = run.rows.get(seq)
            if row is not None and not row.status.terminal:
                shown = shown_reference(row.reference, row.path)
                found.append(f"{run.name}/{shown}" if run.name else shown)
        return found

    async def run(self, draft: Draft, request: StartRequest) -> None:
        """Run to the end, or until nothing can happen without a mock, or to a limit. Raises
        InvalidArgument for a mock that nothing could use."""
        _refuse_strange(draft.plan, self._mocks, "mocks.")
        self._drafts[draft.snapshot_id] = draft
        resolved = Resolved(draft.snapshot_id, draft.plan.name, draft.plan.version, 0)
        header = new_header(request, resolved, self._now_ms)
        self.runs[header.id] = Run(header, self._mocks, "")
        self._inbox.append((header.id, Start(now_ms=self._now_ms, seed=next(self._seed)), None))
        try:
            async with asyncio.timeout(SECONDS_MAX):
                self.stop = await self._play()
        except TimeoutError:
            self.stop = Stop.LIMIT

    async def _play(self) -> Stop:
        while True:
            while self._inbox:
                if (
                    self._decisions >= DECISIONS_MAX
                    or self._tasks > TASKS_MAX
                    or self._bytes > PAYLOAD_BYTES_MAX
                ):
                    return Stop.LIMIT
                workflow_id, event, header = self._inbox.popleft()
                await self._happen(workflow_id, event, header)
            if self.root.header.status.terminal:
                return Stop.ENDED
            self._hand_out()
            if not self._advance():
                return Stop.LACKS_MOCKS

    # -- decisions -------------------------------------------------------------------------------------

    async def _happen(self, workflow_id: str, event: Event, header: Header | None) -> None:
        run = self.runs.get(workflow_id)
        if run is None and header is not None:
            run = self.runs[workflow_id] = self._child(header)
        if run is None:
            return
        self._decisions += 1
        draft = self._drafts[run.header.snapshot_id]
        deciding = decide(draft.plan, run.view, [event])
        answers: list[Any] | None = None
        while True:
            try:
                asked = deciding.send(answers)  # type: ignore[arg-type]
            except StopIteration as end:
                decision: Decision = end.value
                break
            answers = [await self._answer(run, need) for need in asked]
        if decision.outcomes[0].verdict is Verdict.BEHIND:
            self._inbox.append((workflow_id, event, None))
        elif decision.changed:
            self._keep(run, decision)
            for message in decision.messages:
                self._pass_on(message)
            if decision.slot is not None and decision.slot.slots and not decision.slot.holds:
                self._inbox.append((workflow_id, SlotGranted(now_ms=self._now_ms), None))
        elif isinstance(event, Due):
            run.deadlines.pop(event.seq, None)
        if self._decisions % 20 == 0:
            await asyncio.sleep(0)  # the server's other work goes first

    def _keep(self, run: Run, decision: Decision) -> None:
        workflow_id = run.header.id
        self._bytes += run.keep(decision)
        self._tasks += len(decision.inserted) - len(decision.deleted)
        self._touched.extend((workflow_id, row.seq) for row in (*decision.inserted, *decision.updated))
        for seq, due_ms in decision.deadlines.items():
            if due_ms:
                self._clock(due_ms, workflow_id, seq)

    def _clock(self, due_ms: int, workflow_id: str, seq: int) -> None:
        heapq.heappush(self._clocks, (due_ms, next(self._order), workflow_id, seq))

    def _child(self, header: Header) -> Run:
        parent = self.runs[header.parent_id or ""]
        row = parent.rows[header.parent_seq]
        shown = shown_reference(row.reference, row.path)
        children = parent.mocks.children
        key = shown if shown in children else row.reference
        mocks = children.get(key, Mocks())
        name = f"{parent.name}/{shown}" if parent.name else shown
        places = "".join(f"children[{part}]." for part in name.split("/")[:-1])
        _refuse_strange(self._drafts[header.snapshot_id].plan, mocks, f"mocks.{places}children[{key}].")
        return Run(header, mocks, name)

    def _pass_on(self, message: Message) -> None:
        """To its workflow, if that is part of the trial; a start of its own is only noted."""
        if message.parked:
            return
        body = message.body.raw
        header: Header | None = None
        if message.kind is MessageKind.CHILD_START:
            header = messages.child_header(message.workflow_id, body, self._now_ms)
            if header.parent_id is None:
                self.would_start.append(header.name)
                self._placed(body, header)
                return
            if self._is_mocked(header):
                return
        event = messages.decode(message.kind, body, now_ms=self._now_ms, seed=next(self._seed))
        self._inbox.append((message.workflow_id, event, header))

    def _placed(self, body: bytes, header: Header) -> None:
        """A start that has an idempotency key finds it free: a trial holds no keys."""
        event = messages.decode(MessageKind.CHILD_START, body, now_ms=self._now_ms, seed=next(self._seed))
        if isinstance(event, Start) and event.answers:
            told = ChildPlaced(
                now_ms=self._now_ms, seq=event.asked_seq, child_id=header.id, workflow_id=header.id
            )
            self._inbox.append((event.asked_by, told, None))

    def _is_mocked(self, header: Header) -> bool:
        """Whether the SUB_WORKFLOW task has a mock of its own: then its child does not run."""
        parent = self.runs[header.parent_id or ""]
        row = parent.rows[header.parent_seq]
        return not {row.reference, shown_reference(row.reference, row.path)}.isdisjoint(parent.mocks.tasks)

    async def _answer(self, run: Run, need: needs.Need) -> Any:
        if isinstance(need, needs.Script):
            return await self._evaluators.evaluate(need.language, need.script, need.input)
        if isinstance(need, needs.Child):
            return await self._resolve(need)
        if isinstance(need, needs.TaskDefinition):
            return await self._plans.task_definition(self._namespace, need.name)
        if isinstance(need, needs.Fragment):
            return run.fragments.get(need.seq)
        if isinstance(need, needs.Row):
            return run.rows.get(need.seq)
        if isinstance(need, needs.Demand):
            return set()
        if isinstance(need, needs.Redact | needs.CachedOutput):
            return None
        if isinstance(need, needs.ParkedSignals):
            return []
        raise AssertionError(f"a whole view was asked for {need}")

    async def _resolve(self, need: needs.Child) -> needs.ChildAnswer:
        try:
            if need.definition is not None:
                draft = await self._plans.draft_made_at_run_time(self._namespace, need.definition.raw)
            else:
                draft = await self._registered(need.name, need.version)
        except MaestosoError as refusal:
            return needs.ChildAnswer(error=refusal.message)
        self._drafts[draft.snapshot_id] = draft
        return needs.ChildAnswer(draft.snapshot_id, draft.plan.name, draft.plan.version)

    async def _registered(self, name: str, version: int | None) -> Draft:
        key = (name, version)
        if key not in self._resolved:
            self._resolved[key] = await self._plans.draft(self._namespace, name, version)
        return self._resolved[key]

    # -- the world around ------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Give every open row that waits for a result its mock."""
        while self._touched:
            key = workflow_id, seq = self._touched.popleft()
            run = self.runs[workflow_id]
            row = run.rows.get(seq)
            if row is None or row.status.terminal or key in self._asked or run.header.status.terminal:
                continue
            if not self._waits_for_a_result(run, row):
                continue
            self._asked.add(key)
            mock = run.mock_for(row)
            if mock is None:
                if not self._goes_on_by_itself(run, row):
                    self._lacking[key] = None
                continue
            due_ms = run.waiting.get(seq, self._now_ms) + mock.queue_wait_ms
            if row.queued:
                self._at(due_ms, workflow_id, seq, "start", mock)
            else:
                self._at(due_ms + mock.execution_ms, workflow_id, seq, "end", mock)

    def _waits_for_a_result(self, run: Run, row: TaskRow) -> bool:
        if row.queued:
            return True
        told = self._node(run, row).kind in (SUB_WORKFLOW, WAIT, HUMAN)
        return told and row.status is TaskStatus.IN_PROGRESS

    def _node(self, run: Run, row: TaskRow) -> Node:
        node = Reading(self._drafts[run.header.snapshot_id].plan, run.view).node_of(row)
        assert node is not None, "every row of a trial has its node"
        return node

    def _goes_on_by_itself(self, run: Run, row: TaskRow) -> bool:
        """A WAIT with an end, a SUB_WORKFLOW whose child runs."""
        return "due" in (row.state or {}) or (row.child_id is not None and row.child_id in self.runs)

    def _at(self, when_ms: int, workflow_id: str, seq: int, what: str, mock: Mock) -> None:
        heapq.heappush(self._moments, (when_ms, next(self._order), workflow_id, seq, what, mock))

    def _advance(self) -> bool:
        """Let the next thing happen; False where nothing can."""
        due = self._next_deadline()
        if self._moments and (due is None or self._moments[0][0] <= due[0]):
            when_ms, _, workflow_id, seq, what, mock = heapq.heappop(self._moments)
            self._now_ms = max(self._now_ms, when_ms)
            self._report(workflow_id, seq, what, mock)
            return True
        if due is None:
            return False
        heapq.heappop(self._clocks)
        when_ms, _, workflow_id, seq = due
        self._now_ms = max(self._now_ms, when_ms)
        facts = self._facts(self.runs[workflow_id], seq)
        event = Due(now_ms=self._now_ms, seed=next(self._seed), seq=seq, queue=facts)
        self._inbox.append((workflow_id, event, None))
        return True

    def _next_deadline(self) -> tuple[int, int, str, int] | None:
        """The earliest clock that runs, at the head of the heap. Time does not pass for a task that lacks
        its mock, nor for the workflows' own clocks meanwhile."""
        stopped = any(self._is_open(*key) for key in self._lacking)
        if not stopped:
            while self._halted:
                heapq.heappush(self._clocks, self._halted.pop())
        while self._clocks:
            clock = due_ms, _, workflow_id, seq = self._clocks[0]
            run = self.runs[workflow_id]
            over = run.header.status.terminal or run.deadlines.get(seq) != due_ms
            if not over and (workflow_id, seq) not in self._lacking and not (seq == 0 and stopped):
                return clock
            heapq.heappop(self._clocks)
            if not over and seq == 0:
                self._halted.append(clock)
        return None

    def _is_open(self, workflow_id: str, seq: int) -> bool:
        row = self.runs[workflow_id].rows.get(seq)
        return row is not None and not row.status.terminal

    def _report(self, workflow_id: str, seq: int, what: str, mock: Mock) -> None:
        run = self.runs[workflow_id]
        if what == "start":
            if seq in run.waiting:
                del run.waiting[seq]
                run.started[seq] = self._now_ms
                self._watch(run, seq)
                self._at(self._now_ms + mock.execution_ms, workflow_id, seq, "end", mock)
            return
        row = run.rows.get(seq)
        if row is None or row.status.terminal or (row.queued and seq not in run.started):
            return
        result = Result(
            now_ms=self._now_ms,
            seed=next(self._seed),
            seq=seq,
            status=mock.status,
            output=mock.output,
            reason=mock.reason,
            error_name=mock.error_name,
            started_ms=run.started.get(seq, 0),
        )
        self._inbox.append((workflow_id, result, None))

    def _watch(self, run: Run, seq: int) -> None:
        """The clocks of a task that runs, as its worker's node would watch them."""
        row = run.rows[seq]
        policy = self._policy(run, row)
        started_ms = run.started[seq]
        dues = [started_ms + limit * 1000 for limit in (policy.response_s, policy.timeout_s) if limit]
        if policy.total_s:
            dues.append(row.first_scheduled_ms + policy.total_s * 1000)
        if dues:
            run.deadlines[seq] = min(dues)
            self._clock(min(dues), run.header.id, seq)

    def _policy(self, run: Run, row: TaskRow) -> Policy:
        reading = Reading(self._drafts[run.header.snapshot_id].plan, run.view)
        return reading.policy_of(row, self._node(run, row))

    def _facts(self, run: Run, seq: int) -> QueueFacts | None:
        if seq in run.started:
            due_ms = run.rows[seq].scheduled_ms
            return QueueFacts(owner_epoch=0, due_ms=due_ms, started_ms=run.started[seq])
        if seq in run.waiting:
            return QueueFacts(owner_epoch=None, due_ms=run.waiting[seq])
        return None


def _refuse_strange(plan: Plan, mocks: Mocks, place: str) -> None:
    """Raises InvalidArgument for a mock of what is not there, or of what the engine decides itself."""
    dynamic = any(node.kind == DYNAMIC_FORK for node in plan.nodes.values())
    for key in mocks.tasks:
        node, in_turn = _named(plan, key)
        field = f"{place}tasks[{key}]"
        if node is None:
            if not dynamic:
                raise _invalid(field, f"names no task of {plan.name} version {plan.version}")
        elif node.kind not in MOCKED:
            raise _invalid(field, f"is a {node.type} task, which is really evaluated: leave its mocks out")
        elif in_turn and not node.loops:
            raise _invalid(field, f"names a turn, and {node.reference} lies in no loop")
    for key in mocks.children:
        node, _ = _named(plan, key)
        if (node is None and not dynamic) or (node is not None and node.kind != SUB_WORKFLOW):
            raise _invalid(f"{place}children[{key}]", f"names no SUB_WORKFLOW task of {plan.name}")


def _named(plan: Plan, key: str) -> tuple[Node | None, bool]:
    """The node that a key of mocks means, and whether it means one turn of it only."""
    node = plan.nodes.get(key)
    if node is not None:
        return node, False
    base, path = split_reference(key)
    return plan.nodes.get(base), bool(path)


def _invalid(field: str, message: str) -> InvalidArgument:
    return InvalidArgument(
        Reason.INVALID_REQUEST, f"{field} {message}", violations=[Violation(field, message)]
    )


def _size(row: TaskRow) -> int:
    return len(row.input.raw) + (len(row.output.raw) if row.output is not None else 0)
