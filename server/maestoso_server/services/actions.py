"""What each RPC does, in the words that rights are given in: one table, and nothing is served without
a row in it. `*:read` covers whatever changes nothing.

A row also says how to read from the request which namespace and which resource it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .security import EVERY_NAMESPACE

DEFAULT_NAMESPACE = "default"


def namespace_of(request: Any) -> str:
    """The namespace a request names; empty means `default`."""
    return request.namespace or DEFAULT_NAMESPACE


def _cluster(request: Any) -> str:
    return EVERY_NAMESPACE


def _no_resource(request: Any) -> Iterable[str]:
    return ("",)


def _field(name: str) -> Callable[[Any], Iterable[str]]:
    def read(request: Any) -> Iterable[str]:
        return (getattr(request, name),)

    return read


def _nothing_else(request: Any) -> Iterable[str]:
    return ()


_OF_TASKS = {"update_task": "task:update"}
"""Members of BulkAction that are no verb of a workflow."""


def _done_to_each(request: Any) -> Iterable[str]:
    """What a bulk operation does to each workflow, as the operation on one of them is called."""
    kind = request.action.WhichOneof("action")
    return (_OF_TASKS.get(kind, f"workflow:{kind}"),) if kind else ()


def _started_names(request: Any) -> Iterable[str]:
    return {start.name for start in request.starts} or ("",)


@dataclass(frozen=True, slots=True)
class Action:
    """`name` is `noun:verb`. `resources` yields each id or name to ask about, at least one (empty =
    unknown). `creates` is set where the namespace need not exist yet, `audited` where the gate
    keeps who did it (the store keeps writes of metadata itself)."""

    name: str
    resources: Callable[[Any], Iterable[str]] = _no_resource
    namespace: Callable[[Any], str] = namespace_of
    creates: bool = False
    audited: bool = False
    also: Callable[[Any], Iterable[str]] = _nothing_else
    """Further actions that the caller must have the right to."""

    @property
    def of_cluster(self) -> bool:
        """The action is about no namespace."""
        return self.namespace is _cluster


_METADATA = "/maestoso.metadata.v1.MetadataService/"
_WORKFLOW = "/maestoso.workflow.v1.WorkflowService/"
_BULK = "/maestoso.workflow.v1.BulkService/"
_TASK = "/maestoso.task.v1.TaskService/"
_ADMIN = "/maestoso.admin.v1.AdminService/"
_SEARCH = "/maestoso.search.v1.SearchService/"

_by_name = _field("name")
_by_workflow = _field("workflow_id")
_by_task = _field("task_id")
_by_bulk = _field("bulk_id")

ACTIONS: dict[str, Action] = {
    _METADATA + "PutWorkflowDefinitions": Action("definition:write"),
    _METADATA + "GetWorkflowDefinition": Action("definition:read", _by_name),
    _METADATA + "ListWorkflowDefinitions": Action("definition:read"),
    _METADATA + "DeleteWorkflowDefinition": Action("definition:delete", _by_name),
    _METADATA + "PutTaskDefinitions": Action("definition:write"),
    _METADATA + "GetTaskDefinition": Action("definition:read", _by_name),
    _METADATA + "ListTaskDefinitions": Action("definition:read"),
    _METADATA + "DeleteTaskDefinition": Action("definition:delete", _by_name),
    _WORKFLOW + "StartWorkflow": Action("workflow:start", lambda request: (request.start.name,)),
    _WORKFLOW + "StartWorkflows": Action("workflow:start", _started_names),
    _WORKFLOW + "GetWorkflow": Action("workflow:read", _by_workflow),
    _WORKFLOW + "ListWorkflows": Action("workflow:read"),
    _WORKFLOW + "WatchWorkflow": Action("workflow:read", _by_workflow),
    _WORKFLOW + "TerminateWorkflow": Action("workflow:terminate", _by_workflow, audited=True),
    _WORKFLOW + "PauseWorkflow": Action("workflow:pause", _by_workflow, audited=True),
    _WORKFLOW + "ResumeWorkflow": Action("workflow:resume", _by_workflow, audited=True),
    _WORKFLOW + "RetryWorkflow": Action("workflow:retry", _by_workflow, audited=True),
    _WORKFLOW + "RestartWorkflow": Action("workflow:restart", _by_workflow, audited=True),
    _WORKFLOW + "RerunWorkflow": Action("workflow:rerun", _by_workflow, audited=True),
    _WORKFLOW + "SkipTask": Action("workflow:skip", _by_workflow, audited=True),
    _WORKFLOW + "JumpToTask": Action("workflow:jump", _by_workflow, audited=True),
    _WORKFLOW + "ResetCallbacks": Action("workflow:reset", _by_workflow, audited=True),
    _WORKFLOW + "UpdateVariables": Action("workflow:update", _by_workflow, audited=True),
    _WORKFLOW + "UpdateTask": Action("task:update", _by_workflow, audited=True),
    _WORKFLOW + "RemoveWorkflow": Action("workflow:remove", _by_workflow, audited=True),
    _WORKFLOW + "SignalWorkflow": Action("workflow:signal", _by_workflow),
    _WORKFLOW + "UpgradeWorkflow": Action("workflow:upgrade", _by_workflow, audited=True),
    _WORKFLOW + "TestWorkflow": Action("workflow:test", lambda request: (request.start.name,)),
    _BULK + "CreateBulkOperation": Action("bulk:create", audited=True, also=_done_to_each),
    _BULK + "GetBulkOperation": Action("bulk:read", _by_bulk),
    _BULK + "ListBulkOperations": Action("bulk:read"),
    _BULK + "ListBulkItems": Action("bulk:read", _by_bulk),
    _BULK + "CancelBulkOperation": Action("bulk:cancel", _by_bulk, audited=True),
    _TASK + "Connect": Action("task:work", namespace=lambda request: namespace_of(request.hello)),
    _TASK + "PollTasks": Action("task:work"),
    _TASK + "ReportTasks": Action("task:work"),
    _TASK + "ExtendTasks": Action("task:work"),
    _TASK + "GetTask": Action("task:read", _by_task),
    _TASK + "ListTaskLogs": Action("task:read", _by_task),
    _TASK + "AddTaskLogs": Action("task:log", _by_task),
    _SEARCH + "SearchWorkflows": Action("workflow:read"),
    _SEARCH + "SearchTasks": Action("task:read"),
    _SEARCH + "CountWorkflows": Action("workflow:read"),
    _ADMIN + "ListNodes": Action("node:read", namespace=_cluster),
    _ADMIN + "DrainNode": Action("node:drain", _field("node_id"), namespace=_cluster, audited=True),
    _ADMIN + "ListSessions": Action("session:read"),
    _ADMIN + "DrainSession": Action("session:drain", _field("session_id"), audited=True),
    _ADMIN + "ListQueues": Action("queue:read"),
    _ADMIN + "ExplainWorkflow": Action("workflow:read", _by_workflow),
    _ADMIN + "ListEvents": Action("event:read", _by_workflow),
    _ADMIN + "CreateNamespace": Action("namespace:create", creates=True),
    _ADMIN + "ListNamespaces": Action("namespace:read", namespace=_cluster),
}

OPEN_SERVICES = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})
"""Served to everybody: they tell whether the server lives and what it offers, nothing of anybody's."""

METRICS = Action("metrics:read", namespace=_cluster)
"""`/metrics` on the HTTP port: the numbers of all namespaces."""
