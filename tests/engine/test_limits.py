"""What is too big fails where it is made, and says so."""

from __future__ import annotations

import pytest

from maestoso_server.engine.limits import PAYLOAD_MAX_BYTES, TASKS_MAX

from .harness import World, flow, fork, inline, join, loop, simple

BIG = {"x": "x" * (PAYLOAD_MAX_BYTES // 2)}
TOO_BIG = "is greater than the permissible limit: 4194304 bytes"
TERMINAL = "FAILED_WITH_TERMINAL_ERROR"


def test_the_output_of_a_join() -> None:
    world = World(flow(fork("f", [simple("a")], [simple("b")]), join("j", "a", "b")))
    workflow = world.start("flow")
    world.result(workflow, "a", BIG)
    world.result(workflow, "b", BIG)
    row = world.row(workflow, "j")
    assert (row.status.name, world.output(workflow, "j"), world.status(workflow)) == (TERMINAL, {}, "FAILED")
    assert TOO_BIG in (row.reason or "")


def test_the_output_of_a_loop_and_how_to_keep_it_small() -> None:
    for keep, status in (({}, "FAILED"), ({"keepLastN": 1}, "COMPLETED")):
        world = World(flow(loop("l", [simple("a")], 2, inputParameters=keep)))
        workflow = world.start("flow")
        world.result(workflow, "a__1", BIG)
        world.result(workflow, "a__2", BIG)
        assert world.status(workflow) == status


def test_the_output_of_a_workflow() -> None:
    doubled = {"x": "${a.output.x}${a.output.x}"}
    world = World(flow(simple("a"), outputParameters=doubled))
    workflow = world.start("flow")
    world.result(workflow, "a", BIG)
    assert (world.status(workflow), world.output(workflow)) == ("FAILED", {})
    assert TOO_BIG in (world.header(workflow).reason or "")


@pytest.mark.parametrize(("first", "shown"), [(TASKS_MAX, "a:SCHEDULED"), (TASKS_MAX + 1, f"a:{TERMINAL}")])
def test_the_number_of_tasks(first: int, shown: str) -> None:
    world = World(flow(simple("a")))
    workflow = world.start("flow", next_seq=first)
    assert world.shown(workflow) == [shown]


def test_an_input_just_small_enough() -> None:
    world = World(flow(simple("a", {"x": "${workflow.input.x}"}), inline("i", "1")))
    workflow = world.start("flow", {"x": "x" * (PAYLOAD_MAX_BYTES - len('{"x":""}'))})
    assert world.shown(workflow) == ["a:SCHEDULED"]
