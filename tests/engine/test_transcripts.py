"""Conversations with a workflow, written down: `transcripts/*.txt`.

A line that begins with `>` is what happens; the lines below it are what becomes of it. Run with
MAESTOSO_REWRITE_TRANSCRIPTS=1 to write them anew, and commit the difference only if you understand it.

    > define NAME JSON        a workflow document (`task NAME JSON`: a task definition)
    > start NAME [JSON]
    > REFERENCE STATUS [JSON] [reason=TEXT] [callback=S]    a worker's result
    > wait SECONDS            time passes
    > pause | resume | retry [resume] | restart | terminate TEXT
    > signal REFERENCE STATUS [JSON]
    > at CHILD ...            the same in the workflow that the task CHILD started
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from maestoso_server.engine.events import Event, Pause, Restart, Resume, Retry, Signal, Terminate
from maestoso_server.engine.names import shown_reference
from maestoso_server.engine.state import TaskRow, TaskStatus
from maestoso_server.payload import Json

from .harness import START_MS, World

FOLDER = Path(__file__).parent / "transcripts"
REWRITE = os.environ.get("MAESTOSO_REWRITE_TRANSCRIPTS") == "1"


class Conversation:
    """One file: a world, the workflow that was started last, and what was shown of each so far."""

    def __init__(self) -> None:
        self.world = World()
        self.root = ""
        self.shown: dict[str, list[str]] = {}

    def say(self, line: str) -> list[str]:
        words = shlex.split(line)
        workflow = self.root
        if words[0] == "at":
            workflow = self.world.row(workflow, words[1]).child_id or ""
            words = words[2:]
        told = self._act(workflow, words)
        return [*told, *self._news()]

    def _act(self, workflow: str, words: list[str]) -> list[str]:
        verb, rest = words[0], words[1:]
        world = self.world
        if verb == "define":
            world.documents[rest[0]] = {"name": rest[0], "version": 1, **json.loads(rest[1])}
        elif verb == "task":
            world.task_definitions[rest[0]] = {"name": rest[0], **json.loads(rest[1])}
        elif verb == "start":
            self.root = world.start(rest[0], json.loads(rest[1]) if len(rest) > 1 else {})
        elif verb == "wait":
            world.advance(float(rest[0]))
        else:
            return self._tell(workflow, verb, rest)
        return []

    def _tell(self, workflow: str, verb: str, rest: list[str]) -> list[str]:
        world = self.world
        now: dict[str, Any] = {"now_ms": world.now_ms}
        commands: dict[str, Event] = {
            "pause": Pause(**now),
            "resume": Resume(**now),
            "restart": Restart(**now),
            "retry": Retry(resume_children="resume" in rest, **now),
            "terminate": Terminate(reason=" ".join(rest), **now),
        }
        if verb in commands:
            (outcome,) = world.happen(workflow, commands[verb])
        elif verb == "signal":
            output = Json.of(json.loads(rest[2]) if len(rest) > 2 else {})
            event = Signal(reference=rest[0], status=TaskStatus[rest[1]], output=output, **now)
            (outcome,) = world.happen(workflow, event)
        else:
            more = dict(word.split("=", 1) for word in rest if "=" in word and not word.startswith("{"))
            outputs = [json.loads(word) for word in rest if word.startswith("{")]
            outcome = world.result(
                workflow,
                verb,
                outputs[0] if outputs else None,
                TaskStatus[rest[0]],
                reason=more.get("reason"),
                callback_after_s=int(more.get("callback", 0)),
            )
        return (
            []
            if outcome.verdict.name == "APPLIED"
            else [f"{outcome.verdict.name}: {self._named(outcome.reason)}"]
        )

    def _news(self) -> list[str]:
        """What differs from what was shown before."""
        news = []
        for number, workflow in enumerate(self.world.workflows):
            before = self.shown.get(workflow, [])
            after = [self._head(number, workflow), *(self._row(row) for row in self.world.rows(workflow))]
            news.extend(line for line in after if line not in before)
            self.shown[workflow] = after
        return news

    def _head(self, number: int, workflow: str) -> str:
        header = self.world.header(workflow)
        parts = [f"workflow {number} {header.name} {header.status.name}"]
        if header.reason:
            parts.append(f"because {self._named(header.reason)}")
        if header.output is not None:
            parts.append(self._named(header.output.raw.decode()))
        return " ".join(parts)

    def _row(self, row: TaskRow) -> str:
        queue = next(
            (stored.queue for stored in self.world.workflows.values() if stored.rows.get(row.seq) is row), {}
        )
        parts = [f"  {row.seq} {shown_reference(row.reference, row.path)} {row.status.name}"]
        if row.attempt:
            parts.append(f"attempt {row.attempt}")
        if row.superseded:
            parts.append("superseded")
        due = queue.get(row.seq, 0)
        if due > self.world.now_ms:
            parts.append(f"from +{(due - START_MS) // 1000} s")
        if row.reason:
            parts.append(f"because {self._named(row.reason)}")
        if row.input.raw != b"{}":
            parts.append(f"in {self._named(row.input.raw.decode())}")
        if row.output is not None and row.output.raw != b"{}":
            parts.append(f"out {self._named(row.output.raw.decode())}")
        return " ".join(parts)

    def _named(self, text: str) -> str:
        """Ids by their order, so that a transcript can be read."""
        for number, workflow in enumerate(self.world.workflows):
            text = text.replace(workflow, f"<workflow {number}>")
            for seq in range(1, self.world.header(workflow).next_seq):
                text = text.replace(f"{workflow[:-6]}{seq:06x}", f"<task {number}.{seq}>")
        return text


def replay(text: str) -> str:
    """The transcript as it comes out now."""
    talk = Conversation()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(">"):
            lines.append(line)
            lines.extend(talk.say(line.removeprefix(">").strip()))
        elif line.startswith("#") or not line.strip():
            lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    written = path.read_text()
    now = replay(written)
    if REWRITE:
        path.write_text(now)
    assert now == written or REWRITE


def test_there_are_transcripts() -> None:
    assert len(list(FOLDER.glob("*.txt"))) >= 9


def test_a_transcript_that_says_otherwise_is_noticed() -> None:
    written = (FOLDER / "a_sequence.txt").read_text()
    wrong = written.replace("  1 t1 COMPLETED", "  1 t1 FAILED")
    assert wrong != written and replay(wrong) == written
