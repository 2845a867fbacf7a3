"""DELIVERY 2, 4, 5, 7, 14, 15: a row from its hand-out to its end."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from maestoso_server.ids import session_id, split_task_id, task_id
from maestoso_server.store import deliveries, nodes, queue
from maestoso_server.store.deliveries import HandBack, Key, ProgressMade, Read
from maestoso_server.store.nodes import NodeLost
from maestoso_server.store.queue import QueueName, Take, Watermark
from ownership_kit import World

S1, S2, S3 = (session_id() for _ in range(3))


async def take(world: World, epoch: int, sessions: list[str], **changes: object) -> Take:
    asked = {"conn": world.conn, "namespace": "default", "queue": "pay"} | changes
    return await queue.take(epoch=epoch, sessions=sessions, **asked)  # type: ignore[arg-type]


def keys(taken: Take) -> list[Key]:
    return [Key(row.workflow_id, row.seq) for row in taken.rows]


class TestTake:
    async def test_in_index_order_the_ith_row_to_the_ith_session(self, world: World) -> None:
        epoch = await world.node()
        late = await world.row(due_ms=world.now_ms + 2)
        early = await world.row(due_ms=world.now_ms + 1)
        urgent = await world.row(rank=9, due_ms=world.now_ms + 3)
        taken = await take(world, epoch, [S1, S2, S1, S3])
        assert keys(taken) == [urgent, early, late]
        assert [row.session_id for row in taken.rows] == [S1, S2, S1]
        row = await world.queued(early)
        assert (row["owner_epoch"], str(row["session_id"]), row["delivery"]) == (epoch, S2, 1)

    async def test_brings_all_that_an_assignment_needs(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row(
            rank=97, response_s=7, timeout_s=8, total_due_ms=9, delivery=4, unread=2, redeliver_on_loss=True
        )
        (row,) = (await take(world, epoch, [S1])).rows
        assert (row.workflow_id, row.seq, row.delivery, row.unread, row.priority) == (*key, 5, 2, 2)
        assert (row.namespace, row.queue, row.task_type, row.size, row.limit) == (
            "default",
            "pay",
            "pay",
            9,
            0,
        )
        assert (row.response_s, row.timeout_s, row.total_due_ms, row.redeliver_on_loss) == (7, 8, 9, True)
        assert (row.generation, row.reference, row.path, row.attempt) == (1, "ref", (3,), 2)
        assert (row.workflow_name, row.correlation_id, row.traceparent) == ("orders", "c-1", "00-trace")
        assert (row.scheduled_ms, row.input.raw) == (world.now_ms, b'{"n":1.0}')

    async def test_leaves_what_does_not_wait(self, world: World) -> None:
        epoch = await world.node()
        await world.row(owner=epoch, session=S1, delivery=1)
        await world.row(owner=0, delivery=1)
        await world.row(owner=-1, deadline_ms=world.now_ms)
        await world.row(queue="else")
        await world.row(namespace="other")
        assert (await take(world, epoch, [S1])).rows == []

    async def test_after_a_watermark_only_what_is_later_or_more_urgent(self, world: World) -> None:
        epoch = await world.node()
        first = await world.row(rank=50)
        second = await world.row(rank=50, due_ms=world.now_ms + 1)
        more_urgent = await world.row(rank=49, due_ms=world.now_ms + 9)
        less_urgent = await world.row(rank=51, due_ms=1)
        mark = Watermark(50, world.now_ms, *first)
        assert keys(await take(world, epoch, [S1] * 9, after=mark)) == [more_urgent, second, less_urgent]
        taken = await take(world, epoch, [S1])
        assert keys(taken) == [first]
        assert taken.rows[0].watermark == mark

    async def test_of_a_node_that_lost_its_row_takes_nothing(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row()
        await nodes.remove(world.conn, epoch)
        with pytest.raises(NodeLost):
            await take(world, epoch, [S1])
        assert (await world.queued(key))["delivery"] == 0

    async def test_against_take_each_row_once(self, world: World) -> None:
        epoch, rival = await world.node(), await world.node()
        first, second = await world.row(), await world.row(due_ms=world.now_ms + 1)
        async with world.other.transaction():
            held = await take(world, rival, [S2], conn=world.other)
            mine = await take(world, epoch, [S1, S1])
        assert (keys(held), keys(mine)) == ([first], [second])

    async def test_against_take_racing_drains_without_doubles(self, world: World) -> None:
        epochs = [await world.node() for _ in range(4)]
        expected = {await world.row() for _ in range(60)}

        async def drain(epoch: int) -> list[Key]:
            got: list[Key] = []
            async with world.database.acquire() as conn:
                while True:
                    taken = await take(world, epoch, [S1] * 7, conn=conn)
                    if not taken.rows:
                        return got
                    got += keys(taken)

        got = [key for part in await asyncio.gather(*map(drain, epochs)) for key in part]
        # A rival's lock hides a row from one take: those left over are taken by the next.
        got += keys(await take(world, epochs[0], [S1] * 60))
        assert Counter(got) == Counter(expected)

    async def test_against_a_save_that_ends_the_row(self, world: World) -> None:
        epoch = await world.node()
        ending, waiting = await world.row(), await world.row(due_ms=world.now_ms + 1)
        async with world.other.transaction():
            await world.other.execute("DELETE FROM task_queue WHERE workflow_id = $1", ending.workflow_id)
            assert keys(await take(world, epoch, [S1, S2])) == [waiting]
        assert await world.queued(ending) is None

    async def test_stops_before_a_limited_row_and_says_so(self, world: World) -> None:
        epoch = await world.node()
        free = await world.row()
        limited = await world.row(limit=1, due_ms=world.now_ms + 1)
        behind = await world.row(due_ms=world.now_ms + 2)
        taken = await take(world, epoch, [S1] * 3)
        assert (keys(taken), taken.limited) == ([free], "pay")
        assert (await world.queued(limited))["delivery"] == (await world.queued(behind))["delivery"] == 0


class TestTakeLimited:
    async def limited(self, world: World, epoch: int, sessions: list[str], **changes: object) -> Take:
        asked = {
            "conn": world.conn,
            "namespace": "default",
            "queue": "pay",
            "limit_name": "pay",
            "now_ms": world.now_ms,
        }
        asked |= changes
        return await queue.take_limited(epoch=epoch, sessions=sessions, **asked)  # type: ignore[arg-type]

    async def test_takes_what_the_limit_leaves_in_order(self, world: World) -> None:
        epoch = await world.node()
        await world.row(limit=3, owner=epoch, session=S1, delivery=1)
        first, second, third = [await world.row(limit=3, due_ms=world.now_ms + n) for n in range(3)]
        taken = await self.limited(world, epoch, [S1] * 5)
        assert (keys(taken), taken.limited) == ([first, second], "pay")
        await world.conn.execute("DELETE FROM task_queue WHERE workflow_id = $1", first.workflow_id)
        assert keys(await self.limited(world, epoch, [S1] * 5)) == [third]

    async def test_counts_polled_rows_and_other_domains_but_not_ended_or_sleeping_ones(
        self, world: World
    ) -> None:
        epoch = await world.node()
        await world.row(limit=3, owner=0, delivery=1)
        await world.row(limit=3, queue="blue:pay", task_type="pay", owner=epoch, session=S1, delivery=1)
        await world.row(limit=3, owner=epoch, session=S1, delivery=1, ended=True)
        await world.row(limit=3, owner=-1, deadline_ms=world.now_ms + 1)
        await world.row(limit=3), await world.row(limit=3)
        assert len((await self.limited(world, epoch, [S1] * 9)).rows) == 1
        assert (await self.limited(world, epoch, [S1] * 9)).rows == []

    async def test_rows_without_a_limit_pass_and_each_keeps_its_own(self, world: World) -> None:
        epoch = await world.node()
        two = [await world.row(limit=2, due_ms=world.now_ms + n) for n in range(3)]
        free = await world.row(due_ms=world.now_ms + 5)
        assert keys(await self.limited(world, epoch, [S1] * 9)) == two[:2]
        await world.conn.execute("DELETE FROM task_queue WHERE owner_epoch IS NULL AND task_limit > 0")
        taken = await self.limited(world, epoch, [S1] * 9)
        assert (keys(taken), taken.limited) == ([free], None)

    async def test_waits_for_the_holder_of_the_limit_and_then_sees_what_it_took(self, world: World) -> None:
        epoch, rival = await world.node(), await world.node()
        first, second = await world.row(limit=1), await world.row(limit=1, due_ms=world.now_ms + 1)
        async with world.database.acquire() as conn:
            async with world.other.transaction():
                assert keys(await self.limited(world, rival, [S2], conn=world.other)) == [first]
                mine = asyncio.create_task(self.limited(world, epoch, [S1], conn=conn))
                await world.blocked(conn)
            assert (await mine).rows == []
        assert (await world.queued(second))["delivery"] == 0

    async def test_with_eight_racing_takers_is_never_over(self, world: World) -> None:
        limit, total = 5, 60
        epochs = [await world.node() for _ in range(8)]
        for _ in range(total):
            await world.row(limit=limit)
        most = ended = 0

        async def work(epoch: int) -> None:
            nonlocal most, ended
            async with world.database.acquire() as conn:
                while ended < total:
                    taken = await self.limited(world, epoch, [S1] * 3, conn=conn)
                    running = await conn.fetchval(
                        "SELECT count(*) FROM task_queue WHERE owner_epoch IS NOT NULL"
                    )
                    most = max(most, running)
                    for row in taken.rows:
                        await conn.execute("DELETE FROM task_queue WHERE workflow_id = $1", row.workflow_id)
                        ended += 1

        await asyncio.gather(*map(work, epochs))
        assert ended == total
        assert 0 < most <= limit

    async def test_with_eight_racing_takers_fills_the_limit(self, world: World) -> None:
        epochs = [await world.node() for _ in range(8)]
        for _ in range(20):
            await world.row(limit=5)

        async def once(epoch: int) -> Take:
            async with world.database.acquire() as conn:
                return await self.limited(world, epoch, [S1] * 3, conn=conn)

        taken = await asyncio.gather(*map(once, epochs))
        assert sum(len(part.rows) for part in taken) == 5

    async def test_of_a_node_that_lost_its_row_takes_nothing(self, world: World) -> None:
        epoch = await world.node()
        await world.row(limit=1)
        await nodes.remove(world.conn, epoch)
        with pytest.raises(NodeLost):
            await self.limited(world, epoch, [S1])


class TestTakePolled:
    async def polled(self, world: World, epoch: int, **changes: object) -> Take:
        asked = {
            "conn": world.conn, "namespace": "default", "queue": "pay", "worker_id": "poller", "count": 9,
            "now_ms": world.now_ms,
        } | changes  # fmt: skip
        return await queue.take_polled(epoch=epoch, **asked)  # type: ignore[arg-type]

    async def test_commits_start_worker_and_clocks(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row(response_s=60, timeout_s=30, unread=3)
        clockless = await world.row(due_ms=world.now_ms + 1)
        taken = await self.polled(world, epoch)
        assert keys(taken) == [key, clockless]
        assert [row.session_id for row in taken.rows] == [None, None]
        row, task = await world.queued(key), await world.task(key)
        assert (row["owner_epoch"], row["delivery"], row["unread"], row["worker_id"]) == (0, 1, 0, "poller")
        assert (row["started_ms"], row["deadline_ms"]) == (world.now_ms, None)
        assert (task["status"], task["started_ms"], task["worker_id"]) == (2, world.now_ms, "poller")
        assert (task["poll_count"], task["updated_ms"]) == (1, world.now_ms)
        assert await world.deadline(key) == world.now_ms + 30_000
        assert await world.deadline(clockless) is None

    async def test_a_second_hand_out_keeps_the_start_and_renews_the_response_clock(
        self, world: World
    ) -> None:
        epoch = await world.node()
        key = await world.row(response_s=60)
        begun_ms = world.now_ms
        await self.polled(world, epoch)
        await world.conn.execute("UPDATE task_queue SET owner_epoch = NULL")
        world.clock.advance(5_000)
        (row,) = (await self.polled(world, epoch)).rows
        assert row.delivery == 2
        assert (await world.task(key))["started_ms"] == begun_ms
        assert (await world.task(key))["poll_count"] == 2
        assert await world.deadline(key) == world.now_ms + 60_000

    async def test_passes_over_a_task_that_a_save_holds(self, world: World) -> None:
        epoch = await world.node()
        held, free = await world.row(), await world.row(due_ms=world.now_ms + 1)
        async with world.other.transaction():
            await world.other.execute("UPDATE task SET status = 8 WHERE workflow_id = $1", held.workflow_id)
            assert keys(await self.polled(world, epoch)) == [free]

    async def test_under_a_limit_counts_and_keeps_to_it(self, world: World) -> None:
        epoch = await world.node()
        await world.row(limit=2), await world.row(limit=2), await world.row(limit=2)
        first = await self.polled(world, epoch)
        assert (first.rows, first.limited) == ([], "pay")
        assert len((await self.polled(world, epoch, limit_name="pay")).rows) == 2
        assert (await self.polled(world, epoch, limit_name="pay")).rows == []

    async def test_of_a_node_that_lost_its_row_takes_nothing(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row()
        await nodes.remove(world.conn, epoch)
        with pytest.raises(NodeLost):
            await self.polled(world, epoch)
        assert (await world.task(key))["status"] == 1


class TestRead:
    async def test_starts_the_task_and_its_clocks(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row(
            owner=epoch,
            session=S1,
            delivery=3,
            unread=2,
            response_s=20,
            timeout_s=10,
            total_due_ms=world.now_ms + 99,
        )
        read_ms = world.now_ms - 50
        touched = await deliveries.mark_read(world.conn, epoch=epoch, reads=[Read(*key, 3, read_ms, "w")])
        assert touched == deliveries.Touched({key}, set())
        row, task = await world.queued(key), await world.task(key)
        assert (row["unread"], row["worker_id"], row["started_ms"]) == (0, "w", read_ms)
        assert row["deadline_ms"] == world.now_ms + 99
        assert (task["status"], task["started_ms"], task["worker_id"]) == (2, read_ms, "w")

    @pytest.mark.parametrize(
        ("response_s", "timeout_s", "due_s"),
        [(20, 10, 10), (5, 10, 5), (0, 0, None), (2_200_000_000 // 1000, 0, 2_200_000)],
    )
    async def test_the_earliest_clock_counts(
        self, world: World, response_s: int, timeout_s: int, due_s: int | None
    ) -> None:
        epoch = await world.node()
        key = await world.row(owner=epoch, session=S1, delivery=1, response_s=response_s, timeout_s=timeout_s)
        await deliveries.mark_read(world.conn, epoch=epoch, reads=[Read(*key, 1, world.now_ms, "w")])
        expected = None if due_s is None else world.now_ms + due_s * 1000
        assert (await world.queued(key))["deadline_ms"] == expected

    async def test_of_a_stale_token_or_another_owner_changes_nothing(self, world: World) -> None:
        epoch, rival = await world.node(), await world.node()
        newer = await world.row(owner=epoch, session=S1, delivery=2)
        moved = await world.row(owner=rival, session=S1, delivery=1)
        ended = await world.row(owner=epoch, session=S1, delivery=1, ended=True)
        reads = [Read(*key, 1, world.now_ms, "w") for key in (newer, moved, ended)]
        assert await deliveries.mark_read(world.conn, epoch=epoch, reads=reads) == deliveries.Touched(
            set(), set()
        )
        for key in (newer, moved, ended):
            assert (await world.task(key))["status"] == 1

    async def test_against_a_save_in_flight_is_busy_and_does_not_wait(self, world: World) -> None:
        epoch = await world.node()
        key, free = (
            await world.row(owner=epoch, session=S1, delivery=1),
            await world.row(owner=epoch, session=S1, delivery=1),
        )
        async with world.other.transaction():
            await world.other.execute("DELETE FROM task_queue WHERE workflow_id = $1", key.workflow_id)
            reads = [Read(*key, 1, world.now_ms, "w"), Read(*free, 1, world.now_ms, "w")]
            touched = await deliveries.mark_read(world.conn, epoch=epoch, reads=reads)
            assert touched == deliveries.Touched({free}, {key})
        assert await deliveries.mark_read(world.conn, epoch=epoch, reads=reads[:1]) == deliveries.Touched(
            set(), set()
        )

    async def test_of_a_node_that_lost_its_row_writes_nothing(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row(owner=epoch, session=S1, delivery=1)
        await nodes.remove(world.conn, epoch)
        with pytest.raises(NodeLost):
            await deliveries.mark_read(world.conn, epoch=epoch, reads=[Read(*key, 1, world.now_ms, "w")])
        assert (await world.task(key))["status"] == 1


class TestProgress:
    async def test_renews_the_response_clock_only(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row(owner=epoch, session=S1, delivery=1, response_s=20, timeout_s=100)
        await deliveries.mark_read(world.conn, epoch=epoch, reads=[Read(*key, 1, world.now_ms, "w")])
        begun_ms = world.now_ms
        world.clock.advance(15_000)
        items = [ProgressMade(*key, 1, b'{"half":true}')]
        touched = await deliveries.progress(world.conn, epoch=epoch, items=items, now_ms=world.now_ms)
        assert touched.done == {key}
        row, task = await world.queued(key), await world.task(key)
        assert (row["started_ms"], row["deadline_ms"]) == (begun_ms, world.now_ms + 20_000)
        assert (task["updated_ms"], task["output"]) == (world.now_ms, b'{"half":true}')
        world.clock.advance(15_000)
        await deliveries.progress(world.conn, epoch=epoch, items=[ProgressMade(*key, 1)], now_ms=world.now_ms)
        assert (await world.task(key))["output"] == b'{"half":true}'

    async def test_of_a_polled_task_moves_its_deadline_row(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row(owner=0, delivery=1, response_s=20, started_ms=world.now_ms)
        world.clock.advance(7_000)
        await deliveries.progress(world.conn, epoch=epoch, items=[ProgressMade(*key, 1)], now_ms=world.now_ms)
        assert await world.deadline(key) == world.now_ms + 20_000
        assert (await world.queued(key))["deadline_ms"] is None

    async def test_works_at_a_node_that_is_not_the_owner(self, world: World) -> None:
        epoch, owner = await world.node(), await world.node()
        key = await world.row(owner=owner, session=S1, delivery=1, response_s=20)
        touched = await deliveries.progress(
            world.conn, epoch=epoch, items=[ProgressMade(*key, 1)], now_ms=world.now_ms
        )
        assert touched.done == {key}
        row = await world.queued(key)
        assert (row["owner_epoch"], row["deadline_ms"]) == (owner, world.now_ms + 20_000)

    async def test_of_a_stale_token_or_a_waiting_row_changes_nothing(self, world: World) -> None:
        epoch = await world.node()
        waiting, newer = await world.row(delivery=1), await world.row(owner=epoch, session=S1, delivery=2)
        items = [ProgressMade(*waiting, 1, b"{}"), ProgressMade(*newer, 1, b"{}")]
        touched = await deliveries.progress(world.conn, epoch=epoch, items=items, now_ms=world.now_ms)
        assert touched == deliveries.Touched(set(), set())
        assert (await world.task(newer))["output"] is None


class TestHandBack:
    async def test_at_once_keeps_its_place_and_spends_nothing(self, world: World) -> None:
        epoch = await world.node()
        behind = await world.row(due_ms=world.now_ms + 1)
        key = await world.row(owner=epoch, session=S1, delivery=3, unread=2)
        touched = await deliveries.hand_back(
            world.conn, epoch=epoch, items=[HandBack(*key, 3)], now_ms=world.now_ms
        )
        assert touched.done == {key}
        taken = await take(world, epoch, [S2, S2])
        assert keys(taken) == [key, behind]
        assert (taken.rows[0].delivery, taken.rows[0].unread) == (4, 2)

    async def test_until_later_sleeps_and_is_woken_when_due(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row(owner=epoch, session=S1, delivery=1)
        due_ms = world.now_ms + 3_000
        await deliveries.hand_back(
            world.conn, epoch=epoch, items=[HandBack(*key, 1, due_ms)], now_ms=world.now_ms
        )
        assert (await take(world, epoch, [S1])).rows == []
        assert await deliveries.wake_asleep(world.conn, epoch=epoch, now_ms=due_ms - 1) == (0, set())
        woken = await deliveries.wake_asleep(world.conn, epoch=epoch, now_ms=due_ms)
        assert woken == (1, {QueueName("default", "pay")})
        (row,) = (await take(world, epoch, [S1])).rows
        assert (row.due_ms, row.delivery) == (due_ms, 2)

    async def test_of_a_delivery_that_was_read_undoes_the_start(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row(owner=epoch, session=S1, delivery=1, timeout_s=9)
        await deliveries.mark_read(world.conn, epoch=epoch, reads=[Read(*key, 1, world.now_ms - 9, "w")])
        await deliveries.hand_back(world.conn, epoch=epoch, items=[HandBack(*key, 1)], now_ms=world.now_ms)
        row, task = await world.queued(key), await world.task(key)
        assert (row["started_ms"], row["deadline_ms"], row["worker_id"]) == (0, None, "")
        assert (task["status"], task["started_ms"], task["worker_id"]) == (1, 0, "")
        # The engine is made to look for the clock of a waiting task.
        assert await world.deadline(key) == world.now_ms

    async def test_of_a_cancelled_poll(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row(owner=0, delivery=1)
        await deliveries.hand_back(world.conn, epoch=epoch, items=[HandBack(*key, 1)], now_ms=world.now_ms)
        assert keys(await take(world, epoch, [S1])) == [key]

    async def test_of_a_stale_token_or_another_owner_changes_nothing(self, world: World) -> None:
        epoch, rival = await world.node(), await world.node()
        newer = await world.row(owner=epoch, session=S1, delivery=2)
        moved = await world.row(owner=rival, session=S1, delivery=1)
        items = [HandBack(*newer, 1), HandBack(*moved, 1)]
        touched = await deliveries.hand_back(world.conn, epoch=epoch, items=items, now_ms=world.now_ms)
        assert touched == deliveries.Touched(set(), set())
        assert (await take(world, epoch, [S1])).rows == []

    async def test_against_a_result_in_flight_is_busy(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row(owner=epoch, session=S1, delivery=1)
        async with world.other.transaction():
            await world.other.execute(
                "SELECT FROM task_queue WHERE workflow_id = $1 FOR UPDATE", key.workflow_id
            )
            touched = await deliveries.hand_back(
                world.conn, epoch=epoch, items=[HandBack(*key, 1)], now_ms=world.now_ms
            )
            assert touched == deliveries.Touched(set(), {key})


class TestOwned:
    async def test_ended_rows_of_mine_go_once(self, world: World) -> None:
        epoch, rival = await world.node(), await world.node()
        key = await world.row(owner=epoch, session=S1, delivery=2, ended=True)
        others = await world.row(owner=rival, session=S1, delivery=2, ended=True)
        await world.row(owner=epoch, session=S1, delivery=1)
        rows = await deliveries.ended_rows(world.conn, epoch=epoch)
        assert rows == [deliveries.EndedRow(*key, 2, S1)]
        assert await world.queued(key) is None
        assert await world.queued(others) is not None
        assert await deliveries.ended_rows(world.conn, epoch=epoch) == []

    async def test_due_rows_of_mine_earliest_first(self, world: World) -> None:
        epoch = await world.node()
        now_ms = world.now_ms
        later = await world.row(
            owner=epoch, session=S1, delivery=1, deadline_ms=now_ms, started_ms=5, worker_id="w"
        )
        lost = await world.row(owner=epoch, delivery=1, deadline_ms=now_ms - 1)
        unread = await world.row(
            owner=epoch, delivery=1, deadline_ms=now_ms - 2, unread=deliveries.MOST_UNREAD
        )
        await world.row(owner=epoch, session=S1, delivery=1, deadline_ms=now_ms + 1)
        await world.row(owner=epoch, session=S1, delivery=1, deadline_ms=now_ms, ended=True)
        await world.row(owner=-1, deadline_ms=now_ms)
        due = await deliveries.due_owned(world.conn, epoch=epoch, now_ms=now_ms)
        assert [Key(row.workflow_id, row.seq) for row in due] == [unread, lost, later]
        assert [(row.lost, row.unread) for row in due] == [(True, True), (True, False), (False, False)]
        assert (due[2].started_ms, due[2].worker_id, due[2].delivery) == (5, "w", 1)

    async def test_a_settled_one_gets_its_next_clock(self, world: World) -> None:
        epoch = await world.node()
        key = await world.row(
            owner=epoch, session=S1, delivery=1, response_s=10, timeout_s=5, started_ms=world.now_ms
        )
        none_left = await world.row(owner=epoch, session=S1, delivery=1, timeout_s=5, started_ms=world.now_ms)
        renewed = await world.row(owner=epoch, session=S1, delivery=1)
        begun_ms = world.now_ms
        await world.conn.execute("UPDATE task_queue SET deadline_ms = $1", begun_ms + 5_000)
        world.clock.advance(5_000)
        due = await deliveries.due_owned(world.conn, epoch=epoch, now_ms=world.now_ms)
        assert len(due) == 3
        await world.conn.execute(
            "UPDATE task_queue SET deadline_ms = $2 WHERE workflow_id = $1",
            renewed.workflow_id,
            world.now_ms + 7,
        )
        await deliveries.settle_due(world.conn, epoch=epoch, rows=due, now_ms=world.now_ms)
        assert (await world.queued(key))["deadline_ms"] == begun_ms + 10_000
        assert (await world.queued(none_left))["deadline_ms"] is None
        assert (await world.queued(renewed))["deadline_ms"] == world.now_ms + 7

    async def test_waking_is_shared(self, world: World) -> None:
        epoch = await world.node()
        first = await world.row(owner=-1, deadline_ms=world.now_ms - 1)
        await world.row(owner=-1, deadline_ms=world.now_ms)
        async with world.other.transaction():
            await world.other.execute(
                "SELECT FROM task_queue WHERE workflow_id = $1 FOR UPDATE", first.workflow_id
            )
            count, _ = await deliveries.wake_asleep(world.conn, epoch=epoch, now_ms=world.now_ms)
        assert count == 1
        assert (await world.queued(first))["owner_epoch"] == -1


class TestCurrentDelivery:
    async def test_for_reports_without_a_token(self, world: World) -> None:
        epoch = await world.node()
        session = await world.session(epoch, worker_id="streamer")
        polled = await world.row(owner=0, delivery=3, worker_id="poller")
        streamed = await world.row(owner=epoch, session=session.session_id, delivery=2)
        waiting = await world.row()
        ended = await world.row(owner=epoch, session=session.session_id, delivery=2, ended=True)
        asked = [split_task_id(task_id(*key)) for key in (polled, streamed)]
        asked += [
            (waiting.workflow_id, waiting.workflow_id, waiting.seq),
            (ended.workflow_id, ended.workflow_id, ended.seq),
        ]
        found = await deliveries.current_deliveries(world.conn, asked)
        assert found == [
            deliveries.Current(*polled, 3, 0, "poller"),
            deliveries.Current(*streamed, 2, epoch, "streamer"),
            deliveries.Current(*waiting, 0, None, ""),
            None,
        ]


class TestDepths:
    async def test_counts_waiting_rows_and_the_oldest(self, world: World) -> None:
        now_ms = world.now_ms
        await world.row(queue="a", rank=5, due_ms=now_ms - 10)
        await world.row(queue="a", rank=99, due_ms=now_ms - 3_000)
        await world.row(queue="a", rank=99, due_ms=now_ms - 20)
        await world.row(queue="b", due_ms=now_ms - 7)
        await world.row(queue="c", owner=0, delivery=1)
        await world.row(queue="b", namespace="other", due_ms=now_ms)
        found = await queue.depths(world.conn, now_ms=now_ms, cap=3)
        assert [(row.namespace, row.queue, row.depth, row.oldest_age_ms, row.exact) for row in found] == [
            ("default", "a", 3, 3_000, False),
            ("default", "b", 1, 7, True),
            ("other", "b", 1, 0, True),
        ]
        assert [row.queue for row in await queue.depths(world.conn, now_ms=now_ms, namespace="other")] == [
            "b"
        ]
        assert await queue.depths(world.conn, now_ms=now_ms, namespace="nowhere") == []

    async def test_backlog_names_queues_in_which_something_waits(self, world: World) -> None:
        await world.row(queue="a")
        await world.row(queue="b", owner=0, delivery=1)
        asked = [("default", "a"), ("default", "b"), ("other", "a")]
        assert await queue.backlog(world.conn, asked) == {QueueName("default", "a")}
