"""Where TRY, COMPENSATE and `compensate` may stand, and what is said where they may not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maestoso_server.definitions.parse import parse_workflow
from maestoso_server.definitions.snapshot import snapshot, task_names, unpinned_children


def node(type: str, reference: str, **more: Any) -> dict[str, Any]:
    return {"name": reference, "taskReferenceName": reference, "type": type, **more}


def simple(reference: str, **more: Any) -> dict[str, Any]:
    return node("SIMPLE", reference, **more)


def guard(*body: dict[str, Any], reference: str = "guard", **more: Any) -> dict[str, Any]:
    return node("TRY", reference, tryTasks=list(body), **{"catchCases": [{"tasks": []}], **more})


def judged(*tasks: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(faults, warnings) as `path: message`."""
    document = {"name": "flow", "version": 1, "schemaVersion": 2, "ownerEmail": "a@b.c", "tasks": list(tasks)}
    parsed = parse_workflow(json.dumps(document).encode())

    def told(findings: Any) -> list[str]:
        return [f"{f.path}: {f.message}" for f in findings]

    return told(parsed.faults), told(parsed.warnings)


ACCEPTED: dict[str, list[dict[str, Any]]] = {
    "a case": [guard(simple("a"), catchCases=[{"errorNames": ["X"], "tasks": [simple("c")]}])],
    "finally alone": [guard(simple("a"), catchCases=[], finallyTasks=[simple("f")])],
    "a case of all at the end": [
        guard(simple("a"), catchCases=[{"statuses": ["TIMED_OUT"], "tasks": []}, {"tasks": []}])
    ],
    "nested": [guard(guard(simple("a"), reference="inner"))],
    "compensate": [simple("a", compensate=[simple("u", inputParameters={"x": "${a.output.x}"})])],
    "compensate of a child": [
        node("SUB_WORKFLOW", "s", subWorkflowParam={"name": "c"}, compensate=[simple("u")])
    ],
    "a COMPENSATE of a TRY around": [
        guard(
            simple("a", compensate=[simple("u")]),
            catchCases=[{"tasks": [node("COMPENSATE", "k", inputParameters={"of": "guard"})]}],
        )
    ],
    "an operator in a chain": [
        simple("a", compensate=[guard(simple("u"), reference="ug")]),
    ],
    "a join inside the body": [
        guard(node("FORK_JOIN", "f", forkTasks=[[simple("a")]]), node("JOIN", "j", joinOn=["a"])),
    ],
    "a join on the TRY": [
        node("FORK_JOIN", "f", forkTasks=[[guard(simple("a"))]]),
        node("JOIN", "j", joinOn=["guard"]),
    ],
    "reading the error": [
        guard(
            simple("a"), catchCases=[{"tasks": [simple("c", inputParameters={"e": "${guard.output.error}"})]}]
        )
    ],
}

REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no body": ([guard()], "tasks[0].tryTasks: tryTasks should have at least one task"),
    "no case and no finally": (
        [guard(simple("a"), catchCases=[])],
        "tasks[0].catchCases: catchCases or finallyTasks is required",
    ),
    "a case of all before others": (
        [guard(simple("a"), catchCases=[{"tasks": []}, {"errorNames": ["X"], "tasks": []}])],
        "tasks[0].catchCases[0]: case 0 of guard catches everything",
    ),
    "an unknown status": (
        [guard(simple("a"), catchCases=[{"statuses": ["BROKEN"], "tasks": []}])],
        "tasks[0].catchCases[0].statuses[0]: BROKEN is no status of a failed task",
    ),
    "an empty name": (
        [guard(simple("a"), catchCases=[{"errorNames": [""], "tasks": []}])],
        "tasks[0].catchCases[0].errorNames[0]: an error's name cannot be empty",
    ),
    "a part of a TRY elsewhere": (
        [simple("a", tryTasks=[simple("b")])],
        "tasks[0].tryTasks: only a TRY has tryTasks; a is a SIMPLE",
    ),
    "compensate of an operator": (
        [guard(simple("a"), compensate=[simple("u")])],
        "tasks[0].compensate: TRY does no work of its own",
    ),
    "compensate inside a chain": (
        [simple("a", compensate=[simple("u", compensate=[simple("uu")])])],
        "tasks[0].compensate[0].compensate: compensate cannot stand among the tasks that undo a",
    ),
    "TERMINATE inside a chain": (
        [
            simple(
                "a",
                compensate=[node("TERMINATE", "t", inputParameters={"terminationStatus": "FAILED"})],
            )
        ],
        "tasks[0].compensate[0].type: TERMINATE cannot stand among the tasks that undo a",
    ),
    "COMPENSATE of a TRY elsewhere": (
        [guard(simple("a")), node("COMPENSATE", "k", inputParameters={"of": "guard"})],
        "tasks[1].inputParameters.of: guard is no TRY around k; there is none around it",
    ),
    "a loop that forgets": (
        [
            node(
                "DO_WHILE",
                "l",
                loopCondition="false",
                inputParameters={"keepLastN": 2},
                loopOver=[simple("a", compensate=[simple("u")])],
            )
        ],
        "tasks[0].loopOver[0].compensate: loop l keeps only its last turns",
    ),
    "a join on what may never run": (
        [
            node("FORK_JOIN", "f", forkTasks=[[guard(simple("a"), simple("b"))]]),
            node("JOIN", "j", joinOn=["b"]),
        ],
        "tasks[1].joinOn[0]: b is inside tryTasks of guard and may never run; join the TRY itself",
    ),
    "a reference used twice": (
        [guard(simple("a"), finallyTasks=[simple("a")])],
        "tasks[0].finallyTasks[0].taskReferenceName: taskReferenceName: a should be unique",
    ),
    "a broken task in a case": (
        [guard(simple("a"), catchCases=[{"tasks": [node("WAIT", "w", asyncComplete=True)]}])],
        "tasks[0].catchCases[0].tasks[0].asyncComplete: WAIT would never end",
    ),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_accepted(what: str) -> None:
    assert judged(*ACCEPTED[what]) == ([], [])


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    tasks, expected = REFUSED[what]
    faults, _ = judged(*tasks)
    assert [fault for fault in faults if fault.startswith(expected)], faults


def test_fields_without_effect_are_told() -> None:
    _, warnings = judged(guard(simple("a"), retryCount=2, catchCases=[{"errorName": "X", "tasks": []}]))
    assert "tasks[0].retryCount: TRY is never retried" in warnings
    assert any(line.startswith("tasks[0].catchCases[0].errorName: unknown field") for line in warnings)


def test_a_snapshot_holds_what_the_chains_depend_on() -> None:
    document = {
        "name": "flow",
        "tasks": [
            guard(
                simple("a", compensate=[simple("u")]),
                catchCases=[{"errorNames": ["X"], "tasks": [simple("c")]}],
                finallyTasks=[node("SUB_WORKFLOW", "f", subWorkflowParam={"name": "child"})],
            )
        ],
    }
    assert {"a", "u", "c"} <= set(task_names(document))
    assert unpinned_children(document) == ["child"]
    _, raw = snapshot(document, {name: {"name": name} for name in ("a", "u", "c")}, {"child": 7})
    made = json.loads(raw)["tasks"][0]
    assert made["tryTasks"][0]["taskDefinition"] == {"name": "a"}
    assert made["tryTasks"][0]["compensate"][0]["taskDefinition"] == {"name": "u"}
    assert made["catchCases"][0]["tasks"][0]["taskDefinition"] == {"name": "c"}
    assert made["catchCases"][0]["errorNames"] == ["X"]
    assert made["finallyTasks"][0]["subWorkflowParam"]["version"] == 7
