"""Executions to be searched, written as saves leave them."""

from __future__ import annotations

from decimal import Decimal

from maestoso_server.store import search
from maestoso_server.store.database import Connection
from query_kit import Row

INSERT = """
INSERT INTO workflow (id, namespace, revision, status, generation, snapshot_id, name, version, parent_id,
  parent_seq, priority, correlation_id, created_ms, clock_ms, updated_ms, ended_ms, next_seq, open,
  permissive_failed, last_task, last_node)
VALUES ($1, $2, 1, $3, 1, $1, $4, $5, $6, 0, $7, $8, $9, $9, $10, $11, 2, 0, 0, 0, 0)"""
INSERT_PAYLOAD = """
INSERT INTO workflow_payload (workflow_id, input, variables, failed_task, created_by, traceparent,
  idempotency_key, reason) VALUES ($1, '{}', '{}', 0, $2, '', $3, $4)"""
INSERT_ATTRIBUTE = """
INSERT INTO search_attribute (workflow_id, name, namespace, created_ms, kind, text, number)
VALUES ($1, $2, $3, $4, $5, $6, $7)"""


async def fill(conn: Connection, made: list[Row], namespace: str = "default") -> None:
    """Rows as saves leave them."""
    await conn.execute("DELETE FROM workflow; DELETE FROM workflow_payload; DELETE FROM search_attribute")
    for row in made:
        at = row.values
        await conn.execute(
            INSERT, at["workflowId"], namespace, at["status"], at["workflowType"], at["version"],
            at["parentWorkflowId"], at["priority"], at["correlationId"], at["startTime"], at["updateTime"],
            at["endTime"] or 0,
        )  # fmt: skip
        await conn.execute(
            INSERT_PAYLOAD, at["workflowId"], at["createdBy"] or "", at["idempotencyKey"],
            at["reasonForIncompletion"],
        )  # fmt: skip
        for name, value in row.attributes.items():
            number = value if isinstance(value, Decimal) else None
            kind = 1 if number is None else 2
            await conn.execute(
                INSERT_ATTRIBUTE, at["workflowId"], name, namespace, at["startTime"], kind, str(value), number
            )


def unhurried() -> search.Budget:
    return search.Budget(lambda: 0.0, 1.0)
