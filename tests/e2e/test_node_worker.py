"""A second language: the worker in `sdk/node/example` runs from the protos alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maestoso import Client
from maestoso_server.server import Server

ROOT = Path(__file__).parents[2]
LINES_MAX = 60
DEADLINE_S = 60.0

DEFINITION = {
    "name": "node_example",
    "version": 1,
    "schemaVersion": 2,
    "tasks": [
        {
            "name": "greet",
            "taskReferenceName": "greet",
            "type": "SIMPLE",
            "inputParameters": {"name": "${workflow.input.name}"},
        },
        {
            "name": "divide",
            "taskReferenceName": "divide",
            "type": "SIMPLE",
            "retryCount": 0,
            "inputParameters": {"a": "${workflow.input.a}", "b": "${workflow.input.b}"},
        },
    ],
    "outputParameters": {
        "greeting": "${greet.output.greeting}",
        "quotient": "${divide.output.quotient}",
    },
}


@pytest.fixture
def node_worker(
    live_server: Server, tmp_path: Path, toolchain: Callable[[str], str]
) -> Iterator[subprocess.Popen[str]]:
    """The example, copied aside so that its packages are not installed into the project."""
    node, npm = toolchain("node"), toolchain("npm")
    example = tmp_path / "sdk" / "node" / "example"
    shutil.copytree(ROOT / "sdk" / "node" / "example", example)
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    subprocess.run(install, cwd=example, check=True, capture_output=True, timeout=DEADLINE_S)
    worker = subprocess.Popen(
        [node, "worker.js", live_server.grpc_address],
        cwd=example,
        env={"PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        text=True,
    )
    yield worker
    worker.kill()
    worker.wait()


def test_the_worker_is_short() -> None:
    source = (ROOT / "sdk" / "node" / "example" / "worker.js").read_text("utf-8")
    assert len(source.splitlines()) <= LINES_MAX


async def test_a_worker_in_node_runs_tasks_and_its_errors_fail_them(
    live_server: Server, node_worker: subprocess.Popen[str]
) -> None:
    async with Client(live_server.grpc_address) as client, asyncio.timeout(DEADLINE_S):
        await client.register_workflows([DEFINITION])
        done = await client.wait(await client.start("node_example", {"name": "Ada", "a": 6, "b": 3}))
        failed = await client.wait(await client.start("node_example", {"name": "Ada", "a": 6, "b": 0}))

    assert done.output == b'{"greeting":"Hello Ada, from Node","quotient":2}'
    assert "division by zero" in failed.reason
    assert node_worker.poll() is None
