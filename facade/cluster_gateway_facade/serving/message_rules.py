"""Rules of HTTP/1.1 messages that the parser leaves to its user, so that no two hops read a request differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs

if TYPE_CHECKING:
    from aiohttp import web

_VERSIONS: Final = (HttpVersion11, HttpVersion10)
_REFUSED_METHODS: Final = ("CONNECT", "TRACE")


def broken_rule(request: web.BaseRequest) -> str:
    """Say which rule a request breaks; empty when none. The answer repeats nothing of the request.

    Source:
        RFC 9112 sections 3.2 (request target), 6.1 and 6.3 (transfer coding); RFC 9110 section 9.3.8 (TRACE).
    """
    target = request.raw_path
    if not target.startswith("/"):
        return "only requests in origin form are served"
    if "#" in target:
        return "a request target has no fragment"
    if request.version not in _VERSIONS:
        return "only HTTP/1.1 and HTTP/1.0 are served"
    if request.method in _REFUSED_METHODS:
        return f"{request.method} is not served"
    codings = request.headers.getall(hdrs.TRANSFER_ENCODING, None)
    if codings is None:
        return ""
    if request.version == HttpVersion10 or hdrs.CONTENT_LENGTH in request.headers:
        return "the length of the request's body is ambiguous"
    return "" if [coding.lower() for coding in codings] == ["chunked"] else "no transfer coding but chunked is served"
