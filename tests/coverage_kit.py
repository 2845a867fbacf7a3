"""The tables of tests/coverage: which test shows which scenario or row, and where we differ on purpose.

A test says what it shows by `@pytest.mark.covers("D.fork_join.3")`; the tables repeat it for readers,
with a line on what the row is and, in `differs`, why ours is another behaviour.
`MAESTOSO_REWRITE_COVERAGE=1` writes the lists of tests anew from the marks.
"""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
FOLDER = TESTS / "coverage"

_LEVELS = ("root", "mid", "leaf")
_RETRIES = tuple(level + suffix for level in _LEVELS for suffix in ("", "_resume"))
_RERUNS = tuple(level + suffix for level in _LEVELS for suffix in ("", "_task"))


def _numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}.{number}" for number in range(1, count + 1)]


CATALOGUE: tuple[str, ...] = (
    *_numbered("A", 13),
    *_numbered("B", 16),
    *_numbered("C.decision", 5),
    *_numbered("C.switch", 6),
    *_numbered("C.exclusive_join", 5),
    *_numbered("C.terminate", 5),
    *_numbered("C.failure_workflow", 2),
    *_numbered("D.fork_join", 10),
    *_numbered("D.sync_join", 9),
    *_numbered("D.dynamic_fork", 7),
    *_numbered("D.lock_contention", 2),
    *_numbered("D.nested", 5),
    *(f"E.restart.{level}" for level in _LEVELS),
    *(f"E.retry.{which}" for which in _RETRIES),
    *(f"E.rerun.{which}" for which in _RERUNS),
    *(f"E.hierarchical.restart.{level}" for level in _LEVELS),
    *(f"E.hierarchical.rerun.{level}" for level in _LEVELS),
    *(f"E.hierarchical.retry.{which}" for which in _RETRIES),
    *_numbered("E.sub_workflow", 3),
    *_numbered("E.async", 2),
    "E.duplicate.1",
    "E.inline.1",
    *_numbered("F", 13),
    *_numbered("G.jq", 5),
    *_numbered("G.variable", 2),
    *_numbered("G.wait", 2),
    *_numbered("G.event", 2),
    "G.system.1",
    *_numbered("G.start_workflow", 2),
    *_numbered("G.test_workflow", 2),
    *_numbered("G.signal", 4),
    *_numbered("G.limits", 3),
    *_numbered("G.retry_policy", 8),
    "H.env_backed.1",
    "H.declared.1",
    "H.http.1",
    "H.inline.1",
    *_numbered("H.sync", 2),
    "H.sub_workflow.1",
    *_numbered("I.external", 10),
    *_numbered("I.s3", 6),
    *_numbered("J.queue", 24),
    "J.task.1",
    *_numbered("K.sqs", 11),
    "K.scheduler.1",
    *_numbered("M", 10),
)
"""Every scenario of the behaviour catalogue: its section, its specification, its number."""

KEEP_AND_BETTER: tuple[str, ...] = (
    *(f"K{number}" for number in range(1, 36)),
    *(f"B{number}" for number in range(1, 43)),
)
"""What is kept of Conductor although it surprises (K), and what is done better (B)."""

TABLES = {"catalogue": CATALOGUE, "keep_and_better": KEEP_AND_BETTER}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. `tests` are `file::function`, the file relative to tests/."""

    row: str
    what: str
    tests: tuple[str, ...]
    differs: str = ""
    """Why another behaviour, or none yet, is ours on purpose; empty: as the catalogue says."""


def read_table(name: str) -> list[Row]:
    entries: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return [Row(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def write_table(name: str, rows: list[Row]) -> None:
    lines = []
    for row in rows:
        entry: dict[str, Any] = {"row": row.row, "what": row.what, "tests": list(row.tests)}
        if row.differs:
            entry["differs"] = row.differs
        lines.append(" " + json.dumps(entry, ensure_ascii=False))
    (FOLDER / f"{name}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def marked() -> dict[str, list[str]]:
    """Row -> the tests that say they show it."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in sorted(TESTS.rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if "mark.covers" in text:
            for name, rows in _marks(ast.parse(text), ""):
                for row in rows:
                    found[row].append(f"{file.relative_to(TESTS).as_posix()}::{name}")
    return dict(found)


def _marks(tree: ast.AST, prefix: str) -> Iterator[tuple[str, list[str]]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _marks(node, f"{prefix}{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            rows = [row for decorator in node.decorator_list for row in _covered(decorator)]
            if rows:
                yield prefix + node.name, rows


def _covered(decorator: ast.expr) -> list[str]:
    """The rows of a mark; those of the marks inside a parametrization too. What is computed is no row:
    it stands here as it is written, and the tables' test refuses it."""
    found = []
    for call in ast.walk(decorator):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "covers":
            found.extend(
                str(arg.value) if isinstance(arg, ast.Constant) else ast.unparse(arg) for arg in call.args
            )
    return found
