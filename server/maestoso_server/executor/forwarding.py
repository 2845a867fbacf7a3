"""Events of a workflow that other nodes keep winning: through its inbox to the node that wins them.

Racing on one revision starves the losers. After two lost races a node puts its results and commands
into the inbox, where the workflow's last node applies them in batches (DELIVERY 6). A result is
accepted with that statement, which ends its delivery; a command is answered when it was applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from ..engine import messages
from ..engine.decision import APPLIED, MessageKind, Outcome, Verdict
from ..engine.events import (
    ChangeVariables,
    Jump,
    Pause,
    Remove,
    Rerun,
    Restart,
    Result,
    Resume,
    Retry,
    Signal,
    Skip,
    Terminate,
    UpdateTask,
    Upgrade,
)
from ..payload import Json
from ..store import inbox
from ..store.database import Database
from .lanes import Done, Item
from .placement import Placement
from .routing import LOST

RACES_MAX = 2
"""Lost races in a row before a node gives way."""

_COMMANDS = (
    ChangeVariables,
    Jump,
    Pause,
    Remove,
    Rerun,
    Restart,
    Resume,
    Retry,
    Skip,
    Terminate,
    UpdateTask,
    Upgrade,
)


class Forwarding:
    """Puts events into inboxes and remembers who waits for their outcome."""

    def __init__(self, *, database: Database, placement: Placement, epoch: Callable[[], int]) -> None:
        self._database = database
        self._placement = placement
        self._epoch = epoch
        self._waiting: dict[int, Done] = {}

    async def forward(self, workflow_id: str, items: Sequence[Item]) -> tuple[list[Item], bool]:
        """Forward what can be forwarded. Returns the items that cannot (deadlines, messages: they are
        rows already), and whether this node is the one to drain the inbox after all."""
        kept: list[Item] = []
        carried: list[Item] = []
        posts: list[inbox.Post] = []
        for item in items:
            post = None if item.message_id else self._post(workflow_id, item)
            if post is None:
                kept.append(item)
            else:
                carried.append(item)
                posts.append(post)
        if not posts:
            return kept, False
        async with self._database.acquire() as connection:
            posted = await inbox.put(connection, posts, epoch=self._epoch())
        if not posted.node_alive:
            return list(items), False
        for item, post, message_id in zip(carried, posts, posted.ids, strict=True):
            self._settle(workflow_id, item, post, message_id)
        if posted.foreign:
            self._placement.ended_elsewhere({epoch for _, _, epoch in posted.foreign})
        here = self._epoch()
        for epoch in {drainer for drainer in posted.drainers if drainer is not None} - {here}:
            self._placement.messages_wait_at(epoch, workflow_id)
        return kept, here in posted.drainers

    def answered(self, message_id: int, outcome: bytes) -> None:
        """The node that applied a command has written its outcome."""
        done = self._waiting.pop(message_id, None)
        if done is not None:
            verdict, reason, *more = msgspec.msgpack.decode(outcome)
            report = Json(more[0]) if more and more[0] is not None else None
            done(Outcome(Verdict(verdict), reason, report, more[1] if len(more) > 1 else 0))

    def _post(self, workflow_id: str, item: Item) -> inbox.Post | None:
        event = item.event
        if isinstance(event, Result):
            if event.delivery is None:
                return None
            body = messages.result(replace(event, delivery=None))
            return inbox.Post(
                workflow_id, MessageKind.RESULT, body, event.now_ms, delivery=(event.seq, event.delivery)
            )
        if isinstance(event, Signal):
            kind, body = MessageKind.SIGNAL, messages.signal(event)
        elif isinstance(event, _COMMANDS):
            kind, body = MessageKind.COMMAND, messages.command(event)
        else:
            return None
        return inbox.Post(workflow_id, kind, body, event.now_ms, origin_epoch=self._epoch())

    def _settle(self, workflow_id: str, item: Item, post: inbox.Post, message_id: int | None) -> None:
        if post.delivery is not None:
            if message_id is not None:
                self._placement.ended(workflow_id, [post.delivery[0]])
            if item.done is not None:
                item.done(APPLIED if message_id is not None else LOST)
        elif message_id is not None and item.done is not None:
            self._waiting[message_id] = item.done


def encode_outcome(outcome: Outcome) -> bytes:
    """What the origin of a forwarded command reads."""
    more: tuple[Any, ...] = ()
    if outcome.report is not None or outcome.seq:
        more = (None if outcome.report is None else outcome.report.raw,)
    if outcome.seq:
        more = (*more, outcome.seq)
    return msgspec.msgpack.encode((int(outcome.verdict), outcome.reason, *more))
