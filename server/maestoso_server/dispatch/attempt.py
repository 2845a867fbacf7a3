"""How a loop lives through the failure of its duty."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from ..clock import Clock
from ..store.database import Unavailable
from ..store.nodes import NodeLost
from .alarm import Alarm

log = logging.getLogger(__name__)

RETRY_MS = 200
"""Pause after a duty that failed."""


async def attempt(duty: Callable[[], Awaitable[None]]) -> bool:
    """Do it once. False: it failed, for want of the database or by a bug; either is logged."""
    try:
        await duty()
    except (Unavailable, NodeLost) as away:
        log.warning("waits for the database", extra={"duty": duty.__qualname__, "cause": str(away)})
        return False
    except Exception:
        log.exception("failed", extra={"duty": duty.__qualname__})
        return False
    return True


async def on_alarm(clock: Clock, alarm: Alarm, duty: Callable[[], Awaitable[None]]) -> None:
    """Do it whenever the alarm rings, for ever; again soon where it failed."""
    while True:
        await alarm.ring()
        if not await attempt(duty):
            alarm.notice(clock.now_ms() + RETRY_MS)
