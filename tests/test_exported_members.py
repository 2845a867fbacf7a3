"""The public names of the SDK are those of `__all__`, and each of them exists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import maestoso

PACKAGE = Path(maestoso.__file__ or "").parent


def test_every_exported_name_exists() -> None:
    for name in maestoso.__all__:
        assert getattr(maestoso, name) is not None


def test_lazy_names_and_exported_names_are_the_same() -> None:
    assert sorted(maestoso._MODULE_OF) == sorted(set(maestoso.__all__) - {"__version__"})
    assert dir(maestoso) == sorted(maestoso.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        maestoso.nothing  # noqa: B018


def test_hand_written_modules_are_underscored() -> None:
    # The plain names belong to the packages of the contract: `maestoso.task.v1` and so on.
    names = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/*.py")
    }

    assert all(name.startswith("_") for name in names - {PACKAGE.name})


def test_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_import_alone_loads_no_grpc() -> None:
    code = "import sys, maestoso; raise SystemExit('grpc' in sys.modules or 'asyncio' in sys.modules)"

    assert (
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(PACKAGE.parent)}).returncode == 0
    )


def test_base_install_needs_only_grpc_and_protobuf() -> None:
    code = (
        "import sys\n"
        "for name in ('msgspec', 'pydantic', 'uvloop', 'cyclopts', 'rich'): sys.modules[name] = None\n"
        "import maestoso\n"
        "for name in maestoso.__all__: getattr(maestoso, name)\n"
        "from maestoso import _json\n"
        "assert _json.dumps({'a': 1.0}) == b'{\"a\":1.0}'\n"
        "from maestoso._cli import main\n"
        "raise SystemExit(main(['nodes']))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(PACKAGE.parent)}, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "pip install 'maestoso[cli]'" in done.stderr
