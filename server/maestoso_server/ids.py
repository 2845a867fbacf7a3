"""How ids are made and taken apart.

Every id is a `str`: the canonical lower-case text of a UUID. A workflow's id is a UUIDv7, so rows
of one age lie together. A task's id is its workflow's id with the low 24 bits replaced by the
task's `seq`, so that a bare task id is found by a range scan on the workflow key and needs no
index of its own. A token names one delivery of one task; workers treat it as opaque.
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid

SEQ_BITS = 24
MAX_SEQ = (1 << SEQ_BITS) - 1
TOKEN_BYTES = 24

_SEQ_DIGITS = SEQ_BITS // 4
_TOKEN = struct.Struct(">16sII")
_CANONICAL_LENGTH = 36


def workflow_id(now_ms: int, randomness: bytes | None = None) -> str:
    """A new UUIDv7 for `now_ms`. `randomness` is 10 bytes, drawn from the system when absent."""
    drawn = int.from_bytes(os.urandom(10) if randomness is None else randomness[:10], "big")
    value = (now_ms & 0xFFFF_FFFF_FFFF) << 80 | drawn
    value = value & ~(0xF << 76) | 0x7 << 76  # version 7
    value = value & ~(0x3 << 62) | 0x2 << 62  # the RFC's variant
    return _text(f"{value:032x}")


def child_id(parent_id: str, task: str, attempt: int) -> str:
    """The id of the workflow that a SUB_WORKFLOW task starts, so that starting twice starts once.

    `task` is the task's id, `attempt` counts from 0. Conductor derives it alike: a UUID of
    version 3 without a namespace."""
    digest = bytearray(hashlib.md5(f"subworkflow:{parent_id}:{task}:{attempt}".encode()).digest())
    digest[6] = digest[6] & 0x0F | 0x30
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))


def task_id(workflow: str, seq: int) -> str:
    """The id of the task `seq` (1 to `MAX_SEQ`) of a workflow."""
    return f"{workflow[:-_SEQ_DIGITS]}{seq:06x}"


def split_task_id(task: str) -> tuple[str, str, int]:
    """(lowest workflow id, highest workflow id, seq) that a task id can belong to.

    Takes a canonical id (`canonical`). Among workflows in that range the one that has a task
    `seq` is meant; two in one range would share a millisecond and 50 random bits."""
    prefix = task[:-_SEQ_DIGITS]
    return prefix + "0" * _SEQ_DIGITS, prefix + "f" * _SEQ_DIGITS, int(task[-_SEQ_DIGITS:], 16)


def canonical(text: str) -> str | None:
    """The canonical form of a UUID given by a caller, or None where it is none."""
    if len(text) != _CANONICAL_LENGTH:
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def make_token(workflow: str, seq: int, delivery: int) -> bytes:
    """The token of one delivery: 24 bytes, opaque outside the server."""
    return _TOKEN.pack(bytes.fromhex(workflow.replace("-", "")), seq, delivery)


def read_token(token: bytes) -> tuple[str, int, int] | None:
    """(workflow id, seq, delivery) of a token, or None where it was not made by `make_token`."""
    if len(token) != TOKEN_BYTES:
        return None
    raw, seq, delivery = _TOKEN.unpack(token)
    if not 0 < seq <= MAX_SEQ or delivery >= 1 << 31:
        return None
    return _text(raw.hex()), seq, delivery


def _text(digits: str) -> str:
    """The canonical text of 32 hexadecimal digits; a fifth of the cost of `uuid.UUID`."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def session_id() -> str:
    """A new random id for a worker session."""
    return str(uuid.uuid4())
