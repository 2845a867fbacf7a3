"""From a task's input to a handler's arguments, and from what it returns to an output."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from . import _json
from ._convert import Converter, converter, takes_object
from ._errors import InvalidInput, InvalidOutput

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Binding:
    """How one function's parameters are filled from an input. The rules are those of `worker`."""

    def __init__(self, function: Callable[..., Any], *, context_type: type) -> None:
        hints = _hints(function)
        self._context_names: list[str] = []
        self._whole: tuple[str, Converter] | None = None
        self._fields: list[tuple[str, Converter, bool]] = []
        self._rest = False
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(function).parameters.values():
            if hints.get(parameter.name) is context_type:
                self._context_names.append(parameter.name)
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self._rest = True
            elif parameter.kind in _NAMED:
                parameters.append(parameter)
            else:
                raise TypeError(f"{_name(function)}: parameter {parameter} cannot be filled by its name")
        if len(parameters) == 1 and not self._rest and takes_object(hints.get(parameters[0].name, Any)):
            annotation = hints.get(parameters[0].name, Any)
            self._whole = parameters[0].name, converter(annotation)
            return
        for parameter in parameters:
            optional = parameter.default is not inspect.Parameter.empty
            self._fields.append((parameter.name, converter(hints.get(parameter.name, Any)), optional))

    def arguments(self, raw: bytes, context: object) -> dict[str, Any]:
        """The keyword arguments for an input, a JSON object. InvalidInput where it does not fit."""
        arguments: dict[str, Any] = dict.fromkeys(self._context_names, context)
        if not (self._whole or self._fields or self._rest):
            return arguments
        try:
            value = _json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the input is not JSON: {error}") from None
        if self._whole:
            name, convert = self._whole
            arguments[name] = convert(value, "input")
            return arguments
        if not isinstance(value, dict):
            raise InvalidInput(f"the input is not a JSON object but {type(value).__name__}")
        self._fill(value, arguments)
        return arguments

    def _fill(self, value: dict[str, Any], arguments: dict[str, Any]) -> None:
        for name, convert, optional in self._fields:
            if name in value:
                arguments[name] = convert(value[name], f"input.{name}")
            elif not optional:
                raise InvalidInput(f"input.{name} is missing")
        if self._rest:
            for name, item in value.items():
                arguments.setdefault(name, item)


def output(value: Any) -> bytes:
    """What a handler returned, as a JSON object. InvalidOutput where JSON has no words for it."""
    if value is None:
        return b"{}"
    try:
        raw = _json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOutput(f"the returned value is not JSON: {error}") from None
    return raw if raw.startswith(b"{") else b'{"result":' + raw + b"}"


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of the parameters alone: what is returned is judged when it is returned."""
    while isinstance(function, functools.partial):
        function = function.func
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        function = getattr(function, "__call__")  # noqa: B004, B009 - an object that is called
    annotations = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    parameters = types.SimpleNamespace(__annotations__=annotations)
    try:
        return typing.get_type_hints(parameters, globalns=inspect.unwrap(function).__globals__)
    except NameError as error:
        raise TypeError(f"{_name(function)}: an annotation cannot be resolved: {error}") from None


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
