"""`searchAttributes`: what executions of a definition can be found by, `{name: value or ${workflow...}}`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..json_text import Path
from ..query import WORKFLOWS
from ..query.parse import ATTRIBUTE_NAME
from .expressions import SECRETS, Expression, parse_text, root_of
from .report import Report

ATTRIBUTES_MAX = 20


def judge_search_attributes(
    given: Mapping[str, Any], masked: Collection[str], path: Path, report: Report
) -> None:
    """Faults, each with its path. A value that turns out to be no text, number or boolean when an execution
    runs is no fault here: it is shown with that execution."""
    if len(given) > ATTRIBUTES_MAX:
        report.fault(path, f"has {len(given)} attributes; at most {ATTRIBUTES_MAX} are accepted")
    for name, value in given.items():
        place = (*path, name)
        if ATTRIBUTE_NAME.fullmatch(name) is None:
            report.fault(place, "an attribute's name has 1 to 100 letters, digits and _, no digit first")
        elif name in WORKFLOWS.by_name:
            report.warn(place, f"queries find it as attributes.{name} only: every workflow has a {name}")
        if isinstance(value, list | dict):
            report.fault(place, "an attribute is a text, a number or a boolean, not a list or an object")
        elif isinstance(value, str):
            _judge_text(value, masked, place, report)


def _judge_text(text: str, masked: Collection[str], path: Path, report: Report) -> None:
    for piece in parse_text(text):
        if not isinstance(piece, Expression):
            continue
        if piece.prefix.startswith(SECRETS):
            report.fault(path, f"{piece.source}: a secret cannot be searched for")
        elif any(f".{piece.prefix}".endswith(f".{field}") for field in masked):
            report.fault(path, f"{piece.source}: a masked field cannot be searched for")
        elif piece.text is None or root_of(piece.prefix) != "workflow":
            report.fault(
                path,
                f"{piece.source}: only parts of the workflow can be read, as ${{workflow.input.x}}",
            )
