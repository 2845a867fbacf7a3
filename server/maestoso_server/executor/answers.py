"""Answers to what deciders ask for: rows from the store, scripts from the evaluators, definitions.

All needs of one kind, of all lanes, are one statement.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from ..clock import Clock
from ..engine.needs import Child, Definition, Need, Script, ScriptAnswer, TaskDefinition
from ..engine.state import Header, View
from ..scripting.pool import Evaluators
from ..store.database import Database
from ..store.needs import fetch
from .lanes import Lane
from .plans import Plans

PATIENCE_MS = 5
"""How long a decision waits for a script before its row commits as IN_PROGRESS."""
_ELSEWHERE = frozenset({Script, Child, Definition, TaskDefinition})
"""Needs that no row answers."""
MEMO_MAX = 4_096
"""Script answers remembered by (script, input digest): a second try after a lost race costs none."""


class Answers:
    """Answers lists of needs; one answer per need, in order."""

    def __init__(self, *, database: Database, clock: Clock, evaluators: Evaluators, plans: Plans) -> None:
        self._database = database
        self._clock = clock
        self._evaluators = evaluators
        self._plans = plans
        self._memo: OrderedDict[bytes, ScriptAnswer] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Future[ScriptAnswer]] = {}

    async def answer(self, asked: list[tuple[Lane, View, list[Need]]]) -> list[tuple[Lane, list[Any]]]:
        """For each lane its answers. Rows that were found are put into its view."""
        answers: list[list[Any]] = [[None] * len(needs) for _, _, needs in asked]
        stored: list[tuple[int, int, View, Need]] = []
        others: list[tuple[int, int, View, Need]] = []
        for index, (_, view, needs) in enumerate(asked):
            for position, need in enumerate(needs):
                kind = type(need)
                where = others if kind in _ELSEWHERE else stored
                where.append((index, position, view, need))
        if stored:
            async with self._database.acquire() as connection:
                found = await fetch(
                    connection,
                    [(view, need) for _, _, view, need in stored],
                    now_ms=self._clock.now_ms(),
                )
            for (index, position, _, _), value in zip(stored, found, strict=True):
                answers[index][position] = value
        if others:
            values = await asyncio.gather(*(self._other(view, need) for _, _, view, need in others))
            for (index, position, _, _), value in zip(others, values, strict=True):
                answers[index][position] = value
        return [(lane, answers[index]) for index, (lane, _, _) in enumerate(asked)]

    async def _other(self, view: View, need: Need) -> Any:
        namespace = view.header.namespace
        if isinstance(need, Script):
            return await self._script(view.header, need)
        if isinstance(need, Child):
            return await self._plans.child(namespace, need)
        if isinstance(need, Definition):
            return self._plans.known(need.snapshot_id) or await self._plans.load(namespace, need.snapshot_id)
        assert isinstance(need, TaskDefinition)
        return await self._plans.task_definition(namespace, need.name)

    async def _script(self, header: Header, need: Script) -> ScriptAnswer:
        key = _key(need)
        known = self._memo.get(key)
        if known is not None:
            return known
        job = self._under_way.get(key) or self._submit(key, header, need)
        await asyncio.wait([job], timeout=PATIENCE_MS / 1000)
        return job.result() if job.done() else ScriptAnswer(slow=True)

    def late(self, header: Header, need: Script, done: Callable[[ScriptAnswer], None]) -> None:
        """`done` is called with the answer of a script for which a decision did not wait."""
        key = _key(need)
        job = self._under_way.get(key) or self._submit(key, header, need)
        job.add_done_callback(lambda ended: None if ended.cancelled() else done(ended.result()))

    def _submit(self, key: bytes, header: Header, need: Script) -> asyncio.Future[ScriptAnswer]:
        """Workflows of one definition wait for each other's scripts, not those of others for theirs."""
        owner = f"{header.namespace}/{header.name}"
        job = self._evaluators.submit(need.language, need.script, need.input, owner=owner)
        self._under_way[key] = job
        job.add_done_callback(partial(self._ended, key))
        return job

    def _ended(self, key: bytes, job: asyncio.Future[ScriptAnswer]) -> None:
        self._under_way.pop(key, None)
        if not job.cancelled() and not job.result().retriable:
            self._remember(key, job.result())

    def _remember(self, key: bytes, answer: ScriptAnswer) -> None:
        self._memo[key] = answer
        if len(self._memo) > MEMO_MAX:
            self._memo.popitem(last=False)


def _key(need: Script) -> bytes:
    digest = hashlib.blake2b(need.input, digest_size=16)
    digest.update(need.language.encode())
    digest.update(need.script.encode("utf-8", "surrogatepass"))
    return digest.digest()
