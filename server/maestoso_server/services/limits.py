"""What is refused on the way in: each limit by its name, with the size that was found.

gRPC itself refuses messages beyond the message limit (`registration.options`).
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass

from .. import ids, json_text
from ..config import Config
from ..definitions.names import NAME_MAX
from ..errors import InvalidArgument, Reason, Violation
from ..payload import EMPTY, Json

REASON_MAX = 500
PAGE_DEFAULT = 100
PAGE_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one server, in bytes and items."""

    payload_bytes: int
    definition_bytes: int
    batch_items: int

    @classmethod
    def of(cls, config: Config) -> Limits:
        """As the settings say."""
        return cls(
            payload_bytes=config.max_payload_bytes,
            definition_bytes=config.max_definition_bytes,
            batch_items=config.max_batch,
        )

    def payload(self, raw: bytes, field: str) -> Json:
        """An input or output that is a JSON object; empty bytes = {}. Raises InvalidArgument."""
        if not raw:
            return EMPTY
        return json_text.check_object(raw, field=field, limit=self.payload_bytes)

    def definition(self, raw: bytes, field: str) -> bytes:
        """A definition's document, by its size only. Raises InvalidArgument."""
        if len(raw) > self.definition_bytes:
            message = f"has {len(raw):,} bytes; at most {self.definition_bytes:,} are allowed"
            raise InvalidArgument(
                Reason.TOO_LARGE, f"{field} {message}", violations=[Violation(field, message)]
            )
        return raw

    def batch(self, items: Sized, field: str) -> None:
        """1 to `max_batch` items. Raises InvalidArgument."""
        if not 1 <= len(items) <= self.batch_items:
            raise invalid(field, f"has {len(items)} items; send 1 to {self.batch_items:,}")


def invalid(field: str, message: str) -> InvalidArgument:
    """The refusal of one field."""
    return InvalidArgument(
        Reason.INVALID_REQUEST, f"{field} {message}", violations=[Violation(field, message)]
    )


def text(value: str, field: str, most: int = NAME_MAX) -> str:
    """A text of at most `most` characters, perhaps empty. Raises InvalidArgument."""
    if len(value) > most:
        raise invalid(field, f"has {len(value)} characters; at most {most} are accepted")
    if "\0" in value:
        raise invalid(field, "holds U+0000, which is accepted in payloads only")
    return value


def name(value: str, field: str) -> str:
    """A text of 1 to 255 characters. Raises InvalidArgument."""
    if not value:
        raise invalid(field, "is required")
    return text(value, field)


def uuid(value: str, field: str) -> str:
    """An id in its canonical form. Raises InvalidArgument."""
    if not value:
        raise invalid(field, "is required")
    found = ids.canonical(value)
    if found is None:
        raise invalid(
            field, f"is {value[:50]!r}; an id is a UUID such as 0198c5f2-7a30-7c4e-8d21-3f6f0c9a1b2d"
        )
    return found


def number(value: int, field: str, least: int, most: int) -> int:
    """A whole number in a range. Raises InvalidArgument."""
    if not least <= value <= most:
        raise invalid(field, f"is {value}; {least} to {most:,} is accepted")
    return value


def page_size(
    value: int, field: str = "page_size", *, default: int = PAGE_DEFAULT, most: int = PAGE_MAX
) -> int:
    """Items a page; 0 = the default. Raises InvalidArgument."""
    return number(value, field, 0, most) or default
