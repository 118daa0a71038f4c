"""Asking a service whom a cluster is to see: what an `ExternalIdentityExchanger` names.

Every question has one limit from waiting for its turn to the last byte of the answer. Answers are believed for a while,
questions that are the same are asked once, and whatever is not an unambiguous answer fails the request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from cluster_gateway_core.errors import AccessDeniedError, GatewayError, Hop, IdentityExchangeFailedError
from cluster_gateway_core.hub.review_cache import ReviewCache
from cluster_gateway_core.model.cluster import Endpoint, EndpointType
from cluster_gateway_core.routing.identity_review import (
    InvalidIdentityReviewError,
    parse_identity_review,
    render_identity_review,
)
from cluster_gateway_core.upstream.context import UpstreamContext
from cluster_gateway_core.upstream.dial import Destination, dial, split_address
from cluster_gateway_core.upstream.tls import make_client_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    from cluster_gateway_core.model.user import UserInfo
    from cluster_gateway_core.settings import IdentitySettings, UpstreamSettings

_LOGGER = logging.getLogger(__name__)
_MAXIMUM_ANSWER_BYTES: Final = 256 * 1024
"""Longest answer: a user with thousands of groups."""
_CONCURRENT: Final = 32
"""Most questions at a time, each of which has a connection."""
_CACHED: Final = 8192
"""Most answers kept, as many as access reviews."""
_OK: Final = 200
_SERVICE: Final = "(identity service)"
"""Stands in the log where errors of a connection name a cluster."""


class _Answer:
    """Whom the service names; None when it refuses."""

    __slots__ = ("user",)

    def __init__(self, user: UserInfo | None) -> None:
        self.user = user


class ExternalExchanger:
    """Asks services and keeps their answers; an async context manager that ends open questions."""

    def __init__(
        self,
        settings: IdentitySettings,
        upstream: UpstreamSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the settings.

        Args:
            settings: Limits of a question.
            upstream: What is forbidden as an endpoint is forbidden as a service, too.
            clock: Monotonic seconds.
        """
        self._settings = settings
        self._context = UpstreamContext(
            replace(
                upstream,
                connect_timeout_seconds=settings.exchanger_timeout_seconds,
                tls_timeout_seconds=settings.exchanger_timeout_seconds,
            )
        )
        self._turns = asyncio.Semaphore(_CONCURRENT)
        self._answers: ReviewCache[tuple[str, str, str, UserInfo], _Answer] = ReviewCache(
            capacity=_CACHED, name="identity exchange", clock=clock
        )

    async def __aenter__(self) -> Self:
        await self._answers.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._answers.__aexit__(kind, error, trace)

    async def exchange(self, url: str, user: UserInfo, *, rule_name: str, cluster_name: str) -> UserInfo:
        """Return whom the cluster is to see.

        A caller that is cancelled leaves the question to others who wait for the same.

        Raises:
            AccessDeniedError: The service says that the user may not be passed on.
            IdentityExchangeFailedError: It gave no answer that counts.
        """
        answer = await self._answers.ask(
            (url, rule_name, cluster_name, user),
            lambda: self._ask(url, user, rule_name, cluster_name),
            lambda _: self._settings.exchanger_ttl_seconds,
        )
        if answer.user is None:
            raise AccessDeniedError(
                f'identity rule "{rule_name}": its service does not let this caller through to cluster {cluster_name}',
                cluster_name=cluster_name,
                hop=Hop.CORE,
                hint="Ask whoever runs that service.",
            )
        return answer.user

    async def _ask(self, url: str, user: UserInfo, rule_name: str, cluster_name: str) -> _Answer:
        question = render_identity_review(user, rule_name=rule_name, cluster_name=cluster_name)
        limit = self._settings.exchanger_timeout_seconds
        try:
            async with asyncio.timeout(limit), self._turns:
                return _Answer(parse_identity_review(await self._post(url, question)))
        except (GatewayError, InvalidIdentityReviewError, OSError) as error:  # TimeoutError is an OSError
            fault = f"no answer within {limit:g} seconds" if isinstance(error, TimeoutError) else str(error)
            # Why stays in the log: it tells of a network that is not the caller's business.
            _LOGGER.warning('identity rule "%s": its service could not be asked: %s', rule_name, fault)
            raise IdentityExchangeFailedError(
                f'identity rule "{rule_name}": its service did not say whom cluster {cluster_name} is to see',
                cluster_name=cluster_name,
            ) from error

    async def _post(self, url: str, question: bytes) -> bytes:
        """Send one POST on a connection of its own and return the answer's body.

        Raises:
            GatewayError: The service could not be reached, or the connection failed.
            InvalidIdentityReviewError: The answer is not 200 with a body that is short enough.
            OSError: The CA file cannot be read.
        """
        host, port, _ = split_address(url)
        context = await asyncio.to_thread(_make_context, self._settings.exchanger_ca_file)
        destination = Destination(cluster_name=_SERVICE, host=host, port=port, tls=context, server_name=host)
        connection = await dial(destination, self._context)
        try:
            connection.begin("POST")
            connection.write(_render_post(url, question))
            head = await connection.response_head()
            if head.status != _OK:
                raise InvalidIdentityReviewError(f"it answered {head.status}")
            body = b""
            while True:
                piece, complete = connection.take_body()
                body += piece
                if len(body) > _MAXIMUM_ANSWER_BYTES:
                    raise InvalidIdentityReviewError(f"its answer is longer than {_MAXIMUM_ANSWER_BYTES} bytes")
                if complete:
                    return body
                await connection.body_readable()
        finally:
            connection.abort()


def _make_context(ca_file: str | None) -> ssl.SSLContext:
    ca = Path(ca_file).read_bytes() if ca_file else None
    return make_client_context(_SERVICE, Endpoint(type=EndpointType.CONST, ca_bundle_pem=ca), None)


def _render_post(url: str, body: bytes) -> bytes:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = (
        f"POST {target} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Accept: application/json",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "User-Agent: cluster-gateway",
    )
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body
