"""What the database promises of `task_queue`, `session` and `node`, as a model: one call, one transaction.

It models the rules of DELIVERY, not their SQL; the statements themselves are tested on Postgres in
`tests/store`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dispatch_kit import NAMESPACE
from maestoso_server.payload import EMPTY
from maestoso_server.store.deliveries import Key, Touched
from maestoso_server.store.nodes import LEASE_MS, TIME_TO_LIVE_MS, NodeLost
from maestoso_server.store.queue import QueueName, Take, Taken
from maestoso_server.store.sessions import KeptRow, Resumed, Session

MOST_UNREAD = 5


@dataclass
class Row:
    workflow_id: str
    seq: int
    queue: str
    limit: int
    due_ms: int
    attempt: int
    owner: int | None = None
    session_id: str | None = None
    delivery: int = 0
    unread: int = 0
    started_ms: int = 0
    ended: bool = False
    passed_on: bool = False
    """It followed its session to another node, which is to send it."""

    @property
    def key(self) -> Key:
        return Key(self.workflow_id, self.seq)

    @property
    def order(self) -> tuple[int, str, int]:
        return self.due_ms, self.workflow_id, self.seq


@dataclass
class StoredSession:
    session_id: str
    epoch: int
    token_hash: bytes
    connected_ms: int
    state: str = "ACTIVE"
    expires_ms: int | None = None
    stream_number: int = 0


@dataclass
class Lost:
    """A row whose worker is gone: its attempt is over."""

    row: Row
    unread: bool


class Table:
    """The rows of all nodes. Every method is atomic."""

    def __init__(self) -> None:
        self.rows: dict[Key, Row] = {}
        self.leases: dict[int, int] = {}
        self.sessions: dict[str, StoredSession] = {}
        self.last_epoch = 0

    # -- nodes ---------------------------------------------------------------------------------

    def register(self, now_ms: int) -> int:
        self.last_epoch += 1
        self.leases[self.last_epoch] = now_ms + LEASE_MS
        return self.last_epoch

    def beat(self, epoch: int, now_ms: int) -> list[int]:
        """Renew the lease; returns the epochs whose lease has run out, and those that left no row."""
        self._alive(epoch)
        self.leases[epoch] = now_ms + LEASE_MS
        owners = {row.owner for row in self.rows.values() if row.owner is not None and row.owner > 0}
        owners |= {session.epoch for session in self.sessions.values()}
        late = {other for other, lease_ms in self.leases.items() if lease_ms < now_ms}
        return sorted(late | (owners - self.leases.keys()))

    def take_over(self, epoch: int, dead: int, now_ms: int) -> None:
        """11: its row goes first, then what it had becomes the taker's; a row of a session that has
        moved on follows it."""
        self._alive(epoch)
        if self.leases.get(dead, 0) >= now_ms:
            return
        self.leases.pop(dead, None)
        for row in self.rows.values():
            if row.owner == dead and not row.ended:
                session = self.sessions.get(row.session_id or "")
                if session is not None and session.epoch != dead:
                    row.owner, row.passed_on = session.epoch, True
        for session in self.sessions.values():
            if session.epoch == dead:
                session.epoch = epoch
                if session.state == "ACTIVE":
                    session.state = "DETACHED"
                if session.expires_ms is None:
                    session.expires_ms = now_ms + TIME_TO_LIVE_MS
        for row in self.rows.values():
            if row.owner == dead:
                row.owner = epoch

    def remove(self, epoch: int) -> None:
        self.leases.pop(epoch, None)

    def _alive(self, epoch: int) -> None:
        if epoch not in self.leases:
            raise NodeLost(epoch)

    # -- births, takes, results ------------------------------------------------------------------

    def waiting(self, queue: str) -> list[Row]:
        rows = (
            row for row in self.rows.values() if row.queue == queue and row.owner is None and not row.ended
        )
        return sorted(rows, key=lambda row: row.order)

    def born(self, epoch: int, row: Row, session_id: str | None) -> bool:
        """1: owned by the session unless something waits ahead; returns whether it is owned."""
        self._alive(epoch)
        ahead = [other for other in self.waiting(row.queue) if other.order < row.order]
        if session_id is not None and not ahead and not row.limit:
            row.owner, row.session_id, row.delivery = epoch, session_id, 1
        self.rows[row.key] = row
        return row.owner is not None

    def take(self, epoch: int, queue: str, sessions: Sequence[str], *, limited: bool) -> Take:
        """2."""
        self._alive(epoch)
        taken: list[Taken] = []
        kept_back = False
        for row in self.waiting(queue):
            if len(taken) == len(sessions):
                break
            if row.limit and (not limited or self._running(queue) >= row.limit):
                kept_back = True
                break
            row.owner, row.session_id = epoch, sessions[len(taken)]
            row.delivery += 1
            taken.append(self._taken(row))
        return Take(taken, queue if kept_back else None)

    def _running(self, queue: str) -> int:
        return sum(
            1 for row in self.rows.values() if row.queue == queue and row.owner is not None and not row.ended
        )

    def result(self, epoch: int, key: Key, delivery: int) -> int | None:
        """5: accept the result of a delivery; None where it is stale, else the epoch that owned it."""
        self._alive(epoch)
        row = self.rows.get(key)
        if row is None or row.ended or row.delivery != delivery:
            return None
        owner = row.owner or 0
        if owner not in (0, epoch):
            row.ended = True
        else:
            del self.rows[key]
        return owner

    def ended_rows(self, epoch: int) -> list[Row]:
        mine = [row for row in self.rows.values() if row.owner == epoch and row.ended]
        for row in mine:
            del self.rows[row.key]
        return mine

    # -- reading and handing back ----------------------------------------------------------------

    def mark_read(self, epoch: int, items: Iterable[tuple[Key, int, int]]) -> Touched:
        """4: (key, delivery, start) each."""
        self._alive(epoch)
        done: set[Key] = set()
        for key, delivery, started_ms in items:
            row = self._mine(epoch, key, delivery)
            if row is not None:
                row.started_ms = row.started_ms or started_ms
                row.unread = 0
                done.add(key)
        return Touched(done, set())

    def hand_back(self, epoch: int, items: Iterable[tuple[Key, int]]) -> Touched:
        """7 and 8."""
        self._alive(epoch)
        done: set[Key] = set()
        for key, delivery in items:
            row = self._mine(epoch, key, delivery)
            if row is not None:
                row.owner = row.session_id = None
                done.add(key)
        return Touched(done, set())

    def _mine(self, epoch: int, key: Key, delivery: int) -> Row | None:
        row = self.rows.get(key)
        if row is None or row.ended or row.owner != epoch or row.delivery != delivery:
            return None
        return row

    # -- sessions --------------------------------------------------------------------------------

    def open_session(self, epoch: int, session_id: str, token_hash: bytes, now_ms: int) -> None:
        self._alive(epoch)
        self.sessions[session_id] = StoredSession(session_id, epoch, token_hash, now_ms)

    def detach(self, epoch: int, streams: Iterable[tuple[str, int]], now_ms: int) -> set[str]:
        """8: sessions, each with when it was connected."""
        mine = set()
        for session_id, connected_ms in streams:
            session = self.sessions.get(session_id)
            if session is None or session.epoch != epoch or session.connected_ms > connected_ms:
                continue
            if session.state == "ACTIVE":
                session.state, session.expires_ms = "DETACHED", now_ms + TIME_TO_LIVE_MS
                mine.add(session_id)
        return mine

    def resume(
        self,
        epoch: int,
        session_id: str,
        token_hash: bytes,
        held: set[tuple[str, int, int]],
        now_ms: int,
        *,
        adopt_since_ms: Sequence[int] | None = None,
        stream_number: int = 0,
    ) -> Resumed | None:
        """9, and with `adopt_since_ms` 12: only where nobody else has resumed it since then."""
        self._alive(epoch)
        session = self.sessions.get(session_id)
        if session is None or session.token_hash != token_hash or session.state == "EXPIRED":
            return None
        if stream_number:
            if session.stream_number >= stream_number:
                return None
            session.stream_number = stream_number
        if adopt_since_ms is not None and session.connected_ms not in adopt_since_ms:
            return None
        session.epoch, session.state, session.expires_ms = epoch, "ACTIVE", None
        session.connected_ms = max(now_ms, session.connected_ms + 1)
        answer = Resumed(self._seen(session), [], 0, set(), 0, [])
        for row in self._of(session_id):
            row.owner = epoch
            if (row.workflow_id, row.seq, row.delivery) in held:
                answer.kept.append(
                    KeptRow(
                        row.workflow_id,
                        row.seq,
                        row.delivery,
                        row.queue,
                        row.queue,
                        0,
                        1,
                        row.limit,
                        0,
                        row.started_ms,
                    )
                )
            elif adopt_since_ms is not None:
                answer.unsent.append(self._taken(row))
            else:
                self._unread(row, epoch)
                answer.redelivered += 1
                answer.waiting.add(QueueName(NAMESPACE, row.queue))
        return answer

    def expire(
        self, epoch: int, unread: set[tuple[str, int, int]], now_ms: int
    ) -> tuple[set[str], list[Lost], set[str]]:
        """10: (sessions, rows whose attempt is over, queues whose rows wait again)."""
        self._alive(epoch)
        over = {
            session.session_id
            for session in self.sessions.values()
            if session.epoch == epoch and session.state == "DETACHED" and (session.expires_ms or 0) <= now_ms
        }
        lost: list[Lost] = []
        queues: set[str] = set()
        for session_id in sorted(over):
            self.sessions[session_id].state = "EXPIRED"
            for row in self._of(session_id):
                if (row.workflow_id, row.seq, row.delivery) in unread:
                    self._unread(row, epoch)
                    queues.add(row.queue)
                else:
                    lost.append(Lost(row, unread=False))
            del self.sessions[session_id]
        for item in lost:
            del self.rows[item.row.key]
        return over, lost, queues

    def moved(self, epoch: int, session_ids: Iterable[str]) -> set[str]:
        """9: sessions that are not this node's any more."""
        return {
            session_id
            for session_id in session_ids
            if (session := self.sessions.get(session_id)) is None or session.epoch != epoch
        }

    def pass_on(self, epoch: int, session_id: str) -> list[Row]:
        """9, the old node's half: rows born for a session that has moved follow it."""
        self._alive(epoch)
        session = self.sessions.get(session_id)
        if session is None or session.epoch == epoch:
            return []
        rows = [row for row in self._of(session_id) if row.owner == epoch]
        for row in rows:
            row.owner, row.passed_on = session.epoch, True
        return rows

    def passed_on(self, epoch: int) -> list[Taken]:
        """Rows that followed their session here, each told once."""
        self._alive(epoch)
        rows = [row for row in self.rows.values() if row.owner == epoch and row.passed_on and not row.ended]
        for row in rows:
            row.passed_on = False
        return [self._taken(row) for row in rows]

    def homeless(self, epoch: int) -> list[Lost]:
        """Rows of mine whose session is gone for good: found as due by their owner."""
        lost = [
            Lost(row, unread=False)
            for row in self.rows.values()
            if row.owner == epoch and not row.ended and row.session_id not in self.sessions
        ]
        for item in lost:
            del self.rows[item.row.key]
        return lost

    def _of(self, session_id: str) -> list[Row]:
        return [
            row
            for row in self.rows.values()
            if row.session_id == session_id and row.owner is not None and not row.ended
        ]

    def _unread(self, row: Row, epoch: int) -> None:
        row.unread += 1
        row.owner = row.session_id = None

    def _seen(self, session: StoredSession) -> Session:
        return Session(
            session.session_id,
            session.epoch,
            NAMESPACE,
            "",
            session.token_hash,
            [],
            "",
            "",
            session.state,
            session.connected_ms,
        )

    def _taken(self, row: Row) -> Taken:
        return Taken(
            workflow_id=row.workflow_id,
            seq=row.seq,
            delivery=row.delivery,
            session_id=row.session_id,
            unread=row.unread,
            namespace=NAMESPACE,
            queue=row.queue,
            task_type=row.queue,
            priority=0,
            due_ms=row.due_ms,
            size=2,
            limit=row.limit,
            response_s=0,
            timeout_s=0,
            total_due_ms=0,
            redeliver_on_loss=False,
            generation=1,
            reference="step",
            path=(),
            attempt=row.attempt,
            scheduled_ms=row.due_ms,
            input=EMPTY,
            workflow_name="chain",
            correlation_id="",
            traceparent="",
        )
