from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from maestoso.error.v1 import error_pb2 as _error_pb2
from maestoso.task.v1 import task_pb2 as _task_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NackReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NACK_REASON_UNSPECIFIED: _ClassVar[NackReason]
    NACK_REASON_BUSY: _ClassVar[NackReason]
    NACK_REASON_UNKNOWN_TYPE: _ClassVar[NackReason]
    NACK_REASON_DRAINING: _ClassVar[NackReason]

class CancelReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_REASON_UNSPECIFIED: _ClassVar[CancelReason]
    CANCEL_REASON_WORKFLOW_ENDED: _ClassVar[CancelReason]
    CANCEL_REASON_TIMED_OUT: _ClassVar[CancelReason]
    CANCEL_REASON_SUPERSEDED: _ClassVar[CancelReason]

class CancelAnswer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_ANSWER_UNSPECIFIED: _ClassVar[CancelAnswer]
    CANCEL_ANSWER_STOPPING: _ClassVar[CancelAnswer]
    CANCEL_ANSWER_STOPPED: _ClassVar[CancelAnswer]
    CANCEL_ANSWER_NOT_FOUND: _ClassVar[CancelAnswer]
    CANCEL_ANSWER_NOT_SUPPORTED: _ClassVar[CancelAnswer]

class MoveReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MOVE_REASON_UNSPECIFIED: _ClassVar[MoveReason]
    MOVE_REASON_STOPPING: _ClassVar[MoveReason]
    MOVE_REASON_DEGRADED: _ClassVar[MoveReason]
NACK_REASON_UNSPECIFIED: NackReason
NACK_REASON_BUSY: NackReason
NACK_REASON_UNKNOWN_TYPE: NackReason
NACK_REASON_DRAINING: NackReason
CANCEL_REASON_UNSPECIFIED: CancelReason
CANCEL_REASON_WORKFLOW_ENDED: CancelReason
CANCEL_REASON_TIMED_OUT: CancelReason
CANCEL_REASON_SUPERSEDED: CancelReason
CANCEL_ANSWER_UNSPECIFIED: CancelAnswer
CANCEL_ANSWER_STOPPING: CancelAnswer
CANCEL_ANSWER_STOPPED: CancelAnswer
CANCEL_ANSWER_NOT_FOUND: CancelAnswer
CANCEL_ANSWER_NOT_SUPPORTED: CancelAnswer
MOVE_REASON_UNSPECIFIED: MoveReason
MOVE_REASON_STOPPING: MoveReason
MOVE_REASON_DEGRADED: MoveReason

class ConnectRequest(_message.Message):
    __slots__ = ("results", "pong", "hello", "capacity", "acks", "nacks", "progress", "logs", "cancel_answers", "drain", "auth_refresh")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    ACKS_FIELD_NUMBER: _ClassVar[int]
    NACKS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    AUTH_REFRESH_FIELD_NUMBER: _ClassVar[int]
    results: Results
    pong: Pong
    hello: Hello
    capacity: _task_pb2.Capacity
    acks: Acks
    nacks: Nacks
    progress: Progress
    logs: Logs
    cancel_answers: CancelAnswers
    drain: Drain
    auth_refresh: AuthRefresh
    def __init__(self, results: _Optional[_Union[Results, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., capacity: _Optional[_Union[_task_pb2.Capacity, _Mapping]] = ..., acks: _Optional[_Union[Acks, _Mapping]] = ..., nacks: _Optional[_Union[Nacks, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., logs: _Optional[_Union[Logs, _Mapping]] = ..., cancel_answers: _Optional[_Union[CancelAnswers, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., auth_refresh: _Optional[_Union[AuthRefresh, _Mapping]] = ...) -> None: ...

class ConnectResponse(_message.Message):
    __slots__ = ("tasks", "ping", "acks", "cancels", "welcome", "move", "drain", "frame_error", "nodes")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    ACKS_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    FRAME_ERROR_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    tasks: TaskBatch
    ping: Ping
    acks: ResultAcks
    cancels: Cancels
    welcome: Welcome
    move: Move
    drain: DrainRequest
    frame_error: FrameError
    nodes: Nodes
    def __init__(self, tasks: _Optional[_Union[TaskBatch, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., acks: _Optional[_Union[ResultAcks, _Mapping]] = ..., cancels: _Optional[_Union[Cancels, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., move: _Optional[_Union[Move, _Mapping]] = ..., drain: _Optional[_Union[DrainRequest, _Mapping]] = ..., frame_error: _Optional[_Union[FrameError, _Mapping]] = ..., nodes: _Optional[_Union[Nodes, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("namespace", "worker_id", "task_types", "capacity", "session_id", "resume_token", "held", "sdk", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    SDK_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    worker_id: str
    task_types: _containers.RepeatedCompositeFieldContainer[_task_pb2.TaskTypeOffer]
    capacity: _task_pb2.Capacity
    session_id: str
    resume_token: bytes
    held: _containers.RepeatedScalarFieldContainer[bytes]
    sdk: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, namespace: _Optional[str] = ..., worker_id: _Optional[str] = ..., task_types: _Optional[_Iterable[_Union[_task_pb2.TaskTypeOffer, _Mapping]]] = ..., capacity: _Optional[_Union[_task_pb2.Capacity, _Mapping]] = ..., session_id: _Optional[str] = ..., resume_token: _Optional[bytes] = ..., held: _Optional[_Iterable[bytes]] = ..., sdk: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("session_id", "resume_token", "resumed", "kept", "revoked", "session_ttl", "fence_after", "nodes", "max_message_bytes", "max_payload_bytes", "server_time", "redelivered")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    SESSION_TTL_FIELD_NUMBER: _ClassVar[int]
    FENCE_AFTER_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    REDELIVERED_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    resume_token: bytes
    resumed: bool
    kept: _containers.RepeatedScalarFieldContainer[bytes]
    revoked: _containers.RepeatedScalarFieldContainer[bytes]
    session_ttl: _duration_pb2.Duration
    fence_after: _duration_pb2.Duration
    nodes: _containers.RepeatedScalarFieldContainer[str]
    max_message_bytes: int
    max_payload_bytes: int
    server_time: _timestamp_pb2.Timestamp
    redelivered: int
    def __init__(self, session_id: _Optional[str] = ..., resume_token: _Optional[bytes] = ..., resumed: bool = ..., kept: _Optional[_Iterable[bytes]] = ..., revoked: _Optional[_Iterable[bytes]] = ..., session_ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., fence_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., nodes: _Optional[_Iterable[str]] = ..., max_message_bytes: _Optional[int] = ..., max_payload_bytes: _Optional[int] = ..., server_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., redelivered: _Optional[int] = ...) -> None: ...

class Nodes(_message.Message):
    __slots__ = ("addresses",)
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class Results(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_task_pb2.TaskResult]
    def __init__(self, results: _Optional[_Iterable[_Union[_task_pb2.TaskResult, _Mapping]]] = ...) -> None: ...

class TaskBatch(_message.Message):
    __slots__ = ("tasks",)
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[_task_pb2.Assignment]
    def __init__(self, tasks: _Optional[_Iterable[_Union[_task_pb2.Assignment, _Mapping]]] = ...) -> None: ...

class ResultAcks(_message.Message):
    __slots__ = ("acks",)
    ACKS_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[_task_pb2.ResultAck]
    def __init__(self, acks: _Optional[_Iterable[_Union[_task_pb2.ResultAck, _Mapping]]] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Acks(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, tokens: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Nacks(_message.Message):
    __slots__ = ("nacks",)
    NACKS_FIELD_NUMBER: _ClassVar[int]
    nacks: _containers.RepeatedCompositeFieldContainer[Nack]
    def __init__(self, nacks: _Optional[_Iterable[_Union[Nack, _Mapping]]] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("token", "reason", "retry_after")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    reason: NackReason
    retry_after: _duration_pb2.Duration
    def __init__(self, token: _Optional[bytes] = ..., reason: _Optional[_Union[NackReason, str]] = ..., retry_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ProgressItem]
    def __init__(self, items: _Optional[_Iterable[_Union[ProgressItem, _Mapping]]] = ...) -> None: ...

class ProgressItem(_message.Message):
    __slots__ = ("token", "output")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    output: bytes
    def __init__(self, token: _Optional[bytes] = ..., output: _Optional[bytes] = ...) -> None: ...

class Logs(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[LogLine]
    def __init__(self, lines: _Optional[_Iterable[_Union[LogLine, _Mapping]]] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("token", "line", "time")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    line: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, token: _Optional[bytes] = ..., line: _Optional[str] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Cancels(_message.Message):
    __slots__ = ("cancels",)
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    cancels: _containers.RepeatedCompositeFieldContainer[Cancel]
    def __init__(self, cancels: _Optional[_Iterable[_Union[Cancel, _Mapping]]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("token", "reason")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    reason: CancelReason
    def __init__(self, token: _Optional[bytes] = ..., reason: _Optional[_Union[CancelReason, str]] = ...) -> None: ...

class CancelAnswers(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[CancelAnswerItem]
    def __init__(self, answers: _Optional[_Iterable[_Union[CancelAnswerItem, _Mapping]]] = ...) -> None: ...

class CancelAnswerItem(_message.Message):
    __slots__ = ("token", "answer")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    answer: CancelAnswer
    def __init__(self, token: _Optional[bytes] = ..., answer: _Optional[_Union[CancelAnswer, str]] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("reason", "grace")
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    grace: _duration_pb2.Duration
    def __init__(self, reason: _Optional[str] = ..., grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ("reason", "grace", "nodes")
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    reason: MoveReason
    grace: _duration_pb2.Duration
    nodes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, reason: _Optional[_Union[MoveReason, str]] = ..., grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., nodes: _Optional[_Iterable[str]] = ...) -> None: ...

class AuthRefresh(_message.Message):
    __slots__ = ("authorization",)
    AUTHORIZATION_FIELD_NUMBER: _ClassVar[int]
    authorization: str
    def __init__(self, authorization: _Optional[str] = ...) -> None: ...

class FrameError(_message.Message):
    __slots__ = ("error", "frame_number")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FRAME_NUMBER_FIELD_NUMBER: _ClassVar[int]
    error: _error_pb2.Error
    frame_number: int
    def __init__(self, error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ..., frame_number: _Optional[int] = ...) -> None: ...

class PollTasksRequest(_message.Message):
    __slots__ = ("namespace", "task_types", "max_tasks", "wait", "worker_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPES_FIELD_NUMBER: _ClassVar[int]
    MAX_TASKS_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    task_types: _containers.RepeatedCompositeFieldContainer[_task_pb2.TaskTypeOffer]
    max_tasks: int
    wait: _duration_pb2.Duration
    worker_id: str
    def __init__(self, namespace: _Optional[str] = ..., task_types: _Optional[_Iterable[_Union[_task_pb2.TaskTypeOffer, _Mapping]]] = ..., max_tasks: _Optional[int] = ..., wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., worker_id: _Optional[str] = ...) -> None: ...

class PollTasksResponse(_message.Message):
    __slots__ = ("tasks",)
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[_task_pb2.Assignment]
    def __init__(self, tasks: _Optional[_Iterable[_Union[_task_pb2.Assignment, _Mapping]]] = ...) -> None: ...

class ReportTasksRequest(_message.Message):
    __slots__ = ("namespace", "results")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    results: _containers.RepeatedCompositeFieldContainer[_task_pb2.TaskResult]
    def __init__(self, namespace: _Optional[str] = ..., results: _Optional[_Iterable[_Union[_task_pb2.TaskResult, _Mapping]]] = ...) -> None: ...

class ReportTasksResponse(_message.Message):
    __slots__ = ("acks",)
    ACKS_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[_task_pb2.ResultAck]
    def __init__(self, acks: _Optional[_Iterable[_Union[_task_pb2.ResultAck, _Mapping]]] = ...) -> None: ...

class ExtendTasksRequest(_message.Message):
    __slots__ = ("namespace", "items")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    items: _containers.RepeatedCompositeFieldContainer[ProgressItem]
    def __init__(self, namespace: _Optional[str] = ..., items: _Optional[_Iterable[_Union[ProgressItem, _Mapping]]] = ...) -> None: ...

class ExtendTasksResponse(_message.Message):
    __slots__ = ("acks",)
    ACKS_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[_task_pb2.ResultAck]
    def __init__(self, acks: _Optional[_Iterable[_Union[_task_pb2.ResultAck, _Mapping]]] = ...) -> None: ...

class GetTaskRequest(_message.Message):
    __slots__ = ("namespace", "task_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    task_id: str
    def __init__(self, namespace: _Optional[str] = ..., task_id: _Optional[str] = ...) -> None: ...

class GetTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: _task_pb2.Task
    def __init__(self, task: _Optional[_Union[_task_pb2.Task, _Mapping]] = ...) -> None: ...

class ListTaskLogsRequest(_message.Message):
    __slots__ = ("namespace", "task_id", "page_size", "page_token")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    task_id: str
    page_size: int
    page_token: str
    def __init__(self, namespace: _Optional[str] = ..., task_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTaskLogsResponse(_message.Message):
    __slots__ = ("lines", "next_page_token")
    LINES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[TaskLogLine]
    next_page_token: str
    def __init__(self, lines: _Optional[_Iterable[_Union[TaskLogLine, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class TaskLogLine(_message.Message):
    __slots__ = ("time", "line")
    TIME_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    line: str
    def __init__(self, time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., line: _Optional[str] = ...) -> None: ...

class AddTaskLogsRequest(_message.Message):
    __slots__ = ("namespace", "task_id", "lines")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    task_id: str
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, namespace: _Optional[str] = ..., task_id: _Optional[str] = ..., lines: _Optional[_Iterable[str]] = ...) -> None: ...

class AddTaskLogsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
