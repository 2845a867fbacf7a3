"""Which session takes a task."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatch_kit import NAMESPACE, make_delivery
from maestoso_server.dispatch.matching import MAX_TRIES, Matching, Room


def open_room(matching: Matching, session_id: str, *queues: str, tasks: int = 2, size: int = 1_000) -> Room:
    room = Room(session_id, NAMESPACE, {queue: queue.rpartition(":")[2] for queue in queues or ("work",)})
    room.declare(tasks, size)
    matching.enter(room)
    for queue in room.queues:
        ring = matching.ring(NAMESPACE, queue)
        assert ring is not None
        ring.backlog = False
    return room


def chosen(matching: Matching, times: int, queue: str = "work", size: int = 1) -> list[str | None]:
    rooms = [matching.reserve(NAMESPACE, queue, size) for _ in range(times)]
    return [room.session_id if room else None for room in rooms]


def test_sessions_take_turns():
    matching = Matching()
    open_room(matching, "a")
    open_room(matching, "b")

    assert chosen(matching, 4) == ["a", "b", "a", "b"]


def test_nobody_gets_more_than_it_declared():
    matching = Matching()
    open_room(matching, "a", tasks=1)
    open_room(matching, "b", tasks=3)

    assert chosen(matching, 5) == ["a", "b", "b", "b", None]


def test_a_capacity_of_zero_stops_deliveries():
    matching = Matching()
    room = open_room(matching, "a", tasks=1)

    room.declare(0, 1_000)

    assert chosen(matching, 1) == [None]


def test_a_task_is_never_born_owned_where_rows_are_known_to_wait():
    matching = Matching()
    open_room(matching, "a")
    matching.waiting(NAMESPACE, "work")

    assert chosen(matching, 1) == [None]


def test_a_queue_that_is_new_here_counts_as_waiting_until_it_was_looked_at():
    matching = Matching()
    room = Room("a", NAMESPACE, {"work": "work"})
    room.declare(1, 1_000)

    due = matching.enter(room)

    assert [ring.queue for ring in due] == ["work"]
    assert chosen(matching, 1) == [None]


def test_queues_and_namespaces_are_apart():
    matching = Matching()
    open_room(matching, "a", "work")
    open_room(matching, "b", "blue:work")

    assert chosen(matching, 1, "blue:work") == ["b"]
    assert chosen(matching, 1, "other") == [None]
    assert matching.reserve("elsewhere", "work", 1) is None


def test_a_task_larger_than_the_capacity_in_bytes_goes_alone():
    matching = Matching()
    room = open_room(matching, "a", tasks=5, size=10)

    assert chosen(matching, 1, size=50) == ["a"]
    assert chosen(matching, 1, size=1) == [None]

    room.unreserve(50)
    room.hold(make_delivery(1, size=1))
    assert chosen(matching, 1, size=50) == [None]


def test_sessions_with_too_few_bytes_are_passed_over_a_few_times_only():
    matching = Matching()
    for number in range(MAX_TRIES + 1):
        open_room(matching, f"small{number}", tasks=5, size=10).hold(make_delivery(number + 1, size=5))
    open_room(matching, "large", tasks=5, size=1_000)

    # Four tries, then it waits; but the ring has turned, so the next one gets further.
    assert chosen(matching, 2, size=100) == [None, "large"]


def test_room_that_is_made_brings_a_session_back_into_all_its_rings():
    matching = Matching()
    room = open_room(matching, "a", "x", "y", tasks=1)
    held = make_delivery(1)
    room.hold(held)
    assert chosen(matching, 1, "x") == [None]
    assert chosen(matching, 1, "y") == [None]

    room.release(held)
    matching.made_room(room)

    assert chosen(matching, 1, "y") == ["a"]


def test_room_that_is_made_starts_takes_of_the_queues_that_were_met_full():
    matching = Matching()
    room = open_room(matching, "a", "x", "y", "z", tasks=1)
    held = make_delivery(1)
    room.hold(held)
    for queue in ("x", "y"):
        ring = matching.waiting(NAMESPACE, queue)
        assert ring is not None
        assert matching.slots(ring, 10) == []

    room.release(held)

    assert {ring.queue for ring in matching.made_room(room)} == {"x", "y"}
    assert matching.made_room(room) == []


def test_a_session_that_left_is_in_no_ring():
    matching = Matching()
    room = open_room(matching, "a")
    matching.leave(room)

    assert chosen(matching, 1) == [None]
    assert matching.queues() == []
    assert matching.of_type(NAMESPACE, "work") == ()


def test_a_withdrawn_queue_is_offered_no_more():
    matching = Matching()
    room = open_room(matching, "a", "x", "y")
    matching.withdraw(room, "x")

    assert chosen(matching, 1, "x") == [None]
    assert chosen(matching, 1, "y") == ["a"]


class Rings(RuleBasedStateMachine):
    """However sessions come, go, fill and empty: nobody gets more than it takes, and whoever has room
    is found by every queue that it takes from."""

    def __init__(self) -> None:
        super().__init__()
        self.matching = Matching()
        self.rooms: dict[str, Room] = {}
        self.names = iter(range(10_000))
        self.seqs = iter(range(1, 100_000))

    @rule(queues=st.sets(st.sampled_from("xyz"), min_size=1), tasks=st.integers(0, 3))
    def enter(self, queues: set[str], tasks: int) -> None:
        name = str(next(self.names))
        self.rooms[name] = open_room(self.matching, name, *sorted(queues), tasks=tasks, size=100)

    @precondition(lambda self: self.rooms)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.rooms)))
        self.matching.leave(self.rooms.pop(name))

    @rule(queue=st.sampled_from("xyz"), size=st.sampled_from([1, 40, 200]))
    def take(self, queue: str, size: int) -> None:
        room = self.matching.reserve(NAMESPACE, queue, size)
        if room is not None:
            assert queue in room.queues
            room.unreserve(size)
            assert room.fits(size)
            room.hold(make_delivery(next(self.seqs), size=size))

    @precondition(lambda self: any(room.held for room in self.rooms.values()))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        full = sorted(name for name, room in self.rooms.items() if room.held)
        room = self.rooms[data.draw(st.sampled_from(full))]
        room.release(next(iter(room.held.values())))
        self.matching.made_room(room)

    @precondition(lambda self: self.rooms)
    @rule(data=st.data(), tasks=st.integers(0, 4))
    def declare(self, data: st.DataObject, tasks: int) -> None:
        room = self.rooms[data.draw(st.sampled_from(sorted(self.rooms)))]
        room.declare(tasks, 100)
        self.matching.made_room(room)

    @invariant()
    def held_is_what_is_counted(self) -> None:
        for room in self.rooms.values():
            assert room.held_bytes == sum(delivery.size for delivery in room.held.values())
            assert room.reserved == 0
            assert room.reserved_bytes == 0
            alone = len(room.held) == 1
            assert alone or room.held_bytes <= 100

    @invariant()
    def whoever_has_room_stands_in_its_rings(self) -> None:
        for room in self.rooms.values():
            if room.free > 0:
                for queue in room.queues:
                    ring = self.matching.ring(NAMESPACE, queue)
                    assert ring is not None
                    assert room in ring.rooms


TestRings = Rings.TestCase
TestRings.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_short_tasks_go_to_one_session_several_at_once_and_long_ones_one_by_one():
    matching = Matching()
    open_room(matching, "a", tasks=100)
    open_room(matching, "b", tasks=100)
    ring = matching.ring(NAMESPACE, "work")
    assert ring is not None

    for _ in range(200):
        ring.ended(5)
    assert chosen(matching, 20) == ["a"] * 10 + ["b"] * 10
    for _ in range(200):
        ring.ended(10_000)
    assert chosen(matching, 4) == ["a", "b", "a", "b"]
