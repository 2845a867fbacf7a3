"""Searches that run out of time, ids for bulk operations, and what a namespace hides."""

from __future__ import annotations

import pytest

from maestoso_server.errors import InvalidArgument, Reason, ResourceExhausted
from maestoso_server.query import EVERYTHING, WORKFLOWS, parse, parse_sort
from maestoso_server.store import search
from maestoso_server.store.search_access import Arm, By, choose
from ownership_kit import World
from query_kit import Row
from search_kit import fill, unhurried

COUNT = 300


def executions() -> list[Row]:
    """Every hundredth one FAILED; the higher the number, the younger."""
    return [
        Row(
            {
                "workflowId": f"01900000-0000-7000-8000-{number:012d}",
                "workflowType": f"flow_{number % 2}",
                "version": 1,
                "status": 4 if number % 100 == 0 else 3,
                "correlationId": None,
                "startTime": 1_000 + number,
                "endTime": 5_000,
                "updateTime": 5_000,
                "parentWorkflowId": None,
                "priority": 1 if number % 100 == 0 else 0,
                "createdBy": None,
                "idempotencyKey": None,
                "reasonForIncompletion": None,
            },
            {"number": str(number)},
        )
        for number in range(1, COUNT + 1)
    ]


def hurried(*, looks: int = 0) -> search.Budget:
    """Time for the first chunk only, and for so many looks at the clock before it."""
    readings = iter([0.0] * (1 + looks))
    return search.Budget(lambda: next(readings, 1e9), search.PAGE_MS)


@pytest.fixture
async def filled(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(search, "CHUNK_FIRST", 10)
    monkeypatch.setattr(search, "COUNT_FIRST", 10)
    await fill(world.conn, executions())
    return world


async def test_a_page_whose_time_is_used_up_ends_early_and_goes_on(filled: World) -> None:
    found: list[str] = []
    partial = 0
    after = None
    while True:
        async with search.snapshot(filled.conn):
            page = await search.search_workflows(
                filled.conn,
                search.Asked("default", parse("priority = 1").node),
                budget=hurried(),
                after=after,
                size=5,
            )
        found += [item.id for item in page.items]
        partial += page.partial
        after = page.next
        if after is None:
            break

    assert [int(id_[-3:]) for id_ in found] == [300, 200, 100]
    assert partial == COUNT // 10
    assert not page.partial


async def test_a_count_whose_time_is_used_up_is_a_least(filled: World) -> None:
    async with search.snapshot(filled.conn):
        asked = search.Asked("default", parse("NOT priority = 7").node)
        count = await search.count_workflows(filled.conn, asked, budget=hurried(looks=1), group_by="version")
        whole = await search.count_workflows(filled.conn, asked, budget=unhurried(), group_by="version")

    assert (count.total, count.exact, count.groups, count.inexact) == (10, False, {"1": 10}, {"1"})
    assert (whole.total, whole.exact, whole.groups, whole.inexact) == (COUNT, True, {"1": COUNT}, set())


async def test_another_order_is_made_of_the_newest_and_says_so(
    filled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = search.Asked("default", EVERYTHING, parse_sort("status:DESC|startTime:ASC", WORKFLOWS))

    async def first() -> search.Page[search.FoundWorkflow]:
        async with search.snapshot(filled.conn):
            return await search.search_workflows(filled.conn, asked, budget=unhurried(), size=4)

    whole = await first()
    assert [int(item.id[-3:]) for item in whole.items] == [100, 200, 300, 1]
    assert not whole.partial
    monkeypatch.setattr(search, "SORT_WINDOW", 150)
    cut = await first()
    assert [int(item.id[-3:]) for item in cut.items] == [200, 300, 151, 152]
    assert cut.partial


async def test_ids_come_page_by_page_until_there_are_no_more(filled: World) -> None:
    found: list[str] = []
    after = None
    while True:
        page = await search.select_ids(
            filled.conn, "default", "status = FAILED OR startTime <= 1002", after=after, limit=2
        )
        found += page.ids
        after = page.next
        if after is None:
            break

    assert [int(id_[-3:]) for id_ in found] == [300, 200, 100, 2, 1]
    assert (await search.select_ids(filled.conn, "other", "*")).found == []


async def test_a_bare_name_is_an_attribute_only_where_some_execution_has_it(filled: World) -> None:
    assert len((await search.select_ids(filled.conn, "default", "number = '7'")).ids) == 1
    with pytest.raises(InvalidArgument, match="no workflow has a search attribute of that name"):
        await search.select_ids(filled.conn, "default", "colour = red")
    with pytest.raises(InvalidArgument, match="no workflow has a search attribute of that name"):
        await search.select_ids(filled.conn, "other", "number = '7'")


async def test_a_statement_that_takes_too_long_is_given_up(
    filled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "STATEMENT_MS", 1)
    with pytest.raises(ResourceExhausted, match="narrow it, by startTime at best") as refused:
        async with search.snapshot(filled.conn):
            await filled.conn.execute("SELECT pg_sleep(10)")
    assert refused.value.reason is Reason.OVERLOADED


async def test_the_smallest_path_is_taken(filled: World) -> None:
    async with search.snapshot(filled.conn):
        both = await choose(
            filled.conn, "default", WORKFLOWS, parse("workflowType = flow_0 AND status = FAILED").node
        )
        ranged = await choose(
            filled.conn, "default", WORKFLOWS, parse("workflowType = flow_0 AND startTime > 5").node
        )
        either = await choose(
            filled.conn, "default", WORKFLOWS, parse("status = FAILED OR priority = 1").node
        )

    assert both.arms == (Arm(By.STATUS, 4),)
    assert not both.exact
    assert (ranged.arms, ranged.exact, ranged.from_ms) == ((Arm(By.NAME, "flow_0"),), True, 6)
    assert either.by_age
