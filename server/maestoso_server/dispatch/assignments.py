"""The message that hands a task to a worker, built once per delivery."""

from __future__ import annotations

from functools import partial
from typing import Any

from maestoso.task.v1.task_pb2 import Assignment

from ..engine.names import shown_reference
from ..engine.secrets import reveal
from ..engine.state import Path
from ..executor.placement import Placed
from ..ids import task_id
from ..payload import Json, encode
from ..store.queue import Taken
from ..vault import Vault


class Assignments:
    """Makes the messages. The secrets of a task are put into its input here, on the way out, and
    nowhere else: what is stored keeps their placeholders."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def of_placed(self, placed: Placed, token: bytes) -> Assignment:
        """For a task that was born owned; `token` of its delivery."""
        message = _of_placed(placed, token)
        if placed.row.state is not None:
            self._reveal(message, placed.row.input, placed.row.state, placed.header.namespace)
        return message

    def of_taken(self, taken: Taken, token: bytes) -> Assignment:
        """For a row that was taken from the queue; `token` of its delivery."""
        message = _of_taken(taken, token)
        if taken.state is not None:
            self._reveal(message, taken.input, taken.state, taken.namespace)
        return message

    def _reveal(self, message: Assignment, given: Json, state: dict[str, Any], namespace: str) -> None:
        read = partial(self._vault.read, namespace)
        if "secrets" in state:
            message.input = encode(reveal(given.value, state["secrets"], read))
        for name in state.get("runtime", ()):
            value = read(name)
            if value is None:
                value = self._vault.environment.get(name)
            if value is not None:
                message.runtime_metadata[name] = value


def _of_placed(placed: Placed, token: bytes) -> Assignment:
    header, row, birth = placed.header, placed.row, placed.birth
    return _assignment(
        workflow_id=header.id,
        seq=row.seq,
        token=token,
        reference=row.reference,
        path=row.path,
        generation=row.generation,
        task_type=birth.task_type,
        queue=birth.queue,
        attempt=row.attempt,
        input=row.input.raw,
        redelivery=0,
        priority=birth.priority,
        response_s=birth.response_s,
        scheduled_ms=row.scheduled_ms,
        workflow_name=header.name,
        correlation_id=header.correlation_id or "",
        traceparent=header.traceparent,
    )


def _of_taken(taken: Taken, token: bytes) -> Assignment:
    return _assignment(
        workflow_id=taken.workflow_id,
        seq=taken.seq,
        token=token,
        reference=taken.reference,
        path=taken.path,
        generation=taken.generation,
        task_type=taken.task_type,
        queue=taken.queue,
        attempt=taken.attempt,
        input=taken.input.raw,
        redelivery=taken.unread,
        priority=taken.priority,
        response_s=taken.response_s,
        scheduled_ms=taken.scheduled_ms,
        workflow_name=taken.workflow_name,
        correlation_id=taken.correlation_id,
        traceparent=taken.traceparent,
    )


def _assignment(
    *,
    workflow_id: str,
    seq: int,
    token: bytes,
    reference: str,
    path: Path,
    generation: int,
    task_type: str,
    queue: str,
    attempt: int,
    input: bytes,
    redelivery: int,
    priority: int,
    response_s: int,
    scheduled_ms: int,
    workflow_name: str,
    correlation_id: str,
    traceparent: str,
) -> Assignment:
    name = shown_reference(reference, path)
    message = Assignment(
        token=token,
        task_id=task_id(workflow_id, seq),
        workflow_id=workflow_id,
        reference=name,
        task_type=task_type,
        attempt=attempt,
        input=input,
        redelivery=redelivery,
        priority=priority,
        traceparent=traceparent,
        # A restart is a new intention: its tasks may have their effects again.
        idempotency_key=f"{workflow_id}:{generation}:{name}",
        workflow_name=workflow_name,
        correlation_id=correlation_id,
    )
    schedule_time = message.schedule_time
    schedule_time.seconds, milliseconds = divmod(scheduled_ms, 1000)
    schedule_time.nanos = milliseconds * 1_000_000
    if queue != task_type:
        message.queue = queue
    if response_s:
        message.response_timeout.seconds = response_s
    return message
