"""Which server a command talks to, and what becomes of its refusals."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .. import _errors

if TYPE_CHECKING:
    from .._client import Client

REFUSED = 2
UNREACHABLE = 3


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Connection:
    """The options that every command has."""

    server: Annotated[str, Parameter(env_var="MAESTOSO_SERVER")] = "127.0.0.1:8090"
    """HOST:PORT of any node."""
    namespace: Annotated[str, Parameter(env_var="MAESTOSO_NAMESPACE")] = "default"
    """The namespace."""
    api_key: Annotated[str | None, Parameter(env_var="MAESTOSO_API_KEY")] = None
    """The API key, if the server asks for one."""
    tls: Annotated[bool, Parameter(env_var="MAESTOSO_TLS", negative="")] = False
    """Use TLS with the system's authorities; any of the other TLS options implies it."""
    tls_ca: Annotated[Path | None, Parameter(env_var="MAESTOSO_TLS_CA")] = None
    """PEM file of the authority that signed the server's certificate."""
    tls_cert: Annotated[Path | None, Parameter(env_var="MAESTOSO_TLS_CERT")] = None
    """PEM file of our own certificate."""
    tls_key: Annotated[Path | None, Parameter(env_var="MAESTOSO_TLS_KEY")] = None
    """PEM file of its key."""
    tls_server_name: Annotated[str | None, Parameter(env_var="MAESTOSO_TLS_SERVER_NAME")] = None
    """The name in the server's certificate, where it differs from the address."""
    timeout: Annotated[float, Parameter(env_var="MAESTOSO_TIMEOUT")] = 30.0
    """Seconds that one call may take."""
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False
    """Print JSON for programs instead of text for people."""

    def client(self) -> Client:
        """A client; it does not repeat: a person sees at once that nobody is there."""
        from .._channel import Tls
        from .._client import Client

        files = (self.tls_ca, self.tls_cert, self.tls_key, self.tls_server_name)
        tls = None
        if self.tls or any(files):
            tls = Tls(ca=self.tls_ca, cert=self.tls_cert, key=self.tls_key, server_name=self.tls_server_name)
        return Client(
            self.server,
            namespace=self.namespace,
            api_key=self.api_key,
            tls=tls,
            timeout=self.timeout,
            patience=0.0,
        )

    def run(self, act: Callable[[Client], Awaitable[int | None]]) -> int:
        """Act with a client; returns the exit status."""
        import asyncio  # here, so that help does not wait for it

        try:
            return asyncio.run(self._run(act)) or 0
        except (_errors.Unavailable, _errors.DeadlineExceeded) as error:
            complain(f"{self.server} cannot be reached: {error}")
            return UNREACHABLE
        except _errors.ServerError as error:
            refuse(error)
            return REFUSED
        except (ValueError, OSError) as error:
            complain(str(error))
            return REFUSED
        except KeyboardInterrupt:
            return 130

    async def _run(self, act: Callable[[Client], Awaitable[int | None]]) -> int | None:
        async with self.client() as client:
            return await act(client)


def complain(text: str) -> None:
    """Say something on stderr."""
    print(text, file=sys.stderr)


def refuse(error: _errors.ServerError) -> None:
    """Say why the server refused, fault by fault."""
    complain(f"refused: {error}")
    for violation in error.violations:
        complain(f"  {violation.path}: {violation.message}" if violation.path else f"  {violation.message}")
    if error.remedy:
        complain(error.remedy)
