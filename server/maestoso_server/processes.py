"""One parent that keeps N server processes running: `--processes N`.

Each child is a whole server and a node of its own; they meet in Postgres only. Process 0 has the
addresses of the settings, the others take free ports on the same hosts. The parent restarts a child
that dies, on the same addresses, and serves nothing itself. The children hold the other end of a
pipe that ends with the parent, so that none outlives it, and share one folder of metrics, so that
any of them answers `/metrics` for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from .config import Config, join_address, split_address
from .telemetry import MULTIPROCESS_VARIABLE

log = logging.getLogger("maestoso.processes")

CHILD_COMMAND = "child"
"""The hidden command of a child: settings from the environment, ends when its stdin does."""

READY = re.compile(r"ready grpc=(?P<grpc>\S+) http=(?P<http>\S+)")

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
HEALTHY_S = 30.0
"""A child that lived so long is restarted without a pause."""
STOP_MARGIN_S = 15.0


class StartFailed(RuntimeError):
    """A child ended before it was ready the first time: its own words are on stderr."""


def ready_line(grpc_address: str, http_address: str) -> str:
    """What a server prints on stdout once it serves; scripts wait for exactly this."""
    return f"ready grpc={grpc_address} http={http_address}"


class Processes:
    """The children of one server. `run` starts them and returns when they have stopped."""

    def __init__(self, config: Config, stopping: asyncio.Event, on_ready: Callable[[str], None]) -> None:
        """`stopping` ends the run; `on_ready` gets the ready line of process 0 once all are ready."""
        self._config = config
        self._stopping = stopping
        self._on_ready = on_ready
        self._metrics = Path(tempfile.mkdtemp(prefix="maestoso-metrics-"))

    async def run(self) -> None:
        """Raises StartFailed when a child cannot start at all; then none is left."""
        children = [
            Child(settings, self._metrics, self._stopping) for settings in settings_of_children(self._config)
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for child in children:
                    group.create_task(child.keep_running())
                group.create_task(self._announce(children))
        except* StartFailed as failures:
            raise failures.exceptions[0] from None
        finally:
            shutil.rmtree(self._metrics, ignore_errors=True)

    async def _announce(self, children: list[Child]) -> None:
        for child in children:
            if not await first_of(child.ready, self._stopping):
                return
        self._on_ready(ready_line(children[0].config.grpc_address, children[0].config.http_address))


def settings_of_children(config: Config) -> list[Config]:
    """The settings of each child: process 0 has the given addresses, the others free ports beside it."""
    first = replace(config, processes=1)
    others = replace(
        first, grpc_address=_any_port(config.grpc_address), http_address=_any_port(config.http_address)
    )
    return [first] + [others] * (config.processes - 1)


class Child:
    """One server process, started again whenever it dies.

    `config` has the addresses it really got once `ready` is set; a restart takes the same ones."""

    def __init__(self, config: Config, metrics: Path, stopping: asyncio.Event) -> None:
        self.config = config
        self.ready = asyncio.Event()
        self._metrics = metrics
        self._stopping = stopping

    async def keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            started = loop.time()
            status = await self._run_once()
            if self._stopping.is_set():
                return
            if not self.ready.is_set():
                raise StartFailed(f"a server process ended with status {status} before it was ready")
            log.error("server process ended; starting it again", extra={"status": status})
            pause_s = FIRST_PAUSE_S if loop.time() - started > HEALTHY_S else pause_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _run_once(self) -> int:
        """Start the process, follow it to its end, and return its exit status."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "maestoso_server", CHILD_COMMAND),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the parent, which stops the children in its order
            env={
                **os.environ,
                **self.config.environment(),
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                MULTIPROCESS_VARIABLE: str(self._metrics),
            },
        )
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._follow(process))
                ended = group.create_task(process.wait())
                stopping = group.create_task(self._stopping.wait())
                await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                await self._end(process)
                reader.cancel()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            mark_process_dead(process.pid, str(self._metrics))
        assert process.returncode is not None
        return process.returncode

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        """Pass on what the child prints, and learn its addresses from the ready line."""
        assert process.stdout is not None
        while line := (await process.stdout.readline()).decode(errors="replace").strip():
            if match := READY.fullmatch(line):
                self.config = replace(self.config, grpc_address=match["grpc"], http_address=match["http"])
                self.ready.set()
            else:
                log.info("server process says", extra={"line": line})

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Let the process finish in its own time, and no longer than that."""
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self.config.drain_ms / 1000 + STOP_MARGIN_S):
                await process.wait()
        except TimeoutError:
            log.error("server process does not stop; killing it", extra={"pid": process.pid})


async def first_of(wanted: asyncio.Event, other: asyncio.Event) -> bool:
    """Wait until one of the two is set; True when it is `wanted`."""
    waits = [asyncio.ensure_future(event.wait()) for event in (wanted, other)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return wanted.is_set()


def _any_port(address: str) -> str:
    return join_address(split_address(address)[0], 0)
