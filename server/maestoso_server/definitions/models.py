"""Conductor's definition documents as typed values.

Attributes are snake_case, the JSON names are Conductor's. Binding follows what Conductor's own
binder accepts: unknown fields are kept aside (`model_extra`, reported as warnings by `parse`),
null stands for the default, numbers may come as text. What a definition *means* (required fields,
references, ranges) is judged in `validate`, not here, so that every fault can be named at once.

Values are frozen: a plan, a cache and many workflows share them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.alias_generators import to_camel

Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]

DEFAULT_RESPONSE_TIMEOUT_S = 3600
NO_SLOT_LIMIT = 2**31 - 1
"""`TaskLimits.slots` where any number may run at once."""


class RetryLogic(StrEnum):
    """How the delay before an attempt grows."""

    FIXED = "FIXED"
    EXPONENTIAL_BACKOFF = "EXPONENTIAL_BACKOFF"
    LINEAR_BACKOFF = "LINEAR_BACKOFF"


class TaskTimeoutPolicy(StrEnum):
    """What a task's own clocks do when they run out."""

    RETRY = "RETRY"
    TIME_OUT_WF = "TIME_OUT_WF"
    ALERT_ONLY = "ALERT_ONLY"


class WorkflowTimeoutPolicy(StrEnum):
    """What the workflow's clock does when it runs out."""

    TIME_OUT_WF = "TIME_OUT_WF"
    ALERT_ONLY = "ALERT_ONLY"


class _Document(BaseModel):
    """Base of all: camelCase names, extra fields kept aside, null means the default."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="allow",
        frozen=True,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {key: value for key, value in data.items() if value is not None}
        return data


class _Audited(_Document):
    """What the server notes about a definition; whatever a client sends here is replaced."""

    owner_app: str | None = None
    create_time: Int64 = 0
    update_time: Int64 = 0
    created_by: str | None = None
    updated_by: str | None = None


class SchemaDefinition(_Audited):
    """A schema that payloads are checked against."""

    name: str = ""
    version: Int32 = 1
    type: Literal["JSON", "AVRO", "PROTOBUF"] | None = None
    data: dict[str, Any] | None = None
    external_ref: str | None = None


class RateLimitConfig(_Document):
    """How many workflows of one key may run at once."""

    rate_limit_key: str | None = None
    concurrent_exec_limit: Int32 = 0
    policy: Literal["QUEUE", "REJECT"] = "QUEUE"


class CacheConfig(_Document):
    """How long a task's output may be used again."""

    key: str | None = None
    ttl_in_second: Int32 = 0


class StateChangeEvent(_Document):
    """What to publish when a task changes its state."""

    type: str | None = None
    payload: dict[str, Any] = {}


class TaskLimits(NamedTuple):
    """How much of a task definition may run at once (`slots`) and how many hand-outs a sliding window
    of `window_s` seconds holds (`rate`, 0 = any number)."""

    slots: int = NO_SLOT_LIMIT
    rate: int = 0
    window_s: int = 0

    @property
    def any(self) -> bool:
        return self.slots != NO_SLOT_LIMIT or self.rate > 0


class TaskDefinition(_Audited):
    """The policy registered for a task *name*: retries, time-outs, limits, default inputs.

    `response_timeout_seconds` left unset is 3600, or `timeoutSeconds` where that is shorter;
    0 means that no response is awaited (only definitions made by the engine have it).
    """

    name: str = ""
    description: str | None = None
    retry_count: Int32 = 3
    retry_logic: RetryLogic = RetryLogic.FIXED
    retry_delay_seconds: Int32 = 60
    backoff_scale_factor: Int32 = 1
    max_retry_delay_seconds: Int32 = 0
    backoff_jitter_ms: Int32 = 0
    timeout_seconds: Int64 = 0
    timeout_policy: TaskTimeoutPolicy = TaskTimeoutPolicy.TIME_OUT_WF
    response_timeout_seconds: Int64 = DEFAULT_RESPONSE_TIMEOUT_S
    poll_timeout_seconds: Int32 | None = None
    total_timeout_seconds: Int64 = 0
    concurrent_exec_limit: Int32 | None = None
    rate_limit_per_frequency: Int32 | None = None
    rate_limit_frequency_in_seconds: Int32 | None = None
    input_keys: list[str] = []
    output_keys: list[str] = []
    input_template: dict[str, Any] = {}
    runtime_metadata: list[str] = []
    isolation_group_id: str | None = None
    execution_name_space: str | None = None
    owner_email: str | None = None
    base_type: str | None = None
    input_schema: SchemaDefinition | None = None
    output_schema: SchemaDefinition | None = None
    enforce_schema: bool = False
    task_status_listener_enabled: bool = True
    redeliver_on_loss: bool | None = None
    """Maestoso's own: a task whose worker is gone goes to another one instead of failing the
    attempt. None leaves it to the kind of task (system tasks yes, worker tasks no)."""

    @property
    def limits(self) -> TaskLimits:
        """Both limits; numbers below 1 switch one off, a window left out is a second."""
        slots = self.concurrent_exec_limit or 0
        rate = self.rate_limit_per_frequency or 0
        window_s = 1 if self.rate_limit_frequency_in_seconds is None else self.rate_limit_frequency_in_seconds
        limited = rate > 0 and window_s > 0
        return TaskLimits(
            slots if slots > 0 else NO_SLOT_LIMIT, rate if limited else 0, window_s if limited else 0
        )

    @model_validator(mode="before")
    @classmethod
    def _response_timeout_fits(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("responseTimeoutSeconds") is not None:
            return data
        timeout = data.get("timeoutSeconds")
        if isinstance(timeout, int) and 0 < timeout < DEFAULT_RESPONSE_TIMEOUT_S:
            return {**data, "responseTimeoutSeconds": timeout}
        return data


def _kind_of_definition(value: Any) -> str:
    return "expression" if isinstance(value, str) else "inline"


class SubWorkflowParams(_Document):
    """Which workflow a SUB_WORKFLOW starts. Every value but an inline definition may be an
    expression; `priority` is a number or an expression."""

    name: str | None = None
    version: Int32 | None = None
    task_to_domain: dict[str, str] | None = None
    workflow_definition: (
        Annotated[
            Annotated[WorkflowDefinition, Tag("inline")] | Annotated[str, Tag("expression")],
            Discriminator(_kind_of_definition),
        ]
        | None
    ) = None
    idempotency_key: str | None = None
    idempotency_strategy: str | None = None
    priority: Any = None


class CatchCase(_Document):
    """One way in which a TRY goes on after a failure. Both lists narrow: an empty one admits all."""

    error_names: list[str] = []
    statuses: list[str] = []
    tasks: list[WorkflowTask] = []


class WorkflowTask(_Document):
    """One node of a workflow. `type` decides which of the fields are read."""

    name: str = ""
    task_reference_name: str = ""
    type: str = Field("SIMPLE", validation_alias=AliasChoices("type", "workflowTaskType"))
    description: str | None = None
    input_parameters: dict[str, Any] = {}
    optional: bool = False
    permissive: bool = False
    start_delay: Int32 = 0
    retry_count: Int32 | None = None
    """None leaves the number to the task definition; 0 never retries; -1 reads as None."""
    async_complete: bool = False
    task_definition: TaskDefinition | None = None
    rate_limited: bool | None = None
    metadata: dict[str, Any] = {}
    on_state_change: dict[str, list[StateChangeEvent]] = {}
    cache_config: CacheConfig | None = None
    evaluator_type: str | None = None
    expression: str | None = None
    decision_cases: dict[str, list[WorkflowTask]] = {}
    default_case: list[WorkflowTask] = []
    case_value_param: str | None = None
    case_expression: str | None = None
    script_expression: str | None = None
    fork_tasks: list[list[WorkflowTask]] = []
    dynamic_fork_tasks_param: str | None = None
    dynamic_fork_tasks_input_param_name: str | None = None
    dynamic_fork_join_tasks_param: str | None = None
    join_on: list[str] = []
    join_mode: Literal["SYNC", "ASYNC"] | None = None
    join_status: str | None = None
    default_exclusive_join_task: list[str] = []
    loop_condition: str | None = None
    loop_over: list[WorkflowTask] = []
    items: str | None = None
    dynamic_task_name_param: str | None = None
    sub_workflow_param: SubWorkflowParams | None = None
    sink: str | None = None
    try_tasks: list[WorkflowTask] = []
    catch_cases: list[CatchCase] = []
    finally_tasks: list[WorkflowTask] = []
    compensate: list[WorkflowTask] = []
    """Maestoso's own: what undoes the task, run when the workflow fails after it (or is asked to)."""

    @property
    def retries(self) -> int:
        """How often a failed attempt is repeated, by the node or else by its task definition."""
        if self.retry_count is not None and self.retry_count >= 0:
            return self.retry_count
        return effective_task_definition(self).retry_count


class WorkflowDefinition(_Audited):
    """A workflow, identified by (`name`, `version`)."""

    name: str = ""
    version: Int32 = 1
    description: str | None = None
    tasks: list[WorkflowTask] = []
    input_parameters: list[str] = []
    output_parameters: dict[str, Any] = {}
    input_template: dict[str, Any] = {}
    variables: dict[str, Any] = {}
    failure_workflow: str | None = None
    failure_workflow_version: Int32 | None = None
    schema_version: Int32 = 2
    restartable: bool = True
    workflow_status_listener_enabled: bool = False
    workflow_status_listener_sink: str | None = None
    owner_email: str | None = None
    timeout_policy: WorkflowTimeoutPolicy = WorkflowTimeoutPolicy.ALERT_ONLY
    timeout_seconds: Int64 = 0
    rate_limit_config: RateLimitConfig | None = None
    input_schema: SchemaDefinition | None = None
    output_schema: SchemaDefinition | None = None
    enforce_schema: bool = True
    metadata: dict[str, Any] = {}
    cache_config: CacheConfig | None = None
    masked_fields: list[str] = []
    search_attributes: dict[str, Any] = {}
    on_missing: Literal["null", "error"] = "null"
    """Maestoso's own: what an expression whose path finds nothing means."""


SubWorkflowParams.model_rebuild()
CatchCase.model_rebuild()
WorkflowTask.model_rebuild()
WorkflowDefinition.model_rebuild()

_UNREGISTERED_SIMPLE = TaskDefinition()
_UNREGISTERED_OTHER = TaskDefinition(retryCount=0, responseTimeoutSeconds=0)  # type: ignore[call-arg]


def effective_task_definition(node: WorkflowTask) -> TaskDefinition:
    """The policy of a node: the embedded one, or what an unregistered task gets.

    An unregistered SIMPLE task has Conductor's defaults (3 retries 60 s apart, 3600 s to respond);
    any other node has neither retries nor a response time-out.
    """
    if node.task_definition is not None:
        return node.task_definition
    return _UNREGISTERED_SIMPLE if node.type == "SIMPLE" else _UNREGISTERED_OTHER
