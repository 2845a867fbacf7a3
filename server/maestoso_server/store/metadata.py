"""Registered definitions, the snapshots that workflows run on, and namespaces.

A write is one statement guarded by the namespace's `metadata_revision`, which it raises: the state
that its outcome was worked out on is the state that it changes, and a start that was resolved before
it is refused by its save. The audit row is written with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from .database import Connection

SNAPSHOT_FORMAT = 1
"""The document with its task definitions and pinned child versions inside."""


class Overwrite(IntEnum):
    """What a put does where the definition exists already."""

    REFUSE = 1
    ALLOW = 2
    REQUIRE = 3
    """Replace what exists; refuse what does not."""


class Put(IntEnum):
    """What became of one document. With one EXISTS or MISSING among them nothing was written."""

    CREATED = 1
    REPLACED = 2
    UNCHANGED = 3
    """The stored document is the very same."""
    EXISTS = 4
    MISSING = 5


@dataclass(slots=True, frozen=True)
class Definition:
    """A registered document; `version` is 0 for task definitions, `document` b"" where not asked for."""

    name: str
    version: int
    document: bytes
    created_ms: int
    created_by: str
    updated_ms: int
    updated_by: str


@dataclass(slots=True, frozen=True)
class Document:
    """A document to put."""

    name: str
    document: bytes
    version: int = 0


# ---- namespaces ----------------------------------------------------------------------------


async def metadata_revision(conn: Connection, namespace: str) -> int | None:
    """Raised by every change of a definition; None where the namespace does not exist."""
    revision: int | None = await conn.fetchval(
        "SELECT s.metadata_revision FROM namespace s WHERE s.name = $1", namespace
    )
    return revision


async def create_namespace(conn: Connection, name: str, *, principal: str, now_ms: int) -> bool:
    """False where it exists already."""
    return bool(await conn.fetchval(_CREATE_NAMESPACE, name, now_ms, principal))


# $1 name, $2 now, $3 principal
_CREATE_NAMESPACE = """/* create namespace */
WITH made AS (
  INSERT INTO namespace (name, created_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING name),
noted AS (
  INSERT INTO audit (namespace, at_ms, principal, action, resource)
  SELECT m.name, $2, $3, 'create', 'namespace/' || m.name FROM made m)
SELECT count(*) FROM made"""


async def list_namespaces(conn: Connection, *, after: str = "", limit: int = 100) -> list[tuple[str, int]]:
    """(name, created_ms), by name, those after `after`."""
    rows = await conn.fetch(
        "SELECT s.name, s.created_ms FROM namespace s WHERE s.name > $1 ORDER BY s.name LIMIT $2",
        after,
        limit,
    )
    return [(row["name"], row["created_ms"]) for row in rows]


# ---- writes --------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class _Kind:
    """The statements of one kind of definition; $1 namespace, $2 names, $3 versions (0 for tasks)."""

    noun: str
    stored: str
    write: str
    delete: str


# $4 documents, $5 the revision that the outcomes were worked out on, $6 principal, $7 now
_WORKFLOW = _Kind(
    noun="definition",
    stored="""/* stored definitions */
SELECT d.document FROM unnest($2::text[], $3::integer[]) WITH ORDINALITY i(name, version, place)
LEFT JOIN definition d ON d.namespace = $1 AND d.name = i.name AND d.version = i.version
ORDER BY i.place""",
    write="""/* put definitions */
WITH raised AS (
  UPDATE namespace s SET metadata_revision = s.metadata_revision + 1
  WHERE s.name = $1 AND s.metadata_revision = $5 RETURNING s.name),
written AS (
  INSERT INTO definition (namespace, name, version, document, created_ms, created_by, updated_ms, updated_by)
  SELECT r.name, i.name, i.version, i.document, $7::bigint, $6::text, $7, $6
  FROM raised r, unnest($2::text[], $3::integer[], $4::bytea[]) i(name, version, document)
  ON CONFLICT (namespace, name, version) DO UPDATE
  SET document = excluded.document, updated_ms = excluded.updated_ms, updated_by = excluded.updated_by),
noted AS (
  INSERT INTO audit (namespace, at_ms, principal, action, resource)
  SELECT r.name, $7, $6, 'put', 'definition/' || i.name || '/' || i.version
  FROM raised r, unnest($2::text[], $3::integer[]) i(name, version))
SELECT count(*) FROM raised""",
    delete="""/* delete definition */
WITH gone AS (
  DELETE FROM definition d WHERE d.namespace = $1 AND d.name = $2 AND d.version = $3::integer
  RETURNING d.namespace, d.name, d.version),
raised AS (
  UPDATE namespace s SET metadata_revision = s.metadata_revision + 1 FROM gone g WHERE s.name = g.namespace),
noted AS (
  INSERT INTO audit (namespace, at_ms, principal, action, resource)
  SELECT g.namespace, $5::bigint, $4::text, 'delete', 'definition/' || g.name || '/' || g.version FROM gone g)
SELECT count(*) FROM gone""",
)

_TASK = _Kind(
    noun="task definition",
    stored="""/* stored task definitions */
SELECT d.document FROM unnest($2::text[], $3::integer[]) WITH ORDINALITY i(name, version, place)
LEFT JOIN task_definition d ON d.namespace = $1 AND d.name = i.name
ORDER BY i.place""",
    write="""/* put task definitions */
WITH raised AS (
  UPDATE namespace s SET metadata_revision = s.metadata_revision + 1
  WHERE s.name = $1 AND s.metadata_revision = $5 RETURNING s.name),
written AS (
  INSERT INTO task_definition (namespace, name, document, created_ms, created_by, updated_ms, updated_by)
  SELECT r.name, i.name, i.document, $7::bigint, $6::text, $7, $6
  FROM raised r, unnest($2::text[], $3::integer[], $4::bytea[]) i(name, version, document)
  ON CONFLICT (namespace, name) DO UPDATE
  SET document = excluded.document, updated_ms = excluded.updated_ms, updated_by = excluded.updated_by),
noted AS (
  INSERT INTO audit (namespace, at_ms, principal, action, resource)
  SELECT r.name, $7, $6, 'put', 'task_definition/' || i.name FROM raised r, unnest($2::text[]) i(name))
SELECT count(*) FROM raised""",
    delete="""/* delete task definition */
WITH gone AS (
  DELETE FROM task_definition d WHERE d.namespace = $1 AND d.name = $2 AND $3::integer = 0
  RETURNING d.namespace, d.name),
raised AS (
  UPDATE namespace s SET metadata_revision = s.metadata_revision + 1 FROM gone g WHERE s.name = g.namespace),
noted AS (
  INSERT INTO audit (namespace, at_ms, principal, action, resource)
  SELECT g.namespace, $5::bigint, $4::text, 'delete', 'task_definition/' || g.name FROM gone g)
SELECT count(*) FROM gone""",
)


async def put_workflows(
    conn: Connection,
    namespace: str,
    documents: Sequence[Document],
    *,
    overwrite: Overwrite,
    principal: str,
    now_ms: int,
    validate_only: bool = False,
) -> list[Put] | None:
    """Register workflow definitions, all or none; None where the namespace does not exist.

    A (name, version) may be among them once. With `validate_only` the answer is what a put would do.
    """
    return await _put(conn, _WORKFLOW, namespace, documents, overwrite, principal, now_ms, validate_only)


async def put_tasks(
    conn: Connection,
    namespace: str,
    documents: Sequence[Document],
    *,
    overwrite: Overwrite,
    principal: str,
    now_ms: int,
    validate_only: bool = False,
) -> list[Put] | None:
    """The same for task definitions."""
    return await _put(conn, _TASK, namespace, documents, overwrite, principal, now_ms, validate_only)


async def _put(
    conn: Connection,
    kind: _Kind,
    namespace: str,
    documents: Sequence[Document],
    overwrite: Overwrite,
    principal: str,
    now_ms: int,
    validate_only: bool,
) -> list[Put] | None:
    keys = [(document.name, document.version) for document in documents]
    if len(set(keys)) < len(keys):
        raise ValueError(f"the same {kind.noun} twice in one put")
    while True:
        revision = await metadata_revision(conn, namespace)
        if revision is None:
            return None
        rows = await conn.fetch(
            kind.stored, namespace, [d.name for d in documents], [d.version for d in documents]
        )
        outcomes = [
            _outcome(row["document"], document.document, overwrite)
            for row, document in zip(rows, documents, strict=True)
        ]
        changed = [d for d, outcome in zip(documents, outcomes, strict=True) if outcome <= Put.REPLACED]
        refused = Put.EXISTS in outcomes or Put.MISSING in outcomes
        if refused or validate_only or not changed:
            return outcomes
        written = await conn.fetchval(
            kind.write,
            namespace,
            [d.name for d in changed],
            [d.version for d in changed],
            [d.document for d in changed],
            revision,
            principal,
            now_ms,
        )
        if written:
            return outcomes


def _outcome(stored: bytes | None, given: bytes, overwrite: Overwrite) -> Put:
    if stored is None:
        return Put.MISSING if overwrite is Overwrite.REQUIRE else Put.CREATED
    if stored == given:
        return Put.UNCHANGED
    return Put.EXISTS if overwrite is Overwrite.REFUSE else Put.REPLACED


async def delete_workflow(
    conn: Connection, namespace: str, name: str, version: int, *, principal: str, now_ms: int
) -> bool:
    """False where there was none. Running workflows keep their snapshot."""
    return bool(await conn.fetchval(_WORKFLOW.delete, namespace, name, version, principal, now_ms))


async def delete_task(conn: Connection, namespace: str, name: str, *, principal: str, now_ms: int) -> bool:
    """False where there was none."""
    return bool(await conn.fetchval(_TASK.delete, namespace, name, 0, principal, now_ms))


# ---- reads ---------------------------------------------------------------------------------


async def get_workflow(
    conn: Connection, namespace: str, name: str, version: int | None = None
) -> Definition | None:
    """A workflow definition; its highest version where none is given."""
    row = await conn.fetchrow(_GET_WORKFLOW, namespace, name, version)
    return None if row is None else Definition(*row)


# $1 namespace, $2 name, $3 version or NULL
_GET_WORKFLOW = """/* get definition */
SELECT d.name, d.version, d.document, d.created_ms, d.created_by, d.updated_ms, d.updated_by
FROM definition d WHERE d.namespace = $1 AND d.name = $2 AND ($3::integer IS NULL OR d.version = $3)
ORDER BY d.version DESC LIMIT 1"""


async def get_workflow_document(
    conn: Connection, namespace: str, name: str, version: int | None = None
) -> bytes | None:
    """Its document alone."""
    found = await get_workflow(conn, namespace, name, version)
    return None if found is None else found.document


async def get_task(conn: Connection, namespace: str, name: str) -> Definition | None:
    """A task definition."""
    row = await conn.fetchrow(_GET_TASK, namespace, name)
    return None if row is None else Definition(*row)


# $1 namespace, $2 name
_GET_TASK = """/* get task definition */
SELECT d.name, 0, d.document, d.created_ms, d.created_by, d.updated_ms, d.updated_by
FROM task_definition d WHERE d.namespace = $1 AND d.name = $2"""


async def get_task_documents(conn: Connection, namespace: str, names: Sequence[str]) -> dict[str, bytes]:
    """The documents of those task definitions that exist."""
    rows = await conn.fetch(
        "SELECT d.name, d.document FROM task_definition d"
        " WHERE d.namespace = $1 AND d.name = ANY ($2::text[])",
        namespace,
        list(names),
    )
    return {row["name"]: row["document"] for row in rows}


async def latest_versions(conn: Connection, namespace: str, names: Sequence[str]) -> dict[str, int]:
    """The highest version of those workflow definitions that exist."""
    rows = await conn.fetch(_LATEST, namespace, list(names))
    return {row["name"]: row["version"] for row in rows}


# $1 namespace, $2 names
_LATEST = """/* latest versions */
SELECT d.name, max(d.version) AS version FROM definition d
WHERE d.namespace = $1 AND d.name = ANY ($2::text[]) GROUP BY d.name"""


async def list_workflows(
    conn: Connection,
    namespace: str,
    *,
    name: str | None = None,
    latest_only: bool = False,
    documents: bool = False,
    after: tuple[str, int] = ("", 0),
    limit: int = 100,
) -> list[Definition]:
    """Workflow definitions by name, then version, those after `after`; `name` None = all."""
    rows = await conn.fetch(_LIST_WORKFLOWS, namespace, name, latest_only, documents, *after, limit)
    return [Definition(*row) for row in rows]


# $1 namespace, $2 name or NULL, $3 only the highest version, $4 with documents, $5, $6 after, $7 at most
_LIST_WORKFLOWS = """/* list definitions */
SELECT d.name, d.version, CASE WHEN $4::boolean THEN d.document ELSE ''::bytea END,
  d.created_ms, d.created_by, d.updated_ms, d.updated_by
FROM definition d
WHERE d.namespace = $1 AND (d.name, d.version) > ($5::text, $6::integer) AND ($2::text IS NULL OR d.name = $2)
  AND (NOT $3::boolean OR d.version = (
    SELECT max(l.version) FROM definition l WHERE l.namespace = $1 AND l.name = d.name))
ORDER BY d.name, d.version LIMIT $7"""


async def list_tasks(
    conn: Connection, namespace: str, *, documents: bool = False, after: str = "", limit: int = 100
) -> list[Definition]:
    """Task definitions by name, those after `after`."""
    rows = await conn.fetch(_LIST_TASKS, namespace, documents, after, limit)
    return [Definition(*row) for row in rows]


# $1 namespace, $2 with documents, $3 after, $4 at most
_LIST_TASKS = """/* list task definitions */
SELECT d.name, 0, CASE WHEN $2::boolean THEN d.document ELSE ''::bytea END,
  d.created_ms, d.created_by, d.updated_ms, d.updated_by
FROM task_definition d WHERE d.namespace = $1 AND d.name > $3 ORDER BY d.name LIMIT $4"""


# ---- snapshots -----------------------------------------------------------------------------


async def get_snapshot(conn: Connection, namespace: str, snapshot_id: str) -> bytes | None:
    """The document that workflows with this snapshot run on."""
    row = await conn.fetchrow(
        "SELECT s.format, s.document FROM snapshot s WHERE s.namespace = $1 AND s.id = $2",
        namespace,
        snapshot_id,
    )
    if row is not None and row["format"] != SNAPSHOT_FORMAT:
        raise ValueError(f"snapshot {snapshot_id} in format {row['format']} was written by a newer server")
    document: Any = None if row is None else row["document"]
    return document  # type: ignore[no-any-return]


async def put_snapshot(
    conn: Connection,
    namespace: str,
    snapshot_id: str,
    *,
    name: str,
    version: int,
    document: bytes,
    now_ms: int,
) -> None:
    """Keep a snapshot. Its id stands for its content, so one that is there already is the same."""
    await conn.execute(
        _PUT_SNAPSHOT, namespace, snapshot_id, SNAPSHOT_FORMAT, name, version, document, now_ms
    )


# $1 namespace, $2 id, $3 format, $4 name, $5 version, $6 document, $7 now
_PUT_SNAPSHOT = """/* put snapshot */
INSERT INTO snapshot (namespace, id, format, name, version, document, created_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING"""
