"""BulkService: check, store, wake the runner. The work is done in `bulk`."""

from __future__ import annotations

from typing import Any

from maestoso.workflow.v1 import bulk_pb2
from maestoso.workflow.v1 import bulk_service_pb2 as wire
from maestoso.workflow.v1.bulk_service_pb2_grpc import BulkServiceServicer

from .. import ids
from ..clock import Clock
from ..errors import AlreadyExists, FailedPrecondition, NotFound, Reason
from ..store import bulk as rows
from ..store.bulk import Bulk, BulkState
from ..store.database import Database
from . import bulk_messages, convert, limits
from .actions import namespace_of
from .bulk import BulkRunner, Selection
from .limits import Limits, invalid
from .security import caller


class BulkService(BulkServiceServicer):
    """Makes, reads and cancels bulk operations."""

    def __init__(
        self,
        *,
        runner: BulkRunner,
        selection: Selection,
        database: Database,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._runner = runner
        self._selection = selection
        self._database = database
        self._clock = clock
        self._limits = limits

    async def CreateBulkOperation(
        self, request: wire.CreateBulkOperationRequest, context: Any
    ) -> wire.CreateBulkOperationResponse:
        workflow_ids = bulk_messages.workflow_ids(request.workflow_ids)
        made = self._made(request, by_query=not workflow_ids)
        async with self._database.acquire() as connection:
            if not await rows.create(connection, made, workflow_ids):
                made = await self._existing(connection, made)
            stored = await rows.get(connection, made.namespace, made.id)
        self._runner.notice()
        return wire.CreateBulkOperationResponse(operation=bulk_messages.operation(stored or made))

    def _made(self, request: wire.CreateBulkOperationRequest, *, by_query: bool) -> Bulk:
        """The operation that is asked for. Raises InvalidArgument."""
        bulk_messages.check_action(request.action, self._limits)
        if request.HasField("query") != by_query:
            where = "query" if not by_query else "workflow_ids"
            raise invalid(where, "give either workflow_ids or a query")
        now_ms = self._clock.now_ms()
        return Bulk(
            namespace=namespace_of(request),
            id=ids.workflow_id(now_ms),
            state=BulkState.COLLECTING if by_query else BulkState.RUNNING,
            action=request.action.SerializeToString(),
            query=self._query(request.query, now_ms).SerializeToString() if by_query else None,
            rate=limits.number(request.rate, "rate", 0, bulk_messages.RATE_MAX) or bulk_messages.RATE_DEFAULT,
            reason=limits.text(request.reason, "reason", limits.REASON_MAX),
            created_ms=now_ms,
            created_by=caller().name,
            idempotency_key=limits.text(request.idempotency_key, "idempotency_key") or None,
            request_digest=bulk_messages.digest(request),
        )

    def _query(self, asked: bulk_pb2.BulkQuery, now_ms: int) -> bulk_pb2.BulkQuery:
        """The query, about what exists now: what starts later is not part of it."""
        self._selection.check(asked)
        query = bulk_pb2.BulkQuery()
        query.CopyFrom(asked)
        if not query.HasField("created_before"):
            moment = convert.timestamp(now_ms + 1)
            assert moment is not None
            query.created_before.CopyFrom(moment)
        return query

    async def _existing(self, connection: Any, made: Bulk) -> Bulk:
        """The operation that has the key already. Raises AlreadyExists where it is another one."""
        found = await rows.find(connection, made.namespace, made.idempotency_key or "")
        if found is None or found.request_digest != made.request_digest:
            other = f"by {found.id}, for another request" if found is not None else "already"
            raise AlreadyExists(
                Reason.IDEMPOTENCY_CONFLICT, f"idempotency key {made.idempotency_key!r} was used {other}"
            )
        return found

    async def GetBulkOperation(
        self, request: wire.GetBulkOperationRequest, context: Any
    ) -> wire.GetBulkOperationResponse:
        found = await self._operation(namespace_of(request), request.bulk_id)
        return wire.GetBulkOperationResponse(operation=bulk_messages.operation(found))

    async def ListBulkOperations(
        self, request: wire.ListBulkOperationsRequest, context: Any
    ) -> wire.ListBulkOperationsResponse:
        size = limits.page_size(request.page_size)
        state = bulk_messages.state_filter(request.state)
        (before,) = convert.page_position(request.page_token, ("",))
        async with self._database.acquire() as connection:
            found = await rows.list_operations(
                connection,
                namespace_of(request),
                state=state,
                before=limits.uuid(before, "page_token") if request.page_token else None,
                limit=size + 1,
            )
        response = wire.ListBulkOperationsResponse()
        response.next_page_token = convert.fill_page(
            response.operations,
            found,
            size=size,
            to_message=bulk_messages.operation,
            position=lambda row: (row.id,),
        )
        return response

    async def ListBulkItems(
        self, request: wire.ListBulkItemsRequest, context: Any
    ) -> wire.ListBulkItemsResponse:
        size = limits.page_size(request.page_size)
        state = bulk_messages.item_state_filter(request.state)
        (after,) = convert.page_position(request.page_token, (0,))
        bulk = await self._operation(namespace_of(request), request.bulk_id)
        async with self._database.acquire() as connection:
            found = await rows.list_items(
                connection, bulk.namespace, bulk.id, state=state, after=min(after, 2**31 - 1), limit=size + 1
            )
        response = wire.ListBulkItemsResponse()
        response.next_page_token = convert.fill_page(
            response.items,
            found,
            size=size,
            to_message=bulk_messages.item,
            position=lambda row: (row.seq,),
        )
        return response

    async def CancelBulkOperation(
        self, request: wire.CancelBulkOperationRequest, context: Any
    ) -> wire.CancelBulkOperationResponse:
        asked = await self._operation(namespace_of(request), request.bulk_id)
        async with self._database.acquire() as connection:
            found = await rows.cancel(connection, asked.namespace, asked.id, now_ms=self._clock.now_ms())
        if found is None or found.state is not BulkState.CANCELLED:
            raise FailedPrecondition(Reason.WRONG_STATE, f"bulk operation {asked.id} has completed")
        return wire.CancelBulkOperationResponse(operation=bulk_messages.operation(found))

    async def _operation(self, namespace: str, bulk_id: str) -> Bulk:
        """Raises InvalidArgument and NotFound."""
        canonical = limits.uuid(bulk_id, "bulk_id")
        async with self._database.acquire() as connection:
            found = await rows.get(connection, namespace, canonical)
        if found is None:
            raise NotFound(
                Reason.WORKFLOW_NOT_FOUND,
                f"no bulk operation {canonical} in namespace {namespace!r}; they are forgotten 7 days after "
                "their end",
            )
        return found
