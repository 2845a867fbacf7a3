"""Random workflow documents for the comparison, and the policies of their tasks.

Everything is drawn, so that a failing document shrinks. The first choice of each draw is the plainest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from .interpreter import flatten

Node = dict[str, Any]
Draw = Any

LEAVES = ("simple", "inline", "variable", "noop", "wait", "human", "dynamic", "terminate")
CONTAINERS = ("switch", "decision", "fork", "same", "different", "loop", "list", "child", "try")
INPUT = {"n": 2, "text": "a", "float": 1.0, "none": None, "yes": True}
INPUT |= {"list": [1, "two", {"x": 3}], "map": {"n": 1}}
READS = (
    "${workflow.input.n}",
    "at ${workflow.input.float} of ${workflow.input.map} and ${workflow.input.gone}",
    "$${workflow.input.n}",
    "${workflow.input.list[${workflow.input.n}].x}",
    "${workflow.input.list[*].x}",
    "${workflow.input.gone}",
    "${}",
    "${CPEWF_TASK_ID}",
    "${workflow.variables.v}",
    "${workflow.status}",
)
CASES = ("${workflow.input.text}", "${workflow.input.n}", "${workflow.input.float}", "${workflow.input.none}")
CASES += ("${workflow.input.yes}", "b", "nowhere")


@dataclass
class Shape:
    """What may occur, and how deep."""

    kinds: tuple[str, ...] = (*LEAVES, *CONTAINERS)
    depth: int = 2
    failing: bool = True
    """Tasks may time out, scripts may throw."""
    width: int = 2
    names: int = 0
    policies: dict[str, Node] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    """References made so far, which later expressions may read."""
    forking: bool = True

    def name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"


@st.composite
def cases(
    draw: Draw, kinds: tuple[str, ...] = (*LEAVES, *CONTAINERS), depth: int = 2, failing: bool = True
) -> Any:
    """(document, its children, task definitions). Without `failing` only what workers say fails."""
    shape = Shape(kinds=kinds, depth=depth, failing=failing)
    tasks = _chain(draw, shape, depth)
    document: Node = {"name": "flow", "version": 1, "schemaVersion": 2, "tasks": tasks}
    if draw(st.booleans()):
        last = shape.seen[-1]
        document["outputParameters"] = {"last": f"${{{last}.output}}", "status": "${workflow.status}"}
    if failing and draw(st.integers(0, 5)) == 5:
        document |= {"timeoutSeconds": draw(st.integers(1, 90)), "timeoutPolicy": "TIME_OUT_WF"}
    return document, shape.children, shape.policies


def _chain(draw: Draw, shape: Shape, depth: int) -> list[Node]:
    made: list[Node] = []
    for _ in range(draw(st.integers(1, shape.width))):
        kinds = [kind for kind in shape.kinds if depth > 0 or kind in LEAVES]
        kind = draw(st.sampled_from(kinds))
        if kind in LEAVES:
            made.append(_leaf(draw, shape, kind))
        else:
            made.extend(_container(draw, shape, kind, depth - 1))
    return made


def _node(shape: Shape, kind: str, prefix: str, inputs: Node | None = None, **more: Any) -> Node:
    name = shape.name(prefix)
    shape.seen.append(name)
    return {
        "name": name,
        "taskReferenceName": name,
        "type": kind,
        "inputParameters": inputs or {},
        **more,
    }


def _flags(draw: Draw) -> Node:
    flag = draw(st.sampled_from((None, None, None, "optional", "permissive", "both")))
    both = {"optional": True, "permissive": True}
    return {} if flag is None else both if flag == "both" else {flag: True}


def _reads(draw: Draw, shape: Shape) -> Node:
    made = {}
    if draw(st.booleans()):
        made["a"] = draw(st.sampled_from(READS))
    if shape.seen and draw(st.booleans()):
        seen = draw(st.sampled_from(shape.seen))
        key = draw(st.sampled_from(("output.value", "output", "status", "retryCount", "iteration")))
        made["b"] = f"${{{seen}.{key}}}"
    return made


def _policy(draw: Draw, shape: Shape, name: str) -> Node:
    """Retries of the node itself, or a whole task definition."""
    if draw(st.booleans()):
        return {"retryCount": draw(st.integers(0, 2))}
    policy: Node = {"name": name, "retryCount": draw(st.integers(0, 2))}
    policy["retryDelaySeconds"] = draw(st.sampled_from((0, 1, 20)))
    policy["retryLogic"] = draw(st.sampled_from(("FIXED", "LINEAR_BACKOFF", "EXPONENTIAL_BACKOFF")))
    if draw(st.booleans()):
        policy["backoffScaleFactor"] = 3
    if draw(st.booleans()):
        policy["maxRetryDelaySeconds"] = 30
    if draw(st.booleans()):
        policy["inputTemplate"] = {"a": "default", "c": "${workflow.input.n}"}
    shape.policies[name] = policy
    if not shape.failing:
        return {}
    policy["responseTimeoutSeconds"] = draw(st.sampled_from((20, 5)))
    policy["timeoutPolicy"] = draw(st.sampled_from(("RETRY", "TIME_OUT_WF", "ALERT_ONLY")))
    for clock, seconds in (("timeoutSeconds", 25), ("pollTimeoutSeconds", 15), ("totalTimeoutSeconds", 45)):
        if draw(st.integers(0, 3)) == 3:
            policy[clock] = seconds
    return {}


def _simple(draw: Draw, shape: Shape, prefix: str = "s") -> Node:
    made = _node(shape, "SIMPLE", prefix, _reads(draw, shape), **_flags(draw))
    made |= _policy(draw, shape, made["name"])
    if draw(st.integers(0, 4)) == 4:
        made["startDelay"] = 10
    return made


def _leaf(draw: Draw, shape: Shape, kind: str) -> Node:
    if kind == "simple":
        return _simple(draw, shape)
    if kind == "inline":
        scripts = ("$.n", "({value: $.n})", "$.n > 1", "$.gone.x")
        script = draw(st.sampled_from(scripts if shape.failing else scripts[:-1]))
        inputs = {"expression": script, "evaluatorType": "javascript", "n": "${workflow.input.n}"}
        return _node(shape, "INLINE", "i", inputs, **_flags(draw))
    if kind == "variable":
        return _node(shape, "SET_VARIABLE", "v", {draw(st.sampled_from("vw")): draw(st.sampled_from(READS))})
    if kind == "noop":
        return _node(shape, "NOOP", "n")
    if kind == "wait":
        inputs = {"duration": f"{draw(st.integers(0, 12))} seconds"} if draw(st.booleans()) else {}
        return _node(shape, "WAIT", "w", inputs, **_flags(draw))
    if kind == "human":
        return _node(shape, "HUMAN", "h", _reads(draw, shape), **_flags(draw))
    if kind == "dynamic":
        name = shape.name("worker")
        _policy(draw, shape, name)
        return _node(shape, "DYNAMIC", "y", {"which": name}, dynamicTaskNameParam="which", **_flags(draw))
    status = draw(st.sampled_from(("COMPLETED", "FAILED", "TERMINATED")))
    inputs = {"terminationStatus": status, "workflowOutput": draw(st.sampled_from(({"x": 1}, 5, None)))}
    if draw(st.booleans()):
        inputs["terminationReason"] = "because"
    return _node(shape, "TERMINATE", "t", inputs)


def _container(draw: Draw, shape: Shape, kind: str, depth: int) -> list[Node]:
    if kind in ("switch", "decision"):
        return _switch(draw, shape, kind, depth)
    if kind == "fork":
        return _fork(draw, shape, depth)
    if kind in ("loop", "list"):
        return [_loop(draw, shape, kind, depth)]
    if kind == "child":
        return [_child(draw, shape, depth)]
    if kind == "try":
        return [_try(draw, shape, depth)]
    return _same(draw, shape) if kind == "same" else _different(draw, shape)


def _switch(draw: Draw, shape: Shape, kind: str, depth: int) -> list[Node]:
    branches = {"a": _chain(draw, shape, depth), "2": _chain(draw, shape, depth), "null": [], "true": []}
    default = _chain(draw, shape, depth) if draw(st.booleans()) else []
    inputs = {"key": draw(st.sampled_from(CASES))}
    if draw(st.booleans()):
        branches["1"] = _chain(draw, shape, depth)
    more: Node = {"decisionCases": branches, "defaultCase": default}
    if kind == "switch":
        script = draw(st.booleans())
        more |= {"evaluatorType": "javascript", "expression": "$.key"} if script else {}
        more = {"evaluatorType": "value-param", "expression": "key", **more}
    else:
        more["caseValueParam"] = "key"
    node = _node(shape, kind.upper(), "k", inputs, **more)
    if not draw(st.booleans()):
        return [node]
    ends = [chain[-1]["taskReferenceName"] for chain in (*branches.values(), default) if chain]
    before = _simple(draw, shape)
    defaults = [before["taskReferenceName"]] if draw(st.booleans()) else []
    joined = _node(shape, "EXCLUSIVE_JOIN", "e", joinOn=ends, defaultExclusiveJoinTask=defaults)
    return [before, node, joined]


def _fork(draw: Draw, shape: Shape, depth: int) -> list[Node]:
    seen = list(shape.seen)
    branches = []
    for _ in range(draw(st.integers(1, 3))):
        shape.seen = list(seen)  # a branch does not read what its siblings write at the same time
        branches.append(_chain(draw, shape, depth))
    shape.seen = seen
    ends = [chain[-1]["taskReferenceName"] for chain in branches]
    inside = [node["taskReferenceName"] for chain in branches for node in flatten(chain, tries=False)]
    some = draw(st.sampled_from((None, ends, [*inside, *seen])))
    waited = ends if some is None else draw(st.lists(st.sampled_from(some), unique=True, max_size=4))
    fork = _node(shape, "FORK_JOIN", "f", _reads(draw, shape), forkTasks=branches)
    join = _node(shape, "JOIN", "j", {"no": "effect"}, joinOn=waited, **_flags(draw))
    return [fork, join]


def _loop(draw: Draw, shape: Shape, kind: str, depth: int) -> Node:
    body = _chain(draw, shape, depth)
    name = shape.name("l")
    shape.seen.append(name)
    inputs: Node = {}
    if draw(st.booleans()):
        inputs["keepLastN"] = draw(st.integers(1, 2))
    made: Node = {"name": name, "taskReferenceName": name, "type": "DO_WHILE", "loopOver": body}
    turns = draw(st.integers(1, 3))
    last = body[-1]["taskReferenceName"]
    if kind == "list":
        read = draw(st.sampled_from(("list", "n", "gone")))
        given = f"${{workflow.input.{read}}}"
        if draw(st.booleans()):
            made["items"] = given
        else:
            inputs["_items"] = given
        if draw(st.booleans()):
            made["loopCondition"] = f"$.loopIndex < {turns}"
    else:
        inputs["turns"] = turns
        made["loopCondition"] = draw(
            st.sampled_from(
                (
                    f"$.{name}['iteration'] < {turns}",
                    f"if ($.{name}['iteration'] < $.turns) {{ true; }} else {{ false; }}",
                    f"if ($.{last}['value'] < 2) {{ false; }} else {{ $.{name}['iteration'] < 3; }}",
                )
            )
        )
    return {**made, "inputParameters": inputs, **_flags(draw)}


ERROR_NAMES = ("TASK_FAILED", "TIMEOUT", "CANCELED", "SCRIPT_ERROR", "CHILD_FAILED", "nobody's")
STATUSES = ("FAILED", "FAILED_WITH_TERMINAL_ERROR", "TIMED_OUT", "CANCELED")


def _try(draw: Draw, shape: Shape, depth: int) -> Node:
    """Its parts see what came before it, and its own error; what follows it sees it alone: a join must not
    name a task inside."""
    seen = list(shape.seen)
    name = shape.name("g")
    body = _chain(draw, shape, depth)
    shape.seen = [*seen, name]
    cases = []
    for _ in range(draw(st.integers(0, 2))):
        case: Node = {"tasks": [] if draw(st.booleans()) else _chain(draw, shape, depth)}
        case["errorNames"] = draw(st.lists(st.sampled_from(ERROR_NAMES), min_size=1, max_size=3, unique=True))
        if draw(st.booleans()):
            case["statuses"] = draw(st.lists(st.sampled_from(STATUSES), min_size=1, max_size=3, unique=True))
        cases.append(case)
        shape.seen = [*seen, name]
    if draw(st.booleans()):
        cases.append({"tasks": [] if draw(st.booleans()) else _chain(draw, shape, depth)})
        shape.seen = [*seen, name]
    last = _chain(draw, shape, depth) if not cases or draw(st.booleans()) else []
    shape.seen = [*seen, name]
    if shape.failing and draw(st.integers(0, 3)) == 3:
        clock = draw(st.sampled_from(("timeoutSeconds", "totalTimeoutSeconds")))
        obeyed = draw(st.sampled_from(("TIME_OUT_WF", "RETRY", "ALERT_ONLY")))
        shape.policies[name] = {"name": name, clock: draw(st.sampled_from((5, 30))), "timeoutPolicy": obeyed}
    made: Node = {"name": name, "taskReferenceName": name, "type": "TRY", "tryTasks": body}
    return {**made, "catchCases": cases, "finallyTasks": last, "inputParameters": {}, **_flags(draw)}


def _child(draw: Draw, shape: Shape, depth: int) -> Node:
    name = shape.name("child")
    inner = Shape(kinds=shape.kinds, width=shape.width, names=shape.names)
    tasks = _chain(draw, inner, depth)
    shape.names = inner.names
    shape.policies |= inner.policies
    shape.children += inner.children
    document = {"name": name, "version": 1, "schemaVersion": 2, "tasks": tasks}
    if draw(st.booleans()):
        shape.children.append(document)
        params: Node = {"name": name, "version": 1}
    else:
        params = {"name": name, "workflowDefinition": document}
    more = {"retryCount": draw(st.integers(0, 1)), **_flags(draw)}
    return _node(shape, "SUB_WORKFLOW", "c", _reads(draw, shape), subWorkflowParam=params, **more)


def _same(draw: Draw, shape: Shape) -> list[Node]:
    data = [{"x": "${workflow.input.text}"}, "two", {"id": "${CPEWF_TASK_ID}"}]
    inputs: Node = {"forkTaskInputs": data[: draw(st.integers(0, 3))]}
    if "child" in shape.kinds and draw(st.booleans()):
        name = shape.name("forked")
        inner = _simple(draw, Shape(names=shape.names + 1, policies=shape.policies))
        shape.names += 2
        shape.children.append({"name": name, "version": 1, "schemaVersion": 2, "tasks": [inner]})
        inputs["forkTaskWorkflow"] = name
    elif draw(st.booleans()):
        inputs["forkTaskName"] = shape.name("t")
        if draw(st.booleans()):
            _policy(draw, shape, inputs["forkTaskName"])
    fork = _node(shape, "FORK_JOIN_DYNAMIC", "d", inputs)
    if draw(st.integers(0, 3)) == 3:
        fork["optional"] = True
    return [fork, _node(shape, "JOIN", "j", {"kept": "${workflow.input.n}"}, **_flags(draw))]


def _different(draw: Draw, shape: Shape) -> list[Node]:
    seen, shape.seen = shape.seen, []
    tasks = [_simple(draw, shape, "x") for _ in range(draw(st.integers(0, 2)))]
    shape.seen = seen
    names = [task["taskReferenceName"] for task in tasks]
    given = {name: {"m": "$${x}", "id": "${CPEWF_TASK_ID}"} for name in names if draw(st.booleans())}
    inputs = {"tasks": tasks, "inputs": given}
    params = {"dynamicForkTasksParam": "tasks", "dynamicForkTasksInputParamName": "inputs"}
    fork = _node(shape, "FORK_JOIN_DYNAMIC", "d", inputs, **params)
    return [fork, _node(shape, "JOIN", "j", **_flags(draw))]
