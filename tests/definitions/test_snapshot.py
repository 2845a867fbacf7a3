"""What a workflow runs on is frozen when it starts."""

from typing import Any

import msgspec

from maestoso_server.definitions.snapshot import snapshot, task_names, unpinned_children


def child(name: str, **params: Any) -> dict[str, Any]:
    return {
        "name": "c",
        "taskReferenceName": name,
        "type": "SUB_WORKFLOW",
        "subWorkflowParam": {"name": name, **params},
    }


DOCUMENT: dict[str, Any] = {
    "name": "w",
    "tasks": [
        {"name": "a", "taskReferenceName": "a1"},
        {"name": "own", "taskReferenceName": "o", "taskDefinition": {"name": "own", "retryCount": 1}},
        {
            "name": "s",
            "taskReferenceName": "s",
            "type": "SWITCH",
            "decisionCases": {"x": [{"name": "b", "taskReferenceName": "b1"}]},
            "defaultCase": [child("late", version=0), child("${workflow.input.name}")],
        },
        {
            "name": "f",
            "taskReferenceName": "f",
            "type": "FORK_JOIN",
            "forkTasks": [
                [{"name": "a", "taskReferenceName": "a2"}],
                [child("kid"), child("old", version=3)],
            ],
        },
        {
            "name": "l",
            "taskReferenceName": "l",
            "type": "DO_WHILE",
            "loopOver": [{"name": "d", "taskReferenceName": "d1"}],
        },
        child(
            "inline",
            workflowDefinition={"name": "i", "tasks": [{"name": "inner", "taskReferenceName": "i1"}]},
        ),
    ],
}


def test_it_depends_on_the_task_definitions_of_all_its_nodes_but_those_given_inline() -> None:
    assert task_names(DOCUMENT) == ["a", "b", "c", "d", "f", "l", "s"]


def test_only_children_without_version_name_their_latest() -> None:
    assert unpinned_children(DOCUMENT) == ["kid"]


def test_definitions_and_versions_are_written_into_the_nodes() -> None:
    before = msgspec.json.encode(DOCUMENT)
    tasks = {"a": {"name": "a", "retryCount": 7}, "d": {"name": "d"}, "own": {"name": "own", "retryCount": 9}}
    _, raw = snapshot(DOCUMENT, tasks, {"kid": 5, "old": 9, "late": 9})
    made = msgspec.json.decode(raw)["tasks"]
    assert made[0]["taskDefinition"] == {"name": "a", "retryCount": 7}
    assert made[1]["taskDefinition"]["retryCount"] == 1, "the node's own definition wins"
    assert made[3]["forkTasks"][0][0]["taskDefinition"]["retryCount"] == 7
    assert [node["subWorkflowParam"]["version"] for node in made[3]["forkTasks"][1]] == [5, 3]
    assert made[2]["defaultCase"][0]["subWorkflowParam"]["version"] == 0
    assert "version" not in made[2]["defaultCase"][1]["subWorkflowParam"]
    assert made[4]["loopOver"][0]["taskDefinition"] == {"name": "d"}
    assert "taskDefinition" not in made[2]["decisionCases"]["x"][0], "unregistered stays unregistered"
    assert "taskDefinition" not in made[5]["subWorkflowParam"]["workflowDefinition"]["tasks"][0]
    assert msgspec.json.encode(DOCUMENT) == before


def test_the_same_content_has_the_same_id_whoever_registered_it_when() -> None:
    first, raw = snapshot(DOCUMENT, {"a": {"name": "a", "createTime": 1}}, {"kid": 5})
    again, _ = snapshot({**DOCUMENT, "updateTime": 9}, {"a": {"name": "a", "createTime": 2}}, {"kid": 5})
    assert first == again
    assert b"createTime" not in raw
    assert snapshot(DOCUMENT, {"a": {"name": "a", "retryCount": 1}}, {"kid": 5})[0] != first
    assert snapshot(DOCUMENT, {"a": {"name": "a"}}, {"kid": 6})[0] != first


def test_a_document_of_any_shape_is_left_to_the_binder() -> None:
    for document in (
        [],
        None,
        {"tasks": 5},
        {"tasks": [5, None, {"decisionCases": [], "forkTasks": {"x": 1}}]},
    ):
        assert task_names(document) == []
        assert snapshot(document, {}, {})[1]
