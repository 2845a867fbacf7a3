"""What every test can ask for: a database of its own, and the whole server in its process.

One Postgres serves the session: the embedded one under our own supervisor, or the server that
MAESTOSO_TEST_DATABASE_URL names (as a superuser). A template database is migrated once; each test
gets a copy of it, in some 40 ms, and its copy is dropped afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from maestoso_server.embedded import EmbeddedPostgres

MIGRATIONS = Path(__file__).parents[1] / "server" / "maestoso_server" / "store" / "migrations"

T = TypeVar("T")

_numbers = itertools.count(1)


def aside(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a thread of its own, so that no test's event loop is touched."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def url_of(server_url: str, database: str) -> str:
    """The URL of another database on the same server."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{database}"))


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


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
        files = sorted(MIGRATIONS.glob("*.sql"))
        aside(execute(url_of(postgres_url, name), *(file.read_text() for file in files)))
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
