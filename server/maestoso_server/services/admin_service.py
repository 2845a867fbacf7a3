"""AdminService: check, convert, call, convert. No rule lives here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maestoso.admin.v1 import admin_pb2
from maestoso.admin.v1 import admin_service_pb2 as wire
from maestoso.admin.v1.admin_service_pb2_grpc import AdminServiceServicer

from ..clock import Clock
from ..engine.names import shown_reference
from ..engine.needs import Row, Rows
from ..engine.state import Header, TaskRow, View
from ..errors import AlreadyExists, NotFound, Reason
from ..store import demand, lists, metadata, needs, nodes, outbox, queue, sessions, slots
from ..store import limits as task_limits
from ..store.database import Connection, Database
from . import convert, limits
from .actions import namespace_of
from .explain import JOINS, explain, summary
from .masking import NOTHING, Mask, Masks
from .namespaces import NAME
from .security import caller

DRAIN_GRACE_DEFAULT_MS = 30_000
DRAIN_GRACE_MAX_MS = 3_600_000
LOOKAHEAD = 1_000
"""Open tasks read beyond a page of explanations, to name what its containers wait for."""
LEAST_UUID = "00000000-0000-0000-0000-000000000000"


class AdminService(AdminServiceServicer):
    """For operators."""

    def __init__(self, *, database: Database, clock: Clock, masks: Masks) -> None:
        self._database = database
        self._clock = clock
        self._masks = masks

    # -- nodes and sessions ------------------------------------------------------------------

    async def ListNodes(self, request: wire.ListNodesRequest, context: Any) -> wire.ListNodesResponse:
        async with self._database.acquire() as connection:
            rows = await nodes.list_nodes(connection)
        return wire.ListNodesResponse(nodes=[convert.node(row) for row in rows])

    async def DrainNode(self, request: wire.DrainNodeRequest, context: Any) -> wire.DrainNodeResponse:
        node_id = limits.name(request.node_id, "node_id")
        async with self._database.acquire() as connection:
            epochs = [row.epoch for row in await nodes.list_nodes(connection) if row.node_id == node_id]
            # A node that has just taken a new epoch has two rows for a moment: both are asked.
            asked = [await nodes.set_draining(connection, epoch, True) for epoch in epochs]
        if not any(asked):
            raise NotFound(Reason.NODE_NOT_FOUND, f"no node is called {node_id!r}")
        return wire.DrainNodeResponse()

    async def ListSessions(
        self, request: wire.ListSessionsRequest, context: Any
    ) -> wire.ListSessionsResponse:
        size = limits.page_size(request.page_size)
        state = convert.session_filter(request.state)
        (after,) = convert.page_position(request.page_token, (LEAST_UUID,))
        async with self._database.acquire() as connection:
            rows = await sessions.list_sessions(
                connection,
                namespace=namespace_of(request),
                state=state,
                after=limits.uuid(after, "page_token"),
                limit=size + 1,
            )
        response = wire.ListSessionsResponse()
        response.next_page_token = convert.fill_page(
            response.sessions,
            rows,
            size=size,
            to_message=convert.session,
            position=lambda row: (row.session_id,),
        )
        return response

    async def DrainSession(
        self, request: wire.DrainSessionRequest, context: Any
    ) -> wire.DrainSessionResponse:
        session_id = limits.uuid(request.session_id, "session_id")
        reason = limits.text(request.reason, "reason", limits.REASON_MAX)
        grace_ms = DRAIN_GRACE_DEFAULT_MS
        if request.HasField("grace"):
            grace_ms = convert.duration_ms(request.grace, "grace", DRAIN_GRACE_MAX_MS)
        namespace = namespace_of(request)
        async with self._database.acquire() as connection:
            asked = await sessions.ask_drain(
                connection,
                namespace=namespace,
                session_id=session_id,
                reason=reason,
                close_ms=self._clock.now_ms() + grace_ms,
            )
        if not asked:
            raise NotFound(
                Reason.NODE_NOT_FOUND, f"no session {session_id} with a stream in namespace {namespace!r}"
            )
        return wire.DrainSessionResponse()

    # -- queues ------------------------------------------------------------------------------

    async def ListQueues(self, request: wire.ListQueuesRequest, context: Any) -> wire.ListQueuesResponse:
        size = limits.page_size(request.page_size)
        task_type = limits.text(request.task_type, "task_type")
        (after,) = convert.page_position(request.page_token, ("",))
        namespace, now_ms = namespace_of(request), self._clock.now_ms()
        async with self._database.acquire() as connection:
            depths = await queue.depths(connection, now_ms=now_ms, namespace=namespace)
            rows = sorted(
                (row for row in depths if row.queue > after and task_type in ("", _task_type(row.queue))),
                key=lambda row: row.queue,
            )[: size + 1]
            live = await demand.live(
                connection, namespace=namespace, queues=[row.queue for row in rows], now_ms=now_ms
            )
        response = wire.ListQueuesResponse()
        response.next_page_token = convert.fill_page(
            response.queues,
            rows,
            size=size,
            to_message=lambda row: convert.queue(row, has_worker=row.queue in live),
            position=lambda row: (row.queue,),
        )
        return response

    # -- explain -----------------------------------------------------------------------------

    async def ExplainWorkflow(
        self, request: wire.ExplainWorkflowRequest, context: Any
    ) -> wire.ExplainWorkflowResponse:
        size = limits.page_size(request.page_size)
        workflow_id = limits.uuid(request.workflow_id, "workflow_id")
        (after,) = convert.page_position(request.page_token, (0,))
        namespace, now_ms = namespace_of(request), self._clock.now_ms()
        async with self._database.acquire() as connection:
            found = await lists.explain(
                connection, namespace, workflow_id, after=after, limit=size + LOOKAHEAD
            )
            if found is None:
                raise NotFound(
                    Reason.WORKFLOW_NOT_FOUND, f"no workflow {workflow_id} in namespace {namespace!r}"
                )
            page = found.open_tasks[:size]
            live = await demand.live(
                connection,
                namespace=namespace,
                queues=sorted({task.queue for task in page if task.queue}),
                now_ms=now_ms,
            )
            unresolved = _inside([task.row for task in found.open_tasks])
            joins = [task.row for task in page if task.row.type in JOINS]
            unresolved.update(await _joined(connection, found.header, joins, now_ms))
            limited = [(workflow_id, task.row.seq) for task in page if task.limit]
            states = await task_limits.states(connection, limited, now_ms=now_ms)
            place = None if page else await slots.place(connection, workflow_id)
        waiting = [
            explain(
                found.header,
                task,
                live=live,
                unresolved=unresolved,
                now_ms=now_ms,
                limit=states.get((workflow_id, task.row.seq)),
            )
            for task in page
        ]
        more = len(found.open_tasks) > size
        return wire.ExplainWorkflowResponse(
            explanation=admin_pb2.Explanation(
                workflow_id=workflow_id,
                status=convert.workflow_status(found.header.status),
                summary=summary(found.header, waiting, more=more or after > 0, place=place),
                open_tasks=[convert.open_task(workflow_id, one) for one in waiting],
                pending_messages=found.pending_messages,
            ),
            next_page_token=convert.page_token(page[-1].row.seq) if more else "",
        )

    # -- events ------------------------------------------------------------------------------

    async def ListEvents(self, request: wire.ListEventsRequest, context: Any) -> wire.ListEventsResponse:
        size = limits.page_size(request.page_size)
        (after,) = convert.page_position(request.page_token, (0,))
        namespace = namespace_of(request)
        async with self._database.acquire() as connection:
            rows = await outbox.list_events(
                connection,
                namespace=namespace,
                queue=limits.text(request.queue, "queue") or None,
                workflow_id=limits.uuid(request.workflow_id, "workflow_id") if request.workflow_id else None,
                unacknowledged=request.only_unacknowledged,
                after=after,
                limit=size + 1,
            )
        masks = await self._event_masks(namespace, request, rows)
        response = wire.ListEventsResponse()
        response.next_page_token = convert.fill_page(
            response.events,
            rows,
            size=size,
            to_message=lambda row: convert.event(
                row, body=request.include_bodies, mask=masks.get(row.snapshot_id, NOTHING)
            ),
            position=lambda row: (row.id,),
        )
        return response

    async def _event_masks(
        self, namespace: str, request: wire.ListEventsRequest, rows: Sequence[outbox.StoredEvent]
    ) -> dict[str, Mask]:
        """The masks of the bodies that are sent, by snapshot. Raises PermissionDenied."""
        if request.unmask:
            await self._masks.of(namespace, "", request.workflow_id, unmask=True)
            return {}
        snapshots = {row.snapshot_id: row.workflow_id for row in rows if request.include_bodies}
        return {
            snapshot_id: await self._masks.of(namespace, snapshot_id, workflow_id)
            for snapshot_id, workflow_id in snapshots.items()
        }

    # -- namespaces --------------------------------------------------------------------------

    async def CreateNamespace(
        self, request: wire.CreateNamespaceRequest, context: Any
    ) -> wire.CreateNamespaceResponse:
        name, now_ms = request.namespace, self._clock.now_ms()
        if not NAME.fullmatch(name):
            raise limits.invalid(
                "namespace",
                f"is {name[:63]!r}; 1 to 63 of a to z, 0 to 9, - and _ are accepted, a letter first",
            )
        async with self._database.acquire() as connection:
            made = await metadata.create_namespace(connection, name, principal=caller().name, now_ms=now_ms)
        if not made:
            raise AlreadyExists(Reason.NAMESPACE_EXISTS, f"namespace {name!r} exists")
        return wire.CreateNamespaceResponse(namespace=convert.namespace(name, now_ms))

    async def ListNamespaces(
        self, request: wire.ListNamespacesRequest, context: Any
    ) -> wire.ListNamespacesResponse:
        size = limits.page_size(request.page_size)
        (after,) = convert.page_position(request.page_token, ("",))
        async with self._database.acquire() as connection:
            rows = await metadata.list_namespaces(connection, after=after, limit=size + 1)
        response = wire.ListNamespacesResponse()
        response.next_page_token = convert.fill_page(
            response.namespaces,
            rows,
            size=size,
            to_message=lambda row: convert.namespace(*row),
            position=lambda row: (row[0],),
        )
        return response


def _task_type(queue_name: str) -> str:
    return queue_name.rpartition(":")[2]


def _inside(rows: Sequence[TaskRow]) -> dict[int, list[str]]:
    """The open tasks directly inside each open container, by the container's seq."""
    inside: dict[int, list[str]] = {}
    for row in rows:
        if row.scope:
            inside.setdefault(row.scope, []).append(shown_reference(row.reference, row.path))
    return inside


async def _joined(
    connection: Connection, header: Header, joins: Sequence[TaskRow], now_ms: int
) -> dict[int, list[str]]:
    """The references that have not ended of each of these joins, by its seq."""
    view = View(header)
    whole = await needs.fetch(connection, [(view, Row(row.seq)) for row in joins], now_ms=now_ms)
    listed = {row.seq: [str(name) for name in row.input.value.get("joinOn", ())] for row in whole if row}
    asked = [
        (view, Rows(tuple((reference, row.path) for reference in listed.get(row.seq, ())))) for row in joins
    ]
    found = await needs.fetch(connection, asked, now_ms=now_ms)
    return {
        row.seq: [
            reference
            for reference, newest in zip(listed.get(row.seq, ()), answers, strict=True)
            if newest is None or not newest.status.terminal
        ]
        for row, answers in zip(joins, found, strict=True)
    }
