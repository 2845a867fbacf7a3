"""The evaluator process for JavaScript and jq.

A script that runs too long in JavaScript is interrupted and answered; jq cannot be interrupted, so
there it ends the process, and the server starts another.

Run as `python -m maestoso_server.scripting.worker MEMORY_BYTES`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import _quickjs
import jq

from .frames import Operation, Request, Status, pack_answer
from .process import described, end_after, serve, sized

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
_INDEXED = re.compile(r'(Cannot index \w+ with string) \((".*")\)$', re.DOTALL)


class _Evaluator:
    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._next: tuple[Any, Any] | None = None
        # First use loads what it needs, before files are out of reach.
        self.answer(Request(Operation.JAVASCRIPT, "1", "{}", _GRACE_S))
        self.answer(Request(Operation.JQ, ".", "{}", _GRACE_S))

    def prepare(self) -> None:
        if self._next is None:
            self._next = self._fresh()

    def answer(self, request: Request) -> bytes:
        is_jq = request.operation in (Operation.JQ, Operation.CHECK_JQ)
        # The signal ends the process. JavaScript counts its own time, jq cannot be interrupted.
        end_after(request.limit_s + (0 if is_jq else _GRACE_S))
        try:
            return sized(_transform(request)) if is_jq else self._run(request)
        except ValueError as error:  # jq's only error
            return pack_answer(Status.ERROR, _INDEXED.sub(r"\1 \2", str(error)))
        except MemoryError:
            return pack_answer(Status.ERROR, "out of memory")
        except Exception as error:
            return pack_answer(Status.ERROR, f"{type(error).__name__}: {error}")
        finally:
            end_after(0)

    def _run(self, request: Request) -> bytes:
        (context, run), self._next = self._next or self._fresh(), None
        operation, script = request.operation, request.script
        if operation in (Operation.JAVASCRIPT_FUNCTION, Operation.CHECK_JAVASCRIPT_FUNCTION):
            script = f"(function () {{{script}\n}})()"
        context.set_time_limit(request.limit_s)
        try:
            if operation in (Operation.CHECK_JAVASCRIPT, Operation.CHECK_JAVASCRIPT_FUNCTION):
                context.eval(_CHECK)(script)
                return pack_answer(Status.VALUE, "")
            result = run(script, request.document)
        except _quickjs.JSException as error:
            message = str(error)
            if message.startswith(_INTERRUPTED):
                return pack_answer(Status.TIMEOUT, "")
            if context.memory()["malloc_size"] > self._memory_bytes * 0.9:
                message = "InternalError: out of memory"  # too little was left to say so
            first, _, stack = message.partition("\n")
            line = _LINE.search(stack)
            return pack_answer(Status.ERROR, described(first, int(line.group(1)) if line else 1))
        return sized("null" if result is None else result)

    def _fresh(self) -> tuple[Any, Any]:
        """A context and the function in it that runs a script."""
        context = _quickjs.Context()
        context.set_memory_limit(self._memory_bytes)
        return context, context.eval(_RUN)


def _transform(request: Request) -> str:
    program = _program(request.script)
    if request.operation is Operation.CHECK_JQ:
        return ""
    return "[" + ",".join(program.input_text(request.document).text().split("\n")) + "]"


@lru_cache(maxsize=256)
def _program(query: str) -> Any:
    return jq.compile(query)


if __name__ == "__main__":
    serve(_Evaluator)
