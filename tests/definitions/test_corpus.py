"""Real documents from the repositories of Conductor's users: our verdicts are Conductor's.

The corpus lies beside the clone and is read in place.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maestoso_server.definitions.parse import Parsed, parse_task, parse_workflow
from maestoso_server.definitions.snapshot import snapshot
from maestoso_server.scripting.pool import Evaluators

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("MAESTOSO_CORPUS", ROOT.parent / "shared" / "corpus"))

pytestmark = pytest.mark.skipif(
    not (CORPUS / "index.json").is_file(),
    reason=f"no corpus at {CORPUS}; set MAESTOSO_CORPUS to a folder that has its index.json",
)

LISTS = {"workflow_list", "task_list"}
JUDGED = {"workflow", "task", *LISTS}


def entries() -> Iterator[tuple[dict[str, Any], bytes]]:
    for entry in json.loads((CORPUS / "index.json").read_bytes()):
        if entry["kind"] in JUDGED and "validator" in entry:
            yield entry, (CORPUS / entry["file"]).read_bytes()


def documents(entry: dict[str, Any], raw: bytes) -> list[bytes]:
    if entry["kind"] not in LISTS:
        return [raw]
    return [json.dumps(document).encode() for document in json.loads(raw.decode("utf-8-sig"))]


def parse(kind: str, raw: bytes) -> Parsed[Any]:
    return parse_task(raw) if kind.startswith("task") else parse_workflow(raw)


async def test_verdicts_are_conductors() -> None:
    evaluators = Evaluators(processes=1)
    wrong: list[str] = []
    judged = 0
    try:
        for entry, raw in entries():
            found: list[str] = []
            for document in documents(entry, raw):
                parsed = parse(entry["kind"], document)
                errors = [await evaluators.check(script.language, script.text) for script in parsed.scripts]
                found += [
                    f"{fault.path}: {fault.message}" for fault in parsed.with_script_errors(errors).faults
                ]
            judged += 1
            if bool(found) is (entry["validator"] == "accept"):
                wrong.append(f"{entry['file']} is a case of {entry['validator']!r}; found {found}")
    finally:
        await evaluators.stop()
    assert wrong == []
    assert judged > 200


def test_refusals_use_conductors_words() -> None:
    for entry, raw in entries():
        reasons = entry.get("validatorReasons", [])
        if entry["validator"] != "reject" or any(reason.startswith("cannot be bound") for reason in reasons):
            continue
        found = [fault.message for fault in parse(entry["kind"], raw).faults]
        for reason in reasons:
            message = reason.split(": ", 1)[1]
            assert any(text.startswith(message) for text in found), (entry["file"], reason, found)


def test_what_is_no_json_is_refused_with_its_place() -> None:
    for entry, raw in entries():
        if entry["validator"] == "not valid JSON":
            (fault,) = parse(entry["kind"], raw).faults
            assert fault.line > 0, entry["file"]


def test_unknown_fields_are_warned_of() -> None:
    for entry, raw in entries():
        unknown = [
            oddity.split(".")[-1] for oddity in entry.get("oddities", ()) if oddity.startswith("unknown:")
        ]
        paths = [
            warning.path
            for document in documents(entry, raw)
            for warning in parse(entry["kind"], document).warnings
        ]
        for name in unknown:
            assert any(path.endswith(name) for path in paths), (entry["file"], name)


def test_every_accepted_document_makes_a_snapshot() -> None:
    for entry, raw in entries():
        if entry["kind"] == "workflow" and entry["validator"] == "accept":
            first = parse_workflow(raw)
            _, made = snapshot(first.document.value, {}, {})
            assert parse_workflow(made).faults == (), entry["file"]
