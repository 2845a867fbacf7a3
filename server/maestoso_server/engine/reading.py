"""What a decision knows of its workflow, and how it asks for the rest.

A `Reading` lies over a `View`: what the decision has written hides what the view holds. A read
that finds nothing because the row is unknown notes a need in `wanted` and answers as if it were
absent. Whoever reads looks at `lacking` before acting on what it read (`decide` does so between the
two halves of each step), so that a partial view decides exactly as a whole one.
"""

from __future__ import annotations

from typing import Any

from .. import ids
from ..payload import Json
from . import needs as asked
from .branches import branch_input
from .expressions import MISSING, Lookup, Template, compile_template, resolve
from .fragment import Fragment
from .lookup import make_lookup
from .needs import Need, Row, Rows
from .nodes import DYNAMIC, Node, dynamic_policy
from .plan import Plan, whole_loops
from .policy import Policy
from .state import Header, Path, TaskKey, TaskRow, View


class Reading:
    """`rows` and what follows it are this decision's own, over the view's."""

    __slots__ = (
        "answers",
        "deleted",
        "fresh",
        "fresh_latest",
        "header",
        "new_scopes",
        "parsed_fragments",
        "plan",
        "rows",
        "unresolved",
        "view",
        "wanted",
        "wanted_keys",
        "wanted_latest",
    )

    def __init__(self, plan: Plan, view: View) -> None:
        self.plan = plan
        self.view = view
        self.header: Header = view.header.copy()
        self.rows: dict[int, TaskRow] = {}
        self.deleted: dict[int, None] = {}
        self.fresh: dict[TaskKey, int] = {}
        self.fresh_latest: dict[str, int] = {}
        self.new_scopes: dict[tuple[int, Path], list[int]] = {}
        self.parsed_fragments: dict[int, Fragment] = {}
        self.answers: dict[Need, Any] = {}
        self.wanted: list[Need] = []
        self.wanted_keys: dict[TaskKey, None] = {}
        self.wanted_latest: dict[str, None] = {}
        self.unresolved: list[str] = []
        """Expressions that found nothing since the last step began; those of rows not known yet, too."""

    # --- rows ----------------------------------------------------------------------------------

    @property
    def lacking(self) -> bool:
        """Something read since the last answers is not known yet."""
        return bool(self.wanted or self.wanted_keys or self.wanted_latest)

    def ask(self, need: Need) -> Any:
        """The answer to a need that is not a row; None, and noted as wanted, until it is there."""
        found = self.answers.get(need, MISSING)
        if found is MISSING:
            self.wanted.append(need)
            return None
        return found

    def row(self, seq: int) -> TaskRow | None:
        """The row with this seq. A whole view knows those of the current generation only."""
        row = self.rows.get(seq)
        if row is None:
            row = self.view.tasks.get(seq)
            if row is None:
                need = Row(seq)
                if not self.view.whole and need not in self.answers:
                    self.wanted.append(need)
        return row

    def newest(self, reference: str, path: Path) -> TaskRow | None:
        """The newest attempt of a task in exactly this turn of its loops."""
        key = (reference, path)
        view = self.view
        seq = self.fresh.get(key)
        if seq is None:
            seq = view.newest.get(key)
            if seq is None:
                if not view.whole and key not in view.absent:
                    self.wanted_keys[key] = None
                return None
            if seq in self.deleted:
                return None
        return self.rows.get(seq) or view.tasks[seq]

    def latest(self, reference: str) -> TaskRow | None:
        """The newest attempt of a task in its newest turn."""
        view = self.view
        seq = self.fresh_latest.get(reference)
        if seq is None:
            seq = view.latest.get(reference)
            if seq is None:
                if not view.whole:
                    self.wanted_latest[reference] = None
                return None
        return None if seq in self.deleted else self.rows.get(seq) or view.tasks.get(seq)

    def visible(self, reference: str, path: Path, loops: tuple[str, ...] = ()) -> TaskRow | None:
        """The row that `${reference...}` means for a reader in the turn `path` of `loops`: that of the
        same turn where both are in the same loops, else the newest."""
        node = self.plan.nodes.get(reference)
        if node is None:
            return self.newest(reference, path) or (self.latest(reference) if path else None)
        depth = len(node.loops)
        if depth == 0:
            return self.newest(reference, ())
        if node.loops == loops[:depth]:
            here = self.newest(reference, path[:depth])
            if here is not None or self.wanted_keys:
                return here
        return self.latest(reference)

    def node_of(self, row: TaskRow) -> Node | None:
        """The definition of a row; None where it is wanted first or the row has none."""
        return self.plan.nodes.get(row.reference) or self._branch_node(row.reference, row.scope)

    def node(self, reference: str, scope: int) -> Node | None:
        """The definition of a task inside the container row `scope`."""
        return self.plan.nodes.get(reference) or self._branch_node(reference, scope)

    def _branch_node(self, reference: str, scope: int) -> Node | None:
        while scope:
            container = self.row(scope)
            if container is None:
                return None
            if container.state is not None and "count" in container.state:  # a dynamic fork
                fragment = self.fragment(container)
                return fragment.node(reference) if fragment is not None else None
            scope = container.scope
        return None

    def fragment(self, fork: TaskRow) -> Fragment | None:
        """The branches of a dynamic fork's row; None where they are wanted first."""
        known = self.parsed_fragments.get(fork.seq) or self.view.fragments.get(fork.seq)
        if isinstance(known, Fragment):
            return known
        owner = self.node_of(fork)
        if owner is None:
            return None
        document: Json | None = None
        if not Fragment.is_inline(fork):
            document = self.ask(asked.Fragment(fork.seq))
            if document is None:
                return None
        made = Fragment.load(owner, fork, document, self.plan)
        self.parsed_fragments[fork.seq] = made
        return made

    def policy_of(self, row: TaskRow, node: Node) -> Policy:
        """The policy that a row runs under; a DYNAMIC's is that of the task it turned out to be."""
        if row.state is None:
            return node.policy
        if "clocks" in row.state:  # its definition was upgraded while it lay in a queue
            return node.policy.with_clocks(row.state["clocks"])
        if node.kind != DYNAMIC or "definition" not in row.state:
            return node.policy
        return dynamic_policy(node, row.state["definition"])

    # --- values ------------------------------------------------------------------------------

    def task_id(self, seq: int) -> str:
        return ids.task_id(self.header.id, seq)

    def resolve(self, node: Node, path: Path, own_seq: int = 0) -> dict[str, Any]:
        """The input of a node, with its task definition's defaults."""
        if node.is_branch:
            return self.fill(self._branch_input(node, path, own_seq), node.fallbacks, node, path, own_seq)
        template = node.input
        if template.constant and node.fallbacks is None:
            return resolve(template, _no_lookup)  # type: ignore[no-any-return]
        lookup = self.lookup(path, node.inputs_whole, own_seq if node.reads_task_id else 0, node.loops)
        value: dict[str, Any] = resolve(template, lookup, self.unresolved)
        if node.fallbacks is None:
            return value
        return self.fill(value, node.fallbacks, node, path, own_seq)

    def fill(
        self,
        value: dict[str, Any],
        fallbacks: dict[str, Template] | None,
        node: Node,
        path: Path,
        own_seq: int,
    ) -> dict[str, Any]:
        """The value with defaults for the keys that are absent or null (K6)."""
        if self.unresolved and fallbacks and not node.is_branch:
            self._forgive(node, fallbacks, self.lookup(path, node.inputs_whole, own_seq, node.loops))
        for key, fallback in (fallbacks or {}).items():
            if value.get(key) is None:
                whole = whole_loops(fallback, self.plan.nodes)
                lookup = self.lookup(path, whole, own_seq, node.loops)
                value = {**value, key: resolve(fallback, lookup, self.unresolved)}
        return value

    def _forgive(self, node: Node, fallbacks: dict[str, Template], lookup: Lookup) -> None:
        """What finds nothing in a key that has a default is not missing."""
        forgiven: list[str] = []
        for key in fallbacks:
            resolve(compile_template(node.task.input_parameters.get(key)), lookup, forgiven)
        for source in forgiven:
            if source in self.unresolved:
                self.unresolved.remove(source)

    def _branch_input(self, node: Node, path: Path, own_seq: int) -> dict[str, Any]:
        fork_node = node.parent
        fork = self.newest(fork_node.reference, path) if fork_node is not None else None
        fragment = self.fragment(fork) if fork is not None else None
        if fork is None or fork_node is None or fragment is None:
            return {}
        return branch_input(fork, fork_node, fragment, node, self.task_id(own_seq))

    def evaluate(
        self,
        template: Template,
        path: Path,
        whole: frozenset[str] = frozenset(),
        loops: tuple[str, ...] = (),
    ) -> Any:
        """The value of a template that is no task's input."""
        return resolve(template, self.lookup(path, whole, loops=loops), self.unresolved)

    def lookup(
        self,
        path: Path,
        whole: frozenset[str] = frozenset(),
        own_seq: int = 0,
        loops: tuple[str, ...] = (),
    ) -> Lookup:
        """How a template reads this workflow from the turn `path` of `loops` (see `document`)."""
        return make_lookup(self, path, whole, own_seq, loops)

    # --- asking ------------------------------------------------------------------------------

    def take_wanted(self) -> list[Need]:
        """Everything wanted so far, as needs to be answered together."""
        needs: list[Need] = list(dict.fromkeys(self.wanted))
        if self.wanted_keys:
            needs.append(Rows(tuple(self.wanted_keys)))
        if self.wanted_latest:
            needs.append(Rows(tuple((reference, ()) for reference in self.wanted_latest), exact=False))
        self.wanted.clear()
        self.wanted_keys.clear()
        self.wanted_latest.clear()
        return needs

    def learn(self, needs: list[Need], answers: list[Any]) -> None:
        """Take in the answers, in the order of the needs. Rows go into the view."""
        view = self.view
        for need, answer in zip(needs, answers, strict=True):
            if isinstance(need, Rows):
                self._learn_rows(need, answer)
            elif isinstance(need, Row):
                if answer is not None:
                    view.add(answer)
                self.answers[need] = answer
            else:
                if isinstance(answer, list):
                    for item in answer:
                        if isinstance(item, TaskRow):
                            view.add(item)
                self.answers[need] = answer

    def _learn_rows(self, need: Rows, answer: list[TaskRow | None]) -> None:
        view = self.view
        for (reference, path), row in zip(need.keys, answer, strict=True):
            if row is not None:
                view.add(row)
            if not need.exact:
                view.add_latest(reference, row)
            elif row is None:
                view.absent.add((reference, path))


def _no_lookup(_root: str, _attribute: str | None) -> Any:
    return MISSING
