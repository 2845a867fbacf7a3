"""What a search finds is what its query means: SQL, access paths and paging against plain evaluation."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from maestoso_server.query import And, Node
from maestoso_server.store import search
from maestoso_server.store.database import Connection
from ownership_kit import World, open_world
from query_kit import Row, holds, nodes, rows, words
from search_kit import fill, unhurried

COUNT = 25


def expected(node: Node, made: list[Row]) -> list[str]:
    """The newest first."""
    found = [row.values for row in made if holds(node, row)]
    found.sort(key=lambda at: (at["startTime"], at["workflowId"]), reverse=True)
    return [at["workflowId"] for at in found]


async def every_page(conn: Connection, node: Node, size: int, **more: Any) -> list[str]:
    found: list[str] = []
    after = None
    for _ in range(COUNT + 2):
        async with search.snapshot(conn):
            page = await search.search_workflows(
                conn, search.Asked("default", node, **more), budget=unhurried(), after=after, size=size
            )
        found += [item.id for item in page.items]
        assert not page.partial
        after = page.next
        if after is None:
            return found
    raise AssertionError("the pages do not end")


questions = st.lists(
    st.tuples(nodes | words | st.tuples(nodes, words).map(And), st.sampled_from([1, 4, 50])),
    min_size=12,
    max_size=12,
)


def test_a_search_finds_what_its_query_means(database_url: str) -> None:
    """Conditions, three-valued traps, access paths, pages and counts, on a real Postgres."""
    loop = asyncio.new_event_loop()
    opened = open_world(database_url)
    world: World = loop.run_until_complete(opened.__aenter__())

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each example costs real statements
    )
    @given(rows(COUNT), questions)
    def ask(made: list[Row], asked: list[tuple[Node, int]]) -> None:
        loop.run_until_complete(fill(world.conn, made))
        for node, size in asked:
            assert loop.run_until_complete(every_page(world.conn, node, size)) == expected(node, made)
            loop.run_until_complete(counted(world.conn, node, made))

    try:
        ask()
    finally:
        loop.run_until_complete(opened.__aexit__(None, None, None))
        loop.close()


async def counted(conn: Connection, node: Node, made: list[Row]) -> None:
    found = [row for row in made if holds(node, row)]
    async with search.snapshot(conn):
        for group in ("", "status", "workflowType", "version"):
            count = await search.count_workflows(
                conn, search.Asked("default", node), budget=unhurried(), group_by=group
            )
            assert (count.total, count.exact) == (len(found), True), group
            if group in ("workflowType", "version"):
                values = sorted(str(row.values[group]) for row in found)
                groups = {key: len(list(same)) for key, same in itertools.groupby(values)}
                assert count.groups == groups
