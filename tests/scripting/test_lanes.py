"""Scripts that take long wait for each other, and never keep the others waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from maestoso_server.engine.needs import ScriptAnswer
from maestoso_server.scripting.frames import Operation
from maestoso_server.scripting.lanes import QUICK_S, Job, SlowScripts, Turns
from maestoso_server.scripting.pool import Evaluators

SLOW = "const end = Date.now() + 600; while (Date.now() < end) {} "


@pytest.fixture
async def evaluators() -> AsyncIterator[Evaluators]:
    made = Evaluators(processes=1, limit_s=4)
    yield made
    await made.stop()


def job(owner: str, script: str = "1") -> Job:
    answered: asyncio.Future[ScriptAnswer] = asyncio.get_running_loop().create_future()
    return Job(Operation.JAVASCRIPT, script, b"{}", owner, answered)


async def test_owners_take_turns() -> None:
    turns = Turns()
    for owner in ("many", "many", "many", "one", "two"):
        turns.put(job(owner))
    assert [(await turns.get()).owner for _ in range(5)] == ["many", "one", "two", "many", "many"]
    assert turns.count == 0


async def test_a_script_is_slow_until_a_run_of_it_was_quick() -> None:
    slow = SlowScripts()
    slow.note(job("a"), QUICK_S)
    assert job("b") in slow
    assert job("b", "2") not in slow
    slow.note(job("a"), QUICK_S / 10)
    assert job("b") not in slow


@pytest.mark.covers("B32")
async def test_b32_quick_scripts_do_not_wait_for_slow_ones(evaluators: Evaluators) -> None:
    await evaluators.evaluate("javascript", "1", b"{}")
    slow = [evaluators.submit("javascript", f"{SLOW}{number}", b"{}", owner="slow") for number in range(3)]
    began = time.monotonic()
    quick = await evaluators.evaluate("javascript", "'quick'", b"{}")
    waited = time.monotonic() - began
    assert quick.value == "quick"
    assert not any(answered.done() for answered in slow)
    assert waited < 4 * QUICK_S, "at most one of them was tried before it"
    assert [answer.value for answer in await asyncio.gather(*slow)] == [0, 1, 2]


async def test_a_script_that_was_slow_begins_among_the_slow_ones(evaluators: Evaluators) -> None:
    await evaluators.evaluate("javascript", SLOW, b"{}")
    again = evaluators.submit("javascript", SLOW, b"{}")
    assert (await evaluators.evaluate("javascript", "'quick'", b"{}")).value == "quick"
    assert not again.done()
    assert (await again).error is None
