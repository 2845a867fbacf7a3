"""Administration over the wire: what is connected, what waits and why; and each refused."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from maestoso.admin.v1 import admin_pb2
from maestoso.admin.v1 import admin_service_pb2 as wire
from maestoso.error.v1 import error_pb2
from maestoso.workflow.v1 import workflow_service_pb2
from maestoso_server import ids
from maestoso_server.services.registration import SERVICES
from maestoso_server.store import audit, demand, nodes, sessions
from services_kit import DEADLINE_S, Served, node, refused

UNKNOWN = "0198c5f2-7a30-7c4e-8d21-3f6f0c9a1b2d"


def task(type_: str, reference: str, **fields: Any) -> dict[str, Any]:
    return {"name": reference, "taskReferenceName": reference, "type": type_, **fields}


def definition(name: str, *tasks: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": 1, "schemaVersion": 2, "ownerEmail": "o@example.com", "tasks": [*tasks]}


# --- nodes --------------------------------------------------------------------------------------


async def test_the_nodes_are_listed_by_epoch(served: Served) -> None:
    later = await node(served.database, served.clock, "node-2")

    response = await served.admin.ListNodes(wire.ListNodesRequest(), timeout=DEADLINE_S)

    assert [(one.node_id, one.epoch) for one in response.nodes] == [
        ("node-1", served.epoch),
        ("node-2", later),
    ]
    assert not any(one.draining for one in response.nodes)


async def test_a_drained_node_hears_of_it_with_its_next_beat(served: Served) -> None:
    await served.admin.DrainNode(wire.DrainNodeRequest(node_id="node-1"), timeout=DEADLINE_S)

    async with served.database.acquire() as connection:
        pulse = await nodes.pulse(connection, epoch=served.epoch, queues=[], now_ms=served.clock.now_ms())
    assert pulse.draining


@pytest.mark.parametrize(
    ("node_id", "code"), [("nobody", grpc.StatusCode.NOT_FOUND), ("", grpc.StatusCode.INVALID_ARGUMENT)]
)
async def test_a_node_is_drained_by_its_name(served: Served, node_id: str, code: grpc.StatusCode) -> None:
    found, _ = await refused(
        served.admin.DrainNode(wire.DrainNodeRequest(node_id=node_id), timeout=DEADLINE_S)
    )

    assert found is code


async def test_a_drain_is_kept_with_who_asked_for_it(served: Served) -> None:
    await served.admin.DrainNode(wire.DrainNodeRequest(node_id="node-1"), timeout=DEADLINE_S)

    async with served.database.acquire() as connection:
        (row,) = await audit.read(connection, "*")
    assert (row.principal, row.action, row.resource) == ("anonymous", "node:drain", "node-1")


# --- sessions -----------------------------------------------------------------------------------


async def session(served: Served, *, task_types: list[str] | None = None) -> sessions.Session:
    """A worker's session at the node of the test."""
    made = sessions.Session(
        session_id=ids.session_id(),
        epoch=served.epoch,
        namespace="default",
        worker_id="w-1",
        resume_token_hash=b"",
        task_types=task_types or ["pay"],
        principal="anonymous",
        sdk="test/1",
        state="ACTIVE",
        connected_ms=served.clock.now_ms(),
    )
    async with served.database.acquire() as connection:
        await sessions.open_session(connection, made)
    return made


async def listed(served: Served, **fields: Any) -> list[admin_pb2.Session]:
    response = await served.admin.ListSessions(wire.ListSessionsRequest(**fields), timeout=DEADLINE_S)
    return list(response.sessions)


async def test_a_session_is_listed_with_what_it_takes(served: Served) -> None:
    made = await session(served, task_types=["pay", "eu:ship"])

    (found,) = await listed(served)

    assert (found.session_id, found.worker_id, found.node_epoch) == (made.session_id, "w-1", served.epoch)
    assert [(offer.domain, offer.task_type) for offer in found.task_types] == [("", "pay"), ("eu", "ship")]
    assert found.state == admin_pb2.SESSION_STATE_ACTIVE
    assert not found.HasField("expire_time")


async def test_sessions_are_listed_by_state_and_page(served: Served) -> None:
    made = sorted([(await session(served)).session_id for _ in range(3)])

    first = await served.admin.ListSessions(wire.ListSessionsRequest(page_size=2), timeout=DEADLINE_S)
    rest = await listed(served, page_size=2, page_token=first.next_page_token)

    assert [one.session_id for one in (*first.sessions, *rest)] == made
    assert await listed(served, state=admin_pb2.SESSION_STATE_DETACHED) == []
    code, _ = await refused(listed(served, state=99))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_session_that_is_asked_to_drain_is_told_to_its_node(served: Served) -> None:
    made = await session(served)
    request = wire.DrainSessionRequest(
        session_id=made.session_id, reason="upgrade", grace=Duration(seconds=5)
    )

    await served.admin.DrainSession(request, timeout=DEADLINE_S)

    async with served.database.acquire() as connection:
        pulse = await nodes.pulse(connection, epoch=served.epoch, queues=[], now_ms=served.clock.now_ms())
    assert pulse.drains == [nodes.AskedDrain(made.session_id, served.clock.now_ms() + 5_000, "upgrade")]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"session_id": UNKNOWN}, grpc.StatusCode.NOT_FOUND),
        ({"session_id": "x"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"session_id": UNKNOWN, "grace": Duration(seconds=3_601)}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_drain_names_a_session_with_a_stream(
    served: Served, fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    found, _ = await refused(
        served.admin.DrainSession(wire.DrainSessionRequest(**fields), timeout=DEADLINE_S)
    )

    assert found is code


# --- queues -------------------------------------------------------------------------------------


async def queues(served: Served, **fields: Any) -> wire.ListQueuesResponse:
    return await served.admin.ListQueues(wire.ListQueuesRequest(**fields), timeout=DEADLINE_S)


async def test_a_queue_tells_its_depth_its_age_and_whether_anybody_takes_from_it(served: Served) -> None:
    await served.register(definition("pay", task("SIMPLE", "charge")))
    for _ in range(3):
        await served.start("pay")
    served.clock.advance(2_000)

    (before,) = (await queues(served)).queues
    async with served.database.acquire() as connection:
        await demand.note(
            connection, epoch=served.epoch, queues=[("default", "charge")], now_ms=served.clock.now_ms()
        )
    (after,) = (await queues(served)).queues

    assert (before.task_type, before.domain, before.depth) == ("charge", "", 3)
    assert before.oldest_age.ToMilliseconds() == 2_000
    assert not before.depth_capped
    assert (before.has_worker, after.has_worker) == (False, True)


async def test_queues_are_listed_by_name_type_and_page(served: Served) -> None:
    await served.register(*(definition(name, task("SIMPLE", name)) for name in "abc"))
    for name in "abc":
        await served.start(name)

    first = await queues(served, page_size=2)
    second = await queues(served, page_size=2, page_token=first.next_page_token)

    assert [one.task_type for one in (*first.queues, *second.queues)] == ["a", "b", "c"]
    assert second.next_page_token == ""
    assert [one.task_type for one in (await queues(served, task_type="b")).queues] == ["b"]
    code, _ = await refused(queues(served, page_size=-1))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


# --- explain ------------------------------------------------------------------------------------


async def explained(served: Served, workflow_id: str, **fields: Any) -> wire.ExplainWorkflowResponse:
    return await served.admin.ExplainWorkflow(
        wire.ExplainWorkflowRequest(workflow_id=workflow_id, **fields), timeout=DEADLINE_S
    )


async def test_every_open_task_is_explained(served: Served) -> None:
    branches = [[task("SIMPLE", "charge")], [task("HUMAN", "approve")], [task("WAIT", "later",
        inputParameters={"duration": "60 seconds"})]]  # fmt: skip
    await served.register(
        definition(
            "wide",
            task("FORK_JOIN", "fork", forkTasks=branches),
            task("JOIN", "join", joinOn=["charge", "approve", "later"]),
        )
    )
    workflow_id = await served.start("wide")

    explanation = (await explained(served, workflow_id)).explanation

    found = {one.reference: one for one in explanation.open_tasks}
    assert found["charge"].cause == admin_pb2.WAIT_CAUSE_NO_WORKER
    assert found["charge"].queue == "charge"
    assert found["approve"].cause == admin_pb2.WAIT_CAUSE_SIGNAL
    assert found["later"].cause == admin_pb2.WAIT_CAUSE_TIME
    assert found["later"].due_time.ToMilliseconds() == served.clock.now_ms() + 60_000
    assert found["join"].cause == admin_pb2.WAIT_CAUSE_TASKS
    assert list(found["join"].references) == ["charge", "approve", "later"]
    assert explanation.summary.startswith("RUNNING")


async def test_a_join_is_explained_by_what_is_left(served: Served) -> None:
    branches = [[task("HUMAN", "a")], [task("HUMAN", "b")]]
    await served.register(
        definition(
            "two", task("FORK_JOIN", "fork", forkTasks=branches), task("JOIN", "join", joinOn=["a", "b"])
        )
    )
    workflow_id = await served.start("two")
    await served.workflows.SignalWorkflow(
        workflow_service_pb2.SignalWorkflowRequest(workflow_id=workflow_id, reference="a"), timeout=DEADLINE_S
    )

    explanation = (await explained(served, workflow_id)).explanation

    (join,) = (one for one in explanation.open_tasks if one.task_type == "JOIN")
    assert list(join.references) == ["b"]


async def test_a_child_is_named(served: Served) -> None:
    await served.register(
        definition("child", task("HUMAN", "approve")),
        definition("parent", task("SUB_WORKFLOW", "sub", subWorkflowParam={"name": "child", "version": 1})),
    )
    workflow_id = await served.start("parent")

    (one,) = (await explained(served, workflow_id)).explanation.open_tasks

    assert one.cause == admin_pb2.WAIT_CAUSE_CHILD
    assert (await served.get(one.child_workflow_id)).parent_workflow_id == workflow_id


async def test_explanations_come_by_pages(served: Served) -> None:
    branches = [[task("HUMAN", f"b{number}")] for number in range(4)]
    join = task("JOIN", "join", joinOn=[f"b{number}" for number in range(4)])
    await served.register(definition("wide", task("FORK_JOIN", "fork", forkTasks=branches), join))
    workflow_id = await served.start("wide")
    seen: list[str] = []
    token = ""

    while True:
        response = await explained(served, workflow_id, page_size=2, page_token=token)
        seen += [one.reference for one in response.explanation.open_tasks]
        token = response.next_page_token
        if not token:
            break

    assert {"b0", "b1", "b2", "b3", "join"} <= set(seen)
    assert len(seen) == len(set(seen))


async def test_an_ended_workflow_is_explained_by_its_end(served: Served) -> None:
    await served.register(definition("nothing", task("NOOP", "done")))

    explanation = (await explained(served, await served.start("nothing"))).explanation

    assert (explanation.summary, len(explanation.open_tasks)) == ("COMPLETED.", 0)


async def test_an_unknown_workflow_is_not_explained(served: Served) -> None:
    code, refusal = await refused(explained(served, UNKNOWN))

    assert code is grpc.StatusCode.NOT_FOUND
    assert refusal.reason == error_pb2.REASON_WORKFLOW_NOT_FOUND


# --- namespaces ---------------------------------------------------------------------------------


async def create(served: Served, name: str) -> wire.CreateNamespaceResponse:
    return await served.admin.CreateNamespace(wire.CreateNamespaceRequest(namespace=name), timeout=DEADLINE_S)


async def test_a_new_namespace_is_listed_and_apart_from_the_others(served: Served) -> None:
    await served.register(definition("nothing", task("NOOP", "done")))

    created = await create(served, "team-a")

    response = await served.admin.ListNamespaces(wire.ListNamespacesRequest(), timeout=DEADLINE_S)
    assert created.namespace.create_time.ToMilliseconds() == served.clock.now_ms()
    assert [one.name for one in response.namespaces] == ["default", "team-a"]
    request = workflow_service_pb2.StartWorkflowRequest(namespace="team-a")
    request.start.name = "nothing"
    code, refusal = await refused(served.workflows.StartWorkflow(request, timeout=DEADLINE_S))
    assert code is grpc.StatusCode.NOT_FOUND
    assert refusal.reason == error_pb2.REASON_DEFINITION_NOT_FOUND


async def test_a_workflow_is_not_seen_from_another_namespace(served: Served) -> None:
    await served.register(definition("ask", task("HUMAN", "approve")))
    workflow_id = await served.start("ask")
    await create(served, "team-a")

    read, _ = await refused(served.get(workflow_id, namespace="team-a"))
    ended, _ = await refused(
        served.workflows.TerminateWorkflow(
            workflow_service_pb2.TerminateWorkflowRequest(namespace="team-a", workflow_id=workflow_id),
            timeout=DEADLINE_S,
        )
    )

    assert (read, ended) == (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.NOT_FOUND)


async def test_a_namespace_is_created_once(served: Served) -> None:
    await create(served, "team-a")

    code, refusal = await refused(create(served, "team-a"))

    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == error_pb2.REASON_NAMESPACE_EXISTS


@pytest.mark.parametrize("name", ["", "A", "1a", "a b", "a" * 64, "a\0", "*"])
async def test_a_namespace_has_a_plain_name(served: Served, name: str) -> None:
    code, _ = await refused(create(served, name))

    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_namespaces_are_listed_by_pages(served: Served) -> None:
    await create(served, "a")

    first = await served.admin.ListNamespaces(wire.ListNamespacesRequest(page_size=1), timeout=DEADLINE_S)
    second = await served.admin.ListNamespaces(
        wire.ListNamespacesRequest(page_size=1, page_token=first.next_page_token), timeout=DEADLINE_S
    )

    assert [one.name for one in (*first.namespaces, *second.namespaces)] == ["a", "default"]


# --- beside our services ------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health_answers_for_the_server_and_each_service(served: Served, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(served.channel)

    response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)

    assert response.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_services(served: Served) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    call = stub.ServerReflectionInfo(timeout=DEADLINE_S)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))

    response = await call.read()

    listed = {service.name for service in response.list_services_response.service}
    assert set(SERVICES) <= listed
    await call.done_writing()
