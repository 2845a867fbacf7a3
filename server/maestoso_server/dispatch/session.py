"""The server's side of one worker stream: frames in, frames out, no I/O and no clock.

Laws:
- `receive` and `tick` return what happened as events; the dispatcher acts on them. Whatever is to
  be written waits inside until the writer asks for it with `frames`.
- Control before data: acks, cancels and answers leave ahead of task batches, but a Ping stays
  behind the batches that it stands for, and a Cancel behind its Assignment.
- A task is written only while the worker is known to read: `proof.py` keeps that account.
- A delivery that was cancelled before it was written is never written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maestoso.error.v1.error_pb2 import Error
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso.task.v1.task_pb2 import RESULT_OUTCOME_ACCEPTED, Capacity, ResultOutcome, TaskResult

from ..errors import InvalidArgument, MaestosoError, Reason, ResourceExhausted, Unavailable
from ..ids import TOKEN_BYTES
from .deliveries import Delivery, State
from .matching import Room
from .proof import BLOCKED_AFTER_MS, CLOSE_AFTER_MS, IDLE_PING_MS, Batch, Proof
from .refusals import error_message

BATCH_TASKS = 100
BATCH_BYTES = 128 * 1024
"""A TaskBatch ends at either; one task alone may be larger."""
ASSIGNMENT_OVERHEAD_BYTES = 300
"""What an Assignment weighs besides its input, about."""
ACKS_PER_FRAME = 1_000
ITEMS_MAX = 1_000
"""Results or log lines of one frame."""
MAX_TASKS = 10_000
DEFAULT_BYTES = 64 * 1024 * 1024
BAD_FRAMES_MAX = 10
BAD_FRAMES_WINDOW_MS = 60_000
REST_MS = 1_000
"""A worker that handed a task back as busy is left alone for so long, unless it declares anew."""


@dataclass(slots=True)
class Reported:
    """Results came. Each stands beside its delivery; None where this session holds no such thing."""

    results: list[tuple[TaskResult, Delivery | None]]


@dataclass(slots=True)
class Read:
    """These deliveries are now known to be read; `started_ms` is set."""

    deliveries: list[Delivery]


@dataclass(slots=True)
class HandedBack:
    """The worker returned these without running them; each with the time before which nobody else
    shall have it. They hold no capacity any more."""

    items: list[tuple[Delivery, int]]


@dataclass(slots=True)
class Progressed:
    """The worker goes on with these; `progress_ms` is set. Each with its output so far, b"" = none."""

    items: list[tuple[Delivery, bytes]]


@dataclass(slots=True)
class Logged:
    """Lines for logs. The tokens need not be this session's."""

    lines: Sequence[wire.LogLine]


@dataclass(slots=True)
class CancelAnswered:
    answers: Sequence[wire.CancelAnswerItem]


@dataclass(slots=True)
class Withdrawn:
    """The worker knows no handler for this queue: offer it no more of it."""

    queue: str


@dataclass(slots=True)
class RoomMade:
    """The session may take more than before."""


@dataclass(slots=True)
class Shut:
    """The session takes nothing for now: it drains or is blocked. What was not written is to be
    handed back."""


SessionEvent = (
    Reported | Read | HandedBack | Progressed | Logged | CancelAnswered | Withdrawn | RoomMade | Shut
)


class Session:
    """One stream from its Welcome to its end."""

    def __init__(
        self,
        *,
        session_id: str,
        namespace: str,
        worker_id: str,
        queues: Mapping[str, str],
        now_ms: int,
        resume_token_hash: bytes = b"",
        stream_number: int = 0,
    ):
        """`queues` are those offered: queue -> task type."""
        self.session_id = session_id
        self.namespace = namespace
        self.worker_id = worker_id
        self.resume_token_hash = resume_token_hash
        self.stream_number = stream_number
        """The worker's count of the session's streams; 0 = it does not count."""
        self.room = Room(session_id, namespace, queues)
        self.ended = False
        """The stream is over, or belongs to a newer one: nothing comes or goes any more."""
        self.departed = False
        """The worker took its leave: it drained, runs nothing, and ended the stream itself."""
        self.superseded = False
        """A newer stream is taking the session over, or has: what becomes of it is that one's business."""
        self.closing: MaestosoError | None = None
        """Set: write what is left of the control lane, then end the stream."""
        self.wake: Callable[[], None] = _nobody
        """Called when there is something to write; set by whoever writes."""
        self.on_written: Callable[[Sequence[Delivery], int], None] = _ignore_deliveries
        """Told of each batch of tasks and the time at which it is written; set by whoever measures."""
        self.connected_ms = now_ms
        self.connected_at_ms = [now_ms]
        """What `connected_ms` of its row may be, unless the session was resumed by another stream."""
        self.frames_received = 1
        self.unknown_frames = 0
        self.dropped_lines = 0
        self.blocked = False
        self.draining = False
        """The worker drains, an operator drains it, or it is to move away."""
        self._drained = False
        """The worker itself has said so."""
        self._proof = Proof()
        self._control: deque[wire.ConnectResponse] = deque()
        self._acks: wire.ConnectResponse | None = None
        self._accepted: list[bytes] = []
        self._cancels: wire.ConnectResponse | None = None
        self._pending: deque[Delivery] = deque()
        self._bad_frames: deque[int] = deque()
        self._sent_ms = now_ms
        self._received_ms = now_ms
        self._pinged_ms = now_ms
        self._rest_until_ms = 0
        self._close_at_ms: int | None = None

    # -- frames in ---------------------------------------------------------------------------

    def receive(self, frame: wire.ConnectRequest, now_ms: int) -> list[SessionEvent]:
        """Take in one frame after Hello. A bad one is answered by a FrameError and changes nothing."""
        self.frames_received += 1
        self._received_ms = now_ms
        kind = frame.WhichOneof("frame")
        if kind is None:
            self.unknown_frames += 1
            return []
        events: list[SessionEvent] = []
        try:
            _RECEIVE[kind](self, getattr(frame, kind), now_ms, events)
        except _BadFrame as fault:
            self.refuse_frame(InvalidArgument(Reason.BAD_FRAME, str(fault)), now_ms)
        return events

    def refuse_frame(self, refusal: MaestosoError, now_ms: int) -> None:
        """Answer the frame that came last with a FrameError. Ten in a minute end the stream."""
        fault = wire.FrameError(error=error_message(refusal), frame_number=self.frames_received)
        self._say(wire.ConnectResponse(frame_error=fault))
        bad = self._bad_frames
        bad.append(now_ms)
        while bad[0] <= now_ms - BAD_FRAMES_WINDOW_MS:
            bad.popleft()
        if len(bad) >= BAD_FRAMES_MAX:
            message = f"{len(bad)} bad frames in a minute; the last: {refusal.message}"
            self.close(InvalidArgument(Reason.BAD_FRAME, message))

    def _hello(self, hello: wire.Hello, now_ms: int, events: list[SessionEvent]) -> None:
        self.close(InvalidArgument(Reason.BAD_FRAME, "a second Hello; a stream has one, its first frame"))

    def _results(self, frame: wire.Results, now_ms: int, events: list[SessionEvent]) -> None:
        if len(frame.results) > ITEMS_MAX:
            raise _BadFrame(f"{len(frame.results)} results in one frame: {ITEMS_MAX} are allowed")
        held = self.room.held
        newest = 0
        pairs: list[tuple[TaskResult, Delivery | None]] = []
        for result in frame.results:
            delivery = held.get(result.token)
            if delivery is not None:
                newest = max(newest, delivery.batch)
                if not delivery.started_ms:
                    # Nothing earlier proved it: it ran between the writing and now.
                    delivery.state = State.READ
                    delivery.started_ms = delivery.sent_ms or now_ms
            pairs.append((result, delivery))
        self._proved(self._proof.prove(newest), now_ms, events)
        events.append(Reported(pairs))

    def _pong(self, pong: wire.Pong, now_ms: int, events: list[SessionEvent]) -> None:
        batches = self._proof.pong(pong.number)
        if batches is None:
            raise _BadFrame(f"Pong {pong.number}: no such Ping was sent on this stream")
        self._proved(batches, now_ms, events)
        if self.blocked and self._proof.unanswered_since_ms() is None:
            self.blocked = False
            self._open_or_shut(events)

    def _capacity(self, capacity: Capacity, now_ms: int, events: list[SessionEvent]) -> None:
        fault = capacity_fault(capacity)
        if fault:
            raise _BadFrame(fault)
        self._rest_until_ms = 0
        self.room.declare(capacity.tasks, capacity.bytes or DEFAULT_BYTES)
        events.append(RoomMade())

    def _acks_in(self, acks: wire.Acks, now_ms: int, events: list[SessionEvent]) -> None:
        self._prove_by(self._mine(acks.tokens), now_ms, events)

    def _nacks(self, nacks: wire.Nacks, now_ms: int, events: list[SessionEvent]) -> None:
        mine = self._mine(nack.token for nack in nacks.nacks)
        self._prove_by(mine, now_ms, events)
        items: list[tuple[Delivery, int]] = []
        for nack, delivery in zip(nacks.nacks, mine, strict=True):
            if delivery is None or not self.release(delivery):
                continue
            due_ms = now_ms + max(0, nack.retry_after.ToMilliseconds()) if nack.HasField("retry_after") else 0
            items.append((delivery, due_ms))
            if nack.reason == wire.NACK_REASON_UNKNOWN_TYPE:
                events.append(Withdrawn(delivery.queue))
            elif nack.reason != wire.NACK_REASON_DRAINING:
                self._rest(now_ms)
        if items:
            events.append(HandedBack(items))
            events.append(RoomMade())

    def _progress(self, progress: wire.Progress, now_ms: int, events: list[SessionEvent]) -> None:
        mine = self._mine(item.token for item in progress.items)
        self._prove_by(mine, now_ms, events)
        items: list[tuple[Delivery, bytes]] = []
        for item, delivery in zip(progress.items, mine, strict=True):
            if delivery is not None:
                delivery.progress_ms = now_ms
                items.append((delivery, item.output))
        if items:
            events.append(Progressed(items))

    def _logs(self, logs: wire.Logs, now_ms: int, events: list[SessionEvent]) -> None:
        self._prove_by(self._mine(line.token for line in logs.lines), now_ms, events)
        events.append(Logged(logs.lines[:ITEMS_MAX]))
        self.dropped_lines += max(0, len(logs.lines) - ITEMS_MAX)

    def _cancel_answers(self, frame: wire.CancelAnswers, now_ms: int, events: list[SessionEvent]) -> None:
        events.append(CancelAnswered(frame.answers))

    def _drain(self, drain: wire.Drain, now_ms: int, events: list[SessionEvent]) -> None:
        self.draining = self._drained = True
        self._open_or_shut(events)

    def half_closed(self) -> None:
        """The worker ended its side of the stream. After its Drain it will not come back, and what it had
        not finished by then it hands back by this: it has never run it."""
        self.departed = self._drained

    def _auth_refresh(self, refresh: wire.AuthRefresh, now_ms: int, events: list[SessionEvent]) -> None:
        """Judged by the gate before a frame gets here."""

    def _mine(self, tokens: Iterable[bytes]) -> list[Delivery | None]:
        """The deliveries held here, None for tokens of others or of the past."""
        held = self.room.held
        mine = []
        for token in tokens:
            if len(token) != TOKEN_BYTES:
                raise _BadFrame(f"a token of {len(token)} bytes: send back the assignment's token as it came")
            mine.append(held.get(token))
        return mine

    def _prove_by(self, mine: list[Delivery | None], now_ms: int, events: list[SessionEvent]) -> None:
        newest = max((delivery.batch for delivery in mine if delivery is not None), default=0)
        self._proved(self._proof.prove(newest), now_ms, events)

    def _proved(self, batches: list[Batch], now_ms: int, events: list[SessionEvent]) -> None:
        for batch in batches:
            for delivery in batch.deliveries:
                if delivery.state is State.SENT:
                    delivery.state = State.READ
                    delivery.started_ms = now_ms
            events.append(Read(batch.deliveries))
        if batches and self._pending:
            self.wake()

    # -- what the dispatcher does ----------------------------------------------------------------

    def assign(self, delivery: Delivery) -> None:
        """Send it as soon as the stream takes it. Its reservation must have been given back."""
        self.room.hold(delivery)
        self._pending.append(delivery)
        self.wake()

    def adopt(self, delivery: Delivery) -> None:
        """Count a delivery that the worker holds already: it resumed."""
        self.room.hold(delivery)

    def release(self, delivery: Delivery) -> bool:
        """Its capacity is free; an unwritten one will not be written. False if it was not held."""
        return self.room.release(delivery)

    def take_unwritten(self) -> list[Delivery]:
        """Take back what was not written yet; it is no longer held."""
        unwritten = [delivery for delivery in self._pending if self.room.release(delivery)]
        self._pending.clear()
        return unwritten

    def acknowledge(
        self, token: bytes, outcome: ResultOutcome.ValueType, error: Error | None = None, task_id: str = ""
    ) -> None:
        """Answer one item of a report."""
        if outcome == RESULT_OUTCOME_ACCEPTED and token:
            self._accepted.append(token)
            self.wake()
            return
        frame = self._acks
        if frame is None or len(frame.acks.acks) >= ACKS_PER_FRAME:
            frame = self._acks = wire.ConnectResponse()
            self._say(frame)
        frame.acks.acks.add(token=token, outcome=outcome, error=error, task_id=task_id)

    def cancel(self, delivery: Delivery, reason: wire.CancelReason.ValueType) -> None:
        """Release a delivery, and have its handler stopped if it was written."""
        if self.release(delivery) and delivery.batch:
            self.cancel_token(delivery.token, reason)

    def cancel_token(self, token: bytes, reason: wire.CancelReason.ValueType) -> None:
        if self._cancels is None:
            self._cancels = wire.ConnectResponse()
            self._say(self._cancels)
        self._cancels.cancels.cancels.add(token=token, reason=reason)

    def welcome(self, welcome: wire.Welcome) -> None:
        self._say(wire.ConnectResponse(welcome=welcome))

    def tell_nodes(self, addresses: Sequence[str]) -> None:
        self._say(wire.ConnectResponse(nodes=wire.Nodes(addresses=addresses)))

    def move(
        self, reason: wire.MoveReason.ValueType, addresses: Sequence[str], grace_ms: int | None, now_ms: int
    ) -> list[SessionEvent]:
        """Ask the worker to resume elsewhere. With a grace the session takes nothing new and the stream
        is closed after it; without one the worker may stay."""
        frame = wire.ConnectResponse(move=wire.Move(reason=reason, nodes=addresses))
        events: list[SessionEvent] = []
        if grace_ms is not None:
            frame.move.grace.FromMilliseconds(grace_ms)
            self._leave_after(grace_ms, now_ms, events)
        self._say(frame)
        return events

    def request_drain(self, reason: str, close_ms: int, now_ms: int) -> list[SessionEvent]:
        """An operator retires the worker: nothing new; the stream is closed at `close_ms`. Asked again,
        only an earlier end is news."""
        if self._close_at_ms is not None and self._close_at_ms <= close_ms:
            return []
        frame = wire.ConnectResponse(drain=wire.DrainRequest(reason=reason))
        frame.drain.grace.FromMilliseconds(max(0, close_ms - now_ms))
        events: list[SessionEvent] = []
        self._leave_after(max(0, close_ms - now_ms), now_ms, events)
        self._say(frame)
        return events

    def close(self, closing: MaestosoError) -> None:
        """End the stream once the control lane is written. The first reason stands."""
        if self.closing is None:
            self.closing = closing
            self.room.open = False
            self.wake()

    def _leave_after(self, grace_ms: int, now_ms: int, events: list[SessionEvent]) -> None:
        self.draining = True
        due_ms = now_ms + grace_ms
        self._close_at_ms = due_ms if self._close_at_ms is None else min(self._close_at_ms, due_ms)
        self._open_or_shut(events)

    def _open_or_shut(self, events: list[SessionEvent]) -> None:
        self.room.open = not (self.blocked or self.draining or self.closing)
        events.append(RoomMade() if self.room.open else Shut())

    def _rest(self, now_ms: int) -> None:
        self.rest()
        self._rest_until_ms = now_ms + REST_MS

    def rest(self) -> None:
        """Take nothing until something held is released, a new capacity comes, or a tick passes."""
        self.room.resting = True

    # -- time -----------------------------------------------------------------------------------

    def next_tick_ms(self) -> int:
        """When `tick` must be called again, at the latest."""
        due = self._idle_ping_ms()
        proof_due = self._proof.proof_due_ms()
        if proof_due is not None:
            due = min(due, proof_due)
        unanswered = self._proof.unanswered_since_ms()
        if unanswered is not None:
            due = min(due, unanswered + (CLOSE_AFTER_MS if self.blocked else BLOCKED_AFTER_MS))
        if self.room.resting and self._rest_until_ms:
            due = min(due, self._rest_until_ms)
        if self._close_at_ms is not None:
            due = min(due, self._close_at_ms)
        return due

    def tick(self, now_ms: int) -> list[SessionEvent]:
        """Let time pass: pings, blocked workers, ends of grace."""
        events: list[SessionEvent] = []
        if self._close_at_ms is not None and now_ms >= self._close_at_ms:
            message = "the time for leaving is over; connect again, elsewhere"
            self.close(Unavailable(Reason.NODE_STOPPING, message))
        self._judge(now_ms, events)
        if self.room.resting and now_ms >= self._rest_until_ms:
            self.room.resting = False
            events.append(RoomMade())
        if self._ping_due(now_ms):
            self._pinged_ms = now_ms
            self._proof.want_ping(now_ms)
            self.wake()
        return events

    def _judge(self, now_ms: int, events: list[SessionEvent]) -> None:
        since_ms = self._proof.unanswered_since_ms()
        if since_ms is None:
            return
        if now_ms >= since_ms + CLOSE_AFTER_MS:
            message = "no Pong for 10 s: the worker does not read its stream"
            self.close(ResourceExhausted(Reason.OVERLOADED, message))
        elif now_ms >= since_ms + BLOCKED_AFTER_MS and not self.blocked:
            self.blocked = True
            self._open_or_shut(events)

    def _ping_due(self, now_ms: int) -> bool:
        proof_due = self._proof.proof_due_ms()
        return now_ms >= (self._idle_ping_ms() if proof_due is None else min(proof_due, self._idle_ping_ms()))

    def _idle_ping_ms(self) -> int:
        """When one side will have been silent for too long, however often it was pinged before."""
        return max(min(self._sent_ms, self._received_ms), self._pinged_ms) + IDLE_PING_MS

    # -- frames out -----------------------------------------------------------------------------

    def frames(self, now_ms: int) -> list[wire.ConnectResponse]:
        """Everything that may be written now, in order. The caller writes all of it before it asks again."""
        self._acks = self._cancels = None
        out = list(self._control)
        self._control.clear()
        if not (self.blocked or self.closing):
            self._write_batches(now_ms, out)
        if self._accepted:
            self._write_accepted(out)
        if self._proof.ping_wanted and self.closing is None:
            out.append(wire.ConnectResponse(ping=wire.Ping(number=self._proof.wrote_ping())))
        if out:
            self._sent_ms = now_ms
        return out

    def _write_batches(self, now_ms: int, out: list[wire.ConnectResponse]) -> None:
        while self._pending:
            deliveries, size = self._cut()
            if not deliveries:
                return
            if not self._proof.allows(size):
                self._pending.extendleft(reversed(deliveries))
                if self._proof.proof_due_ms() is not None:
                    self._proof.want_ping(now_ms)
                return
            number = self._proof.wrote_batch(deliveries, size, now_ms)
            self.on_written(deliveries, now_ms)
            frame = wire.ConnectResponse()
            frame.tasks.tasks.extend(_written(deliveries, number, now_ms))
            out.append(frame)

    def _write_accepted(self, out: list[wire.ConnectResponse]) -> None:
        """Acceptances ride with the first tasks that leave now; alone they are a frame of their own."""
        for frame in out:
            if frame.WhichOneof("frame") == "tasks":
                frame.tasks.accepted.extend(self._accepted)
                break
        else:
            out.insert(0, wire.ConnectResponse(acks=wire.ResultAcks(accepted=self._accepted)))
        self._accepted = []

    def _cut(self) -> tuple[list[Delivery], int]:
        """The next batch: taken from what waits, without what was released meanwhile."""
        pending, held = self._pending, self.room.held
        deliveries: list[Delivery] = []
        size = 0
        while pending and len(deliveries) < BATCH_TASKS:
            delivery = pending[0]
            if held.get(delivery.token) is not delivery:
                pending.popleft()
                continue
            weight = delivery.size + ASSIGNMENT_OVERHEAD_BYTES
            if deliveries and size + weight > BATCH_BYTES:
                break
            deliveries.append(pending.popleft())
            size += weight
        return deliveries, size

    def _say(self, frame: wire.ConnectResponse) -> None:
        self._control.append(frame)
        self.wake()


def capacity_fault(capacity: Capacity) -> str:
    """What is wrong with a declared capacity; empty if nothing is."""
    if not 0 <= capacity.tasks <= MAX_TASKS:
        return f"capacity.tasks is {capacity.tasks}: 0 to {MAX_TASKS} are allowed"
    if capacity.bytes < 0:
        return f"capacity.bytes is {capacity.bytes}: 0 (64 MiB) or more is allowed"
    return ""


class _BadFrame(Exception):
    """The worker sent what the contract forbids; nothing was changed."""


def _written(deliveries: list[Delivery], number: int, now_ms: int) -> Iterable[Any]:
    for delivery in deliveries:
        delivery.state = State.SENT
        delivery.batch = number
        delivery.sent_ms = now_ms
        yield delivery.assignment
        delivery.assignment = None


def _nobody() -> None:
    return


def _ignore_deliveries(deliveries: Sequence[Delivery], now_ms: int) -> None:
    return


_Handler = Callable[[Session, Any, int, list[SessionEvent]], None]
_RECEIVE: dict[str, _Handler] = {
    "results": Session._results,
    "pong": Session._pong,
    "hello": Session._hello,
    "capacity": Session._capacity,
    "acks": Session._acks_in,
    "nacks": Session._nacks,
    "progress": Session._progress,
    "logs": Session._logs,
    "cancel_answers": Session._cancel_answers,
    "drain": Session._drain,
    "auth_refresh": Session._auth_refresh,
}
