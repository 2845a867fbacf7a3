"""What `decide` may ask for while it runs.

`decide` yields a list of needs and is sent the list of answers, in order. Needs of several
branches are yielded together. Rows are also put into the view by whoever answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..payload import Json
from .state import Path


@dataclass(slots=True, frozen=True)
class Rows:
    """The newest attempt of each reference in the current generation.

    Each key is (reference, prefix): the newest row by (path, attempt) whose path starts with
    `prefix` and, where `exact`, equals it. Answer: list of `TaskRow | None`, one per key.
    """

    keys: tuple[tuple[str, Path], ...]
    exact: bool = True


@dataclass(slots=True, frozen=True)
class ScopeRows:
    """Every row, earlier attempts too, directly or deeper inside the container row `scope` whose path
    starts with `prefix`. Answer: list of `TaskRow`, ordered by seq. For a loop's output, once."""

    scope: int
    prefix: Path


@dataclass(slots=True, frozen=True)
class OpenRows:
    """Rows of the current generation that are not terminal, by seq, after `after`, at most `limit`.
    Answer: list of `TaskRow`. For a terminate, a pause, a retry."""

    after: int
    limit: int


@dataclass(slots=True, frozen=True)
class FailedRows:
    """Newest attempts of the current generation that ended unsuccessfully, by seq, after `after`,
    at most `limit`. Answer: list of `TaskRow`."""

    after: int
    limit: int


@dataclass(slots=True, frozen=True)
class RowsAfter:
    """Rows of the current generation, attempts included, by seq, after `after`, at most `limit`.
    Answer: list of `TaskRow`. For a rerun, a jump."""

    after: int
    limit: int


@dataclass(slots=True, frozen=True)
class OpenInside:
    """Rows that are not terminal inside the container row `scope`, however deep, by seq, after `after`,
    at most `limit`. Answer: list of `TaskRow`. Costs the rows that it passes; the next page goes on
    behind them. For a part of a TRY that has failed."""

    scope: int
    after: int
    limit: int


@dataclass(slots=True, frozen=True)
class Compensable:
    """Rows of these references whose path starts with `prefix`, COMPLETED and not superseded, that
    ended before (`before_ms`, `before_seq`), newest end first, then highest seq; at most `limit`.
    Answer: list of `TaskRow`. Costs the rows of these references."""

    references: tuple[str, ...]
    prefix: Path
    before_ms: int
    before_seq: int
    limit: int


@dataclass(slots=True, frozen=True)
class Row:
    """The row with this seq. Answer: `TaskRow | None`."""

    seq: int


@dataclass(slots=True, frozen=True)
class Fragment:
    """The branches' document of the dynamic fork row `seq`. Answer: `Json | None`."""

    seq: int


@dataclass(slots=True, frozen=True)
class Script:
    """Evaluate a script. Answer: `ScriptAnswer`. `language`: "javascript" | "jq" | "python"."""

    language: str
    script: str
    input: bytes
    """JSON, bound to `$`."""
    secrets: bytes = b""
    """JSON (`secrets.marks`): the placeholders in `input` that are to be filled in; empty: none."""


@dataclass(slots=True, frozen=True)
class ScriptAnswer:
    """`slow` means the evaluators have not answered yet: commit the row IN_PROGRESS, the value
    comes later as a `Result` event of that row. `retriable` tells a time-out from a script error."""

    value: Any = None
    error: str | None = None
    retriable: bool = False
    slow: bool = False


@dataclass(slots=True, frozen=True)
class Redact:
    """Replace the values of these secrets in what came back. Answer: (output, reason), the same where
    nothing was found. `output` is JSON."""

    sources: tuple[str, ...]
    """Placeholders: `${workflow.secrets.NAME}`."""
    output: bytes | None
    reason: str | None


@dataclass(slots=True, frozen=True)
class Child:
    """The snapshot to start for a child. `definition` (inline) wins over name and version.
    Answer: `ChildAnswer`."""

    name: str
    version: int | None
    definition: Json | None = None


@dataclass(slots=True, frozen=True)
class ChildAnswer:
    snapshot_id: str = ""
    name: str = ""
    version: int = 0
    error: str | None = None


@dataclass(slots=True, frozen=True)
class ChildStatus:
    """Whether a workflow id exists and has ended. Answer: terminal `WorkflowStatus` int, 0 when it
    is absent, 1 when it is running."""

    child_id: str


@dataclass(slots=True, frozen=True)
class Definition:
    """The plan of another snapshot, for a restart on newer definitions. Answer: `Plan`."""

    snapshot_id: str


@dataclass(slots=True, frozen=True)
class TaskDefinition:
    """The registered task definition of a name, for tasks of dynamic forks and DYNAMIC.
    Answer: the JSON object, or None."""

    name: str


@dataclass(slots=True, frozen=True)
class ParkedSignals:
    """Signals kept for a reference before it existed. Answer: list of (message id, body dict);
    oldest first. Those that `decide` uses up it names in `Decision.consumed`."""

    reference: str


@dataclass(slots=True, frozen=True)
class Demand:
    """Which of these queues (`domain:type`) have a live poller. Answer: set of queue names."""

    queues: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class CachedOutput:
    """What a task of this name and cache key has put out, still fresh at `now_ms`. Answer: `Json | None`."""

    name: str
    key: str
    now_ms: int


Need = (
    Rows
    | ScopeRows
    | OpenRows
    | FailedRows
    | RowsAfter
    | OpenInside
    | Compensable
    | Row
    | Fragment
    | Script
    | Redact
    | Child
    | ChildStatus
    | Definition
    | TaskDefinition
    | ParkedSignals
    | Demand
    | CachedOutput
)
