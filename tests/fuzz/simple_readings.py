"""Second readings of what the gateway parses, written for plainness and not for speed, to compare with."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

_HEX: Final = b"0123456789abcdefABCDEF"
_DEEPEST: Final = 5
"""Layers of percent encoding that may lie one in another."""


def accepts_target(target: bytes) -> bool:
    """Whether a target is sound, byte by byte."""
    if not target.startswith(b"/") or len(target) > 256 * 1024:
        return False
    if any(byte <= 0x20 or byte == 0x7F or byte in b"#\\" for byte in target):
        return False
    path, _, query = target.partition(b"?")
    if len(query.split(b"&")) > 1000:
        return False
    if any(not _is_escape(path, place) for place, byte in enumerate(path) if byte == ord("%")):
        return False
    segments = path.split(b"/")[1:]
    free = _first_free(segments)
    for place, segment in enumerate(segments):
        layers = decodings(segment)
        if len(layers) > _DEEPEST + 1:
            return False
        pieces = layers[-1].replace(b"\\", b"/").split(b"/")
        if b"." in pieces or b".." in pieces:
            return False
        once = layers[min(1, len(layers) - 1)]
        if place >= free:
            if set(once) & set(b"\0\r\n"):
                return False
        elif any(byte < 0x20 or byte in b"\x7f/\\" for byte in once) or (not segment and place < len(segments) - 1):
            return False
    return True


def decodings(text: bytes) -> list[bytes]:
    """A text and what it becomes each time its escapes are undone, until nothing changes."""
    layers = [text]
    while (decoded := unquote_to_bytes(layers[-1])) != layers[-1]:
        layers.append(decoded)
    return layers


def _is_escape(path: bytes, place: int) -> bool:
    digits = path[place + 1 : place + 3]
    return len(digits) == 2 and all(digit in _HEX for digit in digits)


def _first_free(segments: list[bytes]) -> int:
    """Place of the first segment that belongs to an application behind a node, pod or service."""
    match segments:
        case [b"api", b"v1", b"nodes", _, b"proxy", *_]:
            return 5
        case [b"api", b"v1", b"namespaces", _, b"pods" | b"services", _, b"proxy", *_]:
            return 7
        case _:
            return len(segments)


def read_request(method: str, path: str, query: str) -> dict[str, str | bool]:
    """Read a request with a decoded path as kube-apiserver's documentation of RequestInfo describes it."""
    parts = path.strip("/").split("/")
    plain: dict[str, str | bool] = {"is_resource_request": False, "verb": method.lower(), "resource": "", "name": ""}
    match parts:
        case ["api", _, _, *_]:
            rest = parts[2:]
        case ["apis", _, _, _, *_]:
            rest = parts[3:]
        case _:
            return plain
    verbs = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    verb = verbs.get(method, "")
    special = rest[0] in ("watch", "proxy")
    if special:
        if len(rest) < 2:
            return plain
        verb, rest = rest[0], rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in ("status", "finalize"):
            rest = rest[2:]
    resource, name, subresource = (*rest, "", "", "")[:3]
    if verb == "proxy":
        subresource = ""
    if not name and not special:
        watch = [value for key, value in readable_pairs(query) if key == "watch"]
        if verb == "get":
            verb = "watch" if watch and watch[0].lower() not in ("false", "0") else "list"
        elif verb == "delete":
            verb = "deletecollection"
    return {
        "is_resource_request": True,
        "verb": verb,
        "namespace": namespace,
        "resource": resource,
        "name": name,
        "subresource": subresource,
    }


def readable_pairs(query: str) -> list[tuple[str, str]]:
    """The pairs that Go's net/url reads: those without a semicolon and without a bad escape."""
    pairs: list[tuple[str, str]] = []
    for pair in query.split("&"):
        escapes = pair.split("%")[1:]
        if ";" not in pair and all(len(e) >= 2 and all(c in _HEX.decode() for c in e[:2]) for e in escapes):
            pairs += parse_qsl(pair, keep_blank_values=True)
    return pairs


def is_token(name: bytes) -> bool:
    """Whether bytes are a header's name."""
    return (
        bool(name)
        and all(chr(byte).isalnum() or byte in b"!#$%&'*+-.^_`|~" for byte in name if byte < 0x80)
        and (name.isascii())
    )
