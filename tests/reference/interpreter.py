"""Conductor's semantics once more: simple, slow, by straight recursion over the definition document.

Written from the reference (01 sections 1.3, 2 to 4; 02 sections 1.7 to 1.11 and 1.17) and from nothing
of the server, so that the engine can be compared with it. A workflow is a `Run`; every chain of tasks
in it (a branch, a loop's body) is a generator that yields wherever others go first or nothing can be
done for now. Those that can go on stand in one queue: what is to be executed is executed in the order
of the records, and what follows from it comes after that. Time is a number that the driver moves.

Where Maestoso differs from Conductor on purpose, a comment names the row of the do-better list (B..).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .values import ScriptFailed, fill, resolve, run_script, truth

Condition = Callable[[], bool]
Chain = Generator[Condition | None, None, None]
"""A chain of tasks on its way. It yields None where others go first, and a condition to wait for."""
Node = dict[str, Any]
Path = tuple[int, ...]

SCRIPT_ERROR = "<script>"
"""Stands for whatever a script engine says."""
SUCCESSFUL = {"SCHEDULED", "IN_PROGRESS", "COMPLETED", "COMPLETED_WITH_ERRORS"}
RETRIABLE = {"FAILED", "TIMED_OUT"}
NEVER_RETRIED = {"SWITCH", "DECISION", "FORK", "JOIN", "EXCLUSIVE_JOIN", "DO_WHILE", "TRY"}
WORKFLOW_STATUS_AFTER = {"CANCELED": "TERMINATED", "TIMED_OUT": "TIMED_OUT"}
TASK_STATUS_AFTER = {"TERMINATED": "CANCELED"}
LOOP_COUNTERS = ("iteration", "loopIndex", "loopItem")
OPERATORS = NEVER_RETRIED | {"FORK_JOIN", "FORK_JOIN_DYNAMIC", "SUB_WORKFLOW", "TERMINATE", "SET_VARIABLE"}
NAMED_BY_TYPE = {"SWITCH", "DECISION", "JOIN", "FORK_JOIN", "FORK_JOIN_DYNAMIC"}
OPERATORS |= {"TRY", "INLINE", "WAIT", "HUMAN", "NOOP", "DYNAMIC"}


@dataclass(eq=False)
class Task:
    """One attempt of one task, as an observer sees it."""

    run: Run
    node: Node
    path: Path
    type: str
    name: str
    status: str
    input: dict[str, Any]
    attempt: int = 0
    output: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    retried: Task | None = None
    superseded: bool = False
    final: bool = False
    """Its outcome stands: no attempt follows."""
    iteration: int = 0
    """A loop's counter."""
    available_ms: int = 0
    """When a worker may take it, or a server's own task begins."""
    first_ms: int = 0
    started_ms: int | None = None
    wait_ms: int | None = None
    child: Run | None = None
    chosen: list[Node] = field(default_factory=list)
    """The case that a SWITCH or DECISION chose."""
    listed: bool = False
    """A join of what a dynamic fork listed."""
    fatal: str | None = None
    """Why the workflow ends with it, where that is not the usual text; no attempt follows."""
    part: Part | None = None
    """The part of a TRY that it runs in, the innermost."""
    error_name: str | None = None
    """By which a TRY catches its failure, where its status does not say it."""
    failed_by: Failed | None = None
    """Of a TRY: what goes on outward."""
    body: Part | None = None
    """Of a TRY whose tasks run: they alone are bounded by its clocks."""

    @property
    def reference(self) -> str:
        return str(self.node["taskReferenceName"])

    @property
    def shown(self) -> str:
        """B4: one `__N` for each loop around it."""
        return self.reference + "".join(f"__{turn}" for turn in self.path)

    @property
    def id(self) -> str:
        return f"{self.run.id}/{self.shown}#{self.attempt}"

    @property
    def stored_output(self) -> dict[str, Any]:
        """DESIGN 4: what a loop gathers is put together once, when it ends by itself."""
        if self.type != "DO_WHILE" or (self.ended and self.status != "CANCELED"):
            return self.output
        return {key: value for key, value in self.output.items() if key in LOOP_COUNTERS}

    @property
    def seen_output(self) -> dict[str, Any]:
        """With what a running loop has made of its turn so far."""
        if self.type != "DO_WHILE" or self.ended:
            return self.output
        return kept({**self.output, **self.run.turn_so_far(self)}, self)

    @property
    def ended(self) -> bool:
        return self.status not in ("SCHEDULED", "IN_PROGRESS")

    @property
    def unsuccessful(self) -> bool:
        return self.status not in SUCCESSFUL

    @property
    def optional(self) -> bool:
        return bool(self.node.get("optional"))

    @property
    def permissive(self) -> bool:
        return bool(self.node.get("permissive")) and not self.optional


class Ended(Exception):
    """The workflow ends here and now."""

    def __init__(self, status: str, reason: str | None) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class Failed(Ended):
    """A task failed for good: the innermost TRY around it takes it, else the workflow ends with it."""

    def __init__(self, status: str, reason: str | None, task: Task) -> None:
        super().__init__(status, reason)
        self.task = task


class Scope:
    """The chains that must end before a run, or a turn of a loop, is over."""

    def __init__(self) -> None:
        self.live = 0


class Part(Scope):
    """What runs of a TRY at one time: its tasks, a case, or what comes in the end."""

    def __init__(self, guard: Task) -> None:
        super().__init__()
        self.guard = guard
        self.failure: Failed | None = None

    def is_over(self) -> bool:
        return self.failure is not None or not self.live

    def holds(self, part: Part | None) -> bool:
        """Whether that part is this one or lies in it."""
        while part is not None and part is not self:
            part = part.guard.part
        return part is not None


class Interpreter:
    """All runs, the messages between them, and the time."""

    def __init__(self, documents: dict[str, Node], policies: dict[str, Node], now_ms: int) -> None:
        self.documents = documents
        self.policies = policies
        self.now_ms = now_ms
        self.runs: list[Run] = []
        self.inbox: deque[Callable[[], None]] = deque()

    def start(self, name: str, input: dict[str, Any]) -> Run:
        run = Run(self, name, self.documents[name], input, None)
        run.begin()
        self._deliver()
        return run

    def answer(self, task: Task, status: str, output: dict[str, Any], reason: str | None) -> None:
        """A worker's result, or whoever completes a WAIT or a HUMAN."""
        if not task.ended and task.run.status == "RUNNING":
            task.status, task.output, task.reason = status, output, reason
            self._go_on(task.run)

    def postpone(self, task: Task, seconds: int, output: dict[str, Any]) -> None:
        """A worker's IN_PROGRESS: back into the queue."""
        task.status, task.output, task.reason = "SCHEDULED", output, None
        task.available_ms, task.started_ms = self.now_ms + seconds * 1000, None

    def take(self, task: Task) -> None:
        """A worker has it, and its clocks run."""
        task.started_ms = self.now_ms

    def tick(self, what: Task | Run) -> None:
        """A clock of `timers` struck."""
        if isinstance(what, Run):
            what.time_out()
        else:
            what.run.strike(what)
        self._deliver()

    def ready(self) -> list[Task]:
        """What a worker may take now."""
        return [task for task in self.open() if task.available_ms <= self.now_ms]

    def open(self) -> list[Task]:
        """Workers' tasks that have not ended."""
        return [task for run in self.runs for task in run.tasks if not task.ended and task.run.queued(task)]

    def timers(self) -> list[tuple[int, Task | Run]]:
        """Every clock that runs, and when it strikes next."""
        clocks: list[tuple[int, Task | Run]] = []
        for run in self.runs:
            if run.status == "RUNNING":
                clocks.extend(run.timers())
        return clocks

    def _go_on(self, run: Run) -> None:
        run.pump()
        self._deliver()

    def _deliver(self) -> None:
        while self.inbox:
            self.inbox.popleft()()


class Run:
    """One execution of a document."""

    def __init__(
        self, world: Interpreter, name: str, document: Node, input: dict[str, Any], parent: Task | None
    ) -> None:
        self.world = world
        self.name = name
        self.document = document
        self.parent = parent
        self.input = with_template(document.get("inputTemplate"), input)  # B21: for an empty input too
        self.variables: dict[str, Any] = dict(document.get("variables") or {})
        self.status = "RUNNING"
        self.reason: str | None = None
        self.output: dict[str, Any] = {}
        self.tasks: list[Task] = []
        self.deleted: list[Task] = []
        self.id = "root" if parent is None else f"{parent.id}>"
        self.queue: deque[Chain] = deque()
        self.blocked: list[tuple[Condition, Chain]] = []
        self.part: Part | None = None
        """Of the chain that goes on now."""
        self.parts: dict[Chain, Part | None] = {}
        self.telling = False
        self.begun_ms = world.now_ms
        self.last: Task | None = None
        self.terminated_by: Task | None = None
        world.runs.append(self)

    # --- life ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._guarded(lambda: self.spawn(self.chain(self.document["tasks"], (), self.scope), self.scope))

    scope = property(lambda self: self.__dict__.setdefault("_scope", Scope()))

    def pump(self) -> None:
        self._guarded(lambda: None)

    def _guarded(self, first: Callable[[], None]) -> None:
        try:
            first()
            while self.status == "RUNNING" and self._runnable():
                self._advance(self.queue.popleft())
            if self.status == "RUNNING" and not self.blocked:
                self._complete()
        except Ended as end:
            self.end(end.status, end.reason)

    def _runnable(self) -> bool:
        """Queue the chains that need not wait any more."""
        ready = [chain for condition, chain in self.blocked if condition()]
        self.blocked = [(condition, chain) for condition, chain in self.blocked if chain not in ready]
        self.queue.extend(ready)
        return bool(self.queue)

    def _advance(self, chain: Chain) -> None:
        before, self.part = self.part, self.parts[chain]
        try:
            for condition in chain:
                if condition is None or condition():
                    self.queue.append(chain)
                else:
                    self.blocked.append((condition, chain))
                return
        except Failed as failure:
            if self.part is None:
                raise
            self._catch(self.part, failure)
        finally:
            self.part = before

    def _catch(self, part: Part, failure: Failed) -> None:
        """The part is over: what is open in it is cancelled, and none of its chains goes on. What the TRY
        does then comes before all else."""
        part.failure = failure
        self.queue = deque(chain for chain in self.queue if not part.holds(self.parts[chain]))
        waiting = [(when, chain) for when, chain in self.blocked if not part.holds(self.parts[chain])]
        self.blocked = [(when, chain) for when, chain in waiting if when != part.is_over]
        self.queue.extendleft(chain for when, chain in waiting if when == part.is_over)
        for task in self.tasks:
            if not task.ended and part.holds(task.part):
                task.status = "CANCELED"
                task.reason = f"Canceled: another task inside TRY {part.guard.reference} has failed"
                if task.type == "SUB_WORKFLOW":
                    self.world.inbox.append(partial(self._end_child, task, task.reason))

    def spawn(self, body: Chain, scope: Scope, part: Part | None = None) -> None:
        """Begin a chain beside this one; its first record is made at once. `part`: where it is another
        one than this chain's."""

        def counted() -> Chain:
            yield from body
            scope.live -= 1

        scope.live += 1
        chain = counted()
        self.parts[chain] = self.part if part is None else part
        self._advance(chain)

    def _complete(self) -> None:
        if (failure := self._passed_by(None)) is not None:
            raise failure
        self.end("COMPLETED", None)

    def _passed_by(self, part: Part | None) -> Failed | None:
        """What failed directly in a part (or outside of all) and let the flow go on."""
        failed = [
            task
            for task in self.tasks
            if task.part is part and task.permissive and task.unsuccessful and not task.superseded
        ]
        reasons = [
            f"Task {task.id} failed with status: {task.status} and reason: '{task.reason}'" for task in failed
        ]
        return Failed("FAILED", ". ".join(reasons), failed[0]) if failed else None

    def end(self, status: str, reason: str | None) -> None:
        if status == "COMPLETED":
            self.output = self._make_output()  # K8: `workflow.status` still reads RUNNING
        self.status, self.reason = status, reason
        if status != "COMPLETED":
            self.output = self._make_output()
        self.queue.clear()
        self.blocked.clear()
        for task in self.tasks:
            if not task.ended:
                task.status = "CANCELED"
                if task.type == "SUB_WORKFLOW":
                    why = f"reason: {self.reason}" if self.reason else f"status {self.status}"
                    told = f"Parent workflow has been terminated with {why}"
                    self.world.inbox.append(partial(self._end_child, task, told))
        if self.parent is not None:
            self.world.inbox.append(self._tell_parent)

    def _end_child(self, task: Task, why: str) -> None:
        if task.child is not None and task.child.status == "RUNNING":
            task.child.end("TERMINATED", why)

    def _make_output(self) -> dict[str, Any]:
        """K7."""
        if self.terminated_by is not None:
            return self.terminated_by.output
        if self.document.get("outputParameters"):
            made: dict[str, Any] = resolve(self.document["outputParameters"], self.view())
            return made
        return self.last.output if self.last is not None else {}

    def _tell_parent(self) -> None:
        row = self.parent
        assert row is not None
        if row.ended or row.run.status != "RUNNING":
            return
        row.status = TASK_STATUS_AFTER.get(self.status, self.status)
        row.output = {"subWorkflowId": self.id, **self.output}
        if self.status != "COMPLETED":
            version = self.document.get("version", 1)
            row.reason = f"Sub workflow {self.name}.{version}/{self.id} failure reason: {self.reason}"
        row.run.pump()

    # --- what expressions see ----------------------------------------------------------------------------

    def view(self) -> dict[str, Any]:
        seen: dict[str, Any] = {
            task.reference: {
                "input": task.input,
                "output": task.seen_output,
                "status": task.status,
                "taskType": task.type,
                "taskDefName": task.name,
                "referenceTaskName": task.shown,
                "taskId": task.id,
                "reasonForIncompletion": task.reason,
                "retryCount": task.attempt,
                "iteration": task.iteration if task.type == "DO_WHILE" else (task.path or (0,))[-1],
            }
            for task in self.tasks
        }
        seen["workflow"] = {
            "input": self.input,
            "output": self.output,
            "status": self.status,
            "workflowId": self.id,
            "workflowType": self.name,
            "version": self.document.get("version", 1),
            "variables": self.variables,
            "reasonForIncompletion": self.reason,
        }
        return seen

    def inputs(self, node: Node, task_id: str | None = None, template: Node | None = None) -> dict[str, Any]:
        return self.fill(resolve(node.get("inputParameters") or {}, self.view(), task_id), task_id, template)

    def fill(self, given: dict[str, Any], task_id: str | None, template: Node | None) -> dict[str, Any]:
        """K6: defaults for what is absent or null. B21: always resolved."""
        return with_template(resolve(template or {}, self.view(), task_id), given)

    def newest(self, reference: str, path: Path) -> Task | None:
        found = [task for task in self.tasks if task.reference == reference and task.path == path]
        return found[-1] if found else None

    # --- records -----------------------------------------------------------------------------------------

    def create(self, node: Node, path: Path, status: str, kind: str = "", name: str = "") -> Task:
        made = Task(
            run=self,
            node=node,
            path=path,
            type=kind or node["type"],
            name=name or ((kind or node["type"]) if node["type"] in NAMED_BY_TYPE else node["name"]),
            status=status,
            input={},
            available_ms=self.world.now_ms + int(node.get("startDelay") or 0) * 1000,
            first_ms=self.world.now_ms,
            part=self.part,
        )
        self._add(made)
        return made

    def _add(self, task: Task) -> None:
        self.tasks.append(task)
        self.last = task

    def policy(self, task: Task) -> Node:
        """The task definition in force. K10, B19: one rule for static and forked tasks."""
        found = task.node.get("taskDefinition") or self.world.policies.get(task.node["name"])
        if found is not None:
            return found
        plain = task.type not in OPERATORS and task.node["type"] == "SIMPLE"
        return {"name": task.node["name"]} if plain else {"retryCount": 0, "responseTimeoutSeconds": 0}

    def retries(self, task: Task) -> int:
        """How many attempts may follow the first."""
        own = task.node.get("retryCount")
        limit: int = self.policy(task).get("retryCount", 3) if own is None else own
        return limit

    def queued(self, task: Task) -> bool:
        """A worker's task."""
        return task.type not in OPERATORS

    # --- chains ------------------------------------------------------------------------------------------

    def chain(self, nodes: list[Node], path: Path, scope: Scope) -> Chain:
        for index, node in enumerate(nodes):
            following = nodes[index + 1] if index + 1 < len(nodes) else None
            kind = node.get("type") or "SIMPLE"
            operator = getattr(self, f"_{kind.lower()}", None) if kind in OPERATORS else None
            if kind in ("FORK_JOIN", "FORK_JOIN_DYNAMIC"):
                assert operator is not None
                yield from operator(node, path, scope, following)
            elif operator is not None:
                yield from operator(node, path, scope)
            else:
                yield from self._worker(node, path, scope)

    def settle(self, task: Task, begin: Callable[[Task], None] | None = None) -> Chain:
        """Wait until the task has ended for good, making attempts as its policy says. `begin` starts an
        attempt of what the server does itself, when its delay is over."""
        while True:
            if begin is not None and task.status == "SCHEDULED":
                if task.available_ms > self.world.now_ms:
                    yield partial(self._is_due, task)
                yield
                if not task.ended:
                    begin(task)
                    if task.ended:
                        yield
            if not task.ended:
                yield partial(_has_ended, task)
            attempt = self._next_attempt(task)
            if attempt is None:
                break
            task = attempt
        self.conclude(task)

    def _is_due(self, task: Task) -> bool:
        return task.ended or task.available_ms <= self.world.now_ms

    def executed(self, task: Task) -> Chain:
        """Everything that can be executed is, before anything follows from it."""
        yield
        self.conclude(task)

    def conclude(self, task: Task) -> None:
        """3.2.3: what a final outcome means for the workflow. Joins hear of it before the flow goes on."""
        task.final = True
        if not task.unsuccessful or task.permissive:
            self._tell_joins()
        elif task.optional:
            task.status = "COMPLETED_WITH_ERRORS"
            self._tell_joins()
        else:
            status = WORKFLOW_STATUS_AFTER.get(task.status, "FAILED")
            usual = f"Task {task.id} failed with status: {status} and reason: '{task.reason}'"
            raise task.failed_by or Failed(status, task.fatal or usual, task)

    def _tell_joins(self) -> None:
        """Of this task. That others never come because of it, they hear when the flow has gone on."""
        self.telling = True
        self._runnable()
        self.telling = False

    def _next_attempt(self, task: Task) -> Task | None:
        policy = self.policy(task)
        if task.status not in RETRIABLE or task.type in NEVER_RETRIED or task.attempt >= self.retries(task):
            return None
        if task.fatal is not None:
            return None
        total, elapsed = policy.get("totalTimeoutSeconds", 0), (self.world.now_ms - task.first_ms) // 1000
        if total and elapsed >= total:
            task.fatal = (
                f"Task {task.id}/{task.name} exceeded total timeout of {total} seconds (elapsed {elapsed} "
                "seconds across all attempts). No further retries will be attempted."
            )
            return None
        attempt = Task(
            run=self,
            node=task.node,
            path=task.path,
            type=task.type,
            name=task.name,
            status="SCHEDULED",
            input={},
            attempt=task.attempt + 1,
            reason=task.reason,
            retried=task,
            available_ms=self.world.now_ms + retry_delay_s(policy, task.attempt) * 1000,
            first_ms=task.first_ms,
            part=task.part,
        )
        task.superseded = True
        self._add(attempt)
        self._refresh(attempt, task, policy)
        return attempt

    def _refresh(self, attempt: Task, before: Task, policy: Node) -> None:
        template = policy.get("inputTemplate")
        if "data" in attempt.node:
            fresh = self.fill(fill(attempt.node["data"], attempt.id), attempt.id, template)
        else:
            fresh = self.inputs(attempt.node, attempt.id, template)
        if attempt.type == "SUB_WORKFLOW":  # B20: refreshed where the child reads it
            given = (
                fill(attempt.node["data"], attempt.id)
                if "data" in attempt.node
                else self.inputs(attempt.node)
            )
            attempt.input = {**before.input, "workflowInput": given}
        else:
            attempt.input = {**before.input, **fresh}

    # --- clocks ------------------------------------------------------------------------------------------

    def timers(self) -> Iterator[tuple[int, Task | Run]]:
        document = self.document
        if document.get("timeoutSeconds") and document.get("timeoutPolicy") == "TIME_OUT_WF":
            yield self.begun_ms + document["timeoutSeconds"] * 1000, self
        for task in self.tasks:
            if not task.ended:
                clocks = [due for due, _ in self._clocks(task)]
                if not self.queued(task) and task.status == "SCHEDULED":
                    clocks.append(task.available_ms)
                if clocks:
                    yield max(min(clocks), self.world.now_ms), task

    def _clocks(self, task: Task) -> list[tuple[int, str]]:
        """(when, which), in the order in which they are checked."""
        if task.type == "TRY" and task.body is None:
            return []
        policy, found = self.policy(task), []
        obeyed = policy.get("timeoutPolicy", "TIME_OUT_WF") != "ALERT_ONLY"
        worker = self.queued(task)
        begun = task.started_ms if worker else (None if task.status == "SCHEDULED" else task.started_ms)
        if obeyed and policy.get("totalTimeoutSeconds"):
            found.append((task.first_ms + policy["totalTimeoutSeconds"] * 1000, "total"))
        if obeyed and policy.get("timeoutSeconds") and begun is not None:
            found.append((begun + policy["timeoutSeconds"] * 1000, "task"))
        if obeyed and policy.get("pollTimeoutSeconds") and worker and task.started_ms is None:
            found.append((task.available_ms + policy["pollTimeoutSeconds"] * 1000, "poll"))
        response = policy.get("responseTimeoutSeconds", 3600)
        if response and worker and task.started_ms is not None:
            found.append((task.started_ms + response * 1000, "response"))
        if task.wait_ms is not None and task.status == "IN_PROGRESS":
            found.append((task.wait_ms, "wait"))
        return found

    def time_out(self) -> None:
        seconds = self.document["timeoutSeconds"]
        self.end(
            "TIMED_OUT",
            f"Workflow timed out after {seconds} seconds. Timeout configured as {seconds} seconds. "
            "Timeout policy configured to TIME_OUT_WF",
        )

    def strike(self, task: Task) -> None:
        due = [which for moment, which in self._clocks(task) if moment <= self.world.now_ms]
        if not due:
            self.pump()  # a delayed attempt of a server's own task begins
            return
        if due[0] == "wait":
            task.status, task.output = "COMPLETED", {}
        elif task.body is not None:
            text = self._timed_out(task, due[0])
            self._catch(task.body, Failed("TIMED_OUT", text, task))
        else:
            self._time_out_task(task, due[0])
        self.pump()

    def _time_out_task(self, task: Task, which: str) -> None:
        task.status, task.reason = "TIMED_OUT", self._timed_out(task, which)
        if which != "response" and self.policy(task).get("timeoutPolicy", "TIME_OUT_WF") == "TIME_OUT_WF":
            task.fatal = task.reason  # B15: optional and permissive hold for time-outs too

    def _timed_out(self, task: Task, which: str) -> str:
        policy = self.policy(task)
        obeyed = policy.get("timeoutPolicy", "TIME_OUT_WF")
        texts = {
            "total": (
                f"Task {task.name}/{task.id} exceeded total timeout of {{0}} seconds (elapsed {{0}} seconds "
                f"across all attempts including retry delays). Timeout policy: {obeyed}",
                "totalTimeoutSeconds",
            ),
            "task": (
                "Task timed out after {0} seconds. Timeout configured as {0} seconds. "
                f"Timeout policy configured to {obeyed}",
                "timeoutSeconds",
            ),
            "poll": (
                "Task poll timed out after {0} seconds. Poll timeout configured as {0} seconds. "
                f"Timeout policy configured to {obeyed}",
                "pollTimeoutSeconds",
            ),
            "response": (
                f"responseTimeout: {{0}} exceeded for the taskId: {task.id} "
                f"with Task Definition: {task.name}",
                "responseTimeoutSeconds",
            ),
        }
        text, key = texts[which]
        return text.format(policy.get(key, 3600))

    # --- operators ---------------------------------------------------------------------------------------

    def _worker(self, node: Node, path: Path, scope: Scope) -> Chain:
        simple = (node.get("type") or "SIMPLE") == "SIMPLE"
        kind = node["name"] if simple else node["type"]
        task = self.create(node, path, "SCHEDULED", kind, node["name"])
        task.input = self.inputs(node, task.id, self.policy(task).get("inputTemplate"))
        yield
        yield from self.settle(task)

    def _dynamic(self, node: Node, path: Path, scope: Scope) -> Chain:
        name = self.inputs(node).get(node["dynamicTaskNameParam"])
        yield from self._worker({**node, "name": name, "type": "SIMPLE"}, path, scope)

    def _noop(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.create(node, path, "IN_PROGRESS")
        yield
        task.status = "COMPLETED"
        yield from self.executed(task)

    def _inline(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.create(node, path, "IN_PROGRESS")
        task.input = self.inputs(node, task.id, self.policy(task).get("inputTemplate"))
        yield
        try:
            task.output = {"result": run_script(task.input["expression"], task.input)}
            task.status = "COMPLETED"
        except ScriptFailed:
            task.status, task.reason = "FAILED_WITH_TERMINAL_ERROR", SCRIPT_ERROR
            task.output = {"error": SCRIPT_ERROR}
        yield from self.executed(task)

    def _set_variable(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.create(node, path, "IN_PROGRESS")
        task.input = self.inputs(node)
        yield
        self.variables = {**self.variables, **task.input}
        task.status = "COMPLETED"
        yield from self.executed(task)

    def _terminate(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.create(node, path, "IN_PROGRESS")
        task.input = self.inputs(node, task.id)
        yield
        status = task.input.get("terminationStatus")
        if status not in ("COMPLETED", "FAILED", "TERMINATED"):
            task.status, task.reason = "FAILED", "given termination status is not valid"
            yield from self.settle(task)
            return
        value = task.input.get("workflowOutput")
        task.output = {} if value is None else value if isinstance(value, dict) else {"output": value}
        task.status, task.final = "COMPLETED", True
        self.terminated_by = task
        reason = task.input.get("terminationReason")
        raise Ended(status, reason or f"Workflow is {status} by TERMINATE task: {task.id}")

    def _wait(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.create(node, path, "IN_PROGRESS")
        task.input = self.inputs(node, task.id)
        yield
        self._begin_wait(task)
        if task.ended:
            yield
        yield from self.settle(task, self._begin_wait)

    def _begin_wait(self, task: Task) -> None:
        task.status, task.started_ms = "IN_PROGRESS", self.world.now_ms
        if found := re.fullmatch(r"(\d+) seconds?", task.input.get("duration") or ""):
            task.wait_ms = self.world.now_ms + int(found[1]) * 1000
            if not int(found[1]):
                task.status = "COMPLETED"  # what is past completes at once

    def _human(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.create(node, path, "IN_PROGRESS")
        task.input = self.inputs(node, task.id)
        task.started_ms = self.world.now_ms
        yield from self.settle(task, self._begin_wait)

    def _switch(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.create(node, path, "IN_PROGRESS")
        task.input = self.inputs(node)
        try:
            if node["evaluatorType"] == "value-param":
                value = task.input.get(node["expression"])
            else:
                value = run_script(node["expression"], task.input)
        except ScriptFailed:
            task.status, task.reason = "FAILED", SCRIPT_ERROR
            yield
            self.conclude(task)
            return
        cases = node["decisionCases"]
        key = chosen_case(value, cases)
        branch = cases[key] if key in cases else node.get("defaultCase") or []
        task.input["case"] = key
        if branch:
            task.input["hasChildren"] = "true"
        task.output = {"evaluationResult": [key], "selectedCase": key}
        yield from self._chosen(task, branch, path, scope)

    def _chosen(self, task: Task, branch: list[Node], path: Path, scope: Scope) -> Chain:
        task.status, task.chosen = "COMPLETED", branch
        if branch:
            self.spawn(self._noticed(task), Scope())
            yield from self.chain(branch, path, scope)
        else:
            yield from self.executed(task)

    def _noticed(self, task: Task) -> Chain:
        """A task whose chain goes on at once: joins that wait for it hear of it later."""
        yield
        task.final = True

    def _decision(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.create(node, path, "IN_PROGRESS")
        key = chosen_case(self.inputs(node).get(node["caseValueParam"]), node["decisionCases"])
        branch = node["decisionCases"].get(key) or node.get("defaultCase") or []
        task.input = {"case": key, **({"hasChildren": "true"} if branch else {})}
        task.output = {"caseOutput": [key]}
        yield from self._chosen(task, branch, path, scope)

    def _fork_join(self, node: Node, path: Path, scope: Scope, following: Node) -> Chain:
        task = self.create(node, path, "COMPLETED", "FORK")
        task.input = self.inputs(node)
        self.spawn(self._noticed(task), Scope())
        for branch in node["forkTasks"]:
            self.spawn(self.chain(branch, path, scope), scope)
        self._make_join(following, path, {"joinOn": following.get("joinOn") or []})
        yield from ()

    def _make_join(self, node: Node, path: Path, input: dict[str, Any]) -> Task:
        made = self.create(node, path, "IN_PROGRESS")
        made.input = input
        return made

    def _fork_join_dynamic(self, node: Node, path: Path, scope: Scope, following: Node) -> Chain:
        given = self.inputs(node)
        again = any(task.node.get("type") == "FORK_JOIN_DYNAMIC" for task in self.tasks)
        branches = forked_same(node, given, again)
        if branches is None:
            branches = forked_different(node, given)
        task = self.create(node, path, "COMPLETED", "FORK")
        names = [branch["taskReferenceName"] for branch in branches]
        # DESIGN 4: a fork's branches are stored once, so its input repeats neither their names (the
        # join's does) nor their definitions.
        task.input = given
        self.spawn(self._noticed(task), Scope())
        for branch in branches:
            self.spawn(self._forked(branch, node["taskReferenceName"], path, scope), scope)
        input = {**(following.get("inputParameters") or {}), "joinOn": names}
        self._make_join(following, path, input).listed = True
        yield from ()

    def _forked(self, node: Node, fork: str, path: Path, scope: Scope) -> Chain:
        """B6: the data is not resolved a second time, but for the task's id."""
        node = {**node, "data": node["inputParameters"], "forked by": fork}
        if node["type"] == "SUB_WORKFLOW":
            yield from self._sub_workflow(node, path, scope)
            return
        task = self.create(node, path, "SCHEDULED", node["name"])
        template = self.policy(task).get("inputTemplate")
        task.input = self.fill(fill(node["data"], task.id), task.id, template)
        yield
        yield from self.settle(task)

    def _join(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.newest(node["taskReferenceName"], path)
        assert task is not None, "a join without its fork"
        yield partial(self._can_join, task)
        self._gather(task)
        yield from self.executed(task)

    def _joined(self, task: Task) -> list[Task | None]:
        return [self.newest(name, task.path) for name in task.input["joinOn"]]

    def _can_join(self, task: Task) -> bool:
        """B3: an outcome counts when no attempt follows. Those that are not permissive end the workflow."""
        return all(self._no_more(task, name) for name in task.input["joinOn"])

    def _no_more(self, join: Task, name: str) -> bool:
        """Whether a joined task has its outcome, or never gets one.

        tests/engine/test_unreached.py: Conductor waits for a task of a case that is not chosen for ever.
        Here the join waits until the case that was chosen instead has ended; a task in a loop beside
        the join has ended when that loop has; and one in no turn of the join's own is not waited for."""
        row = self.newest(name, join.path)
        if row is not None or join.listed:
            return row is not None and row.final
        mine, around = self.around(join.reference), self.around(name)
        if mine is None or around is None:
            return True
        own, loops = ([node for node, _ in one if node["type"] == "DO_WHILE"] for one in (mine, around))
        if loops[: len(own)] != own:
            return True
        if len(loops) > len(own):
            return self._no_more(join, loops[len(own)]["taskReferenceName"])
        for node, case in reversed(around):
            if node not in (outer for outer, _ in mine) and node["type"] in ("SWITCH", "DECISION"):
                switch = self.newest(node["taskReferenceName"], join.path)
                if switch is not None and switch.final:
                    return not self.telling and switch.chosen is not case and self._case_is_over(switch)
        return False

    def _case_is_over(self, switch: Task) -> bool:
        if not switch.chosen:
            return True
        last = self.newest(switch.chosen[-1]["taskReferenceName"], switch.path)
        return last is not None and last.final and self._case_is_over(last)

    def around(self, reference: str) -> list[tuple[Node, list[Node]]] | None:
        """The containers around a task, outermost first, each with the chain in it that leads there."""
        return around(self.document["tasks"], reference)

    def _gather(self, task: Task) -> None:
        found = [row for row in self._joined(task) if row is not None]
        failed = [row for row in found if row.unsuccessful]
        task.output = {row.shown: row.output for row in found if row.output}
        if failed:
            task.status = "CANCELED" if all(row.status == "CANCELED" for row in failed) else "FAILED"
            task.reason = " ".join(row.reason or "" for row in failed)
        elif errors := [row for row in found if row.status == "COMPLETED_WITH_ERRORS"]:
            task.status = "COMPLETED_WITH_ERRORS"
            listed = " ".join(f"{row.name}/{row.id}" for row in errors)
            task.reason = f"{listed} completed with errors"
        else:
            task.status = "COMPLETED"

    def _exclusive_join(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.create(node, path, "IN_PROGRESS")
        defaults = node.get("defaultExclusiveJoinTask") or []
        task.input = {"joinOn": node["joinOn"], "defaultExclusiveJoinTask": defaults}
        yield partial(self._can_select, task)
        selected = self._selected(task)
        if selected is None:  # tests/engine/test_unreached.py: nothing was chosen, and nothing will be
            task.status = "COMPLETED"
        elif selected.unsuccessful:
            task.status, task.reason = "FAILED", selected.reason
        else:
            task.status, task.output = "COMPLETED", selected.output
        yield from self.executed(task)

    def _selected(self, task: Task) -> Task | None:
        """The first that has a row, in list order. B17: a default never overtakes it."""
        listed = [*task.input["joinOn"], *task.input["defaultExclusiveJoinTask"]]
        rows = (self.newest(name, task.path) for name in listed)
        return next((row for row in rows if row is not None), None)

    def _can_select(self, task: Task) -> bool:
        selected = self._selected(task)
        if selected is not None:
            return selected.final
        listed = [*task.input["joinOn"], *task.input["defaultExclusiveJoinTask"]]
        return all(self._no_more(task, name) for name in listed)

    def _do_while(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.create(node, path, "IN_PROGRESS")
        task.input = self.inputs(node, task.id, self.policy(task).get("inputTemplate"))
        task.started_ms = self.world.now_ms
        body = [one["taskReferenceName"] for one in flatten(node["loopOver"])]
        if (items := self._items(node)) is not None and not items:
            yield
            task.status, task.output = "COMPLETED", {"iteration": 0}
            yield from self.executed(task)
            return
        yield
        while True:
            task.iteration += 1
            turn = (*path, task.iteration)
            task.output = {**task.output, "iteration": task.iteration}
            if items is not None:
                at = task.iteration - 1
                task.output |= {"loopIndex": at, "loopItem": items[at] if at < len(items) else None}
            inside = Scope()
            self.spawn(self.chain(node["loopOver"], turn, inside), inside)
            yield partial(_is_over, inside)
            rows = self._relevant(body, turn)
            task.output = {**task.output, str(task.iteration): turn_output(rows)}
            self._trim(task, body, path)
            if failed := [row for row in rows if row.unsuccessful and row.part is task.part]:
                task.status = "FAILED"
                task.reason = " ".join(row.reason or "" for row in failed)
                break
            items = self._items(node)
            try:
                if not self._goes_on(node, task, items, body):
                    task.status = "COMPLETED"
                    break
            except ScriptFailed:
                task.status, task.reason = "FAILED_WITH_TERMINAL_ERROR", SCRIPT_ERROR
                break
        yield from self.executed(task)

    def _relevant(self, body: list[str], turn: Path) -> list[Task]:
        found: dict[str, Task] = {}
        for task in self.tasks:
            if task.path == turn and task.reference in body:
                found[task.reference] = task
        return list(found.values())

    def turn_so_far(self, task: Task) -> dict[str, Any]:
        if not task.iteration:
            return {}
        body = [one["taskReferenceName"] for one in flatten(task.node["loopOver"])]
        return {str(task.iteration): turn_output(self._relevant(body, (*task.path, task.iteration)))}

    def _items(self, node: Node) -> list[Any] | None:
        given = node.get("items") or (node.get("inputParameters") or {}).get("_items")
        if not given:
            return None
        value = resolve(given, self.view())
        return [] if value is None else value if isinstance(value, list) else [value]

    def _goes_on(self, node: Node, task: Task, items: list[Any] | None, body: list[str]) -> bool:
        if items is not None and task.iteration >= len(items):
            return False
        condition = node.get("loopCondition")
        if condition is None:
            return items is not None
        given = self.inputs(node, task.id)
        given[task.reference] = task.output
        for row in self.tasks:
            if row.reference in body:
                given[row.reference] = row.output
        if items is not None:
            given |= {"loopIndex": task.output["loopIndex"], "loopItem": task.output["loopItem"]}
        return truth(run_script(condition, given))

    def _trim(self, task: Task, body: list[str], path: Path) -> None:
        """keepLastN: older turns go, from the output and from the records. Their records go when a turn
        has ended, not when it begins as with Conductor: its body may read the turn before."""
        if "keepLastN" not in task.input:
            return
        task.output = kept(task.output, task)
        inside = len(path) + 1
        dropped = (*path, task.iteration - task.input["keepLastN"])
        self.tasks = [
            row
            for row in self.tasks
            if row.path[:inside] != dropped or row.node.get("forked by", row.reference) not in body
        ]

    def _try(self, node: Node, path: Path, scope: Scope) -> Chain:
        task = self.create(node, path, "IN_PROGRESS")
        task.input, task.started_ms = self.inputs(node, task.id), self.world.now_ms
        failure = yield from self._in_part(task, node["tryTasks"], body=True)
        if failure is not None:
            task.output = {"caught": False, "error": error_of(failure.task)}
            if failure.task is task:
                late = {"name": "TIMEOUT", "status": "TIMED_OUT", "reason": failure.reason, "output": {}}
                task.output["error"] |= late
            case = catching(node, task.output["error"])
            if case is not None:
                task.output["caught"] = True
                failure = yield from self._in_part(task, case["tasks"])
                if failure is not None:
                    task.output = {"caught": False, "error": error_of(failure.task)}
        later = yield from self._in_part(task, node.get("finallyTasks") or [])
        if later is not None:
            failure = later
            task.output = {"caught": False, "error": error_of(failure.task)}
        task.failed_by = failure
        if failure is None:
            task.status, task.output = "COMPLETED", task.output or {"caught": False}
        else:
            task.status, task.reason = "FAILED", failure.reason
            task.error_name = task.output["error"]["name"]
        yield from self.executed(task)

    def _in_part(
        self, guard: Task, nodes: list[Node], *, body: bool = False
    ) -> Generator[Condition | None, None, Failed | None]:
        """Run tasks of a TRY; their failure, if they fail."""
        if not nodes:
            return None
        part = Part(guard)
        guard.body = part if body else None
        self.spawn(self.chain(nodes, guard.path, part), part, part)
        yield part.is_over
        guard.body = None
        return part.failure or self._passed_by(part)

    def _sub_workflow(self, node: Node, path: Path, scope: Scope) -> Chain:
        params = node["subWorkflowParam"]
        task = self.create(node, path, "SCHEDULED")
        given = fill(node["data"], task.id) if "data" in node else self.inputs(node)
        inline = params.get("workflowDefinition")
        name = inline["name"] if inline else resolve(params.get("name"), self.view())
        task.input = {
            "subWorkflowName": name,
            "subWorkflowVersion": None if inline else params.get("version"),
            "subWorkflowDefinition": inline,
            "workflowInput": given,
        }
        yield from self.settle(task, self._begin_child)

    def _begin_child(self, task: Task) -> None:
        task.status, task.started_ms, task.reason = "IN_PROGRESS", self.world.now_ms, None
        inline = task.input["subWorkflowDefinition"]
        input = dict(task.input["workflowInput"])  # B20: empty means empty
        if inline:
            input["_systemMetadata"] = {"dynamic": True}
        name = task.input["subWorkflowName"]
        document = inline or self.world.documents[name]
        task.output = {"subWorkflowId": f"{task.id}>"}

        def begin() -> None:
            task.child = Run(self.world, name, document, input, task)
            task.child.begin()

        self.world.inbox.append(begin)


# --- small rules -----------------------------------------------------------------------------------------


def _has_ended(task: Task) -> bool:
    return task.ended


def _is_over(scope: Scope) -> bool:
    return not scope.live


def with_template(template: Node | None, given: dict[str, Any]) -> dict[str, Any]:
    """K6: a default stands in for what is absent or null."""
    made = dict(given)
    for key, value in (template or {}).items():
        if made.get(key) is None:
            made[key] = value
    return made


def retry_delay_s(policy: Node, attempt: int) -> int:
    base = int(policy.get("retryDelaySeconds", 60))
    logic = policy.get("retryLogic", "FIXED")
    if logic == "LINEAR_BACKOFF":
        base *= policy.get("backoffScaleFactor", 1) * (attempt + 1)
    elif logic == "EXPONENTIAL_BACKOFF":
        base *= 2**attempt
    cap = policy.get("maxRetryDelaySeconds") or base
    return min(base, cap)


def case_text(value: Any) -> str:
    """K20: how a SWITCH reads a value."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def chosen_case(value: Any, cases: Node) -> str:
    """B40: a whole number matches with and without its fraction."""
    key = case_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        return key
    other = f"{value}.0" if isinstance(value, int) else str(int(value))
    return other if key not in cases and other in cases else key


def kept(output: dict[str, Any], loop: Task) -> dict[str, Any]:
    """A loop's output without the turns that keepLastN drops."""
    old = loop.iteration - loop.input.get("keepLastN", loop.iteration)
    return {key: value for key, value in output.items() if not (key.isdigit() and int(key) <= old)}


def turn_output(rows: list[Task]) -> dict[str, Any]:
    """What a loop keeps of one turn. K17: the flow goes on after a permissive failure, so that the
    outputs after it count as well."""
    return {row.reference: row.stored_output for row in rows}


def error_of(task: Task) -> dict[str, Any]:
    """What users read at `${guard.output.error}`."""
    return {
        "name": error_name(task),
        "status": task.status,
        "reason": task.reason,
        "reference": task.shown,
        "taskId": task.id,
        "output": task.stored_output,
    }


def error_name(task: Task) -> str:
    """By which a TRY catches it."""
    if task.error_name is not None:
        return task.error_name
    by_status = {"TIMED_OUT": "TIMEOUT", "CANCELED": "CANCELED"}.get(task.status)
    if by_status is not None:
        return by_status
    if task.type == "SUB_WORKFLOW":
        return "CHILD_FAILED"
    return "SCRIPT_ERROR" if task.type in ("INLINE", "SWITCH", "DECISION") else "TASK_FAILED"


def catching(node: Node, error: dict[str, Any]) -> Node | None:
    """The first case that fits: a list that is empty or absent admits all."""
    for case in node.get("catchCases") or []:
        by_name = not case.get("errorNames") or error["name"] in case["errorNames"]
        if by_name and (not case.get("statuses") or error["status"] in case["statuses"]):
            return case
    return None


def chains(node: Node) -> list[list[Node]]:
    """The chains of tasks directly in a task."""
    inner = [*(node.get("decisionCases") or {}).values(), *(node.get("forkTasks") or [])]
    inner += [node.get("tryTasks") or [], node.get("finallyTasks") or []]
    inner += [case["tasks"] for case in node.get("catchCases") or []]
    return [*inner, node.get("defaultCase") or [], node.get("loopOver") or []]


def flatten(nodes: list[Node], *, tries: bool = True) -> Iterator[Node]:
    """Tasks and what is in them; with or without what is in TRYs."""
    for node in nodes:
        yield node
        if tries or node["type"] != "TRY":
            for chain in chains(node):
                yield from flatten(chain, tries=tries)


def around(nodes: list[Node], reference: str) -> list[tuple[Node, list[Node]]] | None:
    for node in nodes:
        if node["taskReferenceName"] == reference:
            return []
        for chain in chains(node):
            if (found := around(chain, reference)) is not None:
                return [(node, chain), *found]
    return None


def forked_same(fork: Node, given: dict[str, Any], again: bool) -> list[Node] | None:
    """Variant A: the same task for all inputs. None where this variant does not apply."""
    inputs = given.get("forkTaskInputs")
    if not isinstance(inputs, list):
        return None
    reference = fork["taskReferenceName"]
    workflow = given.get("forkTaskWorkflow")
    name = given.get("forkTaskName") or reference
    prefix = f"_{reference}_{name}" if again else f"_{name}"
    made = []
    for index, element in enumerate(inputs):
        data = element if isinstance(element, dict) else {"input": element}
        node = {
            "name": name,
            "taskReferenceName": f"{prefix}_{index}",
            "type": "SUB_WORKFLOW" if workflow else given.get("forkTaskType") or "SIMPLE",
            "inputParameters": {**data, "__index": index},
        }
        if workflow:
            node["subWorkflowParam"] = {"name": workflow}
        if fork.get("optional"):
            node["optional"] = True
        made.append(node)
    return made


def forked_different(fork: Node, given: dict[str, Any]) -> list[Node]:
    """Variant B: a list of tasks and a map of their inputs."""
    inputs = given[fork["dynamicForkTasksInputParamName"]]
    made = []
    for node in given[fork["dynamicForkTasksParam"]]:
        more = inputs.get(node["taskReferenceName"]) or {}
        kind = node.get("type") or "SIMPLE"
        made.append(
            {**node, "type": kind, "inputParameters": {**(node.get("inputParameters") or {}), **more}}
        )
    return made
