"""Peers of a TCP connection that vanish, and peers that live and are slow."""

from __future__ import annotations

import socket


def notice_dead_peer(sock: socket.socket, seconds: float) -> None:
    """Have the system end a connection whose other side has been silent for so long, though it was asked.

    Half of the time may pass in silence before it asks, then three times. Bytes that nobody acknowledges count as well.
    What a listener accepts inherits it. Source: tcp(7), TCP_KEEPIDLE, TCP_USER_TIMEOUT.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle, interval = max(1, int(seconds / 2)), max(1, int(seconds / 6))
    options = {"TCP_KEEPIDLE": idle, "TCP_KEEPINTVL": interval, "TCP_KEEPCNT": 3}
    for name, value in (options | {"TCP_USER_TIMEOUT": int(seconds * 1000)}).items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def tolerate_slow_peer(sock: socket.socket) -> None:
    """Let a peer that lives leave bytes unread for as long as it likes, as in a tunnel to a stopped program.

    With TCP_USER_TIMEOUT the system would end the connection though the peer answers its probes.
    Source: net/ipv4/tcp_timer.c, tcp_probe_timer.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
