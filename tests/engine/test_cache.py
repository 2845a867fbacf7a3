"""`cacheConfig`: an output that is still fresh is used again, and no worker is asked."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.state import TaskStatus

from .harness import World, flow, loop, simple


def cached(reference: str = "a", key: str = "${workflow.input.k}", ttl: int = 60, **more: Any) -> Any:
    return simple(reference, name="price", cacheConfig={"key": key, "ttlInSecond": ttl}, **more)


@pytest.mark.covers("B24")
@pytest.mark.parametrize("partial", [False, True])
def test_a_fresh_output_of_the_same_key_completes_the_task_at_once(partial: bool) -> None:
    world = World(flow(cached(), simple("b")), partial=partial)
    first = world.start("flow", {"k": "x"})
    world.result(first, "a", {"price": 7})
    second = world.start("flow", {"k": "x"})
    assert world.shown(second) == ["a:COMPLETED", "b:SCHEDULED"]
    assert world.output(second, "a") == {"price": 7}
    assert (world.row(second, "a").state or {})["cached"] is True
    assert [row.reference for row in world.open_worker_rows(second)] == ["b"]
    assert "cached" not in (world.row(first, "a").state or {})
    assert world.shown(world.start("flow", {"k": "y"})) == ["a:SCHEDULED"]


def test_an_output_is_fresh_until_its_time_is_over() -> None:
    world = World(flow(cached()))
    world.result(world.start("flow", {"k": 1}), "a", {"price": 7})
    world.advance(59)
    assert world.shown(world.start("flow", {"k": 1})) == ["a:COMPLETED"]
    world.advance(1)
    assert world.shown(world.start("flow", {"k": 1})) == ["a:SCHEDULED"]


@pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.FAILED_WITH_TERMINAL_ERROR])
def test_a_failure_is_never_cached(status: TaskStatus) -> None:
    world = World(flow(cached()))
    world.result(world.start("flow", {"k": 1}), "a", {"price": 7}, status)
    assert world.shown(world.start("flow", {"k": 1})) == ["a:SCHEDULED"]


def test_an_output_that_its_schema_refuses_is_not_cached() -> None:
    definition = {"name": "price", "enforceSchema": True, "outputSchema": {"data": {"required": ["n"]}}}
    world = World(flow(cached()), tasks={"price": definition})
    world.result(world.start("flow", {"k": 1}), "a", {})
    assert world.shown(world.start("flow", {"k": 1})) == ["a:SCHEDULED"]


def test_what_a_later_attempt_puts_out_is_cached() -> None:
    world = World(flow(cached(retryCount=1)), tasks={"price": {"name": "price", "retryDelaySeconds": 0}})
    first = world.start("flow", {"k": 1})
    world.result(first, "a", status=TaskStatus.FAILED)
    world.result(first, "a", {"price": 8})
    assert world.output(world.start("flow", {"k": 1}), "a") == {"price": 8}


def test_the_name_of_the_task_is_part_of_the_key() -> None:
    other = flow(simple("a", cacheConfig={"key": "x", "ttlInSecond": 9}), name="other")
    world = World(flow(cached(key="x")), other)
    world.result(world.start("flow"), "a", {"price": 7})
    assert world.shown(world.start("other")) == ["a:SCHEDULED"]


def test_a_key_that_finds_nothing_is_no_key() -> None:
    world = World(flow(cached(key="k-${workflow.input.k}")))
    world.result(world.start("flow"), "a", {"price": 7})
    assert world.cache == {}
    assert world.shown(world.start("flow")) == ["a:SCHEDULED"]


@pytest.mark.parametrize("key", ["k" * 300, "a\u0000b", "line\nbreak"])
def test_a_key_that_no_column_holds_is_kept_as_its_digest(key: str) -> None:
    world = World(flow(cached()))
    world.result(world.start("flow", {"k": key}), "a", {"price": 7})
    ((_, kept),) = world.cache
    assert kept.startswith("sha256:") and len(kept) < 80
    assert world.shown(world.start("flow", {"k": key})) == ["a:COMPLETED"]


def test_later_turns_of_a_loop_use_what_the_first_has_put_out() -> None:
    world = World(flow(loop("l", [cached(key="x")], 3)))
    workflow = world.start("flow")
    world.result(workflow, "a__1", {"price": 7})
    assert world.status(workflow) == "COMPLETED"
    assert [row.status.name for row in world.rows(workflow)].count("COMPLETED") == 4


@pytest.mark.parametrize("config", [{"ttlInSecond": 9}, {"key": "x"}, {"key": "x", "ttlInSecond": -1}])
def test_half_a_config_caches_nothing(config: dict[str, Any]) -> None:
    world = World(flow(simple("a", cacheConfig=config)))
    world.result(world.start("flow"), "a", {"price": 7})
    assert world.cache == {}
