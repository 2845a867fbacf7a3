"""Carries out what the dispatcher owes the database, and brings back what became of it.

Each duty is one method that does it once; the loops only wait for its time. What the database could
not take stays owed. A duty never waits for another one, but a kind of statement is never under way
twice.

    takes        as soon as rows wait and capacity is free, a few queues at a time
    hand-backs   at once (within 50 ms of the end of a stream)
    reads        every 50 ms, unless the completion came first; progress and log lines with them
    ticks        when the next session wants to know the time
    openings     when the next window of a rate limit opens
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from maestoso.task.v1.task_pb2 import TaskResult

from ..clock import Clock
from ..ids import canonical, split_task_id
from ..store import deliveries as rows
from ..store import lists, logs, queue, sessions
from ..store.database import Connection, Database, Unavailable
from ..store.nodes import NodeLost
from . import reports
from .alarm import Alarm
from .attempt import on_alarm
from .deliveries import Delivery, State
from .demand import Demand
from .dispatcher import Answer, Dispatcher
from .owed import Owed
from .session import Session
from .takes import TakeRequest

log = logging.getLogger(__name__)

TAKES_AT_ONCE = 4
"""Queues taken from at the same time: a limited one may wait for its lock."""
WRITE_BEHIND_MS = 50
REFRESH_MS = 3_000
"""How often the demand is repeated."""
BUSY_MS = 1
"""Pause where rows were held by a save."""
RETRY_MS = 200
"""Pause after a statement that did not reach the database."""
LINES_MOST = 5_000
"""Log lines of one statement."""


@dataclass(slots=True)
class Named:
    """A result that names its task instead of a delivery, who sent it and who wants to know."""

    result: TaskResult
    worker_id: str
    answer: Answer


class Loops:
    """The awaiting half of dispatch. `run` until cancelled."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        database: Database,
        clock: Clock,
        demand: Demand,
        epoch: Callable[[], int],
        wanted: Callable[[], set[tuple[str, str]]],
    ) -> None:
        """`wanted`: the queues that streams and polls of this node take from."""
        self._dispatcher = dispatcher
        self._owed: Owed = dispatcher.owed
        self._database = database
        self._clock = clock
        self._demand = demand
        self._epoch = epoch
        self._wanted = wanted
        self._takes_asked = asyncio.Event()
        self._at_once_asked = asyncio.Event()
        self._behind_asked = asyncio.Event()
        self._sooner = asyncio.Event()
        self._opens = Alarm(clock)
        dispatcher.owes = self._wake
        dispatcher.ticks.sooner = self._sooner.set
        dispatcher.opens = self._opens.notice

    async def run(self) -> None:
        """All loops, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(TAKES_AT_ONCE):
                group.create_task(self._on(self._takes_asked, self.take))
            group.create_task(self._on(self._at_once_asked, self.write_at_once))
            group.create_task(self._on(self._behind_asked, self.write_behind, WRITE_BEHIND_MS))
            group.create_task(self._tick())
            group.create_task(on_alarm(self._clock, self._opens, self._look))
            group.create_task(self._refresh())

    def _wake(self) -> None:
        owed = self._owed
        if self._dispatcher.takes_due:
            self._takes_asked.set()
        if owed.hand_backs or owed.detached or owed.nameless:
            self._at_once_asked.set()
        if owed.reads or owed.progress or owed.logs:
            self._behind_asked.set()

    async def _on(self, asked: asyncio.Event, duty: Callable[[], Awaitable[None]], pause_ms: int = 0) -> None:
        while True:
            await asked.wait()
            if pause_ms:
                await self._clock.sleep_until(self._clock.now_ms() + pause_ms)
            asked.clear()
            if not await self._attempt(duty):
                await self._clock.sleep_until(self._clock.now_ms() + RETRY_MS)
                asked.set()

    async def _attempt(self, duty: Callable[[], Awaitable[None]]) -> bool:
        """False: the database could not be reached, or this node is not a node any more just now."""
        try:
            await duty()
        except (Unavailable, NodeLost) as away:
            log.warning("dispatch waits for the database", extra={"cause": str(away)})
            return False
        except Exception:
            log.exception("a duty of dispatch failed")
            return False
        return True

    async def _tick(self) -> None:
        ticks = self._dispatcher.ticks
        while True:
            self._sooner.clear()
            await self._clock.wait(self._sooner, ticks.next_ms)
            self._dispatcher.tick()

    async def _refresh(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now_ms() + REFRESH_MS)
            await self._attempt(self.refresh_demand)

    # -- takes ---------------------------------------------------------------------------------------

    async def take(self) -> None:
        """Make the takes that are due, one after the other."""
        while (request := self._dispatcher.next_take()) is not None:
            try:
                taken = await self._take(request)
            except BaseException as error:
                # Nothing was taken only where the store says so: a cancelled wait proves nothing.
                unknown = error.unknown if isinstance(error, Unavailable) else not isinstance(error, NodeLost)
                self._dispatcher.take_failed(request, unknown=unknown)
                raise
            self._dispatcher.took(request, taken)

    async def _take(self, request: TakeRequest) -> queue.Take:
        ring = request.ring
        async with self._database.acquire() as conn:
            if request.limited is not None:
                return await queue.take_limited(
                    conn,
                    epoch=self._epoch(),
                    namespace=ring.namespace,
                    queue=ring.queue,
                    limit_name=request.limited,
                    sessions=request.sessions,
                    now_ms=self._clock.now_ms(),
                    after=request.after,
                    skip=request.skip,
                )
            return await queue.take(
                conn,
                epoch=self._epoch(),
                namespace=ring.namespace,
                queue=ring.queue,
                sessions=request.sessions,
                after=request.after,
                skip=request.skip,
            )

    async def _look(self) -> None:
        """Where a window of a rate limit has opened."""
        self._dispatcher.look()

    # -- at once -------------------------------------------------------------------------------------

    async def write_at_once(self) -> None:
        """Hand-backs, ended streams, results that name their task."""
        await self.hand_back()
        await self.detach()
        await self.resolve()

    async def hand_back(self) -> None:
        """Transitions 7 and 8."""
        owed = self._owed
        while owed.hand_backs:
            taken, owed.hand_backs = owed.hand_backs, {}
            items = {d: due_ms for d, due_ms in taken.items() if d.state is not State.OVER}
            if not items:
                continue
            epoch = self._epoch()
            try:
                touched = await self._hand_back(items, epoch)
            except BaseException:
                owed.hand_backs = {**taken, **owed.hand_backs}
                raise
            self._dispatcher.returned((d, due_ms) for d, due_ms in items.items() if _key(d) in touched.done)
            again = [d for d in items if _key(d) in touched.busy]
            again += self._dispatcher.not_found([d for d in items if _gone(d, touched)], epoch)
            if again:
                owed.hand_backs = {**{d: items[d] for d in again}, **owed.hand_backs}
                await self._clock.sleep_until(self._clock.now_ms() + BUSY_MS)

    async def _hand_back(self, items: dict[Delivery, int], epoch: int) -> rows.Touched:
        async with self._database.acquire() as conn:
            return await rows.hand_back(
                conn,
                epoch=epoch,
                items=[
                    rows.HandBack(d.workflow_id, d.seq, d.delivery, due_ms) for d, due_ms in items.items()
                ],
                now_ms=self._clock.now_ms(),
            )

    async def detach(self) -> None:
        """Transition 8: sessions whose stream has ended begin to expire."""
        ended = self._dispatcher.detachable()
        if not ended:
            return
        try:
            async with self._database.acquire() as conn:
                mine = await sessions.detach(
                    conn,
                    epoch=self._epoch(),
                    session_ids=[session.session_id for session in ended],
                    connected_ms=[max(session.connected_at_ms) for session in ended],
                    now_ms=self._clock.now_ms(),
                )
        except BaseException:
            self._owed.detached[:0] = ended
            raise
        self._dispatcher.not_detached(session for session in ended if session.session_id not in mine)

    async def resolve(self) -> None:
        """Transition 14, on streams."""
        named, self._owed.nameless = self._owed.nameless, []
        by_namespace: dict[str, list[Named]] = {}
        for session, result in named:
            answer = partial(_acknowledge_named, session, result.task_id)
            item = Named(result, session.worker_id, answer)
            by_namespace.setdefault(session.namespace, []).append(item)
        for namespace, items in by_namespace.items():
            await self.report_named(namespace, items)

    async def report_named(self, namespace: str, items: list[Named]) -> None:
        """Transition 14: results that name a task act on its current delivery. Every item is answered."""
        known: list[tuple[Named, tuple[str, str, int]]] = []
        for item in items:
            task_id = canonical(item.result.task_id)
            if task_id is None:
                item.answer(*reports.stale(f"{item.result.task_id[:50]!r} is not the id of a task"))
            else:
                known.append((item, split_task_id(task_id)))
        try:
            async with self._database.acquire() as conn:
                found = await rows.current_deliveries(conn, [place for _, place in known])
                for (item, place), current in zip(known, found, strict=True):
                    if current is not None:
                        self._dispatcher.report_named(item.result, current, item.worker_id, item.answer)
                    else:
                        await self._report_unqueued(conn, namespace, item, place)
        except Unavailable:
            for item in items:
                item.answer(*reports.unavailable())

    async def _report_unqueued(
        self, conn: Connection, namespace: str, item: Named, place: tuple[str, str, int]
    ) -> None:
        task = await lists.get_task(conn, namespace, *place)
        if task is None:
            item.answer(*reports.stale(f"no task {item.result.task_id} in namespace {namespace!r}"))
        else:
            self._dispatcher.report_unqueued(
                item.result, task.workflow_id, task.row.seq, item.worker_id, item.answer
            )

    # -- behind --------------------------------------------------------------------------------------

    async def write_behind(self) -> None:
        """Reads, progress and log lines."""
        await self.mark_read()
        await self.progress()
        await self.append_logs()

    async def mark_read(self) -> None:
        """Transition 4."""
        owed = self._owed
        taken, owed.reads = owed.reads, []
        items = [delivery for delivery in taken if delivery.state is State.READ]
        if not items:
            return
        epoch = self._epoch()
        try:
            async with self._database.acquire() as conn:
                touched = await rows.mark_read(
                    conn,
                    epoch=epoch,
                    reads=[
                        rows.Read(d.workflow_id, d.seq, d.delivery, d.started_ms, d.worker_id) for d in items
                    ],
                )
        except BaseException:
            owed.reads = items + owed.reads
            raise
        owed.reads += [d for d in items if _key(d) in touched.busy]
        owed.reads += self._dispatcher.not_found([d for d in items if _gone(d, touched)], epoch)
        self._wake()

    async def progress(self) -> None:
        """The response clocks of these start anew."""
        owed = self._owed
        taken, owed.progress = owed.progress, {}
        items = [item for item in taken.items() if item[0].state is State.READ]
        if not items:
            return
        try:
            async with self._database.acquire() as conn:
                touched = await rows.progress(
                    conn,
                    epoch=self._epoch(),
                    items=[
                        rows.ProgressMade(
                            delivery.workflow_id, delivery.seq, delivery.delivery, output or None
                        )
                        for delivery, output in items
                    ],
                    now_ms=self._clock.now_ms(),
                )
        except BaseException:
            owed.progress = {**taken, **owed.progress}
            raise
        busy = {delivery: output for delivery, output in items if _key(delivery) in touched.busy}
        owed.progress = {**busy, **owed.progress}
        self._wake()

    async def append_logs(self) -> None:
        """Lines of tasks' logs, in the order in which they came."""
        owed = self._owed
        while owed.logs:
            lines = owed.logs[:LINES_MOST]
            async with self._database.acquire() as conn:
                await logs.append(conn, lines)
            del owed.logs[: len(lines)]

    async def refresh_demand(self) -> None:
        """Transition 17."""
        await self._demand.refresh(self._wanted())


def _key(delivery: Delivery) -> rows.Key:
    return rows.Key(delivery.workflow_id, delivery.seq)


def _gone(delivery: Delivery, touched: rows.Touched) -> bool:
    key = _key(delivery)
    return key not in touched.done and key not in touched.busy


def _acknowledge_named(session: Session, task_id: str, outcome: int, error: object) -> None:
    session.acknowledge(b"", outcome, error, task_id)  # type: ignore[arg-type]
