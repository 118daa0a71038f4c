"""A request as it was on the wire, read strictly: what is not plain HTTP/1.1 fails the test."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEAD_END = b"\r\n\r\n"
_LENIENT_LINE = re.compile(rb"([A-Z]+) +(/[^ ]*) +HTTP/1\.1 *")
"""RFC 9112 section 3: who is lenient may take any white space for one space."""
_LINE = re.compile(rb"([A-Z]+) (/[^ ]*) HTTP/1\.1")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([^\x00-\x08\x0a-\x1f\x7f]*)")
_LENIENT_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_LENIENT_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n")
_SIZE = re.compile(rb"([0-9a-f]+)\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """One request.

    Attributes:
        method: Its method.
        target: Its target.
        headers: Names and values in order, as they were spelled.
        body: Its body, without chunk framing.
        chunked: Whether the body came in chunks.
    """

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    chunked: bool

    def values(self, name: bytes) -> list[bytes]:
        """Values of a header, whose name has no case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


def split_request(data: bytes, *, lenient: bool = False) -> tuple[ReceivedRequest, int] | None:
    """Read the first request; returns it and its length in bytes, or None while it is not whole.

    Raises AssertionError for what a gateway may not send; `lenient` passes what a client may.
    """
    end = data.find(_HEAD_END)
    if end < 0:
        return None
    line, *lines = data[:end].split(b"\r\n")
    first = (_LENIENT_LINE if lenient else _LINE).fullmatch(line)
    assert first, line
    headers = [_split_header(line, _LENIENT_HEADER if lenient else _HEADER) for line in lines]
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    codings = [value for name, value in headers if name.lower() == b"transfer-encoding"]
    assert len(lengths) + len(codings) <= 1, headers
    start = end + len(_HEAD_END)
    if codings:
        assert [coding.lower() if lenient else coding for coding in codings] == [b"chunked"], headers
        read = _read_lenient_chunks(data, start) if lenient else _read_chunks(data, start)
    else:
        assert not lengths or lengths[0].isdigit(), headers
        size = int(lengths[0]) if lengths else 0
        whole = len(data) >= start + size
        read = (data[start : start + size], start + size) if whole else None
    if read is None:
        return None
    request = ReceivedRequest(method=first[1], target=first[2], headers=headers, body=read[0], chunked=bool(codings))
    return request, read[1]


def _split_header(line: bytes, pattern: re.Pattern[bytes]) -> tuple[bytes, bytes]:
    match = pattern.fullmatch(line)
    assert match, line
    return match[1], match[2].strip(b" \t")


def _read_chunks(data: bytes, start: int) -> tuple[bytes, int] | None:
    """Read a chunked body that begins at `start`; returns it and where it ends. It may have no trailer."""
    pieces: list[bytes] = []
    while (match := _SIZE.match(data, start)) is not None:
        size, start = int(match[1], 16), match.end()
        if len(data) < start + size + 2:
            return None
        assert data[start + size : start + size + 2] == b"\r\n", data[start : start + size + 2]
        pieces.append(data[start : start + size])
        start += size + 2
        if size == 0:
            return b"".join(pieces), start
    assert b"\r\n" not in data[start:], data[start : start + 40]
    return None


def _read_lenient_chunks(data: bytes, start: int) -> tuple[bytes, int] | None:
    """As `_read_chunks`, with extensions and a trailer."""
    pieces: list[bytes] = []
    while True:
        if b"\r\n" not in data[start:]:
            return None
        match = _LENIENT_SIZE.match(data, start)
        assert match, data[start : start + 40]
        size, start = int(match[1], 16), match.end()
        if size == 0:
            break
        if len(data) < start + size + 2:
            return None
        assert data[start + size : start + size + 2] == b"\r\n", data[start : start + size + 2]
        pieces.append(data[start : start + size])
        start += size + 2
    while (line := _TRAILER.match(data, start)) is not None:
        start = line.end()
    if len(data) < start + 2:
        return None
    assert data[start : start + 2] == b"\r\n", data[start : start + 40]
    return b"".join(pieces), start + 2
