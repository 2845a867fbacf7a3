"""From JSON values to what a handler's annotations ask for.

A converter is made once per annotation and called as `convert(value, path)`; it raises
`InvalidInput` naming the path. Fields that a dataclass does not have are ignored, so that a
workflow may send more than a handler reads.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ._errors import InvalidInput

Converter = Callable[[Any, str], Any]


def takes_object(annotation: Any) -> bool:
    """Whether a single parameter with this annotation takes the whole input."""
    annotation = _bare(annotation)
    origin = typing.get_origin(annotation) or annotation
    return (
        annotation is Any
        or origin in (dict, collections.abc.Mapping, collections.abc.MutableMapping)
        or typing.is_typeddict(annotation)
        or _is_model(annotation)
    )


def converter(annotation: Any) -> Converter:
    """The converter for an annotation. TypeError where JSON cannot become such a value."""
    annotation = _bare(annotation)
    origin = typing.get_origin(annotation)
    if annotation is Any or annotation is object or isinstance(annotation, typing.TypeVar):
        return _same
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    if origin is typing.Literal:
        return _literal(typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return _union(typing.get_args(annotation))
    if typing.is_typeddict(annotation) or (origin or annotation) in _MAPPINGS:
        return _mapping(typing.get_args(annotation))
    if (origin or annotation) in _SEQUENCES:
        return _sequence(_SEQUENCES[origin or annotation], typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _parsed(annotation, annotation.__name__)
    if _is_model(annotation):
        return _model(annotation)
    raise TypeError(f"a parameter of type {annotation!r} cannot be filled from JSON")


def _bare(annotation: Any) -> Any:
    """The annotation without Annotated, NewType and the like."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        else:
            return annotation


def _is_model(annotation: Any) -> bool:
    return (
        (dataclasses.is_dataclass(annotation) and isinstance(annotation, type))
        or hasattr(annotation, "model_validate")  # pydantic, without importing it
        or hasattr(annotation, "__struct_fields__")  # msgspec
    )


def _same(value: Any, path: str) -> Any:
    return value


def _refuse(value: Any, path: str, wanted: str) -> InvalidInput:
    return InvalidInput(f"{path} must be {wanted}, not {_JSON_NAMES.get(type(value), 'something else')}")


def _text(value: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    raise _refuse(value, path, "a string")


def _truth(value: Any, path: str) -> bool:
    if isinstance(value, bool):
        return value
    raise _refuse(value, path, "true or false")


def _integer(value: Any, path: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():  # scripts compute 3.0 where they mean 3
        return int(value)
    raise _refuse(value, path, "an integer")


def _number(value: Any, path: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise _refuse(value, path, "a number")


def _nothing(value: Any, path: str) -> None:
    if value is not None:
        raise _refuse(value, path, "null")


def _parsed(parse: Callable[[Any], Any], wanted: str) -> Converter:
    def convert(value: Any, path: str) -> Any:
        try:
            return parse(value)
        except (ValueError, TypeError, ArithmeticError, AttributeError):
            raise InvalidInput(f"{path} is not a {wanted}: {str(value)[:100]!r}") from None

    return convert


def _decimal(value: Any) -> decimal.Decimal:
    return decimal.Decimal(repr(value) if isinstance(value, float) else value)


def _literal(allowed: tuple[Any, ...]) -> Converter:
    def convert(value: Any, path: str) -> Any:
        for item in allowed:
            if value == item and type(value) is type(item):
                return item
        raise InvalidInput(f"{path} must be one of {', '.join(map(repr, allowed))}")

    return convert


def _union(members: tuple[Any, ...]) -> Converter:
    converters = [converter(member) for member in members]

    def convert(value: Any, path: str) -> Any:
        refusals: list[str] = []
        for member in converters:
            try:
                return member(value, path)
            except InvalidInput as refusal:
                refusals.append(str(refusal))
        raise InvalidInput("; or ".join(refusals))

    return convert


def _mapping(arguments: tuple[Any, ...]) -> Converter:
    item = converter(arguments[1]) if len(arguments) == 2 else _same

    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _refuse(value, path, "an object")
        if item is _same:
            return value
        return {key: item(each, f"{path}.{key}") for key, each in value.items()}

    return convert


def _sequence(build: Callable[[Any], Any], arguments: tuple[Any, ...]) -> Converter:
    if build is tuple and arguments and arguments[-1] is not Ellipsis:
        return _fixed_tuple([converter(argument) for argument in arguments])
    item = converter(arguments[0]) if arguments else _same

    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, list):
            raise _refuse(value, path, "an array")
        return build(item(each, f"{path}[{index}]") for index, each in enumerate(value))

    return convert


def _fixed_tuple(items: list[Converter]) -> Converter:
    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, list) or len(value) != len(items):
            raise _refuse(value, path, f"an array of {len(items)}")
        return tuple(
            item(each, f"{path}[{index}]")
            for index, (item, each) in enumerate(zip(items, value, strict=True))
        )

    return convert


def _model(model: Any) -> Converter:
    if hasattr(model, "model_validate"):
        return _validated(model.model_validate, model.__name__)
    if hasattr(model, "__struct_fields__"):
        import msgspec

        return _validated(lambda value: msgspec.convert(value, model), model.__name__)
    return _dataclass(model)


def _validated(validate: Callable[[Any], Any], name: str) -> Converter:
    def convert(value: Any, path: str) -> Any:
        try:
            return validate(value)
        except ValueError as error:
            raise InvalidInput(f"{path} is not a {name}: {error}") from None

    return convert


def _dataclass(model: Any) -> Converter:
    # Made at the first use: a dataclass may contain itself.
    made: list[tuple[str, Converter, bool]] = []

    def fields() -> list[tuple[str, Converter, bool]]:
        if not made:
            hints = typing.get_type_hints(model)
            made.extend(
                (field.name, converter(hints[field.name]), _required(field))
                for field in dataclasses.fields(model)
                if field.init
            )
        return made

    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            raise _refuse(value, path, "an object")
        arguments: dict[str, Any] = {}
        for name, item, required in fields():
            if name in value:
                arguments[name] = item(value[name], f"{path}.{name}")
            elif required:
                raise InvalidInput(f"{path}.{name} is missing")
        return model(**arguments)

    return convert


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


_JSON_NAMES: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
_SIMPLE: dict[Any, Converter] = {
    str: _text,
    bool: _truth,
    int: _integer,
    float: _number,
    None: _nothing,
    type(None): _nothing,
    datetime.datetime: _parsed(datetime.datetime.fromisoformat, "date and time"),
    datetime.date: _parsed(datetime.date.fromisoformat, "date"),
    datetime.time: _parsed(datetime.time.fromisoformat, "time"),
    uuid.UUID: _parsed(uuid.UUID, "UUID"),
    decimal.Decimal: _parsed(_decimal, "decimal number"),
}
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_SEQUENCES: dict[Any, Callable[[Any], Any]] = {
    list: list,
    collections.abc.Sequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
}
