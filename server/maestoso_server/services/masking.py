"""`maskedFields`: values that only workers and expressions see.

A field is a name, `password`, or the end of a path, `card.number`; lists between are passed through. It
is masked at every depth of inputs, outputs and variables, of the workflow and of its tasks. A caller
sees the values by asking for them (`unmask`) with the right to `workflow:unmask`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..executor.plans import Plans
from ..payload import Json, decode, encode
from .security import Authorizer, caller

SHOWN = "***"
UNMASK = "workflow:unmask"


class Mask:
    """What one definition hides."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[str] = ()) -> None:
        self._fields: dict[str, list[tuple[str, ...]]] = {}
        for field in fields:
            path = tuple(field.split("."))
            if path[-1]:
                self._fields.setdefault(path[-1], []).append(path)

    def hide(self, payload: Json) -> bytes:
        """The JSON text of a payload with these values as `***`. Costs nothing without fields."""
        if not self._fields:
            return payload.raw
        return encode(self._hidden(payload.value, ()))

    def hide_text(self, raw: bytes) -> bytes:
        """The same for a text."""
        return encode(self._hidden(decode(raw), ())) if self._fields else raw

    def _hidden(self, value: Any, at: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            return {
                key: SHOWN if self._covers((*at, key)) else self._hidden(item, (*at, key))
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._hidden(item, at) for item in value]
        return value

    def _covers(self, at: tuple[str, ...]) -> bool:
        return any(at[-len(path) :] == path for path in self._fields.get(at[-1], ()))


NOTHING = Mask()


class Masks:
    """Finds the mask under which a caller sees an execution."""

    def __init__(self, *, plans: Plans, authorizer: Authorizer) -> None:
        self._plans = plans
        self._authorizer = authorizer

    async def of(self, namespace: str, snapshot_id: str, workflow_id: str, *, unmask: bool = False) -> Mask:
        """The mask of the definition that this execution runs on. Raises PermissionDenied where the
        caller wants to see everything and may not."""
        if unmask:
            await self._authorizer.authorize(caller(), namespace, UNMASK, workflow_id)
            return NOTHING
        if not snapshot_id:
            return NOTHING
        plan = self._plans.known(snapshot_id) or await self._plans.load(namespace, snapshot_id)
        fields = plan.definition.masked_fields
        return Mask(fields) if fields else NOTHING
