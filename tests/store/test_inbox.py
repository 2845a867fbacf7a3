"""Messages put by a node that loses races, and the answers to them. DELIVERY 6."""

from __future__ import annotations

from maestoso_server import ids
from maestoso_server.engine.decision import MessageKind
from maestoso_server.payload import Json
from maestoso_server.store import inbox, nodes
from maestoso_server.store.inbox import Post
from maestoso_server.store.save import save
from ownership_kit import World
from store_kit import NOW_MS, advance, loaded, start, stored, task


async def workflow(world: World, epoch: int, tasks: int = 1) -> str:
    first = start(rows=[task(seq) for seq in range(1, tasks + 1)])
    await save(world.conn, [first], epoch=epoch, now_ms=NOW_MS)
    return first.decision.header.id


def result(workflow_id: str, seq: int, delivery: int) -> Post:
    return Post(workflow_id, MessageKind.RESULT, Json(b'{"s":%d}' % seq), delivery=(seq, delivery))


async def test_a_message_goes_to_the_node_that_wrote_last_while_it_lives(world: World) -> None:
    writer, sender = await world.node(), await world.node()
    target = await workflow(world, writer)
    post = Post(target, MessageKind.COMMAND, Json(b'{"c":1}'), due_ms=5, origin_epoch=sender)
    posted = await inbox.put(world.conn, [post], epoch=sender)
    assert (posted.node_alive, posted.drainers) == (True, [writer])
    (row,) = (await stored(world.conn, target))["inbox"]
    assert (row["id"], row["kind"], row["body"]) == (posted.ids[0], MessageKind.COMMAND, b'{"c":1}')
    assert (row["due_ms"], row["parked"]) == (5, False)
    assert (row["drain_epoch"], row["origin_epoch"]) == (writer, sender)

    await nodes.remove(world.conn, writer)
    assert (await inbox.put(world.conn, [post], epoch=sender)).drainers == [sender]


async def test_a_result_is_accepted_for_its_open_delivery_only_and_its_row_ends(world: World) -> None:
    writer, sender = await world.node(), await world.node()
    target = await workflow(world, writer, tasks=6)
    await world.conn.execute("UPDATE task_queue SET delivery = 1")
    await world.conn.execute("UPDATE task_queue SET owner_epoch = $1 WHERE seq = 2", sender)
    await world.conn.execute("UPDATE task_queue SET owner_epoch = $1 WHERE seq = 3", writer)
    await world.conn.execute("UPDATE task_queue SET owner_epoch = 0 WHERE seq = 4")
    await world.conn.execute("UPDATE task_queue SET ended = true WHERE seq = 5")
    posts = [result(target, seq, 1 if seq < 6 else 2) for seq in (6, 5, 4, 3, 2, 1, 7)]
    posted = await inbox.put(world.conn, posts, epoch=sender)

    rows = await stored(world.conn, target)
    accepted = {row["id"]: row["body"] for row in rows["inbox"]}
    bodies = [None if number is None else accepted[number] for number in posted.ids]
    assert bodies == [None, None, b'{"s":4}', b'{"s":3}', b'{"s":2}', b'{"s":1}', None]
    assert [(row["seq"], row["ended"]) for row in rows["task_queue"]] == [(3, True), (5, True), (6, False)]
    assert posted.foreign == [(target, 3, writer)]


async def test_a_message_to_nobody_is_not_kept(world: World) -> None:
    epoch = await world.node()
    posted = await inbox.put(
        world.conn, [Post(ids.workflow_id(NOW_MS), MessageKind.SIGNAL, Json(b"{}"))], epoch=epoch
    )
    assert (posted.node_alive, posted.ids) == (True, [None])


async def test_a_node_without_a_row_puts_nothing(world: World) -> None:
    epoch = await world.node()
    target = await workflow(world, epoch)
    posted = await inbox.put(world.conn, [result(target, 1, 0)], epoch=epoch + 1)
    assert (posted.node_alive, posted.ids) == (False, [None])
    rows = await stored(world.conn, target)
    assert "inbox" not in rows
    assert not rows["task_queue"][0]["ended"]


async def test_due_workflows_of_this_node_the_longest_due_first(world: World) -> None:
    mine, other = await world.node(), await world.node()
    one, two, three, theirs = [await workflow(world, epoch) for epoch in (mine, mine, mine, other)]
    put = [
        (one, 30, False),
        (two, 10, False),
        (one, 40, False),
        (three, 5, True),
        (three, 51, False),
        (theirs, 1, False),
    ]
    posts = [
        Post(target, MessageKind.SIGNAL, Json(b"{}"), due_ms=due_ms, parked=parked)
        for target, due_ms, parked in put
    ]
    await inbox.put(world.conn, posts, epoch=mine)
    assert await inbox.due_workflows(world.conn, epoch=mine, now_ms=50) == [two, one]
    assert await inbox.due_workflows(world.conn, epoch=mine, now_ms=50, limit=1) == [two]
    assert await inbox.due_workflows(world.conn, epoch=mine, now_ms=9) == []


async def test_an_answered_command_waits_for_its_origin_and_for_nobody_else(world: World) -> None:
    writer, origin = await world.node(), await world.node()
    target = await workflow(world, writer)
    posts = [Post(target, MessageKind.COMMAND, Json(b"{}"), origin_epoch=origin) for _ in range(2)]
    first, second = (await inbox.put(world.conn, posts, epoch=origin)).ids
    assert first is not None
    head = (await loaded(world.conn, target)).header
    assert head is not None
    await save(world.conn, [advance(head, answers=[(first, b"ok")])], epoch=writer, now_ms=NOW_MS)

    # An answered one is no longer to be applied.
    assert [m.id for m in (await loaded(world.conn, target)).messages] == [second]
    assert await inbox.take_answers(world.conn, epoch=writer) == []
    assert await inbox.take_answers(world.conn, epoch=origin) == [inbox.Answer(target, first, b"ok")]
    assert await inbox.take_answers(world.conn, epoch=origin) == []
    assert [row["id"] for row in (await stored(world.conn, target))["inbox"]] == [second]
