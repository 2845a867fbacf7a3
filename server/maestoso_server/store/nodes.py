"""Nodes: their rows, their leases, their beat, and what becomes of a dead one. DELIVERY 11 to 13.

A node is its epoch. Every statement that hands out work or writes a workflow begins with `ALIVE`:
it locks the node's own row FOR KEY SHARE and the rest reads it. Beats do not conflict with that
lock; a takeover, which deletes the row, waits for statements in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

LEASE_MS = 4_000
BEAT_MS = 1_000

ALIVE = "alive AS MATERIALIZED (SELECT epoch FROM node WHERE epoch = $1 FOR KEY SHARE)"
"""The first CTE of a guarded statement; $1 is the node's epoch. The rest must read it."""


class NodeLost(Exception):
    """This node's row is gone: others have taken over what it owned. The statement wrote nothing."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"node epoch {epoch} has been taken over")
        self.epoch = epoch


@dataclass(slots=True)
class NodeRow:
    """One server process."""

    epoch: int
    node_id: str
    grpc_address: str
    http_address: str
    version: str
    started_ms: int
    lease_until_ms: int
    draining: bool
    degraded: bool


@dataclass(slots=True)
class Pulse:
    """What one beat found for this node. `*_due_ms`: the earliest time, None where there is nothing."""

    deadline_due_ms: int | None
    """Of `deadline`: any node's business."""
    owned_due_ms: int | None
    """Of rows that this node owns."""
    asleep_due_ms: int | None
    """Of sleeping rows: any node's business."""
    inbox_due_ms: int | None
    """Of messages that this node drains."""
    session_due_ms: int | None
    """When the next of this node's ended streams expires."""
    sessions: int
    """How many ACTIVE sessions are this node's: another number than its open streams means that
    some have moved."""
    ended: bool
    """Rows of this node are marked ended."""
    answered: bool
    """Commands of this node were answered."""
    draining: bool
    """An operator asks this node to drain."""
    nodes: list[NodeRow]
    """All node rows, this one included, by epoch."""
    dead: list[int]
    """Epochs of other nodes to take over: the lease has run out, or the connection that proves
    their life is gone."""
    orphans: list[int]
    """Epochs without a node row that still own rows, sessions or messages."""
    waiting: list[tuple[str, str]]
    """Those of the queues asked about in which something waits: (namespace, queue)."""
