"""What ended while a statement was under way whose answer may tell of it as alive.

A take, or the resume of a session, is answered some time after it was applied. Whatever this node
learns in between is newer than the answer.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable


class Meanwhile:
    """Remembers endings as long as anybody who began before them has not come back. O(1), amortised."""

    __slots__ = ("_last", "_number", "_order", "_watches")

    def __init__(self) -> None:
        self._number = 0
        self._watches: OrderedDict[int, None] = OrderedDict()
        self._order: deque[tuple[int, Hashable]] = deque()
        self._last: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._order)

    def begin(self) -> int:
        """A statement is about to be sent; every one must `end`."""
        self._number += 1
        self._watches[self._number] = None
        return self._number

    def note(self, ending: Hashable) -> None:
        """It has ended."""
        if self._watches:
            self._number += 1
            self._order.append((self._number, ending))
            self._last[ending] = self._number

    def ended_since(self, watch: int, ending: Hashable) -> bool:
        """Whether it ended after `begin` returned this watch."""
        return self._last.get(ending, 0) > watch

    def end(self, watch: int) -> None:
        """The statement has come back, and its answer was dealt with."""
        self._watches.pop(watch, None)
        oldest = next(iter(self._watches), self._number + 1)
        order = self._order
        while order and order[0][0] < oldest:
            number, ending = order.popleft()
            if self._last[ending] == number:
                del self._last[ending]
