"""The evaluator process for Python: an interpreter of its own kind, in a process below this one.

The interpreter (pydantic-monty, the extra `python`) knows no files, no network and no host objects,
and counts time, memory and recursion itself. What it cannot stop ends both processes.

Run as `python -m maestoso_server.scripting.python_worker MEMORY_BYTES`.
"""

from __future__ import annotations

import contextlib
import json
import keyword
import math
import os
import resource
from datetime import date, time
from typing import Any

import pydantic_monty as monty

from .frames import Operation, Request, Status, pack_answer
from .process import HEADROOM_BYTES, described, end_after, own_bytes, serve, sized

_GRACE_S = 1.0
_RECURSION_MAX = 500
_TIMED_OUT = "feed time limit exceeded"

_CHECK = "return\n"
"""A script is compiled whole before its first statement runs, and this one ends it."""


class _Evaluator:
    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        # It is never left: the process below lives as long as this one.
        self._pool = monty.Monty(min_processes=1, max_processes=1).__enter__()
        self._bounded = 0
        self._run("1", {}, _GRACE_S)  # starts the process below, while processes may be started

    def prepare(self) -> None:
        pass

    def answer(self, request: Request) -> bytes:
        end_after(request.limit_s + _GRACE_S)
        try:
            if request.operation is Operation.CHECK_PYTHON:
                self._run(_CHECK + request.script, {}, request.limit_s)
                return pack_answer(Status.VALUE, "")
            value = self._run(request.script, _names(json.loads(request.document)), request.limit_s)
            return sized(json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")))
        except monty.MontyCrashedError:
            os._exit(1)
        except monty.MontyError as error:
            return _refusal(error, skipped=request.operation is Operation.CHECK_PYTHON)
        except (TypeError, ValueError, RecursionError) as error:
            return pack_answer(Status.ERROR, f"the result is no JSON value: {error}")
        finally:
            end_after(0)

    def _run(self, script: str, inputs: dict[str, Any], limit_s: float) -> Any:
        limits: monty.ResourceLimits = {
            "max_feed_duration_secs": limit_s,
            "max_memory": self._memory_bytes,
            "max_recursion_depth": _RECURSION_MAX,
            "max_total_sleep_secs": 0.0,
        }
        with self._pool.checkout(limits=limits) as session:
            self._bound(session.worker_pid)
            return session.feed_run(script, inputs=inputs, print_callback=_say_nothing)

    def _bound(self, process: int | None) -> None:
        """Take from the process below what it does not need, once."""
        if process is None or process == self._bounded or not hasattr(resource, "prlimit"):
            return
        self._bounded = process
        most_bytes = own_bytes(str(process)) + self._memory_bytes + HEADROOM_BYTES
        for what, most in (
            (resource.RLIMIT_AS, most_bytes),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            with contextlib.suppress(OSError):
                resource.prlimit(process, what, (most, most))


def _names(inputs: dict[str, Any]) -> dict[str, Any]:
    """What a script sees: each input under its own name where that is one, all of them as `inputs`."""
    named = {key: value for key, value in inputs.items() if key.isidentifier() and not keyword.iskeyword(key)}
    return {"inputs": inputs, **named}


def _plain(value: Any) -> Any:
    """A value of Python as JSON has it. Raises TypeError for one that JSON cannot hold."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, date | time):
        return value.isoformat()
    kind = type(value).__name__
    hint = "; return list(...) of it" if kind in ("set", "frozenset") else ""
    raise TypeError(f"JSON cannot hold a {kind}{hint}")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(_plain(key))
    raise TypeError(f"a key of a JSON object is a text, not a {type(key).__name__}")


def _refusal(error: monty.MontyError, *, skipped: bool) -> bytes:
    """A script's own error. `skipped`: the first line is ours."""
    message = str(error)
    if _TIMED_OUT in message:
        return pack_answer(Status.TIMEOUT, "")
    if isinstance(error, monty.MontySyntaxError):
        message = f"SyntaxError: {message}"
    frames = error.traceback() if isinstance(error, monty.MontyRuntimeError | monty.MontySyntaxError) else []
    line = frames[-1].line - skipped if frames else 1
    return pack_answer(Status.ERROR, described(message.partition("\n")[0], max(line, 1)))


def _say_nothing(stream: str, text: str) -> None:
    """What a script prints goes nowhere."""


if __name__ == "__main__":
    serve(_Evaluator)
