"""Files that commands read: payloads; and definitions, with where in the file each one begins."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import Violation

_SPACE = re.compile(r"[ \t\r\n]*")


class BadFile(ValueError):
    """A file that is not JSON, or holds no definitions; the message names the place."""


@dataclass(frozen=True, slots=True)
class Document:
    """One definition of a file, with its text as it stands there. Line and column from 1."""

    file: str
    text: str
    line: int
    column: int
    is_workflow: bool

    def place(self, violation: Violation) -> str:
        """`FILE:LINE:COLUMN` of a fault in this document."""
        if not violation.line:
            return f"{self.file}:{self.line}:{self.column}"
        column = violation.column
        if violation.line == 1:  # the document may begin inside a line of the file
            column += self.column - 1
        return f"{self.file}:{self.line + violation.line - 1}:{column}"


def read(name: str) -> list[Document]:
    """The documents of a file, a single one or a list; `-` is stdin. BadFile, OSError."""
    text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    try:
        start = _skip_space(text, 0)
        if text[start : start + 1] != "[":
            value = json.loads(text)
            return [_document(name, text, 0, text, value)]
        return [_document(name, text, at, part, value) for at, part, value in _items(text, start)]
    except json.JSONDecodeError as error:
        raise BadFile(f"{name}:{error.lineno}:{error.colno}: {error.msg}") from None


def payload(text: str) -> bytes:
    """The JSON text that an option names: itself, `@FILE`, or `-` for stdin. OSError."""
    if text == "-":
        return sys.stdin.buffer.read()
    return Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()


def _document(name: str, text: str, at: int, part: str, value: Any) -> Document:
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    if not isinstance(value, dict):
        raise BadFile(f"{name}:{line}:{column}: a definition is a JSON object")
    return Document(name, part, line, column, is_workflow="tasks" in value)


def _items(text: str, start: int) -> Iterator[tuple[int, str, Any]]:
    """Where each item of a list begins, its text and its value."""
    decoder = json.JSONDecoder()
    position = _skip_space(text, start + 1)
    while text[position : position + 1] != "]":
        value, end = decoder.raw_decode(text, position)
        yield position, text[position:end], value
        position = _skip_space(text, end)
        if text[position : position + 1] == ",":
            position = _skip_space(text, position + 1)
            if text[position : position + 1] == "]":
                raise json.JSONDecodeError("expecting a definition", text, position)
        elif text[position : position + 1] != "]":
            raise json.JSONDecodeError("expecting ',' or ']'", text, position)
    rest = _skip_space(text, position + 1)
    if rest != len(text):
        raise json.JSONDecodeError("extra data", text, rest)


def _skip_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    assert found is not None
    return found.end()
