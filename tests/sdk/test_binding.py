"""From inputs to arguments, and from what handlers return to outputs."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

import msgspec
import pytest
from pydantic import BaseModel

from maestoso import InvalidInput, InvalidOutput, TaskContext, current_task, worker
from maestoso._binding import Binding, output
from maestoso._task import handlers_of


class Size(enum.Enum):
    SMALL = "s"


@dataclasses.dataclass
class Item:
    name: str
    quantity: int = 1


@dataclasses.dataclass
class Order:
    order_id: str
    items: list[Item]
    parent: Order | None = None


class Model(BaseModel):
    count: int


class Struct(msgspec.Struct):
    count: int


class Typed(TypedDict):
    count: int


def arguments(function: Callable[..., Any], raw: bytes) -> dict[str, Any]:
    return Binding(function, context_type=TaskContext).arguments(raw, "the context")


# Which parameter takes what.


def test_no_parameters_take_nothing() -> None:
    def handler() -> None: ...

    assert arguments(handler, b"not even JSON") == {}


def test_parameters_take_the_fields_of_their_names() -> None:
    def handler(a: int, b: str = "none", *, c: float) -> None: ...

    assert arguments(handler, b'{"a":1,"c":2,"unknown":3}') == {"a": 1, "c": 2.0}


def test_single_plain_parameter_takes_the_field_of_its_name() -> None:
    def handler(order_id: str) -> None: ...

    assert arguments(handler, b'{"order_id":"A","more":1}') == {"order_id": "A"}


def test_context_is_given_where_it_is_asked_for() -> None:
    def handler(task: TaskContext, a: int) -> None: ...

    assert arguments(handler, b'{"a":1}') == {"task": "the context", "a": 1}


def test_rest_of_the_input_goes_into_keyword_arguments() -> None:
    def handler(a: int, **rest: Any) -> None: ...

    assert arguments(handler, b'{"a":1,"b":null,"c":[]}') == {"a": 1, "b": None, "c": []}


@pytest.mark.parametrize("annotation", [dict, dict[str, Any], Mapping[str, int], Any, Typed])
def test_single_parameter_for_an_object_takes_the_whole_input(annotation: Any) -> None:
    def handler(everything): ...  # type: ignore[no-untyped-def]

    handler.__annotations__["everything"] = annotation

    assert arguments(handler, b'{"a":1}') == {"everything": {"a": 1}}


def test_single_parameter_without_annotation_takes_the_whole_input() -> None:
    def handler(everything): ...  # type: ignore[no-untyped-def]

    assert arguments(handler, b'{"a":1}') == {"everything": {"a": 1}}


def test_dataclass_takes_the_whole_input() -> None:
    def handler(order: Order) -> None: ...

    raw = (
        b'{"order_id":"A","items":[{"name":"x"},{"name":"y","quantity":2}],'
        b'"parent":{"order_id":"B","items":[]}}'
    )
    assert arguments(handler, raw) == {
        "order": Order("A", [Item("x"), Item("y", 2)], parent=Order("B", [])),
    }


@pytest.mark.parametrize("model", [Model, Struct])
def test_models_of_installed_libraries_take_the_whole_input(model: Any) -> None:
    def handler(value): ...  # type: ignore[no-untyped-def]

    handler.__annotations__["value"] = model

    assert arguments(handler, b'{"count":3}') == {"value": model(count=3)}
    with pytest.raises(InvalidInput, match=model.__name__):
        arguments(handler, b'{"count":"many"}')


def test_big_integers_arrive_exactly() -> None:
    def handler(n: int) -> None: ...

    assert arguments(handler, b'{"n":1000000000000000000000000000001}')["n"] == 10**30 + 1


# What does not fit.


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"b":1}', "input.a is missing"),
        (b'{"a":"1"}', "input.a must be an integer, not a string"),
        (b'{"a":true}', "input.a must be an integer, not true or false"),
        (b'{"a":1.5}', "input.a must be an integer, not a number"),
        (b'{"a":null}', "input.a must be an integer, not null"),
        (b"[1]", "not a JSON object"),
        (b"{", "not JSON"),
    ],
)
def test_input_that_does_not_fit_is_refused_with_its_place(raw: bytes, message: str) -> None:
    def handler(a: int, b: int = 0) -> None: ...

    with pytest.raises(InvalidInput, match=message) as refusal:
        arguments(handler, raw)
    assert refusal.value.terminal


def test_place_of_a_fault_is_named_down_to_the_item() -> None:
    def handler(order: Order) -> None: ...

    with pytest.raises(InvalidInput, match=r"input\.items\[1\]\.quantity must be an integer"):
        arguments(handler, b'{"order_id":"A","items":[{"name":"x"},{"name":"y","quantity":"2"}]}')


@pytest.mark.parametrize(
    ("annotation", "json", "value"),
    [
        (float, b"1", 1.0),
        (int, b"3.0", 3),
        (str | None, b"null", None),
        (int | str, b'"x"', "x"),
        (Literal["a", 1], b"1", 1),
        (Size, b'"s"', Size.SMALL),
        (tuple[int, str], b'[1,"x"]', (1, "x")),
        (set[int], b"[1,1]", {1}),
        (dict[str, Item], b'{"k":{"name":"x"}}', {"k": Item("x")}),
        (list, b"[1,null]", [1, None]),
        (
            datetime.datetime,
            b'"2026-11-25T10:00:00Z"',
            datetime.datetime(2026, 11, 25, 10, tzinfo=datetime.UTC),
        ),
        (uuid.UUID, b'"00000000-0000-0000-0000-000000000001"', uuid.UUID(int=1)),
        (decimal.Decimal, b'"1.10"', decimal.Decimal("1.10")),
    ],
)
def test_annotations_are_honoured(annotation: Any, json: bytes, value: Any) -> None:
    def handler(first, a): ...  # type: ignore[no-untyped-def]

    handler.__annotations__["a"] = annotation

    assert arguments(handler, b'{"first":0,"a":' + json + b"}")["a"] == value


@pytest.mark.parametrize(
    ("annotation", "json"),
    [
        (float, b'"1"'),
        (str | None, b"1"),
        (int | None, b'"x"'),
        (Literal["a", 1], b"true"),
        (Size, b'"xl"'),
        (tuple[int, str], b"[1]"),
        (set[int], b'{"a":1}'),
        (dict[str, int], b'{"a":"b"}'),
        (list[int], b"[null]"),
        (datetime.datetime, b'"yesterday"'),
        (uuid.UUID, b"1"),
        (decimal.Decimal, b'"x"'),
        (bool, b"1"),
        (None, b"0"),
    ],
)
def test_values_that_do_not_fit_an_annotation_are_refused(annotation: Any, json: bytes) -> None:
    def handler(first, a): ...  # type: ignore[no-untyped-def]

    handler.__annotations__["a"] = annotation

    with pytest.raises(InvalidInput, match=r"input\.a"):
        arguments(handler, b'{"first":0,"a":' + json + b"}")


# Handlers that can never be called are refused when their worker is made.


def test_parameter_that_json_cannot_fill_is_refused() -> None:
    def handler(a: int, file: memoryview) -> None: ...

    with pytest.raises(TypeError, match="memoryview"):
        Binding(handler, context_type=TaskContext)


def test_positional_only_parameter_is_refused() -> None:
    def handler(a: int, /) -> None: ...

    with pytest.raises(TypeError, match="cannot be filled by its name"):
        Binding(handler, context_type=TaskContext)


def test_unknown_annotation_is_refused_by_name() -> None:
    def handler(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match="Nowhere"):
        Binding(handler, context_type=TaskContext)


# Outputs.


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (None, b"{}"),
        ({"a": 1.0}, b'{"a":1.0}'),
        (Item("x"), b'{"name":"x","quantity":1}'),
        (Model(count=1), b'{"count":1}'),
        ("text", b'{"result":"text"}'),
        ([1, 2], b'{"result":[1,2]}'),
        (10**30, b'{"result":1000000000000000000000000000000}'),
    ],
)
def test_returned_values_become_json_objects(value: Any, raw: bytes) -> None:
    assert output(value) == raw


@pytest.mark.parametrize("value", [{"a": float("nan")}, object(), {"a": {1, object()}}, "\ud800"])
def test_values_that_are_not_json_are_refused(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        output(value)


def test_endless_value_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(InvalidOutput):
        output(endless)


# The decorator.


def test_decorated_function_stays_itself() -> None:
    @worker("double", concurrency=2, domain="eu")
    def double(n: int) -> int:
        return 2 * n

    [handler] = handlers_of([double])

    assert double(2) == 4
    assert (handler.task_type, handler.concurrency, handler.domain) == ("double", 2, "eu")
    assert not handler.asynchronous


def test_methods_are_bound_to_their_object() -> None:
    class Till:
        @worker("charge")
        async def charge(self, amount: int) -> Till:
            return self

    till = Till()
    [handler] = handlers_of([till.charge])

    assert handler.asynchronous
    assert handler.function.__self__ is till  # type: ignore[attr-defined]
    assert Binding(handler.function, context_type=TaskContext).arguments(b'{"amount":1}', None) == {
        "amount": 1
    }


def test_one_function_can_serve_several_types() -> None:
    @worker("a")
    @worker("b")
    def handler() -> None: ...

    assert [each.task_type for each in handlers_of([handler])] == ["b", "a"]


def test_partial_of_a_coroutine_function_is_asynchronous() -> None:
    async def handler(a: int, b: int) -> None: ...

    assert handlers_of([worker("x")(functools.partial(handler, b=1))])[0].asynchronous


def test_function_without_the_decorator_is_refused() -> None:
    with pytest.raises(TypeError, match="not marked with @worker"):
        handlers_of([len])


@pytest.mark.parametrize(("name", "concurrency"), [("", None), ("x" * 256, None), ("x", 0)])
def test_impossible_handlers_are_refused(name: str, concurrency: int | None) -> None:
    with pytest.raises(ValueError):
        worker(name, concurrency=concurrency)


def test_there_is_no_current_task_outside_of_handlers() -> None:
    with pytest.raises(RuntimeError, match="inside a handler"):
        current_task()
