"""Binding: Conductor's names and defaults."""

from typing import Any

import pytest
from pydantic import ValidationError

from maestoso_server.definitions.models import (
    RetryLogic,
    SubWorkflowParams,
    TaskDefinition,
    TaskTimeoutPolicy,
    WorkflowDefinition,
    WorkflowTask,
    WorkflowTimeoutPolicy,
    effective_task_definition,
)


def test_a_workflow_has_conductors_defaults() -> None:
    bound = WorkflowDefinition.model_validate({"name": "w"})
    assert bound.version == 1
    assert bound.schema_version == 2
    assert bound.restartable
    assert bound.enforce_schema
    assert bound.timeout_policy is WorkflowTimeoutPolicy.ALERT_ONLY
    assert bound.timeout_seconds == 0
    assert (bound.tasks, bound.variables, bound.failure_workflow) == ([], {}, None)


def test_a_task_definition_has_conductors_defaults() -> None:
    bound = TaskDefinition.model_validate({"name": "t"})
    assert (bound.retry_count, bound.retry_delay_seconds, bound.response_timeout_seconds) == (3, 60, 3600)
    assert bound.retry_logic is RetryLogic.FIXED
    assert bound.timeout_policy is TaskTimeoutPolicy.TIME_OUT_WF
    assert (bound.backoff_scale_factor, bound.timeout_seconds, bound.poll_timeout_seconds) == (1, 0, None)
    assert not bound.enforce_schema


@pytest.mark.parametrize(
    ("given", "response"),
    [
        ({"timeoutSeconds": 60}, 60),
        ({"timeoutSeconds": 60, "responseTimeoutSeconds": None}, 60),
        ({"timeoutSeconds": 7200}, 3600),
        ({"timeoutSeconds": 0}, 3600),
        ({"timeoutSeconds": 60, "responseTimeoutSeconds": 10}, 10),
        ({"timeoutSeconds": 60, "responseTimeoutSeconds": 3600}, 3600),
    ],
)
def test_a_response_timeout_left_unset_fits_the_timeout(given: dict[str, Any], response: int) -> None:
    assert TaskDefinition.model_validate({"name": "t", **given}).response_timeout_seconds == response


def test_a_node_has_conductors_defaults() -> None:
    bound = WorkflowTask.model_validate({"name": "t", "taskReferenceName": "r"})
    assert bound.type == "SIMPLE"
    assert bound.retry_count is None
    assert not bound.optional
    assert bound.join_mode is None
    assert WorkflowTask.model_validate({"workflowTaskType": "WAIT"}).type == "WAIT"


def test_null_stands_for_the_default_everywhere() -> None:
    task = {"name": "t", "taskReferenceName": "r", "type": None, "optional": None, "inputParameters": None}
    bound = WorkflowDefinition.model_validate(
        {"name": "w", "version": None, "restartable": None, "tasks": [task]}
    )
    assert (bound.version, bound.restartable) == (1, True)
    assert (bound.tasks[0].type, bound.tasks[0].optional, bound.tasks[0].input_parameters) == (
        "SIMPLE",
        False,
        {},
    )


def test_numbers_as_text_are_read_and_fractions_refused() -> None:
    assert WorkflowDefinition.model_validate({"name": 7, "version": "3"}).version == 3
    for version in ("x", 1.5, [], 2**31):
        with pytest.raises(ValidationError):
            WorkflowDefinition.model_validate({"name": "w", "version": version})


def test_payloads_inside_a_definition_stay_exact() -> None:
    inputs = {"big": 2**70, "f": 1.0, "n": None, "z": 1, "a": [None]}
    bound = WorkflowTask.model_validate({"inputParameters": inputs})
    assert bound.input_parameters == inputs
    assert list(bound.input_parameters) == list(inputs)
    assert type(bound.input_parameters["f"]) is float


def test_a_child_is_given_by_name_inline_or_by_expression() -> None:
    inline = SubWorkflowParams.model_validate({"workflowDefinition": {"name": "c", "tasks": [{"name": "t"}]}})
    assert isinstance(inline.workflow_definition, WorkflowDefinition)
    assert inline.workflow_definition.tasks[0].name == "t"
    by_expression = SubWorkflowParams.model_validate({"workflowDefinition": "${workflow.input.d}"})
    assert by_expression.workflow_definition == "${workflow.input.d}"
    assert SubWorkflowParams.model_validate({"name": "c"}).workflow_definition is None
    with pytest.raises(ValidationError):
        SubWorkflowParams.model_validate({"workflowDefinition": 5})


@pytest.mark.parametrize(
    ("node", "retries", "response"),
    [
        ({"type": "SIMPLE"}, 3, 3600),
        ({"type": "HTTP"}, 0, 0),
        ({"type": "HTTP", "taskDefinition": {"name": "h", "retryCount": 5}}, 5, 3600),
        ({"type": "SIMPLE", "retryCount": 0}, 0, 3600),
        ({"type": "SIMPLE", "retryCount": -1}, 3, 3600),
        ({"type": "HTTP", "retryCount": 2}, 2, 0),
    ],
)
def test_an_unregistered_task_has_the_policy_of_its_kind(
    node: dict[str, Any], retries: int, response: int
) -> None:
    bound = WorkflowTask.model_validate({"name": "t", "taskReferenceName": "r", **node})
    assert bound.retries == retries
    assert effective_task_definition(bound).response_timeout_seconds == response
