"""Where secrets and environment variables for workflows come from. Nothing else of the process's
environment is readable by a definition (B31).

    MAESTOSO_SECRET_NAME, CONDUCTOR_SECRET_NAME   `${workflow.secrets.NAME}` of every namespace
    MAESTOSO_ENV_NAME, CONDUCTOR_ENV_NAME         `${workflow.env.NAME}`
    <secrets directory>/<namespace>/NAME          a secret of that namespace, before all others
    <secrets directory>/NAME                      a secret of every namespace

The directory is what Kubernetes mounts for a Secret: a file a secret, read again when it changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

SECRET_PREFIXES = ("MAESTOSO_SECRET_", "CONDUCTOR_SECRET_")
ENVIRONMENT_PREFIXES = ("MAESTOSO_ENV_", "CONDUCTOR_ENV_")

_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\Z")
"""Names that may be looked for as files: none that leads out of the directory."""


class Vault(Protocol):
    """Knows secrets. `read` never waits and is called for every task that uses one."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What `${workflow.env.NAME}` reads."""
        ...

    def read(self, namespace: str, name: str) -> str | None:
        """The value of a secret; None where there is none of that name."""
        ...


class EmptyVault:
    """Knows none."""

    environment: Mapping[str, str] = MappingProxyType({})

    def read(self, namespace: str, name: str) -> str | None:
        return None


class ProcessVault:
    """Secrets of this process: from files of a directory, else from prefixed variables."""

    def __init__(self, variables: Mapping[str, str], directory: str = "") -> None:
        self.environment: Mapping[str, str] = _prefixed(variables, ENVIRONMENT_PREFIXES)
        self._variables = _prefixed(variables, SECRET_PREFIXES)
        self._directory = Path(directory) if directory else None
        self._files: dict[Path, tuple[int, str]] = {}

    def read(self, namespace: str, name: str) -> str | None:
        if self._directory is not None and _FILE_NAME.match(name):
            if _FILE_NAME.match(namespace):
                found = self._file(self._directory / namespace / name)
                if found is not None:
                    return found
            found = self._file(self._directory / name)
            if found is not None:
                return found
        return self._variables.get(name)

    def _file(self, path: Path) -> str | None:
        """A file's text without its last line end; kept until the file changes."""
        try:
            changed = os.stat(path).st_mtime_ns
            known = self._files.get(path)
            if known is None or known[0] != changed:
                text = path.read_text(encoding="utf-8")
                known = self._files[path] = changed, text.removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError):
            return None
        return known[1]


def _prefixed(variables: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """The variables with one of these prefixes, by the rest of their names; an earlier prefix wins."""
    found: dict[str, str] = {}
    for prefix in reversed(prefixes):
        found.update(
            (name.removeprefix(prefix), value) for name, value in variables.items() if name.startswith(prefix)
        )
    return found
