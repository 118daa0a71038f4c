"""One HTTP request and the answer to it, for every request that the facade answers itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from clustergateway.access.v1.user_info_pb2 import UserInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request for a document or an object of the gateway's own API.

    Attributes:
        method: HTTP method in upper case.
        path: Decoded path, without query, beginning with "/".
        query: Decoded pairs in order, duplicates kept.
        headers: Case-insensitive; the first value of a repeated header.
        user: Who asks.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    user: UserInfo = field(default_factory=UserInfo)

    def asked_by(self, user: UserInfo) -> ApiRequest:
        """Return the same request with the user who asks."""
        return replace(self, user=user)

    def parameter(self, name: str) -> str | None:
        """Return the first value of a query parameter, or None: the value that kube-apiserver reads."""
        return next((value for key, value in self.query if key == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole response.

    Attributes:
        status: HTTP status code.
        content_type: Media type with parameters.
        body: The body; a HEAD request gets its length only.
        headers: Further headers in order.
    """

    status: int = 200
    content_type: str = "application/json"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
