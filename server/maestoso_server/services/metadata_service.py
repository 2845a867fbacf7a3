"""MetadataService: check, convert, call, convert. No rule lives here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from maestoso.metadata.v1 import metadata_service_pb2 as wire
from maestoso.metadata.v1.metadata_service_pb2_grpc import MetadataServiceServicer

from ..clock import Clock
from ..errors import AlreadyExists, NotFound, Reason
from ..executor.plans import Plans
from ..store import metadata
from ..store.database import Database
from . import convert, documents, limits
from .actions import namespace_of
from .documents import Judge, Judged
from .limits import Limits
from .security import caller

DEFINITION_PAGE_MAX = 100
"""Facts are read from the documents, of up to 1 MiB each: so many of them are held at once."""


class _Judge(Protocol):
    """`Judge.workflows` or `Judge.tasks`."""

    async def __call__(self, namespace: str, documents: Sequence[bytes], *, strict: bool) -> list[Judged]: ...


class _Put(Protocol):
    """`metadata.put_workflows` or `metadata.put_tasks`."""

    async def __call__(
        self,
        conn: Any,
        namespace: str,
        documents: Sequence[metadata.Document],
        *,
        overwrite: metadata.Overwrite,
        principal: str,
        now_ms: int,
        validate_only: bool,
    ) -> list[metadata.Put] | None: ...


class MetadataService(MetadataServiceServicer):
    """Keeps definitions."""

    def __init__(
        self, *, plans: Plans, judge: Judge, database: Database, clock: Clock, limits: Limits
    ) -> None:
        self._plans = plans
        self._judge = judge
        self._database = database
        self._clock = clock
        self._limits = limits

    # -- workflow definitions ----------------------------------------------------------------

    async def PutWorkflowDefinitions(
        self, request: wire.PutWorkflowDefinitionsRequest, context: Any
    ) -> wire.PutWorkflowDefinitionsResponse:
        judged, outcomes = await self._put(request, self._judge.workflows, metadata.put_workflows)
        return wire.PutWorkflowDefinitionsResponse(
            results=[convert.put_result(one, outcomes.get(index)) for index, one in enumerate(judged)]
        )

    async def GetWorkflowDefinition(
        self, request: wire.GetWorkflowDefinitionRequest, context: Any
    ) -> wire.GetWorkflowDefinitionResponse:
        name = limits.name(request.name, "name")
        version = limits.number(request.version, "version", 0, 2**31 - 1)
        async with self._database.acquire() as connection:
            found = await metadata.get_workflow(connection, namespace_of(request), name, version or None)
        if found is None:
            raise _not_found(name, version)
        return wire.GetWorkflowDefinitionResponse(definition=convert.workflow_definition(found))

    async def ListWorkflowDefinitions(
        self, request: wire.ListWorkflowDefinitionsRequest, context: Any
    ) -> wire.ListWorkflowDefinitionsResponse:
        size = limits.page_size(request.page_size, most=DEFINITION_PAGE_MAX)
        async with self._database.acquire() as connection:
            rows = await metadata.list_workflows(
                connection,
                namespace_of(request),
                name=limits.text(request.name, "name") or None,
                latest_only=request.latest_only,
                documents=True,
                after=convert.page_position(request.page_token, ("", 0)),
                limit=size + 1,
            )
        response = wire.ListWorkflowDefinitionsResponse()
        response.next_page_token = convert.fill_page(
            response.definitions,
            rows,
            size=size,
            to_message=lambda row: convert.workflow_definition(row, document=request.include_documents),
            position=lambda row: (row.name, row.version),
        )
        return response

    async def DeleteWorkflowDefinition(
        self, request: wire.DeleteWorkflowDefinitionRequest, context: Any
    ) -> wire.DeleteWorkflowDefinitionResponse:
        name = limits.name(request.name, "name")
        version = limits.number(request.version, "version", 1, 2**31 - 1)
        namespace = namespace_of(request)
        async with self._database.acquire() as connection:
            gone = await metadata.delete_workflow(
                connection, namespace, name, version, principal=caller().name, now_ms=self._clock.now_ms()
            )
        if not gone:
            raise _not_found(name, version)
        self._plans.forget(namespace)
        return wire.DeleteWorkflowDefinitionResponse()

    # -- task definitions --------------------------------------------------------------------

    async def PutTaskDefinitions(
        self, request: wire.PutTaskDefinitionsRequest, context: Any
    ) -> wire.PutTaskDefinitionsResponse:
        judged, outcomes = await self._put(request, self._judge.tasks, metadata.put_tasks)
        return wire.PutTaskDefinitionsResponse(
            results=[convert.put_result(one, outcomes.get(index)) for index, one in enumerate(judged)]
        )

    async def GetTaskDefinition(
        self, request: wire.GetTaskDefinitionRequest, context: Any
    ) -> wire.GetTaskDefinitionResponse:
        name = limits.name(request.name, "name")
        async with self._database.acquire() as connection:
            found = await metadata.get_task(connection, namespace_of(request), name)
        if found is None:
            raise _not_found(name)
        return wire.GetTaskDefinitionResponse(definition=convert.task_definition(found))

    async def ListTaskDefinitions(
        self, request: wire.ListTaskDefinitionsRequest, context: Any
    ) -> wire.ListTaskDefinitionsResponse:
        size = limits.page_size(request.page_size, most=DEFINITION_PAGE_MAX)
        (after,) = convert.page_position(request.page_token, ("",))
        async with self._database.acquire() as connection:
            rows = await metadata.list_tasks(
                connection, namespace_of(request), documents=True, after=after, limit=size + 1
            )
        response = wire.ListTaskDefinitionsResponse()
        response.next_page_token = convert.fill_page(
            response.definitions,
            rows,
            size=size,
            to_message=lambda row: convert.task_definition(row, document=request.include_documents),
            position=lambda row: (row.name,),
        )
        return response

    async def DeleteTaskDefinition(
        self, request: wire.DeleteTaskDefinitionRequest, context: Any
    ) -> wire.DeleteTaskDefinitionResponse:
        name = limits.name(request.name, "name")
        namespace = namespace_of(request)
        async with self._database.acquire() as connection:
            gone = await metadata.delete_task(
                connection, namespace, name, principal=caller().name, now_ms=self._clock.now_ms()
            )
        if not gone:
            raise _not_found(name)
        self._plans.forget(namespace)
        return wire.DeleteTaskDefinitionResponse()

    # -- shared ------------------------------------------------------------------------------

    async def _put(
        self,
        request: wire.PutWorkflowDefinitionsRequest | wire.PutTaskDefinitionsRequest,
        judge: _Judge,
        put: _Put,
    ) -> tuple[list[Judged], dict[int, metadata.Put]]:
        """Every document as it was judged, and by index what became (or would become) of the sound ones."""
        self._limits.batch(request.documents, "documents")
        overwrite = convert.overwrite(request.overwrite)
        namespace = namespace_of(request)
        judged = await judge(
            namespace,
            [
                self._limits.definition(raw, f"documents[{index}]")
                for index, raw in enumerate(request.documents)
            ],
            strict=request.strict,
        )
        if not request.validate_only:
            documents.refuse_faults(judged)
        sound = {index: one for index, one in enumerate(judged) if not one.faults}
        documents.refuse_twins(sound)
        async with self._database.acquire() as connection:
            outcomes = await put(
                connection,
                namespace,
                [metadata.Document(one.name, one.raw, one.version) for one in sound.values()],
                overwrite=overwrite,
                principal=caller().name,
                now_ms=self._clock.now_ms(),
                validate_only=request.validate_only,
            )
        if outcomes is None:
            raise NotFound(Reason.NAMESPACE_NOT_FOUND, f"namespace {namespace!r} does not exist")
        by_index = dict(zip(sound, outcomes, strict=True))
        refuse_outcomes(sound, by_index)
        if not request.validate_only:
            self._plans.forget(namespace)
        return judged, by_index


def refuse_outcomes(sound: dict[int, Judged], outcomes: dict[int, metadata.Put]) -> None:
    """Raises AlreadyExists or NotFound where the overwrite rule forbids a document."""
    for index, outcome in outcomes.items():
        document = sound[index]
        if outcome is metadata.Put.EXISTS:
            raise AlreadyExists(
                Reason.DEFINITION_EXISTS,
                f"documents[{index}]: {_called(document.name, document.version)} exists with another "
                "document; nothing was stored. Raise its version, or ask to overwrite",
            )
        if outcome is metadata.Put.MISSING:
            raise NotFound(
                Reason.DEFINITION_NOT_FOUND,
                f"documents[{index}]: {_called(document.name, document.version)} does not exist and "
                "OVERWRITE_REQUIRE was asked for; nothing was stored",
            )


def _not_found(name: str, version: int = 0) -> NotFound:
    return NotFound(Reason.DEFINITION_NOT_FOUND, f"no definition {_called(name, version)} is registered")


def _called(name: str, version: int) -> str:
    return f"{name!r} version {version}" if version else f"{name!r}"
