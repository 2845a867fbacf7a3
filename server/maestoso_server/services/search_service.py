"""SearchService: check, convert, call, convert. What a query means is in `query` and `store.search`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from maestoso.search.v1 import search_service_pb2 as wire
from maestoso.search.v1.search_service_pb2_grpc import SearchServiceServicer

from ..clock import Clock
from ..query import TASKS, WORKFLOWS, And, Node, Query, parse, parse_sort, parse_words
from ..query.parse import ATTRIBUTES
from ..store import search
from ..store.database import Connection, Database
from ..store.search import Asked, Budget
from . import convert, limits
from .actions import namespace_of

PAGE_MAX = 5_000
START_MAX = 10_000
GROUPS_MAX = 1_000
AT_ONCE = 4
"""Searches of one node that run at the same time: the others wait, so that work goes on beside them."""
_GROUPS = ("status", "workflowType", "version")


class SearchService(SearchServiceServicer):
    """Finds and counts."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def SearchWorkflows(
        self, request: wire.SearchWorkflowsRequest, context: Any
    ) -> wire.SearchWorkflowsResponse:
        size = limits.page_size(request.page_size, most=PAGE_MAX)
        start = limits.number(request.start, "start", 0, START_MAX)
        if start and request.page_token:
            raise limits.invalid("start", "does not go with a page_token, which says where to begin")
        query = parse(request.query)
        asked = Asked(
            namespace_of(request), _whole(query, request.free_text), parse_sort(request.sort, WORKFLOWS)
        )
        mark = _mark(asked.namespace, request.query, request.free_text, request.sort)
        after = _after(request.page_token, mark, (0, "") if _by_start(asked) else (0, 0))
        total = None
        async with self._snapshot() as connection:
            await search.check_guesses(connection, asked.namespace, query)
            page = await search.search_workflows(
                connection, asked, budget=self._budget(search.PAGE_MS), after=after, start=start, size=size
            )
            if request.with_total:
                total = await search.count_workflows(connection, asked, budget=self._budget(search.COUNT_MS))
        return wire.SearchWorkflowsResponse(
            workflows=[convert.found_workflow(found) for found in page.items],
            next_page_token=_token(mark, page.next),
            partial=page.partial,
            total=None if total is None else convert.total(total.total, exact=total.exact),
        )

    async def SearchTasks(self, request: wire.SearchTasksRequest, context: Any) -> wire.SearchTasksResponse:
        size = limits.page_size(request.page_size, most=PAGE_MAX)
        query = parse(request.query, TASKS)
        asked = Asked(namespace_of(request), query.node)
        mark = _mark(asked.namespace, "tasks", request.query)
        after = _after(request.page_token, mark, (0, "", 0))
        async with self._snapshot() as connection:
            page = await search.search_tasks(
                connection, asked, budget=self._budget(search.PAGE_MS), after=after, size=size
            )
        return wire.SearchTasksResponse(
            tasks=[convert.found_task(found) for found in page.items],
            next_page_token=_token(mark, page.next),
            partial=page.partial,
        )

    async def CountWorkflows(
        self, request: wire.CountWorkflowsRequest, context: Any
    ) -> wire.CountWorkflowsResponse:
        group_by = _group(request.group_by)
        query = parse(request.query)
        asked = Asked(namespace_of(request), _whole(query, request.free_text))
        async with self._snapshot() as connection:
            await search.check_guesses(connection, asked.namespace, query)
            count = await search.count_workflows(
                connection, asked, budget=self._budget(search.COUNT_MS), group_by=group_by
            )
        groups = sorted(count.groups.items(), key=lambda group: (-group[1], group[0]))
        return wire.CountWorkflowsResponse(
            total=convert.total(count.total, exact=count.exact),
            groups=[
                wire.Group(value=value, total=convert.total(found, exact=value not in count.inexact))
                for value, found in groups[:GROUPS_MAX]
            ],
        )

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        async with self._turns, self._database.acquire() as connection, search.snapshot(connection):
            yield connection

    def _budget(self, limit_ms: float) -> Budget:
        return Budget(self._clock.local_ms, limit_ms)


def _whole(query: Query, free_text: str) -> Node:
    words = parse_words(free_text)
    return query.node if words is None else And((query.node, words))


def _by_start(asked: Asked) -> bool:
    return [order.field.name for order in asked.sort] in ([], ["startTime"])


def _group(text: str) -> str:
    """What to group by. Raises InvalidArgument."""
    if not text or text.startswith(ATTRIBUTES):
        return limits.text(text, "group_by")
    known = WORKFLOWS.by_name.get(text)
    if known is None or known.name not in _GROUPS:
        raise limits.invalid(
            "group_by", f"is {text[:50]!r}; {', '.join(_GROUPS)} and attributes.<name> are accepted"
        )
    return known.name


# -- page tokens: a position, marked with the query that it belongs to


def _mark(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _token(mark: str, position: tuple[Any, ...] | None) -> str:
    return "" if position is None else convert.page_token(mark, *position)


def _after(token: str, mark: str, first: tuple[str | int, ...]) -> tuple[Any, ...] | None:
    """The position of a token; None for the first page. Raises InvalidArgument."""
    if not token:
        return None
    found, *position = convert.page_position(token, (mark, *first))
    if found != mark:
        raise limits.invalid("page_token", "belongs to another query: send the query that it came from")
    return tuple(limits.uuid(part, "page_token") if isinstance(part, str) else part for part in position)
