"""100,000 workflows parked in a WAIT that all end at the same moment: when did the last one end?"""

from __future__ import annotations

import asyncio
from typing import Any

from .report import Floor, at_most
from .stage import Load, Stage, note, now_ms

NAME = "timers"
RUNS = 1
SECONDS = 0.0
WAITS = 100_000
FLOORS: list[Floor] = [at_most("last_ended_s", 10)]


async def run(stage: Stage, seconds: float) -> dict[str, Any]:
    node = stage.nodes[0] if stage.nodes else await stage.node()
    due_ms = now_ms() + 100_000
    load = Load("timers", {"server": node.grpc, "waits": WAITS, "due_ms": due_ms})
    try:
        parked = await load.line(200)
    finally:
        load.stop()
    note(f"  {parked['started']} parked, {(due_ms - now_ms()) / 1000:.0f} s before they are due")
    if now_ms() > due_ms:
        raise RuntimeError("parking took longer than the waits: the figure would be meaningless")
    await asyncio.sleep((due_ms - now_ms()) / 1000)
    while await stage.count("SELECT count(*) FROM workflow WHERE status = 1") and now_ms() < due_ms + 100_000:
        await asyncio.sleep(0.5)
    last = await stage.count("SELECT max(ended_ms) FROM workflow")
    left = await stage.count("SELECT count(*) FROM workflow WHERE status = 1")
    return {"last_ended_s": round((last - due_ms) / 1000, 3) if not left else 1e9, "left": left}
