"""How a server is reached: address, credentials, limits of the connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

MESSAGE_BYTES_MAX = 16 * 1024 * 1024

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A dead path under an open call is noticed in under a minute even where nothing is sent.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A new channel is a new connection: a worker leaves one that has fallen silent that way.
    ("grpc.use_local_subchannel_pool", 1),
    # Until gRPC's own back-off is over every call fails at once; ours is the one that counts.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # In gRPC this is the time that one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    # Each Client and Worker has connections of its own: one stuck connection blocks one of them.
    ("grpc.use_local_subchannel_pool", 1),
    # Repeats are decided by us, call by call.
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files of a TLS connection; all are read when the connection is made.

    `ca`: who signed the server's certificate, None for the system's authorities. `cert` and `key`:
    our own certificate for servers that ask for one. `server_name`: the name to expect in the
    server's certificate where it differs from the address.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate needs both cert and key")

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca),
            private_key=_read(self.key),
            certificate_chain=_read(self.cert),
        )


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).expanduser().read_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who we are: an API key, or any value of the `authorization` metadata. At most one of them.

    `authorization` may be a function: it is called for every call and stream, so that a token can
    change; the worker sends a changed one to its living streams.
    """

    api_key: str | None = None
    authorization: str | Callable[[], str] | None = None

    def __post_init__(self) -> None:
        if self.api_key is not None and self.authorization is not None:
            raise ValueError("give api_key or authorization, not both")

    def value(self) -> str | None:
        """The value of the `authorization` metadata; None = anonymous."""
        if self.api_key is not None:
            return f"Bearer {self.api_key}"
        return self.authorization() if callable(self.authorization) else self.authorization

    def metadata(self) -> list[tuple[str, str]]:
        """The metadata of one call."""
        value = self.value()
        return [] if value is None else [("authorization", value)]


def open_channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    """A channel to one address. Connects when it is first used."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    options: list[tuple[str, int | str]] = list(_OPTIONS)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.aio.secure_channel(address, tls.credentials(), options=options)
