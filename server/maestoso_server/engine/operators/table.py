"""Which functions belong to which kind of node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...payload import Json
from ..nodes import (
    COMPENSATE,
    DECISION,
    DYNAMIC,
    DYNAMIC_FORK,
    EVENT,
    FORK,
    HUMAN,
    INLINE,
    JQ,
    LAMBDA,
    LOOP,
    NOOP,
    SET_VARIABLE,
    START_WORKFLOW,
    SUB_WORKFLOW,
    SWITCH,
    TERMINATE,
    TRY,
    WAIT,
    WORKER,
    Node,
)
from ..state import Path, TaskRow
from ..turn import Turn
from . import (
    branching,
    children,
    compensation,
    dynamic,
    dynamic_fork,
    forks,
    loops,
    publishing,
    scripts,
    simple,
    tries,
    waits,
    worker,
)
from .births import birth_delayed, birth_later, birth_now, prepare_input, prepare_nothing

Prepare = Callable[[Turn, Node, Path, int], Any]
Birth = Callable[[Turn, Node, Path, int, Any], None]
PrepareRun = Callable[[Turn, Node, TaskRow], Any]
Run = Callable[[Turn, Node, TaskRow, Any], None]

BIRTHS: dict[int, tuple[Prepare, Birth]] = {
    WORKER: (worker.prepare, worker.birth),
    DYNAMIC: (dynamic.prepare, dynamic.birth),
    SWITCH: (prepare_input, birth_now),
    DECISION: (prepare_input, birth_now),
    FORK: (prepare_input, birth_now),
    DYNAMIC_FORK: (prepare_input, birth_now),
    LOOP: (prepare_input, loops.birth),
    SUB_WORKFLOW: (children.prepare_input, birth_delayed),
    START_WORKFLOW: (prepare_input, birth_delayed),
    SET_VARIABLE: (prepare_input, birth_later),
    INLINE: (prepare_input, birth_later),
    LAMBDA: (prepare_input, birth_later),
    JQ: (prepare_input, birth_later),
    TERMINATE: (prepare_input, birth_later),
    NOOP: (prepare_nothing, birth_later),
    WAIT: (prepare_input, birth_later),
    HUMAN: (prepare_input, birth_later),
    EVENT: (prepare_input, birth_later),
    TRY: (prepare_input, tries.birth),
    COMPENSATE: (prepare_input, birth_later),
}
"""How a node gets its first row. The joins have a birth of their own (`joins`)."""

RUNS: dict[int, tuple[PrepareRun, Run]] = {
    SWITCH: (branching.prepare_run, branching.run),
    DECISION: (branching.prepare_run, branching.run),
    FORK: (forks.prepare_run, forks.run),
    DYNAMIC_FORK: (dynamic_fork.prepare_run, dynamic_fork.run),
    SUB_WORKFLOW: (children.prepare_run, children.run),
    START_WORKFLOW: (children.prepare_start, children.run_start),
    SET_VARIABLE: (simple.prepare_nothing, simple.run_set_variable),
    INLINE: (scripts.prepare_run, scripts.run),
    LAMBDA: (scripts.prepare_run, scripts.run),
    JQ: (scripts.prepare_run, scripts.run),
    TERMINATE: (simple.prepare_nothing, simple.run_terminate),
    NOOP: (simple.prepare_nothing, simple.run_noop),
    WAIT: (waits.prepare_run, waits.run),
    HUMAN: (waits.prepare_run, waits.run),
    EVENT: (simple.prepare_nothing, publishing.run),
    COMPENSATE: (compensation.prepare_run, compensation.run),
}
"""What an open row of the engine's own does when it runs."""

INPUTS: dict[int, Callable[[Turn, Node, Path, int], Json]] = {
    SUB_WORKFLOW: children.prepare_input,
    NOOP: prepare_nothing,
}
"""Kinds whose input is made anew for another attempt, not overlaid."""
