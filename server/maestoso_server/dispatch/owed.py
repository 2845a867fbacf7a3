"""What dispatch owes the database: collected by the dispatcher, carried out by the loops."""

from __future__ import annotations

from dataclasses import dataclass, field

from maestoso.task.v1.task_pb2 import TaskResult

from ..store.logs import NewLine
from .deliveries import Delivery
from .session import Session


@dataclass(slots=True)
class Owed:
    """Whoever takes something from here puts back what could not be written."""

    reads: list[Delivery] = field(default_factory=list)
    hand_backs: dict[Delivery, int] = field(default_factory=dict)
    """Delivery -> not before this time; 0 = at once."""
    progress: dict[Delivery, bytes] = field(default_factory=dict)
    """Delivery -> its output so far; b"" = unchanged."""
    logs: list[NewLine] = field(default_factory=list)
    detached: list[Session] = field(default_factory=list)
    """Sessions whose stream has ended."""
    nameless: list[tuple[Session, TaskResult]] = field(default_factory=list)
    """Results that name a task instead of a delivery."""
