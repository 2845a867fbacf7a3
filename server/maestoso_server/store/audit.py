"""Who changed what. Metadata writes note themselves; services note operators' commands."""

from __future__ import annotations

from dataclasses import dataclass

from .database import Connection


@dataclass(slots=True, frozen=True)
class AuditRow:
    id: int
    at_ms: int
    principal: str
    action: str
    resource: str


async def note(
    conn: Connection, namespace: str, *, principal: str, action: str, resource: str, now_ms: int
) -> None:
    """Append one row: `principal` did `action` to `resource` (`noun/name`)."""
    await conn.execute(_NOTE, namespace, now_ms, principal, action, resource)


# $1 namespace, $2 now, $3 principal, $4 action, $5 resource
_NOTE = """/* audit */
INSERT INTO audit (namespace, at_ms, principal, action, resource) VALUES ($1, $2, $3, $4, $5)"""


async def read(conn: Connection, namespace: str, *, after: int = 0, limit: int = 100) -> list[AuditRow]:
    """The rows of a namespace in the order they were written, those after the id `after`."""
    rows = await conn.fetch(_READ, namespace, after, limit)
    return [AuditRow(*row) for row in rows]


# $1 namespace, $2 after this id, $3 at most
_READ = """/* read audit */
SELECT a.id, a.at_ms, a.principal, a.action, a.resource FROM audit a
WHERE a.namespace = $1 AND a.id > $2 ORDER BY a.id LIMIT $3"""
