"""Hints between nodes: they arrive, only where they are meant, and survive a broken connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from maestoso_server.ids import session_id
from maestoso_server.store.hints import CHANNEL, Hints
from ownership_kit import World, eventually, running


@dataclass
class Ear:
    """Takes down what is heard."""

    heard: list[tuple[str, ...]] = field(default_factory=list)
    missed: int = 0

    def queue_waits(self, namespace: str, queue: str) -> None:
        self.heard.append(("queue", namespace, queue))

    def messages_wait(self, workflow_id: str) -> None:
        self.heard.append(("message", workflow_id))

    def rows_ended(self) -> None:
        self.heard.append(("ended",))

    def answers_wait(self) -> None:
        self.heard.append(("answers",))

    def session_moved(self, session_id: str) -> None:
        self.heard.append(("moved", session_id))

    def may_have_missed(self) -> None:
        self.missed += 1


@asynccontextmanager
async def listening(world: World, epoch: int) -> AsyncIterator[tuple[Hints, Ear]]:
    ear = Ear()
    hints = Hints(database=world.database, listener=ear, epoch=lambda: epoch)
    async with running(hints.run()):
        await until(world, lambda: ear.missed == 1)
        yield hints, ear


async def until(world: World, condition: object) -> None:
    async def asked() -> bool:
        await world.conn.fetchval("SELECT 1")
        return bool(condition())  # type: ignore[operator]

    await eventually(asked)


async def test_arrive_where_they_are_meant(world: World) -> None:
    async with (
        listening(world, 1) as (one, ear_of_one),
        listening(world, 2) as (_, ear_of_two),
        listening(world, 3) as (_, ear_of_three),
    ):
        one.rows_wait("default", "pay")
        one.rows_ended(2)
        one.messages_wait(2, "w-2")
        one.messages_wait(3, "w-3")
        one.answers_wait(3)
        one.session_moved("s-1")
        await until(world, lambda: len(ear_of_two.heard) == 4 and len(ear_of_three.heard) == 4)
        assert set(ear_of_two.heard) == {
            ("queue", "default", "pay"),
            ("ended",),
            ("message", "w-2"),
            ("moved", "s-1"),
        }
        assert set(ear_of_three.heard) == {
            ("queue", "default", "pay"), ("answers",), ("message", "w-3"), ("moved", "s-1"),
        }  # fmt: skip
        assert ear_of_one.heard == []


async def test_of_one_moment_ride_together(world: World) -> None:
    payloads: list[str] = []

    def note(_conn: object, _pid: int, _channel: str, payload: str) -> None:
        payloads.append(payload)

    await world.conn.raw.add_listener(CHANNEL, note)
    async with listening(world, 1) as (one, _):
        for _ in range(50):
            one.rows_wait("default", "pay")
            one.rows_wait("default", "ship")
        await until(world, lambda: payloads)
        one.rows_wait("default", "last")
        await until(world, lambda: "last" in payloads[-1])
    await world.conn.raw.remove_listener(CHANNEL, note)
    assert len(payloads) == 2


async def test_too_many_for_one_notification_go_in_several(world: World) -> None:
    async with listening(world, 1) as (one, _), listening(world, 2) as (_, ear):
        sent = {session_id() for _ in range(700)}
        for moved in sent:
            one.session_moved(moved)
        await until(world, lambda: len(ear.heard) == len(sent))
        assert {moved for _, moved in ear.heard} == sent


async def test_of_another_version_are_passed_over(world: World) -> None:
    async with listening(world, 1) as (one, _), listening(world, 2) as (_, ear):
        await world.conn.execute("SELECT pg_notify($1, $2)", CHANNEL, '{"what":"is this"}')
        one.rows_wait("default", "pay")
        await until(world, lambda: ear.heard)
        assert ear.heard == [("queue", "default", "pay")]


async def test_after_a_broken_connection_are_heard_again_and_the_gap_is_told(world: World) -> None:
    async with listening(world, 1) as (one, _), listening(world, 2) as (_, ear):
        await world.conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        await until(world, lambda: ear.missed == 2)
        # The sender's own connection may still be on its way back.
        one.rows_wait("default", "pay")
        await until(world, lambda: ear.heard)
