"""A bulk operation whose server is killed in the midst of it: nothing done twice, nothing left out."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from e2e.processes import Maestoso
from maestoso import Client, ServerError, Start
from maestoso.workflow.v1 import bulk_pb2, workflow_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

WORKFLOWS = 400
DEADLINE_S = 60.0
NOOP = {"name": "n", "taskReferenceName": "n", "type": "NOOP"}
DOCUMENT = {"name": "again", "version": 1, "schemaVersion": 2, "tasks": [NOOP]}


async def test_a_killed_servers_operation_is_done_to_its_end_by_another(database_url: str) -> None:
    """A restart shows how often it was done: each is another generation."""
    with (
        Maestoso("serve", "--database-url", database_url).ready() as first,
        Maestoso("serve", "--database-url", database_url).ready() as second,
    ):
        async with Client(first.grpc) as client:
            await client.register_workflows([DOCUMENT])
            started = await client.start_many([Start(name="again")] * WORKFLOWS)
            ids = [one for one in started if not isinstance(one, ServerError)]
            assert len(ids) == WORKFLOWS
            made = await client.create_bulk("restart", ids, rate=200)
            async with asyncio.timeout(DEADLINE_S):
                while (await client.get_bulk(made.bulk_id)).succeeded < WORKFLOWS // 4:
                    pass
        first.signal(signal.SIGKILL)

        async with Client(second.grpc) as client:
            left = await client.get_bulk(made.bulk_id)
            assert left.state == bulk_pb2.BULK_STATE_RUNNING
            assert left.succeeded < WORKFLOWS
            async with asyncio.timeout(DEADLINE_S):
                found = await client.wait_for_bulk(made.bulk_id, every=0.1)
            items = [item async for item in client.bulk_items(made.bulk_id)]
            after = [await client.get(one, tasks=False, payloads=False) for one in ids]

    assert found.state == bulk_pb2.BULK_STATE_COMPLETED
    assert (found.total, found.succeeded, found.failed) == (WORKFLOWS, WORKFLOWS, 0)
    assert [item.workflow_id for item in items] == ids
    assert Counter(one.generation for one in after) == {2: WORKFLOWS}
    assert {one.status for one in after} == {workflow_pb2.WORKFLOW_STATUS_COMPLETED}
