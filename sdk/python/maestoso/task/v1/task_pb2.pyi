from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from maestoso.error.v1 import error_pb2 as _error_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_STATUS_UNSPECIFIED: _ClassVar[TaskStatus]
    TASK_STATUS_SCHEDULED: _ClassVar[TaskStatus]
    TASK_STATUS_IN_PROGRESS: _ClassVar[TaskStatus]
    TASK_STATUS_COMPLETED: _ClassVar[TaskStatus]
    TASK_STATUS_COMPLETED_WITH_ERRORS: _ClassVar[TaskStatus]
    TASK_STATUS_FAILED: _ClassVar[TaskStatus]
    TASK_STATUS_FAILED_WITH_TERMINAL_ERROR: _ClassVar[TaskStatus]
    TASK_STATUS_TIMED_OUT: _ClassVar[TaskStatus]
    TASK_STATUS_CANCELED: _ClassVar[TaskStatus]
    TASK_STATUS_SKIPPED: _ClassVar[TaskStatus]

class ResultOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESULT_OUTCOME_UNSPECIFIED: _ClassVar[ResultOutcome]
    RESULT_OUTCOME_ACCEPTED: _ClassVar[ResultOutcome]
    RESULT_OUTCOME_STALE: _ClassVar[ResultOutcome]
    RESULT_OUTCOME_REFUSED: _ClassVar[ResultOutcome]
    RESULT_OUTCOME_UNAVAILABLE: _ClassVar[ResultOutcome]
TASK_STATUS_UNSPECIFIED: TaskStatus
TASK_STATUS_SCHEDULED: TaskStatus
TASK_STATUS_IN_PROGRESS: TaskStatus
TASK_STATUS_COMPLETED: TaskStatus
TASK_STATUS_COMPLETED_WITH_ERRORS: TaskStatus
TASK_STATUS_FAILED: TaskStatus
TASK_STATUS_FAILED_WITH_TERMINAL_ERROR: TaskStatus
TASK_STATUS_TIMED_OUT: TaskStatus
TASK_STATUS_CANCELED: TaskStatus
TASK_STATUS_SKIPPED: TaskStatus
RESULT_OUTCOME_UNSPECIFIED: ResultOutcome
RESULT_OUTCOME_ACCEPTED: ResultOutcome
RESULT_OUTCOME_STALE: ResultOutcome
RESULT_OUTCOME_REFUSED: ResultOutcome
RESULT_OUTCOME_UNAVAILABLE: ResultOutcome

class Task(_message.Message):
    __slots__ = ("task_id", "workflow_id", "seq", "reference", "task_type", "name", "status", "attempt", "iteration", "input", "output", "reason", "schedule_time", "start_time", "end_time", "worker_id", "domain", "child_workflow_id", "retried_task_id", "generation")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    CHILD_WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    RETRIED_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    workflow_id: str
    seq: int
    reference: str
    task_type: str
    name: str
    status: TaskStatus
    attempt: int
    iteration: _containers.RepeatedScalarFieldContainer[int]
    input: bytes
    output: bytes
    reason: str
    schedule_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    worker_id: str
    domain: str
    child_workflow_id: str
    retried_task_id: str
    generation: int
    def __init__(self, task_id: _Optional[str] = ..., workflow_id: _Optional[str] = ..., seq: _Optional[int] = ..., reference: _Optional[str] = ..., task_type: _Optional[str] = ..., name: _Optional[str] = ..., status: _Optional[_Union[TaskStatus, str]] = ..., attempt: _Optional[int] = ..., iteration: _Optional[_Iterable[int]] = ..., input: _Optional[bytes] = ..., output: _Optional[bytes] = ..., reason: _Optional[str] = ..., schedule_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., worker_id: _Optional[str] = ..., domain: _Optional[str] = ..., child_workflow_id: _Optional[str] = ..., retried_task_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class TaskTypeOffer(_message.Message):
    __slots__ = ("task_type", "domain")
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    task_type: str
    domain: str
    def __init__(self, task_type: _Optional[str] = ..., domain: _Optional[str] = ...) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("tasks", "bytes")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    tasks: int
    bytes: int
    def __init__(self, tasks: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("token", "task_id", "workflow_id", "reference", "task_type", "attempt", "input", "redelivery", "priority", "response_timeout", "traceparent", "idempotency_key", "schedule_time", "workflow_name", "correlation_id")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    REDELIVERY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_TIME_FIELD_NUMBER: _ClassVar[int]
    WORKFLOW_NAME_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    task_id: str
    workflow_id: str
    reference: str
    task_type: str
    attempt: int
    input: bytes
    redelivery: int
    priority: int
    response_timeout: _duration_pb2.Duration
    traceparent: str
    idempotency_key: str
    schedule_time: _timestamp_pb2.Timestamp
    workflow_name: str
    correlation_id: str
    def __init__(self, token: _Optional[bytes] = ..., task_id: _Optional[str] = ..., workflow_id: _Optional[str] = ..., reference: _Optional[str] = ..., task_type: _Optional[str] = ..., attempt: _Optional[int] = ..., input: _Optional[bytes] = ..., redelivery: _Optional[int] = ..., priority: _Optional[int] = ..., response_timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., traceparent: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., schedule_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., workflow_name: _Optional[str] = ..., correlation_id: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("message", "type", "terminal", "error_name", "retry_after")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TERMINAL_FIELD_NUMBER: _ClassVar[int]
    ERROR_NAME_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    message: str
    type: str
    terminal: bool
    error_name: str
    retry_after: _duration_pb2.Duration
    def __init__(self, message: _Optional[str] = ..., type: _Optional[str] = ..., terminal: bool = ..., error_name: _Optional[str] = ..., retry_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TaskResult(_message.Message):
    __slots__ = ("token", "output", "failure", "callback", "canceled", "failure_output", "start_time", "task_id", "worker_id", "logs")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_FIELD_NUMBER: _ClassVar[int]
    CANCELED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    output: bytes
    failure: Failure
    callback: Callback
    canceled: Canceled
    failure_output: bytes
    start_time: _timestamp_pb2.Timestamp
    task_id: str
    worker_id: str
    logs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, token: _Optional[bytes] = ..., output: _Optional[bytes] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., callback: _Optional[_Union[Callback, _Mapping]] = ..., canceled: _Optional[_Union[Canceled, _Mapping]] = ..., failure_output: _Optional[bytes] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., task_id: _Optional[str] = ..., worker_id: _Optional[str] = ..., logs: _Optional[_Iterable[str]] = ...) -> None: ...

class Callback(_message.Message):
    __slots__ = ("after", "output")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    after: _duration_pb2.Duration
    output: bytes
    def __init__(self, after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., output: _Optional[bytes] = ...) -> None: ...

class Canceled(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class ResultAck(_message.Message):
    __slots__ = ("token", "outcome", "error", "task_id")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    outcome: ResultOutcome
    error: _error_pb2.Error
    task_id: str
    def __init__(self, token: _Optional[bytes] = ..., outcome: _Optional[_Union[ResultOutcome, str]] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ..., task_id: _Optional[str] = ...) -> None: ...
