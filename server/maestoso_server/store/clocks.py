"""The clocks of a delivery, as SQL over a row `q` of `task_queue`.

`started_ms` is when this attempt was first read (0 = not yet), `progress_ms` when its current
delivery was read or last made progress. The response clock runs from the later of the two, the
time-out from the start, and `total_due_ms` stands in the row.
"""

from __future__ import annotations


def first_start(row: str, at: str) -> str:
    """The start of an attempt that is being read at `at`: the first reading counts."""
    return f"CASE WHEN {row}.started_ms = 0 THEN {at} ELSE {row}.started_ms END"


def _clocks(started: str, progressed: str) -> tuple[str, str, str]:
    # bigint: 2,147,484 s are more milliseconds than an integer holds.
    return (
        f"CASE WHEN q.response_s > 0"
        f" THEN greatest({started}, {progressed}) + q.response_s::bigint * 1000 END",
        f"CASE WHEN q.timeout_s > 0 THEN {started} + q.timeout_s::bigint * 1000 END",
        "nullif(q.total_due_ms, 0)",
    )


def next_clock(started: str, progressed: str) -> str:
    """The earliest clock of a delivery that has started; NULL where it has none."""
    return f"least({', '.join(_clocks(started, progressed))})"


def next_clock_after(now: str) -> str:
    """The earliest clock of row `q` that is still to come; NULL where there is none."""
    clocks = _clocks("q.started_ms", "q.progress_ms")
    later = (f"CASE WHEN {clock} > {now} THEN {clock} END" for clock in clocks)
    return f"least({', '.join(later)})"
