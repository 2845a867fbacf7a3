"""Searches by RPC: attributes, words, pages, sorting, counts, tasks, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from maestoso.error.v1 import error_pb2
from maestoso.search.v1 import search_service_pb2 as wire
from maestoso.workflow.v1 import workflow_service_pb2
from services_kit import DEADLINE_S, Served, refused

ORDERS = {
    "name": "orders",
    "version": 1,
    "schemaVersion": 2,
    "tasks": [{"name": "pay", "taskReferenceName": "pay_ref", "type": "SIMPLE"}],
    "variables": {"stage": "new"},
    "searchAttributes": {
        "customer": "${workflow.input.customer}",
        "amount": "${workflow.input.amount}",
        "paid": "${workflow.output.paid}",
        "stage": "${workflow.variables.stage}",
        "lines": "${workflow.input.lines}",
    },
}
SET = {
    "name": "staged",
    "version": 1,
    "schemaVersion": 2,
    "tasks": [
        {
            "name": "set",
            "taskReferenceName": "set",
            "type": "SET_VARIABLE",
            "inputParameters": {"stage": "packed", "note": None},
        },
        {"name": "hold", "taskReferenceName": "hold", "type": "WAIT"},
    ],
    "variables": {"stage": "new", "note": "call Ann"},
    "searchAttributes": {"stage": "${workflow.variables.stage}", "note": "${workflow.variables.note}"},
}


async def found(served: Served, query: str = "", **more: Any) -> list[str]:
    response = await page(served, query, **more)
    return [item.workflow.workflow_id for item in response.workflows]


async def page(served: Served, query: str = "", **more: Any) -> wire.SearchWorkflowsResponse:
    request = wire.SearchWorkflowsRequest(query=query, **more)
    return await served.search.SearchWorkflows(request, timeout=DEADLINE_S)


async def order(served: Served, **input: Any) -> str:
    served.clock.advance(1)
    return await served.start("orders", input=msgspec.json.encode(input))


async def test_a_started_workflow_is_found_by_its_attributes_at_once(served: Served) -> None:
    await served.register(ORDERS)
    ann = await order(served, customer="Ann Lee", amount=7.5)
    bob = await order(served, customer="Bob", amount=12345678901234567890)
    assert await found(served, "customer = 'Ann Lee'") == [ann]
    assert await found(served, "attributes.customer STARTS_WITH B") == [bob]
    assert await found(served, "amount > 7 AND amount < 8") == [ann]
    assert await found(served, "amount = 12345678901234567890") == [bob]
    assert await found(served, "NOT customer = Bob") == [ann]
    assert await found(served, "attributes.paid IS NULL") == [bob, ann]
    assert await found(served, "customer = ann") == []


async def test_attributes_follow_variables(served: Served) -> None:
    await served.register(SET)
    id_ = await served.start("staged")
    assert await found(served, "attributes.stage = packed") == [id_]
    assert await found(served, "attributes.stage = new") == []
    assert await found(served, "attributes.note IS NULL") == [id_]
    (item,) = (await page(served)).workflows
    assert [(attribute.name, attribute.text) for attribute in item.attributes] == [("stage", "packed")]


async def test_attributes_are_those_of_the_definition_that_holds(served: Served) -> None:
    await served.register(ORDERS)
    id_ = await order(served, customer="Ann", region="north")
    renamed = {"stage": "${workflow.variables.stage}", "region": "${workflow.input.region}"}
    await served.register({**ORDERS, "version": 2, "searchAttributes": renamed})
    await served.workflows.TerminateWorkflow(
        workflow_service_pb2.TerminateWorkflowRequest(workflow_id=id_), timeout=DEADLINE_S
    )
    await served.workflows.RestartWorkflow(
        workflow_service_pb2.RestartWorkflowRequest(workflow_id=id_, use_latest_definitions=True),
        timeout=DEADLINE_S,
    )
    (item,) = (await page(served)).workflows
    assert [attribute.name for attribute in item.attributes] == ["region", "stage"]
    assert await found(served, "attributes.customer = Ann") == []
    assert await found(served, "attributes.region = north") == [id_]


async def test_what_is_removed_is_found_no_more(served: Served) -> None:
    await served.register(ORDERS)
    id_ = await order(served, customer="Ann")
    await served.workflows.TerminateWorkflow(
        workflow_service_pb2.TerminateWorkflowRequest(workflow_id=id_), timeout=DEADLINE_S
    )
    await served.workflows.RemoveWorkflow(
        workflow_service_pb2.RemoveWorkflowRequest(workflow_id=id_), timeout=DEADLINE_S
    )
    assert await found(served) == []
    async with served.database.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM search_attribute") == 0


async def test_a_value_that_cannot_be_taken_is_shown_as_a_fault(served: Served) -> None:
    await served.register(ORDERS)
    await order(served, customer="x" * 256, lines=[1], amount=True)
    (item,) = (await page(served)).workflows
    shown = {attribute.name: attribute for attribute in item.attributes}
    assert shown["customer"].fault == "a text of 256 characters; at most 255 are taken"
    assert shown["lines"].fault.startswith("a list")
    assert shown["amount"].boolean is True
    assert shown["stage"].text == "new"
    assert await found(served, "attributes.customer IS NOT NULL") == []


async def test_free_text_finds_names_keys_attributes_and_reasons(served: Served) -> None:
    await served.register(ORDERS)
    ann = await order(served, customer="Ann Lee")
    bob = await order(served, customer="Bob")
    await served.workflows.TerminateWorkflow(
        workflow_service_pb2.TerminateWorkflowRequest(workflow_id=bob, reason="card was declined"),
        timeout=DEADLINE_S,
    )
    assert await found(served, free_text="ann") == [ann]
    assert await found(served, free_text="lee orders") == [ann]
    assert await found(served, free_text="DECLINED") == [bob]
    assert await found(served, free_text=bob) == [bob]
    assert await found(served, free_text="declined ann") == []
    assert await found(served, "status = RUNNING", free_text="*") == [ann]


async def test_pages_follow_each_other_in_either_order(served: Served) -> None:
    await served.register(ORDERS)
    ids = [await order(served, amount=number) for number in (3, 1, 2, 1)]
    newest, sorted_ = [], []
    token = ""
    while True:
        response = await page(served, "status = RUNNING", page_size=3, page_token=token)
        newest += [item.workflow.workflow_id for item in response.workflows]
        token = response.next_page_token
        if not token:
            break
    assert newest == ids[::-1]
    assert await found(served, sort="startTime:ASC") == ids
    assert await found(served, start=1, page_size=2) == ids[::-1][1:3]
    while True:
        response = await page(served, sort="workflowType:ASC|startTime:ASC", page_size=3, page_token=token)
        sorted_ += [item.workflow.workflow_id for item in response.workflows]
        token = response.next_page_token
        if not token:
            break
    assert sorted_ == ids
    assert not response.partial


async def test_counts_are_exact_and_grouped(served: Served) -> None:
    await served.register(ORDERS)
    await order(served, customer="Ann")
    await order(served, customer="Ann")
    await order(served)
    count = await served.search.CountWorkflows(
        wire.CountWorkflowsRequest(query="status = RUNNING", group_by="attributes.customer"),
        timeout=DEADLINE_S,
    )
    assert (count.total.count, count.total.relation) == (3, wire.RELATION_EXACT)
    assert [(group.value, group.total.count) for group in count.groups] == [("Ann", 2), ("", 1)]
    with_total = await page(served, "customer = Ann", page_size=1, with_total=True)
    assert (len(with_total.workflows), with_total.total.count) == (1, 2)


async def test_tasks_are_found_page_by_page(served: Served) -> None:
    await served.register(ORDERS, SET)
    first = await order(served)
    served.clock.advance(1)
    second = await served.start("staged")
    tasks = []
    token = ""
    while True:
        response = await served.search.SearchTasks(
            wire.SearchTasksRequest(page_size=1, page_token=token), timeout=DEADLINE_S
        )
        tasks += [(item.task.workflow_id, item.task.reference) for item in response.tasks]
        token = response.next_page_token
        if not token:
            break
    assert tasks == [(second, "hold"), (second, "set"), (first, "pay_ref")]
    one = await served.search.SearchTasks(
        wire.SearchTasksRequest(query="taskType = WAIT AND status = IN_PROGRESS AND workflowType = staged"),
        timeout=DEADLINE_S,
    )
    (waiting,) = one.tasks
    assert waiting.workflow_name == "staged"
    by_id = await served.search.SearchTasks(
        wire.SearchTasksRequest(query=f"taskId = {waiting.task.task_id}"), timeout=DEADLINE_S
    )
    assert [item.task.reference for item in by_id.tasks] == ["hold"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"query": "statu = FAILED"}, "column 1: 'statu' is no field of a workflow"),
        ({"query": "status = DONE"}, "column 10: 'DONE' is not a status of a workflow: RUNNING"),
        ({"query": "status = FAILED OR"}, "column 19: found the end of the query, expected a field"),
        ({"sort": "reason:ASC"}, "cannot be sorted by 'reason'"),
        ({"sort": "startTime"}, "expected startTime:ASC or startTime:DESC"),
        ({"page_size": 5001}, "0 to 5,000"),
        ({"start": 10001}, "0 to 10,000"),
        ({"page_token": "x"}, "is not a token of this list"),
        ({"free_text": "a b c d e f g h i"}, "at most 8"),
    ],
)
async def test_what_cannot_be_honoured_is_refused(served: Served, fields: dict[str, Any], words: str) -> None:
    _, error = await refused(page(served, **fields))
    assert error.reason == error_pb2.REASON_INVALID_REQUEST
    assert words in error.message


async def test_a_token_belongs_to_its_query(served: Served) -> None:
    await served.register(ORDERS)
    await order(served)
    await order(served)
    token = (await page(served, page_size=1)).next_page_token
    assert await found(served, page_size=1, page_token=token)
    _, error = await refused(page(served, "version = 1", page_token=token))
    assert error.reason == error_pb2.REASON_INVALID_REQUEST
    assert "belongs to another query" in error.message


async def test_other_namespaces_are_not_searched(served: Served) -> None:
    await served.register(ORDERS)
    await order(served, customer="Ann")
    _, error = await refused(page(served, namespace="nowhere"))
    assert error.reason == error_pb2.REASON_NAMESPACE_NOT_FOUND
    assert "nowhere" in error.message


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"1x": "a"}, "no digit first"),
        ({"x": ["a"]}, "not a list"),
        ({"x": "${pay_ref.output.id}"}, "only parts of the workflow"),
        ({"x": "${workflow.secrets.key}"}, "a secret cannot be searched for"),
        ({"x": "${workflow.input.card.number}"}, "a masked field cannot be searched for"),
        ({f"a{number}": 1 for number in range(21)}, "at most 20"),
    ],
)
async def test_attributes_that_cannot_work_are_refused(
    served: Served, attributes: dict[str, Any], words: str
) -> None:
    _, error = await refused(
        served.register({**ORDERS, "searchAttributes": attributes, "maskedFields": ["card.number"]})
    )
    assert error.reason == error_pb2.REASON_INVALID_DEFINITION
    assert words in str(error)
