"""Which batches a worker is known to have read, and whether it still reads at all.

Batches and pings of one stream share one count. A Pong with a number, or any report about a task
of a batch, proves that everything written before was read, since a stream keeps its order.
Pure: time comes in as `now_ms`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .deliveries import Delivery

WINDOW_BYTES = 256 * 1024
"""Written and not yet proved read: beyond it no further batch is written, so that nothing urgent
waits behind much data, and little is in doubt when a stream breaks."""
PROOF_AFTER_MS = 20
"""A batch without any proof for so long is followed by a Ping."""
IDLE_PING_MS = 1_500
"""A stream on which one side has been silent for so long gets a Ping: the worker's fence (4 s)
must not close on a healthy stream."""
BLOCKED_AFTER_MS = 5_000
"""A Ping unanswered for so long: the worker gets nothing more."""
CLOSE_AFTER_MS = 10_000
"""A Ping unanswered for so long: the stream is closed."""


@dataclass(slots=True)
class Batch:
    number: int
    bytes: int
    deliveries: list[Delivery]
    sent_ms: int


class Proof:
    """The reading side of one stream, as far as it is known here."""

    __slots__ = ("_number", "_pings", "_unpinged_ms", "_unproved", "_unproved_bytes", "_wanted_ms")

    def __init__(self) -> None:
        self._number = 0
        self._unproved: deque[Batch] = deque()
        self._unproved_bytes = 0
        self._unpinged_ms: int | None = None
        """When the oldest batch was written that no Ping has followed yet."""
        self._pings: deque[tuple[int, int]] = deque()
        self._wanted_ms: int | None = None

    @property
    def unproved_bytes(self) -> int:
        return self._unproved_bytes

    def allows(self, size: int) -> bool:
        """Whether a batch of `size` bytes may be written now. The first always may."""
        return not self._unproved or self._unproved_bytes + size <= WINDOW_BYTES

    def wrote_batch(self, deliveries: list[Delivery], size: int, now_ms: int) -> int:
        """Count a batch; returns its number."""
        self._number += 1
        self._unproved.append(Batch(self._number, size, deliveries, now_ms))
        self._unproved_bytes += size
        if self._unpinged_ms is None:
            self._unpinged_ms = now_ms
        return self._number

    def want_ping(self, now_ms: int) -> None:
        """A Ping is due; it counts as unanswered from now, even if the stream is too full to take it."""
        if self._wanted_ms is None:
            self._wanted_ms = now_ms

    @property
    def ping_wanted(self) -> bool:
        return self._wanted_ms is not None

    def wrote_ping(self) -> int:
        """Count the Ping that was wanted; returns its number."""
        assert self._wanted_ms is not None
        self._number += 1
        self._pings.append((self._number, self._wanted_ms))
        self._wanted_ms = None
        self._unpinged_ms = None
        return self._number

    def pong(self, number: int) -> list[Batch] | None:
        """A Pong came: what it proves, or None if no such Ping was ever sent."""
        if not 0 < number <= self._number:
            return None
        while self._pings and self._pings[0][0] <= number:
            self._pings.popleft()
        return self.prove(number)

    def prove(self, number: int) -> list[Batch]:
        """Everything up to `number` was read: the batches of which that is news."""
        proved = []
        unproved = self._unproved
        while unproved and unproved[0].number <= number:
            batch = unproved.popleft()
            self._unproved_bytes -= batch.bytes
            proved.append(batch)
        if not unproved:
            self._unpinged_ms = None
        return proved

    def proof_due_ms(self) -> int | None:
        """When a Ping must follow what was written; None if all is proved or a Ping is on its way."""
        if self._unpinged_ms is None or self._wanted_ms is not None:
            return None
        return self._unpinged_ms + PROOF_AFTER_MS

    def unanswered_since_ms(self) -> int | None:
        """Since when the oldest unanswered Ping has been waiting for its Pong."""
        return self._pings[0][1] if self._pings else self._wanted_ms
