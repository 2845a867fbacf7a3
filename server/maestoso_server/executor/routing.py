"""Small, synchronous steps between a batch and its lanes: who is told what, and what a view becomes.

No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..engine import messages
from ..engine.cursor import continues
from ..engine.decision import Decision, Message, MessageKind, Outcome, Verdict
from ..engine.events import ChildEnded, ChildPlaced, DeliveryDue, Due, Result, WorkerLost
from ..engine.needs import ScriptAnswer
from ..engine.state import Header, TaskStatus, View
from ..errors import NotFound, Reason, ResourceExhausted
from ..payload import Json
from ..store.load import InboxMessage, Loaded
from .lanes import Item, Lane

Listener = Callable[[Header], None]


class Changes:
    """Tells watchers in this process that a workflow changed. Hints only: watchers also poll."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}

    def subscribe(self, workflow_id: str, listener: Listener) -> Callable[[], None]:
        """`listener` is called with the new header after every commit here; call the answer to stop."""
        self._listeners.setdefault(workflow_id, set()).add(listener)

        def stop() -> None:
            listeners = self._listeners.get(workflow_id)
            if listeners is not None:
                listeners.discard(listener)
                if not listeners:
                    del self._listeners[workflow_id]

        return stop

    def announce(self, workflow_id: str, header: Header) -> None:
        listeners = self._listeners.get(workflow_id)
        if listeners:
            for listener in tuple(listeners):
                listener(header)


_OF_A_TASK = Result | Due | DeliveryDue | WorkerLost | ChildEnded | ChildPlaced


def named(items: Sequence[Item]) -> list[int]:
    """The task rows that these events name."""
    seqs: list[int] = []
    for item in items:
        event = item.event
        if isinstance(event, _OF_A_TASK) and event.seq:
            seqs.append(event.seq)
    return seqs


def guards(
    items: Sequence[Item], outcomes: Sequence[Outcome]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The deliveries that the applied events speak for: (by report or loss, by deadline)."""
    deliveries: list[tuple[int, int]] = []
    expired: list[tuple[int, int]] = []
    for item, outcome in zip(items, outcomes, strict=True):
        if outcome.verdict is not Verdict.APPLIED:
            continue
        event = item.event
        kind = type(event)
        if kind is Result:
            if event.delivery is not None:  # type: ignore[attr-defined]
                deliveries.append((event.seq, event.delivery))  # type: ignore[attr-defined]
        elif kind is DeliveryDue:
            expired.append((event.seq, event.delivery))  # type: ignore[attr-defined]
        elif kind is WorkerLost:
            deliveries.append((event.seq, event.delivery))  # type: ignore[attr-defined]
    return deliveries, expired


def take_in(lane: Lane, loaded: Loaded | None, now_ms: int, seed: Callable[[], int]) -> None:
    """Put what was loaded into the lane: rows into its view, messages before its other events.

    An event whose message is gone was applied by another node and is dropped."""
    lane.reload = False
    lane.checked = True
    if loaded is None:
        loaded = Loaded(None)
    if loaded.header is not None:
        view = lane.view
        if view is None or view.header.revision != loaded.header.revision:
            view = lane.view = View(loaded.header, whole=loaded.whole)
        for row in loaded.tasks:
            view.add(row)
    else:
        lane.view = None
    stored = {message.id for message in loaded.messages}
    mine = {item.message_id for item in lane.running if item.message_id}
    kept = [item for item in lane.running if not item.message_id or item.message_id in stored]
    drained = [received(message, now_ms, seed()) for message in loaded.messages if message.id not in mine]
    lane.running = drained + kept
    if lane.view is None and lane.running and lane.running[0].header is not None:
        lane.view = View(lane.running[0].header, whole=True)


def received(message: InboxMessage, now_ms: int, seed: int) -> Item:
    """The event that an inbox row carries."""
    body = message.body.raw
    event = messages.decode(message.kind, body, now_ms=now_ms, seed=seed)
    if message.kind is MessageKind.CHILD_START:
        header = messages.child_header(message.workflow_id, body, now_ms)
        return Item(event, message_id=message.id, header=header)
    return Item(event, message_id=message.id, origin_epoch=message.origin_epoch)


def told_start(lane: Lane) -> Item | None:
    """The start that another workflow asks for, if that is what begins this one."""
    for item in lane.running:
        if item.header is not None:
            return item if item.message_id else None
    return None


def sent(message: Message, message_id: int) -> InboxMessage:
    """The inbox row that a decision's message became."""
    return InboxMessage(
        id=message_id,
        workflow_id=message.workflow_id,
        sender_id=None,
        kind=message.kind,
        body=message.body,
        due_ms=message.due_ms,
        origin_epoch=0,
    )


def apply(lane: Lane, decision: Decision, *, closed_max: int) -> None:
    """The lane's view after the commit of a decision: values as bytes again, and of a wide workflow
    only what is open. Costs what the decision touched, on average."""
    view = lane.view
    assert view is not None
    view.apply(decision)
    for rows in (decision.inserted, decision.updated):
        for row in rows:
            row.input.forget()
            if row.output is not None:
                row.output.forget()
    if decision.payload_changed:
        view.header.variables.forget()
        if view.header.output is not None:
            view.header.output.forget()
    if len(view.tasks) - view.header.open > closed_max + view.header.open:
        lane.view = _narrowed(view)


def _narrowed(view: View) -> View:
    """Open rows and containers; the rest is asked for again where something reads it."""
    kept = View(view.header, fragments=view.fragments)
    for row in view.tasks.values():
        if row.status < TaskStatus.COMPLETED or row.state is not None:
            kept.add(row)
    return kept


def script_result(seq: int, answer: ScriptAnswer, now_ms: int, seed: int) -> Result:
    """The event that a late script answer is."""
    if answer.error is None:
        return Result(
            now_ms=now_ms,
            seed=seed,
            seq=seq,
            status=TaskStatus.COMPLETED,
            output=Json.of({"result": answer.value}),
        )
    status = TaskStatus.FAILED if answer.retriable else TaskStatus.FAILED_WITH_TERMINAL_ERROR
    return Result(now_ms=now_ms, seed=seed, seq=seq, status=status, reason=answer.error)


def answer(lane: Lane, outcomes: Sequence[Outcome]) -> None:
    """Tell everybody who waits what became of the running events. A command that has to wait behind
    a cursor is given again when the cursor is used up."""
    running, lane.running = lane.running, []
    for item, outcome in zip(running, outcomes, strict=True):
        if outcome.verdict is Verdict.BEHIND:
            lane.behind.append(item)
        elif item.done is not None:
            item.done(outcome)
    if lane.behind and lane.view is not None and not continues(lane.view.header):
        lane.pending[:0] = lane.behind
        lane.behind.clear()


def refuse_absent(lane: Lane) -> None:
    """The workflow does not exist (any more)."""
    running, lane.running = lane.running, []
    for item in running:
        if item.done is not None:
            item.done(
                NotFound(
                    Reason.WORKFLOW_NOT_FOUND,
                    f"workflow {lane.workflow_id} does not exist; check the id and the namespace",
                )
            )


class Existing(Exception):
    """A start lost its idempotency key to `workflow_id`."""

    def __init__(self, workflow_id: str) -> None:
        super().__init__(workflow_id)
        self.workflow_id = workflow_id


class Outdated(Exception):
    """A start was decided on definitions that changed meanwhile: resolve and start again."""


def answer_existing(lane: Lane, winner: str) -> None:
    _refuse(lane, Existing(winner))


def answer_metadata_stale(lane: Lane) -> None:
    _refuse(lane, Outdated())


def answer_no_slot(lane: Lane, reason: str) -> None:
    """Its `rateLimitConfig` rejects what it has no slot for."""
    _refuse(lane, ResourceExhausted(Reason.OVERLOADED, reason))


def _refuse(lane: Lane, error: Exception) -> None:
    running, lane.running = lane.running, []
    for item in running:
        if item.done is not None:
            item.done(error)


LOST = Outcome(Verdict.STALE, "the token is not the task's current delivery")


def answer_lost(lane: Lane, lost: set[int]) -> None:
    """The delivery of these tasks is not theirs any more: STALE, never decided again."""
    kept: list[Item] = []
    for item in lane.running:
        event = item.event
        if isinstance(event, Result | DeliveryDue | WorkerLost) and event.seq in lost:
            if item.done is not None:
                item.done(LOST)
        else:
            kept.append(item)
    lane.running = kept


def again(lane: Lane, now_ms: int) -> None:
    """The rest is decided again, at a later time, on what the winner left."""
    for item in lane.running:
        item.event.now_ms = now_ms
