"""Script tasks over the real evaluators and store: outputs, statuses and reasons that users match on."""

from __future__ import annotations

from typing import Any

import pytest

from maestoso_server.engine.state import WorkflowStatus
from maestoso_server.scripting import pool

from .conftest import Engine

needs_python = pytest.mark.skipif(
    "python" not in pool.languages(), reason="left out: the extra `python` (pydantic-monty) is not installed"
)


def flow(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "scripts", "version": 1, "schemaVersion": 2, "tasks": list(tasks), **more}


def task(type_name: str, reference: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    named = {"name": reference, "taskReferenceName": reference, "type": type_name}
    return {**named, "inputParameters": inputs, **more}


async def outcome(engine: Engine, *tasks: dict[str, Any], **given: Any) -> tuple[str, Any]:
    """(status of the workflow, its output)"""
    workflow = await engine.start(flow(*tasks), given)
    return WorkflowStatus(await engine.ended(workflow)).name, await engine.output(workflow)


async def row(engine: Engine, *tasks: dict[str, Any], **given: Any) -> tuple[int, str]:
    """(status of the first task, its reason)"""
    workflow = await engine.start(flow(*tasks), given)
    await engine.ended(workflow)
    found = await engine.fetchrow(
        "SELECT status, reason FROM task WHERE workflow_id = $1 ORDER BY seq LIMIT 1", workflow
    )
    return found["status"], found["reason"]


FAILED, TERMINAL = 5, 6


@pytest.mark.covers("G.jq.1", "K30")
async def test_a_jq_query_gives_its_first_result_and_all_of_them(engine: Engine) -> None:
    query = task(
        "JSON_JQ_TRANSFORM", "jq", {"queryExpression": ".items[] | .n", "items": [{"n": 1}, {"n": 2}]}
    )
    assert await outcome(engine, query) == ("COMPLETED", {"result": 1, "resultList": [1, 2]})
    nothing = task("JSON_JQ_TRANSFORM", "jq", {"queryExpression": "empty"})
    assert await outcome(engine, nothing) == ("COMPLETED", {"result": None, "resultList": []})


@pytest.mark.covers("G.jq.2")
async def test_a_jq_query_that_indexes_a_text_by_a_key_fails_in_conductors_words(engine: Engine) -> None:
    query = task(
        "JSON_JQ_TRANSFORM", "jq", {"queryExpression": ".value.array", "value": "text"}, retryCount=0
    )
    assert await row(engine, query) == (FAILED, 'Cannot index string with string "array"')


@pytest.mark.covers("G.jq.4")
async def test_the_result_of_one_query_is_addressed_by_the_next(engine: Engine) -> None:
    first = task("JSON_JQ_TRANSFORM", "one", {"queryExpression": "{deep: {n: .v}}", "v": 7})
    second = task(
        "JSON_JQ_TRANSFORM", "two", {"queryExpression": ".n + 1", "n": "${one.output.result.deep.n}"}
    )
    assert await outcome(engine, first, second) == ("COMPLETED", {"result": 8, "resultList": [8]})


@pytest.mark.covers("G.jq.5")
async def test_a_decision_goes_by_the_result_of_queries(engine: Engine) -> None:
    queries = [
        task("JSON_JQ_TRANSFORM", "one", {"queryExpression": '{action: "CREATE"}'}),
        task("JSON_JQ_TRANSFORM", "two", {"queryExpression": ".a", "a": "${one.output.result.action}"}),
    ]
    made = task("INLINE", "made", {"expression": "'created'"})
    decision = task(
        "DECISION", "d", {"v": "${two.output.result}"}, caseValueParam="v", decisionCases={"CREATE": [made]}
    )
    assert await outcome(engine, *queries, decision) == ("COMPLETED", {"result": "created"})


@pytest.mark.covers("K30")
@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        (task("INLINE", "t", {"expression": " "}), TERMINAL, "Empty 'expression' in Inline task's input"),
        (task("INLINE", "t", {"expression": "1", "evaluatorType": ""}), TERMINAL, "Empty 'evaluatorType' in"),
        (
            task("INLINE", "t", {"expression": "1", "evaluatorType": "${workflow.input.e}"}),
            TERMINAL,
            "Unknown evaluator 'ruby' in INLINE task.",
        ),
        (task("INLINE", "t", {"expression": 7}), TERMINAL, "'expression' must be a text"),
        (
            task("INLINE", "t", {"expression": "\nnope.x"}),
            TERMINAL,
            "Error evaluating the script `ReferenceError: nope is not defined` at line 2",
        ),
        (
            task("LAMBDA", "t", {"scriptExpression": ""}, retryCount=0),
            FAILED,
            "Empty 'scriptExpression' in Lambda task's input parameters.",
        ),
        (task("LAMBDA", "t", {"scriptExpression": "throw 'x'"}, retryCount=0), FAILED, "Error evaluating"),
        (
            task("JSON_JQ_TRANSFORM", "t", {"x": 1}, retryCount=0),
            FAILED,
            "Missing 'queryExpression' in input parameters",
        ),
    ],
)
async def test_a_script_task_fails_in_conductors_words(
    engine: Engine, script: dict[str, Any], status: int, reason: str
) -> None:
    found = await row(engine, script, e="ruby")
    assert found[0] == status
    assert found[1].startswith(reason)


@needs_python
@pytest.mark.covers("K30", "B32")
async def test_python_decides_computes_and_loops(engine: Engine) -> None:
    loop = task(
        "DO_WHILE",
        "turns",
        {"most": 3},
        evaluatorType="python",
        loopCondition="return turns['iteration'] < most and total['result'] < 100",
        loopOver=[
            task(
                "INLINE",
                "total",
                {"evaluatorType": "python", "n": "${turns.output.iteration}", "expression": "return n * 10"},
            )
        ],
    )
    size = task(
        "SWITCH",
        "size",
        {"total": "${total.output.result}"},
        evaluatorType="python",
        expression="'big' if total > 20 else 'small'",
        decisionCases={
            "big": [
                task(
                    "INLINE",
                    "end",
                    {
                        "evaluatorType": "python",
                        "items": "${workflow.input.items}",
                        "expression": "sorted(item['n'] for item in items)",
                    },
                )
            ]
        },
    )
    ended = await outcome(engine, loop, size, items=[{"n": 2**70}, {"n": 1}])
    assert ended == ("COMPLETED", {"result": [1, 2**70]})


@needs_python
async def test_an_error_in_python_is_final_and_has_its_line(engine: Engine) -> None:
    broken = task("INLINE", "t", {"evaluatorType": "python", "expression": "a = 1\nreturn a + 'x'"})
    status, reason = await row(engine, broken)
    assert status == TERMINAL
    assert reason.startswith("Error evaluating the script `TypeError")
    assert reason.endswith("at line 2")
