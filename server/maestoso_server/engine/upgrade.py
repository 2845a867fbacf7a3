"""A running workflow goes on under another version of its definition.

What has run stays as it ran; whatever happens from now on follows the new plan. That works where every
row that is still open has its place in the new plan: the same reference, doing the same kind of work,
inside the same containers. The same checks make a dry run's report and a real run's refusal, in the
decision that would change the workflow, so that nothing can come between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..payload import Json
from . import slots
from .chains import is_undoing
from .cursor import continues
from .decision import Outcome, Verdict
from .differences import Difference, Reach, chain, differences, place, workflow_fields
from .ending import open_rows
from .events import Upgrade
from .limits import TASKS_MAX
from .needs import Definition
from .nodes import BODY, DYNAMIC, EXCLUSIVE_JOIN, JOIN, TRY, Node
from .operators.compensation import page
from .operators.joins import is_left_out
from .outcomes import behind, refused
from .plan import UNDOING, Plan
from .state import Path, TaskRow, WorkflowStatus
from .steps import (
    AFRESH,
    AGAIN,
    ASIDE,
    BIRTH,
    BRANCHES,
    CATCH,
    CHOOSE,
    CLOSE,
    DROP,
    JOIN_BIRTH,
    NOTIFY,
    PART,
    RECOUNT,
    RUN,
    SETTLE,
    SWEEP,
    TURN,
    UNDO,
    UNREACHED,
)
from .turn import Turn

OPEN_TOLD_MAX = 100
"""Open tasks that a report names for one reference."""
_ENDED = int(WorkflowStatus.COMPLETED)
_NAMES_A_NODE = frozenset({BIRTH, JOIN_BIRTH, AFRESH})
_NAMES_A_ROW = frozenset(
    {
        AGAIN,
        RUN,
        SETTLE,
        NOTIFY,
        BRANCHES,
        TURN,
        CLOSE,
        RECOUNT,
        UNREACHED,
        CATCH,
        SWEEP,
        CHOOSE,
        PART,
        UNDO,
    }
)
_OF_AN_OPERATOR = frozenset({ASIDE, DROP})
"""A rerun or a jump that was not through when the workflow was paused."""


@dataclass(slots=True)
class _Found:
    """What speaks against an upgrade (`faults`), and what one should know of it (`warnings`):
    (reference, text), where the reference is empty for the workflow itself."""

    faults: dict[tuple[str, str], None] = field(default_factory=dict)
    warnings: dict[tuple[str, str], None] = field(default_factory=dict)


@dataclass(slots=True)
class _Standing:
    """Where the flow stands: the open rows with their nodes, and the steps that a pause holds back."""

    rows: list[tuple[TaskRow, Node]]
    held: list[tuple[TaskRow, Node]]
    births: list[tuple[str, int]]
    """(reference, container row) of nodes that are about to get their rows."""
    branches: list[tuple[Node, int]]
    """Forks whose branches from that number on are still to come."""
    unbegun: bool = False
    """It waits for its slot: all of it is still to come."""
    half_done: bool = False
    """An operator's command is not through."""


def apply_upgrade(turn: Turn, event: Upgrade) -> Outcome | None:
    """Check, and unless it is a dry run, change over."""
    header = turn.header
    if header.status >= _ENDED:
        return refused(
            f"it is {header.status.name}; only a RUNNING or PAUSED workflow is upgraded. Restart runs an "
            "ended one again on the latest definitions"
        )
    if continues(header):
        return behind()
    if event.snapshot_id == header.snapshot_id:
        return Outcome(Verdict.APPLIED, report=_report(turn, turn.plan, _Found(), [], []))
    new = turn.ask(Definition(event.snapshot_id))
    if new is None:
        return None
    standing = _standing(turn)
    if turn.lacking or standing is None:
        return None
    found = _judge(turn, new, standing)
    if turn.lacking:
        return None
    told = differences(turn.plan, new)
    report = _report(turn, new, found, told, standing.rows)
    if found.faults and not event.dry_run:
        count = len(found.faults)
        shown = "one reason" if count == 1 else f"{count} reasons"
        return Outcome(
            Verdict.REFUSED, f"{new.name} version {new.version} does not fit it, for {shown}", report
        )
    if not event.dry_run:
        _change_over(turn, new, event, standing)
    return Outcome(Verdict.APPLIED, report=report)


# --- where the flow stands -------------------------------------------------------------------------


def _standing(turn: Turn) -> _Standing | None:
    """None while rows of it are wanted."""
    found = _Standing([], [], [], [])
    rows = open_rows(turn, 0, TASKS_MAX)
    if turn.lacking:
        return None
    known = {row.seq for row in rows}
    found.rows = [(row, node) for row in rows if (node := turn.node_of(row)) is not None]
    if slots.waits(turn):
        found.unbegun = True
    for step in turn.pending_work()["held"]:
        if step[0] in _NAMES_A_NODE:
            found.births.append((step[1], step[3]))
        elif step[0] in _OF_AN_OPERATOR:
            found.half_done = True
        elif step[0] in _NAMES_A_ROW and step[1] not in known:
            row = turn.row(step[1])
            node = turn.node_of(row) if row is not None else None
            if row is not None and node is not None:
                found.held.append((row, node))
                if step[0] == BRANCHES:
                    found.branches.append((node, step[2]))
    return found


def _path_of(turn: Turn, node: Node) -> Path | None:
    """The turns of the loops around a node that run now; None where one of them has not begun."""
    path: Path = ()
    for reference in node.loops:
        loop = turn.newest(reference, path)
        if loop is None:
            return None
        path = (*path, (loop.state or {}).get("turn", 0))
    return path


def _reach(plan: Plan, standing: _Standing) -> Reach:
    """What can still run under a plan, from where the flow stands."""
    reach = Reach()
    if standing.unbegun and plan.first is not None:
        reach.born(plan.first)
    for row, _ in standing.rows:
        node = plan.nodes.get(row.reference)
        if node is not None:
            reach.opened(node)
    for row, _ in standing.held:
        node = plan.nodes.get(row.reference)
        if node is not None:
            reach.follow(node)
    for reference, _ in standing.births:
        node = plan.nodes.get(reference)
        if node is not None:
            reach.born(node)
    for fork, _ in standing.branches:
        node = plan.nodes.get(fork.reference)
        if node is not None:
            reach.take_all(head for head in node.branches if head is not None)
    return reach


# --- what speaks against it ------------------------------------------------------------------------


def _judge(turn: Turn, new: Plan, standing: _Standing) -> _Found:
    old = turn.plan
    found = _Found()
    if new.name != old.name:
        _fault(found, "", f"it runs {old.name}: a definition named {new.name} is not a version of that")
    if standing.half_done:
        text = "it is PAUSED in the midst of a rerun or a jump: resume it, and upgrade it then"
        _fault(found, "", text)
    for row, node in (*standing.rows, *standing.held):
        _judge_row(turn, new, found, row, node)
    for reference, scope in standing.births:
        node_ = turn.node(reference, scope)
        if node_ is not None:
            _judge_place(turn, new, found, node_, "is about to run (the workflow is PAUSED)")
    for fork, _ in standing.branches:
        other = new.nodes.get(fork.reference)
        if other is not None and _heads(fork) != _heads(other):
            _fault(found, fork.reference, "its branches are still being started, and they are other ones")
    before, after = _reach(old, standing), _reach(new, standing)
    _judge_joins(turn, new, found, standing, before, after)
    _warn_of_places(old, new, found, after)
    _warn_of_undoing(turn, new, found)
    _warn_of_time(turn, new, found)
    return found


def _fault(found: _Found, reference: str, text: str) -> None:
    found.faults[(reference, text)] = None


def _heads(fork: Node) -> list[str | None]:
    return [head.reference if head is not None else None for head in fork.branches]


def _judge_row(turn: Turn, new: Plan, found: _Found, row: TaskRow, node: Node) -> None:
    """An open row has to find its node again."""
    if not _judge_place(turn, new, found, node, f"has an open task ({turn.task_id(row.seq)})"):
        return
    other = new.nodes.get(node.reference)
    if other is None or turn.plan.nodes.get(node.reference) is not node:
        return
    fork = (row.state or {}).get("fork") if node.kind == JOIN else None
    if fork:
        made_by = turn.row(fork)
        forking = new.nodes.get(made_by.reference) if made_by is not None else None
        if forking is not None and forking.next is not other:
            _fault(found, node.reference, f"no longer follows the fork {forking.reference}, which runs")


def _judge_place(turn: Turn, new: Plan, found: _Found, node: Node, why: str) -> bool:
    """Whether a node that is in use is still there, as what it was, where it was. The branches of a
    dynamic fork are data: it is their fork that has to be there."""
    anchor: Node | None = node
    while anchor is not None and turn.plan.nodes.get(anchor.reference) is not anchor:
        anchor = anchor.parent
    if anchor is None:
        return False
    other = new.nodes.get(anchor.reference)
    inner = "" if anchor is node else f" in its branch {node.reference}"
    if other is None and anchor.reference == UNDOING:
        _fault(found, "", "it is compensating, and the new version has no task with compensate")
    elif other is None:
        _fault(found, anchor.reference, f"{why}{inner} and is not in the definition any more")
    elif other.kind != anchor.kind or other.row_type != anchor.row_type:
        before, after = _type(anchor), _type(other)
        _fault(found, anchor.reference, f"{why}{inner} of type {before}, which would be {after}")
    elif chain(other) != chain(anchor):
        before, after = place(anchor), place(other)
        _fault(found, anchor.reference, f"{why}{inner} {before}, which would be {after}")
    else:
        return True
    return False


def _type(node: Node) -> str:
    return node.type if node.row_type == node.type else f"{node.type} {node.row_type}"


def _judge_joins(
    turn: Turn, new: Plan, found: _Found, standing: _Standing, before: Reach, after: Reach
) -> None:
    """No join may come to wait for a task that cannot come any more, unless it did so before."""
    open_joins = {row.reference: row.path for row, node in standing.rows if _listed(new, node.reference)}
    for reference, node in new.nodes.items():
        if not _listed(new, reference):
            continue
        path = open_joins.get(reference)
        if path is None:
            if reference not in after.soon:
                continue
            path = _path_of(turn, node)
        missing = [name for name in node.awaited if not _can_come(turn, new, name, after, path)]
        stuck = _stuck_before(turn, reference, before, path)
        if node.kind == EXCLUSIVE_JOIN:
            others = node.task.default_exclusive_join_task
            if len(missing) < len(node.awaited) or stuck or any(_has_row(turn, o, path) for o in others):
                continue
            _fault(found, reference, f"would wait for ever: none of {', '.join(missing)} can come any more")
            continue
        for name in missing:
            if name not in stuck:
                _fault(found, reference, f"would wait for ever for {name}, which cannot come any more")


def _listed(plan: Plan, reference: str) -> bool:
    """Whether it is a join that names what it waits for."""
    node = plan.nodes.get(reference)
    return node is not None and node.kind in (JOIN, EXCLUSIVE_JOIN) and bool(node.join_on)


def _stuck_before(turn: Turn, reference: str, before: Reach, path: Path | None) -> set[str]:
    """What the old plan's join of that name could not wait for successfully either."""
    node = turn.plan.nodes.get(reference)
    if node is None:
        return set()
    return {name for name in node.awaited if not _can_come(turn, turn.plan, name, before, path)}


def _can_come(turn: Turn, plan: Plan, reference: str, reach: Reach, path: Path | None) -> bool:
    """Whether a join that waits for this task will hear of it: it runs, can run, or is known not to."""
    if reference in reach.soon or _has_row(turn, reference, path):
        return True
    return path is not None and is_left_out(turn, plan.nodes[reference], path)


def _has_row(turn: Turn, reference: str, path: Path | None) -> bool:
    return path is not None and turn.newest(reference, path) is not None


def _warn_of_places(old: Plan, new: Plan, found: _Found, after: Reach) -> None:
    """New tasks that lie behind the flow: they will never run. Of a new container only itself is named."""
    for reference, node in new.nodes.items():
        if reference in old.nodes or (node.parent is not None and node.parent.reference not in old.nodes):
            continue
        if is_undoing(node):  # it runs whenever its task is undone
            continue
        if reference not in after:
            text = "is new, and lies behind the point where the workflow stands: it will never run here"
            found.warnings[(reference, text)] = None
        elif reference not in after.soon:
            text = f"is new, and runs from the next turn of {node.loops[-1]} on"
            found.warnings[(reference, text)] = None


def _warn_of_undoing(turn: Turn, new: Plan, found: _Found) -> None:
    """Tasks that have completed, and that nothing would undo any more."""
    gone = tuple(name for name in turn.plan.compensable if name not in new.compensable)
    if not gone:
        return
    for row in page(turn, gone, (), [turn.now_ms + 1, 0]):
        text = "has completed, and is not compensated any more: the new version has no compensate for it"
        found.warnings[(row.reference, text)] = None


def _warn_of_time(turn: Turn, new: Plan, found: _Found) -> None:
    passed_s = (turn.now_ms - turn.header.clock_ms) // 1000
    running = turn.header.status == WorkflowStatus.RUNNING
    if running and new.timeout_s and new.timeout_s != turn.plan.timeout_s and passed_s >= new.timeout_s:
        text = f"runs for {passed_s} s: its new timeoutSeconds of {new.timeout_s} ends it at once"
        found.warnings[("", text)] = None


# --- the change ------------------------------------------------------------------------------------


def _change_over(turn: Turn, new: Plan, event: Upgrade, standing: _Standing) -> None:
    old, header = turn.plan, turn.header
    for row, node in standing.rows:
        other = new.nodes.get(row.reference)
        if other is not None and old.nodes.get(row.reference) is node:
            _change_clocks(turn, row, node, other)
            _change_join(turn, row, node, new, other)
    turn.plan = new
    header.snapshot_id = event.snapshot_id
    header.name, header.version = event.name or new.name, event.version or new.version
    turn.changed = turn.revived = True
    # Compiled branches hang on the old fork's node: they are compiled again when they are needed.
    turn.parsed_fragments.clear()
    turn.view.fragments.clear()
    if new.timeout_s != old.timeout_s:
        turn.deadlines[0] = header.clock_ms + new.timeout_s * 1000 if new.timeout_s else 0


def _change_clocks(turn: Turn, row: TaskRow, old: Node, new: Node) -> None:
    """An attempt that lies in a queue keeps the clocks it was handed out with; a row of the engine's own
    gets the new ones: its deadline comes now, and is answered with the next one."""
    if old.kind == DYNAMIC or old.policy.clocks == new.policy.clocks:
        return
    if old.kind == TRY and (row.state or {}).get("part") != BODY:  # its clock is that of its body
        return
    if row.queued:
        state = row.state or {}
        if "clocks" not in state:
            turn.set_state(turn.edit(row), clocks=list(old.policy.clocks))
        return
    mine = row.state or {}
    if new.policy.row_clock or "due" in mine:
        turn.deadlines[row.seq] = turn.now_ms
    elif old.policy.row_clock:
        turn.deadlines[row.seq] = 0
    turn.changed = True


def _waits_for(plan: Plan, join: Node) -> Any:
    """All that its counters depend on."""
    if join.kind not in (JOIN, EXCLUSIVE_JOIN):
        return None
    guards = [[at.reference for at in plan.nodes[name].guarded_by] for name in join.awaited]
    return join.join_on, join.task.default_exclusive_join_task, join.awaited, guards


def _change_join(turn: Turn, row: TaskRow, old: Node, plan: Plan, new: Node) -> None:
    """What an open join waits for is counted anew."""
    if _waits_for(turn.plan, old) != _waits_for(plan, new):
        turn.set_state(turn.edit(row), recount=True)
        turn.later((RECOUNT, row.seq))


# --- the report ------------------------------------------------------------------------------------


def _report(
    turn: Turn, new: Plan, found: _Found, told: list[Difference], rows: list[tuple[TaskRow, Node]]
) -> Json:
    """JSON: {from, to: {name, version}, workflow: [field], changes: [{reference, change, fields, open}],
    faults, warnings: [{reference, message}]}. `open` holds the ids of tasks."""
    concerned: dict[str, list[str]] = {}
    for row, _ in rows:
        concerned.setdefault(row.reference, []).append(turn.task_id(row.seq))
    header = turn.view.header
    return Json.of(
        {
            "from": {"name": header.name, "version": header.version},
            "to": {"name": new.name, "version": new.version},
            "workflow": workflow_fields(turn.plan, new),
            "changes": [
                {
                    "reference": one.reference,
                    "change": str(one.kind),
                    "fields": list(one.fields),
                    "open": concerned.get(one.reference, [])[:OPEN_TOLD_MAX],
                }
                for one in told
            ],
            "faults": list(_texts(found.faults)),
            "warnings": list(_texts(found.warnings)),
        }
    )


def _texts(found: dict[tuple[str, str], None]) -> Iterator[dict[str, Any]]:
    for reference, text in found:
        yield {"reference": reference, "message": text}
