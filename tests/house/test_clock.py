"""Time enters here and nowhere else: the offset to the database, and waiting by the clock."""

from __future__ import annotations

import asyncio

import pytest

from maestoso_server.clock import Clock, ManualClock, SystemClock

DEADLINE_S = 5.0


def test_reading_of_the_database_moves_the_clock_to_its_time() -> None:
    clock = SystemClock()
    local = clock.local_ms()

    clock.adjust(5_000_000.0, local, local)

    assert 5_000_000 <= clock.now_ms() < 5_000_000 + 1_000


def test_reading_with_a_longer_round_trip_does_not_replace_a_better_one() -> None:
    clock = SystemClock()
    local = clock.local_ms()
    clock.adjust(5_000_000.0, local - 1, local + 1)

    clock.adjust(9_000_000.0, local - 50, local + 50)

    assert clock.now_ms() < 5_001_000


def test_old_reading_is_replaced_by_a_worse_one() -> None:
    clock = SystemClock()
    local = clock.local_ms()
    clock.adjust(5_000_000.0, local, local)
    later = local + SystemClock.STALE_AFTER_MS + 1

    clock.adjust(9_000_000.0, later - 50, later + 50)

    assert clock.now_ms() > 8_900_000


def test_time_never_goes_back() -> None:
    clock = SystemClock()
    before = clock.now_ms()
    local = clock.local_ms()

    clock.adjust(1_000.0, local, local)

    assert clock.now_ms() == before


async def test_system_clock_wakes_for_the_time_and_for_the_event() -> None:
    clock = SystemClock()
    event = asyncio.Event()

    assert await clock.wait(event, clock.now_ms() + 1) is False
    asyncio.get_running_loop().call_soon(event.set)
    assert await clock.wait(event, clock.now_ms() + 60_000) is True
    await clock.sleep_until(clock.now_ms() - 1)


async def test_manual_clock_wakes_only_those_whose_time_has_come() -> None:
    clock = ManualClock(1_000)
    early = asyncio.create_task(clock.sleep_until(1_500))
    late = asyncio.create_task(clock.sleep_until(2_500))
    await asyncio.sleep(0)
    assert clock.next_wake_ms == 1_500

    clock.advance(600)

    await asyncio.wait_for(early, DEADLINE_S)
    assert not late.done()
    clock.advance(900)
    await asyncio.wait_for(late, DEADLINE_S)
    assert clock.next_wake_ms is None


async def test_a_test_waits_until_somebody_waits_for_a_moment() -> None:
    clock = ManualClock(1_000)
    awaited = asyncio.create_task(clock.awaited(1_500))
    other = asyncio.create_task(clock.sleep_until(1_400))
    await asyncio.wait([awaited], timeout=0)
    assert not awaited.done()

    sleeper = asyncio.create_task(clock.sleep_until(1_500))
    await asyncio.wait_for(awaited, 5)

    clock.advance(500)
    await asyncio.wait_for(asyncio.gather(other, sleeper), 5)


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
async def test_event_ends_a_wait_before_its_time_and_time_does_not_set_it(clock: Clock) -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(clock.wait(event, clock.now_ms() + 60_000))
    await asyncio.sleep(0)

    event.set()

    assert await asyncio.wait_for(waiting, DEADLINE_S) is True
    event.clear()
    assert await clock.wait(event, clock.now_ms()) is False


def test_manual_clock_refuses_to_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        ManualClock().advance(-1)
