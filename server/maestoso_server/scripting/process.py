"""What every evaluator process does: it gives up what foreign scripts must not reach, then answers.

It reads requests from its standard input and answers on its standard output until the server closes
the pipe. A script that cannot be interrupted ends the process, as does one that exhausts its memory.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Protocol

from .frames import LENGTH, Request, Status, pack_answer, unpack_request

RESULT_MAX = 10 * 1024 * 1024
"""Characters of a result."""
HEADROOM_BYTES = 512 * 1024 * 1024
"""Address space beyond what the empty process and one script's memory take."""


class Evaluator(Protocol):
    """Evaluates the scripts of one process."""

    def answer(self, request: Request) -> bytes:
        """The frame that answers a request. Never raises; it may end the process."""
        ...

    def prepare(self) -> None:
        """Make ready for the next script; while nobody waits."""
        ...


def serve(make: Callable[[int], Evaluator]) -> None:
    """Run an evaluator with MEMORY_BYTES, the process's argument, until the server closes the pipe."""
    memory_bytes = int(sys.argv[1])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.environ.clear()
    evaluator = make(memory_bytes)
    evaluator.prepare()
    _give_up(memory_bytes)
    while True:
        (length,) = LENGTH.unpack(_read(LENGTH.size))
        request = unpack_request(_read(length))
        sys.stdout.buffer.write(evaluator.answer(request))
        sys.stdout.buffer.flush()
        evaluator.prepare()


def end_after(seconds: float) -> None:
    """Have the process ended by the system then, whatever it does; 0 calls that off."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def sized(result: str) -> bytes:
    """The frame of a value, or of the refusal of one that is too large."""
    if len(result) > RESULT_MAX:
        return pack_answer(Status.TOO_LARGE, str(len(result)))
    return pack_answer(Status.VALUE, result)


def described(message: str, line: int) -> str:
    """A script's error in Conductor's words."""
    return f"Error evaluating the script `{message}` at line {line}"


def own_bytes(process: str = "self") -> int:
    """The address space that a process takes now; 0 where that cannot be known."""
    with open(f"/proc/{process}/statm" if sys.platform == "linux" else os.devnull) as statm:
        pages = statm.read().split()
    return int(pages[0]) * resource.getpagesize() if pages else 0


def _give_up(memory_bytes: int) -> None:
    """Give up what a script must not reach, even one that breaks out of its interpreter."""
    bounds = {
        resource.RLIMIT_AS: own_bytes() + memory_bytes + HEADROOM_BYTES,
        resource.RLIMIT_NOFILE: 3,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for what, most in bounds.items():
        resource.setrlimit(what, (most, most))


def _read(size: int) -> bytes:
    found = sys.stdin.buffer.read(size)
    if len(found) < size:
        sys.exit(0)  # the server is gone
    return found
