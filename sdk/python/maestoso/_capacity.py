"""How a worker's slots are divided over its streams.

What the streams declare adds up to the concurrency. Slots that hold something stay where they are;
the idle ones go to the streams that receive work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """One stream: tasks held, tasks received lately, and whether it may take new ones."""

    held: int
    received: int
    open: bool = True


def divide(concurrency: int, loads: Sequence[Load]) -> list[int]:
    """The capacity that each stream declares. Adds up to the concurrency if a stream is open.

    Where more is held than there are slots (deliveries that crossed a smaller capacity on their
    way) the sum is what is held, until some of it has ended.
    """
    shares = [load.held for load in loads]
    idle = concurrency - sum(shares)
    weights = [load.received + 1 if load.open else 0 for load in loads]
    total = sum(weights)
    if idle <= 0 or total == 0:
        return shares
    # A slot each where they suffice: a stream without one could never show that it has work.
    openings = [index for index, load in enumerate(loads) if load.open]
    if idle >= len(openings):
        for index in openings:
            shares[index] += 1
        idle -= len(openings)
    exact = [idle * weight / total for weight in weights]
    for index, part in enumerate(exact):
        shares[index] += int(part)
    left = idle - sum(int(part) for part in exact)
    by_remainder = sorted(openings, key=lambda index: int(exact[index]) - exact[index])
    for index in by_remainder[:left]:
        shares[index] += 1
    return shares
