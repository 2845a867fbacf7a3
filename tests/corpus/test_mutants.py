"""Documents that nobody has written: those of the corpus with something dropped, nulled, nested or of
another type. Registering one refuses it cleanly or keeps it; one that is kept runs to an end."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus_kit import Bench, bench, entries, run, sample_input, without_corpus
from maestoso_server.errors import MaestosoError
from maestoso_server.payload import decode

pytestmark = without_corpus

EXAMPLES = int(os.environ.get("MAESTOSO_EXAMPLES", "200"))
"""Set higher for a night."""
STEPS = 40

ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**200, "", " ", "x", "a b", "workflow", "a__b", "\0",
    "x" * 300, "é\N{GRINNING FACE}", "${", "${}", "${workflow.input}", "${a.b[?(@.x", "$${x}", "1d 2h",
    "SWITCH", "JOIN", "DO_WHILE", "FORK_JOIN", "python", "return 1", "$.x.y.z", "if (",
    [], {}, [None], [[]], {"": None}, [1, "2", {}],
]  # fmt: skip


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a document, the document itself apart."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in inside:
        yield (*path, step)
        yield from places(item, (*path, step))


@st.composite
def mutants(draw: st.DrawFn) -> tuple[Any, Any]:
    """(entry, a document of it with one to four changes)"""
    entry = draw(st.sampled_from(_entries()))
    document = copy.deepcopy(
        draw(st.sampled_from([decode(raw.removeprefix(b"\xef\xbb\xbf")) for raw in entry.documents()]))
    )
    for _ in range(draw(st.integers(1, 4))):
        found = list(places(document))
        if not found:
            break
        path = draw(st.sampled_from(found))
        holder = document
        for step in path[:-1]:
            holder = holder[step]
        last = path[-1]
        change = draw(st.sampled_from(["drop", "odd", "nest", "copy", "double"]))
        if change == "drop":
            del holder[last]
        elif change == "odd":
            holder[last] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif change == "nest":
            depth = draw(st.sampled_from([1, 3, 300]))
            for _ in range(depth):
                holder[last] = [holder[last]]
        elif change == "copy":
            other = document
            for step in draw(st.sampled_from(found)):
                other = other[step]
            holder[last] = copy.deepcopy(other)
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
    return entry, document


def _entries() -> list[Any]:
    return [entry for entry in entries("workflow", "workflow_list") if entry.validator == "accept"]


@pytest.fixture
async def on(database_url: str) -> AsyncIterator[Bench]:
    async with bench(database_url) as opened:
        yield opened


@pytest.mark.timeout(60 + EXAMPLES)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(mutant=mutants())
async def test_a_mutant_is_refused_with_its_place_or_runs_to_an_end(
    on: Bench, mutant: tuple[Any, Any]
) -> None:
    entry, document = mutant
    (judged,) = await on.judge.workflows("default", [json.dumps(document).encode()], strict=False)
    assert all(found.line > 0 and found.column > 0 for found in judged.faults)
    if judged.faults:
        return
    definition = decode(judged.raw)
    names = definition.get("inputParameters")
    definition_input = sample_input(entry, {"inputParameters": names if isinstance(names, list) else []})
    try:
        workflow_id = await on.start(definition, definition_input)
    except MaestosoError:
        return
    await run(on, workflow_id, steps=STEPS)


async def test_a_task_definition_of_any_shape_gets_a_verdict(on: Bench) -> None:
    for entry in entries("task", "task_list"):
        for raw in entry.documents():
            try:
                document = json.loads(raw)
            except ValueError:
                continue
            for path in places(document):
                for odd in ODD:
                    changed = copy.deepcopy(document)
                    holder = changed
                    for step in path[:-1]:
                        holder = holder[step]
                    holder[path[-1]] = odd
                    (judged,) = await on.judge.tasks("default", [json.dumps(changed).encode()], strict=False)
                    assert all(found.line > 0 for found in judged.faults)
