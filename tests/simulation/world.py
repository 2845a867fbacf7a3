"""A whole cluster in one thread: real dispatchers and the real worker's session, a modelled database,
and a heap of events that a seed puts in order.

What can go wrong: a node is killed or stopped past its lease, a worker is killed or stopped, a stream
is cut or falls silent, a frame is late, a statement's reply is lost or the statement never arrives, a
result is reported twice. Time moves from event to event; nothing sleeps.

What must hold at every moment: no attempt runs at two workers, no worker holds more than it declared,
no limit is exceeded, no attempt is spent on a task that no worker was given. And once the faults stop,
every workflow ends.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

from dispatch_kit import NAMESPACE
from maestoso import _session as sdk
from maestoso.task.v1 import task_pb2
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso_server import ids
from maestoso_server.dispatch.deliveries import Delivery, State
from maestoso_server.dispatch.dispatcher import Dispatcher
from maestoso_server.dispatch.session import DEFAULT_BYTES, Session
from maestoso_server.dispatch.takes import TakeRequest
from maestoso_server.engine.decision import APPLIED, Outcome, QueueBirth, Verdict
from maestoso_server.engine.events import Event, Result
from maestoso_server.engine.state import Header, TaskRow, TaskStatus
from maestoso_server.errors import Aborted
from maestoso_server.executor.lanes import Done
from maestoso_server.executor.placement import Placed
from maestoso_server.store.database import Unavailable
from maestoso_server.store.deliveries import Key, Touched
from maestoso_server.store.nodes import NodeLost
from maestoso_server.store.queue import Take, Taken

from .table import Lost, Row, Table

START_MS = 1_750_000_000_000
STEPS = 3
"""Tasks of a workflow, one after the other."""
QUIET_MS = 120_000
"""How long the world may take to end all workflows once the faults have stopped."""
SILENCE_MS = 3_000
"""A worker gives up a stream that was silent for so long."""


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class Workflow:
    workflow_id: str
    queue: str
    limit: int
    step: int = 0
    seq: int = 0
    attempts: int = 0
    done: bool = False


class WorldClock:
    """The world's time as a node reads it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return self._world.now_ms


class World:
    """Make it with a seed, `run` it: raises `Broken` or returns."""

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 2,
        workers: int = 3,
        workflows: int = 40,
        faults_ms: int = 40_000,
        limit: int = 0,
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now_ms = START_MS
        self.table = Table()
        self.clock = WorldClock(self)
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._faults_until_ms = START_MS + faults_ms
        self._limit = limit
        self.given: set[tuple[Key, int]] = set()
        """Deliveries that reached a worker."""
        self.running: dict[Key, Worker] = {}
        """Attempts that run now, and where."""
        self.inherited: set[tuple[Key, int]] = set()
        """Deliveries that changed hands in a takeover: they count as read (11)."""
        self.accepted: set[Key] = set()
        self.burnt = 0
        self.story: list[str] = []
        self.workflows: dict[str, Workflow] = {}
        self.nodes = [Node(self, number) for number in range(nodes)]
        self.workers = [Worker(self, number) for number in range(workers)]
        for number in range(workflows):
            self.at(self.random.randrange(faults_ms // 2), partial(self._start, number))
        self.at(100, self._fault)

    # -- time ------------------------------------------------------------------------------------

    def at(self, delay_ms: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_ms + delay_ms, next(self._order), act))

    def run(self) -> None:
        """Until all workflows have ended."""
        deadline_ms = self._faults_until_ms + QUIET_MS
        while not self._all_done():
            if not self._heap or self.now_ms > deadline_ms:
                raise Broken(f"stuck: {self._unfinished()}")
            self.now_ms, _, act = heapq.heappop(self._heap)
            act()
            self._check()

    def tell(self, what: str) -> None:
        """A line of the story that a failure prints."""
        self.story.append(f"{self.now_ms - START_MS:>7} {what}")

    @property
    def faulty(self) -> bool:
        return self.now_ms < self._faults_until_ms

    def chance(self, probability: float) -> bool:
        return self.faulty and self.random.random() < probability

    def delay_ms(self) -> int:
        return self.random.randint(50, 1_500) if self.chance(0.01) else self.random.randint(0, 4)

    # -- work ------------------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        living = [node for node in self.nodes if node.up and not node.dispatcher.degraded]
        if not living:
            self.at(100, partial(self._start, number))
            return
        workflow_id = ids.workflow_id(self.now_ms, self.random.randbytes(10))[:-6] + "000000"
        limited = self._limit and number % 2 == 0
        workflow = Workflow(workflow_id, "limited" if limited else "work", self._limit if limited else 0)
        self.random.choice(living).begin(workflow)

    def next_row(self, workflow: Workflow) -> Row:
        """The row of its next task."""
        return Row(
            workflow.workflow_id,
            workflow.seq + 1,
            workflow.queue,
            workflow.limit,
            self.now_ms,
            workflow.attempts,
        )

    def spend(self, lost: Iterable[Lost]) -> list[Row]:
        """Attempts are over: each is followed by another, which waits."""
        again = []
        for item in lost:
            if (
                (item.row.key, item.row.delivery) not in self.given
                and not item.unread
                and not self._doubted(item.row)
            ):
                raise Broken(f"an attempt was spent on {item.row} that no worker was given")
            workflow = self.workflows[item.row.workflow_id]
            workflow.seq = max(workflow.seq, item.row.seq)
            workflow.attempts += 1
            self.burnt += 1
            row = self.next_row(workflow)
            workflow.seq = row.seq
            self.table.rows[row.key] = row
            again.append(row)
        return again

    def _doubted(self, row: Row) -> bool:
        """Whether the owner may believe that it was read: all that is inherited counts as read (11)."""
        return (row.key, row.delivery) in self.inherited

    def _all_done(self) -> bool:
        return (
            len(self.workflows) > 0 and not self._starting() and all(w.done for w in self.workflows.values())
        )

    def _starting(self) -> bool:
        return self.now_ms < START_MS + (self._faults_until_ms - START_MS) // 2 + 1_000

    def _unfinished(self) -> str:
        left = [w for w in self.workflows.values() if not w.done]
        rows = [row for row in self.table.rows.values() if row.workflow_id in {w.workflow_id for w in left}]
        return f"{len(left)} workflows: {left[:3]}, rows {rows[:3]}"

    # -- faults ----------------------------------------------------------------------------------

    def _fault(self) -> None:
        if not self.faulty:
            for node in self.nodes:
                node.revive()
            for worker in self.workers:
                worker.revive()
            return
        kind = self.random.choice(["kill", "stop", "cut", "cut", "silence", "worker", "pause", "drain"])
        if kind == "kill":
            self.random.choice(self.nodes).kill()
        elif kind == "stop":
            self.random.choice(self.nodes).stop(self.random.choice([500, 3_000, 9_000]))
        elif kind == "worker":
            self.random.choice(self.workers).kill()
        elif kind == "pause":
            self.random.choice(self.workers).stop(self.random.choice([300, 3_500, 12_000]))
        else:
            worker = self.random.choice(self.workers)
            if worker.stream is not None:
                if kind == "cut":
                    worker.stream.cut()
                elif kind == "silence":
                    self.tell(f"{worker} stream falls silent")
                    worker.stream.silent = True
                else:
                    worker.hand_back_some()
        self.at(self.random.randint(200, 4_000), self._fault)

    # -- invariants ------------------------------------------------------------------------------

    def _check(self) -> None:
        for worker in self.workers:
            if worker.session is not None and len(worker.session.held) > worker.capacity + worker.adopted:
                raise Broken(f"{worker} holds {len(worker.session.held)} of {worker.capacity}")
        for node in self.nodes:
            if node.up:
                node.check()
        if self._limit:
            running = self.table._running("limited")
            if running > self._limit:
                raise Broken(f"{running} of {self._limit} limited tasks are handed out")

    def begins(self, key: Key, worker: Worker) -> None:
        """A handler starts, or goes on after its worker was stopped."""
        other = self.running.get(key)
        if other is not None and other is not worker and other.active(key):
            raise Broken(f"{key} runs at {other} and begins at {worker}")
        self.running[key] = worker


# -- the wire ------------------------------------------------------------------------------------------


class Stream:
    """One connection: frames arrive in order, late, or not at all."""

    def __init__(self, world: World, node: Node, worker: Worker) -> None:
        self.world = world
        self.node = node
        self.worker = worker
        self.incarnation = node.incarnation
        self.silent = False
        self.closed = False
        self.session: Session | None = None
        self._arrives_ms = [0, 0]

    def to_node(self, frame: wire.ConnectRequest) -> None:
        self._send(0, lambda: self.node.receive(self, frame))

    def to_worker(self, frame: wire.ConnectResponse) -> None:
        self._send(1, lambda: self.worker.receive(self, frame))

    def _send(self, way: int, deliver: Callable[[], None]) -> None:
        world = self.world
        if self.closed or self.silent:
            return
        at_ms = max(self._arrives_ms[way], world.now_ms + world.delay_ms())
        self._arrives_ms[way] = at_ms
        world.at(at_ms - world.now_ms, lambda: None if self.closed or self.silent else deliver())

    def cut(self) -> None:
        """Both sides learn of the end, each after a while; what is on its way is lost."""
        if self.closed:
            return
        self.closed = True
        self.world.tell(f"{self.worker} stream to {self.node} is cut")
        self.world.at(self.world.delay_ms(), lambda: self.node.stream_ended(self))
        self.world.at(self.world.delay_ms(), lambda: self.worker.stream_ended(self))

    def finish(self) -> None:
        """The node ends it: what it wrote before arrives."""
        self._send(1, self.cut)


# -- a node --------------------------------------------------------------------------------------------


class Node:
    """A server process: its dispatcher, and its loops as the world drives them."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.incarnation = 0
        self.up = False
        self.stopped_until_ms = 0
        self._boot()

    def __str__(self) -> str:
        return f"node {self.number}.{self.incarnation} ({self.epoch})"

    def _boot(self) -> None:
        self.incarnation += 1
        self.up = True
        self.joining = False
        self.epoch = self.world.table.register(self.world.now_ms)
        self.dispatcher = Dispatcher(clock=self.world.clock, outside=self, max_payload_bytes=10_000)  # type: ignore[arg-type]
        self.dispatcher.epoch = self.epoch
        self.dispatcher.owes = self._wake
        self.dispatcher.ticks.sooner = self._wake
        self.streams: dict[Session, Stream] = {}
        self._pumping = False
        self._writing_reads = False
        self._taking = 0
        self._handing_back = False
        self._ticking_ms: int | None = None
        self.at(1_000, self._beat)

    # -- being a process -------------------------------------------------------------------------

    def at(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Later, in this process: never if it is killed, late if it is stopped."""
        self.world.at(delay_ms, partial(self._do, self.incarnation, act))

    def _do(self, incarnation: int, act: Callable[[], None]) -> None:
        if not self.up or incarnation != self.incarnation:
            return
        if self.stopped_until_ms > self.world.now_ms:
            self.world.at(self.stopped_until_ms - self.world.now_ms, partial(self._do, incarnation, act))
        else:
            act()
            if act != self._pump:
                self._wake()

    def kill(self) -> None:
        if not self.up:
            return
        self.world.tell(f"{self} is killed")
        self.up = False
        self.stopped_until_ms = 0
        for stream in list(self.streams.values()):
            stream.cut()
        self.world.at(self.world.random.randint(500, 6_000), self.revive)

    def revive(self) -> None:
        self.stopped_until_ms = 0
        if not self.up:
            self._boot()
            self.world.tell(f"{self} starts")

    def stop(self, for_ms: int) -> None:
        if self.stopped_until_ms <= self.world.now_ms:
            self.world.tell(f"{self} is stopped for {for_ms}")
            self.stopped_until_ms = self.world.now_ms + for_ms

    # -- statements ------------------------------------------------------------------------------

    def statement(
        self, run: Callable[[int], Any], done: Callable[[Any], None], failed: Callable[[Exception], None]
    ) -> None:
        """Send a statement; it runs whether or not the process lives to hear of it."""
        world, epoch = self.world, self.epoch
        fate = world.random.random() if world.faulty else 1.0

        def execute() -> None:
            if fate < 0.004:
                self.at(world.delay_ms(), lambda: failed(Unavailable("not sent", unknown=False)))
                return
            try:
                answer = run(epoch)
            except NodeLost as lost:
                self.at(world.delay_ms(), partial(failed, lost))
                return
            if fate < 0.008:
                world.tell(f"{self} loses a reply")
                self.at(world.delay_ms(), lambda: failed(Unavailable("reply lost", unknown=True)))
            else:
                self.at(world.delay_ms(), lambda: done(answer))

        world.at(world.delay_ms(), execute)

    def outcome_unknown(self) -> None:
        """12: take a new epoch and resume every open stream's session."""
        if self.joining:
            return
        self.joining = True
        self.at(1, self._rejoin)

    def _rejoin(self) -> None:
        self.world.table.remove(self.epoch)
        self.epoch = self.world.table.register(self.world.now_ms)
        self.world.tell(f"{self} has a new epoch")
        self.joining = False
        inventories = self.dispatcher.inventories()
        self._rejoining = len(self.dispatcher.open_sessions())
        self._rejoined_one(self.epoch, 0)
        for session in self.dispatcher.open_sessions():
            watch = self.dispatcher.meanwhile.begin()
            self._rejoin_session(session, inventories.get(session.session_id, []), watch)

    def _rejoin_session(self, session: Session, held: list[Delivery], watch: int) -> None:
        names = {(d.workflow_id, d.seq, d.delivery) for d in held}

        def done(resumed: Any) -> None:
            if resumed is None:
                if self.dispatcher.is_last(session):
                    self.dispatcher.forget(session.session_id)
            else:
                session.connected_at_ms = [resumed.session.connected_ms]
                self.dispatcher.rejoined(session, held, resumed, watch)
            self.dispatcher.meanwhile.end(watch)
            self._rejoined_one(joining, 1)

        def failed(error: Exception) -> None:
            self.dispatcher.meanwhile.end(watch)
            self.outcome_unknown()

        joining = self.epoch

        now_ms = self.world.now_ms
        since_ms = list(session.connected_at_ms)
        session.connected_at_ms += [max(now_ms, since + 1) for since in since_ms]
        self.statement(
            lambda epoch: self.world.table.resume(
                epoch,
                session.session_id,
                session.resume_token_hash,
                names,
                now_ms,
                adopt_since_ms=since_ms,
            ),
            done,
            failed,
        )

    def _rejoined_one(self, epoch: int, sessions: int) -> None:
        self._rejoining -= sessions
        if not self._rejoining and epoch == self.epoch:
            self.dispatcher.epoch = epoch

    def _failed(self, error: Exception) -> None:
        lost = isinstance(error, NodeLost) and error.epoch == self.epoch
        if lost or (isinstance(error, Unavailable) and error.unknown):
            self.outcome_unknown()

    # -- the beat --------------------------------------------------------------------------------

    def _beat(self) -> None:
        self.at(1_000, self._beat)
        self.statement(
            lambda epoch: self.world.table.beat(epoch, self.world.now_ms), self._beaten, self._failed
        )
        self._expire()
        self.statement(self.world.table.ended_rows, self._ended, self._failed)
        self._look_for_moved()
        self.statement(self.world.table.homeless, self._spent, self._failed)
        self.statement(self.world.table.passed_on, self._adopt, self._failed)
        for namespace, queue in self.dispatcher.matching.queues():
            if self.world.table.waiting(queue):
                self.dispatcher.rows_wait(namespace, queue)

    def _beaten(self, dead: list[int]) -> None:
        for epoch in dead:
            self.world.tell(f"{self} takes over {epoch}")
            self.statement(partial(self._inherit, epoch), lambda _: None, self._failed)

    def _inherit(self, dead: int, epoch: int) -> None:
        rows = [row for row in self.world.table.rows.values() if row.owner == dead]
        self.world.table.take_over(epoch, dead, self.world.now_ms)
        self.world.inherited.update((row.key, row.delivery) for row in rows if row.owner != dead)

    def _expire(self) -> None:
        unread = {
            (d.workflow_id, d.seq, d.delivery)
            for d in self.dispatcher.unread(self.dispatcher.ended_sessions())
        }

        def done(answer: tuple[set[str], list[Row], set[str]]) -> None:
            sessions, _, queues = answer
            for session_id in sorted(sessions):
                self.world.tell(f"{self} session {session_id[:8]} has expired")
                self.dispatcher.forget(session_id)
            for queue in sorted(queues):
                self.dispatcher.rows_wait(NAMESPACE, queue)

        def run(epoch: int) -> tuple[set[str], list[Row], set[str]]:
            sessions, lost, queues = self.world.table.expire(epoch, unread, self.world.now_ms)
            again = self.world.spend(lost)
            return sessions, again, queues | {row.queue for row in again}

        self.statement(run, done, self._failed)

    def _spent(self, lost: list[Lost]) -> None:
        for row in self.world.spend(lost):
            self.dispatcher.rows_wait(NAMESPACE, row.queue)

    def _ended(self, rows: list[Row]) -> None:
        for row in rows:
            self.dispatcher.cancel(row.workflow_id, row.seq, row.delivery, wire.CANCEL_REASON_WORKFLOW_ENDED)

    def _look_for_moved(self) -> None:
        mine = [session.session_id for session in self.dispatcher.open_sessions()]

        def done(gone: set[str]) -> None:
            for session_id in sorted(gone):
                self.dispatcher.forget(session_id)
                self.statement(partial(self._pass_on, session_id), lambda _: None, self._failed)

        self.statement(lambda epoch: self.world.table.moved(epoch, mine), done, self._failed)

    def _pass_on(self, session_id: str, epoch: int) -> None:
        rows = self.world.table.pass_on(epoch, session_id)
        self.world.inherited.update((row.key, row.delivery) for row in rows)

    def _adopt(self, rows: list[Taken]) -> None:
        for row in rows:
            if self.dispatcher.can_adopt(row.session_id or ""):
                self.dispatcher.adopt([row])
                for session, stream in self.streams.items():
                    stream.worker.adopted += session.session_id == row.session_id

    # -- what the dispatcher owes ------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._pumping:
            self._pumping = True
            self.at(0, self._pump)

    def _pump(self) -> None:
        self._pumping = False
        owed = self.dispatcher.owed
        while self._taking < 4 and (request := self.dispatcher.next_take()) is not None:
            self._take(request)
        if owed.hand_backs and not self._handing_back:
            self._hand_back()
        if owed.detached:
            self._detach()
        if owed.reads and not self._writing_reads:
            self._writing_reads = True
            self.at(50, self._mark_read)
        for session, stream in list(self.streams.items()):
            self._write(session, stream)
        due_ms = self.dispatcher.ticks.next_ms
        if due_ms is not None and (self._ticking_ms is None or due_ms < self._ticking_ms):
            self._ticking_ms = due_ms
            self.at(max(0, due_ms - self.world.now_ms), self._tick)

    def _tick(self) -> None:
        self._ticking_ms = None
        self.dispatcher.tick()

    def _take(self, request: TakeRequest) -> None:
        self._taking += 1

        def done(take: Take) -> None:
            self._taking -= 1
            self.dispatcher.took(request, take)

        def failed(error: Exception) -> None:
            self._taking -= 1
            self.dispatcher.take_failed(request, unknown=isinstance(error, Unavailable) and error.unknown)
            self._failed(error)

        queue, sessions, limited = request.ring.queue, request.sessions, request.limited
        self.statement(
            lambda epoch: self.world.table.take(epoch, queue, sessions, limited=limited is not None),
            done,
            failed,
        )

    def _hand_back(self) -> None:
        owed = self.dispatcher.owed
        taken, owed.hand_backs = owed.hand_backs, {}
        items = [d for d in taken if d.state is not State.OVER]
        self._handing_back = True
        sent_under = self.epoch

        def done(touched: Touched) -> None:
            self._handing_back = False
            self.dispatcher.returned((d, 0) for d in items if _key(d) in touched.done)
            gone = [d for d in items if _key(d) not in touched.done]
            again = dict.fromkeys(self.dispatcher.not_found(gone, sent_under), 0)
            owed.hand_backs = {**again, **owed.hand_backs}

        def failed(error: Exception) -> None:
            self._handing_back = False
            owed.hand_backs = {**taken, **owed.hand_backs}
            self._failed(error)

        names = [(_key(d), d.delivery) for d in items]
        self.statement(lambda epoch: self.world.table.hand_back(epoch, names), done, failed)

    def _detach(self) -> None:
        ended = self.dispatcher.detachable()
        if not ended:
            return

        def done(mine: set[str]) -> None:
            self.dispatcher.not_detached(session for session in ended if session.session_id not in mine)

        def failed(error: Exception) -> None:
            self.dispatcher.owed.detached[:0] = ended
            self._failed(error)

        names = [(session.session_id, max(session.connected_at_ms)) for session in ended]
        self.statement(lambda epoch: self.world.table.detach(epoch, names, self.world.now_ms), done, failed)

    def _mark_read(self) -> None:
        owed = self.dispatcher.owed
        taken, owed.reads = owed.reads, []
        items = [d for d in taken if d.state is State.READ]
        sent_under = self.epoch

        def done(touched: Touched) -> None:
            self._writing_reads = False
            gone = [d for d in items if _key(d) not in touched.done]
            owed.reads += self.dispatcher.not_found(gone, sent_under)

        def failed(error: Exception) -> None:
            self._writing_reads = False
            owed.reads = items + owed.reads
            self._failed(error)

        names = [(_key(d), d.delivery, d.started_ms) for d in items]
        self.statement(lambda epoch: self.world.table.mark_read(epoch, names), done, failed)

    # -- streams ---------------------------------------------------------------------------------

    def receive(self, stream: Stream, frame: wire.ConnectRequest) -> None:
        self._on(stream, lambda: self._received(stream, frame))

    def _received(self, stream: Stream, frame: wire.ConnectRequest) -> None:
        if frame.WhichOneof("frame") == "hello":
            self._open(stream, frame.hello)
        elif stream.session is not None and not stream.session.ended:
            self.dispatcher.receive(stream.session, frame)

    def _on(self, stream: Stream, act: Callable[[], None]) -> None:
        self._do(stream.incarnation, act)

    def _open(self, stream: Stream, hello: wire.Hello) -> None:
        """As `Streams.open` does it."""
        queues = {offer.task_type: offer.task_type for offer in hello.task_types}
        session_id = hello.session_id or str(UUID(bytes=self.world.random.randbytes(16)))
        secret = hello.resume_token or self.world.random.randbytes(32)
        session = Session(
            session_id=session_id,
            namespace=NAMESPACE,
            worker_id=hello.worker_id,
            queues=queues,
            now_ms=self.world.now_ms,
            resume_token_hash=sha256(secret).digest(),
            stream_number=hello.stream_number,
        )
        welcome = wire.Welcome(session_id=session_id, resume_token=secret)
        if hello.session_id:
            self._resume(stream, hello, session, welcome)
        else:
            self._begin(stream, hello, session, welcome)

    def _begin(self, stream: Stream, hello: wire.Hello, session: Session, welcome: wire.Welcome) -> None:
        welcome.revoked.extend(hello.held)
        self.statement(
            lambda epoch: self.world.table.open_session(
                epoch, session.session_id, session.resume_token_hash, session.connected_ms
            ),
            lambda _: self._opened(stream, hello, session, welcome),
            lambda error: (stream.finish(), self._failed(error)),  # type: ignore[func-returns-value]
        )

    def _resume(self, stream: Stream, hello: wire.Hello, session: Session, welcome: wire.Welcome) -> None:
        older = self.dispatcher.session(session.session_id)
        if older is not None and 0 < hello.stream_number <= older.stream_number:
            self._begin_anew(stream, hello)
            return
        if older is not None:
            self.dispatcher.supersede(older)
        held = {place for token in hello.held if (place := ids.read_token(token)) is not None}
        watch = self.dispatcher.meanwhile.begin()

        def done(resumed: Any) -> None:
            if resumed is None:
                self.dispatcher.meanwhile.end(watch)
                if older is not None and self.dispatcher.is_last(older):
                    self.dispatcher.forget(session.session_id)
                self._begin_anew(stream, hello)
                return
            session.connected_at_ms = [resumed.session.connected_ms]
            try:
                self.dispatcher.resume(session, resumed, watch)
            except Aborted:
                stream.finish()
                return
            finally:
                self.dispatcher.meanwhile.end(watch)
            kept = {(row.workflow_id, row.seq, row.delivery) for row in resumed.kept}
            welcome.resumed = True
            for token in hello.held:
                (welcome.kept if ids.read_token(token) in kept else welcome.revoked).append(token)
            for namespace, queue in sorted(resumed.waiting):
                self.dispatcher.rows_wait(namespace, queue)
            self._opened(stream, hello, session, welcome)

        def failed(error: Exception) -> None:
            self.dispatcher.meanwhile.end(watch)
            if older is not None:
                self.dispatcher.not_superseded(older)
            stream.finish()
            self._failed(error)

        self.statement(
            lambda epoch: self.world.table.resume(
                epoch,
                session.session_id,
                session.resume_token_hash,
                held,
                session.connected_ms,
                stream_number=hello.stream_number,
            ),
            done,
            failed,
        )

    def _begin_anew(self, stream: Stream, hello: wire.Hello) -> None:
        """The session is not to be had any more."""
        fresh = wire.Hello()
        fresh.CopyFrom(hello)
        fresh.session_id, fresh.resume_token = "", b""
        self._open(stream, fresh)

    def _opened(self, stream: Stream, hello: wire.Hello, session: Session, welcome: wire.Welcome) -> None:
        session.room.declare(hello.capacity.tasks, DEFAULT_BYTES)
        session.welcome(welcome)
        stream.session = session
        session.wake = self._wake
        self.streams[session] = stream
        self.dispatcher.open(session)
        if stream.closed:
            self._stream_ended(stream)

    def _write(self, session: Session, stream: Stream) -> None:
        for frame in self.dispatcher.frames(session):
            stream.to_worker(frame)
        if session.closing is not None:
            self.streams.pop(session, None)
            stream.finish()
            self.dispatcher.ended_stream(session)

    def stream_ended(self, stream: Stream) -> None:
        self._on(stream, lambda: self._stream_ended(stream))

    def _stream_ended(self, stream: Stream) -> None:
        if stream.session is not None:
            self.streams.pop(stream.session, None)
            self.dispatcher.ended_stream(stream.session)

    # -- the executor and the other neighbours -------------------------------------------------------

    def begin(self, workflow: Workflow) -> None:
        """Start a workflow: known to the world once its first commit is applied."""
        self._save(None, workflow, None)

    def submit(self, workflow_id: str, event: Event, done: Done | None = None) -> None:
        assert isinstance(event, Result)
        assert done is not None
        workflow = self.world.workflows[workflow_id]
        self.at(0, lambda: self._save(event, workflow, done))

    def _save(self, event: Result | None, workflow: Workflow, done: Done | None) -> None:
        """One commit of the executor, with the order in which it tells what followed."""
        births = [self._birth(workflow, event.seq if event else 0)] if self._goes_on(event, workflow) else []
        owners = [None if birth.limit else self.dispatcher.reserve(NAMESPACE, birth) for birth in births]

        def run(epoch: int) -> tuple[bool, int, list[Row], list[bool]]:
            return self._commit(epoch, event, workflow, births, owners)

        def applied(answer: tuple[bool, int, list[Row], list[bool]]) -> None:
            fresh, owner, rows, owned = answer
            self._settle(event, workflow, births, owners, fresh, rows, owned)
            if fresh and owner not in (0, self.epoch):
                self._hint_ended(owner)
            if done is not None:
                done(APPLIED if fresh else Outcome(Verdict.STALE, "not the current delivery"))

        def failed(error: Exception) -> None:
            for birth, session_id in zip(births, owners, strict=True):
                if session_id is not None:
                    self.dispatcher.unreserve(session_id, birth)
            if done is not None:
                done(Unavailable("gone"))
            elif workflow.workflow_id not in self.world.workflows:
                self.at(50, lambda: self.begin(workflow))
            self._failed(error)

        self.statement(run, applied, failed)

    def _goes_on(self, event: Result | None, workflow: Workflow) -> bool:
        return event is None or workflow.step + 1 < STEPS

    def _birth(self, workflow: Workflow, seq: int) -> QueueBirth:
        return QueueBirth(
            seq=max(seq, workflow.seq) + 1,
            queue=workflow.queue,
            task_type=workflow.queue,
            priority=0,
            due_ms=self.world.now_ms,
            size=2,
            limit=workflow.limit,
        )

    def _commit(
        self,
        epoch: int,
        event: Result | None,
        workflow: Workflow,
        births: list[QueueBirth],
        owners: list[str | None],
    ) -> tuple[bool, int, list[Row], list[bool]]:
        world = self.world
        if event is None:
            if workflow.workflow_id in world.workflows:
                return False, 0, [], []
            world.table._alive(epoch)
            world.workflows[workflow.workflow_id] = workflow
            owner: int | None = 0
        else:
            assert event.delivery is not None
            owner = world.table.result(epoch, Key(workflow.workflow_id, event.seq), event.delivery)
            if owner is None:
                return False, 0, [], []
            key = Key(workflow.workflow_id, event.seq)
            if key in world.accepted:
                raise Broken(f"two results were accepted for {key}")
            world.accepted.add(key)
            workflow.step += 1
            workflow.attempts = 0
        rows: list[Row] = []
        owned: list[bool] = []
        for birth, session_id in zip(births, owners, strict=True):
            row = Row(workflow.workflow_id, birth.seq, birth.queue, birth.limit, birth.due_ms, 0)
            workflow.seq = birth.seq
            owned.append(world.table.born(epoch, row, session_id))
            rows.append(row)
        workflow.done = workflow.step == STEPS
        return True, owner or 0, rows, owned

    def _settle(
        self,
        event: Result | None,
        workflow: Workflow,
        births: list[QueueBirth],
        owners: list[str | None],
        fresh: bool,
        rows: list[Row],
        owned: list[bool],
    ) -> None:
        placed: list[Placed] = []
        waiting: list[QueueBirth] = []
        for index, (birth, session_id) in enumerate(zip(births, owners, strict=True)):
            if fresh and session_id is not None and owned[index]:
                placed.append(_placed(workflow, birth, session_id))
                continue
            if session_id is not None:
                self.dispatcher.unreserve(session_id, birth)
            if fresh:
                waiting.append(birth)
        if waiting:
            self.dispatcher.waiting(NAMESPACE, waiting)
        if fresh and event is not None:
            self.dispatcher.ended(workflow.workflow_id, [event.seq])
        if placed:
            self.dispatcher.placed(placed)

    def rows_wait(self, namespace: str, queue: str) -> None:
        for node in self.world.nodes:
            if node is not self and not self.world.chance(0.2):
                node.at(10, partial(node.dispatcher.rows_wait, namespace, queue))

    def _hint_ended(self, epoch: int) -> None:
        for node in self.world.nodes:
            if node.up and node.epoch == epoch and not self.world.chance(0.2):
                node.at(
                    10,
                    lambda node=node: node.statement(self.world.table.ended_rows, node._ended, node._failed),
                )  # type: ignore[misc]

    def ended_elsewhere(self, owner_epochs: Iterable[int]) -> None: ...

    def workflow_slots_changed(self) -> None: ...

    def deadline(self, due_ms: int) -> None: ...

    def check(self) -> None:
        """No session of this node holds more than it declared."""
        for session in self.dispatcher.open_sessions():
            room = session.room
            if room.reserved < 0 or room.held_bytes < 0 or room.births < 0:
                raise Broken(f"{self} miscounts {session.session_id}")


def _key(delivery: Delivery) -> Key:
    return Key(delivery.workflow_id, delivery.seq)


def _placed(workflow: Workflow, birth: QueueBirth, session_id: str) -> Placed:
    header = Header(
        id=workflow.workflow_id,
        namespace=NAMESPACE,
        name="chain",
        version=1,
        snapshot_id=workflow.workflow_id,
        created_ms=birth.due_ms,
    )
    row = TaskRow(
        seq=birth.seq,
        generation=1,
        reference="step",
        path=(),
        attempt=0,
        scope=0,
        type=birth.task_type,
        name=birth.task_type,
        status=TaskStatus.SCHEDULED,
        scheduled_ms=birth.due_ms,
        first_scheduled_ms=birth.due_ms,
    )
    return Placed(header, row, birth, session_id)


# -- a worker ------------------------------------------------------------------------------------------


@dataclass
class Handler:
    key: Key
    token: bytes
    finished: bool = False


@dataclass
class Worker:
    """A worker process around the SDK's session: one stream, handlers that take their time, a fence."""

    world: World
    number: int
    incarnation: int = 0
    up: bool = False
    stopped_until_ms: int = 0
    session: sdk.Session | None = None
    stream: Stream | None = None
    capacity: int = 0
    adopted: int = 0
    """Deliveries that followed its session to another node, which sends them whatever its capacity."""
    handlers: dict[bytes, Handler] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._boot()

    def __str__(self) -> str:
        return f"worker {self.number}.{self.incarnation}"

    def _boot(self) -> None:
        self.incarnation += 1
        self.up = True
        self.capacity = self.world.random.randint(1, 8)
        self.adopted = 0
        self.session = sdk.Session(
            namespace=NAMESPACE,
            worker_id=f"w{self.number}.{self.incarnation}",
            offers=[("work", ""), ("limited", "")],
            capacity=self.capacity,
        )
        self.fence = sdk.Fence(self._now())
        self.handlers = {}
        self.stream = None
        self.at(self.world.random.randint(0, 50), self._connect)
        self.at(100, self._watch)

    def _now(self) -> float:
        return self.world.now_ms / 1000

    def at(self, delay_ms: int, act: Callable[[], None]) -> None:
        self.world.at(delay_ms, partial(self._do, self.incarnation, act))

    def _do(self, incarnation: int, act: Callable[[], None]) -> None:
        if not self.up or incarnation != self.incarnation:
            return
        if self.stopped_until_ms > self.world.now_ms:
            self.world.at(self.stopped_until_ms - self.world.now_ms, partial(self._do, incarnation, act))
        else:
            act()

    def active(self, key: Key) -> bool:
        """Whether a handler for it runs at this moment."""
        stopped = self.stopped_until_ms > self.world.now_ms
        return (
            self.up and not stopped and any(h.key == key and not h.finished for h in self.handlers.values())
        )

    # -- faults ----------------------------------------------------------------------------------

    def kill(self) -> None:
        if not self.up:
            return
        self.world.tell(f"{self} is killed")
        self.up = False
        self.stopped_until_ms = 0
        self.handlers = {}
        if self.stream is not None:
            self.stream.cut()
        self.world.at(self.world.random.randint(100, 3_000), self.revive)

    def revive(self) -> None:
        if not self.up:
            self._boot()

    def stop(self, for_ms: int) -> None:
        if self.stopped_until_ms > self.world.now_ms or not self.up:
            return
        self.world.tell(f"{self} is stopped for {for_ms}")
        self.stopped_until_ms = self.world.now_ms + for_ms
        self.world.at(for_ms, partial(self._do, self.incarnation, self._continued))

    def _continued(self) -> None:
        """The fence is looked at before anything else goes on."""
        self._keep_fence()
        for handler in self.handlers.values():
            if not handler.finished:
                self.world.begins(handler.key, self)

    def hand_back_some(self) -> None:
        session = self.session
        if session is None or not self.up or session.state is not sdk.State.OPEN:
            return
        tokens = list(session.held)[:2]
        for token in tokens:
            self.handlers.pop(token, None)
        session.hand_back(tokens, wire.NACK_REASON_BUSY)
        self._flush()

    # -- life ------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self.stream is not None:
            return
        living = [node for node in self.world.nodes if node.up]
        if not living:
            self.at(200, self._connect)
            return
        assert self.session is not None
        node = self.world.random.choice(living)
        self.stream = Stream(self.world, node, self)
        self._opened_ms = self.world.now_ms
        self.stream.to_node(self.session.hello())

    def _watch(self) -> None:
        self.at(100, self._watch)
        self._keep_fence()
        stream = self.stream
        if stream is None:
            return
        heard_ms = max(self.fence.heard_at * 1000, self._opened_ms)
        if self.world.now_ms >= heard_ms + SILENCE_MS:
            self._drop(stream)
        else:
            self._flush()

    def _drop(self, stream: Stream) -> None:
        """Give it up: gone at once on our side; the node hears of it, unless the stream is silent."""
        if not stream.silent and not stream.closed:
            stream.closed = True
            self.world.at(self.world.delay_ms(), lambda: stream.node.stream_ended(stream))
        self._lost(stream)

    def _keep_fence(self) -> None:
        if self.fence.close_if_due(self._now()):
            self.world.tell(f"{self} fences itself")
            assert self.session is not None
            for token in list(self.handlers):
                self._stop(token)
                self.session.release(token)
            if self.stream is not None:
                self._drop(self.stream)

    def stream_ended(self, stream: Stream) -> None:
        self._do(self.incarnation, lambda: self._lost(stream))

    def _lost(self, stream: Stream) -> None:
        if stream is not self.stream:
            return
        assert self.session is not None
        self.stream = None
        self.session.lost()
        self.at(self.world.random.randint(10, 300), self._connect)

    def receive(self, stream: Stream, frame: wire.ConnectResponse) -> None:
        self._do(self.incarnation, lambda: self._received(stream, frame))

    def _received(self, stream: Stream, frame: wire.ConnectResponse) -> None:
        if stream is not self.stream or stream.closed:
            return
        assert self.session is not None
        self.fence.heard(self._now())
        for event in self.session.receive(frame, self._now()):
            if isinstance(event, sdk.Assigned):
                for task in event.tasks:
                    self._assigned(task)
            elif isinstance(event, sdk.Cancelled):
                self._stop(event.token)
                self.session.release(event.token)
                self.session.answer_cancel(event.token, wire.CANCEL_ANSWER_STOPPED)
            elif isinstance(event, sdk.Revoked):
                for token in event.tokens:
                    self._stop(token)
        self._flush()

    def _assigned(self, task: task_pb2.Assignment) -> None:
        place = ids.read_token(task.token)
        assert place is not None
        key = Key(place[0], place[1])
        self.world.given.add((key, place[2]))
        if task.token in self.handlers:
            return  # sent again by the node to which its session moved
        self.world.begins(key, self)
        self.handlers[task.token] = Handler(key, task.token)
        slow = self.world.random.random() < 0.1
        takes_ms = self.world.random.randint(1_000, 8_000) if slow else self.world.random.randint(1, 150)
        self.at(takes_ms, partial(self._finish, task.token))

    def _stop(self, token: bytes) -> None:
        self.handlers.pop(token, None)

    def _finish(self, token: bytes) -> None:
        handler = self.handlers.pop(token, None)
        if handler is None:
            return
        assert self.session is not None
        handler.finished = True
        result = task_pb2.TaskResult(token=token, output=b"{}")
        self.session.report(result)
        if self.stream is not None and self.world.chance(0.05):
            twice = wire.ConnectRequest(results=wire.Results(results=[result]))
            self.stream.to_node(twice)
        self._flush()

    def _flush(self) -> None:
        assert self.session is not None
        if self.stream is not None and self.session.state is sdk.State.OPEN:
            for frame in self.session.output(self._now()):
                self.stream.to_node(frame)
