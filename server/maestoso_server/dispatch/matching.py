"""Which session takes a task: for each queue a ring of the sessions that have room.

Pure and O(1) per task, amortised. A ring drops a session when somebody meets it without room there,
and takes it back when room is made; each drop is paid by one meeting and each return by one drop,
so nobody ever scans the sessions of a queue.

The law that keeps tasks from being forgotten: a ring with `backlog` either has no session with room,
or a take of its queue is under way. `made_room` and `waiting` name the rings for which one must
be started.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..store.queue import Watermark
from .deliveries import Delivery

MAX_TRIES = 4
"""How many sessions with too few bytes left a reservation meets before it gives up."""


STINT_MS = 50
"""Tasks that a session ends within this time are given to it several at once: one message instead of
many. Longer ones are spread one by one, since each waits for the one before it at the same worker."""
STINT_MAX = 16
"""Tasks given to one session in a row at most."""


class Room:
    """What one session holds, and how much more it takes.

    What is held counts as long as it is in `_held`; nothing is subtracted from a declared capacity.
    A slot is *reserved* from the choice of the session until the commit that gives it a task.
    """

    __slots__ = (
        "_dropped_from",
        "_held",
        "births",
        "births_shut",
        "held_bytes",
        "max_bytes",
        "max_tasks",
        "namespace",
        "open",
        "queues",
        "reserved",
        "reserved_bytes",
        "resting",
        "session_id",
    )

    def __init__(self, session_id: str, namespace: str, queues: Mapping[str, str]) -> None:
        """`queues` that it takes from: queue -> task type."""
        self.session_id = session_id
        self.namespace = namespace
        self.queues = dict(queues)
        self.max_tasks = 0
        self.max_bytes = 0
        self.open = True
        """False while nothing may be sent: blocked, draining, closed."""
        self.resting = False
        """A task did not fit, or the worker was busy: takes nothing until something changes."""
        self.reserved = 0
        self.reserved_bytes = 0
        self.births = 0
        """Slots reserved for tasks about to be born: settled by the executor, which knows the session
        by its id only."""
        self.births_shut = False
        """An older stream of the session has such slots still: none of ours may be taken for them."""
        self._held: dict[bytes, Delivery] = {}
        self.held_bytes = 0
        self._dropped_from: list[Ring] = []

    @property
    def held(self) -> dict[bytes, Delivery]:
        """By token, in the order of hand-out. Only read it."""
        return self._held

    @property
    def free(self) -> int:
        """How many more tasks it takes, as far as their size allows."""
        if not self.open or self.resting:
            return 0
        used = len(self._held) + self.reserved
        if used and self.held_bytes + self.reserved_bytes >= self.max_bytes:
            return 0
        return max(0, self.max_tasks - used)

    def fits(self, size: int) -> bool:
        """Whether a task of this size may be sent; one that is larger than the capacity goes alone."""
        if self.free <= 0:
            return False
        alone = not self._held and not self.reserved
        return alone or self.held_bytes + self.reserved_bytes + size <= self.max_bytes

    def declare(self, max_tasks: int, max_bytes: int) -> None:
        """A new absolute capacity. What is held already stays, also where it is more."""
        self.max_tasks = max_tasks
        self.max_bytes = max_bytes
        self.resting = False

    def reserve(self, size: int) -> None:
        self.reserved += 1
        self.reserved_bytes += size

    def unreserve(self, size: int) -> None:
        assert self.reserved > 0, "a slot was given back twice"
        self.reserved -= 1
        self.reserved_bytes -= size

    def part_births(self) -> Room:
        """Give the slots of tasks about to be born to a room of the past; returns that."""
        past = Room(self.session_id, self.namespace, {})
        past.open = False
        past.births = past.reserved = self.births
        past.reserved_bytes = self.reserved_bytes  # slots for takes have no size
        self.reserved -= self.births
        self.births = self.reserved_bytes = 0
        return past

    def hold(self, delivery: Delivery) -> None:
        """Count a delivery; no reservation is asked for (a worker resumes with what it holds)."""
        assert delivery.token not in self._held
        self._held[delivery.token] = delivery
        self.held_bytes += delivery.size

    def release(self, delivery: Delivery) -> bool:
        """Stop counting a delivery. False if it was not counted."""
        if self._held.pop(delivery.token, None) is None:
            return False
        self.held_bytes -= delivery.size
        self.resting = False
        return True


@dataclass(slots=True)
class Takes:
    """Where the taking from one queue stands; kept by the dispatcher."""

    due: bool = False
    """A take is to be made."""
    under_way: bool = False
    told: bool = False
    """Rows were said to wait since the last take began."""
    limited: str | None = None
    """The task definition under whose limits the row at the head stands."""
    kept_back: dict[str, int] = field(default_factory=dict)
    """Names whose limits are used up -> when to look again; 0: when one of their tasks ends."""
    freed: bool = False
    """One of them may have ended since the last take began."""
    after: Watermark | None = None
    after_ms: int = 0
    """When the first take of this watermark was made."""


class Ring:
    """The sessions that take from one queue; those with room in the order of their turns."""

    __slots__ = (
        "_given",
        "_held_ms",
        "_stint",
        "backlog",
        "members",
        "namespace",
        "queue",
        "rooms",
        "takes",
        "task_type",
    )

    def __init__(self, namespace: str, queue: str, task_type: str) -> None:
        self.namespace = namespace
        self.queue = queue
        self.task_type = task_type
        self.backlog = False
        """Rows are known to wait: a new task must not overtake them."""
        self.takes = Takes()
        self.members = 0
        self.rooms: OrderedDict[Room, None] = OrderedDict()
        self._held_ms = float(STINT_MS)
        self._stint = 1
        self._given = 0

    def ended(self, held_ms: int) -> None:
        """A task of this queue was held for so long: how many one session gets in a row follows."""
        self._held_ms += (held_ms - self._held_ms) / 16
        self._stint = min(STINT_MAX, round(STINT_MS / max(self._held_ms, 1.0))) or 1

    def has_room(self) -> bool:
        """Whether any session has room. Drops those met without."""
        rooms = self.rooms
        while rooms:
            room = next(iter(rooms))
            if room.free > 0:
                return True
            self._drop(room)
        return False

    def _drop(self, room: Room) -> None:
        del self.rooms[room]
        room._dropped_from.append(self)

    def reserve(self, size: int, *, birth: bool = False) -> Room | None:
        """Reserve a slot at the session whose turn it is; None where nobody has room."""
        rooms = self.rooms
        tries = MAX_TRIES
        while rooms and tries:
            room = next(iter(rooms))
            if room.free <= 0:
                self._drop(room)
                self._given = 0
                continue
            self._given += 1
            if self._given >= self._stint or not room.fits(size):
                rooms.move_to_end(room)
                self._given = 0
            if room.fits(size) and not (birth and room.births_shut):
                room.reserve(size)
                room.births += birth
                return room
            tries -= 1
        return None


class Matching:
    """The rings of all queues that somebody on this node takes from."""

    def __init__(self) -> None:
        self._rings: dict[tuple[str, str], Ring] = {}
        self._by_type: dict[tuple[str, str], set[Ring]] = {}

    def ring(self, namespace: str, queue: str) -> Ring | None:
        return self._rings.get((namespace, queue))

    def of_type(self, namespace: str, task_type: str) -> Sequence[Ring]:
        """The rings of a task type, in whatever domain."""
        return tuple(self._by_type.get((namespace, task_type), ()))

    def queues(self) -> list[tuple[str, str]]:
        """(namespace, queue) of every ring: the node's demand."""
        return list(self._rings)

    def enter(self, room: Room) -> list[Ring]:
        """A session opened: returns the rings for which a take must be started. Nobody knows yet what
        waits in a queue that is new here."""
        due = []
        for queue, task_type in room.queues.items():
            ring = self._rings.get((room.namespace, queue))
            if ring is None:
                ring = self._rings[room.namespace, queue] = Ring(room.namespace, queue, task_type)
                ring.backlog = True
                self._by_type.setdefault((room.namespace, task_type), set()).add(ring)
            ring.members += 1
            ring.rooms[room] = None
            if ring.backlog:
                due.append(ring)
        return due

    def leave(self, room: Room) -> None:
        """A session ended. O(its queues)."""
        room.open = False
        for queue in list(room.queues):
            self.withdraw(room, queue)

    def withdraw(self, room: Room, queue: str) -> None:
        """A session takes no more from one queue."""
        if room.queues.pop(queue, None) is None:
            return
        ring = self._rings[room.namespace, queue]
        ring.rooms.pop(room, None)
        ring.members -= 1
        if ring in room._dropped_from:
            room._dropped_from.remove(ring)
        if not ring.members:
            del self._rings[room.namespace, queue]
            of_type = self._by_type[room.namespace, ring.task_type]
            of_type.discard(ring)
            if not of_type:
                del self._by_type[room.namespace, ring.task_type]

    def reserve(self, namespace: str, queue: str, size: int) -> Room | None:
        """A slot for a task about to be born, or None where it has to wait: nobody has room, or rows
        wait already."""
        ring = self._rings.get((namespace, queue))
        if ring is None or ring.backlog:
            return None
        return ring.reserve(size, birth=True)

    def slots(self, ring: Ring, at_most: int) -> list[Room]:
        """Reserve up to `at_most` slots for rows about to be taken, whose sizes nobody knows yet."""
        slots: list[Room] = []
        while len(slots) < at_most and (room := ring.reserve(0)) is not None:
            slots.append(room)
        return slots

    def free(self, namespace: str, queue: str) -> int:
        """Slots of a queue right now. O(sessions with room): for people and metrics."""
        ring = self._rings.get((namespace, queue))
        return sum(room.free for room in ring.rooms) if ring else 0

    def with_room(self) -> set[tuple[str, str]]:
        """(namespace, queue) of those that would take a task now. O(queues), for the beat."""
        return {key for key, ring in self._rings.items() if ring.rooms}

    def waiting(self, namespace: str, queue: str) -> Ring | None:
        """Rows wait in this queue: returns its ring, if it has one. Where that has `rooms`, a take must
        be started."""
        ring = self._rings.get((namespace, queue))
        if ring is not None:
            ring.backlog = True
            ring.takes.told = True
        return ring

    def made_room(self, room: Room) -> list[Ring]:
        """A session may have room again: returns the rings for which a take must be started."""
        if not room._dropped_from or room.free <= 0:
            return []
        due = []
        for ring in room._dropped_from:
            ring.rooms[room] = None
            if ring.backlog:
                due.append(ring)
        room._dropped_from.clear()
        return due
