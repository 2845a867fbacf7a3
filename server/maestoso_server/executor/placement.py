"""What the executor asks of dispatch: who takes a task that is about to be born.

Dispatch lives a floor above and hands its implementation in; `Nowhere` is the one for a process
without workers (tests, `maestoso migrate`): every task waits in the queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..engine.decision import QueueBirth
from ..engine.state import Header, TaskRow


@dataclass(slots=True)
class Placed:
    """A task that was born owned by a session of this node: send it. Its delivery is 1."""

    header: Header
    row: TaskRow
    birth: QueueBirth
    session_id: str
    delivery: int = 1


class Placement(Protocol):
    """Every method is O(1) per task and never waits."""

    def reserve(self, namespace: str, birth: QueueBirth) -> str | None:
        """The session with free capacity that takes this task, its capacity now held; None: wait."""
        ...

    def unreserve(self, session_id: str, birth: QueueBirth) -> None:
        """Give back what `reserve` held: the task was not born, or not owned."""
        ...

    def placed(self, placed: Sequence[Placed]) -> None:
        """These were committed: send them."""
        ...

    def waiting(self, namespace: str, births: Sequence[QueueBirth]) -> None:
        """Rows of these queues were committed without an owner."""
        ...

    def ended(self, workflow_id: str, seqs: Iterable[int]) -> None:
        """The queue rows of these tasks ended: free what they hold, tell workers that run them."""
        ...

    def slots_freed(self, namespace: str, queues: Iterable[tuple[str, str]]) -> None:
        """Tasks of these (queue, task type) under a `concurrentExecLimit` ended: others may run."""
        ...

    def workflow_slots_changed(self) -> None:
        """Slots of workflows under a `rateLimitConfig` may be given."""
        ...

    def ended_elsewhere(self, owner_epochs: Iterable[int]) -> None:
        """Rows owned by these nodes were marked ended: hint to them."""
        ...

    def messages_wait_at(self, epoch: int, workflow_id: str) -> None:
        """A message was put for a workflow that the node `epoch` drains: hint to it."""
        ...

    def answers_wait_at(self, epoch: int) -> None:
        """A command that the node `epoch` has forwarded was answered: hint to it."""
        ...

    def deadline(self, due_ms: int) -> None:
        """A deadline was committed: wake for it in time."""
        ...

    def outcome_unknown(self) -> None:
        """A save may have been applied although its reply was lost: DELIVERY 12."""
        ...


class Nowhere:
    """No worker is here."""

    def reserve(self, namespace: str, birth: QueueBirth) -> str | None:
        return None

    def unreserve(self, session_id: str, birth: QueueBirth) -> None: ...

    def placed(self, placed: Sequence[Placed]) -> None: ...

    def waiting(self, namespace: str, births: Sequence[QueueBirth]) -> None: ...

    def ended(self, workflow_id: str, seqs: Iterable[int]) -> None: ...

    def slots_freed(self, namespace: str, queues: Iterable[tuple[str, str]]) -> None: ...

    def workflow_slots_changed(self) -> None: ...

    def ended_elsewhere(self, owner_epochs: Iterable[int]) -> None: ...

    def messages_wait_at(self, epoch: int, workflow_id: str) -> None: ...

    def answers_wait_at(self, epoch: int) -> None: ...

    def deadline(self, due_ms: int) -> None: ...

    def outcome_unknown(self) -> None: ...
