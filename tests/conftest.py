"""What every test can ask for: a database of its own, and the whole server in its process.

One Postgres serves the session: the embedded one under our own supervisor, or the server that
MAESTOSO_TEST_DATABASE_URL names (as a superuser). A template database is migrated once; each test
gets a copy of it, in some 40 ms, and its copy is dropped afterwards.

A test that needs a program of the machine (`node`, say) asks `toolchain` for it: without it the test
is left out and named at the end, or fails where MAESTOSO_REQUIRE_TOOLCHAINS=1.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc.aio
import pytest

from databases import aside, execute, url_of
from maestoso_server.clock import ManualClock, SystemClock
from maestoso_server.config import Config
from maestoso_server.embedded import EmbeddedPostgres
from maestoso_server.server import Server
from maestoso_server.store.migrate import migrate
from servers import serving

# Held for the whole session: grpc.aio's last object going away stops its poller thread, which can hang
# where the garbage collector does it after the event loop of its test is gone.
grpc.aio.init_grpc_aio()

START_MS = 1_750_000_000_000
"""Where a ManualClock starts."""

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="run simulated worlds with this seed only")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A Postgres server to make databases on, as superuser."""
    given = os.environ.get("MAESTOSO_TEST_DATABASE_URL")
    if given:
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="maestoso-test-"))
    try:
        with EmbeddedPostgres(folder, durable=False) as server:
            yield server.url
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> Iterator[str]:
    """The name of a database with the newest schema and nothing in it. Nobody connects to it."""
    name = f"maestoso_template_{os.getpid()}"
    aside(execute(postgres_url, f"CREATE DATABASE {name}"))
    try:
        aside(migrate(url_of(postgres_url, name), now_ms=START_MS))
        yield name
    finally:
        aside(execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A migrated, empty database for this test alone."""
    name = f"maestoso_test_{os.getpid()}_{next(_numbers)}"
    aside(execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY WAL_LOG"))
    yield url_of(postgres_url, name)
    aside(execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A migrated Postgres that a test may restart."""
    folder = Path(tempfile.mkdtemp(prefix="maestoso-outage-"))
    try:
        with EmbeddedPostgres(folder, durable=False) as postgres:
            aside(migrate(postgres.url, now_ms=START_MS))
            yield postgres
    finally:
        shutil.rmtree(folder)


LEFT_OUT = "left out: "


@pytest.fixture
def toolchain() -> Callable[[str], str]:
    """Finds a program on the path; the test is left out, or fails, where there is none."""

    def find(program: str) -> str:
        if found := shutil.which(program):
            return found
        if os.environ.get("MAESTOSO_REQUIRE_TOOLCHAINS") == "1":
            pytest.fail(f"{program} is not installed, and MAESTOSO_REQUIRE_TOOLCHAINS=1 requires it")
        pytest.skip(f"{LEFT_OUT}{program} is not installed")

    return find


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was left out, last of all."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [(report.longrepr[2].removeprefix("Skipped: "), report.nodeid) for report in skipped]
    terminalreporter.section("left out")
    for reason, test in sorted(reasons):
        terminalreporter.line(f"{test}: {reason.removeprefix(LEFT_OUT)}")
    if not reasons:
        terminalreporter.line("nothing")


# --- the whole server ---------------------------------------------------------------------------------


@pytest.fixture
def manual_clock() -> ManualClock:
    """The clock of `server`; tests move it."""
    return ManualClock(START_MS)


@pytest.fixture
def server_config(database_url: str) -> Config:
    """The settings of `server`; a test that wants others overrides this fixture."""
    return Config(database_url=database_url, grpc_address="127.0.0.1:0", http_address="127.0.0.1:0")


@pytest.fixture
async def server(server_config: Config, manual_clock: ManualClock) -> AsyncIterator[Server]:
    """The whole server in this process, on free ports and on time that stands still."""
    async with serving(server_config, manual_clock) as made:
        yield made


@pytest.fixture
async def live_server(server_config: Config) -> AsyncIterator[Server]:
    """The whole server in this process, on real time."""
    async with serving(server_config, SystemClock()) as made:
        yield made
