"""TaskService on a real server: the worker stream and its unary twins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from maestoso.error.v1 import error_pb2
from maestoso.task.v1 import task_service_pb2 as wire
from maestoso.task.v1.task_pb2 import (
    RESULT_OUTCOME_ACCEPTED,
    RESULT_OUTCOME_REFUSED,
    RESULT_OUTCOME_STALE,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_IN_PROGRESS,
    TASK_STATUS_SCHEDULED,
    Callback,
    Capacity,
    Failure,
    TaskResult,
)
from maestoso_server.clock import ManualClock, SystemClock
from maestoso_server.config import Config
from maestoso_server.server import Server
from servers import serving
from store_kit import Faulty
from worker_kit import DEADLINE_S, Caller, calling, chain, eventually, hello_of, offer


@pytest.fixture
async def caller(live_server: Server) -> AsyncIterator[Caller]:
    async with calling(live_server.grpc_address) as made:
        yield made


async def refused(call: object) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call  # type: ignore[misc]
    code: grpc.StatusCode = refusal.value.code()
    return code


class TestStream:
    async def test_the_simplest_worker_runs_a_workflow(self, caller: Caller) -> None:
        await caller.register(chain("one", "two", inputParameters={"n": "${workflow.input.n}"}))
        async with caller.worker("one", "two") as worker:
            workflow_id = await caller.start(input=b'{"n":1.0}', correlation_id="c", traceparent="00-trace")

            first = await worker.task()
            assert (first.task_type, first.reference, first.input) == ("one", "one_0", b'{"n":1.0}')
            assert (first.workflow_id, first.workflow_name) == (workflow_id, "chain")
            assert (first.correlation_id, first.traceparent) == ("c", "00-trace")
            assert (first.attempt, first.redelivery) == (0, 0)
            assert await worker.finish(first, b'{"done":9007199254740993}') == RESULT_OUTCOME_ACCEPTED
            second = await worker.task()
            assert await worker.finish(second) == RESULT_OUTCOME_ACCEPTED

        workflow = await caller.get(workflow_id)
        assert await caller.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"
        assert [task.worker_id for task in workflow.tasks] == ["w", "w"]
        assert workflow.tasks[0].output == b'{"done":9007199254740993}'
        assert (
            workflow.tasks[0].start_time.ToMilliseconds() >= workflow.tasks[0].schedule_time.ToMilliseconds()
        )

    async def test_a_task_that_was_read_is_in_progress(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as worker:
            workflow_id = await caller.start()
            await worker.task()

            async def status() -> int:
                return (await caller.get(workflow_id)).tasks[0].status

            await eventually(status, TASK_STATUS_IN_PROGRESS)
            task = (await caller.get(workflow_id)).tasks[0]
            assert task.worker_id == "w"
            assert task.start_time.ToMilliseconds() > 0

    async def test_a_backlog_is_taken_in_order_as_capacity_allows(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        later = await caller.start()
        urgent = await caller.start(priority=9)
        async with caller.worker("one", tasks=1) as worker:
            first = await worker.task()
            assert first.workflow_id == urgent
            await worker.finish(first)

            second = await worker.task()

            assert second.workflow_id == later

    async def test_a_task_with_a_domain_goes_to_its_workers_only(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one", worker_id="plain") as plain, caller.worker("blue:one") as blue:
            routed = await caller.start(task_to_domain={"one": "blue"})
            free = await caller.start()

            assert (await blue.task()).workflow_id == routed
            assert (await plain.task()).workflow_id == free

    async def test_a_repeated_result_is_stale(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as worker:
            await caller.start()
            task = await worker.task()

            assert await worker.finish(task) == RESULT_OUTCOME_ACCEPTED
            assert await worker.finish(task) == RESULT_OUTCOME_STALE

    async def test_an_output_that_is_no_object_is_refused_and_may_be_mended(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as worker:
            workflow_id = await caller.start()
            task = await worker.task()

            assert await worker.finish(task, b'{"a":NaN}') == RESULT_OUTCOME_REFUSED
            assert worker.acks[task.token].error.reason == error_pb2.REASON_INVALID_JSON
            assert await worker.finish(task, b'{"a":1}') == RESULT_OUTCOME_ACCEPTED

        assert await caller.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"

    async def test_an_output_over_the_limit_is_refused_with_limit_and_size(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as worker:
            await caller.start()
            task = await worker.task()

            assert await worker.finish(task, b'{"a":"' + b"x" * 4_194_304 + b'"}') == RESULT_OUTCOME_REFUSED
            error = worker.acks[task.token].error
            assert error.reason == error_pb2.REASON_TOO_LARGE
            assert "4,194,304" in error.message
            assert "4,194,312" in error.message

    async def test_a_failed_task_is_tried_again(self, caller: Caller) -> None:
        await caller.register(chain("one"), {"name": "one", "retryCount": 1, "retryDelaySeconds": 0})
        async with caller.worker("one") as worker:
            workflow_id = await caller.start()
            first = await worker.task()
            await worker.report(TaskResult(token=first.token, failure=Failure(message="no", type="Oops")))

            second = await worker.task()

            assert second.attempt == 1
            assert second.idempotency_key == first.idempotency_key
            await worker.finish(second)
        tasks = (await caller.get(workflow_id)).tasks
        assert tasks[0].reason == "Oops: no"

    async def test_a_task_handed_back_goes_out_again_as_the_same_attempt(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as worker:
            await caller.start()
            first = await worker.task()
            await worker.send(nacks=wire.Nacks(nacks=[wire.Nack(token=first.token)]))
            await worker.send(capacity=Capacity(tasks=3))

            again = await worker.task()

            assert (again.task_id, again.attempt, again.redelivery) == (first.task_id, 0, 0)
            assert again.token != first.token
            assert await worker.finish(first) == RESULT_OUTCOME_STALE
            assert await worker.finish(again) == RESULT_OUTCOME_ACCEPTED

    async def test_a_terminated_workflow_cancels_its_tasks(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one", tasks=1) as worker:
            workflow_id = await caller.start()
            task = await worker.task()

            await caller.terminate(workflow_id)

            frame = await worker.frame("cancels")
            assert frame.cancels.cancels[0].token == task.token
            assert await worker.finish(task) == RESULT_OUTCOME_STALE
            other = await caller.start()
            assert (await worker.task()).workflow_id == other

    async def test_a_draining_worker_finishes_and_gets_nothing_new(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one", worker_id="leaving") as leaving:
            await caller.start()
            task = await leaving.task()
            await leaving.send(drain=wire.Drain(reason="deploy"))
            assert await leaving.finish(task) == RESULT_OUTCOME_ACCEPTED
            waiting = await caller.start()

            async with caller.worker("one", worker_id="staying") as staying:
                assert (await staying.task()).workflow_id == waiting

    async def test_a_cut_stream_is_resumed_with_what_it_held(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as worker:
            workflow_id = await caller.start()
            task = await worker.task()
            welcome = worker.welcome
        again = {"session_id": welcome.session_id, "resume_token": welcome.resume_token}
        async with caller.worker("one", held=[task.token, b"never ours"], **again) as worker:
            assert worker.welcome.resumed
            assert worker.welcome.session_id == welcome.session_id
            assert list(worker.welcome.kept) == [task.token]
            assert list(worker.welcome.revoked) == [b"never ours"]

            assert await worker.finish(task) == RESULT_OUTCOME_ACCEPTED

        assert await caller.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"

    async def test_a_task_that_a_resumed_worker_does_not_hold_was_unread(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as worker:
            await caller.start()
            task = await worker.task()
            welcome = worker.welcome
        again = {"session_id": welcome.session_id, "resume_token": welcome.resume_token}
        async with caller.worker("one", **again) as worker:
            assert worker.welcome.redelivered == 1

            once_more = await worker.task()

            assert (once_more.task_id, once_more.attempt, once_more.redelivery) == (task.task_id, 0, 1)

    async def test_a_newer_stream_takes_the_session_over(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as old:
            again = {"session_id": old.welcome.session_id, "resume_token": old.welcome.resume_token}
            async with caller.worker("one", **again) as new:
                assert new.welcome.resumed

                assert await old.end() is grpc.StatusCode.ABORTED

    async def test_a_wrong_secret_resumes_nothing_and_harms_nobody(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as owner:
            theft = {"session_id": owner.welcome.session_id, "resume_token": b"guessed"}
            async with caller.worker("one", tasks=0, held=[b"x" * 24], **theft) as thief:
                assert not thief.welcome.resumed
                assert thief.welcome.session_id != owner.welcome.session_id
                assert list(thief.welcome.revoked) == [b"x" * 24]
            await caller.start()
            assert await owner.finish(await owner.task()) == RESULT_OUTCOME_ACCEPTED

    async def test_a_bad_frame_is_answered_on_a_living_stream(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as worker:
            await worker.send(capacity=Capacity(tasks=10_001))

            frame = await worker.frame("frame_error")

            assert frame.frame_error.error.reason == error_pb2.REASON_BAD_FRAME
            assert frame.frame_error.frame_number == 2
            await caller.start()
            assert await worker.finish(await worker.task()) == RESULT_OUTCOME_ACCEPTED

    async def test_a_stream_must_begin_with_hello(self, caller: Caller) -> None:
        call = caller.tasks.Connect()
        await call.write(wire.ConnectRequest(pong=wire.Pong(number=1)))

        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT

    async def test_a_second_hello_ends_the_stream(self, caller: Caller) -> None:
        async with caller.worker("one") as worker:
            await worker.send(hello=hello_of("one"))

            assert await worker.end() is grpc.StatusCode.INVALID_ARGUMENT

    @pytest.mark.parametrize(
        "hello",
        [
            hello_of(),
            hello_of("one", worker_id=""),
            hello_of("one", tasks=-1),
            hello_of("one", session_id="0197a0c8-0000-4000-8000-000000000000"),
            hello_of("x" * 256),
        ],
        ids=["no types", "no name", "negative capacity", "a session without its secret", "a long type"],
    )
    async def test_a_wrong_hello_is_refused_with_its_fields(self, caller: Caller, hello: wire.Hello) -> None:
        call = caller.tasks.Connect()
        await call.write(wire.ConnectRequest(hello=hello))

        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "hello." in await call.details()

    async def test_an_unknown_namespace_is_not_found(self, caller: Caller) -> None:
        call = caller.tasks.Connect()
        await call.write(wire.ConnectRequest(hello=hello_of("one", namespace="nowhere")))

        assert await call.code() is grpc.StatusCode.NOT_FOUND

    async def test_a_stream_that_the_worker_ends_ends_well(self, caller: Caller) -> None:
        async with caller.worker("one") as worker:
            await worker.call.done_writing()

            assert await worker.end() is grpc.StatusCode.OK

    async def test_a_stopping_server_tells_its_workers(self, server_config: Config) -> None:
        async with (
            serving(server_config, SystemClock()) as server,
            calling(server.grpc_address) as caller,
            caller.worker("one") as worker,
        ):
            stopping = asyncio.ensure_future(server.stop())

            frame = await worker.frame("move")

            assert frame.move.reason == wire.MOVE_REASON_STOPPING
            worker.cut()
            await stopping


class TestLimit:
    async def test_no_more_than_the_limit_run_at_once(self, caller: Caller) -> None:
        await caller.register(chain("one"), {"name": "one", "concurrentExecLimit": 2})
        workflows = [await caller.start() for _ in range(5)]
        async with caller.worker("one") as worker:
            done = set()
            held = [*(await worker.frame("tasks")).tasks.tasks]
            while len(done) < len(workflows):
                assert len(held) <= 2
                task = held.pop()
                await worker.finish(task)
                done.add(task.workflow_id)
                if len(done) + len(held) < len(workflows):
                    held += (await worker.frame("tasks")).tasks.tasks

        assert done == set(workflows)


class TestPoll:
    async def test_answers_at_once_where_nothing_waits(self, caller: Caller) -> None:
        assert list(await caller.poll("one")) == []

    async def test_takes_what_waits(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        ids = {await caller.start(), await caller.start(), await caller.start()}

        tasks = await caller.poll("zero", "one", count=2)

        assert len(tasks) == 2
        assert {task.workflow_id for task in tasks} < ids
        row = (await caller.get(tasks[0].workflow_id)).tasks[0]
        assert (row.status, row.worker_id) == (TASK_STATUS_IN_PROGRESS, "p")
        assert row.start_time.ToMilliseconds() > 0

    async def test_waits_for_the_first_one(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        polls = [asyncio.ensure_future(caller.poll("one", wait_s=60)) for _ in range(3)]

        ids = {await caller.start() for _ in range(3)}

        tasks = [(await asyncio.wait_for(poll, DEADLINE_S))[0] for poll in polls]
        assert {task.workflow_id for task in tasks} == ids
        acks = await caller.report(*(TaskResult(token=task.token, output=b"{}") for task in tasks))
        assert [ack.outcome for ack in acks] == [RESULT_OUTCOME_ACCEPTED] * 3

    async def test_first_come_first_served(self, caller: Caller, live_server: Server) -> None:
        await caller.register(chain("one"))
        first = asyncio.ensure_future(caller.poll("one", wait_s=60, worker_id="first"))
        polling = live_server._core.polling  # type: ignore[union-attr]
        await eventually(_pollers(polling, 1), True)
        second = asyncio.ensure_future(caller.poll("one", wait_s=60, worker_id="second"))
        await eventually(_pollers(polling, 2), True)

        workflow_id = await caller.start()

        assert (await asyncio.wait_for(first, DEADLINE_S))[0].workflow_id == workflow_id
        assert not second.done()
        second.cancel()

    async def test_that_was_cancelled_hands_its_rows_back(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        for _ in range(5):
            poll = asyncio.ensure_future(caller.poll("one", wait_s=60))
            await asyncio.sleep(0)
            poll.cancel()
        workflow_id = await caller.start()

        (task,) = await caller.poll("one", wait_s=DEADLINE_S)

        assert (task.workflow_id, task.redelivery) == (workflow_id, 0)

    async def test_costs_nothing_while_it_waits(self, server_config: Config) -> None:
        faults, polls = Faulty(), 200
        async with (
            serving(server_config, ManualClock(), faults) as server,
            calling(server.grpc_address) as caller,
        ):
            await caller.register(chain("one"))
            waiting = [asyncio.ensure_future(caller.poll("one", wait_s=60)) for _ in range(polls)]
            polling = server._core.polling  # type: ignore[union-attr]
            await eventually(_pollers(polling, polls), True)
            await eventually(_looked(polling), True)
            faults.seen.clear()

            workflow_id = await caller.start()
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE_S)

            assert [(await poll)[0].workflow_id for poll in done] == [workflow_id]
            # The start, the take that brought the task and the one that found nothing more.
            assert len([sql for sql in faults.seen if "task_queue" in sql]) <= 4
            for poll in waiting:
                poll.cancel()

    async def test_shares_the_queue_with_streams(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one", tasks=1) as worker:
            streamed = await caller.start()
            task = await worker.task()
            polled = await caller.start()

            (other,) = await caller.poll("one", wait_s=DEADLINE_S)

            assert (task.workflow_id, other.workflow_id) == (streamed, polled)

    async def test_refuses_what_it_cannot_do(self, caller: Caller) -> None:
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        long = wire.PollTasksRequest(task_types=[offer("one")])
        long.wait.FromSeconds(61)
        for request in (
            wire.PollTasksRequest(),
            wire.PollTasksRequest(task_types=[offer("")]),
            wire.PollTasksRequest(task_types=[offer("one")] * 101),
            wire.PollTasksRequest(task_types=[offer("one")], max_tasks=1_001),
            wire.PollTasksRequest(task_types=[offer("one")], max_tasks=-1),
            wire.PollTasksRequest(task_types=[offer("one")], worker_id="x" * 256),
            long,
        ):
            assert await refused(caller.tasks.PollTasks(request)) is invalid
        elsewhere = wire.PollTasksRequest(task_types=[offer("one")], namespace="nowhere")
        assert await refused(caller.tasks.PollTasks(elsewhere)) is grpc.StatusCode.NOT_FOUND


class TestReport:
    async def test_each_item_has_its_own_outcome(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        for _ in range(2):
            await caller.start()
        good, bad = await caller.poll("one", count=2)

        acks = await caller.report(
            TaskResult(token=good.token, output=b"{}"),
            TaskResult(token=bad.token, output=b"[]"),
            TaskResult(token=b"nobody's", output=b"{}"),
            TaskResult(token=good.token, output=b"{}"),
        )

        outcomes = [ack.outcome for ack in acks]
        assert outcomes[1:3] == [RESULT_OUTCOME_REFUSED, RESULT_OUTCOME_STALE]
        assert sorted(outcomes[::3]) == [RESULT_OUTCOME_ACCEPTED, RESULT_OUTCOME_STALE]
        assert [ack.token for ack in acks] == [good.token, bad.token, b"nobody's", good.token]

    async def test_without_a_token_acts_for_its_worker(self, caller: Caller) -> None:
        await caller.register(chain("one", "two"))
        workflow_id = await caller.start()
        (task,) = await caller.poll("one")

        wrong, right = [
            (await caller.report(TaskResult(task_id=task.task_id, worker_id=worker, output=b"{}")))[0]
            for worker in ("somebody else", "p")
        ]

        assert (wrong.outcome, wrong.task_id) == (RESULT_OUTCOME_STALE, task.task_id)
        assert right.outcome == RESULT_OUTCOME_ACCEPTED
        tasks = (await caller.get(workflow_id)).tasks
        assert [row.status for row in tasks] == [TASK_STATUS_COMPLETED, TASK_STATUS_SCHEDULED]

    async def test_without_a_token_ends_a_task_that_nobody_has_taken(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        workflow_id = await caller.start()
        task_id = (await caller.get(workflow_id)).tasks[0].task_id

        (ack,) = await caller.report(TaskResult(task_id=task_id, output=b"{}"))

        assert ack.outcome == RESULT_OUTCOME_ACCEPTED
        assert await caller.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"
        assert list(await caller.poll("one")) == []

    async def test_without_a_token_cancels_the_stream_that_has_it(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as worker:
            await caller.start()
            task = await worker.task()

            (ack,) = await caller.report(TaskResult(task_id=task.task_id, output=b"{}"))

            assert ack.outcome == RESULT_OUTCOME_ACCEPTED
            assert (await worker.frame("cancels")).cancels.cancels[0].token == task.token

    async def test_completes_a_task_that_waits_for_people(self, caller: Caller) -> None:
        human = {"name": "ask", "taskReferenceName": "ask", "type": "HUMAN"}
        await caller.register({"name": "asking", "version": 1, "schemaVersion": 2, "tasks": [human]})
        workflow_id = await caller.start("asking")
        task_id = (await caller.get(workflow_id)).tasks[0].task_id

        (ack,) = await caller.report(TaskResult(task_id=task_id, output=b'{"yes":true}'))

        assert ack.outcome == RESULT_OUTCOME_ACCEPTED
        assert await caller.status(workflow_id) == "WORKFLOW_STATUS_COMPLETED"

    async def test_of_no_task_is_stale(self, caller: Caller) -> None:
        acks = await caller.report(
            TaskResult(task_id="0197a0c8-0000-7000-8000-000000000001", output=b"{}"),
            TaskResult(task_id="not an id", output=b"{}"),
            TaskResult(output=b"{}"),
        )

        assert [ack.outcome for ack in acks] == [RESULT_OUTCOME_STALE] * 3

    async def test_takes_one_to_a_thousand(self, caller: Caller) -> None:
        for request in (wire.ReportTasksRequest(), wire.ReportTasksRequest(results=[TaskResult()] * 1_001)):
            assert await refused(caller.tasks.ReportTasks(request)) is grpc.StatusCode.INVALID_ARGUMENT

    async def test_not_finished_goes_out_again_later(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        workflow_id = await caller.start()
        (task,) = await caller.poll("one")
        callback = Callback(output=b'{"half":1}')
        callback.after.FromMilliseconds(1)

        (ack,) = await caller.report(TaskResult(token=task.token, callback=callback))
        assert ack.outcome == RESULT_OUTCOME_ACCEPTED

        (again,) = await caller.poll("one", wait_s=DEADLINE_S)
        assert (again.task_id, again.attempt) == (task.task_id, 0)
        assert (await caller.get(workflow_id)).tasks[0].output == b'{"half":1}'


class TestExtend:
    async def test_shows_the_output_so_far(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        workflow_id = await caller.start()
        (task,) = await caller.poll("one")
        request = wire.ExtendTasksRequest(
            items=[
                wire.ProgressItem(token=task.token, output=b'{"done":3}'),
                wire.ProgressItem(token=b"nobody's"),
                wire.ProgressItem(token=task.token, output=b"[]"),
            ]
        )

        response = await caller.tasks.ExtendTasks(request, timeout=DEADLINE_S)

        assert [ack.outcome for ack in response.acks] == [
            RESULT_OUTCOME_ACCEPTED,
            RESULT_OUTCOME_STALE,
            RESULT_OUTCOME_REFUSED,
        ]
        assert (await caller.get(workflow_id)).tasks[0].output == b'{"done":3}'

    async def test_of_an_ended_task_is_stale(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        await caller.start()
        (task,) = await caller.poll("one")
        await caller.report(TaskResult(token=task.token, output=b"{}"))
        request = wire.ExtendTasksRequest(items=[wire.ProgressItem(token=task.token)])

        response = await caller.tasks.ExtendTasks(request, timeout=DEADLINE_S)

        assert response.acks[0].outcome == RESULT_OUTCOME_STALE


class TestReading:
    async def test_a_task_with_its_payloads(self, caller: Caller) -> None:
        await caller.register(chain("one", inputParameters={"n": "${workflow.input.n}"}))
        workflow_id = await caller.start(input=b'{"n":1.0}')
        task_id = (await caller.get(workflow_id)).tasks[0].task_id

        response = await caller.tasks.GetTask(wire.GetTaskRequest(task_id=task_id), timeout=DEADLINE_S)

        assert response.task.input == b'{"n":1.0}'
        assert response.task.reference == "one_0"

    async def test_no_task(self, caller: Caller) -> None:
        absent = wire.GetTaskRequest(task_id="0197a0c8-0000-7000-8000-000000000001")
        assert await refused(caller.tasks.GetTask(absent)) is grpc.StatusCode.NOT_FOUND
        wrong = wire.GetTaskRequest(task_id="x")
        assert await refused(caller.tasks.GetTask(wrong)) is grpc.StatusCode.INVALID_ARGUMENT

    async def test_a_log_in_pages(self, caller: Caller) -> None:
        await caller.register(chain("one"))
        async with caller.worker("one") as worker:
            await caller.start()
            task = await worker.task()
            line = wire.LogLine(token=task.token, line="from a frame")
            await worker.send(logs=wire.Logs(lines=[line]))
            await worker.finish(task, logs=["with the result"])
        await caller.tasks.AddTaskLogs(
            wire.AddTaskLogsRequest(task_id=task.task_id, lines=["unary 1", "unary 2"]), timeout=DEADLINE_S
        )

        async def read() -> list[str]:
            lines: list[str] = []
            token = ""
            while True:
                request = wire.ListTaskLogsRequest(task_id=task.task_id, page_size=2, page_token=token)
                page = await caller.tasks.ListTaskLogs(request, timeout=DEADLINE_S)
                lines += [line.line for line in page.lines]
                token = page.next_page_token
                if not token:
                    return sorted(lines)

        await eventually(read, sorted(["from a frame", "with the result", "unary 1", "unary 2"]))

    async def test_lines_that_cannot_be_added(self, caller: Caller) -> None:
        for lines, task_id in (
            ([], "0197a0c8-0000-7000-8000-000000000001"),
            (["x" * 4_097], "x"),
            (["x"], "x"),
        ):
            request = wire.AddTaskLogsRequest(task_id=task_id, lines=lines)
            assert await refused(caller.tasks.AddTaskLogs(request)) is grpc.StatusCode.INVALID_ARGUMENT
        absent = wire.AddTaskLogsRequest(task_id="0197a0c8-0000-7000-8000-000000000001", lines=["x"])
        assert await refused(caller.tasks.AddTaskLogs(absent)) is grpc.StatusCode.NOT_FOUND


def _looked(polling: object):  # type: ignore[no-untyped-def]
    """Whether every poll has asked once what waits, and found nothing."""

    async def look() -> bool:
        lines = polling._lines.values()  # type: ignore[attr-defined]
        return all(poller.looked for line in lines for poller in line.pollers)

    return look


def _pollers(polling: object, wanted: int):  # type: ignore[no-untyped-def]
    """Whether so many polls stand in line."""

    async def look() -> bool:
        lines = polling._lines.values()  # type: ignore[attr-defined]
        return sum(len(line.pollers) for line in lines) == wanted

    return look
