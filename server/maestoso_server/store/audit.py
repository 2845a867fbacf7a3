"""Who asked for what: a row before each administrative action, refused ones included."""

from __future__ import annotations

from .database import Connection


async def record(
    conn: Connection, *, namespace: str, principal: str, action: str, resource: str, now_ms: int
) -> None:
    """Note that `principal` is about to do `action` (`noun:verb`) to `resource` (an id or name, or empty)."""
    await conn.execute(_RECORD, namespace, now_ms, principal, action, resource)


# $1 namespace, $2 now, $3 principal, $4 action, $5 resource
_RECORD = """/* audit */
INSERT INTO audit (namespace, at_ms, principal, action, resource) VALUES ($1, $2, $3, $4, $5)"""
