"""The map of the house, held: imports only point down, and each floor keeps its own law.

The rules are read off the source with `ast`. The second half plants violations and expects each to
be found, so that a rule that has gone blind fails here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "server" / "maestoso_server"
SDK = ROOT / "sdk" / "python" / "maestoso"

FLOORS = {
    **dict.fromkeys(("errors", "config", "telemetry", "payload", "ids", "clock", "embedded", "vault"), 0),
    "json_text": 0.5,  # reads JSON with its place in mind, and refuses it in the words of `errors`
    "query": 0.6,  # refuses in the words of `errors`, too
    "definitions": 1,
    "engine": 2,
    **dict.fromkeys(("store", "scripting"), 3),
    "executor": 4,
    "dispatch": 5,
    **dict.fromkeys(("system_tasks", "services"), 6),
    "gateway": 7,
    **dict.fromkeys(("server", "processes"), 8),
    "_main": 9,
    "__main__": 10,
}

ENGINE_MAY_IMPORT = {
    *("__future__", "bisect", "collections", "dataclasses", "datetime", "decimal", "enum", "functools"),
    *("hashlib", "itertools", "math", "re", "typing"),
    *("payload", "definitions", "ids", "engine"),
}
CLOCK_READERS = {"now", "utcnow", "today"}
ONLY_STORE = {"asyncpg"}
ONLY_ABOVE_DISPATCH = {"grpc", "grpc_health", "grpc_reflection"}
GRPC_FLOORS = {"services", "gateway", "server"}
DATABASE_CLOCK = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\(\s*\)"
    r"|\b(current_timestamp|current_time|current_date|localtimestamp)\b",
    re.IGNORECASE,
)
MEASURES_THE_CLOCK = ("store", "database.py")
"""The one file that asks the database for its time."""


def imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every module that the code names, as its parts; relative ones made absolute in `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield (*module, alias.name)


def server_faults(place: tuple[str, ...], source: str) -> list[str]:
    """What is wrong with a server file; `place` is its path below `maestoso_server`."""
    tree = ast.parse(source)
    home = place[0].removesuffix(".py")
    package = ("maestoso_server", *place[:-1])
    faults = []
    for module in imports(tree, package):
        if module[0] == "maestoso_server" and len(module) > 1:
            faults += _floor_fault(home, module[1])
        elif module[0] == "maestoso":
            if "v1" not in module and (home, module[1:2]) != ("_main", ("_cli",)):
                faults.append(
                    f"imports {'.'.join(module)}: the server uses nothing of the SDK but its messages"
                )
            if "v1" in module and home not in ("dispatch", "system_tasks") and home not in GRPC_FLOORS:
                faults.append(f"{home} imports {'.'.join(module)}: messages stay with dispatch and above")
            if module[-1].endswith("_grpc") and home not in GRPC_FLOORS:
                faults.append(f"{home} imports {'.'.join(module)}: grpc belongs to {sorted(GRPC_FLOORS)}")
        elif module[0] in ONLY_STORE and home != "store":
            faults.append(f"{home} imports {module[0]}: only store may")
        elif module[0] in ONLY_ABOVE_DISPATCH and home not in GRPC_FLOORS:
            faults.append(f"{home} imports {module[0]}: grpc belongs to {sorted(GRPC_FLOORS)}")
        if home == "engine":
            outer = module[1] if module[0] == "maestoso_server" and len(module) > 1 else module[0]
            if outer not in ENGINE_MAY_IMPORT:
                faults.append(f"engine imports {'.'.join(module)}: it is pure")
    if home == "engine":
        faults += _clock_faults(tree)
    if place != MEASURES_THE_CLOCK:
        faults += [f"a statement asks the database for its time: {text!r}" for text in _clock_in_sql(tree)]
    return faults


def sdk_faults(source: str) -> list[str]:
    """What is wrong with an SDK file."""
    return [
        f"imports {'.'.join(module)}: the SDK never imports the server"
        for module in imports(ast.parse(source), ("maestoso",))
        if module[0] == "maestoso_server"
    ]


def migration_faults(sql: str) -> list[str]:
    """What is wrong with a migration."""
    statements = re.sub(r"--[^\n]*", "", sql)
    return [f"asks the database for its time: {found[0]!r}" for found in DATABASE_CLOCK.finditer(statements)]


def _floor_fault(home: str, other: str) -> list[str]:
    if other == home or other.startswith("__"):
        return []
    if FLOORS[other] < FLOORS[home]:
        return []
    way = "up" if FLOORS[other] > FLOORS[home] else "sideways"
    return [f"{home} (floor {FLOORS[home]}) imports {way} from {other} (floor {FLOORS[other]})"]


def _clock_faults(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CLOCK_READERS:
            yield f"engine reads a clock: .{node.attr}"


def _clock_in_sql(tree: ast.AST) -> Iterator[str]:
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
            and (found := DATABASE_CLOCK.search(node.value))
        ):
            yield found[0]


# --- the house as it stands -----------------------------------------------------------------------


def server_files() -> list[Path]:
    return sorted(SERVER.rglob("*.py"))


def sdk_files() -> list[Path]:
    return sorted(SDK.rglob("*.py"))


def test_every_module_has_a_floor() -> None:
    modules = {path.relative_to(SERVER).parts[0].removesuffix(".py") for path in server_files()}

    assert modules - {"__init__"} <= set(FLOORS)


@pytest.mark.parametrize("path", server_files(), ids=lambda path: str(path.relative_to(SERVER)))
def test_server_file_keeps_to_its_floor(path: Path) -> None:
    place = path.relative_to(SERVER).parts
    if place == ("__init__.py",):
        return

    assert server_faults(place, path.read_text()) == []


def test_sdk_never_imports_the_server() -> None:
    faults = {str(path): sdk_faults(path.read_text()) for path in sdk_files()}

    assert {path: found for path, found in faults.items() if found} == {}


@pytest.mark.parametrize("path", sorted(SERVER.rglob("*.sql")), ids=lambda path: path.name)
def test_migration_takes_its_time_from_outside(path: Path) -> None:
    assert migration_faults(path.read_text()) == []


# --- planted violations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "source", "words"),
    [
        ("engine/decide.py", "import asyncio", "it is pure"),
        ("engine/decide.py", "import time", "it is pure"),
        ("engine/decide.py", "from random import random", "it is pure"),
        ("engine/decide.py", "import logging", "it is pure"),
        ("engine/decide.py", "def f():\n    import grpc", "grpc belongs to"),
        ("engine/decide.py", "from datetime import datetime\nx = datetime.now()", "reads a clock"),
        ("engine/decide.py", "import datetime\nx = datetime.date.today", "reads a clock"),
        ("engine/decide.py", "from ..store import rows", "imports up from store"),
        ("engine/decide.py", "from ..telemetry import bound", "it is pure"),
        ("engine/operators/fork.py", "from ...executor import placement", "imports up from executor"),
        ("store/rows.py", "from ..executor.lanes import Lanes", "imports up from executor"),
        ("store/rows.py", "from ..scripting import pool", "imports sideways from scripting"),
        ("store/rows.py", "import maestoso_server.dispatch.session", "imports up from dispatch"),
        ("store/rows.py", 'SQL = "SELECT now()"', "asks the database for its time"),
        ("store/rows.py", 'SQL = f"SELECT {x}, CURRENT_TIMESTAMP"', "asks the database for its time"),
        ("store/migrate.py", 'SQL = "SELECT clock_timestamp ( )"', "asks the database for its time"),
        ("config.py", "from . import telemetry", "imports sideways from telemetry"),
        ("executor/lanes.py", "import asyncpg", "only store may"),
        ("executor/lanes.py", "from maestoso.task.v1 import task_pb2", "messages stay with dispatch"),
        ("dispatch/session.py", "import grpc", "grpc belongs to"),
        ("dispatch/session.py", "from maestoso.task.v1 import task_service_pb2_grpc", "grpc belongs to"),
        ("dispatch/session.py", "if TYPE_CHECKING:\n    import asyncpg", "only store may"),
        ("services/convert.py", "from ..gateway import app", "imports up from gateway"),
        ("server.py", "from maestoso import Client", "nothing of the SDK but its messages"),
        ("server.py", "from maestoso._cli import main", "nothing of the SDK but its messages"),
    ],
)
def test_planted_violation_is_found(place: str, source: str, words: str) -> None:
    assert any(words in fault for fault in server_faults(tuple(place.split("/")), source))


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("engine/decide.py", "from ..payload import Json\nfrom ..definitions import models"),
        ("engine/decide.py", "from datetime import UTC, datetime\nx = datetime.fromtimestamp(1, UTC)"),
        ("engine/operators/fork.py", "from ..state import View\nfrom . import switch"),
        ("store/rows.py", "import asyncpg\nfrom ..engine.state import Header"),
        ("store/database.py", 'SQL = "SELECT clock_timestamp()"'),
        ("store/rows.py", '"""No statement calls now()."""'),
        ("dispatch/session.py", "from maestoso.task.v1 import task_pb2"),
        ("services/task_service.py", "import grpc\nfrom maestoso.task.v1 import task_service_pb2_grpc"),
        ("_main.py", "from maestoso._cli import main"),
    ],
)
def test_what_is_allowed_is_not_found(place: str, source: str) -> None:
    assert server_faults(tuple(place.split("/")), source) == []


def test_planted_import_of_the_server_in_the_sdk_is_found() -> None:
    assert sdk_faults("from maestoso_server.config import Config")
    assert sdk_faults("from maestoso.task.v1 import task_pb2") == []


def test_planted_clock_in_a_migration_is_found() -> None:
    assert migration_faults("ALTER TABLE t ADD c timestamptz DEFAULT now();")
    assert migration_faults("-- no statement calls now()\nSELECT 1;") == []
