"""Engine and interpreter side by side: the same things happen to both, and both must look the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from engine.harness import START_MS, World
from maestoso_server.engine.events import Due, QueueFacts
from maestoso_server.engine.names import shown_reference
from maestoso_server.engine.state import TaskRow, TaskStatus
from maestoso_server.ids import task_id

from .interpreter import SCRIPT_ERROR, Interpreter, Run, Task

CUT = "\N{HORIZONTAL ELLIPSIS}"
REASON_MAX = 500
STEPS_MAX = 300
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Pair:
    """One world of each. `choose(n)` is the next choice below n: it decides what happens next."""

    def __init__(
        self,
        document: dict[str, Any],
        children: list[dict[str, Any]],
        policies: dict[str, dict[str, Any]],
        input: dict[str, Any],
        **world: Any,
    ) -> None:
        self.engine = World(document, *children, tasks=policies, **world)
        documents = {one["name"]: one for one in (document, *children)}
        self.model = Interpreter(documents, policies, START_MS)
        self.root = self.engine.start("flow", input)
        self.model_root = self.model.start("flow", input)
        self.symbols: dict[str, str] = {self.root: "root"}
        self.workflows: dict[str, str] = {"root": self.root}
        self.rows: dict[str, tuple[str, int]] = {}
        self.history: list[str] = []

    # --- what happens ------------------------------------------------------------------------------------

    def answer(self, task: Task, status: str, output: dict[str, Any], reason: str | None) -> None:
        self.history.append(f"{task.id}: {status} {output}")
        workflow, seq = self.rows[task.id]
        self.model.answer(task, status, output, reason)
        self.engine.report(workflow, seq, output, TaskStatus[status], reason=reason)
        self.compare()

    def postpone(self, task: Task, seconds: int) -> None:
        self.history.append(f"{task.id}: postponed by {seconds}")
        workflow, seq = self.rows[task.id]
        self.model.postpone(task, seconds, {"so": "far"})
        more = {"callback_after_s": seconds}
        self.engine.report(workflow, seq, {"so": "far"}, TaskStatus.IN_PROGRESS, **more)
        self.compare()

    def take(self, task: Task) -> None:
        self.history.append(f"{task.id}: taken")
        self.model.take(task)

    def pass_time(self, until_ms: int) -> None:
        """Nothing happens until then."""
        self._strike_early(until_ms)
        self.engine.now_ms = self.model.now_ms = until_ms
        self.history.append(f"it is {until_ms - START_MS}")
        self.compare()

    def tick(self, due_ms: int, what: Task | Run) -> None:
        """The next clock strikes. The engine may keep earlier moments: at those nothing may change."""
        self._strike_early(due_ms)
        self.engine.now_ms = self.model.now_ms = due_ms
        self.history.append(f"{what.id}: clock at {due_ms - START_MS}")
        if isinstance(what, Run):
            self.engine.happen(self.workflows[what.id], Due(now_ms=due_ms, seq=0))
        else:
            self._strike(*self.rows[what.id], what)
        self.model.tick(what)
        self.compare()

    def _strike_early(self, before_ms: int) -> None:
        for workflow, stored in list(self.engine.workflows.items()):
            for seq, due_ms in list(stored.deadlines.items()):
                if self.model.now_ms <= due_ms < before_ms:
                    self.engine.now_ms = due_ms
                    self.engine.happen(workflow, self._due(workflow, seq))
                    self.compare()

    def _strike(self, workflow: str, seq: int, task: Task) -> None:
        stored = self.engine.workflows[workflow]
        if task.type in ("SUB_WORKFLOW", "WAIT", "HUMAN") or task.started_ms is None:
            assert stored.deadlines.get(seq, START_MS * 2) <= self.engine.now_ms, f"no deadline for {task.id}"
        self.engine.happen(workflow, self._due(workflow, seq))

    def _due(self, workflow: str, seq: int) -> Due:
        stored = self.engine.workflows[workflow]
        facts = None
        if seq in stored.queue:
            task = self._task(self._symbol(workflow, stored.rows[seq]))
            begun = task.started_ms if task is not None else None
            facts = QueueFacts(
                owner_epoch=None if begun is None else 0, due_ms=stored.queue[seq], started_ms=begun or 0
            )
        return Due(now_ms=self.engine.now_ms, seq=seq, queue=facts)

    def _task(self, symbol: str) -> Task | None:
        found = [task for run in self.model.runs for task in run.tasks if task.id == symbol]
        return found[0] if found else None

    # --- what is seen ------------------------------------------------------------------------------------

    def _symbol(self, workflow: str, row: TaskRow) -> str:
        return f"{self.symbols[workflow]}/{shown_reference(row.reference, row.path)}#{row.attempt}"

    def _learn(self) -> None:
        for workflow, stored in self.engine.workflows.items():
            for seq, row in stored.rows.items() if workflow in self.symbols else ():
                id = task_id(workflow, seq)
                if id in self.symbols and row.child_id is None:
                    continue
                symbol = self._symbol(workflow, row)
                self.symbols[id] = symbol
                self.rows[symbol] = workflow, seq
                if row.child_id is not None:
                    self.symbols[row.child_id] = f"{symbol}>"
                    self.workflows[f"{symbol}>"] = row.child_id

    def compare(self) -> None:
        """Quickly: which tasks there are, how they stand, and when workers may take them."""
        self._learn()
        engine = {
            self._symbol(workflow, row): (row.status.name, stored.queue.get(row.seq))
            for workflow, stored in self.engine.workflows.items()
            if workflow in self.symbols
            for row in stored.rows.values()
        }
        model = {
            task.id: (task.status, task.available_ms if run.queued(task) and not task.ended else None)
            for run in self._known_runs()
            for task in run.tasks
        }
        agree(engine, model)
        self._obey_laws()

    def _obey_laws(self) -> None:
        """What holds whatever the interpreter says."""
        for workflow, stored in self.engine.workflows.items():
            done = self.engine.header(workflow).status.name == "COMPLETED"
            still = [row.reference for row in stored.rows.values() if row.status < TaskStatus.COMPLETED]
            assert not (done and still), f"complete, and not ended: {still}"  # M.1
        for run in self.model.runs:
            for task in run.tasks:
                assert task.attempt <= run.retries(task), f"{task.id}: too many attempts"  # M.2

    def compare_all(self) -> None:
        self._learn()
        engine = [self._engine_run(one) for one in self.engine.workflows if one in self.symbols]
        model = self.shown()
        agree({run["id"]: run for run in engine}, {run["id"]: run for run in model})

    def shown(self) -> list[dict[str, Any]]:
        """All that the interpreter shows, which is what the engine shows."""
        return [_model_run(run) for run in self._known_runs()]

    def _known_runs(self) -> list[Run]:
        """Without children that came and went, row and all (keepLastN), between two looks."""
        return [
            run
            for run in self.model.runs
            if run.id in self.workflows or (run.parent is not None and run.parent in run.parent.run.tasks)
        ]

    def _engine_run(self, workflow: str) -> dict[str, Any]:
        header = self.engine.header(workflow)
        tasks = [self._engine_task(workflow, row) for row in self.engine.rows(workflow)]
        return {
            "id": self.symbols[workflow],
            "status": header.status.name,
            "reason": self._reason(header.reason),
            "output": self._payload(header.output),
            "variables": self._payload(header.variables),
            "input": self._payload(header.input),
            "tasks": {task["id"]: task for task in tasks},
        }

    def _engine_task(self, workflow: str, row: TaskRow) -> dict[str, Any]:
        rows = self.engine.workflows[workflow].rows
        before = rows.get(row.retried_seq)
        return {
            "id": self._symbol(workflow, row),
            "path": row.path,
            "type": row.type,
            "name": row.name,
            "status": row.status.name,
            "reason": self._reason(row.reason),
            "input": _input(row.type, json.loads(self._payload(row.input))),
            "output": self._payload(row.output),
            "retried": None if before is None else self._symbol(workflow, before),
        }

    def _payload(self, payload: Any) -> str:
        """Text with every id replaced by what it stands for; keys sorted, 1 and 1.0 and true apart."""
        raw = "{}" if payload is None else payload.raw.decode()
        return json.dumps(json.loads(self._named(raw) or ""), sort_keys=True)

    def _reason(self, text: str | None) -> str | None:
        """A cut reason loses its last word, which may be half an id, and says so."""
        if text is None or len(text) < REASON_MAX:
            return self._named(text)
        return f"{self._named(text[: text.rindex(' ')])}{CUT}"

    def _named(self, text: str | None) -> str | None:
        return text and _ID.sub(lambda found: self.symbols.get(found[0], found[0]), text)


def agree(engine: Any, model: Any) -> None:
    """Fail with every difference, one a line."""
    found = list(_differences(engine, model, ""))
    assert not found, "engine and interpreter differ:\n" + "\n".join(found)


def _differences(engine: Any, model: Any, where: str) -> Iterator[str]:
    if isinstance(engine, dict) and isinstance(model, dict):
        for key in [*engine, *(key for key in model if key not in engine)]:
            yield from _differences(
                engine.get(key, "(nothing)"), model.get(key, "(nothing)"), f"{where} {key}"
            )
    elif not _alike(engine, model):
        yield f"{where}: engine {engine}, interpreter {model}"


def _alike(engine: Any, model: Any) -> bool:
    """Equal; what only the engine's script engine can word is `<script>` in the interpreter, and a
    long reason is cut."""
    if not isinstance(engine, str) or not isinstance(model, str):
        return bool(engine == model)
    if engine.endswith(CUT):
        known = min(model.find(SCRIPT_ERROR) % (len(model) + 1), len(engine) - 1)
        return engine[:known] == model[:known]
    if SCRIPT_ERROR in model:
        pattern = ".+".join(re.escape(part) for part in model.split(SCRIPT_ERROR))
        return re.fullmatch(pattern, engine, re.DOTALL) is not None
    return engine == model


def _model_run(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "status": run.status,
        "reason": run.reason,
        "output": _text(run.output),
        "variables": _text(run.variables),
        "input": _text(run.input),
        "tasks": {task.id: _model_task(task) for task in run.tasks},
    }


def _model_task(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "path": task.path,
        "type": task.type,
        "name": task.name,
        "status": task.status,
        "reason": task.reason,
        "input": _input(task.type, task.input),
        "output": _text(task.stored_output),
        "retried": None if task.retried is None or task.retried not in task.run.tasks else task.retried.id,
    }


def _input(kind: str, input: dict[str, Any]) -> str:
    input = _without_definitions(input)
    if kind == "SUB_WORKFLOW":
        input = {key: value for key, value in input.items() if value is not None}
    return _text(input)


def _without_definitions(value: Any) -> Any:
    """The harness freezes task definitions into every node that it finds, in data too."""
    if isinstance(value, list):
        return [_without_definitions(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_definitions(item) for key, item in value.items() if key != "taskDefinition"}
    return value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
