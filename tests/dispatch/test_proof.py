"""What counts as proof that a worker reads its stream."""

from hypothesis import given
from hypothesis import strategies as st

from dispatch_kit import NOW_MS, make_delivery
from maestoso_server.dispatch.proof import PROOF_AFTER_MS, WINDOW_BYTES, Proof


def test_a_pong_proves_every_batch_before_its_ping():
    proof = Proof()
    first = proof.wrote_batch([make_delivery(1)], 10, NOW_MS)
    proof.wrote_batch([make_delivery(2)], 10, NOW_MS)
    proof.want_ping(NOW_MS)
    ping = proof.wrote_ping()
    later = proof.wrote_batch([make_delivery(3)], 10, NOW_MS)

    proved = proof.pong(ping)

    assert proved is not None
    assert [batch.deliveries[0].seq for batch in proved] == [1, 2]
    assert first < ping < later
    assert proof.unproved_bytes == 10


def test_a_pong_for_a_ping_that_was_never_sent_proves_nothing():
    proof = Proof()
    proof.wrote_batch([make_delivery(1)], 10, NOW_MS)

    assert proof.pong(99) is None
    assert proof.pong(0) is None
    assert proof.unproved_bytes == 10


def test_a_repeated_pong_is_no_news():
    proof = Proof()
    proof.wrote_batch([make_delivery(1)], 10, NOW_MS)
    proof.want_ping(NOW_MS)
    ping = proof.wrote_ping()
    proof.pong(ping)

    assert proof.pong(ping) == []


def test_a_ping_is_due_only_where_a_batch_has_seen_no_proof():
    proof = Proof()
    assert proof.proof_due_ms() is None

    number = proof.wrote_batch([make_delivery(1)], 10, NOW_MS)
    assert proof.proof_due_ms() == NOW_MS + PROOF_AFTER_MS

    proof.prove(number)
    assert proof.proof_due_ms() is None


def test_a_batch_written_after_a_ping_needs_a_ping_of_its_own():
    proof = Proof()
    proof.wrote_batch([make_delivery(1)], 10, NOW_MS)
    proof.want_ping(NOW_MS + 20)
    proof.wrote_ping()
    assert proof.proof_due_ms() is None

    proof.wrote_batch([make_delivery(2)], 10, NOW_MS + 30)

    assert proof.proof_due_ms() == NOW_MS + 30 + PROOF_AFTER_MS


def test_a_ping_counts_as_unanswered_from_the_moment_it_was_due():
    proof = Proof()
    proof.want_ping(NOW_MS)
    proof.want_ping(NOW_MS + 700)
    assert proof.unanswered_since_ms() == NOW_MS

    number = proof.wrote_ping()
    assert proof.unanswered_since_ms() == NOW_MS

    proof.pong(number)
    assert proof.unanswered_since_ms() is None


def test_one_batch_may_always_be_written_and_the_next_only_within_the_window():
    proof = Proof()
    assert proof.allows(WINDOW_BYTES * 4)

    proof.wrote_batch([make_delivery(1)], WINDOW_BYTES - 10, NOW_MS)

    assert proof.allows(10)
    assert not proof.allows(11)


@given(
    st.lists(
        st.one_of(
            st.integers(1, 5).map(lambda n: ("batch", n)),
            st.just(("ping", 0)),
            st.integers(0, 12).map(lambda n: ("pong", n)),
            st.integers(0, 12).map(lambda n: ("prove", n)),
        ),
        max_size=40,
    )
)
def test_no_proof_is_lost_and_none_is_given_twice(steps):
    proof = Proof()
    written: dict[int, int] = {}
    proved: list[int] = []
    read: set[int] = set()
    for kind, number in steps:
        if kind == "batch":
            at = proof.wrote_batch([make_delivery(1)], number, NOW_MS)
            written[at] = number
            continue
        if kind == "ping":
            proof.want_ping(NOW_MS)
            proof.wrote_ping()
            continue
        news = proof.pong(number) if kind == "pong" else proof.prove(number)
        if news is not None:
            read.update(at for at in written if at <= number)
            proved.extend(batch.number for batch in news)

    assert proved == sorted(set(proved))
    assert set(proved) == read
    assert proof.unproved_bytes == sum(size for number, size in written.items() if number not in proved)
