"""The branches of a dynamic fork: a plan that one row of the workflow brings with it.

A fork of one task for many inputs needs no document: its row's `state` says which task, and a
branch's reference says which input. A fork of different tasks has its document stored once.
"""

from __future__ import annotations

from collections import ChainMap
from typing import Any

from ..definitions.models import WorkflowTask
from ..payload import Json
from .nodes import Node, branch_fallbacks
from .plan import Plan, grow, link
from .state import TaskRow


class Fragment:
    """`count` branches; `node(reference)` finds the task of a row inside the fork."""

    __slots__ = ("_fork", "_join", "_model", "_nodes", "_prefix", "_task", "count", "references")

    def __init__(self, fork: Node) -> None:
        self._fork = fork
        self._join = fork.next
        self._nodes: dict[str, Node] = {}
        self._task: WorkflowTask | None = None
        self._model: Node | None = None
        """The node of which every branch is a copy."""
        self._prefix = ""
        self.count = 0
        self.references: list[str] | None = None
        """Heads of the branches where they are different tasks."""

    @classmethod
    def same(cls, fork: Node, task: dict[str, Any], prefix: str, count: int) -> Fragment:
        """`count` branches of one task, called `<prefix>0`, `<prefix>1`, ..."""
        made = cls(fork)
        made._task = WorkflowTask.model_validate(task)
        made._prefix = prefix
        made.count = count
        return made

    @classmethod
    def different(cls, fork: Node, tasks: list[WorkflowTask], plan: Plan) -> Fragment:
        """A branch for each task."""
        made = cls(fork)
        made.count = len(tasks)
        made.references = [task.task_reference_name for task in tasks]
        for task in tasks:
            grow(made._nodes, [task], fork, fork.loops)
        link(
            made._nodes.values(),
            ChainMap(made._nodes, plan.nodes),
        )
        for reference in made.references:
            made._settle(made._nodes[reference])
        return made

    @staticmethod
    def is_inline(fork: TaskRow) -> bool:
        """The row says it all; there is no document."""
        return "same" in (fork.state or {})

    @classmethod
    def load(cls, fork: Node, row: TaskRow, document: Json | None, plan: Plan) -> Fragment:
        """The fragment of a stored row, with its document where it has one."""
        state = row.state or {}
        if document is None:
            return cls.same(fork, state["same"], state["prefix"], state["count"])
        tasks = [WorkflowTask.model_validate(task) for task in document.value]
        return cls.different(fork, tasks, plan)

    def reference(self, index: int) -> str:
        """The reference of a branch's head."""
        return f"{self._prefix}{index}" if self.references is None else self.references[index]

    def index(self, reference: str) -> int | None:
        """Which branch a head is."""
        if self.references is not None:
            return self.references.index(reference) if reference in self._nodes else None
        suffix = reference[len(self._prefix) :]
        if not reference.startswith(self._prefix) or not (suffix.isascii() and suffix.isdigit()):
            return None
        index = int(suffix)
        return index if index < self.count and str(index) == suffix else None

    def node(self, reference: str) -> Node | None:
        """The task with this reference."""
        known = self._nodes.get(reference)
        if known is not None or self._task is None or self.index(reference) is None:
            return known
        if self._model is None:
            made: dict[str, Node] = {}
            self._model = grow(made, [self._task], self._fork, self._fork.loops)
            link(made.values(), made)
            if self._model is None:
                return None
            self._settle(self._model)
        node = self._nodes[reference] = self._model.renamed(reference)
        return node

    def _settle(self, node: Node) -> None:
        node.optional = node.optional or self._fork.optional
        node.permissive = node.permissive and not node.optional
        node.is_branch = True
        node.fallbacks = branch_fallbacks(node.policy.definition, node.kind)
        node.constant = None
        if self._join is not None:
            node.joins.append(self._join)
