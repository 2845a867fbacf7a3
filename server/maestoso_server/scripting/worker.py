"""The evaluator process: reads requests from its standard input, answers on its standard output.

It runs foreign scripts, so it gives everything up first: the environment, files and sockets (no
descriptor beyond the three), new processes, memory beyond a bound. A script that runs too long in
JavaScript is interrupted and answered; one that cannot be interrupted (jq) ends the process, as does
one that exhausts its memory. The server starts another.

Run as `python -m maestoso_server.scripting.worker LIMIT_SECONDS MEMORY_BYTES`.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from functools import lru_cache
from typing import Any

import _quickjs
import jq

from .frames import LENGTH, Operation, Status, pack_answer, unpack_request

_RESULT_MAX = 10 * 1024 * 1024
"""Characters of a result."""
_HEADROOM_BYTES = 512 * 1024 * 1024
"""Address space beyond what the empty process and one script's memory take."""
_GRACE_S = 1.0

# The completion value of the script as JSON: undefined is null, NaN and the infinities are their
# names as text, a BigInt is an exact integer. What the script could redefine is taken before it runs.
_RUN = """
(function () {
  const run = eval, parse = JSON.parse, stringify = JSON.stringify, raw = JSON.rawJSON, text = String;
  const finite = Number.isFinite;
  const replace = (key, value) =>
    typeof value === 'bigint' ? raw(text(value))
    : typeof value === 'number' && !finite(value) ? text(value)
    : value;
  return function (script, input) {
    Object.defineProperty(globalThis, '$', {value: parse(input), writable: true, configurable: true});
    return stringify(run(script), replace);
  };
})()
"""

# A script is compiled whole before its first statement runs, and that statement ends it.
_CHECK = """
(function () {
  const run = eval, parsed = {};
  globalThis.parsed = parsed;
  return function (script) {
    try { run('throw globalThis.parsed;' + script); } catch (error) { if (error !== parsed) throw error; }
  };
})()
"""

_LINE = re.compile(r":(\d+)(?::\d+)?\)?$", re.MULTILINE)
_INTERRUPTED = "InternalError: interrupted"


class _Evaluator:
    def __init__(self, limit_s: float, memory_bytes: int) -> None:
        self._limit_s = limit_s
        self._memory_bytes = memory_bytes
        self._next: tuple[Any, Any] | None = None

    def prepare(self) -> None:
        """Make what the next script runs in; while nobody waits."""
        if self._next is None:
            self._next = self._fresh()

    def answer(self, operation: Operation, script: str, document: str) -> bytes:
        """The frame that answers a request. Never raises; it may end the process."""
        is_jq = operation in (Operation.JQ, Operation.CHECK_JQ)
        # The signal ends the process. JavaScript counts its own time, jq cannot be interrupted.
        signal.setitimer(signal.ITIMER_REAL, self._limit_s + (0 if is_jq else _GRACE_S))
        try:
            if is_jq:
                result = _transform(operation, script, document)
            else:
                return self._run(operation, script, document)
        except ValueError as error:  # jq's only error
            return pack_answer(Status.ERROR, str(error))
        except MemoryError:
            return pack_answer(Status.ERROR, "out of memory")
        except Exception as error:
            return pack_answer(Status.ERROR, f"{type(error).__name__}: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return _sized(result)

    def _run(self, operation: Operation, script: str, document: str) -> bytes:
        (context, run), self._next = self._next or self._fresh(), None
        if operation in (Operation.JAVASCRIPT_FUNCTION, Operation.CHECK_JAVASCRIPT_FUNCTION):
            script = f"(function () {{{script}\n}})()"
        try:
            if operation in (Operation.CHECK_JAVASCRIPT, Operation.CHECK_JAVASCRIPT_FUNCTION):
                context.eval(_CHECK)(script)
                return pack_answer(Status.VALUE, "")
            result = run(script, document)
        except _quickjs.JSException as error:
            message = str(error)
            if message.startswith(_INTERRUPTED):
                return pack_answer(Status.TIMEOUT, "")
            if context.memory()["malloc_size"] > self._memory_bytes * 0.9:
                message = "InternalError: out of memory"  # too little was left to say so
            return pack_answer(Status.ERROR, _described(message))
        return _sized("null" if result is None else result)

    def _fresh(self) -> tuple[Any, Any]:
        """A context and the function in it that runs a script."""
        context = _quickjs.Context()
        context.set_memory_limit(self._memory_bytes)
        context.set_time_limit(self._limit_s)
        return context, context.eval(_RUN)


def _transform(operation: Operation, query: str, document: str) -> str:
    program = _program(query)
    if operation is Operation.CHECK_JQ:
        return ""
    return "[" + ",".join(program.input_text(document).text().split("\n")) + "]"


def _sized(result: str) -> bytes:
    if len(result) > _RESULT_MAX:
        return pack_answer(Status.TOO_LARGE, str(len(result)))
    return pack_answer(Status.VALUE, result)


@lru_cache(maxsize=256)
def _program(query: str) -> Any:
    return jq.compile(query)


def _described(message: str) -> str:
    """``Error evaluating the script `<message>` at line <n>``, from an exception with its stack."""
    first, _, stack = message.partition("\n")
    line = _LINE.search(stack)
    return f"Error evaluating the script `{first}` at line {line.group(1) if line else 1}"


def _give_up(memory_bytes: int) -> None:
    """Give up what a script must not reach, even one that breaks out of its interpreter."""
    os.environ.clear()
    with open("/proc/self/statm" if sys.platform == "linux" else os.devnull) as statm:
        pages = statm.read().split()
    own = int(pages[0]) * resource.getpagesize() if pages else 0
    bounds = {
        resource.RLIMIT_AS: own + memory_bytes + _HEADROOM_BYTES,
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


def main() -> None:
    """Answer requests until the server closes the pipe."""
    limit_s, memory_bytes = float(sys.argv[1]), int(sys.argv[2])
    evaluator = _Evaluator(limit_s, memory_bytes)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # First use loads what it needs, before files are out of reach.
    evaluator.answer(Operation.JAVASCRIPT, "1", "{}")
    evaluator.answer(Operation.JQ, ".", "{}")
    evaluator.prepare()
    _give_up(memory_bytes)
    while True:
        (length,) = LENGTH.unpack(_read(LENGTH.size))
        answer = evaluator.answer(*unpack_request(_read(length)))
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
        evaluator.prepare()


if __name__ == "__main__":
    main()
