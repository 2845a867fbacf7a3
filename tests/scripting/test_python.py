"""Python as an evaluator: what its scripts see, what they give, and what they cannot do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from maestoso_server.scripting import pool
from maestoso_server.scripting.pool import Evaluators

LIMIT_S = 0.4

pytestmark = pytest.mark.skipif(
    "python" not in pool.languages(), reason="left out: the extra `python` (pydantic-monty) is not installed"
)


@pytest.fixture
async def evaluators() -> AsyncIterator[Evaluators]:
    made = Evaluators(processes=1, limit_s=LIMIT_S, memory_bytes=32 * 1024 * 1024)
    yield made
    await made.stop()


async def value_of(evaluators: Evaluators, script: str, inputs: Any = None) -> Any:
    answer = await evaluators.evaluate("python", script, json.dumps(inputs or {}).encode())
    assert answer.error is None
    return answer.value


@pytest.mark.covers("K30")
async def test_the_value_is_what_is_returned_or_the_last_expression(evaluators: Evaluators) -> None:
    inputs = {"a": 2, "items": [{"n": 1}, {"n": 2.5}], "map": {"k": None}, "not-a-name": 7, "class": "c"}
    for script, expected in {
        "a + 1": 3,
        "return a + 1": 3,
        "if a > 1:\n    return 'big'\nreturn 'small'": "big",
        "for item in items:\n    if item['n'] > 2:\n        return item": {"n": 2.5},
        "a = a + 1\nreturn a": 3,
        "def twice(n):\n    return n * 2\nreturn twice(a)": 4,
        "sum(item['n'] for item in items)": 3.5,
        "return map.get('absent', 'default')": "default",
        "inputs['not-a-name'] + len(inputs['class'])": 8,
        "sorted(inputs)": ["a", "class", "items", "map", "not-a-name"],
        "2 ** 70": 2**70,
        "1.0": 1.0,
        "(1, None, True)": [1, None, True],
        "{1: 'one', None: 2}": {"1": "one", "null": 2},
        "float('nan')": "NaN",
        "[float('inf'), -float('inf')]": ["Infinity", "-Infinity"],
        "import datetime\ndatetime.date(2026, 1, 2)": "2026-01-02",
        "import json\njson.loads('[1]')": [1],
        "x = 1": None,
        "": None,
        "print('nowhere')\n'é\\n'": "é\n",
    }.items():
        value = await value_of(evaluators, script, inputs)
        assert value == expected, script
        assert type(value) is type(expected), script


async def test_nothing_stays_between_scripts(evaluators: Evaluators) -> None:
    assert await value_of(evaluators, "kept = 1\nitems.append(2)\nreturn items", {"items": [1]}) == [1, 2]
    answer = await evaluators.evaluate("python", "kept", b"{}")
    assert answer.error == "Error evaluating the script `NameError: name 'kept' is not defined` at line 1"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("\n\nfoo.bar", "`NameError: name 'foo' is not defined` at line 3"),
        ("raise ValueError('boom')", "`ValueError: boom` at line 1"),
        ("x = (", "`SyntaxError: unexpected EOF while parsing` at line 1"),
        ("open('/etc/passwd')", "PermissionError"),
        ("import subprocess", "No module named 'subprocess'"),
        ("import socket", "No module named 'socket'"),
        ("__import__('os')", "'__import__' is not defined"),
        ("().__class__", "no attribute '__class__'"),
        ("import os\nos.environ", "not supported"),
        ("import time\ntime.sleep(3)", "sleep limit exceeded"),
        ("return {1, 2}", "JSON cannot hold a set; return list(...) of it"),
        ("class A:\n    pass\nreturn A()", "JSON cannot hold a"),
        ("return {(1, 2): 3}", "a key of a JSON object is a text"),
        ("return 'x' * (11 * 1024 * 1024)", "which is too many"),
    ],
)
async def test_a_script_that_fails_says_why_and_is_not_retried(
    evaluators: Evaluators, script: str, error: str
) -> None:
    answer = await evaluators.evaluate("python", script, b"{}")
    assert answer.error is not None
    assert error in answer.error
    assert not answer.retriable


@pytest.mark.covers("B32")
@pytest.mark.parametrize(
    ("script", "in_time"),
    [
        ("while True:\n    pass", False),
        (
            "while True:\n  try:\n    while True:\n      pass\n  except BaseException:\n    pass",
            False,
        ),
        ("'x' * 10 ** 9", True),
        ("[0] * 10 ** 8", True),
        ("items = []\nwhile True:\n    items.append(list(range(1000)))", True),
        ("def f():\n    return f()\nf()", True),
        ("2 ** 10 ** 8", True),
        ("d = []\nfor _ in range(100000):\n    d = [d]\nreturn d", True),
        ("(" * 5000 + ")" * 5000, True),
    ],
)
async def test_b32_a_hostile_script_fails_alone_and_in_time(
    evaluators: Evaluators, script: str, in_time: bool
) -> None:
    hostile = evaluators.submit("python", script, b"{}", owner="hostile")
    innocent = evaluators.submit("python", "a", b'{"a": 1}')
    answer = await hostile
    assert answer.error is not None
    assert (answer.error == f"Script not evaluated within {LIMIT_S:g} seconds, interrupted.") is not in_time
    assert answer.retriable is not in_time
    assert (await innocent).value == 1


async def test_syntax_is_checked_without_running(evaluators: Evaluators) -> None:
    assert await evaluators.check("python", "while True:\n    pass") is None
    assert await evaluators.check("python", "return unknown") is None
    found = await evaluators.check("python", "a = 1\nif a\n    return")
    assert found is not None
    assert "SyntaxError" in found
    assert "at line 2" in found
