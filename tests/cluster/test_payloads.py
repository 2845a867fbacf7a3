"""JSON goes through unchanged (law 8): what a caller sends is what workers, readers and SQL see."""

from __future__ import annotations

import asyncio

import pytest

from maestoso import Client, TaskContext, Worker, worker
from maestoso_server.server import Server

DEADLINE_S = 30.0

ECHO = {
    "name": "echo",
    "version": 1,
    "schemaVersion": 2,
    "tasks": [
        {
            "name": "echo",
            "taskReferenceName": "echo",
            "type": "SIMPLE",
            "inputParameters": {"value": "${workflow.input.value}"},
        },
        {
            "name": "echo",
            "taskReferenceName": "again",
            "type": "SIMPLE",
            "inputParameters": {"value": "${echo.output.value}"},
        },
    ],
    "outputParameters": {"value": "${again.output.value}"},
}

VALUES = {
    "2^53+1": b"9007199254740993",
    "2^63-1": b"9223372036854775807",
    "10^30": b"1000000000000000000000000000000",
    "a negative big integer": b"-1000000000000000000000000000001",
    "1.0 stays a float": b"1.0",
    "a small float": b"5e-324",
    "a float that is not short": b"0.1",
    "null": b"null",
    "null against absent": b'{"here":null}',
    "empty containers": b'[{},[],""]',
    "key order": b'{"z":1,"a":2,"m":{"y":0,"b":1}}',
    "unicode": '"Größe 你好 🎼"'.encode(),
    "U+0000": b'"a\\u0000b"',
    "escapes": b'"\\"\\\\/\\n\\t"',
    "deep nesting": b"[" * 200 + b"]" * 200,
    "booleans": b"[true,false]",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
async def test_a_value_comes_out_as_it_went_in(live_server: Server, value: bytes) -> None:
    seen: list[bytes] = []

    @worker("echo")
    async def echo(context: TaskContext) -> bytes:
        seen.append(context.raw_input)
        return context.input

    document = b'{"value":' + value + b"}"
    async with (
        asyncio.timeout(DEADLINE_S),
        Client(live_server.grpc_address) as client,
        Worker(live_server.grpc_address, [echo]),
    ):
        await client.register_workflows([ECHO])
        workflow_id = await client.start("echo", document)
        done = await client.wait(workflow_id)
        stored = await client.get(workflow_id)

    assert done.output == document
    assert stored.input == document
    assert seen == [document, document]
    assert [task.input for task in stored.tasks] == [document, document]
    assert [task.output for task in stored.tasks] == [document, document]
