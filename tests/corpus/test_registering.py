"""Every definition of the corpus is registered: what Conductor accepts is accepted, what it refuses is
refused in words at least as good, and whatever we say beyond it stands in the reviewed table."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import grpc
import pytest

from corpus.tables import read_table, registered
from corpus_kit import JUDGED, TASKS, Entry, entries, judge, without_corpus
from maestoso.metadata.v1 import definition_pb2
from maestoso.metadata.v1 import metadata_service_pb2 as wire
from services_kit import Served, refused, serve

pytestmark = without_corpus

EXPECTED = {"accept": "accepted", "reject": "refused", "not valid JSON": "not JSON"}


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(database_url) as opened:
        yield opened


async def put(served: Served, entry: Entry, documents: list[bytes]) -> object:
    if entry.kind in TASKS:
        tasks = wire.PutTaskDefinitionsRequest(documents=documents, overwrite=definition_pb2.OVERWRITE_ALLOW)
        return await served.metadata.PutTaskDefinitions(tasks, timeout=30)
    request = wire.PutWorkflowDefinitionsRequest(
        documents=documents, overwrite=definition_pb2.OVERWRITE_ALLOW
    )
    return await served.metadata.PutWorkflowDefinitions(request, timeout=30)


@pytest.mark.covers("K19", "K35", "B22", "B24", "B38")
async def test_every_verdict_is_conductors_or_has_its_reason(served: Served) -> None:
    table = read_table()
    files = {}
    for entry in entries(*JUDGED):
        verdict = await judge(served, entry)
        files[entry.file] = registered(entry, verdict, table["reasons"])
        if entry.validator is not None:
            assert verdict.here == EXPECTED[entry.validator], (entry.file, verdict.differences)
        for found in (*verdict.violations.values(), *verdict.warnings.values()):
            assert found.line > 0 and found.column > 0, (entry.file, found)
    assert files == table["files"]
    assert len(files) > 300


def test_every_reason_is_given_and_used() -> None:
    table = read_table()
    given = [key for entry in table["files"].values() for key in entry["said"].values()]
    assert set(given) == set(table["reasons"])
    for reason in table["reasons"].values():
        assert reason["why"]
        re.compile(reason["says"])


async def test_what_is_accepted_is_stored_byte_for_byte(served: Served) -> None:
    for entry in entries("workflow"):
        if entry.validator != "accept":
            continue
        (raw,) = entry.documents()
        await put(served, entry, [raw])
        listed = await served.metadata.ListWorkflowDefinitions(
            wire.ListWorkflowDefinitionsRequest(include_documents=True), timeout=30
        )
        (stored,) = listed.definitions
        assert stored.document == raw.removeprefix(b"\xef\xbb\xbf"), entry.file
        gone = wire.DeleteWorkflowDefinitionRequest(name=stored.name, version=stored.version)
        await served.metadata.DeleteWorkflowDefinition(gone, timeout=30)


@pytest.mark.covers("B38")
async def test_what_is_refused_is_an_invalid_argument_with_its_place(served: Served) -> None:
    seen = 0
    for entry in entries("malformed", *JUDGED):
        verdict = "not JSON" if entry.kind == "malformed" else EXPECTED.get(entry.validator or "", "")
        if verdict not in ("refused", "not JSON"):
            continue
        documents = [entry.raw] if verdict == "not JSON" else entry.documents()
        code, refusal = await refused(put(served, entry, documents))
        assert code is grpc.StatusCode.INVALID_ARGUMENT, entry.file
        assert all(found.line > 0 and found.column > 0 for found in refusal.violations), entry.file
        seen += 1
    assert seen >= 30
