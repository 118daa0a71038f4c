"""Rendering a request's head as bytes on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cluster_gateway_core.errors import InvalidRequestError

if TYPE_CHECKING:
    from cluster_gateway_core.model.http import Headers, RequestHead


_MAXIMUM_LENGTH_DIGITS: Final = 18
"""Content-Length fits a signed 64-bit number, as in Go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How a request's body is delimited.

    Attributes:
        content_length: The caller's own figure; None without one.
        chunked: True for a body of unknown length.
    """

    content_length: int | None = None
    chunked: bool = False


def choose_framing(request: RequestHead) -> Framing:
    """Decide how the body travels: by the caller's Content-Length, else chunked, else there is none.

    Raises:
        InvalidRequestError: Content-Length is malformed or contradicts itself, or an upgrade has a body.
    """
    lengths = {value.strip() for name, value in request.headers if name.lower() == b"content-length"}
    if len(lengths) > 1 or not all(value.isdigit() and len(value) <= _MAXIMUM_LENGTH_DIGITS for value in lengths):
        raise InvalidRequestError("Content-Length is malformed or given twice")
    length = int(lengths.pop()) if lengths else None
    if request.upgrade:
        if length:
            raise InvalidRequestError("a request that switches protocol cannot have a body")
        return Framing(content_length=length)
    if length is not None:
        if length > 0 and not request.has_body:
            raise InvalidRequestError("Content-Length announces a body that is not there")
        return Framing(content_length=length)
    return Framing(chunked=request.has_body)


def render_request_head(
    request: RequestHead, headers: Headers, framing: Framing, *, base_path: bytes, own_headers: bytes
) -> bytes:
    """Write a request's head.

    Args:
        request: The request.
        headers: The caller's headers that may travel, written as they are.
        framing: How the body is delimited.
        base_path: Path of the endpoint's URL, without a trailing slash.
        own_headers: Host and credential lines, ending with a line break.
    """
    lines = [request.method.encode("ascii"), b" ", base_path, request.target, b" HTTP/1.1\r\n", own_headers]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    if request.forwarded_for:
        lines += (b"X-Forwarded-For: ", request.forwarded_for.encode("ascii", "replace"), b"\r\n")
    if framing.content_length is not None:
        lines.append(b"Content-Length: %d\r\n" % framing.content_length)
    elif framing.chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if request.upgrade:
        lines += (b"Connection: Upgrade\r\nUpgrade: ", request.upgrade.encode("ascii"), b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
