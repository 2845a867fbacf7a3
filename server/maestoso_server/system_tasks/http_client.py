"""Sends the requests of HTTP tasks: in the server's event loop, no thread a request, never in a decision.

A connection carries one request: a kept one may be closed by its server at the moment at which the next
request is written, and a POST cannot be repeated then.
"""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
from yarl import URL

from .egress import Egress
from .http_request import HttpAnswer, HttpRequest, Unusable

TOTAL_S = 600.0
"""However slowly an answer drips in, it is over then."""
CHUNK = 64 * 1024


class TooLarge(Exception):
    """An answer beyond the limit; the rest of it was not read."""


class HttpClient:
    """One for the server. `close` it."""

    def __init__(self, egress: Egress, max_bytes: int) -> None:
        """`max_bytes` of an answer's body, unpacked."""
        self._egress = egress
        self._max_bytes = max_bytes
        self._guarded = _session(self._checked_socket)
        self._trusted = _session(None)

    async def close(self) -> None:
        await self._guarded.close()
        await self._trusted.close()

    async def send(self, request: HttpRequest) -> HttpAnswer:
        """Raises Unusable, Blocked, TooLarge, TimeoutError and aiohttp.ClientError."""
        url = _url(request.uri)
        session = self._trusted if self._egress.trusts(url.raw_host or "") else self._guarded
        timeout = aiohttp.ClientTimeout(
            total=TOTAL_S, connect=request.connect_ms / 1000, sock_read=request.read_ms / 1000
        )
        async with session.request(
            request.method,
            url,
            headers=dict(request.headers),
            data=request.body,
            timeout=timeout,
            allow_redirects=False,
        ) as response:
            return HttpAnswer(
                status=response.status,
                reason_phrase=response.reason or "",
                headers=[
                    (name.decode(), value.decode(errors="replace")) for name, value in response.raw_headers
                ],
                body=await self._read(response),
                charset=response.charset,
            )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(CHUNK):
            body += chunk
            if len(body) > self._max_bytes:
                response.close()
                raise TooLarge(
                    f"the answer ({response.status}) has more than {self._max_bytes:,} bytes, the limit that "
                    "--http-task-max-bytes sets"
                )
        return bytes(body)

    def _checked_socket(self, info: Any) -> socket.socket:
        """Called with every address just before it is connected to, literal or looked up."""
        family, kind, protocol, _, address = info
        self._egress.check(str(address[0]))
        return socket.socket(family, kind, protocol)


def _session(socket_factory: Any) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=0, force_close=True, use_dns_cache=False, socket_factory=socket_factory
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        requote_redirect_url=False,
        skip_auto_headers=("Content-Type",),
    )


def _url(uri: str) -> URL:
    """The URI as given; only what no request line can carry is percent-encoded."""
    try:
        url = URL(uri, encoded=uri.isascii())
        if not url.host:
            raise ValueError("it has no host")
        url.port  # noqa: B018 - reading it is the check
    except ValueError as error:
        raise Unusable(f"uri cannot be used: {error}") from None
    return url
