"""Starting workflows: from a request to the first commit, with idempotency keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import ids
from ..clock import Clock
from ..definitions.keys import KeyPolicy
from ..engine.commands import input_faults, with_defaults
from ..engine.decision import Outcome
from ..engine.events import Start
from ..engine.state import Header, WorkflowStatus
from ..errors import AlreadyExists, InvalidArgument, Reason, ResourceExhausted, Violation
from ..payload import EMPTY, Json
from ..store import idempotency
from ..store.database import Database
from .executor import Executor
from .plans import Plans, Resolved
from .routing import Existing, Outdated

OUTDATED_TRIES = 20
"""How often a start is resolved anew when definitions change under it."""


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
        """Answers after the first commit of each. Never raises for one of them.

        All whose definitions are known begin at once and are awaited together; the few that need more
        (a definition to load, a used key, definitions that changed) go on one by one."""
        first = await self._begin_known(requests)
        rest = [place for place, outcome in enumerate(first) if not isinstance(outcome, StartOutcome)]
        if rest:
            ends = await asyncio.gather(*(self._go_on(requests[place], first[place]) for place in rest))
            for place, outcome in zip(rest, ends, strict=True):
                first[place] = outcome
        return first  # type: ignore[return-value]

    async def _begin_known(self, requests: Sequence[StartRequest]) -> list[StartOutcome | Exception | None]:
        """Begin what can begin without waiting; None where it could not."""
        outcomes: list[StartOutcome | Exception | None] = [None] * len(requests)
        waiting = 0
        all_done = asyncio.get_running_loop().create_future()

        def done(place: int, outcome: StartOutcome | Exception) -> None:
            nonlocal waiting
            outcomes[place] = outcome
            waiting -= 1
            if not waiting and not all_done.done():
                all_done.set_result(None)

        for place, request in enumerate(requests):
            resolved = self._known(request)
            if resolved is not None and resolved.judging is None:
                waiting += 1
                self._begin(request, resolved, partial(done, place))
        if waiting:
            await all_done
        return outcomes

    async def _go_on(self, request: StartRequest, seen: Exception | StartOutcome | None) -> StartOutcome:
        """From what the first try came to. Whatever goes wrong, the other starts have their own outcomes."""
        try:
            for _ in range(OUTDATED_TRIES):
                if isinstance(seen, StartOutcome):
                    return seen
                if isinstance(seen, Existing):
                    found = await self._existing(request, seen.workflow_id)
                    if found is not None:
                        return found
                elif isinstance(seen, Outdated):
                    self._plans.forget(request.namespace)
                elif seen is not None:
                    raise seen
                seen = await self._try(request, await self._resolve(request))
            raise ResourceExhausted(  # pragma: no cover - definitions would have to change 20 times in a row
                Reason.OVERLOADED, f"definitions of {request.namespace} change too fast; start again"
            )
        except Exception as error:
            return StartOutcome(error=error)

    def _known(self, request: StartRequest) -> Resolved | None:
        if request.definition is not None:
            return None
        return self._plans.resolved(request.namespace, request.name, request.version)

    async def _resolve(self, request: StartRequest) -> Resolved:
        if request.definition is not None:
            return await self._plans.inline(request.namespace, request.definition)
        return await self._plans.resolve(request.namespace, request.name, request.version)

    async def _try(self, request: StartRequest, resolved: Resolved) -> StartOutcome | Exception:
        _judge_input(request, resolved)
        future: asyncio.Future[StartOutcome | Exception] = asyncio.get_running_loop().create_future()
        self._begin(request, resolved, lambda end: None if future.done() else future.set_result(end))
        return await future

    def _begin(
        self, request: StartRequest, resolved: Resolved, done: Callable[[StartOutcome | Exception], None]
    ) -> None:
        now_ms = self._clock.now_ms()
        header = new_header(request, resolved, now_ms)

        def decided(outcome: Outcome | Exception) -> None:
            done(outcome if isinstance(outcome, Exception) else StartOutcome(header.id))

        event = Start(now_ms=now_ms, seed=self._executor.seed())
        self._executor.begin(header, event, resolved.metadata_revision, decided)

    async def _existing(self, request: StartRequest, workflow_id: str) -> StartOutcome | None:
        """What it means that the key was used by `workflow_id`; None: it is free now, start again."""
        if request.key_policy is KeyPolicy.RETURN_EXISTING:
            return StartOutcome(workflow_id, existing=True)
        if request.key_policy is KeyPolicy.FAIL_ON_RUNNING and await self._release(request, workflow_id):
            return None
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


def _judge_input(request: StartRequest, resolved: Resolved) -> None:
    """Raises InvalidArgument where the definition's schema does not allow the input."""
    plan = resolved.judging
    if plan is None:
        return
    faults = input_faults(plan, with_defaults(request.input, plan.input_template))
    if faults:
        path, message = faults[0]
        raise InvalidArgument(
            Reason.INVALID_REQUEST,
            f"the input does not match the inputSchema of {plan.name} version {plan.version}. "
            f"The first: {path}: {message}",
            violations=[Violation(path, message) for path, message in faults],
        )


def new_header(request: StartRequest, resolved: Resolved, now_ms: int) -> Header:
    """The workflow that a request starts."""
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
