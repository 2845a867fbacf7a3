"""This process as the other nodes know it: its epoch, its lease, its beat. DELIVERY 11, 12, 13.

    beat every second ── says what is due ──▶ the loops
         │ the node's row is gone, or a save's outcome is unknown
         ▼
    new epoch ── old row deleted, which waits for statements in flight ──▶ open streams resume

One connection of its own carries the beat and the lock that proves this process's life, so neither
a busy pool nor a slow statement delays it, and it is unbroken exactly as long as the proof.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..clock import Clock
from ..store import nodes
from ..store.database import Connection, Database, Unavailable
from ..store.nodes import BEAT_MS, LEASE_MS, NodeLost, NodeRow, Pulse

log = logging.getLogger(__name__)

DEGRADED_AFTER_MS = 3_000
"""Without a beat for so long the node says that it has lost its database: before its lease ends."""
CONNECT_S = 3.0
"""A connection that takes longer to make is given up."""
REFRESH_MS = 30_000
"""How often the database's clock is read: clocks drift by some 0.1 ms a second at most."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node says of itself. `grpc_address` is where workers reach it, HOST:PORT."""

    node_id: str
    grpc_address: str
    http_address: str
    version: str


class Duties(Protocol):
    """What a node has others do. Nothing but `on_new_epoch` may wait."""

    def queues_with_room(self) -> Collection[tuple[str, str]]:
        """(namespace, queue) of those from which streams or polls here would take now."""
        ...

    def on_pulse(self, pulse: Pulse) -> None:
        """A beat found what is due."""
        ...

    async def on_new_epoch(self, epoch: int) -> None:
        """Transition 12: resume each open stream's session under this epoch. Called again after
        `Unavailable` or `NodeLost`."""
        ...

    def on_degraded(self, degraded: bool) -> None:
        """Transition 13: the database is out of reach, or back."""
        ...

    def on_nodes(self, addresses: Sequence[str]) -> None:
        """The addresses of the live nodes changed; this one's comes first."""
        ...


class _Life:
    """The connection of a node: made when it is needed, again when it broke."""

    def __init__(self, database: Database, clock: Clock, wake: asyncio.Event) -> None:
        self._database = database
        self._clock = clock
        self._wake = wake
        self._conn: Connection | None = None
        self._proven: set[int] = set()
        self.since_ms = 0

    async def connection(self) -> Connection:
        if self._conn is None or self._conn.raw.is_closed():
            self._proven.clear()
            try:
                async with asyncio.timeout(CONNECT_S):
                    conn = await self._database.dedicated()
            except TimeoutError as slow:
                raise Unavailable("connecting takes too long") from slow
            # The proof is gone with the connection: do not wait for the next beat to renew it.
            conn.raw.add_termination_listener(lambda _: self._wake.set())
            self._conn = conn
            self.since_ms = self._clock.now_ms()
        return self._conn

    async def prove(self, conn: Connection, epoch: int) -> None:
        """Hold the lock of this epoch."""
        if epoch not in self._proven and await nodes.prove_life(conn, epoch):
            self._proven.add(epoch)

    async def release(self, conn: Connection, epoch: int) -> None:
        """Let the lock of an epoch go."""
        if epoch in self._proven:
            await nodes.stop_proving(conn, epoch)
            self._proven.discard(epoch)

    def cut(self) -> None:
        """Break the connection: whoever waits for it hears so."""
        if self._conn is not None:
            self._conn.raw.terminate()


class Node:
    """This node. `start`, then `run` until cancelled, then `stop`."""

    def __init__(self, *, database: Database, clock: Clock, identity: Identity, duties: Duties) -> None:
        self.epoch = 0
        """This node's name in every row that it owns. Changes (transition 12)."""
        self.degraded = False
        self.draining = False
        """An operator asks this node to drain."""
        self.nodes: list[NodeRow] = []
        """All node rows as of the last beat."""
        self._database = database
        self._clock = clock
        self._identity = identity
        self._duties = duties
        self._wake = asyncio.Event()
        self._life = _Life(database, clock, self._wake)
        self._renew_due = False
        self._left: list[int] = []
        self._beat_ms = 0
        self._quiet_until_ms = 0
        self._refreshed_ms = clock.now_ms()
        self._addresses: list[str] = []

    # -- what others ask -----------------------------------------------------------------------------

    def outcome_unknown(self) -> None:
        """Transition 12: a statement of this node may have been applied although its reply was lost."""
        self._renew_due = True
        self._wake.set()

    def may_expire(self, now_ms: int) -> bool:
        """Whether a silence of others proves anything: not for one lease after an outage or a start."""
        return not self.degraded and now_ms >= self._quiet_until_ms

    def trusts_locks(self, now_ms: int) -> bool:
        """Whether a fallen lock proves a death: not if it may have fallen in an outage that this node
        saw as well."""
        return self.may_expire(now_ms) and now_ms - self._life.since_ms >= LEASE_MS

    @property
    def settled(self) -> bool:
        """No new epoch is due or under way: the database's view of this node and its own agree."""
        return not self._renew_due and not self._left

    def addresses(self) -> list[str]:
        """Where workers reach the live nodes, this one first."""
        return self._addresses or [self._identity.grpc_address]

    # -- life ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Register, and beat once. Raises `Unavailable`."""
        conn = await self._life.connection()
        await self._register(conn)
        self._quiet_until_ms = self._clock.now_ms() + LEASE_MS
        await self._beat(conn)

    async def run(self) -> None:
        """The beat, and the eye on it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beats())
            group.create_task(self._watch())

    async def stop(self) -> None:
        """Leave: what this node still owns is an orphan at once."""
        try:
            async with self._database.acquire() as conn:
                await nodes.remove(conn, self.epoch)
        except Unavailable as away:
            log.warning("a node left without a word", extra={"epoch": self.epoch, "cause": str(away)})
        finally:
            self._life.cut()

    async def _beats(self) -> None:
        while True:
            next_ms = self._clock.now_ms() + BEAT_MS
            self._wake.clear()
            try:
                beaten = await self.run_once()
            except Exception:
                log.exception("a beat failed", extra={"epoch": self.epoch})
                beaten = False
            if beaten:
                await self._clock.wait(self._wake, next_ms)
            else:
                await self._clock.sleep_until(next_ms)

    async def run_once(self) -> bool:
        """One beat, under a new epoch where one is due. False: the database could not be reached."""
        try:
            conn = await self._life.connection()
            if self._renew_due:
                await self._renew(conn)
            if self._left:
                await self._rejoin(conn)
            await self._beat(conn)
            await self._refresh(conn)
        except NodeLost as lost:
            log.warning("this node was taken for dead", extra={"epoch": lost.epoch})
            if lost.epoch == self.epoch:
                self.outcome_unknown()
        except Unavailable as away:
            log.warning("no beat", extra={"epoch": self.epoch, "cause": str(away)})
            return False
        return True

    async def _beat(self, conn: Connection) -> None:
        await self._life.prove(conn, self.epoch)
        now_ms = self._clock.now_ms()
        pulse = await nodes.pulse(
            conn,
            epoch=self.epoch,
            queues=sorted(self._duties.queues_with_room()),
            now_ms=now_ms,
            trust_locks=self.trusts_locks(now_ms),
        )
        if self._beat_ms and now_ms - self._beat_ms >= DEGRADED_AFTER_MS:
            self._quiet_until_ms = now_ms + LEASE_MS
        self._beat_ms = now_ms
        self._set_degraded(False)
        self._see(pulse, now_ms)
        self._duties.on_pulse(pulse)

    def _see(self, pulse: Pulse, now_ms: int) -> None:
        self.nodes, self.draining = pulse.nodes, pulse.draining
        others = [
            node.grpc_address
            for node in pulse.nodes
            if node.epoch != self.epoch and node.lease_until_ms >= now_ms and not node.draining
        ]
        addresses = [self._identity.grpc_address, *others]
        if addresses != self._addresses:
            self._addresses = addresses
            self._duties.on_nodes(addresses)

    async def _refresh(self, conn: Connection) -> None:
        """Now and then: the clock drifts, and the beat's plan was made on smaller tables."""
        if self._clock.now_ms() - self._refreshed_ms >= REFRESH_MS:
            self._refreshed_ms = self._clock.now_ms()
            await self._database.read_clock()
            await conn.execute("DISCARD PLANS")

    # -- a new epoch ---------------------------------------------------------------------------------

    async def _register(self, conn: Connection) -> None:
        epoch = await nodes.new_epoch(conn)
        await self._life.prove(conn, epoch)
        now_ms = self._clock.now_ms()
        identity = self._identity
        await nodes.register(
            conn,
            NodeRow(
                epoch=epoch,
                node_id=identity.node_id,
                grpc_address=identity.grpc_address,
                http_address=identity.http_address,
                version=identity.version,
                started_ms=now_ms,
                lease_until_ms=now_ms + LEASE_MS,
                draining=self.draining,
            ),
        )
        self.epoch = epoch

    async def _renew(self, conn: Connection) -> None:
        """Statements that begin from here on speak for the new epoch."""
        old = self.epoch
        await self._register(conn)
        self._left.append(old)
        self._renew_due = False
        log.info("a new epoch", extra={"epoch": self.epoch, "left": old})

    async def _rejoin(self, conn: Connection) -> None:
        """The old row goes first, which waits for statements in flight: what they committed is then
        seen, and what comes after them writes nothing."""
        for old in self._left:
            await nodes.remove(conn, old)
            await self._life.release(conn, old)
        await self._duties.on_new_epoch(self.epoch)
        self._left.clear()

    # -- cut off -------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """A beat may hang for as long as the network likes, so others keep its time."""
        while True:
            silent_since_ms = self._beat_ms
            await self._clock.sleep_until(silent_since_ms + DEGRADED_AFTER_MS)
            if self._beat_ms != silent_since_ms:
                continue
            self._set_degraded(True)
            await self._clock.sleep_until(silent_since_ms + LEASE_MS)
            while self._beat_ms == silent_since_ms:
                self._life.cut()
                await self._clock.sleep_until(self._clock.now_ms() + LEASE_MS)

    def _set_degraded(self, degraded: bool) -> None:
        if degraded != self.degraded:
            self.degraded = degraded
            log.warning("cut off from the database" if degraded else "the database is back")
            self._duties.on_degraded(degraded)
