"""Evaluator processes: scripts run outside the server, bounded in time, memory and reach.

    evaluators = Evaluators(processes=2)
    answer = await evaluators.evaluate("javascript", "$.a + 1", b'{"a": 1}')
    ...
    await evaluators.stop()

Languages: `javascript` (the completion value of a script), `javascript-function` (the body of a
function, which returns), `jq` (a list of everything that it emits) and, where the extra is installed,
`python` (the body of a function, or an expression; each input is a name). For JavaScript the input is
bound to `$` as a copy; for jq it is `.`. Values are what the language can hold: in JavaScript numbers are
doubles, so integers beyond 2^53 lose digits unless they are BigInt, which come out as exact integers;
undefined is null, a Date is its ISO text, NaN and the infinities are their names as text.

A script that loops, eats memory or crashes its process fails only itself; one that takes long waits
for others that do (`lanes`). Processes are started when they are first needed, and again when one has
ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ..engine.needs import ScriptAnswer
from ..json_text import JsonFault, parse
from .frames import LENGTH, Operation, Status, pack_request, unpack_answer
from .lanes import QUICK_S, Job, SlowScripts, Turns

LIMIT_S = 4.0
"""How long one script may compute, as with Conductor."""
MEMORY_BYTES = 64 * 1024 * 1024
"""What one JavaScript script may allocate."""

_WORKER = f"{__package__}.worker"
_PYTHON_WORKER = f"{__package__}.python_worker"
_IMPORT_ROOT = str(Path(__file__).parents[2])
_KILL_AFTER_S = 2.0
"""Beyond the limit: the process ends itself a second after it, so this is for one that cannot."""
_INHERITED = ("PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""What the interpreter itself may need to start; the worker clears it before it runs a script."""
_EXIT_S = 1.0

_EVALUATE = {
    "javascript": Operation.JAVASCRIPT,
    "javascript-function": Operation.JAVASCRIPT_FUNCTION,
    "jq": Operation.JQ,
    "python": Operation.PYTHON,
}
_CHECK = {language: Operation(operation + 1) for language, operation in _EVALUATE.items()}

NO_PYTHON = "this server has no evaluator for Python; install it with the extra: maestoso[server,python]"


def languages() -> frozenset[str]:
    """The languages that this installation can evaluate."""
    missing = {"python"} if find_spec("pydantic_monty") is None else set()
    return frozenset(_EVALUATE) - missing


class _Lane:
    """Seats, the jobs that wait for them, and what one script may take there."""

    def __init__(self, seats: list[_Seat], limit_s: float, slower: _Lane | None) -> None:
        self.seats = seats
        self.limit_s = limit_s
        self.slower = slower
        self.turns = Turns()
        self.idle = 0
        self.loops: list[asyncio.Task[None]] = []


class Evaluators:
    """A pool of evaluator processes. Needs a running event loop only when it is first asked.

    `processes` serve the scripts of JavaScript and jq that are quick; one more serves those that are
    not, and as many again those of Python, each started when it is first needed."""

    def __init__(
        self, *, processes: int = 2, limit_s: float = LIMIT_S, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        def lanes(worker: str, seats: int) -> _Lane:
            made = [_Seat(worker, memory_bytes) for _ in range(seats)]
            if limit_s <= QUICK_S:
                return _Lane(made, limit_s, None)
            return _Lane(made, QUICK_S, _Lane([_Seat(worker, memory_bytes)], limit_s, None))

        self._limit_s = limit_s
        self._native = lanes(_WORKER, processes)
        self._python = lanes(_PYTHON_WORKER, 1)
        self._slow = SlowScripts()
        self._languages = languages()
        self._stopped = False

    async def start(self) -> None:
        """Start the processes for quick scripts now instead of when they are needed."""
        await asyncio.gather(*(seat.ready() for seat in self._native.seats))

    async def stop(self) -> None:
        """End all processes. Scripts under way are answered as failed, retriable."""
        self._stopped = True
        lanes = [lane for first in (self._native, self._python) for lane in (first, first.slower) if lane]
        loops = [loop for lane in lanes for loop in lane.loops]
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        for lane in lanes:
            lane.loops.clear()
            for job in lane.turns.drain():
                job.settle(_STOPPED)
        await asyncio.gather(*(seat.close() for lane in lanes for seat in lane.seats))

    @property
    def languages(self) -> frozenset[str]:
        """The languages that can be evaluated."""
        return self._languages

    def submit(
        self, language: str, script: str, document: bytes, *, owner: str = ""
    ) -> asyncio.Future[ScriptAnswer]:
        """Have a script evaluated; the future never fails. Cancelling it drops the answer. Owners take
        turns, so that one with many scripts does not hold up the others."""
        return self._submit(_EVALUATE.get(language), language, script, document, owner)

    async def evaluate(
        self,
        language: str,
        script: str,
        document: bytes,
        *,
        patience_ms: int | None = None,
        later: Callable[[ScriptAnswer], None] | None = None,
    ) -> ScriptAnswer:
        """The answer; after `patience_ms` one that says `slow`, and then `later` gets the real one."""
        answered = self.submit(language, script, document)
        if patience_ms is None:
            return await answered
        done, _ = await asyncio.wait([answered], timeout=patience_ms / 1000)
        if done:
            return answered.result()
        if later is not None:
            answered.add_done_callback(lambda future: future.cancelled() or later(future.result()))
        return ScriptAnswer(slow=True)

    async def check(self, language: str, script: str) -> str | None:
        """What is wrong with the syntax of a script, or None. It is not run."""
        answer = await self._submit(_CHECK.get(language), language, script, b"", "")
        return answer.error

    def _submit(
        self, operation: Operation | None, language: str, script: str, document: bytes, owner: str
    ) -> asyncio.Future[ScriptAnswer]:
        answered: asyncio.Future[ScriptAnswer] = asyncio.get_running_loop().create_future()
        if operation is None:
            known = ", ".join(sorted(self._languages))
            answered.set_result(ScriptAnswer(error=f"no evaluator for {language!r}; there are {known}"))
        elif language not in self._languages:
            answered.set_result(ScriptAnswer(error=NO_PYTHON))
        elif self._stopped:
            answered.set_result(_STOPPED)
        else:
            job = Job(operation, script, document, owner, answered)
            lane = self._python if language == "python" else self._native
            self._put(lane.slower if lane.slower is not None and job in self._slow else lane, job)
        return answered

    def _put(self, lane: _Lane, job: Job) -> None:
        lane.turns.put(job)
        if lane.turns.count > lane.idle and len(lane.loops) < len(lane.seats):
            lane.loops.append(asyncio.create_task(self._serve(lane, lane.seats[len(lane.loops)])))

    async def _serve(self, lane: _Lane, seat: _Seat) -> None:
        clock = asyncio.get_running_loop()
        while True:
            lane.idle += 1
            try:
                job = await lane.turns.get()
            finally:
                lane.idle -= 1
            if job.answered.done():
                continue
            began = clock.time()
            try:
                answer = await seat.answer(job, lane.limit_s)
            except asyncio.CancelledError:
                job.settle(_STOPPED)
                raise
            except Exception as error:
                answer = ScriptAnswer(error=f"the evaluator could not be used: {error}", retriable=True)
            if lane.slower is not None and answer is TOO_SLOW:
                self._slow.note(job, lane.limit_s)
                self._put(lane.slower, job)
                continue
            if lane.slower is None and lane.limit_s > QUICK_S:
                self._slow.note(job, clock.time() - began)
            job.settle(self._too_slow() if answer is TOO_SLOW else answer)

    def _too_slow(self) -> ScriptAnswer:
        return ScriptAnswer(
            error=f"Script not evaluated within {self._limit_s:g} seconds, interrupted.", retriable=True
        )


TOO_SLOW = ScriptAnswer(retriable=True)
"""What a seat answers for a script that was interrupted."""
_STOPPED = ScriptAnswer(error="the evaluators are stopped", retriable=True)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    paths = [_IMPORT_ROOT, os.environ.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


class _Seat:
    """One process at a time, and what it takes to replace it."""

    def __init__(self, worker: str, memory_bytes: int) -> None:
        self._worker = worker
        self._memory_bytes = memory_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._served = 0

    async def ready(self) -> asyncio.subprocess.Process:
        """The process, started if there is none."""
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self.close()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._worker,
            str(self._memory_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_environment(),
            cwd="/",
            start_new_session=True,
        )
        self._served = 0
        return self._process

    async def answer(self, job: Job, limit_s: float) -> ScriptAnswer:
        """What the process answers; `TOO_SLOW` where the time was up. One that ends over it is blamed on
        the script, unless it had served others before: then the script is tried once more, in a new
        process."""
        request = pack_request(job.operation, job.script, job.document, limit_s)
        used = self._served > 0
        answer = await self._attempt(request, limit_s)
        if answer is None and used:
            answer = await self._attempt(request, limit_s)
        if answer is None:
            return ScriptAnswer(error="the script ended its evaluator: out of memory, or a crash")
        return answer

    async def _attempt(self, request: bytes, limit_s: float) -> ScriptAnswer | None:
        """The answer, or None when the process ended without one before the time was up."""
        process = await self.ready()
        assert process.stdin is not None and process.stdout is not None
        self._served += 1
        clock = asyncio.get_running_loop()
        began = clock.time()
        try:
            async with asyncio.timeout(limit_s + _KILL_AFTER_S):
                process.stdin.write(request)
                await process.stdin.drain()
                (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
                content = await process.stdout.readexactly(length)
        except TimeoutError:
            _kill(process)
            await self.close()
            return TOO_SLOW
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.close()
            return TOO_SLOW if clock.time() - began >= limit_s else None
        except BaseException:
            _kill(process)
            await self.close()  # its next answer would be read as another script's
            raise
        status, text = unpack_answer(content)
        return self._read(status, text)

    def _read(self, status: Status, text: bytes) -> ScriptAnswer:
        if status is Status.TIMEOUT:
            return TOO_SLOW
        if status is Status.TOO_LARGE:
            return ScriptAnswer(error=f"the result has {int(text):,} characters, which is too many")
        if status is Status.ERROR:
            return ScriptAnswer(error=text.decode())
        if not text:  # a check that found nothing
            return ScriptAnswer()
        try:
            return ScriptAnswer(value=parse(text).value)
        except JsonFault as fault:
            return ScriptAnswer(error=f"the result is no JSON value: {fault.message}")

    async def close(self) -> None:
        """End the process, if there is one: by closing its pipe, or by force if it does not listen."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_EXIT_S):
                await process.wait()
        except TimeoutError:
            _kill(process)
            await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
