"""HTTP tasks against a server of the test's own, from the definition to the output."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from maestoso.task.v1.task_pb2 import (
    TASK_STATUS_FAILED,
    TASK_STATUS_FAILED_WITH_TERMINAL_ERROR,
    TASK_STATUS_SCHEDULED,
    TaskResult,
)
from maestoso.workflow.v1 import workflow_pb2
from maestoso_server.clock import SystemClock
from maestoso_server.config import Config
from maestoso_server.system_tasks.egress import Blocked, Egress
from maestoso_server.system_tasks.http_request import HttpRequest, Unusable, read_request
from servers import serving
from worker_kit import Caller, calling, eventually

SECRET = "s3cr3t-key-17"


@dataclass
class Site:
    """Answers every request with what it is told to, and keeps what came."""

    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    seen: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    """Of the first requests; then `answer`."""
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""

    def says(self, status: str, body: bytes = b"", *headers: str) -> bytes:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if b"ength:" in x), 0)
            self.seen.append(head + await reader.readexactly(length))
            self.came.set()
            await self.hold.wait()
            writer.write(self.answers.pop(0) if self.answers else self.answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    made.hold.set()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    made.hold.set()
    server.close()


@pytest.fixture
async def caller(database_url: str, tmp_path: Path) -> AsyncIterator[Caller]:
    (tmp_path / "KEY").write_text(SECRET)
    config = Config(
        database_url=database_url,
        grpc_address="127.0.0.1:0",
        http_address="127.0.0.1:0",
        http_task_allow="127.0.0.0/8",
        http_task_max_bytes=1000,
        secrets_dir=str(tmp_path),
    )
    async with serving(config, SystemClock()) as server, calling(server.grpc_address) as found:
        yield found


def flow(inputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    node = {"name": "call", "taskReferenceName": "call", "type": "HTTP", "inputParameters": inputs, **fields}
    return {"name": "flow", "version": 1, "schemaVersion": 2, "tasks": [node]}


async def ended(caller: Caller, inputs: dict[str, Any], **fields: Any) -> workflow_pb2.Workflow:
    await caller.register(flow(inputs, **fields))
    return await end(caller, await caller.start("flow"))


async def end(caller: Caller, workflow_id: str) -> workflow_pb2.Workflow:
    async def over() -> bool:
        return (await caller.get(workflow_id)).status != workflow_pb2.WORKFLOW_STATUS_RUNNING

    await eventually(over, True)
    return await caller.get(workflow_id)


def response(workflow: workflow_pb2.Workflow) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(workflow.tasks[-1].output)["response"]
    return found


@pytest.mark.covers("K29", "B35")
@pytest.mark.parametrize("nested", [True, False])
async def test_the_request_is_sent_as_given_and_the_answer_keeps_its_types(
    caller: Caller, site: Site, nested: bool
) -> None:
    body = b'{"big": 123456789012345678901, "whole": 1.0, "yes": true, "no": null, "list": [1]}'
    site.answer = site.says("201 Created", body, "X-A: 1", "X-A: 2", "Content-Type: text/plain")
    request = {
        "uri": f"{site.address}/a%2Fb/{{x}}?q=%7E&r=a+b",
        "method": "POST",
        "headers": {"X-Number": 7, "X-None": None},
        "body": {"n": 12345678901234567890, "f": 2.0},
    }

    workflow = await ended(caller, {"http_request": request} if nested else request)

    assert workflow.status == workflow_pb2.WORKFLOW_STATUS_COMPLETED
    sent = site.seen[0].decode()
    assert sent.startswith("POST /a%2Fb/{x}?q=%7E&r=a+b HTTP/1.1\r\n")
    assert "\r\nX-Number: 7\r\n" in sent and "X-None" not in sent
    assert "\r\nAccept: application/json\r\n" in sent and "\r\nContent-Type: application/json\r\n" in sent
    assert sent.endswith('\r\n\r\n{"n":12345678901234567890,"f":2.0}')
    found = response(workflow)
    assert (found["statusCode"], found["reasonPhrase"]) == (201, "Created")
    assert found["headers"]["X-A"] == ["1", "2"]
    assert json.dumps(found["body"]) == body.decode()


async def test_b35_a_body_that_is_no_object(caller: Caller, site: Site) -> None:
    bodies: dict[bytes, Any] = {
        b"": None,
        b"true": True,
        b'"a"': "a",
        b"plain": "plain",
        b"7": 7,
        b"{bad": "{bad",
    }
    for body, value in bodies.items():
        site.answer = site.says("200 OK", body)

        workflow = await ended(caller, {"uri": site.address, "method": "GET"})

        assert response(workflow)["body"] == value


@pytest.mark.covers("B35")
async def test_a_status_of_failure_fails_the_task_with_the_answer_in_its_output(
    caller: Caller, site: Site
) -> None:
    for status, final, task_status in (
        ("404 Not Found", False, TASK_STATUS_FAILED),
        ("404 Not Found", True, TASK_STATUS_FAILED_WITH_TERMINAL_ERROR),
        ("429 Too Many", True, TASK_STATUS_FAILED),
        ("503 Away", True, TASK_STATUS_FAILED),
    ):
        site.answer = site.says(status, b'{"why": "gone"}')
        inputs = {"uri": site.address, "method": "GET", "terminalClientErrors": final}

        workflow = await ended(caller, inputs)

        task = workflow.tasks[-1]
        assert workflow.status == workflow_pb2.WORKFLOW_STATUS_FAILED
        assert task.status == task_status
        assert status in task.reason and "gone" in task.reason
        assert response(workflow)["statusCode"] == int(status[:3])
        assert response(workflow)["body"] == {"why": "gone"}


async def test_a_redirect_is_not_followed(caller: Caller, site: Site) -> None:
    site.answer = site.says("302 Found", b"", f"Location: {site.address}/other")

    workflow = await ended(caller, {"uri": site.address, "method": "GET"})

    assert "redirects are not followed" in workflow.tasks[-1].reason
    assert len(site.seen) == 1


async def test_a_failure_is_repeated_by_the_policy(caller: Caller, site: Site) -> None:
    site.answers = [site.says("503 Away"), site.says("503 Away")]
    policy = {"name": "call", "retryCount": 2, "retryDelaySeconds": 0}
    await caller.register(flow({"uri": site.address, "method": "GET"}), policy)

    workflow = await end(caller, await caller.start("flow"))

    assert workflow.status == workflow_pb2.WORKFLOW_STATUS_COMPLETED
    assert [task.attempt for task in workflow.tasks] == [0, 1, 2]


async def test_an_answer_beyond_the_limit_fails_the_attempt(caller: Caller, site: Site) -> None:
    site.answer = site.says("200 OK", b"x" * 1001)

    workflow = await ended(caller, {"uri": site.address, "method": "GET"})

    assert "more than 1,000 bytes" in workflow.tasks[-1].reason


async def test_an_answer_that_does_not_come_in_time_fails_the_attempt(caller: Caller, site: Site) -> None:
    site.hold.clear()

    workflow = await ended(caller, {"uri": site.address, "method": "GET", "readTimeOut": 50})

    assert workflow.status == workflow_pb2.WORKFLOW_STATUS_FAILED
    assert "imeout" in workflow.tasks[-1].reason


@pytest.mark.covers("B2")
async def test_a_request_that_cannot_be_sent_fails_at_once(caller: Caller) -> None:
    requests: list[tuple[dict[str, Any], str]] = [
        ({"method": "GET"}, "Missing HTTP URI"),
        ({"uri": "http://x"}, "No HTTP method specified"),
        ({"uri": "http://x", "method": "GET", "headers": ["a"]}, "headers must be an object"),
        ({"uri": "ftp://x", "method": "GET"}, "http://"),
    ]
    for request, told in requests:
        workflow = await ended(caller, {"http_request": request})

        assert workflow.status == workflow_pb2.WORKFLOW_STATUS_FAILED
        assert told in workflow.tasks[-1].reason


async def test_an_asynchronous_task_waits_with_the_answer(caller: Caller, site: Site) -> None:
    site.answer = site.says("202 Accepted", b'{"ticket": 5}')
    await caller.register(flow({"uri": site.address, "method": "GET"}, asyncComplete=True))
    workflow_id = await caller.start("flow")

    async def answered() -> bool:
        return bool((await caller.get(workflow_id)).tasks[-1].output)

    await eventually(answered, True)
    workflow = await caller.get(workflow_id)
    assert workflow.tasks[-1].status == TASK_STATUS_SCHEDULED
    assert response(workflow)["body"] == {"ticket": 5}
    await caller.report(TaskResult(task_id=workflow.tasks[-1].task_id, output=b'{"done": true}'))
    assert (await end(caller, workflow_id)).status == workflow_pb2.WORKFLOW_STATUS_COMPLETED
    assert len(site.seen) == 1


@pytest.mark.covers("H.http.1", "B30")
async def test_a_secret_is_sent_and_neither_stored_nor_told(caller: Caller, site: Site) -> None:
    site.answer = site.says("200 OK", b'{"echo": "%s"}' % SECRET.encode())
    inputs = {"uri": site.address, "method": "GET", "headers": {"Authorization": "${workflow.secrets.KEY}"}}

    workflow = await ended(caller, {"http_request": inputs})

    assert f"Authorization: {SECRET}".encode() in site.seen[0]
    assert SECRET not in str(workflow)


@pytest.mark.covers("B33")
@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "fe80::1%eth0",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "fd00:ec2::254",
    ],
)
def test_an_address_of_this_machine_or_its_cloud_is_blocked(address: str) -> None:
    with pytest.raises(Blocked, match="http-task-allow"):
        Egress().check(address)


@pytest.mark.parametrize("address", ["10.1.2.3", "93.184.215.14", "2606:2800::1"])
def test_other_addresses_are_not_blocked(address: str) -> None:
    Egress().check(address)


def test_an_allowed_network_is_reached_and_its_neighbour_is_not() -> None:
    egress = Egress("127.0.0.1, ::1, Internal.Example")

    egress.check("127.0.0.1")
    assert egress.trusts("internal.example.")
    with pytest.raises(Blocked):
        egress.check("127.0.0.2")


def test_an_entry_that_is_no_network_is_named() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        Egress("10.0.0.0/99")


@pytest.mark.covers("B33")
async def test_b33_the_server_does_not_call_itself(server_config: Config, site: Site) -> None:
    port = site.address.rsplit(":", 1)[1]
    told = {
        "127.0.0.1": "HTTP tasks may not reach",
        "localhost": "HTTP tasks may not reach",
        "[::ffff:127.0.0.1]": "HTTP tasks may not reach",
        "2130706433": "not a canonical IPv4 address",
    }
    async with serving(server_config, SystemClock()) as server, calling(server.grpc_address) as caller:
        for host, why in told.items():
            workflow = await ended(caller, {"uri": f"http://{host}:{port}/", "method": "GET"})

            assert workflow.status == workflow_pb2.WORKFLOW_STATUS_FAILED
            assert why in workflow.tasks[-1].reason
    assert site.seen == []


async def test_a_request_is_stopped_with_its_workflow(caller: Caller, site: Site) -> None:
    site.hold.clear()
    await caller.register(flow({"uri": site.address, "method": "GET", "readTimeOut": 60_000}))
    workflow_id = await caller.start("flow")
    async with asyncio.timeout(10):
        await site.came.wait()

    await caller.terminate(workflow_id)

    assert (await end(caller, workflow_id)).status == workflow_pb2.WORKFLOW_STATUS_TERMINATED


async def test_a_request_under_way_is_made_again_after_a_restart(server_config: Config, site: Site) -> None:
    site.hold.clear()
    config = _allowing(server_config)
    async with serving(config, SystemClock()) as server, calling(server.grpc_address) as caller:
        await caller.register(flow({"uri": site.address, "method": "GET", "readTimeOut": 60_000}))
        workflow_id = await caller.start("flow")
        async with asyncio.timeout(10):
            await site.came.wait()
    site.hold.set()

    async with serving(config, SystemClock()) as server, calling(server.grpc_address) as caller:
        workflow = await end(caller, workflow_id)

    assert workflow.status == workflow_pb2.WORKFLOW_STATUS_COMPLETED
    assert len(workflow.tasks) == 1
    assert len(site.seen) == 2


def _allowing(config: Config) -> Config:
    """These settings, with the machine itself allowed."""
    return Config(
        database_url=config.database_url,
        grpc_address=config.grpc_address,
        http_address=config.http_address,
        http_task_allow="127.0.0.1",
    )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"uri": "http://x/a b"}, "percent-encode"),
        ({"uri": "http://x/\r\nX: y"}, "percent-encode"),
        ({"uri": 7}, "it is a number"),
        ({"method": "GET /"}, "method"),
        ({"headers": {"A": "b\r\nC: d"}}, "headers.A has a line end"),
        ({"headers": {"Content-Length": 5}}, "is set by the server"),
        ({"headers": {"a b": "c"}}, "not the name of a header"),
        ({"readTimeOut": 0}, "readTimeOut must be whole milliseconds"),
        ({"connectionTimeOut": "soon"}, "connectionTimeOut must be"),
        ({"terminalClientErrors": 1}, "terminalClientErrors must be true or false"),
        ({"accept": [1]}, "accept"),
        ({"contentType": 5}, "contentType must be a text"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(Unusable, match=told):
        read_request({"uri": "http://x", "method": "GET", **fields})


def test_a_header_of_the_task_takes_the_place_of_its_twin() -> None:
    found: HttpRequest = read_request(
        {"uri": "http://x", "method": "get", "contentType": "a/b", "headers": {"content-type": "c/d"}}
    )

    assert found.method == "GET"
    assert {name.lower(): value for name, value in found.headers.items()} == {
        "accept": "application/json",
        "content-type": "c/d",
    }
