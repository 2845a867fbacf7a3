"""Which namespaces exist. They are never removed, so what was seen once is known for good."""

from __future__ import annotations

from ..errors import NotFound, Reason
from ..store import metadata
from ..store.database import Database


class Namespaces:
    """Answers from memory; asks the store for a name that it has not seen."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: set[str] = set()

    async def require(self, namespace: str) -> None:
        """Return if it exists; raises NotFound."""
        if namespace in self._seen:
            return
        async with self._database.acquire() as connection:
            found = await metadata.metadata_revision(connection, namespace)
        if found is None:
            raise NotFound(
                Reason.NAMESPACE_NOT_FOUND,
                f"namespace {namespace!r} does not exist; create it, or use `default`",
            )
        self._seen.add(namespace)
