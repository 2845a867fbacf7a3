"""Where a task stands in the flow: its chain, what follows it, which containers are around it.

A chain is a row of siblings: the workflow's own, a branch of a fork, a case of a SWITCH, a loop's
body, a part of a TRY. All of it is known from the definition; a row adds the turns of the loops around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .nodes import BODY, DYNAMIC_FORK, FINALLY, FORK, LOOP, TRY, Node
from .plan import UNDOING
from .state import Path

if TYPE_CHECKING:
    from .plan import Plan


def siblings(head: Node | None) -> Iterator[Node]:
    """A node and those after it in its chain."""
    while head is not None:
        yield head
        head = head.next


def lineage(node: Node) -> Iterator[Node]:
    """A node and the containers around it, innermost first."""
    at: Node | None = node
    while at is not None:
        yield at
        at = at.parent


def containers(node: Node) -> Iterator[Node]:
    """The containers around a node, innermost first."""
    around = lineage(node)
    next(around)
    return around


def chain_of(plan: Plan, node: Node) -> list[Node]:
    """All of the chain that a node is part of, in order."""
    parent = node.parent
    if parent is None:
        heads = [plan.first]
    elif parent.kind == DYNAMIC_FORK:
        heads = [node]
    else:
        heads = [*parent.branches, *parent.cases.values(), parent.default]
    for head in heads:
        chain = list(siblings(head))
        if any(other is node for other in chain):
            return chain
    return [node]


class Following:
    """What a run of the flow from one task on makes again: the task, all that comes after it, and
    what lies inside those."""

    __slots__ = ("_loops", "_path", "forks", "holders", "references")

    def __init__(self, node: Node, path: Path) -> None:
        self._path = path
        self._loops = node.loops
        self.references: set[str] = set()
        """The task, its later siblings, and the later siblings of each container around it."""
        self.forks: list[Node] = []
        """Forks with a branch that leads to the task, innermost first: their joins come after it."""
        self.holders: list[tuple[Node, int]] = []
        """Loops and TRYs around the task, innermost first, with the part of a TRY: they stay, in the
        task's turn and part."""
        self.references.update(other.reference for other in siblings(node))
        inside = node
        for container in containers(node):
            self.references.update(other.reference for other in siblings(container.next))
            if container.kind in (FORK, DYNAMIC_FORK):
                self.forks.append(container)
            elif container.kind == LOOP:
                self.holders.append((container, BODY))
            elif container.kind == TRY:
                self.holders.append((container, inside.part))
                self.references.update(_later_parts(container, inside.part))
            inside = container

    def holds(self, node: Node, path: Path) -> bool:
        """Whether a row of this node in this turn comes after (or is, or lies inside) the task."""
        for at in lineage(node):
            depth = len(at.loops)
            if at.reference in self.references and path[:depth] == self._path[:depth]:
                return True
        return self._in_later_turn(node, path)

    def _in_later_turn(self, node: Node, path: Path) -> bool:
        for depth, (ours, theirs) in enumerate(zip(self._loops, node.loops, strict=False)):
            if ours != theirs:
                return False
            if path[depth] != self._path[depth]:
                return path[depth] > self._path[depth]
        return False


def _later_parts(guard: Node, part: int) -> Iterator[str]:
    """The tasks of a TRY that can run after one of this part."""
    if part == FINALLY:
        return
    heads = guard.branches[1:] if part == BODY else [guard.branches[FINALLY]]
    for head in heads:
        for node in siblings(head):
            yield node.reference


def is_undoing(node: Node) -> bool:
    """The task is part of a compensation: only what is undone decides about it."""
    if node.reference == UNDOING:
        return True
    return any(at.guard is not None and at.guard.kind != TRY for at in lineage(node))
