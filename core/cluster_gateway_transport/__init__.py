"""What both processes do alike with connections: TLS that is bounded in what it holds, and who is at the other end."""

from cluster_gateway_transport.pieces import PIECES
from cluster_gateway_transport.tls import TLSConnection

__all__ = ["PIECES", "TLSConnection"]
