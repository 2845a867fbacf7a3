"""Who is asking, and whether they may: the two questions put to every call, on gRPC and on HTTP.

`authenticate(metadata, peer)` answers the first with a `Principal`, `authorize(principal, namespace,
action, resource)` the second by raising or not. Both are protocols: another way of knowing callers
(tokens of an identity provider, a policy server) is another class given to the composition root.
Shipped are anonymous callers on loopback, static API keys kept as digests, and client certificates.

Law: nothing here keeps a secret in memory or in a log, and a wrong credential is never taken for an
absent one.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import grpc

from ..config import Config, ConfigError
from ..errors import PermissionDenied, Reason, Unauthenticated

ALL = "*"
EVERY_NAMESPACE = ALL
"""The namespace of actions on the cluster itself: only a grant of all namespaces covers it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who may call. `name` goes to `createdBy` and `audit`.

    `namespaces` are names or `*`; `actions` are names such as `workflow:start` or patterns such as
    `workflow:*`, `*:read` and `*`. `expires_ms` ends it, on living streams too; None = never."""

    name: str
    namespaces: tuple[str, ...] = (ALL,)
    actions: tuple[str, ...] = (ALL,)
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The other end of a connection.

    `identities` are the names in the client certificate that TLS has verified, the alternative names
    first, then the common name; empty without one."""

    address: str
    loopback: bool
    identities: tuple[str, ...] = ()


class Authenticator(Protocol):
    """Finds out who is asking."""

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer) -> Principal:
        """The principal of a call with this metadata (lower-case names; HTTP headers alike).

        Raises NoCredential when there is nothing of its kind to judge, Unauthenticated when there is
        and it is wrong."""
        ...


class Authorizer(Protocol):
    """Decides whether a principal may do something."""

    async def authorize(self, principal: Principal, namespace: str, action: str, resource: str) -> None:
        """Return if it may, raise PermissionDenied if not.

        `resource` is the id or name that the request is about, empty where it names none or many."""
        ...


class NoCredential(Unauthenticated):
    """No credential of the kind that this authenticator judges."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.UNAUTHENTICATED, message)


_caller: ContextVar[Principal] = ContextVar("maestoso_caller")


def caller() -> Principal:
    """The principal of the call being served. Only inside a call that passed the gate."""
    return _caller.get()


def set_caller(principal: Principal) -> None:
    """Make `principal` the caller for the rest of this call. Only the gate does this."""
    _caller.set(principal)


# --- authenticators -----------------------------------------------------------------------------


class Anonymous:
    """Lets callers on this machine in without a credential; all callers where told so."""

    PRINCIPAL = Principal(name="anonymous")

    def __init__(self, *, everywhere: bool = False) -> None:
        self._everywhere = everywhere

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer) -> Principal:
        if self._everywhere or peer.loopback:
            return self.PRINCIPAL
        raise NoCredential(
            f"anonymous call from {peer.address}: only callers on the server's own machine may be anonymous"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is kept of an API key. The secret itself is not."""

    key_id: str
    digest: bytes
    principal: Principal


class ApiKeys:
    """Static keys: `authorization: Bearer ID.SECRET`."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = {key.key_id: key for key in keys}

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer) -> Principal:
        given = metadata.get("authorization", "")
        if not given:
            raise NoCredential("no `authorization` metadata was sent: send `Bearer ID.SECRET`")
        scheme, _, token = given.partition(" ")
        key_id, dot, secret = token.strip().partition(".")
        if scheme.lower() != "bearer" or not dot:
            raise Unauthenticated(
                Reason.UNAUTHENTICATED, "the credential is not of the form `Bearer ID.SECRET`"
            )
        key = self._keys.get(key_id)
        # An unknown id costs the same comparison, so that time does not tell which ids exist.
        expected = key.digest if key else bytes(sha256().digest_size)
        if not hmac.compare_digest(digest(key_id, secret), expected) or key is None:
            raise Unauthenticated(Reason.UNAUTHENTICATED, "the API key is unknown or its secret is wrong")
        return key.principal


class Certificates:
    """Names the caller by its client certificate, which TLS has verified against our authority."""

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer) -> Principal:
        if not peer.identities:
            raise NoCredential("no client certificate was presented")
        return Principal(name=peer.identities[0])


class FirstOf:
    """Asks one authenticator after the other until one finds a credential of its kind."""

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        assert authenticators
        self._authenticators = tuple(authenticators)

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer) -> Principal:
        missing: list[str] = []
        for authenticator in self._authenticators:
            try:
                return await authenticator.authenticate(metadata, peer)
            except NoCredential as absent:
                missing.append(absent.message)
        raise NoCredential("; ".join(missing))


class Grants:
    """The authorizer that is shipped: a principal may do what its own grants say."""

    async def authorize(self, principal: Principal, namespace: str, action: str, resource: str) -> None:
        if not (ALL in principal.namespaces or namespace in principal.namespaces):
            where = "the cluster" if namespace == EVERY_NAMESPACE else f"namespace {namespace!r}"
            raise PermissionDenied(
                Reason.PERMISSION_DENIED, f"{principal.name!r} has no rights in {where}, asked for {action}"
            )
        if not any(covers(granted, action) for granted in principal.actions):
            raise PermissionDenied(Reason.PERMISSION_DENIED, f"{principal.name!r} may not do {action}")


def covers(granted: str, action: str) -> bool:
    """Whether a granted pattern (`*`, `workflow:*`, `*:read`, `workflow:read`) covers an action."""
    if granted == ALL:
        return True
    kinds = zip(granted.split(":"), action.split(":"), strict=False)
    return granted.count(":") == action.count(":") and all(have in (ALL, want) for have, want in kinds)


# --- keys ---------------------------------------------------------------------------------------

_LINE = re.compile(
    r"(?P<id>[A-Za-z0-9_-]{1,64})\s+(?P<digest>[0-9a-f]{64})\s+(?P<principal>\S{1,255})"
    r"\s+(?P<namespaces>\S+)\s+(?P<actions>\S+)"
)
_PATTERN = re.compile(r"\*|(\*|[a-z]+):(\*|[a-z]+)")


def digest(key_id: str, secret: str) -> bytes:
    """What is kept of a secret: HMAC-SHA-256 with the key's id, so that equal secrets look different.

    Secrets are 256 random bits (`make_key`), which nobody guesses: no slow hash is needed."""
    return hmac.new(key_id.encode(), secret.encode(), sha256).digest()


def make_key(
    key_id: str, principal: str, namespaces: Sequence[str] = (ALL,), actions: Sequence[str] = (ALL,)
) -> tuple[str, str]:
    """(credential for the caller, line for the server's file) of a new API key."""
    secret = secrets.token_urlsafe(32)
    line = f"{key_id} {digest(key_id, secret).hex()} {principal} {','.join(namespaces)} {','.join(actions)}"
    read_keys(line, "the new key")
    return f"{key_id}.{secret}", line


def read_keys(text: str, source: str) -> list[ApiKey]:
    """The keys of a file: `ID DIGEST PRINCIPAL NAMESPACES ACTIONS` a line, lists with commas, `#` for
    remarks. Raises ConfigError naming `source` and the line."""
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = _read_key(line.strip(), f"{source}, line {number}")
        if key.key_id in keys:
            raise ConfigError(f"{source}, line {number}: the id {key.key_id!r} stands there twice")
        keys[key.key_id] = key
    return list(keys.values())


def _read_key(line: str, place: str) -> ApiKey:
    match = _LINE.fullmatch(line)
    if not match:
        raise ConfigError(f"{place}: is not `ID DIGEST PRINCIPAL NAMESPACES ACTIONS`")
    actions = tuple(match["actions"].split(","))
    for action in actions:
        if not _PATTERN.fullmatch(action):
            raise ConfigError(f"{place}: {action!r} is not an action such as `workflow:start` or `*:read`")
    principal = Principal(
        name=match["principal"], namespaces=tuple(match["namespaces"].split(",")), actions=actions
    )
    return ApiKey(key_id=match["id"], digest=bytes.fromhex(match["digest"]), principal=principal)


# --- from the settings --------------------------------------------------------------------------


def authenticator(config: Config) -> Authenticator:
    """The authenticator that the settings ask for.

    API keys where there are any, client certificates where they are required; anonymous callers only
    where neither is configured. Raises ConfigError."""
    chosen: list[Authenticator] = []
    if config.api_keys:
        chosen.append(ApiKeys(read_keys(_read(config.api_keys, "--api-keys").decode(), config.api_keys)))
    if config.tls_client_ca:
        chosen.append(Certificates())
    return FirstOf(chosen) if chosen else Anonymous(everywhere=config.insecure)


def server_credentials(config: Config) -> grpc.ServerCredentials | None:
    """TLS as the settings ask for it; None = plain text. Raises ConfigError."""
    if not config.tls_cert:
        return None
    pair = (_read(config.tls_key, "--tls-key"), _read(config.tls_cert, "--tls-cert"))
    authority = _read(config.tls_client_ca, "--tls-client-ca") if config.tls_client_ca else None
    return grpc.ssl_server_credentials(
        [pair], root_certificates=authority, require_client_auth=authority is not None
    )


def _read(path: str, flag: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{flag}: cannot read {path}: {error.strerror}") from error


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
