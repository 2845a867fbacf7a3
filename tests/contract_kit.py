"""The contract as it was generated: every file under `proto/`, and every RPC by its path."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

ROOT = Path(__file__).resolve().parent.parent


def load_generator() -> ModuleType:
    """`scripts/gen_protos.py` as a module."""
    spec = importlib.util.spec_from_file_location("gen_protos", ROOT / "scripts" / "gen_protos.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def files() -> tuple[FileDescriptor, ...]:
    """Every file of the contract, as generated."""
    return tuple(
        importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2").DESCRIPTOR
        for name in load_generator().protos()
    )


METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in files()
    for service in file.services_by_name.values()
    for method in service.methods
}
"""Every RPC of every service, by its path."""
