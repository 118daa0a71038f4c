"""Bytes on TLS connections, for both processes: like asyncio's TLS, but bounded in what it holds."""

from cluster_gateway_transport.pieces import PIECES
from cluster_gateway_transport.tls import TLSConnection

__all__ = ["PIECES", "TLSConnection"]
