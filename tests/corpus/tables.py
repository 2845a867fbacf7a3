"""The reviewed tables of the corpus, and how they are written anew: `python -m corpus.tables` in tests/.

`tests/coverage/corpus.json` names each file with Conductor's verdict and ours, and every path of which
we say something that Conductor does not, with the key of its reason. `corpus_runs.json` holds what
became of each self-contained workflow. Writing keeps the reasons that are there; one that is missing is
an empty text, which a person fills in (the tests refuse it).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
from typing import Any

from corpus_kit import COVERAGE, JUDGED, Bench, Entry, Ran, Verdict, bench, entries, judge, run, sample_input
from databases import execute, url_of
from maestoso_server.store.migrate import migrate
from services_kit import serve

TABLE = COVERAGE / "corpus.json"
RUNS = COVERAGE / "corpus_runs.json"


def read_table() -> dict[str, Any]:
    """The table of verdicts: {"reasons": key -> {says, why, in}, "files": file -> entry}."""
    table: dict[str, Any] = json.loads(TABLE.read_text())
    return table


def read_runs() -> dict[str, Any]:
    """The table of runs: file (with the index of one of several definitions) -> outcome."""
    runs: dict[str, Any] = json.loads(RUNS.read_text())
    return runs


def registered(entry: Entry, verdict: Verdict, reasons: dict[str, Any]) -> dict[str, Any]:
    """The entry of one file in the table of verdicts."""
    return {
        "conductor": entry.validator or "takes no such document alone",
        "here": verdict.here,
        "said": {
            path: reason_of(entry.file, message, reasons)
            for path, message in sorted(verdict.differences.items())
        },
    }


def reason_of(file: str, message: str, reasons: dict[str, Any]) -> str:
    """The key of the first reason that says so (of this file); empty where nobody has given one."""
    return next(
        (
            key
            for key, reason in reasons.items()
            if re.search(reason.get("in", ""), file) and re.search(reason["says"], message)
        ),
        "",
    )


def runnable() -> list[tuple[str, Entry, list[bytes], bytes]]:
    """(key, entry, all definitions of the file, the one to run) of the self-contained workflows."""
    found = []
    for entry in entries("workflow", "workflow_list"):
        if entry.self_contained and entry.validator == "accept":
            documents = entry.documents()
            for index, document in enumerate(documents):
                key = entry.file if len(documents) == 1 else f"{entry.file}[{index}]"
                found.append((key, entry, documents, document))
    return found


async def run_one(on: Bench, entry: Entry, documents: list[bytes], document: bytes) -> Ran:
    """One workflow run to its end, the file's other definitions registered beside it."""
    definition = json.loads(document.decode("utf-8-sig"))
    if len(documents) > 1:
        await on.register(*documents)
    return await run(on, await on.start(definition, sample_input(entry, definition)))


def ran(found: Ran, before: dict[str, Any]) -> dict[str, Any]:
    """The entry of one run; one that did not complete needs a reason."""
    shown = found.shown()
    return shown if found.status == "COMPLETED" else {**shown, "why": before.get("why", "")}


async def _write(server_url: str) -> None:
    names = itertools.count()
    made: list[str] = []

    async def database() -> str:
        name = f"maestoso_corpus_{os.getpid()}_{next(names)}"
        await execute(server_url, f"CREATE DATABASE {name}")
        made.append(name)
        await migrate(url_of(server_url, name), now_ms=0)
        return url_of(server_url, name)

    try:
        table = read_table()
        async with serve(await database()) as served:
            table["files"] = {
                entry.file: registered(entry, await judge(served, entry), table["reasons"])
                for entry in entries(*JUDGED)
            }
        before = read_runs()
        async with bench(await database()) as on:
            runs = {
                key: ran(await run_one(on, entry, documents, document), before.get(key, {}))
                for key, entry, documents, document in runnable()
            }
    finally:
        for name in made:
            await execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")
    for path, value in ((TABLE, table), (RUNS, runs)):
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    asyncio.run(_write(os.environ["MAESTOSO_TEST_DATABASE_URL"]))
