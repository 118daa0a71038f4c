"""What can go wrong with local control planes, one class for each thing the reader would do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class ControlPlaneError(Exception):
    """A local control plane cannot be built, started or used; the message says what to do, in a sentence."""


class ProgramsUnavailableError(ControlPlaneError):
    """A program is neither installed nor buildable, because something needed to build it is missing."""


class GoUnavailableError(ProgramsUnavailableError):
    """Programs must be built and there is no Go, or only one that is too old."""


class BuildFailedError(ControlPlaneError):
    """Go ran and failed.

    Attributes:
        program: Name of the program that was being built.
        log: File with everything that Go printed.
    """

    def __init__(self, message: str, *, program: str, log: Path) -> None:
        super().__init__(message)
        self.program = program
        self.log = log


class PortInUseError(ControlPlaneError):
    """A port that was asked for belongs to another program.

    Attributes:
        port: The port.
    """

    def __init__(self, port: int) -> None:
        super().__init__(
            f"port {port} on 127.0.0.1 is in use: stop the program that listens there or choose another port"
        )
        self.port = port


class ProcessDiedError(ControlPlaneError):
    """A process ended although nobody had stopped it.

    Attributes:
        name: Name of the process, such as "hub-apiserver".
        exit_code: Its exit code; the negative signal number if a signal ended it.
        log: File with its output.
    """

    def __init__(self, message: str, *, name: str, exit_code: int, log: Path) -> None:
        super().__init__(message)
        self.name = name
        self.exit_code = exit_code
        self.log = log


class NotReadyError(ControlPlaneError):
    """Something did not come about before its deadline; the process it depends on is still running."""


class CommandTimeoutError(ControlPlaneError):
    """A command was still running at its deadline and has been killed."""
