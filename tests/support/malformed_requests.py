"""Requests that two readers could read differently: none may be taken, and nothing behind one may be read as another.

Sources: RFC 9112 sections 2.2, 3, 5.1, 6.1, 6.3 and 7.1; the request smuggling advisories that docs/security.md names.
"""

from __future__ import annotations

SECRET = "s3cr3t"
"""Stands in each of them, and may stand in no answer and no log."""


def malformed_requests(proxy: str, identity: tuple[str, ...]) -> dict[str, bytes]:
    """Build them by name.

    Args:
        proxy: Path of a cluster's `proxy`.
        identity: Header lines that say who asks.
    """
    user = "\r\n".join(identity)
    line = f"POST {proxy}/{SECRET} HTTP/1.1\r\n"
    host = f"Host: gateway\r\n{user}\r\nAuthorization: Bearer {SECRET}\r\n"
    chunk = "0\r\n\r\n"
    texts = {
        **_lengths(line, host, chunk),
        **_codings(line, host, chunk, proxy),
        **_lines(line, host, proxy, user),
        **_targets(host, proxy),
    }
    return {name: text.encode("latin-1") for name, text in texts.items()}


def _lengths(line: str, host: str, chunk: str) -> dict[str, str]:
    start = f"{line}{host}"
    return {
        "length-and-chunked": f"{start}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}",
        "chunked-and-length": f"{start}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{chunk}",
        "zero-length-and-chunked": f"{start}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}",
        "two-lengths": f"{start}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "two-equal-lengths": f"{start}Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "two-lengths-of-other-case": f"{start}Content-Length: 1\r\ncontent-length: 2\r\n\r\nab",
        "length-list": f"{start}Content-Length: 1, 1\r\n\r\na",
        "signed-length": f"{start}Content-Length: +1\r\n\r\na",
        "negative-length": f"{start}Content-Length: -1\r\n\r\na",
        "negative-zero-length": f"{start}Content-Length: -0\r\n\r\n",
        "hex-length": f"{start}Content-Length: 0x1\r\n\r\na",
        "empty-length": f"{start}Content-Length:\r\n\r\n",
        "blank-length": f"{start}Content-Length: \t \r\n\r\n",
        "length-in-two-words": f"{start}Content-Length: 1 1\r\n\r\na",
        "length-with-fraction": f"{start}Content-Length: 1.0\r\n\r\na",
        "length-with-underscore": f"{start}Content-Length: 1_0\r\n\r\n0123456789",
        "quoted-length": f'{start}Content-Length: "1"\r\n\r\na',
        "length-in-other-digits": f"{start}Content-Length: \xb2\r\n\r\nab",
        "length-beyond-64-bits": f"{start}Content-Length: 18446744073709551617\r\n\r\na",
        "length-of-100-digits": f"{start}Content-Length: {'9' * 100}\r\n\r\na",
    }


def _codings(line: str, host: str, chunk: str, proxy: str) -> dict[str, str]:
    start = f"{line}{host}"
    return {
        "gzip-chunked": f"{start}Transfer-Encoding: gzip, chunked\r\n\r\n{chunk}",
        "chunked-gzip": f"{start}Transfer-Encoding: chunked, gzip\r\n\r\n{chunk}",
        "chunked-twice": f"{start}Transfer-Encoding: chunked, chunked\r\n\r\n{chunk}",
        "two-codings": f"{start}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}",
        "two-codings-of-which-one-identity": f"{start}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n"
        f"{chunk}",
        "identity": f"{start}Transfer-Encoding: identity\r\n\r\n",
        "empty-coding": f"{start}Transfer-Encoding:\r\n\r\n{chunk}",
        "xchunked": f"{start}Transfer-Encoding: xchunked\r\n\r\n{chunk}",
        "chunked-with-parameter": f"{start}Transfer-Encoding: chunked;q=1\r\n\r\n{chunk}",
        "chunked-with-comma": f"{start}Transfer-Encoding: chunked,\r\n\r\n{chunk}",
        "quoted-chunked": f'{start}Transfer-Encoding: "chunked"\r\n\r\n{chunk}',
        "coding-with-tab": f"{start}Transfer-Encoding:\x0bchunked\r\n\r\n{chunk}",
        "coding-with-nul": f"{start}Transfer-Encoding: chunked\x00\r\n\r\n{chunk}",
        "coding-with-high-byte": f"{start}Transfer-Encoding: \xa0chunked\r\n\r\n{chunk}",
        "space-before-the-colon-of-a-coding": f"{start}Transfer-Encoding : chunked\r\n\r\n{chunk}",
        "tab-before-the-colon-of-a-coding": f"{start}Transfer-Encoding\t: chunked\r\n\r\n{chunk}",
        "folded-coding": f"{start}Transfer-Encoding:\r\n chunked\r\n\r\n{chunk}",
        "coding-behind-bare-cr": f"{start}A: b\rTransfer-Encoding: chunked\r\n\r\n{chunk}",
        "coding-behind-bare-lf": f"{start}A: b\nTransfer-Encoding: chunked\r\n\r\n{chunk}",
        "coding-before-the-first-line": f" Transfer-Encoding: chunked\r\n{start}\r\n",
        "chunked-in-1.0": f"POST {proxy}/x HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n{chunk}",
        "huge-chunk": f"{start}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\na\r\n{chunk}",
        "chunk-of-64-bits": f"{start}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\na\r\n{chunk}",
        "negative-chunk": f"{start}Transfer-Encoding: chunked\r\n\r\n-1\r\na\r\n{chunk}",
        "signed-chunk": f"{start}Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n{chunk}",
        "chunk-in-0x": f"{start}Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n{chunk}",
        "space-before-a-chunk": f"{start}Transfer-Encoding: chunked\r\n\r\n 1\r\na\r\n{chunk}",
        "chunk-without-size": f"{start}Transfer-Encoding: chunked\r\n\r\n\r\na\r\n{chunk}",
        "chunk-extension-with-lf": f"{start}Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\na\r\n{chunk}",
        "chunk-extension-with-cr": f"{start}Transfer-Encoding: chunked\r\n\r\n1;a\rb\r\na\r\n{chunk}",
        "chunk-line-with-lf": f"{start}Transfer-Encoding: chunked\r\n\r\n1\na\r\n{chunk}",
        "chunk-longer-than-it-says": f"{start}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n{chunk}",
        "chunk-ended-by-lf": f"{start}Transfer-Encoding: chunked\r\n\r\n1\r\na\n{chunk}",
        "last-chunk-with-lf": f"{start}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\n\n",
        "malformed-trailer": f"{start}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA b\r\n\r\n",
    }


def _lines(line: str, host: str, proxy: str, user: str) -> dict[str, str]:
    start = f"{line}{host}"
    return {
        "bare-lf": f"GET {proxy}/x HTTP/1.1\n{user}\nHost: gateway\n\n",
        "bare-lf-after-the-first-line": f"GET {proxy}/x HTTP/1.1\nHost: gateway\r\n{user}\r\n\r\n",
        "bare-lf-in-header": f"{start}A: b\nC: d\r\n\r\n",
        "bare-cr-in-header": f"{start}A: b\rC: d\r\n\r\n",
        "bare-lf-at-the-end": f"{start}A: b\r\n\n",
        "obs-fold": f"{start}A: b\r\n c\r\n\r\n",
        "obs-fold-with-tab": f"{start}A: b\r\n\tc\r\n\r\n",
        "space-before-colon": f"{start}Content-Length : 5\r\n\r\n",
        "space-before-the-first-header": f"{line} A: b\r\n{host}\r\n",
        "no-header-name": f"{start}: x\r\n\r\n",
        "no-colon": f"{start}A b\r\n\r\n",
        "space-in-header-name": f"{start}A b: c\r\n\r\n",
        "high-byte-in-header-name": f"{start}A\xe9: c\r\n\r\n",
        "parenthesis-in-header-name": f"{start}A(b): c\r\n\r\n",
        "nul-in-header": f"{start}A: \x00\r\n\r\n",
        "nul-in-header-name": f"{start}A\x00: b\r\n\r\n",
        "escape-in-header": f"{start}A: \x1b[31m\r\n\r\n",
        "delete-in-header": f"{start}A: \x7f\r\n\r\n",
        "duplicate-host": f"{start}Host: other\r\n\r\n",
        "equal-host-twice": f"{start}Host: gateway\r\n\r\n",
        "no-host": f"{line}{user}\r\n\r\n",
        "http-2-line": f"GET {proxy}/x HTTP/2.0\r\n{host}\r\n",
        "http-2-preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "http-0.9": f"GET {proxy}/x\r\n\r\n",
        "http-1.2": f"GET {proxy}/x HTTP/1.2\r\n{host}\r\n",
        "http-1.10": f"GET {proxy}/x HTTP/1.10\r\n{host}\r\n",
        "http-01.1": f"GET {proxy}/x HTTP/01.1\r\n{host}\r\n",
        "http-in-lower-case": f"GET {proxy}/x http/1.1\r\n{host}\r\n",
        "another-protocol": f"GET {proxy}/x SIP/1.1\r\n{host}\r\n",
        "text-behind-the-version": f"GET {proxy}/x HTTP/1.1 x\r\n{host}\r\n",
        "tls-to-tls": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    }


def _targets(host: str, proxy: str) -> dict[str, str]:
    return {
        "absolute-form": f"GET https://gateway{proxy}/x HTTP/1.1\r\n{host}\r\n",
        "absolute-form-of-another-host": f"GET http://evil{proxy}/x HTTP/1.1\r\n{host}\r\n",
        "asterisk": f"OPTIONS * HTTP/1.1\r\n{host}\r\n",
        "fragment": f"GET {proxy}/x#y HTTP/1.1\r\n{host}\r\n",
        "connect": f"CONNECT gateway:443 HTTP/1.1\r\n{host}\r\n",
        "connect-path": f"CONNECT {proxy}/x HTTP/1.1\r\n{host}\r\n",
        "trace": f"TRACE {proxy}/x HTTP/1.1\r\n{host}\r\n",
        "unknown-method": f"G\x00T {proxy}/x HTTP/1.1\r\n{host}\r\n",
        "method-in-lower-case": f"get {proxy}/x HTTP/1.1\r\n{host}\r\n",
        "space-in-target": f"GET {proxy}/x y HTTP/1.1\r\n{host}\r\n",
        "tab-in-target": f"GET {proxy}/x\ty HTTP/1.1\r\n{host}\r\n",
        "nul-in-target": f"GET {proxy}/x\x00y HTTP/1.1\r\n{host}\r\n",
        "no-target": f"GET HTTP/1.1\r\n{host}\r\n",
    }
