"""Maestoso for Python: start workflows, run their tasks.

A worker is a function and a `Worker`; a `Client` does everything else:

    from maestoso import Worker, worker

    @worker("charge_card")
    async def charge_card(order_id: str, amount: int) -> dict:
        ...

    Worker("127.0.0.1:8090", [charge_card]).run_until_stopped()

Names are loaded when they are first used, so that the command line starts fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._channel import Tls
    from ._client import Client, Start
    from ._errors import (
        Aborted,
        AlreadyExists,
        BusinessError,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        InvalidInput,
        InvalidOutput,
        MaestosoError,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
        ServerError,
        TaskCanceled,
        TaskError,
        TaskFailed,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        Violation,
    )
    from ._mocks import Mock, Mocks
    from ._task import CallbackAfter, TaskContext, current_task, worker
    from ._worker import Worker

__version__ = "0.1.0"

_HOMES = {
    "_channel": ("Tls",),
    "_client": ("Client", "Start"),
    "_errors": (
        "Aborted",
        "AlreadyExists",
        "BusinessError",
        "DeadlineExceeded",
        "FailedPrecondition",
        "Internal",
        "InvalidArgument",
        "InvalidInput",
        "InvalidOutput",
        "MaestosoError",
        "NotFound",
        "PermissionDenied",
        "ResourceExhausted",
        "ServerError",
        "TaskCanceled",
        "TaskError",
        "TaskFailed",
        "Unauthenticated",
        "Unavailable",
        "Unimplemented",
        "Violation",
    ),
    "_mocks": ("Mock", "Mocks"),
    "_task": ("CallbackAfter", "TaskContext", "current_task", "worker"),
    "_worker": ("Worker",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Aborted",
    "AlreadyExists",
    "BusinessError",
    "CallbackAfter",
    "Client",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "InvalidInput",
    "InvalidOutput",
    "MaestosoError",
    "Mock",
    "Mocks",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "ServerError",
    "Start",
    "TaskCanceled",
    "TaskContext",
    "TaskError",
    "TaskFailed",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "Worker",
    "__version__",
    "current_task",
    "worker",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
