"""Random workflow documents, nested at random, and how their tasks turn out."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import strategies as st

from .harness import flow, fork, inline, join, loop, simple, switch, task

CHILD = flow(simple("child_a"), simple("child_b", {"a": "${child_a.output.value}"}), name="child")


class _Names:
    """References that are unique within one document."""

    def __init__(self, dynamic_forks: int) -> None:
        self.count = 0
        self.dynamic_forks = dynamic_forks

    def next(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"


def _leaf(draw: Any, names: _Names, before: str | None) -> list[dict[str, Any]]:
    reads = (
        {"before": f"${{{before}.output.value}}", "id": "${CPEWF_TASK_ID}"}
        if before
        else {"k": "${workflow.input.k}"}
    )
    kind = draw(
        st.sampled_from(("simple", "simple", "simple", "inline", "variable", "noop", "child", "wait"))
    )
    name = names.next(kind[0])
    if kind == "simple":
        flags = draw(st.sampled_from(({}, {}, {"optional": True}, {"permissive": True})))
        return [simple(name, reads, retryCount=draw(st.integers(0, 1)), **flags)]
    if kind == "inline":
        return [inline(name, "({value: $.k})", {"k": "${workflow.input.k}"})]
    if kind == "variable":
        return [task("SET_VARIABLE", name, {name: reads})]
    if kind == "noop":
        return [task("NOOP", name)]
    if kind == "child":
        return [task("SUB_WORKFLOW", name, reads, subWorkflowParam={"name": "child"})]
    return [task("WAIT", name, {"duration": "5 seconds"})]


def _container(draw: Any, names: _Names, depth: int) -> list[dict[str, Any]]:
    dynamic = ("same", "different") if names.dynamic_forks > 0 else ()
    kind = draw(st.sampled_from(("switch", "fork", "loop", *dynamic)))
    if kind == "switch":
        cases = {"a": _chain(draw, names, depth - 1), "b": []}
        default = _chain(draw, names, depth - 1)
        key = draw(st.sampled_from(("a", "b", "c")))
        return [switch(names.next("s"), key, cases, default)]
    if kind == "fork":
        branches = [_chain(draw, names, depth - 1) for _ in range(draw(st.integers(1, 3)))]
        ends = [branch[-1]["taskReferenceName"] for branch in branches]
        waited = draw(st.lists(st.sampled_from(ends), unique=True))
        return [fork(names.next("f"), *branches), join(names.next("j"), *waited)]
    if kind == "loop":
        keep = {"keepLastN": draw(st.integers(1, 2))} if draw(st.booleans()) else {}
        body = _chain(draw, names, depth - 1)
        return [loop(names.next("l"), body, draw(st.integers(1, 3)), inputParameters=keep)]
    reference = names.next("d")
    names.dynamic_forks -= 1
    if kind == "same":
        inputs = {
            "forkTaskName": names.next("t"),
            "forkTaskInputs": [{"n": 1}, "two", {"n": "${CPEWF_TASK_ID}"}],
        }
        forking = task("FORK_JOIN_DYNAMIC", reference, inputs)
    else:
        names_ = [names.next("x") for _ in range(draw(st.integers(0, 2)))]
        inputs = {"tasks": [simple(name) for name in names_], "inputs": {name: {"n": 1} for name in names_}}
        params = {"dynamicForkTasksParam": "tasks", "dynamicForkTasksInputParamName": "inputs"}
        forking = task("FORK_JOIN_DYNAMIC", reference, inputs, **params)
    return [forking, join(names.next("j"))]


def _chain(draw: Any, names: _Names, depth: int) -> list[dict[str, Any]]:
    chain: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 2))):
        before = chain[-1]["taskReferenceName"] if chain else None
        if depth > 0 and draw(st.booleans()):
            chain.extend(_container(draw, names, depth))
        else:
            chain.extend(_leaf(draw, names, before))
    return chain


@st.composite
def documents(draw: Any, depth: int = 3, dynamic_forks: int = 3) -> dict[str, Any]:
    """With two dynamic forks or more, which of them comes first decides how its branches are called."""
    names = _Names(dynamic_forks)
    chain = _chain(draw, names, depth)
    last = chain[-1]["taskReferenceName"]
    return flow(*chain, outputParameters={"last": f"${{{last}.output}}"})


def chance(seed: int, *what: Any) -> float:
    """A number in 0..1 that depends on its arguments alone."""
    digest = hashlib.blake2b(repr((seed, what)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
