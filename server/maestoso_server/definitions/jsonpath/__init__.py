"""JSONPath as Conductor's definitions use it: Jayway's dialect with suppressed exceptions.

A path is *definite* when it can name one value only; it then reads that value or `MISSING`. An
indefinite one (wildcard, slice, filter, `..`) always reads a list. Nothing here raises while
reading: a path that does not fit the data finds nothing.

The document is never built: a path is split into root, attribute and the rest, and the first
two are looked up (`Lookup`), so that `${t1.output.a}` costs one call and two subscriptions.
"""

from .parser import compile_path
from .path import MATCHES_MAX, Path
from .values import MISSING, Lookup, PathError

__all__ = ["MATCHES_MAX", "MISSING", "Lookup", "Path", "PathError", "compile_path"]
