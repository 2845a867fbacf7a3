"""The corpus: real definition documents, read where they lie, and what a run of one of them needs.

It lies beside the clone (or where MAESTOSO_CORPUS says) and is never copied here: `tests/coverage/`
names its files and holds our verdicts. Without it the tests over it are left out, and the run says so.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from maestoso.error.v1 import error_pb2 as wire_error
from maestoso.metadata.v1 import definition_pb2
from maestoso.metadata.v1 import metadata_service_pb2 as wire
from maestoso_server.clock import ManualClock
from maestoso_server.engine.events import Due, Event, QueueFacts, Result, Terminate
from maestoso_server.engine.names import shown_reference
from maestoso_server.engine.state import TaskStatus, WorkflowStatus
from maestoso_server.executor import Executor, Nowhere, Starter, StartRequest
from maestoso_server.executor.answers import Answers
from maestoso_server.executor.plans import Plans
from maestoso_server.payload import Json
from maestoso_server.scripting.pool import Evaluators
from maestoso_server.services.documents import Judge
from maestoso_server.store import metadata
from maestoso_server.store.database import Database
from services_kit import Served, node

ROOT = Path(__file__).resolve().parents[1]
CORPUS = Path(os.environ.get("MAESTOSO_CORPUS", ROOT.parent / "shared" / "corpus"))
COVERAGE = ROOT / "tests" / "coverage"

without_corpus = pytest.mark.skipif(
    not (CORPUS / "index.json").is_file(),
    reason=f"no corpus at {CORPUS}; set MAESTOSO_CORPUS to a folder that has its index.json",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the corpus, as its index describes it."""

    file: str
    kind: str
    validator: str | None
    """`accept`, `reject`, `not valid JSON`; None where no registration call takes the document alone."""
    reasons: tuple[str, ...]
    self_contained: bool
    inputs: dict[str, str]
    """Input names and their types."""

    @property
    def raw(self) -> bytes:
        return (CORPUS / self.file).read_bytes()

    def documents(self) -> list[bytes]:
        """Each definition in it. One that is the whole file goes as its bytes are."""
        raw = self.raw
        try:
            value = json.loads(raw.decode("utf-8-sig"))
        except ValueError:
            return [raw]
        if self.kind == "workflow_node":
            return [_wrapped([value])]
        if self.kind == "workflow_node_list":
            return [_wrapped(value)]
        if self.kind == "start_request":
            return [json.dumps(value["workflowDef"]).encode()]
        return [json.dumps(document).encode() for document in value] if isinstance(value, list) else [raw]


def _wrapped(nodes: list[Any]) -> bytes:
    return json.dumps({"name": "wrapped", "version": 1, "schemaVersion": 2, "tasks": nodes}).encode()


def entries(*kinds: str) -> Iterator[Entry]:
    """The corpus's files of these kinds."""
    for entry in json.loads((CORPUS / "index.json").read_bytes()):
        if entry["kind"] in kinds:
            yield Entry(
                file=entry["file"],
                kind=entry["kind"],
                validator=entry.get("validator"),
                reasons=tuple(entry.get("validatorReasons", ())),
                self_contained=bool(entry.get("selfContained")),
                inputs=entry.get("sampleInputTypes") or {},
            )


def sample_input(entry: Entry, definition: dict[str, Any]) -> dict[str, Any]:
    """An input by the names that the document declares and the types that the index knows."""
    names = [name for name in definition.get("inputParameters") or () if isinstance(name, str)]
    return {name: _sample(name, entry.inputs.get(name, "string")) for name in [*entry.inputs, *names]}


def _sample(name: str, kind: str) -> Any:
    samples: dict[str, Any] = {
        "integer": 3,
        "number": 2.5,
        "boolean": True,
        "array": [{"id": 1}, {"id": 2}],
        "object": {"id": 1},
        "url": "http://example.com/",
        "ISO-8601 datetime": "2026-01-02T03:04:05Z",
    }
    return samples.get(kind, name)


# --- registering ---------------------------------------------------------------------------------------

WORKFLOWS = ("workflow", "workflow_list", "workflow_node", "workflow_node_list", "start_request")
TASKS = ("task", "task_list")
JUDGED = (*WORKFLOWS, *TASKS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the service says of one file."""

    here: str
    """`accepted`, `refused` or `not JSON`."""
    violations: dict[str, wire_error.Violation]
    warnings: dict[str, wire_error.Violation]

    @property
    def differences(self) -> dict[str, str]:
        """What to give a reason for: path -> what is said there and Conductor does not say."""
        return {path: found.message for path, found in {**self.violations, **self.warnings}.items()}


async def judge(served: Served, entry: Entry) -> Verdict:
    """Have every definition of a file judged by the service, as a registration would."""
    documents = entry.documents()
    if entry.kind in TASKS:
        asked = wire.PutTaskDefinitionsRequest(documents=documents, validate_only=True)
        results = (await served.metadata.PutTaskDefinitions(asked, timeout=30)).results
    else:
        request = wire.PutWorkflowDefinitionsRequest(documents=documents, validate_only=True)
        results = (await served.metadata.PutWorkflowDefinitions(request, timeout=30)).results
    several = len(documents) > 1
    violations: dict[str, wire_error.Violation] = {}
    warnings: dict[str, wire_error.Violation] = {}
    for index, result in enumerate(results):
        below = f"[{index}]." if several else ""
        violations.update({below + found.path: found for found in result.violations})
        warnings.update({below + found.path: found for found in result.warnings})
    refused = any(result.outcome == definition_pb2.PUT_OUTCOME_INVALID for result in results)
    no_json = any(found.message.startswith("not valid JSON") for found in violations.values())
    return Verdict("not JSON" if no_json else "refused" if refused else "accepted", violations, warnings)


# --- running -------------------------------------------------------------------------------------------

PATIENCE_S = 20
"""For a script whose value is still to come."""
STEPS_MAX = 400
"""Reports, signals and deadlines of one run. A loop that an echoing worker never ends is cut here."""


@dataclass
class Bench:
    """Store, executor and evaluators without a port, on time that moves when nothing else does."""

    database: Database
    clock: ManualClock
    executor: Executor
    starter: Starter
    judge: Judge

    async def start(self, definition: Any, given: dict[str, Any]) -> str:
        """Start a definition as it is written; the workflow's id. Raises its refusal."""
        request = StartRequest(namespace="default", definition=definition, input=Json.of(given))
        (outcome,) = await self.starter.start([request])
        if outcome.error is not None:
            raise outcome.error
        return outcome.workflow_id

    async def happen(self, workflow_id: str, event: Event) -> None:
        await self.executor.apply(workflow_id, event)

    async def register(self, *documents: bytes) -> None:
        """Keep definitions that others start by name."""
        judged = await self.judge.workflows("default", documents, strict=False)
        kept = [metadata.Document(one.name, one.raw, one.version) for one in judged if not one.faults]
        async with self.database.acquire() as connection:
            await metadata.put_workflows(
                connection,
                "default",
                kept,
                overwrite=metadata.Overwrite.ALLOW,
                principal="test",
                now_ms=self.clock.now_ms(),
                validate_only=False,
            )


@asynccontextmanager
async def bench(database_url: str) -> AsyncIterator[Bench]:
    """A bench on a migrated database."""
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        database = await Database.open(database_url, clock=clock)
        stack.push_async_callback(database.close)
        evaluators = Evaluators(processes=1)
        stack.push_async_callback(evaluators.stop)
        epoch = await node(database, clock)
        plans = Plans(database=database, clock=clock)
        executor = Executor(
            database=database,
            clock=clock,
            plans=plans,
            answers=Answers(database=database, clock=clock, evaluators=evaluators, plans=plans),
            placement=Nowhere(),
            epoch=lambda: epoch,
        )
        stack.push_async_callback(executor.idle)
        starter = Starter(executor=executor, plans=plans, database=database, clock=clock)
        yield Bench(database, clock, executor, starter, Judge(database=database, evaluators=evaluators))


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a workflow."""

    status: str
    reason: str
    tasks: list[str]
    """`reference STATUS` in the order of their making: `reference__1` for a turn of a loop,
    `reference#1` for a second attempt."""
    output_keys: list[str]

    def shown(self) -> dict[str, Any]:
        """As the recorded table has it."""
        return {"status": self.status, "tasks": self.tasks, "output": self.output_keys}


async def run(bench: Bench, workflow_id: str, *, steps: int = STEPS_MAX) -> Ran:
    """A workflow driven to its end by a worker that answers every task with its own input, a person
    who signals every WAIT and HUMAN without a clock, and time that passes when nothing else does.

    One that has not ended after so many steps is terminated."""
    changed = asyncio.Event()
    stop = bench.executor.changes.subscribe(workflow_id, lambda _: changed.set())
    try:
        return await _drive(bench, workflow_id, steps, changed)
    finally:
        stop()


async def _drive(bench: Bench, workflow_id: str, steps: int, changed: asyncio.Event) -> Ran:
    for _ in range(steps):
        changed.clear()
        await bench.executor.idle()
        if await _ended(bench, workflow_id):
            return await look(bench, workflow_id)
        if await _step(bench, workflow_id):
            continue
        try:  # a script that is slow today
            async with asyncio.timeout(PATIENCE_S):
                await changed.wait()
        except TimeoutError:
            raise AssertionError(f"nothing moves any more: {await look(bench, workflow_id)}") from None
    await bench.happen(workflow_id, Terminate(now_ms=bench.clock.now_ms(), reason=f"{steps} steps"))
    await bench.executor.idle()
    return await look(bench, workflow_id)


_FAMILY = """
WITH RECURSIVE family(id) AS (
  SELECT $1::uuid UNION ALL SELECT w.id FROM workflow w JOIN family f ON w.parent_id = f.id
)
SELECT t.workflow_id, t.seq, t.type, t.input, q.delivery, q.due_ms, q.owner_epoch, d.due_ms AS deadline_ms
FROM task t JOIN family f ON f.id = t.workflow_id JOIN workflow w ON w.id = t.workflow_id
LEFT JOIN task_queue q ON q.workflow_id = t.workflow_id AND q.seq = t.seq
LEFT JOIN deadline d ON d.workflow_id = t.workflow_id AND d.seq = t.seq
WHERE t.status <= 2 AND w.status <= 2 ORDER BY t.workflow_id, t.seq
"""


async def _step(bench: Bench, workflow_id: str) -> bool:
    async with bench.database.acquire() as connection:
        rows = await connection.fetch(_FAMILY, workflow_id)
    now_ms = bench.clock.now_ms()
    for row in rows:
        waits = row["type"] in ("WAIT", "HUMAN") and row["deadline_ms"] is None
        if waits or (row["delivery"] is not None and row["due_ms"] <= now_ms):
            output = Json.of({"signalled": True}) if waits else Json(row["input"])
            event = Result(
                now_ms=now_ms,
                seq=row["seq"],
                delivery=row["delivery"],
                status=TaskStatus.COMPLETED,
                output=output,
            )
            await bench.happen(str(row["workflow_id"]), event)
            return True
    timed = [row for row in rows if row["deadline_ms"] is not None]
    if not timed:
        return False
    row = min(timed, key=lambda row: int(row["deadline_ms"]))
    bench.clock.advance(max(0, row["deadline_ms"] - now_ms))
    queue = None if row["delivery"] is None else QueueFacts(row["owner_epoch"], row["due_ms"])
    await bench.happen(str(row["workflow_id"]), Due(now_ms=bench.clock.now_ms(), seq=row["seq"], queue=queue))
    return True


async def _ended(bench: Bench, workflow_id: str) -> bool:
    async with bench.database.acquire() as connection:
        status = await connection.fetchval("SELECT status FROM workflow WHERE id = $1", workflow_id)
    return WorkflowStatus(status).terminal


async def look(bench: Bench, workflow_id: str) -> Ran:
    """What a workflow has become so far."""
    async with bench.database.acquire() as connection:
        header = await connection.fetchrow(
            "SELECT w.status, p.reason, p.output FROM workflow w JOIN workflow_payload p"
            " ON p.workflow_id = w.id WHERE w.id = $1",
            workflow_id,
        )
        rows = await connection.fetch(
            "SELECT reference, path, attempt, status FROM task WHERE workflow_id = $1 ORDER BY seq",
            workflow_id,
        )
    output = Json(header["output"]).value if header["output"] else {}
    return Ran(
        status=WorkflowStatus(header["status"]).name,
        reason=header["reason"] or "",
        tasks=[
            shown_reference(row["reference"], tuple(row["path"]))
            + (f"#{row['attempt']}" if row["attempt"] else "")
            + f" {TaskStatus(row['status']).name}"
            for row in rows
        ],
        output_keys=sorted(output) if isinstance(output, dict) else [],
    )
