"""When which session wants to know the time: one heap for all, with one entry each."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count

from .session import Session

GRAIN_MS = 5
"""Times are rounded up to it, so that busy sessions share a wake-up."""


class Ticks:
    """An earlier time replaces a later one at once; a later one is looked up when the earlier comes."""

    def __init__(self) -> None:
        self.sooner: Callable[[], None] = _nobody
        """Called when the next time is earlier than before."""
        self._heap: list[tuple[int, int, Session]] = []
        self._armed: dict[Session, int] = {}
        self._order = count()

    @property
    def next_ms(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def arm(self, session: Session, due_ms: int) -> None:
        """Let `session` be among the `due` ones at this time, at the latest."""
        due_ms = -(-due_ms // GRAIN_MS) * GRAIN_MS
        armed_ms = self._armed.get(session)
        if armed_ms is not None and armed_ms <= due_ms:
            return
        first = not self._heap or due_ms < self._heap[0][0]
        self._armed[session] = due_ms
        heapq.heappush(self._heap, (due_ms, next(self._order), session))
        if first:
            self.sooner()

    def due(self, now_ms: int) -> Iterator[Session]:
        """Each session whose time has come, once; it must be armed again."""
        while self._heap and self._heap[0][0] <= now_ms:
            due_ms, _, session = heapq.heappop(self._heap)
            if self._armed.get(session) == due_ms:
                del self._armed[session]
                yield session


def _nobody() -> None:
    return
