"""Answers to what deciders ask for: rows from the store, scripts from the evaluators, definitions.

All needs of one kind, of all lanes, are one statement.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ..clock import Clock
from ..engine import secrets
from ..engine.needs import Child, Definition, Need, Redact, Script, ScriptAnswer, TaskDefinition
from ..engine.state import Header, View
from ..payload import Json, decode, encode
from ..scripting.pool import Evaluators
from ..store.database import Database
from ..store.needs import fetch
from ..vault import EmptyVault, Vault
from .lanes import Lane
from .plans import Plans

PATIENCE_MS = 5
"""How long a decision waits for a script before its row commits as IN_PROGRESS."""
_ELSEWHERE = frozenset({Script, Redact, Child, Definition, TaskDefinition})
"""Needs that no row answers."""
_SCRIPTS = frozenset({"expression", "scriptExpression", "queryExpression"})
"""Inputs that are the text of a script."""
MEMO_MAX = 4_096
"""Script answers remembered by (script, input digest): a second try after a lost race costs none."""


class Answers:
    """Answers lists of needs; one answer per need, in order."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        evaluators: Evaluators,
        plans: Plans,
        vault: Vault | None = None,
    ) -> None:
        self._vault = vault or EmptyVault()
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
        if isinstance(need, Redact):
            return self._redact(need, namespace)
        if isinstance(need, Child):
            return await self._plans.child(namespace, need)
        if isinstance(need, Definition):
            return self._plans.known(need.snapshot_id) or await self._plans.load(namespace, need.snapshot_id)
        assert isinstance(need, TaskDefinition)
        return await self._plans.task_definition(namespace, need.name)

    async def _script(self, header: Header, need: Script) -> ScriptAnswer:
        key = _key(need, header.namespace)
        known = self._memo.get(key)
        if known is not None:
            return known
        job = self._under_way.get(key) or self._submit(key, header, need)
        await asyncio.wait([job], timeout=PATIENCE_MS / 1000)
        return self._shown(need, header.namespace, job.result()) if job.done() else ScriptAnswer(slow=True)

    def late(self, header: Header, need: Script, done: Callable[[ScriptAnswer], None]) -> None:
        """`done` is called with the answer of a script for which a decision did not wait."""
        key, namespace = _key(need, header.namespace), header.namespace
        job = self._under_way.get(key) or self._submit(key, header, need)
        job.add_done_callback(
            lambda ended: None if ended.cancelled() else done(self._shown(need, namespace, ended.result()))
        )

    def _submit(self, key: bytes, header: Header, need: Script) -> asyncio.Future[ScriptAnswer]:
        """Workflows of one definition wait for each other's scripts, not those of others for theirs."""
        owner = f"{header.namespace}/{header.name}"
        script, given = need.script, need.input
        if need.secrets:
            script, given = self._revealed(need, header.namespace)
        job = self._evaluators.submit(need.language, script, given, owner=owner)
        self._under_way[key] = job
        job.add_done_callback(partial(self._ended, key, not need.secrets))
        return job

    def _revealed(self, need: Script, namespace: str) -> tuple[str, bytes]:
        """The script and its input with their secrets. A script is itself a text of its input."""
        before = decode(need.input)
        given = secrets.reveal(before, decode(need.secrets), partial(self._vault.read, namespace))
        changed = {
            before[key]: given[key] for key in before if isinstance(before[key], str) and key in _SCRIPTS
        }
        return str(changed.get(need.script, need.script)), encode(given)

    def _shown(self, need: Script, namespace: str, answer: ScriptAnswer) -> ScriptAnswer:
        """An answer without the values of the secrets that went in."""
        if not need.secrets:
            return answer
        known = self._values(secrets.sources(decode(need.input), decode(need.secrets)), namespace)
        return replace(
            answer, value=secrets.redact(answer.value, known), error=secrets.redact(answer.error, known)
        )

    def _redact(self, need: Redact, namespace: str) -> tuple[Json | None, str | None]:
        known = self._values(need.sources, namespace)
        output = None
        if need.output is not None:
            before = decode(need.output)
            after = secrets.redact(before, known)
            output = Json(need.output) if after == before else Json.of(after)
        return output, secrets.redact(need.reason, known)

    def _values(self, placeholders: tuple[str, ...], namespace: str) -> dict[str, Any]:
        read = partial(self._vault.read, namespace)
        return {placeholder: secrets.value_of(placeholder, read) for placeholder in placeholders}

    def _ended(self, key: bytes, keep: bool, job: asyncio.Future[ScriptAnswer]) -> None:
        self._under_way.pop(key, None)
        if keep and not job.cancelled() and not job.result().retriable:
            self._remember(key, job.result())

    def _remember(self, key: bytes, answer: ScriptAnswer) -> None:
        self._memo[key] = answer
        if len(self._memo) > MEMO_MAX:
            self._memo.popitem(last=False)


def _key(need: Script, namespace: str) -> bytes:
    digest = hashlib.blake2b(need.input, digest_size=16)
    if need.secrets:
        digest.update(need.secrets + namespace.encode())
    digest.update(need.language.encode())
    digest.update(need.script.encode("utf-8", "surrogatepass"))
    return digest.digest()
