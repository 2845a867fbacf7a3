"""Taking without a stream: a poll waits until rows may be there, then takes once. DELIVERY 14.

    poll ──▶ a place in the line of each of its queues ──rows wait──▶ takes, first come first served

Nothing is asked of the database while nothing is known to wait: a thousand idle polls cost what the
pulse of the node costs, which looks at their queues too. What was taken is committed as read and
started before the poll is answered; a poll that went away meanwhile hands its rows back.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..clock import Clock
from ..store import queue
from ..store.database import Database
from ..store.queue import Taken
from .demand import Demand
from .dispatcher import Dispatcher
from .takes import LOOK_AGAIN_MS


@dataclass(slots=True, eq=False)
class _Poller:
    """One poll. `queues`: queue -> task type."""

    namespace: str
    queues: Mapping[str, str]
    worker_id: str
    count: int
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """It was answered, or it is over."""
    rows: list[Taken] = field(default_factory=list)
    error: Exception | None = None
    taking: bool = False
    """A take for it is under way in one of its lines: the others pass it over."""
    gone: bool = False
    looked: bool = False
    """It has asked once what waits: from here on it is told."""


@dataclass(slots=True, eq=False)
class _Line:
    """Who polls one queue, in the order of their coming."""

    namespace: str
    queue: str
    task_type: str
    pollers: OrderedDict[_Poller, None] = field(default_factory=OrderedDict)
    told: bool = False
    """Rows may be there since the last take began."""
    server: asyncio.Task[None] | None = None
    opening: asyncio.Task[None] | None = None
    """Takes again when the window of a rate limit has opened."""
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the take under way is over; the next one has another."""

    def turn_over(self) -> None:
        self.turn.set()
        self.turn = asyncio.Event()


class Polling:
    """All polls of one node."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        database: Database,
        clock: Clock,
        demand: Demand,
        epoch: Callable[[], int],
    ) -> None:
        self._dispatcher = dispatcher
        self._database = database
        self._clock = clock
        self._demand = demand
        self._epoch = epoch
        self._lines: dict[tuple[str, str], _Line] = {}
        dispatcher.on_waiting = self.waiting
        dispatcher.on_slot_freed = self.slot_freed

    def wanted(self) -> set[tuple[str, str]]:
        """(namespace, queue) of every queue that somebody polls."""
        return set(self._lines)

    async def poll(
        self, *, namespace: str, queues: Mapping[str, str], worker_id: str, count: int, until_ms: int
    ) -> list[Taken]:
        """Up to `count` rows of these queues (queue -> task type), as soon as there is one; empty at
        `until_ms`. Raises `store.Unavailable` and `NodeLost`."""
        names = [(namespace, name) for name in queues]
        await self._demand.note(names)
        poller = _Poller(namespace, queues, worker_id, count)
        lines = self._enter(poller)
        try:
            async with self._database.acquire() as conn:
                waiting = await queue.backlog(conn, names)
            poller.looked = True
            for name in waiting:
                self.waiting(*name)
            await self._clock.wait(poller.done, until_ms)
            await self._until_served(poller, lines)
            if poller.error is not None:
                raise poller.error
            rows, poller.rows = poller.rows, []
            return rows
        finally:
            self._leave(poller)

    def waiting(self, namespace: str, name: str) -> None:
        """Rows may wait in this queue."""
        line = self._lines.get((namespace, name))
        if line is not None:
            line.told = True
            if line.server is None:
                line.server = asyncio.get_running_loop().create_task(self._serve(line))

    def slot_freed(self, namespace: str, queue: str, task_type: str) -> None:
        """A task of this limited type ended: in whatever domain, another one may run."""
        for line in list(self._lines.values()):
            if line.namespace == namespace and (line.queue == queue or line.task_type == task_type):
                self.waiting(namespace, line.queue)

    def _opens(self, line: _Line, due_ms: int) -> None:
        """Rows of this line may be handed out from then on."""
        if line.opening is None:
            line.opening = asyncio.get_running_loop().create_task(self._open(line, due_ms))

    async def _open(self, line: _Line, due_ms: int) -> None:
        await self._clock.sleep_until(due_ms)
        line.opening = None
        self.waiting(line.namespace, line.queue)

    def _drop(self, line: _Line) -> None:
        """Nobody polls this queue any more."""
        self._lines.pop((line.namespace, line.queue), None)
        if line.opening is not None:
            line.opening.cancel()

    def _enter(self, poller: _Poller) -> list[_Line]:
        lines = []
        for name, task_type in poller.queues.items():
            key = (poller.namespace, name)
            line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = _Line(poller.namespace, name, task_type)
            line.pollers[poller] = None
            lines.append(line)
        return lines

    def _leave(self, poller: _Poller) -> None:
        """The poll is over; rows that it did not answer with go back."""
        poller.gone = True
        for name in poller.queues:
            key = (poller.namespace, name)
            line = self._lines.get(key)
            if line is not None:
                line.pollers.pop(poller, None)
                if not line.pollers and line.server is None:
                    self._drop(line)
        for row in poller.rows:
            self._dispatcher.return_polled(row, poller.worker_id)

    async def _until_served(self, poller: _Poller, lines: list[_Line]) -> None:
        """A poll whose time is over is still answered by takes under way: its rows may be among them."""
        for line in lines:
            while line.server is not None and not poller.done.is_set():
                await line.turn.wait()

    async def _serve(self, line: _Line) -> None:
        """Take for one poller after the other until the queue is empty or nobody polls any more."""
        try:
            while line.told and (poller := _next(line)) is not None:
                line.told = False
                if await self._take_for(line, poller):
                    line.told = True
                line.turn_over()
        finally:
            line.server = None
            line.turn_over()
            if not line.pollers:
                self._drop(line)

    async def _take_for(self, line: _Line, poller: _Poller) -> bool:
        """One poller's turn; True: more may wait."""
        poller.taking = True
        try:
            take = await self._take_within_limits(line, poller)
        except Exception as error:
            poller.error = error
            self._answer(poller)
            return False
        finally:
            poller.taking = False
        if take.rows:
            poller.rows = take.rows
            self._answer(poller)
        else:
            self._look_again(line, poller)
        return len(take.rows) == poller.count

    def _look_again(self, line: _Line, poller: _Poller) -> None:
        """Its other lines passed it over while a take was made for it here."""
        for name in poller.queues:
            other = self._lines.get((poller.namespace, name))
            if other is not None and other is not line and other.told:
                self.waiting(other.namespace, other.queue)

    async def _take_within_limits(self, line: _Line, poller: _Poller) -> queue.Take:
        """The first rows that may be handed out. Where the limits of a name are used up, those of others
        that wait in the same queue are looked for."""
        used_up: list[str] = []
        while True:
            take = await self._take(line, poller, skip=used_up)
            if take.rows or take.limited is None:
                return take
            name = take.limited
            take = await self._take(line, poller, limit_name=name, skip=used_up)
            if take.opens_ms:
                self._opens(line, min(take.opens_ms, self._clock.now_ms() + LOOK_AGAIN_MS))
            if take.rows or take.limited is None or name == line.task_type:
                return take
            used_up.append(name)

    async def _take(
        self, line: _Line, poller: _Poller, *, limit_name: str | None = None, skip: Sequence[str] = ()
    ) -> queue.Take:
        async with self._database.acquire() as conn:
            return await queue.take_polled(
                conn,
                epoch=self._epoch(),
                namespace=line.namespace,
                queue=line.queue,
                worker_id=poller.worker_id,
                count=poller.count,
                now_ms=self._clock.now_ms(),
                limit_name=limit_name,
                skip=skip,
            )

    def _answer(self, poller: _Poller) -> None:
        poller.done.set()
        if poller.gone:
            self._leave(poller)
        else:
            for name in poller.queues:
                line = self._lines.get((poller.namespace, name))
                if line is not None:
                    line.pollers.pop(poller, None)


def _next(line: _Line) -> _Poller | None:
    """The first in line for whom nobody takes already."""
    return next((poller for poller in line.pollers if not poller.taking), None)
