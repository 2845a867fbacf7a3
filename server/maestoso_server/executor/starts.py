"""Starting workflows: from a request to the first commit, with idempotency keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from .. import ids
from ..clock import Clock
from ..engine.decision import Outcome
from ..engine.events import Start
from ..engine.state import Header, WorkflowStatus
from ..errors import AlreadyExists, Reason, ResourceExhausted
from ..payload import EMPTY, Json
from ..store import idempotency
from ..store.database import Database
from .executor import Executor
from .plans import Plans, Resolved
from .routing import Existing, Outdated

OUTDATED_TRIES = 20
"""How often a start is resolved anew when definitions change under it."""


class KeyPolicy(IntEnum):
    """What a used idempotency key means."""

    FAIL = 1
    RETURN_EXISTING = 2
    FAIL_ON_RUNNING = 3


@dataclass(slots=True, kw_only=True)
class StartRequest:
    """What to start. `definition` (validated JSON value) wins over `name` and `version`."""

    namespace: str
    name: str = ""
    version: int | None = None
    definition: Any = None
    input: Json = EMPTY
    correlation_id: str | None = None
    priority: int = 0
    task_to_domain: Json | None = None
    idempotency_key: str | None = None
    key_policy: KeyPolicy = KeyPolicy.FAIL
    traceparent: str = ""
    created_by: str = ""
    workflow_id: str | None = None


@dataclass(slots=True)
class StartOutcome:
    """`workflow_id` of the run that was started, or that was found by its key; else `error`."""

    workflow_id: str = ""
    existing: bool = False
    error: Exception | None = None


class Starter:
    """Starts many workflows at once; each has its own outcome."""

    def __init__(self, *, executor: Executor, plans: Plans, database: Database, clock: Clock) -> None:
        self._executor = executor
        self._plans = plans
        self._database = database
        self._clock = clock

    async def start(self, requests: Sequence[StartRequest]) -> list[StartOutcome]:
        """Answers after the first commit of each. Never raises for one of them."""
        if len(requests) == 1:
            return [await self._start(requests[0])]
        return list(await asyncio.gather(*(self._start(request) for request in requests)))

    async def _start(self, request: StartRequest) -> StartOutcome:
        try:
            for _ in range(OUTDATED_TRIES):
                resolved = await self._resolve(request)
                try:
                    return await self._begin(request, resolved)
                except Outdated:
                    self._plans.forget(request.namespace)
            raise ResourceExhausted(  # pragma: no cover - definitions would have to change 20 times in a row
                Reason.OVERLOADED, f"definitions of {request.namespace} change too fast; start again"
            )
        except Exception as error:  # Whatever it is, the other starts of the call have outcomes of their own.
            return StartOutcome(error=error)

    async def _resolve(self, request: StartRequest) -> Resolved:
        if request.definition is not None:
            return await self._plans.inline(request.namespace, request.definition)
        return await self._plans.resolve(request.namespace, request.name, request.version)

    async def _begin(self, request: StartRequest, resolved: Resolved) -> StartOutcome:
        now_ms = self._clock.now_ms()
        header = _header(request, resolved, now_ms)
        future: asyncio.Future[StartOutcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome | Exception) -> None:
            if future.done():
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(StartOutcome(header.id))

        event = Start(now_ms=now_ms, seed=self._executor.seed())
        self._executor.begin(header, event, resolved.metadata_revision, done)
        try:
            return await future
        except Existing as found:
            return await self._existing(request, resolved, found.workflow_id)

    async def _existing(self, request: StartRequest, resolved: Resolved, workflow_id: str) -> StartOutcome:
        """The key was used by `workflow_id`."""
        if request.key_policy is KeyPolicy.RETURN_EXISTING:
            return StartOutcome(workflow_id, existing=True)
        if request.key_policy is KeyPolicy.FAIL_ON_RUNNING and await self._release(request, workflow_id):
            return await self._begin(request, resolved)
        raise AlreadyExists(
            Reason.IDEMPOTENCY_CONFLICT,
            f"idempotency key {request.idempotency_key!r} was used by workflow {workflow_id}",
        )

    async def _release(self, request: StartRequest, workflow_id: str) -> bool:
        """Free the key of a run that has ended; False while it runs."""
        assert request.idempotency_key is not None
        async with self._database.acquire() as connection:
            return await idempotency.release_ended(
                connection, request.namespace, request.idempotency_key, workflow_id
            )


def _header(request: StartRequest, resolved: Resolved, now_ms: int) -> Header:
    return Header(
        id=request.workflow_id or ids.workflow_id(now_ms),
        namespace=request.namespace,
        name=resolved.name,
        version=resolved.version,
        snapshot_id=resolved.snapshot_id,
        created_ms=now_ms,
        clock_ms=now_ms,
        updated_ms=now_ms,
        priority=request.priority,
        correlation_id=request.correlation_id,
        input=request.input,
        task_to_domain=request.task_to_domain,
        created_by=request.created_by,
        traceparent=request.traceparent,
        idempotency_key=request.idempotency_key,
        status=WorkflowStatus.RUNNING,
    )
