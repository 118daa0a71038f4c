"""The target of a request: path and query as bytes.

A target is checked, never cleaned: what is authorized is byte for byte what the cluster gets. A gateway that
cleans the path after it was checked can be led out of the part that the check was about.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from cluster_gateway_core.errors import InvalidRequestError

MAXIMUM_TARGET_BYTES: Final = 256 * 1024
"""Longest target; kube-apiserver takes heads of 1 MiB, and selectors of this length are already unusual."""

MAXIMUM_QUERY_PAIRS: Final = 1000
"""Most query parameters, so that nothing can hide from whoever parses the query."""

_DEEPEST_ESCAPES: Final = 4
"""Layers of percent encoding below the first: more than any server on the way would undo."""
_NODE_PROXY: Final = 4
"""Place of `proxy` in `api/v1/nodes/<name>/proxy`."""
_NAMESPACED_PROXY: Final = 6
"""Place of `proxy` in `api/v1/namespaces/<namespace>/pods/<name>/proxy`."""

_FORBIDDEN: Final = re.compile(rb"[\x00-\x20\x7f#\\]")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_UNUSUAL: Final = re.compile(rb"%|//|/\.")
_SEPARATOR: Final = re.compile(rb"[/\\]")
_DOT_SEGMENTS: Final = frozenset({b".", b".."})
_FORBIDDEN_DECODED: Final = re.compile(rb"[\x00-\x1f\x7f/\\]")


def check_target(target: bytes) -> None:
    """Check that a target means the same to every parser on the way.

    Raises:
        InvalidRequestError: It is not origin-form, or holds a control character, fragment, backslash, bad escape,
            dot segment (encoded once or more), encoded separator, empty segment, or too many parameters. Behind
            the `proxy` of a service, pod or node, where the rest belongs to an application, encoded separators
            and empty segments pass.
    """
    if not target.startswith(b"/"):
        raise _invalid("it does not begin with a slash")
    if len(target) > MAXIMUM_TARGET_BYTES:
        raise _invalid(f"it is longer than {MAXIMUM_TARGET_BYTES} bytes")
    if _FORBIDDEN.search(target):
        raise _invalid("it holds a control character, space, fragment or backslash")
    path, _, query = target.partition(b"?")
    if query.count(b"&") >= MAXIMUM_QUERY_PAIRS:
        raise _invalid(f"it has more than {MAXIMUM_QUERY_PAIRS} query parameters")
    if _UNUSUAL.search(path):
        _check_segments(path)


def _check_segments(path: bytes) -> None:
    if _BAD_ESCAPE.search(path):
        raise _invalid("it holds a bad percent escape")
    behind_proxy = False
    segments = path[1:].split(b"/")
    for position, segment in enumerate(segments):
        decoded = unquote_to_bytes(segment)
        if not _DOT_SEGMENTS.isdisjoint(_SEPARATOR.split(_decode_fully(decoded))):
            raise _invalid("it holds a dot segment")
        if not behind_proxy:
            if _FORBIDDEN_DECODED.search(decoded):
                raise _invalid("it holds an encoded separator or control character")
            if not segment and position < len(segments) - 1:
                raise _invalid("it holds an empty segment")
        elif re.search(rb"[\x00\r\n]", decoded):
            raise _invalid("it holds an encoded control character")
        behind_proxy = behind_proxy or _ends_at_proxy(segments, position)


def _ends_at_proxy(segments: list[bytes], position: int) -> bool:
    """Whether a segment is the `proxy` of a node, pod or service; an object of that name is none."""
    if segments[position] != b"proxy" or segments[:2] != [b"api", b"v1"]:
        return False
    if position == _NODE_PROXY:
        return segments[2] == b"nodes"
    return position == _NAMESPACED_PROXY and segments[2] == b"namespaces" and segments[4] in (b"pods", b"services")


def _decode_fully(segment: bytes) -> bytes:
    """Undo every further layer of percent encoding; one too deeply nested is refused, since each layer costs time."""
    for _ in range(_DEEPEST_ESCAPES):
        if b"%" not in segment:
            return segment
        decoded = unquote_to_bytes(segment)
        if decoded == segment:
            return segment
        segment = decoded
    if unquote_to_bytes(segment) != segment:
        raise _invalid("it holds escapes within escapes within escapes")
    return segment


def _invalid(fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"the request's path below proxy is refused: {fault}")
