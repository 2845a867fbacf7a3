"""Which of two streams of one session is the later one, whatever order their words arrive in. Each of
these was found by `tests/simulation`."""

from __future__ import annotations

from collections.abc import Sequence

from maestoso_server.store import nodes, sessions
from maestoso_server.store.nodes import LEASE_MS
from maestoso_server.store.sessions import Resumed
from ownership_kit import World


async def resume(
    world: World,
    epoch: int,
    session_id: str,
    *,
    since_ms: Sequence[int] | None = None,
    stream_number: int = 0,
) -> Resumed | None:
    return await sessions.resume(
        world.conn,
        epoch=epoch,
        session_id=session_id,
        namespace="default",
        resume_token_hash=b"hash",
        held=[],
        now_ms=world.now_ms,
        adopt=since_ms is not None,
        since_ms=since_ms,
        stream_number=stream_number,
    )


async def test_every_resume_is_later_than_the_one_before_also_within_a_millisecond(world: World) -> None:
    epoch = await world.node()
    session = await world.session(epoch)

    first = await resume(world, epoch, session.session_id)
    second = await resume(world, epoch, session.session_id)

    assert first is not None
    assert second is not None
    assert session.connected_ms < first.session.connected_ms < second.session.connected_ms


async def test_a_node_that_was_asleep_does_not_take_a_session_back(world: World) -> None:
    asleep, other = await world.node(), await world.node()
    session = await world.session(asleep)
    assert await resume(world, other, session.session_id) is not None
    again = await world.node()

    assert await resume(world, again, session.session_id, since_ms=[session.connected_ms]) is None

    assert await world.conn.fetchval("SELECT epoch FROM session") == other


async def test_a_new_epoch_takes_its_own_sessions_also_after_a_takeover(world: World) -> None:
    old, taker = await world.node(lease_ms=-1), await world.node()
    session = await world.session(old)
    await nodes.takeover(world.conn, epoch=taker, dead=old, now_ms=world.now_ms)
    again = await world.node()

    resumed = await resume(world, again, session.session_id, since_ms=[7, session.connected_ms])

    assert resumed is not None
    assert await world.conn.fetchval("SELECT epoch FROM session WHERE state = 'ACTIVE'") == again


async def test_a_hello_that_was_overtaken_is_refused(world: World) -> None:
    slow, quick = await world.node(), await world.node()
    session = await world.session(slow)
    assert await resume(world, quick, session.session_id, stream_number=3) is not None

    assert await resume(world, slow, session.session_id, stream_number=2) is None
    assert await resume(world, slow, session.session_id, stream_number=3) is None

    assert await world.conn.fetchval("SELECT epoch FROM session") == quick
    assert await resume(world, slow, session.session_id, stream_number=4) is not None


async def test_a_worker_that_does_not_count_its_streams_resumes_all_the_same(world: World) -> None:
    epoch = await world.node()
    session = await world.session(epoch)
    assert await resume(world, epoch, session.session_id, stream_number=3) is not None

    assert await resume(world, epoch, session.session_id) is not None


async def test_the_end_of_an_older_stream_does_not_end_a_newer_one(world: World) -> None:
    epoch = await world.node()
    session = await world.session(epoch)
    resumed = await resume(world, epoch, session.session_id)
    assert resumed is not None

    async def detach(connected_ms: int) -> set[str]:
        return await sessions.detach(
            world.conn,
            epoch=epoch,
            session_ids=[session.session_id],
            connected_ms=[connected_ms],
            now_ms=world.now_ms,
        )

    assert await detach(session.connected_ms) == set()
    assert await world.conn.fetchval("SELECT state FROM session") == "ACTIVE"
    assert await detach(resumed.session.connected_ms) == {session.session_id}


async def test_a_dead_nodes_row_follows_a_session_that_had_left_it(world: World) -> None:
    dead, taker, server = await world.node(), await world.node(), await world.node()
    session = await world.session(dead)
    assert await resume(world, server, session.session_id) is not None
    late = await world.row(owner=dead, session=session.session_id, delivery=1)
    world.clock.advance(LEASE_MS + 1)

    taken = await nodes.takeover(world.conn, epoch=taker, dead=dead, now_ms=world.now_ms)

    assert taken is not None
    row = await world.queued(late)
    assert (row["owner_epoch"], str(row["session_id"]), row["delivery"]) == (server, session.session_id, 1)
    assert row["deadline_ms"] == world.now_ms


async def test_a_dead_nodes_row_of_a_session_that_it_served_goes_to_the_taker(world: World) -> None:
    dead, taker = await world.node(), await world.node()
    session = await world.session(dead)
    key = await world.row(owner=dead, session=session.session_id, delivery=1)
    world.clock.advance(LEASE_MS + 1)

    await nodes.takeover(world.conn, epoch=taker, dead=dead, now_ms=world.now_ms)

    row = await world.queued(key)
    assert (row["owner_epoch"], row["deadline_ms"]) == (taker, None)
