"""How slots are divided over streams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maestoso._capacity import Load, divide

loads = st.lists(
    st.builds(Load, st.integers(0, 50), st.integers(0, 50), st.booleans()), min_size=1, max_size=8
)


@given(st.integers(1, 200), loads)
def test_shares_add_up_to_the_concurrency(concurrency: int, streams: list[Load]) -> None:
    shares = divide(concurrency, streams)

    held = sum(load.held for load in streams)
    expected = max(concurrency, held) if any(load.open for load in streams) else held
    assert sum(shares) == expected
    assert all(share >= load.held for share, load in zip(shares, streams, strict=True))


@given(st.integers(1, 200), loads)
def test_closed_streams_get_no_idle_slot(concurrency: int, streams: list[Load]) -> None:
    for share, load in zip(divide(concurrency, streams), streams, strict=True):
        assert load.open or share == load.held


@given(st.integers(8, 200), st.lists(st.integers(0, 100), min_size=1, max_size=8))
def test_each_open_stream_keeps_a_slot_to_be_found_by(concurrency: int, received: list[int]) -> None:
    assert min(divide(concurrency, [Load(0, each) for each in received])) >= 1


def test_idle_slots_follow_the_work() -> None:
    busy, quiet = divide(100, [Load(held=20, received=60), Load(held=0, received=0)])

    assert busy > 90
    assert busy + quiet == 100


def test_equal_streams_get_equal_shares() -> None:
    assert divide(10, [Load(0, 0), Load(0, 0)]) == [5, 5]


def test_more_held_than_slots_gives_nothing_away() -> None:
    assert divide(4, [Load(3, 1), Load(3, 1)]) == [3, 3]
