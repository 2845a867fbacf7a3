"""Who is evaluated next: each lane serves its owners in turn, so that many scripts of one do not hold up
those of another.

A lane has seats (evaluator processes) and a limit. The quick lane's is short, and a script that reaches
it moves to the slow lane, to be run from its beginning with all the time that it may take: scripts
that are slow wait for each other, and never keep a quick one waiting longer than that short limit.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass

from ..engine.needs import ScriptAnswer
from .frames import Operation

QUICK_S = 0.25
"""What a script may take in the quick lane."""
_REMEMBERED_MAX = 4_096


@dataclass(slots=True)
class Job:
    """A script to be evaluated for an owner."""

    operation: Operation
    script: str
    document: bytes
    owner: str
    answered: asyncio.Future[ScriptAnswer]

    def settle(self, answer: ScriptAnswer) -> None:
        """Answer, unless the asker has gone."""
        if not self.answered.done():
            self.answered.set_result(answer)


class Turns:
    """Jobs that wait, by owner; `get` takes one of each owner in turn."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._any = asyncio.Semaphore(0)
        self.count = 0

    def put(self, job: Job) -> None:
        """Add a job behind its owner's others."""
        self._waiting.setdefault(job.owner, deque()).append(job)
        self.count += 1
        self._any.release()

    async def get(self) -> Job:
        """The next job, once there is one."""
        await self._any.acquire()
        return self._take()

    def drain(self) -> list[Job]:
        """All jobs; none is left."""
        return [self._take() for _ in range(self.count)]

    def _take(self) -> Job:
        owner, jobs = next(iter(self._waiting.items()))
        job = jobs.popleft()
        if jobs:
            self._waiting.move_to_end(owner)
        else:
            del self._waiting[owner]
        self.count -= 1
        return job


class SlowScripts:
    """The scripts whose last run was slow: they begin in the slow lane."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, job: Job) -> bool:
        return _digest(job) in self._known

    def note(self, job: Job, took_s: float) -> None:
        """Remember how long a run took."""
        digest = _digest(job)
        if took_s < QUICK_S / 2:
            self._known.pop(digest, None)
            return
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > _REMEMBERED_MAX:
            self._known.popitem(last=False)


def _digest(job: Job) -> bytes:
    text = job.script.encode("utf-8", "replace")
    return hashlib.blake2b(bytes([job.operation]) + text, digest_size=16).digest()
