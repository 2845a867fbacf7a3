"""The HTTP port: whether the process lives, whether it serves, and what it measures.

`/health` and `/ready` answer everybody, since they tell nothing of anybody's; everything else goes
through the same gate as gRPC and is refused in the same words.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..errors import MaestosoError
from ..services.actions import METRICS
from ..services.interceptors import Gate, as_refusal
from ..services.refusals import refusal
from ..services.security import Peer, is_loopback
from ..store.database import Unavailable
from ..telemetry import Metrics, QueueDepth

log = logging.getLogger(__name__)

IDENTITIES = "maestoso.identities"
"""Where `http.py` puts the names of a verified client certificate in the ASGI scope."""


def make_app(
    *,
    gate: Gate,
    metrics: Metrics,
    unready: Callable[[], str | None],
    queues: Callable[[], Awaitable[Iterable[QueueDepth]]],
) -> Starlette:
    """The application. `unready` says why this node does not serve now, None = it does; `queues`
    reads the depths of all queues and may raise Unavailable."""

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(request: Request) -> Response:
        reason = unready()
        return PlainTextResponse(f"{reason or 'ready'}\n", status_code=503 if reason else 200)

    async def measured(request: Request) -> Response:
        principal = await gate.authenticate(dict(request.headers), peer_of(request))
        await gate.admit(principal, METRICS, request)
        try:
            depths = list(await queues())
        except Unavailable:
            depths = []  # the database's own numbers are missing; the process's are wanted all the more
        return Response(metrics.render(depths), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/ready", ready, methods=["GET"]),
            Route("/metrics", measured, methods=["GET"]),
        ],
        exception_handlers={MaestosoError: refuse, Exception: refuse},
    )


async def refuse(request: Request, error: Exception) -> Response:
    """The refusal as HTTP has it: status by the table of reasons, body `maestoso.error.v1.Error`."""
    known = as_refusal(error, f"{request.method} {request.url.path}")
    body: dict[str, Any] = json_format.MessageToDict(refusal(known))
    return JSONResponse(body, status_code=known.rule.http)


def peer_of(request: Request) -> Peer:
    """The other end of an HTTP connection."""
    host = request.client.host if request.client else ""
    return Peer(address=host, loopback=is_loopback(host), identities=request.scope.get(IDENTITIES, ()))
