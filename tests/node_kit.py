"""A node of its own pool, and who takes down what it has others do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from maestoso_server.dispatch.node import Identity, Node
from maestoso_server.store.database import Database, Unavailable
from maestoso_server.store.nodes import BEAT_MS, LEASE_MS, Pulse
from ownership_kit import Outage, World


@dataclass
class Told:
    """Takes down what a node has others do."""

    pulses: list[Pulse] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    degraded: list[bool] = field(default_factory=list)
    addresses: list[list[str]] = field(default_factory=list)
    refuse: int = 0
    """So many times a new epoch finds the database gone."""

    def queues_with_room(self) -> Collection[tuple[str, str]]:
        return {("default", "pay")}

    def on_pulse(self, pulse: Pulse) -> None:
        self.pulses.append(pulse)

    async def on_new_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)
        if self.refuse:
            self.refuse -= 1
            raise Unavailable("not now")

    def on_degraded(self, degraded: bool) -> None:
        self.degraded.append(degraded)

    def on_nodes(self, addresses: Sequence[str]) -> None:
        self.addresses.append(list(addresses))


@asynccontextmanager
async def make_node(
    world: World, name: str = "a", faults: Outage | None = None
) -> AsyncIterator[tuple[Node, Told]]:
    database = await Database.open(world.url, clock=world.clock, max_size=3, faults=faults)
    told = Told()
    node = Node(
        database=database,
        clock=world.clock,
        identity=Identity(node_id=name, grpc_address=f"{name}:1", http_address=f"{name}:2", version="test"),
        duties=told,
    )
    try:
        await node.start()
        yield node, told
    finally:
        if faults:
            faults.down = False
        await node.stop()
        await database.close()


async def lease_passes(world: World, *living: Node) -> None:
    """One lease goes by, in which these nodes beat: afterwards the silence of others proves something."""
    for _ in range(LEASE_MS // BEAT_MS):
        world.clock.advance(BEAT_MS)
        for node in living:
            assert await node.run_once()
