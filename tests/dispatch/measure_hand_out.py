"""How much Python one task costs on the server's side of a stream: run it, it is no test.

    PYTHONPATH=server:sdk/python:tests python tests/dispatch/measure_hand_out.py [TASKS_PER_FRAME]

Each round: the bytes of a Results frame are parsed and received, every result is submitted and
decided, a successor is reserved and placed for each, and the frames for the worker are built and
serialised. 300 bytes of input and output; the executor is the caller's own loop.
"""

from __future__ import annotations

import sys
import time

from dispatch_kit import NAMESPACE, Desk, make_placed, make_session
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso_server.engine.decision import APPLIED, QueueBirth
from maestoso_server.payload import Json

PAYLOAD = b'{"text":"' + b"x" * 288 + b'"}'
ROUNDS = 3_000


def birth(seq: int) -> QueueBirth:
    return QueueBirth(seq=seq, queue="work", task_type="work", priority=0, due_ms=0, size=300)


def main(per_frame: int) -> None:
    desk = Desk()
    dispatcher = desk.dispatcher
    session = desk.open(make_session(tasks=per_frame * 2))
    waiting = []
    for seq in range(1, per_frame + 1):
        first = birth(seq)
        dispatcher.reserve(NAMESPACE, first)
        waiting.append(make_placed(seq, "s-1", first))
    dispatcher.placed(waiting)
    template = waiting[0]
    spent = 0.0
    seq = per_frame
    tokens = [task.token for frame in dispatcher.frames(session) for task in frame.tasks.tasks]
    for _ in range(ROUNDS):
        report = wire.ConnectRequest()
        for token in tokens:
            report.results.results.add(token=token, output=PAYLOAD)
        raw = report.SerializeToString()
        births = []
        for _ in range(per_frame):
            seq = seq % 10_000_000 + 1
            births.append(birth(seq))
        rows = []
        for item in births:
            made = make_placed(item.seq, "s-1", item)
            made.header = template.header
            made.row.input = Json(PAYLOAD)
            rows.append(made)
        began = time.perf_counter()
        dispatcher.receive(session, wire.ConnectRequest.FromString(raw))
        submitted, desk.outside.submitted = desk.outside.submitted, []
        for item in births:
            assert dispatcher.reserve(NAMESPACE, item) is not None
        for workflow_id, event, _ in submitted:
            dispatcher.ended(workflow_id, [event.seq])  # type: ignore[attr-defined]
        dispatcher.placed(rows)
        for _, _, done in submitted:
            assert done is not None
            done(APPLIED)
        written = dispatcher.frames(session)
        for frame in written:
            frame.SerializeToString()
        spent += time.perf_counter() - began
        tokens = [task.token for frame in written for task in frame.tasks.tasks]
        dispatcher.owed.reads.clear()
        assert len(tokens) == per_frame
    print(f"{per_frame} tasks a frame: {spent / ROUNDS / per_frame * 1e6:.1f} us a task")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
