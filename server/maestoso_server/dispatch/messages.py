"""What other nodes have left for this one in the database: messages, answers, ended rows. DELIVERY 5, 6.

A node tells itself of its own messages in memory, after their commit. What comes here was put by
others (they hint), inherited from a dead node, or lost with the memory of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from maestoso.task.v1 import task_service_pb2 as wire

from ..clock import Clock
from ..store import deliveries, inbox
from ..store.database import Database
from ..store.nodes import Pulse
from .alarm import Alarm
from .attempt import on_alarm

CHUNK = 5_000
"""Rows of one statement."""


class Engine(Protocol):
    """The executor's doors for what comes from elsewhere."""

    def drain(self, workflow_id: str) -> None: ...

    def answered(self, message_id: int, outcome: bytes) -> None: ...


class Cancels(Protocol):
    """The dispatcher's door for rows that ended elsewhere."""

    def cancel(
        self, workflow_id: str, seq: int, delivery: int, reason: wire.CancelReason.ValueType
    ) -> None: ...


class Messages:
    """The loops that read what others left. `run` until cancelled."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        epoch: Callable[[], int],
        engine: Engine,
        cancels: Cancels,
    ) -> None:
        self._database = database
        self._clock = clock
        self._epoch = epoch
        self._engine = engine
        self._cancels = cancels
        self._inbox = Alarm(clock)
        self._answers = Alarm(clock)
        self._ended = Alarm(clock)
        self._seen: set[str] = set()
        self._all = False

    def see(self, pulse: Pulse) -> None:
        self._inbox.notice(pulse.inbox_due_ms)
        if pulse.inbox_due_ms is None:
            self._seen.clear()
        if pulse.answered:
            self._answers.now()
        if pulse.ended:
            self._ended.now()

    def messages_wait(self, workflow_id: str) -> None:
        """A hint: another node put a message for this workflow."""
        self._engine.drain(workflow_id)

    def answers_wait(self) -> None:
        """A hint: another node answered a command of this one."""
        self._answers.now()

    def rows_ended(self) -> None:
        """A hint: another node marked rows of this one ended."""
        self._ended.now()

    def inherited(self) -> None:
        """Messages of a dead node may be this one's now: none of them is in memory."""
        self._all = True
        self._inbox.now()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(on_alarm(self._clock, self._inbox, self.drain))
            group.create_task(on_alarm(self._clock, self._answers, self.take_answers))
            group.create_task(on_alarm(self._clock, self._ended, self.end_rows))

    async def drain(self) -> None:
        """Have workflows apply their messages, where two looks saw some: most of those that one look
        sees are this node's own and under way in memory."""
        async with self._database.acquire() as conn:
            found = await inbox.due_workflows(
                conn, epoch=self._epoch(), now_ms=self._clock.now_ms(), limit=CHUNK
            )
        for workflow_id in found:
            if self._all or workflow_id in self._seen:
                self._engine.drain(workflow_id)
        self._all = False
        self._seen = set(found)

    async def take_answers(self) -> None:
        """Hand the answers to this node's commands to those who wait for them."""
        while True:
            async with self._database.acquire() as conn:
                answers = await inbox.take_answers(conn, epoch=self._epoch(), limit=CHUNK)
            for answer in answers:
                self._engine.answered(answer.id, answer.outcome)
            if len(answers) < CHUNK:
                return

    async def end_rows(self) -> None:
        """Cancel deliveries whose tasks ended at another node, and free what they held."""
        while True:
            async with self._database.acquire() as conn:
                rows = await deliveries.ended_rows(conn, epoch=self._epoch(), limit=CHUNK)
            for row in rows:
                self._cancels.cancel(
                    row.workflow_id, row.seq, row.delivery, wire.CANCEL_REASON_WORKFLOW_ENDED
                )
            if len(rows) < CHUNK:
                return
