"""Answers to what deciders ask for: rows from the store, scripts from the evaluators, definitions.

All needs of one kind, of all lanes, are one statement.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import Any

from ..engine.needs import Child, Need, Script, ScriptAnswer, TaskDefinition
from ..engine.state import View
from ..scripting.pool import Evaluators
from ..store.database import Database
from ..store.needs import fetch
from .lanes import Lane
from .plans import Plans

MEMO_MAX = 4_096
"""Script answers remembered by (script, input digest): a second try after a lost race costs none."""


class Answers:
    """Answers lists of needs; one answer per need, in order."""

    def __init__(self, *, database: Database, evaluators: Evaluators, plans: Plans) -> None:
        self._database = database
        self._evaluators = evaluators
        self._plans = plans
        self._memo: OrderedDict[bytes, ScriptAnswer] = OrderedDict()

    async def answer(self, asked: list[tuple[Lane, View, list[Need]]]) -> list[tuple[Lane, list[Any]]]:
        """For each lane its answers. Rows that were found are put into its view."""
        answers: list[list[Any]] = [[None] * len(needs) for _, _, needs in asked]
        stored: list[tuple[int, int, View, Need]] = []
        others: list[tuple[int, int, View, Need]] = []
        for index, (_, view, needs) in enumerate(asked):
            for position, need in enumerate(needs):
                kind = type(need)
                where = others if kind is Script or kind is Child or kind is TaskDefinition else stored
                where.append((index, position, view, need))
        if stored:
            async with self._database.acquire() as connection:
                found = await fetch(connection, [(view, need) for _, _, view, need in stored])
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
            return await self._script(need)
        if isinstance(need, Child):
            return await self._plans.child(namespace, need)
        assert isinstance(need, TaskDefinition)
        return await self._plans.task_definition(namespace, need.name)

    async def _script(self, need: Script) -> ScriptAnswer:
        digest = hashlib.blake2b(need.input, digest_size=16)
        digest.update(need.language.encode())
        digest.update(need.script.encode("utf-8", "surrogatepass"))
        key = digest.digest()
        known = self._memo.get(key)
        if known is not None:
            return known
        answer = await self._evaluators.evaluate(need.language, need.script, need.input)
        if not answer.retriable:
            self._memo[key] = answer
            if len(self._memo) > MEMO_MAX:
                self._memo.popitem(last=False)
        return answer
