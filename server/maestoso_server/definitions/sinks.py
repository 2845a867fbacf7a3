"""Where an event goes: from a sink, as a definition writes it, to the name of a queue (K28).

A queue is named `<provider>:<rest>`. The provider `conductor` is the outbox of this server itself.
Another one is a broker: whoever plugs one in adds its name to `PROVIDERS` and carries on what the
outbox holds for queues of that name.
"""

from __future__ import annotations

CONDUCTOR = "conductor"
PROVIDERS = {CONDUCTOR}
"""Providers that take events here. Filled before the first plan is compiled, never changed after."""
KNOWN = frozenset(
    {CONDUCTOR, "kafka", "sqs", "nats", "jsm", "nats_stream", "amqp", "amqp_queue", "amqp_exchange"}
)
"""Providers of Conductor; one that is not in `PROVIDERS` has no broker here."""


_FORMS = "a sink is conductor, conductor:NAME or PROVIDER:NAME"


class NoQueue(Exception):
    """A sink that leads nowhere. `reason` is Conductor's text, `why` the plain cause."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.why = why


def queue_of(sink: str, workflow: str, reference: str, task: str) -> str:
    """The queue of a sink, for an event of `reference` in a workflow of the name `workflow`. `task`,
    its id, is for the refusal. Raises NoQueue."""
    if sink == CONDUCTOR:
        return f"{CONDUCTOR}:{workflow}:{reference}"
    if sink.startswith(f"{CONDUCTOR}:"):
        return f"{CONDUCTOR}:{workflow}:{sink.replace(f'{CONDUCTOR}:', '')}"
    if sink.startswith(CONDUCTOR):
        raise NoQueue(f"Invalid / Unsupported sink specified: {sink}", f"{sink} is no sink; {_FORMS}")
    why = _unusable(sink)
    if why is not None:
        raise NoQueue(f"Error loading queue:{sink}, for task:{task}, error: {why}", why)
    return sink


def _unusable(sink: str) -> str | None:
    """Why nothing takes the events of a sink of another provider; None where it is taken."""
    provider, colon, rest = sink.partition(":")
    if not colon or not rest:
        return _FORMS
    if provider in PROVIDERS:
        return None
    if provider in KNOWN:
        return f"no {provider} broker is configured"
    return f"{provider} is no provider of queues; this server has {', '.join(sorted(PROVIDERS))}"
