"""What the node remembers of its hand-outs, and what follows from a word or a commit."""

from __future__ import annotations

import pytest

from dispatch_kit import (
    NAMESPACE,
    NOW_MS,
    WORKFLOW,
    Desk,
    capacity,
    make_birth,
    make_placed,
    make_session,
    make_taken,
    nack,
    results,
    tokens_of,
    took,
)
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso.task.v1.task_pb2 import (
    RESULT_OUTCOME_ACCEPTED,
    RESULT_OUTCOME_REFUSED,
    RESULT_OUTCOME_STALE,
    RESULT_OUTCOME_UNAVAILABLE,
    Callback,
    Canceled,
    Failure,
    ResultAck,
    TaskResult,
)
from maestoso_server import ids
from maestoso_server.dispatch.deliveries import State
from maestoso_server.dispatch.session import Session
from maestoso_server.engine.decision import APPLIED, Outcome, Verdict
from maestoso_server.engine.state import TaskStatus
from maestoso_server.errors import NotFound, Reason
from maestoso_server.store.database import Unavailable
from maestoso_server.store.deliveries import Current
from maestoso_server.store.queue import QueueName
from maestoso_server.store.sessions import KeptRow, Resumed


@pytest.fixture
def desk() -> Desk:
    return Desk()


def token(seq: int, delivery: int = 1) -> bytes:
    return ids.make_token(WORKFLOW, seq, delivery)


def acks(desk: Desk, session: Session) -> list[ResultAck]:
    """What leaves as answers now: acceptances by their tokens, and everything else."""
    answers: list[ResultAck] = []
    for frame in desk.dispatcher.frames(session):
        accepted = [*frame.acks.accepted, *frame.tasks.accepted]
        answers += [ResultAck(token=token, outcome=RESULT_OUTCOME_ACCEPTED) for token in accepted]
        answers += frame.acks.acks
    return answers


def decide(desk: Desk, outcome: Outcome | Exception, index: int = -1) -> None:
    """The executor answers."""
    done = desk.outside.submitted[index][2]
    assert done is not None
    done(outcome)


def running(desk: Desk, *seqs: int, **room: int) -> Session:
    """A session that has these tasks written to it."""
    session = desk.open(make_session(**room))
    desk.born(*seqs)
    assert len(tokens_of(desk.dispatcher.frames(session))) == len(seqs)
    return session


def resumed(*kept: int, waiting: bool = False) -> Resumed:
    rows = [KeptRow(WORKFLOW, seq, 1, "work", "work", 0, 9, 0, 60, 0) for seq in kept]
    names = {QueueName(NAMESPACE, "work")} if waiting else set()
    return Resumed(session=None, kept=rows, redelivered=0, waiting=names, lost=0, unsent=[])  # type: ignore[arg-type]


# -- 1 born ----------------------------------------------------------------------------------------


def test_a_task_is_born_owned_by_a_session_with_room_and_sent_after_the_commit(desk: Desk):
    session = desk.open(make_session())
    birth = make_birth(5)

    assert desk.dispatcher.reserve(NAMESPACE, birth) == "s-1"
    assert desk.dispatcher.frames(session) == []
    desk.dispatcher.placed([make_placed(5, "s-1", birth)])

    (frame,) = desk.dispatcher.frames(session)
    (task,) = frame.tasks.tasks
    assert task.token == token(5)
    assert task.task_id == ids.task_id(WORKFLOW, 5)
    assert task.workflow_id == WORKFLOW
    assert task.reference == "ref__3"
    assert task.task_type == "work"
    assert task.attempt == 2
    assert task.input == b'{"n":1.0}'
    assert task.workflow_name == "orders"
    assert task.correlation_id == "c-1"
    assert task.traceparent == "00-trace"
    assert task.schedule_time.ToMilliseconds() == NOW_MS + 7
    assert task.idempotency_key == f"{WORKFLOW}:1:ref__3"
    assert not task.HasField("response_timeout")


def test_a_taken_task_is_told_the_same_things(desk: Desk):
    session = make_session()
    desk.dispatcher.open(session)
    request = desk.dispatcher.next_take()
    assert request is not None

    desk.dispatcher.took(request, took(make_taken(5, "s-1", delivery=3)))

    (task,) = desk.dispatcher.frames(session)[0].tasks.tasks
    assert task.token == token(5, 3)
    assert task.reference == "ref__3"
    assert task.response_timeout.seconds == 60
    assert task.idempotency_key == f"{WORKFLOW}:1:ref__3"


def test_a_task_waits_where_nobody_has_room(desk: Desk):
    desk.open(make_session(tasks=1))

    assert desk.born(1, 2) == ["s-1", None]


def test_room_that_was_not_used_is_given_back(desk: Desk):
    desk.open(make_session(tasks=1))
    birth = make_birth(1)
    assert desk.dispatcher.reserve(NAMESPACE, birth) == "s-1"
    assert desk.dispatcher.reserve(NAMESPACE, make_birth(2)) is None

    desk.dispatcher.unreserve("s-1", birth)

    assert desk.dispatcher.reserve(NAMESPACE, make_birth(2)) == "s-1"


def test_a_task_born_for_a_session_that_has_ended_meanwhile_goes_back_to_the_queue(desk: Desk):
    session = desk.open(make_session())
    birth = make_birth(1)
    desk.dispatcher.reserve(NAMESPACE, birth)
    desk.dispatcher.ended_stream(session)

    desk.dispatcher.placed([make_placed(1, "s-1", birth)])

    assert [d.seq for d in desk.dispatcher.owed.hand_backs] == [1]


# -- 2 take ----------------------------------------------------------------------------------------


def test_a_session_that_opens_starts_a_take_of_its_queues(desk: Desk):
    desk.dispatcher.open(make_session("x", "y", tasks=3))

    first, second = desk.dispatcher.next_take(), desk.dispatcher.next_take()

    assert first is not None
    assert {first.ring.queue} <= {"x", "y"}
    assert first.sessions == ["s-1"] * 3
    assert second is None  # the other queue has no room left until the first take is back


def test_nothing_is_taken_while_nothing_waits(desk: Desk):
    session = desk.open(make_session())

    desk.dispatcher.receive(session, capacity(20))

    assert desk.dispatcher.next_take() is None


def test_a_hint_starts_a_take(desk: Desk):
    desk.open(make_session(tasks=2))

    desk.dispatcher.rows_wait(NAMESPACE, "work")

    request = desk.dispatcher.next_take()
    assert request is not None
    assert request.sessions == ["s-1", "s-1"]


def test_a_hint_for_a_queue_that_nobody_here_takes_from_starts_none(desk: Desk):
    desk.open(make_session())

    desk.dispatcher.rows_wait(NAMESPACE, "other")

    assert desk.dispatcher.next_take() is None


def test_a_full_take_is_followed_by_another_and_a_short_one_is_not(desk: Desk):
    session = desk.open(make_session(tasks=2))
    desk.dispatcher.rows_wait(NAMESPACE, "work")
    request = desk.dispatcher.next_take()
    assert request is not None
    desk.dispatcher.took(request, took(make_taken(1, "s-1"), make_taken(2, "s-1")))
    assert desk.dispatcher.next_take() is None

    desk.dispatcher.frames(session)
    desk.dispatcher.receive(session, results(token(1)))
    again = desk.dispatcher.next_take()
    assert again is not None
    assert again.after == make_taken(2, "s-1").watermark
    desk.dispatcher.took(again, took())

    # A short answer after a watermark proves nothing: once more, from the beginning.
    last = desk.dispatcher.next_take()
    assert last is not None
    assert last.after is None
    desk.dispatcher.took(last, took())
    assert desk.dispatcher.next_take() is None
    assert desk.born(9) == ["s-1"]


def test_rows_that_come_while_a_take_is_under_way_are_not_forgotten(desk: Desk):
    desk.open(make_session(tasks=2))
    desk.dispatcher.rows_wait(NAMESPACE, "work")
    request = desk.dispatcher.next_take()
    assert request is not None
    desk.dispatcher.waiting(NAMESPACE, [make_birth(8)])

    desk.dispatcher.took(request, took())

    assert desk.dispatcher.next_take() is not None


def test_rows_that_wait_without_room_are_taken_when_room_is_made(desk: Desk):
    session = running(desk, 1, tasks=1)
    desk.dispatcher.waiting(NAMESPACE, [make_birth(2)])
    assert desk.dispatcher.next_take() is None
    assert desk.outside.waits == [(NAMESPACE, "work")]

    desk.dispatcher.receive(session, results(token(1)))

    assert desk.dispatcher.next_take() is not None


def test_rows_that_are_due_later_start_nothing(desk: Desk):
    desk.open(make_session())

    desk.dispatcher.waiting(NAMESPACE, [make_birth(2, due_ms=NOW_MS + 1)])

    assert desk.dispatcher.next_take() is None
    assert desk.outside.waits == []


def test_a_row_larger_than_what_is_left_goes_back_and_its_session_rests(desk: Desk):
    session = desk.open(make_session(tasks=5, size=100))
    desk.born(1, size=60)
    desk.dispatcher.frames(session)
    desk.dispatcher.rows_wait(NAMESPACE, "work")
    request = desk.dispatcher.next_take()
    assert request is not None

    desk.dispatcher.took(request, took(make_taken(2, "s-1", size=50)))

    assert [d.seq for d in desk.dispatcher.owed.hand_backs] == [2]
    assert session.room.free == 0
    desk.dispatcher.receive(session, results(token(1)))
    assert session.room.free == 5


def test_a_row_larger_than_the_capacity_is_sent_alone(desk: Desk):
    session = make_session(tasks=5, size=100)
    desk.dispatcher.open(session)
    request = desk.dispatcher.next_take()
    assert request is not None

    desk.dispatcher.took(request, took(make_taken(1, "s-1", size=500)))

    assert tokens_of(desk.dispatcher.frames(session)) == []  # other slots are still reserved
    assert session.room.reserved == 0


def test_a_task_that_ended_while_its_take_was_under_way_is_not_sent(desk: Desk):
    session = make_session()
    desk.dispatcher.open(session)
    request = desk.dispatcher.next_take()
    assert request is not None
    desk.dispatcher.ended(WORKFLOW, [1])

    desk.dispatcher.took(request, took(make_taken(1, "s-1"), make_taken(2, "s-1")))

    assert tokens_of(desk.dispatcher.frames(session)) == [token(2)]
    assert desk.dispatcher.deliveries.find(WORKFLOW, 1) is None


def test_a_take_that_failed_gives_its_slots_back_and_doubt_is_told(desk: Desk):
    session = make_session(tasks=2)
    desk.dispatcher.open(session)
    request = desk.dispatcher.next_take()
    assert request is not None
    assert session.room.free == 0

    desk.dispatcher.take_failed(request, unknown=True)

    assert session.room.free == 2
    assert desk.outside.doubts == 1
    desk.dispatcher.rows_wait(NAMESPACE, "work")
    again = desk.dispatcher.next_take()
    assert again is not None
    desk.dispatcher.take_failed(again, unknown=False)
    assert desk.outside.doubts == 1


# -- limits ------------------------------------------------------------------------------------------


def test_a_limited_type_is_taken_with_its_lock_and_waits_for_a_free_slot(desk: Desk):
    session = desk.open(make_session(tasks=5))
    desk.dispatcher.rows_wait(NAMESPACE, "work")
    plain = desk.dispatcher.next_take()
    assert plain is not None
    assert plain.limited is None
    desk.dispatcher.took(plain, took(limited="work"))

    locked = desk.dispatcher.next_take()
    assert locked is not None
    assert locked.limited == "work"
    desk.dispatcher.took(locked, took(make_taken(1, "s-1", limit=1), limited="work"))
    assert desk.dispatcher.next_take() is None

    desk.dispatcher.frames(session)
    desk.outside.waits.clear()
    desk.dispatcher.receive(session, results(token(1)))
    assert desk.dispatcher.next_take() is None  # the slot is free after the commit, not before
    desk.dispatcher.ended(WORKFLOW, [1])

    freed = desk.dispatcher.next_take()
    assert freed is not None
    assert freed.limited == "work"
    assert desk.outside.waits == [(NAMESPACE, "work")]


# -- 3, 4, 5: send, read, result ---------------------------------------------------------------------


def test_a_result_frees_its_place_before_it_is_committed_and_is_answered_after(desk: Desk):
    session = running(desk, 1, tasks=1)
    desk.clock.advance(30)

    desk.dispatcher.receive(session, results(token(1), output=b'{"a":1}'))

    (event,) = desk.outside.results()
    assert event.seq == 1
    assert event.delivery == 1
    assert event.status is TaskStatus.COMPLETED
    assert event.output is not None
    assert event.output.raw == b'{"a":1}'
    assert event.worker_id == "worker of s-1"
    assert event.started_ms == NOW_MS
    assert event.now_ms == NOW_MS + 30
    assert desk.dispatcher.reserve(NAMESPACE, make_birth(2)) == "s-1"
    assert acks(desk, session) == []

    desk.dispatcher.ended(WORKFLOW, [1])
    decide(desk, APPLIED)

    (ack,) = acks(desk, session)
    assert ack.token == token(1)
    assert ack.outcome == RESULT_OUTCOME_ACCEPTED
    assert len(desk.dispatcher.deliveries) == 0


def test_a_result_that_came_too_late_is_stale(desk: Desk):
    session = running(desk, 1)
    desk.dispatcher.receive(session, results(token(1)))

    decide(desk, Outcome(Verdict.STALE, "the workflow has ended"))

    (ack,) = acks(desk, session)
    assert ack.outcome == RESULT_OUTCOME_STALE
    assert ack.error.message == "the workflow has ended"
    assert len(desk.dispatcher.deliveries) == 0


def test_a_result_that_could_not_be_stored_leaves_the_delivery_alive(desk: Desk):
    session = running(desk, 1, tasks=1)
    desk.dispatcher.receive(session, results(token(1)))

    decide(desk, Unavailable("gone"))

    (ack,) = acks(desk, session)
    assert ack.outcome == RESULT_OUTCOME_UNAVAILABLE
    assert ack.error.retryable
    assert ack.error.retry_after.ToMilliseconds() > 0
    assert session.room.free == 0
    desk.dispatcher.receive(session, results(token(1)))
    decide(desk, APPLIED)
    assert acks(desk, session)[0].outcome == RESULT_OUTCOME_ACCEPTED


def test_an_output_that_is_no_object_is_refused_and_the_delivery_lives_on(desk: Desk):
    session = running(desk, 1, tasks=1)
    for output in (b"[1]", b'{"a":NaN}', b'{"a":1,"a":2}', b"{", b'{"x":"' + b"y" * 1_000 + b'"}'):
        desk.dispatcher.receive(session, results(token(1), output=output))

        (ack,) = acks(desk, session)
        assert ack.outcome == RESULT_OUTCOME_REFUSED, output
        assert ack.error.message
        assert session.room.free == 0

    assert desk.outside.submitted == []
    desk.dispatcher.receive(session, results(token(1), output=b'{"a":1}'))
    assert len(desk.outside.submitted) == 1


def test_a_result_over_the_limit_is_refused_with_limit_and_size(desk: Desk):
    session = running(desk, 1)

    desk.dispatcher.receive(session, results(token(1), output=b'{"x":"' + b"y" * 1_000 + b'"}'))

    (ack,) = acks(desk, session)
    assert "1,008" in ack.error.message
    assert "1,000" in ack.error.message


def test_a_result_without_anything_is_refused(desk: Desk):
    session = running(desk, 1)
    frame = wire.ConnectRequest()
    frame.results.results.add(token=token(1))

    desk.dispatcher.receive(session, frame)

    assert acks(desk, session)[0].outcome == RESULT_OUTCOME_REFUSED


def test_each_kind_of_result_becomes_its_event(desk: Desk):
    session = running(desk, 1, 2, 3, 4)
    late = Callback(output=b'{"p":1}')
    late.after.FromMilliseconds(1_500)
    failure = Failure(message="no", type="ValueError", error_name="OUT_OF_STOCK")
    failure.retry_after.FromSeconds(7)
    frame = wire.ConnectRequest()
    frame.results.results.extend(
        [
            TaskResult(token=token(1), failure=failure, failure_output=b'{"f":1}'),
            TaskResult(token=token(2), failure=Failure(message="never", terminal=True)),
            TaskResult(token=token(3), callback=late),
            TaskResult(token=token(4), canceled=Canceled(reason="asked to")),
        ]
    )

    desk.dispatcher.receive(session, frame)

    failed, terminal, callback, canceled = desk.outside.results()
    assert failed.status is TaskStatus.FAILED
    assert failed.reason == "ValueError: no"
    assert failed.error_name == "OUT_OF_STOCK"
    assert failed.retry_after_s == 7
    assert failed.output is not None
    assert failed.output.raw == b'{"f":1}'
    assert terminal.status is TaskStatus.FAILED_WITH_TERMINAL_ERROR
    assert terminal.retry_after_s is None
    assert callback.status is TaskStatus.IN_PROGRESS
    assert callback.callback_after_s == 2
    assert canceled.status is TaskStatus.CANCELED
    assert canceled.reason == "asked to"


def test_a_callback_beyond_a_year_is_refused(desk: Desk):
    session = running(desk, 1)
    late = Callback()
    late.after.FromSeconds(31_536_001)
    frame = wire.ConnectRequest()
    frame.results.results.append(TaskResult(token=token(1), callback=late))

    desk.dispatcher.receive(session, frame)

    assert acks(desk, session)[0].outcome == RESULT_OUTCOME_REFUSED


def test_a_result_of_another_nodes_delivery_is_submitted_too(desk: Desk):
    session = desk.open(make_session())

    desk.dispatcher.receive(session, results(token(77, 4)))

    (event,) = desk.outside.results()
    assert (event.seq, event.delivery, event.started_ms) == (77, 4, 0)


def test_a_token_that_no_server_made_is_stale(desk: Desk):
    session = desk.open(make_session())

    desk.dispatcher.receive(session, results(b"nonsense"))

    assert acks(desk, session)[0].outcome == RESULT_OUTCOME_STALE
    assert desk.outside.submitted == []


def test_a_repeated_result_is_submitted_and_harms_nothing(desk: Desk):
    session = running(desk, 1)
    desk.dispatcher.receive(session, results(token(1)))
    desk.dispatcher.receive(session, results(token(1)))

    decide(desk, APPLIED, 0)
    decide(desk, Outcome(Verdict.STALE, "twice"), 1)

    assert [ack.outcome for ack in acks(desk, session)] == [RESULT_OUTCOME_ACCEPTED, RESULT_OUTCOME_STALE]


def test_reads_are_owed_and_dropped_when_the_completion_came_first(desk: Desk):
    session = running(desk, 1, 2)
    desk.dispatcher.receive(session, results(token(2)))

    reads = desk.dispatcher.owed.reads

    assert [delivery.seq for delivery in reads if delivery.state is State.READ] == [1]


def test_a_task_that_ended_is_cancelled_and_its_place_is_free_at_once(desk: Desk):
    session = running(desk, 1, tasks=1)

    desk.dispatcher.ended(WORKFLOW, [1])

    (frame,) = desk.dispatcher.frames(session)
    assert frame.cancels.cancels[0].token == token(1)
    assert desk.dispatcher.reserve(NAMESPACE, make_birth(2)) == "s-1"


def test_a_task_that_its_own_result_ended_is_not_cancelled(desk: Desk):
    session = running(desk, 1)
    desk.dispatcher.receive(session, results(token(1)))

    desk.dispatcher.ended(WORKFLOW, [1])

    assert desk.dispatcher.frames(session) == []


def test_log_lines_are_owed_with_their_task(desk: Desk):
    session = running(desk, 1)
    frame = results(token(1))
    frame.results.results[0].logs.append("in the result")
    lines = [wire.LogLine(token=token(1), line="x" * 5_000), wire.LogLine(token=b"nobody's", line="lost")]

    desk.dispatcher.receive(session, frame)
    desk.dispatcher.receive(session, wire.ConnectRequest(logs=wire.Logs(lines=lines[:1])))

    assert [(entry.seq, len(entry.line)) for entry in desk.dispatcher.owed.logs] == [(1, 13), (1, 4_096)]


# -- 7 handed back -----------------------------------------------------------------------------------


def test_a_task_handed_back_waits_again_once_it_is_committed(desk: Desk):
    session = running(desk, 1, tasks=1)
    desk.dispatcher.receive(session, nack(token(1), wire.NACK_REASON_DRAINING))
    ((delivery, due_ms),) = desk.dispatcher.owed.hand_backs.items()
    assert due_ms == 0
    assert desk.dispatcher.deliveries.find(WORKFLOW, 1) is delivery

    desk.dispatcher.returned([(delivery, due_ms)])

    assert desk.dispatcher.deliveries.find(WORKFLOW, 1) is None
    assert desk.dispatcher.next_take() is not None


def test_a_task_handed_back_for_later_starts_no_take(desk: Desk):
    session = running(desk, 1)
    frame = nack(token(1), wire.NACK_REASON_DRAINING)
    frame.nacks.nacks[0].retry_after.FromSeconds(5)
    desk.dispatcher.receive(session, frame)
    items = list(desk.dispatcher.owed.hand_backs.items())
    assert items[0][1] == NOW_MS + 5_000

    desk.dispatcher.returned(items)

    assert desk.dispatcher.next_take() is None


def test_a_queue_without_a_handler_is_offered_no_more(desk: Desk):
    session = running(desk, 1)

    desk.dispatcher.receive(session, nack(token(1), wire.NACK_REASON_UNKNOWN_TYPE))

    assert desk.dispatcher.reserve(NAMESPACE, make_birth(2)) is None


def test_a_draining_worker_gives_back_what_was_not_written(desk: Desk):
    session = desk.open(make_session())
    desk.born(1)

    desk.dispatcher.receive(session, wire.ConnectRequest(drain=wire.Drain()))

    assert [d.seq for d in desk.dispatcher.owed.hand_backs] == [1]
    assert desk.dispatcher.reserve(NAMESPACE, make_birth(2)) is None


def test_a_row_that_is_not_ours_any_more_is_cancelled(desk: Desk):
    session = running(desk, 1)
    delivery = desk.dispatcher.deliveries.find(WORKFLOW, 1)
    assert delivery is not None

    desk.dispatcher.lost([delivery])

    (frame,) = desk.dispatcher.frames(session)
    assert frame.cancels.cancels[0].reason == wire.CANCEL_REASON_SUPERSEDED


# -- 8, 9, 10: a stream ends, resumes, expires ---------------------------------------------------------


def test_when_a_stream_ends_what_was_not_written_waits_again_and_the_rest_stays(desk: Desk):
    session = running(desk, 1)
    desk.born(2)

    desk.dispatcher.ended_stream(session)

    assert [d.seq for d in desk.dispatcher.owed.hand_backs] == [2]
    assert desk.dispatcher.owed.detached == [session]
    assert desk.dispatcher.deliveries.find(WORKFLOW, 1) is not None
    assert desk.dispatcher.reserve(NAMESPACE, make_birth(3)) is None


def test_what_nobody_read_is_known_when_the_session_expires(desk: Desk):
    session = running(desk, 1, 2)
    desk.dispatcher.receive(session, results(token(1)))
    decide(desk, Unavailable("away"))
    desk.born(3)
    desk.dispatcher.frames(session)
    desk.dispatcher.ended_stream(session)

    assert desk.dispatcher.ended_sessions() == ["s-1"]
    assert [d.seq for d in desk.dispatcher.unread(["s-1"])] == [3]
    desk.dispatcher.forget("s-1")

    assert desk.dispatcher.session("s-1") is None
    assert desk.dispatcher.deliveries.find(WORKFLOW, 3) is None


def test_a_resumed_session_keeps_what_its_worker_holds(desk: Desk):
    old = running(desk, 1, 2)
    new = make_session()
    desk.dispatcher.supersede(old)
    desk.dispatcher.resume(new, resumed(1), 0)
    desk.dispatcher.open(new)

    assert list(new.room.held) == [token(1)]
    assert desk.dispatcher.deliveries.find(WORKFLOW, 2) is None
    assert old.closing is not None
    assert old.closing.reason is Reason.SESSION_SUPERSEDED
    kept = desk.dispatcher.deliveries.find(WORKFLOW, 1)
    assert kept is not None
    assert kept.state is State.READ
    assert kept.started_ms


def test_a_session_from_another_node_brings_its_deliveries_along(desk: Desk):
    new = make_session()
    desk.dispatcher.resume(new, resumed(4), 0)
    desk.open(new)

    desk.dispatcher.receive(new, results(token(4)))

    assert desk.outside.results()[0].started_ms == NOW_MS


def test_a_stream_that_was_superseded_does_not_end_the_session(desk: Desk):
    old = running(desk, 1)
    new = make_session()
    desk.dispatcher.supersede(old)
    desk.dispatcher.resume(new, resumed(1), 0)
    desk.dispatcher.open(new)

    desk.dispatcher.ended_stream(old)

    assert desk.dispatcher.owed.detached == []
    assert desk.dispatcher.session("s-1") is new


def test_a_task_born_for_the_older_stream_is_not_sent_on_the_newer_one(desk: Desk):
    old = desk.open(make_session())
    birth = make_birth(1)
    assert desk.dispatcher.reserve(NAMESPACE, birth) == "s-1"
    new = make_session()
    desk.dispatcher.supersede(old)
    desk.dispatcher.resume(new, resumed(), 0)
    desk.open(new)
    # Until that birth is settled nobody can tell whose it is.
    assert desk.dispatcher.reserve(NAMESPACE, make_birth(2)) is None

    desk.dispatcher.placed([make_placed(1, "s-1", birth)])

    assert tokens_of(desk.dispatcher.frames(new)) == []
    assert [d.seq for d in desk.dispatcher.owed.hand_backs] == [1]
    assert desk.dispatcher.reserve(NAMESPACE, make_birth(2)) == "s-1"


def test_a_birth_outlives_its_session_and_a_return_of_it(desk: Desk):
    old = desk.open(make_session())
    birth = make_birth(1)
    desk.dispatcher.reserve(NAMESPACE, birth)
    desk.dispatcher.ended_stream(old)
    desk.dispatcher.forget("s-1")
    new = make_session()
    desk.dispatcher.resume(new, resumed(), 0)
    desk.open(new)

    desk.dispatcher.placed([make_placed(1, "s-1", birth)])

    assert new.room.reserved == 0
    assert tokens_of(desk.dispatcher.frames(new)) == []
    assert desk.dispatcher.reserve(NAMESPACE, make_birth(2)) == "s-1"


def test_rows_taken_for_the_older_stream_are_not_sent_on_the_newer_one(desk: Desk):
    old = make_session()
    desk.dispatcher.open(old)
    request = desk.dispatcher.next_take()
    assert request is not None
    new = make_session()
    desk.dispatcher.supersede(old)
    desk.dispatcher.resume(new, resumed(), 0)
    desk.dispatcher.open(new)

    desk.dispatcher.took(request, took(make_taken(1, "s-1")))

    assert tokens_of(desk.dispatcher.frames(new)) == []
    assert [d.seq for d in desk.dispatcher.owed.hand_backs] == [1]
    assert new.room.reserved == 0


def test_an_acknowledgement_finds_the_stream_that_goes_on(desk: Desk):
    old = running(desk, 1)
    desk.dispatcher.receive(old, results(token(1)))
    new = make_session()
    desk.dispatcher.supersede(old)
    desk.dispatcher.resume(new, resumed(1), 0)
    desk.open(new)

    decide(desk, APPLIED)

    assert acks(desk, new)[0].outcome == RESULT_OUTCOME_ACCEPTED


# -- 12, 13 ------------------------------------------------------------------------------------------


def test_after_a_new_epoch_unknown_rows_are_sent_and_unknown_entries_cancelled(desk: Desk):
    session = running(desk, 1, 2)
    held = desk.dispatcher.inventories()["s-1"]
    answer = resumed(1)
    answer.unsent = [make_taken(3, "s-1")]

    desk.dispatcher.rejoined(session, held, answer, 0)

    frames = desk.dispatcher.frames(session)
    assert [c.token for frame in frames for c in frame.cancels.cancels] == [token(2)]
    assert tokens_of(frames) == [token(3)]


def test_a_row_found_by_the_new_epoch_is_not_sent_twice(desk: Desk):
    session = desk.open(make_session())
    birth = make_birth(3)
    desk.dispatcher.reserve(NAMESPACE, birth)
    answer = resumed()
    answer.unsent = [make_taken(3, "s-1")]
    desk.dispatcher.rejoined(session, [], answer, 0)

    desk.dispatcher.placed([make_placed(3, "s-1", birth)])

    assert tokens_of(desk.dispatcher.frames(session)) == [token(3)]
    assert session.room.reserved == 0


def test_a_degraded_node_hands_out_nothing_and_says_so(desk: Desk):
    session = desk.open(make_session())
    desk.dispatcher.set_degraded(True, ["other:1"])

    (frame,) = desk.dispatcher.frames(session)
    assert frame.move.reason == wire.MOVE_REASON_DEGRADED
    assert desk.dispatcher.reserve(NAMESPACE, make_birth(1)) is None
    desk.dispatcher.rows_wait(NAMESPACE, "work")
    assert desk.dispatcher.next_take() is None

    desk.dispatcher.set_degraded(False)

    assert desk.dispatcher.next_take() is not None


# -- 14 reports without a token -----------------------------------------------------------------------


def named(desk: Desk, current: Current, worker_id: str = "") -> list[int]:
    outcomes: list[int] = []
    result = TaskResult(task_id=ids.task_id(WORKFLOW, 1), worker_id=worker_id, output=b"{}")
    desk.dispatcher.report_named(result, current, "", lambda outcome, error: outcomes.append(outcome))
    return outcomes


def test_a_report_without_a_token_acts_on_the_current_delivery_of_its_worker(desk: Desk):
    for worker_id, holder, delivery in (("w", "w", 3), ("", "w", 3), ("w", "", 0)):
        named(desk, Current(WORKFLOW, 1, delivery, 0, holder), worker_id)

        assert desk.outside.results()[-1].delivery == delivery


def test_a_report_without_a_token_by_another_worker_is_stale(desk: Desk):
    assert named(desk, Current(WORKFLOW, 1, 3, 0, "w"), "somebody else") == [RESULT_OUTCOME_STALE]
    assert desk.outside.submitted == []


def test_a_report_for_a_task_that_no_worker_runs_goes_to_the_engine(desk: Desk):
    result = TaskResult(task_id=ids.task_id(WORKFLOW, 1), output=b"{}")
    outcomes: list[int] = []
    desk.dispatcher.report_unqueued(result, WORKFLOW, 1, "", lambda outcome, error: outcomes.append(outcome))

    assert desk.outside.results()[0].delivery is None
    decide(desk, NotFound(Reason.WORKFLOW_NOT_FOUND, "gone"))
    assert outcomes == [RESULT_OUTCOME_STALE]
