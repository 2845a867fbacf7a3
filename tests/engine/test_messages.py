"""What travels through the inbox comes out as it went in."""

from __future__ import annotations

import pytest

from maestoso_server.engine import messages
from maestoso_server.engine.decision import MessageKind
from maestoso_server.engine.events import (
    ChangeVariables,
    Event,
    Jump,
    Keep,
    Pause,
    Remove,
    Rerun,
    Restart,
    Result,
    Resume,
    Retry,
    Signal,
    Skip,
    Terminate,
    UpdateTask,
)
from maestoso_server.engine.names import shown_reference, split_reference
from maestoso_server.engine.state import Header, Path, TaskStatus, WorkflowStatus
from maestoso_server.payload import Json

NOW = {"now_ms": 5, "seed": 7}
ODD = Json(b'{"big":1180591620717411303424,"one":1.0,"null":null,"nul":"a\\u0000b","list":[]}')


@pytest.mark.parametrize(
    "event",
    [
        Result(
            seq=3, status=TaskStatus.COMPLETED, delivery=4, output=ODD, worker_id="w", started_ms=9, **NOW
        ),
        Result(seq=3, status=TaskStatus.FAILED, reason="no", error_name="NoLuck", retry_after_s=0, **NOW),
        Result(seq=3, status=TaskStatus.IN_PROGRESS, callback_after_s=5, output=Json(b"null"), **NOW),
    ],
)
def test_results(event: Result) -> None:
    assert messages.decode(MessageKind.RESULT, messages.result(event).raw, **NOW) == event


@pytest.mark.parametrize(
    "event",
    [
        Signal(reference="w", status=TaskStatus.COMPLETED, output=ODD, **NOW),
        Signal(reference=None, status=TaskStatus.FAILED, reason="no", keep=Keep.NEVER, **NOW),
    ],
)
def test_signals(event: Signal) -> None:
    assert messages.decode(MessageKind.SIGNAL, messages.signal(event).raw, **NOW) == event


@pytest.mark.parametrize(
    "event",
    [
        Pause(**NOW),
        Resume(**NOW),
        Terminate(reason="enough", **NOW),
        Retry(resume_children=True, **NOW),
        Restart(**NOW),
        Restart(snapshot_id="s", name="n", version=3, **NOW),
        Terminate(reason="enough", trigger_failure=True, **NOW),
        Rerun(**NOW),
        Rerun(seq=4, input=ODD, task_input=ODD, correlation_id="c", **NOW),
        Skip(reference="t", input=ODD, output=ODD, **NOW),
        Jump(reference="t", **NOW),
        Jump(reference="t", input=ODD, **NOW),
        ChangeVariables(variables=ODD, replace=True, **NOW),
        UpdateTask(reference="t", status=TaskStatus.IN_PROGRESS, output=ODD, reason="no", **NOW),
        Remove(**NOW),
    ],
)
def test_commands(event: Event) -> None:
    assert messages.decode(MessageKind.COMMAND, messages.command(event).raw, **NOW) == event


def test_a_child_is_born_with_what_its_parent_says() -> None:
    parent = Header(
        "p", "space", "parent", 1, "s", 1, priority=3, correlation_id="c", created_by="me", traceparent="t"
    )
    body = messages.child_start(
        parent, 9, name="child", version=2, snapshot_id="s2", input=ODD, task_to_domain=None, priority=5
    )
    child = messages.child_header("id", body.raw, 77)
    assert (child.parent_id, child.parent_seq, child.input.raw) == ("p", 9, ODD.raw)
    assert (child.namespace, child.name, child.version, child.snapshot_id) == ("space", "child", 2, "s2")
    assert (child.priority, child.correlation_id, child.created_by, child.traceparent) == (5, "c", "me", "t")
    assert (child.created_ms, child.revision, child.status) == (77, 0, WorkflowStatus.RUNNING)
    assert child.task_to_domain is None


def test_a_childs_end_carries_its_output_untouched() -> None:
    child = Header("id", "space", "child", 2, "s", 1, parent_id="p", parent_seq=9, output=ODD)
    child.status = WorkflowStatus.COMPLETED
    event = messages.decode(MessageKind.CHILD_ENDED, messages.child_ended(child).raw, **NOW)
    assert (event.seq, event.child_id, event.output.raw) == (9, "id", ODD.raw)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("reference", "path", "shown"), [("t", (), "t"), ("t", (3,), "t__3"), ("t", (3, 2), "t__3__2")]
)
def test_names_of_turns(reference: str, path: Path, shown: str) -> None:
    assert shown_reference(reference, path) == shown
    assert split_reference(shown) == (reference, path)


@pytest.mark.parametrize("name", ["a__b", "__3", "a__", "a__x2"])
def test_a_suffix_that_is_no_number_belongs_to_the_name(name: str) -> None:
    assert split_reference(name) == (name, ())
