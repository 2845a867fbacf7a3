"""Messages as JSON, for `--json`: field names as in the protos, payloads as the JSON that they are."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from .. import _json


def view(message: Message) -> Any:
    """A message as a Python value that JSON knows. Fields that are not set are left out."""
    if isinstance(message, (Timestamp, Duration)):
        return message.ToJsonString()
    return {field.name: _field(field, value) for field, value in message.ListFields()}


def _field(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        return _scalar(field, value)
    return [_scalar(field, item) for item in value]


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Message):
        return view(value)
    enum: Any = field.enum_type
    if enum is not None:
        return enum_name(enum, value)
    if isinstance(value, bytes):
        return _payload(value)
    return value


def _payload(value: bytes) -> Any:
    try:
        return _json.loads(value)
    except ValueError:  # a token or another opaque value
        return value.hex()


def enum_name(enum: EnumDescriptor, number: int) -> str:
    """`COMPLETED` for `WORKFLOW_STATUS_COMPLETED`; the number itself where this SDK does not know it."""
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in enum.name)
    return value.name.removeprefix(prefix.removeprefix("_").upper() + "_")


def status_name(message: Message, field: str = "status") -> str:
    """The name of a message's enum field, without its prefix."""
    enum: Any = message.DESCRIPTOR.fields_by_name[field].enum_type
    return enum_name(enum, getattr(message, field))
