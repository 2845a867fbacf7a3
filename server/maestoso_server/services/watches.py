"""Who follows which workflow, and how they hear of a change.

The executor tells of commits in this process; those of other nodes are found by one statement a
second over all workflows that are watched here. The poll is the truth, the hint only makes it fast.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..clock import Clock
from ..engine.state import Header
from ..errors import Reason, Unavailable
from ..executor import Executor
from ..store import lists
from ..store.database import Database
from ..store.database import Unavailable as StoreUnavailable

log = logging.getLogger(__name__)

POLL_MS = 1_000


class Watch:
    """One follower of one workflow. `header` is the newest state that this process committed."""

    __slots__ = ("_changed", "_ended", "header", "workflow_id")

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        self.header: Header | None = None
        self._changed = asyncio.Event()
        self._ended = False

    def committed(self, header: Header) -> None:
        """This process has committed a newer state."""
        self.header = header
        self._changed.set()

    def stale(self) -> None:
        """Another node has: what is known here is outdated."""
        self.header = None
        self._changed.set()

    def end(self) -> None:
        """The node stops: `changed` raises from now on."""
        self._ended = True
        self._changed.set()

    async def changed(self) -> None:
        """Return after a change since the last call. Raises Unavailable when the node stops."""
        await self._changed.wait()
        self._changed.clear()
        if self._ended:
            raise Unavailable(
                Reason.NODE_STOPPING, "the node stops; watch again from the last revision, elsewhere"
            )


class Watches:
    """Every watch of this process."""

    def __init__(self, *, executor: Executor, database: Database, clock: Clock) -> None:
        self._executor = executor
        self._database = database
        self._clock = clock
        self._watches: dict[str, set[Watch]] = {}
        self._revisions: dict[str, int] = {}
        self._ended = False

    @contextmanager
    def follow(self, workflow_id: str) -> Iterator[Watch]:
        """A watch for the length of the block."""
        watch = Watch(workflow_id)
        if self._ended:
            watch.end()
        stop = self._executor.changes.subscribe(workflow_id, watch.committed)
        self._watches.setdefault(workflow_id, set()).add(watch)
        try:
            yield watch
        finally:
            stop()
            self._watches[workflow_id].discard(watch)
            if not self._watches[workflow_id]:
                del self._watches[workflow_id]
                self._revisions.pop(workflow_id, None)

    async def run(self) -> None:
        """Poll until cancelled. An outage of the store is waited for: streams live through it."""
        while True:
            await self._clock.sleep_until(self._clock.now_ms() + POLL_MS)
            try:
                await self.run_once()
            except StoreUnavailable:
                log.debug("poll of watched workflows failed")

    async def run_once(self) -> None:
        """Wake the watches of workflows whose revision has changed since the last time, or that were
        removed."""
        watched = list(self._watches)
        if not watched:
            return
        async with self._database.acquire() as connection:
            revisions = await lists.revisions(connection, watched)
        for workflow_id in watched:
            if workflow_id not in revisions:
                for watch in self._watches.get(workflow_id, ()):
                    watch.stale()
        for workflow_id, revision in revisions.items():
            if self._revisions.get(workflow_id) == revision:
                continue
            self._revisions[workflow_id] = revision
            for watch in self._watches.get(workflow_id, ()):
                if watch.header is None or watch.header.revision < revision:
                    watch.stale()

    def end(self) -> None:
        """The node stops: every watch ends with UNAVAILABLE."""
        self._ended = True
        for watches in self._watches.values():
            for watch in watches:
                watch.end()
