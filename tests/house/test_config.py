"""The one table of settings: flags, variables, defaults, refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from maestoso_server.config import (
    OPTIONS,
    Config,
    ConfigError,
    join_address,
    parse,
    parser,
    split_address,
)

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "maestoso_server"


def test_flag_wins_over_variable_and_variable_over_default() -> None:
    flags = parser("maestoso serve", "").parse_args(["--grpc-address", "127.0.0.1:1"])
    variables = {"MAESTOSO_GRPC_ADDRESS": "127.0.0.1:2", "MAESTOSO_HTTP_ADDRESS": "127.0.0.1:3"}

    config = parse(flags, variables)

    assert (config.grpc_address, config.http_address, config.processes) == ("127.0.0.1:1", "127.0.0.1:3", 1)


def test_environment_tells_a_child_the_very_same_settings() -> None:
    config = Config(
        database_url="postgresql://x/y?host=%2Ftmp", insecure=True, processes=3, tls_cert="a", tls_key="b"
    )

    assert parse(environment=config.environment()) == config


@pytest.mark.parametrize(("text", "value"), [("off", False), ("FALSE", False), ("on", True), ("1", True)])
def test_switch_is_read_from_a_variable(text: str, value: bool) -> None:
    assert parse(environment={"MAESTOSO_INSECURE": text}).insecure is value


def test_switch_has_a_flag_either_way() -> None:
    made = parser("maestoso serve", "")

    assert parse(made.parse_args(["--no-statement-cache"]), {}).statement_cache is False
    assert parse(made.parse_args(["--insecure"]), {}).insecure is True


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"MAESTOSO_INSECURE": "perhaps"}, "MAESTOSO_INSECURE='perhaps': write `on` or `off`"),
        ({"MAESTOSO_PROCESSES": "two"}, "MAESTOSO_PROCESSES='two': write a whole number of processes"),
        ({"MAESTOSO_PROCESSES": "0"}, "--processes 0: must be at least 1 processes"),
        ({"MAESTOSO_GRPC_ADDRESS": "here"}, "'here' is not an address: write HOST:PORT"),
        ({"MAESTOSO_GRPC_ADDRESS": "h:65536"}, "'h:65536' is not an address"),
        ({"MAESTOSO_LOG_FORMAT": "xml"}, "--log-format 'xml': write one of text, json"),
        ({"MAESTOSO_TLS_CERT": "c.pem"}, "one is set without the other"),
        ({"MAESTOSO_TLS_CLIENT_CA": "ca.pem"}, "needs --tls-cert and --tls-key"),
    ],
)
def test_setting_that_cannot_be_used_is_refused_by_name(variables: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse(environment=variables)


@pytest.mark.parametrize(
    ("text", "parts"),
    [("127.0.0.1:8090", ("127.0.0.1", 8090)), ("[::1]:0", ("::1", 0)), ("a.b:1", ("a.b", 1))],
)
def test_address_is_taken_apart_and_put_together(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts
    assert join_address(*parts) == text


def test_every_setting_says_what_for() -> None:
    for option in OPTIONS:
        assert option.reason.endswith("."), option.name
        assert (option.kind is int) <= bool(option.unit), option.name


def test_every_setting_is_honoured_somewhere() -> None:
    code = "\n".join(path.read_text() for path in SERVER.rglob("*.py") if path.name != "config.py")
    unread = [option.name for option in OPTIONS if not re.search(rf"\b\w*config\.{option.name}\b", code)]

    assert unread == []
