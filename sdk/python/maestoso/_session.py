"""The worker's side of a session, without I/O: frames in, frames and events out.

    NEW --hello--> OPENING --Welcome--> OPEN --lost--> DETACHED --hello--> OPENING ...
                                        OPEN --hello--> MOVING --Welcome--> OPEN
                                                        MOVING --move_failed--> OPEN

Its laws:

- A delivery is *held* from its assignment until its result, and *finished* from then until the
  server has acknowledged the result. Both make up the inventory that a resume sends; a delivery
  that the server then does not name as kept is revoked.
- A finished result is sent again after every resume, until it is acknowledged.
- A Ping is answered at once and in order: its Pong proves that everything before it was read. While
  the session moves, tasks and pings of the old stream are put aside: the new node hands such tasks
  out again, so running them too would be one run too many.
- What the session wants to send is taken by `output()`, urgent frames first.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from maestoso.error.v1 import error_pb2
from maestoso.task.v1 import task_pb2, task_service_pb2

ITEMS_MAX = 1_000
"""Items in one frame."""
FRAME_BYTES_MAX = 4 * 1024 * 1024
"""Bytes in one frame of results, unless a single one is larger; well below the 16 MiB of a message."""
LINES_WAITING_MAX = 10_000
"""Log lines that wait for the stream; older ones are dropped."""
LINES_A_RESULT = 1_000
"""Log lines that one result may carry."""
REPEAT_AFTER = 0.5
"""Seconds until a result that the server could not store is sent again."""
FENCE_AFTER = 4.0
"""Seconds without a word from any node after which handlers are stopped; Welcome can change it."""


class State(Enum):
    """Where a session is in its life; see the drawing at the top."""

    NEW = "new"
    OPENING = "opening"
    OPEN = "open"
    MOVING = "moving"
    DETACHED = "detached"


@dataclass(frozen=True, slots=True)
class Opened:
    """The session is open on this stream."""

    welcome: task_service_pb2.Welcome


@dataclass(frozen=True, slots=True)
class Assigned:
    """Tasks to run."""

    tasks: Sequence[task_pb2.Assignment]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The server wants this delivery stopped; answer with `answer_cancel`."""

    token: bytes
    reason: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """These deliveries are no longer ours: stop them, nothing about them is reported."""

    tokens: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Moved:
    """The server wants the session on another node."""

    degraded: bool
    addresses: Sequence[str]
    grace: float | None


@dataclass(frozen=True, slots=True)
class NodesChanged:
    """The addresses of the live nodes."""

    addresses: Sequence[str]


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """An operator wants the worker to finish and take nothing new."""

    reason: str
    grace: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """A result that the server did not take: STALE, or refused twice. It is forgotten."""

    result: task_pb2.TaskResult
    outcome: int
    error: error_pb2.Error


@dataclass(frozen=True, slots=True)
class FrameRefused:
    """One of our frames was bad: a fault of this SDK, or of a server older than it."""

    error: error_pb2.Error
    frame_number: int


Event: TypeAlias = (
    Opened | Assigned | Cancelled | Revoked | Moved | NodesChanged | DrainAsked | Dropped | FrameRefused
)


class Session:
    """One session of a worker, over all the streams that carry it one after the other."""

    def __init__(
        self,
        *,
        namespace: str,
        worker_id: str,
        offers: Sequence[tuple[str, str]],
        capacity: int,
        labels: Mapping[str, str] | None = None,
        sdk: str = "",
    ) -> None:
        """`offers`: (task type, domain) pairs. `capacity`: tasks held at the same time."""
        self.namespace = namespace
        self.worker_id = worker_id
        self.offers = offers
        self.capacity = capacity
        self.labels = dict(labels or {})
        self.sdk = sdk
        self.state = State.NEW
        self.session_id = ""
        self.draining = False
        self.held: dict[bytes, task_pb2.Assignment] = {}
        self.finished: dict[bytes, task_pb2.TaskResult] = {}
        self._resume_token = b""
        self._streams = 0
        self._declared = 0
        self._aside: list[task_service_pb2.ConnectResponse] = []
        self._forget_unsent()

    def _forget_unsent(self) -> None:
        self._urgent: list[task_service_pb2.ConnectRequest] = []
        self._results: list[task_pb2.TaskResult] = []
        self._progress: dict[bytes, bytes] = {}
        self._lines: list[task_service_pb2.LogLine] = []
        self._repeats: list[tuple[float, bytes]] = []

    # The life of the stream.

    def hello(self) -> task_service_pb2.ConnectRequest:
        """The first frame of a new stream: a new session, or the resumption of this one."""
        self.state = State.MOVING if self.state is State.OPEN else State.OPENING
        self._streams += 1
        self._declared = 0 if self.draining else self.capacity
        return task_service_pb2.ConnectRequest(
            hello=task_service_pb2.Hello(
                namespace=self.namespace,
                worker_id=self.worker_id,
                task_types=[
                    task_pb2.TaskTypeOffer(task_type=task_type, domain=domain)
                    for task_type, domain in self.offers
                ],
                capacity=task_pb2.Capacity(tasks=self._declared),
                session_id=self.session_id,
                resume_token=self._resume_token,
                held=[*self.held, *self.finished],
                sdk=self.sdk,
                labels=self.labels,
                stream_number=self._streams,
            )
        )

    def lost(self) -> None:
        """The stream ended. What was to be sent on it is dropped: results are kept apart from that."""
        self.state = State.DETACHED if self.session_id else State.NEW
        self._aside.clear()
        self._forget_unsent()

    def move_failed(self, now: float) -> list[Event]:
        """No other node took the session: the old stream goes on with what was put aside."""
        self.state = State.OPEN
        aside, self._aside = self._aside, []
        return [event for frame in aside for event in self.receive(frame, now)]

    def forget(self) -> list[Event]:
        """The session is gone for good, or nobody may resume it: the next hello opens a new one."""
        tokens = [*self.held, *self.finished]
        self.lost()
        self.state = State.NEW
        self.session_id, self._resume_token = "", b""
        self.held.clear()
        self.finished.clear()
        return [Revoked(tokens)] if tokens else []

    @property
    def idle(self) -> bool:
        """Nothing is held, and every result is acknowledged."""
        return not self.held and not self.finished

    # Frames from the server.

    def receive(self, frame: task_service_pb2.ConnectResponse, now: float) -> list[Event]:
        """Take in one frame. Frames of a newer server that are not known here are ignored."""
        kind = frame.WhichOneof("frame")
        if kind == "tasks":
            self._accepted(frame.tasks.accepted)
        if self.state is State.MOVING and kind in ("tasks", "ping"):
            self._aside.append(frame)
            return []
        if kind == "tasks":
            return self._assigned(frame.tasks.tasks)
        if kind == "ping":
            pong = task_service_pb2.Pong(number=frame.ping.number)
            self._urgent.append(task_service_pb2.ConnectRequest(pong=pong))
            return []
        if kind == "acks":
            self._accepted(frame.acks.accepted)
            return self._acknowledged(frame.acks.acks, now)
        if kind == "cancels":
            return self._cancelled(frame.cancels.cancels)
        if kind == "welcome":
            return self._welcomed(frame.welcome)
        if kind == "move":
            return [_moved(frame.move)]
        if kind == "nodes":
            return [NodesChanged(list(frame.nodes.addresses))]
        if kind == "drain":
            grace = frame.drain.grace.ToNanoseconds() / 1e9 if frame.drain.HasField("grace") else 30.0
            return [DrainAsked(frame.drain.reason, grace)]
        if kind == "frame_error":
            return [FrameRefused(frame.frame_error.error, frame.frame_error.frame_number)]
        return []

    def _assigned(self, tasks: Sequence[task_pb2.Assignment]) -> list[Event]:
        if self.draining:
            self._nack([task.token for task in tasks], task_service_pb2.NACK_REASON_DRAINING)
            return []
        held = self.held
        for task in tasks:
            held[task.token] = task
        return [Assigned(tasks)]

    def _cancelled(self, cancels: Iterable[task_service_pb2.Cancel]) -> list[Event]:
        events: list[Event] = []
        for cancel in cancels:
            if cancel.token in self.held:
                events.append(Cancelled(cancel.token, cancel.reason))
            else:
                self.answer_cancel(cancel.token, task_service_pb2.CANCEL_ANSWER_NOT_FOUND)
        return events

    def _welcomed(self, welcome: task_service_pb2.Welcome) -> list[Event]:
        kept = dict.fromkeys(welcome.kept) if welcome.resumed else {}
        revoked = [token for token in (*self.held, *self.finished) if token not in kept]
        for token in revoked:
            self.held.pop(token, None)
            self.finished.pop(token, None)
        self.session_id = welcome.session_id
        self._resume_token = welcome.resume_token
        self.state = State.OPEN
        self._aside.clear()
        self._forget_unsent()
        self._results.extend(self.finished.values())
        if self.draining:
            self._send_drain("")
        self._declare()
        # Handed back since Hello, on the stream that was left: its node may not have heard so in time.
        gone = [token for token in kept if token not in self.held and token not in self.finished]
        if gone:
            self._nack(gone, task_service_pb2.NACK_REASON_DRAINING)
        opened: list[Event] = [Opened(welcome)]
        return [*opened, Revoked(revoked)] if revoked else opened

    def _accepted(self, tokens: Iterable[bytes]) -> None:
        """These results are committed: they are neither kept nor sent again."""
        for token in tokens:
            self.finished.pop(token, None)

    def _acknowledged(self, acks: Iterable[task_pb2.ResultAck], now: float) -> list[Event]:
        events: list[Event] = []
        for ack in acks:
            token, outcome = ack.token, ack.outcome
            result = self.finished.get(token)
            if result is None:
                continue
            if outcome == task_pb2.RESULT_OUTCOME_UNAVAILABLE:
                heapq.heappush(self._repeats, (now + _repeat_after(ack.error), token))
                continue
            if outcome == task_pb2.RESULT_OUTCOME_REFUSED and result.WhichOneof("result") != "failure":
                self._results.append(self._refused(result, ack.error))
                continue
            del self.finished[token]
            if outcome != task_pb2.RESULT_OUTCOME_ACCEPTED:
                events.append(Dropped(result, outcome, ack.error))
        return events

    def _refused(self, result: task_pb2.TaskResult, error: error_pb2.Error) -> task_pb2.TaskResult:
        """A result that can never be stored becomes a failure, so that the task does not hang."""
        failure = task_pb2.TaskResult(
            token=result.token,
            failure=task_pb2.Failure(
                message=f"the server refused the result: {error.message}", type="ResultRefused", terminal=True
            ),
            start_time=result.start_time if result.HasField("start_time") else None,
        )
        self.finished[result.token] = failure
        return failure

    # What the worker says.

    def report(self, result: task_pb2.TaskResult) -> None:
        """The result of a held delivery. Ignored where the delivery was revoked meanwhile."""
        token = result.token
        if self.held.pop(token, None) is None:
            return
        self.finished[token] = result
        self._progress.pop(token, None)
        if self.state in (State.OPEN, State.MOVING):
            self._results.append(result)

    def release(self, token: bytes) -> None:
        """Nothing more is said about a delivery: it was cancelled, or never started and not resumed."""
        self.held.pop(token, None)

    def hand_back(self, tokens: Sequence[bytes], reason: task_service_pb2.NackReason.ValueType) -> None:
        """Deliveries that were never started: somebody else may run them; no attempt is spent."""
        mine = [token for token in tokens if self.held.pop(token, None) is not None]
        if mine:
            self._nack(mine, reason)

    def _nack(self, tokens: Sequence[bytes], reason: task_service_pb2.NackReason.ValueType) -> None:
        nacks = [task_service_pb2.Nack(token=token, reason=reason) for token in tokens]
        self._urgent.append(task_service_pb2.ConnectRequest(nacks=task_service_pb2.Nacks(nacks=nacks)))

    def progress(self, token: bytes, output: bytes = b"") -> None:
        """The delivery is still worked on. `output`: a JSON object so far; empty = unchanged."""
        if token in self.held:
            self._progress[token] = output or self._progress.get(token, b"")

    def log(self, token: bytes, line: str, time: float) -> None:
        """A line for the log of a delivery; `time` in seconds since 1970. The oldest are dropped first."""
        if len(self._lines) >= LINES_WAITING_MAX:
            del self._lines[: LINES_WAITING_MAX // 10]
        self._lines.append(task_service_pb2.LogLine(token=token, line=line, time=timestamp(time)))

    def answer_cancel(self, token: bytes, answer: task_service_pb2.CancelAnswer.ValueType) -> None:
        """What was done about a Cancelled."""
        item = task_service_pb2.CancelAnswerItem(token=token, answer=answer)
        answers = task_service_pb2.CancelAnswers(answers=[item])
        self._urgent.append(task_service_pb2.ConnectRequest(cancel_answers=answers))

    def set_capacity(self, tasks: int) -> None:
        """How much this stream takes from now on, what is held included."""
        self.capacity = tasks
        self._declare()

    def _declare(self) -> None:
        if self.state is State.OPEN and not self.draining and self.capacity != self._declared:
            self._declared = self.capacity
            capacity = task_pb2.Capacity(tasks=self.capacity)
            self._urgent.append(task_service_pb2.ConnectRequest(capacity=capacity))

    def drain(self, reason: str = "") -> None:
        """Take nothing new. Tasks that still come are handed back."""
        if self.draining:
            return
        self.draining = True
        if self.state in (State.OPEN, State.MOVING):
            self._send_drain(reason)

    def _send_drain(self, reason: str) -> None:
        drain = task_service_pb2.Drain(reason=reason)
        self._urgent.append(task_service_pb2.ConnectRequest(drain=drain))

    def refresh(self, authorization: str) -> None:
        """A new credential for the living stream."""
        refresh = task_service_pb2.AuthRefresh(authorization=authorization)
        self._urgent.append(task_service_pb2.ConnectRequest(auth_refresh=refresh))

    # Frames to the server.

    @property
    def has_output(self) -> bool:
        """Whether `output` would return frames now. Results that wait for their repeat do not count."""
        return bool(self._urgent or self._results or self._progress or self._lines)

    def repeat_at(self) -> float | None:
        """When a result is due to be sent again; None while none is."""
        return self._repeats[0][0] if self._repeats else None

    def output(self, now: float) -> list[task_service_pb2.ConnectRequest]:
        """Take what is to be sent: urgent frames, progress, log lines, then results.

        Lines and progress come before results, so that they meet a task that has not ended.
        """
        while self._repeats and self._repeats[0][0] <= now:
            token = heapq.heappop(self._repeats)[1]
            if token in self.finished:
                self._results.append(self.finished[token])
        frames, self._urgent = self._urgent, []
        if self._progress:
            frames.extend(self._progress_frames())
        if self._lines:
            frames.extend(self._log_frames())
        if self._results:
            results, self._results = self._results, []
            frames.extend(_result_frames(results))
        return frames

    def _progress_frames(self) -> Iterable[task_service_pb2.ConnectRequest]:
        items = [
            task_service_pb2.ProgressItem(token=token, output=output)
            for token, output in self._progress.items()
        ]
        self._progress = {}
        for start in range(0, len(items), ITEMS_MAX):
            progress = task_service_pb2.Progress(items=items[start : start + ITEMS_MAX])
            yield task_service_pb2.ConnectRequest(progress=progress)

    def _log_frames(self) -> Iterable[task_service_pb2.ConnectRequest]:
        lines, self._lines = self._lines, []
        for start in range(0, len(lines), ITEMS_MAX):
            logs = task_service_pb2.Logs(lines=lines[start : start + ITEMS_MAX])
            yield task_service_pb2.ConnectRequest(logs=logs)


def _result_frames(results: list[task_pb2.TaskResult]) -> Iterable[task_service_pb2.ConnectRequest]:
    """Results in frames of at most ITEMS_MAX items and about FRAME_BYTES_MAX bytes."""
    start, size = 0, 0
    for index, result in enumerate(results):
        item = len(result.output) + len(result.failure_output) + len(result.callback.output)
        if index > start and (size + item > FRAME_BYTES_MAX or index - start == ITEMS_MAX):
            yield _results_frame(results[start:index])
            start, size = index, 0
        size += item
    yield _results_frame(results[start:] if start else results)


def _results_frame(results: list[task_pb2.TaskResult]) -> task_service_pb2.ConnectRequest:
    return task_service_pb2.ConnectRequest(results=task_service_pb2.Results(results=results))


def _moved(move: task_service_pb2.Move) -> Moved:
    return Moved(
        degraded=move.reason == task_service_pb2.MOVE_REASON_DEGRADED,
        addresses=list(move.nodes),
        grace=move.grace.ToNanoseconds() / 1e9 if move.HasField("grace") else None,
    )


def _repeat_after(error: error_pb2.Error) -> float:
    """Seconds until an UNAVAILABLE result is worth another try."""
    if error.HasField("retry_after"):
        return max(REPEAT_AFTER, error.retry_after.ToNanoseconds() / 1e9)
    return REPEAT_AFTER


def timestamp(seconds: float) -> Timestamp:
    """A protobuf Timestamp of seconds since 1970."""
    whole = int(seconds)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))


class Fence:
    """When the handlers of a session must stop, because no node has said a word to it.

    Its session may be resumed at any node, so a word from whichever node carries it will do. Nodes
    let a session live for longer than this after its stream has ended: who is silent for `after`
    seconds stops before somebody else may start.
    """

    def __init__(self, now: float, after: float = FENCE_AFTER) -> None:
        self.after = after
        self.closed = False
        self.heard_at = now

    def heard(self, now: float) -> None:
        """A frame came."""
        self.heard_at = now
        self.closed = False

    @property
    def due(self) -> float:
        """When the fence closes unless a word comes."""
        return self.heard_at + self.after

    def close_if_due(self, now: float) -> bool:
        """Whether the fence closes now: stop the handlers. True once, until a word comes again."""
        if self.closed or now < self.due:
            return False
        self.closed = True
        return True
