"""Who is let in: credentials judged, rights granted and refused."""

from __future__ import annotations

import pytest

from maestoso_server.config import Config, ConfigError
from maestoso_server.errors import PermissionDenied, Unauthenticated
from maestoso_server.services.security import (
    EVERY_NAMESPACE,
    Anonymous,
    ApiKeys,
    Certificates,
    FirstOf,
    Grants,
    Peer,
    Principal,
    authenticator,
    covers,
    is_loopback,
    make_key,
    read_keys,
)

HERE = Peer(address="ipv4:127.0.0.1:40000", loopback=True)
AWAY = Peer(address="ipv4:10.0.0.7:40000", loopback=False)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_an_anonymous_caller_on_this_machine_is_let_in() -> None:
    principal = await Anonymous().authenticate({}, HERE)

    assert principal.name == "anonymous"


async def test_an_anonymous_caller_from_elsewhere_is_refused() -> None:
    with pytest.raises(Unauthenticated):
        await Anonymous().authenticate({}, AWAY)


async def test_insecure_lets_anonymous_callers_in_from_everywhere() -> None:
    principal = await authenticator(Config(insecure=True)).authenticate({}, AWAY)

    assert principal.name == "anonymous"


async def test_an_api_key_names_its_principal_with_its_rights() -> None:
    token, line = make_key("ci", "deploy-bot", ["staging"], ["definition:*"])

    principal = await ApiKeys(read_keys(line, "keys")).authenticate(bearer(token), AWAY)

    assert principal == Principal(name="deploy-bot", namespaces=("staging",), actions=("definition:*",))


@pytest.mark.parametrize(
    "credential",
    ["Bearer ci.wrong", "Bearer other.secret", "Bearer nodot", "Basic Y2k6c2VjcmV0", "Bearer ", "ci.secret"],
)
async def test_a_wrong_credential_is_refused_and_never_taken_for_an_absent_one(credential: str) -> None:
    _, line = make_key("ci", "deploy-bot")
    chain = FirstOf([ApiKeys(read_keys(line, "keys")), Anonymous()])

    with pytest.raises(Unauthenticated):
        await chain.authenticate({"authorization": credential}, HERE)


async def test_without_a_key_the_next_kind_of_credential_is_judged() -> None:
    _, line = make_key("ci", "deploy-bot")
    chain = FirstOf([ApiKeys(read_keys(line, "keys")), Certificates()])
    peer = Peer(address=AWAY.address, loopback=False, identities=("worker-7.example", "worker-7"))

    principal = await chain.authenticate({}, peer)

    assert principal.name == "worker-7.example"


async def test_with_no_credential_of_any_kind_the_refusal_names_them_all() -> None:
    _, line = make_key("ci", "deploy-bot")
    chain = FirstOf([ApiKeys(read_keys(line, "keys")), Certificates()])

    with pytest.raises(Unauthenticated, match=r"authorization.*certificate"):
        await chain.authenticate({}, HERE)


async def test_configured_keys_shut_anonymous_callers_out(tmp_path: object) -> None:
    token, line = make_key("ci", "deploy-bot")
    file = f"{tmp_path}/keys"
    with open(file, "w") as out:
        out.write(f"# who may call\n\n{line}\n")
    chosen = authenticator(Config(api_keys=file))

    assert (await chosen.authenticate(bearer(token), AWAY)).name == "deploy-bot"
    with pytest.raises(Unauthenticated):
        await chosen.authenticate({}, HERE)


def test_the_secret_is_not_in_the_servers_file() -> None:
    token, line = make_key("ci", "deploy-bot")

    assert token.partition(".")[2] not in line


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ci nothex bot * *", "line 1"),
        (f"ci {'0' * 64} bot *", "line 1"),
        (f"# remark\nci {'0' * 64} bot * workflow", "line 2: 'workflow'"),
        (f"ci {'0' * 64} bot * *\nci {'1' * 64} bot * *", "line 2: the id 'ci'"),
    ],
)
def test_a_bad_line_of_the_key_file_is_named(text: str, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        read_keys(text, "keys")


def test_an_absent_key_file_is_named() -> None:
    with pytest.raises(ConfigError, match="--api-keys: cannot read"):
        authenticator(Config(api_keys="/nowhere/keys"))


@pytest.mark.parametrize("granted", ["*", "workflow:*", "*:read", "workflow:read", "*:*"])
def test_a_pattern_covers_its_actions(granted: str) -> None:
    assert covers(granted, "workflow:read")


@pytest.mark.parametrize(
    "granted", ["workflow:start", "task:*", "*:start", "workflow", "workflow:read:more", ""]
)
def test_a_pattern_covers_no_others(granted: str) -> None:
    assert not covers(granted, "workflow:read")


async def test_a_right_in_the_namespace_is_granted() -> None:
    principal = Principal(name="bot", namespaces=("a",), actions=("workflow:*",))

    await Grants().authorize(principal, "a", "workflow:start", "order")


@pytest.mark.parametrize(
    ("namespace", "action"),
    [("b", "workflow:start"), ("a", "definition:write"), (EVERY_NAMESPACE, "workflow:start")],
)
async def test_other_namespaces_other_actions_and_the_cluster_are_refused(
    namespace: str, action: str
) -> None:
    principal = Principal(name="bot", namespaces=("a",), actions=("workflow:*",))

    with pytest.raises(PermissionDenied):
        await Grants().authorize(principal, namespace, action, "")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "::ffff:127.0.0.1", "localhost"])
def test_loopback_addresses_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "localhost.example", ""])
def test_other_addresses_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
