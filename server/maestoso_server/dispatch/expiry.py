"""Nodes and sessions that end without a word. DELIVERY 8, 9 (the old node's half), 10, 11.

Nothing here decides what becomes of a task: rows wait again, or are due at this node as lost, and
the deadlines' loop tells the engine. After an outage nothing expires for one lease (`may_expire`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..clock import Clock
from ..store import nodes, sessions
from ..store.database import Database
from ..store.deliveries import Delivery
from ..store.nodes import Pulse, Takeover
from .alarm import Alarm
from .attempt import on_alarm
from .node import Node

BUSY_MS = 50
"""Pause where rows were held by saves: those take milliseconds."""


class Memory(Protocol):
    """What the dispatcher knows of sessions."""

    def open_session_ids(self) -> set[str]:
        """Those whose stream is open here."""
        ...

    def ended_sessions(self) -> list[str]: ...

    def unread(self, session_ids: Iterable[str]) -> Sequence[Delivery]: ...

    def forget(self, session_id: str) -> None: ...


class News(Protocol):
    """Who is told what follows. Nothing here waits."""

    def rows_wait(self, namespace: str, queue: str) -> None: ...

    def notice_owned(self, due_ms: int) -> None: ...

    def redelivered(self, count: int) -> None:
        """So many tasks of ended sessions wait again."""
        ...

    def inherited(self) -> None:
        """Rows, sessions or messages of a dead node are this one's: look at all of them."""
        ...


class Expiry:
    """Ends sessions whose time is over, and takes the place of dead nodes. `run` until cancelled."""

    def __init__(self, *, database: Database, clock: Clock, node: Node, memory: Memory, news: News) -> None:
        self._database = database
        self._clock = clock
        self._node = node
        self._memory = memory
        self._news = news
        self._alarm = Alarm(clock)
        self._dead: list[int] = []
        self._orphans: list[int] = []
        self._ending: set[str] = set()
        self._strays: set[str] = set()
        self._recount = False

    def see(self, pulse: Pulse) -> None:
        self._dead, self._orphans = pulse.dead, pulse.orphans
        self._recount = pulse.sessions != len(self._memory.open_session_ids()) or bool(self._strays)
        if self._dead or self._orphans or self._recount:
            self._alarm.now()
        self._alarm.notice(pulse.session_due_ms)

    def session_moved(self, session_id: str) -> None:
        """A hint: another node resumed this session."""
        if session_id in self._memory.open_session_ids():
            self._recount = True
            self._alarm.now()

    async def run(self) -> None:
        await on_alarm(self._clock, self._alarm, self.run_once)

    async def run_once(self) -> None:
        """All that is known to be due."""
        for epoch in self._gone():
            await self.take_over(epoch)
        if self._node.may_expire(self._clock.now_ms()):
            await self.expire()
        if self._recount:
            self._recount = False
            await self.compare()

    def _gone(self) -> list[int]:
        """An orphan has no row any more, so its end is certain; a silence has to be believed."""
        dead, self._dead = self._dead, []
        orphans, self._orphans = self._orphans, []
        return orphans + dead if self._node.may_expire(self._clock.now_ms()) else orphans

    # -- nodes ---------------------------------------------------------------------------------------

    async def take_over(self, dead: int) -> None:
        """Transition 11, round by round until nothing moves; what is busy is an orphan at the next beat."""
        moved = 0
        while (took := await self._take_over(dead)) is not None and took.moved:
            moved += took.moved
        if moved:
            self._news.inherited()

    async def _take_over(self, dead: int) -> Takeover | None:
        now_ms = self._clock.now_ms()
        async with self._database.acquire() as conn:
            return await nodes.takeover(
                conn,
                epoch=self._node.epoch,
                dead=dead,
                now_ms=now_ms,
                trust_locks=self._node.trusts_locks(now_ms),
            )

    # -- sessions ------------------------------------------------------------------------------------

    async def expire(self) -> None:
        """Transition 10, round by round. Sessions are remembered until their last row is dealt with:
        so is what of theirs was never read."""
        while True:
            now_ms = self._clock.now_ms()
            unread = self._memory.unread(self._memory.ended_sessions())
            async with self._database.acquire() as conn:
                expired = await sessions.expire(conn, epoch=self._node.epoch, unread=unread, now_ms=now_ms)
            self._ending |= expired.sessions
            self._news.redelivered(expired.redelivered)
            for namespace, queue in expired.waiting:
                self._news.rows_wait(namespace, queue)
            if expired.lost:
                self._news.notice_owned(now_ms)
            if not expired.left:
                break
            if not expired.lost and not expired.redelivered:
                self._alarm.notice(now_ms + BUSY_MS)
                return
        for session_id in self._ending:
            self._memory.forget(session_id)
        self._ending.clear()

    async def compare(self) -> None:
        """The old node's half of 9: streams here whose session has moved are ended, their rows follow
        it. A row without a stream (its worker went away within its Hello) starts to expire when it is
        seen for the second time."""
        epoch = self._node.epoch
        known = self._memory.open_session_ids()
        async with self._database.acquire() as conn:
            stored = await sessions.serving(conn, epoch=epoch)
        if not self._node.settled or self._node.epoch != epoch:
            return
        here = self._memory.open_session_ids()
        for session_id in (known & here) - stored:
            self._memory.forget(session_id)
            async with self._database.acquire() as conn:
                await sessions.pass_on(conn, epoch=epoch, session_id=session_id, now_ms=self._clock.now_ms())
        strays = stored - known - here - set(self._memory.ended_sessions())
        again = sorted(strays & self._strays)
        self._strays = strays - set(again)
        if again:
            async with self._database.acquire() as conn:
                await sessions.detach(conn, epoch=epoch, session_ids=again, now_ms=self._clock.now_ms())
