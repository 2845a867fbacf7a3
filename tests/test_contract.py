"""The protos are well-formed, break nobody, and the committed code is what they generate."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import MethodDescriptor

from contract_kit import METHODS, ROOT, files, load_generator

PROTO = ROOT / "proto"
GENERATED = ROOT / "sdk" / "python"

OF_NO_NAMESPACE = {"ListNodesRequest", "DrainNodeRequest", "ListNamespacesRequest"}
"""Nodes and the list of namespaces are the cluster's."""


def without(tool: str) -> None:
    """Leave the test out for want of a tool; where tools are required that is a failure."""
    if os.environ.get("MAESTOSO_REQUIRE_TOOLCHAINS") == "1":
        pytest.fail(f"{tool} is missing")
    pytest.skip(f"{tool} is missing")


def buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run buf at the root of the repository."""
    beside = Path(sys.executable).parent / "buf"
    tool = str(beside) if beside.exists() else shutil.which("buf")
    if tool is None:
        without("buf")
    return subprocess.run([str(tool), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_protos_pass_lint() -> None:
    done = buf("lint", "proto")

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_protos_break_nobody_who_speaks_the_committed_image() -> None:
    done = buf("breaking", "proto", "--against", "proto/image.binpb")

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_number_is_refused_as_breaking(tmp_path: Path) -> None:
    shutil.copytree(PROTO, tmp_path / "proto")
    changed = tmp_path / "proto" / "maestoso" / "task" / "v1" / "task.proto"
    changed.write_text(changed.read_text().replace("bytes token = 1;", "bytes token = 99;"))

    done = buf("breaking", str(tmp_path / "proto"), "--against", "proto/image.binpb")

    assert done.returncode != 0


def test_the_generated_code_is_fresh(tmp_path: Path) -> None:
    generator = load_generator()
    if sys.version_info[:2] not in generator.PYTHONS and not any(
        shutil.which(f"python{major}.{minor}") for major, minor in generator.PYTHONS
    ):
        without("Python 3.11 or 3.12")

    generator.generate(tmp_path, generator.environment())

    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*_pb2*.py*")}
    committed = {
        path.relative_to(GENERATED) for path in GENERATED.rglob("*_pb2*.py*") if path.suffix != ".pyc"
    }
    assert made == committed
    assert [
        str(name)
        for name in sorted(made)
        if not filecmp.cmp(tmp_path / name, GENERATED / name, shallow=False)
    ] == []


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.full_name)
def test_every_request_names_its_namespace(method: MethodDescriptor) -> None:
    request = method.input_type
    if request.name == "ConnectRequest":  # A stream names it once, in its first frame.
        hello = request.fields_by_name["hello"].message_type
        assert hello
        request = hello

    assert ("namespace" in request.fields_by_name) == (request.name not in OF_NO_NAMESPACE)


def test_no_message_holds_a_struct() -> None:
    for file in files():
        assert "google/protobuf/struct.proto" not in [used.name for used in file.dependencies], file.name
