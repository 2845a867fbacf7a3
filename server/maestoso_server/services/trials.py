"""Trying workflows out: what a start would run on, with mocks, and no more of them at once than fit."""

from __future__ import annotations

from ..clock import Clock
from ..errors import Reason, ResourceExhausted
from ..executor.plans import Draft, Plans
from ..executor.starts import StartRequest
from ..executor.trial import Mocks, Trial
from ..scripting.pool import Evaluators

AT_ONCE = 4
RETRY_AFTER_MS = 1_000


class Trials:
    """Runs them in this process, beside its other work."""

    def __init__(self, *, plans: Plans, evaluators: Evaluators, clock: Clock) -> None:
        self._plans = plans
        self._evaluators = evaluators
        self._clock = clock
        self._running = 0

    async def run(self, start: StartRequest, mocks: Mocks) -> Trial:
        """Raises NotFound, InvalidArgument and ResourceExhausted."""
        if self._running >= AT_ONCE:
            raise ResourceExhausted(
                Reason.OVERLOADED, f"{AT_ONCE} tests run already", retry_after_ms=RETRY_AFTER_MS
            )
        self._running += 1
        try:
            draft = await self._draft(start)
            trial = Trial(
                start.namespace,
                plans=self._plans,
                evaluators=self._evaluators,
                mocks=mocks,
                now_ms=self._clock.now_ms(),
            )
            await trial.run(draft, start)
            return trial
        finally:
            self._running -= 1

    async def _draft(self, start: StartRequest) -> Draft:
        if start.definition is not None:
            return await self._plans.draft_of(start.namespace, start.definition)
        return await self._plans.draft(start.namespace, start.name, start.version)
