"""Rows that a node owns and does not know: found, and sent again; and nothing else is taken for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from dispatch_kit import Desk
from maestoso_server.dispatch.census import Census
from maestoso_server.dispatch.node import Node
from maestoso_server.dispatch.session import Session as Stream
from maestoso_server.store import queue
from node_kit import make_node
from ownership_kit import World


@dataclass
class News:
    found: list[int] = field(default_factory=list)

    def forgotten(self, count: int) -> None:
        self.found.append(count)


@dataclass
class Office:
    """A node with a dispatcher and one worker's stream, and its census."""

    world: World
    node: Node
    desk: Desk
    news: News
    census: Census
    stream: Stream

    async def taken(self, *, remembered: bool) -> None:
        """A row that the stream's session holds in the database."""
        await self.world.row()
        take = await queue.take(
            self.world.conn,
            epoch=self.node.epoch,
            namespace="default",
            queue="pay",
            sessions=[self.stream.session_id],
        )
        if remembered:
            self.desk.dispatcher.adopt(take.rows)


@pytest.fixture
async def office(world: World) -> AsyncIterator[Office]:
    async with make_node(world) as (node, _):
        row = await world.session(node.epoch)
        stream = Stream(
            session_id=row.session_id,
            namespace="default",
            worker_id=row.worker_id,
            queues={"pay": "pay"},
            now_ms=world.now_ms,
        )
        desk, news = Desk(clock=world.clock), News()
        stream.room.declare(10, 1_000)
        desk.dispatcher.open(stream)
        census = Census(
            database=world.database, clock=world.clock, node=node, memory=desk.dispatcher, news=news
        )
        yield Office(world, node, desk, news, census, stream)


async def test_a_row_that_its_node_does_not_know_twice_in_a_row_was_forgotten(office: Office) -> None:
    await office.taken(remembered=False)
    await office.census.run_once()
    assert office.news.found == []
    await office.census.run_once()
    assert office.news.found == [1]


async def test_a_row_that_was_on_its_way_at_the_first_look_was_not(office: Office) -> None:
    await office.taken(remembered=False)
    await office.census.run_once()
    await office.world.conn.execute("DELETE FROM task_queue")
    await office.taken(remembered=True)
    await office.census.run_once()
    assert office.news.found == []


async def test_rows_that_are_known_or_waiting_or_anothers_are_not(office: Office) -> None:
    await office.taken(remembered=True)
    await office.world.row()
    rival = await office.world.node()
    await office.world.row(owner=rival, session=office.stream.session_id, delivery=1)
    for _ in range(2):
        await office.census.run_once()
    assert office.news.found == []


async def test_while_the_node_is_about_to_rejoin_nothing_is_judged(office: Office) -> None:
    await office.taken(remembered=False)
    await office.census.run_once()
    office.node.outcome_unknown()
    for _ in range(2):
        await office.census.run_once()
    assert office.news.found == []
