"""Real `maestoso` processes for the end-to-end tests."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
READY = re.compile(r"ready grpc=(\S+:\d+) http=(\S+:\d+)")
START_S = 60.0
STOP_S = 40.0

PATHS = os.pathsep.join((str(ROOT / "server"), str(ROOT / "sdk" / "python")))


def environment(**more: str) -> dict[str, str]:
    """Ours, without settings of Maestoso that happen to be there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAESTOSO_")}
    return {**kept, "PYTHONPATH": PATHS, **more}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `maestoso` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "maestoso_server", *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )


class Maestoso:
    """One `maestoso dev` or `maestoso serve` on free ports. Killed at the end of the block."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        ports = ("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "maestoso_server", *arguments, *ports],
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.stdout), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.grpc = self.http = ""

    def __enter__(self) -> Maestoso:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            family = self.family()
            self.process.kill()
            self.process.wait()
            psutil.wait_procs(family, timeout=STOP_S)
        if error is not None:
            error.add_note("stderr of the server:\n" + "".join(self.stderr[-60:]))

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            lines.append(line)
            if lines is self.stdout:
                self._lines.put(line)
        if lines is self.stdout:
            self._lines.put(None)

    def ready(self) -> Maestoso:
        """Wait for the ready line and learn the addresses."""
        line = self._lines.get(timeout=START_S)
        found = READY.fullmatch((line or "").strip())
        assert found, f"no ready line but {line!r}; stderr:\n{''.join(self.stderr)}"
        self.grpc, self.http = found.groups()
        return self

    def family(self) -> list[psutil.Process]:
        """Every process that this one has started, and theirs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def postmaster(self) -> psutil.Process:
        return next(process for process in self.family() if "-D" in command_line(process))

    def signal(self, number: signal.Signals) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        status = self.process.wait(STOP_S)
        for reader in self._readers:
            reader.join(STOP_S)
        return status

    def get(self, path: str) -> tuple[int, str]:
        """(status, body) of the HTTP port."""
        return get(f"http://{self.http}{path}")


def command_line(process: psutil.Process) -> list[str]:
    """What a process was started with; nothing for one that has ended meanwhile."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
