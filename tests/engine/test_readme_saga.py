"""The saga of the README, run as it is written there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maestoso_server.definitions.parse import parse_workflow
from maestoso_server.engine.state import TaskStatus

from .harness import World

FINAL = TaskStatus.FAILED_WITH_TERMINAL_ERROR
README = Path(__file__).parents[2] / "README.md"


def written() -> Any:
    return json.loads(README.read_text().split("```json saga\n")[1].split("```")[0])


@pytest.mark.parametrize(
    ("error", "then", "status"),
    [("PaymentDeclined", "invoice", "COMPLETED"), ("Other", "release", "FAILED")],
)
def test_the_example_of_the_readme(error: str, then: str, status: str) -> None:
    assert not parse_workflow(json.dumps(written()).encode()).faults
    world = World(written())
    workflow = world.start("order")
    world.result(workflow, "reserve", {"id": 7})
    world.result(workflow, "charge", status=FINAL, reason="no funds", error_name=error)
    inputs = {"invoice": {"why": "no funds"}, "release": {"id": 7}}
    assert world.row(workflow, then).input.value == inputs[then]
    world.result(workflow, then)
    assert world.status(workflow) == status
