"""The exception tree, and errors that come as items instead of statuses."""

from __future__ import annotations

import pytest

import maestoso
from maestoso import _errors
from maestoso._errors import from_message
from maestoso.error.v1 import error_pb2


def test_every_error_has_one_root_and_is_exported() -> None:
    errors = {
        name: value
        for name, value in vars(_errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }

    for name, error in errors.items():
        assert issubclass(error, maestoso.MaestosoError)
        assert name in maestoso.__all__
        assert error.__doc__
        assert name in (_errors.__doc__ or ""), "the tree at the top of the file shows it"


@pytest.mark.parametrize("reason", [each for each in error_pb2.Reason.values() if each])
def test_every_reason_has_its_exception(reason: error_pb2.Reason.ValueType) -> None:
    error = from_message(error_pb2.Error(reason=reason, message="m"))

    assert error.reason == error_pb2.Reason.Name(reason).removeprefix("REASON_")
    assert type(error) is not maestoso.ServerError
    if reason != error_pb2.REASON_INTERNAL:
        assert not isinstance(error, maestoso.Internal)


def test_server_decides_what_is_retryable() -> None:
    assert maestoso.Unavailable("x").retryable
    assert not maestoso.NotFound("x").retryable
    assert not from_message(error_pb2.Error(reason=error_pb2.REASON_STORE_UNAVAILABLE)).retryable
