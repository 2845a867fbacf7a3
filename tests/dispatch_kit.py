"""Makes what the tests of dispatch need: sessions, frames, placed tasks, and a recorder of what leaves.

Nothing here waits or knows a database: the machines under test get their time as an argument, or
from a clock that stands still.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from maestoso.task.v1 import task_service_pb2 as wire
from maestoso.task.v1.task_pb2 import Capacity
from maestoso_server import ids
from maestoso_server.clock import ManualClock
from maestoso_server.dispatch.deliveries import Delivery
from maestoso_server.dispatch.dispatcher import Dispatcher
from maestoso_server.dispatch.session import DEFAULT_BYTES, Session
from maestoso_server.engine.decision import QueueBirth
from maestoso_server.engine.events import Event, Result
from maestoso_server.engine.state import Header, TaskRow, TaskStatus
from maestoso_server.executor.lanes import Done
from maestoso_server.executor.placement import Placed
from maestoso_server.payload import Json
from maestoso_server.store.queue import Take, Taken

NOW_MS = 1_750_000_000_000
WORKFLOW = "0197a0c8-0000-7000-8000-000000000000"
NAMESPACE = "default"


def make_session(
    *queues: str, tasks: int = 10, size: int = DEFAULT_BYTES, session_id: str = "s-1", now_ms: int = NOW_MS
) -> Session:
    """A session that takes from these queues (`work` if none is named)."""
    session = Session(
        session_id=session_id,
        namespace=NAMESPACE,
        worker_id=f"worker of {session_id}",
        queues={queue: queue.rpartition(":")[2] for queue in queues or ("work",)},
        now_ms=now_ms,
    )
    session.room.declare(tasks, size)
    return session


def make_delivery(seq: int, *, size: int = 100, session_id: str = "s-1", delivery: int = 1) -> Delivery:
    from maestoso.task.v1.task_pb2 import Assignment

    token = ids.make_token(WORKFLOW, seq, delivery)
    return Delivery(
        token=token,
        workflow_id=WORKFLOW,
        seq=seq,
        delivery=delivery,
        namespace=NAMESPACE,
        queue="work",
        task_type="work",
        size=size,
        limit=0,
        session_id=session_id,
        worker_id="w",
        assignment=Assignment(token=token, input=b"x" * size),
    )


def make_birth(
    seq: int, *, queue: str = "work", size: int = 2, limit: int = 0, due_ms: int = NOW_MS
) -> QueueBirth:
    return QueueBirth(
        seq=seq,
        queue=queue,
        task_type=queue.rpartition(":")[2],
        priority=0,
        due_ms=due_ms,
        size=size,
        limit=limit,
    )


def make_placed(seq: int, session_id: str, birth: QueueBirth | None = None) -> Placed:
    header = Header(
        id=WORKFLOW,
        namespace=NAMESPACE,
        name="orders",
        version=1,
        snapshot_id=WORKFLOW,
        created_ms=NOW_MS,
        correlation_id="c-1",
        traceparent="00-trace",
    )
    row = TaskRow(
        seq=seq,
        generation=1,
        reference="ref",
        path=(3,),
        attempt=2,
        scope=0,
        type="work",
        name="work",
        status=TaskStatus.SCHEDULED,
        scheduled_ms=NOW_MS + 7,
        first_scheduled_ms=NOW_MS,
        input=Json(b'{"n":1.0}'),
    )
    return Placed(header, row, birth or make_birth(seq), session_id)


def make_taken(seq: int, session_id: str, *, size: int = 9, delivery: int = 1, limit: int = 0) -> Taken:
    return Taken(
        workflow_id=WORKFLOW,
        seq=seq,
        delivery=delivery,
        session_id=session_id,
        unread=0,
        namespace=NAMESPACE,
        queue="work",
        task_type="work",
        priority=0,
        due_ms=NOW_MS,
        size=size,
        limit=limit,
        response_s=60,
        timeout_s=0,
        total_due_ms=0,
        redeliver_on_loss=False,
        generation=1,
        reference="ref",
        path=(3,),
        attempt=2,
        scheduled_ms=NOW_MS + 7,
        input=Json(b'{"n":1.0}'),
        workflow_name="orders",
        correlation_id="c-1",
        traceparent="00-trace",
    )


def took(*rows: Taken, limited: str | None = None, opens_ms: int = 0) -> Take:
    return Take(list(rows), limited, opens_ms)


def results(*tokens: bytes, output: bytes = b"{}") -> wire.ConnectRequest:
    frame = wire.ConnectRequest()
    for token in tokens:
        frame.results.results.add(token=token, output=output)
    return frame


def pong(number: int) -> wire.ConnectRequest:
    return wire.ConnectRequest(pong=wire.Pong(number=number))


def capacity(tasks: int, size: int = 0) -> wire.ConnectRequest:
    return wire.ConnectRequest(capacity=Capacity(tasks=tasks, bytes=size))


def nack(token: bytes, reason: wire.NackReason.ValueType = wire.NACK_REASON_BUSY) -> wire.ConnectRequest:
    return wire.ConnectRequest(nacks=wire.Nacks(nacks=[wire.Nack(token=token, reason=reason)]))


def tokens_of(frames: Iterable[wire.ConnectResponse]) -> list[bytes]:
    """The tokens of all assignments in these frames."""
    return [task.token for frame in frames for task in frame.tasks.tasks]


def pings_of(frames: Iterable[wire.ConnectResponse]) -> list[int]:
    return [frame.ping.number for frame in frames if frame.WhichOneof("frame") == "ping"]


def kinds_of(frames: Iterable[wire.ConnectResponse]) -> list[str | None]:
    return [frame.WhichOneof("frame") for frame in frames]


@dataclass
class Neighbours:
    """Takes down what the dispatcher tells the outside."""

    submitted: list[tuple[str, Event, Done | None]] = field(default_factory=list)
    waits: list[tuple[str, str]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    deadlines: list[int] = field(default_factory=list)
    hinted: list[tuple[int, str]] = field(default_factory=list)
    doubts: int = 0

    def submit(self, workflow_id: str, event: Event, done: Done | None = None) -> None:
        self.submitted.append((workflow_id, event, done))

    def rows_wait(self, namespace: str, queue: str) -> None:
        self.waits.append((namespace, queue))

    def ended_elsewhere(self, owner_epochs: Iterable[int]) -> None:
        self.ended.extend(owner_epochs)

    def messages_wait_at(self, epoch: int, workflow_id: str) -> None:
        self.hinted.append((epoch, workflow_id))

    def answers_wait_at(self, epoch: int) -> None:
        self.hinted.append((epoch, ""))

    def workflow_slots_changed(self) -> None: ...

    def deadline(self, due_ms: int) -> None:
        self.deadlines.append(due_ms)

    def outcome_unknown(self) -> None:
        self.doubts += 1

    def results(self) -> Sequence[Result]:
        return [event for _, event, _ in self.submitted if isinstance(event, Result)]


@dataclass
class Desk:
    """A dispatcher with its neighbours, on a clock that stands still."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW_MS))
    outside: Neighbours = field(default_factory=Neighbours)

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(clock=self.clock, outside=self.outside, max_payload_bytes=1_000)

    def open(self, session: Session) -> Session:
        """Open it, with all queues known to be empty."""
        self.dispatcher.open(session)
        while (request := self.dispatcher.next_take()) is not None:
            self.dispatcher.took(request, took())
        return session

    def born(self, *seqs: int, queue: str = "work", size: int = 2, limit: int = 0) -> list[str | None]:
        """Reserve for tasks as the executor does, and let those be born owned; their sessions."""
        births = [make_birth(seq, queue=queue, size=size, limit=limit) for seq in seqs]
        chosen = [self.dispatcher.reserve(NAMESPACE, birth) for birth in births]
        self.dispatcher.placed(
            [
                make_placed(b.seq, owner, b)
                for b, owner in zip(births, chosen, strict=True)
                if owner is not None
            ]
        )
        return chosen
