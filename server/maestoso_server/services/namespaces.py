"""Which namespaces exist. They are never removed, so what was seen once is known for good."""

from __future__ import annotations

import re

from ..errors import NotFound, Reason
from ..store import metadata
from ..store.database import Database

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""What a namespace may be called."""


class Namespaces:
    """Answers from memory; asks the store for a name that it has not seen."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: set[str] = set()

    async def require(self, namespace: str) -> None:
        """Return if it exists; raises NotFound."""
        if namespace in self._seen:
            return
        if not NAME.fullmatch(namespace) or not await self._exists(namespace):
            raise NotFound(
                Reason.NAMESPACE_NOT_FOUND,
                f"namespace {namespace[:63]!r} does not exist; create it, or use `default`",
            )
        self._seen.add(namespace)

    async def _exists(self, namespace: str) -> bool:
        async with self._database.acquire() as connection:
            return await metadata.metadata_revision(connection, namespace) is not None
