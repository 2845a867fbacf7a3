"""The task types that Conductor knows, and who does their work here."""

OPERATORS = frozenset(
    {
        "SWITCH",
        "DECISION",
        "FORK_JOIN",
        "FORK_JOIN_DYNAMIC",
        "JOIN",
        "EXCLUSIVE_JOIN",
        "DO_WHILE",
        "SUB_WORKFLOW",
        "START_WORKFLOW",
        "DYNAMIC",
        "SET_VARIABLE",
        "TERMINATE",
        "INLINE",
        "LAMBDA",
        "JSON_JQ_TRANSFORM",
        "NOOP",
        "WAIT",
        "HUMAN",
        "EVENT",
        "TRY",
        "COMPENSATE",
    }
)
"""Decided inside the engine."""

SYSTEM_TASKS = frozenset({"HTTP"})
"""Work that the server does itself."""

WORKER_TASKS = frozenset({"SIMPLE", "USER_DEFINED"})
"""Work for workers, as is any type that is in none of these sets."""

ELSEWHERE = frozenset(
    {
        "KAFKA_PUBLISH",
        "JDBC",
        "PULL_WORKFLOW_MESSAGES",
        "LLM_TEXT_COMPLETE",
        "LLM_CHAT_COMPLETE",
        "LLM_INDEX_TEXT",
        "LLM_SEARCH_INDEX",
        "LLM_GENERATE_EMBEDDINGS",
        "LLM_STORE_EMBEDDINGS",
        "LLM_GET_EMBEDDINGS",
        "LLM_SEARCH_EMBEDDINGS",
        "LIST_MCP_TOOLS",
        "CALL_MCP_TOOL",
        "AGENT",
        "GET_AGENT_CARD",
        "CANCEL_AGENT",
        "GENERATE_IMAGE",
        "GENERATE_AUDIO",
        "GENERATE_VIDEO",
        "GENERATE_PDF",
        "HTTP_POLL",
        "WAIT_FOR_WEBHOOK",
        "YIELD",
    }
)
"""Done by the server elsewhere (Conductor's modules, Orkes): here a worker must take them."""

KNOWN = OPERATORS | SYSTEM_TASKS | WORKER_TASKS | ELSEWHERE

NEVER_RETRIED = frozenset(
    {
        "SWITCH",
        "DECISION",
        "FORK_JOIN",
        "FORK_JOIN_DYNAMIC",
        "JOIN",
        "EXCLUSIVE_JOIN",
        "DO_WHILE",
        "TRY",
        "COMPENSATE",
    }
)
STEERING = NEVER_RETRIED | {"FORK", "TERMINATE"}
"""Types that do no work of their own, so that there is nothing in them to compensate."""
STARTED_AT_ONCE = OPERATORS - {"SUB_WORKFLOW", "START_WORKFLOW", "DYNAMIC"}
"""Types that ignore `startDelay`, as with Conductor."""
NEVER_CACHED = OPERATORS
"""Types whose `cacheConfig` has no effect: what they do, the server does at once."""
EVALUATORS = frozenset({"value-param", "javascript", "graaljs", "python"})
"""What an `evaluatorType` may be; `python` only where the server has its evaluator."""
