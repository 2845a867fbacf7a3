"""The table of reasons is the contract's enum, and every exception bears its code."""

from __future__ import annotations

import grpc
import pytest

from maestoso.error.v1 import error_pb2
from maestoso_server import errors
from maestoso_server.errors import RULES, Code, InvalidArgument, MaestosoError, NotFound, Reason, Violation


def test_reasons_are_those_of_the_contract() -> None:
    ours = {f"REASON_{reason.name}": reason.value for reason in Reason}

    assert {**ours, "REASON_UNSPECIFIED": 0} == dict(error_pb2.Reason.items())


def test_the_table_covers_every_reason() -> None:
    assert set(RULES) == set(Reason)


def test_codes_are_those_of_grpc() -> None:
    theirs = {code.name: code.value[0] for code in grpc.StatusCode}

    assert all(theirs[code.name] == code.value for code in Code)


def test_every_code_has_one_exception() -> None:
    tree = MaestosoError.__subclasses__()

    assert sorted(cls.code for cls in tree) == sorted(Code)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_http_status_agrees_with_the_code(reason: Reason) -> None:
    rule = RULES[reason]

    assert rule.http // 100 == (
        5 if rule.code in (Code.INTERNAL, Code.UNAVAILABLE, Code.UNIMPLEMENTED) else 4
    )
    assert rule.retryable == (rule.code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED))
    assert rule.remedy.endswith(".")


def test_a_reason_of_another_code_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        NotFound(Reason.INVALID_REQUEST, "no")


def test_violations_are_cut_at_their_limit() -> None:
    many = [Violation(f"tasks[{i}]", "wrong") for i in range(errors.VIOLATIONS_MAX + 1)]

    refusal = InvalidArgument(Reason.INVALID_DEFINITION, "faults", violations=many)

    assert len(refusal.violations) == errors.VIOLATIONS_MAX
