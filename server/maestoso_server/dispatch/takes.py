"""When to take from which queue, and what the answer to a take says of it. Pure; O(1) per task.

A take is made where rows are known or believed to wait and a session has room; one at a time for each
queue. What comes to be known while it is under way is remembered for afterwards, so that no row is
forgotten between two takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..store.queue import Take, Watermark
from .matching import Matching, Ring, Room

TAKE_MOST = 200
"""Rows of one take: as many as ride well in one statement."""
WATERMARK_MS = 1_000
"""How long a watermark is believed."""


LOOK_AGAIN_MS = 1_000
"""A name that is kept back until its window opens is looked at again so soon: its limits may change."""


@dataclass(slots=True)
class TakeRequest:
    """One take to be made: `rooms` have one slot each reserved, in this order."""

    ring: Ring
    rooms: list[Room]
    limited: str | None
    """The task definition under whose limits it takes."""
    skip: tuple[str, ...]
    """Those whose rows it passes over."""
    after: Watermark | None
    watch: int
    """What ends from here on, see `meanwhile`."""

    @property
    def sessions(self) -> list[str]:
        return [room.session_id for room in self.rooms]


class Taker:
    """The takes of all queues of one node."""

    def __init__(self, matching: Matching, *, wake: Callable[[], None], opens: Callable[[int], None]) -> None:
        """`wake` is called when there is a take to make, `opens` with the time at which `look` may find
        one to be made."""
        self._matching = matching
        self._wake = wake
        self._opens = opens
        self._due: deque[Ring] = deque()
        self._kept_back: set[Ring] = set()
        """Rings in which a name waits for its window to open."""

    @property
    def due(self) -> bool:
        return bool(self._due)

    def rows_wait(self, namespace: str, queue: str, *, anew: bool) -> bool:
        """Rows wait in this queue; False: nobody here has room for them. `anew`: what kept rows under a
        limit back may be over."""
        ring = self._matching.waiting(namespace, queue)
        if ring is None:
            return False
        if anew:
            self._slot_freed(ring)
        self.want(ring)
        return ring.has_room()

    def slot_freed(self, namespace: str, queue: str, task_type: str) -> None:
        """One of a limited type ended: the next may run, in whatever domain."""
        ring = self._matching.ring(namespace, queue)
        if ring is not None:
            self._slot_freed(ring)
        for other in self._matching.of_type(namespace, task_type):
            if other is not ring:
                self._slot_freed(other)

    def _slot_freed(self, ring: Ring) -> None:
        ring.takes.freed = True
        self._release(ring, [name for name, opens_ms in ring.takes.kept_back.items() if not opens_ms])

    def look(self, now_ms: int) -> None:
        """Take again under the names whose windows have opened."""
        for ring in list(self._kept_back):
            names = ring.takes.kept_back
            self._release(ring, [name for name, opens_ms in names.items() if 0 < opens_ms <= now_ms])
            later = [opens_ms for opens_ms in names.values() if opens_ms]
            if later:
                self._opens(min(later))
            else:
                self._kept_back.discard(ring)

    def _release(self, ring: Ring, names: Sequence[str]) -> None:
        if names:
            for name in names:
                del ring.takes.kept_back[name]
            ring.takes.after = None  # rows of these names stand before it
            ring.backlog = True
            self.want(ring)

    def made_room(self, room: Room) -> None:
        """A session may have room again."""
        for ring in self._matching.made_room(room):
            self.want(ring)

    def want(self, ring: Ring) -> None:
        """Let a take be made, if it can bring anything."""
        takes = ring.takes
        if not ring.rooms or takes.due or ring.task_type in takes.kept_back:
            return
        takes.due = True
        if not takes.under_way:
            self._due.append(ring)
            self._wake()

    def next(self, now_ms: int, begin: Callable[[], int]) -> TakeRequest | None:
        """The next take to make, its slots reserved; None if there is none now. `begin` gives its
        watch."""
        while self._due:
            ring = self._due.popleft()
            takes = ring.takes
            takes.due = False
            if not ring.backlog or ring.task_type in takes.kept_back:
                continue
            rooms = self._matching.slots(ring, TAKE_MOST)
            if not rooms:
                continue
            takes.under_way = True
            takes.told = takes.freed = False
            after = takes.after if now_ms - takes.after_ms < WATERMARK_MS else None
            return TakeRequest(ring, rooms, takes.limited, tuple(takes.kept_back), after, begin())
        return None

    def came_back(self, request: TakeRequest) -> None:
        """The take is over, well or not: another may be made of its queue."""
        takes = request.ring.takes
        takes.under_way = False
        if takes.due:
            self._due.append(request.ring)
            self._wake()

    def unreserve(self, rooms: Sequence[Room]) -> None:
        """Slots that got no row."""
        for room in rooms:
            room.unreserve(0)
            self.made_room(room)

    def judge(self, request: TakeRequest, take: Take, now_ms: int) -> None:
        """Whether more waits than was taken. A short answer to a take after a watermark proves nothing."""
        ring, takes = request.ring, request.ring.takes
        short = len(take.rows) < len(request.rooms)
        takes.after = None if short else take.rows[-1].watermark
        if request.after is None:
            takes.after_ms = now_ms
        takes.limited = take.limited
        if request.limited is not None:
            takes.limited = request.limited if take.rows or take.limited else None
            if take.limited is not None:
                self._keep_back(ring, take.limited, take.opens_ms, now_ms)
        if short and request.after is None and not take.limited and not takes.told:
            ring.backlog = False
        else:
            self.want(ring)

    def _keep_back(self, ring: Ring, name: str, opens_ms: int, now_ms: int) -> None:
        """The limits of this name are used up. Where all rows of the queue stand under them, no take is
        made any more; of a queue with many names the others go on."""
        takes = ring.takes
        if takes.freed and not opens_ms:
            return
        if name != ring.task_type:
            takes.limited = None
        takes.kept_back[name] = min(opens_ms, now_ms + LOOK_AGAIN_MS) if opens_ms else 0
        if opens_ms:
            self._kept_back.add(ring)
            self._opens(takes.kept_back[name])
