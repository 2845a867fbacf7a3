"""A running workflow goes on under another version of its definition, or is told why it cannot."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from maestoso_server.engine.decision import Outcome, Verdict
from maestoso_server.engine.events import (
    Due,
    Pause,
    QueueFacts,
    Restart,
    Resume,
    Retry,
    SlotGranted,
    Terminate,
)
from maestoso_server.engine.state import TaskStatus

from .harness import World, catch, flow, fork, guarded, inline, join, loop, simple, switch, task
from .strategies import CHILD, documents
from .test_properties import QUICK, STEPS_MAX, outcome_of, picture, seeds

FAILED = TaskStatus.FAILED


def version(number: int, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**flow(*tasks, **more), "version": number}


def report(outcome: Outcome) -> Any:
    assert outcome.report is not None
    return outcome.report.value


def faults(outcome: Outcome) -> dict[str, str]:
    return {fault["reference"]: fault["message"] for fault in report(outcome)["faults"]}


def warnings(outcome: Outcome) -> dict[str, str]:
    return {fault["reference"]: fault["message"] for fault in report(outcome)["warnings"]}


# --- what it does ---------------------------------------------------------------------------------


def test_the_flow_goes_on_by_the_new_plan() -> None:
    world = World(flow(simple("a"), simple("b")))
    run = world.start("flow")

    outcome = world.upgrade(run, version(2, simple("a"), simple("new", {"v": "${a.output.v}"}), simple("b")))

    assert outcome.verdict is Verdict.APPLIED
    assert (world.header(run).version, world.status(run)) == (2, "RUNNING")
    world.result(run, "a", {"v": 5})
    assert world.row(run, "new").input.value == {"v": 5}
    world.result(run, "new")
    world.result(run, "b")
    assert world.status(run) == "COMPLETED"
    assert [row.reference for row in world.rows(run)] == ["a", "new", "b"]


def test_a_dry_run_tells_the_same_and_changes_nothing() -> None:
    world = World(flow(simple("a"), simple("b"), simple("c")))
    run = world.start("flow")
    before = picture(world, run), world.header(run)
    new = version(2, simple("a", {"k": 1}), simple("c"), simple("d"), timeoutSeconds=60)

    dry = world.upgrade(run, new, dry_run=True)

    assert (picture(world, run), world.header(run)) == before
    told = report(dry)
    changes = {change["reference"]: (change["change"], change["fields"]) for change in told["changes"]}
    assert changes == {
        "a": ("CHANGED", ["inputParameters"]),
        "b": ("REMOVED", []),
        "d": ("ADDED", []),
    }
    assert [change["open"] for change in told["changes"] if change["reference"] == "a"] == [
        [f"{run[:-6]}000001"]
    ]
    assert told["workflow"] == ["timeoutSeconds"]
    assert (told["from"], told["to"]) == ({"name": "flow", "version": 1}, {"name": "flow", "version": 2})
    real = world.upgrade(run, new)
    assert real.report == dry.report


def test_the_snapshot_that_it_runs_on_changes_nothing() -> None:
    world = World(flow(simple("a")))
    run = world.start("flow")
    revision = world.header(run).revision

    outcome = world.upgrade(run, flow(simple("a")))

    assert outcome.verdict is Verdict.APPLIED
    assert report(outcome)["changes"] == []
    assert world.header(run).revision == revision


def test_a_paused_workflow_is_upgraded_and_goes_on_when_it_is_resumed() -> None:
    world = World(flow(simple("a"), simple("b")))
    run = world.start("flow")
    world.happen(run, Pause(now_ms=world.now_ms))
    world.result(run, "a")

    assert world.upgrade(run, version(2, simple("a"), simple("c"))).verdict is Verdict.APPLIED
    assert world.shown(run) == ["a:COMPLETED"]
    world.happen(run, Resume(now_ms=world.now_ms))

    assert world.shown(run) == ["a:COMPLETED", "c:SCHEDULED"]


def test_an_open_join_waits_for_what_its_new_version_lists() -> None:
    branches = [simple("a")], [simple("b")]
    world = World(flow(fork("f", *branches), join("j", "a", "b"), simple("z")))
    run = world.start("flow")
    world.result(run, "a")

    outcome = world.upgrade(run, version(2, fork("f", *branches), join("j", "a"), simple("z")))

    assert outcome.verdict is Verdict.APPLIED
    assert world.shown(run) == ["f:COMPLETED", "a:COMPLETED", "b:SCHEDULED", "j:COMPLETED", "z:SCHEDULED"]


def test_a_branch_gets_longer_and_its_join_waits_for_the_new_end() -> None:
    world = World(flow(fork("f", [simple("a")], [simple("b")]), join("j", "a", "b")))
    run = world.start("flow")
    world.result(run, "b")

    longer = version(2, fork("f", [simple("a"), simple("a2")], [simple("b")]), join("j", "a2", "b"))
    assert world.upgrade(run, longer).verdict is Verdict.APPLIED

    world.result(run, "a")
    assert world.row(run, "j").status is TaskStatus.IN_PROGRESS
    world.result(run, "a2")
    assert world.status(run) == "COMPLETED"


def test_a_loop_goes_on_with_its_new_body_and_condition() -> None:
    world = World(flow(loop("l", [simple("a")], 5)))
    run = world.start("flow")
    world.result(run, "a__1")

    assert world.upgrade(run, version(2, loop("l", [simple("a"), simple("b")], 2))).verdict is Verdict.APPLIED

    world.result(run, "a__2")
    world.result(run, "b__2")
    assert world.status(run) == "COMPLETED"


def test_the_branches_of_a_dynamic_fork_survive() -> None:
    inputs = {"forkTaskName": "t", "forkTaskInputs": [{"n": 1}, {"n": 2}]}
    forking = task("FORK_JOIN_DYNAMIC", "d", inputs)
    world = World(flow(forking, join("j")), tasks={"t": {"name": "t", "retryCount": 0}})
    run = world.start("flow")
    world.result(run, "_t_0")

    assert world.upgrade(run, version(2, forking, join("j"), simple("z"))).verdict is Verdict.APPLIED

    world.result(run, "_t_1")
    assert world.row(run, "z").status is TaskStatus.SCHEDULED


def test_a_new_retry_count_counts_for_the_open_attempt() -> None:
    world = World(flow(simple("a", retryCount=0)))
    run = world.start("flow")
    world.upgrade(run, version(2, simple("a", retryCount=1)))

    world.result(run, "a", status=FAILED)

    assert world.status(run) == "RUNNING"


# --- clocks ---------------------------------------------------------------------------------------


def clocked(reference: str, **definition: Any) -> dict[str, Any]:
    return simple(reference, taskDefinition={"name": reference, "retryCount": 0, **definition})


def polled_due(world: World, run: str, after_s: int) -> Outcome:
    """The polled attempt's clock is looked at `after_s` seconds after it began."""
    row = world.row(run, "a")
    started_ms = world.workflows[run].queue[row.seq]
    facts = QueueFacts(owner_epoch=0, due_ms=started_ms, started_ms=started_ms)
    return world.happen(run, Due(now_ms=started_ms + after_s * 1000, seq=row.seq, queue=facts))[0]


def test_an_attempt_in_a_queue_keeps_its_clocks_and_the_next_has_the_new_ones() -> None:
    world = World(flow(clocked("a", responseTimeoutSeconds=10)))
    run = world.start("flow")
    longer = clocked("a", responseTimeoutSeconds=600)
    longer["taskDefinition"] |= {"retryCount": 1, "retryDelaySeconds": 0}
    assert world.upgrade(run, version(2, {**longer, "retryCount": 1})).verdict is Verdict.APPLIED

    polled_due(world, run, 11)

    assert world.shown(run) == ["a:TIMED_OUT", "a:SCHEDULED"]
    polled_due(world, run, 11)
    assert world.row(run, "a").status is TaskStatus.SCHEDULED
    polled_due(world, run, 601)
    assert world.status(run) == "TIMED_OUT"


def test_a_task_that_waits_gets_the_clock_of_its_new_version() -> None:
    waiting = task("HUMAN", "h")
    world = World(flow(waiting))
    run = world.start("flow")
    limited = {**waiting, "taskDefinition": {"name": "h", "retryCount": 0, "timeoutSeconds": 30}}

    assert world.upgrade(run, version(2, limited)).verdict is Verdict.APPLIED
    world.advance(31)

    assert world.status(run) == "TIMED_OUT"


def test_a_clock_that_the_new_version_does_not_have_stops() -> None:
    waiting = task("HUMAN", "h")
    limited = {**waiting, "taskDefinition": {"name": "h", "retryCount": 0, "timeoutSeconds": 30}}
    world = World(flow(limited))
    run = world.start("flow")

    world.upgrade(run, version(2, waiting))
    world.advance(31)

    assert world.status(run) == "RUNNING"


def test_the_workflows_own_clock_follows_and_runs_from_its_start() -> None:
    world = World(flow(simple("a")))
    run = world.start("flow")
    world.advance(50)
    limited = version(2, simple("a"), timeoutSeconds=60, timeoutPolicy="TIME_OUT_WF")

    world.upgrade(run, limited)

    world.advance(9)
    assert world.status(run) == "RUNNING"
    world.advance(2)
    assert world.status(run) == "TIMED_OUT"


def test_a_clock_that_has_run_out_already_is_warned_of() -> None:
    world = World(flow(simple("a")))
    run = world.start("flow")
    world.advance(90)
    limited = version(2, simple("a"), timeoutSeconds=60, timeoutPolicy="TIME_OUT_WF")

    assert "ends it at once" in warnings(world.upgrade(run, limited, dry_run=True))[""]


# --- what forbids it ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "reference", "told"),
    [
        ([simple("z")], "a", "is not in the definition any more"),
        ([task("WAIT", "a"), simple("z")], "a", "of type SIMPLE a, which would be WAIT"),
        ([{**simple("a"), "name": "other"}, simple("z")], "a", "which would be SIMPLE other"),
        ([loop("l", [simple("a")], 2), simple("z")], "a", "in no container, which would be inside l"),
    ],
)
def test_an_open_task_without_its_place_forbids_it(new: Any, reference: str, told: str) -> None:
    world = World(flow(simple("a"), simple("z")))
    run = world.start("flow")
    before = picture(world, run), world.header(run)

    for dry_run in (True, False):
        outcome = world.upgrade(run, version(2, *new), dry_run=dry_run)
        assert outcome.verdict is (Verdict.APPLIED if dry_run else Verdict.REFUSED)
        assert told in faults(outcome)[reference]

    assert (picture(world, run), world.header(run)) == before
    world.result(run, "a")
    assert world.row(run, "z").status is TaskStatus.SCHEDULED


def test_a_fork_that_lost_a_running_branch_forbids_it() -> None:
    world = World(flow(fork("f", [simple("a")], [simple("b")]), join("j", "a", "b")))
    run = world.start("flow")

    outcome = world.upgrade(run, version(2, fork("f", [simple("a")]), join("j", "a")))

    assert list(faults(outcome)) == ["b"]


def test_a_join_for_a_branch_that_cannot_begin_any_more_forbids_it() -> None:
    world = World(flow(fork("f", [simple("a")]), join("j", "a")))
    run = world.start("flow")
    wider = version(2, fork("f", [simple("a")], [simple("b")]), join("j", "a", "b"))

    outcome = world.upgrade(run, wider)

    assert faults(outcome) == {"j": "would wait for ever for b, which cannot come any more"}
    assert "it will never run here" in warnings(outcome)["b"]


@pytest.mark.parametrize("ended", [False, True])
def test_a_join_may_come_to_name_a_task_of_a_case_that_was_not_chosen(ended: bool) -> None:
    """Whether the chosen case has ended by then or not: the join hears that the other one never runs."""

    def forked(*waited: str) -> list[dict[str, Any]]:
        chosen = switch("s", "x", {"x": [simple("a")], "y": [simple("b")]})
        return [fork("f", [chosen], [simple("c")]), join("j", *waited), simple("z")]

    world = World(flow(*forked("c")))
    run = world.start("flow")
    if ended:
        world.result(run, "a")

    outcome = world.upgrade(run, version(2, *forked("a", "b", "c")))

    assert outcome.verdict is Verdict.APPLIED
    world.result(run, "c")
    if not ended:
        assert world.row(run, "j").status is TaskStatus.IN_PROGRESS
        world.result(run, "a")
    world.result(run, "z")
    assert world.status(run) == "COMPLETED"


def test_a_running_fork_with_another_join_forbids_it() -> None:
    world = World(flow(fork("f", [simple("a")]), join("j", "a")))
    run = world.start("flow")
    other = version(2, fork("f", [simple("a")]), join("k", "a"), fork("g", [simple("b")]), join("j", "a"))

    assert "no longer follows the fork f" in faults(world.upgrade(run, other))["j"]


def test_a_dynamic_fork_that_is_gone_forbids_it() -> None:
    inputs = {"forkTaskName": "t", "forkTaskInputs": [{"n": 1}]}
    world = World(flow(task("FORK_JOIN_DYNAMIC", "d", inputs), join("j")))
    run = world.start("flow")

    outcome = world.upgrade(run, version(2, fork("f", [simple("a")]), join("j", "a")))

    assert "in its branch _t_0" in faults(outcome)["d"]


def test_another_workflow_forbids_it() -> None:
    world = World(flow(simple("a")))
    run = world.start("flow")

    assert "not a version of that" in faults(world.upgrade(run, {**flow(simple("a")), "name": "else"}))[""]


def test_what_has_ended_is_not_upgraded() -> None:
    world = World(flow(simple("a")))
    run = world.start("flow")
    world.happen(run, Terminate(now_ms=world.now_ms, reason=""))

    outcome = world.upgrade(run, version(2, simple("a"), simple("b")))

    assert outcome.verdict is Verdict.REFUSED
    assert "it is TERMINATED" in outcome.reason


# --- what is only warned of -----------------------------------------------------------------------


def test_a_task_behind_the_flow_never_runs_and_is_named() -> None:
    world = World(flow(simple("a"), switch("s", "x", {"x": [simple("b")]}), simple("z")))
    run = world.start("flow")
    world.result(run, "a")
    cases = {"x": [simple("b0"), simple("b")], "y": [simple("c")]}
    new = version(2, simple("early"), simple("a"), switch("s", "x", cases), simple("late"), simple("z"))

    outcome = world.upgrade(run, new)

    assert outcome.verdict is Verdict.APPLIED
    assert list(warnings(outcome)) == ["early", "b0", "c"]
    for reference in ("b", "late", "z"):
        world.result(run, reference)
    assert world.status(run) == "COMPLETED"


def test_a_task_early_in_a_loops_body_runs_from_the_next_turn() -> None:
    world = World(flow(loop("l", [simple("a")], 2)))
    run = world.start("flow")

    outcome = world.upgrade(run, version(2, loop("l", [simple("b"), simple("a")], 2)))

    assert warnings(outcome) == {"b": "is new, and runs from the next turn of l on"}
    world.result(run, "a__1")
    world.result(run, "b__2")
    world.result(run, "a__2")
    assert world.status(run) == "COMPLETED"


# --- TRY and compensation -------------------------------------------------------------------------


def test_a_try_goes_on_with_its_new_cases_and_finally() -> None:
    world = World(flow(guarded("g", [simple("a")], catch(simple("c"), names=("Odd",)))))
    run = world.start("flow")
    new = guarded("g", [simple("a"), simple("b")], catch(simple("d"), names=("Even",)), last=[simple("f")])

    outcome = world.upgrade(run, version(2, new))

    assert outcome.verdict is Verdict.APPLIED
    changes = {
        change["reference"]: (change["change"], change["fields"]) for change in report(outcome)["changes"]
    }
    assert changes == {
        "g": ("CHANGED", ["catchCases", "tasks"]),
        "c": ("REMOVED", []),
        "b": ("ADDED", []),
        "d": ("ADDED", []),
        "f": ("ADDED", []),
    }
    world.result(run, "a")
    world.result(run, "b", status=TaskStatus.FAILED_WITH_TERMINAL_ERROR, error_name="Even")
    world.result(run, "d")
    world.result(run, "f")
    assert world.status(run) == "COMPLETED"


@pytest.mark.parametrize(
    ("new", "place"),
    [
        (guarded("g", [simple("b")], catch(simple("a"))), "inside g.catchCases[0]"),
        (guarded("g", [simple("b")], last=[simple("a")]), "inside g.finallyTasks"),
        (simple("g", compensate=[simple("a")]), "inside g.compensate"),
    ],
)
def test_an_open_task_in_another_part_of_its_try_forbids_it(new: Any, place: str) -> None:
    world = World(flow(guarded("g", [simple("a")])))
    run = world.start("flow")

    told = faults(world.upgrade(run, version(2, new)))

    assert told["a"].endswith(f"inside g.tryTasks, which would be {place}")


def test_a_new_time_limit_of_a_try_is_that_of_its_body() -> None:
    def limited(seconds: int) -> dict[str, Any]:
        clock = {"name": "g", "retryCount": 0, "timeoutSeconds": seconds}
        body = [simple("a"), simple("b")]
        return guarded("g", body, catch(simple("c")), taskDefinition=clock)

    world = World(flow(limited(0)))
    in_body, in_case = world.start("flow"), world.start("flow")
    world.result(in_case, "a", status=TaskStatus.FAILED_WITH_TERMINAL_ERROR)

    for run in (in_body, in_case):
        assert world.upgrade(run, version(2, limited(30))).verdict is Verdict.APPLIED
    world.advance(31)

    assert world.shown(in_body)[:2] == ["g:IN_PROGRESS", "a:CANCELED"]
    assert world.shown(in_case) == ["g:IN_PROGRESS", "a:FAILED_WITH_TERMINAL_ERROR", "c:SCHEDULED"]


def undone(reference: str, *chain: str) -> dict[str, Any]:
    return simple(reference, compensate=[simple(name) for name in chain])


def test_what_has_completed_is_undone_as_the_new_version_says() -> None:
    world = World(flow(undone("a", "ua"), simple("b"), simple("c")))
    run = world.start("flow")
    world.result(run, "a")
    world.result(run, "b")

    outcome = world.upgrade(run, version(2, undone("a", "ua2"), undone("b", "ub"), simple("c")))

    assert warnings(outcome) == {}
    assert "__compensate" not in str(report(outcome))
    world.result(run, "c", status=TaskStatus.FAILED_WITH_TERMINAL_ERROR)
    world.result(run, "ub")
    world.result(run, "ua2")
    assert world.status(run) == "FAILED"


def test_what_is_not_undone_any_more_is_warned_of() -> None:
    world = World(flow(undone("a", "ua"), undone("late", "ul"), simple("c")))
    run = world.start("flow")
    world.result(run, "a")

    outcome = world.upgrade(run, version(2, simple("a"), simple("late"), simple("c")))

    assert outcome.verdict is Verdict.APPLIED
    assert warnings(outcome) == {
        "a": "has completed, and is not compensated any more: the new version has no compensate for it"
    }
    world.result(run, "late", status=TaskStatus.FAILED_WITH_TERMINAL_ERROR)
    assert world.status(run) == "FAILED"


def test_a_compensation_under_way_goes_on_with_what_the_new_version_undoes() -> None:
    world = World(flow(undone("a", "ua"), undone("b", "ub"), undone("c", "uc"), simple("d")))
    run = world.start("flow")
    for reference in ("a", "b", "c"):
        world.advance(1)
        world.result(run, reference)
    world.result(run, "d", status=TaskStatus.FAILED_WITH_TERMINAL_ERROR)
    assert world.row(run, "uc").status is TaskStatus.SCHEDULED

    gone = faults(world.upgrade(run, version(2, simple("a"), simple("b"), simple("c"), simple("d"))))
    assert gone[""] == "it is compensating, and the new version has no task with compensate"
    new = version(2, undone("a", "ua"), simple("b"), undone("c", "uc"), simple("d"))
    assert world.upgrade(run, new).verdict is Verdict.APPLIED

    world.result(run, "uc")
    world.result(run, "ua")
    assert world.status(run) == "FAILED"
    assert "ub" not in {row.reference for row in world.rows(run)}


# --- how many may run at once ---------------------------------------------------------------------


def slotted(number: int, limit: int, *tasks: dict[str, Any]) -> dict[str, Any]:
    config = {"rateLimitConfig": {"rateLimitKey": "k", "concurrentExecLimit": limit}} if limit else {}
    return version(number, *tasks, **config)


@pytest.mark.parametrize("limit", [0, 5])
def test_a_workflow_that_waits_for_its_slot_begins_by_the_new_plan(limit: int) -> None:
    world = World(slotted(1, 1, simple("a")))
    run = world.start("flow")
    assert world.shown(run) == []

    outcome = world.upgrade(run, slotted(2, limit, simple("first"), simple("a")))

    assert outcome.verdict is Verdict.APPLIED
    assert warnings(outcome) == {}
    world.happen(run, SlotGranted(now_ms=world.now_ms))
    assert world.shown(run) == ["first:SCHEDULED"]


@pytest.mark.parametrize(("before", "after", "given_back"), [(1, 0, True), (1, 5, True), (0, 5, False)])
def test_a_slot_that_is_held_is_given_back_whatever_the_new_version_says(
    before: int, after: int, given_back: bool
) -> None:
    """And one that was not taken is not: the new limit counts starts from then on."""
    world = World(slotted(1, before, simple("a")))
    run = world.start("flow")
    if before:
        world.happen(run, SlotGranted(now_ms=world.now_ms))
    world.upgrade(run, slotted(2, after, simple("a")))

    world.slots.clear()
    world.result(run, "a")

    assert world.status(run) == "COMPLETED"
    assert [slot.slots for slot in world.slots] == ([0] if given_back else [])


# --- any definition, any moment -------------------------------------------------------------------

anything = documents() | documents(sagas=True)


def play(
    world: World, seed: int, order: random.Random, at: int, new: Any, failing: float, *, pausing: bool = False
) -> tuple[str, Outcome | None]:
    """Play the document, and change over to another one before the step `at`; what was answered to that.
    `pausing`: it is PAUSED from the step before until then, and comes to a stop with work held back."""
    run = world.start("flow", {"k": 7})
    outcome: Outcome | None = None
    for step in range(STEPS_MAX):
        if pausing and step == at - 1:
            world.happen(run, Pause(now_ms=world.now_ms))
        if step == at and not world.header(run).status.terminal:
            outcome = world.upgrade(run, new)
            assert outcome.verdict is Verdict.APPLIED, report(outcome)
            world.happen(run, Resume(now_ms=world.now_ms))
        pending = [
            (stored_id, row)
            for stored_id in sorted(world.workflows)
            for row in world.open_worker_rows(stored_id)
        ]
        if pending:
            stored_id, row = order.choice(pending)
            status, output, reason, name = outcome_of(seed, row, failing)
            world.report(stored_id, row.seq, output, status, reason=reason, error_name=name)
        elif any(stored.deadlines for stored in world.workflows.values()):
            world.advance(5)
        else:
            break
    return run, outcome


@QUICK
@given(anything, seeds, st.integers(0, 30), st.booleans(), st.booleans())
def test_upgrading_to_the_same_changes_nothing(
    document: Any, seed: int, at: int, partial: bool, pausing: bool
) -> None:
    pictures = []
    for number in (1, 2):
        world = World(document, CHILD, partial=partial)
        new = {**copy.deepcopy(document), "version": number}
        run, _ = play(world, seed, random.Random(seed), at, new, 0.3, pausing=pausing)
        pictures.append(picture(world, run))
        note("\n".join(world.history))
    assert pictures[0] == pictures[1]


@QUICK
@given(documents(), seeds, st.integers(0, 30))
def test_what_is_appended_runs_unless_it_is_warned_of(document: Any, seed: int, at: int) -> None:
    """A join that waits for nothing lets the flow pass although its branches still run."""
    world = World(document, CHILD)
    longer = copy.deepcopy(document)
    longer["version"] = 2
    longer["tasks"].append(inline("appended", "1 + 1"))

    run, outcome = play(world, seed, random.Random(seed), at, longer, failing=0)

    assert world.status(run) == "COMPLETED"
    ran = [row.status.name for row in world.rows(run) if row.reference == "appended"]
    upgraded = outcome is not None and "appended" not in warnings(outcome)
    assert ran == (["COMPLETED"] if upgraded else [])


@QUICK
@given(anything, anything, seeds, st.integers(0, 9), st.booleans())
def test_any_other_document_is_taken_or_refused(
    one: Any, other: Any, seed: int, at: int, partial: bool
) -> None:
    """What the world checks after each decision holds, and every workflow comes to its end."""
    world = World(one, CHILD, partial=partial)
    order = random.Random(seed)
    run = world.start("flow", {"k": 7})
    new = {**other, "version": 2}
    taken = False
    for step in range(STEPS_MAX):
        if step == at and not world.header(run).status.terminal:
            dry = world.upgrade(run, new, dry_run=True)
            real = world.upgrade(run, new)
            assert real.report == dry.report
            taken = real.verdict is Verdict.APPLIED
            assert taken is not bool(report(real)["faults"])
        pending = [
            (stored_id, row)
            for stored_id in sorted(world.workflows)
            for row in world.open_worker_rows(stored_id)
        ]
        if pending:
            stored_id, row = order.choice(pending)
            status, output, reason, name = outcome_of(seed, row, 0.2)
            world.report(stored_id, row.seq, output, status, reason=reason, error_name=name)
        elif any(stored.deadlines for stored in world.workflows.values()):
            world.advance(5)
        else:
            break
    note("\n".join(world.history))
    assert world.header(run).status.terminal, taken


def test_a_workflow_that_failed_after_an_upgrade_is_retried_and_restarted_under_it() -> None:
    world = World(flow(simple("a")))
    run = world.start("flow")
    world.upgrade(run, version(2, simple("a"), simple("b")))
    world.result(run, "a", status=FAILED)

    world.happen(run, Retry(now_ms=world.now_ms))
    world.result(run, "a")
    world.result(run, "b", status=FAILED)
    world.happen(run, Restart(now_ms=world.now_ms))

    assert (world.header(run).version, world.shown(run)) == (2, ["a:SCHEDULED"])
