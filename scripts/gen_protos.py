#!/usr/bin/env python3
"""Generate the Python code of `proto/maestoso` into `sdk/python`, and the image that buf compares with.

    scripts/gen_protos.py            write the generated code, and proto/image.binpb if there is none
    scripts/gen_protos.py --image    replace the image too: after a release, never to silence `buf breaking`
    scripts/gen_protos.py --out DIR  write the generated code there instead (how a test compares)

Generated code refuses a protobuf runtime older than itself, so it is made by the oldest generator
that we support, in an environment of its own (`.venv-protos`, built on first use). That generator
has no wheels after Python 3.12. Proto path = package = import path: nothing is rewritten.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
IMAGE = PROTO / "image.binpb"
OUT = ROOT / "sdk" / "python"
ENVIRONMENT = ROOT / ".venv-protos"
PINNED = ["grpcio-tools==1.62.3", "mypy-protobuf==3.6.0", "setuptools<80"]
PYTHONS = [(3, 12), (3, 11)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--image", action="store_true", help="replace proto/image.binpb")
    arguments.add_argument("--out", type=Path, default=OUT, help="where the code goes")
    asked = arguments.parse_args()
    generate(asked.out, environment())
    if asked.image or not IMAGE.exists():
        subprocess.run([buf(), "build", str(PROTO), "--exclude-source-info", "-o", str(IMAGE)], check=True)


def protos() -> list[str]:
    """Paths of our proto files below `proto`, in a fixed order."""
    return sorted(str(path.relative_to(PROTO)) for path in (PROTO / "maestoso").rglob("*.proto"))


def generate(out: Path, python: Path) -> None:
    """Run the generator: messages, their types, service stubs, their types."""
    out.mkdir(parents=True, exist_ok=True)
    plugins = [
        f"--plugin={name}={python.parent / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    ]
    outputs = [f"--{kind}_out={out}" for kind in ("python", "mypy", "grpc_python", "mypy_grpc")]
    command = [str(python), "-m", "grpc_tools.protoc", f"-I{PROTO}", *plugins, *outputs, *protos()]
    # mypy-protobuf names each file that it writes; only a failure is worth reading.
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    drop_empty_stubs(out)


def drop_empty_stubs(out: Path) -> None:
    """Files without a service get a stub module too, with nothing in it: remove those."""
    for name in protos():
        if not name.endswith("_service.proto"):
            for suffix in ("_pb2_grpc.py", "_pb2_grpc.pyi"):
                (out / name.replace(".proto", suffix)).unlink(missing_ok=True)


def environment() -> Path:
    """The Python of the pinned environment; makes it where it is missing or holds other versions."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "pinned.txt"
    wanted = "\n".join(PINNED)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    subprocess.run([base_python(), "-m", "venv", str(ENVIRONMENT)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PINNED], check=True)
    stamp.write_text(wanted)
    return python


def base_python() -> str:
    """A Python that the pinned generator has wheels for."""
    if sys.version_info[:2] in PYTHONS:
        return sys.executable
    for major, minor in PYTHONS:
        name = f"python{major}.{minor}"
        found = shutil.which(name)
        if found and subprocess.run([found, "-c", "import venv"], capture_output=True).returncode == 0:
            return found
    sys.exit("needs Python 3.11 or 3.12 to generate: grpcio-tools 1.62 has no wheels for later ones")


def buf() -> str:
    """The buf executable: beside this Python, or on the path."""
    beside = Path(sys.executable).parent / "buf"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("buf")
    return found or sys.exit("buf is missing: pip install 'buf-bin'")


if __name__ == "__main__":
    main()
