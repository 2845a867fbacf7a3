"""EVENT tasks, `onStateChange` and the status listener: what is told, once, by the commit that makes it."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.events import Pause, Restart, Resume, Retry, Terminate
from maestoso_server.engine.state import TaskStatus

from .harness import World, flow, fork, inline, join, loop, simple, task

FAILED = TaskStatus.FAILED


def event(reference: str = "tell", sink: Any = "conductor", **more: Any) -> dict[str, Any]:
    return task("EVENT", reference, sink=sink, **more)


def told(world: World) -> list[tuple[str, str]]:
    """(queue, message id) of everything told."""
    return [(event.queue, event.message_id) for _, event in world.published]


def bodies(world: World) -> list[Any]:
    return [event.body.value for _, event in world.published]


def kinds(world: World) -> list[str]:
    return [body["event"] for body in bodies(world)]


def changes(world: World) -> list[str]:
    """The statuses told by `onStateChange`."""
    return [body["status"] for body in bodies(world)]


# --- EVENT ------------------------------------------------------------------------------------------


@pytest.mark.covers("G.event.1", "K28")
@pytest.mark.parametrize("partial", [False, True])
def test_an_event_is_told_and_the_flow_goes_on(partial: bool) -> None:
    world = World(flow(event(inputParameters={"a": "${workflow.input.a}"}), simple("after")), partial=partial)
    workflow = world.start("flow", {"a": 1}, correlation_id="c")
    assert world.shown(workflow) == ["tell:COMPLETED", "after:SCHEDULED"]
    output = world.output(workflow, "tell")
    assert output == {
        "a": 1,
        "sink": "conductor",
        "asyncComplete": False,
        "workflowInstanceId": workflow,
        "workflowType": "flow",
        "workflowVersion": 1,
        "correlationId": "c",
        "taskToDomain": {},
        "event_produced": "conductor:flow:tell",
    }
    assert told(world) == [("conductor:flow:tell", f"{workflow[:-6]}000001")]
    assert bodies(world) == [output]


@pytest.mark.covers("K28")
@pytest.mark.parametrize(
    ("sink", "queue"),
    [
        ("conductor", "conductor:flow:tell"),
        ("conductor:orders", "conductor:flow:orders"),
        ("conductor:a:conductor:b", "conductor:flow:a:b"),
        ("${workflow.input.where}", "conductor:flow:there"),
    ],
)
def test_a_sink_names_a_queue(sink: str, queue: str) -> None:
    world = World(flow(event(sink=sink)))
    workflow = world.start("flow", {"where": "conductor:there"})
    assert world.status(workflow) == "COMPLETED"
    assert [name for name, _ in told(world)] == [queue]


@pytest.mark.covers("K28")
@pytest.mark.parametrize(
    ("sink", "reason"),
    [
        ("conductors", "Invalid / Unsupported sink specified: conductors"),
        (
            "kafka:orders",
            "Error loading queue:kafka:orders, for task:{}, error: no kafka broker",
        ),
        ("pigeon:x", "Error loading queue:pigeon:x, for task:{}, error: pigeon is no provider of queues"),
        ("orders", "Error loading queue:orders, for task:{}, error: a sink is conductor"),
        ("${workflow.input.none}", "The sink of task tell is no text: None"),
    ],
)
def test_a_sink_that_leads_nowhere_fails_the_task(sink: str, reason: str) -> None:
    world = World(flow(event(sink=sink)))
    workflow = world.start("flow")
    assert world.status(workflow) == "FAILED"
    wanted = reason.format(f"{workflow[:-6]}000001")
    assert (world.row(workflow, "tell").reason or "").startswith(wanted)
    assert told(world) == []


@pytest.mark.covers("B6")
def test_a_sink_is_resolved_once() -> None:
    world = World(flow(event(sink="conductor:${workflow.input.name}", inputParameters={"s": "$${x}"})))
    workflow = world.start("flow", {"name": "${workflow.workflowId}"})
    assert told(world)[0][0] == "conductor:flow:${workflow.workflowId}"
    assert world.output(workflow, "tell")["s"] == "${x}"


@pytest.mark.covers("G.event.2", "B9")
@pytest.mark.parametrize("partial", [False, True])
def test_an_event_that_is_answered_is_told_once_however_often_the_workflow_is_decided(partial: bool) -> None:
    world = World(
        flow(
            fork("f", [event(asyncComplete=True)], [simple("a"), simple("b")]),
            join("j", "tell", "b"),
        ),
        partial=partial,
    )
    workflow = world.start("flow")
    world.result(workflow, "a")
    world.result(workflow, "b")
    assert world.row(workflow, "tell").status == TaskStatus.IN_PROGRESS
    assert len(told(world)) == 1
    world.result(workflow, "tell", {"by": "consumer"})
    assert world.status(workflow) == "COMPLETED"
    assert world.output(workflow, "tell") == {"by": "consumer"}
    assert len(told(world)) == 1


@pytest.mark.covers("B14")
def test_a_failed_event_is_tried_again_after_its_delay() -> None:
    world = World(
        flow(event(sink="kafka:x", retryCount=1)), tasks={"tell": {"name": "tell", "retryDelaySeconds": 30}}
    )
    workflow = world.start("flow")
    assert world.shown(workflow) == ["tell:FAILED", "tell:SCHEDULED"]
    world.advance(29)
    assert world.shown(workflow) == ["tell:FAILED", "tell:SCHEDULED"]
    world.advance(1)
    assert world.shown(workflow) == ["tell:FAILED", "tell:FAILED"]
    assert world.status(workflow) == "FAILED"


def test_asynccomplete_of_a_forked_event_must_be_true_or_false() -> None:
    tasks = [{"name": "e", "taskReferenceName": "e", "type": "EVENT", "sink": "conductor"}]
    dynamic = task(
        "FORK_JOIN_DYNAMIC",
        "f",
        {"tasks": tasks, "inputs": {"e": {"asyncComplete": "yes"}}},
        dynamicForkTasksParam="tasks",
        dynamicForkTasksInputParamName="inputs",
    )
    world = World(flow(dynamic, join("j")))
    workflow = world.start("flow")
    assert world.row(workflow, "e").reason == "asyncComplete of task e must be true or false: yes"
    assert told(world) == []


# --- onStateChange ------------------------------------------------------------------------------------


def watched(keys: str, **more: Any) -> dict[str, Any]:
    payload = {"out": "${a.output.x}", "in": "${workflow.input.n}", "other": "${before.output.x}"}
    return simple("a", onStateChange={keys: [{"type": "moved", "payload": payload}]}, **more)


@pytest.mark.covers("B24")
@pytest.mark.parametrize("partial", [False, True])
def test_a_change_is_told_with_the_output_that_came_with_it(partial: bool) -> None:
    world = World(flow(simple("before"), watched("onScheduled,onSuccess")), partial=partial)
    workflow = world.start("flow", {"n": 5})
    world.result(workflow, "before", {"x": 1})
    world.result(workflow, "a", {"x": 2})
    assert changes(world) == ["SCHEDULED", "COMPLETED"]
    assert [body["payload"] for body in bodies(world)] == [
        {"out": None, "in": 5, "other": 1},
        {"out": 2, "in": 5, "other": 1},
    ]
    row = world.row(workflow, "a")
    task_id = f"{workflow[:-6]}{row.seq:06x}"
    assert told(world) == [
        ("conductor:flow:moved", f"{task_id}:SCHEDULED:0"),
        ("conductor:flow:moved", f"{task_id}:COMPLETED:0"),
    ]


def test_each_attempt_tells_of_its_own_failure() -> None:
    world = World(flow(watched("onFAILED", retryCount=1)), tasks={"a": {"name": "a", "retryDelaySeconds": 0}})
    workflow = world.start("flow")
    world.result(workflow, "a", {"x": 1}, FAILED)
    world.result(workflow, "a", {"x": 2}, FAILED)
    assert [body["payload"]["out"] for body in bodies(world)] == [1, 2]
    assert world.status(workflow) == "FAILED"


@pytest.mark.parametrize(
    ("more", "status", "expected"),
    [
        ({"optional": True}, FAILED, ["FAILED", "COMPLETED_WITH_ERRORS"]),
        ({}, TaskStatus.FAILED_WITH_TERMINAL_ERROR, ["FAILED_WITH_TERMINAL_ERROR"]),
    ],
)
def test_a_tolerated_failure_tells_both(
    more: dict[str, Any], status: TaskStatus, expected: list[str]
) -> None:
    world = World(flow(watched("onFailed, onCompletedWithErrors", **more)))
    workflow = world.start("flow")
    world.result(workflow, "a", status=status)
    assert changes(world) == expected


def test_what_the_end_cancels_and_what_times_out_is_told() -> None:
    world = World(
        flow(fork("f", [watched("onCancelled")], [simple("b")]), join("j", "a", "b")),
    )
    workflow = world.start("flow")
    world.happen(workflow, Terminate(now_ms=world.now_ms, reason="enough"))
    assert changes(world) == ["CANCELED"]


def test_a_result_that_comes_while_paused_is_told_at_once() -> None:
    world = World(flow(watched("onSuccess"), simple("b")))
    workflow = world.start("flow")
    world.happen(workflow, Pause(now_ms=world.now_ms))
    world.result(workflow, "a", {"x": 1})
    assert changes(world) == ["COMPLETED"]
    world.happen(workflow, Resume(now_ms=world.now_ms))
    assert changes(world) == ["COMPLETED"]


def test_an_operator_tells_its_start_and_end() -> None:
    node = inline("i", "1", onStateChange={"onScheduled,onStart,onSuccess": [{"type": "t"}]})
    world = World(flow(node))
    world.start("flow")
    assert changes(world) == ["SCHEDULED", "IN_PROGRESS", "COMPLETED"]


def test_every_turn_of_a_loop_tells_its_own() -> None:
    world = World(flow(loop("l", [watched("onSuccess")], 2)))
    workflow = world.start("flow")
    world.result(workflow, "a__1", {"x": 1})
    world.result(workflow, "a__2", {"x": 2})
    assert [(body["referenceTaskName"], body["payload"]["out"]) for body in bodies(world)] == [
        ("a__1", 1),
        ("a__2", 2),
    ]


def test_a_task_that_tells_nothing_costs_nothing() -> None:
    world = World(flow(simple("a", onStateChange={"onPaused": [{"type": "t"}]})))
    workflow = world.start("flow")
    world.result(workflow, "a")
    assert told(world) == []


# --- the workflow's own status -------------------------------------------------------------------------


def listened(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return flow(*tasks, workflowStatusListenerEnabled=True, **more)


@pytest.mark.covers("B24")
def test_the_status_is_told_and_finalized_comes_once_and_last() -> None:
    world = World(listened(simple("a")))
    workflow = world.start("flow")
    world.result(workflow, "a")
    assert kinds(world) == ["STARTED", "COMPLETED", "FINALIZED"]
    assert {name for name, _ in told(world)} == {"conductor:flow:workflow_status"}
    assert len({message for _, message in told(world)}) == 3


@pytest.mark.parametrize("rows_max", [500, 1])
def test_finalized_waits_for_the_rows_that_the_end_cancels(rows_max: int) -> None:
    branches = [[simple(f"b{number}")] for number in range(5)]
    document = listened(fork("f", *branches), join("j"), workflowStatusListenerSink="conductor:mine")
    world = World(document, rows_max=rows_max)
    workflow = world.start("flow")
    world.result(workflow, "b0", status=FAILED)
    assert kinds(world) == ["STARTED", "FAILED", "FINALIZED"]
    assert {name for name, _ in told(world)} == {"conductor:flow:mine"}
    assert world.header(workflow).open == 0


def test_operators_commands_are_told() -> None:
    world = World(listened(simple("a")))
    workflow = world.start("flow")
    now = world.now_ms
    world.happen(workflow, Pause(now_ms=now))
    world.happen(workflow, Resume(now_ms=now))
    world.happen(workflow, Terminate(reason="r", now_ms=now))
    world.happen(workflow, Retry(now_ms=now))
    world.result(workflow, "a", status=FAILED)
    world.happen(workflow, Restart(now_ms=now))
    world.result(workflow, "a")
    assert kinds(world) == [
        *("STARTED", "PAUSED", "RESUMED", "TERMINATED", "FINALIZED", "RETRIED", "FAILED", "FINALIZED"),
        *("RESTARTED", "COMPLETED", "FINALIZED"),
    ]


@pytest.mark.parametrize("more", [{}, {"workflowStatusListenerSink": "kafka:x"}])
def test_nobody_is_told_where_nobody_listens(more: dict[str, Any]) -> None:
    world = World(flow(simple("a"), workflowStatusListenerEnabled=bool(more), **more))
    workflow = world.start("flow")
    world.result(workflow, "a")
    assert told(world) == []
