"""One of the two processes of `apiserver`: `python -m cluster_gateway.child core`, or `facade`.

Not for people: settings arrive on standard input, which then tells, by its end, that the supervisor is gone.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from cluster_gateway.handover import decode_settings
from cluster_gateway.logging import configure_logging
from cluster_gateway_core.settings import CoreSettings
from cluster_gateway_facade.settings import FacadeSettings

if TYPE_CHECKING:
    from collections.abc import Callable

_ORPHANED = 1
_READ_BYTES = 4096


def main(role: str) -> int:
    """Run a core or a facade until it ends or the supervisor is gone.

    Args:
        role: "core" or "facade".

    Returns:
        The exit status.
    """
    lifeline = take_standard_input()
    line = read_line(lifeline)
    if not line.endswith(b"\n"):
        return _ORPHANED
    return _run_core(lifeline, line) if role == "core" else _run_facade(lifeline, line)


def take_standard_input() -> int:
    """Move standard input to a descriptor that is not inherited, and leave /dev/null in its place."""
    lifeline = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return lifeline


def read_line(descriptor: int) -> bytes:
    """Read up to the first line break, or to the end if there is none."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(descriptor, _READ_BYTES)
        if not chunk:
            break
        line += chunk
    return line


def follow_lifeline(lifeline: int, when_cut: Callable[[], object]) -> None:
    """Wait, in a thread, for the end of the lifeline.

    A pipe works on every system, and against every way for the supervisor to go, SIGKILL included.

    Args:
        lifeline: The reading end.
        when_cut: Called in that thread at the end.
    """

    def wait() -> None:
        while os.read(lifeline, _READ_BYTES):
            pass
        when_cut()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def _run_core(lifeline: int, line: bytes) -> int:
    settings, verbosity = decode_settings(line, CoreSettings)
    configure_logging(role="core", verbosity=verbosity)
    follow_lifeline(lifeline, lambda: _end_orphaned(settings.serving.unix_socket))
    from cluster_gateway_core.app import run_core  # noqa: PLC0415 - the lifeline is followed before this loads

    return run_core(settings)


def _run_facade(lifeline: int, line: bytes) -> int:
    settings, verbosity = decode_settings(line, FacadeSettings)
    configure_logging(role="facade", verbosity=verbosity)
    follow_lifeline(lifeline, lambda: _end_orphaned(None))
    from cluster_gateway_facade.app import run_facade  # noqa: PLC0415 - as above

    return run_facade(settings)


def _end_orphaned(socket_path: str | None) -> None:
    """End at once: without its supervisor nobody restarts, stops or cleans up after this process."""
    logging.getLogger(__name__).error("the supervisor is gone; ending")
    if socket_path is not None:
        # The supervisor's private directory, which holds nothing else than what the two shared.
        shutil.rmtree(Path(socket_path).parent, ignore_errors=True)
    os._exit(_ORPHANED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
