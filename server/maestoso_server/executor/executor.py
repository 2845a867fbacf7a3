"""The one place where engine, store and scripting meet: load, decide, save; on a lost race, again.

Events of all workflows ride together: a batch is whatever arrived while the last one was being
written. A second batch goes under way only when many workflows wait. Nobody is answered before
the commit, and nothing that is owed lives here alone: whatever a crash of this process loses is
a row somewhere (a delivery, a deadline, a message) and comes again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from ..clock import Clock
from ..definitions.keys import KeyPolicy
from ..engine import keys
from ..engine.decide import decide
from ..engine.decision import Decision, Message, Outcome, QueueBirth, Verdict
from ..engine.events import Event, Follow, Start
from ..engine.needs import Script, ScriptAnswer
from ..engine.state import Header, View
from ..store import idempotency, inbox, queue
from ..store.database import Database, Unavailable
from ..store.load import InboxMessage, LoadRequest, load
from ..store.save import SaveResult, WorkflowSave, save
from ..telemetry import Metrics
from . import routing
from .answers import Answers
from .forwarding import RACES_MAX, Forwarding, encode_outcome
from .lanes import Done, Item, Lane, Lanes
from .meters import Meters
from .placement import Placed, Placement
from .plans import Plans

log = logging.getLogger(__name__)

BATCH_MAX = 200
"""Workflows a batch: past about 100 only latency grows."""
SECOND_BATCH_AT = 50
"""Ready lanes that make a second batch in flight worth its smaller batches."""
VIEWS_MAX = 20_000
"""Idle workflows whose view is kept, at about 2 KiB each."""
CLOSED_ROWS_MAX = 600
"""Ended rows that a view may hold beyond its open ones, before it keeps the open ones only."""


class Executor:
    """Takes events, answers after their commit. One per process."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        plans: Plans,
        answers: Answers,
        placement: Placement,
        epoch: Callable[[], int],
        metrics: Metrics | None = None,
    ) -> None:
        self._meters = Meters(metrics or Metrics())
        self.changes = routing.Changes()
        self._database = database
        self._clock = clock
        self._plans = plans
        self._answers = answers
        self._placement = placement
        self._epoch = epoch
        self._forwarding = Forwarding(database=database, placement=placement, epoch=epoch)
        self._lanes = Lanes(views_max=VIEWS_MAX)
        self._in_flight = 0
        self._parked = 0
        self._flush_due = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = random.Random()

    # -- the door ----------------------------------------------------------------------------

    def submit(self, workflow_id: str, event: Event, done: Done | None = None) -> None:
        """Let `event` happen to a workflow. `done` is called once, after the commit, with the
        engine's outcome, or with `Unavailable` / `NotFound`. Never blocks."""
        self._enqueue(workflow_id, Item(event, done))

    async def apply(self, workflow_id: str, event: Event) -> Outcome:
        """`submit`, awaited. Raises what `done` would have been given as an exception."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.submit(workflow_id, event, resolver(future))
        return await future

    def begin(self, header: Header, event: Event, metadata_revision: int | None, done: Done) -> None:
        """Start the workflow of this new header."""
        item = Item(event, done, header=header, metadata_revision=metadata_revision)
        self._enqueue(header.id, item)

    def drain(self, workflow_id: str) -> None:
        """There are messages in the inbox for this workflow that nobody here was told of."""
        lane = self._lanes.lane(workflow_id)
        lane.reload = True
        self._lanes.queue(lane)
        self._kick()

    def receive(self, messages: Sequence[InboxMessage]) -> None:
        """Apply these inbox rows. One that another node applies first changes nothing here."""
        now_ms = self._clock.now_ms()
        for message in messages:
            self._enqueue(message.workflow_id, routing.received(message, now_ms, self.seed()))

    def answered(self, message_id: int, outcome: bytes) -> None:
        """A command that was forwarded to another node has its outcome."""
        self._forwarding.answered(message_id, outcome)

    async def wake(self, workflow_id: str) -> int:
        """Have the tasks of a workflow that sleep (callbackAfterSeconds, a delay) taken now; how many."""
        now_ms = self._clock.now_ms()
        async with self._database.acquire() as connection:
            woken = await queue.wake(connection, workflow_id, now_ms=now_ms)
        if woken:
            self._placement.deadline(now_ms)
        return woken

    def seed(self) -> int:
        """Randomness for one event: the engine makes none itself."""
        return self._random.getrandbits(63)

    def forget_views(self) -> None:
        """After an outage or a new epoch: believe the database only."""
        self._lanes.forget_views()

    async def idle(self) -> None:
        """Return when no event waits or is under way."""
        await self._idle.wait()

    # -- batches -----------------------------------------------------------------------------

    def _enqueue(self, workflow_id: str, item: Item) -> None:
        lane = self._lanes.lane(workflow_id)
        lane.pending.append(item)
        self._lanes.queue(lane)
        self._kick()

    def _kick(self) -> None:
        """Flush soon, so that what arrives together rides together."""
        if not self._flush_due and self._may_flush():
            self._flush_due = True
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._flush_next)

    def _may_flush(self) -> bool:
        """One batch at a time, since what waits makes the next one larger and cheaper; a second one
        only where very many wait. (Overlapping more of them while the disk is slow was tried: smaller
        batches cost 30 % more processor at 64 in flight and gave nothing back.)"""
        return self._in_flight == 0 or (self._in_flight == 1 and len(self._lanes) >= SECOND_BATCH_AT)

    def _flush_next(self) -> None:
        """One turn later still: what the sockets hold right now rides along (8 % more tasks a second at
        64 in flight, at the price of one empty turn of the loop)."""
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        lanes = self._lanes.take(BATCH_MAX)
        if lanes:
            self._in_flight += 1
            task = asyncio.get_running_loop().create_task(self._batch(lanes))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._rest()

    def _rest(self) -> None:
        if self._in_flight == 0 and self._parked == 0 and not self._flush_due and not len(self._lanes):
            self._idle.set()

    async def _batch(self, lanes: list[Lane]) -> None:
        batch = object()
        for lane in lanes:
            lane.batch = batch
        try:
            try:
                await self._load(lanes)
                decided = await self._decide(lanes)
                await self._save(decided)
            except Unavailable as refusal:
                self._give_up([lane for lane in lanes if lane.batch is batch], refusal)
            except Exception as bug:
                log.exception("batch failed", extra={"workflows": [lane.workflow_id for lane in lanes]})
                await self._isolate([lane for lane in lanes if lane.batch is batch], bug)
        finally:
            self._in_flight -= 1
            for lane in lanes:
                if lane.batch is batch:
                    lane.batch = None
                    self._lanes.rest(lane)
            if len(self._lanes):
                self._kick()
            else:
                self._rest()

    # -- load --------------------------------------------------------------------------------

    async def _load(self, lanes: Sequence[Lane]) -> None:
        """Give every lane a view that holds the rows its events name, and its inbox."""
        requests: dict[str, LoadRequest] = {}
        for lane in lanes:
            if lane.decider is None:
                request = self._request(lane)
                if request is not None:
                    requests[lane.workflow_id] = request
        if not requests:
            return
        async with self._database.acquire() as connection:
            loaded = await load(connection, list(requests.values()), now_ms=self._clock.now_ms())
        self._meters.loaded(len(requests))
        for lane in lanes:
            if lane.workflow_id in requests:
                routing.take_in(lane, loaded.get(lane.workflow_id), self._clock.now_ms(), self.seed)

    def _request(self, lane: Lane) -> LoadRequest | None:
        view = lane.view
        if view is None:
            first = lane.running[0] if lane.running else None
            if first is not None and first.header is not None and not lane.reload:
                lane.view = View(first.header, whole=True)
                lane.checked = True
                return None
            return LoadRequest(lane.workflow_id, routing.named(lane.running))
        if lane.reload:
            return LoadRequest(lane.workflow_id, routing.named(lane.running))
        if view.whole:
            return None
        missing = [seq for seq in routing.named(lane.running) if seq not in view.tasks]
        return LoadRequest(lane.workflow_id, missing) if missing else None

    # -- decide ------------------------------------------------------------------------------

    async def _decide(self, lanes: Sequence[Lane]) -> list[tuple[Lane, Decision]]:
        """Run every lane's decider to its decision, answering needs of all lanes together. A lane
        that waits for a script leaves the batch and comes back with the answer."""
        decided: list[tuple[Lane, Decision]] = []
        hungry: list[tuple[Lane, list[Any]]] = []
        for lane in lanes:
            if lane.view is None or not lane.running:
                if any(item.message_id for item in lane.running):
                    self._aside(lane, self._discard(lane))
                else:
                    routing.refuse_absent(lane)
            elif lane.decider is not None:
                self._step(lane, lane.answers, decided, hungry)
            else:
                plan = self._plans.known(lane.view.header.snapshot_id)
                if plan is None:
                    plan = await self._plans.load(lane.view.header.namespace, lane.view.header.snapshot_id)
                lane.decider = decide(plan, lane.view, [item.event for item in lane.running])
                self._step(lane, None, decided, hungry)
        while hungry:
            asked, hungry = hungry, []
            for lane, answers in await self._answer(asked):
                self._step(lane, answers, decided, hungry)
        return decided

    def _step(
        self,
        lane: Lane,
        answers: list[Any] | None,
        decided: list[tuple[Lane, Decision]],
        hungry: list[tuple[Lane, list[Any]]],
    ) -> None:
        assert lane.decider is not None
        began = perf_counter()
        try:
            hungry.append((lane, lane.decider.send(answers)))  # type: ignore[arg-type]
        except StopIteration as end:
            lane.decider = None
            decided.append((lane, end.value))
        self._meters.decided(perf_counter() - began)

    async def _answer(self, asked: list[tuple[Lane, list[Any]]]) -> list[tuple[Lane, list[Any]]]:
        """The answers of every lane that needs no script; the others are parked."""
        here: list[tuple[Lane, list[Any]]] = []
        for lane, needs in asked:
            if any(type(need) is Script for need in needs):
                self._park(lane, needs)
            else:
                here.append((lane, needs))
        return await self._answers.answer([(lane, lane.view, needs) for lane, needs in here])  # type: ignore[misc]

    def _park(self, lane: Lane, needs: list[Any]) -> None:
        """Take the lane out of the batch until its scripts have answered."""
        self._aside(lane, self._fetch_scripts(lane, needs))

    def _aside(self, lane: Lane, work: Coroutine[Any, Any, None]) -> None:
        """Take a lane out of its batch while something of its own is awaited."""
        lane.batch = None
        self._parked += 1
        task = asyncio.get_running_loop().create_task(self._alone(lane, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _alone(self, lane: Lane, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Unavailable as refusal:
            self._give_up([lane], refusal)
        except Exception as bug:
            log.exception("event failed", extra={"workflow_id": lane.workflow_id})
            self._fail(lane, bug)
        self._parked -= 1
        lane.busy = False
        if lane.decider is None:
            self._lanes.rest(lane)
        else:
            self._lanes.queue(lane)
        self._kick()

    async def _fetch_scripts(self, lane: Lane, needs: list[Any]) -> None:
        ((_, lane.answers),) = await self._answers.answer([(lane, lane.view, needs)])  # type: ignore[list-item]

    async def _forward(self, lane: Lane) -> None:
        """Others keep winning this workflow: let its last node apply what waits here."""
        lane.running, mine = await self._forwarding.forward(lane.workflow_id, lane.running)
        lane.lost_races = 0
        lane.reload = lane.reload or mine

    # -- save --------------------------------------------------------------------------------

    async def _save(self, decided: list[tuple[Lane, Decision]]) -> None:
        """Write every decision that changed something; answer; decide the losers again, and those whose
        answer nothing has checked."""
        batch: list[tuple[Lane, WorkflowSave]] = []
        for lane, decision in decided:
            if decision.changed or decision.consumed or any(item.message_id for item in lane.running):
                batch.append((lane, self._compose(lane, decision)))
            elif lane.checked:
                routing.answer(lane, decision.outcomes)
            else:
                lane.view = None
        if not batch:
            return
        began = perf_counter()
        try:
            async with self._database.acquire() as connection:
                result = await save(
                    connection,
                    [save_ for _, save_ in batch],
                    epoch=self._epoch(),
                    now_ms=self._clock.now_ms(),
                )
        except BaseException as error:
            for lane, saved in batch:
                self._unreserve(lane, saved, saved.owners)
                lane.view = None
            if isinstance(error, Unavailable) and error.unknown:
                self._placement.outcome_unknown()
            raise
        if not result.node_alive:
            self._node_lost(batch)
            return
        written = (saved.decision for lane, saved in batch if lane.workflow_id in result.fresh)
        self._meters.committed(perf_counter() - began, len(batch), written)
        self._settle(batch, result)

    def _compose(self, lane: Lane, decision: Decision) -> WorkflowSave:
        view = lane.view
        assert view is not None
        header = decision.header
        header.last_node = self._epoch()
        owners: dict[int, str] = {}
        reserve = self._placement.reserve
        now_ms = lane.running[-1].event.now_ms
        for birth in decision.births:
            if birth.due_ms <= now_ms and not birth.limit:
                session_id = reserve(header.namespace, birth)
                if session_id is not None:
                    owners[birth.seq] = session_id
        deliveries, expired = routing.guards(lane.running, decision.outcomes)
        # What has to wait behind a cursor stays in the inbox.
        applied = [
            (item, outcome)
            for item, outcome in zip(lane.running, decision.outcomes, strict=True)
            if outcome.verdict is not Verdict.BEHIND
        ]
        return WorkflowSave(
            decision=decision,
            expected_revision=view.header.revision,
            deliveries=deliveries,
            expired=expired,
            messages=[
                item.message_id for item, outcome in applied if item.message_id and not item.origin_epoch
            ],
            answers=[
                (item.message_id, encode_outcome(outcome))
                for item, outcome in applied
                if item.message_id and item.origin_epoch
            ],
            owners=owners,
            metadata_revision=lane.running[0].metadata_revision,
        )

    def _settle(self, batch: list[tuple[Lane, WorkflowSave]], result: SaveResult) -> None:
        """After the commit: views, deliveries, messages, answers."""
        placed: list[Placed] = []
        message_ids = iter(result.message_ids)
        fresh = result.fresh
        lost: dict[str, set[int]] = {}
        for workflow_id, seq in result.lost:
            lost.setdefault(workflow_id, set()).add(seq)
        for lane, saved in batch:
            if lane.workflow_id in fresh:
                self._written(lane, saved, result, message_ids, placed)
            else:
                self._unreserve(lane, saved, saved.owners)
                self._beaten(lane, result, lost.get(lane.workflow_id))
                if lane.lost_races >= RACES_MAX and lane.running:
                    self._aside(lane, self._forward(lane))
        if placed:
            self._placement.placed(placed)
        if result.foreign:
            self._placement.ended_elsewhere({epoch for _, _, epoch in result.foreign})

    def _written(
        self,
        lane: Lane,
        saved: WorkflowSave,
        result: SaveResult,
        message_ids: Iterator[int],
        placed: list[Placed],
    ) -> None:
        decision = saved.decision
        lane.lost_races = 0
        header = decision.header
        waiting: list[QueueBirth] = []
        rows = {row.seq: row for row in decision.inserted} if decision.births else {}
        for birth in decision.births:
            session_id = saved.owners.get(birth.seq)
            if session_id is None:
                waiting.append(birth)
            elif (lane.workflow_id, birth.seq) in result.waited:
                self._placement.unreserve(session_id, birth)
                waiting.append(birth)
            else:
                placed.append(Placed(header, rows[birth.seq], birth, session_id))
        if waiting:
            self._placement.waiting(header.namespace, waiting)
        over = [seq for seq, _ in saved.deliveries]
        over.extend(seq for seq, _ in saved.expired)
        over.extend(decision.released)
        over.extend(decision.asleep)
        if over:
            self._placement.ended(lane.workflow_id, over)
        for alert in decision.alerts:
            facts = {"workflow_id": lane.workflow_id, "seq": alert.seq, "clock": alert.clock}
            log.warning("a clock that only alerts has run out: %s", alert.text, extra=facts)
        if decision.slot is not None:
            self._placement.workflow_slots_changed()
        if decision.freed:
            self._placement.slots_freed(header.namespace, decision.freed)
        for due_ms in decision.deadlines.values():
            if due_ms:
                self._placement.deadline(due_ms)
        for due_ms in decision.asleep.values():
            self._placement.deadline(due_ms)
        for birth in waiting:
            if birth.due_ms > lane.running[-1].event.now_ms:
                self._placement.deadline(birth.due_ms)
        for epoch in {item.origin_epoch for item in lane.running if item.origin_epoch}:
            self._placement.answers_wait_at(epoch)
        if decision.messages:
            self._pass_on(decision, message_ids)
        for seq, script in decision.scripts.items():
            self._answers.late(header, script, partial(self._script_done, lane.workflow_id, seq))
        routing.apply(lane, decision, closed_max=CLOSED_ROWS_MAX)
        self.changes.announce(lane.workflow_id, header)
        routing.answer(lane, decision.outcomes)

    def _script_done(self, workflow_id: str, seq: int, answer: ScriptAnswer) -> None:
        """A script that was too slow to wait for has its value: an ordinary result of its row."""
        event = routing.script_result(seq, answer, self._clock.now_ms(), self.seed())
        self._enqueue(workflow_id, Item(event))

    def _pass_on(self, decision: Decision, message_ids: Iterator[int]) -> None:
        """Hand the messages that were just committed to their lanes; a crash leaves them to the inbox."""
        now_ms = self._clock.now_ms()
        self.receive(
            [
                routing.sent(message, message_id)
                for message, message_id in zip(decision.messages, message_ids, strict=False)
                if not message.parked and message.due_ms <= now_ms
            ]
        )

    def _unreserve(self, lane: Lane, saved: WorkflowSave, owners: dict[int, str]) -> None:
        births = {birth.seq: birth for birth in saved.decision.births}
        for seq, session_id in owners.items():
            self._placement.unreserve(session_id, births[seq])

    def _beaten(self, lane: Lane, result: SaveResult, lost: set[int] | None) -> None:
        """This workflow wrote nothing: answer what can never apply, decide the rest again."""
        workflow_id = lane.workflow_id
        lane.view = None
        if workflow_id in result.existing:
            holder = result.existing[workflow_id]
            if routing.told_start(lane) is None:
                routing.answer_existing(lane, holder)
            else:
                self._aside(lane, self._place(lane, holder))
        elif workflow_id in result.metadata_stale:
            routing.answer_metadata_stale(lane)
        elif workflow_id in result.refused:
            routing.answer_no_slot(lane, result.refused[workflow_id])
        else:
            if lost:
                routing.answer_lost(lane, lost)
            else:
                lane.lost_races += 1
                self._meters.lost_race()
            lane.reload = lane.reload or any(item.message_id for item in lane.running)
            routing.again(lane, self._clock.now_ms())

    # -- messages to workflows that there are not ----------------------------------------------

    async def _place(self, lane: Lane, holder: str) -> None:
        """A start by another workflow found its key used: free it, where its run has ended and may be
        followed by another; else answer the asker in place of the start."""
        start = routing.told_start(lane)
        assert start is not None and start.header is not None and isinstance(start.event, Start)
        header, asked = start.header, start.event
        async with self._database.acquire() as connection:
            if asked.key_policy is KeyPolicy.FAIL_ON_RUNNING and await idempotency.release_ended(
                connection, header.namespace, header.idempotency_key or "", holder
            ):
                routing.again(lane, self._clock.now_ms())
                return
            waits = await idempotency.waits_for(connection, asked.asked_by, holder)
        reply = keys.reply(asked, header, holder, waits=waits)
        await self._replace(lane, {start.message_id: reply})

    async def _discard(self, lane: Lane) -> None:
        """Messages to a workflow that was removed, or whose start was answered: nobody will apply them.
        Who wants its outcome hears that there is none."""
        await self._replace(
            lane,
            {
                item.message_id: keys.follower_lost(item.event, lane.workflow_id)
                for item in lane.running
                if isinstance(item.event, Follow)
            },
        )

    async def _replace(self, lane: Lane, replies: dict[int, Message]) -> None:
        """Delete the lane's messages, each for its reply, where it has one; exactly once."""
        ids = [item.message_id for item in lane.running if item.message_id]
        async with self._database.acquire() as connection:
            sent = await inbox.replace(
                connection,
                lane.workflow_id,
                [(message_id, replies.get(message_id)) for message_id in ids],
                epoch=self._epoch(),
            )
        routing.refuse_absent(lane)
        self.receive(sent)

    # -- when it goes wrong ------------------------------------------------------------------

    def _node_lost(self, batch: list[tuple[Lane, WorkflowSave]]) -> None:
        """This epoch is over: nothing was written. The beat finds that too and takes a new one; saves
        that were on their way meanwhile must not make it take another."""
        for lane, saved in batch:
            self._unreserve(lane, saved, saved.owners)
        self._give_up([lane for lane, _ in batch], Unavailable("the node lost its lease"))

    def _give_up(self, lanes: Sequence[Lane], refusal: Unavailable) -> None:
        """The store cannot be reached: callers hear it; deliveries, deadlines and messages are
        rows and come again by themselves."""
        for lane in lanes:
            self._fail(lane, refusal)

    def _fail(self, lane: Lane, error: Exception) -> None:
        lane.view = None
        lane.decider = None
        lane.lost_races = 0
        waiting, lane.running = lane.running, []
        for item in waiting:
            if item.done is not None:
                item.done(error)

    async def _isolate(self, lanes: Sequence[Lane], bug: Exception) -> None:
        """A bug in a batch of many: run each alone, so that only its own events fail."""
        if len(lanes) == 1:
            self._fail(lanes[0], bug)
            return
        for lane in lanes:
            if not lane.running:
                continue
            lane.view = None
            lane.decider = None
            try:
                await self._load([lane])
                await self._save(await self._decide([lane]))
            except Unavailable as refusal:
                self._give_up([lane], refusal)
            except Exception as error:
                log.exception("event failed", extra={"workflow_id": lane.workflow_id})
                self._fail(lane, error)


def resolver(future: asyncio.Future[Outcome]) -> Done:
    """A `Done` that resolves a future, unless its caller has gone."""

    def done(outcome: Outcome | Exception) -> None:
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    return done
