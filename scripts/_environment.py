"""The virtual environment of the scripts: made, filled and entered, with nothing but Python at hand.

`enter()` is the first thing a script does; `python()` is for one that starts others. Both run on any
Python 3 that can read this file, find 3.11 or newer, make `.venv` beside `scripts/`, and install what
`requirements.lock` names (each file checked against its hash) and the project itself; again only when
the lock or the project's metadata have changed, or the Python is gone. Scripts that start at the same
moment wait for the first.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv"
PYTHON = FOLDER / "bin" / "python"
STAMP = FOLDER / "installed.sha256"
OLDEST = (3, 11)
NEWER = ("python3.13", "python3.12", "python3.11", "python3")


def enter() -> None:
    """Return inside the environment; outside it, make it ready and replace this process."""
    if Path(sys.prefix).resolve() != FOLDER or not _is_ready():
        sys.stdout.flush()
        os.execv(python(), [python(), *sys.argv])


def python() -> str:
    """The interpreter of the environment, made ready."""
    with _lock():
        if not _is_ready():
            _install()
    return str(PYTHON)


def say(text: str) -> None:
    """Progress goes to stderr: stdout belongs to the script's result."""
    print(text, file=sys.stderr, flush=True)


def _install() -> None:
    say("installing into " + str(FOLDER) + " (once, about a minute)")
    if not _runs(str(PYTHON)):
        shutil.rmtree(str(FOLDER), ignore_errors=True)
        made = subprocess.run([_base_python(), "-m", "venv", str(FOLDER)], stdout=2)
        if made.returncode != 0:
            sys.exit("no virtual environment could be made: this Python needs its modules venv and ensurepip")
    if STAMP.exists():
        STAMP.unlink()
    _pip("--require-hashes", "-r", str(ROOT / "requirements.lock"))
    # The build backend is in the lock: an isolated build would fetch another one, unchecked.
    _pip("--no-deps", "--no-build-isolation", "-e", str(ROOT))
    STAMP.write_text(_digest())


def _pip(*arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    environment = dict(os.environ, PIP_ROOT_USER_ACTION="ignore")
    if subprocess.run(command, env=environment, stdout=2, cwd=str(ROOT)).returncode != 0:
        sys.exit("installing failed: " + " ".join(command))


def _is_ready() -> bool:
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == _digest()


def _digest() -> str:
    """What an installation depends on."""
    facts = hashlib.sha256()
    for name in ("pyproject.toml", "requirements.lock"):
        facts.update((ROOT / name).read_bytes())
    return facts.hexdigest()


class _lock:
    """Held by one installing script at a time; ends with the process."""

    def __enter__(self) -> None:
        self._folder = os.open(str(ROOT), os.O_RDONLY)
        fcntl.flock(self._folder, fcntl.LOCK_EX)

    def __exit__(self, *exc: object) -> None:
        os.close(self._folder)


def _base_python() -> str:
    """A Python that is new enough: this one, else one on the path."""
    if sys.version_info >= OLDEST:
        return getattr(sys, "_base_executable", sys.executable)
    for name in NEWER:
        found = shutil.which(name)
        if found and _runs(found, "import sys; sys.exit(sys.version_info < (3, 11))"):
            return found
    return sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0])


def _runs(python: str, code: str = "") -> bool:
    if not os.path.exists(python):
        return False
    return subprocess.run([python, "-c", code], stderr=subprocess.DEVNULL).returncode == 0
