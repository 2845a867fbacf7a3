"""An operator asks a worker to drain: its own node hears of it, and only while there is a stream."""

from __future__ import annotations

from maestoso_server.store import nodes, sessions
from maestoso_server.store.nodes import AskedDrain
from ownership_kit import World


async def drains(world: World, epoch: int) -> list[AskedDrain]:
    pulse = await nodes.pulse(world.conn, epoch=epoch, queues=[], now_ms=world.now_ms)
    return pulse.drains


async def ask(world: World, session_id: str, close_ms: int, *, namespace: str = "default") -> bool:
    return await sessions.ask_drain(
        world.conn, namespace=namespace, session_id=session_id, reason="upgrade", close_ms=close_ms
    )


async def test_the_node_that_serves_the_session_hears_of_it(world: World) -> None:
    epoch, other = await world.node(), await world.node()
    session = await world.session(epoch)
    close_ms = world.now_ms + 30_000

    asked = await ask(world, session.session_id, close_ms)

    assert asked
    assert await drains(world, epoch) == [AskedDrain(session.session_id, close_ms, "upgrade")]
    assert await drains(world, other) == []


async def test_asked_twice_the_earlier_end_holds(world: World) -> None:
    epoch = await world.node()
    session = await world.session(epoch)
    await ask(world, session.session_id, world.now_ms + 5_000)

    await ask(world, session.session_id, world.now_ms + 30_000)

    assert [drain.close_ms for drain in await drains(world, epoch)] == [world.now_ms + 5_000]


async def test_a_session_without_a_stream_or_of_another_namespace_is_not_found(world: World) -> None:
    epoch = await world.node()
    session = await world.session(epoch)

    elsewhere = await ask(world, session.session_id, world.now_ms, namespace="other")
    await sessions.detach(world.conn, epoch=epoch, session_ids=[session.session_id], now_ms=world.now_ms)
    detached = await ask(world, session.session_id, world.now_ms)

    assert (elsewhere, detached) == (False, False)
    assert await drains(world, epoch) == []


async def test_sessions_are_listed_by_state(world: World) -> None:
    epoch = await world.node()
    active, ended = await world.session(epoch), await world.session(epoch)
    await sessions.detach(world.conn, epoch=epoch, session_ids=[ended.session_id], now_ms=world.now_ms)

    async def listed(state: str | None) -> set[str]:
        rows = await sessions.list_sessions(world.conn, namespace="default", state=state)
        return {row.session_id for row in rows}

    assert await listed("ACTIVE") == {active.session_id}
    assert await listed("DETACHED") == {ended.session_id}
    assert await listed(None) == {active.session_id, ended.session_id}
