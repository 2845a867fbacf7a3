"""Every setting of the server, in one table: the fields of `Config`.

A setting `grpc_address` is the flag `--grpc-address` and the variable `MAESTOSO_GRPC_ADDRESS`; a
flag wins over the variable, the variable over the default. The table in README.md is written from
here (`markdown_table`) and a test holds the two together. A field is either a choice that an
operator has to make or a limit with its reason; nothing here trades correctness for speed.
"""

from __future__ import annotations

import argparse
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

PREFIX = "MAESTOSO_"

MIB = 1024 * 1024


class ConfigError(ValueError):
    """A setting that cannot be used: which one, what was found, what is accepted."""


def _setting(default: Any, unit: str, reason: str, choices: tuple[str, ...] = ()) -> Any:
    """One row of the table. `unit` is empty for what has none; `reason` says what for, and why so."""
    return field(default=default, metadata={"unit": unit, "reason": reason, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one server process. Made by `parse`; tests make it directly."""

    # Where
    database_url: str = _setting(
        "", "", "Postgres 15 or newer, for `serve` and `migrate`; `dev` brings its own."
    )
    data: str = _setting(
        "",
        "",
        "Folder of `dev`'s Postgres. Empty: `/var/lib/maestoso` as root, else `maestoso` in the user's "
        "state folder.",
    )
    pg_bin: str = _setting(
        "", "", "Folder with `postgres` and `initdb` for `dev`. Empty: the wheel's, then the system's."
    )
    grpc_address: str = _setting(
        "127.0.0.1:8090", "HOST:PORT", "Where clients and workers connect; port 0 = any free one."
    )
    http_address: str = _setting(
        "127.0.0.1:8080", "HOST:PORT", "Where `/health`, `/ready` and `/metrics` are; port 0 = any free one."
    )
    advertise_address: str = _setting(
        "",
        "HOST:PORT",
        "The address workers are told for this node, where it is not the one it listens on.",
    )
    processes: int = _setting(
        1, "processes", "Server processes on this machine. Process 0 has the addresses above."
    )
    node_id: str = _setting("", "", "This node's name for people. Empty: the host's name and the process id.")

    # Who
    insecure: bool = _setting(False, "", "Let anonymous callers in on other addresses than loopback.")
    api_keys: str = _setting(
        "", "", "File of hashed API keys, one a line. Without it and without TLS, callers are anonymous."
    )
    tls_cert: str = _setting("", "", "PEM file of the server's certificate chain.")
    tls_key: str = _setting("", "", "PEM file of the server's key.")
    tls_client_ca: str = _setting("", "", "PEM file of the authority whose client certificates are required.")

    # What definitions may read
    secrets_dir: str = _setting(
        "",
        "",
        "Directory with a file for each secret (a mounted Kubernetes Secret); files in a folder named like a "
        "namespace are that namespace's. Variables MAESTOSO_SECRET_NAME (CONDUCTOR_SECRET_NAME) are secrets "
        "too, MAESTOSO_ENV_NAME (CONDUCTOR_ENV_NAME) what `${workflow.env.NAME}` reads.",
    )

    # How it runs
    log_level: str = _setting(
        "info",
        "",
        "Least level written; `debug` tells every event, never a payload.",
        ("debug", "info", "warning", "error"),
    )
    log_format: str = _setting("text", "", "`json` for machines, one object a line.", ("text", "json"))
    tracing: str = _setting(
        "off",
        "",
        "`otel` sends spans with OpenTelemetry (extra `otel`), set up by its own variables.",
        ("off", "otel"),
    )
    drain_ms: int = _setting(
        10_000,
        "ms",
        "A stopping server lets workers move and calls finish for so long. Over the fence of 4 s.",
    )

    # Postgres
    database_connections: int = _setting(
        10, "connections", "Pool of each process. Commits need few: all events of the moment share one."
    )
    statement_cache: bool = _setting(
        True, "", "Keep prepared statements. Off behind PgBouncer in transaction mode, at some 100 us a call."
    )
    statement_timeout_ms: int = _setting(
        30_000, "ms", "A statement that takes longer is given up; the slowest sound one takes some 100 ms."
    )

    # Scripts
    evaluators: int = _setting(
        2,
        "processes",
        "Processes that run quick scripts (JavaScript, jq), beside one for slow ones and two for Python: "
        "a script never runs in the server.",
    )
    script_timeout_ms: int = _setting(
        4_000, "ms", "A script that computes longer fails its task; Conductor's default."
    )
    script_memory_bytes: int = _setting(
        64 * MIB, "bytes", "A script that needs more fails its task, and only that."
    )

    # HTTP tasks
    http_tasks: bool = _setting(
        True, "", "Do HTTP tasks in the server. Off: workers of yours that take `HTTP` do them."
    )
    http_task_concurrency: int = _setting(
        100, "requests", "Requests of HTTP tasks under way at once in a process; each may hold its answer."
    )
    http_task_max_bytes: int = _setting(
        4 * MIB, "bytes", "Largest answer that an HTTP task reads; more fails the attempt."
    )
    http_task_allow: str = _setting(
        "",
        "",
        "Hosts, addresses and networks, by commas, that HTTP tasks may reach although they are loopback, "
        "link-local or a cloud's metadata.",
    )

    # Limits on what is let in
    max_message_bytes: int = _setting(
        16 * MIB, "bytes", "Largest gRPC message and HTTP body: a full batch of results."
    )
    max_payload_bytes: int = _setting(
        4 * MIB, "bytes", "Largest input or output: it is read and written whole."
    )
    max_definition_bytes: int = _setting(
        1 * MIB, "bytes", "Largest definition: some 3,000 tasks; every start may compile it."
    )
    max_batch: int = _setting(
        1_000, "items", "Most items in one call: one commit's worth, with room for others beside it."
    )

    def __post_init__(self) -> None:
        for option in OPTIONS:
            _check(option, getattr(self, option.name))
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("--tls-cert and --tls-key: one is set without the other; give both")
        if self.tls_client_ca and not self.tls_cert:
            raise ConfigError("--tls-client-ca: needs --tls-cert and --tls-key")

    def environment(self) -> dict[str, str]:
        """The variables from which `parse` makes this very Config: how a parent tells its children."""
        return {option.variable: _to_text(getattr(self, option.name)) for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table, with its names spelt out."""

    name: str
    kind: type
    default: Any
    unit: str
    reason: str
    choices: tuple[str, ...]

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


def _options() -> tuple[Option, ...]:
    kinds = typing.get_type_hints(Config)
    return tuple(
        Option(
            row.name,
            kinds[row.name],
            row.default,
            row.metadata["unit"],
            row.metadata["reason"],
            row.metadata["choices"],
        )
        for row in fields(Config)
    )


OPTIONS = _options()


def parser(program: str, description: str, names: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """A parser with one flag for each setting in `names` (all when None), without defaults."""
    made = argparse.ArgumentParser(prog=program, description=description, allow_abbrev=False)
    for option in OPTIONS:
        if names is None or option.name in names:
            _add_flag(made, option)
    return made


def parse(
    flags: argparse.Namespace | None = None, environment: Mapping[str, str] | None = None, **fixed: Any
) -> Config:
    """The Config of these flags and variables. `fixed` wins over both.

    Raises ConfigError, which names the flag or variable, what was found and what is accepted."""
    variables = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for option in OPTIONS:
        given = getattr(flags, option.name, None)
        if given is None and variables.get(option.variable, "") != "":
            given = _from_text(option, option.variable, variables[option.variable])
        if given is not None:
            values[option.name] = given
    return Config(**values | fixed)


def split_address(text: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT`; an IPv6 host stands in brackets. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"{text!r} is not an address: write HOST:PORT, such as 127.0.0.1:8090")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def markdown_table() -> str:
    """The configuration table of README.md."""
    lines = ["| flag | variable | default | unit | what for |", "| --- | --- | --- | --- | --- |"]
    for option in OPTIONS:
        default = f"`{_to_text(option.default)}`" if option.default != "" else ""
        lines.append(
            f"| `{option.flag}` | `{option.variable}` | {default} | {option.unit} | {option.reason} |"
        )
    return "\n".join(lines) + "\n"


def _add_flag(made: argparse.ArgumentParser, option: Option) -> None:
    shown = f" (default {_to_text(option.default)})" if option.default != "" else ""
    text = (option.reason + shown).replace("%", "%%")
    if option.kind is bool:
        made.add_argument(
            option.flag, dest=option.name, action=argparse.BooleanOptionalAction, default=None, help=text
        )
        return
    kind = int if option.kind is int else str
    unit = option.unit.upper() or "TEXT"
    made.add_argument(option.flag, dest=option.name, type=kind, default=None, metavar=unit, help=text)


_ON = ("1", "on", "true", "yes")
_OFF = ("0", "off", "false", "no")


def _from_text(option: Option, named: str, text: str) -> Any:
    if option.kind is bool:
        if text.lower() in _ON + _OFF:
            return text.lower() in _ON
        raise ConfigError(f"{named}={text!r}: write `on` or `off`")
    if option.kind is int:
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"{named}={text!r}: write a whole number of {option.unit}") from None
    return text


def _to_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _check(option: Option, value: Any) -> None:
    if option.unit == "HOST:PORT" and value:
        split_address(value)
    if option.choices and value not in option.choices:
        raise ConfigError(f"{option.flag} {value!r}: write one of {', '.join(option.choices)}")
    if option.kind is int and value < 1:
        raise ConfigError(f"{option.flag} {value}: must be at least 1 {option.unit}")
