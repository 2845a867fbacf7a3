"""This node among the others: puts the loops of this floor together and carries word between them.

    beat ─┐                        ┌─▶ deadlines ─▶ executor
    hints ├─▶ Cluster (no waiting) ├─▶ messages  ─▶ executor, dispatcher
    dispatcher, executor ──────────┤   expiry    ─▶ dispatcher
                                   └─▶ hints     ─▶ other nodes

Build it first, hand it to the dispatcher as its `Outside`, then `join` what was built on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence

from ..clock import Clock
from ..engine.events import Event
from ..executor.executor import Executor
from ..executor.lanes import Done
from ..store.database import Database
from ..store.hints import Hints
from ..store.nodes import Pulse
from .census import Census
from .deadlines import Deadlines
from .dispatcher import Dispatcher
from .expiry import Expiry
from .messages import Messages
from .node import Identity, Node
from .polling import Polling
from .slots import Slots
from .streams import Streams


class Cluster:
    """One per process. `join`, then `node.start`, then `run` until cancelled, then `node.stop`."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        identity: Identity,
        on_lag: Callable[[float], None],
        on_drain: Callable[[bool], None],
    ) -> None:
        """`on_lag` is told how many seconds late a deadline was seen, `on_drain` at every beat whether
        an operator wants this node drained."""
        self.node = Node(database=database, clock=clock, identity=identity, duties=self)
        self.hints = Hints(database=database, listener=self, epoch=self.epoch)
        self._database = database
        self._clock = clock
        self._on_lag = on_lag
        self._on_drain = on_drain

    def join(self, *, executor: Executor, dispatcher: Dispatcher, streams: Streams, polling: Polling) -> None:
        """Make the loops. Nobody may ask anything of this object before."""
        self._executor = executor
        self._dispatcher = dispatcher
        self._streams = streams
        self._polling = polling
        self._deadlines = Deadlines(
            database=self._database,
            clock=self._clock,
            epoch=self.epoch,
            engine=executor,
            memory=dispatcher,
            rows_wait=self.rows_wait_anywhere,
            on_lag=self._on_lag,
        )
        self._messages = Messages(
            database=self._database,
            clock=self._clock,
            epoch=self.epoch,
            engine=executor,
            cancels=dispatcher,
        )
        self._slots = Slots(database=self._database, clock=self._clock, epoch=self.epoch, engine=executor)
        self._expiry = Expiry(
            database=self._database, clock=self._clock, node=self.node, memory=dispatcher, news=self
        )
        self._census = Census(
            database=self._database, clock=self._clock, node=self.node, memory=dispatcher, news=self
        )

    def epoch(self) -> int:
        return self.node.epoch

    async def run(self) -> None:
        """The beat and all loops, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.node.run())
            group.create_task(self.hints.run())
            group.create_task(self._deadlines.run())
            group.create_task(self._messages.run())
            group.create_task(self._slots.run())
            group.create_task(self._expiry.run())
            group.create_task(self._census.run())

    # -- what the beat asks and tells ----------------------------------------------------------------

    def queues_with_room(self) -> Collection[tuple[str, str]]:
        return self._dispatcher.matching.with_room() | self._polling.wanted()

    def on_pulse(self, pulse: Pulse) -> None:
        self._deadlines.see(pulse)
        self._messages.see(pulse)
        self._slots.see(pulse)
        self._expiry.see(pulse)
        for namespace, queue in pulse.waiting:
            self._dispatcher.rows_wait(namespace, queue)
        for drain in pulse.drains:
            self._dispatcher.drain(drain.session_id, drain.reason, drain.close_ms)
        self._on_drain(pulse.draining)

    async def on_new_epoch(self, epoch: int) -> None:
        self._executor.forget_views()
        await self._streams.rejoin()

    def on_degraded(self, degraded: bool) -> None:
        if not degraded:
            self._executor.forget_views()
        self._dispatcher.set_degraded(
            degraded, self.node.addresses()[1:] if degraded else self.node.addresses()
        )

    def on_nodes(self, addresses: Sequence[str]) -> None:
        self._dispatcher.tell_nodes(addresses)

    # -- what the dispatcher tells -------------------------------------------------------------------

    def submit(self, workflow_id: str, event: Event, done: Done | None = None) -> None:
        self._executor.submit(workflow_id, event, done)

    def rows_wait(self, namespace: str, queue: str) -> None:
        self.hints.rows_wait(namespace, queue)

    def ended_elsewhere(self, owner_epochs: Iterable[int]) -> None:
        for epoch in owner_epochs:
            self.hints.rows_ended(epoch)

    def messages_wait_at(self, epoch: int, workflow_id: str) -> None:
        self.hints.messages_wait(epoch, workflow_id)

    def answers_wait_at(self, epoch: int) -> None:
        self.hints.answers_wait(epoch)

    def workflow_slots_changed(self) -> None:
        self._slots.changed()

    def deadline(self, due_ms: int) -> None:
        self._deadlines.notice(due_ms)

    def outcome_unknown(self) -> None:
        self.node.outcome_unknown()

    # -- what the loops tell -------------------------------------------------------------------------

    def rows_wait_anywhere(self, namespace: str, queue: str) -> None:
        """Rows wait that no node was told of yet."""
        self._dispatcher.rows_wait(namespace, queue)
        self.hints.rows_wait(namespace, queue)

    def notice_owned(self, due_ms: int) -> None:
        self._deadlines.notice_owned(due_ms)

    def redelivered(self, count: int) -> None:
        self._dispatcher.on_redelivered("lost", count)

    def forgotten(self, count: int) -> None:
        self._dispatcher.on_redelivered("forgotten", count)
        self.node.outcome_unknown()

    def inherited(self) -> None:
        self._deadlines.notice_owned(0)
        self._messages.inherited()
        self._messages.rows_ended()

    # -- what other nodes hint -----------------------------------------------------------------------

    def queue_waits(self, namespace: str, queue: str) -> None:
        self._dispatcher.rows_wait(namespace, queue)

    def messages_wait(self, workflow_id: str) -> None:
        self._messages.messages_wait(workflow_id)

    def rows_ended(self) -> None:
        self._messages.rows_ended()

    def answers_wait(self) -> None:
        self._messages.answers_wait()

    def session_moved(self, session_id: str) -> None:
        self._expiry.session_moved(session_id)

    def may_have_missed(self) -> None:
        self._messages.rows_ended()
        self._messages.answers_wait()
