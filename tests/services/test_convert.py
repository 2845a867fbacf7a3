"""Messages to values and back: nothing is lost, and a single wrong field is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from maestoso.metadata.v1 import definition_pb2
from maestoso.task.v1 import task_pb2
from maestoso.workflow.v1 import workflow_pb2, workflow_service_pb2
from maestoso_server.config import Config
from maestoso_server.engine.decision import Outcome, Verdict
from maestoso_server.engine.state import Header, TaskRow, TaskStatus, WorkflowStatus
from maestoso_server.errors import InvalidArgument, Reason
from maestoso_server.executor import KeyPolicy, StartRequest
from maestoso_server.payload import Json
from maestoso_server.services import convert, limits
from maestoso_server.services.limits import Limits
from maestoso_server.store.metadata import Overwrite, Put

LIMITS = Limits.of(Config())
WORKFLOW_ID = "0198c5f2-7a30-7c4e-8d21-3f6f0c9a1b2d"


def converted(**fields: Any) -> StartRequest:
    start = workflow_pb2.WorkflowStart(**{"name": "order", **fields})
    return convert.start_request(start, namespace="default", created_by="bot", limits_=LIMITS)


def violation(refused: pytest.ExceptionInfo[InvalidArgument]) -> str:
    (found,) = refused.value.violations
    return found.path


# --- enums --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (WorkflowStatus, workflow_pb2.WorkflowStatus, "WORKFLOW_STATUS_"),
        (TaskStatus, task_pb2.TaskStatus, "TASK_STATUS_"),
        (KeyPolicy, workflow_pb2.IdempotencyStrategy, "IDEMPOTENCY_STRATEGY_"),
        (Overwrite, definition_pb2.Overwrite, "OVERWRITE_"),
    ],
)
def test_enums_are_those_of_the_contract(ours: Any, theirs: Any, prefix: str) -> None:
    numbers = {f"{prefix}{one.name}": one.value for one in ours}

    assert {**numbers, f"{prefix}UNSPECIFIED": 0} == dict(theirs.items())


def test_outcomes_of_a_put_are_those_of_the_contract() -> None:
    for put in (Put.CREATED, Put.REPLACED, Put.UNCHANGED):
        assert definition_pb2.PutOutcome.Value(f"PUT_OUTCOME_{put.name}") == put.value


# --- starts -------------------------------------------------------------------------------------


def test_a_start_keeps_all_it_says() -> None:
    request = converted(
        version=3,
        input=b'{"n":1.0}',
        correlation_id="c-1",
        priority=99,
        task_to_domain={"pay": "eu", "*": "any"},
        idempotency_key="k",
        idempotency_strategy=workflow_pb2.IDEMPOTENCY_STRATEGY_RETURN_EXISTING,
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    )

    assert request == StartRequest(
        namespace="default",
        name="order",
        version=3,
        input=Json(b'{"n":1.0}'),
        correlation_id="c-1",
        priority=99,
        task_to_domain=Json.of({"*": "any", "pay": "eu"}),
        idempotency_key="k",
        key_policy=KeyPolicy.RETURN_EXISTING,
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        created_by="bot",
    )


def test_what_a_start_leaves_out_has_its_default() -> None:
    request = converted()

    assert (request.version, request.input.raw, request.priority) == (None, b"{}", 0)
    assert (request.correlation_id, request.idempotency_key, request.task_to_domain) == (None, None, None)
    assert request.key_policy is KeyPolicy.FAIL


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"name": ""}, "start.name"),
        ({"name": "x" * 256}, "start.name"),
        ({"name": "a\0b"}, "start.name"),
        ({"version": -1}, "start.version"),
        ({"version": 1, "definition": b"{}"}, "start.version"),
        ({"priority": 100}, "start.priority"),
        ({"priority": -1}, "start.priority"),
        ({"input": b"[]"}, "start.input"),
        ({"input": b'{"a":NaN}'}, "start.input"),
        ({"input": b'{"a":1,"a":2}'}, "start.input"),
        ({"correlation_id": "x" * 256}, "start.correlation_id"),
        ({"idempotency_key": "x" * 256}, "start.idempotency_key"),
        ({"idempotency_strategy": 2}, "start.idempotency_strategy"),
        ({"idempotency_key": "k", "idempotency_strategy": 9}, "start.idempotency_strategy"),
        ({"traceparent": "x" * 56}, "start.traceparent"),
        ({"task_to_domain": {"pay": ""}}, "start.task_to_domain.pay"),
    ],
)
def test_a_wrong_field_of_a_start_is_named(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        converted(**fields)

    assert violation(refused) == path


def test_an_input_over_its_limit_is_refused_with_both_sizes() -> None:
    with pytest.raises(InvalidArgument) as refused:
        converted(input=b'{"a":"' + b"x" * LIMITS.payload_bytes + b'"}')

    assert refused.value.reason is Reason.TOO_LARGE
    assert f"{LIMITS.payload_bytes:,}" in refused.value.message


@pytest.mark.covers("B37")
@pytest.mark.parametrize(
    "text",
    [
        b'{"n":9007199254740993}',
        b'{"n":1000000000000000000000000000000}',
        b'{"n":1.0}',
        b'{"n":null,"empty":{},"list":[]}',
        b'{"s":"\\u0000"}',
        '{"s":"✂ \U0001f600"}'.encode(),
    ],
)
def test_a_payload_passes_byte_for_byte(text: bytes) -> None:
    assert converted(input=text).input.raw == text


# --- workflows and tasks ------------------------------------------------------------------------


def header(**fields: Any) -> Header:
    return Header(
        **{
            "id": WORKFLOW_ID,
            "namespace": "default",
            "name": "order",
            "version": 2,
            "snapshot_id": "",
            "created_ms": 1_750_000_000_123,
            **fields,
        }
    )


def task(**fields: Any) -> TaskRow:
    return TaskRow(
        **{
            "seq": 7,
            "generation": 1,
            "reference": "pay",
            "path": (),
            "attempt": 0,
            "scope": 0,
            "type": "charge",
            "name": "charge",
            "status": TaskStatus.SCHEDULED,
            "scheduled_ms": 1_750_000_000_000,
            "first_scheduled_ms": 1_750_000_000_000,
            **fields,
        }
    )


def test_a_workflow_without_payloads_has_none() -> None:
    message = convert.workflow(header(input=Json(b'{"a":1}')), payloads=False)

    assert (message.input, message.output, message.variables) == (b"", b"", b"")


def test_a_workflow_with_payloads_has_their_bytes() -> None:
    stored = header(input=Json(b'{"a":1.0}'), output=Json(b"{}"), variables=Json(b'{"v":1}'))

    message = convert.workflow(stored, payloads=True)

    assert (message.input, message.output, message.variables) == (b'{"a":1.0}', b"{}", b'{"v":1}')


def test_times_that_are_not_yet_are_absent() -> None:
    message = convert.workflow(header(), payloads=False)

    assert message.create_time.ToMilliseconds() == 1_750_000_000_123
    assert not message.HasField("end_time")


def test_a_workflow_names_the_tasks_it_depends_on() -> None:
    message = convert.workflow(header(parent_id=WORKFLOW_ID, parent_seq=3, failed_task=5), payloads=False)

    assert message.parent_task_id.endswith("000003")
    assert message.failed_task_id.endswith("000005")


def test_a_task_in_nested_loops_has_conductors_name() -> None:
    message = convert.task(WORKFLOW_ID, task(path=(3, 2)), payloads=False)

    assert (message.reference, list(message.iteration)) == ("pay__3__2", [3, 2])


def test_an_output_that_is_not_there_is_not_an_empty_one() -> None:
    absent = convert.task(WORKFLOW_ID, task(), payloads=True)
    empty = convert.task(WORKFLOW_ID, task(output=Json(b"{}")), payloads=True)

    assert (absent.output, empty.output) == (b"", b"{}")


def test_a_signal_that_was_kept_is_told_apart() -> None:
    kept = convert.signalled(WORKFLOW_ID, Outcome(Verdict.PARKED))
    assert (kept.outcome, kept.task_id) == (workflow_service_pb2.SIGNAL_OUTCOME_KEPT, "")
    applied = convert.signalled(WORKFLOW_ID, Outcome(Verdict.APPLIED, seq=3))
    assert applied.outcome == workflow_service_pb2.SIGNAL_OUTCOME_APPLIED
    assert (applied.workflow_id, applied.task_id) == (WORKFLOW_ID, WORKFLOW_ID[:-6] + "000003")


@pytest.mark.parametrize(
    ("status", "expected"),
    [(0, TaskStatus.COMPLETED), (3, TaskStatus.COMPLETED), (5, TaskStatus.FAILED)],
)
def test_a_signal_ends_its_task(status: int, expected: TaskStatus) -> None:
    assert convert.signalled_status(status) is expected


@pytest.mark.parametrize("status", [1, 2, 4, 7, 99])
def test_a_signal_with_another_status_is_refused(status: int) -> None:
    with pytest.raises(InvalidArgument):
        convert.signalled_status(status)


# --- time and pages -----------------------------------------------------------------------------


@given(st.integers(1, 253_402_300_799_999))
def test_a_moment_comes_back(ms: int) -> None:
    moment = convert.timestamp(ms)

    assert moment is not None
    assert convert.milliseconds(moment, "t") == ms


@pytest.mark.parametrize("moment", [Timestamp(seconds=-1), Timestamp(nanos=-1), Timestamp(seconds=1 << 40)])
def test_a_moment_outside_of_time_is_refused(moment: Timestamp) -> None:
    with pytest.raises(InvalidArgument):
        convert.milliseconds(moment, "t")


@pytest.mark.parametrize("length", [Duration(seconds=-1), Duration(seconds=61)])
def test_a_length_outside_its_range_is_refused(length: Duration) -> None:
    with pytest.raises(InvalidArgument):
        convert.duration_ms(length, "wait", 60_000)


@given(st.integers(0, 2**63 - 1), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_page_token_comes_back(number: int, text: str) -> None:
    assert convert.page_position(convert.page_token(number, text), (0, "")) == (number, text)


@pytest.mark.parametrize(
    "token",
    ["!", "x", convert.page_token(1), convert.page_token("a", 1), convert.page_token(-1, "a"),
     convert.page_token(1 << 63, "a"), convert.page_token(1, "a\0")],
)  # fmt: skip
def test_a_token_of_another_list_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        convert.page_position(token, (0, ""))


@given(st.binary(max_size=40))
def test_no_token_is_more_than_refused(token: bytes) -> None:
    with pytest.raises(InvalidArgument):
        convert.page_position("a" + token.hex(), ("", "", ""))


def test_a_page_ends_early_when_it_outgrows_its_bytes() -> None:
    response = workflow_service_pb2.ListWorkflowsResponse()

    token = convert.fill_page(
        response.workflows,
        ["a", "b", "c"],
        size=3,
        to_message=lambda name: workflow_pb2.WorkflowSummary(name=name * 60),
        position=lambda name: (name,),
        most_bytes=100,
    )

    assert len(response.workflows) == 1
    assert convert.page_position(token, ("",)) == ("a",)


def test_the_last_page_has_no_token() -> None:
    response = workflow_service_pb2.ListWorkflowsResponse()

    token = convert.fill_page(
        response.workflows,
        ["a", "b"],
        size=2,
        to_message=lambda name: workflow_pb2.WorkflowSummary(name=name),
        position=lambda name: (name,),
    )

    assert token == ""


@pytest.mark.parametrize(("asked", "size"), [(0, 100), (1, 1), (1_000, 1_000)])
def test_a_page_has_a_size(asked: int, size: int) -> None:
    assert limits.page_size(asked) == size


@pytest.mark.parametrize("asked", [-1, 1_001])
def test_a_page_of_another_size_is_refused(asked: int) -> None:
    with pytest.raises(InvalidArgument):
        limits.page_size(asked)
