"""kill -9 of a node under load, six times, each side in turn: what is stuck, lost or run twice?"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from .report import Floor, at_most
from .stage import Load, Node, Stage, note, now_ms

NAME = "crash"
RUNS = 1
SECONDS = 0.0
KILLS = 6
QUIET_S = 30.0
FLOORS: list[Floor] = [
    at_most("recovery_s", 10),
    at_most("stuck", 0),
    at_most("lost", 0),
    at_most("double_leases", 0),
]

STUCK = """
    SELECT count(*) FROM workflow w
    WHERE w.status = 1
      AND NOT EXISTS (SELECT FROM task_queue q JOIN node n ON n.epoch = q.owner_epoch
                      WHERE q.workflow_id = w.id AND NOT q.ended)
      AND NOT EXISTS (SELECT FROM task_queue q
                      WHERE q.workflow_id = w.id AND NOT q.ended AND coalesce(q.owner_epoch, 0) <= 0)
      AND NOT EXISTS (SELECT FROM deadline d WHERE d.workflow_id = w.id)
      AND NOT EXISTS (SELECT FROM inbox i WHERE i.workflow_id = w.id AND NOT i.parked)
"""
ORPHANS = """
    SELECT count(*) FROM task_queue q
    WHERE q.owner_epoch > 0 AND NOT EXISTS (SELECT FROM node n WHERE n.epoch = q.owner_epoch)
"""


async def run(stage: Stage, seconds: float) -> dict[str, Any]:
    addresses = [f"127.0.0.1:{_free_port()}" for _ in range(2)]
    nodes = [await stage.node(grpc=address) for address in addresses]
    load = Load("crash", {"servers": addresses, "in_flight": 64, "streams": 2})
    recoveries: list[float] = []
    try:
        await load.line()
        await asyncio.sleep(5)
        for kill in range(KILLS):
            recoveries.append(await _kill(stage, nodes, kill % 2))
        load.tell("stop")
        told = await load.line(120)
        await asyncio.sleep(QUIET_S)
        load.tell("end")
        told |= await load.line(120)
    finally:
        load.stop()
    ids = told["acknowledged"]
    completed = await stage.count(
        "SELECT count(*) FROM workflow WHERE id = ANY($1::text[]::uuid[]) AND status = 3", ids
    )
    return {
        "recovery_s": round(max(recoveries), 2),
        "recoveries_s": [round(value, 2) for value in recoveries],
        "stuck": await stage.count(STUCK) + await stage.count(ORPHANS),
        "lost": len(ids) - completed,
        "double_leases": told["overlaps"],
        "workflows": len(ids),
        "worker_lost": await stage.count("SELECT count(*) FROM task WHERE reason LIKE '%orker lost%'"),
    }


async def _kill(stage: Stage, nodes: list[Node], index: int) -> float:
    """Kill one node; how long until every workflow it had moved on; then bring it back."""
    node = nodes[index]
    epoch = await stage.count("SELECT epoch FROM node WHERE grpc_address = $1", node.grpc)
    began_ms = now_ms()
    node.kill()
    stage.nodes.remove(node)
    rows = await stage.pool.fetch(
        "SELECT id, revision FROM workflow WHERE status = 1 AND last_node = $1", epoch
    )
    while rows:
        rows = await stage.pool.fetch(
            "SELECT w.id, w.revision FROM unnest($1::uuid[], $2::bigint[]) AS was(id, revision)"
            " JOIN workflow w ON w.id = was.id WHERE w.revision = was.revision AND w.status = 1",
            [row[0] for row in rows],
            [row[1] for row in rows],
        )
        if now_ms() - began_ms > 60_000:
            break
        await asyncio.sleep(0.02)
    recovery_s = (now_ms() - began_ms) / 1000
    note(f"  killed {node.grpc}: recovered in {recovery_s:.2f} s")
    nodes[index] = await stage.node(grpc=node.grpc)
    await asyncio.sleep(max(5.0, 5.0 - recovery_s))
    return recovery_s


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
