"""Which requests are for a cluster, and what of their target is the cluster's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_PROXIED: Final = re.compile(
    rb"/apis/cluster\.core\.oam\.dev/v1alpha1/clustergateways/(?P<name>[^/?]*)/proxy(?P<target>[/?].*)?",
    re.DOTALL,
)
_NAME: Final = re.compile(rb"[A-Za-z0-9][-._A-Za-z0-9]*")
"""Wider than the names that clusters can have, so that a mistyped one is refused like any unknown one."""
_LONGEST_NAME: Final = 253
_ESCAPED_DRY_RUN: Final = re.compile(
    rb"(?:^|(?<=&))(?:_|%5[fF]){2}(?:d|%64)(?:r|%72)(?:y|%79)(?:R|%52)(?:u|%75)(?:n|%6[eE])(?=[=&]|$)"
)
"""The key `__dryRun`, however it is percent-encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxiedTarget:
    """A request for a cluster.

    Attributes:
        cluster_name: As in the path; None where no cluster can have that name.
        target: The cluster's own path and query, as bytes on the wire.
    """

    cluster_name: str | None
    target: bytes


def parse_proxied_target(target: bytes) -> ProxiedTarget | None:
    """Split a request target; None when it is not for a cluster.

    What belongs to the cluster is not decoded. An empty rest is the cluster's root. The query key `__dryRun`, by which
    clients of the original carry `dryRun` past its own check, becomes `dryRun` again: passed on as it is, the cluster
    would ignore it and write for real.
    """
    match = _PROXIED.fullmatch(target)
    if match is None:
        return None
    name, rest = match["name"], match["target"] or b"/"
    if not rest.startswith(b"/"):
        rest = b"/" + rest
    if b"__" in rest or b"%5" in rest:
        rest = _restore_dry_run(rest)
    known = len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None
    return ProxiedTarget(cluster_name=name.decode("ascii") if known else None, target=rest)


def _restore_dry_run(target: bytes) -> bytes:
    path, separator, query = target.partition(b"?")
    return path + separator + _ESCAPED_DRY_RUN.sub(b"dryRun", query)
