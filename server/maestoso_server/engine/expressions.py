"""The `${...}` language: a template is compiled once and resolved many times.

    template = compile_template(node.input_parameters)
    template.references            # what it reads: which rows the engine must have
    input = resolve(template, lookup)

A text that is exactly one expression keeps the value's type; anything else becomes text. A path
that finds nothing is null (in a text: `null`); resolving never raises, whatever the data. What it
*looks up* may raise, and that passes through: an engine that lacks a row can say so.

`lookup(root, attribute)` answers with an attribute of `workflow` or of a task's newest row, with
`MISSING` where there is none (`engine.document` knows the attributes). Roots of its own:
`CPEWF_TASK_ID` (attribute None: the id of the task being made) and `workflow`/`env` (the allowed
environment as a mapping); the process environment is never read. Placeholders of secrets stay as
they are, as texts of their own kind (`secrets.SecretText`), so that only those are ever replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..definitions.expressions import ENVIRONMENT, SECRETS, TASK_ID, Expression, parse_text, root_of
from ..definitions.jsonpath import MISSING, Lookup, PathError, compile_path
from ..payload import DecodeError, decode
from .secrets import SecretText, head, join
from .texts import text_of

__all__ = [
    "MISSING",
    "Lookup",
    "Reference",
    "Template",
    "compile_template",
    "resolve",
    "text_of",
]

_Resolver = Callable[[Lookup, list[str] | None], Any]
"""(lookup, collects the sources of expressions that found nothing) -> the value."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A read of one document.

    `path` holds the plain members and elements after the root: ("output", "a", "b", 0). It is
    empty where the whole document is read, or where that is known only when it is resolved.
    """

    root: str
    """`workflow` or a task's base reference name; "" reads any document (a path such as `$..x`)."""
    path: tuple[str | int, ...] = ()

    @property
    def attribute(self) -> str | None:
        """`output`, `input`, `status`, ...; None reads the whole document of the root."""
        first = self.path[0] if self.path else None
        return first if isinstance(first, str) else None


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled JSON value with expressions in it. Immutable; share it."""

    references: tuple[Reference, ...]
    constant: bool
    """Nothing in it is resolved: the result is always the same value, shared, not to be changed."""
    open: bool
    """A nested expression chooses a root, so `lookup` may be asked for more than `references`."""
    reads_task_id: bool
    secretive: bool
    """It writes placeholders of secrets into the value, as `SecretText`."""
    _value: Any
    _resolver: _Resolver | None


def compile_template(value: Any) -> Template:
    """Compile a JSON value. Keys are not resolved, texts are, at any depth."""
    compiler = _Compiler()
    compiled = compiler.value(value)
    return Template(
        references=tuple(dict.fromkeys(compiler.references)),
        constant=isinstance(compiled, _Constant),
        open=compiler.open,
        reads_task_id=compiler.reads_task_id,
        secretive=compiler.secretive,
        _value=compiled.value if isinstance(compiled, _Constant) else None,
        _resolver=None if isinstance(compiled, _Constant) else compiled,
    )


def resolve(template: Template, lookup: Lookup, missed: list[str] | None = None) -> Any:
    """The value of a template. `missed` collects the expressions whose path found nothing."""
    resolver = template._resolver
    return template._value if resolver is None else resolver(lookup, missed)


@dataclass(frozen=True, slots=True)
class _Constant:
    value: Any


class _Compiler:
    """Turns values into resolvers and notes on the way what they read."""

    def __init__(self) -> None:
        self.references: list[Reference] = []
        self.open = False
        self.reads_task_id = False
        self.secretive = False

    def value(self, value: Any) -> _Constant | _Resolver:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self.members(value)
        if isinstance(value, list):
            return self.elements(value)
        return _Constant(value)

    def members(self, value: dict[str, Any]) -> _Constant | _Resolver:
        compiled = {key: self.value(item) for key, item in value.items()}
        if all(isinstance(item, _Constant) for item in compiled.values()):
            return _Constant(
                {key: item.value for key, item in compiled.items() if isinstance(item, _Constant)}
            )
        constants = {
            key: item.value if isinstance(item, _Constant) else None for key, item in compiled.items()
        }
        resolvers = [(key, item) for key, item in compiled.items() if not isinstance(item, _Constant)]

        def resolve_members(lookup: Lookup, missed: list[str] | None) -> dict[str, Any]:
            result = constants.copy()  # keeps the order of the keys
            for key, resolver in resolvers:
                result[key] = resolver(lookup, missed)
            return result

        return resolve_members

    def elements(self, value: list[Any]) -> _Constant | _Resolver:
        compiled = [self.value(item) for item in value]
        if all(isinstance(item, _Constant) for item in compiled):
            return _Constant([item.value for item in compiled if isinstance(item, _Constant)])
        constants = [item.value if isinstance(item, _Constant) else None for item in compiled]
        resolvers = [(index, item) for index, item in enumerate(compiled) if not isinstance(item, _Constant)]

        def resolve_elements(lookup: Lookup, missed: list[str] | None) -> list[Any]:
            result = constants.copy()
            for index, resolver in resolvers:
                result[index] = resolver(lookup, missed)
            return result

        return resolve_elements

    def text(self, text: str) -> _Constant | _Resolver:
        pieces = parse_text(text)
        if all(isinstance(piece, str) for piece in pieces):
            return _Constant("".join(piece for piece in pieces if isinstance(piece, str)))
        self.note_secrets(pieces)
        first = pieces[0]
        if len(pieces) == 1 and isinstance(first, Expression):
            return self.expression(first)
        return self.join(pieces)

    def note_secrets(self, pieces: Sequence[str | Expression]) -> None:
        for piece in pieces:
            if isinstance(piece, Expression) and piece.prefix.startswith(SECRETS):
                self.secretive = True

    def join(self, pieces: Sequence[str | Expression]) -> _Resolver:
        parts = [piece if isinstance(piece, str) else self.expression(piece) for piece in pieces]

        def resolve_text(lookup: Lookup, missed: list[str] | None) -> str:
            return join(part if isinstance(part, str) else text_of(part(lookup, missed)) for part in parts)

        return resolve_text

    def expression(self, expression: Expression) -> _Resolver:
        text = expression.text
        if text is not None:
            return self.path(text, expression.source)
        return self.nested(expression)

    def path(self, text: str, source: str) -> _Resolver:
        """An expression whose path is known now."""
        if not text.strip():
            return lambda _lookup, _missed: ""
        if text.startswith(SECRETS):
            hidden = SecretText.whole(source)
            return lambda _lookup, _missed: hidden
        if text.startswith(ENVIRONMENT):
            return _environment(text.removeprefix(ENVIRONMENT), source)
        if text == TASK_ID:
            self.reads_task_id = True
            return _task_id(source)
        try:
            path = compile_path(text)
        except PathError:
            return _never(source)
        self.references.append(Reference(path.root, path.names if path.root else ()))
        read = path.reader()

        def resolve_path(lookup: Lookup, missed: list[str] | None) -> Any:
            value = read(lookup)
            if value is MISSING:
                if missed is not None:
                    missed.append(source)
                return None
            return value

        return resolve_path

    def nested(self, expression: Expression) -> _Resolver:
        """An expression whose path is put together when it is resolved, and compiled then."""
        prefix = expression.prefix
        root = root_of(prefix)
        if not prefix.startswith((SECRETS, ENVIRONMENT)):
            if root is None:
                self.open = True
            else:
                inside = prefix.removeprefix("$.").removeprefix(root + ".")
                attribute = root_of(inside)
                self.references.append(Reference(root, (attribute,) if attribute else ()))
        assemble = self.join(expression.inside)

        def resolve_nested(lookup: Lookup, missed: list[str] | None) -> Any:
            text = assemble(lookup, missed)
            if text.startswith(SECRETS) and not prefix.startswith(SECRETS):
                return "${" + text + "}"  # data does not choose to read a secret
            return _Compiler().path(text, "${" + text + "}")(lookup, missed)

        return resolve_nested


def _never(source: str) -> _Resolver:
    def resolve_never(_lookup: Lookup, missed: list[str] | None) -> None:
        if missed is not None:
            missed.append(source)

    return resolve_never


def _task_id(source: str) -> _Resolver:
    def resolve_task_id(lookup: Lookup, _missed: list[str] | None) -> Any:
        value = lookup(TASK_ID, None)
        return source if value is MISSING or value is None else value

    return resolve_task_id


def _environment(text: str, source: str) -> _Resolver:
    """`workflow.env.NAME`, or `workflow.env.NAME.path` where the value is JSON."""
    name, rest = head(text)
    try:
        read = compile_path("value" + rest).reader() if rest else None
    except PathError:
        return _never(source)

    def resolve_environment(lookup: Lookup, missed: list[str] | None) -> Any:
        allowed = lookup("workflow", "env")
        value = allowed.get(name, MISSING) if isinstance(allowed, dict) else MISSING
        if read is not None and value is not MISSING:
            value = read(_inside_json(value))
        if value is MISSING:
            if missed is not None:
                missed.append(source)
            return None
        return value

    return resolve_environment


def _inside_json(text: Any) -> Lookup:
    """A lookup into the JSON document that a text holds; it finds nothing where it holds none."""
    try:
        document = decode(text)
    except (DecodeError, TypeError, UnicodeEncodeError, RecursionError):
        document = MISSING

    def lookup(_root: str, attribute: str | None) -> Any:
        if attribute is None:
            return document
        return document.get(attribute, MISSING) if isinstance(document, dict) else MISSING

    return lookup
