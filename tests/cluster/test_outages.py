"""Nodes that are killed or stand still, and a Postgres that goes away: nothing stuck, lost or done twice.

Real server processes on one real Postgres, with the SDK's workers and clients, under load. What runs
for longer than the outage is in `tests/outages`.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import pytest

from e2e.processes import Maestoso
from maestoso_server.embedded import EmbeddedPostgres
from maestoso_server.store.nodes import LEASE_MS
from outage_kit import Load, epochs, loaded, more_than, until

pytestmark = pytest.mark.timeout(150)


async def test_a_killed_node_strands_nothing_and_burns_no_attempt(database_url: str) -> None:
    load = Load()
    with (
        Maestoso("serve", "--database-url", database_url).ready() as first,
        Maestoso("serve", "--database-url", database_url).ready() as second,
    ):
        async with loaded(load, [first, second], database_url):
            first.process.kill()
            first.process.wait()
            seen = len(load.acknowledged)
            await until(lambda: more_than(load, seen + 50))


async def test_a_node_that_stood_still_past_its_lease_serves_again(
    database_url: str,
) -> None:
    load = Load()
    with (
        Maestoso("serve", "--database-url", database_url).ready() as first,
        Maestoso("serve", "--database-url", database_url).ready() as second,
    ):
        async with loaded(load, [first, second], database_url):
            before = await epochs(database_url)
            first.process.send_signal(signal.SIGSTOP)

            async def taken_over() -> bool:
                return first.grpc not in await epochs(database_url)

            await until(taken_over, LEASE_MS / 1000 + 20)
            first.process.send_signal(signal.SIGCONT)

            async def back() -> bool:
                return (await epochs(database_url)).get(first.grpc, 0) > before[first.grpc]

            await until(back)
            seen = len(load.acknowledged)
            await until(lambda: more_than(load, seen + 50))


async def test_a_postgres_that_restarts_costs_time_and_nothing_else(own_postgres: EmbeddedPostgres) -> None:
    load = Load()
    with Maestoso("serve", "--database-url", own_postgres.url).ready() as node:
        async with loaded(load, [node], own_postgres.url):
            own_postgres.stop()
            await until(refused(load))
            own_postgres.start()
            seen = len(load.acknowledged)
            await until(lambda: more_than(load, seen + 50))

    assert all(refusal.retry_after is not None for refusal in load.refusals)


def refused(load: Load) -> Callable[[], Awaitable[bool]]:
    async def some() -> bool:
        return bool(load.refusals)

    return some
