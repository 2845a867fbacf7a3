"""The commands `dev`, `serve` and `migrate` as real processes: start, stop, death, refusal."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from databases import aside, execute, fetch, url_of
from e2e.processes import READY, Maestoso, command_line, get, run
from maestoso.admin.v1 import admin_service_pb2, admin_service_pb2_grpc
from maestoso.metadata.v1 import metadata_service_pb2, metadata_service_pb2_grpc

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

DEADLINE_S = 40.0

COUNT_OF_LISTS = re.compile(r"maestoso_rpc_seconds_count\{.*ListWorkflowDefinitions")

TASK = {"name": "a", "taskReferenceName": "a", "type": "SIMPLE"}
DOCUMENT = json.dumps({"name": "kept", "version": 1, "schemaVersion": 2, "tasks": [TASK]}).encode()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="mst-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def data(folder: Path) -> str:
    return str(folder / "data")


def until(holds: Callable[[], bool], what: str) -> None:
    """Look until it holds; the processes cannot be waited on."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"not in {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.05)


def health(address: str) -> str:
    with grpc.insecure_channel(address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def nodes(address: str) -> list[str]:
    with grpc.insecure_channel(address) as channel:
        answer = admin_service_pb2_grpc.AdminServiceStub(channel).ListNodes(
            admin_service_pb2.ListNodesRequest(), timeout=10
        )
    return [node.grpc_address for node in answer.nodes]


def test_dev_says_ready_serves_on_both_ports_and_stops_without_a_trace(data: str) -> None:
    with Maestoso("dev", "--data", data).ready() as server:
        family = server.family()

        assert health(server.grpc) == "SERVING"
        assert server.get("/health") == (200, "ok\n")
        assert server.get("/ready") == (200, "ready\n")
        assert "maestoso_commit_seconds" in server.get("/metrics")[1]
        assert server.get("/elsewhere")[0] == 404
        assert server.signal(signal.SIGTERM) == 0

        assert psutil.wait_procs(family, timeout=DEADLINE_S)[1] == []
        assert [line for line in server.stdout if READY.fullmatch(line.strip())] == server.stdout


def test_ctrl_c_stops_dev_as_gracefully(data: str) -> None:
    with Maestoso("dev", "--data", data).ready() as server:
        family = server.family()

        assert server.signal(signal.SIGINT) == 0

        assert psutil.wait_procs(family, timeout=DEADLINE_S)[1] == []


def test_killed_dev_leaves_no_postgres_and_the_next_one_has_its_data(data: str) -> None:
    with Maestoso("dev", "--data", data).ready() as server:
        put_definition(server.grpc)
        family = server.family()
        server.signal(signal.SIGKILL)
        assert psutil.wait_procs(family, timeout=DEADLINE_S)[1] == []

    with Maestoso("dev", "--data", data).ready() as server:
        assert definition_versions(server.grpc) == [1]


def test_postgres_that_dies_under_dev_is_started_again(data: str) -> None:
    with Maestoso("dev", "--data", data).ready() as server:
        first = server.postmaster()
        first.kill()

        until(
            lambda: any("-D" in command_line(p) for p in server.family() if p.pid != first.pid),
            "a new postmaster",
        )
        until(lambda: accepted(server.grpc), "a definition is stored again")
        assert definition_versions(server.grpc) == [1]


def test_second_dev_on_the_folder_is_refused(data: str) -> None:
    with Maestoso("dev", "--data", data).ready():
        refused = run("dev", "--data", data, "--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")

    assert refused.returncode == 1
    assert "in use by another `maestoso dev`" in refused.stderr


def test_taken_port_is_refused_by_its_address(data: str, folder: Path) -> None:
    with Maestoso("dev", "--data", data).ready() as server:
        grpc_taken = run(
            "dev", "--data", str(folder / "b"), "--grpc-address", server.grpc, "--http-address", "127.0.0.1:0"
        )
        http_taken = run(
            "dev", "--data", str(folder / "c"), "--grpc-address", "127.0.0.1:0", "--http-address", server.http
        )

    assert (grpc_taken.returncode, http_taken.returncode) == (1, 1)
    assert f"cannot listen on grpc address {server.grpc}" in grpc_taken.stderr
    assert f"cannot listen on http address {server.http}" in http_taken.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another user")
def test_folder_under_a_closed_parent_is_refused_naming_the_parent(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)

    refused = run("dev", "--data", str(closed / "data"))

    assert refused.returncode == 1
    assert f"{closed} (mode 0700) does not let it in" in refused.stderr
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("serve",), "--database-url: give the URL of a Postgres"),
        (("migrate",), "--database-url: give the URL of a Postgres"),
        (("dev", "--grpc-address", "nowhere"), "'nowhere' is not an address"),
        (("dev", "--surprise"), "unrecognized arguments: --surprise"),
    ],
)
def test_wrong_settings_end_with_status_2_and_say_why(arguments: tuple[str, ...], words: str) -> None:
    refused = run(*arguments)

    assert refused.returncode == 2
    assert words in refused.stderr


# --- serve and migrate ------------------------------------------------------------------------------


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    """A database without a schema."""
    name = f"maestoso_empty_{os.getpid()}"
    aside(execute(postgres_url, f"CREATE DATABASE {name}"))
    yield url_of(postgres_url, name)
    aside(execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


def test_serve_refuses_a_schema_that_is_not_there_and_names_migrate(empty_database: str) -> None:
    refused = run("serve", MAESTOSO_DATABASE_URL=empty_database)
    assert refused.returncode == 1
    assert "run `maestoso migrate`" in refused.stderr

    first, second = (run("migrate", "--database-url", empty_database) for _ in range(2))
    assert (first.returncode, first.stdout.startswith("applied 1")) == (0, True)
    assert (second.returncode, second.stdout) == (0, "nothing to do\n")

    with Maestoso("serve", "--database-url", empty_database).ready() as server:
        assert server.get("/ready") == (200, "ready\n")
        assert server.signal(signal.SIGTERM) == 0


def test_serve_refuses_an_older_schema_and_names_migrate(database_url: str) -> None:
    newest = aside(fetch(database_url, "SELECT max(version) FROM schema_migration"))
    aside(execute(database_url, f"DELETE FROM schema_migration WHERE version = {newest}"))

    refused = run("serve", MAESTOSO_DATABASE_URL=database_url)

    assert refused.returncode == 1
    assert "run `maestoso migrate`" in refused.stderr


def test_serve_without_a_database_says_so() -> None:
    refused = run("serve", "--database-url", "postgresql://nobody@127.0.0.1:1/none")

    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


# --- processes --------------------------------------------------------------------------------------


def test_two_processes_are_two_nodes_whose_metrics_are_one(database_url: str) -> None:
    with Maestoso("serve", "--database-url", database_url, "--processes", "2").ready() as server:
        addresses = nodes(server.grpc)
        assert len(addresses) == 2
        assert server.grpc in addresses
        for address in addresses:
            definition_versions(address)

        counted = next(line for line in server.get("/metrics")[1].splitlines() if COUNT_OF_LISTS.match(line))
        assert counted.endswith(" 2.0")

        family = server.family()
        assert server.signal(signal.SIGTERM) == 0
        assert psutil.wait_procs(family, timeout=DEADLINE_S)[1] == []


def test_process_that_dies_is_started_again_on_its_address(database_url: str) -> None:
    with Maestoso("serve", "--database-url", database_url, "--processes", "2").ready() as server:
        before = {process.pid for process in server.family()}
        victim = next(
            p
            for p in server.family()
            if any(c.laddr.port == int(server.grpc.rsplit(":", 1)[1]) for c in p.net_connections("inet"))
        )
        victim.kill()

        until(lambda: len({p.pid for p in server.family()} - before) > 0, "a new process")
        until(lambda: serving(server.http), "the same addresses serve again")
        assert health(server.grpc) == "SERVING"


def test_processes_end_with_their_killed_parent(data: str) -> None:
    with Maestoso("dev", "--data", data, "--processes", "2").ready() as server:
        family = server.family()

        server.signal(signal.SIGKILL)

        assert psutil.wait_procs(family, timeout=DEADLINE_S)[1] == []


def serving(http: str) -> bool:
    try:
        return get(f"http://{http}/ready")[0] == 200
    except OSError:
        return False


def accepted(address: str) -> bool:
    try:
        put_definition(address)
    except grpc.RpcError as refused:
        assert refused.code() is grpc.StatusCode.UNAVAILABLE  # nothing else in an outage
        return False
    return True


def put_definition(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        metadata_service_pb2_grpc.MetadataServiceStub(channel).PutWorkflowDefinitions(
            metadata_service_pb2.PutWorkflowDefinitionsRequest(documents=[DOCUMENT]),
            timeout=30,
            wait_for_ready=True,
        )


def definition_versions(address: str) -> list[int]:
    with grpc.insecure_channel(address) as channel:
        answer = metadata_service_pb2_grpc.MetadataServiceStub(channel).ListWorkflowDefinitions(
            metadata_service_pb2.ListWorkflowDefinitionsRequest(), timeout=30
        )
    return [definition.version for definition in answer.definitions]


def test_a_key_that_was_made_is_taken_and_another_is_not(tmp_path: Path) -> None:
    from maestoso_server.services.security import read_keys

    made = run("key", "ci", "--principal", "robot", "--actions", "workflow:start,*:read")
    credential, line = made.stdout.splitlines()

    (kept,) = read_keys(line, "the file")
    assert credential.startswith("ci.") and kept.key_id == "ci"
    assert credential.split(".", 1)[1] not in line
    refused = run("key", "ci", "--principal", "robot", "--actions", "anything")
    assert refused.returncode == 2 and "anything" in refused.stderr
