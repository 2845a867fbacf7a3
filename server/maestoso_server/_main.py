"""The command `maestoso`: the server's commands here, the client's in `maestoso._cli`.

    maestoso dev       a server with its own Postgres, for one machine
    maestoso serve     a server on a Postgres of yours
    maestoso migrate   bring that Postgres to this server's schema

A server prints `ready grpc=HOST:PORT http=HOST:PORT` on stdout once it serves, and logs on stderr.
SIGTERM and SIGINT stop it gracefully, a second one at once. Exit status: 0 stopped as asked, 1 it
could not start or go on, 2 the settings are wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .config import OPTIONS, Config, ConfigError, parse, parser

log = logging.getLogger("maestoso.main")

# Read when grpc is imported, later: our processes are started by exec, and no fork is ever used.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

WATCH_S = 0.5
"""How often the embedded Postgres is looked at."""

Arguments = Sequence[str]


class ServerFailed(RuntimeError):
    """The server cannot go on by itself."""


def main(argv: Arguments | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        return _client(arguments)
    try:
        return command(arguments[1:])
    except ConfigError as error:
        return _refuse(error, 2)
    except ModuleNotFoundError as error:
        return _refuse(f"{error.name} is not installed: pip install 'maestoso[server,embedded]'", 1)
    except KeyboardInterrupt:
        return 1


def dev(arguments: Arguments) -> int:
    """A server with its own Postgres, which is set up, kept up and stopped with it."""
    from .embedded import EmbeddedError, EmbeddedPostgres, default_data

    config = _settings("dev", dev.__doc__ or "", arguments, without=("database_url", "statement_cache"))
    _set_up_logging(config)
    data = Path(config.data).expanduser() if config.data else default_data()
    try:
        with _signals_wait(), EmbeddedPostgres(data, binaries=config.pg_bin) as postgres:
            log.info("postgres is up", extra={"data": str(data), "pid": postgres.pid})
            config = replace(config, database_url=postgres.url)
            asyncio.run(_migrate(config.database_url))
            return _run(config, _watch(postgres))
    except EmbeddedError as error:
        return _refuse(error, 1)


def serve(arguments: Arguments) -> int:
    """A server on the Postgres of --database-url, which must have this server's schema."""
    config = _settings("serve", serve.__doc__ or "", arguments, without=("data", "pg_bin"))
    _need_database(config)
    _set_up_logging(config)
    return _run(config)


def migrate(arguments: Arguments) -> int:
    """Bring the Postgres of --database-url to this server's schema. Safe to repeat and to race."""
    only = ("database_url", "log_level", "log_format")
    without = tuple(option.name for option in OPTIONS if option.name not in only)
    config = _settings("migrate", migrate.__doc__ or "", arguments, without=without)
    _need_database(config)
    _set_up_logging(config)
    from .store.database import Unavailable
    from .store.migrate import SchemaError

    try:
        applied = asyncio.run(_migrate(config.database_url))
    except (SchemaError, Unavailable, OSError) as error:
        return _refuse(error, 1)
    print(f"applied {', '.join(map(str, applied))}" if applied else "nothing to do")
    return 0


def key(arguments: Arguments) -> int:
    """Make an API key: prints the caller's credential, then the line for the file of --api-keys."""
    from .services.security import make_key

    parsed = argparse.ArgumentParser(prog="maestoso key", description=key.__doc__, allow_abbrev=False)
    parsed.add_argument("id", help="names the key, so that it can be found and withdrawn")
    parsed.add_argument("--principal", required=True, help="who calls with it")
    parsed.add_argument("--namespaces", default="*", help="names with commas; * = all (default)")
    parsed.add_argument("--actions", default="*", help="such as workflow:start,*:read; * = all (default)")
    asked = parsed.parse_args(arguments)
    credential, line = make_key(
        asked.id, asked.principal, asked.namespaces.split(","), asked.actions.split(",")
    )
    print(credential, line, sep="\n")
    return 0


def _child(arguments: Arguments) -> int:
    """One of several processes: see `processes.py`."""
    config = parse()
    _set_up_logging(config)
    return _run(config, _until_parent_ends)


COMMANDS: dict[str, Callable[[Arguments], int]] = {
    "dev": dev,
    "serve": serve,
    "migrate": migrate,
    "key": key,
    "child": _child,
}

Companion = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Something that runs beside a server, is given the event that stops it and may set it."""


def _run(config: Config, companion: Companion | None = None) -> int:
    """Run the server until it is told to stop."""
    from .embedded import EmbeddedError
    from .processes import StartFailed
    from .store.database import Unavailable
    from .store.migrate import SchemaError

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_main(config, companion))
        return 0
    except* (SchemaError, Unavailable, StartFailed, ServerFailed, EmbeddedError, OSError) as failures:
        return_status = _refuse(_innermost(failures), 1)
    return return_status


async def _main(config: Config, companion: Companion | None) -> None:
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    async with asyncio.TaskGroup() as group:
        beside = group.create_task(companion(stopping)) if companion else None
        if config.processes > 1:
            await _run_processes(config, stopping)
        else:
            await _run_server(config, stopping)
        if beside:
            beside.cancel()


async def _run_server(config: Config, stopping: asyncio.Event) -> None:
    from .processes import first_of, ready_line
    from .server import Server

    server = Server(config)
    starting = asyncio.create_task(server.start())
    try:
        started = asyncio.Event()
        starting.add_done_callback(lambda _: started.set())
        if await first_of(started, stopping):
            await starting
            _collect_seldom()
            print(ready_line(server.grpc_address, server.http_address), flush=True)
            if await first_of(server.failed, stopping):
                raise ServerFailed("a part of the server has failed: see its log")
            log.info("stopping")
        else:
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
    finally:
        await server.stop()


def _collect_seldom() -> None:
    """The collector of reference cycles took a fifth of a busy server: at its default thresholds it walks
    all cached workflows again and again, and the server makes hardly any cycles. What is loaded by
    now stays for good; the rest is looked at after many more allocations."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


async def _run_processes(config: Config, stopping: asyncio.Event) -> None:
    from .processes import Processes

    await Processes(config, stopping, lambda line: print(line, flush=True)).run()


# --- what runs beside a server ------------------------------------------------------------------


def _watch(postgres: Any) -> Companion:
    """Start the embedded Postgres again should it end by itself. The server waits for it meanwhile."""

    async def watch(stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            if postgres.pid is None:
                log.error("postgres ended by itself; starting it again")
                postgres.launch()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await stopping.wait()

    return watch


async def _until_parent_ends(stopping: asyncio.Event) -> None:
    """Stop when the pipe from the parent ends, that is, when the parent does."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            loop.remove_reader(sys.stdin.fileno())
            ended.set()

    loop.add_reader(sys.stdin.fileno(), readable)
    await ended.wait()
    stopping.set()


# --- signals, settings, words -------------------------------------------------------------------


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if stopping.is_set():
            log.warning("told to stop twice; leaving at once")
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(each)
            signal.raise_signal(signal.SIGINT)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)


@contextlib.contextmanager
def _signals_wait() -> Any:
    """Outside the event loop SIGTERM ends us as SIGINT does, through every `finally`."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _migrate(url: str) -> list[int]:
    from .clock import SystemClock
    from .store.migrate import migrate as apply

    return await apply(url, now_ms=SystemClock().now_ms())


def _settings(command: str, description: str, arguments: Arguments, without: tuple[str, ...]) -> Config:
    names = tuple(option.name for option in OPTIONS if option.name not in without)
    return parse(parser(f"maestoso {command}", description, names).parse_args(arguments))


def _need_database(config: Config) -> None:
    if not config.database_url:
        raise ConfigError(
            "--database-url: give the URL of a Postgres, or use `maestoso dev`, which has its own"
        )


def _set_up_logging(config: Config) -> None:
    from .telemetry import set_up_logging

    set_up_logging(config.log_level, config.log_format)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _refuse(error: object, status: int) -> int:
    print(f"maestoso: {error}", file=sys.stderr)
    return status


def _client(arguments: Arguments) -> int:
    from maestoso._cli import main as client

    return client(arguments)
