"""`decide`: what a workflow becomes by what happened to it. Pure; a generator that may ask.

    plan = compile(definition)
    asking = decide(plan, view, events)
    needs = next(asking)                 # StopIteration carries the Decision
    needs = asking.send(answers)         # one answer for each need, in order

A decision is worked out in *steps* (see `steps`). Each step first reads and then acts; what it
lacks is asked for together with what the steps behind it lack, and it is tried again. Steps are
done strictly in order, so that the answers' timing, a partial view or a bounded budget never
change the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from itertools import islice
from typing import Any

from . import (
    again,
    attempts,
    closing,
    commands,
    ending,
    guarded,
    jump,
    keys,
    rerun,
    results,
    revival,
    runs,
    settle,
    signals,
    slots,
    statuses,
    steering,
    updates,
    upgrade,
)
from .decision import Decision, MessageKind, Outcome
from .events import (
    ChangeVariables,
    ChildEnded,
    ChildPlaced,
    ChildRevived,
    Continue,
    DeliveryDue,
    Due,
    Event,
    Follow,
    Jump,
    Pause,
    Remove,
    Rerun,
    Restart,
    Result,
    Resume,
    Retry,
    Signal,
    Skip,
    SlotGranted,
    Start,
    Terminate,
    UpdateTask,
    Upgrade,
    WorkerLost,
)
from .messages import continuation
from .needs import Need
from .operators import compensation, forks, joins, loops, tries
from .plan import Plan
from .state import View, WorkflowStatus
from .steps import (
    AFRESH,
    AGAIN,
    ASIDE,
    BIRTH,
    BRANCHES,
    CANCEL,
    CATCH,
    CHOOSE,
    CLOSE,
    DROP,
    END,
    JOIN_BIRTH,
    LAST,
    NOTIFY,
    PART,
    RECOUNT,
    REVIVE,
    RUN,
    SETTLE,
    SWEEP,
    TURN,
    UNDO,
    UNREACHED,
)
from .turn import Step, Turn

ROWS_MAX = 500
"""Rows that one decision writes, about; the rest follows by a `Continue`."""
_LOOK_AHEAD = 200
_RUNNING = int(WorkflowStatus.RUNNING)
_ENDED = int(WorkflowStatus.COMPLETED)

_HANDLERS: dict[type[Event], Callable[[Turn, Any], Outcome | None]] = {
    Start: commands.apply_start,
    SlotGranted: commands.apply_slot_granted,
    Result: results.apply_result,
    Signal: signals.apply_signal,
    Due: results.apply_due,
    DeliveryDue: results.apply_delivery_due,
    WorkerLost: results.apply_worker_lost,
    ChildEnded: results.apply_child_ended,
    ChildPlaced: results.apply_child_placed,
    Follow: keys.apply_follow,
    ChildRevived: again.apply_child_revived,
    Continue: commands.apply_continue,
    Pause: commands.apply_pause,
    Resume: commands.apply_resume,
    Terminate: commands.apply_terminate,
    Retry: again.apply_retry,
    Restart: again.apply_restart,
    Rerun: rerun.apply_rerun,
    Jump: jump.apply_jump,
    Skip: steering.apply_skip,
    ChangeVariables: steering.apply_change_variables,
    Remove: steering.apply_remove,
    UpdateTask: updates.apply_update_task,
    Upgrade: upgrade.apply_upgrade,
}

_PREPARE: dict[int, Callable[[Turn, Step], Any]] = {
    BIRTH: runs.prepare_birth,
    JOIN_BIRTH: joins.prepare_birth,
    AGAIN: attempts.prepare,
    RUN: runs.prepare_run,
    SETTLE: settle.prepare,
    NOTIFY: settle.prepare_notify,
    BRANCHES: forks.prepare_branches,
    TURN: loops.prepare_turn,
    CLOSE: joins.prepare_close,
    END: ending.prepare_end,
    CANCEL: ending.prepare_cancel,
    REVIVE: revival.prepare_revive,
    RECOUNT: revival.prepare_recount,
    LAST: forks.prepare_last,
    ASIDE: rerun.prepare_aside,
    AFRESH: runs.prepare_afresh,
    DROP: jump.prepare_drop,
    UNREACHED: joins.prepare_unreached,
    CATCH: tries.prepare_catch,
    SWEEP: tries.prepare_sweep,
    CHOOSE: tries.prepare_choose,
    PART: tries.prepare_part,
    UNDO: compensation.prepare_undo,
}

_ACT: dict[int, Callable[[Turn, Step, Any], None]] = {
    BIRTH: runs.act_birth,
    JOIN_BIRTH: joins.act_birth,
    AGAIN: attempts.act,
    RUN: runs.act_run,
    SETTLE: settle.act,
    NOTIFY: settle.act_notify,
    BRANCHES: forks.act_branches,
    TURN: loops.act_turn,
    CLOSE: joins.act_close,
    END: ending.act_end,
    CANCEL: ending.act_cancel,
    REVIVE: revival.act_revive,
    RECOUNT: revival.act_recount,
    LAST: forks.act_last,
    ASIDE: rerun.act_aside,
    AFRESH: runs.act_afresh,
    DROP: jump.act_drop,
    UNREACHED: joins.act_unreached,
    CATCH: tries.act_catch,
    SWEEP: tries.act_sweep,
    CHOOSE: tries.act_choose,
    PART: tries.act_part,
    UNDO: compensation.act_undo,
}

_WATCHED_PREPARE = guarded.watched_prepare(_PREPARE)
_WATCHED_ACT = guarded.watched_act(_ACT)

Asking = Generator[list[Need], list[Any], Decision]


def decide(plan: Plan, view: View, events: Sequence[Event], *, rows_max: int = ROWS_MAX) -> Asking:
    """Apply events in order; one decision for all of them, with an outcome for each.

    Total: a late, repeated or superseded event changes nothing and its outcome says why. Costs
    what the events touch. `view` is not changed, except that rows asked for are added to it.
    """
    turn = Turn(plan, view, rows_max)
    outcomes: list[Outcome] = []
    for event in events:
        turn.now_ms = event.now_ms
        turn.seed = event.seed
        handler = _HANDLERS[type(event)]
        outcome = handler(turn, event)
        while outcome is None:
            needs = turn.take_wanted()
            turn.learn(needs, (yield needs))
            outcome = handler(turn, event)
        outcomes.append(outcome)
        agenda = turn.agenda
        prepares, acts = _PREPARE, _ACT
        if turn.plan.guarded:
            prepares, acts = _WATCHED_PREPARE, _WATCHED_ACT
        while True:
            while agenda and turn.budget > 0:
                step = agenda[0]
                kind = step[0]
                if turn.header.status != _RUNNING and kind != CANCEL:
                    break
                prepared = prepares[kind](turn, step)
                if turn.wanted or turn.wanted_keys or turn.wanted_latest:
                    _look_ahead(turn, prepares)
                    needs = turn.take_wanted()
                    turn.learn(needs, (yield needs))
                    continue
                agenda.popleft()
                acts[kind](turn, step, prepared)
            if agenda or turn.header.open or turn.header.status != _RUNNING or not _at_rest(turn):
                break
            completion = ending.prepare_completion(turn)
            if turn.lacking:
                needs = turn.take_wanted()
                turn.learn(needs, (yield needs))
                continue
            ending.complete(turn, completion)
        if agenda:
            _leave(turn)
        while turn.notices:
            told = closing.publications(turn)
            if turn.lacking:
                needs = turn.take_wanted()
                turn.learn(needs, (yield needs))
                continue
            turn.published.extend(told)
            turn.notices.clear()
    if turn.plan.status_queue is not None:
        statuses.finalize(turn, view.header)
    decision = turn.decision()
    decision.outcomes = outcomes
    return decision


def _look_ahead(turn: Turn, prepares: dict[int, Callable[[Turn, Step], Any]]) -> None:
    """Have the steps behind the first one note what they lack, so that it is asked together."""
    for step in islice(turn.agenda, 1, _LOOK_AHEAD):
        prepares[step[0]](turn, step)
    turn.unresolved.clear()


def _at_rest(turn: Turn) -> bool:
    """Nothing is left for later either."""
    if turn.header.cursor is None:
        return True
    work = turn.pending_work()
    return not work["steps"] and not work["held"] and work["slot"] != slots.WAITS


def _leave(turn: Turn) -> None:
    """Keep the steps that were not done: for a `Continue`, or for an operator."""
    work = turn.pending_work()
    status = turn.header.status
    left = list(turn.agenda)
    turn.agenda.clear()
    if status == _RUNNING:
        owed = bool(work["steps"])
        work["steps"] = left + work["steps"]
    elif status < _ENDED:
        owed = True
        work["held"].extend(left)
    else:
        cancels = [step for step in left if step[0] == CANCEL]
        rest = [step for step in (*left, *work["steps"]) if step[0] not in (CANCEL, END)]
        owed = not cancels
        work["held"].extend(rest)
        work["steps"] = cancels
    turn.keep_work()
    if not owed:
        turn.send(turn.header.id, MessageKind.CONTINUE, continuation(turn.header.generation))
