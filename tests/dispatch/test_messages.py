"""DELIVERY 5, 6: what other nodes left for this one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from maestoso.task.v1 import task_service_pb2 as wire
from maestoso_server.dispatch.messages import Messages
from maestoso_server.ids import session_id
from maestoso_server.store import nodes
from maestoso_server.store.deliveries import Key
from ownership_kit import World


@dataclass
class Doors:
    """Takes down what is let in, for the executor and the dispatcher."""

    drained: list[str] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    cancelled: list[tuple[str, int, int]] = field(default_factory=list)

    def drain(self, workflow_id: str) -> None:
        self.drained.append(workflow_id)

    def answered(self, message_id: int, outcome: bytes) -> None:
        self.answers.append((message_id, outcome))

    def cancel(self, workflow_id: str, seq: int, delivery: int, reason: wire.CancelReason.ValueType) -> None:
        assert reason == wire.CANCEL_REASON_WORKFLOW_ENDED
        self.cancelled.append((workflow_id, seq, delivery))


@dataclass
class Post:
    world: World
    epoch: int
    doors: Doors
    messages: Messages

    async def put(self, *, drain: int, origin: int = 0, outcome: bytes | None = None, due_ms: int = 0) -> str:
        workflow_id = session_id()
        await self.world.conn.execute(
            "INSERT INTO inbox (workflow_id, kind, body, due_ms, parked, drain_epoch, origin_epoch, outcome)"
            " VALUES ($1, 1, '{}', $2, false, $3, $4, $5)",
            workflow_id, due_ms, drain, origin, outcome,
        )  # fmt: skip
        return workflow_id

    async def look(self) -> None:
        pulse = await nodes.pulse(self.world.conn, epoch=self.epoch, queues=[], now_ms=self.world.now_ms)
        self.messages.see(pulse)
        if pulse.inbox_due_ms is not None and pulse.inbox_due_ms <= self.world.now_ms:
            await self.messages.drain()


@pytest.fixture
async def post(world: World) -> AsyncIterator[Post]:
    epoch, doors = await world.node(), Doors()
    messages = Messages(
        database=world.database, clock=world.clock, epoch=lambda: epoch, engine=doors, cancels=doors
    )
    yield Post(world, epoch, doors, messages)


async def test_a_message_that_stays_is_drained_at_the_second_look(post: Post) -> None:
    mine = await post.put(drain=post.epoch)
    await post.put(drain=await post.world.node())
    await post.look()
    assert post.doors.drained == []
    await post.look()
    assert post.doors.drained == [mine]


async def test_a_message_applied_meanwhile_is_not(post: Post) -> None:
    await post.put(drain=post.epoch)
    await post.look()
    await post.world.conn.execute("DELETE FROM inbox")
    other = await post.put(drain=post.epoch)
    await post.look()
    assert post.doors.drained == []
    await post.look()
    assert post.doors.drained == [other]


async def test_a_message_that_is_not_due_waits(post: Post) -> None:
    later = await post.put(drain=post.epoch, due_ms=post.world.now_ms + 50)
    await post.look()
    await post.look()
    assert post.doors.drained == []
    post.world.clock.advance(50)
    await post.look()
    await post.look()
    assert post.doors.drained == [later]


async def test_inherited_and_hinted_messages_are_drained_at_once(post: Post) -> None:
    inherited = await post.put(drain=post.epoch)
    post.messages.inherited()
    await post.messages.drain()
    post.messages.messages_wait("w")
    assert post.doors.drained == [inherited, "w"]


async def test_answers_to_this_node_are_handed_on_once(post: Post) -> None:
    await post.put(drain=1, origin=post.epoch, outcome=b"yes")
    await post.put(drain=1, origin=post.epoch)
    await post.put(drain=1, origin=post.epoch + 99, outcome=b"no")
    await post.messages.take_answers()
    await post.messages.take_answers()
    assert [outcome for _, outcome in post.doors.answers] == [b"yes"]


async def test_rows_that_ended_elsewhere_are_cancelled_once(post: Post) -> None:
    world = post.world
    ended = await world.row(owner=post.epoch, session=session_id(), delivery=3, ended=True)
    open_row = await world.row(owner=post.epoch, session=session_id(), delivery=1)
    await post.messages.end_rows()
    await post.messages.end_rows()
    assert post.doors.cancelled == [(*Key(*ended), 3)]
    assert await world.queued(open_row) is not None
