"""The worker's side of a session, frame by frame; no network, no clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from maestoso._session import (
    FRAME_BYTES_MAX,
    ITEMS_MAX,
    LINES_WAITING_MAX,
    REPEAT_AFTER,
    Assigned,
    Cancelled,
    DrainAsked,
    Dropped,
    Event,
    Fence,
    FrameRefused,
    Moved,
    NodesChanged,
    Opened,
    Revoked,
    Session,
    State,
)
from maestoso.error.v1 import error_pb2
from maestoso.task.v1 import task_pb2
from maestoso.task.v1 import task_service_pb2 as frames

ACCEPTED = task_pb2.RESULT_OUTCOME_ACCEPTED
STALE = task_pb2.RESULT_OUTCOME_STALE
REFUSED = task_pb2.RESULT_OUTCOME_REFUSED
UNAVAILABLE = task_pb2.RESULT_OUTCOME_UNAVAILABLE


def new_session() -> Session:
    return Session(namespace="shop", worker_id="w", offers=[("greet", ""), ("pack", "eu")], capacity=7)


def open_session() -> Session:
    session = new_session()
    session.hello()
    session.receive(welcome(), 0.0)
    return session


def welcome(*, resumed: bool = False, kept: list[bytes] | None = None) -> frames.ConnectResponse:
    return frames.ConnectResponse(
        welcome=frames.Welcome(session_id="s-1", resume_token=b"secret", resumed=resumed, kept=kept or [])
    )


def tasks(*tokens: bytes) -> frames.ConnectResponse:
    assignments = [task_pb2.Assignment(token=token, task_type="greet") for token in tokens]
    return frames.ConnectResponse(tasks=frames.TaskBatch(tasks=assignments))


def acks(outcome: int, *tokens: bytes, error: error_pb2.Error | None = None) -> frames.ConnectResponse:
    items = [task_pb2.ResultAck(token=token, outcome=outcome, error=error) for token in tokens]
    return frames.ConnectResponse(acks=frames.ResultAcks(acks=items))


def ping(number: int) -> frames.ConnectResponse:
    return frames.ConnectResponse(ping=frames.Ping(number=number))


def result(token: bytes, output: bytes = b"{}") -> task_pb2.TaskResult:
    return task_pb2.TaskResult(token=token, output=output)


def sent(session: Session, kind: str, now: float = 0.0) -> list[frames.ConnectRequest]:
    return [frame for frame in session.output(now) if frame.WhichOneof("frame") == kind]


def sent_results(session: Session, now: float = 0.0) -> list[task_pb2.TaskResult]:
    return [item for frame in sent(session, "results", now) for item in frame.results.results]


# Opening.


def test_first_hello_says_who_the_worker_is_and_names_no_session() -> None:
    hello = new_session().hello().hello

    assert (hello.namespace, hello.worker_id, hello.capacity.tasks) == ("shop", "w", 7)
    assert [(offer.task_type, offer.domain) for offer in hello.task_types] == [("greet", ""), ("pack", "eu")]
    assert (hello.session_id, hello.resume_token, list(hello.held)) == ("", b"", [])


def test_hello_after_a_lost_stream_carries_the_inventory() -> None:
    session = open_session()
    session.receive(tasks(b"a", b"b"), 0.0)
    session.report(result(b"a"))
    session.lost()

    hello = session.hello().hello

    assert (hello.session_id, hello.resume_token) == ("s-1", b"secret")
    assert sorted(hello.held) == [b"a", b"b"]


def test_each_hello_has_a_higher_number() -> None:
    session = open_session()
    session.lost()

    assert [session.hello().hello.stream_number for _ in range(2)] == [2, 3]


def test_stream_lost_before_any_welcome_leaves_a_new_session() -> None:
    session = new_session()
    session.hello()
    session.lost()

    assert session.state is State.NEW
    assert session.hello().hello.session_id == ""


def test_resume_sends_unacknowledged_results_again() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.report(result(b"a"))
    assert len(sent_results(session)) == 1
    session.lost()
    session.hello()

    session.receive(welcome(resumed=True, kept=[b"a"]), 0.0)

    assert [item.token for item in sent_results(session)] == [b"a"]


def test_resume_revokes_what_the_server_does_not_name_as_kept() -> None:
    session = open_session()
    session.receive(tasks(b"a", b"b", b"c"), 0.0)
    session.report(result(b"c"))
    session.lost()
    session.hello()

    events = session.receive(welcome(resumed=True, kept=[b"a"]), 0.0)

    assert isinstance(events[0], Opened)
    assert events[1] == Revoked([b"b", b"c"])
    assert list(session.held) == [b"a"]
    assert sent_results(session) == []


def test_new_session_instead_of_a_resumed_one_revokes_everything() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.lost()
    session.hello()

    events = session.receive(welcome(resumed=False, kept=[b"a"]), 0.0)

    assert events[1] == Revoked([b"a"])
    assert session.idle


def test_forgotten_session_revokes_everything_and_begins_anew() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)

    assert session.forget() == [Revoked([b"a"])]
    assert session.hello().hello.session_id == ""
    assert open_session().forget() == []


# Pings and tasks.


def test_ping_is_answered_before_everything_else() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.report(result(b"a"))
    session.receive(ping(5), 0.0)

    kinds = [frame.WhichOneof("frame") for frame in session.output(0.0)]

    assert kinds == ["pong", "results"]


def test_tasks_are_held_until_their_result_is_acknowledged() -> None:
    session = open_session()
    [event] = session.receive(tasks(b"a"), 0.0)
    assert isinstance(event, Assigned)
    assert [task.token for task in event.tasks] == [b"a"]
    session.report(result(b"a"))
    assert not session.idle

    session.receive(acks(ACCEPTED, b"a"), 0.0)

    assert session.idle


def test_result_of_a_delivery_that_is_not_held_is_not_sent() -> None:
    session = open_session()

    session.report(result(b"stranger"))

    assert not session.has_output
    assert session.idle


def test_frame_of_a_newer_server_is_ignored() -> None:
    assert open_session().receive(frames.ConnectResponse(), 0.0) == []


# Acknowledgements.


def accepted_in_acks(*tokens: bytes) -> frames.ConnectResponse:
    return frames.ConnectResponse(acks=frames.ResultAcks(accepted=tokens))


def accepted_beside_tasks(*tokens: bytes) -> frames.ConnectResponse:
    frame = tasks(b"next")
    frame.tasks.accepted.extend(tokens)
    return frame


@pytest.mark.parametrize("frame", [accepted_in_acks, accepted_beside_tasks])
def test_acceptances_come_in_any_frame_that_can_carry_them(
    frame: Callable[..., frames.ConnectResponse],
) -> None:
    session = open_session()
    session.receive(tasks(b"a", b"b"), 0.0)
    session.report(result(b"a"))
    session.report(result(b"b"))

    session.receive(frame(b"a", b"stranger"), 0.0)

    assert list(session.finished) == [b"b"]


def test_acceptance_beside_tasks_that_are_put_aside_counts_at_once() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.report(result(b"a"))
    session.hello()

    assert session.receive(accepted_beside_tasks(b"a"), 0.0) == []

    session.receive(welcome(resumed=True, kept=[]), 0.0)
    assert sent_results(session) == []
    assert session.idle


def test_stale_result_is_forgotten_and_said() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.report(result(b"a"))
    session.output(0.0)

    [event] = session.receive(acks(STALE, b"a", error=error_pb2.Error(message="ended")), 0.0)

    assert isinstance(event, Dropped)
    assert event.error.message == "ended"
    assert session.idle


def test_refused_output_becomes_a_failure() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.report(result(b"a", b'{"huge":1}'))
    session.output(0.0)

    assert session.receive(acks(REFUSED, b"a", error=error_pb2.Error(message="over 4 MiB")), 0.0) == []

    [again] = sent_results(session)
    assert again.failure.terminal
    assert "over 4 MiB" in again.failure.message
    assert not session.idle


def test_refused_failure_is_dropped() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.report(task_pb2.TaskResult(token=b"a", failure=task_pb2.Failure(message="x")))
    session.output(0.0)

    [event] = session.receive(acks(REFUSED, b"a"), 0.0)

    assert isinstance(event, Dropped)
    assert session.idle


def test_result_that_could_not_be_stored_is_sent_again_later() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 10.0)
    session.report(result(b"a"))
    session.output(10.0)

    session.receive(acks(UNAVAILABLE, b"a"), 10.0)

    assert not session.has_output
    assert session.repeat_at() == 10.0 + REPEAT_AFTER
    assert sent_results(session, 10.0) == []
    assert [item.token for item in sent_results(session, 10.0 + REPEAT_AFTER)] == [b"a"]
    assert session.repeat_at() is None


def test_server_says_when_a_result_may_come_again() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.report(result(b"a"))
    error = error_pb2.Error()
    error.retry_after.FromSeconds(3)

    session.receive(acks(UNAVAILABLE, b"a", error=error), 0.0)

    assert session.repeat_at() == 3.0


def test_ack_of_an_unknown_result_changes_nothing() -> None:
    assert open_session().receive(acks(UNAVAILABLE, b"x"), 0.0) == []


# Cancels, hand-backs, drains.


def test_cancel_of_a_held_task_is_an_event() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    cancel = frames.Cancel(token=b"a", reason=frames.CANCEL_REASON_TIMED_OUT)

    events = session.receive(frames.ConnectResponse(cancels=frames.Cancels(cancels=[cancel])), 0.0)

    assert events == [Cancelled(b"a", frames.CANCEL_REASON_TIMED_OUT)]


def test_cancel_of_a_task_that_is_not_held_is_answered_so() -> None:
    session = open_session()
    cancel = frames.ConnectResponse(cancels=frames.Cancels(cancels=[frames.Cancel(token=b"x")]))

    assert session.receive(cancel, 0.0) == []

    [answer] = sent(session, "cancel_answers")
    assert answer.cancel_answers.answers[0].answer == frames.CANCEL_ANSWER_NOT_FOUND


def test_handed_back_tasks_are_not_held() -> None:
    session = open_session()
    session.receive(tasks(b"a", b"b"), 0.0)

    session.hand_back([b"a", b"stranger"], frames.NACK_REASON_BUSY)

    [nacks] = sent(session, "nacks")
    assert [(nack.token, nack.reason) for nack in nacks.nacks.nacks] == [(b"a", frames.NACK_REASON_BUSY)]
    assert list(session.held) == [b"b"]


def test_draining_session_hands_new_tasks_back() -> None:
    session = open_session()
    session.drain("stop")
    session.drain("again")
    assert [frame.drain.reason for frame in sent(session, "drain")] == ["stop"]

    assert session.receive(tasks(b"a"), 0.0) == []

    [nacks] = sent(session, "nacks")
    assert nacks.nacks.nacks[0].reason == frames.NACK_REASON_DRAINING
    assert session.idle


def test_draining_session_that_resumes_says_so_again() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.drain()
    session.lost()

    assert session.hello().hello.capacity.tasks == 0
    session.receive(welcome(resumed=True, kept=[b"a"]), 0.0)
    assert len(sent(session, "drain")) == 1


def test_capacity_is_sent_when_it_changes() -> None:
    session = open_session()

    session.set_capacity(7)
    assert sent(session, "capacity") == []
    session.set_capacity(3)

    assert [frame.capacity.tasks for frame in sent(session, "capacity")] == [3]


# Progress and logs.


def test_progress_is_sent_once_with_its_newest_output() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.progress(b"a", b'{"n":1}')
    session.progress(b"a", b'{"n":2}')
    session.progress(b"a")

    [frame] = sent(session, "progress")

    assert [(item.token, item.output) for item in frame.progress.items] == [(b"a", b'{"n":2}')]


def test_progress_of_a_finished_task_is_not_sent() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.progress(b"a", b"{}")
    session.report(result(b"a"))

    assert sent(session, "progress") == []


def test_oldest_log_lines_are_dropped_first() -> None:
    session = open_session()
    for number in range(LINES_WAITING_MAX + 1):
        session.log(b"a", str(number), 1.5)

    lines = [line for frame in sent(session, "logs") for line in frame.logs.lines]

    assert lines[-1].line == str(LINES_WAITING_MAX)
    assert len(lines) == LINES_WAITING_MAX - LINES_WAITING_MAX // 10 + 1
    assert (lines[0].time.seconds, lines[0].time.nanos) == (1, 500_000_000)


# Moving.


def test_while_it_moves_tasks_and_pings_of_the_old_stream_are_put_aside() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    hello = session.hello().hello
    assert (session.state, list(hello.held)) == (State.MOVING, [b"a"])

    assert session.receive(tasks(b"b"), 0.0) == []
    assert session.receive(ping(1), 0.0) == []
    assert not session.has_output

    session.receive(welcome(resumed=True, kept=[b"a"]), 0.0)
    assert session.state is State.OPEN
    assert list(session.held) == [b"a"]
    assert sent(session, "pong") == []


def test_move_that_fails_takes_up_what_was_put_aside() -> None:
    session = open_session()
    session.hello()
    session.receive(tasks(b"b"), 0.0)
    session.receive(ping(1), 0.0)

    [event] = session.move_failed(0.0)

    assert isinstance(event, Assigned)
    assert list(session.held) == [b"b"]
    assert [frame.pong.number for frame in sent(session, "pong")] == [1]


def test_results_go_on_through_the_old_stream_while_it_moves() -> None:
    session = open_session()
    session.receive(tasks(b"a"), 0.0)
    session.hello()

    session.report(result(b"a"))

    assert len(sent_results(session)) == 1
    session.receive(acks(ACCEPTED, b"a"), 0.0)
    assert session.idle


def test_what_is_handed_back_while_it_moves_is_handed_back_to_the_new_node() -> None:
    session = open_session()
    session.receive(tasks(b"a", b"b"), 0.0)
    session.hello()
    session.hand_back([b"a"], frames.NACK_REASON_DRAINING)

    session.receive(welcome(resumed=True, kept=[b"a", b"b"]), 0.0)

    [frame] = sent(session, "nacks")
    assert [nack.token for nack in frame.nacks.nacks] == [b"a"]
    assert list(session.held) == [b"b"]


def test_capacity_that_changes_while_it_moves_is_told_to_the_new_node() -> None:
    session = open_session()
    declared = session.hello().hello.capacity.tasks
    session.set_capacity(declared - 1)
    assert sent(session, "capacity") == []

    session.receive(welcome(resumed=True), 0.0)

    assert [frame.capacity.tasks for frame in sent(session, "capacity")] == [declared - 1]
    session.set_capacity(declared - 1)
    assert sent(session, "capacity") == []


# Other words of the server.


def test_words_about_nodes_and_drains_are_events() -> None:
    session = open_session()
    move = frames.Move(reason=frames.MOVE_REASON_DEGRADED, nodes=["a:1"])
    move.grace.FromSeconds(2)
    drain = frames.DrainRequest(reason="retire")
    error = frames.FrameError(frame_number=3)

    assert session.receive(frames.ConnectResponse(move=move), 0.0) == [Moved(True, ["a:1"], 2.0)]
    assert session.receive(frames.ConnectResponse(nodes=frames.Nodes(addresses=["b:2"])), 0.0) == [
        NodesChanged(["b:2"])
    ]
    assert session.receive(frames.ConnectResponse(drain=drain), 0.0) == [DrainAsked("retire", 30.0)]
    assert session.receive(frames.ConnectResponse(frame_error=error), 0.0) == [
        FrameRefused(error_pb2.Error(), 3)
    ]


# Frames have limits.


@given(st.lists(st.integers(0, FRAME_BYTES_MAX // 2), max_size=30), st.integers(0, 2_500))
def test_results_are_split_into_frames_within_the_limits(sizes: list[int], small: int) -> None:
    session = open_session()
    outputs = [b"x" * size for size in sizes] + [b"{}"] * small
    names = [number.to_bytes(4, "big") for number in range(len(outputs))]
    session.receive(tasks(*names), 0.0)
    for token, output in zip(names, outputs, strict=True):
        session.report(result(token, output))

    sent_frames = sent(session, "results")

    assert [item.token for frame in sent_frames for item in frame.results.results] == names
    for frame in sent_frames:
        items = frame.results.results
        assert 1 <= len(items) <= ITEMS_MAX
        assert len(items) == 1 or sum(len(item.output) for item in items) <= FRAME_BYTES_MAX


# The fence.


def test_fence_closes_once_after_silence_and_opens_with_a_word() -> None:
    fence = Fence(now=0.0, after=4.0)
    fence.heard(1.0)

    assert not fence.close_if_due(4.9)
    assert fence.close_if_due(5.0)
    assert not fence.close_if_due(6.0)
    fence.heard(7.0)
    assert not fence.close_if_due(10.9)
    assert fence.close_if_due(11.0)


# Laws over any history.


class Histories(RuleBasedStateMachine):
    """A session against a model of what its server knows: nothing is lost, nothing is said twice."""

    deliveries: Bundle[bytes] = Bundle("deliveries")

    def __init__(self) -> None:
        super().__init__()
        self.session = open_session()
        self.numbers = iter(range(1_000_000))
        self.held: set[bytes] = set()
        self.unacknowledged: set[bytes] = set()
        self.sent: set[bytes] = set()
        self.now = 0.0

    @property
    def live(self) -> bool:
        return self.session.state is State.OPEN

    def take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Revoked):
                self.held.difference_update(event.tokens)
                self.unacknowledged.difference_update(event.tokens)

    @rule(target=deliveries, count=st.integers(1, 3))
    def assign(self, count: int) -> object:
        if not self.live:
            return multiple()
        tokens = [next(self.numbers).to_bytes(4, "big") for _ in range(count)]
        self.session.receive(tasks(*tokens), self.now)
        self.held.update(tokens)
        return multiple(*tokens)

    @rule(token=consumes(deliveries))
    def end(self, token: bytes) -> None:
        self.session.report(result(token))
        if token in self.held:
            self.held.discard(token)
            self.unacknowledged.add(token)

    @rule()
    def flush(self) -> None:
        if self.live:
            tokens = [item.token for item in sent_results(self.session, self.now)]
            assert len(tokens) == len(set(tokens))
            assert set(tokens) <= self.unacknowledged
            self.sent.update(tokens)

    @rule(outcome=st.sampled_from([ACCEPTED, STALE, UNAVAILABLE]))
    def acknowledge(self, outcome: int) -> None:
        if not self.live or not self.sent:
            return
        token = min(self.sent)
        self.sent.discard(token)
        self.session.receive(acks(outcome, token), self.now)
        if outcome != UNAVAILABLE:
            self.unacknowledged.discard(token)

    @rule()
    def time_passes(self) -> None:
        self.now += REPEAT_AFTER

    @rule()
    def lose_the_stream(self) -> None:
        self.session.lost()
        self.sent.clear()

    @rule(resumed=st.booleans(), keep=st.integers(0, 3))
    def reconnect(self, resumed: bool, keep: int) -> None:
        if self.live:
            return
        hello = self.session.hello().hello
        assert set(hello.held) == self.held | self.unacknowledged
        kept = [token for index, token in enumerate(sorted(hello.held)) if index % 4 <= keep]
        self.take(self.session.receive(welcome(resumed=resumed, kept=kept), self.now))
        tokens = {item.token for item in sent_results(self.session, self.now)}
        assert tokens == self.unacknowledged, "a resume sends every unacknowledged result"
        self.sent.update(tokens)

    @invariant()
    def inventory_is_what_is_owed(self) -> None:
        assert set(self.session.held) == self.held
        assert set(self.session.finished) == self.unacknowledged
        assert self.session.idle == (not self.held and not self.unacknowledged)


TestHistories = pytest.mark.timeout(60)(Histories.TestCase)
