"""A cluster's response, as a client of a core reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_gateway_client.errors import CoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from cluster_gateway_client.exchange import Exchange
    from clustergateway.routing.v1.routing_service_pb2 import ExchangeResponse


class ClusterResponse:
    """The head of a response and a way to read its body.

    Attributes:
        status: HTTP status code, an error of the cluster's own included.
        headers: Names and values in the cluster's order, duplicates kept.

    Raises:
        CoreError: The core's first message is not a response.
    """

    def __init__(self, exchange: Exchange, first: ExchangeResponse) -> None:
        self._exchange = exchange
        if not first.HasField("head"):
            raise CoreError(
                "INTERNAL",
                "the routing core answered without a head",
                hop="CORE",
                hint="Check that client and core are of the same release.",
            )
        self._first: ExchangeResponse | None = first
        self.status: int = first.head.status
        self.headers: Sequence[tuple[str, str]] = [
            (header.name.decode("latin-1"), header.value.decode("latin-1")) for header in first.head.headers
        ]

    def header(self, name: str) -> str | None:
        """Return the first value of a header, or None; names have no case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            CoreError: The body was cut; what was yielded is not all of it.
        """
        message, self._first = self._first, None
        while message is not None:
            if message.body:
                yield message.body
            if message.HasField("end"):
                return
            message = await self._exchange.receive()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the body's lines without their ends: the events of a watch in JSON, or a log. Raises as `chunks`."""
        rest = b""
        async for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line
        if rest:
            yield rest

    async def read(self) -> bytes:
        """Return the whole body. Raises as `chunks`."""
        return b"".join([chunk async for chunk in self.chunks()])
