"""Running again from the beginning or from any task: the command and the steps ASIDE and AFRESH.

Rerun from a task: what comes after it in the flow leaves the generation (`ASIDE`, a few hundred
rows a decision), what failed or was cancelled beside it runs again (`REVIVE`), the task gets a new
row (`AFRESH`), the joins of the forks around it are made anew and counted, and the loops around it
are open again in the task's turn.
"""

from __future__ import annotations

from typing import Any

from ..payload import Json
from .again import begin_anew, being_removed, reopen_header, tell_parent
from .chains import Following
from .commands import restart_clock
from .cursor import continues
from .decision import APPLIED, Outcome
from .ending import rows_after
from .events import Rerun
from .nodes import EXCLUSIVE_JOIN, FORK, JOIN, LOOP, NOOP, Node
from .operators.loops import counters_of
from .outcomes import absent, behind, refused
from .state import Path, TaskRow, TaskStatus, WorkflowStatus
from .steps import AFRESH, AGAIN, ASIDE, BIRTH, BRANCHES, JOIN_BIRTH, LAST, RECOUNT, REVIVE, SETTLE
from .turn import Step, Turn

_ENDED = int(WorkflowStatus.COMPLETED)
_COMPLETED = int(TaskStatus.COMPLETED)
ASIDE_AT_ONCE = 200
TAKES_NO_INPUT = frozenset({JOIN, EXCLUSIVE_JOIN, FORK, LOOP, NOOP})
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
    begin_anew(turn, input=event.input, correlation_id=event.correlation_id)
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
    if event.task_input is not None and node.kind in TAKES_NO_INPUT:
        return refused(f"task {node.reference} is a {node.type}: it takes no input")
    place = Place.find(turn, node, row)
    if place is None:
        return None if turn.lacking else refused("what is around the task is not kept any more")
    last = place.last(turn)
    if turn.lacking:
        return None
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
    place.open_loops(turn)
    turn.later(place.aside(turn))
    turn.later((REVIVE, 0, False))
    turn.agenda.extend(held)
    given = None if event.task_input is None else event.task_input.value
    turn.agenda.extend(place.births(given))
    if last:
        turn.later(last)
    tell_parent(turn)
    return APPLIED


class Place:
    """A task to go on from, with the rows around it."""

    __slots__ = (
        "_counters",
        "_first",
        "_forks",
        "_join_fork",
        "_loops",
        "_path",
        "_scope",
        "following",
        "node",
    )

    def __init__(self, node: Node, path: Path, scope: int) -> None:
        self.node = node
        self.following = Following(node, path)
        self._path = path
        self._scope = scope
        self._first = 0
        """The `seq` before the first row that may have to leave."""
        self._forks: list[tuple[Node, TaskRow]] = []
        self._loops: list[TaskRow] = []
        self._counters: list[dict[str, Any]] = []
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
        """Find the rows of the forks and loops around the place; False where one is wanted or gone."""
        for fork in self.following.forks:
            found = turn.newest(fork.reference, self._path[: len(fork.loops)])
            if found is not None:
                self._forks.append((fork, found))
        for loop in self.following.loops:
            depth = len(loop.loops)
            found = turn.newest(loop.reference, self._path[:depth])
            if found is not None:
                self._loops.append(found)
                self._counters.append(counters_of(turn, loop, found, self._path[depth]))
        complete = len(self._forks) == len(self.following.forks) and len(self._loops) == len(
            self.following.loops
        )
        return complete and not turn.lacking

    def open_loops(self, turn: Turn) -> None:
        """Have the loops around run again, in the task's turn; their chains are counted later."""
        for found, counters in zip(self._loops, self._counters, strict=True):
            mine = turn.edit(found)
            if mine.status >= _COMPLETED:
                turn.set_status(mine, TaskStatus.IN_PROGRESS)
                mine.reason = None
            mine.output = Json.of(counters)
            mine.state = {
                "turn": counters["iteration"],
                "live": 1,
                "keep": (mine.state or {}).get("keep", 0),
                "recount": True,
            }

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
        steps.extend((RECOUNT, loop.seq) for loop in self._loops)
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
        steps.extend((RECOUNT, loop.seq) for loop in self._loops)
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
