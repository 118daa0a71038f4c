"""Free ports on loopback."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import TYPE_CHECKING

from cluster_gateway.control_planes.errors import ControlPlaneError, PortInUseError

if TYPE_CHECKING:
    from collections.abc import Generator

LOOPBACK = "127.0.0.1"

_RANGE = range(20000, 32768)
"""Below the ports Linux gives to outgoing connections (32768 and up), so that none of those takes a port
between our choice and the moment the program listens on it."""

_ATTEMPTS = 200


@contextlib.contextmanager
def _bound(port: int) -> Generator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # Connections that have just ended linger on a port that is free to listen on.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen(1)
        except OSError as error:
            raise PortInUseError(port) from error
        yield


def require_free_port(port: int) -> int:
    """Check that a program could listen on a port of 127.0.0.1 now.

    Returns:
        The same port.

    Raises:
        PortInUseError: Something listens there, or this user may not.
    """
    with _bound(port):
        return port


def pick_free_ports(count: int) -> tuple[int, ...]:
    """Choose different ports of 127.0.0.1 on which nothing listens.

    They are not reserved: start the programs soon.

    Raises:
        ControlPlaneError: No free ports were found.
    """
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for port in random.sample(_RANGE, _ATTEMPTS):
            if len(ports) == count:
                return tuple(ports)
            with contextlib.suppress(PortInUseError):
                held.enter_context(_bound(port))
                ports.append(port)
    message = f"no {count} free ports were found between {_RANGE.start} and {_RANGE.stop - 1} on {LOOPBACK}"
    raise ControlPlaneError(message)
