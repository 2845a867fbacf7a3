from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_INVALID_REQUEST: _ClassVar[Reason]
    REASON_INVALID_DEFINITION: _ClassVar[Reason]
    REASON_INVALID_JSON: _ClassVar[Reason]
    REASON_TOO_LARGE: _ClassVar[Reason]
    REASON_NAMESPACE_NOT_FOUND: _ClassVar[Reason]
    REASON_DEFINITION_NOT_FOUND: _ClassVar[Reason]
    REASON_WORKFLOW_NOT_FOUND: _ClassVar[Reason]
    REASON_TASK_NOT_FOUND: _ClassVar[Reason]
    REASON_NODE_NOT_FOUND: _ClassVar[Reason]
    REASON_DEFINITION_EXISTS: _ClassVar[Reason]
    REASON_IDEMPOTENCY_CONFLICT: _ClassVar[Reason]
    REASON_WRONG_STATE: _ClassVar[Reason]
    REASON_STALE_TOKEN: _ClassVar[Reason]
    REASON_UNAUTHENTICATED: _ClassVar[Reason]
    REASON_PERMISSION_DENIED: _ClassVar[Reason]
    REASON_STORE_UNAVAILABLE: _ClassVar[Reason]
    REASON_NODE_STOPPING: _ClassVar[Reason]
    REASON_OVERLOADED: _ClassVar[Reason]
    REASON_SESSION_SUPERSEDED: _ClassVar[Reason]
    REASON_BAD_FRAME: _ClassVar[Reason]
    REASON_INTERNAL: _ClassVar[Reason]
    REASON_NAMESPACE_EXISTS: _ClassVar[Reason]
    REASON_UNIMPLEMENTED: _ClassVar[Reason]
REASON_UNSPECIFIED: Reason
REASON_INVALID_REQUEST: Reason
REASON_INVALID_DEFINITION: Reason
REASON_INVALID_JSON: Reason
REASON_TOO_LARGE: Reason
REASON_NAMESPACE_NOT_FOUND: Reason
REASON_DEFINITION_NOT_FOUND: Reason
REASON_WORKFLOW_NOT_FOUND: Reason
REASON_TASK_NOT_FOUND: Reason
REASON_NODE_NOT_FOUND: Reason
REASON_DEFINITION_EXISTS: Reason
REASON_IDEMPOTENCY_CONFLICT: Reason
REASON_WRONG_STATE: Reason
REASON_STALE_TOKEN: Reason
REASON_UNAUTHENTICATED: Reason
REASON_PERMISSION_DENIED: Reason
REASON_STORE_UNAVAILABLE: Reason
REASON_NODE_STOPPING: Reason
REASON_OVERLOADED: Reason
REASON_SESSION_SUPERSEDED: Reason
REASON_BAD_FRAME: Reason
REASON_INTERNAL: Reason
REASON_NAMESPACE_EXISTS: Reason
REASON_UNIMPLEMENTED: Reason

class Error(_message.Message):
    __slots__ = ("reason", "message", "violations", "retryable", "retry_after", "remedy")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    message: str
    violations: _containers.RepeatedCompositeFieldContainer[Violation]
    retryable: bool
    retry_after: _duration_pb2.Duration
    remedy: str
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., message: _Optional[str] = ..., violations: _Optional[_Iterable[_Union[Violation, _Mapping]]] = ..., retryable: bool = ..., retry_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., remedy: _Optional[str] = ...) -> None: ...

class Violation(_message.Message):
    __slots__ = ("path", "message", "line", "column")
    PATH_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    path: str
    message: str
    line: int
    column: int
    def __init__(self, path: _Optional[str] = ..., message: _Optional[str] = ..., line: _Optional[int] = ..., column: _Optional[int] = ...) -> None: ...
