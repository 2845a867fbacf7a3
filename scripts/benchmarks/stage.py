"""Where a scenario plays: a Postgres, server processes, and what they have used up."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from maestoso_server.embedded import EmbeddedPostgres

READY = re.compile(r"ready grpc=(\S+) http=(\S+)")
READY_TIMEOUT_S = 60.0


def note(text: str) -> None:
    """Progress, for people: on stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Node:
    """One server process."""

    process: subprocess.Popen[str]
    grpc: str
    http: str
    arguments: list[str] = field(default_factory=list)

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Stage:
    """A migrated, empty database and the servers on it. Use as an async context manager.

    Without `database_url` it brings the embedded Postgres, in a folder that goes afterwards; with
    one it makes a database of its own there and drops it."""

    def __init__(self, database_url: str | None) -> None:
        self._given_url = database_url
        self._postgres: EmbeddedPostgres | None = None
        self._folder: Path | None = None
        self._database = f"maestoso_bench_{os.getpid()}"
        self.url = ""
        self.nodes: list[Node] = []
        self.pool: asyncpg.Pool[Any]

    async def __aenter__(self) -> Stage:
        if self._given_url is None:
            self._folder = Path(tempfile.mkdtemp(prefix="maestoso-bench-"))
            self._folder.chmod(0o711)  # Postgres may run as another user, who has to get through
            self._postgres = EmbeddedPostgres(self._folder / "data")
            self._postgres.start()
            base = self._postgres.url
        else:
            base = self._given_url
        admin = await asyncpg.connect(base)
        await admin.execute(f'CREATE DATABASE "{self._database}"')
        await admin.close()
        self._base = base
        self.url = _with_database(base, self._database)
        subprocess.run(_server("migrate", "--database-url", self.url), check=True, stdout=sys.stderr)
        self.pool = await asyncpg.create_pool(self.url, min_size=1, max_size=4)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for node in self.nodes:
            node.stop()
        await self.pool.close()
        admin = await asyncpg.connect(self._base)
        await admin.execute(f'DROP DATABASE IF EXISTS "{self._database}" WITH (FORCE)')
        await admin.close()
        if self._postgres is not None:
            self._postgres.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def node(self, *arguments: str, grpc: str = "127.0.0.1:0") -> Node:
        """Start a server process and wait until it is ready."""
        command = _server(
            "serve", "--database-url", self.url, "--grpc-address", grpc, "--http-address", "127.0.0.1:0"
        )
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
        line = await asyncio.wait_for(
            asyncio.get_running_loop().run_in_executor(None, _ready_line, process), READY_TIMEOUT_S
        )
        made = Node(process, line[0], line[1], list(arguments))
        self.nodes.append(made)
        return made

    def postgres_cpu_s(self) -> float:
        """CPU of Postgres with all its processes, also those that ended; 0 where it is not ours."""
        if self._postgres is None or self._postgres.pid is None:
            return 0.0
        return cpu_s(self._postgres.pid)

    async def count(self, query: str, *arguments: Any) -> int:
        return int(await self.pool.fetchval(query, *arguments))


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of its children, living and ended."""
    total = 0.0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            times = process.cpu_times()
            total += times.user + times.system
        ended = parent.cpu_times()
        total += ended.children_user + ended.children_system
    except psutil.NoSuchProcess:
        pass
    return total


class Load:
    """A process of `benchmarks.loads`: does what it is told and prints one JSON object at its end."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.loads", name, json.dumps(settings)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )

    async def line(self, timeout_s: float = 300.0) -> dict[str, Any]:
        """Its next line, a JSON object."""
        assert self.process.stdout is not None
        loop = asyncio.get_running_loop()
        text = await asyncio.wait_for(loop.run_in_executor(None, self.process.stdout.readline), timeout_s)
        if not text:
            raise RuntimeError(f"the load ended with {self.process.wait()} and said nothing")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _server(command: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "maestoso_server", command, *arguments]


def _ready_line(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    for text in process.stdout:
        found = READY.search(text)
        if found:
            return found.group(1), found.group(2)
    raise RuntimeError(f"the server ended with {process.wait()} before it was ready")


def _with_database(url: str, database: str) -> str:
    """The same server, another database. The embedded one's address has its socket in the query."""
    head, question, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    host, _, _ = rest.partition("/")
    return f"{scheme}://{host}/{database}{question}{query}"
