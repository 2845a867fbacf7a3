"""A batch of decisions, sorted into the arrays of the save's statement; and what its answer means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from ..engine.decision import Decision
from ..ids import MAX_SEQ
from .rows import (
    changed_payload,
    plain_or_none,
    saved_attribute,
    saved_birth,
    saved_change,
    saved_header,
    saved_key,
    saved_limited,
    saved_move,
    saved_payload,
    saved_slot,
    saved_start,
    saved_task,
)
from .save_statement import TYPES, UNGUARDED


@dataclass(slots=True)
class WorkflowSave:
    """One workflow's part of a batch."""

    decision: Decision
    expected_revision: int
    """The revision it was decided on; 0 = insert the workflow (one that exists already stays as it is)."""
    deliveries: list[tuple[int, int]] = field(default_factory=list)
    """(seq, delivery) of queue rows that must be open and carry that delivery. They end with this
    save, or sleep where `decision.asleep` names them."""
    expired: list[tuple[int, int]] = field(default_factory=list)
    """The same, and the delivery's deadline must have passed."""
    messages: list[int] = field(default_factory=list)
    """Ids of inbox messages applied: deleted."""
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    """(inbox id, outcome) of commands applied for another node: kept until that node has read it."""
    owners: dict[int, str] = field(default_factory=dict)
    """Seq of a birth -> the session that is to be born as its owner."""
    metadata_revision: int | None = None
    """Starts by name: the namespace's `metadata_revision` must still be this."""


@dataclass(slots=True)
class SaveResult:
    """What became of a batch. Of a workflow that is not in `fresh` nothing was written."""

    node_alive: bool
    fresh: set[str]
    lost: list[tuple[str, int]] = field(default_factory=list)
    """(workflow, seq) whose delivery guard failed though the revision held."""
    waited: set[tuple[str, int]] = field(default_factory=set)
    """Births that were to be owned and wait, since others wait ahead of them (or they may not)."""
    foreign: list[tuple[str, int, int]] = field(default_factory=list)
    """(workflow, seq, epoch of the owner): rows left marked `ended` for their owner to remove, or taken
    from it and put to sleep."""
    existing: dict[str, str] = field(default_factory=dict)
    """Start that lost its idempotency key -> the workflow that has it."""
    metadata_stale: set[str] = field(default_factory=set)
    """Starts decided on outdated definitions."""
    refused: dict[str, str] = field(default_factory=dict)
    """Start under a `rateLimitConfig` that rejects -> why it may not run."""
    message_ids: list[int] = field(default_factory=list)
    """Inbox ids of the fresh decisions' messages, in the order of the batch."""


class Arrays:
    """The rows of a batch, sorted into the classes of the statement."""

    __slots__ = ("_ineligible", "_places", "_rows", "_unguarded", "advancing", "starting")

    def __init__(self, batch: Sequence[WorkflowSave], now_ms: int) -> None:
        ordered = sorted(batch, key=_workflow_id)
        self.advancing = [s for s in ordered if s.expected_revision]
        self.starting = [s for s in ordered if not s.expected_revision]
        self._rows: dict[str, list[Any]] = {name: [] for name in TYPES}
        self._places: dict[tuple[str, str, int], int] = {}
        self._ineligible: list[tuple[str, int]] = []
        self._unguarded = False
        previous = ""
        for n, item in enumerate(self.advancing, 1):
            previous = _refuse_bug(previous, item)
            self._add_advance(n, item)
            self._add_common(n, item, now_ms)
        for n, item in enumerate(self.starting, len(self.advancing) + 1):
            previous = _refuse_bug(previous, item)
            self._add_start(n, item)
            self._add_common(n, item, now_ms)
        self._rows["keys"].sort()

    def present(self) -> frozenset[str]:
        """The arrays that have rows, and UNGUARDED where queue rows are touched without a guard."""
        names = [name for name, rows in self._rows.items() if rows]
        return frozenset([*names, UNGUARDED] if self._unguarded else names)

    def values(self) -> list[list[Any]]:
        return [rows for rows in self._rows.values() if rows]

    def _add_advance(self, n: int, item: WorkflowSave) -> None:
        decision, rows = item.decision, self._rows
        header = decision.header
        rows["header_ids"].append(header.id)
        rows["revisions"].append(item.expected_revision)
        rows["headers"].append(saved_header(n, header))
        if decision.revived:
            rows["definitions"].append((n, header.snapshot_id, header.name, header.version))
        if decision.corrected:
            rows["corrections"].append((n, header.input.raw, plain_or_none(header.correlation_id)))
        if decision.payload_changed:
            rows["payloads"].append(changed_payload(n, header))
        if item.deliveries or item.expired or decision.released or decision.asleep:
            self._add_touches(n, item)

    def _add_touches(self, n: int, item: WorkflowSave) -> None:
        wake = item.decision.asleep
        guarded = {seq: (delivery, False) for seq, delivery in item.deliveries}
        guarded.update((seq, (delivery, True)) for seq, delivery in item.expired)
        for seq in sorted({*guarded, *item.decision.released, *wake}):
            delivery, expired = guarded.get(seq, (None, False))
            self._unguarded |= delivery is None
            self._rows["touches"].append((n, seq, delivery, expired, wake.get(seq)))

    def _add_start(self, n: int, item: WorkflowSave) -> None:
        header, rows = item.decision.header, self._rows
        rows["start_ids"].append(header.id)
        rows["starts"].append(saved_start(n, header, item.metadata_revision))
        rows["start_payloads"].append(saved_payload(n, header))
        if header.idempotency_key is not None:
            rows["keys"].append(saved_key(header, item.metadata_revision))

    def _add_common(self, n: int, item: WorkflowSave, now_ms: int) -> None:
        decision, rows = item.decision, self._rows
        if decision.inserted:
            rows["task_inserts"] += [saved_task(n, row) for row in decision.inserted]
        if decision.updated:
            changed = decision.updated
            if len(changed) > 1:
                changed = sorted(changed, key=_seq)
            if decision.aside:
                rows["task_moves"] += [saved_move(n, row) for row in changed if row.seq in decision.aside]
                changed = [row for row in changed if row.seq not in decision.aside]
            rows["task_changes"] += [saved_change(n, row) for row in changed]
        if decision.births:
            self._add_births(n, item, now_ms)
        if decision.messages:
            rows["messages"] += [
                (n, m.workflow_id, m.kind, m.body.raw, m.due_ms, m.parked) for m in decision.messages
            ]
        if decision.slot is not None:
            if decision.slot.slots:
                rows["slots"].append(saved_slot(n, decision.header, decision.slot))
            else:
                rows["slots_back"].append(n)
        counted = len(decision.updated)
        if (
            decision.deadlines
            or item.messages
            or decision.consumed
            or decision.deleted
            or decision.fragments
            or item.answers
            or decision.attributes
            or decision.revived
            or decision.published
            or decision.cached
        ):
            counted += self._add_rare(n, item)
        if item.expected_revision:
            counted += 1 + decision.payload_changed + len(item.deliveries) + len(item.expired)
        rows["expected"].append(counted)

    def _add_rare(self, n: int, item: WorkflowSave) -> int:
        """What most saves have none of; returns how many rows of it are counted."""
        decision, rows = item.decision, self._rows
        if decision.deleted:
            rows["task_removals"] += [(n, seq) for seq in sorted(decision.deleted)]
        for seq, due_ms in sorted(decision.deadlines.items()):
            if due_ms:
                rows["deadlines"].append((n, seq, due_ms))
            else:
                rows["clears"].append((n, seq))
        answered = {message for message, _ in item.answers}
        gone = {*item.messages, *decision.consumed} - answered
        rows["applied"] += [(n, message, None) for message in sorted(gone)]
        rows["answers"] += [(n, message, outcome) for message, outcome in sorted(item.answers)]
        if decision.attributes or decision.revived:
            self._add_attributes(n, item)
        rows["fragments"] += [(n, seq, document.raw) for seq, document in sorted(decision.fragments.items())]
        if decision.published or decision.cached:
            self._add_told(n, decision)
        return len(decision.deleted) + len(gone) + len(answered)

    def _add_told(self, n: int, decision: Decision) -> None:
        """What others may read: events and outputs for the cache. Plain inserts, not counted."""
        header, rows = decision.header, self._rows
        at_ms = header.updated_ms
        rows["events"] += [
            (n, header.namespace, event.queue, event.message_id, event.body.raw, at_ms)
            for event in decision.published
        ]
        rows["caches"] += [
            (n, header.namespace, write.name, write.key, write.output.raw, write.expires_ms)
            for write in decision.cached
        ]

    def _add_attributes(self, n: int, item: WorkflowSave) -> None:
        header = item.decision.header
        for name, value in sorted(item.decision.attributes.items()):
            if value is not None:
                self._rows["attributes"].append(saved_attribute(n, header, name, value))
            elif item.expected_revision and not item.decision.revived:
                self._rows["attribute_removals"].append((n, name, None))
        if item.decision.revived:
            # Perhaps by another definition: what only the one before had goes.
            kept = [name for name, value in item.decision.attributes.items() if value is not None]
            self._rows["attribute_removals"].append((n, None, kept))

    def _add_births(self, n: int, item: WorkflowSave, now_ms: int) -> None:
        header = item.decision.header
        for birth in item.decision.births:
            session_id = item.owners.get(birth.seq)
            place = 0
            if session_id is not None:
                if birth.limit or birth.due_ms > now_ms:
                    self._ineligible.append((header.id, birth.seq))
                    session_id = None
                else:
                    place = self._place(header.namespace, birth.queue, 99 - birth.priority)
            if birth.limit:
                self._rows["limited"].append(saved_limited(n, header.namespace, birth))
            else:
                self._rows["births"].append(saved_birth(n, header.namespace, birth, session_id, place))

    def _place(self, namespace: str, queue: str, rank: int) -> int:
        key = (namespace, queue, rank)
        place = self._places.get(key)
        if place is None:
            self._rows["queues"].append(key)
            place = self._places[key] = len(self._places) + 1
        return place

    def result(self, row: Any, batch: Sequence[WorkflowSave]) -> SaveResult:
        """Read the statement's one row (the columns of the statement)."""
        node, _, stale, lost, foreign, owners, waiting, message_ids = row
        ordered = [*self.advancing, *self.starting]
        ids = [s.decision.header.id for s in ordered]
        result = SaveResult(node_alive=bool(node), fresh=set(ids))
        for n in stale:
            result.fresh.discard(ids[n - 1])
        touches = self._rows["touches"]
        for place in lost or ():
            n, seq = touches[place - 1][:2]
            result.lost.append((ids[n - 1], seq))
        for place, owner in zip(foreign or (), owners or (), strict=True):
            n, seq = touches[place - 1][:2]
            if ids[n - 1] in result.fresh:
                result.foreign.append((ids[n - 1], seq, owner))
        if self._ineligible or (waiting and any(waiting)):
            self._read_waited(result, ids, waiting or ())
        if message_ids:
            self._read_message_ids(result, ordered, batch, message_ids)
        return result

    def _read_waited(self, result: SaveResult, ids: list[str], waiting: Sequence[bool | None]) -> None:
        result.waited.update(pair for pair in self._ineligible if pair[0] in result.fresh)
        for birth in self._rows["births"]:
            n, seq, place = birth[0], birth[1], birth[-1]
            if place and waiting and waiting[place - 1] and ids[n - 1] in result.fresh:
                result.waited.add((ids[n - 1], seq))

    @staticmethod
    def _read_message_ids(
        result: SaveResult,
        ordered: Sequence[WorkflowSave],
        batch: Sequence[WorkflowSave],
        message_ids: Sequence[int],
    ) -> None:
        """From the order of the statement to the order of the batch."""
        ids = iter(message_ids)
        sent = {}
        for item in ordered:
            sender = item.decision.header.id
            if sender in result.fresh:
                sent[sender] = [next(ids) for _ in item.decision.messages]
        for item in batch:
            result.message_ids += sent.get(item.decision.header.id, ())


def _workflow_id(item: WorkflowSave) -> str:
    return item.decision.header.id


_seq = attrgetter("seq")


def _refuse_bug(previous: str, item: WorkflowSave) -> str:
    """What must never reach the database; returns the workflow's id."""
    header = item.decision.header
    if header.id == previous:
        raise ValueError(f"workflow {header.id} is in the batch twice: its second write would be lost")
    if header.open < 0 or not 0 < header.next_seq <= MAX_SEQ:
        raise ValueError(f"workflow {header.id}: {header.open} open rows, next seq {header.next_seq}")
    return header.id
