"""The node's memory of hand-outs, and everything that follows from a word of a worker or a commit.

No I/O: what must be written to the database is collected here (takes, reads, hand-backs, progress,
log lines) and fetched by the loops (`loops.py`), which bring back what became of it. So every step
is atomic in memory and O(1) per task, and the whole can be simulated.

    executor ──reserve, placed, ended──▶ ┌────────────┐ ──frames──▶ stream
    loops    ──took, read, returned────▶ │ Dispatcher │
    stream   ──frames, time────────────▶ └────────────┘ ──results─▶ executor
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from maestoso.error.v1.error_pb2 import Error
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso.task.v1.task_pb2 import (
    RESULT_OUTCOME_REFUSED,
    RESULT_OUTCOME_UNAVAILABLE,
    ResultOutcome,
    TaskResult,
)

from ..clock import Clock
from ..engine.decision import Outcome, QueueBirth
from ..engine.events import Event
from ..errors import Aborted, MaestosoError, Reason
from ..executor.lanes import Done
from ..executor.placement import Placed
from ..ids import make_token, read_token
from ..store.deliveries import Current
from ..store.logs import NewLine
from ..store.queue import Take, Taken
from ..store.sessions import KeptRow, Resumed
from ..vault import EmptyVault, Vault
from . import reports
from .assignments import Assignments
from .deliveries import Deliveries, Delivery, State
from .matching import Matching, Room
from .meanwhile import Meanwhile
from .owed import Owed
from .session import (
    CancelAnswered,
    HandedBack,
    Logged,
    Progressed,
    Read,
    Reported,
    RoomMade,
    Session,
    SessionEvent,
    Shut,
    Withdrawn,
)
from .takes import Taker, TakeRequest
from .ticks import Ticks

log = logging.getLogger(__name__)

Answer = Callable[["ResultOutcome.ValueType", "Error | None"], None]
"""Told what became of a reported result."""

LOG_LINES_WAITING_MAX = 50_000
"""Lines that wait for the database; more are dropped and counted."""


class Outside(Protocol):
    """Whom the dispatcher tells what is not its own business. Nothing here waits."""

    def submit(self, workflow_id: str, event: Event, done: Done | None = None) -> None:
        """The executor's door."""
        ...

    def rows_wait(self, namespace: str, queue: str) -> None:
        """Rows wait in this queue for which no session here has room: other nodes may have."""
        ...

    def ended_elsewhere(self, owner_epochs: Iterable[int]) -> None:
        """Rows of these nodes are marked ended."""
        ...

    def messages_wait_at(self, epoch: int, workflow_id: str) -> None:
        """A message waits for a workflow that the node `epoch` drains."""
        ...

    def workflow_slots_changed(self) -> None:
        """Slots of workflows may be given."""
        ...

    def answers_wait_at(self, epoch: int) -> None:
        """A command of the node `epoch` was answered."""
        ...

    def deadline(self, due_ms: int) -> None:
        """A deadline at this time was committed."""
        ...

    def outcome_unknown(self) -> None:
        """A save may have been applied although its reply was lost."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """Under which epoch a statement looks for rows of this node."""

    epoch: int
    settled: bool
    """What is remembered here is owned under it already: the node is not about to rejoin."""


class Dispatcher:
    """Implements the executor's `Placement`. One per node."""

    def __init__(
        self, *, clock: Clock, outside: Outside, max_payload_bytes: int, vault: Vault | None = None
    ) -> None:
        self.assignments = Assignments(vault or EmptyVault())
        self.deliveries = Deliveries()
        self.matching = Matching()
        self.owed = Owed()
        self.ticks = Ticks()
        self.degraded = False
        self.epoch = 0
        """The node's epoch under which what is remembered here is owned. Behind the node's own while it
        rejoins: until then a row that a statement does not find may still be this node's."""
        self.dropped_log_lines = 0
        self.owes: Callable[[], None] = _nobody
        """Called when there is something new in `owed` or a take to make."""
        self.opens: Callable[[int], None] = _ignore_time
        """Told when `look` is to be called."""
        self.on_slot_freed: Callable[[str, str, str], None] = _ignore_slot
        """Told that one of a limited (queue, task type) has ended: the pollers' ear."""
        self.on_waiting: Callable[[str, str], None] = _ignore_queue
        """Told of every queue in which rows wait: the pollers' ear."""
        self.on_redelivered: Callable[[str, int], None] = _ignore_count
        """Told of tasks that go out again, with the cause (`unread`, `lost`, `handed_back`,
        `forgotten`) and how many."""
        self._clock = clock
        self._outside = outside
        self._max_payload_bytes = max_payload_bytes
        self._sessions: dict[str, Session] = {}
        self._leaving: tuple[Sequence[str], int] | None = None
        """Workers are sent away: to these addresses, with so many ms of grace."""
        self._former: dict[str, Room] = {}
        """By session: slots of tasks about to be born that were reserved before the session was resumed.
        The resume may have given these tasks to others already: they go back."""
        self._taker = Taker(self.matching, wake=self._woken, opens=lambda due_ms: self.opens(due_ms))
        self.meanwhile = Meanwhile()
        """Tasks (workflow id, seq) and deliveries (tokens) that are over."""

    def _woken(self) -> None:
        self.owes()

    # -- sessions ----------------------------------------------------------------------------------

    def session(self, session_id: str) -> Session | None:
        """The session, its stream open or ended not long ago."""
        return self._sessions.get(session_id)

    def open_sessions(self) -> list[Session]:
        return [session for session in self._sessions.values() if not session.ended]

    def open_session_ids(self) -> set[str]:
        """Those whose stream is open here."""
        return {session.session_id for session in self._sessions.values() if not session.ended}

    def open(self, session: Session) -> None:
        """A stream opened. An older one of the same session gives way."""
        older = self._sessions.get(session.session_id)
        if older is not None:
            self.supersede(older)
            self._doubt_births(older)
            session.room.births_shut = session.session_id in self._former
        self._sessions[session.session_id] = session
        for ring in self.matching.enter(session.room):
            self._taker.want(ring)
        self._arm(session)
        if self._leaving is not None:  # since its Hello was taken
            self._send_away(session, *self._leaving)

    def ended_stream(self, session: Session) -> None:
        """Transition 8: what was not written waits again; the rest stays the session's until it is
        resumed or expires."""
        if session.ended:
            return
        session.ended = True
        self.matching.leave(session.room)
        self._return_all(session.take_unwritten())
        if self._sessions.get(session.session_id) is session:
            self.owed.detached.append(session)
        self.owes()
        if session.unknown_frames or session.dropped_lines:
            facts = {
                "worker_id": session.worker_id,
                "unknown_frames": session.unknown_frames,
                "dropped_lines": session.dropped_lines,
            }
            log.info("a worker sent what was ignored", extra=facts)

    def forget(self, session_id: str) -> None:
        """Transitions 9 and 10: the session is another node's, or has expired. A stream that is still
        open here is told so."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            return
        self._supersede(session)
        self._doubt_births(session)
        for delivery in list(session.room.held.values()):
            session.release(delivery)
            self._over(delivery)

    def unread(self, session_ids: Iterable[str]) -> list[Delivery]:
        """Transition 10: deliveries of ended streams that this node knows were never read."""
        return [
            delivery
            for session_id in session_ids
            if (session := self._sessions.get(session_id)) is not None and session.ended
            for delivery in session.room.held.values()
            if delivery.state is State.SENT
        ]

    def ended_sessions(self) -> list[str]:
        """Sessions kept here whose stream has ended."""
        return [session.session_id for session in self._sessions.values() if session.ended]

    def _doubt_births(self, session: Session) -> None:
        """A resume may have found rows of these births, and given them away, before we hear of them."""
        if session.room.births:
            self._former[session.session_id] = session.room.part_births()
            session.room.births_shut = True

    def is_last(self, session: Session) -> bool:
        """No newer stream carries this session."""
        return self._sessions.get(session.session_id) is session

    def supersede(self, session: Session) -> None:
        """A newer stream is about to take the session over: what was not written goes back unharmed."""
        session.superseded = True
        self._supersede(session)
        self._return_all(session.take_unwritten())

    def not_superseded(self, session: Session) -> None:
        """The newer stream could not have it after all."""
        if self.is_last(session):
            session.superseded = False
            self.owed.detached.append(session)
            self.owes()

    def detachable(self) -> list[Session]:
        """Take those whose stream has ended, and that no newer one has."""
        ended, self.owed.detached = self.owed.detached, []
        return [session for session in ended if self.is_last(session) and not session.superseded]

    def departed(self, sessions: Iterable[Session]) -> set[str]:
        """Ids of those whose worker has left for good, and of which it is known to have run nothing that
        is still open."""
        departed = {session.session_id for session in sessions if session.departed}
        if departed:
            departed -= {
                delivery.session_id
                for delivery in self.deliveries
                if delivery.state in (State.READ, State.REPORTED)
            }
        return departed

    def not_detached(self, sessions: Iterable[Session]) -> None:
        """The database says that these are another node's, or were resumed."""
        for session in sessions:
            if self.is_last(session) and not session.superseded:
                self.forget(session.session_id)

    def _supersede(self, session: Session) -> None:
        message = "a newer stream took the session over"
        session.close(Aborted(Reason.SESSION_SUPERSEDED, message))
        if not session.ended:
            session.ended = True
            self.matching.leave(session.room)

    def resume(self, session: Session, resumed: Resumed, watch: int) -> None:
        """Transition 9 was committed: `session` (not open yet) holds what was kept. `watch`: of
        `meanwhile`, begun before. Raises Aborted where a later stream was quicker."""
        now_ms = self._clock.now_ms()
        older = self._sessions.get(session.session_id)
        if older is not None and max(older.connected_at_ms) > max(session.connected_at_ms):
            raise Aborted(Reason.SESSION_SUPERSEDED, "a later stream of the session was quicker")
        left = dict(older.room.held) if older is not None else {}
        for row in resumed.kept:
            if self._ended_since(watch, row):
                continue
            delivery = self._kept(session, row, now_ms)
            if left.pop(delivery.token, None) is not None and older is not None:
                older.release(delivery)
            if delivery.state in (State.SENT, State.READ) and delivery not in self.owed.hand_backs:
                delivery.state = State.READ
                session.adopt(delivery)
        for delivery in left.values():
            self._over(delivery)
        for namespace, queue in resumed.waiting:
            self._rows_wait(namespace, queue)
        self.on_redelivered("unread", resumed.redelivered)
        if resumed.lost:
            self._outside.deadline(now_ms)

    def _kept(self, session: Session, row: KeptRow, now_ms: int) -> Delivery:
        """The delivery of a row that a resuming worker holds; it has been read."""
        delivery = self.deliveries.find(row.workflow_id, row.seq)
        if delivery is None or delivery.delivery != row.delivery:
            delivery = Delivery(
                token=make_token(row.workflow_id, row.seq, row.delivery),
                workflow_id=row.workflow_id,
                seq=row.seq,
                delivery=row.delivery,
                namespace=session.namespace,
                queue=row.queue,
                task_type=row.task_type,
                size=row.size,
                limit=row.limit,
                session_id=session.session_id,
                worker_id=session.worker_id,
                state=State.READ,
                started_ms=row.started_ms,
            )
            self._remember(delivery)
        if not delivery.started_ms:
            delivery.started_ms = now_ms
            self.owed.reads.append(delivery)
            self.owes()
        return delivery

    def inventories(self) -> dict[str, list[Delivery]]:
        """Transition 12: what this node knows of each session's deliveries."""
        held: dict[str, list[Delivery]] = {}
        for delivery in self.deliveries:
            held.setdefault(delivery.session_id, []).append(delivery)
        return held

    def rejoined(self, session: Session, held: Iterable[Delivery], resumed: Resumed, watch: int) -> None:
        """Transition 12 was committed: what is not the session's any more is cancelled, what this node
        did not know of is sent. `watch`: of `meanwhile`, begun before `held` was put together."""
        self._doubt_births(session)
        kept = {(row.workflow_id, row.seq, row.delivery) for row in resumed.kept}
        self.lost(item for item in held if (item.workflow_id, item.seq, item.delivery) not in kept)
        for row in resumed.unsent:
            if not self._ended_since(watch, row):
                self._send(row, session)
        for namespace, queue in resumed.waiting:
            self._rows_wait(namespace, queue)
        if session.ended and not session.superseded:  # meanwhile; its row says that it lives
            self.owed.detached.append(session)
            self.owes()

    def knows(self, workflow_id: str, seq: int, delivery: int) -> bool:
        """Whether this node remembers the delivery."""
        known = self.deliveries.find(workflow_id, seq)
        return known is not None and known.delivery == delivery

    def can_adopt(self, session_id: str) -> bool:
        """Whether the session's stream is open here and takes tasks."""
        session = self._sessions.get(session_id)
        return session is not None and not session.ended and session.room.open

    def adopt(self, rows: Iterable[Taken]) -> None:
        """Rows that the old node of a session has passed on after its resume. Its worker may hold them
        or not, so they are sent under the same delivery, whatever the capacity, and never go back."""
        for row in rows:
            session = self._sessions.get(row.session_id or "")
            if session is None or not self.can_adopt(session.session_id):
                continue
            if not self.knows(row.workflow_id, row.seq, row.delivery):
                delivery = _of_row(row, session)
                delivery.assignment = self.assignments.of_taken(row, delivery.token)
                self._remember(delivery)
                session.assign(delivery)

    # -- frames and time ---------------------------------------------------------------------------

    def receive(self, session: Session, frame: wire.ConnectRequest) -> None:
        """One frame came from the worker."""
        now_ms = self._clock.now_ms()
        for event in session.receive(frame, now_ms):
            _HANDLE[type(event)](self, session, event, now_ms)
        self._arm(session)

    def frames(self, session: Session) -> list[wire.ConnectResponse]:
        """What is to be written now."""
        frames = session.frames(self._clock.now_ms())
        self._arm(session)
        return frames

    def tick(self) -> None:
        """Let every session know the time for which it asked."""
        now_ms = self._clock.now_ms()
        for session in self.ticks.due(now_ms):
            if session.ended:
                continue
            for event in session.tick(now_ms):
                _HANDLE[type(event)](self, session, event, now_ms)
            self._arm(session)

    def drain(self, session_id: str, reason: str, close_ms: int) -> None:
        """An operator retires a worker: told with every beat until its stream has ended."""
        session = self._sessions.get(session_id)
        if session is not None and not session.ended:
            now_ms = self._clock.now_ms()
            self._handle(session, session.request_drain(reason, close_ms, now_ms), now_ms)

    def move_all(self, addresses: Sequence[str], grace_ms: int) -> None:
        """This node stops: every worker is to resume elsewhere, and none may come back, until `stay`."""
        self._leaving = addresses, grace_ms
        for session in self.open_sessions():
            self._send_away(session, addresses, grace_ms)

    def stay(self) -> None:
        """Workers are welcome again."""
        self._leaving = None

    @property
    def leaving(self) -> bool:
        """Workers are sent elsewhere: no new stream is taken."""
        return self._leaving is not None

    def _send_away(self, session: Session, addresses: Sequence[str], grace_ms: int) -> None:
        now_ms = self._clock.now_ms()
        events = session.move(wire.MOVE_REASON_STOPPING, addresses, grace_ms, now_ms)
        self._handle(session, events, now_ms)

    def set_degraded(self, degraded: bool, addresses: Sequence[str] = ()) -> None:
        """Transition 13: without its database the node hands out nothing and says so."""
        if degraded == self.degraded:
            return
        self.degraded = degraded
        now_ms = self._clock.now_ms()
        for session in self.open_sessions():
            if degraded:
                session.move(wire.MOVE_REASON_DEGRADED, addresses, None, now_ms)
            else:
                session.tell_nodes(addresses)
        if not degraded:
            self.owes()

    def tell_nodes(self, addresses: Sequence[str]) -> None:
        """The live nodes changed."""
        for session in self.open_sessions():
            session.tell_nodes(addresses)

    def _handle(self, session: Session, events: Iterable[SessionEvent], now_ms: int) -> None:
        for event in events:
            _HANDLE[type(event)](self, session, event, now_ms)
        self._arm(session)

    def _arm(self, session: Session) -> None:
        if session.closing is None:  # time changes nothing any more for one that is being closed
            self.ticks.arm(session, session.next_tick_ms())

    def _read(self, session: Session, event: Read, now_ms: int) -> None:
        self.owed.reads.extend(event.deliveries)
        self.owes()

    def _handed_back(self, session: Session, event: HandedBack, now_ms: int) -> None:
        for delivery, due_ms in event.items:
            self._return(delivery, due_ms)

    def _progressed(self, session: Session, event: Progressed, now_ms: int) -> None:
        progress = self.owed.progress
        for delivery, output in event.items:
            try:
                reports.payload(output, "output", self._max_payload_bytes)
            except MaestosoError as refusal:
                session.refuse_frame(refusal, now_ms)
            else:
                progress[delivery] = output or progress.get(delivery, b"")
        self.owes()

    def progressed(self, token: bytes) -> None:
        """A unary call says that the worker goes on."""
        delivery = self.deliveries.get(token)
        if delivery is not None:
            delivery.progress_ms = self._clock.now_ms()

    def _logged(self, session: Session, event: Logged, now_ms: int) -> None:
        for line in event.lines:
            known = read_token(line.token)
            if known is not None:
                at_ms = line.time.ToMilliseconds() if line.HasField("time") else now_ms
                self._log(known[0], known[1], at_ms, line.line)
        self.owes()

    def _log(self, workflow_id: str, seq: int, at_ms: int, line: str) -> None:
        logs = self.owed.logs
        if len(logs) >= LOG_LINES_WAITING_MAX:
            self.dropped_log_lines += 1
        else:
            logs.append(NewLine(workflow_id, seq, at_ms, line[: reports.LOG_LINE_MAX]))

    def _cancel_answered(self, session: Session, event: CancelAnswered, now_ms: int) -> None:
        for item in event.answers:
            if item.answer == wire.CANCEL_ANSWER_NOT_SUPPORTED:
                self._log_answer(session, item.token)

    def _log_answer(self, session: Session, token: bytes) -> None:
        known = read_token(token)
        if known is not None:
            facts = {"workflow_id": known[0], "seq": known[1], "worker_id": session.worker_id}
            log.info("a cancelled task runs on: its handler cannot be stopped", extra=facts)

    def _withdrawn(self, session: Session, event: Withdrawn, now_ms: int) -> None:
        facts = {"queue": event.queue, "worker_id": session.worker_id}
        log.warning("a worker has no handler for a type that it offered", extra=facts)
        self.matching.withdraw(session.room, event.queue)

    def _room_made(self, session: Session, event: RoomMade, now_ms: int) -> None:
        self._taker.made_room(session.room)

    def _shut(self, session: Session, event: Shut, now_ms: int) -> None:
        self._return_all(session.take_unwritten())

    # -- results -----------------------------------------------------------------------------------

    def _reported(self, session: Session, event: Reported, now_ms: int) -> None:
        for result, delivery in event.results:
            token = result.token
            if token:
                answer = partial(self._acknowledge, session, token)
                self.report(result, delivery, session.worker_id, answer, now_ms)
            else:
                self.owed.nameless.append((session, result))
                self.owes()

    def _acknowledge(
        self, session: Session, token: bytes, outcome: ResultOutcome.ValueType, error: Error | None
    ) -> None:
        if session.ended:
            session = self._sessions.get(session.session_id, session)
        session.acknowledge(token, outcome, error)

    def report(
        self, result: TaskResult, delivery: Delivery | None, worker_id: str, answer: Answer, now_ms: int
    ) -> None:
        """Submit a result that carries a token. `delivery`: as far as the reporting session holds it.
        `answer` is called once, after the commit or the refusal."""
        if delivery is None:
            # Of another session of this node, of another node, or of the past.
            delivery = self.deliveries.get(result.token)
            if delivery is not None and delivery.state is State.REPORTED:
                delivery = None
        if delivery is not None:
            workflow_id, seq, number = delivery.workflow_id, delivery.seq, delivery.delivery
            started_ms = delivery.started_ms or delivery.sent_ms
            ring = self.matching.ring(delivery.namespace, delivery.queue)
            if ring is not None and delivery.sent_ms:
                ring.ended(now_ms - delivery.sent_ms)
        else:
            known = read_token(result.token)
            if known is None:
                answer(*reports.stale("the token is not one of this server"))
                return
            workflow_id, seq, number = known
            started_ms = 0
        self.submit(result, workflow_id, seq, number, worker_id, started_ms, delivery, answer, now_ms)

    def submit(
        self,
        result: TaskResult,
        workflow_id: str,
        seq: int,
        number: int | None,
        worker_id: str,
        started_ms: int,
        delivery: Delivery | None,
        answer: Answer,
        now_ms: int,
    ) -> None:
        """Submit a result for a known task; `number` is the delivery that it speaks for."""
        try:
            change = reports.to_event(
                result,
                seq=seq,
                delivery=number,
                worker_id=worker_id,
                started_ms=started_ms,
                now_ms=now_ms,
                max_payload_bytes=self._max_payload_bytes,
            )
        except MaestosoError as refusal:
            answer(*reports.refused(refusal))
            return
        if result.logs:
            for line in result.logs[: reports.LOG_LINES_MAX]:
                self._log(workflow_id, seq, now_ms, line)
            self.owes()
        if delivery is not None:
            self._release(delivery)
            delivery.state = State.REPORTED
        self._outside.submit(workflow_id, change, partial(self._decided, answer, delivery))

    def report_named(self, result: TaskResult, current: Current, worker_id: str, answer: Answer) -> None:
        """Submit a result that names its task. `current`: the task's delivery now."""
        reporter = result.worker_id or worker_id
        if current.delivery and current.worker_id and reporter and reporter != current.worker_id:
            answer(*reports.stale(f"the task is with worker {current.worker_id!r} now, not {reporter!r}"))
            return
        self.submit(
            result,
            current.workflow_id,
            current.seq,
            current.delivery,
            reporter,
            0,
            None,
            answer,
            self._clock.now_ms(),
        )

    def report_unqueued(
        self, result: TaskResult, workflow_id: str, seq: int, worker_id: str, answer: Answer
    ) -> None:
        """Submit a result for a task that no worker runs: one that waits for people, or has ended."""
        now_ms = self._clock.now_ms()
        reporter = result.worker_id or worker_id
        self.submit(result, workflow_id, seq, None, reporter, 0, None, answer, now_ms)

    def _decided(self, answer: Answer, delivery: Delivery | None, outcome: Outcome | Exception) -> None:
        """The result was committed, or not."""
        verdict, error = reports.answer_to(outcome)
        if delivery is not None and delivery.state is State.REPORTED:
            if verdict in (RESULT_OUTCOME_REFUSED, RESULT_OUTCOME_UNAVAILABLE):
                self._revive(delivery)
            else:
                self._over(delivery)
        answer(verdict, error)

    def _revive(self, delivery: Delivery) -> None:
        """Its result was not taken: the worker holds it still."""
        delivery.state = State.READ
        owner = self._sessions.get(delivery.session_id)
        if owner is not None and delivery.token not in owner.room.held:
            owner.adopt(delivery)
            self.owed.reads.append(delivery)
            self.owes()

    def _release(self, delivery: Delivery) -> None:
        owner = self._sessions.get(delivery.session_id)
        if owner is not None and owner.release(delivery):
            self._taker.made_room(owner.room)

    def _remember(self, delivery: Delivery) -> None:
        """An older delivery of the same task is over, if one is still remembered."""
        older = self.deliveries.add(delivery)
        if older is not None:
            self._end(older, wire.CANCEL_REASON_SUPERSEDED)

    def _over(self, delivery: Delivery) -> None:
        delivery.state = State.OVER
        delivery.assignment = None
        self.meanwhile.note(delivery.token)
        self.deliveries.drop(delivery)

    # -- Placement ---------------------------------------------------------------------------------

    def reserve(self, namespace: str, birth: QueueBirth) -> str | None:
        if self.degraded:
            return None
        room = self.matching.reserve(namespace, birth.queue, birth.size)
        return room.session_id if room is not None else None

    def unreserve(self, session_id: str, birth: QueueBirth) -> None:
        room = self._settle(session_id, birth.size)
        if room is not None:
            self._taker.made_room(room)

    def _settle(self, session_id: str, size: int) -> Room | None:
        """Give a birth's slot back; returns the room that it was reserved in, if that is still open."""
        session = self._sessions.get(session_id)
        former = self._former.get(session_id)
        if former is None:
            if session is None:
                return None
            room = session.room
        else:
            room = former
        room.unreserve(size)
        room.births -= 1
        if room is former and not former.births:
            del self._former[session_id]
            if session is not None:
                session.room.births_shut = False
        return room if room.open else None

    def placed(self, placed: Sequence[Placed]) -> None:
        for item in placed:
            birth = item.birth
            room = self._settle(item.session_id, birth.size)
            known = self.deliveries.find(item.header.id, birth.seq)
            if known is not None and known.delivery >= item.delivery:
                continue  # a new epoch found it first
            session = self._sessions.get(item.session_id)
            delivery = Delivery(
                token=make_token(item.header.id, birth.seq, item.delivery),
                workflow_id=item.header.id,
                seq=birth.seq,
                delivery=item.delivery,
                namespace=item.header.namespace,
                queue=birth.queue,
                task_type=birth.task_type,
                size=birth.size,
                limit=birth.limit,
                session_id=item.session_id,
                worker_id=session.worker_id if session is not None else "",
                due_ms=birth.due_ms,
            )
            self._remember(delivery)
            if session is None or room is not session.room:
                self._return(delivery, 0)
            else:
                delivery.assignment = self.assignments.of_placed(item, delivery.token)
                session.assign(delivery)

    def waiting(self, namespace: str, births: Sequence[QueueBirth]) -> None:
        now_ms = self._clock.now_ms()
        for queue in dict.fromkeys(birth.queue for birth in births if birth.due_ms <= now_ms):
            self._rows_wait(namespace, queue)

    def ended(self, workflow_id: str, seqs: Iterable[int]) -> None:
        for seq in seqs:
            self.meanwhile.note((workflow_id, seq))
            delivery = self.deliveries.find(workflow_id, seq)
            if delivery is not None:
                self._end(delivery, wire.CANCEL_REASON_WORKFLOW_ENDED)

    def slots_freed(self, namespace: str, queues: Iterable[tuple[str, str]]) -> None:
        for queue, task_type in dict.fromkeys(queues):
            self._taker.slot_freed(namespace, queue, task_type)
            self.on_slot_freed(namespace, queue, task_type)
            self._outside.rows_wait(namespace, queue)

    def workflow_slots_changed(self) -> None:
        self._outside.workflow_slots_changed()

    def look(self) -> None:
        """Some window of a rate limit has opened, or is to be looked at."""
        self._taker.look(self._clock.now_ms())

    def ended_elsewhere(self, owner_epochs: Iterable[int]) -> None:
        self._outside.ended_elsewhere(owner_epochs)

    def messages_wait_at(self, epoch: int, workflow_id: str) -> None:
        self._outside.messages_wait_at(epoch, workflow_id)

    def answers_wait_at(self, epoch: int) -> None:
        self._outside.answers_wait_at(epoch)

    def deadline(self, due_ms: int) -> None:
        self._outside.deadline(due_ms)

    def outcome_unknown(self) -> None:
        self._outside.outcome_unknown()

    def cancel(self, workflow_id: str, seq: int, delivery: int, reason: wire.CancelReason.ValueType) -> None:
        """One delivery is over, whatever ended it."""
        known = self.deliveries.find(workflow_id, seq)
        if known is not None and known.delivery == delivery:
            self._end(known, reason)

    def _end(self, delivery: Delivery, reason: wire.CancelReason.ValueType) -> None:
        """Its row is gone. One whose own result ended it is not cancelled."""
        session = self._sessions.get(delivery.session_id)
        reported = delivery.state is State.REPORTED
        self._over(delivery)
        if session is not None and not reported:
            session.cancel(delivery, reason)
            self._taker.made_room(session.room)
        if delivery.limit:
            self.slots_freed(delivery.namespace, [(delivery.queue, delivery.task_type)])

    # -- waiting rows --------------------------------------------------------------------------------

    def rows_wait(self, namespace: str, queue: str) -> None:
        """A hint of another node, or the pulse: rows wait in this queue."""
        self._taker.rows_wait(namespace, queue, anew=True)
        self.on_waiting(namespace, queue)

    def _rows_wait(self, namespace: str, queue: str) -> None:
        """Rows of this node's own doing wait."""
        if not self._taker.rows_wait(namespace, queue, anew=False):
            self._outside.rows_wait(namespace, queue)
        self.on_waiting(namespace, queue)

    @property
    def takes_due(self) -> bool:
        return self._taker.due

    def next_take(self) -> TakeRequest | None:
        """The next take to make, its slots reserved; None if there is none now."""
        if self.degraded:
            return None
        return self._taker.next(self._clock.now_ms(), self.meanwhile.begin)

    def took(self, request: TakeRequest, take: Take) -> None:
        """A take was committed: send what it brought."""
        self._taker.came_back(request)
        for row, room in zip(take.rows, request.rooms, strict=False):
            assert row.session_id == room.session_id, "the i-th row is the i-th slot's"
            room.unreserve(0)
            if not self._ended_since(request.watch, row):
                # Where the session was resumed since, the resume may have given the row to others.
                session = self._sessions.get(room.session_id)
                self._send(row, session if session is not None and session.room is room else None)
        self.meanwhile.end(request.watch)
        self._taker.unreserve(request.rooms[len(take.rows) :])
        self._taker.judge(request, take, self._clock.now_ms())

    def take_failed(self, request: TakeRequest, *, unknown: bool) -> None:
        """A take did not happen: its rows are found by the next pulse. With `unknown` it may have: then
        they are this node's and it does not know them, which a new epoch mends."""
        self._taker.came_back(request)
        self.meanwhile.end(request.watch)
        self._taker.unreserve(request.rooms)
        if unknown:
            self._outside.outcome_unknown()

    def _ended_since(self, watch: int, row: Taken | KeptRow) -> bool:
        """Whether the row of this answer has ended since, or its delivery has."""
        ended_since = self.meanwhile.ended_since
        return ended_since(watch, (row.workflow_id, row.seq)) or ended_since(
            watch, make_token(row.workflow_id, row.seq, row.delivery)
        )

    def _send(self, row: Taken, session: Session | None) -> None:
        """Hand a row that is the session's to its stream; back to the queue where it takes nothing."""
        if self.knows(row.workflow_id, row.seq, row.delivery):
            return  # a new epoch found it first
        delivery = _of_row(row, session)
        self._remember(delivery)
        if session is None or not session.room.open:
            self._return(delivery, 0)
        elif not session.room.fits(row.size):
            session.rest()
            self._return(delivery, 0)
        else:
            delivery.assignment = self.assignments.of_taken(row, delivery.token)
            session.assign(delivery)

    # -- hand-backs ----------------------------------------------------------------------------------

    def _return(self, delivery: Delivery, due_ms: int) -> None:
        """It goes back to the queue; owned until that is committed."""
        delivery.assignment = None
        self.owed.hand_backs[delivery] = due_ms
        self.owes()

    def _return_all(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self._return(delivery, 0)

    def return_polled(self, row: Taken, worker_id: str) -> None:
        """A row whose poller has gone before it was answered."""
        delivery = Delivery(
            token=make_token(row.workflow_id, row.seq, row.delivery),
            workflow_id=row.workflow_id,
            seq=row.seq,
            delivery=row.delivery,
            namespace=row.namespace,
            queue=row.queue,
            task_type=row.task_type,
            size=row.size,
            limit=row.limit,
            session_id="",
            worker_id=worker_id,
        )
        self._return(delivery, 0)

    def returned(self, deliveries: Iterable[tuple[Delivery, int]]) -> None:
        """Transition 7 was committed for these, each with the time it was given."""
        queues: dict[tuple[str, str], None] = {}
        count = 0
        for delivery, due_ms in deliveries:
            if delivery.state is not State.OVER:
                count += 1
                self._over(delivery)
                if not due_ms:
                    queues[delivery.namespace, delivery.queue] = None
        self.on_redelivered("handed_back", count)
        for namespace, queue in queues:
            self._rows_wait(namespace, queue)

    def not_found(self, deliveries: Iterable[Delivery], asked: Asked) -> list[Delivery]:
        """Statements under this epoch did not find the rows of these. Returns those to be looked for again:
        all, unless everything remembered here was owned under that epoch from before they were asked for
        until now."""
        if not asked.settled or asked.epoch != self.epoch:
            return [delivery for delivery in deliveries if delivery.state is not State.OVER]
        self.lost(deliveries)
        return []

    def asks(self, epoch: int) -> Asked:
        """A statement under `epoch`, the node's own now, is about to look for rows of this node."""
        return Asked(epoch, settled=epoch == self.epoch)

    def lost(self, deliveries: Iterable[Delivery]) -> None:
        """Rows of these are this node's no more. One whose result is under way learns it by that."""
        for delivery in deliveries:
            if delivery.state not in (State.REPORTED, State.OVER):
                self._end(delivery, wire.CANCEL_REASON_SUPERSEDED)


def _of_row(row: Taken, session: Session | None) -> Delivery:
    return Delivery(
        token=make_token(row.workflow_id, row.seq, row.delivery),
        workflow_id=row.workflow_id,
        seq=row.seq,
        delivery=row.delivery,
        namespace=row.namespace,
        queue=row.queue,
        task_type=row.task_type,
        size=row.size,
        limit=row.limit,
        session_id=row.session_id or "",
        worker_id=session.worker_id if session is not None else "",
        due_ms=row.due_ms,
    )


def _nobody() -> None:
    return


def _ignore_count(cause: str, count: int) -> None:
    return


def _ignore_time(due_ms: int) -> None:
    return


def _ignore_slot(namespace: str, queue: str, task_type: str) -> None:
    return


def _ignore_queue(namespace: str, queue: str) -> None:
    return


_HANDLE: dict[type, Callable[[Dispatcher, Session, Any, int], None]] = {
    Reported: Dispatcher._reported,
    Read: Dispatcher._read,
    HandedBack: Dispatcher._handed_back,
    Progressed: Dispatcher._progressed,
    Logged: Dispatcher._logged,
    CancelAnswered: Dispatcher._cancel_answered,
    Withdrawn: Dispatcher._withdrawn,
    RoomMade: Dispatcher._room_made,
    Shut: Dispatcher._shut,
}
