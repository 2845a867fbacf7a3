"""What is said over the pipes between the server and an evaluator process.

A frame is its length (4 bytes, big endian) and its content. A request is an operation (1 byte), the
seconds that it may take (4 bytes, a float), the length of the script (4 bytes), the script in UTF-8,
the input as JSON. An answer is a status
(1 byte) and its text in UTF-8. One request is answered before the next is sent.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

LENGTH = struct.Struct(">I")
_REQUEST = struct.Struct(">BfI")


class Operation(IntEnum):
    """What is asked. The even ones evaluate, each odd one checks the syntax of the one before."""

    JAVASCRIPT = 0
    CHECK_JAVASCRIPT = 1
    JAVASCRIPT_FUNCTION = 2
    CHECK_JAVASCRIPT_FUNCTION = 3
    JQ = 4
    CHECK_JQ = 5
    PYTHON = 6
    CHECK_PYTHON = 7


class Status(IntEnum):
    """What came of it. `VALUE`: the text is the JSON value (empty for a check that found nothing)."""

    VALUE = 0
    ERROR = 1
    TIMEOUT = 2
    TOO_LARGE = 3


def frame(content: bytes) -> bytes:
    """The content with its length before it."""
    return LENGTH.pack(len(content)) + content


class Request(NamedTuple):
    """What a process is asked to evaluate, and for how long at most."""

    operation: Operation
    script: str
    document: str
    limit_s: float


def pack_request(operation: Operation, script: str, document: bytes, limit_s: float) -> bytes:
    """A request's frame. Half surrogates in the script become question marks."""
    source = script.encode("utf-8", "replace")
    return frame(_REQUEST.pack(operation, limit_s, len(source)) + source + document)


def unpack_request(content: bytes) -> Request:
    """The request in a frame's content."""
    operation, limit_s, length = _REQUEST.unpack_from(content)
    start = _REQUEST.size
    script, document = content[start : start + length].decode(), content[start + length :].decode()
    return Request(Operation(operation), script, document, limit_s)


def pack_answer(status: Status, text: str) -> bytes:
    """An answer's frame."""
    return frame(bytes([status]) + text.encode("utf-8", "replace"))


def unpack_answer(content: bytes) -> tuple[Status, bytes]:
    """(status, text) of an answer's content."""
    return Status(content[0]), content[1:]
