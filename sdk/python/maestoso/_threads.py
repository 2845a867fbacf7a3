"""Threads for handlers that are plain functions.

Unlike `concurrent.futures` the threads are daemons, so that a handler that hangs cannot keep the
process from ending, and their results reach the event loop in batches, with one wake-up for all
that ended meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

J = TypeVar("J")


class Threads(Generic[J]):
    """Runs jobs in threads; `done(job, value, error)` is called on the loop for each."""

    def __init__(
        self,
        call: Callable[[J], Any],
        done: Callable[[J, Any, BaseException | None], None],
    ) -> None:
        self._call = call
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[J | None] = SimpleQueue()
        self._ended: deque[tuple[J, Any, BaseException | None]] = deque()
        self._collecting = False
        self._busy = 0
        self._threads = 0

    def submit(self, job: J) -> None:
        """Run a job; there are as many threads as jobs were ever under way at once."""
        self._busy += 1
        if self._busy > self._threads:
            self._threads += 1
            name = f"maestoso-handler-{self._threads}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        self._jobs.put(job)

    def close(self) -> None:
        """Let the threads end once they are idle."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            ended: tuple[J, Any, BaseException | None]
            try:
                ended = (job, self._call(job), None)
            except BaseException as error:
                ended = (job, None, error)
            self._ended.append(ended)
            if not self._collecting:
                self._collecting = True
                try:
                    self._loop.call_soon_threadsafe(self._collect)
                except RuntimeError:  # the loop is closed: nobody waits for it any more
                    return

    def _collect(self) -> None:
        # First the flag, then the queue: who appends after the last look calls again.
        self._collecting = False
        while self._ended:
            job, value, error = self._ended.popleft()
            self._busy -= 1
            self._done(job, value, error)
