"""The trail of operators' commands, written by the gate before the command happens.

Before, so that nothing is done without a trace; what was refused afterwards is in it too. Writes of
definitions and namespaces are not here: the store keeps them in the same commit. Nor are starts, whose
workflow names its `created_by`, nor what workers do.
"""

from __future__ import annotations

from ..clock import Clock
from ..store import audit
from ..store.database import Database

TEXT_MAX = 255


class Audit:
    """Writes to the table `audit`."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record(self, *, namespace: str, principal: str, action: str, resource: str) -> None:
        """One row; answers after its commit."""
        async with self._database.acquire() as connection:
            await audit.note(
                connection,
                _storable(namespace),
                principal=principal,
                action=action,
                resource=_storable(resource),
                now_ms=self._clock.now_ms(),
            )


def _storable(text: str) -> str:
    """What a request names, not yet checked, as Postgres can keep it."""
    return text[:TEXT_MAX].replace("\0", "\N{REPLACEMENT CHARACTER}")
