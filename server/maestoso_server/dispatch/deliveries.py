"""What this node owns: one `Delivery` for each row of `task_queue` that carries its epoch.

    PLACED --written--> SENT --proof--> READ --result--> REPORTED --committed--> OVER
       |                  |               ^                  |
       +--handed back, cancelled, lost----+----unavailable---+

A delivery takes capacity of its session while it is PLACED, SENT or READ. REPORTED means that its
result is with the executor: the capacity is free again, the row is still owned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from maestoso.task.v1.task_pb2 import Assignment


class State(IntEnum):
    PLACED = 1
    """Committed as owned by the session; not yet written to its stream."""
    SENT = 2
    """Written to the stream; nobody knows whether it was read."""
    READ = 3
    """The worker is known to have read it."""
    REPORTED = 4
    """The worker's result is on its way to the store."""
    OVER = 5
    """No longer this node's: ended, handed back, or taken by another node."""


@dataclass(slots=True, eq=False)
class Delivery:
    """One hand-out of one task to one session of this node."""

    token: bytes
    workflow_id: str
    seq: int
    delivery: int
    """The fencing token: the `delivery` column of its row."""
    namespace: str
    queue: str
    task_type: str
    size: int
    """Bytes of input."""
    limit: int
    """`concurrentExecLimit` of its definition; 0 = none: its end may let another one run."""
    session_id: str
    worker_id: str
    assignment: Assignment | None = None
    """The message for the worker; dropped once it was written."""
    state: State = State.PLACED
    batch: int = 0
    """The number of the batch it was written in, on its session's stream; 0 = not yet."""
    due_ms: int = 0
    """Since when it might have run."""
    sent_ms: int = 0
    started_ms: int = 0
    """When it was known to be read; 0 = not yet."""
    progress_ms: int = 0
    """When the worker last said that it goes on; 0 = never."""


class Deliveries:
    """The node's deliveries, by token and by task. All steps are O(1)."""

    __slots__ = ("_by_task", "_by_token")

    def __init__(self) -> None:
        self._by_token: dict[bytes, Delivery] = {}
        self._by_task: dict[tuple[str, int], Delivery] = {}

    def __len__(self) -> int:
        return len(self._by_token)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self._by_token.values())

    def add(self, delivery: Delivery) -> Delivery | None:
        """Take it in; returns an older delivery of the same task that it supersedes, if any."""
        key = (delivery.workflow_id, delivery.seq)
        older = self._by_task.get(key)
        if older is not None:
            del self._by_token[older.token]
        self._by_task[key] = delivery
        self._by_token[delivery.token] = delivery
        return older

    def get(self, token: bytes) -> Delivery | None:
        return self._by_token.get(token)

    def find(self, workflow_id: str, seq: int) -> Delivery | None:
        return self._by_task.get((workflow_id, seq))

    def drop(self, delivery: Delivery) -> None:
        """Forget it; a delivery that is not here is no error."""
        if self._by_token.get(delivery.token) is delivery:
            del self._by_token[delivery.token]
            del self._by_task[delivery.workflow_id, delivery.seq]
