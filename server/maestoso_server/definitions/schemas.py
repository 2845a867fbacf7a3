"""JSON schemas of a definition, compiled: what inputs and outputs must look like.

    schema = compile_schema(definition.input_schema)
    if schema is not None: faults = schema.faults(value, "input")

The draft is the one that `$schema` names, 2020-12 without it. A schema stands for itself: nothing
is ever fetched, neither from a host nor from a file. One that refers to the outside is refused at
registration; one that got past it (a document made at run time) lets no value pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import jsonschema_rs

from ..json_text import Path, path_text
from ..payload import decode, encode
from .models import SchemaDefinition

FAULTS_MAX = 20
"""Faults of one value that are told."""
_TEXT_MAX = 300
"""Characters of one fault: the validator quotes the schema, whatever its size."""
_VALUE = "the value"
"""What a fault says in place of the value itself: reasons are shown, kept and logged."""
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef", "$schema")


class Schema:
    """A compiled schema. Immutable; shared by all plans that have the same one."""

    __slots__ = ("_broken", "_validator")

    def __init__(self, document: Any) -> None:
        self._validator: Any = None
        self._broken: str | None = None
        try:
            self._validator = _validator(document)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            self._broken = f"the schema cannot be used: {_first_line(error)}"

    def faults(self, value: Any, root: str) -> list[tuple[str, str]]:
        """(path, message) of what a value violates, the first `FAULTS_MAX`; empty where it fits.
        `root` is what the value is called; paths begin with it. A few microseconds."""
        if self._validator is None:
            return [(root, self._broken or "")]
        if self._validator.is_valid(value):
            return []
        errors = islice(self._validator.iter_errors(value), FAULTS_MAX)
        return [(path_text((root, *error.instance_path)), _shortened(error.message)) for error in errors]


def compile_schema(definition: SchemaDefinition | None) -> Schema | None:
    """The schema that values are held against; None where there is none that can be (`doubts`)."""
    if definition is None or not definition.data or doubts(definition):
        return None
    return _compiled(encode(definition.data))


@lru_cache(maxsize=1_000)
def _compiled(document: bytes) -> Schema:
    """By content: plans, and tasks whose definition is known only at run time, share what they have
    in common."""
    return Schema(decode(document))


def doubts(definition: SchemaDefinition) -> list[tuple[str, str]]:
    """(field, why nothing is held against this schema). Such a schema is only kept."""
    found = []
    if definition.type not in (None, "JSON"):
        found.append(("type", f"{definition.type} schemas are not enforced; JSON ones are"))
    if definition.external_ref:
        found.append(("externalRef", "is never fetched: the schema is not enforced; write it into `data`"))
    elif not definition.data and not found:
        found.append(("data", "without `data` there is nothing to enforce; write the JSON schema there"))
    return found


def faults_of(document: Any) -> list[tuple[Path, str]]:
    """(path inside the schema, what is wrong) of a schema document that cannot be enforced."""
    outside = [
        (path, f"{reference!r} lies outside of the schema and is never fetched; copy it into $defs")
        for path, reference in _outside(document)
    ]
    try:
        _validator(document)
    except jsonschema_rs.ValidationError as error:
        # A schema is judged by the schema of its draft: the path leads into our document.
        return outside or [(tuple(error.instance_path), f"no valid JSON schema: {_first_line(error)}")]
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        return outside or [((), f"no valid JSON schema: {_first_line(error)}")]
    return []


def _validator(document: Any) -> Any:
    return jsonschema_rs.validator_for(document, retriever=_refuse, mask=_VALUE)


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} is not fetched")


def _outside(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """References that do not begin in the document itself."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _REFERENCES and isinstance(item, str):
                known = item.startswith(("http://json-schema.org/", "https://json-schema.org/"))
                if not item.startswith("#") and not (key == "$schema" and known):
                    yield (*path, key), item
            yield from _outside(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _outside(item, (*path, index))


def _first_line(error: Exception) -> str:
    return _shortened(str(error).splitlines()[0] if str(error) else type(error).__name__)


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 3] + "..."
