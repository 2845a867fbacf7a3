"""UpgradeWorkflow over the wire and in the store: dry runs, changes, refusals with every reason."""

from __future__ import annotations

import json
from typing import Any

import grpc

from maestoso.error.v1 import error_pb2
from maestoso.workflow.v1 import workflow_pb2
from maestoso.workflow.v1 import workflow_service_pb2 as wire
from maestoso_server.engine.events import Result
from maestoso_server.engine.state import TaskStatus
from services_kit import DEADLINE_S, Served, refused

UNKNOWN = "0198c5f2-7a30-7c4e-8d21-3f6f0c9a1b2d"


def node(type_: str, reference: str, **fields: Any) -> dict[str, Any]:
    return {"name": reference, "taskReferenceName": reference, "type": type_, **fields}


def definition(version: int, *tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "name": "order",
        "version": version,
        "schemaVersion": 2,
        "ownerEmail": "team@example.com",
        "tasks": list(tasks),
        **fields,
    }


PAY = definition(1, node("SIMPLE", "charge"), node("SIMPLE", "ship"))
CHECKED = definition(2, node("SIMPLE", "charge"), node("SIMPLE", "check"), node("SIMPLE", "ship"))
GONE = definition(3, node("SIMPLE", "check"))


async def upgrade(served: Served, workflow_id: str, **fields: Any) -> workflow_pb2.UpgradeReport:
    response = await served.workflows.UpgradeWorkflow(
        wire.UpgradeWorkflowRequest(workflow_id=workflow_id, **fields), timeout=DEADLINE_S
    )
    return response.report


async def done(served: Served, workflow_id: str, seq: int) -> None:
    now_ms = served.clock.now_ms()
    await served.happen(workflow_id, Result(now_ms=now_ms, seq=seq, status=TaskStatus.COMPLETED))


async def references(served: Served, workflow_id: str) -> list[str]:
    return [task.reference for task in (await served.get(workflow_id, include_tasks=True)).tasks]


async def test_a_workflow_goes_on_under_the_highest_version(served: Served) -> None:
    await served.register(PAY)
    workflow_id = await served.start("order")
    await served.register(CHECKED)

    report = await upgrade(served, workflow_id)

    assert (report.from_version, report.to_version) == (1, 2)
    added = [(one.reference, one.kind) for one in report.differences]
    assert added == [("check", workflow_pb2.DIFFERENCE_KIND_ADDED)]
    await done(served, workflow_id, 1)
    assert await references(served, workflow_id) == ["charge", "check"]
    assert (await served.get(workflow_id)).version == 2
    listed = await served.workflows.ListWorkflows(wire.ListWorkflowsRequest(), timeout=DEADLINE_S)
    assert [found.version for found in listed.workflows] == [2]


async def test_what_is_upgraded_is_so_after_its_node_has_forgotten_it(served: Served) -> None:
    await served.register(PAY, CHECKED)
    workflow_id = await served.start("order", version=1)
    await upgrade(served, workflow_id, version=2)

    served.executor.forget_views()
    await done(served, workflow_id, 1)

    assert await references(served, workflow_id) == ["charge", "check"]


async def test_a_dry_run_of_an_unregistered_definition_changes_nothing(served: Served) -> None:
    await served.register(PAY)
    workflow_id = await served.start("order")
    before = await served.get(workflow_id, include_tasks=True, include_payloads=True)

    report = await upgrade(served, workflow_id, definition=json.dumps(GONE).encode(), dry_run=True)

    assert [fault.reference for fault in report.faults] == ["charge"]
    (concerned,) = [one for one in report.differences if one.reference == "charge"]
    assert list(concerned.open_task_ids) == [before.tasks[0].task_id]
    assert await served.get(workflow_id, include_tasks=True, include_payloads=True) == before


async def test_a_version_without_the_open_task_is_refused_by_reference(served: Served) -> None:
    await served.register(PAY, GONE)
    workflow_id = await served.start("order", version=1)

    code, refusal = await refused(upgrade(served, workflow_id, version=3))

    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == error_pb2.REASON_WRONG_STATE
    assert [violation.path for violation in refusal.violations] == ["charge"]
    assert "is not in the definition any more" in refusal.violations[0].message
    assert (await served.get(workflow_id)).version == 1


async def test_an_ended_workflow_is_not_upgraded(served: Served) -> None:
    await served.register(definition(1, node("NOOP", "done")), CHECKED)
    workflow_id = await served.start("order", version=1)

    code, refusal = await refused(upgrade(served, workflow_id))

    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "it is COMPLETED" in refusal.message


async def test_a_version_that_is_not_registered_is_not_found(served: Served) -> None:
    await served.register(PAY)
    workflow_id = await served.start("order")

    code, refusal = await refused(upgrade(served, workflow_id, version=9))

    assert (code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, error_pb2.REASON_DEFINITION_NOT_FOUND)


async def test_an_unknown_workflow_is_not_found(served: Served) -> None:
    code, _ = await refused(upgrade(served, UNKNOWN))

    assert code is grpc.StatusCode.NOT_FOUND


async def test_a_definition_with_a_version_beside_it_is_refused(served: Served) -> None:
    await served.register(PAY)
    workflow_id = await served.start("order")

    code, refusal = await refused(
        upgrade(served, workflow_id, definition=json.dumps(CHECKED).encode(), version=2)
    )

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.path for violation in refusal.violations] == ["version"]


async def test_the_document_of_another_workflow_is_refused(served: Served) -> None:
    await served.register(PAY)
    workflow_id = await served.start("order")
    other = {**CHECKED, "name": "other"}

    code, refusal = await refused(upgrade(served, workflow_id, definition=json.dumps(other).encode()))

    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "not a version of that" in refusal.violations[0].message


async def test_a_time_out_of_the_new_version_is_armed(served: Served) -> None:
    await served.register(PAY, {**CHECKED, "timeoutSeconds": 60, "timeoutPolicy": "TIME_OUT_WF"})
    workflow_id = await served.start("order", version=1)

    await upgrade(served, workflow_id, version=2)

    async with served.database.acquire() as connection:
        due_ms = await connection.fetchval(
            "SELECT d.due_ms FROM deadline d WHERE d.workflow_id = $1 AND d.seq = 0", workflow_id
        )
    assert due_ms == served.clock.now_ms() + 60_000
