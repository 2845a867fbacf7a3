"""The client's half of the command `maestoso`; the server's is in `maestoso_server`, which calls this one.

Exit status: 0 done, 1 a workflow that was waited for did not COMPLETE, 2 refused, 3 unreachable.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        from ._app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("cyclopts", "rich"):
            raise  # a module of our own: a bug
        print(f"{error.name} is not installed: pip install 'maestoso[cli]'", file=sys.stderr)
        return 1
    return run(list(sys.argv[1:] if arguments is None else arguments))
