"""Running again from the beginning or from any task: the command and the steps ASIDE and AFRESH.

Rerun from a task: what comes after it in the flow leaves the generation (`ASIDE`, a few hundred
rows a decision), what failed or was cancelled beside it runs again (`REVIVE`), the task gets a new
row (`AFRESH`), the joins of the forks around it are made anew and counted, and the loops around it
are open again in the task's turn.
"""

from __future__ import annotations

from typing import Any

from ..payload import Json
from . import statuses
from .again import COMPENSATED, begin_anew, being_removed, is_undone, reopen_header, tell_parent
from .chains import Following, is_undoing
from .commands import restart_clock
from .cursor import continues
from .decision import APPLIED, Outcome
from .ending import rows_after
from .events import Rerun
from .nodes import BODY, EXCLUSIVE_JOIN, FINALLY, FORK, JOIN, LOOP, NOOP, TRY, Node
from .operators.loops import counters_of
from .outcomes import absent, behind, refused
from .state import Path, TaskRow, TaskStatus, WorkflowStatus
from .steps import AFRESH, AGAIN, ASIDE, BIRTH, BRANCHES, JOIN_BIRTH, LAST, RECOUNT, REVIVE, SETTLE
from .turn import Step, Turn

_ENDED = int(WorkflowStatus.COMPLETED)
_COMPLETED = int(TaskStatus.COMPLETED)
ASIDE_AT_ONCE = 200
TAKES_NO_INPUT = frozenset({JOIN, EXCLUSIVE_JOIN, FORK, LOOP, NOOP, TRY})
"""Kinds whose rows have no input of their own, or none that changes what they do."""


def apply_rerun(turn: Turn, event: Rerun) -> Outcome | None:
    header = turn.header
    if header.status < _ENDED:
        return refused(f"Workflow: {header.id} is not in terminal state, unable to rerun.")
    if being_removed(turn):
        return refused("it is being removed")
    if continues(header):
        return behind()
    if event.seq:
        return _from_task(turn, event)
    begin_anew(turn, "RERAN", input=event.input, correlation_id=event.correlation_id)
    return APPLIED


def _from_task(turn: Turn, event: Rerun) -> Outcome | None:
    row = turn.row(event.seq)
    if row is None and turn.lacking:
        return None
    if row is None or row.generation != turn.header.generation:
        return absent(f"its present run has no task {turn.task_id(event.seq)}")
    node = turn.node_of(row)
    if node is None:
        return None if turn.lacking else absent("the task is not part of the definition")
    if is_undoing(node):
        return refused(f"task {node.reference} is part of a compensation: rerun from a task of the flow")
    if is_undone(turn):
        if node is not turn.plan.first or event.task_input is not None:
            return refused(COMPENSATED.format(turn.header.id))
        begin_anew(turn, "RERAN", correlation_id=event.correlation_id)
        return APPLIED
    if event.task_input is not None and node.kind in TAKES_NO_INPUT:
        return refused(f"task {node.reference} is a {node.type}: it takes no input")
    place = Place.find(turn, node, row)
    if place is None:
        return None if turn.lacking else refused("what is around the task is not kept any more")
    last = place.last(turn)
    if turn.lacking:
        return None
    undone = place.built_upon()
    if undone is not None:
        return refused(f"TRY {undone} may have undone what task {node.reference} builds upon: rerun from it")
    reopen_header(turn)
    header = turn.header
    header.permissive_failed = 0
    header.output = None
    if event.correlation_id is not None:
        header.correlation_id = event.correlation_id
        turn.corrected = True
    restart_clock(turn)
    work = turn.pending_work()
    held = [step for step in work["held"] if not place.drops(turn, step)]
    work["held"] = []
    turn.keep_work()
    place.open_holders(turn)
    turn.later(place.aside(turn))
    turn.later((REVIVE, 0, False))
    turn.agenda.extend(held)
    given = None if event.task_input is None else event.task_input.value
    turn.agenda.extend(place.births(given))
    if last:
        turn.later(last)
    statuses.tell(turn, "RETRIED")
    tell_parent(turn)
    return APPLIED


class Place:
    """A task to go on from, with the rows around it."""

    __slots__ = ("_first", "_forks", "_holders", "_join_fork", "_path", "_scope", "following", "node")

    def __init__(self, node: Node, path: Path, scope: int) -> None:
        self.node = node
        self.following = Following(node, path)
        self._path = path
        self._scope = scope
        self._first = 0
        """The `seq` before the first row that may have to leave."""
        self._forks: list[tuple[Node, TaskRow]] = []
        self._holders: list[tuple[Node, int, TaskRow, dict[str, Any]]] = []
        """(loop or TRY, part, its row, the counters of a loop)"""
        self._join_fork = 0

    @classmethod
    def find(cls, turn: Turn, node: Node, row: TaskRow) -> Place | None:
        """The place of a row; None where something around it is wanted first, or gone."""
        place = cls(node, row.path, row.scope)
        if not place.look_around(turn):
            return None
        newest = turn.newest(node.reference, row.path)
        firsts = [row.seq]
        at: TaskRow | None = newest or row
        while at is not None and at.retried_seq:
            at = turn.row(at.retried_seq)
            if at is not None:
                firsts.append(at.seq)
        for fork, found in place._forks:
            if fork.next is not None:
                join = turn.newest(fork.next.reference, found.path)
                if join is not None:
                    firsts.append(join.seq)
        place._first = min(firsts) - 1
        place._join_fork = (row.state or {}).get("fork", 0) if node.kind == JOIN else 0
        return None if turn.lacking else place

    def look_around(self, turn: Turn) -> bool:
        """Find the rows of the forks, loops and TRYs around the place; False where one is wanted or gone."""
        for fork in self.following.forks:
            found = turn.newest(fork.reference, self._path[: len(fork.loops)])
            if found is not None:
                self._forks.append((fork, found))
        for holder, part in self.following.holders:
            depth = len(holder.loops)
            found = turn.newest(holder.reference, self._path[:depth])
            if found is not None:
                turns = counters_of(turn, holder, found, self._path[depth]) if holder.kind == LOOP else {}
                self._holders.append((holder, part, found, turns))
        complete = len(self._forks) == len(self.following.forks) and len(self._holders) == len(
            self.following.holders
        )
        return complete and not turn.lacking

    def built_upon(self) -> str | None:
        """The TRY around the task that has caught a failure and may have undone what the task builds
        upon; None: there is none."""
        for holder, part, row, _ in self._holders:
            if holder.kind == TRY and holder.compensable and part == BODY:
                output = row.output.value if row.output is not None else {}
                if output.get("caught") or (row.state or {}).get("failure"):
                    return holder.reference
        return None

    def open_holders(self, turn: Turn) -> None:
        """Have the loops and TRYs around run again, in the task's turn and part; the chains that run in
        them are counted later."""
        for holder, part, found, counters in self._holders:
            mine = turn.edit(found)
            if mine.status >= _COMPLETED:
                turn.set_status(mine, TaskStatus.IN_PROGRESS)
                mine.reason = None
            state = mine.state or {}
            if holder.kind == LOOP:
                mine.output = Json.of(counters)
                mine.state = {
                    "turn": counters["iteration"],
                    "live": 1,
                    "keep": state.get("keep", 0),
                    "recount": True,
                }
                continue
            failure = state.get("failure")
            goes_on = part == FINALLY and failure is not None and failure[3] != FINALLY
            mine.state = {
                "part": part,
                "live": 1,
                "permissive": [],
                "failure": failure if goes_on else None,
                "held": [],
                "recount": True,
            }
            if part == BODY:
                mine.output = None
            elif "caught" in state:
                mine.state["caught"] = state["caught"]

    def aside(self, turn: Turn) -> Step:
        """The step that clears the way."""
        past = -turn.header.next_seq  # whatever is made after this command has a higher one
        return (ASIDE, past, self._first, self.node.reference, self._path, self._scope)

    def births(self, given: Any) -> list[Step]:
        """The steps that make the task and the joins after it, and count what waits for them."""
        reference, path = self.node.reference, self._path
        if self.node.kind == JOIN and self._join_fork:
            steps: list[Step] = [(JOIN_BIRTH, reference, path, self._scope, self._join_fork)]
        elif given is None:
            steps = [(BIRTH, reference, path, self._scope)]
        else:
            steps = [(AFRESH, reference, path, self._scope, given)]
        for fork, row in self._forks:
            if fork.next is not None:
                steps.append((JOIN_BIRTH, fork.next.reference, row.path, row.scope, row.seq))
        steps.extend((RECOUNT, row.seq) for _, _, row, _ in self._holders)
        return steps

    def births_in_chain(self, turn: Turn, given: Any) -> list[Step]:
        """The steps that make the task where the forks around it run on; all that waits is counted."""
        reference, path = self.node.reference, self._path
        if given is None:
            steps: list[Step] = [(BIRTH, reference, path, self._scope)]
        else:
            steps = [(AFRESH, reference, path, self._scope, given)]
        for fork, row in self._forks:
            join = turn.newest(fork.next.reference, row.path) if fork.next is not None else None
            if join is not None:
                steps.append((RECOUNT, join.seq))
        steps.extend((RECOUNT, row.seq) for _, _, row, _ in self._holders)
        return steps

    def last(self, turn: Turn) -> Step | None:
        """The step after which the row that was made last is still that one, where it stays."""
        row = turn.row(turn.header.last_task)
        node = turn.node_of(row) if row is not None else None
        if row is None or node is None or self.following.holds(node, row.path):
            return None
        return (LAST, row.reference, row.path)

    def drops(self, turn: Turn, step: Step) -> bool:
        """Whether a step that was left over belongs to what is made again."""
        return step_within(turn, step, self.following.holds)


def step_within(turn: Turn, step: Step, holds: Any) -> bool:
    """Whether a step is about a task for which `holds(node, path)`. Steps about rows that have left
    the generation do nothing when they come."""
    kind = step[0]
    if kind in (BIRTH, JOIN_BIRTH, AFRESH):
        node = turn.node(step[1], step[3])
        return node is not None and bool(holds(node, step[2]))
    if kind in (SETTLE, AGAIN, BRANCHES):
        row = turn.row(step[1])
        node = turn.node_of(row) if row is not None else None
        return row is not None and node is not None and bool(holds(node, row.path))
    return False


def prepare_aside(turn: Turn, step: Step) -> tuple[list[TaskRow], int]:
    """(rows that have to leave, the last row that was looked at; 0: there are no more)"""
    _, _, after, reference, path, scope = step
    node = turn.node(reference, scope)
    if node is None:
        return [], 0
    following = Following(node, path)
    rows = rows_after(turn, after, ASIDE_AT_ONCE)
    leaving: list[TaskRow] = []
    left: set[int] = set()
    for row in rows:
        if row.scope in left or _leaves(turn, following, row):
            leaving.append(row)
            left.add(row.seq)
    return leaving, rows[-1].seq if len(rows) == ASIDE_AT_ONCE else 0


def _leaves(turn: Turn, following: Following, row: TaskRow) -> bool:
    if row.scope:
        container = turn.row(row.scope)
        if container is None or container.generation != row.generation:
            return not turn.lacking  # its container has left in an earlier decision
    node = turn.node_of(row)
    return node is not None and following.holds(node, row.path)


def act_aside(turn: Turn, step: Step, found: tuple[list[TaskRow], int]) -> None:
    _, past, _, *rest = step
    rows, last = found
    for row in rows:
        turn.set_aside(row, past)
    if last:
        turn.first((ASIDE, past, last, *rest))
