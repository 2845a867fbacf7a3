"""Serves the HTTP application in our own event loop, with our own start and stop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..config import Config, join_address, split_address
from .app import IDENTITIES

BACKLOG = 128


class HttpServer:
    """One listening socket and whoever is connected to it."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._socket = _listen(config.http_address)
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=_WithIdentities,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, config.drain_ms // 1000),
                **_tls(config),
            )
        )
        self._serving: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT as it really is."""
        host, port = self._socket.getsockname()[:2]
        return join_address(host, port)

    def start(self) -> None:
        """Take connections: the socket has been listening since it was made."""
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self) -> None:
        """Answer what was asked and close."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._socket.close()


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business."""
        yield


class _WithIdentities(H11Protocol):
    """Tells the application whose client certificate TLS has verified."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if identities := _identities(transport.get_extra_info("peercert")):
            app = self.app

            async def with_identities(scope: Scope, receive: Receive, send: Send) -> None:
                scope[IDENTITIES] = identities
                await app(scope, receive, send)

            self.app = with_identities


def _identities(certificate: Any) -> tuple[str, ...]:
    """The names in a verified certificate: the alternative ones first, then the common name."""
    if not certificate:
        return ()
    alternative = [name for _, name in certificate.get("subjectAltName", ())]
    common = [
        value for group in certificate.get("subject", ()) for key, value in group if key == "commonName"
    ]
    return tuple(alternative + common)


def _tls(config: Config) -> dict[str, Any]:
    """TLS as on the gRPC port, but a client certificate is not demanded: health checks have none."""
    if not config.tls_cert:
        return {}
    settings: dict[str, Any] = {"ssl_certfile": config.tls_cert, "ssl_keyfile": config.tls_key}
    if config.tls_client_ca:
        settings |= {"ssl_ca_certs": config.tls_client_ca, "ssl_cert_reqs": ssl.CERT_OPTIONAL}
    return settings


def _listen(address: str) -> socket.socket:
    """A listening socket. Raises OSError, naming the address."""
    host, port = split_address(address)
    try:
        family, _, _, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(where, family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on http address {address}: {error.strerror}") from error
