"""A listener that takes no more connections."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

_FILLERS = 4


@contextlib.contextmanager
def full_backlog() -> Generator[int]:
    """A port of 127.0.0.1 whose connection attempts are swallowed, as by a firewall that drops."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(_FILLERS):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003 - the standard library's signature
            filler.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])
