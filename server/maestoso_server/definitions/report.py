"""What was found in a document while it is judged."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..json_text import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the value at a path, or about one that is missing there."""

    path: Path
    message: str


@dataclass(frozen=True, slots=True)
class ScriptText:
    """A script whose syntax an evaluator must judge. `refusal` is the fault's text around `{}`, the
    evaluator's message; a `fatal` one is a fault, another a warning."""

    path: Path
    language: str
    text: str
    refusal: str
    fatal: bool


@dataclass(slots=True)
class Report:
    """Collects findings, in the order of the document where the judge walks in that order."""

    faults: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    scripts: list[ScriptText] = field(default_factory=list)

    def fault(self, path: Path, message: str) -> None:
        """The document is refused for this."""
        self.faults.append(Finding(path, message))

    def warn(self, path: Path, message: str) -> None:
        """The document is accepted; its author should know."""
        self.warnings.append(Finding(path, message))

    def say(self, is_fault: bool, path: Path, message: str) -> None:
        """A fault, or else a warning."""
        (self.fault if is_fault else self.warn)(path, message)
