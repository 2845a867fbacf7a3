"""How big what the engine itself puts together may be. What comes from outside is checked there."""

from __future__ import annotations

from ..ids import MAX_SEQ

PAYLOAD_MAX_BYTES = 4 * 1024 * 1024
"""An input or an output, as JSON text."""
VARIABLES_MAX_KB = 256
"""All variables of a workflow together."""
TASKS_MAX = MAX_SEQ - 10_000
"""Tasks that a workflow may begin; some room is left for those that end it."""
BRANCHES_MAX = 100_000
"""Branches of one dynamic fork."""
