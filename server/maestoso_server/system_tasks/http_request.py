"""What an HTTP task asks for, read from its input, and what it answers. Pure.

{"http_request": {"uri": ..., "method": ...}}   as Conductor documents write it, or
{"uri": ..., "method": ...}                     flat (K29)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..payload import DecodeError, decode, encode

CONNECT_MS = READ_MS = 3_000
"""Conductor's time limits where a task names none."""
WAIT_MAX_MS = 600_000
EXCERPT_MAX = 300
"""Characters of an answer's body that go into the reason."""

_WORTH_REPEATING = frozenset({408, 425, 429})
"""Statuses of the 4xx that say nothing against the request."""
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f]")
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})


class Unusable(Exception):
    """The input is no request that can be sent: which field, what is wrong, what helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request, ready to be sent. `body`: None sends none."""

    uri: str
    method: str
    headers: Mapping[str, str]
    body: bytes | None
    connect_ms: int
    read_ms: int
    client_errors_final: bool
    """A 4xx fails for good, but for those that are worth repeating."""
    async_complete: bool
    """The answer does not complete the task; somebody else will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """What came back. `headers` in their order, a name once for each of its lines."""

    status: int
    reason_phrase: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    charset: str | None


def read_request(inputs: Mapping[str, Any]) -> HttpRequest:
    """The request in a task's input. Raises Unusable."""
    nested = inputs.get("http_request")
    source = inputs if nested is None else nested
    if not isinstance(source, dict):
        raise Unusable(f"http_request must be an object, it is {_kind(source)}")
    headers = {
        "Accept": _accept(source.get("accept")),
        "Content-Type": _text(source, "contentType", "application/json"),
    }
    _add_headers(headers, source.get("headers"))
    return HttpRequest(
        uri=_uri(source),
        method=_method(source),
        headers=headers,
        body=_body(source.get("body")),
        connect_ms=_milliseconds(source, "connectionTimeOut", CONNECT_MS),
        read_ms=_milliseconds(source, "readTimeOut", READ_MS),
        client_errors_final=_flag(source, "terminalClientErrors"),
        async_complete=_flag(inputs, "asyncComplete"),
    )


def response_map(answer: HttpAnswer) -> dict[str, Any]:
    """`response` of the task's output. Bodies keep their JSON types (B35)."""
    headers: dict[str, list[str]] = {}
    for name, value in answer.headers:
        headers.setdefault(name, []).append(value)
    return {
        "statusCode": answer.status,
        "reasonPhrase": answer.reason_phrase,
        "headers": headers,
        "body": _value(answer),
    }


def why_failed(answer: HttpAnswer) -> str:
    """The reason of a task that got this answer; empty where it is a success."""
    if 200 <= answer.status < 300:
        return ""
    told = f"Failed to invoke HTTP task due to: {answer.status} {answer.reason_phrase}".rstrip()
    if 300 <= answer.status < 400:
        return f"{told} (redirects are not followed)"
    excerpt = _decoded(answer)[:EXCERPT_MAX]
    return f"{told}: {excerpt}" if excerpt else told


def is_final(request: HttpRequest, answer: HttpAnswer) -> bool:
    """Whether the same request would only be refused again, and the task asks to hear of it."""
    refused = 400 <= answer.status < 500 and answer.status not in _WORTH_REPEATING
    return request.client_errors_final and refused


# -- fields ------------------------------------------------------------------------------------------


def _uri(source: Mapping[str, Any]) -> str:
    uri = source.get("uri")
    if uri is None or uri == "":
        raise Unusable("Missing HTTP URI. Give http_request.uri, or uri in the flat form")
    if not isinstance(uri, str):
        raise Unusable(f"uri must be a text, it is {_kind(uri)}")
    if not uri.lower().startswith(("http://", "https://")):
        raise Unusable("uri must begin with http:// or https://")
    if _UNSENDABLE.search(uri):
        raise Unusable("uri has a blank or a control character; it is sent as given: percent-encode it")
    return uri


def _method(source: Mapping[str, Any]) -> str:
    method = source.get("method")
    if method is None or method == "":
        raise Unusable("No HTTP method specified. Give http_request.method, such as GET")
    if not isinstance(method, str) or not _METHOD.match(method) or method.upper() == "CONNECT":
        raise Unusable("method must be the name of an HTTP method, such as GET or POST")
    return method.upper()


def _accept(value: Any) -> str:
    if value is None:
        return "application/json"
    kinds = value if isinstance(value, list) else [value]
    if not all(isinstance(kind, str) for kind in kinds):
        raise Unusable("accept must be a media type or a list of them")
    return _line("accept", ", ".join(kinds))


def _text(source: Mapping[str, Any], name: str, default: str) -> str:
    value = source.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise Unusable(f"{name} must be a text, it is {_kind(value)}")
    return _line(name, value)


def _add_headers(into: dict[str, str], value: Any) -> None:
    """A header of the task takes the place of the one that `accept` or `contentType` gives."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise Unusable(f"headers must be an object, it is {_kind(value)}")
    for name, content in value.items():
        if content is None:
            continue
        if not _METHOD.match(name):
            raise Unusable(f"headers: {name[:50]!r} is not the name of a header")
        if name.lower() in _FRAMING:
            raise Unusable(f"headers: {name} is set by the server; leave it out")
        text = content if isinstance(content, str) else encode(content).decode()
        for other in [known for known in into if known.lower() == name.lower()]:
            del into[other]
        into[name] = _line(f"headers.{name}", text)


def _line(name: str, text: str) -> str:
    """A header's text. What it is stays unsaid: it may be a secret."""
    if any(character in text for character in "\r\n\x00"):
        raise Unusable(f"{name} has a line end or U+0000, which no header may have")
    return text


def _body(value: Any) -> bytes | None:
    """A text goes as it is, any other value as JSON."""
    if value is None:
        return None
    return value.encode(errors="replace") if isinstance(value, str) else encode(value)


def _milliseconds(source: Mapping[str, Any], name: str, default: int) -> int:
    value = source.get(name)
    if value is None:
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:10])
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= WAIT_MAX_MS:
        raise Unusable(f"{name} must be whole milliseconds, 1 to {WAIT_MAX_MS:,}")
    return value


def _flag(source: Mapping[str, Any], name: str) -> bool:
    value = source.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    if value in ("true", "false"):
        return bool(value == "true")
    raise Unusable(f"{name} must be true or false, it is {_kind(value)}")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "a number")


# -- bodies ------------------------------------------------------------------------------------------


def _value(answer: HttpAnswer) -> Any:
    """JSON whatever the content type says; a text where it is none; null where there is none."""
    if not answer.body:
        return None
    try:
        return decode(answer.body)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return _decoded(answer)


def _decoded(answer: HttpAnswer) -> str:
    try:
        return answer.body.decode(answer.charset or "utf-8", errors="replace")
    except LookupError:
        return answer.body.decode(errors="replace")
