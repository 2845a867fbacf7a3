"""The source keeps its own rules: linted, formatted, typed, without addresses, with a fresh README."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gen_readme

ROOT = Path(__file__).parents[1]

# Spelt in pieces, so that this file does not find itself.
HOSTS = (
    ("pypi", ".org"),
    ("python", "hosted.org"),
    ("npm", "js."),
    ("crates", ".io"),
    ("proxy.go", "lang"),
    ("repo.maven", ".apache"),
    ("repo1.maven", ".org"),
    ("deb.deb", "ian.org"),
    ("index-", "url"),
)
REGISTRY_HOSTS = re.compile("|".join(re.escape(start + end) for start, end in HOSTS))
MACHINE_PATHS = re.compile("/" + r"(work|root/\.|home/[a-z]+|Users/[a-z]+)/[a-z]")


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def run(*command: str) -> None:
    """Run a tool of this environment; fails with what it says."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def address_faults(text: str) -> list[str]:
    return [found[0] for pattern in (REGISTRY_HOSTS, MACHINE_PATHS) for found in pattern.finditer(text)]


def test_lint() -> None:
    run("ruff", "check", "--no-cache", ".")


def test_format() -> None:
    run("ruff", "format", "--no-cache", "--check", ".")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_types() -> None:
    run("mypy", "server/maestoso_server", "sdk/python/maestoso")


def test_no_file_names_a_registry_or_a_folder_of_somebodys_machine() -> None:
    faults = {}
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace")
        if found := address_faults(text):
            faults[str(path.relative_to(ROOT))] = found

    assert faults == {}


@pytest.mark.parametrize(
    "text",
    ["https://" + "pypi" + ".org/simple", "--extra-index" + "-url x", "/" + "work/main/a", "/" + "home/jo/x"],
)
def test_planted_address_is_found(text: str) -> None:
    assert address_faults(text)


def test_generated_parts_of_the_readme_are_fresh() -> None:
    readme = (ROOT / "README.md").read_text()

    assert gen_readme.fresh(readme) == readme, "write it anew: scripts/gen_readme.py"


def test_lock_pins_every_dependency_by_hash() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    entries = (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    locked = {entry.split("==")[0]: entry for entry in entries if entry and not entry.startswith("#")}

    for requirement in wanted:
        name = re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-")
        assert "--hash=sha256:" in locked[name], name


def test_every_dependency_says_why_it_is_there() -> None:
    lines = (
        (ROOT / "pyproject.toml")
        .read_text()
        .split("dependencies = [")[1]
        .split("[project.scripts]")[0]
        .splitlines()
    )

    unexplained = [line for line in lines if re.match(r'\s+"[a-z]', line) and "#" not in line]
    assert unexplained == []
