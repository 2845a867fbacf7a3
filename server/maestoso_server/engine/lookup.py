"""How `${...}` reads a workflow during a decision: `make_lookup(reading, ...)`.

A read of a row that is not known yet is noted by the turn and answers MISSING meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .document import task_value, workflow_value
from .expressions import MISSING, Lookup
from .outputs import loop_output
from .state import Path, TaskStatus

if TYPE_CHECKING:
    from .reading import Reading

TASK_ID = "CPEWF_TASK_ID"
_TERMINAL = int(TaskStatus.COMPLETED)


def make_lookup(
    reading: Reading, path: Path, whole: frozenset[str], own_seq: int, loops: tuple[str, ...]
) -> Lookup:
    """The lookup of a reader in the turn `path` of `loops`. `whole`: loops whose turns it reads by number.
    `own_seq`: the row being made, for `${CPEWF_TASK_ID}`; 0 leaves that text as it is."""

    def lookup(root: str, attribute: str | None) -> Any:
        if root == "workflow":
            return workflow_value(reading.header, attribute, reading.plan.environment)
        row = reading.visible(root, path, loops)
        if row is None:
            if root == TASK_ID:
                return reading.task_id(own_seq) if own_seq else MISSING
            return MISSING if root else _everything(reading, path, loops)
        if root in whole and row.status < _TERMINAL and attribute in ("output", None):
            output = loop_output(reading, row).value
            return output if attribute else {**task_value(reading.header, row, None), "output": output}
        return task_value(reading.header, row, attribute)

    return lookup


def _everything(reading: Reading, path: Path, loops: tuple[str, ...]) -> dict[str, Any]:
    """The whole document, for a path that begins anywhere."""
    found: dict[str, Any] = {"workflow": workflow_value(reading.header, None, reading.plan.environment)}
    for reference in reading.plan.nodes:
        row = reading.visible(reference, path, loops)
        if row is not None:
            found[reference] = task_value(reading.header, row, None)
    return found
