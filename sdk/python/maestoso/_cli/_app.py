"""The client's commands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from .. import __version__
from .._errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ServerError,
    Violation,
)
from ._bulk import bulk
from ._connection import REFUSED, Connection, complain
from ._files import BadFile, Document, payload, read

if TYPE_CHECKING:
    from rich.tree import Tree

    from maestoso.metadata.v1 import definition_pb2
    from maestoso.search.v1 import search_service_pb2
    from maestoso.workflow.v1 import workflow_pb2

    from .._client import Client

# What renders and calls is imported by the commands themselves: help and completion stay fast.

app = App(
    name="maestoso",
    help="Conductor workflows on Postgres. To run a server: maestoso dev, serve, migrate (see their --help).",
    version=__version__,
    help_format="plaintext",
)

app.command(bulk)

Id = Annotated[str, Parameter(help="The workflow's id.")]
CHILD_DEPTH = 5
"""How deep `get` follows sub-workflows."""
WAIT_PATIENCE_SECONDS = 60.0
"""How long `start --wait` bears with a server that went away."""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    try:
        return int(app(arguments, exit_on_error=False, print_error=True, result_action="return_value") or 0)
    except CycloptsError:
        return REFUSED
    except SystemExit as exit:  # help and version
        return int(exit.code or 0)


# Definitions.


@app.command
def register(
    *files: str,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    strict: Annotated[bool, Parameter(negative="")] = False,
    check: Annotated[bool, Parameter(negative="")] = False,
    connection: Connection | None = None,
) -> int:
    """Register the workflow and task definitions of these files.

    Parameters
    ----------
    files
        JSON files with one definition or a list of them; `-` is stdin. What has `tasks` is a workflow.
    overwrite
        Replace what exists and differs.
    strict
        Refuse fields without an effect, instead of warning of them.
    check
        Only say what would happen.
    """
    connection = connection or Connection()
    try:
        documents = [document for name in files for document in read(name)]
    except (BadFile, OSError) as error:
        complain(str(error))
        return REFUSED
    if not documents:
        complain("name at least one file with a definition in it")
        return REFUSED
    # Tasks first: a workflow that runs at once should find them.
    parts = [
        [document for document in documents if not document.is_workflow],
        [document for document in documents if document.is_workflow],
    ]

    async def act(client: Client) -> int:
        results: list[definition_pb2.PutResult] = []
        # All parts are checked before the first is stored.
        for store in (False,) if check else (False, True):
            results.clear()
            for part in filter(None, parts):
                answer = await _put(client, part, store, overwrite, strict)
                if answer is None:
                    return REFUSED
                results.extend(answer)
        _show_put(results, connection)
        return 0

    return connection.run(act)


async def _put(
    client: Client, documents: Sequence[Document], store: bool, overwrite: bool, strict: bool
) -> Sequence[definition_pb2.PutResult] | None:
    """Check or store documents of one kind; None when they were refused, which has been said then."""
    texts = [document.text for document in documents]
    workflows = documents[0].is_workflow
    try:
        if not store:
            check = client.validate_workflows if workflows else client.validate_tasks
            results = await check(texts, strict=strict)
        else:
            put = client.register_workflows if workflows else client.register_tasks
            results = await put(texts, overwrite="allow" if overwrite else "refuse", strict=strict)
    except (InvalidArgument, AlreadyExists, NotFound) as error:
        complain(f"refused: {error}")
        _show_violations(documents, error)
        return None
    refused = False
    for document, result in zip(documents, results, strict=True):
        for violation in result.violations:
            refused = True
            _show_fault(document, violation, "")
        for warning in result.warnings if not store else ():
            _show_fault(document, warning, "warning: ")
    return None if refused else results


def _show_violations(documents: Sequence[Document], error: ServerError) -> None:
    for violation in error.violations:
        head, _, path = violation.path.partition("].")
        number = head.removeprefix("documents[").rstrip("]")
        if number.isdigit() and int(number) < len(documents):
            inner = Violation(path, violation.message, violation.line, violation.column)
            _show_fault(documents[int(number)], inner, "")
        else:
            complain(f"{violation.path}: {violation.message}")


def _show_fault(document: Document, violation: Any, kind: str) -> None:
    """`FILE:LINE:COLUMN: PATH: what is wrong`, as editors understand it."""
    found = Violation(violation.path, violation.message, violation.line, violation.column)
    path = f"{found.path}: " if found.path else ""
    complain(f"{document.place(found)}: {kind}{path}{found.message}")


def _show_put(results: Sequence[definition_pb2.PutResult], connection: Connection) -> None:
    from ._json_view import status_name
    from ._show import print_json

    if connection.as_json:
        print_json(list(results))
        return
    for result in results:
        version = f" version {result.version}" if result.version else ""
        print(f"{status_name(result, 'outcome').lower()} {result.name}{version}")


# Starting and reading.


@app.command
def start(
    name: str,
    *,
    input: str = "{}",
    version: int = 0,
    correlation_id: str = "",
    priority: int = 0,
    idempotency_key: str = "",
    wait: Annotated[bool, Parameter(negative="")] = False,
    connection: Connection | None = None,
) -> int:
    """Start a workflow and print its id.

    Parameters
    ----------
    name
        The name of a registered definition.
    input
        A JSON object, `@FILE` with one in it, or `-` for stdin.
    version
        The definition's version; 0 = the highest.
    correlation_id
        A name of your own for it.
    priority
        0 to 99, higher first.
    idempotency_key
        A start with a key that was used before returns the workflow that has it.
    wait
        Show progress until it has ended. Exit status 0: COMPLETED, 1: any other end.
    """
    connection = connection or Connection()

    async def act(client: Client) -> int:
        workflow_id = await client.start(
            name,
            payload(input),
            version=version,
            correlation_id=correlation_id,
            priority=priority,
            idempotency_key=idempotency_key,
            idempotency="return_existing",
        )
        if not wait:
            _say_id(workflow_id, connection)
            return 0
        if not connection.as_json:
            print(workflow_id, flush=True)
        return await _wait(client, workflow_id, connection)

    return connection.run(act)


def _say_id(workflow_id: str, connection: Connection) -> None:
    from ._show import print_json

    if connection.as_json:
        print_json({"workflow_id": workflow_id})
    else:
        print(workflow_id)


async def _wait(client: Client, workflow_id: str, connection: Connection) -> int:
    """Show a workflow's progress on stderr until it has ended."""
    from rich.console import Console

    from maestoso.workflow.v1 import workflow_pb2

    from ._show import print_json, workflow_line

    client.patience = WAIT_PATIENCE_SECONDS
    console = Console(stderr=True, highlight=False)
    last = workflow_pb2.Workflow()
    with console.status("starting") as progress:
        async for last in client.watch(workflow_id, payloads=True):
            done = last.task_count - last.open_task_count
            text = f"{workflow_line(last)}  {done} of {last.task_count} tasks so far"
            if console.is_terminal:
                progress.update(text)
            elif not connection.as_json:
                console.print(text, soft_wrap=True)
    if connection.as_json:
        print_json(last)
    else:
        console.print(workflow_line(last), soft_wrap=True)
        if last.reason:
            console.print(last.reason, style="red", markup=False)
    return 0 if last.status == workflow_pb2.WORKFLOW_STATUS_COMPLETED else 1


@app.command
def get(workflow_id: Id, *, connection: Connection | None = None) -> int:
    """Show a workflow with its tasks as a tree."""
    connection = connection or Connection()

    async def act(client: Client) -> None:
        from ._show import out, print_json

        workflow = await client.get(workflow_id)
        if connection.as_json:
            print_json(workflow)
        else:
            out.print(await _tree(client, workflow, CHILD_DEPTH))

    return connection.run(act)


async def _tree(client: Client, workflow: workflow_pb2.Workflow, depth: int) -> Tree:
    from ._outline import outline
    from ._show import workflow_tree

    entries = outline(workflow.tasks, await _definition(client, workflow))
    children: dict[str, Tree] = {}
    for task in workflow.tasks if depth else ():
        if task.child_workflow_id:
            child = await client.get(task.child_workflow_id)
            children[child.workflow_id] = await _tree(client, child, depth - 1)
    return workflow_tree(workflow, entries, children)


async def _definition(client: Client, workflow: workflow_pb2.Workflow) -> dict[str, Any] | None:
    """The workflow's document; None where it is not registered (any more)."""
    from .. import _json

    try:
        definition = await client.get_workflow_definition(workflow.name, workflow.version)
    except NotFound:
        return None
    document: dict[str, Any] = _json.loads(definition.document)
    return document


@app.command(name="list")
def list_(
    *,
    name: str = "",
    status: Literal["RUNNING", "PAUSED", "COMPLETED", "FAILED", "TIMED_OUT", "TERMINATED"] | None = None,
    correlation_id: str = "",
    limit: int = 20,
    connection: Connection | None = None,
) -> int:
    """List workflows, the youngest first.

    Parameters
    ----------
    name
        Only of this definition.
    status
        Only in this state.
    correlation_id
        Only with this correlation id.
    limit
        At most so many.
    """
    connection = connection or Connection()

    async def act(client: Client) -> None:
        from maestoso.workflow.v1 import workflow_pb2

        wanted = workflow_pb2.WorkflowStatus.Value(f"WORKFLOW_STATUS_{status or 'UNSPECIFIED'}")
        found: list[workflow_pb2.WorkflowSummary] = []
        page = min(max(limit, 1), 1_000)
        async for summary in client.list(
            name=name, status=wanted, correlation_id=correlation_id, page_size=page
        ):
            if len(found) >= limit:
                break
            found.append(summary)
        _table(
            connection,
            found,
            ("id", "name", "version", "status", "started", "took", "correlation id"),
            _summary,
        )

    return connection.run(act)


@app.command
def search(
    query: str = "",
    *,
    text: str = "",
    sort: str = "",
    limit: int = 20,
    connection: Connection | None = None,
) -> int:
    """Find workflows, such as `search "status = FAILED AND startTime > 2026-11-25"`.

    Parameters
    ----------
    query
        Conditions on fields and search attributes, with AND, OR, NOT and parentheses.
    text
        Words that must all be found in names, ids, reasons or search attributes.
    sort
        `field:ASC` or `field:DESC`, several joined by `|`; the youngest first by default.
    limit
        At most so many.
    """
    connection = connection or Connection()

    async def act(client: Client) -> None:

        found: list[search_service_pb2.FoundWorkflow] = []
        page = min(max(limit, 1), 5_000)
        async for item in client.search(query, free_text=text, sort=sort, page_size=page):
            if len(found) >= limit:
                break
            found.append(item)
        _table(
            connection,
            found,
            ("id", "name", "version", "status", "started", "took", "correlation id"),
            lambda item: _summary(item.workflow),
        )

    return connection.run(act)


@app.command
def count(
    query: str = "", *, text: str = "", group_by: str = "", connection: Connection | None = None
) -> int:
    """Count workflows; a number with a + is what was counted before the time was used up.

    Parameters
    ----------
    query
        As for `search`; without one, all.
    text
        As for `search`.
    group_by
        `status`, `workflowType`, `version` or `attributes.<name>`.
    """
    connection = connection or Connection()

    async def act(client: Client) -> None:
        from maestoso.search.v1 import search_service_pb2

        counted = await client.count(query, free_text=text, group_by=group_by)
        total = search_service_pb2.Group(value="in all", total=counted.total)
        _table(connection, [*counted.groups, total], (group_by or "workflows", "count"), _group)

    return connection.run(act)


def _group(group: search_service_pb2.Group) -> Sequence[str]:
    from rich.markup import escape

    from maestoso.search.v1 import search_service_pb2

    exact = group.total.relation == search_service_pb2.RELATION_EXACT
    return escape(group.value or "(none)"), f"{group.total.count:,}{'' if exact else '+'}"


def _summary(summary: workflow_pb2.WorkflowSummary) -> Sequence[str]:
    from rich.markup import escape

    from . import _show

    took = _show.span(summary.create_time, summary.end_time) if summary.HasField("end_time") else ""
    started = _show.when(summary.create_time)
    ids = summary.workflow_id, escape(summary.name), str(summary.version)
    return (*ids, _show.status(summary), started, took, escape(summary.correlation_id))


def _table(connection: Connection, items: Sequence[Any], titles: Sequence[str], row: Any) -> None:
    from . import _show

    if connection.as_json:
        _show.print_json(list(items))
    else:
        _show.table(titles, map(row, items))


# Steering.


@app.command
def terminate(
    workflow_id: Id,
    *,
    reason: str = "",
    compensate: Annotated[bool, Parameter(negative="")] = False,
    connection: Connection | None = None,
) -> int:
    """End a workflow as TERMINATED, with its open tasks and children.

    Parameters
    ----------
    reason
        Why, for people.
    compensate
        First undo what has completed, by the `compensate` of its tasks.
    """
    return (connection or Connection()).run(
        lambda client: client.terminate(workflow_id, reason, compensate=compensate)
    )


@app.command
def pause(workflow_id: Id, *, connection: Connection | None = None) -> int:
    """Hold a workflow: results are taken, nothing new is scheduled."""
    return (connection or Connection()).run(lambda client: client.pause(workflow_id))


@app.command
def resume(workflow_id: Id, *, connection: Connection | None = None) -> int:
    """Let a held workflow go on."""
    return (connection or Connection()).run(lambda client: client.resume(workflow_id))


@app.command
def retry(
    workflow_id: Id,
    *,
    resume_children: Annotated[bool, Parameter(negative="")] = False,
    connection: Connection | None = None,
) -> int:
    """Run an ended workflow again from its failed tasks.

    Parameters
    ----------
    resume_children
        Where the failed task is a SUB_WORKFLOW: retry inside its child.
    """
    return (connection or Connection()).run(
        lambda client: client.retry(workflow_id, resume_children=resume_children)
    )


@app.command
def restart(
    workflow_id: Id,
    *,
    latest: Annotated[bool, Parameter(negative="")] = False,
    connection: Connection | None = None,
) -> int:
    """Run an ended workflow again from the beginning.

    Parameters
    ----------
    latest
        Use the highest version registered now.
    """
    return (connection or Connection()).run(
        lambda client: client.restart(workflow_id, latest_definitions=latest)
    )


@app.command
def rerun(
    workflow_id: Id,
    task_id: str = "",
    *,
    input: str | None = None,
    correlation_id: str | None = None,
    connection: Connection | None = None,
) -> int:
    """Run an ended workflow again from the beginning, or from one of its tasks.

    Parameters
    ----------
    task_id
        The task to go on from, also one of a child; from the beginning if there is none.
    input
        The new input of the task (of the workflow, if there is none): a JSON object, `@FILE` with one
        in it, or `-` for stdin.
    correlation_id
        The workflow's new correlation id.
    """
    given = None if input is None else payload(input)

    async def act(client: Client) -> None:
        ran = await client.rerun(
            workflow_id,
            task_id,
            workflow_input=None if task_id else given,
            task_input=given if task_id else None,
            correlation_id=correlation_id,
        )
        print(ran)

    return (connection or Connection()).run(act)


@app.command
def skip(workflow_id: Id, reference: str, *, output: str = "{}", connection: Connection | None = None) -> int:
    """Step over a task that is still to come.

    Parameters
    ----------
    reference
        The task's reference.
    output
        What it shows: a JSON object, `@FILE` with one in it, or `-` for stdin.
    """
    told = payload(output)
    return (connection or Connection()).run(lambda client: client.skip_task(workflow_id, reference, told))


@app.command
def jump(
    workflow_id: Id, reference: str, *, input: str | None = None, connection: Connection | None = None
) -> int:
    """Go on at another task of a running chain.

    Parameters
    ----------
    reference
        The task's reference.
    input
        Its input in the place of its own: a JSON object, `@FILE` with one in it, or `-` for stdin.
    """
    given = None if input is None else payload(input)
    return (connection or Connection()).run(lambda client: client.jump_to_task(workflow_id, reference, given))


@app.command
def remove(
    workflow_id: Id,
    *,
    terminate: Annotated[bool, Parameter(negative="")] = False,
    recursive: Annotated[bool, Parameter(negative="")] = False,
    connection: Connection | None = None,
) -> int:
    """Delete an execution for good.

    Parameters
    ----------
    terminate
        End it first where it runs.
    recursive
        Its children too, and theirs.
    """

    async def act(client: Client) -> None:
        print(await client.remove(workflow_id, terminate=terminate, recursive=recursive))

    return (connection or Connection()).run(act)


@app.command
def upgrade(
    workflow_id: Id,
    *,
    version: int = 0,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    connection: Connection | None = None,
) -> int:
    """Let a running workflow go on under another version of its definition, and show what that changes.

    Parameters
    ----------
    version
        A registered version; 0 = the highest.
    dry_run
        Change nothing. Exit status 0: it is possible, 1: it is not, and the report says why.
    """
    connection = connection or Connection()

    async def act(client: Client) -> int:
        from ._show import print_json

        try:
            report = await client.upgrade(workflow_id, version=version, dry_run=dry_run)
        except FailedPrecondition as error:
            complain(f"refused: {error}")
            for violation in error.violations:
                complain(f"  {violation.path or 'the workflow'}: {violation.message}")
            return REFUSED
        if connection.as_json:
            print_json(report)
        else:
            _show_report(report, dry_run=dry_run)
        return 1 if report.faults else 0

    return connection.run(act)


def _show_report(report: workflow_pb2.UpgradeReport, *, dry_run: bool) -> None:
    from rich.markup import escape

    from ._json_view import status_name
    from ._show import out

    done = "would go" if dry_run else "went"
    if report.faults:
        done = "cannot go"
    out.print(f"it {done} from version {report.from_version} to {report.to_version}")
    if report.workflow_fields:
        out.print(f"  changed   the workflow: {escape(', '.join(report.workflow_fields))}")
    for one in report.differences:
        fields = f": {', '.join(one.fields)}" if one.fields else ""
        is_open = " [bold](open)[/]" if one.open_task_ids else ""
        kind = status_name(one, "kind").lower()
        out.print(f"  {kind:<9} {escape(one.reference)}{escape(fields)}{is_open}")
    for word, style, notes in (("against", "red", report.faults), ("note", "yellow", report.warnings)):
        for note in notes:
            named = f"{note.reference} " if note.reference else ""
            out.print(f"  [{style}]{word:<9}[/] {escape(named + note.message)}")


@app.command
def signal(
    workflow_id: Id,
    reference: str = "",
    *,
    output: str = "{}",
    status: Literal["COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR"] = "COMPLETED",
    reason: str = "",
    connection: Connection | None = None,
) -> int:
    """End a waiting task (WAIT, HUMAN); a signal that comes early is kept for it.

    Parameters
    ----------
    reference
        The task's reference; the first that waits if there is none.
    output
        A JSON object, `@FILE` with one in it, or `-` for stdin.
    status
        How it ends.
    reason
        Why it failed.
    """
    connection = connection or Connection()

    async def act(client: Client) -> None:
        from maestoso.task.v1 import task_pb2

        from ._show import print_json

        applied = await client.signal(
            workflow_id,
            reference,
            payload(output),
            status=task_pb2.TaskStatus.Value(f"TASK_STATUS_{status}"),
            reason=reason,
        )
        if connection.as_json:
            print_json({"outcome": "APPLIED" if applied else "KEPT"})
        else:
            print("applied" if applied else "kept until such a task waits")

    return connection.run(act)


# Looking after a server.


@app.command
def queues(task_type: str = "", *, connection: Connection | None = None) -> int:
    """List the queues that have open tasks.

    Parameters
    ----------
    task_type
        Only of this task type.
    """
    connection = connection or Connection()

    async def act(client: Client) -> None:
        from rich.markup import escape

        from ._show import age

        def row(queue: Any) -> Sequence[str]:
            oldest = age(queue.oldest_age) if queue.HasField("oldest_age") else ""
            names = escape(queue.task_type), escape(queue.domain)
            depth = f"{queue.depth}+" if queue.depth_capped else str(queue.depth)
            return (*names, depth, oldest, "yes" if queue.has_worker else "no")

        found = [queue async for queue in client.queues(task_type)]
        _table(connection, found, ("task type", "domain", "waiting", "oldest", "worker"), row)

    return connection.run(act)


@app.command
def explain(workflow_id: Id, *, connection: Connection | None = None) -> int:
    """Say for every open task of a workflow what it waits for."""
    connection = connection or Connection()

    async def act(client: Client) -> None:
        from rich.markup import escape

        from ._show import out, print_json, status, when

        explanation = await client.explain(workflow_id)
        if connection.as_json:
            print_json(explanation)
            return
        out.print(f"{status(explanation)}  {escape(explanation.summary)}")
        for task in explanation.open_tasks:
            due = f" [dim](by {when(task.due_time)})[/]" if task.HasField("due_time") else ""
            name = f"[bold]{escape(task.reference)}[/] [dim]{escape(task.task_type)}[/]"
            out.print(f"  {name}  {status(task)}  {escape(task.explanation)}{due}")

    return connection.run(act)


@app.command
def nodes(*, connection: Connection | None = None) -> int:
    """List the live nodes."""
    connection = connection or Connection()

    async def act(client: Client) -> None:
        from rich.markup import escape

        from ._show import when

        def row(node: Any) -> Sequence[str]:
            words = ["draining"] * node.draining + ["without its database"] * node.degraded
            addresses = node.grpc_address, node.http_address, node.version
            return (
                escape(node.node_id),
                str(node.epoch),
                *addresses,
                when(node.start_time),
                ", ".join(words),
            )

        titles = ("node", "epoch", "gRPC", "HTTP", "version", "started", "")
        _table(connection, await client.nodes(), titles, row)

    return connection.run(act)


@app.command
def sessions(*, connection: Connection | None = None) -> int:
    """List the worker sessions of the namespace."""
    connection = connection or Connection()

    async def act(client: Client) -> None:
        from rich.markup import escape

        from ._json_view import status_name
        from ._show import when

        def row(session: Any) -> Sequence[str]:
            types = ", ".join(_offers(session.task_types))
            state = status_name(session, "state")
            names = session.session_id, escape(session.worker_id), state, str(session.node_epoch)
            return (*names, when(session.connect_time), escape(session.sdk), escape(types))

        found = [session async for session in client.sessions()]
        titles = ("session", "worker", "state", "node epoch", "since", "SDK", "task types")
        _table(connection, found, titles, row)

    return connection.run(act)


def _offers(offers: Iterable[Any]) -> Iterable[str]:
    for offer in offers:
        yield f"{offer.domain}:{offer.task_type}" if offer.domain else offer.task_type


@app.command
def drain(
    *,
    node: str | None = None,
    session: str | None = None,
    reason: str = "",
    grace: float | None = None,
    connection: Connection | None = None,
) -> int:
    """Drain a node, or a worker by its session.

    Parameters
    ----------
    node
        The node's name: it moves its streams elsewhere and takes no new ones.
    session
        The session's id: its worker finishes what it holds and takes nothing new.
    reason
        Shown to the worker.
    grace
        Seconds until the worker's stream is closed.
    """
    if (node is None) == (session is None):
        complain("name either --node or --session")
        return REFUSED

    async def act(client: Client) -> None:
        if node is not None:
            await client.drain_node(node)
        elif session is not None:
            await client.drain_session(session, reason=reason, grace=grace)

    return (connection or Connection()).run(act)
