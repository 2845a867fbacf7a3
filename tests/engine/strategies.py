"""Random workflow documents, nested at random, and how their tasks turn out."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import strategies as st

from .harness import catch, flow, fork, guarded, inline, join, loop, simple, switch, task

CHILD = flow(simple("child_a"), simple("child_b", {"a": "${child_a.output.value}"}), name="child")


class _Names:
    """References that are unique within one document."""

    def __init__(self, dynamic_forks: int, *, undoing: bool, sagas: bool) -> None:
        self.count = 0
        self.dynamic_forks = dynamic_forks
        self.undoing = undoing
        """Tasks may have chains that undo them."""
        self.sagas = sagas
        """Nearly everything is a TRY, inside another one, or undone."""

    def next(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"


def _leaf(draw: Any, names: _Names, before: str | None) -> list[dict[str, Any]]:
    reads = (
        {"before": f"${{{before}.output.value}}", "id": "${CPEWF_TASK_ID}"}
        if before
        else {"k": "${workflow.input.k}"}
    )
    often = ("simple",) * 8 if names.sagas else ()
    kinds = ("simple", "simple", "simple", "inline", "variable", "noop", "child", "wait", *often)
    kind = draw(st.sampled_from(kinds))
    name = names.next(kind[0])
    if kind == "simple":
        flags = draw(st.sampled_from(({}, {}, {"optional": True}, {"permissive": True})))
        if names.undoing and (names.sagas or draw(st.integers(0, 2)) == 0):
            flags = {**flags, "compensate": _undoing_chain(draw, names, name)}
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


def _undoing_chain(draw: Any, names: _Names, of: str) -> list[dict[str, Any]]:
    """What undoes a task: work of its own that may fail, too."""
    reads = {"of": f"${{{of}.output.value}}"}
    chain = [simple(names.next("u"), reads, retryCount=draw(st.integers(0, 1)))]
    kind = draw(st.sampled_from(("one", "noop", "fork", "try")))
    if kind == "noop":
        chain.append(task("NOOP", names.next("n")))
    elif kind == "fork":
        ends = [names.next("u"), names.next("u")]
        waited = draw(st.lists(st.sampled_from(ends), unique=True))
        chain += [fork(names.next("f"), *([simple(end)] for end in ends)), join(names.next("j"), *waited)]
    elif kind == "try":
        chain.append(guarded(names.next("g"), [simple(names.next("u"))], catch(simple(names.next("u")))))
    return chain


def _try(draw: Any, names: _Names, depth: int) -> list[dict[str, Any]]:
    reference = names.next("g")
    body = _chain(draw, names, depth - 1)
    cases = []
    for name in draw(st.lists(st.sampled_from(("Odd", "Even")), unique=True)):
        cases.append(catch(*_handler(draw, names, depth), names=(name,)))
    if draw(st.booleans()):
        cases.append(catch(*_handler(draw, names, depth)))
    last = [] if cases and draw(st.booleans()) else _chain(draw, names, 0)
    flags = draw(st.sampled_from(({}, {}, {"optional": True}, {"permissive": True})))
    return [guarded(reference, body, *cases, last=last, **flags)]


def _handler(draw: Any, names: _Names, depth: int) -> list[dict[str, Any]]:
    undo = [task("COMPENSATE", names.next("k"))] if names.undoing and draw(st.booleans()) else []
    return undo + (_chain(draw, names, depth - 1) if draw(st.booleans()) else [])


def _container(draw: Any, names: _Names, depth: int) -> list[dict[str, Any]]:
    dynamic = ("same", "different") if names.dynamic_forks > 0 else ()
    often = ("try",) * 5 if names.sagas else ()
    kind = draw(st.sampled_from(("switch", "fork", "loop", "try", *dynamic, *often)))
    if kind == "try":
        return _try(draw, names, depth)
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
        undoing = names.undoing
        names.undoing = undoing and not keep
        body = _chain(draw, names, depth - 1)
        names.undoing = undoing
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
        if depth > 0 and draw(st.integers(0, 4)) > (0 if names.sagas else 2):
            chain.extend(_container(draw, names, depth))
        else:
            chain.extend(_leaf(draw, names, before))
    return chain


@st.composite
def documents(
    draw: Any, depth: int = 3, dynamic_forks: int = 3, *, undoing: bool = True, sagas: bool = False
) -> dict[str, Any]:
    """With two dynamic forks or more, which of them comes first decides how its branches are called."""
    names = _Names(dynamic_forks, undoing=undoing, sagas=sagas)
    chain = _chain(draw, names, depth)
    last = chain[-1]["taskReferenceName"]
    return flow(*chain, outputParameters={"last": f"${{{last}.output}}"})


def chance(seed: int, *what: Any) -> float:
    """A number in 0..1 that depends on its arguments alone."""
    digest = hashlib.blake2b(repr((seed, what)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
