"""Sessions from their Hello to their end, with the statements that make them so. DELIVERY 8, 9, 12, 17.

The session's row and the demand for its queues are committed before Welcome, so before its first
delivery.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

from google.protobuf.timestamp_pb2 import Timestamp

from maestoso.task.v1 import task_service_pb2 as wire

from ..clock import Clock
from ..errors import InvalidArgument, MaestosoError, Reason, Violation
from ..ids import canonical, make_token, read_token, session_id
from ..store import sessions
from ..store.database import Database
from ..store.nodes import TIME_TO_LIVE_MS
from .deliveries import Delivery
from .demand import Demand
from .dispatcher import Dispatcher
from .loops import Loops
from .session import DEFAULT_BYTES, Session, capacity_fault

log = logging.getLogger(__name__)

FENCE_AFTER_MS = 4_000
"""A worker that hears from no node for so long stops its handlers: before its sessions expire."""
OFFERS_MAX = 1_000
LABELS_MAX = 50
NAME_MAX = 255
TOKEN_BYTES = 32


class Streams:
    """Opens, resumes and ends sessions of this node."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        loops: Loops,
        database: Database,
        clock: Clock,
        demand: Demand,
        epoch: Callable[[], int],
        addresses: Callable[[], Sequence[str]],
        moved: Callable[[str], None],
        max_message_bytes: int,
        max_payload_bytes: int,
    ) -> None:
        """`addresses`: of the live nodes, this one first. `moved` is told the id of each session that may
        have been another node's until now."""
        self._dispatcher = dispatcher
        self._loops = loops
        self._database = database
        self._clock = clock
        self._demand = demand
        self._epoch = epoch
        self._addresses = addresses
        self._moved = moved
        self._max_message_bytes = max_message_bytes
        self._max_payload_bytes = max_payload_bytes

    async def open(self, hello: wire.Hello, *, namespace: str, principal: str) -> Session:
        """Open or resume the session that Hello asks for; its Welcome is the first frame to be written.

        Raises InvalidArgument, `store.Unavailable` and `NodeLost`."""
        queues = check_hello(hello)
        await self._demand.note([(namespace, queue) for queue in queues])
        welcome = self._welcome()
        session = None
        if hello.session_id:
            session = await self._resume(hello, namespace, queues, welcome)
        if session is None:
            session = await self._begin(hello, namespace, queues, principal, welcome)
        if not self._dispatcher.epoch:
            self._dispatcher.epoch = self._epoch()
        session.room.declare(hello.capacity.tasks, hello.capacity.bytes or DEFAULT_BYTES)
        session.welcome(welcome)
        self._dispatcher.open(session)
        return session

    async def _begin(
        self,
        hello: wire.Hello,
        namespace: str,
        queues: dict[str, str],
        principal: str,
        welcome: wire.Welcome,
    ) -> Session:
        secret = secrets.token_bytes(TOKEN_BYTES)
        session = self._session(session_id(), hello, namespace, queues, secret)
        async with self._database.acquire() as conn:
            await sessions.open_session(
                conn,
                sessions.Session(
                    session_id=session.session_id,
                    epoch=self._epoch(),
                    namespace=namespace,
                    worker_id=hello.worker_id,
                    resume_token_hash=session.resume_token_hash,
                    task_types=list(queues),
                    principal=principal,
                    sdk=hello.sdk[:NAME_MAX],
                    state="ACTIVE",
                    connected_ms=session.connected_ms,
                ),
            )
        welcome.session_id, welcome.resume_token = session.session_id, secret
        welcome.revoked.extend(hello.held)
        return session

    async def _resume(
        self, hello: wire.Hello, namespace: str, queues: dict[str, str], welcome: wire.Welcome
    ) -> Session | None:
        """Transition 9. None: the session is not to be had any more."""
        known = canonical(hello.session_id)
        if known is None:
            return None
        session = self._session(known, hello, namespace, queues, hello.resume_token)
        older = self._dispatcher.session(known)
        if older is not None:
            if not hmac.compare_digest(older.resume_token_hash, session.resume_token_hash):
                return None
            if hello.stream_number and hello.stream_number <= older.stream_number:
                return None  # overtaken on its way: its worker has left that stream long ago
            self._dispatcher.supersede(older)
        try:
            resumed = await self._resume_row(hello, session)
        except BaseException:
            if older is not None:
                self._dispatcher.not_superseded(older)
            raise
        if resumed is None:
            if older is not None and self._dispatcher.is_last(older):
                self._dispatcher.forget(known)
            return None
        if older is None:
            self._moved(known)
        kept = {make_token(row.workflow_id, row.seq, row.delivery) for row in resumed.kept}
        welcome.session_id, welcome.resume_token = known, hello.resume_token
        welcome.resumed = True
        welcome.kept.extend(token for token in hello.held if token in kept)
        welcome.revoked.extend(token for token in hello.held if token not in kept)
        welcome.redelivered = resumed.redelivered
        return session

    async def _resume_row(self, hello: wire.Hello, session: Session) -> sessions.Resumed | None:
        """Resume in the database, then in memory."""
        await self._loops.hand_back()  # what the older stream had not written is not unread, but unsent
        held = {token: place for token in hello.held if (place := read_token(token)) is not None}
        with self._watch() as watch:
            async with self._database.acquire() as conn:
                resumed = await sessions.resume(
                    conn,
                    epoch=self._epoch(),
                    session_id=session.session_id,
                    namespace=session.namespace,
                    resume_token_hash=session.resume_token_hash,
                    held=[sessions.Held(*place) for place in held.values()],
                    now_ms=session.connected_ms,
                    stream_number=hello.stream_number,
                )
            if resumed is not None:
                session.connected_at_ms = [resumed.session.connected_ms]
                self._dispatcher.resume(session, resumed, watch)
        return resumed

    async def rejoin(self) -> None:
        """Transition 12: this node has a new epoch. Each open stream's session is resumed with what is
        remembered of it; the worker notices nothing."""
        epoch = self._epoch()
        with self._watch() as watch:
            inventories = self._dispatcher.inventories()
            for session in self._dispatcher.open_sessions():
                await self._rejoin(session, inventories.get(session.session_id, []), watch)
        self._dispatcher.epoch = epoch

    async def _rejoin(self, session: Session, held: list[Delivery], watch: int) -> None:
        now_ms = self._clock.now_ms()
        since_ms = list(session.connected_at_ms)
        # What it becomes if this is applied and its reply is lost.
        session.connected_at_ms += [max(now_ms, since + 1) for since in since_ms]
        async with self._database.acquire() as conn:
            resumed = await sessions.resume(
                conn,
                epoch=self._epoch(),
                session_id=session.session_id,
                namespace=session.namespace,
                resume_token_hash=session.resume_token_hash,
                held=held,
                now_ms=now_ms,
                adopt=True,
                since_ms=since_ms,
            )
        if resumed is None:
            if self._dispatcher.is_last(session):
                self._dispatcher.forget(session.session_id)
        else:
            session.connected_at_ms = [resumed.session.connected_ms]
            self._dispatcher.rejoined(session, held, resumed, watch)

    @contextmanager
    def _watch(self) -> Iterator[int]:
        """What ends in the meantime is remembered."""
        watch = self._dispatcher.meanwhile.begin()
        try:
            yield watch
        finally:
            self._dispatcher.meanwhile.end(watch)

    def _session(
        self, session_id: str, hello: wire.Hello, namespace: str, queues: dict[str, str], secret: bytes
    ) -> Session:
        return Session(
            session_id=session_id,
            namespace=namespace,
            worker_id=hello.worker_id,
            queues=queues,
            now_ms=self._clock.now_ms(),
            resume_token_hash=sha256(secret).digest(),
            stream_number=hello.stream_number,
        )

    def _welcome(self) -> wire.Welcome:
        welcome = wire.Welcome(
            nodes=self._addresses(),
            max_message_bytes=self._max_message_bytes,
            max_payload_bytes=self._max_payload_bytes,
            server_time=Timestamp(),
        )
        welcome.session_ttl.FromMilliseconds(TIME_TO_LIVE_MS)
        welcome.fence_after.FromMilliseconds(FENCE_AFTER_MS)
        welcome.server_time.FromMilliseconds(self._clock.now_ms())
        return welcome


def check_hello(hello: wire.Hello) -> dict[str, str]:
    """What the worker takes: queue -> task type. Raises InvalidArgument with every fault."""
    faults: list[Violation] = []
    if not 1 <= len(hello.worker_id) <= NAME_MAX:
        faults.append(Violation("hello.worker_id", f"is required, 1 to {NAME_MAX} characters"))
    if not 1 <= len(hello.task_types) <= OFFERS_MAX:
        message = f"has {len(hello.task_types)} entries; send 1 to {OFFERS_MAX}"
        faults.append(Violation("hello.task_types", message))
    queues: dict[str, str] = {}
    for index, offer in enumerate(hello.task_types[:OFFERS_MAX]):
        fault = name_fault(offer.task_type, offer.domain)
        if fault:
            faults.append(Violation(f"hello.task_types[{index}]", fault))
        queues[queue_name(offer.task_type, offer.domain)] = offer.task_type
    if fault := capacity_fault(hello.capacity):
        faults.append(Violation("hello.capacity", fault))
    if bool(hello.session_id) != bool(hello.resume_token):
        message = "session_id and resume_token belong together: send both, or none for a new session"
        faults.append(Violation("hello.session_id", message))
    if len(hello.labels) > LABELS_MAX:
        faults.append(Violation("hello.labels", f"has {len(hello.labels)} labels; at most {LABELS_MAX}"))
    if faults:
        raise invalid(faults)
    return queues


def name_fault(task_type: str, domain: str) -> str:
    """What is wrong with an offer; empty if nothing is."""
    if not 1 <= len(task_type) <= NAME_MAX:
        return f"task_type has {len(task_type)} characters; 1 to {NAME_MAX} are accepted"
    if len(domain) > NAME_MAX:
        return f"domain has {len(domain)} characters; at most {NAME_MAX} are accepted"
    return ""


def queue_name(task_type: str, domain: str) -> str:
    return f"{domain}:{task_type}" if domain else task_type


def invalid(faults: Sequence[Violation]) -> MaestosoError:
    told = "; ".join(f"{fault.path} {fault.message}" for fault in faults[:3])
    return InvalidArgument(Reason.INVALID_REQUEST, told, violations=faults)
