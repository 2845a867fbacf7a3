"""Idempotency keys of workflows that other workflows start.

A CHILD_START carries the key; the commit of the child's birth takes it, as that of any start does. A
child that finds the key used is never born: in place of its CHILD_START its asker is answered, in one
statement (`reply`, `apply_child_placed`). Under RETURN_EXISTING a SUB_WORKFLOW task then belongs to the
workflow that has the key, as a *follower*: it asks that workflow to be told of its end (FOLLOW), and
gets it as its outcome. It only watches: its end does not end the followed workflow, and a retry of
either does not revive the other.

A START_WORKFLOW task with a key completes when it knows which workflow runs: the new one says so in the
commit of its birth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..definitions.keys import KEY_MAX, KeyPolicy, why_no_strategy
from ..payload import Json, encode
from . import messages
from .decision import APPLIED, Message, MessageKind, Outcome
from .events import Follow, Start
from .faults import stored_name
from .state import Header, TaskRow, WorkflowStatus

if TYPE_CHECKING:
    from .turn import Turn

Key = tuple[str, KeyPolicy]
LOST = "Workflow {} does not exist any more"


class BadKey(Exception):
    """The text says what is wrong with a key or its strategy."""


def read_key(key: Any, strategy: Any) -> Key | None:
    """The key that a task gives, None without one; a value that is no text counts as its JSON. Raises
    BadKey."""
    policy = KeyPolicy.FAIL
    if strategy not in (None, ""):
        fault = why_no_strategy(strategy)
        if fault is not None:
            raise BadKey(f"idempotencyStrategy {fault}")
        policy = KeyPolicy[strategy]
    text = key if isinstance(key, str) else "" if key is None else encode(key).decode()
    if len(text) > KEY_MAX:
        raise BadKey(f"idempotencyKey has {len(text)} characters; at most {KEY_MAX} are accepted")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadKey("idempotencyKey holds a character that cannot be stored: U+0000 or half of a pair")
    return (text, policy) if text else None


def reply(asked: Start, header: Header, holder: str, *, waits: bool) -> Message:
    """What the asker of a start is told whose key `holder` has. `waits`: the holder is the asker itself
    or one of those that wait for it."""
    child, key = header.id, header.idempotency_key
    reason = None
    if asked.key_policy is not KeyPolicy.RETURN_EXISTING:
        reason = f"idempotency key {key!r} was used by workflow {holder}"
    elif waits and not asked.answers:
        reason = f"idempotency key {key!r} was used by workflow {holder}, which waits for this task"
    body = messages.child_placed(asked.asked_seq, child, holder, reason)
    return Message(asked.asked_by, MessageKind.CHILD_PLACED, body)


def tell_asker(turn: Turn, event: Start) -> None:
    """A START_WORKFLOW task waits for the word that its workflow has started."""
    if event.answers:
        started = turn.header.id
        body = messages.child_placed(event.asked_seq, started, started, None)
        turn.send(event.asked_by, MessageKind.CHILD_PLACED, body)


# --- followers -----------------------------------------------------------------------------------


def is_follower(row: TaskRow) -> bool:
    """The row's workflow was started by somebody else."""
    return bool((row.state or {}).get("follows"))


def apply_follow(turn: Turn, event: Follow) -> Outcome | None:
    """A task elsewhere wants this workflow's outcome: at once if it has ended, else with its end."""
    header = turn.header
    if header.status < WorkflowStatus.COMPLETED:
        turn.pending_work()["followers"].append([event.by, event.seq])
        turn.keep_work()
        return APPLIED
    failed = turn.row(header.failed_task) if header.failed_task else None
    if turn.lacking:
        return None
    error = stored_name(failed) if failed is not None else None
    turn.send(event.by, MessageKind.CHILD_ENDED, messages.child_ended(header, error, seq=event.seq))
    return APPLIED


def tell_followers(turn: Turn, error: str | None) -> None:
    """The workflow ends: for good, as far as they are concerned."""
    if turn.header.cursor is None and turn.cursor is None:
        return
    work = turn.pending_work()
    if not work["followers"]:
        return
    for by, seq in work["followers"]:
        body = messages.child_ended(turn.header, error, seq=seq)
        turn.send(by, MessageKind.CHILD_ENDED, body)
    work["followers"] = []
    turn.keep_work()


def follower_lost(event: Follow, workflow_id: str) -> Message:
    """The answer for a workflow that does not exist any more."""
    return Message(event.by, MessageKind.CHILD_ENDED, child_lost(event.seq, workflow_id))


def child_lost(seq: int, workflow_id: str) -> Json:
    gone = Header(id=workflow_id, namespace="", name="", version=0, snapshot_id="", created_ms=0)
    gone.status = WorkflowStatus.TERMINATED
    gone.reason = LOST.format(workflow_id)
    return messages.child_ended(gone, seq=seq)
