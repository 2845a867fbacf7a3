"""Hints between nodes: "look now". Each could be lost, none is needed: the beat finds all of it.

NOTIFY holds a database-wide lock while it commits, so it never rides in a workflow's transaction.
Hints are collected and sent about every 10 ms, on a connection of its own that listens too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from .database import Connection, Database, Unavailable

log = logging.getLogger(__name__)

CHANNEL = "maestoso"
INTERVAL_S = 0.010
RECONNECT_S = 0.5
MOST_BYTES = 7_900
"""Postgres refuses a payload of 8,000 bytes."""


class Listener(Protocol):
    """Who is told. Nothing here may block."""

    def queue_waits(self, namespace: str, queue: str) -> None:
        """Rows wait in this queue, which another node has no room for."""
        ...

    def messages_wait(self, workflow_id: str) -> None:
        """Another node has put a message for a workflow of this node into the inbox."""
        ...

    def rows_ended(self) -> None:
        """Another node has marked rows of this node ended."""
        ...

    def answers_wait(self) -> None:
        """Another node has answered a command of this node."""
        ...

    def session_moved(self, session_id: str) -> None:
        """Another node has resumed this session, which may have been this node's."""
        ...

    def may_have_missed(self) -> None:
        """The connection was new or broken: look everywhere."""
        ...


class Batch(msgspec.Struct, array_like=True):
    """What one notification carries. What names an epoch is for that node, the rest for all."""

    sender: int
    queues: set[tuple[str, str]] = msgspec.field(default_factory=set)
    messages: set[tuple[int, str]] = msgspec.field(default_factory=set)
    ended: set[int] = msgspec.field(default_factory=set)
    answers: set[int] = msgspec.field(default_factory=set)
    moved: set[str] = msgspec.field(default_factory=set)

    def halves(self) -> Iterator[Batch]:
        """The same in two, for one that is too long to be sent."""
        for part in (0, 1):
            yield Batch(self.sender, *(set(list(hints)[part::2]) for hints in self._sets()))

    def empty(self) -> bool:
        return not any(self._sets())

    def _sets(self) -> tuple[set[Any], ...]:
        return (self.queues, self.messages, self.ended, self.answers, self.moved)


class Hints:
    """Sends this node's hints and hears those of the others. `run` until cancelled."""

    def __init__(self, *, database: Database, listener: Listener, epoch: Callable[[], int]) -> None:
        """`epoch`: this node's, now."""
        self._database = database
        self._listener = listener
        self._epoch = epoch
        self._batch = Batch(0)
        self._asked = asyncio.Event()

    def rows_wait(self, namespace: str, queue: str) -> None:
        """Rows wait for which no session here has room."""
        self._batch.queues.add((namespace, queue))
        self._asked.set()

    def messages_wait(self, epoch: int, workflow_id: str) -> None:
        """A message waits for `workflow_id` at the node `epoch`."""
        self._batch.messages.add((epoch, workflow_id))
        self._asked.set()

    def rows_ended(self, epoch: int) -> None:
        """Rows of the node `epoch` were marked ended."""
        self._batch.ended.add(epoch)
        self._asked.set()

    def answers_wait(self, epoch: int) -> None:
        """Commands of the node `epoch` were answered."""
        self._batch.answers.add(epoch)
        self._asked.set()

    def session_moved(self, session_id: str) -> None:
        """A session that another node may still believe to serve was resumed here."""
        self._batch.moved.add(session_id)
        self._asked.set()

    async def run(self) -> None:
        """Connect, listen and send; again after each failure."""
        while True:
            try:
                conn = await self._database.dedicated()
            except Unavailable:
                await asyncio.sleep(RECONNECT_S)
                continue
            try:
                await self._serve(conn)
            except Unavailable as away:
                log.warning("hints wait for the database", extra={"cause": str(away)})
            finally:
                conn.raw.terminate()
            await asyncio.sleep(RECONNECT_S)

    async def _serve(self, conn: Connection) -> None:
        """Until the connection breaks."""
        conn.raw.add_termination_listener(lambda _: self._asked.set())
        # A lost hint costs a beat, so nothing here waits for the disk.
        await conn.execute("SET synchronous_commit = off")
        await conn.listen(CHANNEL, self._hear)
        self._listener.may_have_missed()
        while True:
            await self._asked.wait()
            self._asked.clear()
            if conn.raw.is_closed():
                raise Unavailable("the connection for hints has ended")
            batch, self._batch = self._batch, Batch(0)
            batch.sender = self._epoch()
            await self._send(conn, batch)
            await asyncio.sleep(INTERVAL_S)

    async def _send(self, conn: Connection, batch: Batch) -> None:
        if batch.empty():
            return
        payload = msgspec.json.encode(batch)
        if len(payload) > MOST_BYTES:
            for half in batch.halves():
                await self._send(conn, half)
        else:
            # $1 channel, $2 hints
            await conn.execute("SELECT pg_notify($1, $2)", CHANNEL, payload.decode())

    def _hear(self, _conn: object, _pid: int, _channel: str, payload: str) -> None:
        try:
            batch = msgspec.json.decode(payload, type=Batch)
        except msgspec.DecodeError:
            # Of a newer version; its hints are found by the beat.
            return
        if batch.sender == self._epoch():
            return
        self._tell(batch)

    def _tell(self, batch: Batch) -> None:
        listener, epoch = self._listener, self._epoch()
        for namespace, queue in batch.queues:
            listener.queue_waits(namespace, queue)
        for target, workflow_id in batch.messages:
            if target == epoch:
                listener.messages_wait(workflow_id)
        for session_id in batch.moved:
            listener.session_moved(session_id)
        if epoch in batch.ended:
            listener.rows_ended()
        if epoch in batch.answers:
            listener.answers_wait()
