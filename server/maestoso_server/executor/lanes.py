"""One lane per workflow: the events that wait for it, and what the process knows of it.

Events of one workflow are decided in order, one decision at a time; a lane that is busy lets its
events wait and ride together in the next batch. This file holds no rule and does no I/O.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from ..engine.decision import Decision, Outcome
from ..engine.events import Event
from ..engine.needs import Need
from ..engine.state import Header, View

Done = Callable[[Outcome | Exception], None]
"""Called once, after the commit (or the refusal) of an event. Must not block or raise."""


@dataclass(slots=True)
class Item:
    """One event on its way, with who waits for it.

    `message_id` names the inbox row that carries the event (0 = none). `header` is set when the
    event begins the workflow, `metadata_revision` when that start depends on registered definitions.
    `origin_epoch` is the node that waits for the outcome of a forwarded command (0 = none).
    """

    event: Event
    done: Done | None = None
    message_id: int = 0
    header: Header | None = None
    metadata_revision: int | None = None
    origin_epoch: int = 0


@dataclass(slots=True, eq=False)
class Lane:
    """The waiting and the running events of one workflow."""

    workflow_id: str
    pending: list[Item] = field(default_factory=list)
    running: list[Item] = field(default_factory=list)
    behind: list[Item] = field(default_factory=list)
    """Commands that wait until a bounded decision's rest is done."""
    view: View | None = None
    busy: bool = False
    queued: bool = False
    reload: bool = False
    """The inbox may hold messages that this process was not told: load before deciding."""
    checked: bool = False
    """The view was read after the running events arrived. One that was not may be outdated by another node:
    it is good for a save, which checks it, and for no other answer."""
    lost_races: int = 0
    decider: Generator[list[Need], list[Any], Decision] | None = None
    batch: object | None = None
    """The batch that it rides in; None while it is out of one (idle, or its scripts are evaluated)."""
    answers: list[Any] | None = None
    """Answers that arrived while the lane was out of the batch (scripts)."""


class Lanes:
    """The lanes with something to do, in the order in which they asked, and the idle views.

    Lanes exist only while they have events; between events only the view is kept, the least
    recently used ones first to go.
    """

    def __init__(self, *, views_max: int) -> None:
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[Lane] = deque()
        self._views: OrderedDict[str, View] = OrderedDict()
        self._views_max = views_max

    def __len__(self) -> int:
        return len(self._ready)

    def lane(self, workflow_id: str) -> Lane:
        """The lane of a workflow, made on first use with the cached view."""
        lane = self._lanes.get(workflow_id)
        if lane is None:
            lane = self._lanes[workflow_id] = Lane(workflow_id)
            lane.view = self._views.pop(workflow_id, None)
        return lane

    def queue(self, lane: Lane) -> None:
        """Let the lane ride in the next batch, unless it is in one or waits already."""
        if not lane.busy and not lane.queued:
            lane.queued = True
            self._ready.append(lane)

    def take(self, limit: int) -> list[Lane]:
        """Up to `limit` ready lanes, now busy, with their pending events running."""
        taken: list[Lane] = []
        ready = self._ready
        while ready and len(taken) < limit:
            lane = ready.popleft()
            lane.queued = False
            lane.busy = True
            if lane.decider is None:
                lane.running.extend(lane.pending)
                lane.pending.clear()
                lane.checked = False
            taken.append(lane)
        return taken

    def rest(self, lane: Lane) -> None:
        """The lane's batch is over: queue it again if more came, else keep only its view."""
        lane.busy = False
        lane.decider = None
        lane.answers = None
        if lane.running or lane.pending or lane.reload:
            self.queue(lane)
            return
        if lane.behind:
            return
        del self._lanes[lane.workflow_id]
        if lane.view is not None and not lane.view.header.status.terminal:
            self._views[lane.workflow_id] = lane.view
            while len(self._views) > self._views_max:
                self._views.popitem(last=False)

    def forget_views(self) -> None:
        """Drop every idle view (after an outage: others may have written meanwhile). A decision under way
        keeps its own, also while it waits for its turn with a script's answer: its save checks it."""
        self._views.clear()
        for lane in self._lanes.values():
            if not lane.busy and lane.decider is None:
                lane.view = None

    def running_count(self) -> int:
        return len(self._lanes)
