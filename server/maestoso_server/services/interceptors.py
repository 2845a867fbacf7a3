"""The gate: what happens to every call before and after its service sees it.

    metadata, peer ── authenticate ── authorize ── namespace exists ── audit ── service ── status

One interceptor for unary calls and streams. It puts the caller and the facts of the call where the
service and the log find them, turns refusals into a status with the trailer `maestoso-error-bin`,
and whatever else is raised into INTERNAL with an id that stands in the log beside the traceback.

Law: a method without a row in `actions.ACTIONS` is not served. HTTP asks the same questions through
`Gate.admit`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol
from urllib.parse import unquote

import grpc
import grpc.aio

from ..clock import Clock
from ..errors import (
    Internal,
    InvalidArgument,
    MaestosoError,
    PermissionDenied,
    Reason,
    Unauthenticated,
    Unavailable,
)
from ..store.database import Unavailable as StoreUnavailable
from ..telemetry import Metrics, NoTracer, Tracer, bind, bound
from .actions import ACTIONS, OPEN_SERVICES, Action
from .refusals import ERROR_TRAILER, trailer
from .security import Authenticator, Authorizer, Peer, Principal, is_loopback, set_caller

log = logging.getLogger(__name__)

DETAILS_MAX = 512
"""Characters of the status text; the trailer has more of the message."""
RETRY_AFTER_MS = 1_000
"""When to repeat a call that found no database: a restarted Postgres takes about so long."""
FIRST_FRAME_S = 10.0
"""How long a stream may stay open without saying what it is for."""

_STATUS = {code.value[0]: code for code in grpc.StatusCode}

Behaviour = Callable[[Any, Any], Any]


class NamespaceCheck(Protocol):
    """Knows which namespaces exist."""

    async def require(self, namespace: str) -> None:
        """Return if it exists; raises NotFound."""
        ...


class Trail(Protocol):
    """Keeps who did what."""

    async def record(self, *, namespace: str, principal: str, action: str, resource: str) -> None:
        """Keep one action that is about to happen."""
        ...


class Gate(grpc.aio.ServerInterceptor):
    """Lets calls through to the services, or refuses them."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        authorizer: Authorizer,
        namespaces: NamespaceCheck,
        audit: Trail,
        clock: Clock,
        metrics: Metrics,
        tracer: Tracer | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._namespaces = namespaces
        self._audit = audit
        self._clock = clock
        self._metrics = metrics
        self._tracer = NoTracer() if tracer is None else tracer
        self._guarded: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The method's handler behind the gate, made once; None = nobody offers the method."""
        method = handler_call_details.method
        guarded = self._guarded.get(method)
        if guarded is not None:
            return guarded
        handler = await continuation(handler_call_details)
        if handler is None or method.split("/")[1] in OPEN_SERVICES:
            return handler
        self._guarded[method] = guarded = self._guard(method, handler)
        return guarded

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer) -> Principal:
        """Who is asking. Raises Unauthenticated."""
        principal = await self._authenticator.authenticate(metadata, peer)
        self.check_unexpired(principal)
        return principal

    async def admit(self, principal: Principal, action: Action, request: Any) -> None:
        """Whether `principal` may do what `request` asks for. Raises PermissionDenied and NotFound."""
        namespace = action.namespace(request)
        for resource in action.resources(request):
            for name in (action.name, *action.also(request)):
                await self._authorizer.authorize(principal, namespace, name, resource)
        # After the rights: whoever has none in a namespace does not learn whether it exists.
        if not action.of_cluster and not action.creates:
            await self._namespaces.require(namespace)
        set_caller(principal)
        if action.audited:
            await self._audit.record(
                namespace=namespace,
                principal=principal.name,
                action=action.name,
                resource=", ".join(action.resources(request)),
            )

    def check_unexpired(self, principal: Principal) -> None:
        """Raises Unauthenticated once the principal's time is over."""
        if principal.expires_ms is not None and principal.expires_ms <= self._clock.now_ms():
            raise Unauthenticated(
                Reason.UNAUTHENTICATED, f"the credential of {principal.name!r} has expired; send a fresh one"
            )

    # -- handlers ----------------------------------------------------------------------------

    def _guard(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), **codec)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._watch(method, handler.unary_stream), **codec)
        assert handler.stream_stream, f"{method}: client streams are not offered"
        return grpc.stream_stream_rpc_method_handler(self._stream(method, handler.stream_stream), **codec)

    def _unary(self, method: str, behaviour: Behaviour) -> Behaviour:
        action = ACTIONS.get(method)
        observe = self._observer(method)

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            began = time.perf_counter()
            code = "OK"
            try:
                metadata = _metadata(context)
                principal = await self.authenticate(metadata, _peer(context))
                span = self._tracer.span(method, metadata.get("traceparent", ""))
                with bound(rpc=method, principal=principal.name), span:
                    await self.admit(principal, _known(action, method), request)
                    return await behaviour(request, context)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:
                refusal = as_refusal(error, method)
                code = refusal.code.name
                await _abort(context, refusal)
            finally:
                observe(code, time.perf_counter() - began)

        return call

    def _watch(self, method: str, behaviour: Behaviour) -> Behaviour:
        action = ACTIONS.get(method)

        async def watch(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                principal = await self.authenticate(_metadata(context), _peer(context))
                bind(rpc=method, principal=principal.name)
                await self.admit(principal, _known(action, method), request)
                async with aclosing(behaviour(request, context)) as answers:
                    async for answer in answers:
                        self.check_unexpired(principal)
                        yield answer
            except Exception as error:
                await _abort(context, as_refusal(error, method))

        return watch

    def _stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        action = ACTIONS.get(method)
        yields = inspect.isasyncgenfunction(behaviour)

        async def stream(
            requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            try:
                metadata, peer = _metadata(context), _peer(context)
                principal = await self.authenticate(metadata, peer)
                first = await _first(requests)
                bind(rpc=method, principal=principal.name)
                await self.admit(principal, _known(action, method), first)
                frames = self._frames(first, requests, principal, metadata, peer)
                if not yields:
                    await behaviour(frames, context)
                    return
                async with aclosing(behaviour(frames, context)) as answers:
                    async for answer in answers:
                        yield answer
            except Exception as error:
                await _abort(context, as_refusal(error, method))

        return stream

    async def _frames(
        self,
        first: Any,
        requests: AsyncIterator[Any],
        principal: Principal,
        metadata: Mapping[str, str],
        peer: Peer,
    ) -> AsyncIterator[Any]:
        """The frames of a stream while its caller's credential lives; a fresh one is taken in here."""
        yield first
        async for frame in requests:
            if frame.WhichOneof("frame") == "auth_refresh":
                fresh = {**metadata, "authorization": frame.auth_refresh.authorization}
                principal = await self._renew(principal, fresh, peer)
                continue
            self.check_unexpired(principal)
            yield frame

    async def _renew(self, principal: Principal, metadata: Mapping[str, str], peer: Peer) -> Principal:
        fresh = await self.authenticate(metadata, peer)
        if fresh.name != principal.name:
            raise PermissionDenied(
                Reason.PERMISSION_DENIED, f"the stream is {principal.name!r}'s; the new credential is not"
            )
        return fresh

    def _observer(self, method: str) -> Callable[[str, float], None]:
        """Takes (code, seconds) of each call of a method. Children are kept: labels cost a lookup."""
        children: dict[str, Any] = {}

        def observe(code: str, seconds: float) -> None:
            child = children.get(code)
            if child is None:
                child = children[code] = self._metrics.rpc_seconds.labels(method, code)
            child.observe(seconds)

        return observe


def as_refusal(error: Exception, method: str) -> MaestosoError:
    """What the caller is told about `error`: itself, or INTERNAL with the id under which it is logged."""
    if isinstance(error, MaestosoError):
        return error
    if isinstance(error, StoreUnavailable):
        log.warning("call without a database", extra={"rpc": method, "cause": str(error)})
        return Unavailable(
            Reason.STORE_UNAVAILABLE, "the database cannot be reached", retry_after_ms=RETRY_AFTER_MS
        )
    error_id = uuid.uuid4().hex[:12]
    log.error("call failed", exc_info=error, extra={"error_id": error_id, "rpc": method})
    return Internal(Reason.INTERNAL, f"internal error {error_id}")


async def _abort(context: grpc.aio.ServicerContext[Any, Any], refusal: MaestosoError) -> None:
    """End the call with the refusal's code. Always raises."""
    context.set_trailing_metadata(((ERROR_TRAILER, trailer(refusal)),))
    await context.abort(_STATUS[refusal.code], refusal.message[:DETAILS_MAX])


def _known(action: Action | None, method: str) -> Action:
    if action is None:
        raise PermissionDenied(Reason.PERMISSION_DENIED, f"{method} is not in the table of actions")
    return action


async def _first(requests: AsyncIterator[Any]) -> Any:
    """The first frame, which names the namespace."""
    try:
        async with asyncio.timeout(FIRST_FRAME_S):
            return await anext(requests)
    except TimeoutError:
        found = f"no frame within {FIRST_FRAME_S:.0f} s"
    except StopAsyncIteration:
        found = "the stream was closed without a frame"
    raise InvalidArgument(Reason.BAD_FRAME, f"{found}; send Hello first")


def _metadata(context: grpc.aio.ServicerContext[Any, Any]) -> dict[str, str]:
    """The call's metadata; binary values are nobody's credential."""
    pairs = context.invocation_metadata() or ()
    return {name: value for name, value in pairs if isinstance(value, str)}


def _peer(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    address = context.peer()
    kind, _, rest = unquote(address).partition(":")
    loopback = kind == "unix" or is_loopback(rest.rpartition(":")[0])
    return Peer(address=address, loopback=loopback, identities=_identities(context))


def _identities(context: grpc.aio.ServicerContext[Any, Any]) -> tuple[str, ...]:
    facts = context.auth_context()
    names = [*facts.get("x509_subject_alternative_name", ()), *facts.get("x509_common_name", ())]
    return tuple(name.decode() for name in names)
