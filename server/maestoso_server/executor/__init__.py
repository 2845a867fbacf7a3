"""Lanes and batches: the only place where engine, store and scripting meet.

services, dispatch ──submit──▶ Lane (one per workflow) ──▶ batch: load, decide, save ──▶ done
                                 ▲                                   │
                                 └───────── messages, lost races ────┘
"""

from ..definitions.keys import KeyPolicy
from .executor import Executor
from .lanes import Done
from .placement import Nowhere, Placed, Placement
from .starts import Starter, StartOutcome, StartRequest

__all__ = [
    "Done",
    "Executor",
    "KeyPolicy",
    "Nowhere",
    "Placed",
    "Placement",
    "StartOutcome",
    "StartRequest",
    "Starter",
]
