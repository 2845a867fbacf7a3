"""Every self-contained workflow of the corpus runs to its end, and ends as the reviewed table says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from corpus.tables import ran, read_runs, run_one, runnable
from corpus_kit import Bench, bench, entries, run, sample_input, without_corpus
from maestoso_server.errors import MaestosoError
from maestoso_server.payload import decode

pytestmark = without_corpus


@pytest.fixture
async def on(database_url: str) -> AsyncIterator[Bench]:
    async with bench(database_url) as opened:
        yield opened


async def test_each_run_ends_as_the_table_says(on: Bench) -> None:
    runs = read_runs()
    found = {
        key: ran(await run_one(on, entry, documents, document), runs.get(key, {}))
        for key, entry, documents, document in runnable()
    }
    assert found == runs
    assert len(runs) > 120


def test_every_run_that_does_not_complete_has_its_reason() -> None:
    for key, outcome in read_runs().items():
        assert (outcome["status"] == "COMPLETED") or outcome["why"], key


async def test_the_others_never_stop_half_way(on: Bench) -> None:
    """They need hosts, providers or other workflows; where a worker answers for those, they end, too."""
    for entry in entries("workflow", "workflow_list", "workflow_node", "start_request"):
        if entry.self_contained:
            continue
        for raw in entry.documents():
            (judged,) = await on.judge.workflows("default", [raw], strict=False)
            if judged.faults:
                continue
            definition = decode(judged.raw)
            try:
                workflow_id = await on.start(definition, sample_input(entry, definition))
            except MaestosoError as refusal:
                raise AssertionError(entry.file) from refusal
            await run(on, workflow_id, steps=60)
