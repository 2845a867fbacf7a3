"""Scripts: what they may do, what they may not, and that a bad one fails alone."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from maestoso_server.engine.needs import ScriptAnswer
from maestoso_server.scripting.pool import Evaluators

LIMIT_S = 0.4
TOO_SLOW = f"Script not evaluated within {LIMIT_S:g} seconds, interrupted."


@pytest.fixture
async def evaluators() -> AsyncIterator[Evaluators]:
    pool = Evaluators(processes=1, limit_s=LIMIT_S, memory_bytes=32 * 1024 * 1024)
    yield pool
    await pool.stop()


async def value_of(evaluators: Evaluators, language: str, script: str, document: Any = None) -> Any:
    answer = await evaluators.evaluate(language, script, json.dumps(document or {}).encode())
    assert answer.error is None
    return answer.value


async def test_the_value_of_a_script_is_what_json_can_hold_of_it(evaluators: Evaluators) -> None:
    for script, expected in {
        "$.a + 1": 2,
        "'x' + $.s": "xy",
        "if ($.a > 0) { 'pos' } else { 'neg' }": "pos",
        "let b = $.a; const c = 2; b + c": 3,
        "undefined": None,
        "null": None,
        "3.0": 3,
        "0.5": 0.5,
        "2 ** 53": 2**53,
        "2n ** 70n": 2**70,
        "NaN": "NaN",
        "[1, undefined, -Infinity]": [1, None, "-Infinity"],
        "({d: new Date(0), f: () => 1, u: undefined})": {"d": "1970-01-01T00:00:00.000Z"},
        "(() => ({nested: {list: [1, {a: null}]}}))()": {"nested": {"list": [1, {"a": None}]}},
        "'\\u0000\\u00e9'": "\x00é",
        "JSON.stringify = () => '7'; 1": 1,
        "[1,2,3].toSorted((a, b) => b - a).at(0)": 3,
        "[3,1].toSorted().concat([2].toReversed(), [1,2,3].findLast(n => n < 3))": [1, 3, 2, 2],
        "Object.groupBy([1,2,3], n => n % 2 ? 'odd' : 'even')": {"odd": [1, 3], "even": [2]},
        "`${$.s}-${$.a}`": "y-1",
        "$['a'] ?? 'none'": 1,
        "$.missing?.deep ?? 'none'": "none",
        "function f() { return $.a + 1 } f();": 2,
        "(function () { return $.a == 1; })();": True,
        "var e = function () { return $.s; }; e()": "y",
        "$.a > 0": True,
        "1 / 2 + 0.5": 1,
        "new Date(86400000)": "1970-01-02T00:00:00.000Z",
        "Object.fromEntries(new Map([['k', 1]]))": {"k": 1},
        "JSON.parse('{\"deep\": [1]}').deep": [1],
    }.items():
        value = await value_of(evaluators, "javascript", script, {"a": 1, "s": "y"})
        assert value == expected, script
        assert type(value) is type(expected), script


async def test_the_input_is_a_copy_and_nothing_stays_between_scripts(evaluators: Evaluators) -> None:
    assert await value_of(evaluators, "javascript", "$.a = 5; globalThis.kept = 1; $.a", {"a": 1}) == 5
    assert await value_of(evaluators, "javascript", "typeof kept + $.a", {"a": 1}) == "undefined1"


async def test_a_function_body_returns_its_value(evaluators: Evaluators) -> None:
    assert await value_of(evaluators, "javascript-function", "return $.a * 2 // twice", {"a": 4}) == 8
    assert await value_of(evaluators, "javascript-function", "const x = 1;") is None


async def test_jq_gives_the_list_of_all_that_it_emits(evaluators: Evaluators) -> None:
    document = {"a": 1, "b": {"c": [1.5, "x\n", None]}}
    assert await value_of(evaluators, "jq", ".a, .b", document) == [1, {"c": [1.5, "x\n", None]}]
    assert await value_of(evaluators, "jq", "empty", document) == []
    assert await value_of(evaluators, "jq", '.b.c[] | select(type == "number")', document) == [1.5]


@pytest.mark.parametrize(
    ("language", "script", "error"),
    [
        (
            "javascript",
            "\n\nfoo.bar",
            "Error evaluating the script `ReferenceError: foo is not defined` at line 3",
        ),
        ("javascript", "throw new Error('boom')", "Error evaluating the script `Error: boom` at line 1"),
        ("javascript", "throw 'text'", "Error evaluating the script `text` at line 1"),
        ("javascript", "x y", "SyntaxError"),
        ("javascript", "console.log(1)", "console is not defined"),
        ("javascript", "let r = {}; r.r = r; r", "circular reference"),
        ("javascript", "'\\ud800'", "half of a surrogate pair"),
        ("javascript", "'x'.repeat(10.5 * 1024 * 1024)", "which is too many"),
        ("javascript", "require('fs')", "require is not defined"),
        ("javascript", "Java.type('java.lang.System')", "Java is not defined"),
        ("javascript", "java.util.UUID.randomUUID()", "java is not defined"),
        ("javascript", "print('x')", "print is not defined"),
        ("javascript", "load('x.js')", "load is not defined"),
        ("javascript", "$.list.size()", "at line 1"),
        ("javascript", "return 1", "SyntaxError"),
        ("jq", '.a["array"]', 'Cannot index number with string "array"'),
        ("jq", ".[", "syntax error"),
        ("jq", ".a.b", "Cannot index number"),
        ("jq", 'error("own")', "own"),
        ("jq", 'import "/etc/passwd" as $d; $d', "module not found"),
        ("jq", 'include "/etc/passwd"; .', "module not found"),
        ("cobol", "1", "no evaluator for 'cobol'"),
    ],
)
async def test_a_script_that_fails_says_why_and_is_not_retried(
    evaluators: Evaluators, language: str, script: str, error: str
) -> None:
    answer = await evaluators.evaluate(language, script, b'{"a": 1}')
    assert answer.error is not None
    assert error in answer.error
    assert not answer.retriable


HOSTILE = {
    "endless loop": ("javascript", "while (true) {}"),
    "loop that catches": ("javascript", "while (true) { try { while (true) {} } catch (e) {} }"),
    "regular expression": ("javascript", "/^(a+)+$/.test('a'.repeat(60) + 'b')"),
    "array bomb": ("javascript", "let a = []; while (true) a.push(new Array(1000).fill(1))"),
    "typed array bomb": ("javascript", "let a = []; while (true) a.push(new Uint8Array(1 << 20))"),
    "string bomb": ("javascript", "let s = 'x'; while (true) s += s"),
    "repeat": ("javascript", "'x'.repeat(900 * 1024 * 1024)"),
    "recursion": ("javascript", "function f() { return f() + 1 } f()"),
    "deep value": (
        "javascript",
        "let d = {}; let c = d; for (let i = 0; i < 200000; i++) { c.x = {}; c = c.x } d",
    ),
    "promise chain": ("javascript", "(function f() { return Promise.resolve().then(f) })(); while (true) {}"),
    "getter": ("javascript", "({get x() { while (true) {} }})"),
    "sort": (
        "javascript",
        "Array.from({length: 3e6}, (_, i) => -i).sort((a, b) => a - b).length; while (true) {}",
    ),
    "jq loop": ("jq", "def f: f; f"),
    "jq generator": ("jq", "[repeat(1)]"),
    "jq memory": ("jq", '[range(1e8)] | map("xxxxxxxxxxxxxxxx" * 100)'),
    "jq recursion": ("jq", "def f: 1 + f; f"),
    "jq regular expression": ("jq", '("a" * 60 + "b") | test("^(a+)+$")'),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_script_fails_alone_and_in_time(evaluators: Evaluators, name: str) -> None:
    language, script = HOSTILE[name]
    hostile = evaluators.submit(language, script, b"{}")
    innocent = evaluators.submit("javascript", "$.a", b'{"a": 1}')
    async with asyncio.timeout(10):
        answer = await hostile
        assert answer.error is not None
        assert answer.retriable == (answer.error == TOO_SLOW)
        assert (await innocent).value == 1


async def test_no_environment_and_no_file_is_in_reach(evaluators: Evaluators) -> None:
    os.environ["MAESTOSO_TEST_SECRET"] = "in the server's environment"
    try:
        assert await value_of(evaluators, "jq", "env, $ENV") == [{}, {}]
    finally:
        del os.environ["MAESTOSO_TEST_SECRET"]
    names = "['process','std','os','fetch','load','print','XMLHttpRequest','setTimeout','WebAssembly']"
    reachable = await value_of(
        evaluators, "javascript", f"{names}.filter(n => typeof globalThis[n] !== 'undefined')"
    )
    assert reachable == []


async def test_no_module_is_loaded(evaluators: Evaluators) -> None:
    importing = "import('fs').then(m => { $.loaded = true }); $"
    assert await value_of(evaluators, "javascript", importing, {"a": 1}) == {"a": 1}


async def test_syntax_is_checked_without_running(evaluators: Evaluators) -> None:
    assert await evaluators.check("javascript", "while (true) {}") is None
    assert await evaluators.check("javascript", "let a = 1; a") is None
    assert "SyntaxError" in str(await evaluators.check("javascript", "if ("))
    assert "SyntaxError" in str(await evaluators.check("javascript", "return 1"))
    assert await evaluators.check("javascript-function", "return 1") is None
    assert await evaluators.check("jq", ".a") is None
    assert "syntax error" in str(await evaluators.check("jq", ".["))


async def test_a_slow_script_says_so_and_answers_later(evaluators: Evaluators) -> None:
    later: asyncio.Future[ScriptAnswer] = asyncio.get_running_loop().create_future()
    loop = "const end = Date.now() + 150; while (Date.now() < end) {} 'done'"
    first = await evaluators.evaluate("javascript", loop, b"{}", patience_ms=1, later=later.set_result)
    assert first.slow
    assert (await asyncio.wait_for(later, 5)).value == "done"
    quick = await evaluators.evaluate("javascript", "1", b"{}", patience_ms=5000)
    assert quick.value == 1


async def test_a_dropped_script_does_not_disturb_the_next(evaluators: Evaluators) -> None:
    dropped = evaluators.submit("javascript", "'first'", b"{}")
    dropped.cancel()
    assert await value_of(evaluators, "javascript", "'second'") == "second"


async def test_scripts_run_beside_each_other() -> None:
    pool = Evaluators(processes=2, limit_s=5)
    try:
        await pool.start()
        busy = pool.submit("javascript", "while (true) {}", b"{}")
        assert (await asyncio.wait_for(pool.evaluate("javascript", "1", b"{}"), 5)).value == 1
        assert not busy.done()
    finally:
        await pool.stop()
    assert busy.result().error == "the evaluators are stopped"
    assert (await pool.evaluate("javascript", "1", b"{}")).error == "the evaluators are stopped"


async def test_a_process_that_was_killed_is_replaced_and_costs_no_script_its_answer(
    evaluators: Evaluators,
) -> None:
    assert await value_of(evaluators, "javascript", "1") == 1
    process = evaluators._native.seats[0]._process
    assert process is not None
    os.kill(process.pid, 9)
    assert await value_of(evaluators, "javascript", "2") == 2
