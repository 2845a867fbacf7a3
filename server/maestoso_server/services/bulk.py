"""Bulk operations at work: takes those that nobody works on, and does their items at their rate.

    CreateBulkOperation ─▶ row ─▶ take ─▶ collect* ─▶ (claim ─▶ do ─▶ finish)* ─▶ COMPLETED

An item is begun in a commit of its own, with the facts of its workflow at that moment. Whoever takes
over from a node that is gone compares them with what is there now: so an item is never done twice. Where
the facts cannot tell, the item says so instead of being done again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from maestoso.workflow.v1 import bulk_pb2

from ..clock import Clock
from ..engine.state import TaskStatus
from ..errors import FailedPrecondition, MaestosoError, Reason
from ..payload import EMPTY, Json
from ..query import WORKFLOWS, And, Compare, Op, Query, parse
from ..store import bulk as rows
from ..store import lists, search
from ..store.bulk import Bulk, BulkState, Facts, Item
from ..store.database import Connection, Database
from ..store.database import Unavailable as StoreUnavailable
from ..telemetry import Metrics
from . import convert
from .limits import invalid
from .operations import Operations, refusal_of
from .refusals import refusal

log = logging.getLogger(__name__)

OPERATIONS_AT_ONCE = 4
CHUNK_MAX = 50
"""Items of one operation that are under way at once."""
CHUNKS_A_SECOND = 10
PAGE = 1_000
"""Workflows of a query that are listed at once."""
LOOK_MS = 5_000
"""How often it is looked for operations whose node is gone."""
RETENTION_MS = 7 * 86_400_000
FORGET_MS = 600_000
FORGET_ITEMS = 10_000
RETRY_MS = 1_000


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of action. `right` is what the operation on one workflow asks for."""

    right: str
    do: Callable[[Operations, bulk_pb2.BulkAction, str, str], Awaitable[object]]
    was_done: Callable[[Facts, Facts], bool | None]
    """From the facts when an item was begun and those now: True it was done, False do it, None nobody can
    tell."""
    leaves_nothing: bool = False
    """A workflow that was there and is gone now was done."""


def _again(_seen: Facts, _now: Facts) -> bool | None:
    """What is done twice is done once."""
    return False


def _untouched(seen: Facts, now: Facts) -> bool | None:
    """Only a workflow that nothing has happened to was certainly not reached."""
    return False if now.revision == seen.revision else None


def _generation(seen: Facts, now: Facts) -> bool | None:
    """A restart begins a new generation."""
    return now.generation != seen.generation


def _revived(seen: Facts, now: Facts) -> bool | None:
    """A retry takes the moment of the end away."""
    return now.ended_ms != seen.ended_ms


def _given(asked: Any, field: str) -> Json | None:
    """An optional payload; None where it is absent."""
    return Json(getattr(asked, field) or EMPTY.raw) if asked.HasField(field) else None


async def _skip(operations: Operations, action: bulk_pb2.BulkAction, namespace: str, id: str) -> None:
    asked = action.skip
    given, told = Json(asked.input or EMPTY.raw), Json(asked.output or EMPTY.raw)
    await operations.skip(namespace, id, asked.reference, input=given, output=told)


async def _jump(operations: Operations, action: bulk_pb2.BulkAction, namespace: str, id: str) -> None:
    asked = action.jump
    await operations.jump(namespace, id, asked.reference, input=_given(asked, "input"))


async def _update(operations: Operations, action: bulk_pb2.BulkAction, namespace: str, id: str) -> None:
    asked = action.update
    await operations.update_variables(namespace, id, Json(asked.variables), replace=asked.replace)


async def _update_task(
    operations: Operations, action: bulk_pb2.BulkAction, namespace: str, id: str
) -> object:
    asked = action.update_task
    return await operations.update_task(
        namespace,
        id,
        asked.reference,
        status=TaskStatus(asked.status or TaskStatus.COMPLETED),
        output=Json(asked.output or EMPTY.raw),
        reason=asked.reason or None,
    )


async def _rerun(operations: Operations, action: bulk_pb2.BulkAction, namespace: str, id: str) -> object:
    asked = action.rerun
    return await operations.rerun(
        namespace,
        id,
        reference=asked.reference,
        workflow_input=_given(asked, "workflow_input"),
        task_input=_given(asked, "task_input"),
    )


async def _remove(operations: Operations, action: bulk_pb2.BulkAction, namespace: str, id: str) -> object:
    asked = action.remove
    return await operations.remove(
        namespace, id, terminate=asked.terminate, reason=asked.reason, recursive=asked.recursive
    )


async def _signal(operations: Operations, action: bulk_pb2.BulkAction, namespace: str, id: str) -> object:
    asked = action.signal
    return await operations.signal(
        namespace,
        id,
        reference=asked.reference or None,
        status=TaskStatus(asked.status or TaskStatus.COMPLETED),
        output=Json(asked.output) if asked.output else EMPTY,
        reason=asked.reason or None,
    )


KINDS: dict[str, Kind] = {
    "pause": Kind("workflow:pause", lambda o, a, n, i: o.pause(n, i), _again),
    "resume": Kind("workflow:resume", lambda o, a, n, i: o.resume(n, i), _untouched),
    "terminate": Kind(
        "workflow:terminate", lambda o, a, n, i: o.terminate(n, i, reason=a.terminate.reason), _again
    ),
    "restart": Kind(
        "workflow:restart",
        lambda o, a, n, i: o.restart(n, i, latest=a.restart.use_latest_definitions),
        _generation,
    ),
    "retry": Kind(
        "workflow:retry",
        lambda o, a, n, i: o.retry(n, i, resume_children=a.retry.resume_children),
        _revived,
    ),
    "upgrade": Kind(
        "workflow:upgrade",
        lambda o, a, n, i: _upgrade(o, a.upgrade, n, i),
        _again,
    ),
    "signal": Kind("workflow:signal", _signal, _untouched),
    "rerun": Kind("workflow:rerun", _rerun, _generation),
    "remove": Kind("workflow:remove", _remove, _again, leaves_nothing=True),
    "skip": Kind("workflow:skip", _skip, _untouched),
    "jump": Kind("workflow:jump", _jump, _untouched),
    "reset": Kind("workflow:reset", lambda o, a, n, i: o.reset_callbacks(n, i), _again),
    "update": Kind("workflow:update", _update, _untouched),
    "update_task": Kind("task:update", _update_task, _untouched),
}
"""By the name of the member of BulkAction."""


async def _upgrade(
    operations: Operations, asked: bulk_pb2.BulkUpgrade, namespace: str, workflow_id: str
) -> None:
    report = await operations.upgrade(
        namespace, workflow_id, version=asked.version or None, dry_run=asked.dry_run
    )
    faults = report.value["faults"]
    if faults:
        told = "; ".join(f"{fault['reference']}: {fault['message']}" for fault in faults[:5])
        raise FailedPrecondition(Reason.WRONG_STATE, f"workflow {workflow_id} does not fit: {told}")


class BulkRunner:
    """One per process. `run` until cancelled; `notice` when an operation was made here."""

    def __init__(
        self,
        *,
        operations: Operations,
        selection: Selection,
        database: Database,
        clock: Clock,
        epoch: Callable[[], int],
        metrics: Metrics,
        page: int = PAGE,
    ) -> None:
        self._operations = operations
        self._selection = selection
        self._database = database
        self._clock = clock
        self._epoch = epoch
        self._metrics = metrics
        self._page = page
        self._noticed = asyncio.Event()
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._forget_ms = 0

    def notice(self) -> None:
        """There may be something to do."""
        self._noticed.set()

    async def run(self) -> None:
        """Until cancelled; what is under way then goes on elsewhere."""
        try:
            while True:
                self._noticed.clear()
                await self._attempt()
                await self._clock.wait(self._noticed, self._clock.now_ms() + LOOK_MS)
        finally:
            for task in self._busy.values():
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def _attempt(self) -> None:
        try:
            await self._take()
            await self._forget()
        except StoreUnavailable as away:
            log.warning("waits for the database", extra={"duty": "bulk", "cause": str(away)})
        except Exception:
            log.exception("failed", extra={"duty": "bulk"})

    async def _take(self) -> None:
        room = OPERATIONS_AT_ONCE - len(self._busy)
        epoch = self._epoch()
        if room <= 0 or not epoch:
            return
        async with self._database.acquire() as conn:
            taken = await rows.take(conn, epoch=epoch, busy=list(self._busy), limit=room)
        for bulk in taken:
            task = asyncio.get_running_loop().create_task(self._work(bulk, epoch))
            self._busy[bulk.id] = task
            task.add_done_callback(partial(self._left, bulk.id))

    def _left(self, bulk_id: str, _task: asyncio.Task[None]) -> None:
        del self._busy[bulk_id]
        self._noticed.set()

    async def _forget(self) -> None:
        now_ms = self._clock.now_ms()
        if now_ms < self._forget_ms:
            return
        self._forget_ms = now_ms + FORGET_MS
        async with self._database.acquire() as conn:
            while await rows.forget(conn, ended_before_ms=now_ms - RETENTION_MS, limit=FORGET_ITEMS):
                pass

    # -- one operation -------------------------------------------------------------------------

    async def _work(self, bulk: Bulk, epoch: int) -> None:
        """To its end, or until it is not ours any more. After a failure it is taken again."""
        try:
            left: Bulk | None = bulk
            if bulk.state is BulkState.COLLECTING:
                left = await self._collect(bulk, epoch)
            if left is not None and left.state is BulkState.RUNNING:
                await self._do_all(left, epoch)
        except StoreUnavailable as away:
            log.warning("waits for the database", extra={"bulk_id": bulk.id, "cause": str(away)})
            await self._clock.sleep_until(self._clock.now_ms() + RETRY_MS)
        except Exception:
            log.exception("failed", extra={"bulk_id": bulk.id})
            await self._clock.sleep_until(self._clock.now_ms() + LOOK_MS)

    async def _collect(self, bulk: Bulk, epoch: int) -> Bulk | None:
        query = bulk_pb2.BulkQuery.FromString(bulk.query or b"")
        left: Bulk | None = bulk
        while left is not None and left.state is BulkState.COLLECTING:
            async with self._database.acquire() as conn:
                found = await self._selection.page(
                    conn, left.namespace, query, after=left.collected, limit=self._page
                )
                left = await rows.collect(
                    conn,
                    left,
                    found,
                    epoch=epoch,
                    last=len(found) < self._page,
                    now_ms=self._clock.now_ms(),
                )
        return left

    async def _do_all(self, bulk: Bulk, epoch: int) -> None:
        action = bulk_pb2.BulkAction.FromString(bulk.action)
        kind = KINDS[str(action.WhichOneof("action"))]
        async with self._database.acquire() as conn:
            begun = await rows.begun(conn, bulk)
        left: Bulk | None = bulk
        if begun:
            left = await self._chunk(bulk, epoch, action, kind, begun, resumed=True)
        chunk = max(1, min(CHUNK_MAX, bulk.rate // CHUNKS_A_SECOND))
        next_ms = self._clock.now_ms()
        while left is not None and left.state is BulkState.RUNNING and left.claimed < left.total:
            await self._clock.sleep_until(next_ms)
            async with self._database.acquire() as conn:
                items = await rows.claim(
                    conn, left, epoch=epoch, limit=chunk, action=kind.right, now_ms=self._clock.now_ms()
                )
            if items is None:
                return
            next_ms = max(next_ms, self._clock.now_ms()) + len(items) * 1000 // bulk.rate
            left = await self._chunk(left, epoch, action, kind, items, resumed=False)

    async def _chunk(
        self,
        bulk: Bulk,
        epoch: int,
        action: bulk_pb2.BulkAction,
        kind: Kind,
        items: Sequence[Item],
        *,
        resumed: bool,
    ) -> Bulk | None:
        """Do items that were begun, and write what they came to. One whose outcome is not known because
        the database is away stays begun: the whole is taken again."""
        refusals = await asyncio.gather(
            *(self._one(bulk.namespace, action, kind, item, resumed=resumed) for item in items)
        )
        known = [
            (item.seq, None if error is None else refusal(error).SerializeToString())
            for item, error in zip(items, refusals, strict=True)
            if error is None or not error.rule.retryable
        ]
        name = str(action.WhichOneof("action"))
        left: Bulk | None = bulk
        if known:
            async with self._database.acquire() as conn:
                left = await rows.finish(conn, bulk, known, epoch=epoch, now_ms=self._clock.now_ms())
        if left is not None:
            failed = sum(1 for _, error in known if error is not None)
            self._metrics.bulk_items.labels(name, "failed").inc(failed)
            self._metrics.bulk_items.labels(name, "succeeded").inc(len(known) - failed)
        if len(known) < len(items):
            raise StoreUnavailable("items could not be done")
        return left

    async def _one(
        self, namespace: str, action: bulk_pb2.BulkAction, kind: Kind, item: Item, *, resumed: bool
    ) -> MaestosoError | None:
        if resumed and item.seen is not None and item.now is None and kind.leaves_nothing:
            return None
        if resumed and item.seen is not None and item.now is not None:
            done = kind.was_done(item.seen, item.now)
            if done:
                return None
            if done is None:
                return FailedPrecondition(
                    Reason.WRONG_STATE,
                    f"the node that did this was lost meanwhile, and workflow {item.workflow_id} has changed "
                    "since: look whether it was done before you do it again",
                )
        return await refusal_of(kind.do(self._operations, action, namespace, item.workflow_id), "bulk")


class Selection:
    """Finds the workflows of a query, the youngest first: by the filters of lists, and by the query
    language of searches."""

    async def page(
        self,
        conn: Connection,
        namespace: str,
        query: bulk_pb2.BulkQuery,
        *,
        after: tuple[int, str] | None,
        limit: int,
    ) -> list[tuple[int, str]]:
        """(created_ms, id) of those after that place; fewer than `limit` ends the list."""
        filters = convert.workflow_filter(query)
        if query.query:
            return await self._searched(conn, namespace, _whole(query.query, filters), after, limit)
        found = await lists.list_workflows(conn, namespace, filters, after=after, limit=limit)
        return [(row.created_ms, row.id) for row in found]

    async def _searched(
        self, conn: Connection, namespace: str, query: Query, after: tuple[int, str] | None, limit: int
    ) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        while len(found) < limit:
            page = await search.select_ids(conn, namespace, query, after=after, limit=limit - len(found))
            found += page.found
            after = page.next
            if after is None:
                break
        return found

    def check(self, query: bulk_pb2.BulkQuery) -> None:
        """Raises InvalidArgument for a query that it cannot answer."""
        filters = convert.workflow_filter(query)
        if query.query:
            _whole(query.query, filters)


def _whole(text: str, filters: lists.Filter) -> Query:
    """A query together with the other filters. Raises InvalidArgument."""
    asked = parse(text, field="query.query")
    for name, message in asked.guessed.items():
        raise invalid("query.query", f"{message}; a search attribute is written attributes.{name} here")
    fields = WORKFLOWS.by_name
    given: list[tuple[str, Op, int | str | None]] = [
        ("workflowType", Op.EQ, filters.name),
        ("status", Op.EQ, None if filters.status is None else int(filters.status)),
        ("correlationId", Op.EQ, filters.correlation_id),
        ("startTime", Op.GE, filters.created_from_ms),
        ("startTime", Op.LT, filters.created_before_ms),
    ]
    conditions = [Compare(fields[name], op, value) for name, op, value in given if value is not None]
    return Query(And((asked.node, *conditions)) if conditions else asked.node)
