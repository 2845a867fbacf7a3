"""The server's side of one worker stream, frame by frame."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch_kit import (
    NOW_MS,
    capacity,
    kinds_of,
    make_delivery,
    make_session,
    nack,
    pings_of,
    pong,
    results,
    tokens_of,
)
from maestoso.error.v1.error_pb2 import REASON_BAD_FRAME
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso.task.v1.task_pb2 import RESULT_OUTCOME_ACCEPTED, RESULT_OUTCOME_STALE, Capacity
from maestoso_server.dispatch.deliveries import Delivery, State
from maestoso_server.dispatch.proof import WINDOW_BYTES
from maestoso_server.dispatch.session import (
    BAD_FRAMES_MAX,
    BATCH_TASKS,
    HandedBack,
    Logged,
    Progressed,
    Read,
    Reported,
    RoomMade,
    Session,
    Shut,
    Withdrawn,
)
from maestoso_server.errors import Reason


def sent(session: Session, *deliveries: Delivery, now_ms: int = NOW_MS) -> list[wire.ConnectResponse]:
    for delivery in deliveries:
        session.assign(delivery)
    return session.frames(now_ms)


def events_of(kind: type, events: list) -> list:
    return [event for event in events if type(event) is kind]


# -- sending ---------------------------------------------------------------------------------------


def test_tasks_that_wait_together_leave_in_one_batch():
    session = make_session()
    frames = sent(session, *(make_delivery(seq) for seq in (1, 2, 3)))

    assert kinds_of(frames) == ["tasks"]
    assert len(frames[0].tasks.tasks) == 3


def test_a_batch_ends_at_its_number_of_tasks():
    session = make_session(tasks=1_000)
    frames = sent(session, *(make_delivery(seq) for seq in range(1, BATCH_TASKS + 2)))

    assert [len(frame.tasks.tasks) for frame in frames] == [BATCH_TASKS, 1]


def test_no_more_is_written_than_the_window_until_it_is_proved_read():
    session = make_session(tasks=1_000)
    deliveries = [make_delivery(seq, size=40_000) for seq in range(1, 12)]
    frames = sent(session, *deliveries)
    written = tokens_of(frames)
    assert 0 < len(written) < 11
    assert sum(40_000 for _ in written) <= WINDOW_BYTES

    # The window is closed while tasks wait: the Ping does not wait for its time.
    (number,) = pings_of(frames)
    session.receive(pong(number), NOW_MS + 1)

    assert tokens_of(session.frames(NOW_MS + 1))


def test_a_task_larger_than_the_window_is_written_alone():
    session = make_session()
    frames = sent(session, make_delivery(1, size=WINDOW_BYTES * 2), make_delivery(2))

    assert len(tokens_of(frames)) == 1


def test_control_frames_leave_before_tasks():
    session = make_session()
    first = make_delivery(1)
    sent(session, first)
    session.assign(make_delivery(2))
    session.cancel(first, wire.CANCEL_REASON_WORKFLOW_ENDED)
    session.acknowledge(b"t" * 24, RESULT_OUTCOME_STALE)

    assert kinds_of(session.frames(NOW_MS)) == ["cancels", "acks", "tasks"]


def test_acceptances_ride_with_the_tasks_that_leave_at_the_same_moment():
    session = make_session()
    session.assign(make_delivery(1))
    session.acknowledge(b"t" * 24, RESULT_OUTCOME_ACCEPTED)

    (frame,) = session.frames(NOW_MS)

    assert len(frame.tasks.tasks) == 1
    assert list(frame.tasks.accepted) == [b"t" * 24]


def test_acknowledgements_of_one_moment_share_a_frame():
    session = make_session()
    for number in range(5):
        session.acknowledge(bytes([number]) * 24, RESULT_OUTCOME_ACCEPTED)

    (frame,) = session.frames(NOW_MS)

    assert len(frame.acks.accepted) == 5
    session.acknowledge(b"y" * 24, RESULT_OUTCOME_STALE)
    session.acknowledge(b"z" * 24, RESULT_OUTCOME_STALE)
    (frame,) = session.frames(NOW_MS)
    assert len(frame.acks.acks) == 2 and not frame.acks.accepted


def test_a_task_cancelled_before_it_was_written_is_never_written():
    session = make_session()
    delivery = make_delivery(1)
    session.assign(delivery)
    session.cancel(delivery, wire.CANCEL_REASON_WORKFLOW_ENDED)

    assert session.frames(NOW_MS) == []


def test_a_task_that_was_written_is_cancelled_by_its_token():
    session = make_session()
    delivery = make_delivery(1)
    sent(session, delivery)
    session.cancel(delivery, wire.CANCEL_REASON_TIMED_OUT)

    (frame,) = session.frames(NOW_MS)

    assert frame.cancels.cancels[0].token == delivery.token
    assert frame.cancels.cancels[0].reason == wire.CANCEL_REASON_TIMED_OUT
    assert not session.room.held


def test_a_message_is_let_go_once_it_is_written():
    session = make_session()
    delivery = make_delivery(1)
    sent(session, delivery)

    assert delivery.assignment is None


# -- proof of reading (transition 4) -----------------------------------------------------------------


def test_a_ping_follows_a_batch_that_has_seen_no_proof_for_20_ms():
    session = make_session()
    sent(session, make_delivery(1))
    assert session.next_tick_ms() == NOW_MS + 20
    session.tick(NOW_MS + 19)
    assert session.frames(NOW_MS + 19) == []

    session.tick(NOW_MS + 20)

    assert len(pings_of(session.frames(NOW_MS + 20))) == 1


def test_no_ping_follows_a_batch_that_a_result_has_proved():
    session = make_session()
    delivery = make_delivery(1)
    sent(session, delivery)
    session.receive(results(delivery.token), NOW_MS + 5)

    session.tick(NOW_MS + 20)

    assert pings_of(session.frames(NOW_MS + 20)) == []


def test_a_pong_proves_its_batches_and_the_tasks_have_started():
    session = make_session()
    delivery = make_delivery(1)
    sent(session, delivery)
    session.tick(NOW_MS + 20)
    (number,) = pings_of(session.frames(NOW_MS + 20))

    (read,) = events_of(Read, session.receive(pong(number), NOW_MS + 25))

    assert read.deliveries == [delivery]
    assert delivery.state is State.READ
    assert delivery.started_ms == NOW_MS + 25


def test_any_report_about_a_batch_proves_it_and_all_earlier_ones():
    session = make_session()
    one, two, three = (make_delivery(seq) for seq in (1, 2, 3))
    for delivery in (one, two, three):
        sent(session, delivery)

    events = session.receive(results(two.token), NOW_MS + 3)

    assert [delivery for event in events_of(Read, events) for delivery in event.deliveries] == [one, two]
    assert one.state is State.READ
    assert three.state is State.SENT


def test_a_result_that_is_the_first_word_starts_its_task_when_it_was_written():
    session = make_session()
    delivery = make_delivery(1)
    sent(session, delivery)

    session.receive(results(delivery.token), NOW_MS + 30)

    assert delivery.started_ms == NOW_MS


def test_acks_nacks_progress_and_logs_prove_too():
    for frame_of in (
        lambda token: wire.ConnectRequest(acks=wire.Acks(tokens=[token])),
        nack,
        lambda token: wire.ConnectRequest(progress=wire.Progress(items=[wire.ProgressItem(token=token)])),
        lambda token: wire.ConnectRequest(logs=wire.Logs(lines=[wire.LogLine(token=token, line="x")])),
    ):
        session = make_session()
        first, second = make_delivery(1), make_delivery(2)
        sent(session, first)
        sent(session, second)

        session.receive(frame_of(second.token), NOW_MS + 1)

        assert first.state is State.READ


def test_a_token_of_somebody_else_proves_nothing():
    session = make_session()
    delivery = make_delivery(1)
    sent(session, delivery)

    session.receive(results(make_delivery(9).token), NOW_MS + 1)

    assert delivery.state is State.SENT


def test_a_silent_stream_is_pinged_every_second_and_a_half():
    session = make_session()
    now_ms = NOW_MS
    times = []
    for _ in range(3):
        now_ms = session.next_tick_ms()
        session.tick(now_ms)
        (number,) = pings_of(session.frames(now_ms))
        times.append(now_ms - NOW_MS)
        session.receive(pong(number), now_ms)

    assert times == [1_500, 3_000, 4_500]


# -- blocked workers -----------------------------------------------------------------------------------


def blocked(session: Session) -> list:
    """Let five seconds pass without any Pong."""
    session.tick(NOW_MS + 1_500)
    session.frames(NOW_MS + 1_500)
    return session.tick(NOW_MS + 6_500)


def test_a_worker_without_a_pong_for_five_seconds_gets_nothing_more():
    session = make_session()
    delivery = make_delivery(1)
    session.tick(NOW_MS + 1_500)
    session.frames(NOW_MS + 1_500)
    assert events_of(Shut, session.tick(NOW_MS + 6_499)) == []

    (shut,) = events_of(Shut, session.tick(NOW_MS + 6_500))

    assert shut == Shut()
    assert session.room.free == 0
    session.assign(delivery)
    assert tokens_of(session.frames(NOW_MS + 6_500)) == []


def test_a_blocked_worker_that_answers_takes_again():
    session = make_session()
    blocked(session)
    (number, *_) = [1, *pings_of(session.frames(NOW_MS + 6_500))]

    session.receive(pong(number), NOW_MS + 7_000)
    last = session.receive(pong(2), NOW_MS + 7_000) if session.blocked else []

    assert not session.blocked
    assert session.room.free == 10
    assert last == [] or events_of(RoomMade, last)


def test_a_worker_without_a_pong_for_ten_seconds_is_closed():
    session = make_session()
    blocked(session)
    assert session.closing is None

    session.tick(NOW_MS + 11_500)

    assert session.closing is not None
    assert session.closing.reason is Reason.OVERLOADED


def test_a_full_stream_that_takes_no_ping_counts_as_unanswered_too():
    session = make_session()
    session.tick(NOW_MS + 1_500)  # wanted, but nobody asks for frames: the writer is stuck

    session.tick(NOW_MS + 6_500)

    assert session.blocked


# -- what workers say ------------------------------------------------------------------------------------


def test_results_come_out_beside_their_deliveries():
    session = make_session()
    delivery = make_delivery(1)
    sent(session, delivery)
    stranger = make_delivery(7)

    (reported,) = events_of(Reported, session.receive(results(delivery.token, stranger.token), NOW_MS))

    assert [found for _, found in reported.results] == [delivery, None]


def test_a_task_that_is_handed_back_frees_its_place():
    session = make_session(tasks=1)
    delivery = make_delivery(1)
    sent(session, delivery)
    frame = nack(delivery.token, wire.NACK_REASON_DRAINING)
    frame.nacks.nacks[0].retry_after.FromMilliseconds(1_500)

    events = session.receive(frame, NOW_MS)

    assert events_of(HandedBack, events)[0].items == [(delivery, NOW_MS + 1_500)]
    assert not session.room.held


def test_a_busy_worker_is_left_alone_for_a_moment():
    session = make_session(tasks=2)
    delivery = make_delivery(1)
    sent(session, delivery)

    session.receive(nack(delivery.token), NOW_MS)
    assert session.room.free == 0
    assert events_of(RoomMade, session.tick(NOW_MS + 999)) == []

    assert events_of(RoomMade, session.tick(NOW_MS + 1_000))
    assert session.room.free == 2


def test_a_busy_worker_that_declares_a_capacity_is_believed_at_once():
    session = make_session(tasks=2)
    delivery = make_delivery(1)
    sent(session, delivery)
    session.receive(nack(delivery.token), NOW_MS)

    session.receive(capacity(2), NOW_MS + 1)

    assert session.room.free == 2


def test_an_unknown_type_withdraws_the_offer():
    session = make_session()
    delivery = make_delivery(1)
    sent(session, delivery)

    events = session.receive(nack(delivery.token, wire.NACK_REASON_UNKNOWN_TYPE), NOW_MS)

    assert events_of(Withdrawn, events) == [Withdrawn("work")]
    assert session.room.free == 10


def test_progress_is_told_with_its_output():
    session = make_session()
    delivery = make_delivery(1)
    sent(session, delivery)
    item = wire.ProgressItem(token=delivery.token, output=b'{"done":1}')

    events = session.receive(wire.ConnectRequest(progress=wire.Progress(items=[item])), NOW_MS + 9)

    assert events_of(Progressed, events)[0].items == [(delivery, b'{"done":1}')]
    assert delivery.progress_ms == NOW_MS + 9


def test_log_lines_beyond_a_thousand_are_dropped_and_counted():
    session = make_session()
    lines = [wire.LogLine(token=make_delivery(1).token, line=str(n)) for n in range(1_003)]

    (logged,) = events_of(Logged, session.receive(wire.ConnectRequest(logs=wire.Logs(lines=lines)), NOW_MS))

    assert len(logged.lines) == 1_000
    assert session.dropped_lines == 3


def test_a_worker_that_drains_takes_nothing_new():
    session = make_session()
    session.assign(make_delivery(1))

    events = session.receive(wire.ConnectRequest(drain=wire.Drain(reason="deploy")), NOW_MS)

    assert events_of(Shut, events)
    assert session.room.free == 0
    assert [delivery.seq for delivery in session.take_unwritten()] == [1]
    assert session.frames(NOW_MS) == []


def test_a_new_capacity_is_absolute():
    session = make_session(tasks=10)
    sent(session, make_delivery(1), make_delivery(2))

    session.receive(capacity(3), NOW_MS)
    assert session.room.free == 1

    session.receive(capacity(1), NOW_MS)
    assert session.room.free == 0


# -- bad frames ------------------------------------------------------------------------------------------


def test_a_bad_frame_is_answered_and_changes_nothing():
    session = make_session(tasks=3)

    assert session.receive(capacity(10_001), NOW_MS) == []

    (frame,) = session.frames(NOW_MS)
    assert frame.frame_error.error.reason == REASON_BAD_FRAME
    assert frame.frame_error.frame_number == 2
    assert session.room.max_tasks == 3
    assert session.closing is None


def test_these_frames_are_bad():
    for frame in (
        wire.ConnectRequest(capacity=Capacity(tasks=-1)),
        wire.ConnectRequest(capacity=Capacity(tasks=1, bytes=-1)),
        pong(77),
        wire.ConnectRequest(acks=wire.Acks(tokens=[b"short"])),
        wire.ConnectRequest(results=wire.Results(results=[{} for _ in range(1_001)])),
    ):
        session = make_session()
        session.receive(frame, NOW_MS)

        assert kinds_of(session.frames(NOW_MS)) == ["frame_error"]


def test_a_second_hello_ends_the_stream():
    session = make_session()
    session.receive(wire.ConnectRequest(hello=wire.Hello()), NOW_MS)

    assert session.closing is not None
    assert session.closing.reason is Reason.BAD_FRAME


def test_ten_bad_frames_in_a_minute_end_the_stream():
    session = make_session()
    for number in range(BAD_FRAMES_MAX - 1):
        session.receive(pong(77), NOW_MS + number)
    assert session.closing is None

    session.receive(pong(77), NOW_MS + 59_000)

    assert session.closing is not None
    assert session.closing.reason is Reason.BAD_FRAME


def test_bad_frames_of_more_than_a_minute_ago_are_forgiven():
    session = make_session()
    for number in range(BAD_FRAMES_MAX + 5):
        session.receive(pong(77), NOW_MS + number * 7_000)

    assert session.closing is None


def test_an_unknown_frame_is_ignored_and_counted():
    session = make_session()

    assert session.receive(wire.ConnectRequest(), NOW_MS) == []

    assert session.unknown_frames == 1
    assert session.frames(NOW_MS) == []


# -- leaving ---------------------------------------------------------------------------------------------


def test_a_worker_that_is_to_move_takes_nothing_new_and_is_closed_after_the_grace():
    session = make_session()
    events = session.move(wire.MOVE_REASON_STOPPING, ["other:1"], 2_000, NOW_MS)
    assert events_of(Shut, events)
    (frame,) = session.frames(NOW_MS)
    assert list(frame.move.nodes) == ["other:1"]
    assert session.next_tick_ms() <= NOW_MS + 2_000

    session.tick(NOW_MS + 1_999)
    assert session.closing is None
    session.tick(NOW_MS + 2_000)

    assert session.closing is not None
    assert session.closing.reason is Reason.NODE_STOPPING


def test_a_degraded_node_asks_the_worker_to_move_and_lets_it_stay():
    session = make_session()

    assert session.move(wire.MOVE_REASON_DEGRADED, [], None, NOW_MS) == []

    (frame,) = session.frames(NOW_MS)
    assert not frame.move.HasField("grace")
    assert session.room.free == 10


def test_an_operator_drains_a_worker():
    session = make_session()
    session.request_drain("maintenance", NOW_MS + 30_000, NOW_MS)

    (frame,) = session.frames(NOW_MS)
    assert frame.drain.reason == "maintenance"
    assert frame.drain.grace.seconds == 30
    assert session.room.free == 0
    session.request_drain("maintenance", NOW_MS + 30_000, NOW_MS + 1_000)
    assert session.frames(NOW_MS + 1_000) == []
    session.request_drain("sooner", NOW_MS + 5_000, NOW_MS + 1_000)
    assert session.frames(NOW_MS + 1_000)[0].drain.grace.seconds == 4


def test_what_was_said_is_written_before_the_stream_is_closed():
    session = make_session()
    session.assign(make_delivery(1))
    session.acknowledge(b"t" * 24, RESULT_OUTCOME_ACCEPTED)
    session.receive(wire.ConnectRequest(hello=wire.Hello()), NOW_MS)

    assert kinds_of(session.frames(NOW_MS)) == ["acks"]


# -- the law ---------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("assign"), st.integers(1, 60_000)),
        st.tuples(st.just("frames"), st.just(0)),
        st.tuples(st.just("pong"), st.just(0)),
        st.tuples(st.just("result"), st.integers(0, 30)),
        st.tuples(st.just("nack"), st.integers(0, 30)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.integers(1, 400)),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_every_assigned_task_is_written_once_or_given_back_and_every_proof_counts(steps):
    session = make_session(tasks=10_000)
    now_ms = NOW_MS
    assigned: list[Delivery] = []
    written: list[bytes] = []
    pings: list[int] = []
    read: list[Delivery] = []
    dropped: set[bytes] = set()

    def take(frames: list[wire.ConnectResponse]) -> None:
        written.extend(tokens_of(frames))
        pings.extend(pings_of(frames))
        unproved = sum(d.size for d in assigned if d.state is State.SENT)
        sent_last = sum(d.size for d in assigned if d.token in tokens_of(frames[-1:]))
        assert unproved <= WINDOW_BYTES or unproved == sent_last

    for kind, value in steps:
        at = assigned[value % len(assigned)] if assigned else None
        if kind == "assign":
            assigned.append(make_delivery(len(assigned) + 1, size=value))
            session.assign(assigned[-1])
        elif kind == "frames":
            take(session.frames(now_ms))
        elif kind == "wait":
            now_ms += value
            session.tick(now_ms)
        elif kind == "pong" and pings:
            read.extend(
                d for e in events_of(Read, session.receive(pong(pings.pop(0)), now_ms)) for d in e.deliveries
            )
        elif kind == "result" and at and at.token in written and at.token in session.room.held:
            read.extend(
                d for e in events_of(Read, session.receive(results(at.token), now_ms)) for d in e.deliveries
            )
            session.release(at)
        elif kind == "nack" and at and at.token in written and at.token in session.room.held:
            read.extend(
                d for e in events_of(Read, session.receive(nack(at.token), now_ms)) for d in e.deliveries
            )
        elif kind == "cancel" and at:
            if at.token not in written:
                dropped.add(at.token)
            session.cancel(at, wire.CANCEL_REASON_WORKFLOW_ENDED)

    unwritten = [delivery.token for delivery in session.take_unwritten()]
    assert len(written) == len(set(written))
    assert len(read) == len({d.token for d in read})
    assert sorted([*written, *unwritten, *dropped]) == sorted(d.token for d in assigned)
    assert all(d.started_ms for d in read)
    assert session.room.held_bytes == sum(d.size for d in session.room.held.values())
