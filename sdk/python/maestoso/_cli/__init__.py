"""The command `maestoso`. The client's commands are here, the server's in `maestoso_server`.

Exit status: 0 done, 1 a workflow that was waited for did not COMPLETE, 2 refused, 3 unreachable.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

SERVER_COMMANDS = ("dev", "serve", "migrate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in SERVER_COMMANDS:
        return _serve(arguments)
    try:
        from ._app import run
    except ModuleNotFoundError as error:
        return _not_installed(error, "cli", ("cyclopts", "rich"))
    return run(arguments)


def _serve(arguments: list[str]) -> int:
    try:
        from maestoso_server._main import main as serve
    except ModuleNotFoundError as error:
        return _not_installed(error, "server", None)
    return serve(arguments)


def _not_installed(error: ModuleNotFoundError, extra: str, packages: tuple[str, ...] | None) -> int:
    """Name the extra to install; a module of our own that is missing is a bug and is raised."""
    name = (error.name or "").partition(".")[0]
    if name == "maestoso" or (packages is not None and name not in packages):
        raise error
    print(f"{error.name} is not installed: pip install 'maestoso[{extra}]'", file=sys.stderr)
    return 1
