"""`cacheConfig`: an output that the next task of the same name and key uses instead of running."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from ..definitions.models import WorkflowTask
from .expressions import Template, compile_template, text_of

_KEY_MAX = 255
"""Characters of a key that are kept as they are; one that is longer, or that
cannot be shown, is kept as its digest."""


@dataclass(slots=True, frozen=True)
class Cache:
    """`key` is resolved when the task is scheduled."""

    key: Template
    ttl_ms: int


def cache_of(task: WorkflowTask) -> Cache | None:
    """The cache of a node; None where it names no key or nothing stays in it."""
    config = task.cache_config
    if config is None or not config.key or config.ttl_in_second <= 0:
        return None
    return Cache(compile_template(config.key), config.ttl_in_second * 1000)


def key_of(value: object) -> str:
    """The key as text, whatever its expressions came to."""
    text = text_of(value)
    if len(text) <= _KEY_MAX and "\0" not in text and text.isprintable():
        return text
    return "sha256:" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
